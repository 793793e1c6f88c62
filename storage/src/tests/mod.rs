//! Tests that look inside: at stored values, at what is left after a rollback, at damage.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, Int64Array, RecordBatch, StringArray, UInt64Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use crate::{Snapshot, Store, StoreOptions, Table, UniqueKey, with_keys};

mod corruption;
mod index_data;
mod keys;
mod model;
mod objects;
mod rows;
mod sequences;
mod types;

/// Opens a store with small caches, so that the engine and the pieces are really read.
fn open(path: &Path) -> Store {
    let options = StoreOptions { sled_cache_bytes: 8 << 20, column_cache_bytes: 4 << 20 };
    Store::open(path, options).unwrap()
}

/// `key bigint not null, value text`.
fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("key", DataType::Int64, false),
        Field::new("value", DataType::Utf8, true),
    ]))
}

/// The same with `key` as the primary key.
fn keyed_schema() -> SchemaRef {
    with_keys(&schema(), &[primary_key()])
}

fn primary_key() -> UniqueKey {
    UniqueKey { oid: 20_000, name: "t_pkey".to_owned(), columns: vec![0], primary: true }
}

/// Rows with these keys; a key that divides by seven has no value.
fn rows(keys: impl IntoIterator<Item = i64>) -> RecordBatch {
    let keys: Vec<i64> = keys.into_iter().collect();
    let values = keys.iter().map(|key| value(*key));
    let values = StringArray::from_iter(values);
    let columns: Vec<Arc<dyn Array>> = vec![Arc::new(Int64Array::from(keys)), Arc::new(values)];
    RecordBatch::try_new(schema(), columns).unwrap()
}

fn value(key: i64) -> Option<String> {
    (key % 7 != 0).then(|| format!("값 {key}"))
}

/// Row ids and keys of a table, checking that each row has the value that belongs to its key.
fn ids_and_keys(table: &Table) -> Vec<(u64, i64)> {
    let mut found = Vec::new();
    for group in 0..table.groups() {
        let batch = table.read_group_with_row_ids(group, None).unwrap();
        let keys = batch.column(0).as_any().downcast_ref::<Int64Array>().unwrap();
        let values = batch.column(1).as_any().downcast_ref::<StringArray>().unwrap();
        let ids = batch.column(2).as_any().downcast_ref::<UInt64Array>().unwrap();
        for row in 0..batch.num_rows() {
            let stored = values.is_valid(row).then(|| values.value(row).to_owned());
            assert_eq!(stored, value(keys.value(row)));
            found.push((ids.value(row), keys.value(row)));
        }
    }
    assert_eq!(found.len() as u64, table.row_count());
    found
}

fn keys(snapshot: &Snapshot, table: &str) -> Vec<i64> {
    let table = snapshot.table(table).expect("the table exists");
    ids_and_keys(&table).into_iter().map(|(_, key)| key).collect()
}
