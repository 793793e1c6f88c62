//! Drawing an image in block characters, for a terminal.
//!
//! A character cell is about twice as high as it is wide, so it shows two pixels, one above the other: as half blocks where they differ,
//! as shades where both are in between. There are no colour codes: a client that draws a table around the picture counts
//! characters, and escape sequences would break its frame. Bright is drawn, dark is left blank, as on a dark terminal.

use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};

use super::decode::{Pixels, decode};
use super::{Color, ImageError, ImageLimits, ImageSource, Preview};

/// The characters, and how bright each shows the upper and the lower pixel (0 to 1).
const GLYPHS: [(char, f32, f32); 7] = [
    (' ', 0.0, 0.0),
    ('░', 0.25, 0.25),
    ('▒', 0.5, 0.5),
    ('▓', 0.75, 0.75),
    ('█', 1.0, 1.0),
    ('▀', 1.0, 0.0),
    ('▄', 0.0, 1.0),
];

/// Draws an image within `columns` x `rows` characters, its proportions kept; small ones are not enlarged.
///
/// # Errors
/// All of [`ImageError`] that concern one image.
pub fn preview(
    source: &ImageSource,
    limits: &ImageLimits,
    columns: u32,
    rows: u32,
) -> Result<Preview, ImageError> {
    let (columns, lines) = (columns.max(1), rows.max(1).saturating_mul(2));
    let decoded = decode(source, limits, columns.max(lines))?.into_color(Color::Gray);
    let info = decoded.info;
    let (width, height) = fitting(info.width, info.height, columns, lines);
    let samples = resized(decoded, width, height);
    Ok(Preview {
        media_type: info.format.media_type(),
        width: info.width,
        height: info.height,
        text: draw(&stretched(&samples), width as usize),
    })
}

/// The largest size of these proportions within the box, at least a pixel each way.
fn fitting(width: u32, height: u32, max_width: u32, max_height: u32) -> (u32, u32) {
    let scale = (f64::from(max_width) / f64::from(width))
        .min(f64::from(max_height) / f64::from(height))
        .min(1.0);
    let scaled = |side: u32, most: u32| ((f64::from(side) * scale).round() as u32).clamp(1, most);
    (scaled(width, max_width), scaled(height, max_height))
}

fn resized(decoded: Pixels, width: u32, height: u32) -> Vec<u8> {
    if (decoded.width, decoded.height) == (width, height) {
        return decoded.samples;
    }
    let source = ImageRef::new(decoded.width, decoded.height, &decoded.samples, PixelType::U8)
        .expect("a decoded grey image has width x height samples");
    let mut small = Image::new(width, height, PixelType::U8);
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Bilinear));
    Resizer::new().resize(&source, &mut small, Some(&options)).expect("both images are grey");
    small.into_vec()
}

/// Brightness from 0 to 1, the darkest and the brightest hundredth cut off, so that dim pictures show too. A flat
/// picture has nothing to stretch and stays as bright as it is.
fn stretched(samples: &[u8]) -> Vec<f32> {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable();
    let cut = sorted.len() / 100;
    let low = f32::from(sorted[cut]);
    let high = f32::from(sorted[sorted.len() - 1 - cut]);
    let (low, high) = if high - low < 16.0 { (0.0, 255.0) } else { (low, high) };
    samples
        .iter()
        .map(|&sample| ((f32::from(sample) - low) / (high - low)).clamp(0.0, 1.0))
        .collect()
}

fn draw(brightness: &[f32], width: usize) -> String {
    let lines: Vec<&[f32]> = brightness.chunks_exact(width).collect();
    let mut text = String::new();
    for pair in lines.chunks(2) {
        if !text.is_empty() {
            text.push('\n');
        }
        for column in 0..width {
            let upper = pair[0][column];
            let lower = pair.get(1).map_or(0.0, |line| line[column]);
            text.push(nearest_glyph(upper, lower));
        }
    }
    text
}

fn nearest_glyph(upper: f32, lower: f32) -> char {
    let distance = |glyph: &(char, f32, f32)| (glyph.1 - upper).powi(2) + (glyph.2 - lower).powi(2);
    GLYPHS
        .iter()
        .min_by(|left, right| distance(left).total_cmp(&distance(right)))
        .map_or(' ', |glyph| glyph.0)
}
