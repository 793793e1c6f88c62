//! MNIST in the form in which it is published (idx), as files and tables of them.
//!
//! An idx file is a header (two zero bytes, the type of an element, the number of dimensions, and each dimension as a
//! big-endian i32) and the elements, row by row. Images are `[image, row, column]` of bytes, labels `[image]`:
//! <http://yann.lecun.com/exdb/mnist/>. The dataset is laid out like the drawn one ([`crate::digits`]).
//!
//! Whether the files are the published ones is for the caller to find out; here they only have to be well formed.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use crate::MlError;
use crate::dataset_folder::{
    TEST_FOLDER, TRAIN_FOLDER, Unfinished, absolute, encoded, image_name, io_error, is_replaceable,
    write_table,
};

/// The table of the training images.
const TABLE_FILE: &str = "mnist_dataset.csv";
/// The table of the test images.
const TEST_TABLE_FILE: &str = "mnist_test.csv";

/// Images that are read, encoded and written at once.
const BATCH_IMAGES: usize = 2048;
/// The type of an element: a byte.
const UNSIGNED_BYTE: u8 = 8;
/// Bounds of what a header may claim.
const MAX_IMAGES: usize = 10_000_000;
const MAX_SIDE: usize = 4096;

/// The two idx files of a split, unpacked.
pub struct Split<'a> {
    /// The images.
    pub images: Box<dyn Read + 'a>,
    /// Their labels.
    pub labels: Box<dyn Read + 'a>,
}

/// A dataset on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MnistDataset {
    /// The folder, an absolute path.
    pub folder: PathBuf,
    /// CSV of the training images: `img_path,filename,label`.
    pub table: PathBuf,
    /// CSV of the test images, with the same columns.
    pub test_table: PathBuf,
    /// How many training images there are.
    pub train_images: usize,
    /// How many test images there are.
    pub test_images: usize,
}

/// Writes a dataset into a folder: `train_data/<id>.jpg`, `test/<id>.jpg`, `mnist_dataset.csv` and `mnist_test.csv`.
///
/// The folder appears whole or not at all. A folder of that name is replaced if it is an earlier dataset or empty.
/// `written` hears how many images there are so far, and answers whether to go on.
///
/// # Errors
/// [`MlError::Io`]: `InvalidData` for files that are malformed or do not belong together, `AlreadyExists` if the folder
/// holds something else. [`MlError::Stopped`] if `written` said so.
pub fn write_dataset(
    folder: &Path,
    train: Split<'_>,
    test: Split<'_>,
    written: &mut dyn FnMut(usize) -> bool,
) -> Result<MnistDataset, MlError> {
    let folder = absolute(folder)?;
    let replaces = is_replaceable(&folder, TABLE_FILE)?;
    let unfinished = Unfinished::create(&folder)?;
    let mut total = 0;
    let mut counts = [0; 2];
    let splits = [(train, TRAIN_FOLDER, TABLE_FILE), (test, TEST_FOLDER, TEST_TABLE_FILE)];
    for (count, (split, name, table)) in counts.iter_mut().zip(splits) {
        let labels = write_split(split, &unfinished.path.join(name), &mut |images| {
            total += images;
            written(total)
        })?;
        let paths: Vec<PathBuf> =
            (0..labels.len()).map(|id| folder.join(name).join(image_name(id))).collect();
        let rows = paths.iter().map(PathBuf::as_path).zip(labels.iter().copied());
        write_table(&unfinished.path.join(table), rows)?;
        *count = labels.len();
    }
    unfinished.finish(&folder, replaces)?;
    Ok(MnistDataset {
        table: folder.join(TABLE_FILE),
        test_table: folder.join(TEST_TABLE_FILE),
        train_images: counts[0],
        test_images: counts[1],
        folder,
    })
}

/// Writes the images of a split and answers with their labels.
fn write_split(
    split: Split<'_>,
    folder: &Path,
    written: &mut dyn FnMut(usize) -> bool,
) -> Result<Vec<u8>, MlError> {
    let in_folder = |error| io_error(folder)(error);
    let Split { mut images, mut labels } = split;
    let [count] = header::<1>(&mut labels).map_err(in_folder)?;
    let [image_count, height, width] = header::<3>(&mut images).map_err(in_folder)?;
    if count != image_count || count > MAX_IMAGES {
        return Err(in_folder(malformed(format!(
            "{image_count} images do not fit {count} labels"
        ))));
    }
    if !(1..=MAX_SIDE).contains(&height) || !(1..=MAX_SIDE).contains(&width) {
        return Err(in_folder(malformed(format!("images of {width} x {height} pixels"))));
    }
    let mut values = vec![0; count];
    labels.read_exact(&mut values).map_err(in_folder)?;
    let size = width * height;
    let mut pixels = vec![0; BATCH_IMAGES.min(count) * size];
    for first in (0..count).step_by(BATCH_IMAGES) {
        let batch = BATCH_IMAGES.min(count - first);
        let pixels = &mut pixels[..batch * size];
        images.read_exact(pixels).map_err(in_folder)?;
        pixels.par_chunks_exact(size).enumerate().try_for_each(|(index, pixels)| {
            let path = folder.join(image_name(first + index));
            fs::write(&path, encoded(pixels, width, height)).map_err(io_error(&path))
        })?;
        if !written(batch) {
            return Err(MlError::Stopped);
        }
    }
    for (what, rest) in [("labels", &mut labels), ("images", &mut images)] {
        if rest.read(&mut [0]).map_err(in_folder)? > 0 {
            return Err(in_folder(malformed(format!("more {what} than the header says"))));
        }
    }
    Ok(values)
}

