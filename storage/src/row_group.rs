//! Row groups: where the rows of a table are.
//!
//! A row group is either *stored* (pieces in the engine, immutable, shared by all versions of the table that have it) or
//! *in memory* (rows that a transaction has appended and not yet written). Which of its rows are deleted is not part of it:
//! that belongs to a version of the table, and two versions may differ in it.

use std::sync::{Arc, OnceLock};

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch};
use arrow::buffer::BooleanBuffer;
use arrow::compute::{concat, concat_batches, filter};
use arrow::datatypes::{DataType, SchemaRef};
use roaring::RoaringBitmap;

use crate::columns;
use crate::error::{Result, StorageError};
use crate::kv::MAX_PIECE_BYTES;
use crate::manifest::{GroupRecord, IndexRecord, Layout};
use crate::piece::{Core, Unit};
use crate::statistics::{ColumnRecord, ColumnStatistics, GroupStatistics};
use crate::unique::{self, KeyValues, UniqueKey};

/// A row group has at most this many rows.
pub const MAX_GROUP_ROWS: usize = 8192;

/// A row group is closed at this many bytes even if it could take more rows.
pub(crate) const MAX_GROUP_BYTES: usize = 32 << 20;

/// Indexes are parts of a unit above its columns: this and the key's OID.
const INDEX_PARTS: u32 = 1 << 31;

/// A row group as one version of a table has it.
#[derive(Clone, Debug)]
pub(crate) struct GroupVersion {
    /// The upper half of its rows' ids.
    pub(crate) id: u32,
    pub(crate) rows: Rows,
    /// Offsets of deleted rows.
    pub(crate) deleted: Option<Arc<RoaringBitmap>>,
}

/// Where a row group's rows are.
#[derive(Clone, Debug)]
pub(crate) enum Rows {
    Stored(Arc<StoredRows>),
    Memory(Arc<MemoryRows>),
}

/// Rows in the engine.
#[derive(Debug)]
pub(crate) struct StoredRows {
    pub(crate) unit: Arc<Unit>,
    pub(crate) record: GroupRecord,
}

/// Rows that a transaction holds.
#[derive(Debug)]
pub(crate) struct MemoryRows {
    rows: usize,
    bytes: usize,
    batches: Vec<RecordBatch>,
    /// Whole columns, put together when first read.
    columns: Vec<OnceLock<ArrayRef>>,
}

impl GroupVersion {
    /// Rows, deleted ones included.
    pub(crate) fn total_rows(&self) -> usize {
        match &self.rows {
            Rows::Stored(stored) => stored.record.rows as usize,
            Rows::Memory(memory) => memory.rows,
        }
    }

    /// Rows that are deleted.
    pub(crate) fn deleted_rows(&self) -> usize {
        self.deleted.as_ref().map_or(0, |deleted| deleted.len() as usize)
    }

    /// Rows that a reader sees.
    pub(crate) fn live_rows(&self) -> usize {
        self.total_rows().saturating_sub(self.deleted_rows())
    }

    /// The live rows of some columns, and of the deleted bitmap what is left: the offset of each live row.
    pub(crate) fn read(
        &self,
        schema: &SchemaRef,
        projection: Option<&[usize]>,
    ) -> Result<(Vec<ArrayRef>, LiveRows)> {
        let live = LiveRows::of(self);
        let whole = match projection {
            Some(wanted) => wanted
                .iter()
                .map(|column| self.column(schema, *column))
                .collect::<Result<Vec<_>>>()?,
            None => (0..schema.fields().len())
                .map(|column| self.column(schema, column))
                .collect::<Result<Vec<_>>>()?,
        };
        let columns = match &live.mask {
            None => whole,
            Some(mask) => whole
                .iter()
                .map(|column| filter(column, mask).map_err(StorageError::arrow("filter")))
                .collect::<Result<Vec<_>>>()?,
        };
        Ok((columns, live))
    }

    /// The live rows of all columns as one batch.
    pub(crate) fn batch(&self, schema: &SchemaRef) -> Result<RecordBatch> {
        let (columns, live) = self.read(schema, None)?;
        columns::batch_of(schema, columns, live.count)
    }

    /// What is known without reading.
    pub(crate) fn statistics(&self, schema: &SchemaRef) -> GroupStatistics {
        let types = schema.fields().iter().map(|field| field.data_type());
        let columns = match &self.rows {
            Rows::Stored(stored) => stored
                .record
                .columns
                .iter()
                .zip(types)
                .map(|(column, data_type)| column.statistics(data_type))
                .collect(),
            Rows::Memory(memory) => (0..schema.fields().len())
                .map(|column| ColumnStatistics {
                    null_count: memory.null_count(column),
                    min: None,
                    max: None,
                })
                .collect(),
        };
        GroupStatistics { rows: self.live_rows() as u64, exact: self.deleted_rows() == 0, columns }
    }

    /// About how many bytes the rows take, deleted ones included.
    pub(crate) fn bytes(&self) -> usize {
        match &self.rows {
            Rows::Stored(stored) => match &stored.record.layout {
                Layout::Packed => MAX_PIECE_BYTES,
                Layout::Columns(lengths) => lengths.iter().sum::<u64>() as usize,
            },
            Rows::Memory(memory) => memory.bytes(),
        }
    }

