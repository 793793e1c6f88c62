//! One image: from a file or bytes to upright 8-bit pixels.
//!
//! The order is what makes hostile input cheap: the size of the file is asked before it is read, width and height are taken
//! from the header before anything is allocated for pixels, and only then is the image decoded. The decoders
//! are other people's code that reads strangers' bytes; a panic in one is caught here and becomes a broken image.

use std::any::Any;
use std::fs::File;
use std::io::{Cursor, ErrorKind, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageReader, Limits};

use super::{
    Color, ImageBytes, ImageError, ImageFormat, ImageInfo, ImageLimits, ImageSource, gate, jpeg,
};

/// Reads an image's header: size, channels, format. Decodes nothing.
///
/// # Errors
/// All of [`ImageError`] that concern one image; a file that is cut off after its header is not noticed.
pub fn probe(source: &ImageSource, limits: &ImageLimits) -> Result<ImageInfo, ImageError> {
    let content = Content::read(source, limits)?;
    walled(&content.name, || content.header(limits).map(|(info, _, _)| info))
}

/// An image's original bytes, after a look at its header.
///
/// # Errors
/// As [`probe`].
pub fn image_bytes(source: &ImageSource, limits: &ImageLimits) -> Result<ImageBytes, ImageError> {
    let content = Content::read(source, limits)?;
    let info = walled(&content.name, || content.header(limits).map(|(info, _, _)| info))?;
    Ok(ImageBytes {
        media_type: info.format.media_type(),
        width: info.width,
        height: info.height,
        bytes: content.bytes.into_owned(),
    })
}

/// An upright image of 8 bits a sample, without alpha.
pub(super) struct Pixels {
    /// Of the whole image; it may have been decoded at a reduced size.
    pub(super) info: ImageInfo,
    pub(super) width: u32,
    pub(super) height: u32,
    /// Says how many samples a pixel has.
    pub(super) color: Color,
    /// `[height, width, channels]`.
    pub(super) samples: Vec<u8>,
}

impl Pixels {
    /// The same image in the channels asked for.
    pub(super) fn into_color(self, color: Color) -> Pixels {
        let samples = match (self.color, color) {
            (Color::Gray, Color::Gray) | (Color::Rgb, Color::Rgb) => self.samples,
            (Color::Rgb, Color::Gray) => {
                self.samples.as_chunks::<3>().0.iter().map(|&pixel| luma(pixel)).collect()
            }
            (Color::Gray, Color::Rgb) => self.samples.iter().flat_map(|&gray| [gray; 3]).collect(),
        };
        Pixels { color, samples, ..self }
    }

    /// True if no pixel has a hue. JPEG's rounding may part the channels of a grey pixel by a step or two.
    pub(super) fn is_gray(&self) -> bool {
        match self.color {
            Color::Gray => true,
            Color::Rgb => self.samples.as_chunks::<3>().0.iter().all(|pixel| {
                let [red, green, blue] = *pixel;
                red.abs_diff(green) <= 2 && green.abs_diff(blue) <= 2 && red.abs_diff(blue) <= 2
            }),
        }
    }
}

/// Decodes an image that is within its limits, at a reduced size where the format has one whose shorter side is at least `least_side`. Waits until there is room
/// for its pixels among those of other threads.
///
/// # Errors
/// All of [`ImageError`] that concern one image.
pub(super) fn decode(
    source: &ImageSource,
    limits: &ImageLimits,
    least_side: u32,
) -> Result<Pixels, ImageError> {
    let content = Content::read(source, limits)?;
    walled(&content.name, || content.decode(limits, least_side))
}

/// Turns a decoder's panic into an error of its image.
fn walled<T>(name: &str, work: impl FnOnce() -> Result<T, ImageError>) -> Result<T, ImageError> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => result,
        Err(panic) => Err(ImageError::Broken {
            name: name.to_owned(),
            reason: format!("the decoder gave up: {}", panic_text(&*panic)),
        }),
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    match (panic.downcast_ref::<&'static str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => text,
        (None, Some(text)) => text,
        (None, None) => "no reason given",
    }
}

/// The bytes of an image and what to call it in an error.
struct Content<'a> {
    name: String,
    bytes: std::borrow::Cow<'a, [u8]>,
}

