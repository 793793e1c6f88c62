//! Models over a real connection, where a golden file does not reach: `pretrained=True`, with weights that the test writes in torchvision's
//! layout, statements with parameters, and what EXPLAIN says.

#![allow(clippy::unwrap_used)] // helpers of tests, too, may end a test

use std::path::Path;

use thanosql_tests::{TestServer, describe, failure, rows, value};
use tokio_postgres::Client;

/// Names and shapes of torchvision's ResNet-18.
fn torchvision() -> Vec<(String, Vec<usize>)> {
    let mut arrays = Vec::new();
    let mut convolution = |name: &str, norm: &str, shape: [usize; 4]| {
        arrays.push((format!("{name}.weight"), shape.to_vec()));
        for part in ["weight", "bias", "running_mean", "running_var"] {
            arrays.push((format!("{norm}.{part}"), vec![shape[0]]));
        }
    };
    convolution("conv1", "bn1", [64, 3, 7, 7]);
    let mut inputs = 64;
    for (layer, width) in [(1, 64), (2, 128), (3, 256), (4, 512)] {
        for block in 0..2 {
            let name = |part: &str| format!("layer{layer}.{block}.{part}");
            convolution(&name("conv1"), &name("bn1"), [width, inputs, 3, 3]);
            convolution(&name("conv2"), &name("bn2"), [width, width, 3, 3]);
            if layer > 1 && block == 0 {
                convolution(&name("downsample.0"), &name("downsample.1"), [width, inputs, 1, 1]);
            }
            inputs = width;
        }
    }
    arrays.push(("fc.weight".to_owned(), vec![1000, 512]));
    arrays.push(("fc.bias".to_owned(), vec![1000]));
    arrays
}

