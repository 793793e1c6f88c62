//! GET THANOSQL DATASET and the datasets that there are; GET THANOSQL MODEL ([`models`]) and the models that are published.
//!
//! `digits_data` is drawn by the server. `mnist_data` is fetched from the configured address, where the four files of MNIST
//! stand as their authors published them; whoever serves them, their content must have the known hashes. Either way
//! the dataset becomes a folder of images with their tables, and a table in the database.
//!
//! One dataset is made at a time: a stopped statement's thread may take a moment to notice, and the next one must not
//! write where it still does.

mod download;
mod models;
pub(crate) mod published;

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use flate2::read::GzDecoder;
use thanosql_ml::mnist::Split;
use thanosql_protocol::{Notice, NoticeSender, Response, SqlError, SqlState};
use tokio_util::sync::CancellationToken;

use super::Control;
use crate::error::io_error;
use crate::plan;
use crate::plan::rows::options;
use crate::session::ClientSession;
use crate::sql::{GetDataset, GetDatasetOptions, IfExists, Parsed, closest};
use download::{Expected, Fetcher, Patience, in_folder, shown};

/// How many images the drawn dataset has.
const DIGITS_TRAIN: usize = 4_000;
const DIGITS_TEST: usize = 1_000;
const DIGITS_SEED: u64 = 1;
/// How many images MNIST has to train with.
const MNIST_TRAIN: usize = 60_000;
/// The longest file of MNIST, packed: its largest has 9.9 MB.
const MNIST_MAX_BYTES: u64 = 24 << 20;
/// Time between two notices about a download.
const NOTICE_INTERVAL: Duration = Duration::from_secs(2);
/// The folder, among the datasets, of files that are being fetched.
const DOWNLOADS: &str = ".downloads";

/// A file of MNIST, and what it unpacks to.
struct MnistFile {
    name: &'static str,
    bytes: u64,
    sha256: &'static str,
}

/// Training images and labels, test images and labels.
static MNIST_FILES: [MnistFile; 4] = [
    MnistFile {
        name: "train-images-idx3-ubyte.gz",
        bytes: 47_040_016,
        sha256: "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    },
    MnistFile {
        name: "train-labels-idx1-ubyte.gz",
        bytes: 60_008,
        sha256: "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    },
    MnistFile {
        name: "t10k-images-idx3-ubyte.gz",
        bytes: 7_840_016,
        sha256: "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    },
    MnistFile {
        name: "t10k-labels-idx1-ubyte.gz",
        bytes: 10_008,
        sha256: "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    },
];

/// The datasets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dataset {
    /// Drawn by the server.
    Digits,
    /// Fetched.
    Mnist,
}

impl Dataset {
    /// All of them.
    pub const ALL: [Dataset; 2] = [Dataset::Digits, Dataset::Mnist];

    /// The name of the dataset, of its folder and of its table.
    pub fn name(self) -> &'static str {
        match self {
            Dataset::Digits => "digits_data",
            Dataset::Mnist => "mnist_data",
        }
    }

    /// What it is.
    pub fn description(self) -> &'static str {
        match self {
            Dataset::Digits => "handwriting-like digits, 28 x 28 pixels, drawn by the server",
            Dataset::Mnist => "MNIST, handwritten digits, 28 x 28 pixels (LeCun, Cortes, Burges)",
        }
    }

    /// How many rows its table gets.
    pub fn rows(self) -> usize {
        match self {
            Dataset::Digits => DIGITS_TRAIN,
            Dataset::Mnist => MNIST_TRAIN,
        }
    }

    /// The table of the training images in its folder.
    fn table(self) -> &'static str {
        match self {
            Dataset::Digits => "digits_dataset.csv",
            Dataset::Mnist => "mnist_dataset.csv",
        }
    }
}

/// Where datasets and models come from, and where datasets are put.
#[derive(Debug)]
pub struct Datasets {
    folder: PathBuf,
    dataset_url: Option<String>,
    pub(crate) model_url: Option<String>,
    /// Held by whoever makes one.
    turn: Arc<tokio::sync::Mutex<()>>,
}

impl Datasets {
    /// As the settings say.
    pub fn new(
        folder: PathBuf,
        dataset_url: Option<String>,
        model_url: Option<String>,
    ) -> Datasets {
        Datasets { folder, dataset_url, model_url, turn: Arc::default() }
    }