    /// Whether a row is deleted.
    pub(crate) fn is_deleted(&self, offset: u32) -> bool {
        self.deleted.as_ref().is_some_and(|deleted| deleted.contains(offset))
    }

    /// Whether statistics say that no row has a value of a column within these bounds.
    pub(crate) fn rules_out(&self, column: usize, wanted: &ColumnRecord) -> bool {
        match &self.rows {
            Rows::Stored(stored) => {
                stored.record.columns.get(column).is_some_and(|record| record.excludes(wanted))
            }
            Rows::Memory(_) => false,
        }
    }

    /// Columns with the deleted rows in them.
    pub(crate) fn whole_columns(
        &self,
        schema: &SchemaRef,
        columns: &[usize],
    ) -> Result<Vec<ArrayRef>> {
        columns.iter().map(|column| self.column(schema, *column)).collect()
    }

    /// The index of a key: see [`crate::unique`]. Deleted rows are in it.
    pub(crate) fn index(&self, schema: &SchemaRef, key: &UniqueKey) -> Result<ArrayRef> {
        match &self.rows {
            Rows::Stored(stored) => stored.index(schema, key),
            Rows::Memory(_) => {
                let columns = self.whole_columns(schema, &key.columns)?;
                Ok(unique::index_of(&KeyValues::of(&columns)?))
            }
        }
    }

    fn column(&self, schema: &SchemaRef, column: usize) -> Result<ArrayRef> {
        match &self.rows {
            Rows::Stored(stored) => stored.column(schema, column),
            Rows::Memory(memory) => memory.column(schema, column),
        }
    }
}

/// Which rows of a group a reader sees.
pub(crate) struct LiveRows {
    pub(crate) count: usize,
    mask: Option<BooleanArray>,
    total: usize,
}

impl LiveRows {
    fn of(group: &GroupVersion) -> LiveRows {
        let total = group.total_rows();
        let mask = group.deleted.as_ref().filter(|deleted| !deleted.is_empty()).map(|deleted| {
            let mut live = vec![true; total];
            for row in deleted.iter() {
                if let Some(live) = live.get_mut(row as usize) {
                    *live = false;
                }
            }
            BooleanArray::new(BooleanBuffer::from(live), None)
        });
        LiveRows { count: group.live_rows(), mask, total }
    }

    /// The offsets of the live rows.
    pub(crate) fn offsets(&self) -> Vec<u32> {
        match &self.mask {
            None => (0..self.total as u32).collect(),
            Some(mask) => mask.values().set_indices().map(|offset| offset as u32).collect(),
        }
    }
}

impl StoredRows {
    /// Writes rows and their indexes as a new unit, which is garbage until a commit takes it over.
    pub(crate) fn write(
        core: &Arc<Core>,
        batch: &RecordBatch,
        keys: &[UniqueKey],
    ) -> Result<Arc<StoredRows>> {
        let unit = Unit::create(core)?;
        let layout = write_columns(&unit, batch)?;
        let indexes = match &layout {
            // All columns are one value: an index would save nothing.
            Layout::Packed => Vec::new(),
            Layout::Columns(_) => {
                keys.iter().map(|key| write_index(&unit, batch, key)).collect::<Result<_>>()?
            }
        };
        let record = GroupRecord {
            unit: unit.id(),
            rows: u32::try_from(batch.num_rows())
                .map_err(|_| StorageError::Exhausted { what: "row offsets" })?,
            layout,
            columns: batch.columns().iter().map(ColumnRecord::of).collect(),
            indexes,
        };
        Ok(Arc::new(StoredRows { unit, record }))
    }

    /// A key's index, from the cache, the engine, or the columns.
    fn index(&self, schema: &SchemaRef, key: &UniqueKey) -> Result<ArrayRef> {
        let core = self.unit.core();
        let part = INDEX_PARTS | key.oid;
        if let Some(found) = core.cache.get(self.unit.id(), part) {
            return Ok(found);
        }
        let index = match self.record.indexes.iter().find(|record| record.key == key.oid) {
            Some(record) => {
                let bytes = self.unit.read_part(part, record.bytes)?;
                unique::decode_index(bytes, record.entries as usize, || {
                    format!("the index \"{}\" in unit {}", key.name, self.unit.id())
                })?
            }
            None => {
                let columns = key
                    .columns
                    .iter()
                    .map(|column| self.column(schema, *column))
                    .collect::<Result<Vec<_>>>()?;
                unique::index_of(&KeyValues::of(&columns)?)
            }
        };
        let weight = index.get_array_memory_size() as u64;
        core.cache.insert(self.unit.id(), part, Arc::clone(&index), weight);
        Ok(index)
    }

