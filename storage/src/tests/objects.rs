//! Names, views, models, jobs, and the folder as a whole.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};

use super::{keys, open, rows, schema};
use crate::format::FORMAT_VERSION;
use crate::keys::Key;
use crate::{FIRST_OID, ObjectKind, StorageError, Store, StoreOptions};

#[test]
fn tables_and_views_share_names_and_models_do_not() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let mut transaction = store.begin();
    transaction.create_table("x", schema()).unwrap();
    let error = transaction.create_view("x", "SELECT 1", schema()).unwrap_err();
    assert!(matches!(error, StorageError::Exists { kind: ObjectKind::Table, .. }), "{error}");
    transaction.create_view("v", "SELECT 1", schema()).unwrap();
    let error = transaction.create_table("v", schema()).unwrap_err();
    assert!(matches!(error, StorageError::Exists { kind: ObjectKind::View, .. }), "{error}");
    let error = transaction.rename_table("x", "v").unwrap_err();
    assert!(matches!(error, StorageError::Exists { kind: ObjectKind::View, .. }), "{error}");
    transaction.put_model("x", b"{}", &[]).unwrap();
    transaction.commit().unwrap();

    // The same name given by two transactions.
    let mut first = store.begin();
    let mut second = store.begin();
    first.create_table("y", schema()).unwrap();
    second.create_view("y", "SELECT 2", schema()).unwrap();
    first.commit().unwrap();
    let error = second.commit().unwrap_err();
    assert!(matches!(&error, StorageError::Conflict { name } if name == "y"), "{error}");

    let error = store.begin().drop_table("nobody").unwrap_err();
    assert!(matches!(error, StorageError::NotFound { kind: ObjectKind::Table, .. }), "{error}");
    let error = store.begin().drop_view("x").unwrap_err();
    assert!(matches!(error, StorageError::NotFound { kind: ObjectKind::View, .. }), "{error}");
    let error = store.begin().drop_model("v").unwrap_err();
    assert!(matches!(error, StorageError::NotFound { kind: ObjectKind::Model, .. }), "{error}");
}

#[test]
fn a_name_can_be_dropped_and_taken_again_in_one_transaction() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let mut transaction = store.begin();
    let old = transaction.create_table("t", schema()).unwrap();
    transaction.append("t", &rows(0..3)).unwrap();
    transaction.create_view("v", "SELECT 1", schema()).unwrap();
    transaction.commit().unwrap();

    let mut transaction = store.begin();
    transaction.rename_table("t", "u").unwrap();
    let new = transaction.create_table("t", schema()).unwrap();
    transaction.append("t", &rows(10..12)).unwrap();
    transaction.drop_view("v").unwrap();
    transaction.create_table("v", schema()).unwrap();
    transaction.commit().unwrap();
    assert_ne!(old, new);

    drop(store);
    let store = open(folder.path());
    let snapshot = store.snapshot();
    assert_eq!(keys(&snapshot, "u"), [0, 1, 2]);
    assert_eq!(snapshot.table("u").unwrap().oid(), old);
    assert_eq!(keys(&snapshot, "t"), [10, 11]);
    assert!(snapshot.view("v").is_none());
    let names: Vec<_> = snapshot.tables().iter().map(|table| table.name().to_owned()).collect();
    assert_eq!(names, ["t", "u", "v"]);
}

#[test]
fn schemas_keep_their_metadata() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let metadata = |text: &str| HashMap::from([("provenance".to_owned(), text.to_owned())]);
    let vector = DataType::FixedSizeList(Arc::new(Field::new("item", DataType::Float32, true)), 3);
    let schema = Arc::new(Schema::new_with_metadata(
        vec![Field::new("벡터", vector, true).with_metadata(metadata("model digits, version 2"))],
        metadata("whole table"),
    ));
    let mut transaction = store.begin();
    transaction.create_table("t", Arc::clone(&schema)).unwrap();
    transaction.create_view("v", "SELECT * FROM t", Arc::clone(&schema)).unwrap();
    transaction.commit().unwrap();
    drop(store);
    let snapshot = open(folder.path()).snapshot();
    assert_eq!(snapshot.table("t").unwrap().schema(), schema);
    let view = snapshot.view("v").unwrap();
    assert_eq!((view.definition(), view.schema()), ("SELECT * FROM t", schema));
}

#[test]
fn oids_are_never_given_twice() {
    let folder = tempfile::tempdir().unwrap();
    let mut last = FIRST_OID - 1;
    for round in 0..3 {
        let store = open(folder.path());
        let mut transaction = store.begin();
        let table = transaction.create_table("t", schema()).unwrap();
        let view = transaction.create_view("v", "SELECT 1", schema()).unwrap();
        let model = transaction.put_model(&format!("m{round}"), b"", &[]).unwrap().oid();
        assert!(last < table && table < view && view < model, "{last} {table} {view} {model}");
        last = model;
        transaction.commit().unwrap();
        let mut transaction = store.begin();
        transaction.drop_table("t").unwrap();
        transaction.drop_view("v").unwrap();
        transaction.commit().unwrap();
    }
}

