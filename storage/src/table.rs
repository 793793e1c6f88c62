//! One version of one table, to be read.
//!
//! A [`Table`] is immutable: whoever holds it reads the same rows for as long as it likes, whatever is committed
//! meanwhile. It is read one row group at a time, so that a reader never holds more than it works on.

use std::sync::Arc;

use arrow::array::{RecordBatch, UInt64Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use crate::columns;
use crate::error::Result;
use crate::row_group::GroupVersion;
use crate::statistics::GroupStatistics;

/// The name of the column that [`Table::read_group_with_row_ids`] adds.
pub const ROW_ID_COLUMN: &str = "_thanosql_row_id";

/// One version of one table. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Table {
    version: Arc<TableVersion>,
}

/// What a table is in one version.
#[derive(Clone, Debug)]
pub(crate) struct TableVersion {
    pub(crate) oid: u32,
    pub(crate) name: String,
    pub(crate) version: u64,
    pub(crate) schema: SchemaRef,
    pub(crate) next_group: u32,
    pub(crate) groups: Vec<GroupVersion>,
}

impl Table {
    pub(crate) fn new(version: Arc<TableVersion>) -> Table {
        Table { version }
    }

    /// The object id, the table's for as long as it exists, also under another name.
    pub fn oid(&self) -> u32 {
        self.version.oid
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.version.name
    }

    /// Names, types, nullability and metadata of the columns.
    pub fn schema(&self) -> SchemaRef {
        Arc::clone(&self.version.schema)
    }

    /// Live rows.
    pub fn row_count(&self) -> u64 {
        self.version.groups.iter().map(|group| group.live_rows() as u64).sum()
    }

    /// Goes up by one with every commit that changes the table. In a transaction that has changed the table it is one
    /// more than the version that it started from.
    pub fn version(&self) -> u64 {
        self.version.version
    }

    /// Number of row groups.
    pub fn groups(&self) -> usize {
        self.version.groups.len()
    }

    /// What is known of a row group without reading it.
    ///
    /// # Panics
    ///
    /// When there is no such row group.
    pub fn group_statistics(&self, group: usize) -> GroupStatistics {
        self.version.groups[group].statistics(&self.version.schema)
    }

    /// The live rows of one row group, in the order in which they were appended. `projection` names columns by index, in
    /// any order; `None` means all. An empty projection gives a batch that has rows and no columns.
    ///
    /// # Panics
    ///
    /// When there is no such row group.
    pub fn read_group(&self, group: usize, projection: Option<&[usize]>) -> Result<RecordBatch> {
        let schema = columns::project(&self.version.schema, projection)?;
        let (columns, live) = self.version.groups[group].read(&self.version.schema, projection)?;
        columns::batch_of(&schema, columns, live.count)
    }

    /// Like [`Table::read_group`] with one more column at the end, [`ROW_ID_COLUMN`] of type UInt64, whose values
    /// [`Transaction::delete_rows`](crate::Transaction::delete_rows) takes. A row's id holds within this version of the
    /// table, and within a transaction for as long as it goes on.
    ///
    /// # Panics
    ///
    /// When there is no such row group.
    pub fn read_group_with_row_ids(
        &self,
        group: usize,
        projection: Option<&[usize]>,
    ) -> Result<RecordBatch> {
        let schema = columns::project(&self.version.schema, projection)?;
        let mut fields: Vec<_> = schema.fields().iter().map(Arc::clone).collect();
        fields.push(Arc::new(Field::new(ROW_ID_COLUMN, DataType::UInt64, false)));
        let schema = Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()));

        let group = &self.version.groups[group];
        let (mut columns, live) = group.read(&self.version.schema, projection)?;
        let ids = live.offsets().into_iter().map(|offset| row_id(group.id, offset));
        columns.push(Arc::new(UInt64Array::from_iter_values(ids)));
        columns::batch_of(&schema, columns, live.count)
    }
}

impl TableVersion {
    /// The row group with this id.
    pub(crate) fn group(&self, id: u32) -> Option<&GroupVersion> {
        self.groups.iter().find(|group| group.id == id)
    }
}

/// A row's id: its group's id above its offset in the group.
pub(crate) fn row_id(group: u32, offset: u32) -> u64 {
    u64::from(group) << 32 | u64::from(offset)
}

/// Group and offset of a row's id.
pub(crate) fn split_row_id(row_id: u64) -> (u32, u32) {
    ((row_id >> 32) as u32, row_id as u32)
}
