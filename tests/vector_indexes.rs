//! CREATE INDEX ... USING hnsw over a real connection: which queries use it, that it finds nearly all of the nearest, and that it never
//! shows a row that is not there, nor fewer rows than were asked for, whatever happened to its table since.

#![allow(clippy::unwrap_used)] // tests may end with a panic

use std::time::{Duration, Instant};

use thanosql_tests::{TestServer, failure, rows, run, value};
use tokio_postgres::Client;

/// Vectors of 8 numbers without an order in them.
const TABLE: &str = "CREATE TABLE p AS SELECT g AS id, ARRAY[sin(g * 1.41421356), sin(g * 1.73205081), sin(g * 2.23606798), sin(g * 2.64575131),
        sin(g * 3.31662479), sin(g * 3.60555128), sin(g * 4.12310563), sin(g * 4.35889894)]::real[]::vector(8) AS e
    FROM generate_series(1, 30000) AS g";

const QUERY: &str = "'[0.3,0.1,-0.7,0.5,0.9,-0.2,0.4,-0.6]'::vector(8)";

fn program() -> &'static str {
    env!("CARGO_BIN_EXE_thanosql")
}

async fn plan(client: &Client, sql: &str) -> String {
    let lines = rows(client, &format!("EXPLAIN {sql}")).await;
    lines.into_iter().flatten().flatten().collect::<Vec<_>>().join("\n")
}

async fn ids(client: &Client, sql: &str) -> Vec<i64> {
    let rows = rows(client, sql).await;
    rows.into_iter().map(|row| row[0].as_ref().unwrap().parse().unwrap()).collect()
}

/// The rows that a search compares one by one, beside the index.
async fn unindexed(client: &Client, sql: &str) -> usize {
    let plan = plan(client, sql).await;
    let (_, number) = plan.split_once("unindexed_rows=").unwrap();
    number.lines().next().unwrap().parse().unwrap()
}

/// The answer without an index.
async fn exactly(client: &Client, sql: &str) -> Vec<i64> {
    run(client, "SET enable_indexscan = off").await;
    let found = ids(client, sql).await;
    run(client, "SET enable_indexscan = on").await;
    found
}

