//! What a client's bytes, or a file's, go into in COPY FROM: text and csv here, binary in [`super::binary`].

use async_trait::async_trait;
use bytes::Bytes;
use thanosql_protocol::{CopySink, SqlError, SqlState};

use super::columns::Cells;
use super::text::{Cell, Layout, LineCutter};
use crate::exec::Control;
use crate::exec::append::{Appender, placed};
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
    cells: Cells,
    header: bool,
    /// `\.` was seen.
    ended: bool,
}

impl TextReader {
    pub(super) fn new(appender: Appender, layout: Layout, control: Control) -> TextReader {
        let header = layout.header != CopyHeader::No;
        TextReader {
            control,
            cutter: LineCutter::new(&layout),
            rows: Lines {
                cells: Cells::new(appender.targets.len()),
                appender,
                layout,
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
        let expected = self.appender.targets.len();
        if cells.len() != expected {
            let message = if cells.len() > expected {
                "extra data after last expected column".to_string()
            } else {
                let missing = self.appender.field(cells.len()).name();
                format!("missing data for column \"{missing}\"")
            };
            return Err(place(SqlError::new(SqlState::BAD_COPY_FILE_FORMAT, message)));
        }
        for (index, cell) in cells.iter().enumerate() {
            if *cell == Cell::Default && !self.appender.has_default(index) {
                let name = self.appender.field(index).name();
                let error = SqlError::new(
                    SqlState::BAD_COPY_FILE_FORMAT,
                    "unexpected default marker in COPY data",
                )
                .with_detail(format!("Column \"{name}\" has no default value."));
                return Err(place(error));
            }
        }
        self.cells.push(number, &cells, line.len());
        if self.cells.is_full() {
            self.store()?;
        }
        Ok(())
    }

    fn check_header(&self, cells: &[Cell]) -> Result<(), SqlError> {
        if self.layout.header != CopyHeader::Match {
            return Ok(());
        }
        let expected =
            (0..self.appender.targets.len()).map(|index| self.appender.field(index).name());
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
        let appender = &self.appender;
        let defaults = |column, count| appender.default_values(column, count);
        let chunk =
            self.cells.take(&appender.table, |column| appender.field(column), Some(&defaults))?;
        self.appender.store(chunk)
    }
}
