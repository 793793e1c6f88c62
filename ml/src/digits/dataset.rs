//! The dataset of drawn digits as files and a table of them, laid out as the MNIST tutorial expects it.

use std::fs;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use image::ExtendedColorType;
use image::codecs::jpeg::JpegEncoder;
use rayon::prelude::*;

use super::{Chance, DIGIT_SIZE, draw_digit};
use crate::MlError;

/// Folder of the images to train with.
const TRAIN_FOLDER: &str = "train_data";
/// Folder of the images to search with.
const TEST_FOLDER: &str = "test";
/// The table of the training images.
const TABLE_FILE: &str = "digits_dataset.csv";
/// The table of the test images.
const TEST_TABLE_FILE: &str = "digits_test.csv";

/// JPEG quality: high enough that strokes keep their edges.
const QUALITY: u8 = 92;

/// One image of a dataset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DigitsFile {
    /// The file, an absolute path.
    pub path: PathBuf,
    /// The digit drawn in it.
    pub label: u8,
}

/// A dataset on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DigitsDataset {
    /// The folder, an absolute path.
    pub folder: PathBuf,
    /// CSV of the training images: `img_path,filename,label`.
    pub table: PathBuf,
    /// CSV of the test images, with the same columns.
    pub test_table: PathBuf,
    /// The training images, in `train_data`.
    pub train: Vec<DigitsFile>,
    /// The test images, in `test`.
    pub test: Vec<DigitsFile>,
}

/// Draws a dataset into a folder: `train_data/<id>.jpg`, `test/<id>.jpg`, `digits_dataset.csv` and `digits_test.csv`.
///
/// The folder appears whole or not at all: everything is written beside it and renamed. A folder of that name is
/// replaced if it is an earlier dataset or empty. Ids count up from 0 in each split; labels come by chance; the same counts and seed
/// give the same files, and a larger count starts with the images of a smaller one.
///
/// # Errors
/// [`MlError::Io`], with `AlreadyExists` if the folder holds something else.
pub fn write_dataset(
    folder: &Path,
    train: usize,
    test: usize,
    seed: u64,
) -> Result<DigitsDataset, MlError> {
    let folder = absolute(folder)?;
    let replaces = is_replaceable(&folder)?;
    let unfinished = Unfinished::create(&folder)?;
    let train_labels =
        write_split(&unfinished.path.join(TRAIN_FOLDER), train, seed.wrapping_mul(2))?;
    let test_labels = write_split(
        &unfinished.path.join(TEST_FOLDER),
        test,
        seed.wrapping_mul(2).wrapping_add(1),
    )?;
    let train = listed(&folder.join(TRAIN_FOLDER), &train_labels);
    let test = listed(&folder.join(TEST_FOLDER), &test_labels);
    write_table(&unfinished.path.join(TABLE_FILE), &train)?;
    write_table(&unfinished.path.join(TEST_TABLE_FILE), &test)?;
    unfinished.finish(&folder, replaces)?;
    Ok(DigitsDataset {
        table: folder.join(TABLE_FILE),
        test_table: folder.join(TEST_TABLE_FILE),
        train,
        test,
        folder,
    })
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> MlError {
    let path = path.to_owned();
    move |source| MlError::Io { path, source }
}

/// The folder's absolute path, links in its parent resolved, and its parent made. The paths in the table are then those that a
/// server which resolves links compares with.
fn absolute(folder: &Path) -> Result<PathBuf, MlError> {
    let whole = std::path::absolute(folder).map_err(io_error(folder))?;
    let (Some(parent), Some(name)) = (whole.parent(), whole.file_name()) else {
        return Err(io_error(folder)(io::Error::new(
            io::ErrorKind::InvalidInput,
            "a folder with a name is needed",
        )));
    };
    fs::create_dir_all(parent).map_err(io_error(parent))?;
    let whole = parent.canonicalize().map_err(io_error(parent))?.join(name);
    if whole.to_str().is_none() {
        return Err(io_error(folder)(io::Error::new(
            io::ErrorKind::InvalidInput,
            "the path must be UTF-8 to stand in a table",
        )));
    }
    Ok(whole)
}

/// True if there is something to replace. An error if it is not ours to replace.
fn is_replaceable(folder: &Path) -> Result<bool, MlError> {
    let mut entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(io_error(folder)(error)),
    };
    if entries.next().is_none() || folder.join(TABLE_FILE).is_file() {
        return Ok(true);
    }
    Err(io_error(folder)(io::Error::new(
        io::ErrorKind::AlreadyExists,
        "the folder holds something else than a dataset of digits",
    )))
}

