//! What is drawn for a view before any pixel is made: all its numbers, in one fixed order, from one stream of random numbers.
//!
//! The order of the draws is part of what a seed means. A new augmentation draws after those that are there, or every view of every seed changes.

use std::f32::consts::TAU;
use std::ops::Range;

use super::Augmentation;
use super::geometry::{AffineMap, Deformation, random_bend};
use crate::images::{Color, InputSpec};
use crate::random::Random;

/// The weights of red, green and blue in the luma of ITU-R BT.601.
pub(super) const LUMA: [f32; 3] = [0.299, 0.587, 0.114];

/// A view to be made. What is not None changes the image, in the order of the fields.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ViewPlan {
    /// Where its places come from.
    pub(super) deformation: Option<Deformation>,
    /// Colour jitter; of gray images without the steps that change colour.
    pub(super) color: Vec<ColorStep>,
    /// Factor of the difference from the background.
    pub(super) contrast: Option<f32>,
    /// Whether its colour is taken away.
    pub(super) grayscale: bool,
    /// Deviation of the blur, in pixels.
    pub(super) blur: Option<f32>,
    /// What is blanked.
    pub(super) erased: Option<Rectangle>,
}

/// Pixels from and up to, not including.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Rectangle {
    pub(super) columns: Range<usize>,
    pub(super) rows: Range<usize>,
}

impl ViewPlan {
    pub(super) fn draw(
        random: &mut Random,
        input: InputSpec,
        augmentations: &[Augmentation],
    ) -> Self {
        let side = input.size as usize;
        let has = |augmentation| augmentations.contains(&augmentation);
        // From places in the view to places in the image; what is applied first to the image comes last here.
        let mut map = AffineMap::IDENTITY;
        if has(Augmentation::Affine) {
            map = AffineMap::slight(random).after(map);
        }
        let bend = has(Augmentation::Elastic).then(|| random_bend(random));
        if has(Augmentation::ResizedCrop) {
            map = map.after(AffineMap::crop(random, if side > 64 { 0.08 } else { 0.2 }));
        }
        if has(Augmentation::HorizontalFlip) && random.chance(0.5) {
            map = map.after(AffineMap::FLIP);
        }
        let moves = map != AffineMap::IDENTITY || bend.is_some();
        let color = if has(Augmentation::ColorJitter) && random.chance(0.8) {
            jitter(random, input)
        } else {
            Vec::new()
        };
        let is_rgb = input.color == Color::Rgb;
        Self {
            deformation: moves.then(|| Deformation::new(map, bend.as_ref())),
            color,
            contrast: has(Augmentation::Contrast).then(|| random.uniform(0.7, 1.3)),
            grayscale: has(Augmentation::Grayscale) && is_rgb && random.chance(0.2),
            blur: (has(Augmentation::Blur) && random.chance(0.5)).then(|| random.uniform(0.1, 2.0)),
            erased: (has(Augmentation::Erasing) && random.chance(0.25))
                .then(|| Rectangle::draw(random, side)),
        }
    }
}

impl Rectangle {
    fn draw(random: &mut Random, side: usize) -> Self {
        let mut span = || {
            let half = random.uniform(0.0, side as f32 / 6.0);
            let centre = random.uniform(0.0, side as f32);
            let place = |value: f32| (value.round().max(0.0) as usize).min(side);
            place(centre - half)..place(centre + half)
        };
        Self { columns: span(), rows: span() }
    }
}

/// A step of colour jitter: `color' = clamp(matrix color + of_mean luma)` of each pixel, with the mean luma of all pixels. Gray images take the first factor
/// of the matrix.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct ColorStep {
    pub(super) matrix: [[f32; 3]; 3],
    pub(super) of_mean: f32,
}

impl ColorStep {
    /// Changes nothing.
    pub(super) const IDENTITY: Self = Self::brightness(1.0);

    pub(super) const fn brightness(factor: f32) -> Self {
        let matrix = [[factor, 0.0, 0.0], [0.0, factor, 0.0], [0.0, 0.0, factor]];
        Self { matrix, of_mean: 0.0 }
    }

    pub(super) const fn contrast(factor: f32) -> Self {
        Self { of_mean: 1.0 - factor, ..Self::brightness(factor) }
    }

    /// 0 leaves the luma, 1 changes nothing.
    pub(super) fn saturation(saturation: f32) -> Self {
        let mut step = Self::brightness(saturation);
        for row in &mut step.matrix {
            for (value, luma) in row.iter_mut().zip(LUMA) {
                *value += (1.0 - saturation) * luma;
            }
        }
        step
    }

