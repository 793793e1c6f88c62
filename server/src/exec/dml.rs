//! INSERT, UPDATE, DELETE and TRUNCATE.
//!
//! DataFusion's own hooks for changes lose filters, so none of them is used: a change is planned as the query that finds
//! its rows (by row id, for UPDATE and DELETE) and their new values, and is then applied to the transaction. RETURNING is a query
//! over the changed rows.

#![allow(clippy::wildcard_enum_match_arm)] // the enums are other libraries', with far more variants than matter here

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, UInt64Type};
use datafusion::common::{Column, ScalarValue};
use datafusion::datasource::{MemTable, provider_as_source};
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, TableSource, lit};
use sqlparser::ast as pg;
use thanosql_protocol::{Response, RowsTag, SqlError, SqlState};
use thanosql_storage::{ROW_ID_COLUMN, Table};

use super::upsert::{Conflict, conflict_keys, name_excluded};
use super::{Control, rowset};
use crate::catalog::sequences::{ColumnSequence, SequenceKind, sequences_of};
use crate::catalog::system::TEMPORARY_SCHEMA;
use crate::catalog::table::StoredTable;
use crate::error::{datafusion_error, storage_error, undefined_table};
use crate::plan::types::COLUMN_DEFAULT;
use crate::plan::{self, Scope};
use crate::session::ClientSession;
use crate::sql::{self, Embedded, Parsed};

/// The name under which a change's query sees its target with row ids.
pub(super) const TARGET: &str = "__thanosql_target";

/// A change, planned.
pub struct Change {
    /// The target's name.
    pub table: String,
    /// The query behind it: the new rows of an INSERT; row ids, and new rows for an UPDATE, of the others.
    pub plan: LogicalPlan,
    kind: ChangeKind,
    returning: Option<Returning>,
    /// ON CONFLICT.
    conflict: Option<Conflict>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum ChangeKind {
    Insert,
    Update,
    Delete,
}

/// RETURNING: what it gives, and the name that the target has in it.
struct Returning {
    items: Vec<pg::SelectItem>,
    name: String,
}

impl Change {
    /// The columns that clients get.
    pub(crate) fn columns(
        &self,
        session: &ClientSession,
        scope: &Scope,
    ) -> Result<Option<SchemaRef>, SqlError> {
        match &self.returning {
            Some(returning) => {
                let schema = stored_table(scope, &self.table)?.schema();
                let plan = session.plan_returning(scope, returning, schema, Vec::new())?;
                Ok(Some(super::query::result_schema(&plan)))
            }
            None => Ok(None),
        }
    }
}

/// The name of a table that a statement changes, from its written name.
///
/// # Errors
/// 42501 for system tables, 3F000 for schemas that do not exist, 0A000 for other databases.
pub fn target_name(name: &pg::ObjectName) -> Result<String, SqlError> {
    let mut parts = Vec::with_capacity(name.0.len());
    for part in &name.0 {
        match part.as_ident() {
            Some(ident) => parts.push(sql::fold(ident)),
            None => {
                return Err(SqlError::new(
                    SqlState::SYNTAX_ERROR,
                    format!("\"{name}\" is no name of a table"),
                ));
            }
        }
    }
    // Names with control characters are the server's own.
    if let Some(name) = parts.last().filter(|name| name.contains('\u{1}')) {
        return Err(SqlError::new(SqlState::INVALID_NAME, format!("invalid name {name:?}")));
    }
    match parts.as_slice() {
        [table] => Ok(table.clone()),
        [.., schema, table] => {
            check_schema(schema, table)?;
            Ok(table.clone())
        }
        [] => Err(SqlError::new(SqlState::SYNTAX_ERROR, "a name of a table is missing")),
    }
}

/// Only `public` holds tables that statements may make or change.
///
/// # Errors
/// 42501 for system schemas, 3F000 for those that do not exist.
pub fn check_schema(schema: &str, table: &str) -> Result<(), SqlError> {
    match schema {
        "public" => Ok(()),
        schema if is_temporary_schema(schema) => Ok(()),
        "pg_catalog" | "information_schema" | "thanosql" => Err(SqlError::new(
            SqlState::INSUFFICIENT_PRIVILEGE,
            format!("permission denied: \"{schema}.{table}\" belongs to the system"),
        )),
        _ => Err(SqlError::new(
            SqlState::INVALID_SCHEMA_NAME,
            format!("schema \"{schema}\" does not exist"),
        )),
    }
}

/// Whether a schema is that of the session's temporary tables.
pub fn is_temporary_schema(schema: &str) -> bool {
    schema == "pg_temp" || schema == TEMPORARY_SCHEMA
}

/// The table that a statement names, or why it cannot be changed.
///
/// # Errors
/// 42P01, or 42809 for a view.
pub fn stored_table(scope: &Scope, name: &str) -> Result<Table, SqlError> {
    match scope.snapshot.table(name) {
        Some(table) => Ok(table),
        None if scope.snapshot.view(name).is_some() => Err(SqlError::new(
            SqlState::WRONG_OBJECT_TYPE,
            format!("cannot change view \"{name}\""),
        )),
        None => Err(undefined_table(name)),
    }
}

/// The table that a change names.
///
/// # Errors
/// As [`target_name`]; 0A000 for targets that are not plain tables.
pub fn change_target(statement: &pg::Statement) -> Result<String, SqlError> {
    match statement {
        pg::Statement::Insert(insert) => match &insert.table {
            pg::TableObject::TableName(name) => target_name(name),
            _ => Err(unsupported("INSERT into anything but a table")),
        },
        pg::Statement::Update(update) => factor_name(&update.table).map(|(name, _)| name),
        pg::Statement::Delete(delete) => factor_name(delete_target(delete)?).map(|(name, _)| name),
        _ => Err(crate::error::internal("not a change")),
    }
}

impl ClientSession {
    /// Plans INSERT, UPDATE or DELETE. Settles the types of parameters that the target's columns decide.
    pub(crate) fn plan_change(
        &self,
        scope: &mut Scope,
        statement: &pg::Statement,
        embedded: &[Embedded],
    ) -> Result<Change, SqlError> {
        match statement {
            pg::Statement::Insert(insert) => self.plan_insert(scope, insert, embedded),
            pg::Statement::Update(update) => self.plan_update(scope, update, embedded),
            pg::Statement::Delete(delete) => self.plan_delete(scope, delete, embedded),
            _ => Err(crate::error::internal("not a change")),
        }
    }

