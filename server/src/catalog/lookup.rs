//! Finding rows by a key: what a scan becomes when its filters say what all columns of a key are.
//!
//! The index is the storage's (`Table::find`); here it becomes an operator, so that EXPLAIN shows it. The filters stay in the
//! plan above it, which costs nothing for one row and makes an inexact look-up harmless.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, UInt64Array};
use arrow::datatypes::SchemaRef;
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{BinaryExpr, Expr, Operator};
use thanosql_protocol::SqlError;
use thanosql_storage::{Table, UniqueKey};

use super::leaf::{RowSource, Rows};
use crate::error::{arrow_error, datafusion_error, storage_error};

/// Whether a filter says what a column of a key is.
pub(super) fn pins_key_column(table: &Table, filter: &Expr) -> bool {
    pinned(table, filter)
        .is_some_and(|(column, _)| table.keys().iter().any(|key| key.columns.contains(&column)))
}

/// The key that filters say all of, and its values.
pub(super) fn wanted_key(table: &Table, filters: &[Expr]) -> Option<(UniqueKey, Vec<ScalarValue>)> {
    let pinned: Vec<(usize, ScalarValue)> =
        filters.iter().filter_map(|filter| pinned(table, filter)).collect();
    table.keys().iter().find_map(|key| {
        let values = key
            .columns
            .iter()
            .map(|wanted| {
                pinned.iter().find(|(column, _)| column == wanted).map(|(_, value)| value.clone())
            })
            .collect::<Option<Vec<_>>>()?;
        Some((key.clone(), values))
    })
}

/// The column and the value of `column = constant`, of the column's own type.
fn pinned(table: &Table, filter: &Expr) -> Option<(usize, ScalarValue)> {
    let Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) = filter else {
        return None;
    };
    let (column, value) = match (left.as_ref(), right.as_ref()) {
        (Expr::Column(column), Expr::Literal(value, _))
        | (Expr::Literal(value, _), Expr::Column(column)) => (column, value),
        _ => return None,
    };
    let schema = table.schema();
    let index = schema.index_of(&column.name).ok()?;
    (schema.field(index).data_type() == &value.data_type()).then(|| (index, value.clone()))
}

/// Reads the row, if there is one, that has a key's values.
#[derive(Debug)]
pub(super) struct KeyLookup {
    pub(super) table: Table,
    pub(super) key: UniqueKey,
    pub(super) values: Vec<ScalarValue>,
    /// Indexes into the table's columns; the one behind the last is the row id.
    pub(super) columns: Vec<usize>,
}

impl RowSource for KeyLookup {
    const NAME: &'static str = "KeyLookupExec";

    fn describe(&self) -> Vec<(&'static str, String)> {
        let schema = self.table.schema();
        let parts: Vec<String> = self
            .key
            .columns
            .iter()
            .zip(&self.values)
            .map(|(column, value)| format!("{} = {value}", schema.field(*column).name()))
            .collect();
        vec![
            ("table", self.table.name().to_owned()),
            ("key", self.key.name.clone()),
            ("", parts.join(" AND ")),
        ]
    }

    fn read(&self, schema: &SchemaRef, rows: &mut Rows<'_>) -> Result<(), SqlError> {
        let values = self
            .values
            .iter()
            .map(|value| value.to_array_of_size(1))
            .collect::<datafusion::common::Result<Vec<ArrayRef>>>()
            .map_err(|error| datafusion_error(error, None))?;
        let found = self.table.find(&self.key, &values).map_err(storage_error)?;
        let ids: Vec<u64> = found.into_iter().flatten().collect();
        let own = self.table.schema().fields().len();
        let stored: Vec<usize> =
            self.columns.iter().copied().filter(|column| *column < own).collect();
        let found = self.table.rows(&ids, Some(&stored)).map_err(storage_error)?;
        let mut next = found.columns().iter();
        let arrays: Vec<ArrayRef> = self
            .columns
            .iter()
            .map(|column| match (*column < own).then(|| next.next()).flatten() {
                Some(array) => array.clone(),
                None => Arc::new(UInt64Array::from(ids.clone())) as ArrayRef,
            })
            .collect();
        let options = RecordBatchOptions::new().with_row_count(Some(ids.len()));
        let batch = RecordBatch::try_new_with_options(schema.clone(), arrays, &options)
            .map_err(arrow_error)?;
        // A reader that is gone wants no row.
        rows.send(batch);
        Ok(())
    }
}
