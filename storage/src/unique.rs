//! Unique keys: how a table's keys are kept, and how rows are found by one.
//!
//! A key has an index, and the index lies with the rows: each row group carries, for each key, the fingerprints of its
//! rows' values in order, and beside each the row that has it. It is a part of the row group's unit, so it is written,
//! adopted, merged and deleted with it, in the same atomic batch; no crash can leave the two apart, and a snapshot reads the
//! index of exactly the row groups that it sees. (One tree from values to rows for the whole table would know the newest
//! version only, would be rewritten by every merge, and sled gives no space back.)
//!
//! A look-up asks each row group whose least and greatest value do not rule it out, and reads the columns of the one that
//! has the row:
//!
//! ```text
//! id = 7312   group 0 (1..=4000)  ruled out by its statistics
//!             group 1 (4001..)    fingerprint 0x5be1_07f3 -> row 3311: read, compared, found
//! ```
//!
//! A fingerprint is 32 bits of a hash, so a row that it names is compared before it counts. Small row groups, whose columns
//! are one value anyway, and those that are older than the key, have no index on disk; it is made from the columns when
//! it is first asked for, and kept in the cache like a column.
//!
//! NULL equals nothing: a row with a NULL in a key is not in its index.

#![allow(clippy::wildcard_enum_match_arm)] // Arrow's types, of which a few can be keys

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayData, ArrayRef, AsArray, BinaryArray, BooleanArray, FixedSizeBinaryArray,
    Float32Array, Float64Array, RecordBatch, StringArray, StructArray, UInt16Array, UInt32Array,
};
use arrow::datatypes::{
    DataType, Field, Float32Type, Float64Type, Schema, SchemaRef, UInt16Type, UInt32Type,
};
use serde::{Deserialize, Serialize};

use crate::columns;
use crate::error::{Result, StorageError};
use crate::row_group::GroupVersion;
use crate::statistics::ColumnRecord;

/// Where a table's keys are in its schema's metadata.
const KEYS: &str = "thanosql.keys";

/// A key of a table: columns whose values no two rows share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UniqueKey {
    /// Its object id, from [`Transaction::new_oid`](crate::Transaction::new_oid).
    pub oid: u32,
    /// The constraint's name.
    pub name: String,
    /// Indexes of its columns, in the key's order.
    pub columns: Vec<usize>,
    /// The table's primary key.
    pub primary: bool,
}

impl UniqueKey {
    /// Its columns in a batch of its table.
    pub fn columns_of(&self, batch: &RecordBatch) -> Vec<ArrayRef> {
        self.columns.iter().map(|column| Arc::clone(batch.column(*column))).collect()
    }
}

/// Whether values of a type can be compared for a key.
pub fn can_be_key(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Boolean
            | DataType::Int16
            | DataType::Int32
            | DataType::Int64
            | DataType::Float32
            | DataType::Float64
            | DataType::Utf8
            | DataType::Binary
            | DataType::FixedSizeBinary(_)
            | DataType::Date32
            | DataType::Time64(_)
            | DataType::Timestamp(..)
            | DataType::Decimal128(..)
    )
}

/// A schema with these keys in place of those that it has.
pub fn with_keys(schema: &Schema, keys: &[UniqueKey]) -> SchemaRef {
    let mut metadata = schema.metadata().clone();
    if keys.is_empty() {
        metadata.remove(KEYS);
    } else {
        let text = serde_json::to_string(keys).expect("numbers and texts have a JSON form");
        metadata.insert(KEYS.to_owned(), text);
    }
    Arc::new(Schema::new_with_metadata(schema.fields().clone(), metadata))
}