    /// One whole column, from the cache or the engine.
    fn column(&self, schema: &SchemaRef, column: usize) -> Result<ArrayRef> {
        let core = self.unit.core();
        let part = column as u32;
        if let Some(found) = core.cache.get(self.unit.id(), part) {
            return Ok(found);
        }
        let fields = schema.fields();
        match &self.record.layout {
            Layout::Packed => {
                let types: Vec<&DataType> = fields.iter().map(|field| field.data_type()).collect();
                let bytes = self.unit.read_pack()?;
                let weight = (bytes.len() / types.len().max(1)) as u64;
                let columns = self.decode(bytes, &types)?;
                for (part, array) in columns.iter().enumerate() {
                    core.cache.insert(self.unit.id(), part as u32, Arc::clone(array), weight);
                }
                columns.get(column).cloned().ok_or_else(|| self.missing(column))
            }
            Layout::Columns(lengths) => {
                let length = *lengths.get(column).ok_or_else(|| self.missing(column))?;
                let bytes = self.unit.read_part(part, length)?;
                let mut columns = self.decode(bytes, &[fields[column].data_type()])?;
                let array = columns.pop().ok_or_else(|| self.missing(column))?;
                core.cache.insert(self.unit.id(), part, Arc::clone(&array), length);
                Ok(array)
            }
        }
    }

    fn decode(&self, bytes: arrow::buffer::Buffer, types: &[&DataType]) -> Result<Vec<ArrayRef>> {
        columns::decode(bytes, self.record.rows as usize, types, || {
            format!("the row group in unit {}", self.unit.id())
        })
    }

    fn missing(&self, column: usize) -> StorageError {
        StorageError::corrupt(format!(
            "the row group in unit {} misses column {column}",
            self.unit.id()
        ))
    }
}

fn write_index(unit: &Unit, batch: &RecordBatch, key: &UniqueKey) -> Result<IndexRecord> {
    let index = unique::index_of(&KeyValues::of(&key.columns_of(batch))?);
    let bytes = unique::encode_index(&index)?;
    unit.write_part(INDEX_PARTS | key.oid, &bytes)?;
    Ok(IndexRecord { key: key.oid, entries: index.len() as u32, bytes: bytes.len() as u64 })
}

/// Writes columns in the form that suits their size.
fn write_columns(unit: &Unit, batch: &RecordBatch) -> Result<Layout> {
    if batch.num_columns() == 0 {
        // Nothing to write: the number of rows is in the record.
        return Ok(Layout::Columns(Vec::new()));
    }
    if columns::slice_bytes(batch) <= MAX_PIECE_BYTES {
        let bytes = columns::encode(batch.columns())?;
        if bytes.len() <= MAX_PIECE_BYTES {
            unit.write_pack(&bytes)?;
            return Ok(Layout::Packed);
        }
    }
    let mut lengths = Vec::with_capacity(batch.num_columns());
    for (part, column) in batch.columns().iter().enumerate() {
        let bytes = columns::encode(std::slice::from_ref(column))?;
        unit.write_part(part as u32, &bytes)?;
        lengths.push(bytes.len() as u64);
    }
    Ok(Layout::Columns(lengths))
}

impl MemoryRows {
    /// No rows.
    pub(crate) fn empty(schema: &SchemaRef) -> MemoryRows {
        MemoryRows { rows: 0, bytes: 0, batches: Vec::new(), columns: Self::unread(schema) }
    }

    /// These rows and a batch after them. Batches are merged like the digits of a binary counter, so that many small
    /// appends cost little each and leave few batches behind.
    pub(crate) fn appended(&self, schema: &SchemaRef, batch: RecordBatch) -> Result<MemoryRows> {
        let rows = self.rows + batch.num_rows();
        let bytes = self.bytes + columns::slice_bytes(&batch);
        let mut batches = self.batches.clone();
        batches.push(batch);
        while let [.., earlier, later] = batches.as_slice() {
            if earlier.num_rows() > later.num_rows() || schema.fields().is_empty() {
                break;
            }
            let merged =
                concat_batches(schema, [earlier, later]).map_err(StorageError::arrow("join"))?;
            batches.truncate(batches.len() - 2);
            batches.push(merged);
        }
        Ok(MemoryRows { rows, bytes, batches, columns: Self::unread(schema) })
    }

    /// Number of rows.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Bytes that the rows take.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    fn column(&self, schema: &SchemaRef, column: usize) -> Result<ArrayRef> {
        let missing = || StorageError::SchemaMismatch {
            table: String::new(),
            detail: format!("there is no column {column}"),
        };
        let slot = self.columns.get(column).ok_or_else(missing)?;
        if let Some(array) = slot.get() {
            return Ok(Arc::clone(array));
        }
        let parts: Vec<_> =
            self.batches.iter().map(|batch| batch.column(column).as_ref()).collect();
        let array = match parts.as_slice() {
            [] => arrow::array::new_empty_array(schema.field(column).data_type()),
            parts => concat(parts).map_err(StorageError::arrow("join"))?,
        };
        Ok(Arc::clone(slot.get_or_init(|| array)))
    }

    fn null_count(&self, column: usize) -> u64 {
        self.batches.iter().map(|batch| batch.column(column).logical_null_count() as u64).sum()
    }

    fn unread(schema: &SchemaRef) -> Vec<OnceLock<ArrayRef>> {
        schema.fields().iter().map(|_| OnceLock::new()).collect()
    }
}
