//! COPY: how rows are written for `COPY ... TO STDOUT`, in PostgreSQL's text, csv and binary formats.
//!
//! What a client sends after `COPY ... FROM STDIN` is not decoded here: its bytes go to the session's
//! [`CopySink`](crate::CopySink).

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
        CopyOutOptions {
            format: CopyFormat::Binary,
            ..CopyOutOptions::text()
        }
    }
}
