//! PostgreSQL's COPY: rows that a client sends (text and csv), or takes (text, csv and binary).
//!
//! Lines are cut and split as they come, whatever the size of the client's messages, and stored a batch at a time in the
//! statement's transaction. The csv reader is our own because the difference between an empty value and a quoted empty one
//! (NULL or not) does not survive the usual libraries.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::{Field, Schema, SchemaRef};
use async_trait::async_trait;
use bytes::Bytes;
use datafusion::common::{Column, DFSchema};
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder};
use sqlparser::ast as pg;
use thanosql_protocol::{
    CopyFormat, CopyOutOptions, CopySink, ForceQuote, Response, SqlError, SqlState,
};

use super::dml::{missing_column, stored_table};
use super::models::object_name;
use super::query::controlled;
use super::{Control, rowset};
use crate::catalog::sequences::ColumnSequence;
use crate::error::{arrow_error, datafusion_error};
use crate::plan::coerce::read_column;
use crate::plan::{self, Scope};
use crate::session::ClientSession;
use crate::session::transaction::SessionTransaction;
use crate::sql::{
    self, Copy, CopyColumns, CopyDataFormat, CopyDirection, CopyHeader, CopyTarget, Parsed,
};

/// Rows that are stored at once.
const BATCH_ROWS: usize = 4096;
/// The longest line that is taken, in bytes.
const MAX_LINE_BYTES: usize = 64 * 1024 * 1024;

impl ClientSession {
    /// Starts a COPY.
    pub(crate) async fn copy(
        &mut self,
        parsed: &Parsed,
        copy: &Copy,
        parameters: plan::Parameters,
        control: &Control,
    ) -> Result<Response, SqlError> {
        if let CopyTarget::File(_) = copy.target {
            return Err(SqlError::new(SqlState::FEATURE_NOT_SUPPORTED, "COPY with a file of the server and WITH options is not supported")
                .with_hint("COPY name FROM 'file.csv' without WITH reads a file; psql's \\copy reads one of the client.")
                .at(copy.target_position));
        }
        match &copy.direction {
            CopyDirection::Into { table, columns } => {
                self.refuse_in_read_only()?;
                if copy.format == CopyDataFormat::Binary {
                    return Err(not_yet("COPY FROM STDIN in binary"));
                }
                if copy.filter.is_some() || copy.default.is_some() {
                    return Err(not_yet("COPY FROM with WHERE or DEFAULT"));
                }
                let name = object_name(table)?;
                self.lock(&name, control).await?;
                let scope = self.scope(parsed, parameters, control)?;
                let stored =
                    stored_table(&scope, &name).map_err(|error| error.at(table.position()))?;
                let schema = stored.schema();
                let targets = column_indexes(columns, &schema, &name)?;
                let defaults = self.copy_defaults(&scope, &schema, &targets)?;
                let sink = Reader {
                    transaction: self.transaction.clone(),
                    control: control.clone(),
                    table: name.clone(),
                    layout: Layout::of(copy, &schema, &targets, &name)?,
                    defaults,
                    columns: vec![Vec::new(); targets.len()],
                    targets,
                    schema,
                    pending: Vec::new(),
                    scanned: 0,
                    in_quotes: false,
                    line: 0,
                    rows: 0,
                    ended: false,
                };
                Ok(Response::CopyIn {
                    columns: sink.targets.len(),
                    binary: false,
                    sink: Box::new(sink),
                })
            }
            CopyDirection::OutOfTable { .. } | CopyDirection::OutOfQuery(_) => {
                let mut scope = self.scope(parsed, parameters, control)?;
                if let CopyDirection::OutOfQuery(body) = &copy.direction {
                    self.keep_body(&mut scope, body, control).await?;
                }
                let plan = self.plan_copy_out(&scope, copy)?;
                let schema = super::query::result_schema(&plan);
                let options = out_options(copy, &schema)?;
                let stream = control.run(self.start(&scope, plan)).await?;
                Ok(Response::CopyOut { schema, rows: controlled(stream, control.clone()), options })
            }
        }
    }

