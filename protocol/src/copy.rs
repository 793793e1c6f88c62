//! COPY: how rows are written for `COPY ... TO STDOUT`, in PostgreSQL's text, csv and binary formats.
//!
//! What a client sends after `COPY ... FROM STDIN` is not decoded here: its bytes go to the session's
//! [`CopySink`](crate::CopySink).

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use bytes::{BufMut, BytesMut};

use crate::error::SqlError;
use crate::rows::end_message;
use crate::types::{self, Format, TextStyle, TypePlan};

/// What every binary COPY begins with, followed by flags and the length of an extension, both zero.
const BINARY_SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";

/// The three formats of COPY.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum CopyFormat {
    /// Tab-separated with backslash escapes.
    #[default]
    Text,
    /// RFC 4180 as PostgreSQL understands it.
    Csv,
    /// PGCOPY's binary form.
    Binary,
}

/// `FORCE_QUOTE` of the csv format.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum ForceQuote {
    /// Only where it is needed.
    #[default]
    WhereNeeded,
    /// Every value that is not NULL.
    All,
    /// Every value that is not NULL of these columns (indexes into the schema).
    Columns(Vec<usize>),
}

/// How `COPY ... TO STDOUT` writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyOutOptions {
    /// The format.
    pub format: CopyFormat,
    /// Between two values; text and csv.
    pub delimiter: u8,
    /// What stands for NULL; text and csv.
    pub null: String,
    /// A first line with the columns' names; text and csv.
    pub header: bool,
    /// The quote; csv.
    pub quote: u8,
    /// What stands before a quote or itself within quotes; csv.
    pub escape: u8,
    /// Which values are always quoted; csv.
    pub force_quote: ForceQuote,
}

impl CopyOutOptions {
    /// PostgreSQL's defaults of the text format.
    pub fn text() -> CopyOutOptions {
        CopyOutOptions {
            format: CopyFormat::Text,
            delimiter: b'\t',
            null: "\\N".to_owned(),
            header: false,
            quote: b'"',
            escape: b'"',
            force_quote: ForceQuote::WhereNeeded,
        }
    }

    /// PostgreSQL's defaults of the csv format.
    pub fn csv() -> CopyOutOptions {
        CopyOutOptions {
            format: CopyFormat::Csv,
            delimiter: b',',
            null: String::new(),
            ..CopyOutOptions::text()
        }
    }

    /// The binary format, which has no options.
    pub fn binary() -> CopyOutOptions {
        CopyOutOptions { format: CopyFormat::Binary, ..CopyOutOptions::text() }
    }

    pub(crate) fn wire_format(&self) -> Format {
        match self.format {
            CopyFormat::Text | CopyFormat::Csv => Format::Text,
            CopyFormat::Binary => Format::Binary,
        }
    }
}

/// Writes rows as CopyData messages, one a row.
pub(crate) struct CopyEncoder {
    names: Vec<String>,
    plans: Vec<TypePlan>,
    options: CopyOutOptions,
    style: TextStyle,
}

impl CopyEncoder {
    pub(crate) fn new(schema: &Schema, options: CopyOutOptions, style: TextStyle) -> CopyEncoder {
        CopyEncoder {
            names: schema.fields().iter().map(|field| field.name().clone()).collect(),
            plans: schema.fields().iter().map(|field| TypePlan::of(field)).collect(),
            options,
            style,
        }
    }

    pub(crate) fn columns(&self) -> usize {
        self.plans.len()
    }

