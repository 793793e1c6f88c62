//! Views: the same image, seen a little differently. What all views of an image share is what an encoder learns.
//!
//! For photographs they are the published ones (Chen et al. 2020, arXiv 2002.05709, appendix A): a crop stretched over the whole, a flip,
//! colour jitter, loss of colour, blur. Digits and other drawings need others: a flipped 2 is no 2, and a crop of a quarter of an 8 is a 0. They
//! are turned, sheared, scaled and moved a little ([`Augmentation::Affine`]), bent ([`Augmentation::Elastic`], which of all these teaches the
//! most: nearest neighbours among 10,000 handwritten digits err by a quarter less often with it), change in contrast, and lose a rectangle.
//!
//! Views are drawn in plain Rust, an image a task, and every draw depends on (seed, epoch, image, view) alone: the result is the same with any
//! number of threads, and a training that is continued sees what it would have seen. All changes of geometry are composed first, so that
//! pixels are interpolated once. What lies outside the image is the median of its border, which for digits is their background.

use std::f32::consts::{PI, TAU};
use std::fmt;
use std::str::FromStr;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::error::MlError;
use crate::images::{Color, ImageSet, InputSpec};
use crate::random::Random;

/// One way of changing an image without changing what it shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Augmentation {
    /// Turned up to 15 degrees, sheared up to 10, scaled, stretched, and moved by up to 7.5 % of the side.
    Affine,
    /// Bent smoothly, by a few per cent of the side, as no two people write a stroke alike.
    Elastic,
    /// A part of 8 % to 100 % of the image (20 % at least up to 64 pixels a side), stretched over the whole.
    ResizedCrop,
    /// Left and right exchanged, every second time.
    HorizontalFlip,
    /// Brightness, contrast, saturation and hue; of gray images the first two.
    ColorJitter,
    /// Difference from the background, by up to 30 % more or less.
    Contrast,
    /// Colour taken away, every fifth time.
    Grayscale,
    /// Gaussian blur, every second time.
    Blur,
    /// A rectangle of up to a third of each side blanked, every fourth time.
    Erasing,
}

impl Augmentation {
    /// All of them, in the order in which they are applied.
    pub const ALL: [Self; 9] = [
        Self::Affine,
        Self::Elastic,
        Self::ResizedCrop,
        Self::HorizontalFlip,
        Self::ColorJitter,
        Self::Contrast,
        Self::Grayscale,
        Self::Blur,
        Self::Erasing,
    ];

    /// Its name, as it is parsed.
    pub fn name(self) -> &'static str {
        match self {
            Self::Affine => "affine",
            Self::Elastic => "elastic",
            Self::ResizedCrop => "resized_crop",
            Self::HorizontalFlip => "horizontal_flip",
            Self::ColorJitter => "color_jitter",
            Self::Contrast => "contrast",
            Self::Grayscale => "grayscale",
            Self::Blur => "blur",
            Self::Erasing => "erasing",
        }
    }

    /// What images of this shape get when nothing is asked for. Gray images are taken for drawings and never flipped; small photographs are not
    /// blurred, as in the paper's appendix B.9.
    pub fn defaults(input: InputSpec) -> Vec<Self> {
        match input.color {
            Color::Gray => vec![Self::Affine, Self::Elastic, Self::Contrast, Self::Erasing],
            Color::Rgb => {
                let mut defaults = vec![
                    Self::ResizedCrop,
                    Self::HorizontalFlip,
                    Self::ColorJitter,
                    Self::Grayscale,
                ];
                if input.size > 64 {
                    defaults.push(Self::Blur);
                }
                defaults
            }
        }
    }
}

impl fmt::Display for Augmentation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Augmentation {
    type Err = MlError;

    fn from_str(text: &str) -> Result<Self, MlError> {
        let name = text.trim().to_ascii_lowercase();
        Self::ALL.into_iter().find(|known| known.name() == name).ok_or_else(|| {
            MlError::UnknownName {
                kind: "augmentation",
                name: text.to_owned(),
                known: Self::ALL.map(Self::name).join(", "),
            }
        })
    }
}

