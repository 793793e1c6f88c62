//! INSERT ... ON CONFLICT: rows whose key is taken are left out, or change the row that has it.
//!
//! Rows are taken a batch at a time. The keys' indexes say which are new and which row stands in the way of the others; for
//! DO UPDATE the two are put side by side, `excluded`'s columns under names of their own, and the new values are a query
//! over them. A statement never changes a row twice, as in PostgreSQL; one that its WHERE left alone may be met again, so a batch is cut
//! where a key comes again.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, UInt64Array};
use arrow::compute::{filter_record_batch, take_record_batch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::datasource::{MemTable, provider_as_source};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::logical_expr::{LogicalPlan, TableSource};
use futures::StreamExt as _;
use sqlparser::ast as pg;
use thanosql_protocol::{SqlError, SqlState};
use thanosql_storage::{KeyValues, ROW_ID_COLUMN, Table, UniqueKey};

use super::dml::{TARGET, first_of_each_row, new_name, new_values, qualified, target_query};
use super::given_values::assigned_values;
use super::query::controlled;
use super::targets::missing_column;
use super::{Control, rowset};
use crate::error::{arrow_error, datafusion_error, storage_error, undefined_table};
use crate::plan::{self, Scope};
use crate::session::ClientSession;
use crate::sql;

/// What the columns of `excluded` are called beside those of the row that is there.
const EXCLUDED: &str = "__thanosql_excluded_";

/// What happens to rows whose key is taken.
pub(super) enum Conflict {
    /// They are left out if one of these keys is.
    Nothing(Vec<UniqueKey>),
    /// They change the row that has the key.
    Update(Box<ConflictUpdate>),
}

/// DO UPDATE.
pub(super) struct ConflictUpdate {
    key: UniqueKey,
    /// The new values of all columns.
    values: Vec<pg::Expr>,
    selection: Option<pg::Expr>,
    /// What the target is called.
    alias: String,
}

/// What an INSERT has done.
#[derive(Default)]
pub(super) struct Outcome {
    pub(super) rows: u64,
    /// The rows as they are now, for RETURNING.
    pub(super) changed: Vec<RecordBatch>,
    returns: bool,
    /// The values of DO UPDATE's key in the rows that are inserted and changed. What no WHERE wanted is not among them.
    touched: HashSet<Box<[u8]>>,
}

/// The keys that ON CONFLICT names.
///
/// # Errors
/// 42P10 for columns that are no key, 42704 for a constraint that is not there.
fn conflict_keys(
    target: Option<&pg::ConflictTarget>,
    table: &Table,
) -> Result<Vec<UniqueKey>, SqlError> {
    let schema = table.schema();
    match target {
        None => Ok(table.keys().to_vec()),
        Some(pg::ConflictTarget::Columns(columns)) => {
            let mut wanted = HashSet::new();
            for column in columns {
                let column = sql::fold(column);
                let index = schema
                    .index_of(&column)
                    .map_err(|_| missing_column(&column, table.name(), &schema))?;
                wanted.insert(index);
            }
            let found: Vec<UniqueKey> = table
                .keys()
                .iter()
                .filter(|key| key.columns.iter().copied().collect::<HashSet<_>>() == wanted)
                .cloned()
                .collect();
            if found.is_empty() {
                return Err(SqlError::new(
                    SqlState::INVALID_COLUMN_REFERENCE,
                    "there is no unique or exclusion constraint matching the ON CONFLICT specification",
                ));
            }
            Ok(found)
        }
        Some(pg::ConflictTarget::OnConstraint(name)) => {
            let name = name.0.last().and_then(|part| part.as_ident()).map(sql::fold);
            let name = name.unwrap_or_default();
            match table.keys().iter().find(|key| key.name == name) {
                Some(key) => Ok(vec![key.clone()]),
                None => Err(SqlError::new(
                    SqlState::UNDEFINED_OBJECT,
                    format!("constraint \"{name}\" for table \"{}\" does not exist", table.name()),
                )),
            }
        }
    }
}

impl ClientSession {
    /// ON CONFLICT.
    pub(super) fn plan_conflict(
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
        let mut selection = update.selection.clone();
        if let Some(selection) = &mut selection {
            name_excluded(selection, alias, name, &schema)?;
        }
        let update = ConflictUpdate { key, values, selection, alias: alias.to_string() };
        // Planned over no rows: for its errors, and for the types of its parameters.
        let plan = self.plan_conflict_update(scope, &update, &schema, Vec::new())?;
        plan::infer_parameters(&plan, &mut scope.parameters)?;
        Ok(Conflict::Update(Box::new(update)))
    }

    /// The query for the new values of rows that are there, over the rows and those that were to be inserted.
    fn plan_conflict_update(
        &self,
        scope: &Scope,
        update: &ConflictUpdate,
        schema: &SchemaRef,
        rows: Vec<RecordBatch>,
    ) -> Result<LogicalPlan, SqlError> {
        let ConflictUpdate { values, selection, alias, .. } = update;
        let mut items = vec![(ROW_ID_COLUMN.to_string(), qualified(alias, ROW_ID_COLUMN))];
        for (index, value) in values.iter().enumerate() {
            items.push((new_name(index), value.clone()));
        }
        let query = target_query(alias, items, Vec::new(), selection.clone())?;
        let memory = MemTable::try_new(side_by_side(schema), vec![rows])
            .map_err(|error| datafusion_error(error, None))?;
        let target: Arc<dyn TableSource> = provider_as_source(Arc::new(memory));
        let tables = HashMap::from([(TARGET.to_string(), target)]);
        let ast = pg::Statement::Query(Box::new(query));
        let plan = plan::plan_ast(&self.state, scope, ast, &[], tables)?;
        new_values(plan, schema)
    }

    /// Inserts a stream's rows, except those whose key is taken.
    pub(super) async fn upsert(
        &self,
        scope: &Scope,
        table: &Table,
        conflict: &Conflict,
        stream: SendableRecordBatchStream,
        returns: bool,
        control: &Control,
    ) -> Result<Outcome, SqlError> {
        let (table, schema) = (table.name(), &table.schema());
        let mut outcome = Outcome { returns, ..Outcome::default() };
        let mut stream = controlled(stream, control.clone());
        while let Some(batch) = stream.next().await {
            let batch = rowset::conform(&batch?, schema)?;
            match conflict {
                Conflict::Nothing(keys) => {
                    let free = free_rows(&self.as_it_is(table)?, keys, &batch)?;
                    self.insert_free(table, free, &mut outcome)?;
                }
                Conflict::Update(update) => {
                    let values = KeyValues::of(&update.key.columns_of(&batch));
                    let values = values.map_err(storage_error)?;
                    let mut start = 0;
                    while start < batch.num_rows() {
                        let end = end_of_distinct(&values, start);
                        let touched = |row| {
                            values.get(row).is_some_and(|value| outcome.touched.contains(value))
                        };
                        if (start..end).any(touched) {
                            return Err(twice());
                        }
                        let rows = batch.slice(start, end - start);
                        self.insert_or_update(scope, table, update, &rows, &mut outcome, control)
                            .await?;
                        start = end;
                    }
                }
            }
        }
        Ok(outcome)
    }

    /// Inserts rows of which no two have the same key, or changes those that have theirs.
    async fn insert_or_update(
        &self,
        scope: &Scope,
        table: &str,
        update: &ConflictUpdate,
        rows: &RecordBatch,
        outcome: &mut Outcome,
        control: &Control,
    ) -> Result<(), SqlError> {
        let key = &update.key;
        let current = self.as_it_is(table)?;
        let schema = current.schema();
        let ids = tokio::task::block_in_place(|| current.find(key, &key.columns_of(rows)))
            .map_err(storage_error)?;
        let free: BooleanArray = ids.iter().map(|id| Some(id.is_none())).collect();
        let taken: Vec<(usize, u64)> =
            ids.iter().enumerate().filter_map(|(row, id)| Some((row, (*id)?))).collect();
        if !taken.is_empty() {
            let both = beside(&current, &schema, rows, &taken)?;
            let plan = self.plan_conflict_update(scope, update, &schema, vec![both])?;
            let stream = control.run(self.start(scope, plan)).await?;
            let found = rowset::collect(stream, control).await?;
            let (ids, changed) = first_of_each_row(found, &schema)?;
            self.transaction.change(|transaction| {
                transaction.delete_rows(table, &ids)?;
                changed.iter().try_for_each(|rows| transaction.append(table, rows))
            })?;
            for rows in changed {
                outcome.touch(key, &rows)?;
                outcome.add(rows);
            }
        }
        let free = filter_record_batch(rows, &free).map_err(arrow_error)?;
        outcome.touch(key, &free)?;
        self.insert_free(table, free, outcome)
    }

    fn insert_free(
        &self,
        table: &str,
        rows: RecordBatch,
        outcome: &mut Outcome,
    ) -> Result<(), SqlError> {
        if rows.num_rows() > 0 {
            self.transaction.change(|transaction| transaction.append(table, &rows))?;
            outcome.add(rows);
        }
        Ok(())
    }

    /// A table with what the statement has done so far.
    fn as_it_is(&self, table: &str) -> Result<Table, SqlError> {
        self.transaction.snapshot().table(table).ok_or_else(|| undefined_table(table))
    }
}

impl Outcome {
    fn add(&mut self, rows: RecordBatch) {
        self.rows += rows.num_rows() as u64;
        if self.returns {
            self.changed.push(rows);
        }
    }

    fn touch(&mut self, key: &UniqueKey, rows: &RecordBatch) -> Result<(), SqlError> {
        let values = KeyValues::of(&key.columns_of(rows)).map_err(storage_error)?;
        let values = (0..values.rows()).filter_map(|row| values.get(row).map(Box::from));
        self.touched.extend(values);
        Ok(())
    }
}

/// The rows of a batch whose keys neither a row of the table has nor one before them in the batch.
fn free_rows(
    table: &Table,
    keys: &[UniqueKey],
    batch: &RecordBatch,
) -> Result<RecordBatch, SqlError> {
    let (mut ids, mut values) = (Vec::new(), Vec::new());
    for key in keys {
        let columns = key.columns_of(batch);
        let found = tokio::task::block_in_place(|| table.find(key, &columns));
        ids.push(found.map_err(storage_error)?);
        values.push(KeyValues::of(&columns).map_err(storage_error)?);
    }
    let mut taken = vec![HashSet::new(); keys.len()];
    let free: BooleanArray = (0..batch.num_rows())
        .map(|row| {
            let here = || values.iter().map(|values| values.get(row));
            let is_free = ids.iter().all(|ids| ids[row].is_none())
                && here()
                    .zip(&taken)
                    .all(|(value, taken)| value.is_none_or(|value| !taken.contains(value)));
            if is_free {
                here().zip(&mut taken).for_each(|(value, taken)| taken.extend(value));
            }
            Some(is_free)
        })
        .collect();
    filter_record_batch(batch, &free).map_err(arrow_error)
}

/// Where the rows from `start` on end of which no two have the same key. What becomes of the first of two says what the second meets.
fn end_of_distinct(values: &KeyValues, start: usize) -> usize {
    let mut seen = HashSet::new();
    (start..values.rows())
        .find(|row| values.get(*row).is_some_and(|value| !seen.insert(value)))
        .unwrap_or(values.rows())
}

/// `excluded.column` as the column beside the target's own.
///
/// # Errors
/// 42703 for a column that the table does not have.
fn name_excluded(
    expression: &mut pg::Expr,
    alias: &str,
    table: &str,
    schema: &SchemaRef,
) -> Result<(), SqlError> {
    struct Namer<'a>(&'a str, &'a str, &'a SchemaRef, usize);
    impl pg::VisitorMut for Namer<'_> {
        type Break = SqlError;

        fn pre_visit_query(&mut self, _: &mut pg::Query) -> ControlFlow<SqlError> {
            self.3 += 1;
            ControlFlow::Continue(())
        }

        fn post_visit_query(&mut self, _: &mut pg::Query) -> ControlFlow<SqlError> {
            self.3 -= 1;
            ControlFlow::Continue(())
        }

        fn pre_visit_expr(&mut self, expr: &mut pg::Expr) -> ControlFlow<SqlError> {
            if let pg::Expr::Identifier(ident) = expr
                && self.3 == 0
                && self.2.index_of(&sql::fold(ident)).is_ok()
            {
                // The row that is there has it and the one that is not, too. In a query within it may be that query's.
                return ControlFlow::Break(SqlError::new(
                    SqlState::AMBIGUOUS_COLUMN,
                    format!("column reference \"{}\" is ambiguous", sql::fold(ident)),
                ));
            }
            if let pg::Expr::CompoundIdentifier(parts) = expr
                && let [table, column] = parts.as_slice()
                && sql::fold(table) == "excluded"
            {
                let column = sql::fold(column);
                if self.2.index_of(&column).is_err() {
                    return ControlFlow::Break(missing_column(&column, self.1, self.2));
                }
                *expr = qualified(self.0, &format!("{EXCLUDED}{column}"));
            }
            ControlFlow::Continue(())
        }
    }
    match pg::VisitMut::visit(expression, &mut Namer(alias, table, schema, 0)) {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(()),
    }
}

