//! COPY's binary format, read.
//!
//! ```text
//! PGCOPY \n \xff \r \n \0    flags    length of an extension    the extension
//! for each row:  number of columns (i16), for each of them its length (i32; -1: NULL) and its bytes
//! -1 (i16)
//! ```
//!
//! Numbers are big-endian; values have the binary form that parameters have. Every length is a claim that is held against
//! a limit before room is made for it.

use arrow::array::{ArrayRef, new_null_array};
use arrow::compute::concat;
use async_trait::async_trait;
use bytes::{Buf, Bytes, BytesMut};
use thanosql_protocol::types::parse_binary;
use thanosql_protocol::{CopySink, SqlError, SqlState};

use crate::error::arrow_error;
use crate::exec::Control;
use crate::exec::append::{Appender, CHUNK_BYTES, CHUNK_ROWS, Chunk, Places, placed};

const SIGNATURE: &[u8; 11] = b"PGCOPY\n\xff\r\n\0";
/// The flag of data with object ids, which no PostgreSQL since 12 writes.
const FLAG_OIDS: u32 = 1 << 16;
/// Flags that a reader must know.
const CRITICAL_FLAGS: u32 = 0xffff_0000;
/// The longest value that is taken.
const MAX_VALUE_BYTES: usize = 64 << 20;

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expect {
    Header,
    Extension(usize),
    Row,
    /// The length of the value of this column.
    Length(usize),
    /// So many bytes of the value of this column.
    Value(usize, usize),
    /// The end was seen.
    Nothing,
}

/// Reads the binary format.
pub(super) struct BinaryReader {
    control: Control,
    appender: Appender,
    expect: Expect,
    pending: BytesMut,
    /// Values by the data's column, until a chunk is full; arrays of one value.
    columns: Vec<Vec<ArrayRef>>,
    /// The number of the row that is being read, from 1.
    row: u64,
    /// Rows in `columns`, and their bytes.
    rows: usize,
    bytes: usize,
}

impl BinaryReader {
    pub(super) fn new(appender: Appender, control: Control) -> BinaryReader {
        BinaryReader {
            control,
            expect: Expect::Header,
            pending: BytesMut::new(),
            columns: vec![Vec::new(); appender.targets.len()],
            row: 1,
            rows: 0,
            bytes: 0,
            appender,
        }
    }

