//! Sequences: no value twice, not even after a crash or a rollback.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};

use super::open;
use crate::keys::Counter;
use crate::{SEQUENCE_KEY, SequenceRules, Store};

const RULES: SequenceRules =
    SequenceRules { start: 1, increment: 1, min: 1, max: i64::MAX, cycle: false };

/// A table whose columns have the sequences 5 and 6: what no column has is forgotten at the next opening.
fn make_table(store: &Store) {
    let column = |oid: u32| {
        let metadata = HashMap::from([(SEQUENCE_KEY.to_owned(), oid.to_string())]);
        Field::new(format!("c{oid}"), DataType::Int64, true).with_metadata(metadata)
    };
    let mut transaction = store.begin();
    transaction.create_table("t", Arc::new(Schema::new(vec![column(5), column(6)]))).unwrap();
    transaction.commit().unwrap();
}

fn take(store: &Store, oid: u32, rules: &SequenceRules, count: usize) -> Vec<i64> {
    (0..count).map_while(|_| store.next_value(oid, rules).unwrap()).collect()
}

#[test]
fn an_orderly_close_skips_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    make_table(&store);
    assert_eq!(take(&store, 5, &RULES, 3), [1, 2, 3]);
    assert_eq!(take(&store, 7, &RULES, 3), [1, 2, 3]);
    drop(store);
    let store = open(folder.path());
    assert_eq!(take(&store, 5, &RULES, 1), [4]);
    assert_eq!(take(&store, 6, &RULES, 1), [1]);
    // Nothing refers to this one any more.
    assert_eq!(take(&store, 7, &RULES, 1), [1]);
}

#[test]
fn a_crash_gives_no_value_twice() {
    let folder = tempfile::tempdir().unwrap();
    let mut given: HashSet<i64> = HashSet::new();
    make_table(&open(folder.path()));
    for _ in 0..5 {
        let store = open(folder.path());
        for value in take(&store, 5, &RULES, 40) {
            assert!(given.insert(value), "{value} was given twice");
        }
        store.flush().unwrap();
        // As a crash leaves it: what is in memory is gone.
        store.inner.sequences.lock().unwrap().clear();
    }
    assert!(given.iter().max().unwrap() < &400);
}

#[test]
fn values_that_no_commit_holds_are_flushed_once_a_block() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    make_table(&store);
    let flushes = || store.inner.core.kv.counter(Counter::Flush).unwrap();
    let before = flushes();
    assert!(!store.has_unflushed_sequences());
    for _ in 0..2 {
        assert_eq!(take(&store, 5, &RULES, 3).len(), 3);
        store.flush_sequences().unwrap();
    }
    assert_eq!(flushes(), before + 1);
    take(&store, 5, &RULES, 40);
    assert!(store.has_unflushed_sequences());
    store.flush_sequences().unwrap();
    assert_eq!(flushes(), before + 2);
    // Any other flush, such as a commit's, is one for them, too.
    take(&store, 5, &RULES, 40);
    store.flush().unwrap();
    assert!(!store.has_unflushed_sequences());
}

#[test]
fn a_sequence_ends_or_starts_again() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let short = SequenceRules { start: 7, increment: -3, min: 0, max: 10, cycle: false };
    assert_eq!(take(&store, 1, &short, 9), [7, 4, 1]);
    let round = SequenceRules { cycle: true, ..short };
    assert_eq!(take(&store, 2, &round, 6), [7, 4, 1, 10, 7, 4]);
    store.set_sequence(1, Some(3)).unwrap();
    assert_eq!(take(&store, 1, &short, 9), [3, 0]);
}
