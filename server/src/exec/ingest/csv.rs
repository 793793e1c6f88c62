//! Csv files with a header, as ThanoSQL's COPY reads them: PostgreSQL's csv, with types inferred from all of the lines.
//!
//! A column has the narrowest of these types that holds every value: boolean, bigint, numeric, double precision, date,
//! timestamp, timestamptz, text. What would lose something as a number stays text: `007`, `+82 10`, digits without end. An
//! empty value is NULL, a quoted empty one an empty text. A line that is empty is no row, unless there is only one column.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use thanosql_protocol::types::parse_text;
use thanosql_protocol::{SqlError, SqlState};
use tokio_util::sync::CancellationToken;

use super::open_file;
use crate::error::{check_stop, io_error};
use crate::exec::append::Chunk;
use crate::exec::copy::columns::Cells;
use crate::exec::copy::text::{Cell, Layout, LineCutter};
use crate::files::shown_name;

/// Bytes that are read at once.
const READ_BYTES: usize = 256 * 1024;
/// The most digits of a numeric.
const NUMERIC_DIGITS: usize = 38;

/// A csv file whose header was read.
#[derive(Debug)]
pub(super) struct CsvFile {
    path: PathBuf,
    names: Vec<String>,
}

impl CsvFile {
    /// Reads the header. Blocking.
    ///
    /// # Errors
    /// 22P04 for a file without one.
    pub(super) fn open(path: PathBuf, stop: &CancellationToken) -> Result<CsvFile, SqlError> {
        let mut names = None;
        for_each_line(&path, stop, &mut |_, cells| {
            names = Some(
                cells
                    .into_iter()
                    .map(|cell| match cell {
                        Cell::Text(name) => name.trim().to_string(),
                        Cell::Null | Cell::Default => String::new(),
                    })
                    .collect(),
            );
            Ok(false)
        })
        .map_err(|error| in_file(error, &path))?;
        match names {
            Some(names) => Ok(CsvFile { path, names }),
            None => Err(in_file(
                SqlError::new(SqlState::BAD_COPY_FILE_FORMAT, "the file is empty")
                    .with_hint("The first line of a .csv file names its columns."),
                &path,
            )),
        }
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(String::as_str)
    }

    /// The types that hold every value. Blocking: reads the whole file.
    ///
    /// # Errors
    /// 22P04 for a line with more or fewer values than the header.
    pub(super) fn infer(&self, stop: &CancellationToken) -> Result<SchemaRef, SqlError> {
        let mut guesses = vec![Guess::default(); self.names.len()];
        self.for_each_row(stop, &mut |_, cells| {
            for (guess, cell) in guesses.iter_mut().zip(&cells) {
                if let Cell::Text(text) = cell {
                    guess.see(text);
                }
            }
            Ok(())
        })
        .map_err(|error| in_file(error, &self.path))?;
        let fields: Vec<Field> = self
            .names
            .iter()
            .zip(guesses)
            .map(|(name, guess)| Field::new(name, guess.data_type(), true))
            .collect();
        Ok(Arc::new(Schema::new(fields)))
    }

    /// Hands over all rows as values of `fields`. Blocking.
    pub(super) fn read(
        self,
        table: &str,
        fields: &[Field],
        emit: &mut dyn FnMut(Chunk) -> Result<(), SqlError>,
    ) -> Result<(), SqlError> {
        let mut taken = Cells::new(fields.len());
        let mut hand_over =
            |taken: &mut Cells| emit(taken.take(table, |column| &fields[column], None)?);
        // Whoever takes the chunks knows when to stop.
        self.for_each_row(&CancellationToken::new(), &mut |line, cells| {
            let texts = cells.iter().map(|cell| match cell {
                Cell::Text(text) => text.len(),
                Cell::Null | Cell::Default => 0,
            });
            taken.push(line, &cells, texts.sum());
            if taken.is_full() { hand_over(&mut taken) } else { Ok(()) }
        })
        .map_err(|error| match error.detail {
            Some(_) => error,
            None => in_file(error, &self.path),
        })?;
        hand_over(&mut taken)
    }

