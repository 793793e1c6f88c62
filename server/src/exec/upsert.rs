//! INSERT ... ON CONFLICT: rows whose key is taken are left out, or change the row that has it.
//!
//! Rows are taken a batch at a time. The keys' indexes say which are new and which row stands in the way of the others; for
//! DO UPDATE the two are put side by side, `excluded`'s columns under names of their own, and the new values are a query
//! over them. A statement never changes a row twice, as in PostgreSQL.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, UInt64Array};
use arrow::compute::{filter_record_batch, take_record_batch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::row::{RowConverter, SortField};
use datafusion::datasource::{MemTable, provider_as_source};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::logical_expr::{LogicalPlan, TableSource};
use futures::StreamExt as _;
use sqlparser::ast as pg;
use thanosql_protocol::{SqlError, SqlState};
use thanosql_storage::{ROW_ID_COLUMN, Table, UniqueKey};

use super::dml::{TARGET, first_of_each_row, missing_column, new_values, qualified, target_query};
use super::query::controlled;
use super::{Control, rowset};
use crate::error::{arrow_error, datafusion_error, storage_error};
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
    Update {
        key: UniqueKey,
        /// The new values of all columns.
        values: Vec<pg::Expr>,
        selection: Option<Box<pg::Expr>>,
        /// What the target is called.
        alias: String,
    },
}

/// What an INSERT has done.
#[derive(Default)]
pub(super) struct Outcome {
    pub(super) rows: u64,
    /// The rows as they are now, for RETURNING.
    pub(super) changed: Vec<RecordBatch>,
}

/// The keys that ON CONFLICT names.
///
/// # Errors
/// 42P10 for columns that are no key, 42704 for a constraint that is not there.
pub(super) fn conflict_keys(
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

/// `excluded.column` as the column beside the target's own.
///
/// # Errors
/// 42703 for a column that the table does not have.
pub(super) fn name_excluded(
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

impl ClientSession {
    /// The query for the new values of rows that are there, over the rows and those that were to be inserted.
    pub(super) fn plan_conflict_update(
        &self,
        scope: &Scope,
        conflict: &Conflict,
        schema: &SchemaRef,
        rows: Vec<RecordBatch>,
    ) -> Result<Option<LogicalPlan>, SqlError> {
        let Conflict::Update { values, selection, alias, .. } = conflict else { return Ok(None) };
        let mut items = vec![(ROW_ID_COLUMN.to_string(), qualified(alias, ROW_ID_COLUMN))];
        for (index, value) in values.iter().enumerate() {
            items.push((format!("__thanosql_new_{index}"), value.clone()));
        }
        let query = target_query(alias, items, Vec::new(), selection.as_deref().cloned())?;
        let memory = MemTable::try_new(side_by_side(schema), vec![rows])
            .map_err(|error| datafusion_error(error, None))?;
        let target: Arc<dyn TableSource> = provider_as_source(Arc::new(memory));
        let tables = HashMap::from([(TARGET.to_string(), target)]);
        let ast = pg::Statement::Query(Box::new(query));
        let plan = plan::plan_ast(&self.state, scope, ast, &[], tables)?;
        new_values(plan, schema).map(Some)
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
        let mut outcome = Outcome::default();
        let keys = match conflict {
            Conflict::Nothing(keys) => keys.clone(),
            Conflict::Update { key, .. } => vec![key.clone()],
        };
        let mut seen =
            keys.iter().map(|key| Seen::of(key, schema)).collect::<Result<Vec<_>, _>>()?;
        let mut stream = controlled(stream, control.clone());
        while let Some(batch) = stream.next().await {
            let batch = rowset::conform(&batch?, schema)?;
            let current = self.transaction.snapshot().table(table);
            let current = current.ok_or_else(|| crate::error::undefined_table(table))?;
            let (new, taken) = split(&current, &keys, &mut seen, &batch, conflict)?;
            if let Conflict::Update { .. } = conflict
                && !taken.is_empty()
            {
                let rows = beside(&current, schema, &batch, &taken)?;
                let plan = self.plan_conflict_update(scope, conflict, schema, vec![rows])?;
                if let Some(plan) = plan {
                    let stream = control.run(self.start(scope, plan)).await?;
                    let found = rowset::collect(stream, control).await?;
                    let (ids, rows) = first_of_each_row(found, schema)?;
                    self.transaction.change(|transaction| {
                        transaction.delete_rows(table, &ids)?;
                        rows.iter().try_for_each(|rows| transaction.append(table, rows))
                    })?;
                    outcome.rows += ids.len() as u64;
                    if returns {
                        outcome.changed.extend(rows);
                    }
                }
            }
            if new.num_rows() > 0 {
                self.transaction.change(|transaction| transaction.append(table, &new))?;
                outcome.rows += new.num_rows() as u64;
                if returns {
                    outcome.changed.push(new);
                }
            }
        }
        Ok(outcome)
    }
}

/// The values of a key that the statement has inserted or changed so far.
struct Seen {
    converter: RowConverter,
    values: HashSet<Box<[u8]>>,
}

impl Seen {
    fn of(key: &UniqueKey, schema: &SchemaRef) -> Result<Seen, SqlError> {
        let fields = key
            .columns
            .iter()
            .map(|column| SortField::new(schema.field(*column).data_type().clone()))
            .collect();
        let converter = RowConverter::new(fields).map_err(arrow_error)?;
        Ok(Seen { converter, values: HashSet::new() })
    }
}

/// A batch's new rows, and of the others their numbers with the ids of the rows that have their key.
fn split(
    table: &Table,
    keys: &[UniqueKey],
    seen: &mut [Seen],
    batch: &RecordBatch,
    conflict: &Conflict,
) -> Result<(RecordBatch, Vec<(usize, u64)>), SqlError> {
    let mut found = Vec::with_capacity(keys.len());
    for (key, seen) in keys.iter().zip(seen.iter_mut()) {
        let columns: Vec<ArrayRef> =
            key.columns.iter().map(|column| batch.column(*column).clone()).collect();
        let ids =
            tokio::task::block_in_place(|| table.find(key, &columns)).map_err(storage_error)?;
        let values = seen.converter.convert_columns(&columns).map_err(arrow_error)?;
        found.push((columns, ids, values));
    }
    let mut new = Vec::with_capacity(batch.num_rows());
    let mut taken = Vec::new();
    for row in 0..batch.num_rows() {
        let mut free = true;
        for ((columns, ids, values), seen) in found.iter().zip(seen.iter()) {
            if columns.iter().any(|column| column.is_null(row)) {
                continue;
            }
            let again = seen.values.contains(values.row(row).as_ref());
            match conflict {
                Conflict::Update { .. } if again => return Err(twice()),
                Conflict::Update { .. } => {
                    if let Some(id) = ids[row] {
                        taken.push((row, id));
                        free = false;
                    }
                }
                Conflict::Nothing(_) => free &= !again && ids[row].is_none(),
            }
        }
        let is_update = matches!(conflict, Conflict::Update { .. });
        if free || is_update {
            for ((columns, _, values), seen) in found.iter().zip(seen.iter_mut()) {
                if columns.iter().all(|column| column.is_valid(row)) {
                    seen.values.insert(values.row(row).as_ref().into());
                }
            }
        }
        new.push(free);
    }
    let new = filter_record_batch(batch, &BooleanArray::from(new)).map_err(arrow_error)?;
    Ok((new, taken))
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