    fn plan_insert(
        &self,
        scope: &mut Scope,
        insert: &pg::Insert,
        embedded: &[Embedded],
    ) -> Result<Change, SqlError> {
        if insert.or.is_some()
            || insert.ignore
            || insert.overwrite
            || insert.replace_into
            || insert.partitioned.is_some()
        {
            return Err(unsupported("this form of INSERT"));
        }
        let name = change_target(&pg::Statement::Insert(insert.clone()))?;
        let table = stored_table(scope, &name)?;
        let schema = table.schema();
        let given = insert_columns(&insert.columns, &schema, &name)?;
        let source = match &insert.source {
            Some(source) => {
                let mut source = source.clone();
                settle_values(&mut source, scope, &schema, &given)?;
                Some(self.plan_source(scope, source, embedded)?)
            }
            None => None,
        };
        let source = match source {
            Some(source) => source,
            // INSERT INTO t DEFAULT VALUES
            None => {
                let empty = LogicalPlanBuilder::empty(true).build();
                empty.map_err(|error| datafusion_error(error, None))?
            }
        };
        let yielded = if insert.source.is_some() { source.schema().fields().len() } else { 0 };
        if yielded > given.len() {
            return Err(SqlError::new(
                SqlState::SYNTAX_ERROR,
                "INSERT has more expressions than target columns",
            ));
        }
        if yielded < given.len() && !insert.columns.is_empty() {
            return Err(SqlError::new(
                SqlState::SYNTAX_ERROR,
                "INSERT has more target columns than expressions",
            ));
        }
        let mut projection = Vec::with_capacity(schema.fields().len());
        for (index, field) in schema.fields().iter().enumerate() {
            let value = match given.iter().take(yielded).position(|column| *column == index) {
                Some(position) => {
                    plan::provenance::check_assignment(&source, position, field)?;
                    Expr::Column(Column::from(source.schema().qualified_field(position)))
                }
                None => self.default_of(scope, field)?,
            };
            let value = plan::coerce::assign(value, source.schema().as_ref(), field.data_type())
                .map_err(|error| datafusion_error(error, None))?;
            projection.push(value.alias(field.name()));
        }
        let plan = LogicalPlanBuilder::from(source)
            .project(projection)
            .and_then(LogicalPlanBuilder::build)
            .map_err(|error| datafusion_error(error, None))?;
        let alias = insert.table_alias.as_ref().map(|alias| sql::fold(&alias.alias));
        let alias = alias.unwrap_or_else(|| name.clone());
        let conflict = match &insert.on {
            None => None,
            Some(pg::OnInsert::OnConflict(on)) => {
                Some(self.plan_conflict(scope, on, &table, &alias)?)
            }
            Some(_) => return Err(unsupported("ON DUPLICATE KEY UPDATE")),
        };
        Ok(Change {
            returning: returning(insert.returning.as_ref(), alias),
            table: name,
            plan,
            kind: ChangeKind::Insert,
            conflict,
        })
    }