    /// Takes one thing off the front of what has come. `false` if not all of it is there.
    fn step(&mut self) -> Result<bool, SqlError> {
        let here = self.pending.len();
        match self.expect {
            Expect::Header => {
                let known = here.min(SIGNATURE.len());
                if self.pending[..known] != SIGNATURE[..known] {
                    return Err(malformed("COPY file signature not recognized"));
                }
                if here < SIGNATURE.len() + 8 {
                    return Ok(false);
                }
                self.pending.advance(SIGNATURE.len());
                let flags = self.pending.get_u32();
                if flags & FLAG_OIDS != 0 {
                    return Err(malformed("invalid COPY file header (WITH OIDS)"));
                }
                if flags & CRITICAL_FLAGS != 0 {
                    return Err(malformed("unrecognized critical flags in COPY file header"));
                }
                let extension = usize::try_from(self.pending.get_i32())
                    .map_err(|_| malformed("invalid COPY file header (missing length)"))?;
                self.expect = Expect::Extension(extension);
            }
            // An extension is skipped as it comes: nobody has defined one yet.
            Expect::Extension(left) => {
                let skipped = left.min(here);
                self.pending.advance(skipped);
                if skipped < left {
                    self.expect = Expect::Extension(left - skipped);
                    return Ok(false);
                }
                self.expect = Expect::Row;
            }
            Expect::Row => {
                if here < 2 {
                    return Ok(false);
                }
                match self.pending.get_i16() {
                    -1 => self.expect = Expect::Nothing,
                    count if usize::try_from(count) == Ok(self.columns.len()) => {
                        self.begin(0)?;
                    }
                    count => {
                        let expected = self.columns.len();
                        return Err(self.placed(
                            malformed(format!("row field count is {count}, expected {expected}")),
                            None,
                        ));
                    }
                }
            }
            Expect::Length(column) => {
                if here < 4 {
                    return Ok(false);
                }
                match self.pending.get_i32() {
                    -1 => {
                        let field = self.appender.field(column);
                        self.columns[column].push(new_null_array(field.data_type(), 1));
                        self.begin(column + 1)?;
                    }
                    length => {
                        let length = usize::try_from(length)
                            .map_err(|_| self.placed(malformed("invalid field size"), None))?;
                        if length > MAX_VALUE_BYTES {
                            let error = SqlError::new(
                                SqlState::PROGRAM_LIMIT_EXCEEDED,
                                format!(
                                    "a value of the data is longer than {MAX_VALUE_BYTES} bytes"
                                ),
                            );
                            return Err(self.placed(error, Some(column)));
                        }
                        self.expect = Expect::Value(column, length);
                    }
                }
            }
            Expect::Value(column, length) => {
                if here < length {
                    return Ok(false);
                }
                let value = self.pending.split_to(length);
                let parsed = parse_binary(&value, self.appender.field(column))
                    .map_err(|error| self.placed(error, Some(column)))?;
                self.columns[column].push(parsed);
                self.bytes += length;
                self.begin(column + 1)?;
            }
            Expect::Nothing => {
                if here > 0 {
                    return Err(malformed("received copy data after EOF marker"));
                }
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Goes on with a column of the row, or with the next row.
    fn begin(&mut self, column: usize) -> Result<(), SqlError> {
        if column < self.columns.len() {
            self.expect = Expect::Length(column);
            return Ok(());
        }
        self.expect = Expect::Row;
        self.row += 1;
        self.rows += 1;
        if self.rows >= CHUNK_ROWS || self.bytes >= CHUNK_BYTES {
            self.store()?;
        }
        Ok(())
    }

    fn store(&mut self) -> Result<(), SqlError> {
        let count = std::mem::take(&mut self.rows);
        self.bytes = 0;
        if count == 0 {
            return Ok(());
        }
        let mut columns = Vec::with_capacity(self.columns.len());
        for values in &mut self.columns {
            let values = std::mem::take(values);
            let parts: Vec<_> = values.iter().map(AsRef::as_ref).collect();
            columns.push(concat(&parts).map_err(arrow_error)?);
        }
        let first = self.row - count as u64;
        self.appender.store(Chunk { columns, places: Places::Rows { first, count } })
    }

    fn placed(&self, error: SqlError, column: Option<usize>) -> SqlError {
        let name = column.map(|column| self.appender.field(column).name().as_str());
        placed(error, &self.appender.table, &format!("row {}", self.row), name)
    }
}

fn malformed(message: impl Into<String>) -> SqlError {
    SqlError::new(SqlState::BAD_COPY_FILE_FORMAT, message)
}

#[async_trait]
impl CopySink for BinaryReader {
    async fn write(&mut self, bytes: Bytes) -> Result<(), SqlError> {
        if self.control.cancel.is_cancelled() {
            return Err(self.control.stopped());
        }
        self.pending.extend_from_slice(&bytes);
        while self.step()? {}
        Ok(())
    }

    async fn finish(mut self: Box<Self>) -> Result<String, SqlError> {
        while self.step()? {}
        match self.expect {
            // Data may end without its end marker, as PostgreSQL allows.
            Expect::Nothing => {}
            Expect::Row if self.pending.is_empty() => {}
            Expect::Header => return Err(malformed("COPY file signature not recognized")),
            Expect::Extension(_) | Expect::Row | Expect::Length(_) | Expect::Value(..) => {
                return Err(self.placed(malformed("unexpected EOF in COPY data"), None));
            }
        }
        self.store()?;
        Ok(format!("COPY {}", self.appender.rows))
    }
}
