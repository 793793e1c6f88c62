//! Views on a GPU: the same plans as on the CPU, their pixels by tensor operations on a whole batch.
//!
//! Views drawn by a few cores and sent as 32-bit numbers are what a GPU would wait for. Here the pixels stay on the device as bytes, and a step sends the
//! numbers of its plans alone. One launch makes the views of gray images with the default augmentations; what other ones need is made of burn's
//! operations after it. Shapes are fixed for a fixed batch, and every augmentation asked for is done to every view, with numbers that change
//! nothing where a plan leaves it out: a GPU compiles and tunes for each shape.
//!
//! Views agree with [the CPU's](super::pixels) up to rounding (1e-4 where it was measured), not bit by bit.

use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use rayon::prelude::*;

use super::geometry::{AffineMap, Deformation, KNOTS};
use super::pixels::{blur_radius, median_of_border};
use super::plan::{ColorStep, LUMA, Rectangle, ViewPlan, color_steps};
use super::{Augmentation, ViewDrawer};
use crate::error::MlError;
use crate::images::{Color, Images, InputSpec};
use crate::kernels::gpu::views::PLAN_LENGTH;
use crate::kernels::{ViewForm, draw_views};

/// Bytes in a word: WGSL has no integers of one byte.
const WORD: usize = size_of::<i32>();

/// What every device keeps in one tensor, in bytes: the least that WebGPU guarantees for a binding.
const MAX_RESIDENT_BYTES: usize = 128 << 20;

/// Images that stay on a device, as bytes.
#[derive(Clone, Debug)]
pub(crate) struct ResidentImages {
    /// `[images, words]`: each image's bytes, four in a word, the last word filled up.
    words: Tensor<2, Int>,
    /// `[images, channels]`.
    background: Tensor<2>,
}

impl ResidentImages {
    /// Uploads all images, or None if they are too many for one tensor of any device.
    ///
    /// # Errors
    ///
    /// As [`Images::fetch`].
    pub(crate) fn new(images: &dyn Images, device: &Device) -> Result<Option<Self>, MlError> {
        let input = images.spec();
        // A view's plan names its image in a 32-bit number with a fraction, which is exact up to here.
        const MAX_IMAGES: usize = 1 << f32::MANTISSA_DIGITS;
        if images.len() * words_of(input) * WORD > MAX_RESIDENT_BYTES || images.len() > MAX_IMAGES {
            return Ok(None);
        }
        let mut packed = Packed::default();
        images.each(&mut |images| {
            packed.add(input, images.pixels());
            Ok(())
        })?;
        Ok(Some(packed.upload(input, device)))
    }

    /// Uploads images, `[count, channels, height, width]` bytes.
    pub(crate) fn upload(input: InputSpec, pixels: &[u8], device: &Device) -> Self {
        let mut packed = Packed::default();
        packed.add(input, pixels);
        packed.upload(input, device)
    }
}

/// Words that an image's bytes take, four in a word, the last word filled up.
pub(crate) fn words_of(input: InputSpec) -> usize {
    input.image_len().div_ceil(WORD)
}

/// Packs whole images, `[count, channels, height, width]` bytes, into `[count, words]`.
pub(crate) fn pack(input: InputSpec, pixels: &[u8]) -> Vec<i32> {
    let words = |bytes: &[u8]| {
        let (words, rest) = bytes.as_chunks::<WORD>();
        let mut last = [0; WORD];
        last[..rest.len()].copy_from_slice(rest);
        let last = (!rest.is_empty()).then_some(last);
        words.iter().copied().chain(last).map(i32::from_le_bytes).collect::<Vec<_>>()
    };
    if input.image_len().is_multiple_of(WORD) {
        return words(pixels);
    }
    pixels.chunks_exact(input.image_len()).flat_map(words).collect()
}

/// Images on their way to a device.
#[derive(Default)]
struct Packed {
    words: Vec<i32>,
    background: Vec<f32>,
}

impl Packed {
    fn add(&mut self, input: InputSpec, pixels: &[u8]) {
        self.words.extend(pack(input, pixels));
        let side = input.size as usize;
        for image in pixels.chunks_exact(input.image_len()) {
            let planes = image.chunks_exact(side * side);
            self.background.extend(planes.map(|plane| median_of_border(plane, side)));
        }
    }

    fn upload(self, input: InputSpec, device: &Device) -> ResidentImages {
        let channels = input.color.channels();
        let count = self.background.len() / channels;
        let words = TensorData::new(self.words, [count, words_of(input)]);
        let background = TensorData::new(self.background, [count, channels]);
        ResidentImages {
            words: Tensor::from_data(words, (device, DType::I32)),
            background: Tensor::from_data(background, device),
        }
    }
}

/// Draws views on a device.
#[derive(Clone, Debug)]
pub(crate) struct DeviceDrawer {
    drawer: ViewDrawer,
    device: Device,
    /// `[KNOTS, side]`: the weight of each knot of a line at each of its pixels.
    splines: Tensor<2>,
    /// `[1, radius + side + radius, side]`: the squared distances of a row's pixels, with the border repeated, from each pixel of the blurred row.
    distances: Tensor<3>,
    /// `[1, 1, side]`: 0, 1, 2, ...
    places: Tensor<3>,
    /// `[1, 3, 1]`.
    luma: Tensor<3>,
}

