//! `thanosql demo`: the whole tutorial on images that it draws itself, without a network.
//!
//! It draws digits into a temporary folder, starts a server in this process on a free port with an empty store, connects
//! to it like any client and runs the tutorial's statements, each printed with its result as psql would. Then it
//! measures what the vectors are worth: whether the five nearest training digits of digits that it has kept aside agree with
//! them, beside the same measure on raw pixels.
//!
//! Everything goes over the real connection, in text, as psql sees it. Long results are cut short after a few rows.

mod client;
mod table;

use std::collections::HashMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use thanosql_config::{ConfigError, DemoSettings};
use thanosql_ml::digits::{DigitsDataset, DigitsFile, write_dataset};
use thanosql_ml::images::{ImageLimits, ImageSource, load_images};
use thanosql_ml::quality::knn_accuracy;
use thanosql_ml::{Color, InputSpec, MlError};
use thanosql_protocol::SqlError;
use tokio_util::sync::CancellationToken;

use crate::learning::job::duration_text;
use crate::learning::vector_column_name;
use crate::server::{self, ServerError};
use client::Client;
use table::Answer;

const MODEL: &str = "digits_model";
const DATASET: &str = "digits_dataset";
const EMBEDDINGS: &str = "digits_embds";
const TEST_EMBEDDINGS: &str = "digits_test_embds";

/// Digits that are kept aside, for each hundred to train with.
const TEST_PER_HUNDRED: usize = 20;
const MIN_TEST_IMAGES: usize = 20;
/// Neighbours that vote.
const NEIGHBOURS: usize = 5;
/// Rows of a long result that are shown.
const SHOWN_ROWS: usize = 5;