#[test]
fn a_model_is_replaced_with_all_its_parts_and_its_version_goes_on_for_ever() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let put = |store: &Store, version: u8, bytes: usize| {
        let mut transaction = store.begin();
        let weights = vec![version; bytes];
        let entry = transaction
            .put_model(
                "m",
                &[version],
                &[("weights", &weights), ("rows", &[version, 0]), ("empty", &[])],
            )
            .unwrap();
        assert_eq!(entry.part("weights").unwrap(), weights, "before the commit");
        transaction.commit().unwrap();
        store.snapshot().model("m").unwrap()
    };
    let first = put(&store, 1, 300_000);
    let second = put(&store, 2, 65_532);
    assert_eq!((first.version(), second.version()), (1, 2));
    assert_eq!(first.oid(), second.oid());
    assert_eq!(first.part("weights").unwrap(), vec![1; 300_000], "an older entry changed");
    assert_eq!(second.part("weights").unwrap(), vec![2; 65_532]);
    assert_eq!((second.metadata(), second.part("rows").unwrap()), (&[2][..], vec![2, 0]));
    assert_eq!(second.part("empty").unwrap(), Vec::<u8>::new());
    let error = second.part("nothing").unwrap_err();
    assert!(matches!(error, StorageError::NoSuchPart { .. }), "{error}");

    let mut slow = store.begin();
    slow.put_model("m", b"slow", &[]).unwrap();
    let mut transaction = store.begin();
    transaction.drop_model("m").unwrap();
    transaction.commit().unwrap();
    let error = slow.commit().unwrap_err();
    assert!(matches!(error, StorageError::Conflict { .. }), "{error}");
    assert!(store.snapshot().model("m").is_none());
    drop((first, second));
    store.wait_for_sweep();
    assert_eq!(store.inner.core.kv.data_values(), 0);

    drop(store);
    let store = open(folder.path());
    let mut transaction = store.begin();
    let entry = transaction.put_model("m", b"", &[("weights", b"x")]).unwrap();
    assert_eq!(entry.version(), 3, "the name forgot its version");
    transaction.commit().unwrap();
    drop((entry, store));
    let entry = open(folder.path()).snapshot().model("m").unwrap();
    assert_eq!((entry.version(), entry.part("weights").unwrap()), (3, b"x".to_vec()));
}

#[test]
fn jobs_and_checkpoints_are_durable() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let first = store.next_job_id().unwrap();
    let second = store.next_job_id().unwrap();
    assert!(first < second);
    store.put_job(first, b"queued").unwrap();
    store.put_job(first, b"running").unwrap();
    store.put_job(second, b"queued").unwrap();
    let checkpoint = |epoch: u8| vec![epoch; 200_000 + usize::from(epoch)];
    store.put_checkpoint(first, &checkpoint(1)).unwrap();
    store.put_checkpoint(first, &checkpoint(2)).unwrap();
    store.put_request(first, &checkpoint(3)).unwrap();
    store.put_request(second, b"").unwrap();
    drop(store);

    let store = open(folder.path());
    assert_eq!(store.job(first).unwrap().as_deref(), Some(&b"running"[..]));
    assert_eq!(store.jobs().unwrap(), [(first, b"running".to_vec()), (second, b"queued".to_vec())]);
    assert_eq!(store.checkpoint(first).unwrap(), Some(checkpoint(2)));
    assert_eq!(store.checkpoint(second).unwrap(), None);
    assert_eq!(store.request(first).unwrap(), Some(checkpoint(3)));
    assert_eq!(store.request(second).unwrap(), Some(Vec::new()));
    assert_eq!(store.jobs_with_kept().unwrap(), [first, second]);
    let third = store.next_job_id().unwrap();
    assert!(third > second);
    store.remove_kept(first).unwrap();
    store.remove_kept(first).unwrap();
    assert_eq!(store.checkpoint(first).unwrap(), None);
    assert_eq!(store.request(first).unwrap(), None);
    assert_eq!(
        (store.has_request(first).unwrap(), store.has_request(second).unwrap()),
        (false, true)
    );
    assert_eq!(store.jobs_with_kept().unwrap(), [second]);
    store.remove_kept(second).unwrap();
    store.remove_job(second).unwrap();
    assert_eq!(store.jobs().unwrap(), [(first, b"running".to_vec())]);
    store.flush().unwrap();
    drop(store);
    let store = open(folder.path());
    assert!(store.next_job_id().unwrap() > third, "a removed job's number was given again");
    store.wait_for_sweep();
    assert_eq!(store.inner.core.kv.data_values(), 0);
    assert_eq!(store.job(second + 100).unwrap(), None);
}

#[test]
fn an_unknown_format_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    store.inner.core.kv.put(&Key::Format, &(FORMAT_VERSION + 1).to_le_bytes()).unwrap();
    drop(store);
    for _ in 0..2 {
        let error = Store::open(folder.path(), StoreOptions::default()).unwrap_err();
        assert!(
            matches!(error, StorageError::UnknownFormat { found, supported }
                if found == FORMAT_VERSION + 1 && supported == FORMAT_VERSION),
            "{error}"
        );
    }
}

#[test]
fn one_process_opens_a_store_once() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let error = Store::open(folder.path(), StoreOptions::default()).unwrap_err();
    assert!(matches!(error, StorageError::Locked { .. }), "{error}");
    drop(store);
    open(folder.path());
}

#[test]
fn a_folder_that_cannot_be_made_is_an_error() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let error = Store::open(&file.path().join("store"), StoreOptions::default()).unwrap_err();
    assert!(matches!(error, StorageError::Io { .. }), "{error}");
}
