//! Searching from the outside: plans that keep the k best in a heap, vectors as parameters of a driver that asks for types first, arrays of images, and stale
//! vectors after a restart.

#![allow(clippy::unwrap_used)] // tests may end with a panic

use bytes::{BufMut, BytesMut};
use thanosql_tests::{TestServer, failure, rows, state_of, value};
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};

/// A vector in pgvector's binary form, for whatever type the server calls `vector`.
#[derive(Debug)]
struct Vector(Vec<f32>);

impl ToSql for Vector {
    fn to_sql(
        &self,
        _ty: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        out.put_u16(u16::try_from(self.0.len())?);
        out.put_u16(0);
        self.0.iter().for_each(|value| out.put_f32(*value));
        Ok(IsNull::No)
    }

    fn accepts(ty: &Type) -> bool {
        ty.name() == "vector"
    }

    to_sql_checked!();
}

fn program() -> &'static str {
    env!("CARGO_BIN_EXE_thanosql")
}

#[tokio::test(flavor = "multi_thread")]
async fn vectors_are_parameters_without_being_declared() {
    let server = TestServer::start(program());
    let client = server.connect().await;
    client.batch_execute("CREATE TABLE v (id int, e vector(2))").await.unwrap();
    for (id, vector) in [(1, [1.0, 0.0]), (2, [0.0, 1.0]), (3, [1.0, 1.0])] {
        let vector = Vector(vector.to_vec());
        client.execute("INSERT INTO v VALUES ($1, $2)", &[&id, &vector]).await.unwrap();
    }
    let query = Vector(vec![0.1, 2.0]);
    for sql in [
        "SELECT id FROM v ORDER BY e <-> $1 LIMIT 1",
        "SELECT id FROM v ORDER BY $1 <=> e LIMIT 1",
        "SELECT id FROM v ORDER BY e <+> $1::vector LIMIT 1",
        "SELECT id FROM v ORDER BY e <#> $1::vector(2) LIMIT 1",
        "SELECT id FROM v ORDER BY cosine_similarity(e, $1) DESC LIMIT 1",
        "SELECT id FROM v ORDER BY l2_distance(e + $1, '[0,0]') DESC, id LIMIT 1",
    ] {
        let row = client.query_one(sql, &[&query]).await;
        let row = row.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        let found: i32 = row.get(0);
        let expected = if sql.contains("e + $1") || sql.contains("<#>") { [2, 3] } else { [2, 2] };
        assert!(expected.contains(&found), "{sql}: {found}");
    }
    let wrong = Vector(vec![1.0]);
    let error = client.query("SELECT id FROM v ORDER BY e <-> $1", &[&wrong]).await.unwrap_err();
    assert_eq!(state_of(&error), "22000");
    // Text is a parameter's form too, where it is said to be one.
    let sql = "SELECT id FROM v ORDER BY e <-> $1::text::vector(2) LIMIT 1";
    assert_eq!(client.query_one(sql, &[&"[0,3]"]).await.unwrap().get::<_, i32>(0), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_best_are_kept_in_a_heap_and_stale_vectors_stay_stale() {
    let folder = tempfile::tempdir().unwrap();
    let (store, data) = (folder.path().join("store"), folder.path().join("data"));
    std::fs::create_dir_all(&data).unwrap();
    thanosql_ml::digits::write_dataset(&data.join("digits"), 60, 4, 7).unwrap();
    let mut server = TestServer::start_on(program(), &store, &data, &[]);
    let client = server.connect().await;
    let digits = data.join("digits").display().to_string();
    let build = "BUILD MODEL m USING SimCLR OPTIONS (max_epochs=1, batch_size=16, overwrite=True) AS SELECT * FROM d";
    for statement in [
        &format!("COPY d FROM '{digits}/digits_dataset.csv'"),
        build,
        &format!("CREATE TABLE e USING m FROM '{digits}/train_data'"),
        "CREATE VIEW v AS SELECT image, m_simclr FROM e",
    ] {
        client.batch_execute(statement).await.unwrap();
    }
    let image = format!("{digits}/train_data/7.jpg");

    // No plan sorts more than it keeps.
    for query in [
        format!(
            "SELECT * FROM (SEARCH IMAGE images='{image}' USING m AS e) ORDER BY similarity_image1 DESC LIMIT 4"
        ),
        format!("SEARCH IMAGE USING m OPTIONS (search_input='{image}', top_k=4) AS e"),
        format!(
            "SELECT * FROM (SEARCH IMAGE images='{image}' USING m OPTIONS (top_k=4) AS SELECT * FROM e WHERE image LIKE '%1%')"
        ),
        "SELECT * FROM e ORDER BY m_simclr <=> (SELECT m_simclr FROM e LIMIT 1) LIMIT 4".to_owned(),
        "SELECT * FROM (SELECT image, m_simclr <-> m_simclr AS d FROM e) ORDER BY d LIMIT 4"
            .to_owned(),
    ] {
        let plan: String = rows(&client, &format!("EXPLAIN {query}"))
            .await
            .into_iter()
            .flatten()
            .flatten()
            .collect::<Vec<_>>()
            .join("\n");
        assert!(plan.contains("TopK(fetch=4)"), "{query}:\n{plan}");
        for line in plan.lines().filter(|line| line.contains("SortExec")) {
            assert!(line.contains("TopK(fetch=4)"), "{query}:\n{plan}");
        }
    }

    // An image as bytes, and as a parameter of each form.
    let bytes = std::fs::read(&image).unwrap();
    let sql = "SELECT image FROM (SEARCH IMAGE images=$1 USING m AS e) ORDER BY similarity_image1 DESC LIMIT 1";
    let by_path: String = client.query_one(sql, &[&image]).await.unwrap().get(0);
    let typed = client.prepare_typed(sql, &[Type::BYTEA]).await.unwrap();
    let by_bytes: String = client.query_one(&typed, &[&bytes]).await.unwrap().get(0);
    assert_eq!((&by_path, &by_bytes), (&image, &image));
    let sql = "SELECT image FROM (SEARCH IMAGE USING m OPTIONS (search_input=$1, top_k=$2) AS e)";
    let typed = client.prepare_typed(sql, &[Type::BYTEA, Type::INT4]).await.unwrap();
    let found: String = client.query_one(&typed, &[&bytes, &1_i32]).await.unwrap().get(0);
    assert_eq!(found, image);
    // Left open, a parameter is what the option is.
    let sql = "SELECT image FROM (SEARCH IMAGE images=$1 USING m OPTIONS (emb_col=$2, top_k=$3, min_score=$4) AS e)";
    let open = client.prepare(sql).await.unwrap();
    assert_eq!(open.params(), [Type::TEXT, Type::TEXT, Type::INT8, Type::FLOAT8]);
    let values: [&(dyn ToSql + Sync); 4] = [&image, &"m_simclr", &1_i64, &0.9_f64];
    let found: String = client.query_one(&open, &values).await.unwrap().get(0);
    assert_eq!(found, image);
    // This driver asks for columns before it binds. An array of images makes as many columns as it holds, so only those that are named can be told.
    let sql = "SELECT * FROM (SEARCH IMAGE images=$1 USING m AS e)";
    let error = client.prepare_typed(sql, &[Type::TEXT_ARRAY]).await.unwrap_err();
    assert_eq!(state_of(&error), "0A000");
    let sql = "SELECT image, similarity_image1 FROM (SEARCH IMAGE images=$1 USING m AS e) ORDER BY 2 DESC LIMIT 1";
    let typed = client.prepare_typed(sql, &[Type::TEXT_ARRAY]).await.unwrap();
    let found = client.query_one(&typed, &[&vec![&image, &image, &image]]).await.unwrap();
    assert_eq!(found.get::<_, String>(0), image);
    let error = client.prepare_typed(sql, &[Type::INT4_ARRAY]).await.unwrap_err();
    assert_eq!(state_of(&error), "42804");
    let prepared = format!(
        "PREPARE both(text[]) AS SELECT count(*), max(similarity_image2) > 0.9999 FROM (SEARCH IMAGE images=$1 USING m AS e); EXECUTE both(ARRAY['{digits}/train_data/3.jpg', '{image}'])"
    );
    let both = rows(&client, &prepared).await;
    assert_eq!(both, [[Some("60".to_owned()), Some("t".to_owned())]]);

    client.batch_execute(build).await.unwrap();
    let search = |from: &str| format!("SEARCH IMAGE images='{image}' USING m AS {from}");
    for from in ["e", "v"] {
        assert_eq!(failure(&client, &search(from)).await, "55000", "{from}");
    }
    drop(client);
    server.kill();
    let server = TestServer::start_on(program(), &store, &data, &[]);
    let client = server.connect().await;
    for from in ["e", "v", "SELECT * FROM v UNION ALL SELECT * FROM e"] {
        assert_eq!(failure(&client, &search(from)).await, "55000", "{from}");
    }
    // The labelled vectors are there again, too, without the images.
    std::fs::remove_dir_all(data.join("digits").join("test")).unwrap();
    let predicted = value(
        &client,
        "SELECT count(*) FROM (PREDICT USING m OPTIONS (k=1) AS d) WHERE predict_result = label",
    )
    .await;
    assert_eq!(predicted.as_deref(), Some("60"));
}
