//! The tutorial's statements, in its order and its words (but for the folder), over a real connection: once as simple
//! queries, once prepared with parameters; and what each must show.

use std::collections::HashMap;

use thanosql_tests::{TestServer, describe, failure, rows, value};

#[tokio::test(flavor = "multi_thread")]
async fn the_seven_statements() {
    let server = TestServer::start(env!("CARGO_BIN_EXE_thanosql"));
    let digits =
        thanosql_ml::digits::write_dataset(&server.data.join("digits"), 160, 8, 7).unwrap();
    let folder = digits.folder.display().to_string();
    let query_image = digits.test[0].path.display().to_string();
    let known_image = digits.train[5].path.display().to_string();
    let client = server.connect().await;
    let copied = client
        .simple_query(&format!("COPY mnist_dataset FROM '{}'", digits.table.display()))
        .await
        .unwrap();
    assert!(!copied.is_empty());

    // 1
    let first = client.query("SELECT * FROM mnist_dataset LIMIT 5", &[]).await.unwrap();
    assert_eq!(first.len(), 5);
    let names: Vec<&str> = first[0].columns().iter().map(|column| column.name()).collect();
    assert_eq!(names, ["img_path", "filename", "label"]);

    // 2
    client
        .simple_query("BUILD MODEL mnist_model\nUSING SimCLR\nOPTIONS (max_epochs=1)\nAS select * from mnist_dataset")
        .await
        .unwrap_or_else(|error| panic!("{}", describe(&error)));

    // 3
    client
        .simple_query(&format!(
            "CREATE TABLE mnist_embds\nUSING mnist_model \nOPTIONS(\n        path_type='folder', \n        \
             data_type='image',\n        file_type=['.jpg']\n        ) \nFROM '{folder}/train_data/'"
        ))
        .await
        .unwrap_or_else(|error| panic!("{}", describe(&error)));

    // 4
    let embedded = client.query("SELECT * FROM mnist_embds limit 5", &[]).await.unwrap();
    assert_eq!(embedded.len(), 5);
    let names: Vec<&str> = embedded[0].columns().iter().map(|column| column.name()).collect();
    assert_eq!(names, ["image", "mnist_model_simclr"]);
    assert_eq!(embedded[0].columns()[1].type_().name(), "vector");

    // 5
    let convert = "SELECT img_path, filename, label, mnist_model_SimCLR FROM(\nCONVERT USING mnist_model\n\
                   OPTIONS(table_name= \"mnist_embds\")\nAS SELECT * FROM mnist_embds)";
    let converted = rows(&client, convert).await;
    assert_eq!(converted.len(), 160);
    let labels: HashMap<String, u8> =
        digits.train.iter().map(|file| (file.path.display().to_string(), file.label)).collect();
    for row in &converted {
        let path = row[0].clone().expect("a path");
        assert_eq!(
            row[2].as_deref(),
            Some(labels[&path].to_string().as_str()),
            "the label of {path}"
        );
        assert!(path.ends_with(&format!("/{}", row[1].clone().expect("a file name"))));
        let vector = row[3].clone().expect("a vector");
        assert!(vector.starts_with('[') && vector.ends_with(']'));
    }
    let kept = client.query("SELECT * FROM mnist_embds LIMIT 1", &[]).await.unwrap();
    let names: Vec<&str> = kept[0].columns().iter().map(|column| column.name()).collect();
    assert_eq!(names, ["image", "img_path", "filename", "label", "mnist_model_simclr"]);

    // 6
    let search = format!(
        "SEARCH IMAGE images='{query_image}' \nUSING mnist_model \nAS SELECT * FROM mnist_embds"
    );
    let found = client.query(search.as_str(), &[]).await.unwrap();
    assert_eq!(found.len(), 160);
    let last = found[0].columns().last().expect("columns");
    assert_eq!(last.name(), "similarity_image1");
    for row in &found {
        let score: f64 = row.get("similarity_image1");
        assert!((-1.0..=1.0).contains(&score), "{score}");
    }

    // 7
    let print = format!(
        "PRINT IMAGE AS\n    (SELECT image as image, similarity_image1 FROM\n        (SEARCH IMAGE images='{known_image}' \n\
         \x20       USING mnist_model \n        AS SELECT * FROM mnist_embds)\n    ORDER BY similarity_image1 DESC LIMIT 4)"
    );
    let printed = client.query(print.as_str(), &[]).await.unwrap();
    assert_eq!(printed.len(), 4);
    let best: String = printed[0].get("image");
    assert_eq!(best, known_image);
    let score: f64 = printed[0].get("similarity_image1");
    assert!((score - 1.0).abs() < 1e-5, "{score}");
    let bytes: Vec<u8> = printed[0].get("image_bytes");
    assert_eq!(bytes, std::fs::read(&known_image).unwrap());
    assert_eq!(printed[0].get::<_, String>("media_type"), "image/jpeg");
    assert_eq!(printed[0].get::<_, i32>("width"), 28);

    // The same search with parameters: a path, and the image itself.
    let by_path = client
        .query(
            "SELECT image, similarity_image1 FROM (SEARCH IMAGE images=$1 USING mnist_model AS SELECT * FROM mnist_embds)
             ORDER BY similarity_image1 DESC LIMIT $2",
            &[&known_image, &3_i64],
        )
        .await
        .unwrap_or_else(|error| panic!("{}", describe(&error)));
    let by_bytes = {
        let statement = client
            .prepare_typed(
                "SELECT image, similarity_image1 FROM (SEARCH IMAGE images=$1 USING mnist_model AS SELECT * FROM mnist_embds)
                 ORDER BY similarity_image1 DESC LIMIT 3",
                &[tokio_postgres::types::Type::BYTEA],
            )
            .await
            .unwrap_or_else(|error| panic!("{}", describe(&error)));
        client.query(&statement, &[&std::fs::read(&known_image).unwrap()]).await.unwrap()
    };
    let images = |rows: &[tokio_postgres::Row]| {
        rows.iter().map(|row| row.get::<_, String>(0)).collect::<Vec<_>>()
    };
    assert_eq!(images(&by_path), images(&by_bytes));
    assert_eq!(images(&by_path)[0], known_image);

    // What is known of it all.
    assert_eq!(
        value(&client, "SELECT state FROM thanosql.jobs").await.as_deref(),
        Some("succeeded")
    );
    let listed = rows(&client, "LIST MODEL").await;
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0][0].as_deref(), Some("mnist_model"));
    assert_eq!(listed[0][1].as_deref(), Some("SimCLR"));
    assert_eq!(
        failure(&client, "BUILD MODEL mnist_model USING SimCLR AS SELECT * FROM mnist_dataset")
            .await,
        "42710"
    );

    // A second version makes the old vectors unusable, loudly.
    client
        .simple_query("BUILD MODEL mnist_model USING SimCLR OPTIONS (max_epochs=1, seed=2, overwrite=True) AS SELECT * FROM mnist_dataset")
        .await
        .unwrap();
    assert_eq!(failure(&client, &search).await, "55000");
    client.simple_query("DROP MODEL mnist_model").await.unwrap();
    assert_eq!(failure(&client, &search).await, "42704");
}
