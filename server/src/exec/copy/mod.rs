//! PostgreSQL's COPY: rows that a client sends or takes, or that a file of the server holds, in text, csv and binary.
//!
//! Lines are cut and split as they come ([`text`], [`binary`]), whatever the size of the client's messages, and stored a chunk
//! at a time in the statement's transaction ([`super::append`]). Files are read only inside the data roots and never
//! written: what a client may read is one question, what it may overwrite another.

pub(crate) mod columns;
pub(crate) mod text;

mod binary;
mod filter;
mod reader;

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use datafusion::common::Column;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder};
use sqlparser::ast as pg;
use thanosql_protocol::{
    CopyFormat, CopyOutOptions, CopySink, ForceQuote, Response, SqlError, SqlState,
};
use tokio::io::AsyncReadExt as _;

use super::Control;
use super::models::object_name;
use super::query::controlled;
use super::targets::{missing_column, stored_table};
use crate::error::{datafusion_error, io_error};
use crate::files::open_file;
use crate::plan::{self, Scope};
use crate::session::ClientSession;
use crate::sql::{
    self, Copy, CopyColumns, CopyDataFormat, CopyDirection, CopyHeader, CopyTarget, Parsed,
};
use binary::BinaryReader;
use reader::TextReader;
use text::Layout;

/// Bytes that are read from a file at once.
const FILE_CHUNK_BYTES: usize = 256 * 1024;

impl ClientSession {
    /// Starts a COPY.
    pub(crate) async fn copy(
        &mut self,
        parsed: &Parsed,
        copy: &Copy,
        parameters: plan::Parameters,
        control: &Control,
    ) -> Result<Response, SqlError> {
        match &copy.direction {
            CopyDirection::Into { table, columns } => {
                self.copy_in(parsed, copy, table, columns, parameters, control).await
            }
            CopyDirection::OutOfTable { .. } | CopyDirection::OutOfQuery(_) => {
                if let CopyTarget::File(_) = copy.target {
                    return Err(SqlError::new(
                        SqlState::FEATURE_NOT_SUPPORTED,
                        "COPY to a file of the server is not supported",
                    )
                    .with_hint("COPY ... TO STDOUT gives the rows to the client; psql's \\copy writes them to a file there.")
                    .at(copy.target_position));
                }
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

    async fn copy_in(
        &mut self,
        parsed: &Parsed,
        copy: &Copy,
        table: &sql::ObjectName,
        columns: &[sql::Name],
        parameters: plan::Parameters,
        control: &Control,
    ) -> Result<Response, SqlError> {
        self.refuse_in_read_only()?;
        let name = object_name(table, &self.transaction.peek())?;
        self.lock(&name, control).await?;
        let scope = self.scope(parsed, parameters, control)?;
        let stored = stored_table(&scope, &name).map_err(|error| error.at(table.position()))?;
        let schema = stored.schema();
        let targets = column_indexes(columns, &schema, &name)?;
        let filter = match &copy.filter {
            Some(condition) => Some(self.copy_filter(&scope, &name, &schema, condition)?),
            None => None,
        };
        let file = match &copy.target {
            CopyTarget::Client => None,
            CopyTarget::File(path) => {
                let opened = self.open_copied(path).await;
                Some(opened.map_err(|error| error.at(copy.target_position))?)
            }
        };
        let appender = self.appender(&scope, &name, schema, targets, filter)?;
        let columns = appender.targets.len();
        let binary = copy.format == CopyDataFormat::Binary;
        let sink: Box<dyn CopySink> = if binary {
            Box::new(BinaryReader::new(appender, control.clone()))
        } else {
            let layout = Layout::of(copy, &appender.schema, &appender.targets, &name)?;
            Box::new(TextReader::new(appender, layout, control.clone()))
        };
        match file {
            None => Ok(Response::CopyIn { columns, binary, sink }),
            Some(file) => Ok(Response::Done { tag: control.run(pour(file, sink)).await? }),
        }
    }

    /// A file inside the data roots.
    async fn open_copied(&self, path: &str) -> Result<tokio::fs::File, SqlError> {
        let file =
            tokio::task::block_in_place(|| open_file(&self.server.files.resolve(path)?, path))?;
        Ok(tokio::fs::File::from_std(file))
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
}

/// A file's bytes go where a client's would.
async fn pour(mut file: tokio::fs::File, mut sink: Box<dyn CopySink>) -> Result<String, SqlError> {
    loop {
        let mut bytes = Vec::with_capacity(FILE_CHUNK_BYTES);
        let read = file.read_buf(&mut bytes).await.map_err(|error| io_error(&error))?;
        if read == 0 {
            return sink.finish().await;
        }
        sink.write(Bytes::from(bytes)).await?;
    }
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

impl Layout {
    /// The layout that a COPY FROM asks for.
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
            default: copy.default.clone(),
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
}
