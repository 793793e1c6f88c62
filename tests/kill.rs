//! Being killed: clients that vanish at a random moment of the tutorial, and the server by kill -9. Nothing acknowledged is
//! lost, nothing half made is seen, every start works. Short by default; `THANOSQL_KILL_CLIENTS` and `THANOSQL_KILL_SERVERS`
//! set the number of rounds, `THANOSQL_SEED` the seed. Counts and seed are printed.

#![allow(clippy::print_stdout)] // rounds and seed are part of the result

use std::time::Duration;

use thanosql_tests::random::{Random, clock_seed, number};
use thanosql_tests::{TestServer, failure, rows, value};

fn program() -> &'static str {
    env!("CARGO_BIN_EXE_thanosql")
}

/// Statements of one round; each leaves the server as it may be found at any time.
fn script(data: &str, round: u64) -> Vec<String> {
    vec![
        format!("COPY d{round} FROM '{data}/digits/digits_dataset.csv'"),
        format!(
            "BUILD MODEL m{round} USING SimCLR OPTIONS (max_epochs=1, batch_size=16) AS SELECT * FROM d{round}"
        ),
        format!("CREATE TABLE e{round} USING m{round} FROM '{data}/digits/train_data'"),
        format!(
            "SELECT * FROM (CONVERT USING m{round} OPTIONS (table_name='e{round}') AS SELECT * FROM e{round})"
        ),
        format!(
            "SEARCH IMAGE images='{data}/digits/test/0.jpg' USING m{round} AS SELECT * FROM e{round}"
        ),
        format!("PRINT IMAGE AS SELECT image FROM e{round} LIMIT 2"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_vanish_leave_nothing_behind() {
    let rounds = number("THANOSQL_KILL_CLIENTS", 12);
    let mut random = Random::from_environment(clock_seed());
    let server = TestServer::start(program());
    let data = server.data.display().to_string();
    thanosql_ml::digits::write_dataset(&server.data.join("digits"), 60, 2, 7).unwrap();
    let watcher = server.connect().await;
    let mut finished = 0;
    for round in 0..rounds {
        let address = format!("host=127.0.0.1 port={} user=tester dbname=test", server.port);
        let (client, connection) =
            tokio_postgres::connect(&address, tokio_postgres::NoTls).await.unwrap();
        let connection = tokio::spawn(connection);
        let statements = script(&data, round);
        let work = tokio::spawn(async move {
            let mut done = 0;
            for statement in statements {
                if client.simple_query(&statement).await.is_err() {
                    break;
                }
                done += 1;
            }
            done
        });
        tokio::time::sleep(Duration::from_millis(random.below(1_200) as u64)).await;
        // The socket closes without a word.
        connection.abort();
        let done = work.await.unwrap();
        finished += done;
        // What was acknowledged is there, whole.
        let count = |table: String| format!("SELECT count(*) FROM {table}");
        if done >= 1 {
            assert_eq!(value(&watcher, &count(format!("d{round}"))).await.as_deref(), Some("60"));
        }
        if done >= 3 {
            assert_eq!(value(&watcher, &count(format!("e{round}"))).await.as_deref(), Some("60"));
        }
        // What was not may be there or not, but never half.
        for table in rows(&watcher, "SELECT name, rows FROM thanosql.tables").await {
            assert_eq!(table[1].as_deref(), Some("60"), "{:?} is half made", table[0]);
        }
    }
    // Trainings of vanished clients are stopped.
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while value(&watcher, "SELECT count(*) FROM thanosql.jobs WHERE state IN ('queued', 'running')")
        .await
        .as_deref()
        != Some("0")
    {
        assert!(std::time::Instant::now() < deadline, "a training goes on without its client");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    println!("{rounds} clients vanished, {finished} statements were acknowledged before");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_keeps_what_it_acknowledged() {
    let rounds = number("THANOSQL_KILL_SERVERS", 6);
    let mut random = Random::from_environment(clock_seed());
    let folder = tempfile::tempdir().unwrap();
    let (store, data) = (folder.path().join("store"), folder.path().join("data"));
    std::fs::create_dir_all(&data).unwrap();
    thanosql_ml::digits::write_dataset(&data.join("digits"), 60, 2, 7).unwrap();
    let data_text = data.display().to_string();
    let mut acknowledged: Vec<String> = Vec::new();
    let mut numbers = 0_i64;
    let mut models: Vec<String> = Vec::new();
    for round in 0..rounds {
        let mut server = TestServer::start_on(program(), &store, &data, &[]);
        let client = server.connect().await;
        check(&client, &acknowledged, &models, numbers).await;
        if round == 0 {
            client.simple_query("CREATE TABLE numbers (n int8)").await.unwrap();
        }
        let statements = script(&data_text, round);
        let start = numbers;
        let work = tokio::spawn(async move {
            let mut done = 0;
            let mut inserted = 0;
            for statement in statements {
                if client.simple_query(&statement).await.is_err() {
                    break;
                }
                done += 1;
                let insert = format!("INSERT INTO numbers VALUES ({})", start + inserted);
                if client.simple_query(&insert).await.is_err() {
                    break;
                }
                inserted += 1;
            }
            (done, inserted)
        });
        tokio::time::sleep(Duration::from_millis(random.below(1_500) as u64)).await;
        server.kill();
        let (done, inserted) = work.await.unwrap();
        numbers += inserted;
        if done >= 1 {
            acknowledged.push(format!("d{round}"));
        }
        if done >= 2 {
            models.push(format!("m{round}"));
        }
        if done >= 3 {
            acknowledged.push(format!("e{round}"));
        }
    }
    let mut server = TestServer::start_on(program(), &store, &data, &[]);
    let client = server.connect().await;
    check(&client, &acknowledged, &models, numbers).await;
    // Trainings that a kill interrupted go on and end.
    let unfinished = "SELECT count(*) FROM thanosql.jobs WHERE state IN ('queued', 'running')";
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    while value(&client, unfinished).await.as_deref() != Some("0") {
        assert!(std::time::Instant::now() < deadline, "an interrupted training does not end");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // But for those that were killed again and again before they had done anything: they say so.
    let failed = "SELECT id, state, error FROM thanosql.jobs WHERE state <> 'succeeded' \
                  AND coalesce(error, '') NOT LIKE 'the server ended 3 times while the training ran%'";
    let lost = rows(&client, failed).await;
    assert!(lost.is_empty(), "killed trainings were lost: {lost:?}");
    assert_eq!(server.terminate(), Some(0));
    println!(
        "{rounds} servers killed, {} tables and {} models acknowledged, all there",
        acknowledged.len(),
        models.len()
    );
}

async fn check(
    client: &tokio_postgres::Client,
    tables: &[String],
    models: &[String],
    numbers: i64,
) {
    for table in tables {
        assert_eq!(
            value(client, &format!("SELECT count(*) FROM {table}")).await.as_deref(),
            Some("60"),
            "{table}"
        );
    }
    for table in
        rows(client, "SELECT name, rows FROM thanosql.tables WHERE name <> 'numbers'").await
    {
        assert_eq!(table[1].as_deref(), Some("60"), "{:?} is half made", table[0]);
    }
    let there: Vec<String> = rows(client, "LIST MODEL")
        .await
        .into_iter()
        .filter_map(|row| row.into_iter().next().flatten())
        .collect();
    for model in models {
        assert!(there.contains(model), "model {model} was lost");
        // A model that is there works.
        let round = &model[1..];
        if tables.contains(&format!("e{round}")) {
            let search = format!(
                "SEARCH IMAGE images=['missing.jpg'] USING {model} AS SELECT * FROM e{round}"
            );
            assert_eq!(failure(client, &search).await, "58P01");
        }
    }
    if numbers > 0 {
        let found = value(client, "SELECT count(DISTINCT n) FROM numbers")
            .await
            .and_then(|n| n.parse::<i64>().ok());
        assert!(found >= Some(numbers), "{found:?} of {numbers} acknowledged rows are there");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_gives_no_number_twice() {
    let folder = tempfile::tempdir().unwrap();
    let (store, data) = (folder.path().join("store"), folder.path().join("data"));
    std::fs::create_dir_all(&data).unwrap();
    let mut given = 0_i64;
    for round in 0..3 {
        let mut server = TestServer::start_on(program(), &store, &data, &[]);
        let client = server.connect().await;
        if round == 0 {
            client.simple_query("CREATE TABLE counted (id serial)").await.unwrap();
        }
        // Nothing is committed with it.
        let next = value(&client, "SELECT nextval('counted_id_seq')").await.unwrap();
        server.kill();
        let next: i64 = next.parse().unwrap();
        assert!(next > given, "{next} after {given}");
        given = next;
    }
}
