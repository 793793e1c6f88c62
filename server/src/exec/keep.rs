//! CONVERT with `table_name`: its rows are kept in a table, in the transaction of the statement that it stands in.
//!
//! The rows are stored first; the surrounding statement then reads what was stored. An existing table gets the new rows in place of its own only if
//! nothing of it would be lost, and keeps its definition, unless the statement says what to do with it.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;

use arrow::datatypes::SchemaRef;
use arrow::row::{RowConverter, SortField};
use thanosql_protocol::{SqlError, SqlState};
use thanosql_storage::{Snapshot, Table};

use super::targets::{check_found, check_schema, missing_column};
use super::{Control, rowset};
use crate::catalog::constraints::TableDefinition;
use crate::error::{arrow_error, storage_error};
use crate::learning::Mark;
use crate::plan::provenance::mixed;
use crate::plan::rows::{self, TOP_LEVEL};
use crate::plan::{self, Scope};
use crate::session::ClientSession;
use crate::sql::{Body, Convert, ConvertOptions, Embedded, IfExists, RowStatement};

/// Where rows stand until it is clear that they may take the table's name.
const STAGING: &str = "_thanosql_staging";

impl ClientSession {
    /// Runs every CONVERT with `table_name` in a query, innermost first, and notes in the scope what they kept.
    pub(crate) fn keep_embedded<'a>(
        &'a mut self,
        scope: &'a mut Scope,
        embedded: &'a [Embedded],
        control: &'a Control,
    ) -> Pin<Box<dyn Future<Output = Result<(), SqlError>> + Send + 'a>> {
        Box::pin(async move {
            for part in embedded {
                self.keep_rows(scope, &part.statement, &part.placeholder, control).await?;
            }
            Ok(())
        })
    }

    /// The same for the query of a ThanoSQL statement.
    pub(crate) async fn keep_body(
        &mut self,
        scope: &mut Scope,
        body: &Body,
        control: &Control,
    ) -> Result<(), SqlError> {
        self.keep_embedded(scope, &body.embedded, control).await
    }

    /// The same for a row statement, which may be such a CONVERT itself.
    pub(crate) async fn keep_rows(
        &mut self,
        scope: &mut Scope,
        statement: &RowStatement,
        placeholder: &str,
        control: &Control,
    ) -> Result<(), SqlError> {
        if let Some(body) = rows::body_of(statement) {
            self.keep_embedded(scope, &body.embedded, control).await?;
        }
        if let RowStatement::Convert(convert) = statement {
            let options = rows::options(&scope.parameters, &convert.options, ConvertOptions::read)?;
            if let Some(name) = options.table_name {
                let kept = self
                    .keep(scope, convert, placeholder, &name, options.if_exists, control)
                    .await?;
                scope.kept.insert(placeholder.to_string(), kept);
            } else if let Some(option) =
                convert.options.entries.iter().find(|entry| entry.name.value == "if_exists")
            {
                return Err(SqlError::new(
                    SqlState::INVALID_PARAMETER_VALUE,
                    "option if_exists needs the option table_name",
                )
                .at(option.name.position));
            }
        }
        Ok(())
    }

    async fn keep(
        &mut self,
        scope: &mut Scope,
        convert: &Convert,
        placeholder: &str,
        name: &str,
        if_exists: Option<IfExists>,
        control: &Control,
    ) -> Result<Table, SqlError> {
        self.refuse_in_read_only()?;
        let name = table_name(name, &self.transaction.peek())?;
        self.lock(&name, control).await?;
        // The lock may have been waited for: what others committed meanwhile counts.
        scope.snapshot = self.transaction.snapshot();
        if scope.snapshot.view(&name).is_some() {
            return Err(SqlError::new(
                SqlState::WRONG_OBJECT_TYPE,
                format!("\"{name}\" is a view"),
            ));
        }
        let existing = scope.snapshot.table(&name);
        if existing.is_some() && if_exists == Some(IfExists::Fail) {
            return Err(super::ddl::exists(&name));
        }
        let statement = RowStatement::Convert(convert.clone());
        let plan = rows::plan(&self.state, scope, &statement, Some(placeholder))?;
        let schema = rowset::storable_schema(plan.schema().as_arrow())?;
        let vector =
            plan.schema().fields().last().map(|field| field.name().clone()).unwrap_or_default();
        let staging = format!("{STAGING}{}", self.next_staging());
        self.transaction
            .change(|transaction| transaction.create_table(&staging, schema.clone()).map(|_| ()))?;
        let stream = control.run(self.start(scope, plan)).await?;
        rowset::store(&self.transaction, &staging, &schema, stream, control).await?;
        let kept =
            self.transaction.snapshot().table(&staging).ok_or_else(|| {
                crate::error::internal("the rows that were just kept are missing")
            })?;
        match (existing, if_exists) {
            (None, _) => {
                self.transaction.change(|transaction| transaction.rename_table(&staging, &name))?;
            }
            (Some(existing), Some(IfExists::Append)) => {
                self.append_kept(scope, &name, &existing.schema(), &kept, control).await?;
                self.transaction.change(|transaction| transaction.drop_table(&staging))?;
            }
            (Some(existing), if_exists) => {
                if if_exists.is_none() && !covers(&existing, &kept, &vector)? {
                    return Err(super::ddl::exists(&name)
                        .with_detail("not every column and row of the table is in the result")
                        .with_hint(
                            "OPTIONS (if_exists='replace') replaces the table, if_exists='append' adds the rows to it.",
                        )
                        .at(convert.options.position));
                }
                let schema = match if_exists {
                    None => extended(&existing, &kept.schema(), &vector),
                    Some(_) => TableDefinition::in_place_of(&existing, &kept.schema()),
                }
                .schema();
                self.transaction.change(|transaction| {
                    transaction.truncate(&name)?;
                    transaction.redefine_table(&name, schema.clone())
                })?;
                self.append_kept(scope, &name, &schema, &kept, control).await?;
                self.transaction.change(|transaction| transaction.drop_table(&staging))?;
            }
        }
        // What follows in the same statement sees the table as it is now.
        scope.snapshot = self.transaction.snapshot();
        Ok(kept)
    }

    /// Adds kept rows to a table that has all of their columns, by name; columns that they lack get their defaults.
    async fn append_kept(
        &self,
        scope: &Scope,
        name: &str,
        target: &SchemaRef,
        kept: &Table,
        control: &Control,
    ) -> Result<(), SqlError> {
        let source = kept.schema();
        let mut targets = Vec::with_capacity(source.fields().len());
        for field in source.fields() {
            let column = target
                .index_of(field.name())
                .map_err(|_| missing_column(field.name(), name, target))?;
            if let (Some(new), Some(old)) = (Mark::of(field), Mark::of(target.field(column)))
                && old != new
            {
                return Err(mixed(field.name(), &new, &old));
            }
            targets.push(column);
        }
        let appender = self.appender(scope, name, target.clone(), targets, None)?;
        for group in 0..kept.groups() {
            control.run(async { Ok(()) }).await?;
            let rows = tokio::task::block_in_place(|| kept.read_group(group, None))
                .map_err(storage_error)?;
            appender.append_rows(&rows)?;
        }
        Ok(())
    }
}