/// A squared distance out of a blur's reach, and the factor in the exponent where there is no blur: `exp` of minus its product with a distance is 0.
const OUT_OF_REACH: f32 = 1e6;
const NO_BLUR: f32 = 1e3;

impl DeviceDrawer {
    pub(crate) fn new(drawer: &ViewDrawer, device: &Device) -> Self {
        let side = drawer.input.size as usize;
        let radius = blur_radius(side);
        let distances = (0..side + 2 * radius).flat_map(|from| {
            (0..side).map(move |to| match from.abs_diff(to + radius) {
                distance if distance <= radius => (distance * distance) as f32,
                _ => OUT_OF_REACH,
            })
        });
        let distances = distances.collect();
        let places = (0..side).map(|place| place as f32).collect();
        Self {
            drawer: drawer.clone(),
            device: device.clone(),
            splines: upload(drawer.splines.clone(), [KNOTS, side], device),
            distances: upload(distances, [1, side + 2 * radius, side], device),
            places: upload(places, [1, 1, side], device),
            luma: upload(LUMA.to_vec(), [1, LUMA.len(), 1], device),
        }
    }

    /// Two views of each image of a batch, `[2 * batch, channels, height, width]`, from 0 to 1: one of each, then the other of each, as
    /// [`ViewDrawer::draw_batch`] draws them. `indices` are the places of the batch's images among all images, `rows` those among `images`.
    pub(crate) fn draw(
        &self,
        images: &ResidentImages,
        rows: &[usize],
        indices: &[usize],
        epoch: u32,
    ) -> Tensor<4> {
        let count = indices.len();
        assert_eq!(count, rows.len(), "an index for each image");
        let plans: Vec<ViewPlan> = (0..2 * count)
            .into_par_iter()
            .map(|view| {
                let (which, index) = ((view / count) as u64, indices[view % count]);
                self.drawer.plan(&mut self.drawer.random(index, epoch, which))
            })
            .collect();
        let rows: Vec<usize> = rows.iter().chain(rows).copied().collect();
        let has = |augmentation| self.drawer.augmentations.contains(&augmentation);
        let is_rgb = self.drawer.input.color == Color::Rgb;
        // Contrast comes after the jitter, the rectangle after everything: what comes before them must be in the same launch or not be there.
        let contrast_first = !has(Augmentation::ColorJitter);
        let erasing_first =
            contrast_first && !has(Augmentation::Blur) && !(has(Augmentation::Grayscale) && is_rgb);
        let mut views = self.sample(images, &plans, &rows, contrast_first, erasing_first);
        if contrast_first && erasing_first {
            return views;
        }
        let channels = self.drawer.input.color.channels();
        let count = plans.len();
        let rows = rows.iter().map(|&row| row as i32).collect::<Vec<_>>();
        let rows = TensorData::new(rows, [count]);
        let rows = Tensor::<1, Int>::from_data(rows, (&self.device, DType::I32));
        let background = images.background.clone().select(0, rows);
        let background = background.reshape([count, channels, 1, 1]);
        if has(Augmentation::ColorJitter) {
            for step in 0..color_steps(self.drawer.input.color) {
                let step = |plan: &ViewPlan| plan.color.get(step).copied();
                views = self.recolor(views, plans.iter().map(step));
            }
        }
        if has(Augmentation::Contrast) && !contrast_first {
            let factors = plans.iter().map(|plan| plan.contrast.unwrap_or(1.0)).collect();
            let factors = upload(factors, [count, 1, 1, 1], &self.device);
            let apart = (views - background.clone()) * factors;
            views = (apart + background.clone()).clamp(0.0, 1.0);
        }
        if has(Augmentation::Grayscale) && is_rgb {
            let gray = |plan: &ViewPlan| plan.grayscale.then(|| ColorStep::saturation(0.0));
            views = self.recolor(views, plans.iter().map(gray));
        }
        if has(Augmentation::Blur) {
            views = self.blur(views, &plans);
        }
        if has(Augmentation::Erasing) {
            let erased = self.erased(&plans);
            views = views.clone() + (background - views) * erased;
        }
        views
    }