/// The dimensions of an idx file of bytes.
fn header<const RANK: usize>(input: &mut dyn Read) -> io::Result<[usize; RANK]> {
    let mut magic = [0; 4];
    input.read_exact(&mut magic)?;
    if magic != [0, 0, UNSIGNED_BYTE, RANK as u8] {
        return Err(malformed(format!("not an idx file of bytes with {RANK} dimension(s)")));
    }
    let mut dimensions = [0; RANK];
    for dimension in &mut dimensions {
        let mut bytes = [0; 4];
        input.read_exact(&mut bytes)?;
        *dimension = usize::try_from(i32::from_be_bytes(bytes))
            .map_err(|_| malformed("a negative dimension".to_owned()))?;
    }
    Ok(dimensions)
}

fn malformed(reason: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::images::{ImageLimits, ImageSource, load_images};
    use crate::{Color, InputSpec};

    fn idx(dimensions: &[i32], elements: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0, 0, 8, dimensions.len() as u8];
        for dimension in dimensions {
            bytes.extend(dimension.to_be_bytes());
        }
        bytes.extend(elements);
        bytes
    }

    /// Images that are black on the left and as bright as their number on the right.
    fn images(count: u8) -> Vec<u8> {
        let image = |n: u8| (0..28 * 28).map(move |at| if at % 28 < 14 { 0 } else { n * 20 });
        idx(&[i32::from(count), 28, 28], &(0..count).flat_map(image).collect::<Vec<u8>>())
    }

    fn labels(count: u8) -> Vec<u8> {
        idx(&[i32::from(count)], &(0..count).map(|n| n % 10).collect::<Vec<u8>>())
    }

    fn split<'a>(images: &'a [u8], labels: &'a [u8]) -> Split<'a> {
        Split { images: Box::new(images), labels: Box::new(labels) }
    }

    #[test]
    fn a_dataset_is_files_and_their_tables() {
        let folder = tempfile::tempdir().unwrap();
        let (some, few) = ((images(12), labels(12)), (images(3), labels(3)));
        let mut heard = Vec::new();
        let dataset = write_dataset(
            &folder.path().join("mnist"),
            split(&some.0, &some.1),
            split(&few.0, &few.1),
            &mut |images| {
                heard.push(images);
                true
            },
        )
        .unwrap();
        assert_eq!((dataset.train_images, dataset.test_images), (12, 3));
        assert_eq!(heard, [12, 15]);
        let table = fs::read_to_string(&dataset.table).unwrap();
        let last = table.lines().last().unwrap();
        let path = dataset.folder.join("train_data/11.jpg");
        assert_eq!(last, format!("{},11.jpg,1", path.display()));
        assert_eq!(fs::read_to_string(&dataset.test_table).unwrap().lines().count(), 4);
        let spec = InputSpec { size: 28, color: Color::Gray };
        let sources = [ImageSource::Path(path)];
        let (set, failures) = load_images(&sources, spec, &ImageLimits::default(), &|| false);
        assert_eq!((set.len(), failures.len()), (1, 0));
    }

    #[test]
    fn malformed_files_leave_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("mnist");
        let fine = (images(3), labels(3));
        let check = |images: &[u8], labels: &[u8], stop: bool| {
            let outcome =
                write_dataset(&place, split(&fine.0, &fine.1), split(images, labels), &mut |_| {
                    !stop
                });
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
            outcome.unwrap_err()
        };
        check(&images(2), &labels(3), false);
        check(&labels(3), &labels(3), false);
        check(&fine.0[..fine.0.len() - 1], &labels(3), false);
        check(&[fine.0.as_slice(), b"x"].concat(), &labels(3), false);
        check(&idx(&[-1, 28, 28], &[]), &idx(&[-1], &[]), false);
        check(&idx(&[i32::MAX, 28, 28], &[]), &idx(&[i32::MAX], &[]), false);
        check(b"", b"", false);
        assert!(matches!(check(&fine.0, &fine.1, true), MlError::Stopped));
    }
}
