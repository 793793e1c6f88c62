//! Rows: appending, deleting, merging, conflicts, and what a rollback leaves behind.

use std::collections::BTreeMap;

use super::{ids_and_keys, keys, open, rows, schema};
use crate::{MAX_GROUP_ROWS, StorageError, Store};

fn with_table(keys: std::ops::Range<i64>) -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let mut transaction = store.begin();
    transaction.create_table("t", schema()).unwrap();
    transaction.append("t", &rows(keys)).unwrap();
    transaction.commit().unwrap();
    (folder, store)
}

/// Ids of the rows with these keys.
fn ids(store: &Store, wanted: &[i64]) -> Vec<u64> {
    let found: BTreeMap<i64, u64> = ids_and_keys(&store.snapshot().table("t").unwrap())
        .into_iter()
        .map(|(id, key)| (key, id))
        .collect();
    wanted.iter().map(|key| found[key]).collect()
}

#[test]
fn a_transaction_reads_its_own_changes_and_nobody_else_does() {
    let (_folder, store) = with_table(0..10);
    let mut transaction = store.begin();
    transaction.append("t", &rows(10..12)).unwrap();
    let deleted = transaction.delete_rows("t", &ids(&store, &[0, 3])).unwrap();
    assert_eq!(deleted, 2);
    assert_eq!(keys(&transaction.snapshot(), "t"), [1, 2, 4, 5, 6, 7, 8, 9, 10, 11]);
    assert_eq!(keys(&store.snapshot(), "t"), (0..10).collect::<Vec<_>>());
    let before = store.snapshot();
    transaction.commit().unwrap();
    assert_eq!(keys(&store.snapshot(), "t").len(), 10);
    assert_eq!(keys(&before, "t"), (0..10).collect::<Vec<_>>(), "an older snapshot changed");
}

#[test]
fn row_ids_hold_while_a_transaction_goes_on() {
    let (_folder, store) = with_table(0..5);
    let mut transaction = store.begin();
    transaction.append("t", &rows(5..8)).unwrap();
    let seen = ids_and_keys(&transaction.snapshot().table("t").unwrap());
    // More than a row group, so that the rows seen are written in between.
    transaction.append("t", &rows(100..100 + MAX_GROUP_ROWS as i64)).unwrap();
    let later = ids_and_keys(&transaction.snapshot().table("t").unwrap());
    assert_eq!(later[..8], seen[..]);
    let gone: Vec<u64> = seen.iter().filter(|(_, key)| key % 2 == 1).map(|(id, _)| *id).collect();
    assert_eq!(transaction.delete_rows("t", &gone).unwrap(), 4);
    assert_eq!(transaction.delete_rows("t", &gone).unwrap(), 0, "they are gone already");
    assert_eq!(keys(&transaction.snapshot(), "t")[..4], [0, 2, 4, 6]);
    transaction.commit().unwrap();
    assert_eq!(keys(&store.snapshot(), "t")[..4], [0, 2, 4, 6]);
    assert_eq!(keys(&store.snapshot(), "t").len(), 4 + MAX_GROUP_ROWS);
}

#[test]
fn an_unknown_row_id_is_an_error_and_deletes_nothing() {
    let (_folder, store) = with_table(0..5);
    let mut transaction = store.begin();
    let mut wanted = ids(&store, &[1]);
    wanted.push(u64::MAX);
    let error = transaction.delete_rows("t", &wanted).unwrap_err();
    assert!(matches!(error, StorageError::NoSuchRow { row_id: u64::MAX, .. }), "{error}");
    assert!(!transaction.is_dirty());
}

#[test]
fn many_single_row_commits_leave_few_row_groups() {
    let (_folder, store) = with_table(0..0);
    let commits = 1000;
    for key in 0..commits {
        let mut transaction = store.begin();
        transaction.append("t", &rows([key])).unwrap();
        transaction.commit().unwrap();
    }
    let table = store.snapshot().table("t").unwrap();
    assert!(table.groups() <= 10, "{} row groups", table.groups());
    assert_eq!(keys(&store.snapshot(), "t"), (0..commits).collect::<Vec<_>>(), "the order is kept");
    drop(table);
    store.wait_for_sweep();
    let values = store.inner.core.kv.data_values();
    assert!(values <= 10, "{values} values for {commits} rows");
}

#[test]
fn large_appends_are_cut_into_full_row_groups() {
    let count = 3 * MAX_GROUP_ROWS as i64 + 10;
    let (folder, store) = with_table(0..count);
    assert_eq!(store.snapshot().table("t").unwrap().groups(), 4);
    drop(store);
    let store = open(folder.path());
    assert_eq!(keys(&store.snapshot(), "t"), (0..count).collect::<Vec<_>>());
}