impl<'a> Content<'a> {
    fn read(source: &'a ImageSource, limits: &ImageLimits) -> Result<Content<'a>, ImageError> {
        let content = match source {
            ImageSource::Path(path) => {
                Content { name: path.display().to_string(), bytes: read_file(path, limits)?.into() }
            }
            ImageSource::Bytes(bytes) => {
                Content { name: "the image value".to_owned(), bytes: bytes.as_slice().into() }
            }
        };
        check_bytes(&content.name, content.bytes.len() as u64, limits)?;
        Ok(content)
    }

    /// What the header says, and the decoder that stands behind it.
    fn header(
        &self,
        limits: &ImageLimits,
    ) -> Result<(ImageInfo, Orientation, impl ImageDecoder + '_), ImageError> {
        let format = self.format()?;
        let mut reader =
            ImageReader::with_format(Cursor::new(&*self.bytes), library_format(format));
        reader.limits(library_limits(limits));
        let mut decoder =
            reader.into_decoder().map_err(|error| self.header_error(format, error))?;
        let (width, height) = decoder.dimensions();
        self.check_size(width, height, limits)?;
        let may_be_turned = format != ImageFormat::Jpeg || jpeg::has_exif(&self.bytes);
        let orientation = match may_be_turned {
            true => decoder.orientation().unwrap_or(Orientation::NoTransforms),
            false => Orientation::NoTransforms,
        };
        let (width, height) =
            if swaps_sides(orientation) { (height, width) } else { (width, height) };
        let color = if decoder.color_type().has_color() { Color::Rgb } else { Color::Gray };
        Ok((ImageInfo { width, height, color, format }, orientation, decoder))
    }

    fn decode(&self, limits: &ImageLimits, least_side: u32) -> Result<Pixels, ImageError> {
        let (info, orientation, decoder) = self.header(limits)?;
        let is_jpeg = info.format == ImageFormat::Jpeg;
        if is_jpeg {
            jpeg::check_complete(&self.bytes).map_err(|reason| self.broken(reason))?;
        }
        let pixels = u64::from(info.width) * u64::from(info.height);
        let _room = gate::enter(pixels, limits.max_pixels);
        // If that decoder panics, the other one decides what becomes of the image.
        let reduced = || jpeg::decode_reduced(&self.bytes, decoder.dimensions(), least_side);
        let reduced = is_jpeg.then(|| catch_unwind(AssertUnwindSafe(reduced)).ok().flatten());
        let mut image = match reduced.flatten() {
            Some(image) => image,
            None => {
                DynamicImage::from_decoder(decoder).map_err(|error| self.library_error(error))?
            }
        };
        image.apply_orientation(orientation);
        let (width, height) = (image.width(), image.height());
        let (color, samples) = flatten(image);
        Ok(Pixels { info, width, height, color, samples })
    }

    fn format(&self) -> Result<ImageFormat, ImageError> {
        let starts = |signature: &[u8]| self.bytes.starts_with(signature);
        if starts(&[0xff, 0xd8, 0xff]) {
            Ok(ImageFormat::Jpeg)
        } else if starts(b"\x89PNG\r\n\x1a\n") {
            Ok(ImageFormat::Png)
        } else if starts(b"RIFF") && self.bytes.get(8..12) == Some(b"WEBP") {
            Ok(ImageFormat::WebP)
        } else if starts(b"GIF87a") || starts(b"GIF89a") {
            Ok(ImageFormat::Gif)
        } else if starts(b"BM") {
            Ok(ImageFormat::Bmp)
        } else if matches!(*self.bytes, [b'P', b'1'..=b'7', separator, ..] if separator.is_ascii_whitespace() || separator == b'#')
        {
            Ok(ImageFormat::Pnm)
        } else {
            Err(ImageError::NotAnImage { name: self.name.clone() })
        }
    }

    fn check_size(&self, width: u32, height: u32, limits: &ImageLimits) -> Result<(), ImageError> {
        if width == 0 || height == 0 {
            return Err(self.broken("it has no pixels"));
        }
        let pixels = u64::from(width) * u64::from(height);
        if width.max(height) > limits.max_side {
            Err(self.too_large(format!(
                "{width} x {height} pixels, at most {} a side are allowed",
                limits.max_side
            )))
        } else if pixels > limits.max_pixels {
            Err(self.too_large(format!(
                "{width} x {height} pixels, at most {} in all are allowed",
                limits.max_pixels
            )))
        } else {
            Ok(())
        }
    }

    /// Two letters are no proof: text may well begin with those of a bitmap, so there a bad header means that it was none.
    fn header_error(&self, format: ImageFormat, error: image::ImageError) -> ImageError {
        let error = self.library_error(error);
        match (format, &error) {
            (ImageFormat::Bmp | ImageFormat::Pnm, ImageError::Broken { .. }) => {
                ImageError::NotAnImage { name: self.name.clone() }
            }
            _ => error,
        }
    }

    fn library_error(&self, error: image::ImageError) -> ImageError {
        match error {
            image::ImageError::Limits(limit) => self.too_large(limit.to_string()),
            image::ImageError::IoError(error) if error.kind() == ErrorKind::UnexpectedEof => {
                self.broken("the file ends too early")
            }
            image::ImageError::Decoding(_)
            | image::ImageError::Encoding(_)
            | image::ImageError::Parameter(_)
            | image::ImageError::Unsupported(_)
            | image::ImageError::IoError(_) => self.broken(error.to_string()),
        }
    }

    fn broken(&self, reason: impl Into<String>) -> ImageError {
        ImageError::Broken { name: self.name.clone(), reason: reason.into() }
    }

    fn too_large(&self, reason: String) -> ImageError {
        ImageError::TooLarge { name: self.name.clone(), reason }
    }
}

/// Reads a file that is one, up to the limit. Looks before it opens: opening a pipe would wait for its writer.
fn read_file(path: &Path, limits: &ImageLimits) -> Result<Vec<u8>, ImageError> {
    let failed = |source: std::io::Error| {
        // What could not be a file's name names no file either.
        if matches!(
            source.kind(),
            ErrorKind::NotFound
                | ErrorKind::NotADirectory
                | ErrorKind::InvalidInput
                | ErrorKind::InvalidFilename
        ) {
            ImageError::Missing { path: path.to_owned() }
        } else {
            ImageError::Io { path: path.to_owned(), source }
        }
    };
    let metadata = std::fs::metadata(path).map_err(failed)?;
    if !metadata.is_file() {
        return Err(ImageError::NotAFile { path: path.to_owned() });
    }
    check_bytes(&path.display().to_string(), metadata.len(), limits)?;
    // Room for what it holds and one byte more, which is how a reader finds the end: no second allocation.
    let mut bytes = Vec::with_capacity(usize::try_from(metadata.len() + 1).unwrap_or(0));
    let file = File::open(path).map_err(failed)?;
    // The file may grow while it is read: one byte over the limit is enough to know.
    file.take(limits.max_bytes.saturating_add(1)).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

fn check_bytes(name: &str, bytes: u64, limits: &ImageLimits) -> Result<(), ImageError> {
    if bytes > limits.max_bytes {
        let reason = format!("{bytes} bytes, at most {} are allowed", limits.max_bytes);
        return Err(ImageError::TooLarge { name: name.to_owned(), reason });
    }
    Ok(())
}

/// The decoders' own limits: a second fence behind ours, and the only one around what they allocate for themselves.
fn library_limits(limits: &ImageLimits) -> Limits {
    let mut library = Limits::no_limits();
    // Eight bytes a pixel is the widest that is decoded (16 bits, alpha); as much again is the decoder's to work with.
    library.max_alloc = Some(limits.max_pixels.saturating_mul(16).saturating_add(1 << 20));
    library
}

fn library_format(format: ImageFormat) -> image::ImageFormat {
    match format {
        ImageFormat::Jpeg => image::ImageFormat::Jpeg,
        ImageFormat::Png => image::ImageFormat::Png,
        ImageFormat::WebP => image::ImageFormat::WebP,
        ImageFormat::Bmp => image::ImageFormat::Bmp,
        ImageFormat::Gif => image::ImageFormat::Gif,
        ImageFormat::Pnm => image::ImageFormat::Pnm,
    }
}

fn swaps_sides(orientation: Orientation) -> bool {
    match orientation {
        Orientation::Rotate90
        | Orientation::Rotate270
        | Orientation::Rotate90FlipH
        | Orientation::Rotate270FlipH => true,
        Orientation::NoTransforms
        | Orientation::Rotate180
        | Orientation::FlipHorizontal
        | Orientation::FlipVertical => false,
    }
}

/// 8 bits, one or three channels, on white.
fn flatten(image: DynamicImage) -> (Color, Vec<u8>) {
    if let DynamicImage::ImageLuma8(gray) = image {
        return (Color::Gray, gray.into_raw());
    }
    if let DynamicImage::ImageRgb8(rgb) = image {
        return (Color::Rgb, rgb.into_raw());
    }
    let color = image.color();
    match (color.has_color(), color.has_alpha()) {
        (false, false) => (Color::Gray, image.into_luma8().into_raw()),
        (true, false) => (Color::Rgb, image.into_rgb8().into_raw()),
        (false, true) => {
            let samples = image.into_luma_alpha8().into_raw();
            (
                Color::Gray,
                samples
                    .as_chunks::<2>()
                    .0
                    .iter()
                    .map(|&[gray, alpha]| on_white(gray, alpha))
                    .collect(),
            )
        }
        (true, true) => {
            let samples = image.into_rgba8().into_raw();
            let blend = |&[red, green, blue, alpha]: &[u8; 4]| {
                [red, green, blue].map(|sample| on_white(sample, alpha))
            };
            (Color::Rgb, samples.as_chunks::<4>().0.iter().flat_map(blend).collect())
        }
    }
}

fn on_white(sample: u8, alpha: u8) -> u8 {
    let (sample, alpha) = (u32::from(sample), u32::from(alpha));
    let mixed = (sample * alpha + 255 * (255 - alpha) + 127) / 255;
    u8::try_from(mixed).unwrap_or(u8::MAX)
}

/// BT.601 luma in thousandths, rounded.
fn luma([red, green, blue]: [u8; 3]) -> u8 {
    let weighted = 299 * u32::from(red) + 587 * u32::from(green) + 114 * u32::from(blue);
    u8::try_from((weighted + 500) / 1000).unwrap_or(u8::MAX)
}