/// Draws views.
#[derive(Clone, Debug)]
pub(crate) struct ViewDrawer {
    input: InputSpec,
    augmentations: Vec<Augmentation>,
    seed: u64,
}

/// Keeps the draws of views apart from those of other things.
const VIEWS: u64 = 3;

impl ViewDrawer {
    pub(crate) fn new(input: InputSpec, augmentations: &[Augmentation], seed: u64) -> Self {
        Self { input, augmentations: augmentations.to_vec(), seed }
    }

    /// Two views of each of these images, `[2 * indices, channels, height, width]`, from 0 to 1: one of each, then the other of each.
    pub(crate) fn draw(&self, images: &ImageSet, indices: &[usize], epoch: u32) -> Vec<f32> {
        let length = self.input.image_len();
        let mut views = vec![0.0_f32; 2 * indices.len() * length];
        views.par_chunks_exact_mut(length).enumerate().for_each(|(row, view)| {
            let (which, index) = (row / indices.len(), indices[row % indices.len()]);
            let key = [self.seed, VIEWS, u64::from(epoch), index as u64, which as u64];
            self.draw_one(images.image(index), &mut Random::keyed(&key), view);
        });
        views
    }

    /// Two views of each of `images`, `[count, channels, height, width]` bytes, as [`draw`](Self::draw) gives them. What is drawn depends on the seed and an
    /// image's pixels alone, not on its place.
    pub(crate) fn draw_by_content(&self, images: &[u8]) -> Vec<f32> {
        let length = self.input.image_len();
        let count = images.len() / length;
        let mut views = vec![0.0_f32; 2 * count * length];
        views.par_chunks_exact_mut(length).enumerate().for_each(|(row, view)| {
            let (which, index) = (row / count, row % count);
            let image = &images[index * length..(index + 1) * length];
            let mut key = vec![self.seed, VIEWS, which as u64];
            key.extend(image.chunks(8).map(|bytes| {
                bytes.iter().fold(0_u64, |word, &byte| (word << 8) | u64::from(byte))
            }));
            self.draw_one(image, &mut Random::keyed(&key), view);
        });
        views
    }

    /// One view, `[channels, height, width]`.
    fn draw_one(&self, image: &[u8], random: &mut Random, view: &mut [f32]) {
        let side = self.input.size as usize;
        let has = |augmentation| self.augmentations.contains(&augmentation);
        let background: Vec<f32> =
            image.chunks_exact(side * side).map(|plane| median_of_border(plane, side)).collect();

        // From places in the view to places in the image; what is applied first to the image comes last here.
        let mut map = AffineMap::IDENTITY;
        if has(Augmentation::Affine) {
            map = AffineMap::slight(random).after(map);
        }
        let bend = has(Augmentation::Elastic).then(|| Bend::new(random, side));
        if has(Augmentation::ResizedCrop) {
            map = map.after(AffineMap::crop(random, if side > 64 { 0.08 } else { 0.2 }));
        }
        if has(Augmentation::HorizontalFlip) && random.chance(0.5) {
            map = map.after(AffineMap { xx: -1.0, ..AffineMap::IDENTITY });
        }
        if map == AffineMap::IDENTITY && bend.is_none() {
            view.iter_mut().zip(image).for_each(|(value, &byte)| *value = f32::from(byte) / 255.0);
        } else {
            map.sample(image, side, bend.as_ref(), &background, view);
        }

        if has(Augmentation::ColorJitter) && random.chance(0.8) {
            jitter_color(view, side, self.input.color, random);
        }
        if has(Augmentation::Contrast) {
            scale_contrast(view, side, &background, random.uniform(0.7, 1.3));
        }
        if has(Augmentation::Grayscale) && self.input.color == Color::Rgb && random.chance(0.2) {
            mix_with_luma(view, side, 0.0);
        }
        if has(Augmentation::Blur) && random.chance(0.5) {
            blur(view, side, random.uniform(0.1, 2.0));
        }
        if has(Augmentation::Erasing) && random.chance(0.25) {
            erase(view, side, &background, random);
        }
    }
}

