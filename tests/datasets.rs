//! GET THANOSQL DATASET and LIST THANOSQL MODEL against an HTTP server of the test's own.
//!
//! The hashes of MNIST are constants of the product, so its files must be the real ones: the test that fetches them whole
//! runs where THANOSQL_MNIST_DIR names a folder with the four .gz files. All else needs nothing.

#![allow(clippy::unwrap_used, clippy::print_stderr)] // helpers of tests, too, may end a test

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use sha2::{Digest as _, Sha256};
use thanosql_tests::{TestServer, failure, rows, run, state_of, value};

/// A server of a folder's files, which remembers what it was asked for.
struct Files {
    folder: PathBuf,
    url: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Files {
    fn serve(folder: &Path) -> Files {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (served, log) = (folder.to_owned(), asked.clone());
        std::thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                answer(&mut stream, &served, &log);
            }
        });
        Files { folder: folder.to_owned(), url, asked }
    }

    /// A server of a new folder in `place`, which is empty.
    fn in_new_folder(place: &Path) -> Files {
        let folder = place.join("published");
        std::fs::create_dir(&folder).unwrap();
        Files::serve(&folder)
    }

    /// Publishes a file.
    fn put(&self, name: &str, bytes: impl AsRef<[u8]>) {
        std::fs::write(self.folder.join(name), bytes).unwrap();
    }

    /// Where the index of models is.
    fn index(&self) -> String {
        format!("{}/index.json", self.url)
    }

    fn asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

fn answer(stream: &mut TcpStream, folder: &Path, log: &Mutex<Vec<String>>) {
    let mut lines = BufReader::new(&*stream).lines().map_while(Result::ok);
    let first = lines.next().unwrap_or_default();
    let path = first.split(' ').nth(1).unwrap_or_default().trim_start_matches('/').to_owned();
    let _ = lines.take_while(|line| !line.is_empty()).count();
    log.lock().unwrap().push(path.clone());
    let (status, body) = match std::fs::read(folder.join(path)) {
        Ok(body) => ("200 OK", body),
        Err(_) => ("404 Not Found", Vec::new()),
    };
    let head =
        format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
    let _ = stream.write_all(head.as_bytes());
    let _ = stream.write_all(&body);
}

/// A server over fresh folders, with flags.
fn start(folder: &Path, flags: &[&str]) -> TestServer {
    let data = folder.join("data");
    std::fs::create_dir_all(&data).unwrap();
    TestServer::start_on(env!("CARGO_BIN_EXE_thanosql"), &folder.join("store"), &data, flags)
}

