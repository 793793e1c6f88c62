//! Makes the pixels of planned views on the CPU.
//!
//! Plain loops that the compiler vectorises, compiled for several instruction sets by `pulp`; nothing is contracted or summed in an order of its own, so a plan gives
//! the same bits with whatever instructions the machine has. A view of 28 x 28 gray pixels with the default augmentations takes about 3.5 us (one core of an AMD EPYC with
//! AVX-512).

use pulp::{Arch, Simd, WithSimd};

use super::geometry::{Deformation, KNOTS};
use super::plan::{ColorStep, LUMA, Rectangle, ViewPlan};
use crate::images::InputSpec;

/// Pixels of background before and after each line of an image, so that all four neighbours of a place beside it are there.
const BEFORE: usize = 1;
const AFTER: usize = 2;

/// Makes views of one image after the other; keeps its buffers.
pub(super) struct Renderer<'a> {
    side: usize,
    /// See [`spline_weights`](super::geometry::spline_weights).
    splines: &'a [f32],
    /// The image from 0 to 1 with background around it, `[channels, BEFORE + side + AFTER, BEFORE + side + AFTER]`.
    image: Vec<f32>,
    /// Of each channel.
    background: Vec<f32>,
    line: Line,
    /// For the blur.
    buffer: Vec<f32>,
}

/// Where the pixels of a line of a view come from.
#[derive(Default)]
struct Line {
    /// Shares of the right and the lower neighbours.
    x: Vec<f32>,
    y: Vec<f32>,
    /// Of the four neighbours the upper left, its place in the image with its border.
    corner: Vec<i32>,
}

impl<'a> Renderer<'a> {
    pub(super) fn new(input: InputSpec, splines: &'a [f32]) -> Self {
        let side = input.size as usize;
        let stride = BEFORE + side + AFTER;
        Self {
            side,
            splines,
            image: vec![0.0; input.color.channels() * stride * stride],
            background: vec![0.0; input.color.channels()],
            line: Line { x: vec![0.0; side], y: vec![0.0; side], corner: vec![0; side] },
            buffer: Vec::new(),
        }
    }

    /// Takes the image, `[channels, side, side]`, that the next views are of.
    pub(super) fn load(&mut self, image: &[u8]) {
        Arch::new().dispatch(Load { renderer: self, image });
    }

    /// Makes a view, `[channels, side, side]`, of the loaded image.
    pub(super) fn render(&mut self, plan: &ViewPlan, view: &mut [f32]) {
        Arch::new().dispatch(Render { renderer: self, plan, view });
    }

    #[inline(always)]
    fn copy(&self, view: &mut [f32]) {
        let (side, stride) = (self.side, BEFORE + self.side + AFTER);
        for (view, image) in
            view.chunks_exact_mut(side * side).zip(self.image.chunks_exact(stride * stride))
        {
            let rows = image[BEFORE * stride..].chunks_exact(stride);
            for (target, row) in view.chunks_exact_mut(side).zip(rows) {
                target.copy_from_slice(&row[BEFORE..BEFORE + side]);
            }
        }
    }

    /// Fills `view` bilinearly.
    #[inline(always)]
    fn sample(&mut self, deformation: &Deformation, view: &mut [f32]) {
        let Self { side, splines, image, line, .. } = self;
        let (side, stride) = (*side, BEFORE + *side + AFTER);
        // From places to pixels: pixel p covers the place (2 p + 1) / side - 1.
        let half = side as f32 / 2.0;
        let centre = half - 0.5 + BEFORE as f32;
        let knots =
            deformation.knots.map(|row| row.map(|[x, y]| [x * half + centre, y * half + centre]));
        for row in 0..side {
            let mut across = [[0.0_f32; 2]; KNOTS];
            for (knots, weights) in knots.iter().zip(splines.chunks_exact(side)) {
                for (sum, knot) in across.iter_mut().zip(knots) {
                    sum[0] += weights[row] * knot[0];
                    sum[1] += weights[row] * knot[1];
                }
            }
            line.place(&across, splines, side);
            for (view, image) in
                view.chunks_exact_mut(side * side).zip(image.chunks_exact(stride * stride))
            {
                line.gather(image, stride, &mut view[row * side..(row + 1) * side]);
            }
        }
    }
}

