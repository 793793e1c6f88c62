//! COPY's text and csv formats, read: bytes become lines, lines become values.
//!
//! The csv reader is our own because the difference between an empty value and a quoted empty one (NULL or not) does not
//! survive the usual libraries.

use thanosql_protocol::{SqlError, SqlState};

use crate::sql::CopyHeader;

/// The longest line that is taken, in bytes.
const MAX_LINE_BYTES: usize = 64 << 20;

/// How the data's lines are built.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    pub(crate) csv: bool,
    pub(crate) delimiter: u8,
    pub(crate) null: String,
    /// What stands for a column's default, if anything does.
    pub(crate) default: Option<String>,
    pub(crate) header: CopyHeader,
    pub(crate) quote: u8,
    pub(crate) escape: u8,
    /// By column of the data: never NULL.
    pub(crate) force_not_null: Vec<bool>,
    /// By column of the data: NULL even when quoted.
    pub(crate) force_null: Vec<bool>,
}

/// One value of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Cell {
    Null,
    /// The column's default was asked for.
    Default,
    Text(String),
}

impl Layout {
    /// Csv as PostgreSQL writes it when it is told nothing else, without a header.
    pub(crate) fn plain_csv() -> Layout {
        Layout {
            csv: true,
            delimiter: b',',
            null: String::new(),
            default: None,
            header: CopyHeader::No,
            quote: b'"',
            escape: b'"',
            force_not_null: Vec::new(),
            force_null: Vec::new(),
        }
    }

    /// A line's values.
    ///
    /// # Errors
    /// 22P04 for a quote that is never closed, 22021 for text that is not UTF-8.
    pub(crate) fn split(&self, line: &[u8]) -> Result<Vec<Cell>, SqlError> {
        if self.csv { self.split_csv(line) } else { self.split_text(line) }
    }

    fn is_default(&self, raw: &[u8]) -> bool {
        self.default.as_ref().is_some_and(|default| default.as_bytes() == raw)
    }

    fn split_text(&self, line: &[u8]) -> Result<Vec<Cell>, SqlError> {
        let mut values = Vec::new();
        let mut start = 0;
        let mut escaped = false;
        for index in 0..=line.len() {
            let at_end = index == line.len();
            if !at_end && escaped {
                escaped = false;
            } else if !at_end && line[index] == b'\\' {
                escaped = true;
            } else if at_end || line[index] == self.delimiter {
                let raw = &line[start..index];
                values.push(if raw == self.null.as_bytes() {
                    Cell::Null
                } else if self.is_default(raw) {
                    Cell::Default
                } else {
                    Cell::Text(text(unescape(raw))?)
                });
                start = index + 1;
            }
        }
        Ok(values)
    }

    fn split_csv(&self, line: &[u8]) -> Result<Vec<Cell>, SqlError> {
        let mut values = Vec::new();
        let mut value = Vec::new();
        let (mut quoted, mut in_quotes) = (false, false);
        let mut index = 0;
        loop {
            match line.get(index) {
                Some(byte) if in_quotes => {
                    let next = line.get(index + 1);
                    if *byte == self.escape
                        && next.is_some_and(|next| *next == self.quote || *next == self.escape)
                    {
                        value.push(line[index + 1]);
                        index += 1;
                    } else if *byte == self.quote {
                        in_quotes = false;
                    } else {
                        value.push(*byte);
                    }
                }
                Some(byte) if *byte == self.quote => {
                    quoted = true;
                    in_quotes = true;
                }
                Some(byte) if *byte != self.delimiter => value.push(*byte),
                None if in_quotes => {
                    return Err(SqlError::new(
                        SqlState::BAD_COPY_FILE_FORMAT,
                        "unterminated CSV quoted field",
                    ));
                }
                Some(_) | None => {
                    let column = values.len();
                    let force = |marks: &[bool]| marks.get(column).copied().unwrap_or(false);
                    let is_null = value == self.null.as_bytes()
                        && if quoted {
                            force(&self.force_null)
                        } else {
                            !force(&self.force_not_null)
                        };
                    let bytes = std::mem::take(&mut value);
                    values.push(if is_null {
                        Cell::Null
                    } else if !quoted && self.is_default(&bytes) {
                        Cell::Default
                    } else {
                        Cell::Text(text(bytes)?)
                    });
                    quoted = false;
                    if index >= line.len() {
                        return Ok(values);
                    }
                }
            }
            index += 1;
        }
    }
}

