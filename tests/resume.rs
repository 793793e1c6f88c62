//! Trainings and the server's end: what kill -9 or SIGTERM interrupts goes on with the next server and ends with the same weights, byte by
//! byte, as a training that nothing interrupted. What has failed stays failed, what was cancelled stays cancelled.

#![allow(clippy::unwrap_used)] // helpers of tests, too, may end a test

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use thanosql_tests::{TestServer, failure, rows, state_of, value};
use tokio_postgres::Client;

/// Epochs of the trainings here: enough to be interrupted in their middle.
const EPOCHS: u32 = 60;

struct Place {
    _folder: tempfile::TempDir,
    store: PathBuf,
    data: PathBuf,
}

impl Place {
    fn new() -> Place {
        let folder = tempfile::tempdir().unwrap();
        let (store, data) = (folder.path().join("store"), folder.path().join("data"));
        std::fs::create_dir_all(&data).unwrap();
        thanosql_ml::digits::write_dataset(&data.join("digits"), 60, 2, 7).unwrap();
        Place { _folder: folder, store, data }
    }

    fn server(&self) -> TestServer {
        TestServer::start_on(env!("CARGO_BIN_EXE_thanosql"), &self.store, &self.data, &[])
    }

    /// A server with the table of digits, and a model `whole` that nothing interrupts.
    async fn with_whole(&self) -> (TestServer, Client) {
        let server = self.server();
        let client = server.connect().await;
        let table = self.data.join("digits/digits_dataset.csv");
        client.simple_query(&format!("COPY d FROM '{}'", table.display())).await.unwrap();
        client.simple_query(&build("whole", "")).await.unwrap();
        (server, client)
    }
}

fn build(name: &str, more: &str) -> String {
    format!(
        "BUILD MODEL {name} USING SimCLR OPTIONS (max_epochs={EPOCHS}, batch_size=16, seed=5{more}) AS SELECT * FROM d"
    )
}