/// A table's name as an option gives it: a string that may hold the schema.
///
/// # Errors
/// As [`check_schema`] and [`check_found`].
pub fn table_name(text: &str, snapshot: &Snapshot) -> Result<String, SqlError> {
    match text.rsplit_once('.') {
        Some((schema, table)) => {
            check_schema(schema, table)?;
            check_found(schema, table, snapshot)?;
            Ok(table.to_string())
        }
        None => Ok(text.to_string()),
    }
}

/// A table's definition for a result that covers it: the result's columns in their order, and as they were those that the table has, with its keys, defaults and
/// checks. The vectors that were made anew are as they are now.
fn extended(existing: &Table, result: &SchemaRef, vector: &str) -> TableDefinition {
    let old = TableDefinition::of(existing);
    let columns = result.fields().iter().map(|field| {
        let Some(column) = old.column(field.name()) else { return field.as_ref().clone() };
        let column = old.columns[column].as_ref().clone();
        if field.name() != vector {
            return column;
        }
        let mut metadata = column.metadata().clone();
        metadata.extend(field.metadata().clone());
        column.with_data_type(field.data_type().clone()).with_metadata(metadata)
    });
    let mut definition = TableDefinition::new(columns.collect());
    // What covers a table has all of its columns.
    let place = |column: usize| definition.column(old.columns[column].name()).unwrap_or(column);
    let mut keys = old.keys.clone();
    for column in keys.iter_mut().flat_map(|key| &mut key.columns) {
        *column = place(*column);
    }
    let mut vector_indexes = old.vector_indexes.clone();
    for index in &mut vector_indexes {
        index.column = place(index.column);
    }
    // An index is over vectors of one length.
    vector_indexes.retain(|index| {
        let column = &definition.columns[index.column];
        old.columns
            .iter()
            .any(|old| old.name() == column.name() && old.data_type() == column.data_type())
    });
    definition.keys = keys;
    definition.vector_indexes = vector_indexes;
    definition.checks = old.checks;
    definition.on_commit = old.on_commit;
    definition
}

