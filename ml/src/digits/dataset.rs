//! The dataset of drawn digits as files and a table of them, laid out as the MNIST tutorial expects it.

use std::fs;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::{Chance, DIGIT_SIZE, draw_digit};
use crate::MlError;
use crate::dataset_folder::{
    TEST_FOLDER, TRAIN_FOLDER, Unfinished, absolute, encoded, image_name, io_error, is_replaceable,
    write_table,
};

/// The table of the training images.
const TABLE_FILE: &str = "digits_dataset.csv";
/// The table of the test images.
const TEST_TABLE_FILE: &str = "digits_test.csv";

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
    let replaces = is_replaceable(&folder, TABLE_FILE)?;
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
    for (table, files) in [(TABLE_FILE, &train), (TEST_TABLE_FILE, &test)] {
        let rows = files.iter().map(|file| (file.path.as_path(), file.label));
        write_table(&unfinished.path.join(table), rows)?;
    }
    unfinished.finish(&folder, replaces)?;
    Ok(DigitsDataset {
        table: folder.join(TABLE_FILE),
        test_table: folder.join(TEST_TABLE_FILE),
        train,
        test,
        folder,
    })
}

/// Draws `count` images in parallel and answers with their labels.
fn write_split(folder: &Path, count: usize, seed: u64) -> Result<Vec<u8>, MlError> {
    (0..count)
        .into_par_iter()
        .map(|id| {
            let mut chance = Chance::new(Chance::new(seed).next() ^ id as u64);
            let label = (chance.next() % 10) as u8;
            let path = folder.join(image_name(id));
            fs::write(&path, encoded(&draw_digit(label, chance.next()), DIGIT_SIZE, DIGIT_SIZE))
                .map_err(io_error(&path))?;
            Ok(label)
        })
        .collect()
}

fn listed(folder: &Path, labels: &[u8]) -> Vec<DigitsFile> {
    labels
        .iter()
        .enumerate()
        .map(|(id, &label)| DigitsFile { path: folder.join(image_name(id)), label })
        .collect()
}