#[tokio::test(flavor = "multi_thread")]
async fn mnist_of_somebody_else_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let files = Files::in_new_folder(folder.path());
    let server = start(folder.path(), &["--dataset-url", &files.url]);
    let client = server.connect().await;
    let get = "GET THANOSQL DATASET mnist_data";
    assert_eq!(failure(&client, get).await, "58P01");
    files.put("train-images-idx3-ubyte.gz", "no images at all");
    assert_eq!(failure(&client, get).await, "XX001");
    assert_eq!(files.asked(), 2);
    assert_eq!(failure(&client, "SELECT * FROM mnist_data").await, "42P01");
    let fetched = "SELECT fetched FROM thanosql.datasets WHERE name = 'mnist_data'";
    assert_eq!(value(&client, fetched).await.as_deref(), Some("f"));
    let source = "SELECT source FROM (LIST THANOSQL DATASET) WHERE name = 'mnist_data'";
    assert_eq!(value(&client, source).await, Some(files.url.clone()));
    // Preparing asks nobody.
    client.prepare(get).await.unwrap();
    assert_eq!(files.asked(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_addresses_the_settings_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path(), &["--dataset-url", "off"]);
    let client = server.connect().await;
    let error = client.simple_query("GET THANOSQL DATASET mnist_data").await.unwrap_err();
    assert_eq!(state_of(&error), "55000");
    assert!(error.as_db_error().unwrap().hint().unwrap().contains("dataset_url"));
    assert!(rows(&client, "LIST THANOSQL MODEL").await.is_empty());
    let error = client.simple_query("GET THANOSQL DATASET mnist_dat").await.unwrap_err();
    assert_eq!(state_of(&error), "42704");
    assert!(error.as_db_error().unwrap().hint().unwrap().contains("mnist_data"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_of_models_is_listed() {
    let folder = tempfile::tempdir().unwrap();
    let files = Files::in_new_folder(folder.path());
    let server = start(folder.path(), &["--model-url", &files.index()]);
    let client = server.connect().await;
    assert_eq!(failure(&client, "LIST THANOSQL MODEL").await, "58P01");
    files.put("index.json", "{");
    assert_eq!(failure(&client, "LIST THANOSQL MODEL").await, "22P02");
    let hash = "0".repeat(64);
    let index = format!(
        r#"[{{"name": "숫자", "file": "digits.safetensors", "sha256": "{hash}", "bytes": 7, "description": "digits"}},
            {{"name": "other", "file": "other.safetensors", "sha256": "{hash}"}}]"#
    );
    files.put("index.json", index);
    let listed =
        rows(&client, "SELECT name, description, source, bytes FROM (LIST THANOSQL MODEL)").await;
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(
        listed,
        [
            vec![
                text("숫자"),
                text("digits"),
                Some(format!("{}/digits.safetensors", files.url)),
                text("7")
            ],
            vec![text("other"), None, Some(format!("{}/other.safetensors", files.url)), None],
        ]
    );
    // It is a table like any other, and is read only when rows are wanted.
    let asked = files.asked();
    client.prepare("SELECT * FROM (LIST THANOSQL MODEL)").await.unwrap();
    rows(&client, "EXPLAIN SELECT * FROM (LIST THANOSQL MODEL)").await;
    assert_eq!(files.asked(), asked);
    let count =
        "WITH m AS (LIST THANOSQL MODEL) SELECT count(*) FROM m JOIN m AS n ON m.name = n.name";
    assert_eq!(value(&client, count).await.as_deref(), Some("2"));
}

/// An index of one model of each name, all of the same file.
fn index_of(names: &[&str], file: &[u8]) -> String {
    let hash: String = Sha256::digest(file).iter().map(|byte| format!("{byte:02x}")).collect();
    let entries: Vec<String> = names
        .iter()
        .map(|name| {
            let bytes = file.len();
            format!(r#"{{"name": "{name}", "file": "m.safetensors", "sha256": "{hash}", "bytes": {bytes}}}"#)
        })
        .collect();
    format!("[{}]", entries.join(","))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_published_model_is_fetched_checked_and_used() {
    let folder = tempfile::tempdir().unwrap();
    let files = Files::in_new_folder(folder.path());
    let server = start(folder.path(), &["--model-url", &files.index()]);
    let digits = thanosql_ml::digits::write_dataset(&server.data.join("digits"), 40, 4, 7).unwrap();
    let client = server.connect().await;
    let run = async |sql: String| run(&client, &sql).await;
    run(format!("COPY d FROM '{}'", digits.table.display())).await;
    run("BUILD MODEL origin USING SimCLR OPTIONS (max_epochs=1, batch_size=20, seed=1) AS SELECT * FROM d".to_owned()).await;
    let file = server.data.join("m.safetensors");
    run(format!("EXPORT MODEL origin TO '{}'", file.display())).await;
    let model = std::fs::read(&file).unwrap();
    let publish = |names: &[&str], bytes: &[u8], expected: &[u8]| {
        files.put("m.safetensors", bytes);
        files.put("index.json", index_of(names, expected));
    };
    // No index, no file, another file, a file that is no model, a model that is not published.
    assert_eq!(failure(&client, "GET THANOSQL MODEL digits").await, "58P01");
    publish(&["digits", "숫자"], &model[1..], &model);
    assert_eq!(failure(&client, "GET THANOSQL MODEL digits").await, "XX001");
    publish(&["digits", "숫자"], b"no model", b"no model");
    assert_eq!(failure(&client, "GET THANOSQL MODEL digits").await, "22P03");
    publish(&["digits", "숫자"], &model, &model);
    let error = client.simple_query("GET THANOSQL MODEL digit").await.unwrap_err();
    assert_eq!(state_of(&error), "42704");
    assert!(error.as_db_error().unwrap().hint().unwrap().contains("digits"));
    assert_eq!(value(&client, "SELECT count(*) FROM (LIST MODEL)").await.as_deref(), Some("1"));
    // Preparing asks nobody and makes nothing.
    let asked = files.asked();
    client.prepare("GET THANOSQL MODEL digits").await.unwrap();
    assert_eq!(files.asked(), asked);

    run("GET THANOSQL MODEL digits".to_owned()).await;
    run("GET THANOSQL MODEL 숫자 OPTIONS (model_name='mine')".to_owned()).await;
    assert_eq!(failure(&client, "GET THANOSQL MODEL digits").await, "42710");
    assert_eq!(
        failure(&client, "GET THANOSQL MODEL 숫자 OPTIONS (model_name='mine', overwrite=False)")
            .await,
        "42710"
    );
    run("GET THANOSQL MODEL digits OPTIONS (overwrite=True)".to_owned()).await;
    let listed =
        rows(&client, "SELECT name, class_name, version FROM (LIST MODEL) ORDER BY name").await;
    let names: Vec<String> = listed
        .iter()
        .map(|row| row.iter().flatten().cloned().collect::<Vec<_>>().join(" "))
        .collect();
    assert_eq!(names, ["digits SimCLR 2", "mine SimCLR 1", "origin SimCLR 1"]);
    // It sees what the model that was published sees.
    let folder_of_images = digits.folder.join("test").display().to_string();
    for model in ["mine", "origin"] {
        run(format!("CREATE TABLE by_{model} USING {model} FROM '{folder_of_images}'")).await;
    }
    let same = "SELECT count(*) FROM by_mine AS m JOIN by_origin AS o ON m.image = o.image \
                WHERE cosine_similarity(m.mine_simclr, o.origin_simclr) > 0.99999";
    assert_eq!(value(&client, same).await.as_deref(), Some("4"));
    // In a transaction it goes with the rest.
    run("BEGIN; GET THANOSQL MODEL digits OPTIONS (model_name='passing'); ROLLBACK".to_owned())
        .await;
    assert_eq!(value(&client, "SELECT count(*) FROM (LIST MODEL)").await.as_deref(), Some("3"));
    let without = folder.path().join("without");
    let server = start(&without, &[]);
    let client = server.connect().await;
    let error = client.simple_query("GET THANOSQL MODEL digits").await.unwrap_err();
    assert_eq!(state_of(&error), "55000");
    assert!(error.as_db_error().unwrap().hint().unwrap().contains("model_url"));
}

#[tokio::test(flavor = "multi_thread")]
async fn mnist_is_fetched_and_becomes_a_table() {
    let Some(real) = std::env::var_os("THANOSQL_MNIST_DIR").map(PathBuf::from) else {
        eprintln!("not run: THANOSQL_MNIST_DIR names no folder with MNIST's four .gz files");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let files = Files::serve(&real);
    let server = start(folder.path(), &["--dataset-url", &files.url]);
    let client = server.connect().await;
    let start = Instant::now();
    client.simple_query("GET THANOSQL DATASET mnist_data").await.unwrap();
    eprintln!("MNIST was fetched and stored in {:?}", start.elapsed());
    assert_eq!(files.asked(), 4);
    let table = "SELECT count(*), count(DISTINCT label), min(label), max(label), count(DISTINCT img_path) FROM mnist_data";
    let counts: Vec<String> = rows(&client, table).await[0].iter().flatten().cloned().collect();
    assert_eq!(counts, ["60000", "10", "0", "9", "60000"]);
    // The first image of MNIST is a five, the second a zero.
    let first = "SELECT label, filename FROM mnist_data WHERE filename IN ('0.jpg', '1.jpg') ORDER BY filename";
    assert_eq!(
        rows(&client, first).await,
        [
            [Some("5".to_owned()), Some("0.jpg".to_owned())],
            [Some("0".to_owned()), Some("1.jpg".to_owned())]
        ]
    );
    let printed = "SELECT media_type, width, height FROM (PRINT IMAGE OPTIONS (limit=1) AS SELECT img_path FROM mnist_data)";
    assert_eq!(
        rows(&client, printed).await[0],
        [Some("image/jpeg".to_owned()), Some("28".to_owned()), Some("28".to_owned())]
    );
    let path = value(&client, "SELECT img_path FROM mnist_data LIMIT 1").await.unwrap();
    let dataset = Path::new(&path).parent().unwrap().parent().unwrap().to_owned();
    assert_eq!(std::fs::read_dir(dataset.join("test")).unwrap().count(), 10_000);
    assert!(
        dataset.join("mnist_dataset.csv").is_file() && dataset.join("mnist_test.csv").is_file()
    );
    let fetched = "SELECT fetched, rows FROM (LIST THANOSQL DATASET) WHERE name = 'mnist_data'";
    assert_eq!(rows(&client, fetched).await[0], [Some("t".to_owned()), Some("60000".to_owned())]);
    assert_eq!(failure(&client, "GET THANOSQL DATASET mnist_data").await, "42P07");
    // The files are there: the table is made from them, and nobody is asked.
    client.simple_query("DROP TABLE mnist_data").await.unwrap();
    client.simple_query("GET THANOSQL DATASET mnist_data").await.unwrap();
    assert_eq!(files.asked(), 4);
    assert_eq!(value(&client, "SELECT count(*) FROM mnist_data").await.as_deref(), Some("60000"));
}
