//! Arrow columns as bytes and back, and a schema likewise.
//!
//! The bytes are an Arrow IPC stream with one batch: every type that Arrow has can be stored, nested ones included, and
//! the format is specified and stable. Buffers inside it stand on 64-byte boundaries, so a column that was read into one
//! aligned buffer is decoded without a copy: its arrays point into that buffer. Arrow validates what it decodes
//! (offsets, UTF-8), so damaged bytes that slipped past a checksum could give wrong values but no broken array.
//!
//! Left out: compression. Vectors of floats do not compress, and a scan should cost what memory costs.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions};
use arrow::buffer::Buffer;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::ipc::reader::{StreamDecoder, StreamReader};
use arrow::ipc::writer::StreamWriter;

use crate::error::{Result, StorageError};

/// Encodes columns of equal length.
pub(crate) fn encode(columns: &[ArrayRef]) -> Result<Vec<u8>> {
    let fields: Vec<Field> =
        columns.iter().map(|column| Field::new("", column.data_type().clone(), true)).collect();
    let columns = columns.iter().map(compact_views).collect();
    let schema = Arc::new(Schema::new(fields));
    let batch = RecordBatch::try_new(schema, columns).map_err(StorageError::arrow("encode"))?;
    write_stream(&batch.schema(), Some(&batch)).map_err(StorageError::arrow("encode"))
}

/// Decodes what [`encode`] made; `rows` and `types` are what the caller expects to find. `name` says which record it
/// was, for the error.
pub(crate) fn decode(
    bytes: Buffer,
    rows: usize,
    types: &[&DataType],
    name: impl Fn() -> String,
) -> Result<Vec<ArrayRef>> {
    let damaged = |detail: String| StorageError::corrupt(format!("{} {detail}", name()));
    let batch =
        read_one_batch(bytes).map_err(|error| damaged(format!("does not decode: {error}")))?;
    let batch = batch.ok_or_else(|| damaged("holds no rows".to_owned()))?;
    if batch.num_rows() != rows {
        return Err(damaged(format!("has {} rows instead of {rows}", batch.num_rows())));
    }
    if batch.num_columns() != types.len() {
        return Err(damaged(format!(
            "has {} columns instead of {}",
            batch.num_columns(),
            types.len()
        )));
    }
    for (column, expected) in batch.columns().iter().zip(types) {
        if column.data_type() != *expected {
            return Err(damaged(format!(
                "is of type {} instead of {expected}",
                column.data_type()
            )));
        }
    }
    Ok(batch.columns().to_vec())
}

/// Encodes a schema with its fields' metadata.
pub(crate) fn encode_schema(schema: &Schema) -> Result<Vec<u8>> {
    write_stream(schema, None).map_err(StorageError::arrow("encode"))
}

/// Decodes what [`encode_schema`] made.
pub(crate) fn decode_schema(bytes: &[u8], name: impl Fn() -> String) -> Result<SchemaRef> {
    StreamReader::try_new(bytes, None).map(|reader| reader.schema()).map_err(|error| {
        StorageError::corrupt(format!("the schema of {} does not decode: {error}", name()))
    })
}

/// Brings a batch to a table's schema: same number of columns, the same types but for the names and metadata inside
/// nested ones, and no NULL where the schema takes none.
pub(crate) fn fit(table: &str, schema: &SchemaRef, batch: &RecordBatch) -> Result<RecordBatch> {
    let mismatch = |detail| StorageError::SchemaMismatch { table: table.to_owned(), detail };
    if batch.num_columns() != schema.fields().len() {
        return Err(mismatch(format!(
            "{} columns instead of {}",
            batch.num_columns(),
            schema.fields().len()
        )));
    }
    let mut columns = Vec::with_capacity(batch.num_columns());
    for (column, field) in batch.columns().iter().zip(schema.fields()) {
        if !field.is_nullable() && column.logical_null_count() > 0 {
            return Err(StorageError::NotNull {
                table: table.to_owned(),
                column: field.name().clone(),
            });
        }
        let column = if column.data_type() == field.data_type() {
            Arc::clone(column)
        } else if column.data_type().equals_datatype(field.data_type()) {
            cast(column, field.data_type())
                .map_err(|error| mismatch(format!("column \"{}\": {error}", field.name())))?
        } else {
            return Err(mismatch(format!(
                "column \"{}\" is {} instead of {}",
                field.name(),
                column.data_type(),
                field.data_type()
            )));
        };
        columns.push(column);
    }
    batch_of(schema, columns, batch.num_rows())
}

/// A batch of a known number of rows, also with no columns at all.
pub(crate) fn batch_of(
    schema: &SchemaRef,
    columns: Vec<ArrayRef>,
    rows: usize,
) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)
        .map_err(StorageError::arrow("assemble"))
}

/// The schema of a projection.
pub(crate) fn project(schema: &SchemaRef, projection: Option<&[usize]>) -> Result<SchemaRef> {
    match projection {
        None => Ok(Arc::clone(schema)),
        Some(columns) => {
            Ok(Arc::new(schema.project(columns).map_err(StorageError::arrow("choose"))?))
        }
    }
}

/// Bytes that the rows of a batch really take, also when it is a slice of something larger.
pub(crate) fn slice_bytes(batch: &RecordBatch) -> usize {
    batch
        .columns()
        .iter()
        .map(|column| {
            let data = column.to_data();
            data.get_slice_memory_size().unwrap_or_else(|_| data.get_array_memory_size())
        })
        .sum()
}

/// A view array may hang on to buffers far larger than its strings; only these are to be written.
fn compact_views(column: &ArrayRef) -> ArrayRef {
    if let Some(texts) = column.as_string_view_opt() {
        Arc::new(texts.gc())
    } else if let Some(bytes) = column.as_binary_view_opt() {
        Arc::new(bytes.gc())
    } else {
        Arc::clone(column)
    }
}

fn write_stream(
    schema: &Schema,
    batch: Option<&RecordBatch>,
) -> Result<Vec<u8>, arrow::error::ArrowError> {
    let mut writer = StreamWriter::try_new(Vec::new(), schema)?;
    if let Some(batch) = batch {
        writer.write(batch)?;
    }
    writer.into_inner()
}

fn read_one_batch(mut bytes: Buffer) -> Result<Option<RecordBatch>, arrow::error::ArrowError> {
    let mut decoder = StreamDecoder::new();
    let mut found = None;
    while !bytes.is_empty() {
        match decoder.decode(&mut bytes)? {
            Some(batch) if found.is_none() => found = Some(batch),
            Some(_) => {
                return Err(arrow::error::ArrowError::IpcError("more than one batch".to_owned()));
            }
            None => {}
        }
    }
    decoder.finish()?;
    Ok(found)
}