#[test]
fn deleting_all_rows_of_a_group_drops_it_with_its_pieces() {
    let (_folder, store) = with_table(0..MAX_GROUP_ROWS as i64 + 4500);
    assert_eq!(store.snapshot().table("t").unwrap().groups(), 2);
    let mut transaction = store.begin();
    let first: Vec<i64> = (0..MAX_GROUP_ROWS as i64).collect();
    transaction.delete_rows("t", &ids(&store, &first)).unwrap();
    transaction.commit().unwrap();
    assert_eq!(store.snapshot().table("t").unwrap().groups(), 1);
    assert_eq!(keys(&store.snapshot(), "t").len(), 4500);
    let mut transaction = store.begin();
    transaction.truncate("t").unwrap();
    assert_eq!(keys(&transaction.snapshot(), "t"), Vec::<i64>::new());
    transaction.commit().unwrap();
    store.wait_for_sweep();
    assert_eq!(store.inner.core.kv.data_values(), 0);
}

#[test]
fn pieces_stay_while_a_snapshot_can_reach_them() {
    let (_folder, store) = with_table(0..5000);
    let snapshot = store.snapshot();
    let mut transaction = store.begin();
    transaction.drop_table("t").unwrap();
    transaction.commit().unwrap();
    store.wait_for_sweep();
    assert_eq!(keys(&snapshot, "t").len(), 5000);
    drop(snapshot);
    store.wait_for_sweep();
    assert_eq!(store.inner.core.kv.data_values(), 0);
}

#[test]
fn a_rollback_leaves_nothing() {
    let (folder, store) = with_table(0..0);
    let mut transaction = store.begin();
    transaction.create_table("u", schema()).unwrap();
    transaction.append("u", &rows(0..20_000)).unwrap();
    transaction.append("t", &rows(0..20_000)).unwrap();
    transaction.put_model("m", b"{}", &[("weights", &[7; 200_000])]).unwrap();
    assert!(store.inner.core.kv.data_values() > 0, "nothing was written ahead");
    drop(transaction);
    store.wait_for_sweep();
    assert_eq!(store.inner.core.kv.data_values(), 0);
    assert!(store.snapshot().table("u").is_none());
    drop(store);
    let store = open(folder.path());
    assert_eq!(keys(&store.snapshot(), "t"), Vec::<i64>::new());
    assert!(store.snapshot().model("m").is_none());
}

#[test]
fn orphans_of_an_unfinished_transaction_are_swept_at_the_next_opening() {
    let (folder, store) = with_table(0..6000);
    let mut transaction = store.begin();
    transaction.append("t", &rows(0..20_000)).unwrap();
    let orphaned = store.inner.core.kv.data_values();
    store.flush().unwrap();
    // The sweeper is stopped first, as a crash would stop it; then letting go of the transaction deletes nothing.
    store.inner.core.sweeper.stop();
    drop(transaction);
    drop(store);
    let store = open(folder.path());
    store.wait_for_sweep();
    let left = store.inner.core.kv.data_values();
    assert!(left < orphaned, "{left} of {orphaned} values are left");
    assert_eq!(keys(&store.snapshot(), "t").len(), 6000);
    let mut transaction = store.begin();
    transaction.drop_table("t").unwrap();
    transaction.commit().unwrap();
    store.wait_for_sweep();
    assert_eq!(store.inner.core.kv.data_values(), 0);
}

#[test]
fn appends_by_concurrent_transactions_do_not_conflict() {
    let (_folder, store) = with_table(0..3);
    let mut first = store.begin();
    let mut second = store.begin();
    first.append("t", &rows([10])).unwrap();
    second.append("t", &rows([20])).unwrap();
    second.delete_rows("t", &ids(&store, &[1])).unwrap();
    second.commit().unwrap();
    first.commit().unwrap();
    assert_eq!(keys(&store.snapshot(), "t"), [0, 2, 20, 10]);
}

#[test]
fn the_first_to_delete_a_row_wins() {
    let (_folder, store) = with_table(0..5000);
    let mut first = store.begin();
    let mut second = store.begin();
    let mut third = store.begin();
    first.delete_rows("t", &ids(&store, &[1, 2])).unwrap();
    second.delete_rows("t", &ids(&store, &[2, 3])).unwrap();
    third.delete_rows("t", &ids(&store, &[4])).unwrap();
    first.commit().unwrap();
    let error = second.commit().unwrap_err();
    assert!(matches!(&error, StorageError::Conflict { name } if name == "t"), "{error}");
    third.commit().unwrap();
    assert_eq!(keys(&store.snapshot(), "t")[..4], [0, 3, 5, 6]);
}

#[test]
fn dropping_truncating_and_renaming_conflict_with_any_change() {
    for change in ["drop", "truncate", "rename"] {
        let (_folder, store) = with_table(0..5);
        let mut slow = store.begin();
        match change {
            "drop" => slow.drop_table("t").unwrap(),
            "truncate" => slow.truncate("t").unwrap(),
            _ => slow.rename_table("t", "u").unwrap(),
        }
        let mut quick = store.begin();
        quick.append("t", &rows([5])).unwrap();
        quick.commit().unwrap();
        let error = slow.commit().unwrap_err();
        assert!(matches!(error, StorageError::Conflict { .. }), "{change}: {error}");
        assert_eq!(keys(&store.snapshot(), "t").len(), 6, "{change}");
    }
}