/// [`Renderer::load`]. A closure would do, but its call is not sure to be inlined into the function that is compiled for more instructions.
struct Load<'r, 'a> {
    renderer: &'r mut Renderer<'a>,
    image: &'r [u8],
}

impl WithSimd for Load<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Renderer { side, image, background, .. } = self.renderer;
        let (side, stride) = (*side, BEFORE + *side + AFTER);
        let planes = image.chunks_exact_mut(stride * stride);
        for ((target, plane), background) in
            planes.zip(self.image.chunks_exact(side * side)).zip(background)
        {
            *background = median_of_border(plane, side);
            target.fill(*background);
            let rows = target[BEFORE * stride..].chunks_exact_mut(stride);
            for (target, row) in rows.zip(plane.chunks_exact(side)) {
                for (value, &byte) in target[BEFORE..].iter_mut().zip(row) {
                    *value = f32::from(byte) / 255.0;
                }
            }
        }
    }
}

/// [`Renderer::render`].
struct Render<'r, 'a> {
    renderer: &'r mut Renderer<'a>,
    plan: &'r ViewPlan,
    view: &'r mut [f32],
}

impl WithSimd for Render<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self { renderer, plan, view } = self;
        let side = renderer.side;
        match &plan.deformation {
            Some(deformation) => renderer.sample(deformation, view),
            None => renderer.copy(view),
        }
        for step in &plan.color {
            recolor(view, side, step);
        }
        if let Some(factor) = plan.contrast {
            scale_contrast(view, side, &renderer.background, factor);
        }
        if plan.grayscale {
            recolor(view, side, &ColorStep::saturation(0.0));
        }
        if let Some(deviation) = plan.blur {
            blur(view, side, deviation, &mut renderer.buffer);
        }
        if let Some(rectangle) = &plan.erased {
            erase(view, side, &renderer.background, rectangle);
        }
    }
}

/// A number of this size has no fraction: added to a small one it rounds that to a whole number, which is in the lowest bits of the sum. `as i32`
/// saturates and would not be vectorised.
const ROUNDING: f32 = 12_582_912.0;

/// The whole number in a sum with [`ROUNDING`].
#[inline(always)]
fn whole(sum: f32) -> i32 {
    sum.to_bits().wrapping_sub(ROUNDING.to_bits()) as i32
}

impl Line {
    /// Finds where the `side` pixels of a line come from: the knots, weighed.
    #[inline(always)]
    fn place(&mut self, knots: &[[f32; 2]; KNOTS], splines: &[f32], side: usize) {
        let (x, y) = (&mut self.x[..side], &mut self.y[..side]);
        x.fill(0.0);
        y.fill(0.0);
        for ([knot_x, knot_y], weights) in knots.iter().zip(splines.chunks_exact(side)) {
            for ((x, y), weight) in x.iter_mut().zip(y.iter_mut()).zip(weights) {
                *x += weight * knot_x;
                *y += weight * knot_y;
            }
        }
        // What lies further outside than the border is background all the same.
        let last = (BEFORE + side) as f32;
        let stride = (BEFORE + side + AFTER) as i32;
        for ((x, y), corner) in x.iter_mut().zip(y.iter_mut()).zip(&mut self.corner) {
            let (from_x, from_y) = (x.max(0.0).min(last), y.max(0.0).min(last));
            // Half a pixel before a place rounds to the neighbour before it. On a pixel that may be the one before, with no weight.
            let (left, top) = (from_x - 0.5 + ROUNDING, from_y - 0.5 + ROUNDING);
            *corner = whole(top) * stride + whole(left);
            (*x, *y) = (from_x - (left - ROUNDING), from_y - (top - ROUNDING));
        }
    }

    /// Interpolates a line of a view between the neighbours of its places.
    #[inline(always)]
    fn gather(&self, image: &[f32], stride: usize, view: &mut [f32]) {
        for (((value, &corner), &x), &y) in
            view.iter_mut().zip(&self.corner).zip(&self.x).zip(&self.y)
        {
            let near = &image[corner as usize..][..stride + 2];
            let upper = mix(near[0], near[1], x);
            let lower = mix(near[stride], near[stride + 1], x);
            *value = mix(upper, lower, y);
        }
    }
}

#[inline(always)]
fn mix(from: f32, to: f32, share: f32) -> f32 {
    from + (to - from) * share
}