    /// Where a dataset comes from, as `thanosql.datasets` says it.
    pub fn source(&self, dataset: Dataset) -> Option<String> {
        match dataset {
            Dataset::Digits => Some("drawn".to_string()),
            Dataset::Mnist => self.dataset_url.as_deref().map(shown),
        }
    }

    /// Whether its files are there. A glance at the disk.
    pub fn is_fetched(&self, dataset: Dataset) -> bool {
        self.folder.join(dataset.name()).join(dataset.table()).is_file()
    }

    /// The address of MNIST.
    ///
    /// # Errors
    /// 55000 if none is configured.
    fn mnist_url(&self) -> Result<String, SqlError> {
        self.dataset_url.clone().ok_or_else(|| {
            SqlError::new(
                SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
                "no address is configured to fetch dataset \"mnist_data\" from",
            )
            .with_hint("The setting dataset_url names the folder with MNIST's four .gz files.")
        })
    }
}

impl ClientSession {
    /// GET THANOSQL DATASET.
    pub(crate) async fn get_dataset(
        &mut self,
        parsed: &Parsed,
        get: &GetDataset,
        parameters: plan::Parameters,
        control: &Control,
    ) -> Result<Response, SqlError> {
        self.refuse_in_read_only()?;
        let dataset = known(&get.name.value).map_err(|error| error.at(get.name.position))?;
        let name = dataset.name();
        self.lock(name, control).await?;
        let scope = self.scope(parsed, parameters, control)?;
        let given = options(&scope.parameters, &get.options, GetDatasetOptions::read)?;
        if super::ddl::relation_exists(&scope, name) && !given.overwrite {
            return Err(super::ddl::exists(name)
                .with_hint("OPTIONS (overwrite=True) replaces it.")
                .at(get.name.position));
        }
        self.check_target(&scope, name, IfExists::Replace)
            .map_err(|error| error.at(get.name.position))?;
        let datasets = self.server.datasets.clone();
        let turn = control.run(async { Ok(datasets.turn.clone().lock_owned().await) }).await?;
        let (stop, notices) = (control.cancel.clone(), control.notices.clone());
        let made = control
            .run(async move {
                tokio::task::spawn_blocking(move || {
                    // The turn is over when this thread is, also if nobody waits for it any more.
                    let _turn = turn;
                    datasets.make(dataset, given.overwrite, &stop, &notices)
                })
                .await
                .map_err(crate::error::internal)?
            })
            .await?;
        let folder = made.parent().unwrap_or(Path::new("")).display().to_string();
        let rows = self.fill_from_csv(&scope, name, made, IfExists::Replace, control).await?;
        control.notices.send(Notice::new(format!("{rows} images of digits are in {folder}")));
        Ok(Response::Done { tag: "GET THANOSQL DATASET".to_string() })
    }
}

/// The dataset of a name.
fn known(name: &str) -> Result<Dataset, SqlError> {
    let names = Dataset::ALL.map(Dataset::name);
    if let Some(dataset) = Dataset::ALL.into_iter().find(|dataset| dataset.name() == name) {
        return Ok(dataset);
    }
    let all = format!("Datasets that can be had: {}.", names.join(", "));
    Err(SqlError::new(SqlState::UNDEFINED_OBJECT, format!("dataset \"{name}\" does not exist"))
        .with_hint(match closest(name, names) {
            Some(near) => format!("Did you mean \"{near}\"? {all}"),
            None => all,
        }))
}

impl Datasets {
    /// Draws or fetches a dataset. Answers with the table of its training images. Blocking.
    fn make(
        &self,
        dataset: Dataset,
        overwrite: bool,
        stop: &CancellationToken,
        notices: &NoticeSender,
    ) -> Result<PathBuf, SqlError> {
        std::fs::create_dir_all(&self.folder).map_err(|error| io_error(&error))?;
        let folder = self.folder.join(dataset.name());
        match dataset {
            Dataset::Digits => {
                let drawn = thanosql_ml::digits::write_dataset(
                    &folder,
                    DIGITS_TRAIN,
                    DIGITS_TEST,
                    DIGITS_SEED,
                )
                .map_err(crate::learning::ml_error)?;
                Ok(drawn.table)
            }
            // A folder appears whole or not at all, so what is there need not be fetched again.
            Dataset::Mnist if self.is_fetched(dataset) && !overwrite => {
                Ok(folder.join(dataset.table()))
            }
            Dataset::Mnist => {
                let url = self.mnist_url()?;
                let downloads = self.folder.join(DOWNLOADS).join(dataset.name());
                std::fs::create_dir_all(&downloads).map_err(|error| io_error(&error))?;
                fetch_mnist(&url, &downloads, stop, notices)?;
                let table = unpack_mnist(&downloads, &folder, stop, notices)?;
                std::fs::remove_dir_all(&downloads).map_err(|error| io_error(&error))?;
                Ok(table)
            }
        }
    }
}

