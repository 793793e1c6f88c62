//! Images that are embedded piece by piece: the first answer does not wait for the last, and what nobody asks for is not embedded. A file that is no image, far behind
//! the rows that are wanted, tells how far a statement went.

#![allow(clippy::unwrap_used)] // helpers of tests, too, may end a test

use futures::TryStreamExt as _;
use thanosql_tests::{TestServer, describe, failure, rows, run, state_of, value};
use tokio_postgres::Client;

/// The row whose image cannot be read, of [`ROWS`]: well behind the first pieces, and well before the end of a batch of DataFusion's.
const BROKEN: usize = 1500;
const ROWS: usize = 3000;

/// A server with a model `m` of drawn digits and a table `photos (id, image)` of them, over and over, some NULL, one broken.
async fn photos() -> (TestServer, Client) {
    let server = TestServer::start(env!("CARGO_BIN_EXE_thanosql"));
    thanosql_ml::digits::write_dataset(&server.data.join("digits"), 40, 4, 5).unwrap();
    let client = server.connect().await;
    let data = server.data.display().to_string();
    std::fs::write(server.data.join("broken.jpg"), "no image").unwrap();
    for sql in [
        format!("COPY d FROM '{data}/digits/digits_dataset.csv'"),
        "BUILD MODEL m USING SimCLR OPTIONS (max_epochs=1, batch_size=16, seed=1) AS SELECT * FROM d".to_owned(),
        format!(
            "CREATE TABLE photos AS SELECT g AS id, CASE WHEN g = {BROKEN} THEN '{data}/broken.jpg' WHEN g % 100 = 99 THEN NULL
             ELSE concat('{data}/digits/train_data/', g % 40, '.jpg') END AS image FROM generate_series(0, {ROWS} - 1) AS g"
        ),
        // What each image is without any other.
        "CREATE TABLE singly AS SELECT img_path, embed('m', img_path) AS v FROM d".to_owned(),
    ] {
        run(&client, &sql).await;
    }
    (server, client)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_rows_come_before_the_rest_is_embedded() {
    let (_server, client) = photos().await;
    for sql in [
        "SELECT id, embed('m', image) IS NULL FROM photos",
        "SELECT id, v IS NULL FROM (SELECT id, embed('m', image) AS v FROM photos) WHERE v IS NOT NULL OR id >= 0",
        "SELECT id, embed('m', image) IS NULL FROM photos ORDER BY id",
        "SELECT id, m_simclr IS NULL FROM (CONVERT USING m AS photos)",
        "SELECT id, predict_result IS NULL FROM (PREDICT USING m AS photos)",
    ] {
        let stream = client.query_raw(sql, Vec::<String>::new()).await.unwrap();
        let mut stream = std::pin::pin!(stream);
        let mut count: usize = 0;
        let error = loop {
            match stream.try_next().await {
                Ok(Some(row)) => {
                    assert_eq!(row.get::<_, i64>(0), i64::try_from(count).unwrap(), "{sql}");
                    assert_eq!(row.get::<_, bool>(1), count % 100 == 99, "{sql}: row {count}");
                    count += 1;
                }
                Ok(None) => panic!("{sql}: the broken image was not met"),
                Err(error) => break error,
            }
        };
        assert_eq!(state_of(&error), "22P03", "{sql}: {}", describe(&error));
        assert!((1000..=BROKEN).contains(&count), "{sql}: {count} rows");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_asks_for_is_not_embedded() {
    let (_server, client) = photos().await;
    for (sql, expected) in [
        (
            "SELECT id FROM (SELECT id, embed('m', image) AS v FROM photos) WHERE v IS NOT NULL LIMIT 3",
            [0, 1, 2],
        ),
        (
            "SELECT id FROM (SELECT id, embed('m', image) AS v FROM photos ORDER BY id) WHERE v IS NOT NULL LIMIT 3",
            [0, 1, 2],
        ),
        (
            "SELECT id FROM (CONVERT USING m OPTIONS (batch_size=2) AS photos) WHERE m_simclr IS NOT NULL LIMIT 3 OFFSET 20",
            [20, 21, 22],
        ),
        (
            "SELECT id FROM (SELECT id, embed('m', image) AS v FROM photos ORDER BY id DESC LIMIT 3) WHERE v IS NOT NULL OR id > 0",
            [2999, 2998, 2997],
        ),
        (
            "SELECT id FROM (PREDICT USING m AS photos) WHERE predict_result IS NOT NULL ORDER BY id DESC LIMIT 3",
            [2998, 2997, 2996],
        ),
    ] {
        let ids: Vec<String> = rows(&client, sql).await.into_iter().flatten().flatten().collect();
        assert_eq!(ids, expected.map(|id| id.to_string()), "{sql}");
    }

    // A cursor embeds as it is read.
    run(&client, "BEGIN; DECLARE c CURSOR FOR SELECT id, embed('m', image) FROM photos").await;
    assert_eq!(value(&client, "FETCH 1 FROM c").await.as_deref(), Some("0"));
    assert_eq!(rows(&client, "FETCH 500 FROM c").await.len(), 500);
    // While it waits, others have the device.
    let embedded = "SELECT count(embed('m', img_path)) FROM d";
    assert_eq!(value(&client, embedded).await.as_deref(), Some("40"));
    assert_eq!(failure(&client, "FETCH ALL FROM c").await, "22P03");
    run(&client, "ROLLBACK").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn vectors_are_those_of_single_images_in_their_order() {
    let (_server, client) = photos().await;
    run(&client, "CREATE TABLE vectors AS CONVERT USING m OPTIONS (on_error='skip') AS photos")
        .await;
    // Rows are stored as they come: all that have an image which can be read, in order.
    let ids = rows(&client, "SELECT id FROM vectors").await;
    let ids: Vec<usize> =
        ids.into_iter().flatten().map(|id| id.unwrap().parse().unwrap()).collect();
    let expected: Vec<usize> = (0..ROWS).filter(|id| id % 100 != 99 && *id != BROKEN).collect();
    assert_eq!(ids, expected);
    let same = "SELECT count(*) FROM vectors JOIN singly ON vectors.image = singly.img_path WHERE cosine_similarity(m_simclr, v) > 0.99999";
    assert_eq!(value(&client, same).await, Some(expected.len().to_string()));

    let plan = "EXPLAIN SELECT id, embed('m', image) FROM photos ORDER BY id DESC LIMIT 3";
    let plan =
        rows(&client, plan).await.concat().into_iter().flatten().collect::<Vec<_>>().join("\n");
    let (embedding, order) = (
        plan.find("PiecewiseExec: functions=[embed(m, image@1)"),
        plan.find("SortExec: TopK(fetch=3)"),
    );
    assert!(embedding.is_some() && embedding < order, "{plan}");
    assert!(plan.contains("rows_at_once=8..256"), "{plan}");
}