    /// The rows of COPY TO.
    pub(crate) fn plan_copy_out(
        &self,
        scope: &Scope,
        copy: &Copy,
    ) -> Result<LogicalPlan, SqlError> {
        match &copy.direction {
            CopyDirection::OutOfQuery(body) => plan::plan_body(&self.state, scope, body),
            CopyDirection::OutOfTable { table, columns }
            | CopyDirection::Into { table, columns } => {
                let mut name: Vec<pg::Ident> = Vec::new();
                for part in table.database.iter().chain(&table.schema).chain([&table.name]) {
                    name.push(pg::Ident::with_quote('"', &part.value));
                }
                let text = format!(
                    "SELECT * FROM {}",
                    name.iter().map(ToString::to_string).collect::<Vec<_>>().join(".")
                );
                let query = sql::parse_query(&text).map_err(crate::error::parse_error)?;
                let plan = plan::plan_ast(
                    &self.state,
                    scope,
                    pg::Statement::Query(query.query),
                    &query.embedded,
                    Default::default(),
                )
                .map_err(|error| error.at(table.position()))?;
                if columns.is_empty() {
                    return Ok(plan);
                }
                let schema = plan.schema().as_arrow().clone();
                let mut projection = Vec::with_capacity(columns.len());
                for index in column_indexes(columns, &Arc::new(schema), &table.name.value)? {
                    projection
                        .push(Expr::Column(Column::from(plan.schema().qualified_field(index))));
                }
                LogicalPlanBuilder::from(plan)
                    .project(projection)
                    .and_then(LogicalPlanBuilder::build)
                    .map_err(|error| datafusion_error(error, None))
            }
        }
    }

    /// The constants of columns that the data does not have.
    fn copy_defaults(
        &self,
        scope: &Scope,
        schema: &SchemaRef,
        targets: &[usize],
    ) -> Result<Vec<Option<ArrayRef>>, SqlError> {
        let mut defaults = Vec::with_capacity(schema.fields().len());
        for (index, field) in schema.fields().iter().enumerate() {
            let text = field.metadata().get(plan::types::COLUMN_DEFAULT);
            defaults.push(match text {
                Some(_) if ColumnSequence::of(field).is_some() => None,
                Some(text) if !targets.contains(&index) => {
                    let expression =
                        sql::parse_expression(text).map_err(crate::error::parse_error)?;
                    let value = plan::plan_constant(&self.state, scope, expression)?;
                    Some(self.evaluate(value, field)?)
                }
                Some(_) | None => None,
            });
        }
        Ok(defaults)
    }

    /// A constant's value as one of a column.
    pub(crate) fn evaluate(&self, value: Expr, field: &Field) -> Result<ArrayRef, SqlError> {
        let failed = |error| datafusion_error(error, None);
        let schema = DFSchema::empty();
        let value = plan::coerce::assign(value, &schema, field.data_type()).map_err(failed)?;
        let physical = self.state.create_physical_expr(value, &schema).map_err(failed)?;
        let one_row = RecordBatch::try_new_with_options(
            Arc::new(Schema::empty()),
            Vec::new(),
            &arrow::array::RecordBatchOptions::new().with_row_count(Some(1)),
        )
        .map_err(arrow_error)?;
        physical.evaluate(&one_row).and_then(|value| value.into_array(1)).map_err(failed)
    }
}

fn not_yet(what: &str) -> SqlError {
    SqlError::new(SqlState::FEATURE_NOT_SUPPORTED, format!("{what} is not supported yet"))
}

fn column_indexes(
    columns: &[sql::Name],
    schema: &SchemaRef,
    table: &str,
) -> Result<Vec<usize>, SqlError> {
    if columns.is_empty() {
        return Ok((0..schema.fields().len()).collect());
    }
    let mut indexes = Vec::with_capacity(columns.len());
    for column in columns {
        let index = schema
            .index_of(&column.value)
            .map_err(|_| missing_column(&column.value, table, schema).at(column.position))?;
        if indexes.contains(&index) {
            return Err(SqlError::new(
                SqlState::DUPLICATE_COLUMN,
                format!("column \"{}\" specified more than once", column.value),
            )
            .at(column.position));
        }
        indexes.push(index);
    }
    Ok(indexes)
}