    /// Samples a view of each of these `rows` of `images` bilinearly, and does what else it is asked for.
    fn sample(
        &self,
        images: &ResidentImages,
        plans: &[ViewPlan],
        rows: &[usize],
        contrast: bool,
        erasing: bool,
    ) -> Tensor<4> {
        let input = self.drawer.input;
        let has = |augmentation| self.drawer.augmentations.contains(&augmentation);
        let identity = Deformation::new(AffineMap::IDENTITY, None);
        let mut numbers = Vec::with_capacity(plans.len() * PLAN_LENGTH);
        for (plan, &row) in plans.iter().zip(rows) {
            let deformation = plan.deformation.as_ref().unwrap_or(&identity);
            numbers.extend(deformation.knots.as_flattened().as_flattened());
            numbers.push(plan.contrast.unwrap_or(1.0));
            let spans = match &plan.erased {
                Some(Rectangle { columns, rows }) => {
                    [columns.start, columns.end, rows.start, rows.end]
                }
                None => [0; 4],
            };
            numbers.extend(spans.map(|place| place as f32));
            numbers.push(row as f32);
        }
        draw_views(
            images.words.clone(),
            images.background.clone(),
            self.splines.clone(),
            upload(numbers, [plans.len(), PLAN_LENGTH], &self.device),
            ViewForm {
                views: plans.len(),
                channels: input.color.channels(),
                side: input.size as usize,
                changes_contrast: contrast && has(Augmentation::Contrast),
                erases: erasing && has(Augmentation::Erasing),
            },
        )
    }

    /// A step of color jitter for each of `views [views, channels, side, side]`, or None.
    fn recolor(
        &self,
        views: Tensor<4>,
        steps: impl Iterator<Item = Option<ColorStep>>,
    ) -> Tensor<4> {
        let [rows, channels, height, width] = views.dims();
        let steps: Vec<ColorStep> = steps.map(|step| step.unwrap_or(ColorStep::IDENTITY)).collect();
        let of_mean = steps.iter().map(|step| step.of_mean).collect();
        let of_mean = upload(of_mean, [rows, 1, 1], &self.device);
        let matrix = steps
            .iter()
            .flat_map(|step| step.matrix.into_iter().take(channels))
            .flat_map(|row| row.into_iter().take(channels));
        let matrix = upload(matrix.collect(), [rows, channels, channels], &self.device);
        let pixels = views.reshape([rows, channels, height * width]);
        let mean = pixels.clone().mean_dim(2);
        let (mean, mixed) = match self.drawer.input.color {
            Color::Gray => (mean, pixels * matrix),
            Color::Rgb => ((mean * self.luma.clone()).sum_dim(1), matrix.matmul(pixels)),
        };
        (mixed + mean * of_mean).clamp(0.0, 1.0).reshape([rows, channels, height, width])
    }

    /// Blurs across and down, each a product with a band matrix.
    fn blur(&self, views: Tensor<4>, plans: &[ViewPlan]) -> Tensor<4> {
        let side = self.drawer.input.size as usize;
        let radius = blur_radius(side);
        let kernels: Vec<[f32; 2]> = plans.iter().map(|plan| kernel(plan.blur, radius)).collect();
        let numbers = |which: usize| {
            let values = kernels.iter().map(|kernel| kernel[which]).collect();
            upload(values, [plans.len(), 1, 1], &self.device)
        };
        // [views, radius + side + radius, side]: the weight of each pixel of a row, with the border repeated, in each pixel of the blurred row.
        let band = (self.distances.clone() * numbers(0)).exp() * numbers(1);
        let part = |from, to| band.clone().slice([0..plans.len(), from..to, 0..side]);
        let (first, last) = (radius + 1, radius + side - 1);
        let band = Tensor::cat(
            vec![
                part(0, first).sum_dim(1),
                part(first, last),
                part(last, side + 2 * radius).sum_dim(1),
            ],
            1,
        );
        let band = band.reshape([plans.len(), 1, side, side]);
        band.clone().swap_dims(2, 3).matmul(views.matmul(band))
    }

    /// `[views, 1, side, side]`: 1 where a pixel is blanked, 0 elsewhere.
    fn erased(&self, plans: &[ViewPlan]) -> Tensor<4> {
        let side = self.drawer.input.size as usize;
        let spans = |end: bool| {
            let spans = plans.iter().flat_map(|plan| match &plan.erased {
                Some(rectangle) => [&rectangle.columns, &rectangle.rows]
                    .map(|span| if end { span.end as f32 } else { span.start as f32 }),
                None => [0.0; 2],
            });
            upload(spans.collect(), [plans.len(), 2, 1], &self.device)
        };
        // [views, 2, side]: whole numbers, so that each factor is 0 or 1.
        let begun = (self.places.clone() + 1.0 - spans(false)).clamp(0.0, 1.0);
        let inside = begun * (spans(true) - self.places.clone()).clamp(0.0, 1.0);
        let part = |axis: usize| inside.clone().slice([0..plans.len(), axis..axis + 1, 0..side]);
        let columns = part(0).reshape([plans.len(), 1, 1, side]);
        let rows = part(1).reshape([plans.len(), 1, side, 1]);
        columns * rows
    }
}

/// The factor of the squared distance in the exponent of a Gaussian, and the factor that makes its weights sum to 1.
fn kernel(deviation: Option<f32>, radius: usize) -> [f32; 2] {
    let Some(deviation) = deviation else { return [-NO_BLUR, 1.0] };
    let exponent = -1.0 / (2.0 * deviation * deviation);
    let sides: f32 = (1..=radius).map(|place| ((place * place) as f32 * exponent).exp()).sum();
    [exponent, 1.0 / (1.0 + 2.0 * sides)]
}

fn upload<const D: usize>(values: Vec<f32>, shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values, shape), device)
}