/// The keys that a schema names.
pub(crate) fn keys_of(schema: &Schema, table: &str) -> Result<Arc<Vec<UniqueKey>>> {
    let Some(text) = schema.metadata().get(KEYS) else { return Ok(Arc::default()) };
    let keys: Vec<UniqueKey> = serde_json::from_str(text).map_err(|error| {
        StorageError::corrupt(format!("the keys of table \"{table}\" do not parse: {error}"))
    })?;
    for column in keys.iter().flat_map(|key| &key.columns) {
        if !schema.fields().get(*column).is_some_and(|field| can_be_key(field.data_type())) {
            return Err(StorageError::SchemaMismatch {
                table: table.to_owned(),
                detail: format!("column {column} cannot be in a key"),
            });
        }
    }
    Ok(Arc::new(keys))
}

/// A key's values, row by row, as bytes that are equal when the values are: both zeros are one value, and all that are not a number.
pub struct KeyValues {
    bytes: Vec<u8>,
    /// Where each row's bytes end; those of a row with a NULL are empty.
    ends: Vec<usize>,
}

impl KeyValues {
    /// The values of the key's columns.
    pub fn of(columns: &[ArrayRef]) -> Result<KeyValues> {
        let rows = columns.first().map_or(0, |column| column.len());
        let readers: Vec<Reader<'_>> =
            columns.iter().map(Reader::of).collect::<Option<_>>().ok_or_else(|| {
                StorageError::SchemaMismatch {
                    table: String::new(),
                    detail: "a column's type cannot be in a key".to_owned(),
                }
            })?;
        let mut bytes = Vec::with_capacity(rows * 9 * columns.len());
        let mut ends = Vec::with_capacity(rows);
        for row in 0..rows {
            if columns.iter().all(|column| column.is_valid(row)) {
                readers.iter().for_each(|reader| reader.append(row, &mut bytes));
            }
            ends.push(bytes.len());
        }
        Ok(KeyValues { bytes, ends })
    }

    /// How many rows there are.
    pub fn rows(&self) -> usize {
        self.ends.len()
    }

    /// A row's bytes; `None` if there is a NULL in it.
    pub fn get(&self, row: usize) -> Option<&[u8]> {
        let start = if row == 0 { 0 } else { self.ends[row - 1] };
        let bytes = &self.bytes[start..self.ends[row]];
        // No value has no bytes: every column adds at least one.
        (!bytes.is_empty()).then_some(bytes)
    }
}