fn out_options(copy: &Copy, schema: &SchemaRef) -> Result<CopyOutOptions, SqlError> {
    let mut options = match copy.format {
        CopyDataFormat::Text => CopyOutOptions::text(),
        CopyDataFormat::Csv => CopyOutOptions::csv(),
        CopyDataFormat::Binary => CopyOutOptions::binary(),
    };
    if let Some(delimiter) = copy.delimiter {
        options.delimiter = one_byte("delimiter", delimiter)?;
    }
    if let Some(null) = &copy.null {
        options.null.clone_from(null);
    }
    options.header = copy.header != CopyHeader::No;
    if let Some(quote) = copy.quote {
        options.quote = one_byte("quote", quote)?;
        options.escape = options.quote;
    }
    if let Some(escape) = copy.escape {
        options.escape = one_byte("escape", escape)?;
    }
    options.force_quote = match &copy.force_quote {
        CopyColumns::None => ForceQuote::WhereNeeded,
        CopyColumns::All => ForceQuote::All,
        CopyColumns::Named(names) => {
            ForceQuote::Columns(column_indexes(names, schema, "the result")?)
        }
    };
    if options.format == CopyFormat::Binary {
        options.header = false;
    }
    Ok(options)
}

fn one_byte(what: &str, character: char) -> Result<u8, SqlError> {
    u8::try_from(character).ok().filter(u8::is_ascii).ok_or_else(|| {
        SqlError::new(
            SqlState::FEATURE_NOT_SUPPORTED,
            format!("COPY {what} must be a single one-byte character"),
        )
    })
}

/// How the data's lines are built.
struct Layout {
    csv: bool,
    delimiter: u8,
    null: String,
    header: CopyHeader,
    quote: u8,
    escape: u8,
    /// By column of the data: never NULL.
    force_not_null: Vec<bool>,
    /// By column of the data: NULL even when quoted.
    force_null: Vec<bool>,
}

impl Layout {
    fn of(
        copy: &Copy,
        schema: &SchemaRef,
        targets: &[usize],
        table: &str,
    ) -> Result<Layout, SqlError> {
        let csv = copy.format == CopyDataFormat::Csv;
        let quote = one_byte("quote", copy.quote.unwrap_or('"'))?;
        let marked = |columns: &CopyColumns| -> Result<Vec<bool>, SqlError> {
            Ok(match columns {
                CopyColumns::None => vec![false; targets.len()],
                CopyColumns::All => vec![true; targets.len()],
                CopyColumns::Named(names) => {
                    let named = column_indexes(names, schema, table)?;
                    targets.iter().map(|target| named.contains(target)).collect()
                }
            })
        };
        Ok(Layout {
            csv,
            delimiter: one_byte(
                "delimiter",
                copy.delimiter.unwrap_or(if csv { ',' } else { '\t' }),
            )?,
            null: copy
                .null
                .clone()
                .unwrap_or_else(|| if csv { String::new() } else { "\\N".to_string() }),
            header: copy.header,
            quote,
            escape: match copy.escape {
                Some(escape) => one_byte("escape", escape)?,
                None => quote,
            },
            force_not_null: marked(&copy.force_not_null)?,
            force_null: marked(&copy.force_null)?,
        })
    }

    /// A line's values.
    fn split(&self, line: &[u8]) -> Result<Vec<Option<String>>, SqlError> {
        if self.csv { self.split_csv(line) } else { self.split_text(line) }
    }