/// The rows that are there and those that were to be inserted, side by side.
fn beside(
    table: &Table,
    schema: &SchemaRef,
    batch: &RecordBatch,
    taken: &[(usize, u64)],
) -> Result<RecordBatch, SqlError> {
    let ids: Vec<u64> = taken.iter().map(|(_, id)| *id).collect();
    let numbers = UInt64Array::from_iter_values(taken.iter().map(|(row, _)| *row as u64));
    let there = tokio::task::block_in_place(|| table.rows(&ids, None)).map_err(storage_error)?;
    let excluded = take_record_batch(batch, &numbers).map_err(arrow_error)?;
    let columns: Vec<ArrayRef> = there
        .columns()
        .iter()
        .cloned()
        .chain([Arc::new(UInt64Array::from(ids)) as ArrayRef])
        .chain(excluded.columns().iter().cloned())
        .collect();
    RecordBatch::try_new(side_by_side(schema), columns).map_err(arrow_error)
}

fn side_by_side(schema: &SchemaRef) -> SchemaRef {
    let own = schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
    let id = Field::new(ROW_ID_COLUMN, DataType::UInt64, true);
    let excluded = schema.fields().iter().map(|field| {
        let name = format!("{EXCLUDED}{}", field.name());
        field.as_ref().clone().with_name(name).with_nullable(true)
    });
    Arc::new(Schema::new(own.chain([id]).chain(excluded).collect::<Vec<_>>()))
}

fn twice() -> SqlError {
    SqlError::new(
        SqlState::CARDINALITY_VIOLATION,
        "ON CONFLICT DO UPDATE command cannot affect row a second time",
    )
    .with_hint("Ensure that no rows proposed for insertion within the same command have duplicate constrained values.")
}
