//! Sequences: no value twice, not even after a crash or a rollback.

use std::collections::HashSet;

use super::open;
use crate::{SequenceRules, Store};

const RULES: SequenceRules =
    SequenceRules { start: 1, increment: 1, min: 1, max: i64::MAX, cycle: false };

fn take(store: &Store, oid: u32, rules: &SequenceRules, count: usize) -> Vec<i64> {
    (0..count).map_while(|_| store.next_value(oid, rules).unwrap()).collect()
}

#[test]
fn an_orderly_close_skips_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    assert_eq!(take(&store, 5, &RULES, 3), [1, 2, 3]);
    drop(store);
    let store = open(folder.path());
    assert_eq!(take(&store, 5, &RULES, 1), [4]);
    assert_eq!(take(&store, 6, &RULES, 1), [1]);
}

#[test]
fn a_crash_gives_no_value_twice() {
    let folder = tempfile::tempdir().unwrap();
    let mut given: HashSet<i64> = HashSet::new();
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