    /// Turns the colour differences by an angle and keeps the luma: a rotation in the plane of the YIQ chroma axes.
    pub(super) fn hue(angle: f32) -> Self {
        let (sine, cosine) = angle.sin_cos();
        let turned = |[red, green, blue]: [f32; 3]| {
            let luma = LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue;
            let i = 0.596 * red - 0.274 * green - 0.322 * blue;
            let q = 0.211 * red - 0.523 * green + 0.312 * blue;
            let (i, q) = (cosine * i - sine * q, sine * i + cosine * q);
            [
                luma + 0.956 * i + 0.621 * q,
                luma - 0.272 * i - 0.647 * q,
                luma - 1.106 * i + 1.703 * q,
            ]
        };
        let columns = Self::IDENTITY.matrix.map(turned);
        let matrix = [0, 1, 2].map(|row| [0, 1, 2].map(|column: usize| columns[column][row]));
        Self { matrix, of_mean: 0.0 }
    }
}

/// Steps of colour jitter at most.
pub(super) fn color_steps(color: Color) -> usize {
    match color {
        Color::Gray => 2,
        Color::Rgb => 4,
    }
}

/// Brightness, contrast, saturation and hue in random order, at half the paper's strength up to 64 pixels a side (its appendix B.9) and at
/// its full strength above.
fn jitter(random: &mut Random, input: InputSpec) -> Vec<ColorStep> {
    let strength = if input.size > 64 { 1.0 } else { 0.5 };
    let factor = |random: &mut Random| random.uniform(1.0 - 0.8 * strength, 1.0 + 0.8 * strength);
    let step = |change: usize, random: &mut Random| match (change, input.color) {
        (0, _) => Some(ColorStep::brightness(factor(random))),
        (1, _) => Some(ColorStep::contrast(factor(random))),
        (2, Color::Rgb) => Some(ColorStep::saturation(factor(random))),
        (_, Color::Rgb) => Some(ColorStep::hue(TAU * random.uniform(-0.2, 0.2) * strength)),
        (_, Color::Gray) => None,
    };
    let order = random.permutation(4);
    order.into_iter().filter_map(|change| step(change, random)).collect()
}

#[cfg(test)]
mod tests {
    use std::f32::consts::PI;

    use super::*;

    fn apply(step: ColorStep, color: [f32; 3]) -> [f32; 3] {
        step.matrix.map(|row| row.iter().zip(color).map(|(factor, value)| factor * value).sum())
    }

    fn luma(color: [f32; 3]) -> f32 {
        color.iter().zip(LUMA).map(|(value, weight)| value * weight).sum()
    }

    #[test]
    fn hue_turns_and_keeps_the_luma() {
        let color = [0.4, 0.5, 0.45];
        let whole = apply(ColorStep::hue(TAU), color);
        assert!(whole.iter().zip(color).all(|(found, expected)| (found - expected).abs() < 5e-3));
        let half = apply(ColorStep::hue(PI), color);
        assert!((luma(half) - luma(color)).abs() < 5e-3);
        assert!(half[1] < half[0], "green becomes the weakest: {half:?}");
    }

    #[test]
    fn saturation_moves_between_luma_and_color() {
        let color = [0.4, 0.5, 0.45];
        let near = |found: [f32; 3], expected: [f32; 3]| {
            found.iter().zip(expected).all(|(found, expected)| (found - expected).abs() < 1e-6)
        };
        assert!(near(apply(ColorStep::saturation(0.0), color), [luma(color); 3]));
        assert!(near(apply(ColorStep::saturation(1.0), color), color));
    }

    #[test]
    fn jitter_of_gray_images_has_two_steps() {
        let mut random = Random::keyed(&[5]);
        for color in [Color::Gray, Color::Rgb] {
            for _ in 0..50 {
                let steps = jitter(&mut random, InputSpec { size: 12, color });
                assert_eq!(steps.len(), color_steps(color));
            }
        }
    }

    #[test]
    fn rectangles_lie_inside() {
        let mut random = Random::keyed(&[6]);
        for _ in 0..1000 {
            let Rectangle { columns, rows } = Rectangle::draw(&mut random, 12);
            for span in [columns, rows] {
                assert!(span.start <= span.end && span.end <= 12 && span.len() <= 5, "{span:?}");
            }
        }
    }
}