/// The median of a plane's outermost pixels, from 0 to 1.
pub(super) fn median_of_border(plane: &[u8], side: usize) -> f32 {
    let mut counts = [0_u32; 256];
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

/// The mean of a plane, summed in the same order on every machine.
#[inline(always)]
fn mean(plane: &[f32]) -> f32 {
    let mut sums = [0.0_f32; 16];
    let (blocks, rest) = plane.as_chunks::<16>();
    for block in blocks {
        for (sum, value) in sums.iter_mut().zip(block) {
            *sum += value;
        }
    }
    (sums.iter().sum::<f32>() + rest.iter().sum::<f32>()) / plane.len() as f32
}

#[inline(always)]
fn recolor(view: &mut [f32], side: usize, step: &ColorStep) {
    let ColorStep { matrix: [to_red, to_green, to_blue], of_mean } = *step;
    let plane = side * side;
    if view.len() == plane {
        let offset = if of_mean == 0.0 { 0.0 } else { of_mean * mean(view) };
        view.iter_mut().for_each(|value| *value = (to_red[0] * *value + offset).clamp(0.0, 1.0));
        return;
    }
    let (red, rest) = view.split_at_mut(plane);
    let (green, blue) = rest.split_at_mut(plane);
    let luma = |[red, green, blue]: [f32; 3]| LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue;
    let offset =
        if of_mean == 0.0 { 0.0 } else { of_mean * luma([mean(red), mean(green), mean(blue)]) };
    for ((red, green), blue) in red.iter_mut().zip(green).zip(blue) {
        let color = [*red, *green, *blue];
        let mixed = |row: [f32; 3]| {
            (row[0] * color[0] + row[1] * color[1] + row[2] * color[2] + offset).clamp(0.0, 1.0)
        };
        (*red, *green, *blue) = (mixed(to_red), mixed(to_green), mixed(to_blue));
    }
}

#[inline(always)]
fn scale_contrast(view: &mut [f32], side: usize, background: &[f32], factor: f32) {
    for (plane, &background) in view.chunks_exact_mut(side * side).zip(background) {
        plane.iter_mut().for_each(|value| *value = mix(background, *value, factor).clamp(0.0, 1.0));
    }
}

/// Pixels on either side that a blur reaches: its kernel is a tenth of the side.
pub(super) fn blur_radius(side: usize) -> usize {
    (side / 20).max(1)
}

/// Gaussian blur, `deviation` in pixels; the border is repeated.
#[inline(always)]
fn blur(view: &mut [f32], side: usize, deviation: f32, buffer: &mut Vec<f32>) {
    let radius = blur_radius(side);
    let mut kernel: Vec<f32> = (0..=2 * radius)
        .map(|place| place as f32 - radius as f32)
        .map(|offset| (-offset * offset / (2.0 * deviation * deviation)).exp())
        .collect();
    let total: f32 = kernel.iter().sum();
    kernel.iter_mut().for_each(|weight| *weight /= total);
    buffer.resize(side * side + side + 2 * radius, 0.0);
    // A plane blurred across, and a line with its border repeated.
    let (across, repeated) = buffer.split_at_mut(side * side);
    for plane in view.chunks_exact_mut(side * side) {
        for (target, row) in across.chunks_exact_mut(side).zip(plane.chunks_exact(side)) {
            repeated[..radius].fill(row[0]);
            repeated[radius..radius + side].copy_from_slice(row);
            repeated[radius + side..].fill(row[side - 1]);
            target.fill(0.0);
            for (from, weight) in kernel.iter().enumerate() {
                add(target, &repeated[from..from + side], *weight);
            }
        }
        for (row, target) in plane.chunks_exact_mut(side).enumerate() {
            target.fill(0.0);
            for (place, weight) in kernel.iter().enumerate() {
                let from = (row + place).saturating_sub(radius).min(side - 1);
                add(target, &across[from * side..(from + 1) * side], *weight);
            }
        }
    }
}

#[inline(always)]
fn add(target: &mut [f32], values: &[f32], weight: f32) {
    target.iter_mut().zip(values).for_each(|(sum, value)| *sum += weight * value);
}

fn erase(view: &mut [f32], side: usize, background: &[f32], rectangle: &Rectangle) {
    let Rectangle { columns, rows } = rectangle;
    for (plane, &background) in view.chunks_exact_mut(side * side).zip(background) {
        for row in plane.chunks_exact_mut(side).take(rows.end).skip(rows.start) {
            row[columns.clone()].fill(background);
        }
    }
}