/// Whether every column and every row of `existing` is in `result`. The vectors that were made anew do not count.
fn covers(existing: &Table, result: &Table, vector: &str) -> Result<bool, SqlError> {
    let (old, new) = (existing.schema(), result.schema());
    let mut pairs = Vec::new();
    for (index, field) in old.fields().iter().enumerate() {
        let Ok(position) = new.index_of(field.name()) else { return Ok(false) };
        if field.name() == vector {
            // Only what a model has made can be made anew.
            if Mark::of(field).is_none() {
                return Ok(false);
            }
            continue;
        }
        if new.field(position).data_type() != field.data_type() {
            return Ok(false);
        }
        pairs.push((index, position));
    }
    if result.row_count() < existing.row_count() {
        return Ok(false);
    }
    if pairs.is_empty() {
        return Ok(true);
    }
    let fields: Vec<SortField> = pairs
        .iter()
        .map(|(index, _)| SortField::new(old.field(*index).data_type().clone()))
        .collect();
    if !RowConverter::supports_fields(&fields) {
        return Ok(false);
    }
    tokio::task::block_in_place(|| {
        let converter = RowConverter::new(fields).map_err(arrow_error)?;
        let mut counts: HashMap<Box<[u8]>, u64> = HashMap::new();
        let columns: Vec<usize> = pairs.iter().map(|(_, position)| *position).collect();
        for_each_row(result, &columns, &converter, |row| {
            *counts.entry(row.into()).or_default() += 1;
            true
        })?;
        let columns: Vec<usize> = pairs.iter().map(|(index, _)| *index).collect();
        for_each_row(existing, &columns, &converter, |row| match counts.get_mut(row) {
            Some(count) if *count > 0 => {
                *count -= 1;
                true
            }
            Some(_) | None => false,
        })
    })
}

/// Calls with each row's bytes until the answer is no; whether it never was.
fn for_each_row(
    table: &Table,
    columns: &[usize],
    converter: &RowConverter,
    mut each: impl FnMut(&[u8]) -> bool,
) -> Result<bool, SqlError> {
    for group in 0..table.groups() {
        let batch = table.read_group(group, Some(columns)).map_err(storage_error)?;
        // Storage answers columns in the order asked for.
        let rows = converter.convert_columns(batch.columns()).map_err(arrow_error)?;
        for row in &rows {
            if !each(row.as_ref()) {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

impl ClientSession {
    /// Plans a row statement by itself, after keeping what it keeps.
    pub(crate) async fn plan_kept_rows(
        &mut self,
        scope: &mut Scope,
        statement: &RowStatement,
        control: &Control,
    ) -> Result<datafusion::logical_expr::LogicalPlan, SqlError> {
        self.keep_rows(scope, statement, TOP_LEVEL, control).await?;
        plan::rows::plan(&self.state, scope, statement, None)
    }
}