/// Waits until a job has some epochs behind it.
async fn wait_for_epochs(client: &Client, job: &str, epochs: u32) {
    let deadline = Instant::now() + Duration::from_secs(60);
    let count = format!("SELECT count(*) FROM thanosql.training_metrics WHERE job_id = {job}");
    loop {
        let done = value(client, &count).await.and_then(|count| count.parse::<u32>().ok());
        if done >= Some(epochs) {
            assert!(done < Some(EPOCHS), "the training was over before it could be interrupted");
            return;
        }
        assert!(Instant::now() < deadline, "no epoch");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The numbers in a model's exported file, without the header that says how they came about; the training rows too.
async fn numbers(client: &Client, model: &str, data: &Path) -> Vec<u8> {
    let path = data.join(format!("{model}.safetensors"));
    client.simple_query(&format!("EXPORT MODEL {model} TO '{}'", path.display())).await.unwrap();
    let bytes = std::fs::read(path).unwrap();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap());
    bytes[8 + usize::try_from(header).unwrap()..].to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_training_ends_with_the_same_weights() {
    let place = Place::new();
    let (mut server, client) = place.with_whole().await;
    let job = value(&client, &build("m", ", async=True")).await.unwrap();
    let queued = value(&client, &build("q", ", async=True")).await.unwrap();
    wait_for_epochs(&client, &job, 3).await;
    server.kill();

    let mut server = place.server();
    let client = server.connect().await;
    client.simple_query(&format!("WAIT JOB {job}")).await.unwrap();
    let record = format!(
        "SELECT state, interruptions, note, (SELECT count(*) FROM thanosql.training_metrics WHERE job_id = {job}) FROM thanosql.jobs WHERE id = {job}"
    );
    let record = rows(&client, &record).await.remove(0);
    assert_eq!((record[0].as_deref(), record[1].as_deref()), (Some("succeeded"), Some("1")));
    let note = record[2].as_deref().unwrap();
    assert!(note.contains("without being told to stop; went on after epoch"), "{note}");
    assert_eq!(record[3].as_deref(), Some(EPOCHS.to_string().as_str()));
    let whole = numbers(&client, "whole", &place.data).await;
    assert!(whole.len() > 1_000_000, "the weights are in the file");
    assert_eq!(numbers(&client, "m", &place.data).await, whole);
    client.simple_query(&format!("WAIT JOB {queued}")).await.unwrap();
    assert_eq!(numbers(&client, "q", &place.data).await, whole);
    assert_eq!(server.terminate(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_training_that_a_client_waits_for_survives_sigterm_and_its_client_is_told() {
    let place = Place::new();
    let (mut server, client) = place.with_whole().await;
    let waiting = server.connect().await;
    let waited = tokio::spawn(async move { waiting.simple_query(&build("m", "")).await });
    let job = {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let job = value(&client, "SELECT id FROM thanosql.jobs WHERE model = 'm'").await;
            match job {
                Some(job) => break job,
                None => assert!(Instant::now() < deadline, "no job"),
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    wait_for_epochs(&client, &job, 2).await;
    assert_eq!(server.terminate(), Some(0));
    let error = waited.await.unwrap().unwrap_err();
    assert_eq!(state_of(&error), "57P01", "{error:?}");

    let server = place.server();
    let client = server.connect().await;
    client.simple_query(&format!("WAIT JOB {job}")).await.unwrap();
    let note = value(&client, &format!("SELECT note FROM thanosql.jobs WHERE id = {job}")).await;
    assert!(note.unwrap().starts_with("interrupted when the server was stopped; went on after"));
    let whole = numbers(&client, "whole", &place.data).await;
    assert_eq!(numbers(&client, "m", &place.data).await, whole);
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_stays_failed_and_cancelled_stays_cancelled() {
    let place = Place::new();
    let mut server = place.server();
    let client = server.connect().await;
    let table = place.data.join("digits/digits_dataset.csv");
    client.simple_query(&format!("COPY d FROM '{}'", table.display())).await.unwrap();
    std::fs::write(place.data.join("broken.jpg"), "no image").unwrap();
    let broken = format!(
        "BUILD MODEL f USING SimCLR OPTIONS (max_epochs=1) AS SELECT img_path FROM d UNION ALL SELECT '{}/broken.jpg'",
        place.data.display()
    );
    assert_eq!(failure(&client, &broken).await, "22P03");
    // DELETE MODEL cancels the training of a model that is not there yet.
    let job = value(&client, &build("c", ", async=True")).await.unwrap();
    wait_for_epochs(&client, &job, 1).await;
    client.simple_query("DELETE MODEL c").await.unwrap();
    server.kill();

    let mut server = place.server();
    let client = server.connect().await;
    let states = "SELECT model, state, sqlstate, error FROM thanosql.jobs ORDER BY id";
    let states = rows(&client, states).await;
    let text = |row: usize, column: usize| states[row][column].as_deref().unwrap_or_default();
    assert_eq!((text(0, 0), text(0, 1), text(0, 2)), ("f", "failed", "22P03"));
    assert!(text(0, 3).contains("broken.jpg"), "{}", text(0, 3));
    assert_eq!((text(1, 0), text(1, 1), text(1, 2)), ("c", "cancelled", "57014"));
    assert_eq!(value(&client, "SELECT count(*) FROM thanosql.models").await.as_deref(), Some("0"));

    // A file that changes while the server is down is noticed.
    let job = value(&client, &build("m", ", async=True")).await.unwrap();
    wait_for_epochs(&client, &job, 2).await;
    server.kill();
    let files = std::fs::read_dir(place.data.join("digits/train_data")).unwrap();
    let mut files: Vec<PathBuf> = files.map(|file| file.unwrap().path()).collect();
    files.sort();
    std::fs::copy(&files[1], &files[0]).unwrap();
    let server = place.server();
    let client = server.connect().await;
    assert_eq!(failure(&client, &format!("WAIT JOB {job}")).await, "55000");
    assert_eq!(value(&client, "SELECT count(*) FROM thanosql.models").await.as_deref(), Some("0"));
}