    fn for_each_row(
        &self,
        stop: &CancellationToken,
        each: &mut dyn FnMut(u64, Vec<Cell>) -> Result<(), SqlError>,
    ) -> Result<(), SqlError> {
        let mut header = true;
        for_each_line(&self.path, stop, &mut |line, cells| {
            if std::mem::take(&mut header) {
                return Ok(true);
            }
            if cells == [Cell::Null] && self.names.len() > 1 {
                return Ok(true);
            }
            if cells.len() != self.names.len() {
                let message = match self.names.get(cells.len()) {
                    Some(missing) => format!("missing data for column \"{missing}\""),
                    None => "extra data after last expected column".to_string(),
                };
                return Err(SqlError::new(SqlState::BAD_COPY_FILE_FORMAT, message)
                    .with_detail(format!("line {line}")));
            }
            each(line, cells).map(|()| true)
        })
    }
}

/// Says which file an error is about.
fn in_file(error: SqlError, path: &std::path::Path) -> SqlError {
    let name = shown_name(path).into_owned();
    let detail = match &error.detail {
        Some(detail) => format!("{name}, {detail}"),
        None => name,
    };
    error.with_detail(detail)
}

/// Calls with each line's number and values until the answer is no.
fn for_each_line(
    path: &std::path::Path,
    stop: &CancellationToken,
    each: &mut dyn FnMut(u64, Vec<Cell>) -> Result<bool, SqlError>,
) -> Result<(), SqlError> {
    let layout = Layout::plain_csv();
    let mut cutter = LineCutter::new(&layout);
    let mut file = open_file(path)?;
    let mut buffer = vec![0; READ_BYTES];
    let mut filled = without_mark(&mut file, &mut buffer)?;
    loop {
        check_stop(stop)?;
        cutter.push(&buffer[filled])?;
        while let Some(line) = cutter.next() {
            let (number, cells) = (line.number, layout.split(line.bytes));
            let cells = cells.map_err(|error| error.with_detail(format!("line {number}")))?;
            if !each(number, cells)? {
                return Ok(());
            }
        }
        let read = file.read(&mut buffer).map_err(|error| io_error(&error))?;
        if read == 0 {
            break;
        }
        filled = 0..read;
    }
    if let Some(line) = cutter.rest() {
        let (number, cells) = (line.number, layout.split(line.bytes));
        let cells = cells.map_err(|error| error.with_detail(format!("line {number}")))?;
        each(number, cells)?;
    }
    Ok(())
}

/// The first bytes of a file, without its byte order mark if it has one.
fn without_mark(file: &mut File, buffer: &mut [u8]) -> Result<std::ops::Range<usize>, SqlError> {
    const MARK: &[u8] = b"\xEF\xBB\xBF";
    let mut length = 0;
    while length < MARK.len() {
        let read = file.read(&mut buffer[length..]).map_err(|error| io_error(&error))?;
        if read == 0 {
            break;
        }
        length += read;
    }
    let start = if buffer[..length].starts_with(MARK) { MARK.len() } else { 0 };
    Ok(start..length)
}

/// The types that a column may still have, as bits.
const BOOLEAN: u8 = 1;
const BIGINT: u8 = 1 << 1;
const NUMERIC: u8 = 1 << 2;
const DOUBLE: u8 = 1 << 3;
const DATE: u8 = 1 << 4;
const TIMESTAMP: u8 = 1 << 5;
const TIMESTAMPTZ: u8 = 1 << 6;

/// What is known of a column's type.
#[derive(Clone, Copy, Debug)]
struct Guess {
    possible: u8,
    /// Whether there was a value.
    seen: bool,
    /// Whether there was a number that is none of NaN and the infinities.
    finite: bool,
}

impl Default for Guess {
    fn default() -> Guess {
        Guess { possible: u8::MAX, seen: false, finite: false }
    }
}

impl Guess {
    fn see(&mut self, text: &str) {
        self.seen = true;
        if self.possible == 0 {
            return;
        }
        let (types, finite) = types_of(text);
        self.possible &= types;
        self.finite |= finite;
    }

