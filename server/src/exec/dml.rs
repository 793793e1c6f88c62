//! INSERT, UPDATE and DELETE.
//!
//! DataFusion's own hooks for changes lose filters, so none of them is used: a change is planned as the query that finds
//! its rows (by row id, for UPDATE and DELETE) and their new values, and is then applied to the transaction. RETURNING is a query
//! over the changed rows.

#![allow(clippy::wildcard_enum_match_arm)] // the enums are other libraries', with far more variants than matter here

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef, UInt64Type};
use datafusion::common::{Column, ScalarValue};
use datafusion::datasource::{MemTable, provider_as_source};
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, TableSource, lit};
use sqlparser::ast as pg;
use thanosql_protocol::{Response, RowsTag, SqlError, SqlState};
use thanosql_storage::{ROW_ID_COLUMN, Snapshot, Table};

use super::given_values::{assigned_values, default_expression, insert_columns, settle_values};
use super::targets::{existing_name, stored_table};
use super::upsert::Conflict;
use super::{Control, rowset};
use crate::catalog::table::StoredTable;
use crate::error::{datafusion_error, unsupported};
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

/// The table that a change names.
///
/// # Errors
/// As [`existing_name`]; 0A000 for targets that are not plain tables.
pub fn change_target(statement: &pg::Statement, snapshot: &Snapshot) -> Result<String, SqlError> {
    match statement {
        pg::Statement::Insert(insert) => insert_target(insert, snapshot),
        pg::Statement::Update(update) => factor_name(&update.table, snapshot).map(|(name, _)| name),
        pg::Statement::Delete(delete) => {
            factor_name(delete_target(delete)?, snapshot).map(|(name, _)| name)
        }
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
        let name = insert_target(insert, &scope.snapshot)?;
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
            let value = plan::coerce::assign(value, source.schema().as_ref(), field)
                .map_err(|error| datafusion_error(error, None))?;
            projection.push(value.alias(field.name()));
        }
        let plan = projected(source, projection)?;
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
        match default_expression(field)? {
            Some(expression) => plan::plan_constant(&self.state, scope, expression),
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
        let (name, alias) = factor_name(&update.table, &scope.snapshot)?;
        let table = stored_table(scope, &name)?;
        let schema = table.schema();
        let mut assigned = assigned_values(scope, &update.assignments, &schema, &name)?;
        let mut items = vec![(ROW_ID_COLUMN.to_string(), qualified(&alias, ROW_ID_COLUMN))];
        for (index, field) in schema.fields().iter().enumerate() {
            let value = assigned.remove(&index).unwrap_or_else(|| qualified(&alias, field.name()));
            items.push((new_name(index), value));
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
        let (name, alias) = factor_name(delete_target(delete)?, &scope.snapshot)?;
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
        let target = change_target(statement, &self.transaction.peek())?;
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
}

fn count(batches: &[RecordBatch]) -> u64 {
    batches.iter().map(|batch| batch.num_rows() as u64).sum()
}

/// Row ids and new values as values of their columns.
pub(super) fn new_values(plan: LogicalPlan, schema: &SchemaRef) -> Result<LogicalPlan, SqlError> {
    let mut columns = vec![Expr::Column(Column::from(plan.schema().qualified_field(0)))];
    for (index, field) in schema.fields().iter().enumerate() {
        plan::provenance::check_assignment(&plan, index + 1, field)?;
    }
    columns.extend(assigned_columns(&plan, 1, schema)?);
    projected(plan, columns)
}

/// The columns of a query from number `first` on as values of a table's columns.
pub(super) fn assigned_columns(
    plan: &LogicalPlan,
    first: usize,
    schema: &SchemaRef,
) -> Result<Vec<Expr>, SqlError> {
    let assigned = |(index, field): (usize, &FieldRef)| {
        let value = Expr::Column(Column::from(plan.schema().qualified_field(first + index)));
        let value = plan::coerce::assign(value, plan.schema().as_ref(), field)
            .map_err(|error| datafusion_error(error, None))?;
        Ok(value.alias(field.name()))
    };
    schema.fields().iter().enumerate().map(assigned).collect()
}

/// A query's rows as these expressions.
pub(super) fn projected(plan: LogicalPlan, projection: Vec<Expr>) -> Result<LogicalPlan, SqlError> {
    LogicalPlanBuilder::from(plan)
        .project(projection)
        .and_then(LogicalPlanBuilder::build)
        .map_err(|error| datafusion_error(error, None))
}

fn returning(items: Option<&Vec<pg::SelectItem>>, name: String) -> Option<Returning> {
    items.map(|items| Returning { items: items.clone(), name })
}

fn insert_target(insert: &pg::Insert, snapshot: &Snapshot) -> Result<String, SqlError> {
    match &insert.table {
        pg::TableObject::TableName(name) => existing_name(name, snapshot),
        _ => Err(unsupported("INSERT into anything but a table")),
    }
}

/// The target of UPDATE or DELETE: its name, and what it is called in the statement.
fn factor_name(
    table: &pg::TableWithJoins,
    snapshot: &Snapshot,
) -> Result<(String, String), SqlError> {
    if !table.joins.is_empty() {
        return Err(unsupported("a join as the target of a change"));
    }
    match &table.relation {
        pg::TableFactor::Table { name, alias, args: None, .. } => {
            let table = existing_name(name, snapshot)?;
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

/// What the new value of a table's column is called in a query.
pub(super) fn new_name(column: usize) -> String {
    format!("__thanosql_new_{column}")
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