/// A map of the square from -1 to 1 in both directions, without its perspective part: `x' = xx x + xy y + x0`.
#[derive(Clone, Copy, Debug, PartialEq)]
struct AffineMap {
    xx: f32,
    xy: f32,
    x0: f32,
    yx: f32,
    yy: f32,
    y0: f32,
}

impl AffineMap {
    const IDENTITY: Self = Self { xx: 1.0, xy: 0.0, x0: 0.0, yx: 0.0, yy: 1.0, y0: 0.0 };

    /// `first`, then this.
    fn after(self, first: Self) -> Self {
        Self {
            xx: self.xx * first.xx + self.xy * first.yx,
            xy: self.xx * first.xy + self.xy * first.yy,
            x0: self.xx * first.x0 + self.xy * first.y0 + self.x0,
            yx: self.yx * first.xx + self.yy * first.yx,
            yy: self.yx * first.xy + self.yy * first.yy,
            y0: self.yx * first.x0 + self.yy * first.y0 + self.y0,
        }
    }

    /// A slight change of position, angle, slant and size. A map of places in the view to places in the image: a scale below 1 enlarges.
    fn slight(random: &mut Random) -> Self {
        let (sine, cosine) = random.uniform(-PI / 12.0, PI / 12.0).sin_cos();
        let slant = random.uniform(-PI / 18.0, PI / 18.0).tan();
        // Areas from a half up, then a little more or less; height to width from 4:5 to 5:4.
        let scale = random.uniform(0.5, 1.0).sqrt() * random.uniform(0.95, 1.2);
        let stretch = random.uniform(0.8, 1.25).sqrt();
        let turn = Self { xx: cosine, xy: -sine, yx: sine, yy: cosine, ..Self::IDENTITY };
        let shear = Self { xy: slant, ..Self::IDENTITY };
        let size = Self { xx: scale * stretch, yy: scale / stretch, ..Self::IDENTITY };
        let place = Self {
            x0: random.uniform(-0.15, 0.15),
            y0: random.uniform(-0.15, 0.15),
            ..Self::IDENTITY
        };
        place.after(size).after(turn).after(shear)
    }

    /// A rectangle of the image: its area at least `smallest`, its sides from 3:4 to 4:3.
    fn crop(random: &mut Random, smallest: f32) -> Self {
        let area = random.uniform(smallest, 1.0);
        let ratio = random.uniform((3.0_f32 / 4.0).ln(), (4.0_f32 / 3.0).ln()).exp();
        let width = (area * ratio).sqrt().min(1.0);
        let height = (area / ratio).sqrt().min(1.0);
        Self {
            xx: width,
            x0: random.uniform(width - 1.0, 1.0 - width),
            yy: height,
            y0: random.uniform(height - 1.0, 1.0 - height),
            ..Self::IDENTITY
        }
    }

    /// Fills `view [channels, side, side]` from `image` of the same shape, bilinearly.
    fn sample(
        self,
        image: &[u8],
        side: usize,
        bend: Option<&Bend>,
        background: &[f32],
        view: &mut [f32],
    ) {
        // From pixel to pixel: pixel p covers the place (2 p + 1) / side - 1.
        let half = side as f32 / 2.0;
        let centre = half - 0.5;
        let last = side as isize - 1;
        let plane = side * side;
        for y in 0..side {
            let dy = y as f32 - centre;
            for x in 0..side {
                let dx = x as f32 - centre;
                let (bend_x, bend_y) = bend.map_or((0.0, 0.0), |bend| bend.at(x, y));
                let from_x = self.xx * dx + self.xy * dy + self.x0 * half + centre + bend_x;
                let from_y = self.yx * dx + self.yy * dy + self.y0 * half + centre + bend_y;
                let (left, top) = (from_x.floor(), from_y.floor());
                let (right_share, bottom_share) = (from_x - left, from_y - top);
                let (left, top) = (left as isize, top as isize);
                for (channel, &outside) in background.iter().enumerate() {
                    let pixels = &image[channel * plane..(channel + 1) * plane];
                    let at = |x: isize, y: isize| {
                        if x < 0 || y < 0 || x > last || y > last {
                            outside
                        } else {
                            f32::from(pixels[y as usize * side + x as usize]) / 255.0
                        }
                    };
                    let upper = mix(at(left, top), at(left + 1, top), right_share);
                    let lower = mix(at(left, top + 1), at(left + 1, top + 1), right_share);
                    view[channel * plane + y * side + x] = mix(upper, lower, bottom_share);
                }
            }
        }
    }
}