/// What keeps the demo from its end.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The temporary folder cannot be made or removed.
    #[error("cannot use the temporary folder")]
    Folder(#[source] io::Error),
    /// The digits cannot be drawn.
    #[error("cannot draw the digits")]
    Draw(#[source] MlError),
    /// The settings of the demo's server do not fit this machine.
    #[error(transparent)]
    Settings(#[from] ConfigError),
    /// The server did not start or broke.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// The connection to the server.
    #[error("cannot talk to the server")]
    Connection(#[source] tokio_postgres::Error),
    /// A statement was refused.
    #[error("{message}")]
    Statement {
        /// The server's answer: severity, message, hint.
        message: String,
        /// The error itself.
        #[source]
        source: tokio_postgres::Error,
    },
    /// A result does not have the form that it should have.
    #[error("unexpected answer to {statement}: {reason}")]
    Answer {
        /// The statement.
        statement: String,
        /// What is wrong with the answer.
        reason: String,
    },
    /// A vector in a result cannot be read.
    #[error("unexpected vector")]
    Vector(#[source] SqlError),
    /// The output cannot be written.
    #[error("cannot write the output")]
    Output(#[source] io::Error),
    /// Work on a blocking thread was lost.
    #[error("a thread of the demo ended unexpectedly")]
    Thread(#[from] tokio::task::JoinError),
    /// Someone pressed Ctrl-C.
    #[error("interrupted")]
    Interrupted,
}

/// Runs the demo; what it makes is gone afterwards, unless it shall stay.
///
/// # Errors
/// The first thing that goes wrong; the server is stopped and the folder removed even then.
pub async fn run(settings: &DemoSettings) -> Result<(), DemoError> {
    let start = Instant::now();
    let folder =
        tempfile::Builder::new().prefix("thanosql-demo-").tempdir().map_err(DemoError::Folder)?;
    let outcome = in_folder(settings, folder.path()).await;
    if settings.keep {
        let path = folder.keep();
        say(&format!("Images and store are kept in {}", path.display()))?;
    } else {
        folder.close().map_err(DemoError::Folder)?;
    }
    outcome?;
    say(&format!("The demo took {}.", duration_text(start.elapsed().as_secs_f64())))
}

async fn in_folder(settings: &DemoSettings, folder: &Path) -> Result<(), DemoError> {
    let (store, data) = (folder.join("store"), folder.join("data"));
    for path in [&store, &data] {
        std::fs::create_dir(path).map_err(DemoError::Folder)?;
    }
    let digits = draw(settings, data.join("digits")).await?;

    let server_settings = settings.server(&store, &data)?;
    let listener = server::listen(&server_settings).await?;
    let address = listener.local_addr().map_err(DemoError::Folder)?;
    say(&format!(
        "A server listens on {address} now; any PostgreSQL client could connect to it.\n"
    ))?;
    let shutdown = CancellationToken::new();
    let serving = {
        let shutdown = shutdown.clone();
        tokio::spawn(async move { server::run(&server_settings, listener, shutdown).await })
    };
    let outcome = tokio::select! {
        outcome = tutorial(settings, address, &digits) => outcome,
        _ = tokio::signal::ctrl_c() => Err(DemoError::Interrupted),
    };
    shutdown.cancel();
    let served = serving.await?;
    // A statement that failed because the server broke is told with the server's reason.
    match (outcome, served) {
        (_, Err(broken)) => Err(broken.into()),
        (outcome, Ok(())) => outcome,
    }
}

async fn draw(settings: &DemoSettings, folder: PathBuf) -> Result<DigitsDataset, DemoError> {
    let (train, seed) = (settings.images, settings.seed);
    let test = (train * TEST_PER_HUNDRED / 100).max(MIN_TEST_IMAGES);
    say(&format!("Drawing {train} digits to learn from and {test} to test with."))?;
    tokio::task::spawn_blocking(move || write_dataset(&folder, train, test, seed))
        .await?
        .map_err(DemoError::Draw)
}

async fn tutorial(
    settings: &DemoSettings,
    address: std::net::SocketAddr,
    digits: &DigitsDataset,
) -> Result<(), DemoError> {
    let mut client = Client::connect(address).await?;
    let path = |path: &Path| quoted(&path.to_string_lossy());
    let in_folder = |name: &str| quoted(&format!("{}/", digits.folder.join(name).display()));

    show(&mut client, &format!("COPY {DATASET} FROM {}", path(&digits.table))).await?;
    show(&mut client, &format!("SELECT * FROM {DATASET} LIMIT 5")).await?;
    show(
        &mut client,
        &format!(
            "BUILD MODEL {MODEL}\nUSING SimCLR\nOPTIONS (max_epochs={}, seed={})\nAS SELECT * FROM {DATASET}",
            settings.epochs, settings.seed
        ),
    )
    .await?;
    let embeddings = |table: &str, folder: &str| {
        format!(
            "CREATE TABLE {table}\nUSING {MODEL}\nOPTIONS (path_type='folder', data_type='image', file_type=['.jpg'])\nFROM {}",
            in_folder(folder)
        )
    };
    show(&mut client, &embeddings(EMBEDDINGS, "train_data")).await?;
    show(&mut client, &format!("SELECT * FROM {EMBEDDINGS} LIMIT 5")).await?;
    show(
        &mut client,
        &format!(
            "SELECT img_path, filename, label, {MODEL}_SimCLR FROM (\n\
             CONVERT USING {MODEL}\nOPTIONS (table_name=\"{EMBEDDINGS}\")\nAS SELECT * FROM {EMBEDDINGS})"
        ),
    )
    .await?;
    let query = first(&digits.test)?;
    show(
        &mut client,
        &format!(
            "SEARCH IMAGE images={}\nUSING {MODEL}\nAS SELECT * FROM {EMBEDDINGS}",
            path(&query.path)
        ),
    )
    .await?;
    let known = first(&digits.train)?;
    let print = format!(
        "PRINT IMAGE OPTIONS (format='text') AS\n    (SELECT image, label, similarity_image1 FROM\n        \
         (SEARCH IMAGE images={}\n        USING {MODEL}\n        AS SELECT * FROM {EMBEDDINGS})\n    \
         ORDER BY similarity_image1 DESC LIMIT 4)",
        path(&known.path)
    );
    let pictures = show(&mut client, &print).await?;
    say(&pictures.gallery("preview", &["label", "similarity_image1"]))?;

    show(&mut client, &embeddings(TEST_EMBEDDINGS, "test")).await?;
    measure(&mut client, digits).await
}

/// The accuracy of five nearest neighbours, with the vectors as a client gets them and with raw pixels.
async fn measure(client: &mut Client, digits: &DigitsDataset) -> Result<(), DemoError> {
    let column = vector_column_name(MODEL);
    let train = vectors(client, EMBEDDINGS, &column, &digits.train).await?;
    let test = vectors(client, TEST_EMBEDDINGS, &column, &digits.test).await?;
    let (train_files, test_files) = (digits.train.clone(), digits.test.clone());
    let (learned, pixels) = tokio::task::spawn_blocking(move || {
        let learned = accuracy(&train, &test);
        let pixels = accuracy(&raw_pixels(&train_files), &raw_pixels(&test_files));
        (learned, pixels)
    })
    .await?;
    say(&format!(
        "{} digits were kept aside. The majority of their {NEIGHBOURS} nearest training digits is right for {:.1} % of them;\n\
         by raw pixels instead of the model's vectors it is right for {:.1} %.",
        digits.test.len(),
        learned * 100.0,
        pixels * 100.0
    ))
}

/// Vectors with the digits that they stand for, `[count, dim]`.
struct Labelled {
    vectors: Vec<f32>,
    labels: Vec<u32>,
}

fn accuracy(train: &Labelled, test: &Labelled) -> f64 {
    let dim = test.vectors.len() / test.labels.len().max(1);
    knn_accuracy(&train.vectors, &train.labels, &test.vectors, &test.labels, dim, NEIGHBOURS)
}

/// The vectors of a table, with the labels of its images' files.
async fn vectors(
    client: &mut Client,
    table: &str,
    column: &str,
    files: &[DigitsFile],
) -> Result<Labelled, DemoError> {
    let statement = format!("SELECT image, {column} FROM {table}");
    let answer = client.run(&statement).await?;
    let labels: HashMap<String, u32> = files
        .iter()
        .map(|file| (file.path.to_string_lossy().into_owned(), u32::from(file.label)))
        .collect();
    let unexpected = |reason: String| DemoError::Answer { statement: statement.clone(), reason };
    let mut labelled = Labelled { vectors: Vec::new(), labels: Vec::with_capacity(files.len()) };
    for row in &answer.rows {
        let [Some(image), Some(vector)] = row.as_slice() else {
            return Err(unexpected("a row without image or vector".to_owned()));
        };
        let label = labels
            .get(image)
            .ok_or_else(|| unexpected(format!("an image {image} that was not drawn")))?;
        labelled.labels.push(*label);
        labelled
            .vectors
            .extend(thanosql_protocol::types::parse_vector(vector).map_err(DemoError::Vector)?);
    }
    if labelled.labels.len() != files.len() {
        return Err(unexpected(format!(
            "{} rows for {} files",
            labelled.labels.len(),
            files.len()
        )));
    }
    Ok(labelled)
}

fn raw_pixels(files: &[DigitsFile]) -> Labelled {
    let sources: Vec<ImageSource> =
        files.iter().map(|file| ImageSource::Path(file.path.clone())).collect();
    let spec = InputSpec { size: 28, color: Color::Gray };
    let (images, failures) = load_images(&sources, spec, &ImageLimits::default(), &|| false);
    let unreadable: Vec<usize> = failures.iter().map(|failure| failure.index).collect();
    let labels = files.iter().enumerate().filter(|(index, _)| !unreadable.contains(index));
    Labelled {
        vectors: images.pixels().iter().map(|pixel| f32::from(*pixel)).collect(),
        labels: labels.map(|(_, file)| u32::from(file.label)).collect(),
    }
}

/// Runs a statement, prints it and what came of it.
async fn show(client: &mut Client, statement: &str) -> Result<Answer, DemoError> {
    say(&format!("demo=> {};", statement.replace('\n', "\ndemo-> ")))?;
    let start = Instant::now();
    let answer = client.run(statement).await?;
    say(&answer.text(statement, SHOWN_ROWS))?;
    say(&format!("Time: {:.3} ms\n", start.elapsed().as_secs_f64() * 1000.0))?;
    Ok(answer)
}

fn first(files: &[DigitsFile]) -> Result<&DigitsFile, DemoError> {
    files.first().ok_or_else(|| DemoError::Answer {
        statement: "the drawing of digits".to_owned(),
        reason: "no file".to_owned(),
    })
}

/// A string literal.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn say(text: &str) -> Result<(), DemoError> {
    let mut output = io::stdout().lock();
    writeln!(output, "{text}").and_then(|()| output.flush()).map_err(DemoError::Output)
}