    /// What comes before the first row, if anything.
    pub(crate) fn write_start(&self, out: &mut BytesMut) -> Result<(), SqlError> {
        match self.options.format {
            CopyFormat::Binary => message(out, |out| {
                out.put_slice(BINARY_SIGNATURE);
                Ok(())
            }),
            CopyFormat::Text | CopyFormat::Csv if self.options.header => message(out, |out| {
                for (index, name) in self.names.iter().enumerate() {
                    if index > 0 {
                        out.put_u8(self.options.delimiter);
                    }
                    match self.options.format {
                        CopyFormat::Csv => self.write_csv(index, name.as_bytes(), false, out),
                        CopyFormat::Text | CopyFormat::Binary => {
                            self.write_escaped(name.as_bytes(), out)
                        }
                    }
                }
                out.put_u8(b'\n');
                Ok(())
            }),
            CopyFormat::Text | CopyFormat::Csv => Ok(()),
        }
    }

    /// What comes after the last row: a CopyData message with the binary format's trailer, or nothing.
    pub(crate) fn end(&self) -> &'static [u8] {
        match self.options.format {
            CopyFormat::Binary => b"d\0\0\0\x06\xff\xff",
            CopyFormat::Text | CopyFormat::Csv => b"",
        }
    }

    pub(crate) fn write_row(
        &self,
        batch: &RecordBatch,
        row: usize,
        out: &mut BytesMut,
    ) -> Result<(), SqlError> {
        message(out, |out| {
            if self.options.format == CopyFormat::Binary {
                out.put_u16(self.plans.len() as u16);
            }
            let mut value = BytesMut::new();
            for (index, (array, plan)) in batch.columns().iter().zip(&self.plans).enumerate() {
                if self.options.format == CopyFormat::Binary {
                    types::write_sized(out, |out| {
                        types::write_binary(array.as_ref(), row, plan, &self.style, out)
                    })?;
                    continue;
                }
                if index > 0 {
                    out.put_u8(self.options.delimiter);
                }
                value.clear();
                if !types::write_text(array.as_ref(), row, plan, &self.style, &mut value) {
                    out.put_slice(self.options.null.as_bytes());
                } else if self.options.format == CopyFormat::Csv {
                    let forced = match &self.options.force_quote {
                        ForceQuote::WhereNeeded => false,
                        ForceQuote::All => true,
                        ForceQuote::Columns(columns) => columns.contains(&index),
                    };
                    self.write_csv(index, &value, forced, out);
                } else {
                    self.write_escaped(&value, out);
                }
            }
            if self.options.format != CopyFormat::Binary {
                out.put_u8(b'\n');
            }
            Ok(())
        })
    }

    /// The text format's escapes.
    fn write_escaped(&self, value: &[u8], out: &mut BytesMut) {
        for byte in value {
            let escaped = match byte {
                b'\\' => b'\\',
                0x08 => b'b',
                0x0c => b'f',
                b'\n' => b'n',
                b'\r' => b'r',
                b'\t' => b't',
                0x0b => b'v',
                other if *other == self.options.delimiter => *other,
                other => {
                    out.put_u8(*other);
                    continue;
                }
            };
            out.put_u8(b'\\');
            out.put_u8(escaped);
        }
    }

    fn write_csv(&self, index: usize, value: &[u8], forced: bool, out: &mut BytesMut) {
        let CopyOutOptions { delimiter, quote, escape, .. } = self.options;
        let needed = forced
            || value == self.options.null.as_bytes()
            // A lone `\.` would end the data.
            || (index == 0 && self.plans.len() == 1 && value == b"\\.")
            || value
                .iter()
                .any(|byte| *byte == delimiter || *byte == quote || matches!(byte, b'\n' | b'\r'));
        if !needed {
            out.put_slice(value);
            return;
        }
        out.put_u8(quote);
        for byte in value {
            if *byte == quote || *byte == escape {
                out.put_u8(escape);
            }
            out.put_u8(*byte);
        }
        out.put_u8(quote);
    }
}

/// One CopyData message.
fn message(
    out: &mut BytesMut,
    write: impl FnOnce(&mut BytesMut) -> Result<(), SqlError>,
) -> Result<(), SqlError> {
    out.put_u8(b'd');
    let start = out.len();
    out.put_i32(0);
    write(out)?;
    end_message(out, start)
}
