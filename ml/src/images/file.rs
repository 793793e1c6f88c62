//! Decoded images in a file, for sets that memory should not hold.
//!
//! The file has no name: it is gone with its last user, and also after a crash. Images lie in it as in an [`ImageSet`], one after another, so that a
//! batch in random order is a read an image; decoding, the expensive part, is done once.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::load::load_images;
use super::{ImageFailure, ImageLimits, ImageSet, ImageSource, Images, InputSpec};
use crate::error::MlError;

/// Bytes of pixels that are decoded before they are written.
const PIECE_BYTES: usize = 32 << 20;

/// Images that are kept in a file.
#[derive(Debug)]
pub struct ImageFile {
    spec: InputSpec,
    count: usize,
    file: File,
    folder: PathBuf,
}

/// Decodes images as [`load_images`] does, into memory if they take at most `memory` bytes there, else into a file in `folder`.
///
/// # Errors
///
/// [`MlError::Io`] if the file cannot be made or written.
pub fn load_images_within(
    sources: &[ImageSource],
    spec: InputSpec,
    limits: &ImageLimits,
    memory: u64,
    folder: &Path,
    stop: &(dyn Fn() -> bool + Sync),
) -> Result<(Box<dyn Images>, Vec<ImageFailure>), MlError> {
    let bytes = (sources.len() as u64).saturating_mul(spec.image_len() as u64);
    if bytes <= memory {
        let (images, failures) = load_images(sources, spec, limits, stop);
        return Ok((Box::new(images), failures));
    }
    let mut images = ImageFile::new(spec, folder)?;
    let mut failures = Vec::new();
    let piece = (PIECE_BYTES / spec.image_len().max(1)).max(1);
    for (index, sources) in sources.chunks(piece).enumerate() {
        if stop() {
            break;
        }
        let (decoded, failed) = load_images(sources, spec, limits, stop);
        images.append(&decoded)?;
        failures.extend(failed.into_iter().map(|failure| ImageFailure {
            index: index * piece + failure.index,
            error: failure.error,
        }));
    }
    Ok((Box::new(images), failures))
}

impl ImageFile {
    /// An empty one in a folder.
    ///
    /// # Errors
    ///
    /// [`MlError::Io`] if no file can be made there.
    pub fn new(spec: InputSpec, folder: &Path) -> Result<ImageFile, MlError> {
        let folder = folder.to_owned();
        match tempfile::tempfile_in(&folder) {
            Ok(file) => Ok(ImageFile { spec, count: 0, file, folder }),
            Err(source) => Err(MlError::Io { path: folder, source }),
        }
    }

    /// Adds images of its shape at the end.
    ///
    /// # Errors
    ///
    /// [`MlError::InputMismatch`], and [`MlError::Io`] if they cannot be written.
    pub fn append(&mut self, images: &ImageSet) -> Result<(), MlError> {
        if images.spec() != self.spec {
            return Err(MlError::InputMismatch { expected: self.spec, found: images.spec() });
        }
        // Nothing is read before the last are added: the file's own position is its end.
        self.file.write_all(images.pixels()).map_err(|source| self.failed(source))?;
        self.count += images.len();
        Ok(())
    }

    fn failed(&self, source: io::Error) -> MlError {
        MlError::Io { path: self.folder.clone(), source }
    }
}

impl Images for ImageFile {
    fn spec(&self) -> InputSpec {
        self.spec
    }

    fn len(&self) -> usize {
        self.count
    }

    fn fetch(&self, places: &[usize]) -> Result<ImageSet, MlError> {
        let image_len = self.spec.image_len();
        let mut pixels = vec![0; places.len() * image_len];
        if image_len > 0 {
            pixels
                .par_chunks_exact_mut(image_len)
                .zip(places)
                .try_for_each(|(pixels, &place)| {
                    assert!(place < self.count, "image {place} of {}", self.count);
                    read_at(&self.file, pixels, place as u64 * image_len as u64)
                })
                .map_err(|source| self.failed(source))?;
        }
        Ok(ImageSet { spec: self.spec, pixels })
    }
}

#[cfg(unix)]
fn read_at(file: &File, target: &mut [u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, target, offset)
}

#[cfg(windows)]
fn read_at(file: &File, mut target: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !target.is_empty() {
        let count = std::os::windows::fs::FileExt::seek_read(file, target, offset)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        target = &mut target[count..];
        offset += count as u64;
    }
    Ok(())
}
