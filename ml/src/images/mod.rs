//! Images: what the rest of the crate knows about files and pixels.
//!
//! An image comes from a file or from bytes, is checked against [`ImageLimits`] by its header alone, decoded,
//! turned upright, made square, and stands as bytes in an [`ImageSet`], `[count, channels, height, width]`. That is the form
//! which training and embedding keep on their device; nothing after this module knows about formats or colour models. A set that memory should not hold
//! lies in an [`ImageFile`]; both are [`Images`].
//!
//! Rules, and why:
//!
//! - The format is told by content: files arrive with wrong names, and a name must not choose a decoder.
//! - An image that is cut off is an error and never a picture with a grey lower half: what a model learns from must be what was meant.
//! - Transparent parts lie on white, as a browser or a page shows them: dark drawings on nothing are more common than light ones.
//! - A large JPEG is decoded at the smallest of an eighth, a quarter and half of its size that is no smaller than what is asked for.
//! - EXIF orientation is followed, so that an image means what its viewer sees.
//! - Grey is JPEG's luma (BT.601): a colour image then has the pixels that its grey JPEG would hold.
//! - The square is the centre of the image. Padding would keep the margins, but its bars show the aspect ratio of the original, and a
//!   contrastive loss is quick to tell images apart by their bars instead of by what they show.
//!
//! Left out on purpose: animation (the first frame is taken), colour management (pixels are taken as sRGB) and
//! writing of images (see [`crate::digits`], which draws its own).

mod decode;
mod file;
mod gate;
mod jpeg;
mod load;
mod preview;

#[cfg(test)]
mod tests;

use std::path::PathBuf;

use crate::error::MlError;

pub use decode::{image_bytes, probe};
pub use file::{ImageFile, load_images_within};
pub use load::{choose_input_spec, load_images};
pub use preview::preview;

/// Raised whenever the same files may give other pixels than before: what rests on pixels from then begins anew.
pub const DECODING_VERSION: u32 = 1;

/// What an image may cost at most. All three are checked before anything is decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageLimits {
    /// Largest file or value, in bytes.
    pub max_bytes: u64,
    /// Most pixels, width times height. All images that are being decoded at the same time share as many.
    pub max_pixels: u64,
    /// Largest width or height, in pixels.
    pub max_side: u32,
}

impl Default for ImageLimits {
    fn default() -> Self {
        ImageLimits { max_bytes: 64 * 1024 * 1024, max_pixels: 64 * 1024 * 1024, max_side: 16_384 }
    }
}

/// Where an image's bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageSource {
    /// A file. Whether it may be read was decided by whoever made this value.
    Path(PathBuf),
    /// The bytes of a file, as they come in a column or a parameter.
    Bytes(Vec<u8>),
}

/// Smallest side of a model's input, in pixels.
pub const MIN_INPUT_SIZE: u32 = 8;

/// Largest side of a model's input, in pixels.
pub const MAX_INPUT_SIZE: u32 = 1024;

/// The channels that a model looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Color {
    /// One channel, luma.
    Gray,
    /// Three channels: red, green, blue.
    Rgb,
}

impl Color {
    /// Number of channels.
    pub fn channels(self) -> usize {
        match self {
            Color::Gray => 1,
            Color::Rgb => 3,
        }
    }
}

/// The shape of one image as a model sees it: `[channels, size, size]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct InputSpec {
    /// Side of the square, in pixels.
    pub size: u32,
    /// Channels.
    pub color: Color,
}

impl InputSpec {
    /// Bytes of one image.
    pub fn image_len(self) -> usize {
        self.color.channels() * self.size as usize * self.size as usize
    }
}

/// Decoded images of one shape: one byte a sample, `[count, channels, height, width]`, contiguous.
#[derive(Clone, PartialEq, Eq)]
pub struct ImageSet {
    spec: InputSpec,
    pixels: Vec<u8>,
}

impl ImageSet {
    /// Takes pixels laid out as `[count, channels, height, width]`. None if they are no whole number of images.
    pub fn new(spec: InputSpec, pixels: Vec<u8>) -> Option<ImageSet> {
        let image_len = spec.image_len();
        let whole =
            if image_len == 0 { pixels.is_empty() } else { pixels.len().is_multiple_of(image_len) };
        whole.then_some(ImageSet { spec, pixels })
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.pixels.len().checked_div(self.spec.image_len()).unwrap_or(0)
    }

    /// True if there is no image.
    pub fn is_empty(&self) -> bool {
        self.pixels.is_empty()
    }

    /// The shape of each image.
    pub fn spec(&self) -> InputSpec {
        self.spec
    }

    /// `[count, channels, height, width]`.
    pub fn shape(&self) -> [usize; 4] {
        let side = self.spec.size as usize;
        [self.len(), self.spec.color.channels(), side, side]
    }

    /// All samples, `[count, channels, height, width]`.
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// All samples, without a copy.
    pub fn into_pixels(self) -> Vec<u8> {
        self.pixels
    }

    /// One image, `[channels, height, width]`. Panics if there is no such image, as a slice would.
    pub fn image(&self, index: usize) -> &[u8] {
        let image_len = self.spec.image_len();
        &self.pixels[index * image_len..(index + 1) * image_len]
    }

    /// The images from `start` up to `end`, `[end - start, channels, height, width]`. Panics if they are not there.
    pub fn range(&self, start: usize, end: usize) -> &[u8] {
        let image_len = self.spec.image_len();
        &self.pixels[start * image_len..end * image_len]
    }

