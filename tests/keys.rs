//! Keys over a real connection: that a look-up by key is one, and that JDBC's question about primary keys is answered. Its SQL
//! is pgjdbc's (PgDatabaseMetaData).

#![allow(clippy::unwrap_used)] // helpers of tests, too, may end a test

use thanosql_tests::{TestServer, rows, value};
use tokio_postgres::Client;

async fn explain(client: &Client, sql: &str) -> String {
    let lines = rows(client, &format!("EXPLAIN {sql}")).await;
    lines.into_iter().flatten().flatten().collect::<Vec<_>>().join("\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_named_is_looked_up() {
    let server = TestServer::start(env!("CARGO_BIN_EXE_thanosql"));
    let client = server.connect().await;
    for statement in [
        "CREATE TABLE t (id bigint PRIMARY KEY, a int, b text, UNIQUE (b, a))",
        "INSERT INTO t SELECT g, CAST(g % 10 AS int), 'b' || g FROM generate_series(1, 50000) AS g",
    ] {
        client.batch_execute(statement).await.unwrap();
    }
    for (sql, looked_up) in [
        ("SELECT * FROM t WHERE id = 77", Some("key=t_pkey, id = 77")),
        ("SELECT * FROM t WHERE id = 77 AND b = 'b77'", Some("key=t_pkey")),
        ("SELECT a FROM t WHERE a = 7 AND b = 'b77'", Some("key=t_b_a_key")),
        ("SELECT * FROM t WHERE b = 'b77'", None),
        ("SELECT * FROM t WHERE id > 77", None),
        ("SELECT * FROM t WHERE id = a", None),
        ("SELECT * FROM t WHERE id = 77 OR id = 78", None),
    ] {
        let plan = explain(&client, sql).await;
        match looked_up {
            Some(wanted) => {
                assert!(plan.contains("KeyLookupExec") && plan.contains(wanted), "{sql}: {plan}");
            }
            None => assert!(!plan.contains("KeyLookupExec"), "{sql}: {plan}"),
        }
    }
    let row = client.query_one("SELECT a, b FROM t WHERE id = $1", &[&49_999_i64]).await.unwrap();
    assert_eq!((row.get::<_, i32>(0), row.get::<_, &str>(1)), (9, "b49999"));
    let missing = client.query_opt("SELECT a FROM t WHERE id = $1", &[&50_001_i64]).await.unwrap();
    assert!(missing.is_none());
    // Changes find their row in the same way.
    let changed = client.execute("UPDATE t SET a = -1 WHERE id = $1", &[&300_i64]).await.unwrap();
    assert_eq!(changed, 1);
    assert_eq!(value(&client, "SELECT id FROM t WHERE a = -1").await.as_deref(), Some("300"));
    assert_eq!(client.execute("DELETE FROM t WHERE id = $1", &[&300_i64]).await.unwrap(), 1);
    assert_eq!(value(&client, "SELECT count(*) FROM t").await.as_deref(), Some("49999"));
    assert_eq!(value(&client, "SELECT count(*) FROM t WHERE id = 300").await.as_deref(), Some("0"));
}

#[tokio::test(flavor = "multi_thread")]
async fn jdbc_asks_about_a_primary_key() {
    let server = TestServer::start(env!("CARGO_BIN_EXE_thanosql"));
    let client = server.connect().await;
    let table = "CREATE TABLE t (a int, b text, c int UNIQUE, PRIMARY KEY (b, a))";
    client.batch_execute(table).await.unwrap();

    let primary = "SELECT result.TABLE_CAT, result.TABLE_SCHEM, result.TABLE_NAME, result.COLUMN_NAME, result.KEY_SEQ, result.PK_NAME FROM (SELECT NULL AS TABLE_CAT, n.nspname AS TABLE_SCHEM, ct.relname AS TABLE_NAME, a.attname AS COLUMN_NAME, (information_schema._pg_expandarray(i.indkey)).n AS KEY_SEQ, ci.relname AS PK_NAME, information_schema._pg_expandarray(i.indkey) AS KEYS, a.attnum AS A_ATTNUM FROM pg_catalog.pg_class ct JOIN pg_catalog.pg_attribute a ON (ct.oid = a.attrelid) JOIN pg_catalog.pg_namespace n ON (ct.relnamespace = n.oid) JOIN pg_catalog.pg_index i ON (a.attrelid = i.indrelid) JOIN pg_catalog.pg_class ci ON (ci.oid = i.indexrelid) WHERE true AND n.nspname = 'public' AND ct.relname = 't' AND i.indisprimary) result WHERE result.A_ATTNUM = (result.KEYS).x ORDER BY result.table_name, result.pk_name, result.key_seq";
    let found = rows(&client, primary).await;
    let found: Vec<Vec<&str>> = found
        .iter()
        .map(|row| row[3..].iter().map(|cell| cell.as_deref().unwrap()).collect())
        .collect();
    assert_eq!(found, [["b", "1", "t_pkey"], ["a", "2", "t_pkey"]]);
}
