//! A stored table as DataFusion sees it: one version of it, read row group by row group.
//!
//! A scan is a single ordered partition, so that rows come back in the order in which they were stored, which is what
//! people expect of `SELECT * FROM t LIMIT 5`; operators above it may still spread over threads. Row groups are decoded on a
//! blocking thread, a few ahead of the reader. A scan whose filters name a key is a look-up instead (`lookup`), and one that an index over vectors
//! serves reads only where the nearest rows are ([`crate::search`]). Changes never go through DataFusion's hooks for them (those lose
//! their filters, see `exec::dml`), so this file only reads.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::common::Result;
use datafusion::datasource::{TableProvider, TableType};
use datafusion::error::DataFusionError;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchReceiverStreamBuilder;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use thanosql_storage::{ROW_ID_COLUMN, Table};

use super::leaf::LeafExec;
use super::lookup::{KeyLookup, pins_key_column, wanted_key};
use crate::error::storage_error;
use crate::search::scan::{Nearest, NearestScan};

/// Row groups that may wait, decoded, for the reader of a scan.
const GROUPS_AHEAD: usize = 2;

/// One version of a stored table.
#[derive(Clone)]
pub struct StoredTable {
    table: Table,
    /// The columns shown: the table's own, and the row id if this scan feeds an UPDATE or DELETE.
    schema: SchemaRef,
    with_row_ids: bool,
    nearest: Option<Nearest>,
}

impl StoredTable {
    /// The table with its own columns.
    pub fn new(table: Table) -> StoredTable {
        // Keys and checks stand in the schema's metadata, which no plan has a use for.
        let schema = Arc::new(Schema::new(table.schema().fields().clone()));
        StoredTable { table, schema, with_row_ids: false, nearest: None }
    }

    /// The table with the row id as its last column, for planning changes.
    pub fn with_row_ids(table: Table) -> StoredTable {
        let mut fields: Vec<_> = table.schema().fields().iter().cloned().collect();
        fields.push(Arc::new(Field::new(ROW_ID_COLUMN, DataType::UInt64, false)));
        let schema = Arc::new(Schema::new(fields));
        StoredTable { table, schema, with_row_ids: true, nearest: None }
    }

    /// The stored table.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// The part of it where the nearest rows are; `None` where rows need their ids.
    pub fn narrowed(&self, nearest: Nearest) -> Option<StoredTable> {
        (!self.with_row_ids).then(|| StoredTable { nearest: Some(nearest), ..self.clone() })
    }
}

impl fmt::Debug for StoredTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredTable")
            .field("name", &self.table.name())
            .field("version", &self.table.version())
            .finish()
    }
}

#[async_trait]
impl TableProvider for StoredTable {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Result<Vec<TableProviderFilterPushDown>> {
        let answer = |filter: &&Expr| match pins_key_column(&self.table, filter) {
            true => TableProviderFilterPushDown::Inexact,
            false => TableProviderFilterPushDown::Unsupported,
        };
        Ok(filters.iter().map(answer).collect())
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let columns: Vec<usize> =
            projection.cloned().unwrap_or_else(|| (0..self.schema.fields().len()).collect());
        let schema = Arc::new(self.schema.project(&columns)?);
        if let Some((key, values)) = wanted_key(&self.table, filters) {
            let table = self.table.clone();
            return Ok(Arc::new(LeafExec::new(KeyLookup { table, key, values, columns }, schema)));
        }
        if let Some(nearest) = self.nearest.clone().filter(|_| filters.is_empty()) {
            let table = self.table.clone();
            return Ok(Arc::new(LeafExec::new(NearestScan { table, nearest, columns }, schema)));
        }
        let partition = TablePartition {
            table: self.table.clone(),
            schema: schema.clone(),
            columns,
            with_row_ids: self.with_row_ids,
            limit,
        };
        Ok(Arc::new(StreamingTableExec::try_new(
            schema,
            vec![Arc::new(partition)],
            None,
            [],
            false,
            limit,
        )?))
    }
}

/// The one partition of a scan.
struct TablePartition {
    table: Table,
    schema: SchemaRef,
    /// Indexes into the columns shown by [`StoredTable`].
    columns: Vec<usize>,
    with_row_ids: bool,
    limit: Option<usize>,
}

impl fmt::Debug for TablePartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TablePartition")
            .field("table", &self.table.name())
            .field("columns", &self.columns)
            .finish()
    }
}

impl TablePartition {
    fn read(&self, group: usize) -> Result<RecordBatch> {
        let table_columns = self.table.schema().fields().len();
        let wanted: Vec<usize> =
            self.columns.iter().copied().filter(|column| *column < table_columns).collect();
        let batch = if self.with_row_ids {
            self.table.read_group_with_row_ids(group, Some(&wanted))
        } else {
            self.table.read_group(group, Some(&wanted))
        }
        .map_err(|error| DataFusionError::External(Box::new(storage_error(error))))?;
        // Storage puts the row id last; the scan may want it elsewhere, or not at all.
        let mut next = 0;
        let mut order = Vec::with_capacity(self.columns.len());
        for column in &self.columns {
            if *column < table_columns {
                order.push(next);
                next += 1;
            } else {
                order.push(wanted.len());
            }
        }
        let columns = order.into_iter().map(|column| batch.column(column).clone()).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        Ok(RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?)
    }
}

impl PartitionStream for TablePartition {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let mut builder = RecordBatchReceiverStreamBuilder::new(self.schema.clone(), GROUPS_AHEAD);
        let sender = builder.tx();
        let partition = TablePartition {
            table: self.table.clone(),
            schema: self.schema.clone(),
            columns: self.columns.clone(),
            with_row_ids: self.with_row_ids,
            limit: self.limit,
        };
        builder.spawn_blocking(move || {
            let mut rows = 0;
            for group in 0..partition.table.groups() {
                let batch = partition.read(group);
                rows += batch.as_ref().map_or(0, |batch| batch.num_rows());
                let failed = batch.is_err();
                // The reader is gone once it has what it wants: that ends the scan, it is no error.
                if sender.blocking_send(batch).is_err() || failed {
                    break;
                }
                if partition.limit.is_some_and(|limit| rows >= limit) {
                    break;
                }
            }
            Ok(())
        });
        builder.build()
    }
}

/// Lets a planner look behind DataFusion's trait object.
pub fn as_stored(provider: &dyn TableProvider) -> Option<&StoredTable> {
    (provider as &dyn Any).downcast_ref::<StoredTable>()
}
