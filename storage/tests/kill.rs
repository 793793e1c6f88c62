//! kill -9 at random moments: nothing acknowledged is lost, nothing half-made is seen, every start succeeds.
//!
//! This program runs itself as a child that works on a store and acknowledges each commit over a pipe, kills it after a
//! random time, reopens the store and compares. Like a client, the parent knows of the last commit only that it may have
//! happened. It also checks that a second process is refused while a first has the store open.
//!
//! `STORAGE_KILL_ROUNDS` (10) and `STORAGE_KILL_SEED` make it longer or repeat it; the moment of the kill still varies.

#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use thanosql_storage::{StorageError, Store, StoreOptions, UniqueKey, with_keys};

/// Rows that one commit adds to each of the two tables; each commit also deletes the rows of an earlier one.
const ROWS: [i64; 5] = [1, 40, 1, 700, 3];

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.get(1).map(String::as_str) {
        Some("--child") => child(Path::new(&arguments[2]), arguments[3].parse().unwrap()),
        Some("--list") => println!("kill: test"),
        _ => parent(),
    }
}

fn parent() {
    let seed = number("STORAGE_KILL_SEED", std::process::id().into());
    let rounds = number("STORAGE_KILL_ROUNDS", 10);
    println!("STORAGE_KILL_SEED={seed} STORAGE_KILL_ROUNDS={rounds}");
    a_second_process_is_refused();
    let folder = tempfile::tempdir().unwrap();
    let mut random = seed;
    let mut committed = 0;
    let mut slowest_open = Duration::ZERO;
    for round in 0..rounds {
        random =
            random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let patience = Duration::from_millis((random >> 33) % 400);
        let acknowledged = run_and_kill(folder.path(), committed, patience);
        let opening = Instant::now();
        let store = open(folder.path());
        slowest_open = slowest_open.max(opening.elapsed());
        let found = verify(&store);
        assert!(
            found == acknowledged || found == acknowledged + 1,
            "round {round}: {acknowledged} commits were acknowledged, {found} are there"
        );
        println!(
            "round {round}: killed after {patience:?}, {found} commits, {acknowledged} acknowledged"
        );
        committed = found;
    }
    // What dead processes left behind is swept: dropping everything leaves a store that takes a new one's work.
    let store = open(folder.path());
    store.wait_for_sweep();
    assert_eq!(verify(&store), committed);
    println!(
        "{rounds} kills, {committed} commits, {} bytes on disk, slowest opening {slowest_open:?}: ok",
        store.size_on_disk().unwrap()
    );
    assert!(committed > rounds, "hardly anything was committed: {committed}");
}

/// Starts a child, reads acknowledgements for a while, kills it, reads the rest. Returns the last one.
fn run_and_kill(folder: &Path, committed: u64, patience: Duration) -> u64 {
    let mut child = spawn(folder, committed);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "ready");
    let killer = std::thread::spawn(move || {
        std::thread::sleep(patience);
        child.kill().unwrap();
        child.wait().unwrap();
    });
    let mut acknowledged = committed;
    for line in lines {
        // The last line may be cut off by the kill; then it acknowledges nothing.
        let Some(number) = line.ok().and_then(|line| line.strip_suffix('.')?.parse::<u64>().ok())
        else {
            break;
        };
        assert_eq!(number, acknowledged + 1);
        acknowledged = number;
    }
    killer.join().unwrap();
    acknowledged
}