fn text(bytes: Vec<u8>) -> Result<String, SqlError> {
    String::from_utf8(bytes).ok().filter(|text| !text.contains('\0')).ok_or_else(|| {
        SqlError::new(
            SqlState::CHARACTER_NOT_IN_REPERTOIRE,
            "invalid byte sequence for encoding \"UTF8\"",
        )
    })
}

/// Backslash sequences of the text format.
fn unescape(raw: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(raw.len());
    let mut index = 0;
    while index < raw.len() {
        let byte = raw[index];
        index += 1;
        let Some(next) = raw.get(index).copied().filter(|_| byte == b'\\') else {
            bytes.push(byte);
            continue;
        };
        index += 1;
        let number = |digits: usize, radix: u32, from: usize| -> Option<(u8, usize)> {
            let count = raw[from..]
                .iter()
                .take(digits)
                .take_while(|byte| (**byte as char).is_digit(radix))
                .count();
            let text = std::str::from_utf8(&raw[from..from + count]).ok()?;
            u32::from_str_radix(text, radix).ok().map(|value| ((value & 0xff) as u8, count))
        };
        match next {
            b'b' => bytes.push(8),
            b'f' => bytes.push(12),
            b'n' => bytes.push(b'\n'),
            b'r' => bytes.push(b'\r'),
            b't' => bytes.push(b'\t'),
            b'v' => bytes.push(11),
            b'x' => match number(2, 16, index) {
                Some((value, count)) => {
                    bytes.push(value);
                    index += count;
                }
                None => bytes.push(b'x'),
            },
            b'0'..=b'7' => {
                if let Some((value, count)) = number(3, 8, index - 1) {
                    bytes.push(value);
                    index += count - 1;
                }
            }
            other => bytes.push(other),
        }
    }
    bytes
}

/// A line of the data, without its end.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Line<'a> {
    /// Where it begins, counted from 1 in line feeds of the data, those within values included.
    pub(crate) number: u64,
    pub(crate) bytes: &'a [u8],
}

/// Cuts bytes into lines, as they come, however they are cut themselves.
#[derive(Debug)]
pub(crate) struct LineCutter {
    /// Quote and escape of csv.
    quoting: Option<(u8, u8)>,
    /// Bytes that were not given out, from `start` on.
    pending: Vec<u8>,
    start: usize,
    /// How far they were looked at.
    scanned: usize,
    in_quotes: bool,
    escaped: bool,
    /// Line feeds up to `scanned`.
    feeds: u64,
    /// The number of the line at `start`.
    number: u64,
}

impl LineCutter {
    pub(crate) fn new(layout: &Layout) -> LineCutter {
        LineCutter {
            quoting: layout.csv.then_some((layout.quote, layout.escape)),
            pending: Vec::new(),
            start: 0,
            scanned: 0,
            in_quotes: false,
            escaped: false,
            feeds: 0,
            number: 1,
        }
    }