    /// ON CONFLICT.
    fn plan_conflict(
        &self,
        scope: &mut Scope,
        on: &pg::OnConflict,
        table: &Table,
        alias: &str,
    ) -> Result<Conflict, SqlError> {
        let keys = conflict_keys(on.conflict_target.as_ref(), table)?;
        let update = match &on.action {
            pg::OnConflictAction::DoNothing => return Ok(Conflict::Nothing(keys)),
            pg::OnConflictAction::DoUpdate(update) => update,
        };
        let (Some(key), true) = (keys.into_iter().next(), on.conflict_target.is_some()) else {
            return Err(SqlError::new(
                SqlState::SYNTAX_ERROR,
                "ON CONFLICT DO UPDATE requires inference specification or constraint name",
            )
            .with_hint("For example, ON CONFLICT (column_name)."));
        };
        let (name, schema) = (table.name(), table.schema());
        let mut assigned = assigned_values(scope, &update.assignments, &schema, name)?;
        let mut values = Vec::with_capacity(schema.fields().len());
        for (index, field) in schema.fields().iter().enumerate() {
            let mut value =
                assigned.remove(&index).unwrap_or_else(|| qualified(alias, field.name()));
            name_excluded(&mut value, alias, name, &schema)?;
            values.push(value);
        }
        let mut selection = update.selection.clone().map(Box::new);
        if let Some(selection) = &mut selection {
            name_excluded(selection, alias, name, &schema)?;
        }
        let conflict = Conflict::Update { key, values, selection, alias: alias.to_string() };
        // Planned over no rows: for its errors, and for the types of its parameters.
        if let Some(plan) = self.plan_conflict_update(scope, &conflict, &schema, Vec::new())? {
            plan::infer_parameters(&plan, &mut scope.parameters)?;
        }
        Ok(conflict)
    }

    fn plan_source(
        &self,
        scope: &Scope,
        source: Box<pg::Query>,
        embedded: &[Embedded],
    ) -> Result<LogicalPlan, SqlError> {
        plan::plan_ast(&self.state, scope, pg::Statement::Query(source), embedded, HashMap::new())
    }

    /// The value of a column that an INSERT leaves out.
    fn default_of(&self, scope: &Scope, field: &Field) -> Result<Expr, SqlError> {
        match default_text(field) {
            Some(text) => {
                let expression = sql::parse_expression(&text).map_err(crate::error::parse_error)?;
                plan::plan_constant(&self.state, scope, expression)
            }
            None => ScalarValue::try_new_null(field.data_type())
                .map(lit)
                .map_err(|error| datafusion_error(error, None)),
        }
    }

    fn plan_update(
        &self,
        scope: &mut Scope,
        update: &pg::Update,
        embedded: &[Embedded],
    ) -> Result<Change, SqlError> {
        if update.or.is_some() || update.limit.is_some() || !update.order_by.is_empty() {
            return Err(unsupported("this form of UPDATE"));
        }
        let (name, alias) = factor_name(&update.table)?;
        let table = stored_table(scope, &name)?;
        let schema = table.schema();
        let mut assigned = assigned_values(scope, &update.assignments, &schema, &name)?;
        let mut items = vec![(ROW_ID_COLUMN.to_string(), qualified(&alias, ROW_ID_COLUMN))];
        for (index, field) in schema.fields().iter().enumerate() {
            let value = assigned.remove(&index).unwrap_or_else(|| qualified(&alias, field.name()));
            items.push((format!("__thanosql_new_{index}"), value));
        }
        let from = match &update.from {
            Some(
                pg::UpdateTableFromKind::AfterSet(tables)
                | pg::UpdateTableFromKind::BeforeSet(tables),
            ) => tables.clone(),
            None => Vec::new(),
        };
        let plan = self.plan_rows_to_change(
            scope,
            &table,
            &alias,
            items,
            from,
            update.selection.clone(),
            embedded,
        )?;
        let plan = new_values(plan, &schema)?;
        Ok(Change {
            returning: returning(update.returning.as_ref(), alias),
            table: name,
            plan,
            kind: ChangeKind::Update,
            conflict: None,
        })
    }

