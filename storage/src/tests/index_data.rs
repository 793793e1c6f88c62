//! Indexes' data: there as long as a table names the index, and gone with it.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Int32Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::open;
use crate::{INDEX_DATA_KEY, MAX_GROUP_ROWS, Store};

fn schema(indexes: &str) -> SchemaRef {
    let metadata = HashMap::from([(INDEX_DATA_KEY.to_owned(), indexes.to_owned())]);
    let columns = vec![Field::new("n", DataType::Int32, true)];
    Arc::new(Schema::new_with_metadata(columns, metadata))
}

fn numbers(schema: &SchemaRef, count: usize) -> RecordBatch {
    let numbers = Int32Array::from_iter_values(0..count as i32);
    RecordBatch::try_new(Arc::clone(schema), vec![Arc::new(numbers)]).unwrap()
}

fn kept(store: &Store, oids: [u32; 3]) -> [Option<usize>; 3] {
    oids.map(|oid| store.index_data(oid).unwrap().map(|bytes| bytes.len()))
}

#[test]
fn data_go_when_no_table_names_their_index_any_more() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    for (oid, bytes) in [(5, 200_000), (6, 3), (7, 3)] {
        store.put_index_data(oid, &vec![1; bytes]).unwrap();
    }
    let mut transaction = store.begin();
    transaction.create_table("t", schema("5 6")).unwrap();
    transaction.commit().unwrap();
    store.put_index_data(5, &[2; 100_000]).unwrap();
    assert_eq!(kept(&store, [5, 6, 7]), [Some(100_000), Some(3), Some(3)]);

    let mut transaction = store.begin();
    transaction.redefine_table("t", schema("5")).unwrap();
    drop(transaction);
    assert_eq!(kept(&store, [5, 6, 7]), [Some(100_000), Some(3), Some(3)], "it was rolled back");
    let mut transaction = store.begin();
    transaction.redefine_table("t", schema("5")).unwrap();
    transaction.commit().unwrap();
    assert_eq!(kept(&store, [5, 6, 7]), [Some(100_000), None, Some(3)]);

    drop(store);
    let store = open(folder.path());
    assert_eq!(kept(&store, [5, 6, 7]), [Some(100_000), None, None]);
    let mut transaction = store.begin();
    transaction.drop_table("t").unwrap();
    transaction.commit().unwrap();
    assert_eq!(kept(&store, [5, 6, 7]), [None; 3]);
}

#[test]
fn a_row_group_keeps_the_name_of_its_rows_until_they_are_written_anew() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let schema = schema("");
    let mut transaction = store.begin();
    transaction.create_table("t", Arc::clone(&schema)).unwrap();
    transaction.append("t", &numbers(&schema, 600)).unwrap();
    let own = transaction.snapshot().table("t").unwrap().group(0);
    assert_eq!((own.rows, own.total, own.live, own.is_settled), (None, 600, 600, false));
    transaction.commit().unwrap();

    let small = store.snapshot().table("t").unwrap().group(0);
    assert!(small.rows.is_some() && !small.is_settled);
    let mut transaction = store.begin();
    transaction.append("t", &numbers(&schema, 600)).unwrap();
    transaction.commit().unwrap();
    let merged = store.snapshot().table("t").unwrap();
    assert_eq!(merged.groups(), 1);
    assert!(merged.group(0).rows != small.rows && merged.group(0).is_settled);

    let ids = merged.read_group_with_row_ids(0, Some(&[])).unwrap();
    let ids: &arrow::array::UInt64Array = ids.column(0).as_any().downcast_ref().unwrap();
    let mut transaction = store.begin();
    transaction.delete_rows("t", &[ids.value(3)]).unwrap();
    transaction.append("t", &numbers(&schema, MAX_GROUP_ROWS)).unwrap();
    transaction.commit().unwrap();
    let now = store.snapshot().table("t").unwrap();
    assert_eq!(now.groups(), 2);
    assert_eq!(now.group(0).rows, merged.group(0).rows);
    assert_eq!(now.group(0).live, now.group(0).total - 1);
    assert!(!now.is_live(0, 3) && now.is_live(0, 4) && merged.is_live(0, 3));
    // Deleted rows have their place.
    let whole = now.read_whole_column(0, 0).unwrap();
    assert_eq!(whole.len(), 1200);
}