fn spawn(folder: &Path, committed: u64) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .arg("--child")
        .arg(folder)
        .arg(committed.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Commits for ever, acknowledging each commit once it has returned.
fn child(folder: &Path, committed: u64) {
    let store = match Store::open(folder, StoreOptions::default()) {
        Ok(store) => store,
        Err(StorageError::Locked { .. }) => {
            println!("locked");
            return;
        }
        Err(error) => panic!("{error}: {error:?}"),
    };
    let mut out = std::io::stdout();
    writeln!(out, "ready").unwrap();
    // What the one before this was killed between: or else two kills in a row would leave the checkpoint two commits behind.
    if committed > 0 {
        put_job(&store, committed);
    }
    for number in committed + 1.. {
        let mut transaction = store.begin();
        if number == 1 {
            transaction.create_table("left", schema()).unwrap();
            transaction.create_table("right", schema()).unwrap();
        }
        for table in ["left", "right"] {
            transaction.append(table, &rows(number as i64)).unwrap();
        }
        if number > 3 {
            for table in ["left", "right"] {
                let ids = ids_of(&transaction.snapshot().table(table).unwrap(), number as i64 - 3);
                assert_eq!(transaction.delete_rows(table, &ids).unwrap(), ids.len() as u64);
            }
        }
        let weights = weights(number);
        let text = number.to_string();
        transaction
            .put_model("m", text.as_bytes(), &[("weights", &weights), ("number", text.as_bytes())])
            .unwrap();
        if number % 5 == 0 {
            // A transaction that never commits leaves pieces behind when the process dies.
            let mut abandoned = store.begin();
            abandoned.put_model("abandoned", b"", &[("weights", &weights)]).unwrap();
            std::mem::forget(abandoned);
        }
        transaction.commit().unwrap();
        put_job(&store, number);
        writeln!(out, "{number}.").unwrap();
        out.flush().unwrap();
    }
}

/// Writes how far the job is, then its checkpoint.
fn put_job(store: &Store, number: u64) {
    store.put_job(1, number.to_string().as_bytes()).unwrap();
    store.put_checkpoint(1, &weights(number)).unwrap();
}

/// Checks that a store holds exactly what some number of whole commits makes; returns the number.
fn verify(store: &Store) -> u64 {
    let snapshot = store.snapshot();
    assert!(snapshot.model("abandoned").is_none());
    let Some(model) = snapshot.model("m") else {
        assert!(snapshot.tables().is_empty(), "tables without the model of the same commit");
        return 0;
    };
    let number = model.version();
    assert_eq!(model.metadata(), number.to_string().as_bytes());
    assert_eq!(model.part("number").unwrap(), number.to_string().as_bytes());
    assert_eq!(model.part("weights").unwrap(), weights(number));
    let expected: Vec<(i64, String)> = (1..=number as i64)
        .filter(|commit| *commit > number as i64 - 3)
        .flat_map(|commit| (0..count(commit)).map(move |row| (commit, text(commit, row))))
        .collect();
    for name in ["left", "right"] {
        let table = snapshot.table(name).unwrap();
        let mut found = Vec::new();
        for group in 0..table.groups() {
            let batch = table.read_group(group, None).unwrap();
            let commits = batch.column(0).as_primitive::<Int64Type>();
            let texts = batch.column(1).as_string::<i32>();
            found.extend(
                (0..batch.num_rows()).map(|row| (commits.value(row), texts.value(row).to_owned())),
            );
        }
        found.sort();
        let mut expected = expected.clone();
        expected.sort();
        assert_eq!(found, expected, "table {name} after commit {number}");
        // The key finds each of these rows, and none of those that were deleted.
        let find = |rows: &[(i64, String)]| {
            let commits: ArrayRef =
                Arc::new(Int64Array::from_iter_values(rows.iter().map(|(commit, _)| *commit)));
            let texts: ArrayRef =
                Arc::new(StringArray::from_iter_values(rows.iter().map(|(_, text)| text)));
            table.find(&table.keys()[0], &[commits, texts]).unwrap()
        };
        assert!(find(&expected).iter().all(Option::is_some), "table {name}: a key is lost");
        let gone = (number as i64 - 3).max(0);
        let gone: Vec<_> = (0..count(gone)).map(|row| (gone, text(gone, row))).collect();
        assert!(find(&gone).iter().all(Option::is_none), "table {name}: a key is left over");
    }
    // The job is written after the commit, so it may be one behind; the checkpoint after the job.
    let job = store
        .job(1)
        .unwrap()
        .map_or(0, |job| String::from_utf8(job).unwrap().parse::<u64>().unwrap());
    assert!(job == number || job + 1 == number, "job at {job}, commit {number}");
    if let Some(checkpoint) = store.checkpoint(1).unwrap() {
        assert!(
            [job, job - 1].iter().any(|number| checkpoint == weights(*number)),
            "checkpoint of job {job}"
        );
    }
    number
}

fn a_second_process_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = spawn(folder.path(), 0);
    let mut first = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    first.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    let error = Store::open(folder.path(), StoreOptions::default()).unwrap_err();
    assert!(matches!(error, StorageError::Locked { .. }), "{error}");
    child.kill().unwrap();
    child.wait().unwrap();
    let store = open(folder.path());
    let mut child = spawn(folder.path(), 0);
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "locked\n");
    child.wait().unwrap();
    drop(store);
}

fn open(folder: &Path) -> Store {
    Store::open(folder, StoreOptions::default())
        .unwrap_or_else(|error| panic!("{error}: {error:?}"))
}

fn schema() -> SchemaRef {
    let fields = vec![
        Field::new("commit", DataType::Int64, false),
        Field::new("text", DataType::Utf8, false),
    ];
    let key = UniqueKey { oid: 1, name: "key".to_owned(), columns: vec![0, 1], primary: true };
    with_keys(&Schema::new(fields), &[key])
}

fn rows(commit: i64) -> RecordBatch {
    let commits: ArrayRef = Arc::new(Int64Array::from(vec![commit; count(commit) as usize]));
    let texts = StringArray::from_iter_values((0..count(commit)).map(|row| text(commit, row)));
    RecordBatch::try_new(schema(), vec![commits, Arc::new(texts)]).unwrap()
}

fn count(commit: i64) -> i64 {
    ROWS[commit as usize % ROWS.len()]
}

fn text(commit: i64, row: i64) -> String {
    format!("commit {commit}, row {row}")
}

/// Bytes that differ from commit to commit, of changing length.
fn weights(number: u64) -> Vec<u8> {
    (0..number % 7 * 30_000 + 10).map(|at| (at * 31 + number * 7) as u8).collect()
}

fn ids_of(table: &thanosql_storage::Table, commit: i64) -> Vec<u64> {
    let mut ids = Vec::new();
    for group in 0..table.groups() {
        let batch = table.read_group_with_row_ids(group, Some(&[0])).unwrap();
        let commits = batch.column(0).as_primitive::<Int64Type>();
        let row_ids = batch.column(1).as_primitive::<arrow::datatypes::UInt64Type>();
        ids.extend(
            (0..commits.len())
                .filter(|row| commits.value(*row) == commit)
                .map(|row| row_ids.value(row)),
        );
    }
    ids
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}