    /// The images at these places, in this order. Panics if one is not there.
    pub fn select(&self, indices: &[usize]) -> ImageSet {
        let mut pixels = Vec::with_capacity(indices.len() * self.spec.image_len());
        for &index in indices {
            pixels.extend_from_slice(self.image(index));
        }
        ImageSet { spec: self.spec, pixels }
    }
}

/// Decoded images of one shape, in memory or not: what a training learns from.
pub trait Images: Send + Sync {
    /// The shape of each image.
    fn spec(&self) -> InputSpec;

    /// Number of images.
    fn len(&self) -> usize;

    /// True if there is no image.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The images at these places, in this order. Panics if one is not there.
    ///
    /// # Errors
    ///
    /// [`MlError::Io`] if they cannot be read from where they are.
    fn fetch(&self, places: &[usize]) -> Result<ImageSet, MlError>;

    /// Hands all images to `see`, in their order, some at a time. The bytes of all but the last some are a multiple of eight.
    ///
    /// # Errors
    ///
    /// As [`fetch`](Self::fetch), and the first error of `see`.
    fn each(&self, see: &mut dyn FnMut(&ImageSet) -> Result<(), MlError>) -> Result<(), MlError> {
        let at_once = (EACH_BYTES / self.spec().image_len().max(1)).next_multiple_of(8).max(8);
        for start in (0..self.len()).step_by(at_once) {
            let places: Vec<usize> = (start..self.len().min(start + at_once)).collect();
            see(&self.fetch(&places)?)?;
        }
        Ok(())
    }
}

/// Bytes that [`Images::each`] shows at a time, about.
const EACH_BYTES: usize = 1 << 20;

impl Images for ImageSet {
    fn spec(&self) -> InputSpec {
        self.spec
    }

    fn len(&self) -> usize {
        ImageSet::len(self)
    }

    fn fetch(&self, places: &[usize]) -> Result<ImageSet, MlError> {
        Ok(self.select(places))
    }
}

impl std::fmt::Debug for ImageSet {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("ImageSet").field("shape", &self.shape()).finish_non_exhaustive()
    }
}

/// The formats that are read. They are told apart by content, never by a file's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ImageFormat {
    /// JPEG, baseline and progressive.
    Jpeg,
    /// PNG.
    Png,
    /// WebP, lossy and lossless.
    WebP,
    /// Windows bitmap.
    Bmp,
    /// GIF, its first frame.
    Gif,
    /// Netpbm: PBM, PGM, PPM, PAM.
    Pnm,
}

impl ImageFormat {
    /// The MIME type.
    pub fn media_type(self) -> &'static str {
        match self {
            ImageFormat::Jpeg => "image/jpeg",
            ImageFormat::Png => "image/png",
            ImageFormat::WebP => "image/webp",
            ImageFormat::Bmp => "image/bmp",
            ImageFormat::Gif => "image/gif",
            ImageFormat::Pnm => "image/x-portable-anymap",
        }
    }
}

/// What an image's header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageInfo {
    /// Width in pixels, after the image was turned upright.
    pub width: u32,
    /// Height in pixels, after the image was turned upright.
    pub height: u32,
    /// Whether the file holds one channel or three (alpha not counted).
    pub color: Color,
    /// The format found in the content.
    pub format: ImageFormat,
}

/// Why one image could not be had.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// There is no such file.
    #[error("image file {} does not exist", .path.display())]
    Missing {
        /// The file asked for.
        path: PathBuf,
    },
    /// The path names a folder, a socket or another thing that is no file.
    #[error("{} is not a file", .path.display())]
    NotAFile {
        /// The path asked for.
        path: PathBuf,
    },
    /// The content is in none of the formats that are read.
    #[error("{name} is not a JPEG, PNG, WebP, BMP, GIF or PNM image")]
    NotAnImage {
        /// The file, or "the image value" for bytes.
        name: String,
    },
    /// The content starts as an image and does not go on as one.
    #[error("{name} is a broken image: {reason}")]
    Broken {
        /// The file, or "the image value" for bytes.
        name: String,
        /// What the decoder found.
        reason: String,
    },
    /// The image is over one of the limits.
    #[error("{name} is too large: {reason}")]
    TooLarge {
        /// The file, or "the image value" for bytes.
        name: String,
        /// Which limit, and by how much.
        reason: String,
    },
    /// An input spec was asked for and there was nothing to choose it by.
    #[error("there are no images")]
    NoImages,
    /// A side that no encoder takes.
    #[error("image size {size} is not between {} and {}", MIN_INPUT_SIZE, MAX_INPUT_SIZE)]
    BadSize {
        /// The side asked for, in pixels.
        size: u32,
    },
    /// The file could not be read, or a file could not be written.
    #[error("could not access {}", .path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
}

/// An image of a list that could not be had.
#[derive(Debug)]
pub struct ImageFailure {
    /// Its place in the list.
    pub index: usize,
    /// Why.
    pub error: ImageError,
}

/// An image as a terminal can show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preview {
    /// The MIME type of the original.
    pub media_type: &'static str,
    /// Width of the original in pixels.
    pub width: u32,
    /// Height of the original in pixels.
    pub height: u32,
    /// The drawing: lines of block characters, parted by line feeds, without colour codes.
    pub text: String,
}

/// An image's original bytes and what they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageBytes {
    /// The MIME type.
    pub media_type: &'static str,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// The file as it is.
    pub bytes: Vec<u8>,
}
