//! Many images: choosing the shape that suits them, and decoding them in parallel into one [`ImageSet`].

use std::ops::Range;

use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};
use rayon::prelude::*;

use super::decode::{Pixels, decode, probe};
use super::{
    Color, ImageError, ImageFailure, ImageLimits, ImageSet, ImageSource, InputSpec, MAX_INPUT_SIZE,
    MIN_INPUT_SIZE,
};

/// How many images are looked at to choose a shape.
const SAMPLES: usize = 64;

/// Up to this side images are taken as they are: scaling them up would add nothing but work.
const SMALL_SIDE: u32 = 64;

/// Above it the side is a multiple of this, so that an encoder's five halvings come out even.
const LARGE_STEP: u32 = 32;

/// The side that ResNets are trained at.
const LARGE_SIDE: u32 = 224;

/// The shape that suits these images, from a look at some of them, spread evenly.
///
/// Grey if none of them shows a hue, whatever their files could hold. The side is the middle one of their short sides: as it is
/// up to 64 pixels, else rounded up to a multiple of 32, at most 224. What the caller fixes is not looked for.
///
/// # Errors
/// [`ImageError::NoImages`] for an empty list, [`ImageError::BadSize`], and if no image could be read the first one's error. An image among
/// readable ones that is not is left to [`load_images`], which says so.
pub fn choose_input_spec(
    sources: &[ImageSource],
    size: Option<u32>,
    color: Option<Color>,
    limits: &ImageLimits,
) -> Result<InputSpec, ImageError> {
    if let Some(size) = size
        && !(MIN_INPUT_SIZE..=MAX_INPUT_SIZE).contains(&size)
    {
        return Err(ImageError::BadSize { size });
    }
    if let (Some(size), Some(color)) = (size, color) {
        return Ok(InputSpec { size, color });
    }
    let sampled: Vec<&ImageSource> =
        sample_places(sources.len()).map(|place| &sources[place]).collect();
    let seen: Vec<Result<(u32, bool), ImageError>> =
        sampled.par_iter().map(|source| look_at(source, color, limits)).collect();
    let mut short_sides = Vec::with_capacity(seen.len());
    let mut all_gray = true;
    let mut first_error = None;
    for look in seen {
        match look {
            Ok((short_side, gray)) => {
                short_sides.push(short_side);
                all_gray &= gray;
            }
            Err(error) => first_error = first_error.or(Some(error)),
        }
    }
    if short_sides.is_empty() {
        return Err(first_error.unwrap_or(ImageError::NoImages));
    }
    short_sides.sort_unstable();
    let middle = short_sides[short_sides.len() / 2];
    Ok(InputSpec {
        size: size.unwrap_or_else(|| suitable_side(middle)),
        color: color.unwrap_or(if all_gray { Color::Gray } else { Color::Rgb }),
    })
}

/// Decodes images in parallel, each made upright, square and of the spec's size and channels.
///
/// Answers with the readable ones in their order and with the others' errors, also in order. `stop` is asked before every image; once
/// it says true no further image is read, and those are in neither answer: a caller that stops throws both away.
pub fn load_images(
    sources: &[ImageSource],
    spec: InputSpec,
    limits: &ImageLimits,
    stop: &(dyn Fn() -> bool + Sync),
) -> (ImageSet, Vec<ImageFailure>) {
    let image_len = spec.image_len();
    if image_len == 0 || sources.is_empty() {
        return (ImageSet { spec, pixels: Vec::new() }, Vec::new());
    }
    let mut pixels = vec![0_u8; sources.len() * image_len];
    let outcomes: Vec<Outcome> = pixels
        .par_chunks_exact_mut(image_len)
        .zip(sources)
        .map_init(Resizer::new, |resizer, (place, source)| {
            if stop() {
                return Outcome::Skipped;
            }
            match decode(source, limits, spec.size) {
                Ok(decoded) => {
                    write_square(decoded, spec, resizer, place);
                    Outcome::Read
                }
                Err(error) => Outcome::Failed(error),
            }
        })
        .collect();
    let mut failures = Vec::new();
    let mut kept = 0;
    for (index, outcome) in outcomes.into_iter().enumerate() {
        match outcome {
            Outcome::Read => {
                if kept < index {
                    pixels.copy_within(image_range(index, image_len), kept * image_len);
                }
                kept += 1;
            }
            Outcome::Failed(error) => failures.push(ImageFailure { index, error }),
            Outcome::Skipped => {}
        }
    }
    pixels.truncate(kept * image_len);
    (ImageSet { spec, pixels }, failures)
}

enum Outcome {
    Read,
    Failed(ImageError),
    Skipped,
}

fn image_range(index: usize, image_len: usize) -> Range<usize> {
    index * image_len..(index + 1) * image_len
}

fn sample_places(count: usize) -> impl Iterator<Item = usize> {
    let samples = count.min(SAMPLES);
    (0..samples).map(move |sample| sample * count / samples)
}

/// An image's short side and whether it is grey. Pixels are decoded only if the header leaves it open.
fn look_at(
    source: &ImageSource,
    color: Option<Color>,
    limits: &ImageLimits,
) -> Result<(u32, bool), ImageError> {
    let info = probe(source, limits)?;
    let gray = match (color, info.color) {
        (Some(Color::Gray), _) | (None, Color::Gray) => true,
        (Some(Color::Rgb), _) => false,
        (None, Color::Rgb) => decode(source, limits, LARGE_SIDE)?.is_gray(),
    };
    Ok((info.width.min(info.height), gray))
}

fn suitable_side(short_side: u32) -> u32 {
    if short_side <= SMALL_SIDE {
        short_side.max(MIN_INPUT_SIZE)
    } else {
        short_side.next_multiple_of(LARGE_STEP).min(LARGE_SIDE)
    }
}

/// Crops to the middle square, resizes, and writes `[channels, height, width]`.
fn write_square(decoded: Pixels, spec: InputSpec, resizer: &mut Resizer, place: &mut [u8]) {
    let decoded = decoded.into_color(spec.color);
    let samples = if (decoded.width, decoded.height) == (spec.size, spec.size) {
        decoded.samples
    } else {
        let pixel_type = match spec.color {
            Color::Gray => PixelType::U8,
            Color::Rgb => PixelType::U8x3,
        };
        // A triangle filter widened to the scale: no aliasing on the way down, no overshoot around strokes on the way up.
        let options = ResizeOptions::new()
            .resize_alg(ResizeAlg::Convolution(FilterType::Bilinear))
            .fit_into_destination(Some((0.5, 0.5)));
        let source = ImageRef::new(decoded.width, decoded.height, &decoded.samples, pixel_type)
            .expect("a decoded image has width x height x channels samples");
        let mut square = Image::new(spec.size, spec.size, pixel_type);
        resizer
            .resize(&source, &mut square, Some(&options))
            .expect("both images have the same pixel type");
        square.into_vec()
    };
    match spec.color {
        Color::Gray => place.copy_from_slice(&samples),
        Color::Rgb => {
            for (channel, plane) in place.chunks_exact_mut(samples.len() / 3).enumerate() {
                for (sample, pixel) in plane.iter_mut().zip(samples.as_chunks::<3>().0) {
                    *sample = pixel[channel];
                }
            }
        }
    }
}