fn fetch_mnist(
    url: &str,
    folder: &Path,
    stop: &CancellationToken,
    notices: &NoticeSender,
) -> Result<(), SqlError> {
    let fetcher = Fetcher::new(Patience::default());
    notices.send(Notice::new(format!("fetching MNIST from {}", shown(url))));
    for file in &MNIST_FILES {
        let expected = Expected {
            sha256: file.sha256.to_string(),
            max_bytes: MNIST_MAX_BYTES,
            unpacked_bytes: Some(file.bytes),
        };
        let address = in_folder(url, file.name);
        let place = folder.join(file.name);
        fetcher.fetch(&address, &place, &expected, stop, &mut tell(file.name, notices))?;
    }
    Ok(())
}

/// Tells a client now and then how far a download is.
fn tell<'a>(name: &'a str, notices: &'a NoticeSender) -> impl FnMut(u64, Option<u64>) + 'a {
    let mut last = Instant::now();
    move |have, total| {
        if last.elapsed() >= NOTICE_INTERVAL {
            last = Instant::now();
            notices.send(Notice::new(progress(name, have, total)));
        }
    }
}

/// `train-images-idx3-ubyte.gz: 3.1 of 9.9 MB`
fn progress(name: &str, have: u64, total: Option<u64>) -> String {
    let megabytes = |bytes: u64| bytes as f64 / 1e6;
    match total {
        Some(total) => format!("{name}: {:.1} of {:.1} MB", megabytes(have), megabytes(total)),
        None => format!("{name}: {:.1} MB", megabytes(have)),
    }
}

fn unpack_mnist(
    downloads: &Path,
    folder: &Path,
    stop: &CancellationToken,
    notices: &NoticeSender,
) -> Result<PathBuf, SqlError> {
    let unpacked = |file: &MnistFile| -> Result<Box<dyn Read>, SqlError> {
        let packed = File::open(downloads.join(file.name)).map_err(|error| io_error(&error))?;
        Ok(Box::new(BufReader::new(GzDecoder::new(BufReader::new(packed)))))
    };
    let [train_images, train_labels, test_images, test_labels] = &MNIST_FILES;
    let train = Split { images: unpacked(train_images)?, labels: unpacked(train_labels)? };
    let test = Split { images: unpacked(test_images)?, labels: unpacked(test_labels)? };
    let mut last = Instant::now();
    let written = thanosql_ml::mnist::write_dataset(folder, train, test, &mut |images| {
        if last.elapsed() >= NOTICE_INTERVAL {
            last = Instant::now();
            notices.send(Notice::new(format!("{images} images are written")));
        }
        !stop.is_cancelled()
    })
    .map_err(crate::learning::ml_error)?;
    Ok(written.table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_nearly_right_are_told() {
        assert_eq!(known("mnist_data").unwrap(), Dataset::Mnist);
        let error = known("mnist_dat").unwrap_err();
        assert_eq!(error.code, SqlState::UNDEFINED_OBJECT);
        assert!(error.hint.unwrap().contains("Did you mean \"mnist_data\"?"));
    }

    #[test]
    fn progress_is_for_people() {
        assert_eq!(progress("f", 3_140_000, Some(9_900_000)), "f: 3.1 of 9.9 MB");
        assert_eq!(progress("f", 0, None), "f: 0.0 MB");
    }

    #[test]
    fn without_an_address_the_setting_is_named() {
        let datasets = Datasets::new(PathBuf::from("x"), None, None);
        let error = datasets.mnist_url().unwrap_err();
        assert_eq!(error.code, SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE);
        assert!(error.hint.unwrap().contains("dataset_url"));
        assert_eq!(datasets.source(Dataset::Mnist), None);
    }
}
