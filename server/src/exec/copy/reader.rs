//! What a client's bytes, or a file's, go into in COPY FROM: text and csv here, binary in [`super::binary`].

use async_trait::async_trait;
use bytes::Bytes;
use thanosql_protocol::{CopySink, SqlError, SqlState};

use super::columns::CellColumn;
use super::text::{Cell, Layout, LineCutter};
use crate::exec::Control;
use crate::exec::append::{Appender, CHUNK_BYTES, CHUNK_ROWS, Chunk, Places, placed};
use crate::sql::CopyHeader;

/// Reads text and csv.
pub(super) struct TextReader {
    control: Control,
    cutter: LineCutter,
    rows: Lines,
}

/// Lines on their way into a table.
struct Lines {
    appender: Appender,
    layout: Layout,
    /// Values by the data's column, until a chunk is full.
    columns: Vec<CellColumn>,
    /// The line of each row in them.
    numbers: Vec<u64>,
    bytes: usize,
    header: bool,
    /// `\.` was seen.
    ended: bool,
}

impl TextReader {
    pub(super) fn new(appender: Appender, layout: Layout, control: Control) -> TextReader {
        let columns = appender.targets.iter().map(|_| CellColumn::default()).collect();
        let header = layout.header != CopyHeader::No;
        TextReader {
            control,
            cutter: LineCutter::new(&layout),
            rows: Lines {
                appender,
                layout,
                columns,
                numbers: Vec::new(),
                bytes: 0,
                header,
                ended: false,
            },
        }
    }
}

#[async_trait]
impl CopySink for TextReader {
    async fn write(&mut self, bytes: Bytes) -> Result<(), SqlError> {
        if self.control.cancel.is_cancelled() {
            return Err(self.control.stopped());
        }
        self.cutter.push(&bytes)?;
        while let Some(line) = self.cutter.next() {
            self.rows.take(line.number, line.bytes)?;
        }
        Ok(())
    }

    async fn finish(mut self: Box<Self>) -> Result<String, SqlError> {
        if let Some(line) = self.cutter.rest() {
            self.rows.take(line.number, line.bytes)?;
        }
        self.rows.store()?;
        Ok(format!("COPY {}", self.rows.appender.rows))
    }
}

impl Lines {
    fn take(&mut self, number: u64, line: &[u8]) -> Result<(), SqlError> {
        if self.ended {
            return Ok(());
        }
        if line == b"\\." {
            self.ended = true;
            return Ok(());
        }
        let place = |error| placed(error, &self.appender.table, &format!("line {number}"), None);
        let cells = self.layout.split(line).map_err(place)?;
        if std::mem::take(&mut self.header) {
            return self.check_header(&cells);
        }
        if cells.len() != self.columns.len() {
            let message = if cells.len() > self.columns.len() {
                "extra data after last expected column".to_string()
            } else {
                let missing = self.appender.field(cells.len()).name();
                format!("missing data for column \"{missing}\"")
            };
            return Err(place(SqlError::new(SqlState::BAD_COPY_FILE_FORMAT, message)));
        }
        for (index, (column, cell)) in self.columns.iter_mut().zip(&cells).enumerate() {
            if *cell == Cell::Default && !self.appender.has_default(index) {
                let name = self.appender.field(index).name();
                let error = SqlError::new(
                    SqlState::BAD_COPY_FILE_FORMAT,
                    "unexpected default marker in COPY data",
                )
                .with_detail(format!("Column \"{name}\" has no default value."));
                return Err(place(error));
            }
            column.push(cell);
        }
        self.numbers.push(number);
        self.bytes += line.len();
        if self.numbers.len() >= CHUNK_ROWS || self.bytes >= CHUNK_BYTES {
            self.store()?;
        }
        Ok(())
    }

    fn check_header(&self, cells: &[Cell]) -> Result<(), SqlError> {
        if self.layout.header != CopyHeader::Match {
            return Ok(());
        }
        let expected = (0..self.columns.len()).map(|index| self.appender.field(index).name());
        let given = cells.iter().map(|cell| match cell {
            Cell::Text(text) => Some(text),
            Cell::Null | Cell::Default => None,
        });
        if given.eq(expected.map(Some)) {
            return Ok(());
        }
        Err(SqlError::new(
            SqlState::BAD_COPY_FILE_FORMAT,
            "the header line does not name the table's columns",
        ))
    }

    /// Stores the lines that were taken.
    fn store(&mut self) -> Result<(), SqlError> {
        let places = Places::Lines(std::mem::take(&mut self.numbers));
        self.bytes = 0;
        let mut columns = Vec::with_capacity(self.columns.len());
        for (index, column) in self.columns.iter_mut().enumerate() {
            let field = self.appender.field(index);
            let defaults = |count| self.appender.default_values(index, count);
            columns.push(column.take(field.data_type(), Some(&defaults)).map_err(|bad| {
                let name = Some(field.name().as_str());
                placed(*bad.error, &self.appender.table, &places.of(bad.row), name)
            })?);
        }
        self.appender.store(Chunk { columns, places })
    }
}