    fn data_type(self) -> DataType {
        let can = |types: u8| self.possible & types != 0;
        if !self.seen {
            DataType::Utf8
        } else if can(BOOLEAN) {
            DataType::Boolean
        } else if can(BIGINT) {
            DataType::Int64
        } else if can(NUMERIC) {
            DataType::Decimal128(NUMERIC_DIGITS as u8, 0)
        } else if can(DOUBLE) && self.finite {
            DataType::Float64
        } else if can(DATE) {
            DataType::Date32
        } else if can(TIMESTAMP) {
            DataType::Timestamp(TimeUnit::Microsecond, None)
        } else if can(TIMESTAMPTZ) {
            DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
        } else {
            DataType::Utf8
        }
    }
}

/// The types that hold a value, and whether it is a finite number.
fn types_of(text: &str) -> (u8, bool) {
    if text.eq_ignore_ascii_case("true") || text.eq_ignore_ascii_case("false") {
        return (BOOLEAN, false);
    }
    if ["nan", "inf", "-inf", "infinity", "-infinity"]
        .iter()
        .any(|word| text.eq_ignore_ascii_case(word))
    {
        return (DOUBLE, false);
    }
    match number(text) {
        Some(types) => (types, true),
        None => (moment(text), false),
    }
}

/// The types of a number as people write it; `None` for what is none, or has zeros in front that would be lost.
fn number(text: &str) -> Option<u8> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let whole = digits.bytes().take_while(u8::is_ascii_digit).count();
    if whole > 1 && digits.starts_with('0') {
        return None;
    }
    if whole == digits.len() && whole > 0 {
        return match (text.parse::<i64>(), whole) {
            (Ok(_), _) => Some(BIGINT | NUMERIC | DOUBLE),
            (Err(_), ..=NUMERIC_DIGITS) => Some(NUMERIC | DOUBLE),
            (Err(_), _) => None,
        };
    }
    let starts_as_number = digits.starts_with(|first: char| first.is_ascii_digit() || first == '.');
    let value: f64 = text.parse().ok().filter(|_| starts_as_number)?;
    // A number that became infinite, or zero without being one, is not held.
    let mantissa = digits.split(['e', 'E']).next().unwrap_or_default();
    let is_zero = !mantissa.bytes().any(|byte| (b'1'..=b'9').contains(&byte));
    (value.is_finite() && (value == 0.0) == is_zero).then_some(DOUBLE)
}

