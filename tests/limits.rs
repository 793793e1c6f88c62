//! Errors whose causes need a set-up of their own: limits, lost races, passwords, damage, shutdown. Each over a real connection, by its
//! SQLSTATE.

#![allow(clippy::unwrap_used)] // helpers of tests, too, may end a test

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use thanosql_tests::{TestServer, describe, failure, rows, run, state_of, value};
use tokio_postgres::NoTls;

const PROGRAM: &str = env!("CARGO_BIN_EXE_thanosql");

/// A query that goes on until it is stopped.
const ENDLESS: &str =
    "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n FROM r) SELECT count(*) FROM r";

/// A server with flags, over fresh folders that live as long as the answer's second half.
fn with_flags(flags: &[&str]) -> (TestServer, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let (store, data) = (folder.path().join("store"), folder.path().join("data"));
    std::fs::create_dir_all(&data).unwrap();
    (TestServer::start_on(PROGRAM, &store, &data, flags), folder)
}

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_too_many() {
    let (server, _folder) = with_flags(&["--max-connections", "2"]);
    let first = server.connect().await;
    let second = server.connect().await;
    let refused = server.try_connect().await.unwrap_err();
    assert_eq!(state_of(&refused), "53300", "{}", describe(&refused));
    drop(second);
    // The place is free again once the server has seen the client go.
    let mut again = server.try_connect().await;
    for _ in 0..100 {
        if again.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        again = server.try_connect().await;
    }
    assert!(again.is_ok());
    assert_eq!(value(&first, "SELECT 1").await.as_deref(), Some("1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_that_wants_more_memory_than_there_is() {
    let (server, _folder) = with_flags(&["--query-memory-bytes", "16777216"]);
    let client = server.connect().await;
    run(&client, "CREATE TABLE t AS SELECT g AS n, repeat('x', 300) AS x FROM generate_series(1, 100000) AS g").await;
    run(&client, "BEGIN; DECLARE c SCROLL CURSOR FOR SELECT * FROM t").await;
    assert_eq!(failure(&client, "FETCH LAST FROM c").await, "53200");
    run(&client, "ROLLBACK").await;
    // A cursor that only goes forward keeps nothing.
    run(&client, "BEGIN; DECLARE c CURSOR FOR SELECT * FROM t").await;
    assert_eq!(rows(&client, "FETCH ALL FROM c").await.len(), 100_000);
    run(&client, "ROLLBACK").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_over_its_limit() {
    let (server, _folder) = with_flags(&["--max-message-bytes", "1048576"]);
    let client = server.connect().await;
    let long = format!("SELECT '{}'", "x".repeat(2 << 20));
    assert_eq!(failure(&client, &long).await, "54000");
    let client = server.connect().await;
    assert_eq!(value(&client, "SELECT 1").await.as_deref(), Some("1"));
    let deep = format!("SELECT {}1{}", "(".repeat(5000), ")".repeat(5000));
    assert_eq!(failure(&client, &deep).await, "54001");
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_that_are_stopped() {
    let (server, _folder) = with_flags(&[]);
    let client = server.connect().await;
    run(&client, "SET statement_timeout = '300ms'").await;
    assert_eq!(failure(&client, ENDLESS).await, "57014");
    run(&client, "RESET statement_timeout").await;

    let cancel = client.cancel_token();
    let (outcome, ()) = tokio::join!(client.simple_query(ENDLESS), async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        cancel.cancel_query(NoTls).await.unwrap();
    });
    assert_eq!(state_of(&outcome.unwrap_err()), "57014");
    assert_eq!(value(&client, "SELECT 1").await.as_deref(), Some("1"));

    let locked = server.connect().await;
    run(&locked, "CREATE TABLE t (a int); BEGIN; INSERT INTO t VALUES (1)").await;
    run(&client, "SET lock_timeout = '200ms'").await;
    assert_eq!(failure(&client, "INSERT INTO t VALUES (2)").await, "55P03");
}

/// Joins that compare for minutes and find nothing.
#[tokio::test(flavor = "multi_thread")]
async fn joins_without_rows_are_stopped() {
    let (server, _folder) = with_flags(&[]);
    let client = server.connect().await;
    run(
        &client,
        "CREATE TABLE a AS SELECT g AS n, g % 2 AS k FROM generate_series(1, 200000) AS g",
    )
    .await;
    run(&client, "CREATE TABLE b AS SELECT * FROM a").await;
    run(&client, "SET statement_timeout = '300ms'").await;
    for condition in ["a.n * b.n < 0", "a.k = b.k AND a.n * b.n < 0"] {
        let began = Instant::now();
        let sql = format!("SELECT count(*) FROM a JOIN b ON {condition}");
        assert_eq!(failure(&client, &sql).await, "57014", "{condition}");
        assert!(began.elapsed() < Duration::from_secs(3), "{condition}: {:?}", began.elapsed());
    }
}

/// Each of these views may have a name twice; that is tried once a view, not twice as often with every level.
#[tokio::test(flavor = "multi_thread")]
async fn views_that_are_nested_too_deep_are_told_at_once() {
    let (server, _folder) = with_flags(&[]);
    let client = server.connect().await;
    run(&client, "CREATE VIEW v0 AS SELECT 1 AS a").await;
    for level in 1..40 {
        let below = level - 1;
        let view = format!("CREATE VIEW v{level} AS SELECT *, 1 AS c{level} FROM v{below}");
        if let Err(error) = client.batch_execute(&view).await {
            assert_eq!(state_of(&error), "54001", "{view}: {}", describe(&error));
            return;
        }
    }
    panic!("views are nested without end");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_stops() {
    let (mut server, _folder) = with_flags(&[]);
    let client = server.connect().await;
    let running = tokio::spawn(async move { client.simple_query(ENDLESS).await.unwrap_err() });
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(tokio::task::block_in_place(|| server.terminate()), Some(0));
    let error = running.await.unwrap();
    assert_eq!(state_of(&error), "57P01", "{}", describe(&error));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_sessions_race() {
    let (server, _folder) = with_flags(&[]);
    let (first, second) = (server.connect().await, server.connect().await);
    run(&first, "CREATE TABLE t (id int PRIMARY KEY, n int NOT NULL); INSERT INTO t VALUES (1, 0)")
        .await;

    // Both have read before either has changed anything: the second change is refused.
    run(&first, "BEGIN").await;
    run(&second, "BEGIN").await;
    rows(&first, "SELECT * FROM t").await;
    rows(&second, "SELECT * FROM t").await;
    run(&first, "UPDATE t SET n = n + 1; COMMIT").await;
    let lost = second.batch_execute("UPDATE t SET n = n + 1; COMMIT").await.unwrap_err();
    assert_eq!(state_of(&lost), "40001", "{}", describe(&lost));
    second.batch_execute("ROLLBACK").await.unwrap();

    // The same key from two sessions: one of them has it, whichever comes first.
    run(&first, "BEGIN").await;
    run(&second, "BEGIN").await;
    rows(&second, "SELECT * FROM t").await;
    run(&first, "INSERT INTO t VALUES (2, 0)").await;
    let (waits, ()) =
        tokio::join!(second.batch_execute("INSERT INTO t VALUES (2, 1); COMMIT"), async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            run(&first, "COMMIT").await;
        });
    let lost = waits.unwrap_err();
    assert_eq!(state_of(&lost), "23505", "{}", describe(&lost));
    let error = lost.as_db_error().unwrap();
    assert_eq!(error.detail(), Some("Key (id)=(2) already exists."));
    assert_eq!((error.table(), error.constraint()), (Some("t"), Some("t_pkey")));
    second.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(value(&first, "SELECT count(*) FROM t WHERE id = 2").await.as_deref(), Some("1"));

    assert_eq!(failure(&first, "INSERT INTO t (id) VALUES (3)").await, "23502");
    run(&first, "BEGIN").await;
    failure(&first, "SELECT 1/0").await;
    assert_eq!(failure(&first, "SELECT 1").await, "25P02");
}

#[tokio::test(flavor = "multi_thread")]
async fn single_statements_of_many_sessions_do_not_lose_races() {
    let (server, _folder) = with_flags(&[]);
    let setup = server.connect().await;
    run(&setup, "CREATE TABLE t (id int PRIMARY KEY, n int); CREATE TABLE log (who int, what int)")
        .await;
    run(&setup, "INSERT INTO t SELECT g, 0 FROM generate_series(1, 50) AS g").await;
    let mut sessions = Vec::new();
    for who in 0..4 {
        let client = server.connect().await;
        sessions.push(tokio::spawn(async move {
            for what in 0..25 {
                let insert = format!("INSERT INTO t VALUES ({}, 0)", 1000 + who * 100 + what);
                run(&client, &insert).await;
                run(&client, &format!("INSERT INTO log VALUES ({who}, {what})")).await;
                run(&client, "UPDATE t SET n = n + 1 WHERE id <= 50").await;
                run(&client, &format!("DELETE FROM log WHERE who = {who} AND what = {what} - 3"))
                    .await;
            }
        }));
    }
    for session in sessions {
        session.await.unwrap();
    }
    let sum = value(&setup, "SELECT sum(n) FROM t WHERE id <= 50").await;
    assert_eq!(sum.as_deref(), Some("5000"));
    assert_eq!(value(&setup, "SELECT count(*) FROM t").await.as_deref(), Some("150"));
    assert_eq!(value(&setup, "SELECT count(*) FROM log").await.as_deref(), Some("12"));
}

#[tokio::test(flavor = "multi_thread")]
async fn passwords() {
    let folder = tempfile::tempdir().unwrap();
    let users = folder.path().join("users");
    std::fs::write(&users, "ann:right\n").unwrap();
    let users = users.display().to_string();
    let (server, _folder) = with_flags(&["--users-file", &users, "--trust-loopback", "false"]);
    let login = |user: &'static str, password: &'static str| {
        let address = format!(
            "host=127.0.0.1 port={} user={user} password={password} dbname=test",
            server.port
        );
        async move { tokio_postgres::connect(&address, NoTls).await.map(|_| ()) }
    };
    login("ann", "right").await.unwrap();
    for (user, password) in [("ann", "wrong"), ("bob", "right")] {
        let refused = login(user, password).await.unwrap_err();
        assert_eq!(state_of(&refused), "28P01", "{user}: {}", describe(&refused));
    }
}

/// A script that starts the server with its folders on a disk of so many mebibytes, which nobody else sees. The process stays the same.
fn on_a_small_disk(mebibytes: u32, folder: &Path) -> PathBuf {
    let disk = folder.join("disk");
    std::fs::create_dir_all(&disk).unwrap();
    let script = folder.join("start");
    let inner = format!(
        "mount -t tmpfs -o size={mebibytes}m disk '{disk}' && mkdir '{disk}/store' '{disk}/data' && exec '{PROGRAM}' \"$@\"",
        disk = disk.display(),
    );
    let text = format!(
        "#!/bin/sh\nexec unshare --user --map-root-user --mount sh -c '{}' sh \"$@\"\n",
        inner.replace('\'', "'\\''"),
    );
    std::fs::write(&script, text).unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    script
}

/// Whether this machine lets a test have a disk of its own; `THANOSQL_REQUIRE_NAMESPACES` says that it must.
fn namespaces() -> bool {
    let arguments = ["--user", "--map-root-user", "--mount", "true"];
    let there =
        Command::new("unshare").args(arguments).status().is_ok_and(|status| status.success());
    assert!(
        there || std::env::var_os("THANOSQL_REQUIRE_NAMESPACES").is_none(),
        "unshare cannot make a mount namespace here",
    );
    there
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk() {
    if !namespaces() {
        println!("left out: this machine has no namespaces for users");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let script = on_a_small_disk(96, folder.path());
    let (store, data) = (folder.path().join("disk/store"), folder.path().join("disk/data"));
    let mut server = TestServer::start_on(script.to_str().unwrap(), &store, &data, &[]);
    let client = server.connect().await;
    run(&client, "CREATE TABLE t (n bigint, x text)").await;
    let mut kept = 0;
    let error = loop {
        let insert = format!(
            "INSERT INTO t SELECT {kept} + g, md5(g::text) || md5((g + {kept})::text) FROM generate_series(1, 100000) AS g"
        );
        match client.simple_query(&insert).await {
            Ok(_) => kept += 100_000,
            Err(error) => break error,
        }
        assert!(kept < 10_000_000, "the disk is never full");
    };
    assert_eq!(state_of(&error), "53100", "{}", describe(&error));
    assert!(kept > 0, "not even one statement fits");
    // What was acknowledged is there, now and after a crash; the statement that failed left nothing.
    let question = "SELECT count(*), max(n), count(DISTINCT x) > 0 FROM t";
    let answer = vec![vec![Some(kept.to_string()), Some(kept.to_string()), Some("t".to_owned())]];
    assert_eq!(rows(&client, question).await, answer);
    let seen = PathBuf::from(format!("/proc/{}/root", server.id()));
    let copy = folder.path().join("copy");
    copy_folder(&seen.join(store.strip_prefix("/").unwrap()), &copy);
    server.kill();
    let server = TestServer::start_on(PROGRAM, &copy, folder.path(), &[]);
    let client = server.connect().await;
    assert_eq!(rows(&client, question).await, answer);
    run(&client, "INSERT INTO t VALUES (0, 'room again')").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_is_not_there() {
    let (server, _folder) = with_flags(&[]);
    let client = server.connect().await;
    run(&client, "GET THANOSQL DATASET digits_data").await;
    let build =
        "BUILD MODEL m USING SimCLR OPTIONS (device='wgpu:99') AS SELECT * FROM digits_data";
    let error = client.simple_query(build).await.unwrap_err();
    assert_eq!(state_of(&error), "58000", "{}", describe(&error));
    assert!(error.as_db_error().unwrap().hint().unwrap().contains("cpu"));
    assert_eq!(value(&client, "SELECT count(*) FROM thanosql.models").await.as_deref(), Some("0"));
}

/// The files of a store that hold data.
fn data_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        if entry.path().is_dir() {
            files.extend(data_files(&entry.path()));
        } else if entry.metadata().unwrap().len() > 100_000 {
            files.push(entry.path());
        }
    }
    files
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_byte_is_never_an_answer() {
    let (mut server, folder) = with_flags(&[]);
    let client = server.connect().await;
    run(&client, "CREATE TABLE t AS SELECT g AS n, repeat(chr(65 + CAST(g % 26 AS int)), 300) AS x FROM generate_series(1, 20000) AS g").await;
    let question = "SELECT count(*), count(DISTINCT x), sum(length(x)) FROM t";
    let answer = rows(&client, question).await;
    drop(client);
    assert_eq!(tokio::task::block_in_place(|| server.terminate()), Some(0));
    let (store, data) = (server.store.clone(), server.data.clone());
    let files = data_files(&store);
    assert!(!files.is_empty(), "the store has no large file");
    let (mut refused, mut corrupt, mut unharmed) = (0, 0, 0);
    let copy = folder.path().join("copy");
    for (file, whole) in files.iter().take(3).map(|file| (file, std::fs::read(file).unwrap())) {
        for part in 1..8 {
            let mut damaged = whole.clone();
            let at = damaged.len() / 8 * part;
            damaged[at] ^= 0x40;
            // A fresh copy of the store, with one byte changed.
            let _ = std::fs::remove_dir_all(&copy);
            copy_folder(&store, &copy);
            std::fs::write(copy.join(file.strip_prefix(&store).unwrap()), &damaged).unwrap();
            let started =
                std::panic::catch_unwind(|| TestServer::start_on(PROGRAM, &copy, &data, &[]));
            let Ok(server) = started else {
                refused += 1;
                continue;
            };
            let client = server.connect().await;
            match client.simple_query(question).await {
                Ok(_) => {
                    assert_eq!(rows(&client, question).await, answer, "byte {at} of {file:?}");
                    unharmed += 1;
                }
                Err(error) => {
                    assert_eq!(state_of(&error), "XX001", "{}", describe(&error));
                    corrupt += 1;
                }
            }
        }
    }
    println!("{refused} starts refused, {corrupt} queries refused, {unharmed} not touched by it");
    assert!(refused + corrupt > 0, "no damage was found at all");
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
