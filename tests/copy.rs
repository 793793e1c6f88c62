//! COPY as clients use it: rows sent and taken in every format, parameters, cancellation, and what each error says.

#![allow(clippy::unwrap_used)] // helpers of tests, too, may end a test

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::{SinkExt as _, TryStreamExt as _};
use thanosql_tests::{TestServer, describe, failure, rows, run, state_of, value};
use tokio_postgres::{Client, NoTls};

fn server() -> TestServer {
    TestServer::start(env!("CARGO_BIN_EXE_thanosql"))
}

/// Sends data in pieces of a size; how many rows there were.
async fn send(
    client: &Client,
    sql: &str,
    data: &[u8],
    size: usize,
) -> Result<u64, tokio_postgres::Error> {
    let sink = client.copy_in::<_, Bytes>(sql).await?;
    let mut sink = std::pin::pin!(sink);
    for piece in data.chunks(size.max(1)) {
        sink.send(Bytes::copy_from_slice(piece)).await?;
    }
    sink.finish().await
}

async fn take(client: &Client, sql: &str) -> Vec<u8> {
    let stream = client.copy_out(sql).await.unwrap_or_else(|error| panic!("{}", describe(&error)));
    let pieces: Vec<Bytes> = stream.try_collect().await.unwrap();
    pieces.concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_type_goes_around_in_every_format() {
    let server = server();
    let client = server.connect().await;
    let columns = "id int, b boolean, s smallint, l bigint, r real, d double precision, n numeric(12,4), \
                   t text, v varchar(20), y bytea, da date, ti time, ts timestamp, tz timestamptz, \
                   i interval, u uuid, j json, jb jsonb, e vector(3), ai int[], at text[], ar real[]";
    run(&client, &format!("CREATE TABLE source ({columns})")).await;
    run(
        &client,
        r#"INSERT INTO source VALUES
        (1, true, -5, 9223372036854775807, 1.5, 2.5e-300, 12345678.1234, E'tab\there, "quotes", \\ and\nlines', '가나다',
         '\x00ff5c0a', '2022-06-01', '12:30:00.5', '2022-06-01 12:30:00', '2022-06-01 12:30:00+09', '1 mon 2 days 03:04:05',
         'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '{"a": [1, null]}', '{"b": 2}', '[1,2.5,-3]', '{1,NULL,3}', '{"a b","c,d",NULL,""}', '{0.5}'),
        (2, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
        (3, false, 0, 0, 'NaN', '-Infinity', 0, '', E'\\N', '', '1999-12-31', '00:00', '1969-07-20 20:17:40', '1969-07-20 20:17:40Z',
         '-1 day', '00000000-0000-0000-0000-000000000000', 'null', '[]', '[0,0,0]', '{}', '{}', '{}')"#,
    )
    .await;
    let everything = rows(&client, "SELECT * FROM source ORDER BY id").await;
    assert_eq!(everything.len(), 3);
    let formats = [
        "FORMAT text",
        "FORMAT text, DELIMITER '|', NULL 'nothing', HEADER",
        "FORMAT csv",
        "FORMAT csv, HEADER match, DELIMITER ';', NULL 'nil', QUOTE '''', ESCAPE '\\'",
        "FORMAT binary",
    ];
    for (index, format) in formats.into_iter().enumerate() {
        let out = format.replace(" match", "");
        let data = take(&client, &format!("COPY source TO STDOUT WITH ({out})")).await;
        for size in [1, 7, 1000, data.len()] {
            let table = format!("copy_{index}_{size}");
            run(&client, &format!("CREATE TABLE {table} ({columns})")).await;
            let sql = format!("COPY {table} FROM STDIN WITH ({format})");
            let sent = send(&client, &sql, &data, size).await;
            let sent =
                sent.unwrap_or_else(|error| panic!("{format}, {size}: {}", describe(&error)));
            assert_eq!(sent, 3, "{format}");
            let came = rows(&client, &format!("SELECT * FROM {table} ORDER BY id")).await;
            assert_eq!(came, everything, "{format} in pieces of {size}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn now_is_a_default_and_a_condition_of_copied_rows() {
    let server = server();
    let client = server.connect().await;
    run(&client, "CREATE TABLE timed (a int, at timestamptz DEFAULT now())").await;
    let sql = "COPY timed (a) FROM STDIN WHERE now() > '2020-01-01'";
    assert_eq!(send(&client, sql, b"1\n2\n", 1).await.unwrap(), 2);
    let recent = "SELECT count(*) FROM timed WHERE at BETWEEN now() - interval '1 hour' AND now()";
    assert_eq!(value(&client, recent).await.as_deref(), Some("2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_are_copied_out() {
    let server = server();
    let digits = thanosql_ml::digits::write_dataset(&server.data.join("digits"), 40, 4, 7).unwrap();
    let client = server.connect().await;
    let folder = digits.folder.display();
    run(&client, &format!("COPY d FROM '{}'", digits.table.display())).await;
    run(
        &client,
        "BUILD MODEL m USING SimCLR OPTIONS (max_epochs=1, batch_size=20, seed=1) AS SELECT * FROM d",
    )
    .await;
    run(&client, &format!("CREATE TABLE e USING m FROM '{folder}/test'")).await;
    let search = format!("SEARCH IMAGE images='{folder}/test/2.jpg' USING m AS SELECT * FROM e");
    let text = take(
        &client,
        &format!("COPY (SELECT image, similarity_image1 > 0.9999 AS same FROM ({search}) ORDER BY similarity_image1 DESC LIMIT 1) TO STDOUT (FORMAT csv, HEADER)"),
    )
    .await;
    assert_eq!(String::from_utf8(text).unwrap(), format!("image,same\n{folder}/test/2.jpg,t\n"));
    let whole = take(&client, &format!("COPY ({search}) TO STDOUT")).await;
    let whole = String::from_utf8(whole).unwrap();
    assert_eq!((whole.lines().count(), whole.split('\t').count()), (4, 9));
    let listed = take(&client, "COPY (LIST TABLE) TO STDOUT (FORMAT csv)").await;
    assert_eq!(String::from_utf8(listed).unwrap(), "d,table,40,3\ne,table,4,2\n");
    // Vectors come back as they went.
    let vectors = take(&client, "COPY e TO STDOUT (FORMAT binary)").await;
    run(&client, "CREATE TABLE f AS SELECT * FROM e WHERE false").await;
    assert_eq!(send(&client, "COPY f FROM STDIN (FORMAT binary)", &vectors, 100).await.unwrap(), 4);
    let same = "SELECT count(*) FROM e JOIN f ON e.image = f.image AND cosine_similarity(e.m_simclr, f.m_simclr) > 0.99999";
    assert_eq!(value(&client, same).await.as_deref(), Some("4"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_sends_wrongly_is_told_with_its_line() {
    let server = server();
    let client = server.connect().await;
    run(&client, "CREATE TABLE t (a int NOT NULL, b varchar(3), c int DEFAULT 7)").await;
    let check = async |options: &str, data: &[u8], code: &str, detail: &str| {
        let sql = format!("COPY t FROM STDIN {options}");
        let error = send(&client, &sql, data, 10).await.unwrap_err();
        assert_eq!(state_of(&error), code, "{options} {data:?}: {}", describe(&error));
        let said = error.as_db_error().unwrap().detail().unwrap_or_default().to_owned();
        assert!(said.contains(detail), "{options} {data:?}: {said}");
        assert_eq!(value(&client, "SELECT count(*) FROM t").await.as_deref(), Some("0"));
    };
    check("", b"1\ta\t1\n2\tb\tx\n", "22P02", "COPY t, line 2, column c").await;
    check("", b"1\ta\t1\n\\N\tb\t2\n", "23502", "COPY t, line 2").await;
    check("", b"1\tabcd\t1\n", "22001", "COPY t, line 1").await;
    check("", b"1\ta\n", "22P04", "COPY t, line 1").await;
    check("", b"1\ta\t1\t9\n", "22P04", "COPY t, line 1").await;
    check("", b"99999999999\ta\t1\n", "22003", "COPY t, line 1, column a").await;
    check("", b"1\t\xff\t1\n", "22021", "COPY t, line 1").await;
    check("CSV", b"1,\"a\nb\",1\n2,c,x\n", "22P02", "COPY t, line 3, column c").await;
    check("CSV", b"1,\"a,1\n", "22P04", "COPY t, line 1").await;
    check("(FORMAT csv, DEFAULT 'D')", b"1,D,D\n", "22P04", "Column \"b\" has no default").await;
    // Every marker of the binary format, broken.
    let head = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
    let with = |rest: &[u8]| [head.as_slice(), rest].concat();
    let binary = "(FORMAT binary)";
    check(binary, b"", "22P04", "").await;
    check(binary, b"PGCOPY\n\xff\r\n", "22P04", "").await;
    check(binary, b"1\ta\t1\n", "22P04", "").await;
    check(binary, b"PGCOPY\n\xff\r\n\0\0\x01\0\0\0\0\0\0", "22P04", "").await;
    check(binary, b"PGCOPY\n\xff\r\n\0\x80\0\0\0\0\0\0\0", "22P04", "").await;
    check(binary, b"PGCOPY\n\xff\r\n\0\0\0\0\0\xff\xff\xff\xfe", "22P04", "").await;
    check(binary, &with(b"\0\x02"), "22P04", "row 1").await;
    check(binary, &with(b"\0\x03\0\0\0\x04\0\0"), "22P04", "row 1").await;
    check(binary, &with(b"\0\x03\xff\xff\xff\xfe"), "22P04", "row 1").await;
    check(binary, &with(b"\0\x03\x7f\xff\xff\xff"), "54000", "row 1").await;
    check(binary, &with(b"\0\x03\0\0\0\x02\0\0"), "22P03", "column a").await;
    check(binary, &with(b"\xff\xffmore"), "22P04", "").await;
    let null_first = b"\0\x03\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff";
    check(binary, &with(null_first), "23502", "row 1").await;
    // An extension of the header is passed over; the end marker may be missing.
    let sound = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\x03ext\0\x01\0\0\0\x04\0\0\0\x05";
    assert_eq!(send(&client, "COPY t (a) FROM STDIN (FORMAT binary)", sound, 3).await.unwrap(), 1);
    assert_eq!(value(&client, "SELECT a + c FROM t").await.as_deref(), Some("12"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_constraint_that_a_row_breaks_is_told_with_its_line() {
    let server = server();
    let client = server.connect().await;
    run(&client, "CREATE TABLE t (a int PRIMARY KEY, b int CHECK (b > 0), c serial UNIQUE)").await;
    run(&client, "INSERT INTO t VALUES (100, 1, 2)").await;
    for (options, data, code, place) in [
        ("", "1\t1\n2\t2\n1\t3\n", "23505", "COPY t, line 3"),
        ("", "1\t1\n100\t2\n", "23505", "COPY t, line 2"),
        ("", "1\t1\n2\t-1\n3\t0\n", "23514", "COPY t, line 2"),
        // Lines that are not wanted count, too.
        ("WHERE a <> 2", "2\t1\n1\t1\n2\t2\n1\t3\n", "23505", "COPY t, line 4"),
    ] {
        let sql = format!("COPY t (a, b) FROM STDIN {options}");
        // Its first values are gone, so that the default meets no key here.
        run(&client, "SELECT setval('t_c_seq', 10)").await;
        let error = send(&client, &sql, data.as_bytes(), 100).await.unwrap_err();
        assert_eq!(state_of(&error), code, "{data:?}: {}", describe(&error));
        let said = error.as_db_error().unwrap().detail().unwrap_or_default().to_owned();
        assert!(said.ends_with(place), "{data:?}: {said}");
    }
    // Where the default itself is taken, too.
    run(&client, "SELECT setval('t_c_seq', 1, false)").await;
    let error = send(&client, "COPY t (a, b) FROM STDIN", b"1\t1\n2\t2\n", 100).await.unwrap_err();
    let said = error.as_db_error().unwrap().detail().unwrap_or_default().to_owned();
    assert_eq!(said, "Key (c)=(2) already exists.\nCOPY t, line 2");
    assert_eq!(value(&client, "SELECT count(*) FROM t").await.as_deref(), Some("1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn copied_rows_have_the_defaults_of_inserted_ones() {
    let server = server();
    let client = server.connect().await;
    run(
        &client,
        "CREATE TABLE t (id serial, i int GENERATED ALWAYS AS IDENTITY, n bigint, gone serial, v text)",
    )
    .await;
    run(&client, "ALTER TABLE t ALTER COLUMN id SET DEFAULT 5").await;
    run(&client, "ALTER TABLE t ALTER COLUMN n SET DEFAULT nextval('t_id_seq') * 10").await;
    run(&client, "ALTER TABLE t ALTER COLUMN gone DROP DEFAULT").await;
    run(&client, "ALTER TABLE t ALTER COLUMN gone DROP NOT NULL").await;
    assert_eq!(send(&client, "COPY t (v) FROM STDIN", b"a\nb\n", 100).await.unwrap(), 2);
    run(&client, "INSERT INTO t (v) VALUES ('c')").await;
    assert_eq!(
        take(&client, "COPY (SELECT * FROM t ORDER BY v) TO STDOUT").await,
        b"5\t1\t10\t\\N\ta\n5\t2\t20\t\\N\tb\n5\t3\t30\t\\N\tc\n"
    );
    assert_eq!(value(&client, "SELECT currval('t_i_seq')").await.as_deref(), Some("3"));
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_chosen_and_filled_as_they_come() {
    let server = server();
    let client = server.connect().await;
    run(&client, "CREATE TABLE t (a int, b text DEFAULT 'nothing', v vector(2))").await;
    let sql = "COPY t (a, b) FROM STDIN (DEFAULT '-') WHERE a % 2 = 0 AND b <> 'no'";
    let data = b"1\tx\n2\t-\n4\tno\n6\t\\N\n8\ty\n";
    assert_eq!(send(&client, sql, data, 4).await.unwrap(), 2);
    assert_eq!(
        take(&client, "COPY (SELECT * FROM t ORDER BY a) TO STDOUT").await,
        b"2\tnothing\t\\N\n8\ty\t\\N\n"
    );
    // In binary, too, and over a vector.
    let data = take(&client, "COPY (SELECT n AS a, 'b' AS b, '[1,2]'::vector(2) AS v FROM generate_series(1, 10) AS g(n)) TO STDOUT (FORMAT binary)").await;
    let error = send(&client, "COPY t FROM STDIN (FORMAT binary) WHERE a > 8", &data, 50).await;
    // generate_series gives bigint, and binary values have the width of their type.
    assert_eq!(state_of(&error.unwrap_err()), "22P03");
    let data = take(&client, "COPY (SELECT n::int AS a, 'b' AS b, '[1,2]'::vector(2) AS v FROM generate_series(1, 10) AS g(n)) TO STDOUT (FORMAT binary)").await;
    let sql = "COPY t FROM STDIN (FORMAT binary) WHERE a > 8 AND l2_norm(v) > 2";
    assert_eq!(send(&client, sql, &data, 50).await.unwrap(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_rows_and_options_are_parameters() {
    let server = server();
    let client = server.connect().await;
    let path = server.data.join("표.csv").display().to_string();
    std::fs::write(&path, "a,이름\n1,가\n2,나\n").unwrap();
    assert_eq!(client.execute("COPY t FROM $1", &[&path]).await.unwrap(), 2);
    let json = r#"[{"a": 3, "이름": "다"}]"#;
    let append = "COPY t OPTIONS (if_exists=$2) FROM $1";
    assert_eq!(client.execute(append, &[&json, &"append"]).await.unwrap(), 1);
    assert_eq!(value(&client, "SELECT sum(a) FROM t").await.as_deref(), Some("6"));
    let error = client.execute(append, &[&json, &"perhaps"]).await.unwrap_err();
    assert_eq!(state_of(&error), "22023");
    let error = client.execute("COPY t FROM $1", &[&path]).await.unwrap_err();
    assert_eq!(state_of(&error), "42P07");
    assert!(error.as_db_error().unwrap().hint().unwrap().contains("if_exists='append'"));
    // Preparing reads nothing and makes nothing.
    client.prepare("COPY other FROM '/nowhere/at/all.csv'").await.unwrap();
    client.prepare(&format!("COPY other FROM '{path}'")).await.unwrap();
    assert_eq!(failure(&client, "SELECT * FROM other").await, "42P01");
}

/// A csv file of the tutorial's shape.
fn large_csv(rows: usize) -> String {
    let mut text = "img_path,filename,label\n".to_owned();
    for row in 0..rows {
        writeln!(text, "/data/mnist/train_data/{row}.jpg,{row}.jpg,{}", row % 10).unwrap();
    }
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn sixty_thousand_rows_are_a_matter_of_seconds() {
    const ROWS: usize = 60_000;
    let server = server();
    let client = server.connect().await;
    let (csv, lines) = (server.data.join("large.csv"), server.data.join("large.jsonl"));
    let text = large_csv(ROWS);
    std::fs::write(&csv, &text).unwrap();
    let mut json = String::new();
    for row in 0..ROWS {
        writeln!(json, "{{\"img_path\":\"/data/{row}.jpg\",\"label\":{}}}", row % 10).unwrap();
    }
    std::fs::write(&lines, json).unwrap();
    let mut times = Vec::new();
    let mut start = Instant::now();
    let mut lap = |what: &'static str| {
        times.push((what, start.elapsed()));
        start = Instant::now();
    };
    run(&client, &format!("COPY a FROM '{}'", csv.display())).await;
    lap("csv");
    run(&client, &format!("COPY b FROM '{}'", lines.display())).await;
    lap("json");
    run(&client, "CREATE TABLE c (img_path text, filename text, label int)").await;
    run(&client, &format!("COPY c FROM '{}' WITH (FORMAT csv, HEADER)", csv.display())).await;
    lap("csv into a table");
    let sent = send(&client, "COPY c FROM STDIN CSV HEADER", text.as_bytes(), 65_536).await;
    assert_eq!(sent.unwrap() as usize, ROWS);
    lap("csv from the client");
    let data = take(&client, "COPY c TO STDOUT (FORMAT binary)").await;
    lap("binary to the client");
    let sent = send(&client, "COPY c FROM STDIN (FORMAT binary)", &data, 65_536).await;
    assert_eq!(sent.unwrap() as usize, 2 * ROWS);
    lap("binary from the client, twice as much");
    for (table, count) in [("a", ROWS), ("b", ROWS), ("c", 4 * ROWS)] {
        let query = format!("SELECT count(*) FROM {table}");
        assert_eq!(value(&client, &query).await, Some(count.to_string()));
    }
    println!("{times:?}");
    // A bound that holds on a busy machine; a quadratic way would take hours.
    let slowest = times.iter().map(|(_, time)| *time).max().unwrap();
    assert!(slowest < Duration::from_secs(60), "{times:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_is_stopped_and_leaves_nothing() {
    let server = server();
    let client = server.connect().await;
    let csv = server.data.join("large.csv");
    std::fs::write(&csv, large_csv(1_500_000)).unwrap();
    for delay in [50, 200] {
        let token = client.cancel_token();
        let pulled = tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(delay)).await;
            token.cancel_query(NoTls).await.unwrap();
            Instant::now()
        });
        let outcome = client.batch_execute(&format!("COPY t FROM '{}'", csv.display())).await;
        let error = outcome.unwrap_err();
        assert_eq!(state_of(&error), "57014", "{}", describe(&error));
        let waited = pulled.await.unwrap().elapsed();
        assert!(waited < Duration::from_secs(5), "it took {waited:?}");
        assert_eq!(failure(&client, "SELECT * FROM t").await, "42P01");
    }
    run(&client, "SET statement_timeout = '100ms'").await;
    let sql = format!("COPY t FROM '{}'", csv.display());
    assert_eq!(failure(&client, &sql).await, "57014");
}