/// Appends a column's values as bytes that no other value has, whatever stands before or after.
enum Reader<'a> {
    Fixed(ArrayData, usize),
    Boolean(&'a BooleanArray),
    Float32(&'a Float32Array),
    Float64(&'a Float64Array),
    Text(&'a StringArray),
    Bytes(&'a BinaryArray),
    FixedBytes(&'a FixedSizeBinaryArray),
}

impl<'a> Reader<'a> {
    fn of(column: &'a ArrayRef) -> Option<Reader<'a>> {
        Some(match column.data_type() {
            DataType::Boolean => Reader::Boolean(column.as_boolean()),
            DataType::Float32 => Reader::Float32(column.as_primitive::<Float32Type>()),
            DataType::Float64 => Reader::Float64(column.as_primitive::<Float64Type>()),
            DataType::Utf8 => Reader::Text(column.as_string()),
            DataType::Binary => Reader::Bytes(column.as_binary()),
            DataType::FixedSizeBinary(_) => Reader::FixedBytes(column.as_fixed_size_binary()),
            other if can_be_key(other) => Reader::Fixed(column.to_data(), other.primitive_width()?),
            _ => return None,
        })
    }

    fn append(&self, row: usize, out: &mut Vec<u8>) {
        let sized = |out: &mut Vec<u8>, bytes: &[u8]| {
            out.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
            out.extend_from_slice(bytes);
        };
        match self {
            Reader::Fixed(data, width) => {
                let start = (data.offset() + row) * width;
                out.extend_from_slice(&data.buffers()[0].as_slice()[start..start + width]);
            }
            Reader::Boolean(values) => out.push(u8::from(values.value(row))),
            // Zeros of both signs are equal, and so are all that are not a number.
            Reader::Float32(values) => {
                let value = values.value(row);
                let value = if value.is_nan() { f32::NAN } else { value + 0.0 };
                out.extend_from_slice(&value.to_le_bytes());
            }
            Reader::Float64(values) => {
                let value = values.value(row);
                let value = if value.is_nan() { f64::NAN } else { value + 0.0 };
                out.extend_from_slice(&value.to_le_bytes());
            }
            Reader::Text(values) => sized(out, values.value(row).as_bytes()),
            Reader::Bytes(values) => sized(out, values.value(row)),
            Reader::FixedBytes(values) => sized(out, values.value(row)),
        }
    }
}

/// FNV-1a with a finish that spreads its bits. It is on disk, so it must never change.
fn hash(bytes: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in bytes {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^ (hash >> 33)
}

fn fingerprint(bytes: &[u8]) -> u32 {
    (hash(bytes) >> 32) as u32
}

/// The index of a row group of at most 65,536 rows: fingerprints in order, and their rows.
pub(crate) fn index_of(values: &KeyValues) -> ArrayRef {
    let mut entries: Vec<(u32, u16)> = (0..values.rows())
        .filter_map(|row| Some((fingerprint(values.get(row)?), row as u16)))
        .collect();
    entries.sort_unstable();
    index_from(
        UInt32Array::from_iter_values(entries.iter().map(|(fingerprint, _)| *fingerprint)),
        UInt16Array::from_iter_values(entries.iter().map(|(_, row)| *row)),
    )
}

fn index_from(fingerprints: UInt32Array, rows: UInt16Array) -> ArrayRef {
    let field = |name, data_type| Arc::new(Field::new(name, data_type, false));
    Arc::new(StructArray::from(vec![
        (field("fingerprint", DataType::UInt32), Arc::new(fingerprints) as ArrayRef),
        (field("row", DataType::UInt16), Arc::new(rows) as ArrayRef),
    ]))
}

/// An index's bytes.
pub(crate) fn encode_index(index: &ArrayRef) -> Result<Vec<u8>> {
    columns::encode(index.as_struct().columns())
}

/// Reads what [`encode_index`] made.
pub(crate) fn decode_index(
    bytes: arrow::buffer::Buffer,
    entries: usize,
    name: impl Fn() -> String,
) -> Result<ArrayRef> {
    let columns = columns::decode(bytes, entries, &[&DataType::UInt32, &DataType::UInt16], name)?;
    Ok(index_from(
        columns[0].as_primitive::<UInt32Type>().clone(),
        columns[1].as_primitive::<UInt16Type>().clone(),
    ))
}

/// The rows that an index has for a fingerprint.
fn rows_with(index: &ArrayRef, wanted: u32) -> impl Iterator<Item = u32> {
    let columns = index.as_struct();
    let fingerprints = columns.column(0).as_primitive::<UInt32Type>();
    let rows = columns.column(1).as_primitive::<UInt16Type>();
    let start = fingerprints.values().partition_point(|fingerprint| *fingerprint < wanted);
    (start..fingerprints.len())
        .take_while(move |entry| fingerprints.value(*entry) == wanted)
        .map(move |entry| u32::from(rows.value(entry)))
}

/// An index that grows: that of the rows which a transaction has appended and not yet written.
#[derive(Clone, Debug, Default)]
pub(crate) struct GrowingIndex {
    rows: HashMap<u32, Vec<u16>>,
}

impl GrowingIndex {
    /// Takes in the rows of a range of values, the first of which is row number `at`.
    pub(crate) fn extend(&mut self, values: &KeyValues, range: Range<usize>, at: usize) {
        for (offset, row) in range.enumerate() {
            if let Some(bytes) = values.get(row) {
                self.rows.entry(fingerprint(bytes)).or_default().push((at + offset) as u16);
            }
        }
    }
}

/// Values of a key that are looked for.
pub(crate) struct Lookup<'a> {
    schema: &'a SchemaRef,
    key: &'a UniqueKey,
    values: &'a KeyValues,
    /// Of the first column.
    bounds: ColumnRecord,
}

impl<'a> Lookup<'a> {
    /// `columns` are the key's, one value a row, and `values` what they are as values.
    pub(crate) fn new(
        schema: &'a SchemaRef,
        key: &'a UniqueKey,
        columns: &[ArrayRef],
        values: &'a KeyValues,
    ) -> Lookup<'a> {
        let bounds = match columns.first() {
            Some(first) => ColumnRecord::of(first),
            None => ColumnRecord { nulls: 0, bounds: None },
        };
        Lookup { schema, key, values, bounds }
    }

    /// The first row whose value an earlier one has.
    pub(crate) fn first_repeated(&self) -> Option<usize> {
        let mut seen = HashSet::with_capacity(self.values.rows());
        (0..self.values.rows())
            .find(|row| self.values.get(*row).is_some_and(|bytes| !seen.insert(bytes)))
    }

    /// Calls with each value's row that a row of the group has too, and with that row's offset, until the answer is no.
    pub(crate) fn in_group(
        &self,
        group: &GroupVersion,
        is_deleted: impl Fn(u32) -> bool,
        found: impl FnMut(usize, u32) -> bool,
    ) -> Result<()> {
        let column = self.key.columns.first().copied().unwrap_or(0);
        if group.live_rows() == 0 || group.rules_out(column, &self.bounds) {
            return Ok(());
        }
        let index = group.index(self.schema, self.key)?;
        self.candidates(group, |wanted| rows_with(&index, wanted).collect(), is_deleted, found)
    }

    /// The same for a group whose index is at hand.
    pub(crate) fn in_growing(
        &self,
        group: &GroupVersion,
        index: &GrowingIndex,
        is_deleted: impl Fn(u32) -> bool,
        found: impl FnMut(usize, u32) -> bool,
    ) -> Result<()> {
        let rows = |wanted| {
            let rows = index.rows.get(&wanted).map_or(&[][..], Vec::as_slice);
            rows.iter().map(|row| u32::from(*row)).collect()
        };
        self.candidates(group, rows, is_deleted, found)
    }

    fn candidates(
        &self,
        group: &GroupVersion,
        rows_with: impl Fn(u32) -> Vec<u32>,
        is_deleted: impl Fn(u32) -> bool,
        mut found: impl FnMut(usize, u32) -> bool,
    ) -> Result<()> {
        let mut columns: Option<Vec<ArrayRef>> = None;
        for row in 0..self.values.rows() {
            let Some(bytes) = self.values.get(row) else { continue };
            for offset in rows_with(fingerprint(bytes)) {
                if is_deleted(offset) {
                    continue;
                }
                if columns.is_none() {
                    columns = Some(group.whole_columns(self.schema, &self.key.columns)?);
                }
                let one: Vec<ArrayRef> = columns
                    .iter()
                    .flatten()
                    .map(|column| column.slice(offset as usize, 1))
                    .collect();
                if KeyValues::of(&one)?.get(0) == Some(bytes) && !found(row, offset) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

/// The first value of a key that two rows of these groups share: its columns, one row long.
///
/// Takes 8 bytes a row, and a second pass only where two hashes are equal.
pub(crate) fn repeated(
    groups: &[GroupVersion],
    schema: &SchemaRef,
    key: &UniqueKey,
) -> Result<Option<Vec<ArrayRef>>> {
    let mut hashes = HashSet::new();
    let mut twice = HashSet::new();
    for group in groups {
        let (columns, _) = group.read(schema, Some(&key.columns))?;
        let values = KeyValues::of(&columns)?;
        for bytes in (0..values.rows()).filter_map(|row| values.get(row)) {
            let hash = hash(bytes);
            if !hashes.insert(hash) {
                twice.insert(hash);
            }
        }
    }
    if twice.is_empty() {
        return Ok(None);
    }
    let mut seen: HashSet<Vec<u8>> = HashSet::new();
    for group in groups {
        let (columns, _) = group.read(schema, Some(&key.columns))?;
        let values = KeyValues::of(&columns)?;
        for row in 0..values.rows() {
            if let Some(bytes) = values.get(row)
                && twice.contains(&hash(bytes))
                && !seen.insert(bytes.to_vec())
            {
                return Ok(Some(columns.iter().map(|column| column.slice(row, 1)).collect()));
            }
        }
    }
    Ok(None)
}

/// The error for a value that a key has already.
pub(crate) fn violation(
    table: &str,
    schema: &SchemaRef,
    key: &UniqueKey,
    values: Vec<ArrayRef>,
    existing: bool,
) -> StorageError {
    let values = columns::project(schema, Some(&key.columns))
        .and_then(|schema| columns::batch_of(&schema, values, 1));
    match values {
        Ok(values) => StorageError::NotUnique {
            table: table.to_owned(),
            key: key.name.clone(),
            values: Box::new(values),
            existing,
        },
        Err(error) => error,
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int32Array, TimestampMicrosecondArray};

    use super::*;

    fn bytes(columns: &[ArrayRef]) -> Vec<Option<Vec<u8>>> {
        let values = KeyValues::of(columns).unwrap();
        (0..values.rows()).map(|row| values.get(row).map(<[u8]>::to_vec)).collect()
    }

    #[test]
    fn equal_values_have_equal_bytes_and_others_have_not() {
        let floats: ArrayRef =
            Arc::new(Float64Array::from(vec![0.0, -0.0, f64::NAN, -f64::NAN, 1.0]));
        let found = bytes(&[floats]);
        assert_eq!(found[0], found[1]);
        assert_eq!(found[2], found[3]);
        assert_ne!(found[0], found[4]);

        let left: ArrayRef = Arc::new(StringArray::from(vec!["a", "ab", ""]));
        let right: ArrayRef = Arc::new(StringArray::from(vec!["bc", "c", ""]));
        let found = bytes(&[left, right]);
        assert_ne!(found[0], found[1]);
        assert!(found[2].is_some());
    }

    #[test]
    fn a_row_with_a_null_has_no_value() {
        let left: ArrayRef = Arc::new(Int32Array::from(vec![Some(1), Some(1), None]));
        let right: ArrayRef =
            Arc::new(TimestampMicrosecondArray::from(vec![Some(1), None, Some(1)]));
        let found = bytes(&[left, right]);
        assert_eq!(found.iter().map(Option::is_some).collect::<Vec<_>>(), [true, false, false]);
    }

    #[test]
    fn a_slice_has_the_values_of_its_rows() {
        let whole: ArrayRef = Arc::new(Int32Array::from(vec![1, 2, 3]));
        assert_eq!(bytes(&[whole.slice(1, 2)]), bytes(&[whole])[1..]);
    }

    /// Indexes are on disk: another hash would miss rows that are there.
    #[test]
    fn the_hash_is_the_one_on_disk() {
        assert_eq!(hash(b""), 0xecba_3df2_c338_3c52);
        assert_eq!(hash(b"key"), 0x65ff_fa96_0ea4_d92b);
    }

    #[test]
    fn an_index_is_read_back() {
        let numbers: ArrayRef = Arc::new(Int32Array::from((0..500).rev().collect::<Vec<_>>()));
        let values = KeyValues::of(&[numbers]).unwrap();
        let index = index_of(&values);
        let buffer = arrow::buffer::Buffer::from(encode_index(&index).unwrap());
        let read = decode_index(buffer, 500, || "the index".to_owned()).unwrap();
        for row in 0..500 {
            let wanted = fingerprint(values.get(row).unwrap());
            assert!(rows_with(&read, wanted).any(|found| found == row as u32));
        }
    }
}
