//! Parquet files, as ThanoSQL's COPY reads them.
//!
//! A file says what its columns are; each must have a counterpart among a table's types (groups and maps have none). Batches
//! are read one after the other, so that a file takes the memory of a batch and of the pages that it stands in. What a
//! file says beyond its types (the metadata of whoever wrote it) is not taken over.

#![allow(clippy::wildcard_enum_match_arm)] // the enums are other libraries', with far more variants than matter here

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::LogicalType;
use parquet::errors::ParquetError;
use thanosql_protocol::{SqlError, SqlState};

use super::assign;
use super::open_file;
use crate::error::arrow_error;
use crate::exec::append::{CHUNK_ROWS, Chunk, Places};
use crate::files::shown_name;

/// A Parquet file whose footer was read.
pub(super) struct ParquetFile {
    builder: ParquetRecordBatchReaderBuilder<File>,
    schema: SchemaRef,
    name: String,
}

impl ParquetFile {
    /// Reads the footer. Blocking.
    ///
    /// # Errors
    /// 22P04 for what is no Parquet file, 0A000 for one of a kind that is not read.
    pub(super) fn open(path: &Path) -> Result<ParquetFile, SqlError> {
        let name = shown_name(path).into_owned();
        guarded(&name, || Self::open_named(path, name.clone()))
    }

    fn open_named(path: &Path, name: String) -> Result<ParquetFile, SqlError> {
        let builder = ParquetRecordBatchReaderBuilder::try_new(open_file(path)?)
            .map_err(|error| parquet_error(&error, &name))?;
        let roots = builder.parquet_schema().root_schema().get_fields();
        let fields: Vec<Field> = builder
            .schema()
            .fields()
            .iter()
            .enumerate()
            .map(|(index, field)| {
                let logical =
                    roots.get(index).and_then(|root| root.get_basic_info().logical_type_ref());
                let data_type = match field.data_type() {
                    // Sixteen bytes are a uuid only where the file says so.
                    DataType::FixedSizeBinary(16) if logical != Some(&LogicalType::Uuid) => {
                        DataType::Binary
                    }
                    data_type => data_type.clone(),
                };
                Field::new(field.name(), data_type, true)
            })
            .collect();
        Ok(ParquetFile { builder, schema: Arc::new(Schema::new(fields)), name })
    }

    pub(super) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Hands over all rows as values of `fields`. Blocking.
    pub(super) fn read(
        self,
        table: &str,
        fields: &[Field],
        emit: &mut dyn FnMut(Chunk) -> Result<(), SqlError>,
    ) -> Result<(), SqlError> {
        let name = self.name;
        let builder = self.builder.with_batch_size(CHUNK_ROWS);
        let mut reader =
            guarded(&name, || builder.build().map_err(|error| parquet_error(&error, &name)))?;
        let mut first = 1;
        while let Some(batch) =
            guarded(&name, || reader.next().transpose().map_err(|error| broken(error, &name)))?
        {
            let count = batch.num_rows();
            let places = Places::Rows { first, count };
            let columns = assign::columns(table, batch.columns(), fields, &places)?;
            emit(Chunk { columns, places })?;
            first += count as u64;
        }
        Ok(())
    }
}

impl std::fmt::Debug for ParquetFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ParquetFile").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Runs what reads the file. The library trusts what some broken files say of themselves, and panics.
fn guarded<T>(name: &str, read: impl FnOnce() -> Result<T, SqlError>) -> Result<T, SqlError> {
    catch_unwind(AssertUnwindSafe(read))
        .unwrap_or_else(|_| Err(refused("the file contradicts itself", name)))
}

/// An error in the middle of a file.
fn broken(error: ArrowError, name: &str) -> SqlError {
    match error {
        ArrowError::ParquetError(message) => refused(&message, name),
        ArrowError::ExternalError(inner) => match inner.downcast::<ParquetError>() {
            Ok(error) => parquet_error(&error, name),
            Err(inner) => refused(&inner.to_string(), name),
        },
        error => SqlError { code: SqlState::BAD_COPY_FILE_FORMAT, ..arrow_error(error) },
    }
}

fn parquet_error(error: &ParquetError, name: &str) -> SqlError {
    match error {
        ParquetError::NYI(message) => unsupported(message, name),
        error => refused(&error.to_string(), name),
    }
}

fn refused(message: &str, name: &str) -> SqlError {
    if message.contains("Disabled feature") || message.contains("not yet implemented") {
        return unsupported(message, name);
    }
    SqlError::new(
        SqlState::BAD_COPY_FILE_FORMAT,
        format!("\"{name}\" is no Parquet file, or broken"),
    )
    .with_detail(first_line(message))
}

fn unsupported(message: &str, name: &str) -> SqlError {
    SqlError::new(
        SqlState::FEATURE_NOT_SUPPORTED,
        format!("\"{name}\" is a Parquet file of a kind that is not supported"),
    )
    .with_detail(first_line(message))
    .with_hint("Snappy, Zstandard, LZ4 and gzip are the compressions that are read.")
}

fn first_line(message: &str) -> String {
    message.lines().next().unwrap_or_default().to_string()
}

#[cfg(test)]
mod tests {
    use arrow::array::{
        ArrayRef, FixedSizeBinaryArray, Int64Array, RecordBatch, StringArray, StructArray,
        UInt64Array,
    };
    use parquet::arrow::ArrowWriter;
    use parquet::basic::{Compression, ZstdLevel};
    use parquet::file::properties::WriterProperties;

