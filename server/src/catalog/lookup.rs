//! Finding rows by a key: what a scan becomes when its filters say what all columns of a key are.
//!
//! The index is the storage's (`Table::find`); here it becomes an operator, so that EXPLAIN shows it. The filters stay in the
//! plan above it, which costs nothing for one row and makes an inexact look-up harmless.

use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, UInt64Array};
use arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result, ScalarValue, internal_err};
use datafusion::error::DataFusionError;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{BinaryExpr, Expr, Operator};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::stream::RecordBatchReceiverStreamBuilder;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties,
};
use thanosql_storage::{Table, UniqueKey};

use crate::error::storage_error;

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
pub(super) struct KeyLookupExec {
    pub(super) table: Table,
    key: UniqueKey,
    values: Vec<ScalarValue>,
    /// Indexes into the table's columns; the one behind the last is the row id.
    columns: Vec<usize>,
    properties: Arc<PlanProperties>,
}

impl KeyLookupExec {
    pub(super) fn new(
        table: Table,
        key: UniqueKey,
        values: Vec<ScalarValue>,
        columns: Vec<usize>,
        schema: SchemaRef,
    ) -> KeyLookupExec {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        KeyLookupExec { table, key, values, columns, properties: Arc::new(properties) }
    }

    fn condition(&self) -> String {
        let schema = self.table.schema();
        let parts: Vec<String> = self
            .key
            .columns
            .iter()
            .zip(&self.values)
            .map(|(column, value)| format!("{} = {value}", schema.field(*column).name()))
            .collect();
        parts.join(" AND ")
    }
}

fn read(
    table: &Table,
    key: &UniqueKey,
    values: &[ScalarValue],
    columns: &[usize],
    schema: &SchemaRef,
) -> Result<RecordBatch> {
    let failed = |error| DataFusionError::External(Box::new(storage_error(error)));
    let values =
        values.iter().map(|value| value.to_array_of_size(1)).collect::<Result<Vec<ArrayRef>>>()?;
    let ids: Vec<u64> = table.find(key, &values).map_err(failed)?.into_iter().flatten().collect();
    let own = table.schema().fields().len();
    let stored: Vec<usize> = columns.iter().copied().filter(|column| *column < own).collect();
    let rows = table.rows(&ids, Some(&stored)).map_err(failed)?;
    let mut next = rows.columns().iter();
    let arrays: Vec<ArrayRef> = columns
        .iter()
        .map(|column| match (*column < own).then(|| next.next()).flatten() {
            Some(array) => array.clone(),
            None => Arc::new(UInt64Array::from(ids.clone())) as ArrayRef,
        })
        .collect();
    let options = RecordBatchOptions::new().with_row_count(Some(ids.len()));
    Ok(RecordBatch::try_new_with_options(schema.clone(), arrays, &options)?)
}

impl fmt::Debug for KeyLookupExec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyLookupExec").field("key", &self.key.name).finish_non_exhaustive()
    }
}

impl DisplayAs for KeyLookupExec {
    fn fmt_as(&self, format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match format {
            DisplayFormatType::Default | DisplayFormatType::Verbose => write!(
                f,
                "KeyLookupExec: table={}, key={}, {}",
                self.table.name(),
                self.key.name,
                self.condition()
            ),
            DisplayFormatType::TreeRender => {
                writeln!(f, "key={}", self.key.name)?;
                write!(f, "{}", self.condition())
            }
        }
    }
}

impl ExecutionPlan for KeyLookupExec {
    fn name(&self) -> &str {
        "KeyLookupExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        _f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        if children.is_empty() { Ok(self) } else { internal_err!("a look-up has no children") }
    }

    fn execute(
        &self,
        _partition: usize,
        _context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let schema = self.schema();
        let mut builder = RecordBatchReceiverStreamBuilder::new(schema.clone(), 1);
        let sender = builder.tx();
        let (table, key) = (self.table.clone(), self.key.clone());
        let (values, columns) = (self.values.clone(), self.columns.clone());
        builder.spawn_blocking(move || {
            let batch = read(&table, &key, &values, &columns, &schema);
            // A reader that is gone wants no row.
            let _ = sender.blocking_send(batch);
            Ok(())
        });
        Ok(builder.build())
    }
}