    fn plan_delete(
        &self,
        scope: &mut Scope,
        delete: &pg::Delete,
        embedded: &[Embedded],
    ) -> Result<Change, SqlError> {
        if delete.limit.is_some() || !delete.order_by.is_empty() || !delete.tables.is_empty() {
            return Err(unsupported("this form of DELETE"));
        }
        let (name, alias) = factor_name(delete_target(delete)?)?;
        let table = stored_table(scope, &name)?;
        let mut items = vec![(ROW_ID_COLUMN.to_string(), qualified(&alias, ROW_ID_COLUMN))];
        if delete.returning.is_some() {
            for field in table.schema().fields() {
                items.push((field.name().clone(), qualified(&alias, field.name())));
            }
        }
        let using = delete.using.clone().unwrap_or_default();
        let plan = self.plan_rows_to_change(
            scope,
            &table,
            &alias,
            items,
            using,
            delete.selection.clone(),
            embedded,
        )?;
        Ok(Change {
            returning: returning(delete.returning.as_ref(), alias),
            table: name,
            plan,
            kind: ChangeKind::Delete,
            conflict: None,
        })
    }

    /// A [`target_query`] with the target's row ids in reach.
    #[allow(clippy::too_many_arguments)] // they are the parts of one query
    fn plan_rows_to_change(
        &self,
        scope: &Scope,
        table: &Table,
        alias: &str,
        items: Vec<(String, pg::Expr)>,
        from: Vec<pg::TableWithJoins>,
        selection: Option<pg::Expr>,
        embedded: &[Embedded],
    ) -> Result<LogicalPlan, SqlError> {
        let query = target_query(alias, items, from, selection)?;
        let target: Arc<dyn TableSource> =
            provider_as_source(Arc::new(StoredTable::with_row_ids(table.clone())));
        let tables = HashMap::from([(TARGET.to_string(), target)]);
        plan::plan_ast(&self.state, scope, pg::Statement::Query(Box::new(query)), embedded, tables)
    }

    fn plan_returning(
        &self,
        scope: &Scope,
        returning: &Returning,
        schema: SchemaRef,
        batches: Vec<RecordBatch>,
    ) -> Result<LogicalPlan, SqlError> {
        let mut query =
            template(&format!("SELECT 1 FROM {TARGET} AS {}", quoted(&returning.name)))?;
        let pg::SetExpr::Select(select) = query.body.as_mut() else {
            return Err(crate::error::internal("the template is no SELECT"));
        };
        select.projection = returning.items.clone();
        let nullable: Vec<Field> = schema
            .fields()
            .iter()
            .map(|field| field.as_ref().clone().with_nullable(true))
            .collect();
        let schema = Arc::new(Schema::new(nullable));
        let rows = MemTable::try_new(schema, vec![batches])
            .map_err(|error| datafusion_error(error, None))?;
        let target: Arc<dyn TableSource> = provider_as_source(Arc::new(rows));
        let tables = HashMap::from([(TARGET.to_string(), target)]);
        plan::plan_ast(&self.state, scope, pg::Statement::Query(Box::new(query)), &[], tables)
    }