    use super::*;

    fn written(
        columns: Vec<(&str, ArrayRef)>,
        compression: Compression,
    ) -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.parquet");
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let properties = WriterProperties::builder().set_compression(compression).build();
        let file = File::create(&path).unwrap();
        let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties)).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        (folder, path)
    }

    fn count(path: &Path) -> Result<usize, SqlError> {
        let file = ParquetFile::open(path)?;
        let fields: Vec<Field> =
            file.schema().fields().iter().map(|field| field.as_ref().clone()).collect();
        let mut rows = 0;
        file.read("t", &fields, &mut |chunk| {
            rows += chunk.places.len();
            Ok(())
        })?;
        Ok(rows)
    }

    #[test]
    fn every_usual_compression_is_read() {
        for compression in [
            Compression::UNCOMPRESSED,
            Compression::SNAPPY,
            Compression::ZSTD(ZstdLevel::default()),
            Compression::LZ4_RAW,
            Compression::GZIP(Default::default()),
        ] {
            let values: ArrayRef = Arc::new(Int64Array::from_iter_values(0..10_000));
            let texts: ArrayRef =
                Arc::new(StringArray::from_iter_values((0..10_000).map(|n| format!("글 {n}"))));
            let (_folder, path) = written(vec![("a", values), ("이름", texts)], compression);
            let file = ParquetFile::open(&path).unwrap();
            assert_eq!(file.schema().field(1).name(), "이름");
            assert_eq!(count(&path).unwrap(), 10_000, "{compression:?}");
        }
    }

    #[test]
    fn types_are_taken_and_metadata_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.parquet");
        let evil = Field::new("a", DataType::Int64, true)
            .with_metadata([("default".to_string(), "1/0".to_string())].into_iter().collect());
        let schema =
            Arc::new(Schema::new(vec![evil, Field::new("b", DataType::FixedSizeBinary(16), true)]));
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from(vec![1])),
            Arc::new(FixedSizeBinaryArray::new(16, vec![0_u8; 16].into(), None)),
        ];
        let batch = RecordBatch::try_new(schema.clone(), columns).unwrap();
        let mut writer = ArrowWriter::try_new(File::create(&path).unwrap(), schema, None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        let file = ParquetFile::open(&path).unwrap();
        assert!(file.schema().field(0).metadata().is_empty());
        assert_eq!(file.schema().field(1).data_type(), &DataType::Binary);
    }

    #[test]
    fn what_does_not_fit_is_an_error_with_its_row() {
        let values: ArrayRef = Arc::new(UInt64Array::from(vec![1, u64::MAX]));
        let (_folder, path) = written(vec![("a", values)], Compression::SNAPPY);
        let file = ParquetFile::open(&path).unwrap();
        let fields = [Field::new("a", DataType::Int64, true)];
        let error = file.read("t", &fields, &mut |_| Ok(())).unwrap_err();
        assert_eq!(error.code, SqlState::NUMERIC_VALUE_OUT_OF_RANGE);
        assert_eq!(error.detail.as_deref(), Some("COPY t, row 2, column a"));
    }

    #[test]
    fn groups_have_no_counterpart() {
        let inner: ArrayRef = Arc::new(Int64Array::from(vec![1]));
        let field = Arc::new(Field::new("x", DataType::Int64, true));
        let group: ArrayRef = Arc::new(StructArray::from(vec![(field, inner)]));
        let (_folder, path) = written(vec![("group", group)], Compression::SNAPPY);
        let file = ParquetFile::open(&path).unwrap();
        let error = crate::exec::rowset::storable_schema(file.schema()).unwrap_err();
        assert_eq!(error.code, SqlState::FEATURE_NOT_SUPPORTED);
        assert!(error.message.contains("\"group\""));
    }

    #[test]
    fn broken_files_are_errors() {
        let values: ArrayRef =
            Arc::new(StringArray::from_iter_values((0..5_000).map(|n| n.to_string())));
        let (folder, path) = written(vec![("a", values)], Compression::SNAPPY);
        let whole = std::fs::read(&path).unwrap();
        assert_eq!(count(&path).unwrap(), 5_000);
        let broken = folder.path().join("broken.parquet");
        for bytes in [&b""[..], b"PAR1", b"PAR1PAR1", &whole[..whole.len() / 2], &whole[1..]] {
            std::fs::write(&broken, bytes).unwrap();
            let error = count(&broken).unwrap_err();
            assert_eq!(error.code, SqlState::BAD_COPY_FILE_FORMAT, "{} bytes", bytes.len());
        }
        // Wherever a byte is changed, the answer is rows or an error.
        for place in (0..whole.len()).step_by(97) {
            let mut bytes = whole.clone();
            bytes[place] ^= 0x55;
            std::fs::write(&broken, &bytes).unwrap();
            let outcome = std::panic::catch_unwind(|| count(&broken));
            if let Ok(Err(error)) = outcome {
                assert!(
                    [SqlState::BAD_COPY_FILE_FORMAT, SqlState::FEATURE_NOT_SUPPORTED]
                        .contains(&error.code),
                    "byte {place}: {error:?}"
                );
            }
        }
    }
}