    /// Takes more bytes. All lines that are there must have been taken before.
    ///
    /// # Errors
    /// 54000 for a line without an end in sight.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<(), SqlError> {
        self.pending.drain(..self.start);
        self.scanned -= self.start;
        self.start = 0;
        if self.pending.len() > MAX_LINE_BYTES {
            return Err(SqlError::new(
                SqlState::PROGRAM_LIMIT_EXCEEDED,
                format!("a line of the data is longer than {MAX_LINE_BYTES} bytes"),
            )
            .with_detail(format!("It begins at line {}.", self.number)));
        }
        self.pending.extend_from_slice(bytes);
        Ok(())
    }

    /// The next whole line.
    pub(crate) fn next(&mut self) -> Option<Line<'_>> {
        while let Some(byte) = self.pending.get(self.scanned).copied() {
            self.scanned += 1;
            let in_value = match self.quoting {
                Some((quote, escape)) => {
                    if self.in_quotes && byte == escape {
                        self.escaped = !self.escaped;
                    }
                    if byte == quote && (escape == quote || !self.escaped) {
                        self.in_quotes = !self.in_quotes;
                    }
                    if byte != escape {
                        self.escaped = false;
                    }
                    self.in_quotes
                }
                None => {
                    let escaped = self.escaped;
                    self.escaped = byte == b'\\' && !escaped;
                    escaped
                }
            };
            if byte != b'\n' {
                continue;
            }
            self.feeds += 1;
            if !in_value {
                return Some(self.cut(self.scanned - 1));
            }
        }
        None
    }

    /// What is left after the last line feed, if anything is.
    pub(crate) fn rest(&mut self) -> Option<Line<'_>> {
        if self.start == self.pending.len() {
            return None;
        }
        self.scanned = self.pending.len();
        Some(self.cut(self.pending.len()))
    }

    fn cut(&mut self, end: usize) -> Line<'_> {
        let (start, number) = (self.start, self.number);
        self.start = self.scanned;
        self.number = self.feeds + 1;
        let bytes = &self.pending[start..end];
        Line { number, bytes: bytes.strip_suffix(b"\r").unwrap_or(bytes) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(csv: bool) -> Layout {
        if csv {
            return Layout::plain_csv();
        }
        Layout { csv: false, delimiter: b'\t', null: "\\N".to_string(), ..Layout::plain_csv() }
    }

    fn some(text: &str) -> Cell {
        Cell::Text(text.to_string())
    }

    #[test]
    fn csv_knows_null_from_an_empty_text() {
        let values = layout(true).split(b"a,,\"\"").unwrap();
        assert_eq!(values, [some("a"), Cell::Null, some("")]);
        let values = layout(true).split("\"say \"\"hi\"\"\",\"a,b\",가".as_bytes()).unwrap();
        assert_eq!(values, [some("say \"hi\""), some("a,b"), some("가")]);
        assert!(layout(true).split(b"\"open").is_err());
    }

    #[test]
    fn text_unescapes() {
        let values = layout(false).split(b"a\\tb\t\\N\t\\\\x\\x41\\101").unwrap();
        assert_eq!(values, [some("a\tb"), Cell::Null, some("\\xAA")]);
        let values = layout(false).split(b"a\\\tb").unwrap();
        assert_eq!(values, [some("a\tb")]);
        assert!(layout(false).split(&[0xff]).is_err());
    }

    #[test]
    fn a_marker_asks_for_the_default_unless_it_is_quoted() {
        let csv = Layout { default: Some("\\D".to_string()), ..layout(true) };
        assert_eq!(csv.split(b"\\D,\"\\D\"").unwrap(), [Cell::Default, some("\\D")]);
        let text = Layout { default: Some("\\D".to_string()), ..layout(false) };
        assert_eq!(text.split(b"\\D\t\\\\D").unwrap(), [Cell::Default, some("\\D")]);
    }

    /// The lines of a text that comes in pieces of every size.
    fn check_lines(layout: &Layout, text: &str, expect: &[(u64, &str)]) {
        for size in 1..=text.len() {
            let mut cutter = LineCutter::new(layout);
            let mut found = Vec::new();
            for piece in text.as_bytes().chunks(size) {
                cutter.push(piece).unwrap();
                while let Some(line) = cutter.next() {
                    found.push((line.number, String::from_utf8(line.bytes.to_vec()).unwrap()));
                }
            }
            if let Some(line) = cutter.rest() {
                found.push((line.number, String::from_utf8(line.bytes.to_vec()).unwrap()));
            }
            assert!(cutter.rest().is_none());
            let expect: Vec<(u64, String)> =
                expect.iter().map(|(number, text)| (*number, (*text).to_string())).collect();
            assert_eq!(found, expect, "in pieces of {size}");
        }
    }

    #[test]
    fn lines_end_where_no_value_goes_on() {
        let csv = layout(true);
        check_lines(
            &csv,
            "a,b\r\n\"1\n\"\"2\",x\n\ny",
            &[(1, "a,b"), (2, "\"1\n\"\"2\",x"), (4, ""), (5, "y")],
        );
        let escaped = Layout { escape: b'\\', ..layout(true) };
        check_lines(&escaped, "\"a\\\"\nb\"\nc\n", &[(1, "\"a\\\"\nb\""), (3, "c")]);
        check_lines(&escaped, "a\\\nb\n", &[(1, "a\\"), (2, "b")]);
        check_lines(&layout(false), "a\\\nb\\\\\nc", &[(1, "a\\\nb\\\\"), (3, "c")]);
    }
}
