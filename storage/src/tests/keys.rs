//! Keys: who may come twice, what a look-up reads, and that no crash or race can leave two rows of one key.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::{keyed_schema, keys, open, primary_key, rows, schema};
use crate::keys::Key;
use crate::{Owner, StorageError, Table, UniqueKey, with_keys};

fn find(table: &Table, key: i64) -> Result<Option<u64>, StorageError> {
    let value: ArrayRef = Arc::new(Int64Array::from(vec![key]));
    Ok(table.find(&table.keys()[0], &[value])?[0])
}

fn is_repeated<T>(outcome: Result<T, StorageError>) -> bool {
    matches!(outcome, Err(StorageError::NotUnique { existing: false, .. }))
}

#[test]
fn of_two_transactions_with_one_key_the_second_loses() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let mut setup = store.begin();
    setup.create_table("t", keyed_schema()).unwrap();
    setup.append("t", &rows([1])).unwrap();
    setup.commit().unwrap();

    let (mut first, mut second, mut third) = (store.begin(), store.begin(), store.begin());
    first.append("t", &rows([2])).unwrap();
    second.append("t", &rows([3, 2])).unwrap();
    third.append("t", &rows([4])).unwrap();
    first.commit().unwrap();
    let error = second.commit().unwrap_err();
    let StorageError::NotUnique { table, key, values, existing: false } = error else {
        panic!("{error}")
    };
    assert_eq!((table.as_str(), key.as_str()), ("t", "t_pkey"));
    assert_eq!(values.column(0).as_ref(), &Int64Array::from(vec![2]));
    third.commit().unwrap();
    assert_eq!(keys(&store.snapshot(), "t"), [1, 2, 4]);
}

#[test]
fn a_deleted_key_is_free_and_comes_back_with_a_rollback() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let mut transaction = store.begin();
    transaction.create_table("t", keyed_schema()).unwrap();
    transaction.append("t", &rows(0..5)).unwrap();
    transaction.commit().unwrap();

    let mut transaction = store.begin();
    let id = find(&transaction.snapshot().table("t").unwrap(), 3).unwrap().unwrap();
    let point = transaction.savepoint();
    transaction.delete_rows("t", &[id]).unwrap();
    transaction.append("t", &rows([3])).unwrap();
    assert!(is_repeated(transaction.append("t", &rows([3]))));
    transaction.rollback_to(&point);
    assert!(is_repeated(transaction.append("t", &rows([3]))));
    transaction.truncate("t").unwrap();
    transaction.append("t", &rows([3])).unwrap();
    transaction.commit().unwrap();
    assert_eq!(keys(&store.snapshot(), "t"), [3]);
}

#[test]
fn a_key_is_held_across_merges_and_reopening() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let mut transaction = store.begin();
    transaction.create_table("t", keyed_schema()).unwrap();
    transaction.commit().unwrap();
    for key in 0..300 {
        let mut transaction = store.begin();
        transaction.append("t", &rows([key * 7 % 300])).unwrap();
        transaction.commit().unwrap();
    }
    drop(store);
    let store = open(folder.path());
    let table = store.snapshot().table("t").unwrap();
    for key in 0..300 {
        assert!(find(&table, key).unwrap().is_some());
        assert!(is_repeated(store.begin().append("t", &rows([key]))));
    }
    assert_eq!(find(&table, 300).unwrap(), None);
}

/// Rows too wide for one value, so that each column and index is a part of its own.
fn wide(keys: std::ops::Range<i64>) -> RecordBatch {
    let text = "x".repeat(40);
    let texts = StringArray::from_iter_values(keys.clone().map(|key| format!("{text}{key}")));
    let keys: ArrayRef = Arc::new(Int64Array::from_iter_values(keys));
    RecordBatch::try_new(schema(), vec![keys, Arc::new(texts)]).unwrap()
}

#[test]
fn a_look_up_reads_the_row_group_that_has_the_key() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let mut transaction = store.begin();
    transaction.create_table("t", keyed_schema()).unwrap();
    transaction.append("t", &wide(0..3 * 8192)).unwrap();
    transaction.commit().unwrap();
    drop(store);

    let store = open(folder.path());
    let table = store.snapshot().table("t").unwrap();
    let manifest = store.inner.published();
    let units: Vec<u64> = manifest.tables["t"]
        .groups
        .iter()
        .map(|group| match &group.rows {
            crate::row_group::Rows::Stored(stored) => stored.unit.id(),
            crate::row_group::Rows::Memory(_) => panic!("it was committed"),
        })
        .collect();
    assert_eq!(units.len(), 3);
    // Whatever the other row groups hold is not looked at.
    for unit in [units[0], units[2]] {
        store.inner.core.kv.flip_byte(&Key::Piece(unit, 0, 0), 100);
        store.inner.core.kv.flip_byte(&Key::Piece(unit, 1, 0), 100);
        store.inner.core.kv.flip_byte(&Key::Piece(unit, (1 << 31) | 20_000, 0), 100);
    }
    let id = find(&table, 9000).unwrap().unwrap();
    let row = table.rows(&[id], None).unwrap();
    assert_eq!(row.column(0).as_ref(), &Int64Array::from(vec![9000]));
    // A damaged index is an error, never a key that seems free.
    let damaged = find(&table, 5).unwrap_err();
    assert!(matches!(damaged, StorageError::Corrupt { .. }), "{damaged}");
    let mut transaction = store.begin();
    let damaged = transaction.append("t", &wide(5..6)).unwrap_err();
    assert!(matches!(damaged, StorageError::Corrupt { .. }), "{damaged}");
}

