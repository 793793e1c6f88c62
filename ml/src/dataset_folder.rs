//! Datasets of images on disk, as the tutorial of MNIST has them: `train_data/<id>.jpg`, `test/<id>.jpg`, and tables with the
//! columns `img_path,filename,label`.
//!
//! A dataset appears whole or not at all: everything is written beside its place and renamed.

use std::fs;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use image::ExtendedColorType;
use image::codecs::jpeg::JpegEncoder;

use crate::MlError;

/// Folder of the images to train with.
pub(crate) const TRAIN_FOLDER: &str = "train_data";
/// Folder of the images to search with.
pub(crate) const TEST_FOLDER: &str = "test";

/// JPEG quality: high enough that strokes keep their edges.
const QUALITY: u8 = 92;

/// The name of an image's file.
pub(crate) fn image_name(id: usize) -> String {
    format!("{id}.jpg")
}

pub(crate) fn io_error(path: &Path) -> impl FnOnce(io::Error) -> MlError {
    let path = path.to_owned();
    move |source| MlError::Io { path, source }
}

/// The folder's absolute path, links in its parent resolved, and its parent made. The paths in the table are then those that a
/// server which resolves links compares with.
pub(crate) fn absolute(folder: &Path) -> Result<PathBuf, MlError> {
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

/// True if there is something to replace: an empty folder, or an earlier dataset, which has this table. An error if it is
/// not ours to replace.
pub(crate) fn is_replaceable(folder: &Path, table: &str) -> Result<bool, MlError> {
    let mut entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(io_error(folder)(error)),
    };
    if entries.next().is_none() || folder.join(table).is_file() {
        return Ok(true);
    }
    Err(io_error(folder)(io::Error::new(
        io::ErrorKind::AlreadyExists,
        "the folder holds something else than this dataset",
    )))
}

/// The dataset while it is written, beside its place. Dropped unfinished, it leaves nothing behind.
pub(crate) struct Unfinished {
    pub(crate) path: PathBuf,
    retired: PathBuf,
}

impl Unfinished {
    /// Makes the folder with its two folders of images.
    pub(crate) fn create(folder: &Path) -> Result<Unfinished, MlError> {
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

    /// Puts the dataset in its place.
    pub(crate) fn finish(self, folder: &Path, replaces: bool) -> Result<(), MlError> {
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

/// A grey image as a JPEG file.
pub(crate) fn encoded(pixels: &[u8], width: usize, height: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(1024);
    JpegEncoder::new_with_quality(&mut bytes, QUALITY)
        .encode(pixels, width as u32, height as u32, ExtendedColorType::L8)
        .expect("a small grey image is encoded into memory");
    bytes
}

/// Writes a table of images and their labels.
pub(crate) fn write_table<'a>(
    table: &Path,
    rows: impl Iterator<Item = (&'a Path, u8)>,
) -> Result<(), MlError> {
    let write = || -> io::Result<()> {
        let mut out = BufWriter::new(fs::File::create(table)?);
        writeln!(out, "img_path,filename,label")?;
        for (path, label) in rows {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            writeln!(out, "{},{name},{label}", csv_field(&path.to_string_lossy()))?;
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