#[test]
fn changing_a_table_that_was_dropped_meanwhile_conflicts() {
    let (_folder, store) = with_table(0..5);
    let mut slow = store.begin();
    slow.append("t", &rows([5])).unwrap();
    let mut quick = store.begin();
    quick.drop_table("t").unwrap();
    quick.create_table("t", schema()).unwrap();
    quick.commit().unwrap();
    let error = slow.commit().unwrap_err();
    assert!(matches!(error, StorageError::Conflict { .. }), "{error}");
    assert_eq!(keys(&store.snapshot(), "t"), Vec::<i64>::new());
}

#[test]
fn a_savepoint_can_be_gone_back_to_more_than_once() {
    let (_folder, store) = with_table(0..3);
    let mut transaction = store.begin();
    transaction.append("t", &rows([3])).unwrap();
    let savepoint = transaction.savepoint();
    for _ in 0..2 {
        transaction.append("t", &rows(100..100 + 2 * MAX_GROUP_ROWS as i64)).unwrap();
        transaction.delete_rows("t", &ids(&store, &[0])).unwrap();
        transaction.create_table("u", schema()).unwrap();
        transaction.rollback_to(&savepoint);
        assert_eq!(keys(&transaction.snapshot(), "t"), [0, 1, 2, 3]);
        assert!(transaction.snapshot().table("u").is_none());
    }
    drop(savepoint);
    transaction.commit().unwrap();
    assert_eq!(keys(&store.snapshot(), "t"), [0, 1, 2, 3]);
    store.wait_for_sweep();
    assert_eq!(store.inner.core.kv.data_values(), 2, "what was gone back on is still there");
}

#[test]
fn batches_that_do_not_fit_change_nothing() {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};

    let (_folder, store) = with_table(0..3);
    let mut transaction = store.begin();
    let texts: ArrayRef = Arc::new(StringArray::from(vec!["a"]));
    let null_key: ArrayRef = Arc::new(Int64Array::from(vec![None]));
    let bad = RecordBatch::try_from_iter([("key", null_key), ("value", Arc::clone(&texts))]);
    let error = transaction.append("t", &bad.unwrap()).unwrap_err();
    assert!(
        matches!(&error, StorageError::NotNull { table, column } if table == "t" && column == "key"),
        "{error}"
    );
    let bad =
        RecordBatch::try_from_iter([("key", Arc::clone(&texts)), ("value", Arc::clone(&texts))]);
    let error = transaction.append("t", &bad.unwrap()).unwrap_err();
    assert!(matches!(error, StorageError::SchemaMismatch { .. }), "{error}");
    let bad = RecordBatch::try_from_iter([("key", texts)]);
    let error = transaction.append("t", &bad.unwrap()).unwrap_err();
    assert!(matches!(error, StorageError::SchemaMismatch { .. }), "{error}");
    assert!(!transaction.is_dirty());
    assert!(matches!(
        transaction.append("nobody", &rows([1])).unwrap_err(),
        StorageError::NotFound { .. }
    ));
}

#[test]
fn statistics_hold_for_live_rows() {
    use arrow::array::{AsArray, StringArray};
    use arrow::datatypes::Int64Type;

    let (_folder, store) = with_table(1..5000);
    let statistics = store.snapshot().table("t").unwrap().group_statistics(0);
    assert_eq!((statistics.rows, statistics.exact), (4999, true));
    let min = statistics.columns[0].min.as_ref().unwrap().as_primitive::<Int64Type>().value(0);
    let max = statistics.columns[0].max.as_ref().unwrap().as_primitive::<Int64Type>().value(0);
    assert_eq!((min, max), (1, 4999));
    assert_eq!(statistics.columns[1].null_count, 4999 / 7);
    let min = statistics.columns[1].min.clone().unwrap();
    assert_eq!(min.as_string::<i32>(), &StringArray::from(vec!["값 1"]));
    let mut transaction = store.begin();
    transaction.delete_rows("t", &ids(&store, &[1])).unwrap();
    transaction.commit().unwrap();
    let statistics = store.snapshot().table("t").unwrap().group_statistics(0);
    assert_eq!((statistics.rows, statistics.exact), (4998, false));
}

#[test]
fn concurrent_commits_all_arrive() {
    let (folder, store) = with_table(0..0);
    let threads = 8;
    let each = 50;
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let store = store.clone();
            scope.spawn(move || {
                for commit in 0..each {
                    let mut transaction = store.begin();
                    transaction.append("t", &rows([thread * each + commit])).unwrap();
                    transaction.commit().unwrap();
                    let seen = keys(&store.snapshot(), "t");
                    assert!(seen.contains(&(thread * each + commit)), "a commit is not visible");
                }
            });
        }
    });
    drop(store);
    let store = open(folder.path());
    let mut found = keys(&store.snapshot(), "t");
    found.sort_unstable();
    assert_eq!(found, (0..threads * each).collect::<Vec<_>>());
}