fn pairs(rows: &[(Option<i32>, Option<&str>)]) -> RecordBatch {
    let numbers: Int32Array = rows.iter().map(|(number, _)| *number).collect();
    let texts: StringArray = rows.iter().map(|(_, text)| *text).collect();
    RecordBatch::try_new(pair_schema(), vec![Arc::new(numbers), Arc::new(texts)]).unwrap()
}

fn pair_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("a", DataType::Int32, true),
        Field::new("b", DataType::Utf8, true),
    ]))
}

#[test]
fn several_columns_make_a_key_and_nulls_are_distinct() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let both = UniqueKey { oid: 1, name: "both".into(), columns: vec![1, 0], primary: false };
    let one = UniqueKey { oid: 2, name: "one".into(), columns: vec![0], primary: false };
    let mut transaction = store.begin();
    transaction.create_table("t", with_keys(&pair_schema(), &[both])).unwrap();
    transaction
        .append("t", &pairs(&[(Some(1), Some("x")), (Some(1), Some("y")), (Some(1), None)]))
        .unwrap();
    transaction.append("t", &pairs(&[(Some(1), None), (None, Some("x"))])).unwrap();
    assert!(is_repeated(transaction.append("t", &pairs(&[(Some(2), None), (Some(1), Some("y"))]))));
    // Within one batch, too, and then nothing of it is there.
    let twice = pairs(&[(Some(3), Some("z")), (Some(3), Some("z"))]);
    assert!(is_repeated(transaction.append("t", &twice)));
    transaction.append("t", &twice.slice(0, 1)).unwrap();
    // A key that the rows do not hold to cannot be added.
    let schema = with_keys(&pair_schema(), std::slice::from_ref(&one));
    let refused = transaction.redefine_table("t", schema.clone());
    assert!(matches!(refused, Err(StorageError::NotUnique { existing: true, .. })));
    transaction.truncate("t").unwrap();
    transaction.append("t", &pairs(&[(Some(1), Some("x")), (None, None), (None, None)])).unwrap();
    transaction.redefine_table("t", schema).unwrap();
    assert!(is_repeated(transaction.append("t", &pairs(&[(Some(1), Some("other"))]))));
    transaction.commit().unwrap();
    assert!(is_repeated(store.begin().append("t", &pairs(&[(Some(1), None)]))));
}

#[test]
fn rows_do_not_slip_in_beside_a_new_key() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let mut setup = store.begin();
    setup.create_table("t", schema()).unwrap();
    setup.append("t", &rows([1, 2])).unwrap();
    setup.commit().unwrap();
    let (mut definer, mut writer) = (store.begin(), store.begin());
    writer.append("t", &rows([1])).unwrap();
    definer.redefine_table("t", with_keys(&schema(), &[primary_key()])).unwrap();
    definer.commit().unwrap();
    assert!(matches!(writer.commit(), Err(StorageError::Conflict { .. })));
    assert!(is_repeated(store.begin().append("t", &rows([2]))));
}

#[test]
fn a_temporary_table_is_its_sessions_own() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let owner = |session| Owner { session: Some(session), check: None };
    let mut setup = store.begin();
    setup.create_table("t", schema()).unwrap();
    setup.append("t", &rows([1])).unwrap();
    setup.commit().unwrap();

    let mut mine = store.begin_as(owner(7));
    mine.create_temporary_table("t", schema()).unwrap();
    mine.append("t", &rows([2, 3])).unwrap();
    assert!(mine.create_temporary_table("t", schema()).is_err());
    mine.commit().unwrap();
    assert_eq!(keys(&store.snapshot_of(Some(7)), "t"), [2, 3]);
    assert_eq!(keys(&store.snapshot_of(Some(8)), "t"), [1]);
    assert_eq!(store.snapshot().tables().len(), 1);
    assert_eq!(store.snapshot_of(Some(7)).tables().len(), 2);
    assert!(store.snapshot_of(Some(7)).table("t").unwrap().is_temporary());

    let mut mine = store.begin_as(owner(7));
    mine.rename_table("t", "u").unwrap();
    mine.append("t", &rows([4])).unwrap();
    mine.commit().unwrap();
    assert_eq!(keys(&store.snapshot(), "t"), [1, 4]);
    store.drop_temporary(7).unwrap();
    assert!(store.snapshot_of(Some(7)).table("u").is_none());

    let mut mine = store.begin_as(owner(9));
    mine.create_temporary_table("left_over", schema()).unwrap();
    mine.commit().unwrap();
    drop(store);
    let store = open(folder.path());
    assert!(store.snapshot_of(Some(9)).table("left_over").is_none());
}
