//! Views: the same image, seen a little differently. What all views of an image share is what an encoder learns.
//!
//! For photographs they are the published ones (Chen et al. 2020, arXiv 2002.05709, appendix A): a crop stretched over the whole, a flip,
//! colour jitter, loss of colour, blur. Digits and other drawings need others: a flipped 2 is no 2, and a crop of a quarter of an 8 is a 0. They
//! are turned, sheared, scaled and moved a little ([`Augmentation::Affine`]), bent ([`Augmentation::Elastic`]), change in contrast
//! ([`Augmentation::Contrast`], without which they teach the least), and lose a rectangle. What each is worth is in docs/learning.md.
//!
//! A view is first a plan (`plan.rs`): the numbers drawn for it, which depend on (seed, epoch, image, view) alone, so that the result is the same with
//! any number of threads, and a training that is continued sees what it would have seen. Its pixels are then made in plain Rust, an image a task
//! (`pixels.rs`), or on a GPU, a batch at once (`on_device.rs`). All changes of geometry are composed first (`geometry.rs`), so that pixels are
//! interpolated once. What lies outside the image is the median of its border, which for digits is their background.

mod geometry;
pub(crate) mod on_device;
mod pixels;
mod plan;

#[cfg(test)]
pub(crate) mod tests;

use std::fmt;
use std::str::FromStr;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::error::MlError;
use crate::images::{Color, InputSpec};
use crate::random::Random;

use geometry::spline_weights;
use pixels::Renderer;
use plan::ViewPlan;

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
    /// See [`spline_weights`].
    splines: Vec<f32>,
}

/// Keeps the draws of views apart from those of other things.
const VIEWS: u64 = 3;

impl ViewDrawer {
    pub(crate) fn new(input: InputSpec, augmentations: &[Augmentation], seed: u64) -> Self {
        let splines = spline_weights(input.size as usize);
        Self { input, augmentations: augmentations.to_vec(), seed, splines }
    }

    /// Two views of each image of a batch, `[2 * batch, channels, height, width]`, from 0 to 1: one of each, then the other of each. `pixels` are the batch's
    /// images, `[batch, channels, height, width]` bytes, and `indices` their places among all images.
    pub(crate) fn draw_batch(&self, pixels: &[u8], indices: &[usize], epoch: u32) -> Vec<f32> {
        assert_eq!(pixels.len(), indices.len() * self.input.image_len(), "an index for each image");
        self.draw_pairs(pixels, |place, which| self.random(indices[place], epoch, which))
    }

    /// Two views of each of `images`, `[count, channels, height, width]` bytes, as [`draw_batch`](Self::draw_batch) gives them. What is drawn depends on the
    /// seed and an image's pixels alone, not on its place.
    pub(crate) fn draw_by_content(&self, images: &[u8]) -> Vec<f32> {
        let length = self.input.image_len();
        self.draw_pairs(images, |place, which| {
            let mut key = vec![self.seed, VIEWS, which];
            key.extend(images[place * length..(place + 1) * length].chunks(8).map(|bytes| {
                bytes.iter().fold(0_u64, |word, &byte| (word << 8) | u64::from(byte))
            }));
            Random::keyed(&key)
        })
    }

    /// What a view of the image with this place among all images is drawn from.
    fn random(&self, index: usize, epoch: u32, which: u64) -> Random {
        Random::keyed(&[self.seed, VIEWS, u64::from(epoch), index as u64, which])
    }

    fn plan(&self, random: &mut Random) -> ViewPlan {
        ViewPlan::draw(random, self.input, &self.augmentations)
    }

    /// Two views of each of `images`, drawn from what `random` gives for an image's place in `images` and the number of the view.
    fn draw_pairs(&self, images: &[u8], random: impl Fn(usize, u64) -> Random + Sync) -> Vec<f32> {
        let length = self.input.image_len();
        let mut views = vec![0.0_f32; 2 * images.len()];
        let (one, other) = views.split_at_mut(images.len());
        let pairs = one.par_chunks_exact_mut(length).zip(other.par_chunks_exact_mut(length));
        pairs.zip(images.par_chunks_exact(length)).enumerate().for_each_init(
            || Renderer::new(self.input, &self.splines),
            |renderer, (place, ((one, other), image))| {
                renderer.load(image);
                renderer.render(&self.plan(&mut random(place, 0)), one);
                renderer.render(&self.plan(&mut random(place, 1)), other);
            },
        );
        views
    }
}
