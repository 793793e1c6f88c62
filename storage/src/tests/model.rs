//! Random operations against the store and against a plain list of rows, side by side.
//!
//! `STORAGE_MODEL_STEPS` and `STORAGE_MODEL_SEED` make it longer or repeat it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array};

use super::{ids_and_keys, keyed_schema, keys, open, rows};
use crate::{Savepoint, Snapshot, StorageError, Transaction};

/// Table name -> keys of its rows, in order.
type Model = BTreeMap<String, Vec<i64>>;

/// A small generator whose whole state is the seed, so that a failure can be repeated from one number.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn below(&mut self, limit: u64) -> u64 {
        // splitmix64
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }
}

pub(super) fn number_from_environment(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn check(snapshot: &Snapshot, model: &Model, when: &str) {
    let names: Vec<String> =
        snapshot.tables().iter().map(|table| table.name().to_owned()).collect();
    assert_eq!(names, model.keys().cloned().collect::<Vec<_>>(), "{when}");
    for (name, expected) in model {
        let mut found = keys(snapshot, name);
        let mut expected = expected.clone();
        found.sort_unstable();
        expected.sort_unstable();
        assert_eq!(found, expected, "{when}: table {name}");
        check_index(snapshot, name, &expected, when);
    }
}

/// The key's index finds the rows that are there and no others.
fn check_index(snapshot: &Snapshot, name: &str, expected: &[i64], when: &str) {
    let table = snapshot.table(name).unwrap();
    let there: BTreeSet<i64> = expected.iter().copied().collect();
    let highest = expected.last().copied().unwrap_or(0);
    let asked: Vec<i64> = (0..40).map(|part| highest * part / 39 + part % 3 - 1).collect();
    let values: ArrayRef = Arc::new(Int64Array::from(asked.clone()));
    let ids = table.find(&table.keys()[0], &[values]).unwrap();
    for (key, id) in asked.iter().zip(&ids) {
        assert_eq!(id.is_some(), there.contains(key), "{when}: key {key} of table {name}");
    }
    let ids: Vec<u64> = ids.into_iter().flatten().collect();
    let rows = table.rows(&ids, Some(&[0])).unwrap();
    let found = rows.column(0).as_any().downcast_ref::<Int64Array>().unwrap().values().to_vec();
    let wanted: Vec<i64> = asked.into_iter().filter(|key| there.contains(key)).collect();
    assert_eq!(found, wanted, "{when}: rows by the index of table {name}");
}

#[test]
#[allow(clippy::print_stdout)]
fn the_store_agrees_with_a_plain_list_of_rows() {
    let seed = number_from_environment(
        "STORAGE_MODEL_SEED",
        std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64,
    );
    let steps = number_from_environment("STORAGE_MODEL_STEPS", 1500);
    println!("STORAGE_MODEL_SEED={seed} STORAGE_MODEL_STEPS={steps}");
    let mut random = Random(seed);
    let folder = tempfile::tempdir().unwrap();
    let mut store = open(folder.path());
    let mut committed = Model::new();
    let mut next_key = 0;
    let mut kept: Vec<(Snapshot, Model)> = Vec::new();
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    let mut step = 0;
    while step < steps {
        let mut transaction = store.begin();
        let mut model = committed.clone();
        let mut savepoint: Option<(Savepoint, Model)> = None;
        for _ in 0..=random.below(6) {
            step += 1;
            let done =
                change(&mut random, &mut transaction, &mut model, &mut next_key, &mut savepoint);
            *counts.entry(done).or_default() += 1;
            if random.below(4) == 0 {
                check(&transaction.snapshot(), &model, &format!("in a transaction, step {step}"));
            }
        }
        if random.below(4) == 0 {
            drop(transaction);
        } else {
            transaction.commit().unwrap();
            committed = model;
        }
        drop(savepoint);
        check(&store.snapshot(), &committed, &format!("step {step}"));
        match random.below(12) {
            0 => {
                *counts.entry("reopen").or_default() += 1;
                kept.clear();
                drop(store);
                store = open(folder.path());
                check(&store.snapshot(), &committed, &format!("reopened, step {step}"));
            }
            1 | 2 => kept.push((store.snapshot(), committed.clone())),
            3 if !kept.is_empty() => {
                let (snapshot, model) = kept.swap_remove(random.below(kept.len() as u64) as usize);
                check(&snapshot, &model, &format!("an older snapshot, step {step}"));
            }
            _ => {}
        }
    }
    for (snapshot, model) in kept.drain(..) {
        check(&snapshot, &model, "an older snapshot, at the end");
    }
    println!("{counts:?}");

    let mut transaction = store.begin();
    for name in committed.keys() {
        transaction.drop_table(name).unwrap();
    }
    transaction.commit().unwrap();
    store.wait_for_sweep();
    assert_eq!(store.inner.core.kv.data_values(), 0, "pieces are left that nothing refers to");
}

fn change(
    random: &mut Random,
    transaction: &mut Transaction,
    model: &mut Model,
    next_key: &mut i64,
    savepoint: &mut Option<(Savepoint, Model)>,
) -> &'static str {
    let names: Vec<String> = model.keys().cloned().collect();
    let any = |random: &mut Random| names[random.below(names.len() as u64) as usize].clone();
    match random.below(21) {
        _ if names.is_empty() => {
            transaction.create_table("t0", keyed_schema()).unwrap();
            model.insert("t0".to_owned(), Vec::new());
            "create"
        }
        0 => {
            let name = format!("t{}", random.below(5));
            let created = transaction.create_table(&name, keyed_schema());
            assert_eq!(created.is_ok(), !model.contains_key(&name));
            model.entry(name).or_default();
            "create"
        }
        1 => {
            let name = any(random);
            transaction.drop_table(&name).unwrap();
            model.remove(&name);
            "drop"
        }
        2 => {
            let (from, to) = (any(random), format!("t{}", random.below(5)));
            let renamed = transaction.rename_table(&from, &to);
            if from != to {
                assert_eq!(renamed.is_ok(), !model.contains_key(&to));
                if renamed.is_ok() {
                    let rows = model.remove(&from).unwrap();
                    model.insert(to, rows);
                }
            }
            "rename"
        }
        3 => {
            let name = any(random);
            transaction.truncate(&name).unwrap();
            model.insert(name, Vec::new());
            "truncate"
        }
        4 => {
            *savepoint = Some((transaction.savepoint(), model.clone()));
            "savepoint"
        }
        5 => {
            if let Some((point, then)) = savepoint {
                transaction.rollback_to(point);
                *model = then.clone();
            }
            "rollback to savepoint"
        }
        6..=11 => {
            let name = any(random);
            let all = ids_and_keys(&transaction.snapshot().table(&name).unwrap());
            let share = random.below(5);
            let (gone, stay): (Vec<_>, Vec<_>) =
                all.into_iter().partition(|_| share == 4 || random.below(4) < share);
            let ids: Vec<u64> = gone.iter().map(|(id, _)| *id).collect();
            assert_eq!(transaction.delete_rows(&name, &ids).unwrap(), ids.len() as u64);
            model.insert(name, stay.into_iter().map(|(_, key)| key).collect());
            "delete"
        }
        12 => {
            // A key that is there, between two that are not.
            let name = any(random);
            let there = &model[&name];
            if there.is_empty() {
                return "no key to repeat";
            }
            let key = there[random.below(there.len() as u64) as usize];
            let repeated = transaction.append(&name, &rows([*next_key, key, *next_key + 1]));
            assert!(matches!(repeated, Err(StorageError::NotUnique { .. })), "key {key}");
            "repeat a key"
        }
        _ => {
            let name = any(random);
            let count = match random.below(10) {
                0 => random.below(20_000),
                1..=3 => random.below(300),
                _ => random.below(4),
            } as i64;
            let batch = rows(*next_key..*next_key + count);
            transaction.append(&name, &batch).unwrap();
            model.get_mut(&name).unwrap().extend(*next_key..*next_key + count);
            *next_key += count;
            "append"
        }
    }
}