/// A smooth field of displacements (Simard, Steinkraus, Platt 2003 bend digits like this): drawn at the knots of a coarse grid, and between them weighed by a
/// cubic B-spline, which has no creases.
struct Bend {
    /// `[KNOTS, KNOTS]`, across and down, in pixels.
    knots: [[(f32, f32); Self::KNOTS]; Self::KNOTS],
    /// For every place along a side: the first of four knots, and their weights.
    splines: Vec<(usize, [f32; 4])>,
}

impl Bend {
    /// Knots along a side; the outermost two lie outside.
    const KNOTS: usize = 7;

    /// Deviation of a knot, as a part of the side. The spline's weights leave about a half of it.
    const DEVIATION: f32 = 0.09;

    fn new(random: &mut Random, side: usize) -> Self {
        let deviation = Self::DEVIATION * side as f32;
        let mut knots = [[(0.0, 0.0); Self::KNOTS]; Self::KNOTS];
        for knot in knots.iter_mut().flatten() {
            *knot = (random.normal() * deviation, random.normal() * deviation);
        }
        let cells = (Self::KNOTS - 3) as f32;
        let spline = |place: usize| {
            let place = (place as f32 + 0.5) / side as f32 * cells;
            let first = (place as usize).min(Self::KNOTS - 4);
            let t = place - first as f32;
            let s = 1.0 - t;
            let weights = [
                s * s * s,
                4.0 - 6.0 * t * t + 3.0 * t * t * t,
                4.0 - 6.0 * s * s + 3.0 * s * s * s,
                t * t * t,
            ];
            (first, weights.map(|weight| weight / 6.0))
        };
        Self { knots, splines: (0..side).map(spline).collect() }
    }

    /// The displacement of a pixel, across and down, in pixels.
    fn at(&self, x: usize, y: usize) -> (f32, f32) {
        let ((left, across), (top, down)) = (self.splines[x], self.splines[y]);
        let mut sum = (0.0, 0.0);
        for (row, down) in self.knots[top..].iter().zip(down) {
            for (knot, across) in row[left..].iter().zip(across) {
                sum.0 += knot.0 * across * down;
                sum.1 += knot.1 * across * down;
            }
        }
        sum
    }
}

fn mix(from: f32, to: f32, share: f32) -> f32 {
    from + (to - from) * share
}

/// The median of a plane's outermost pixels, from 0 to 1.
fn median_of_border(plane: &[u8], side: usize) -> f32 {
    let mut counts = [0_usize; 256];
    let mut total = 0;
    let mut count = |value: u8| {
        counts[usize::from(value)] += 1;
        total += 1;
    };
    plane[..side].iter().chain(&plane[(side - 1) * side..]).for_each(|&value| count(value));
    plane
        .chunks_exact(side)
        .for_each(|row| [row[0], row[side - 1]].into_iter().for_each(&mut count));
    let mut seen = 0;
    let median = counts.iter().position(|&count| {
        seen += count;
        2 * seen >= total
    });
    median.unwrap_or(0) as f32 / 255.0
}