/// The types of a date or a time of a day: `2022-06-01`, `2022-06-01 12:30:00`, `2022-06-01T12:30:00.5Z`.
fn moment(text: &str) -> u8 {
    let bytes = text.as_bytes();
    let is_date = |bytes: &[u8]| {
        bytes.len() == 10
            && bytes.iter().enumerate().all(|(index, byte)| match index {
                4 | 7 => *byte == b'-',
                _ => byte.is_ascii_digit(),
            })
    };
    if !bytes.get(..10).is_some_and(is_date) {
        return 0;
    }
    let is = |data_type: &DataType| parse_text(text, data_type).is_ok();
    match bytes.get(10) {
        None if is(&DataType::Date32) => DATE | TIMESTAMP,
        Some(b'T' | b' ') if bytes.get(11).is_some_and(u8::is_ascii_digit) => {
            let zoned = text[11..].contains(['Z', 'z', '+', '-']);
            let zone = zoned.then(|| "UTC".into());
            let types = if zoned { TIMESTAMPTZ } else { TIMESTAMP };
            if is(&DataType::Timestamp(TimeUnit::Microsecond, zone)) { types } else { 0 }
        }
        None | Some(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::append::CHUNK_ROWS;

    fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.csv");
        std::fs::write(&path, text).unwrap();
        (folder, path)
    }

    fn inferred(text: &str) -> Result<SchemaRef, SqlError> {
        let (_folder, path) = file(text);
        let stop = CancellationToken::new();
        CsvFile::open(path, &stop)?.infer(&stop)
    }

    #[test]
    fn types_are_inferred_from_all_lines() {
        let mut text = "\u{feff}a,b, 이름 \n".to_string();
        for line in 0..3000 {
            text.push_str(&format!("{line},{line},x\n"));
        }
        text.push_str("1,not a number,가나\n");
        let schema = inferred(&text).unwrap();
        assert_eq!(schema.field(0), &Field::new("a", DataType::Int64, true));
        assert_eq!(schema.field(1), &Field::new("b", DataType::Utf8, true));
        assert_eq!(schema.field(2).name(), "이름");
    }

    #[test]
    fn the_narrowest_type_that_loses_nothing() {
        let timestamp =
            |zone: Option<&str>| DataType::Timestamp(TimeUnit::Microsecond, zone.map(Into::into));
        let check = |values: &[&str], expect: DataType| {
            let text =
                format!("a,b\n{}", values.iter().map(|v| format!("{v},1\n")).collect::<String>());
            let schema = inferred(&text).unwrap();
            assert_eq!(schema.field(0).data_type(), &expect, "{values:?}");
        };
        check(&["", ""], DataType::Utf8);
        check(&["true", "FALSE", ""], DataType::Boolean);
        check(&["true", "1"], DataType::Utf8);
        check(&["1", "-2", "0"], DataType::Int64);
        check(&["1", "9223372036854775808"], DataType::Decimal128(38, 0));
        check(&["1", "123456789012345678901234567890123456789"], DataType::Utf8);
        check(&["1", "2.5", "-1e-3", ".5", "5."], DataType::Float64);
        check(&["1.5", "nan", "-Infinity"], DataType::Float64);
        check(&["nan", "inf"], DataType::Utf8);
        check(&["1e999", "1"], DataType::Utf8);
        check(&["1e-999", "1"], DataType::Utf8);
        check(&["0.0", "0e5"], DataType::Float64);
        check(&["007", "8"], DataType::Utf8);
        check(&["+82", "8"], DataType::Utf8);
        check(&["1_000", "8"], DataType::Utf8);
        check(&["1 ", "8"], DataType::Utf8);
        check(&["2022-06-01", "2024-02-29"], DataType::Date32);
        check(&["2022-06-01", "2023-02-29"], DataType::Utf8);
        check(&["2022-06-01", "2022-06-01 12:30:00"], timestamp(None));
        check(&["2022-06-01T12:30:00.5", "2022-06-01 12:30"], timestamp(None));
        check(&["2022-06-01T12:30:00Z", "2022-06-01 12:30:00+09"], timestamp(Some("UTC")));
        check(&["2022-06-01T12:30:00Z", "2022-06-01 12:30:00"], DataType::Utf8);
    }

    #[test]
    fn a_broken_file_says_where() {
        let check = |text: &str, code: SqlState, line: &str| {
            let error = inferred(text).unwrap_err();
            assert_eq!(error.code, code, "{text:?}");
            let detail = error.detail.unwrap();
            assert!(detail.ends_with(line), "{text:?}: {detail}");
        };
        check("", SqlState::BAD_COPY_FILE_FORMAT, "t.csv");
        check("a,b\n1,2\n3\n", SqlState::BAD_COPY_FILE_FORMAT, "t.csv, line 3");
        check("a,b\n1,2,3\n", SqlState::BAD_COPY_FILE_FORMAT, "t.csv, line 2");
        check("a,b\n\"1\n2\",3\n\"4", SqlState::BAD_COPY_FILE_FORMAT, "t.csv, line 4");
        let (_folder, path) = file("");
        std::fs::write(&path, b"a,b\n1,\xff\n").unwrap();
        let stop = CancellationToken::new();
        let error = CsvFile::open(path, &stop).unwrap().infer(&stop).unwrap_err();
        assert_eq!(error.code, SqlState::CHARACTER_NOT_IN_REPERTOIRE);
        assert_eq!(error.detail.as_deref(), Some("t.csv, line 2"));
    }

    #[test]
    fn rows_come_in_chunks_and_blank_lines_are_none() {
        let mut text = "a,b\n".to_string();
        for line in 0..10_000 {
            text.push_str(&format!("{line},x\n\n"));
        }
        let (_folder, path) = file(&text);
        let fields =
            [Field::new("a", DataType::Int64, true), Field::new("b", DataType::Utf8, true)];
        let mut rows = Vec::new();
        let file = CsvFile::open(path, &CancellationToken::new()).unwrap();
        file.read("t", &fields, &mut |chunk| {
            rows.push((chunk.places.len(), chunk.places.of(0)));
            Ok(())
        })
        .unwrap();
        assert_eq!(rows.iter().map(|(count, _)| count).sum::<usize>(), 10_000);
        assert_eq!(rows[1], (CHUNK_ROWS, format!("line {}", 2 + 2 * CHUNK_ROWS)));
    }
}