/// The dataset while it is written, beside its place. Dropped unfinished, it leaves nothing behind.
struct Unfinished {
    path: PathBuf,
    retired: PathBuf,
}

impl Unfinished {
    fn create(folder: &Path) -> Result<Unfinished, MlError> {
        let beside = |role: &str| {
            let mut name = std::ffi::OsString::from(".");
            name.push(folder.file_name().unwrap_or_default());
            name.push(format!(".{role}-{}", std::process::id()));
            folder.with_file_name(name)
        };
        let unfinished = Unfinished { path: beside("unfinished"), retired: beside("retired") };
        for split in [TRAIN_FOLDER, TEST_FOLDER] {
            let path = unfinished.path.join(split);
            fs::create_dir_all(&path).map_err(io_error(&path))?;
        }
        Ok(unfinished)
    }

    fn finish(self, folder: &Path, replaces: bool) -> Result<(), MlError> {
        if replaces {
            fs::rename(folder, &self.retired).map_err(io_error(folder))?;
        }
        fs::rename(&self.path, folder).map_err(io_error(folder))?;
        if replaces {
            fs::remove_dir_all(&self.retired).map_err(io_error(&self.retired))?;
        }
        Ok(())
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // After `finish` there is nothing of that name; before it, what is left is of no use to anybody.
        if let Err(error) = fs::remove_dir_all(&self.path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %self.path.display(), %error, "could not remove an unfinished dataset");
        }
    }
}

/// Draws `count` images in parallel and answers with their labels.
fn write_split(folder: &Path, count: usize, seed: u64) -> Result<Vec<u8>, MlError> {
    (0..count)
        .into_par_iter()
        .map(|id| {
            let mut chance = Chance::new(Chance::new(seed).next() ^ id as u64);
            let label = (chance.next() % 10) as u8;
            let path = folder.join(format!("{id}.jpg"));
            fs::write(&path, encoded(&draw_digit(label, chance.next())))
                .map_err(io_error(&path))?;
            Ok(label)
        })
        .collect()
}

fn encoded(pixels: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(1024);
    let side = DIGIT_SIZE as u32;
    JpegEncoder::new_with_quality(&mut bytes, QUALITY)
        .encode(pixels, side, side, ExtendedColorType::L8)
        .expect("a grey image of a fixed size is encoded into memory");
    bytes
}

fn listed(folder: &Path, labels: &[u8]) -> Vec<DigitsFile> {
    labels
        .iter()
        .enumerate()
        .map(|(id, &label)| DigitsFile { path: folder.join(format!("{id}.jpg")), label })
        .collect()
}

fn write_table(table: &Path, files: &[DigitsFile]) -> Result<(), MlError> {
    let write = || -> io::Result<()> {
        let mut out = BufWriter::new(fs::File::create(table)?);
        writeln!(out, "img_path,filename,label")?;
        for (id, file) in files.iter().enumerate() {
            writeln!(out, "{},{id}.jpg,{}", csv_field(&file.path.to_string_lossy()), file.label)?;
        }
        out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
    };
    write().map_err(io_error(table))
}

/// A field as RFC 4180 has it.
fn csv_field(text: &str) -> String {
    if text.contains(['"', ',', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}
