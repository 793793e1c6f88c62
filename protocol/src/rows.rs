//! Rows on their way out: record batches as DataRow or CopyData messages, at most about 64 KiB of them at a time.
//!
//! A result is never collected. A batch is taken from the session's stream, its rows are encoded until the output buffer
//! is full, the buffer is written, and only then does encoding go on: a client that reads slowly slows the statement.

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Schema};
use bytes::{BufMut, BytesMut};
use futures::StreamExt;
use tokio_util::sync::CancellationToken;

use crate::backend::{RowStream, RowsTag};
use crate::client::{Client, Failure, canceled, guarded};
use crate::copy::CopyEncoder;
use crate::error::{SqlError, SqlState};
use crate::messages::format_of;
use crate::types::{self, Format, TextStyle, TypePlan};

/// Writes rows as DataRow messages.
pub(crate) struct DataRowEncoder {
    columns: Vec<(TypePlan, Format)>,
    style: TextStyle,
}

impl DataRowEncoder {
    pub(crate) fn new(schema: &Schema, formats: &[Format], style: TextStyle) -> DataRowEncoder {
        let columns = schema
            .fields()
            .iter()
            .enumerate()
            .map(|(index, field)| (TypePlan::of(field), format_of(formats, index)))
            .collect();
        DataRowEncoder { columns, style }
    }

    fn write_row(
        &self,
        batch: &RecordBatch,
        row: usize,
        out: &mut BytesMut,
    ) -> Result<(), SqlError> {
        out.put_u8(b'D');
        let start = out.len();
        out.put_i32(0);
        out.put_u16(self.columns.len() as u16);
        for (array, (plan, format)) in batch.columns().iter().zip(&self.columns) {
            types::write_sized(out, |out| match format {
                Format::Text => Ok(types::write_text(array.as_ref(), row, plan, &self.style, out)),
                Format::Binary => types::write_binary(array.as_ref(), row, plan, &self.style, out),
            })?;
        }
        end_message(out, start)
    }
}

/// Puts a message's length where it belongs.
pub(crate) fn end_message(out: &mut BytesMut, start: usize) -> Result<(), SqlError> {
    let length = i32::try_from(out.len() - start)
        .map_err(|_| SqlError::new(SqlState::PROGRAM_LIMIT_EXCEEDED, "row is larger than 2 GB"))?;
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
    Ok(())
}

/// How rows are written.
pub(crate) enum RowWriter {
    Data(DataRowEncoder),
    Copy(CopyEncoder),
}

impl RowWriter {
    fn columns(&self) -> usize {
        match self {
            RowWriter::Data(encoder) => encoder.columns.len(),
            RowWriter::Copy(encoder) => encoder.columns(),
        }
    }

    fn write_row(
        &self,
        batch: &RecordBatch,
        row: usize,
        out: &mut BytesMut,
    ) -> Result<(), SqlError> {
        match self {
            RowWriter::Data(encoder) => encoder.write_row(batch, row, out),
            RowWriter::Copy(encoder) => encoder.write_row(batch, row, out),
        }
    }

    /// Writes rows from `from` on until there are `limit` or the output has grown to `full` bytes. What a failing row has
    /// left is taken back.
    fn write_rows(
        &self,
        batch: &RecordBatch,
        from: usize,
        limit: u64,
        full: usize,
        out: &mut BytesMut,
    ) -> Result<usize, SqlError> {
        let mut whole = out.len();
        let result = guarded(|| {
            let mut row = from;
            while row < batch.num_rows() && ((row - from) as u64) < limit && out.len() < full {
                whole = out.len();
                self.write_row(batch, row, out)?;
                row += 1;
            }
            Ok(row - from)
        });
        if result.is_err() {
            out.truncate(whole);
        }
        result
    }
}

/// A result that is being sent.
pub(crate) struct Rows {
    stream: RowStream,
    writer: RowWriter,
    tag: RowsTag,
    /// Where the result's columns have other types than were described: the types to convert to.
    casts: Vec<Option<DataType>>,
    cancel: CancellationToken,
    current: Option<(RecordBatch, usize)>,
}

/// How far sending got.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    /// So many rows, and there are no more.
    All(u64),
    /// As many rows as were asked for.
    Some(u64),
}

impl Rows {
    pub(crate) fn new(
        stream: RowStream,
        writer: RowWriter,
        tag: RowsTag,
        casts: Vec<Option<DataType>>,
        cancel: CancellationToken,
    ) -> Rows {
        Rows { stream, writer, tag, casts, cancel, current: None }
    }

    pub(crate) fn tag(&self) -> &RowsTag {
        &self.tag
    }

    pub(crate) fn cancel(&self) -> &CancellationToken {
        &self.cancel
    }

    /// Sends up to `limit` rows.
    pub(crate) async fn send(&mut self, client: &mut Client, limit: u64) -> Result<Sent, Failure> {
        let mut sent = 0;
        loop {
            if sent == limit {
                return Ok(Sent::Some(sent));
            }
            let Some((batch, next)) = &mut self.current else {
                match self.next_batch(client).await? {
                    Some(batch) => self.current = Some((batch, 0)),
                    None => return Ok(Sent::All(sent)),
                }
                continue;
            };
            let full = crate::wire::FLUSH_BYTES;
            let written =
                self.writer.write_rows(batch, *next, limit - sent, full, client.wire.output())?;
            *next += written;
            sent += written as u64;
            if *next == batch.num_rows() {
                self.current = None;
            }
            if client.wire.is_full() {
                client.flush_rows(&self.cancel).await?;
            }
        }
    }

    async fn next_batch(&mut self, client: &mut Client) -> Result<Option<RecordBatch>, Failure> {
        let stream = &mut self.stream;
        let next = async { stream.next().await.transpose() };
        let batch = client.run_behind_rows(&self.cancel, next).await?;
        // A stream that takes no notice of its token is stopped here.
        if self.cancel.is_cancelled() {
            return Err(canceled().into());
        }
        let Some(batch) = batch else {
            return Ok(None);
        };
        if batch.num_columns() != self.writer.columns() {
            return Err(SqlError::new(
                SqlState::INTERNAL_ERROR,
                format!(
                    "a result of {} columns has a batch of {}",
                    self.writer.columns(),
                    batch.num_columns()
                ),
            )
            .into());
        }
        Ok(Some(self.cast(batch)?))
    }

    fn cast(&self, batch: RecordBatch) -> Result<RecordBatch, SqlError> {
        if self.casts.iter().all(Option::is_none) {
            return Ok(batch);
        }
        let columns = batch.columns().iter().zip(&self.casts);
        let columns = columns
            .map(|(array, cast)| match cast {
                Some(data_type) => types::cast_to(array.clone(), data_type),
                None => Ok(array.clone()),
            })
            .collect::<Result<Vec<_>, _>>()?;
        let fields: Vec<_> = columns
            .iter()
            .zip(batch.schema_ref().fields())
            .map(|(array, field)| {
                field.as_ref().clone().with_data_type(array.data_type().clone()).with_nullable(true)
            })
            .collect();
        RecordBatch::try_new(Schema::new(fields).into(), columns).map_err(|error| {
            SqlError::new(
                SqlState::INTERNAL_ERROR,
                format!("a result cannot be converted: {error}"),
            )
        })
    }
}

impl Drop for Rows {
    /// Whatever still works for this result is told that nobody waits for it.
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}