    /// Runs INSERT, UPDATE or DELETE.
    pub(crate) async fn run_change(
        &mut self,
        parsed: &Parsed,
        statement: &pg::Statement,
        embedded: &[Embedded],
        parameters: plan::Parameters,
        control: &Control,
    ) -> Result<Response, SqlError> {
        self.refuse_in_read_only()?;
        let target = change_target(statement)?;
        self.lock(&target, control).await?;
        let mut scope = self.scope(parsed, parameters, control)?;
        self.keep_embedded(&mut scope, embedded, control).await?;
        let change = self.plan_change(&mut scope, statement, embedded)?;
        let table = stored_table(&scope, &change.table)?;
        let schema = table.schema();
        let stream = control.run(self.start(&scope, change.plan.clone())).await?;
        let (verb, rows, changed) = match change.kind {
            ChangeKind::Insert => match (&change.conflict, &change.returning) {
                (Some(conflict), returning) => {
                    let outcome = self
                        .upsert(&scope, &table, conflict, stream, returning.is_some(), control)
                        .await?;
                    ("INSERT 0", outcome.rows, outcome.changed)
                }
                (None, None) => {
                    let rows =
                        rowset::store(&self.transaction, &change.table, &schema, stream, control)
                            .await?;
                    ("INSERT 0", rows, Vec::new())
                }
                (None, Some(_)) => {
                    let mut changed = Vec::new();
                    for batch in rowset::collect(stream, control).await? {
                        let batch = rowset::conform(&batch, &schema)?;
                        self.transaction
                            .change(|transaction| transaction.append(&change.table, &batch))?;
                        changed.push(batch);
                    }
                    ("INSERT 0", count(&changed), changed)
                }
            },
            ChangeKind::Update => {
                // Every new value is known before the first row is changed.
                let found = rowset::collect(stream, control).await?;
                let (ids, rows) = first_of_each_row(found, &schema)?;
                self.transaction.change(|transaction| {
                    transaction.delete_rows(&change.table, &ids)?;
                    rows.iter().try_for_each(|batch| transaction.append(&change.table, batch))
                })?;
                ("UPDATE", ids.len() as u64, rows)
            }
            ChangeKind::Delete => {
                let found = rowset::collect(stream, control).await?;
                let returned = if change.returning.is_some() {
                    schema.clone()
                } else {
                    Arc::new(Schema::empty())
                };
                let (ids, rows) = first_of_each_row(found, &returned)?;
                self.transaction
                    .change(|transaction| transaction.delete_rows(&change.table, &ids))?;
                ("DELETE", ids.len() as u64, rows)
            }
        };
        match &change.returning {
            None => Ok(Response::Done { tag: format!("{verb} {rows}") }),
            Some(returning) => {
                let plan = self.plan_returning(&scope, returning, schema, changed)?;
                let tag = match change.kind {
                    ChangeKind::Insert => RowsTag::CountedAfterZero("INSERT".to_string()),
                    ChangeKind::Update | ChangeKind::Delete => RowsTag::Counted(verb.to_string()),
                };
                self.answer(&scope, plan, tag, control).await
            }
        }
    }