/// Brightness, contrast, saturation and hue in random order, at half the paper's strength up to 64 pixels a side (its appendix B.9) and at
/// its full strength above.
fn jitter_color(view: &mut [f32], side: usize, color: Color, random: &mut Random) {
    let strength = if side > 64 { 1.0 } else { 0.5 };
    let factor = |random: &mut Random| random.uniform(1.0 - 0.8 * strength, 1.0 + 0.8 * strength);
    for change in random.permutation(4) {
        match (change, color) {
            (0, _) => {
                let factor = factor(random);
                view.iter_mut().for_each(|value| *value = (*value * factor).clamp(0.0, 1.0));
            }
            (1, _) => {
                let factor = factor(random);
                let mean = mean_luma(view, side, color);
                view.iter_mut()
                    .for_each(|value| *value = mix(mean, *value, factor).clamp(0.0, 1.0));
            }
            (2, Color::Rgb) => {
                let factor = factor(random);
                mix_with_luma(view, side, factor);
            }
            (_, Color::Rgb) => turn_hue(view, side, TAU * random.uniform(-0.2, 0.2) * strength),
            (_, Color::Gray) => {}
        }
    }
}

/// Luma of ITU-R BT.601.
fn luma(red: f32, green: f32, blue: f32) -> f32 {
    0.299 * red + 0.587 * green + 0.114 * blue
}

fn mean_luma(view: &[f32], side: usize, color: Color) -> f32 {
    let plane = side * side;
    let mean = |channel: usize| {
        view[channel * plane..(channel + 1) * plane].iter().sum::<f32>() / plane as f32
    };
    match color {
        Color::Gray => mean(0),
        Color::Rgb => luma(mean(0), mean(1), mean(2)),
    }
}

/// Applies `change` to every pixel of an image of three channels.
fn each_pixel(view: &mut [f32], side: usize, change: impl Fn([f32; 3]) -> [f32; 3]) {
    let plane = side * side;
    let (red, rest) = view.split_at_mut(plane);
    let (green, blue) = rest.split_at_mut(plane);
    for ((red, green), blue) in red.iter_mut().zip(green).zip(blue) {
        [*red, *green, *blue] = change([*red, *green, *blue]).map(|value| value.clamp(0.0, 1.0));
    }
}

/// Saturation: 0 leaves the luma, 1 changes nothing.
fn mix_with_luma(view: &mut [f32], side: usize, saturation: f32) {
    each_pixel(view, side, |[red, green, blue]| {
        let luma = luma(red, green, blue);
        [red, green, blue].map(|value| mix(luma, value, saturation))
    });
}

/// Turns the colour differences by an angle and keeps the luma: a rotation in the plane of the YIQ chroma axes.
fn turn_hue(view: &mut [f32], side: usize, angle: f32) {
    let (sine, cosine) = angle.sin_cos();
    each_pixel(view, side, |[red, green, blue]| {
        let luma = luma(red, green, blue);
        let i = 0.596 * red - 0.274 * green - 0.322 * blue;
        let q = 0.211 * red - 0.523 * green + 0.312 * blue;
        let (i, q) = (cosine * i - sine * q, sine * i + cosine * q);
        [luma + 0.956 * i + 0.621 * q, luma - 0.272 * i - 0.647 * q, luma - 1.106 * i + 1.703 * q]
    });
}

fn scale_contrast(view: &mut [f32], side: usize, background: &[f32], factor: f32) {
    for (plane, &background) in view.chunks_exact_mut(side * side).zip(background) {
        plane.iter_mut().for_each(|value| *value = mix(background, *value, factor).clamp(0.0, 1.0));
    }
}

/// Gaussian blur with a kernel of a tenth of the side, `deviation` in pixels; the border is repeated.
fn blur(view: &mut [f32], side: usize, deviation: f32) {
    let radius = (side / 20).max(1) as isize;
    let kernel: Vec<f32> = (-radius..=radius)
        .map(|place| (-(place * place) as f32 / (2.0 * deviation * deviation)).exp())
        .collect();
    let total: f32 = kernel.iter().sum();
    let last = side as isize - 1;
    let mut line = vec![0.0; side];
    for plane in view.chunks_exact_mut(side * side) {
        for (step, stride) in [(side, 1), (1, side)] {
            for start in 0..side {
                for (place, value) in line.iter_mut().enumerate() {
                    let weigh = |(offset, weight): (isize, &f32)| {
                        let from = (place as isize + offset).clamp(0, last) as usize;
                        weight * plane[start * step + from * stride]
                    };
                    *value = (-radius..).zip(&kernel).map(weigh).sum::<f32>() / total;
                }
                for (place, &value) in line.iter().enumerate() {
                    plane[start * step + place * stride] = value;
                }
            }
        }
    }
}

