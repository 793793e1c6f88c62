//! The records that say what a store holds, and their bytes.
//!
//! A table's state is spread over three kinds of record, so that a commit writes little:
//!
//! - one [`TableManifest`]: name, schema, version and the list of row groups (a few bytes each), rewritten whenever the
//!   table changes;
//! - one [`GroupRecord`] a row group: where its columns are, how many rows, statistics; never changed;
//! - one bitmap of deleted rows for each row group that has some.
//!
//! Bytes are a version byte and postcard. Snapshots never read these records: they are all in memory while the store is
//! open, which is why they may be overwritten in place.

use arrow::datatypes::SchemaRef;
use roaring::RoaringBitmap;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::columns;
use crate::error::{Result, StorageError};
use crate::keys::UnitId;
use crate::statistics::ColumnRecord;

/// The version of every record in this file. A record that changes its form gets a number of its own.
const RECORD_VERSION: u8 = 1;

/// A table, without its row groups' contents.
#[derive(Serialize, Deserialize)]
pub(crate) struct TableManifest {
    pub(crate) oid: u32,
    pub(crate) name: String,
    pub(crate) version: u64,
    /// See [`columns::encode_schema`].
    pub(crate) schema: Vec<u8>,
    /// The id that the next row group gets; ids are not reused within a table.
    pub(crate) next_group: u32,
    pub(crate) groups: Vec<GroupEntry>,
}

/// A row group as its table lists it.
#[derive(Serialize, Deserialize)]
pub(crate) struct GroupEntry {
    pub(crate) id: u32,
    /// How many rows the deletion bitmap names; 0 when there is none.
    pub(crate) deleted: u32,
}

/// A row group as it was written.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct GroupRecord {
    pub(crate) unit: UnitId,
    pub(crate) rows: u32,
    pub(crate) layout: Layout,
    pub(crate) columns: Vec<ColumnRecord>,
}

/// How a row group's columns lie in its unit.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Layout {
    /// All columns in one value.
    Packed,
    /// Each column a part of its own; the lengths in bytes.
    Columns(Vec<u64>),
}

/// A view.
#[derive(Serialize, Deserialize)]
pub(crate) struct ViewRecord {
    pub(crate) oid: u32,
    pub(crate) name: String,
    pub(crate) version: u64,
    pub(crate) definition: String,
    pub(crate) schema: Vec<u8>,
}

/// A model, without its parts' contents.
#[derive(Serialize, Deserialize)]
pub(crate) struct ModelRecord {
    pub(crate) oid: u32,
    pub(crate) name: String,
    pub(crate) version: u64,
    pub(crate) metadata: Vec<u8>,
    pub(crate) unit: UnitId,
    /// Name and length of each part, in the unit's order.
    pub(crate) parts: Vec<(String, u64)>,
}

/// Where a job's checkpoint or request is.
#[derive(Serialize, Deserialize)]
pub(crate) struct KeptRecord {
    pub(crate) unit: UnitId,
    pub(crate) bytes: u64,
}

/// Encodes a record.
pub(crate) fn encode<T: Serialize>(record: &T) -> Vec<u8> {
    postcard::to_extend(record, vec![RECORD_VERSION])
        .expect("postcard fails on maps and sequences of unknown length only, and on a full buffer")
}

/// Decodes a record; `name` says which, for the error.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8], name: impl Fn() -> String) -> Result<T> {
    let Some((&version, bytes)) = bytes.split_first() else {
        return Err(StorageError::corrupt(format!("{} is empty", name())));
    };
    if version != RECORD_VERSION {
        return Err(StorageError::UnknownFormat {
            found: u64::from(version),
            supported: u64::from(RECORD_VERSION),
        });
    }
    postcard::from_bytes(bytes)
        .map_err(|error| StorageError::corrupt(format!("{} does not decode: {error}", name())))
}

/// Encodes a bitmap of deleted rows.
pub(crate) fn encode_bitmap(bitmap: &RoaringBitmap) -> Vec<u8> {
    let mut bytes = vec![RECORD_VERSION];
    bitmap.serialize_into(&mut bytes).expect("a Vec takes all bytes");
    bytes
}

/// Decodes a bitmap of deleted rows.
pub(crate) fn decode_bitmap(bytes: &[u8], name: impl Fn() -> String) -> Result<RoaringBitmap> {
    match bytes.split_first() {
        Some((&RECORD_VERSION, bytes)) => RoaringBitmap::deserialize_from(bytes)
            .map_err(|error| StorageError::corrupt(format!("{} does not decode: {error}", name()))),
        Some((&version, _)) => Err(StorageError::UnknownFormat {
            found: u64::from(version),
            supported: u64::from(RECORD_VERSION),
        }),
        None => Err(StorageError::corrupt(format!("{} is empty", name()))),
    }
}

impl TableManifest {
    /// The table's schema.
    pub(crate) fn schema(&self) -> Result<SchemaRef> {
        columns::decode_schema(&self.schema, || format!("table \"{}\"", self.name))
    }
}