    /// TRUNCATE.
    pub(crate) async fn truncate(
        &mut self,
        truncate: &pg::Truncate,
        control: &Control,
    ) -> Result<Response, SqlError> {
        self.refuse_in_read_only()?;
        for target in &truncate.table_names {
            let name = target_name(&target.name)?;
            self.lock(&name, control).await?;
            if self.transaction.snapshot().table(&name).is_none() {
                return Err(undefined_table(&name));
            }
            self.transaction.change(|transaction| transaction.truncate(&name))?;
            if truncate.identity == Some(pg::TruncateIdentityOption::Restart) {
                let table = self.transaction.snapshot().table(&name);
                let schema = table.map(|table| table.schema());
                for (_, sequence) in schema.iter().flat_map(|schema| sequences_of(schema)) {
                    let store = &self.server.store;
                    store
                        .set_sequence(sequence.oid, Some(sequence.start))
                        .map_err(storage_error)?;
                }
            }
        }
        Ok(Response::Done { tag: "TRUNCATE TABLE".to_string() })
    }
}

fn unsupported(what: &str) -> SqlError {
    SqlError::new(SqlState::FEATURE_NOT_SUPPORTED, format!("{what} is not supported"))
}

fn count(batches: &[RecordBatch]) -> u64 {
    batches.iter().map(|batch| batch.num_rows() as u64).sum()
}

/// The columns that an INSERT gives, as indexes into the table's.
fn insert_columns(
    names: &[pg::ObjectName],
    schema: &SchemaRef,
    table: &str,
) -> Result<Vec<usize>, SqlError> {
    if names.is_empty() {
        return Ok((0..schema.fields().len()).collect());
    }
    let mut columns = Vec::with_capacity(names.len());
    for name in names {
        let column = match name.0.last().and_then(pg::ObjectNamePart::as_ident) {
            Some(ident) => sql::fold(ident),
            None => return Err(unsupported("this name of a column")),
        };
        let index = schema.index_of(&column).map_err(|_| missing_column(&column, table, schema))?;
        if columns.contains(&index) {
            return Err(SqlError::new(
                SqlState::DUPLICATE_COLUMN,
                format!("column \"{column}\" specified more than once"),
            ));
        }
        columns.push(index);
    }
    Ok(columns)
}

/// A column that a table does not have.
pub fn missing_column(column: &str, table: &str, schema: &SchemaRef) -> SqlError {
    let error = SqlError::new(
        SqlState::UNDEFINED_COLUMN,
        format!("column \"{column}\" of relation \"{table}\" does not exist"),
    );
    match sql::closest(column, schema.fields().iter().map(|field| field.name().as_str())) {
        Some(near) => error.with_hint(format!("Did you mean \"{near}\"?")),
        None => error,
    }
}

/// The values that SET gives, by column. Settles the types of parameters that stand alone.
fn assigned_values(
    scope: &mut Scope,
    assignments: &[pg::Assignment],
    schema: &SchemaRef,
    table: &str,
) -> Result<HashMap<usize, pg::Expr>, SqlError> {
    let mut assigned: HashMap<usize, pg::Expr> = HashMap::new();
    let mut assign = |scope: &mut Scope, column: &pg::ObjectName, value: &pg::Expr| {
        let name = match column.0.last().and_then(pg::ObjectNamePart::as_ident) {
            Some(ident) => sql::fold(ident),
            None => return Err(unsupported("this target of an assignment")),
        };
        let index = schema.index_of(&name).map_err(|_| missing_column(&name, table, schema))?;
        let field = schema.field(index);
        let value = if is_default(value) {
            default_expression(field)?
        } else {
            refuse_generated(field, format!("column \"{name}\" can only be updated to DEFAULT"))?;
            value.clone()
        };
        if let Some(n) = placeholder(&value) {
            scope.parameters.settle(n, field.data_type().clone());
        }
        if assigned.insert(index, value).is_some() {
            return Err(SqlError::new(
                SqlState::SYNTAX_ERROR,
                format!("multiple assignments to same column \"{name}\""),
            ));
        }
        Ok(())
    };
    for assignment in assignments {
        match (&assignment.target, &assignment.value) {
            (pg::AssignmentTarget::ColumnName(column), value) => assign(scope, column, value)?,
            // SET (a, b) = (1, 2)
            (pg::AssignmentTarget::Tuple(columns), pg::Expr::Tuple(values)) => {
                if columns.len() != values.len() {
                    return Err(SqlError::new(
                        SqlState::SYNTAX_ERROR,
                        "number of columns does not match number of values",
                    ));
                }
                for (column, value) in columns.iter().zip(values) {
                    assign(scope, column, value)?;
                }
            }
            (pg::AssignmentTarget::Tuple(_), _) => {
                return Err(unsupported("assigning several columns from a query"));
            }
        }
    }
    Ok(assigned)
}

/// Whether a value is the word DEFAULT.
fn is_default(value: &pg::Expr) -> bool {
    matches!(value, pg::Expr::Identifier(ident)
        if ident.quote_style.is_none() && ident.value.eq_ignore_ascii_case("default"))
}

/// The SQL text of what a column is when an INSERT leaves it out.
fn default_text(field: &Field) -> Option<String> {
    let default = field.metadata().get(COLUMN_DEFAULT).cloned();
    default.or_else(|| ColumnSequence::of(field).map(|sequence| sequence.call()))
}

/// # Errors
/// 428C9 if a column takes no value but its sequence's.
fn refuse_generated(field: &Field, message: String) -> Result<(), SqlError> {
    match ColumnSequence::of(field) {
        Some(sequence) if sequence.kind == SequenceKind::Always => {
            Err(SqlError::new(SqlState::GENERATED_ALWAYS, message).with_detail(format!(
                "Column \"{}\" is an identity column defined as GENERATED ALWAYS.",
                field.name()
            )))
        }
        Some(_) | None => Ok(()),
    }
}

/// A column's default as an expression; NULL if it has none.
fn default_expression(field: &Field) -> Result<pg::Expr, SqlError> {
    match default_text(field) {
        Some(text) => sql::parse_expression(&text).map_err(crate::error::parse_error),
        None => Ok(pg::Expr::Value(pg::Value::Null.into())),
    }
}

/// Row ids and new values as values of their columns.
pub(super) fn new_values(plan: LogicalPlan, schema: &SchemaRef) -> Result<LogicalPlan, SqlError> {
    let mut projection = vec![Expr::Column(Column::from(plan.schema().qualified_field(0)))];
    for (index, field) in schema.fields().iter().enumerate() {
        plan::provenance::check_assignment(&plan, index + 1, field)?;
        let value = Expr::Column(Column::from(plan.schema().qualified_field(index + 1)));
        let value = plan::coerce::assign(value, plan.schema().as_ref(), field.data_type())
            .map_err(|error| datafusion_error(error, None))?;
        projection.push(value.alias(field.name()));
    }
    LogicalPlanBuilder::from(plan)
        .project(projection)
        .and_then(LogicalPlanBuilder::build)
        .map_err(|error| datafusion_error(error, None))
}

/// Parameters that stand alone in VALUES have the types of their columns; DEFAULT there is the column's default.
fn settle_values(
    source: &mut pg::Query,
    scope: &mut Scope,
    schema: &SchemaRef,
    given: &[usize],
) -> Result<(), SqlError> {
    let pg::SetExpr::Values(values) = source.body.as_mut() else {
        return given.iter().try_for_each(|column| refuse_value(schema.field(*column)));
    };
    for values in &mut values.rows {
        for (position, value) in values.content.iter_mut().enumerate() {
            let Some(column) = given.get(position) else { continue };
            let field = schema.field(*column);
            if is_default(value) {
                *value = default_expression(field)?;
            } else {
                refuse_value(field)?;
            }
            if let Some(n) = placeholder(value) {
                scope.parameters.settle(n, field.data_type().clone());
            } else {
                plan::as_vector(value, field.data_type());
                as_number(value, field.data_type());
            }
        }
    }
    Ok(())
}

/// Makes a value among VALUES a number where its column has numbers. Otherwise the rows of VALUES would decide together which kind of number they are,
/// and `'NaN'` is no decimal, and `2.5e-300` none that is stored. What decimals and whole numbers are among themselves may wait for the column.
fn as_number(value: &mut pg::Expr, column: &DataType) {
    let is_text = matches!(
        value,
        pg::Expr::Value(pg::ValueWithSpan { value: pg::Value::SingleQuotedString(_), .. })
    );
    let data_type = match column {
        DataType::Int16 if is_text => pg::DataType::SmallInt(None),
        DataType::Int32 if is_text => pg::DataType::Integer(None),
        DataType::Int64 if is_text => pg::DataType::BigInt(None),
        DataType::Float32 => pg::DataType::Real,
        DataType::Float64 => pg::DataType::DoublePrecision,
        _ => return,
    };
    let expr = std::mem::replace(value, pg::Expr::Value(pg::Value::Null.into()));
    *value = pg::Expr::Cast {
        kind: pg::CastKind::DoubleColon,
        expr: Box::new(pg::Expr::Nested(Box::new(expr))),
        data_type,
        array: false,
        format: None,
    };
}

fn refuse_value(field: &Field) -> Result<(), SqlError> {
    let message = format!("cannot insert a non-DEFAULT value into column \"{}\"", field.name());
    refuse_generated(field, message)
}

/// The `n` of an expression that is `$n` and nothing else.
fn placeholder(expr: &pg::Expr) -> Option<usize> {
    match expr {
        pg::Expr::Value(pg::ValueWithSpan { value: pg::Value::Placeholder(name), .. }) => {
            name.strip_prefix('$')?.parse().ok()
        }
        _ => None,
    }
}

fn returning(items: Option<&Vec<pg::SelectItem>>, name: String) -> Option<Returning> {
    items.map(|items| Returning { items: items.clone(), name })
}

/// The target of UPDATE or DELETE: its name, and what it is called in the statement.
fn factor_name(table: &pg::TableWithJoins) -> Result<(String, String), SqlError> {
    if !table.joins.is_empty() {
        return Err(unsupported("a join as the target of a change"));
    }
    match &table.relation {
        pg::TableFactor::Table { name, alias, args: None, .. } => {
            let table = target_name(name)?;
            let alias =
                alias.as_ref().map(|alias| sql::fold(&alias.name)).unwrap_or_else(|| table.clone());
            Ok((table, alias))
        }
        _ => Err(unsupported("anything but a table as the target of a change")),
    }
}

fn delete_target(delete: &pg::Delete) -> Result<&pg::TableWithJoins, SqlError> {
    let (pg::FromTable::WithFromKeyword(tables) | pg::FromTable::WithoutKeyword(tables)) =
        &delete.from;
    match tables.as_slice() {
        [table] => Ok(table),
        _ => Err(unsupported("DELETE from several tables")),
    }
}

/// `alias.column`, whatever characters they have.
pub(super) fn qualified(alias: &str, column: &str) -> pg::Expr {
    pg::Expr::CompoundIdentifier(vec![
        pg::Ident::with_quote('"', alias),
        pg::Ident::with_quote('"', column),
    ])
}

pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A tree to fill in. Only text of ours is parsed.
pub(super) fn template(text: &str) -> Result<pg::Query, SqlError> {
    sql::parse_query(text).map(|body| *body.query).map_err(crate::error::parse_error)
}

/// `SELECT items FROM target AS alias, from... WHERE selection`
pub(super) fn target_query(
    alias: &str,
    items: Vec<(String, pg::Expr)>,
    from: Vec<pg::TableWithJoins>,
    selection: Option<pg::Expr>,
) -> Result<pg::Query, SqlError> {
    let mut query = template(&format!("SELECT 1 FROM {TARGET} AS {}", quoted(alias)))?;
    let pg::SetExpr::Select(select) = query.body.as_mut() else {
        return Err(crate::error::internal("the template is no SELECT"));
    };
    select.projection = items
        .into_iter()
        .map(|(name, expr)| pg::SelectItem::ExprWithAlias {
            expr,
            alias: pg::Ident::with_quote('"', name),
        })
        .collect();
    select.from.extend(from);
    select.selection = selection;
    Ok(query)
}

/// Splits row ids off and drops rows that a join found twice: PostgreSQL changes a row once, with any of its matches.
pub(super) fn first_of_each_row(
    batches: Vec<RecordBatch>,
    schema: &SchemaRef,
) -> Result<(Vec<u64>, Vec<RecordBatch>), SqlError> {
    let mut seen = HashSet::new();
    let mut ids = Vec::new();
    let mut rows = Vec::new();
    for batch in batches {
        let column = batch.column(0);
        let column =
            arrow::compute::cast(column, &DataType::UInt64).map_err(crate::error::arrow_error)?;
        let column = column.as_primitive::<UInt64Type>();
        let first: BooleanArray = column.values().iter().map(|id| Some(seen.insert(*id))).collect();
        ids.extend(
            column
                .values()
                .iter()
                .zip(first.values())
                .filter(|(_, first)| *first)
                .map(|(id, _)| *id),
        );
        if schema.fields().is_empty() {
            continue;
        }
        let columns: Vec<usize> = (1..batch.num_columns()).collect();
        let batch = batch.project(&columns).map_err(crate::error::arrow_error)?;
        let batch = filter_record_batch(&batch, &first).map_err(crate::error::arrow_error)?;
        rows.push(rowset::conform(&batch, schema)?);
    }
    Ok((ids, rows))
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int64Array, UInt64Array};

    use super::*;

    #[test]
    fn a_row_that_a_join_finds_twice_is_changed_once() {
        let schema = Arc::new(Schema::new(vec![Field::new("a", DataType::Int64, true)]));
        let found = Arc::new(Schema::new(vec![
            Field::new(ROW_ID_COLUMN, DataType::UInt64, false),
            Field::new("a", DataType::Int64, true),
        ]));
        let batch = RecordBatch::try_new(
            found,
            vec![
                Arc::new(UInt64Array::from(vec![7, 8, 7])),
                Arc::new(Int64Array::from(vec![1, 2, 3])),
            ],
        )
        .unwrap();
        let (ids, rows) = first_of_each_row(vec![batch], &schema).unwrap();
        assert_eq!(ids, [7, 8]);
        assert_eq!(
            rows[0].column(0).as_primitive::<arrow::datatypes::Int64Type>().values().to_vec(),
            [1, 2]
        );
    }

    #[test]
    fn names_with_quotes_stay_one_name() {
        let query = template(&format!("SELECT 1 FROM {TARGET} AS {}", quoted("we\"ird"))).unwrap();
        assert!(query.to_string().contains("we\"\"ird"));
    }
}