fn erase(view: &mut [f32], side: usize, background: &[f32], random: &mut Random) {
    let mut span = || {
        let half = random.uniform(0.0, side as f32 / 6.0);
        let centre = random.uniform(0.0, side as f32);
        let place = |value: f32| (value.round().max(0.0) as usize).min(side);
        place(centre - half)..place(centre + half)
    };
    let (columns, rows) = (span(), span());
    for (plane, &background) in view.chunks_exact_mut(side * side).zip(background) {
        for row in plane.chunks_exact_mut(side).take(rows.end).skip(rows.start) {
            row[columns.clone()].fill(background);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(input: InputSpec, count: usize) -> ImageSet {
        let mut random = Random::keyed(&[9]);
        let pixels = (0..count * input.image_len()).map(|_| random.next() as u8).collect();
        ImageSet::new(input, pixels).unwrap()
    }

    const GRAY: InputSpec = InputSpec { size: 12, color: Color::Gray };
    const RGB: InputSpec = InputSpec { size: 70, color: Color::Rgb };

    #[test]
    fn names_parse() {
        for augmentation in Augmentation::ALL {
            assert_eq!(augmentation.name().parse::<Augmentation>().unwrap(), augmentation);
        }
        assert!(matches!("mirror".parse::<Augmentation>(), Err(MlError::UnknownName { .. })));
    }

    #[test]
    fn digits_are_never_flipped_or_recoloured() {
        let defaults = Augmentation::defaults(GRAY);
        for harmful in
            [Augmentation::HorizontalFlip, Augmentation::ResizedCrop, Augmentation::ColorJitter]
        {
            assert!(!defaults.contains(&harmful));
        }
        assert!(Augmentation::defaults(RGB).contains(&Augmentation::HorizontalFlip));
    }

    #[test]
    fn views_depend_on_seed_epoch_and_image_and_on_nothing_else() {
        for input in [GRAY, RGB] {
            let images = noise(input, 6);
            let drawer = |seed| ViewDrawer::new(input, &Augmentation::ALL, seed);
            let all = drawer(1).draw(&images, &[0, 1, 2, 3, 4, 5], 2);
            let length = input.image_len();
            let some = drawer(1).draw(&images, &[4, 1], 2);
            for (place, index) in [(0, 4), (1, 1), (2, 6 + 4), (3, 6 + 1)] {
                assert_eq!(some[place * length..][..length], all[index * length..][..length]);
            }
            assert_ne!(all, drawer(2).draw(&images, &[0, 1, 2, 3, 4, 5], 2));
            assert_ne!(all, drawer(1).draw(&images, &[0, 1, 2, 3, 4, 5], 3));
            assert_ne!(all[..length], all[6 * length..][..length], "two views differ");
            assert!(all.iter().all(|value| (0.0..=1.0).contains(value)));
        }
    }

    #[test]
    fn every_augmentation_changes_an_image() {
        for augmentation in Augmentation::ALL {
            let images = noise(RGB, 40);
            let indices: Vec<usize> = (0..40).collect();
            let plain = ViewDrawer::new(RGB, &[], 1).draw(&images, &indices, 1);
            assert_eq!(plain[..RGB.image_len()], plain[40 * RGB.image_len()..][..RGB.image_len()]);
            let changed = ViewDrawer::new(RGB, &[augmentation], 1).draw(&images, &indices, 1);
            assert_ne!(plain, changed, "{augmentation}");
        }
    }

    #[test]
    fn maps_move_pixels_where_they_should() {
        let side = 4;
        let image: Vec<u8> = (0..16).map(|value| value * 10).collect();
        let sample = |map: AffineMap| {
            let mut view = vec![0.0; 16];
            map.sample(&image, side, None, &[1.0], &mut view);
            view.iter().map(|value| (value * 255.0).round() as u8).collect::<Vec<_>>()
        };
        assert_eq!(sample(AffineMap::IDENTITY), image);
        let flipped = sample(AffineMap { xx: -1.0, ..AffineMap::IDENTITY });
        assert_eq!(flipped[..4], [30, 20, 10, 0]);
        // Half the square is two pixels: everything comes from two columns further right, and the background follows.
        let moved = sample(AffineMap { x0: 1.0, ..AffineMap::IDENTITY });
        assert_eq!(moved[..4], [20, 30, 255, 255]);
        let quarter =
            sample(AffineMap { xx: 0.0, xy: -1.0, yx: 1.0, yy: 0.0, ..AffineMap::IDENTITY });
        assert_eq!(quarter[..4], [30, 70, 110, 150]);
        let shifted = AffineMap { x0: 0.3, y0: -0.2, ..AffineMap::IDENTITY };
        let scaled = AffineMap { xx: 0.5, yy: 2.0, ..AffineMap::IDENTITY };
        let both = shifted.after(scaled);
        assert_eq!((both.xx, both.yy, both.x0, both.y0), (0.5, 2.0, 0.3, -0.2));
        let both = scaled.after(shifted);
        assert_eq!((both.xx, both.yy, both.x0, both.y0), (0.5, 2.0, 0.15, -0.4));
    }

    #[test]
    fn a_bend_is_smooth_and_of_the_stated_size() {
        let mut random = Random::keyed(&[12]);
        let side = 28;
        let mut squares = 0.0;
        for _ in 0..200 {
            let bend = Bend::new(&mut random, side);
            for x in 1..side {
                let ((one, _), (other, _)) = (bend.at(x - 1, 9), bend.at(x, 9));
                assert!((one - other).abs() < 2.5, "neighbours stay near each other");
                squares += other * other;
            }
            for (_, weights) in &bend.splines {
                assert!((weights.iter().sum::<f32>() - 1.0).abs() < 1e-5);
                assert!(weights.iter().all(|weight| (-1e-6..=1.0).contains(weight)));
            }
        }
        let deviation = (squares / (200.0 * 27.0)).sqrt();
        let knots = Bend::DEVIATION * side as f32;
        assert!((0.3 * knots..0.8 * knots).contains(&deviation), "{deviation} of {knots}");
    }

    #[test]
    fn crops_stay_inside() {
        let mut random = Random::keyed(&[4]);
        for _ in 0..1000 {
            let map = AffineMap::crop(&mut random, 0.08);
            assert!(map.xx + map.x0.abs() <= 1.0 + 1e-6 && map.yy + map.y0.abs() <= 1.0 + 1e-6);
            assert!(map.xx * map.yy >= 0.059, "{map:?}");
        }
    }

    #[test]
    fn a_background_of_any_colour_is_found() {
        let mut plane = vec![200_u8; 25];
        plane[12] = 3;
        plane[2] = 0;
        assert!((median_of_border(&plane, 5) - 200.0 / 255.0).abs() < 1e-6);
        assert_eq!(median_of_border(&[7], 1), 7.0 / 255.0);
    }

    #[test]
    fn hue_turns_and_keeps_the_luma() {
        let pixel = [0.4, 0.5, 0.45];
        let turned = |angle: f32| {
            let mut view = pixel.to_vec();
            turn_hue(&mut view, 1, angle);
            view
        };
        let whole = turned(TAU);
        assert!(whole.iter().zip(pixel).all(|(found, expected)| (found - expected).abs() < 5e-3));
        let half = turned(PI);
        assert!((luma(half[0], half[1], half[2]) - luma(0.4, 0.5, 0.45)).abs() < 5e-3);
        assert!(half[1] < half[0], "green becomes the weakest: {half:?}");
    }

    #[test]
    fn blur_keeps_the_mean_and_spreads_a_point() {
        let mut view = vec![0.0; 40 * 40];
        view[20 * 40 + 20] = 1.0;
        blur(&mut view, 40, 1.0);
        assert!((view.iter().sum::<f32>() - 1.0).abs() < 1e-5);
        assert!(view[20 * 40 + 20] < 0.2 && view[20 * 40 + 21] > 0.05);
    }
}