/// How many rows the answers with and without an index share, of how many.
async fn shared(client: &Client, order: &str, limit: usize) -> (usize, usize) {
    let (mut same, mut all) = (0, 0);
    for number in 0..20 {
        let numbers: Vec<String> = (0..8)
            .map(|place| format!("{:.3}", ((number * 8 + place) as f64 * 1.37).sin()))
            .collect();
        let query = format!("'[{}]'::vector(8)", numbers.join(","));
        let order = order.replace("$1", &query);
        let sql = format!("SELECT id FROM p ORDER BY {order} LIMIT {limit}");
        let (found, expected) = (ids(client, &sql).await, exactly(client, &sql).await);
        assert_eq!(found.len(), expected.len(), "{sql}");
        same += found.iter().filter(|id| expected.contains(id)).count();
        all += expected.len();
    }
    (same, all)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_serves_the_orders_of_its_operators_and_no_others() {
    let server = TestServer::start(program());
    let client = server.connect().await;
    run(&client, TABLE).await;
    run(&client, "CREATE INDEX ON p USING hnsw (e vector_cosine_ops)").await;
    let by_default =
        plan(&client, &format!("SELECT id FROM p ORDER BY e <=> {QUERY} LIMIT 5")).await;
    assert!(by_default.contains("index=p_e_idx, k=5, ef_search=40"), "{by_default}");
    run(&client, "SET hnsw.ef_search = 200").await;
    run(&client, "CREATE VIEW w AS SELECT id AS number, e AS v FROM p").await;
    let uses = "NearestExec: table=p, index=p_e_idx, k=5, ef_search=200";
    for sql in [
        "SELECT id FROM p ORDER BY e <=> $1 LIMIT 5",
        "SELECT id FROM p ORDER BY $1 <=> e LIMIT 5",
        "SELECT id, e <=> $1 AS distance FROM p ORDER BY distance LIMIT 5",
        "SELECT id, cosine_similarity(e, $1) AS score FROM p ORDER BY 2 DESC NULLS LAST LIMIT 5",
        "SELECT id FROM p ORDER BY cosine_similarity(e, $1) DESC LIMIT 5",
        "SELECT id FROM p ORDER BY e <=> $1 LIMIT 2 OFFSET 3",
        "SELECT number FROM w ORDER BY v <=> $1 LIMIT 5",
        "SELECT id FROM (SELECT id, e, id % 2 FROM p) AS x ORDER BY e <=> $1 LIMIT 5",
        "SELECT * FROM (SELECT id FROM p ORDER BY e <=> $1 LIMIT 5) AS x JOIN p USING (id)",
    ] {
        let sql = sql.replace("$1", QUERY);
        let plan = plan(&client, &sql).await;
        assert!(plan.contains(uses), "{sql}: {plan}");
        assert_eq!(ids(&client, &sql).await, exactly(&client, &sql).await, "{sql}");
    }
    for sql in [
        "SELECT id FROM p ORDER BY e <=> $1",
        "SELECT id FROM p ORDER BY e <-> $1 LIMIT 5",
        "SELECT id FROM p ORDER BY e <=> $1 DESC LIMIT 5",
        "SELECT id FROM p ORDER BY e <=> $1, id LIMIT 5",
        "SELECT id FROM p WHERE id % 3 = 0 ORDER BY e <=> $1 LIMIT 5",
        "SELECT id FROM p ORDER BY e <=> $1 LIMIT 2000",
        "SELECT id FROM p ORDER BY 1 - (e <=> $1) DESC LIMIT 5",
        "SELECT id FROM p ORDER BY e <=> e LIMIT 5",
        "SELECT max(id) FROM p GROUP BY e ORDER BY e <=> $1 LIMIT 5",
        "SELECT p.id FROM p JOIN w ON w.number = p.id ORDER BY e <=> $1 LIMIT 5",
        "SELECT id FROM (SELECT * FROM p LIMIT 100) AS x ORDER BY e <=> $1 LIMIT 5",
        "UPDATE p SET id = id WHERE id IN (SELECT id FROM p WHERE id < 9 ORDER BY e <=> $1 LIMIT 5)",
    ] {
        let sql = sql.replace("$1", QUERY);
        let plan = plan(&client, &sql).await;
        assert!(!plan.contains("NearestExec"), "{sql}: {plan}");
    }
    // Parameters, and the session's word.
    let statement = client
        .prepare("SELECT id FROM p ORDER BY e <=> $1::text::vector(8) LIMIT $2")
        .await
        .unwrap();
    let query = QUERY.trim_end_matches("::vector(8)").trim_matches('\'');
    let found = client.query(&statement, &[&query, &3_i64]).await.unwrap();
    let found: Vec<i64> = found.iter().map(|row| row.get(0)).collect();
    let sql = format!("SELECT id FROM p ORDER BY e <=> {QUERY} LIMIT 3");
    assert_eq!(found, exactly(&client, &sql).await);
    run(&client, "SET enable_indexscan = off").await;
    assert!(!plan(&client, &sql).await.contains("NearestExec"));
    assert!(failure(&client, "SET hnsw.ef_search = 0").await == "22023");
    // A vector of another length is the same error as without an index.
    run(&client, "SET enable_indexscan = on").await;
    assert_eq!(failure(&client, "SELECT id FROM p ORDER BY e <=> '[1,2]' LIMIT 5").await, "22000");
}

#[tokio::test(flavor = "multi_thread")]
async fn nearly_all_of_the_nearest_are_found_by_every_class_of_operators() {
    let server = TestServer::start(program());
    let client = server.connect().await;
    run(&client, TABLE).await;
    for (class, order) in [
        ("vector_cosine_ops", "e <=> $1"),
        ("vector_l2_ops", "e <-> $1"),
        ("vector_ip_ops", "e <#> $1"),
        ("vector_l1_ops", "e <+> $1"),
    ] {
        run(
            &client,
            &format!(
                "CREATE INDEX i ON p USING hnsw (e {class}) WITH (m = 12, ef_construction = 80)"
            ),
        )
        .await;
        let plan = plan(
            &client,
            &format!("SELECT id FROM p ORDER BY {order} LIMIT 10").replace("$1", QUERY),
        )
        .await;
        assert!(plan.contains("NearestExec"), "{class}: {plan}");
        let (same, all) = shared(&client, order, 10).await;
        assert!(same * 100 >= all * 95, "{class}: {same} of {all}");
        run(&client, "DROP INDEX i").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_keeps_up_with_its_table() {
    let folder = tempfile::tempdir().unwrap();
    let (store, data) = (folder.path().join("store"), folder.path().join("data"));
    std::fs::create_dir_all(&data).unwrap();
    let mut server = TestServer::start_on(program(), &store, &data, &[]);
    let client = server.connect().await;
    run(&client, TABLE).await;
    run(&client, "CREATE INDEX near ON p USING hnsw (e vector_l2_ops)").await;
    run(&client, "SET hnsw.ef_search = 200").await;
    let nearest = format!("SELECT id FROM p ORDER BY e <-> {QUERY} LIMIT 5");
    let before = exactly(&client, &nearest).await;
    assert_eq!(ids(&client, &nearest).await, before);

    // Rows that came later, also in a transaction that is still open, and others' transactions do not see them.
    let other = server.connect().await;
    run(&other, "SET hnsw.ef_search = 200").await;
    run(&client, "BEGIN").await;
    run(&client, &format!("INSERT INTO p VALUES (-1, {QUERY})")).await;
    run(&client, &format!("DELETE FROM p WHERE id = {}", before[0])).await;
    assert_eq!(ids(&client, &nearest).await[..2], [-1, before[1]]);
    assert_eq!(ids(&other, &nearest).await, before);
    run(&client, "ROLLBACK").await;
    assert_eq!(ids(&client, &nearest).await, before);

    // A snapshot from before a change sees what was there then.
    run(&other, "BEGIN").await;
    assert_eq!(ids(&other, &nearest).await, before);
    run(&client, &format!("DELETE FROM p WHERE id IN ({}, {})", before[0], before[1])).await;
    run(&client, &format!("UPDATE p SET e = {QUERY} WHERE id = {}", before[4])).await;
    let after = [vec![before[4]], before[2..4].to_vec()].concat();
    assert_eq!(ids(&client, &nearest).await[..3], after);
    assert_eq!(ids(&other, &nearest).await, before);
    run(&other, "COMMIT").await;
    assert_eq!(ids(&other, &nearest).await[..3], after);

    // As many rows as were asked for, when nearly all of the index are gone.
    run(&client, "DELETE FROM p WHERE id % 100 <> 0").await;
    assert_eq!(ids(&client, &nearest).await, exactly(&client, &nearest).await);
    let all = format!("SELECT id FROM p ORDER BY e <-> {QUERY} LIMIT 100");
    assert_eq!(ids(&client, &all).await.len(), 100);

    // Many new rows: the index is brought up to date, in the background.
    run(&client, "INSERT INTO p SELECT id + 100000, e FROM (SELECT g AS id, ARRAY[cos(g * 1.41421356), cos(g * 1.73205081), cos(g * 2.23606798), cos(g * 2.64575131), cos(g * 3.31662479), cos(g * 3.60555128), cos(g * 4.12310563), cos(g * 4.35889894)]::real[]::vector(8) AS e FROM generate_series(1, 40000) AS g) AS x").await;
    let started = Instant::now();
    assert!(unindexed(&client, &nearest).await >= 40_000);
    while unindexed(&client, &nearest).await >= 8_192 {
        assert_eq!(ids(&client, &nearest).await.len(), 5);
        assert!(started.elapsed() < Duration::from_secs(60), "the index stays behind");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let (same, all) = shared(&client, "e <-> $1", 10).await;
    assert!(same * 100 >= all * 95, "{same} of {all}");
    let expected = ids(&client, &nearest).await;

    // A restart finds it, and so does one after a crash.
    drop((client, other));
    for clean in [true, false] {
        match clean {
            true => assert_eq!(server.terminate(), Some(0)),
            false => server.kill(),
        }
        server = TestServer::start_on(program(), &store, &data, &[]);
        let client = server.connect().await;
        assert!(plan(&client, &nearest).await.contains("index=near"));
        run(&client, "SET hnsw.ef_search = 200").await;
        assert_eq!(ids(&client, &nearest).await, expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_is_too_large_is_refused_and_one_in_the_making_is_cancelled() {
    let folder = tempfile::tempdir().unwrap();
    let (store, data) = (folder.path().join("store"), folder.path().join("data"));
    std::fs::create_dir_all(&data).unwrap();
    let flags = ["--index-memory-bytes", "5 MiB"];
    let server = TestServer::start_on(program(), &store, &data, &flags);
    let client = server.connect().await;
    run(&client, TABLE).await;
    run(&client, "CREATE TABLE q AS SELECT id, e FROM p LIMIT 20000").await;
    for (table, number) in [("p", 1), ("q", 2)] {
        let sql =
            format!("CREATE INDEX i{number} ON {table} USING hnsw (e vector_l2_ops) WITH (m = 16)");
        let expected = if table == "p" { Some("53200") } else { None };
        match expected {
            Some(code) => assert_eq!(failure(&client, &sql).await, code),
            None => run(&client, &sql).await,
        }
    }
    assert_eq!(value(&client, "SELECT count(*) FROM pg_indexes").await.as_deref(), Some("1"));
    run(&client, "SET statement_timeout = '200ms'").await;
    let started = Instant::now();
    let slow = "CREATE INDEX slow ON q USING hnsw (e vector_l2_ops) WITH (ef_construction = 1000)";
    assert_eq!(failure(&client, slow).await, "57014");
    assert!(started.elapsed() < Duration::from_secs(2));
    assert_eq!(value(&client, "SELECT count(*) FROM pg_indexes").await.as_deref(), Some("1"));
}
