//! One version of one table, to be read.
//!
//! A [`Table`] is immutable: whoever holds it reads the same rows for as long as it likes, whatever is committed
//! meanwhile. It is read one row group at a time, so that a reader never holds more than it works on.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, UInt64Array, new_empty_array};
use arrow::compute::interleave;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use crate::columns;
use crate::error::{Result, StorageError};
use crate::row_group::{GroupVersion, MAX_GROUP_BYTES, MAX_GROUP_ROWS, Rows};
use crate::snapshot::{plain_name, session_of};
use crate::statistics::GroupStatistics;
use crate::unique::{KeyValues, Lookup, UniqueKey};

/// The name of the column that [`Table::read_group_with_row_ids`] adds.
pub const ROW_ID_COLUMN: &str = "_thanosql_row_id";

/// A column's metadata that names the OID of a [sequence](crate::Store::next_value) keeps the sequence's value as long as the
/// table is there.
pub const SEQUENCE_KEY: &str = "thanosql.sequence_oid";

/// One version of one table. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Table {
    version: Arc<TableVersion>,
}

/// A row group of one version of a table, as who keeps an index over rows needs to know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowGroup {
    /// The upper half of its rows' ids; the lower half is a row's offset.
    pub id: u32,
    /// Names its rows, deleted ones included, for as long as the store is there: they never change, and no others get the number. `None` while only their
    /// transaction has them.
    pub rows: Option<u64>,
    /// How many rows, deleted ones included.
    pub total: u32,
    /// How many of them are not deleted.
    pub live: u32,
    /// Whether it has grown so far that it is seldom merged with others.
    pub is_settled: bool,
}

/// What a table is in one version.
#[derive(Clone, Debug)]
pub(crate) struct TableVersion {
    pub(crate) oid: u32,
    pub(crate) name: String,
    pub(crate) version: u64,
    pub(crate) schema: SchemaRef,
    pub(crate) keys: Arc<Vec<UniqueKey>>,
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
        self.version.plain_name()
    }

    /// Whether one session alone sees it.
    pub fn is_temporary(&self) -> bool {
        session_of(&self.version.name).is_some()
    }

    /// Its keys.
    pub fn keys(&self) -> &[UniqueKey] {
        &self.version.keys
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

    /// The ids of the rows that have given values of a key. `values` are the key's columns, in its order and of their types,
    /// one looked-for value a row; where a NULL is among them, nothing is found. Reads the columns of those row groups
    /// alone that hold one of the values.
    pub fn find(&self, key: &UniqueKey, values: &[ArrayRef]) -> Result<Vec<Option<u64>>> {
        let wanted = KeyValues::of(values)?;
        let lookup = Lookup::new(&self.version.schema, key, values, &wanted);
        let mut ids = vec![None; values.first().map_or(0, |column| column.len())];
        for group in &self.version.groups {
            lookup.in_group(
                group,
                |offset| group.is_deleted(offset),
                |row, offset| {
                    ids[row] = Some(row_id(group.id, offset));
                    true
                },
            )?;
        }
        Ok(ids)
    }

    /// Rows by their ids, in the order of the ids. `projection` is as in [`Table::read_group`].
    pub fn rows(&self, row_ids: &[u64], projection: Option<&[usize]>) -> Result<RecordBatch> {
        let schema = columns::project(&self.version.schema, projection)?;
        let all: Vec<usize> = (0..self.version.schema.fields().len()).collect();
        let wanted = projection.unwrap_or(&all);
        let mut groups: Vec<(u32, Vec<ArrayRef>)> = Vec::new();
        let mut places = Vec::with_capacity(row_ids.len());
        for id in row_ids {
            let (group, offset) = split_row_id(*id);
            let place = match groups.iter().position(|(other, _)| *other == group) {
                Some(place) => place,
                None => {
                    let version = self.version.group(group).ok_or_else(|| {
                        StorageError::NoSuchRow { table: self.name().to_owned(), row_id: *id }
                    })?;
                    let columns = version.whole_columns(&self.version.schema, wanted)?;
                    groups.push((group, columns));
                    groups.len() - 1
                }
            };
            places.push((place, offset as usize));
        }
        let columns = (0..wanted.len())
            .map(|column| {
                if groups.is_empty() {
                    return Ok(new_empty_array(schema.field(column).data_type()));
                }
                let parts: Vec<&dyn Array> =
                    groups.iter().map(|(_, columns)| columns[column].as_ref()).collect();
                interleave(&parts, &places).map_err(StorageError::arrow("collect"))
            })
            .collect::<Result<Vec<_>>>()?;
        columns::batch_of(&schema, columns, row_ids.len())
    }

    /// Number of row groups.
    pub fn groups(&self) -> usize {
        self.version.groups.len()
    }

    /// Which rows a row group has.
    ///
    /// # Panics
    ///
    /// When there is no such row group.
    pub fn group(&self, group: usize) -> RowGroup {
        let group = &self.version.groups[group];
        RowGroup {
            id: group.id,
            rows: match &group.rows {
                Rows::Stored(stored) => Some(stored.unit.id()),
                Rows::Memory(_) => None,
            },
            total: group.total_rows() as u32,
            live: group.live_rows() as u32,
            is_settled: group.total_rows() >= MAX_GROUP_ROWS / 8
                || group.bytes() >= MAX_GROUP_BYTES / 8,
        }
    }

    /// Whether a row of a row group is not deleted.
    ///
    /// # Panics
    ///
    /// When there is no such row group.
    pub fn is_live(&self, group: usize, offset: u32) -> bool {
        !self.version.groups[group].is_deleted(offset)
    }

    /// One column of a row group with its deleted rows, in the order of their offsets.
    ///
    /// # Panics
    ///
    /// When there is no such row group.
    pub fn read_whole_column(&self, group: usize, column: usize) -> Result<ArrayRef> {
        let columns = self.version.groups[group].whole_columns(&self.version.schema, &[column])?;
        columns.into_iter().next().ok_or_else(|| StorageError::SchemaMismatch {
            table: self.name().to_owned(),
            detail: format!("there is no column {column}"),
        })
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
    /// The name as the session knows it.
    pub(crate) fn plain_name(&self) -> &str {
        plain_name(&self.name)
    }

    /// Whether a column says that a sequence is its own.
    pub(crate) fn has_sequence(&self, oid: u32) -> bool {
        self.schema.fields().iter().any(|field| {
            field.metadata().get(SEQUENCE_KEY).is_some_and(|text| text.parse() == Ok(oid))
        })
    }

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
