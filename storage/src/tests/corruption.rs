//! Damage: a changed byte is an error, never a value and never a panic.

use std::fs;
use std::path::{Path, PathBuf};

use super::model::{Random, number_from_environment};
use super::{ids_and_keys, open, rows, schema};
use crate::keys::{Counter, Family, Key};
use crate::{StorageError, Store, StoreOptions};

/// A store with small and large row groups, deletions, a view, a model, a job and a checkpoint.
fn make(path: &Path) {
    let store = open(path);
    let mut transaction = store.begin();
    transaction.create_table("small", schema()).unwrap();
    transaction.append("small", &rows(0..10)).unwrap();
    transaction.create_table("large", schema()).unwrap();
    transaction.append("large", &rows(0..10_000)).unwrap();
    transaction.create_view("v", "SELECT 1", schema()).unwrap();
    transaction.put_model("m", b"{}", &[("weights", &[3; 150_000])]).unwrap();
    transaction.commit().unwrap();
    let mut transaction = store.begin();
    let (first, _) = ids_and_keys(&store.snapshot().table("large").unwrap())[0];
    transaction.delete_rows("large", &[first]).unwrap();
    transaction.commit().unwrap();
    let job = store.next_job_id().unwrap();
    store.put_job(job, b"running").unwrap();
    store.put_checkpoint(job, &[4; 100_000]).unwrap();
}

/// Reads everything; what is read without an error must be all that [`make`] wrote.
fn read_all(store: &Store) -> Result<(), StorageError> {
    let snapshot = store.snapshot();
    for (name, expected) in [("small", 0..10), ("large", 1..10_000)] {
        let table = snapshot.table(name).expect("the table was committed");
        let mut next = expected.start;
        for group in 0..table.groups() {
            let batch = table.read_group(group, None)?;
            let end = next + batch.num_rows() as i64;
            assert_eq!(batch, rows(next..end));
            next = end;
        }
        assert_eq!(next, expected.end);
    }
    assert_eq!(snapshot.tables().len(), 2);
    assert_eq!(snapshot.view("v").expect("the view was committed").definition(), "SELECT 1");
    let model = snapshot.model("m").expect("the model was committed");
    assert_eq!(model.part("weights")?, [3; 150_000]);
    assert_eq!(store.jobs()?, [(1, b"running".to_vec())]);
    assert_eq!(store.checkpoint(1)?.expect("the checkpoint was put"), [4; 100_000]);
    Ok(())
}

#[test]
fn a_changed_byte_in_any_kind_of_record_is_found() {
    let folder = tempfile::tempdir().unwrap();
    make(folder.path());
    let mut all = vec![
        Key::Format,
        Key::Counter(Counter::Oid),
        Key::Counter(Counter::Unit),
        Key::Counter(Counter::Job),
        Key::Counter(Counter::Flush),
        Key::Checkpoint(1),
    ];
    {
        let store = open(folder.path());
        read_all(&store).unwrap();
        let kv = &store.inner.core.kv;
        for family in [
            Family::Manifests,
            Family::Groups,
            Family::Deletions,
            Family::Views,
            Family::Models,
            Family::ModelVersions,
            Family::Jobs,
        ] {
            let records = kv.scan(family).unwrap();
            assert!(!records.is_empty(), "{family:?}");
            all.extend(records.into_iter().map(|(key, _)| key));
        }
        for unit in 0..20 {
            if kv.get(&Key::Pack(unit)).unwrap().is_some() {
                all.push(Key::Pack(unit));
            }
            all.extend(kv.scan(Family::Pieces(unit)).unwrap().into_iter().map(|(key, _)| key));
        }
    }
    assert!(all.iter().filter(|key| matches!(key, Key::Piece(..))).count() > 5, "{all:?}");
    assert!(all.iter().any(|key| matches!(key, Key::Pack(_))), "{all:?}");
    for key in all {
        for at in [0, 4] {
            let damaged = tempfile::tempdir().unwrap();
            copy(folder.path(), damaged.path());
            let store = open(damaged.path());
            store.inner.core.kv.flip_byte(&key, at);
            drop(store);
            let result = Store::open(damaged.path(), StoreOptions::default());
            let result = result.and_then(|store| read_all(&store));
            assert!(
                matches!(result, Err(StorageError::Corrupt { .. })),
                "{key:?}, byte {at}: {result:?}"
            );
        }
    }
    read_all(&open(folder.path())).unwrap();
}

#[test]
fn records_that_changed_places_are_found() {
    let folder = tempfile::tempdir().unwrap();
    make(folder.path());
    let store = open(folder.path());
    let kv = &store.inner.core.kv;
    let group = kv.scan(Family::Groups).unwrap().remove(0).0;
    kv.copy_raw(&group, &Key::Group(1, 1));
    let error = kv.get(&Key::Group(1, 1)).map(|_| ()).unwrap_err();
    assert!(matches!(error, StorageError::Corrupt { .. }), "{error}");
}

/// `STORAGE_FLIP_ROUNDS` and `STORAGE_FLIP_SEED` make it longer or repeat it.
#[test]
#[allow(clippy::print_stdout)]
fn changed_bytes_in_the_files_never_give_wrong_rows() {
    let rounds = number_from_environment("STORAGE_FLIP_ROUNDS", 30);
    let seed = number_from_environment(
        "STORAGE_FLIP_SEED",
        std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64,
    );
    println!("STORAGE_FLIP_SEED={seed} STORAGE_FLIP_ROUNDS={rounds}");
    let mut random = Random(seed);
    let original = tempfile::tempdir().unwrap();
    make(original.path());
    let mut found = 0;
    for _ in 0..rounds {
        let folder = tempfile::tempdir().unwrap();
        let files = copy(original.path(), folder.path());
        let file = &files[random.below(files.len() as u64) as usize];
        let mut bytes = fs::read(file).unwrap();
        for _ in 0..=random.below(8) {
            if !bytes.is_empty() {
                let at = random.below(bytes.len() as u64) as usize;
                bytes[at] ^= 1 << random.below(8);
            }
        }
        fs::write(file, bytes).unwrap();
        let result = Store::open(folder.path(), StoreOptions::default());
        match result.and_then(|store| read_all(&store)) {
            Ok(()) => {}
            Err(error) => {
                println!("{}: {error}", file.display());
                found += 1;
            }
        }
    }
    println!("{found} of {rounds} changes hit something that is used");
}

/// Copies a folder; returns the copied files.
fn copy(from: &Path, to: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            fs::create_dir_all(&target).unwrap();
            files.extend(copy(&entry.path(), &target));
        } else {
            fs::copy(entry.path(), &target).unwrap();
            files.push(target);
        }
    }
    files.sort();
    files
}