/// Weights that are small and different from each other, from a linear congruential generator.
fn write(path: &Path, seed: u32) {
    let mut header = serde_json::Map::new();
    let mut data = Vec::new();
    let mut state = seed;
    for (name, shape) in torchvision() {
        let start = data.len();
        let count: usize = shape.iter().product();
        let scale = if shape.len() == 4 { 0.05 } else { 0.2 };
        for _ in 0..count {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let unit = f64::from(state >> 8) / f64::from(1_u32 << 24);
            let value =
                if shape.len() == 4 { (unit - 0.5) * 2.0 * scale } else { 0.9 + unit * scale };
            data.extend_from_slice(&(value as f32).to_le_bytes());
        }
        header.insert(
            name,
            serde_json::json!({ "dtype": "F32", "shape": shape, "data_offsets": [start, data.len()] }),
        );
    }
    let header = serde_json::to_vec(&header).unwrap();
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(&header);
    bytes.extend_from_slice(&data);
    std::fs::write(path, bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_training_starts_from_the_configured_weights() {
    let folder = tempfile::tempdir().unwrap();
    let (store, data) = (folder.path().join("store"), folder.path().join("data"));
    std::fs::create_dir_all(&data).unwrap();
    let digits = thanosql_ml::digits::write_dataset(&data.join("digits"), 12, 2, 7).unwrap();
    let weights = folder.path().join("resnet18.safetensors");
    write(&weights, 1);
    let program = env!("CARGO_BIN_EXE_thanosql");
    let flag = ["--pretrained-resnet18", weights.to_str().unwrap()];
    let mut server = TestServer::start_on(program, &store, &data, &flag);
    let client = server.connect().await;
    client.simple_query(&format!("COPY d FROM '{}'", digits.table.display())).await.unwrap();
    let build = |name: &str, options: &str| {
        format!(
            "BUILD MODEL {name} USING SimCLR OPTIONS (pretrained=True, max_epochs=1, batch_size=4{options}) AS SELECT * FROM d"
        )
    };
    client.simple_query(&build("m", "")).await.unwrap();
    let model =
        "SELECT encoder, embedding_dim, image_size, color, length(pretrained) FROM thanosql.models";
    let row = rows(&client, model).await.remove(0);
    let row: Vec<&str> = row.iter().map(|value| value.as_deref().unwrap_or("NULL")).collect();
    assert_eq!(row, ["resnet18", "512", "28", "rgb", "64"]);
    // The model works, and its file carries the way that pixels reach the network.
    let image = digits.test[0].path.display();
    let file = data.join("m.safetensors");
    client.simple_query(&format!("EXPORT MODEL m TO '{}'", file.display())).await.unwrap();
    client.simple_query(&format!("UPLOAD MODEL n FROM '{}'", file.display())).await.unwrap();
    let vector = |model: &str| {
        format!(
            "SELECT v FROM (CONVERT USING {model} OPTIONS (result_col='v') AS SELECT '{image}' AS image)"
        )
    };
    let vectors = (value(&client, &vector("m")).await, value(&client, &vector("n")).await);
    assert!(vectors.0.is_some() && vectors.0 == vectors.1);

    for options in [", encoder='compact'", ", color='gray'"] {
        assert_eq!(failure(&client, &build("x", options)).await, "22023", "{options}");
    }
    assert_eq!(
        failure(
            &client,
            "FIT MODEL x USING m OPTIONS (pretrained=True, max_epochs=1) AS SELECT * FROM d"
        )
        .await,
        "22023"
    );
    // What the file holds is looked at by each statement.
    std::fs::write(&weights, b"PK\x03\x04 no weights").unwrap();
    assert_eq!(failure(&client, &build("x", "")).await, "22P03");
    std::fs::remove_file(&weights).unwrap();
    assert_eq!(failure(&client, &build("x", "")).await, "58P01");
    assert_eq!(server.terminate(), Some(0));

    let mut server = TestServer::start_on(program, &store, &data, &[]);
    let client = server.connect().await;
    let error = client.simple_query(&build("x", "")).await.unwrap_err();
    let error = error.as_db_error().unwrap();
    assert_eq!(error.code().code(), "22023");
    assert!(error.message().contains("pretrained_resnet18"), "{}", error.message());
    assert!(
        value(&client, &vector("m")).await.is_some(),
        "a model needs its weights' file no more"
    );
    assert_eq!(server.terminate(), Some(0));
}

/// A server with a table `d` of drawn digits.
async fn with_digits() -> (TestServer, Client) {
    let server = TestServer::start(env!("CARGO_BIN_EXE_thanosql"));
    let digits = thanosql_ml::digits::write_dataset(&server.data.join("digits"), 20, 2, 7).unwrap();
    let client = server.connect().await;
    client.simple_query(&format!("COPY d FROM '{}'", digits.table.display())).await.unwrap();
    (server, client)
}

#[tokio::test(flavor = "multi_thread")]
async fn parameters_are_values_and_are_shown_as_such() {
    let (server, client) = with_digits().await;
    let run = async |sql: &str, values: &[&(dyn tokio_postgres::types::ToSql + Sync)]| {
        client
            .execute(sql, values)
            .await
            .unwrap_or_else(|error| panic!("{sql}: {}", describe(&error)))
    };
    let build = "BUILD MODEL m USING SimCLR OPTIONS (max_epochs=1, image_col=$1, batch_size=4) AS SELECT * FROM d WHERE filename <> $2";
    run(build, &[&"img_path", &"it's.jpg"]).await;
    let file = server.data.join("m's file.safetensors").display().to_string();
    run("EXPORT MODEL m TO $1", &[&file]).await;
    run("UPLOAD MODEL n FROM $1", &[&file]).await;
    for (name, expected) in [
        ("m", "BUILD MODEL m USING SimCLR OPTIONS (max_epochs=1, image_col='img_path', batch_size=4) AS SELECT * FROM d WHERE filename <> 'it''s.jpg'".to_owned()),
        ("n", format!("UPLOAD MODEL n FROM '{}'", file.replace('\'', "''"))),
    ] {
        let shown = rows(&client, &format!("SHOW CREATE MODEL {name}")).await.remove(0);
        let statement = shown[1].clone().unwrap();
        assert_eq!(statement, expected);
        // What is shown runs.
        client.simple_query(&format!("DROP MODEL {name}")).await.unwrap();
        client.simple_query(&statement).await.unwrap();
    }
    let explained =
        client.query("EXPLAIN UPLOAD MODEL n OPTIONS (overwrite=True) FROM $1", &[&file]).await;
    assert!(explained.unwrap()[0].get::<_, String>(1).contains("m's file"));
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_tells_every_option() {
    let (_server, client) = with_digits().await;
    let explain = "EXPLAIN BUILD MODEL m USING SimCLR OPTIONS (max_epochs=3, learning_rate=0.01) AS SELECT * FROM d WHERE label < 5";
    let explained = rows(&client, explain).await;
    let part = |kind: &str| {
        let row = explained.iter().find(|row| row[0].as_deref() == Some(kind));
        row.and_then(|row| row[1].clone()).unwrap_or_else(|| panic!("no {kind}: {explained:?}"))
    };
    assert_eq!(part("statement"), "BUILD MODEL: train \"m\" with SimCLR");
    let options = part("options");
    for line in [
        "image_col = img_path",
        "fname = filename",
        "target = label",
        "max_epochs = 3",
        "learning_rate = 0.01",
        "temperature = 0.5",
        "seed = 0",
        "device = cpu",
        "supervised = false",
        "encoder = auto (compact up to 64 pixels a side, resnet18 above)",
        "color = from the images",
    ] {
        assert!(options.lines().any(|found| found == line), "{line}: {options}");
    }
    assert!(part("logical_plan").contains("label"), "the query's plan");
    assert_eq!(value(&client, "SELECT count(*) FROM thanosql.jobs").await.as_deref(), Some("0"));

    client
        .simple_query("BUILD MODEL m USING SimCLR OPTIONS (max_epochs=1, batch_size=4) AS d")
        .await
        .unwrap();
    let fit = rows(&client, "EXPLAIN FIT MODEL m USING m OPTIONS (overwrite=True) AS d").await;
    assert_eq!(
        fit[0][1].as_deref(),
        Some(
            "FIT MODEL: train \"m\" from the weights of \"m\", version 1; it takes the place of version 1 when it is finished"
        )
    );
    let taken = rows(&client, "EXPLAIN FIT MODEL m USING m AS d").await;
    assert!(taken[0][1].as_deref().unwrap().ends_with("would be refused, the name is taken"));
    let options = fit[1][1].as_deref().unwrap();
    assert!(options.contains("encoder = compact\nimage_size = 28\ncolor = gray\n"), "{options}");
    // A folder that is not there is not looked into.
    let create =
        "EXPLAIN CREATE TABLE e USING m OPTIONS (recursive=False, batch_size=7) FROM 'missing'";
    let create = rows(&client, create).await;
    assert!(
        create[0][1].as_deref().unwrap().contains("\"e\" with a row for each file of \"missing\"")
    );
    assert!(create[1][1].as_deref().unwrap().contains("recursive = false\nbatch_size = 7"));
    assert!(create[2][1].as_deref().unwrap().contains("embed"), "{create:?}");
    assert_eq!(failure(&client, "EXPLAIN ANALYZE FIT MODEL n USING m AS d").await, "0A000");
}

/// A training's job outlives its statement, so it cannot be part of what a script may still take back.
#[tokio::test(flavor = "multi_thread")]
async fn a_training_commits_nothing_of_a_script_that_fails() {
    let (_server, client) = with_digits().await;
    client.simple_query("CREATE TABLE t (a int)").await.unwrap();
    let build = |body: &str| {
        format!("BUILD MODEL m USING SimCLR OPTIONS (max_epochs=1, batch_size=4) AS {body}")
    };
    let script = format!("INSERT INTO t VALUES (1); {}", build("SELECT * FROM d"));
    assert_eq!(failure(&client, &script).await, "25001");
    assert_eq!(value(&client, "SELECT count(*) FROM t").await.as_deref(), Some("0"));

    // What it keeps itself goes with it if there is nothing to learn from.
    client.simple_query(&build("SELECT * FROM d")).await.unwrap();
    let keeps = "SELECT * FROM (CONVERT USING m OPTIONS (table_name='kept') AS d) WHERE false";
    let statement = build(keeps).replacen("MODEL m", "MODEL n", 1);
    client.simple_query(&statement).await.unwrap_err();
    let kept = "SELECT count(*) FROM pg_class WHERE relname = 'kept'";
    assert_eq!(value(&client, kept).await.as_deref(), Some("0"));
}