    fn split_text(&self, line: &[u8]) -> Result<Vec<Option<String>>, SqlError> {
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
                    None
                } else {
                    Some(text(unescape(raw))?)
                });
                start = index + 1;
            }
        }
        Ok(values)
    }

    fn split_csv(&self, line: &[u8]) -> Result<Vec<Option<String>>, SqlError> {
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
                    values.push(if is_null { None } else { Some(text(bytes)?) });
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

/// What a client's bytes go into.
struct Reader {
    transaction: SessionTransaction,
    control: Control,
    table: String,
    schema: SchemaRef,
    layout: Layout,
    /// The table's column of each of the data's.
    targets: Vec<usize>,
    defaults: Vec<Option<ArrayRef>>,
    /// Values by the data's column, until a batch is full.
    columns: Vec<Vec<Option<String>>>,
    /// Bytes that are no whole line yet.
    pending: Vec<u8>,
    /// How many of them are known to hold no end of a line.
    scanned: usize,
    in_quotes: bool,
    line: u64,
    rows: u64,
    /// `\.` was seen.
    ended: bool,
}

impl Reader {
    /// Takes whole lines from the front of what has come.
    fn take_lines(&mut self, last: bool) -> Result<(), SqlError> {
        let mut start = 0;
        while !self.ended {
            let Some(end) = self.find_end(start) else { break };
            let line = self.pending[start..end].to_vec();
            start = end + 1;
            self.scanned = start;
            self.take_line(&line)?;
        }
        if last && !self.ended && start < self.pending.len() {
            let line = self.pending[start..].to_vec();
            start = self.pending.len();
            self.take_line(&line)?;
        }
        self.pending.drain(..start);
        self.scanned = self.pending.len();
        if self.pending.len() > MAX_LINE_BYTES {
            return Err(SqlError::new(
                SqlState::PROGRAM_LIMIT_EXCEEDED,
                format!("a line of the data is longer than {MAX_LINE_BYTES} bytes"),
            ));
        }
        Ok(())
    }

    /// The next line feed that is no part of a value.
    fn find_end(&mut self, start: usize) -> Option<usize> {
        let mut index = self.scanned.max(start);
        while index < self.pending.len() {
            let byte = self.pending[index];
            if self.layout.csv {
                // An escaped quote flips the state twice, so it need not be looked at.
                if byte == self.layout.quote {
                    self.in_quotes = !self.in_quotes;
                }
                if byte == b'\n' && !self.in_quotes {
                    return Some(index);
                }
            } else if byte == b'\n' {
                let backslashes = self.pending[start..index]
                    .iter()
                    .rev()
                    .take_while(|byte| **byte == b'\\')
                    .count();
                if backslashes % 2 == 0 {
                    return Some(index);
                }
            }
            index += 1;
        }
        self.scanned = index;
        None
    }

    fn take_line(&mut self, line: &[u8]) -> Result<(), SqlError> {
        self.line += 1;
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line == b"\\." {
            self.ended = true;
            return Ok(());
        }
        let place = |error: SqlError, line: u64, table: &str| {
            error.with_detail(format!("COPY {table}, line {line}"))
        };
        let values =
            self.layout.split(line).map_err(|error| place(error, self.line, &self.table))?;
        if self.line == 1 && self.layout.header != CopyHeader::No {
            return self.check_header(&values);
        }
        if values.len() != self.targets.len() {
            let message = if values.len() > self.targets.len() {
                "extra data after last expected column".to_string()
            } else {
                let missing = self.schema.field(self.targets[values.len()]).name();
                format!("missing data for column \"{missing}\"")
            };
            let error = SqlError::new(SqlState::BAD_COPY_FILE_FORMAT, message);
            return Err(place(error, self.line, &self.table));
        }
        for (column, value) in self.columns.iter_mut().zip(values) {
            column.push(value);
        }
        if self.columns.first().is_some_and(|column| column.len() >= BATCH_ROWS) {
            self.store()?;
        }
        Ok(())
    }

    fn check_header(&self, values: &[Option<String>]) -> Result<(), SqlError> {
        if self.layout.header != CopyHeader::Match {
            return Ok(());
        }
        let expected =
            self.targets.iter().map(|target| Some(self.schema.field(*target).name().as_str()));
        if values.iter().map(Option::as_deref).eq(expected) {
            Ok(())
        } else {
            Err(SqlError::new(
                SqlState::BAD_COPY_FILE_FORMAT,
                "the header line does not name the table's columns",
            ))
        }
    }

    /// Stores the lines that were taken.
    fn store(&mut self) -> Result<(), SqlError> {
        let count = self.columns.first().map_or(0, Vec::len);
        if count == 0 {
            return Ok(());
        }
        let first = self.line + 1 - count as u64;
        let last = self.line;
        let mut given: Vec<Option<ArrayRef>> = vec![None; self.schema.fields().len()];
        for (target, values) in self.targets.iter().zip(&mut self.columns) {
            let texts = StringArray::from(std::mem::take(values));
            let field = self.schema.field(*target);
            let column = read_column(&texts, field.data_type()).map_err(|error| {
                let detail = format!(
                    "COPY {}, lines {first} to {last}, column {}",
                    self.table,
                    field.name()
                );
                datafusion_error(error, None).with_detail(detail)
            })?;
            given[*target] = Some(column);
        }
        let mut columns = Vec::with_capacity(given.len());
        for ((column, default), field) in
            given.into_iter().zip(&self.defaults).zip(self.schema.fields())
        {
            columns.push(match (column, default) {
                (Some(column), _) => column,
                (None, Some(default)) => {
                    let repeat = arrow::array::UInt32Array::from(vec![0; count]);
                    arrow::compute::take(default, &repeat, None).map_err(arrow_error)?
                }
                // Every row has a value of its own.
                (None, None) if ColumnSequence::of(field).is_some() => {
                    self.transaction.next_values(field, count)?
                }
                (None, None) => arrow::array::new_null_array(field.data_type(), count),
            });
        }
        let plain: Vec<Field> = self
            .schema
            .fields()
            .iter()
            .map(|field| field.as_ref().clone().with_nullable(true))
            .collect();
        let batch =
            RecordBatch::try_new(Arc::new(Schema::new(plain)), columns).map_err(arrow_error)?;
        let batch = rowset::conform(&batch, &self.schema)?;
        self.transaction.change(|transaction| transaction.append(&self.table, &batch))?;
        self.rows += count as u64;
        Ok(())
    }
}

#[async_trait]
impl CopySink for Reader {
    async fn write(&mut self, bytes: Bytes) -> Result<(), SqlError> {
        if self.control.cancel.is_cancelled() {
            return Err(self.control.stopped());
        }
        self.pending.extend_from_slice(&bytes);
        self.take_lines(false)
    }

    async fn finish(mut self: Box<Self>) -> Result<String, SqlError> {
        self.take_lines(true)?;
        self.store()?;
        Ok(format!("COPY {}", self.rows))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(csv: bool) -> Layout {
        Layout {
            csv,
            delimiter: if csv { b',' } else { b'\t' },
            null: if csv { String::new() } else { "\\N".to_string() },
            header: CopyHeader::No,
            quote: b'"',
            escape: b'"',
            force_not_null: vec![false; 3],
            force_null: vec![false; 3],
        }
    }

    fn some(text: &str) -> Option<String> {
        Some(text.to_string())
    }

    #[test]
    fn csv_knows_null_from_an_empty_text() {
        let values = layout(true).split(b"a,,\"\"").unwrap();
        assert_eq!(values, [some("a"), None, some("")]);
        let values = layout(true).split("\"say \"\"hi\"\"\",\"a,b\",가".as_bytes()).unwrap();
        assert_eq!(values, [some("say \"hi\""), some("a,b"), some("가")]);
        assert!(layout(true).split(b"\"open").is_err());
    }

    #[test]
    fn text_unescapes() {
        let values = layout(false).split(b"a\\tb\t\\N\t\\\\x\\x41\\101").unwrap();
        assert_eq!(values, [some("a\tb"), None, some("\\xAA")]);
        let values = layout(false).split(b"a\\\tb").unwrap();
        assert_eq!(values, [some("a\tb")]);
        assert!(layout(false).split(&[0xff]).is_err());
    }
}
