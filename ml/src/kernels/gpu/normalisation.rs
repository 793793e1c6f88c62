//! Batch normalisation on a GPU: two launches forward and two back, where burn's operations would take about forty.
//!
//! A cube is [`LANES`] channels wide, so that neighbouring units read neighbouring numbers, and [`LINES`] rows high. The first launch of each direction sums
//! over a part of the rows; the second begins by adding up the parts, which is less work than a launch for it, and goes on to the elements. Sums
//! are taken of differences from the first row, for a mean that is large beside the deviation would leave nothing of a difference of squares.

use burn::backend::Cube;
use burn::cubecl::{self, prelude::*};
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;

use super::half;
use super::tensors::{element, like, like_of};
use crate::kernels::extension::{BatchNorm, BatchNormGradients};

/// Channels of a cube.
const LANES: usize = 32;
/// Rows that a cube works on at a time.
const LINES: usize = 8;
/// Most parts that the rows are summed in.
const MOST_PARTS: usize = 32;
/// Fewest rows of a part, and of a cube that goes through the elements.
const FEWEST_ROWS: usize = 4 * LINES;
/// Cubes that the elements are dealt to, about.
const CUBES: usize = 1024;

/// Sums over a part of the rows: of the differences from the first row, and of their squares. `sums` is `[parts, 2, channels]`.
#[cube(launch)]
fn sum_values<E: Float>(
    x: &[E],
    sums: &mut [f32],
    rows: u32,
    channels: u32,
    part: u32,
    #[define(E)] _element: ElemType,
) {
    let (rows, channels, part) = (rows as usize, channels as usize, part as usize);
    let channel = CUBE_POS_X as usize * LANES + UNIT_POS_X as usize;
    let end = usize::min((CUBE_POS_Y as usize + 1) * part, rows);
    let mut sum = 0.0f32;
    let mut squares = 0.0f32;
    if channel < channels {
        let pivot = f32::cast_from(x[channel]);
        let mut row = CUBE_POS_Y as usize * part + UNIT_POS_Y as usize;
        while row < end {
            let difference = f32::cast_from(x[row * channels + channel]) - pivot;
            sum += difference;
            squares += difference * difference;
            row += LINES;
        }
    }
    write_part(sum, squares, sums, channel, channels);
}

/// Sums over a part of the rows: of the gradients that pass the activation, and of their products with the normalised values.
#[cube(launch)]
fn sum_gradients<E: Float>(
    gradient: &[E],
    x: &[E],
    output: &[E],
    mean: &[f32],
    variance: &[f32],
    sums: &mut [f32],
    rows: u32,
    channels: u32,
    part: u32,
    epsilon: f32,
    #[comptime] relu: bool,
    #[define(E)] _element: ElemType,
) {
    let (rows, channels, part) = (rows as usize, channels as usize, part as usize);
    let channel = CUBE_POS_X as usize * LANES + UNIT_POS_X as usize;
    let end = usize::min((CUBE_POS_Y as usize + 1) * part, rows);
    let mut sum = 0.0f32;
    let mut products = 0.0f32;
    if channel < channels {
        let mean = mean[channel];
        let scale = 1.0 / (variance[channel] + epsilon).sqrt();
        let mut row = CUBE_POS_Y as usize * part + UNIT_POS_Y as usize;
        while row < end {
            let place = row * channels + channel;
            let passed = passed(gradient, output, place, relu);
            sum += passed;
            products += passed * (f32::cast_from(x[place]) - mean) * scale;
            row += LINES;
        }
    }
    write_part(sum, products, sums, channel, channels);
}

/// Adds up a cube's lines and writes both sums of each channel as this part's.
#[cube]
fn write_part(first: f32, second: f32, sums: &mut [f32], channel: usize, channels: usize) {
    let (first, second) = add_lines(first, second);
    if UNIT_POS_Y == 0 && channel < channels {
        let place = CUBE_POS_Y as usize * 2 * channels + channel;
        sums[place] = first;
        sums[place + channels] = second;
    }
}

/// What a channel's units of all lines have, added up: in every unit.
#[cube]
fn add_lines(first: f32, second: f32) -> (f32, f32) {
    let mut shared = Shared::new_slice(2 * LANES * LINES);
    let lane = UNIT_POS_X as usize;
    let place = UNIT_POS_Y as usize * LANES + lane;
    shared[place] = first;
    shared[LANES * LINES + place] = second;
    sync_cube();
    let mut first = 0.0f32;
    let mut second = 0.0f32;
    #[unroll]
    for line in 0..LINES {
        first += shared[line * LANES + lane];
        second += shared[LANES * LINES + line * LANES + lane];
    }
    (first, second)
}

/// Adds up the parts of a channel's sums: in every unit of the channel.
#[cube]
fn add_parts(sums: &[f32], parts: usize, channel: usize, channels: usize) -> (f32, f32) {
    let mut first = 0.0f32;
    let mut second = 0.0f32;
    if channel < channels {
        let mut part = UNIT_POS_Y as usize;
        while part < parts {
            let place = part * 2 * channels + channel;
            first += sums[place];
            second += sums[place + channels];
            part += LINES;
        }
    }
    add_lines(first, second)
}

/// The gradient at a place, if the activation lets it through.
#[cube]
fn passed<E: Float>(gradient: &[E], output: &[E], place: usize, #[comptime] relu: bool) -> f32 {
    let mut passed = f32::cast_from(gradient[place]);
    if comptime!(relu) {
        passed = select(f32::cast_from(output[place]) > 0.0, passed, 0.0f32);
    }
    passed
}

#[cube(launch)]
fn normalise<E: Float>(
    x: &[E],
    sums: &[f32],
    gamma: &[f32],
    beta: &[f32],
    residual: &[E],
    output: &mut [E],
    mean_of: &mut [f32],
    variance_of: &mut [f32],
    rows: u32,
    channels: u32,
    parts: u32,
    part: u32,
    epsilon: f32,
    #[comptime] has_residual: bool,
    #[comptime] relu: bool,
    #[define(E)] _element: ElemType,
) {
    let (rows, channels, part) = (rows as usize, channels as usize, part as usize);
    let channel = CUBE_POS_X as usize * LANES + UNIT_POS_X as usize;
    let (sum, squares) = add_parts(sums, parts as usize, channel, channels);
    if channel < channels {
        let count = f32::cast_from(rows as u32);
        let apart = sum / count;
        let mean = f32::cast_from(x[channel]) + apart;
        let variance = f32::max(squares / count - apart * apart, 0.0);
        if CUBE_POS_Y == 0 && UNIT_POS_Y == 0 {
            mean_of[channel] = mean;
            variance_of[channel] = variance;
        }
        let scale = gamma[channel] / (variance + epsilon).sqrt();
        let shift = beta[channel];
        let end = usize::min((CUBE_POS_Y as usize + 1) * part, rows);
        let mut row = CUBE_POS_Y as usize * part + UNIT_POS_Y as usize;
        while row < end {
            let place = row * channels + channel;
            let mut value = (f32::cast_from(x[place]) - mean) * scale + shift;
            if comptime!(has_residual) {
                value += f32::cast_from(residual[place]);
            }
            if comptime!(relu) {
                value = f32::max(value, 0.0);
            }
            output[place] = E::cast_from(value);
            row += LINES;
        }
    }
}

#[cube(launch)]
fn gradients<E: Float>(
    gradient: &[E],
    x: &[E],
    output: &[E],
    mean: &[f32],
    variance: &[f32],
    gamma: &[f32],
    sums: &[f32],
    x_gradient: &mut [E],
    gamma_gradient: &mut [f32],
    beta_gradient: &mut [f32],
    residual_gradient: &mut [E],
    rows: u32,
    channels: u32,
    parts: u32,
    part: u32,
    epsilon: f32,
    gradient_scale: f32,
    #[comptime] has_residual: bool,
    #[comptime] relu: bool,
    #[comptime] is_half: bool,
    #[define(E)] _element: ElemType,
) {
    let (rows, channels, part) = (rows as usize, channels as usize, part as usize);
    let channel = CUBE_POS_X as usize * LANES + UNIT_POS_X as usize;
    let (sum, products) = add_parts(sums, parts as usize, channel, channels);
    if channel < channels {
        if CUBE_POS_Y == 0 && UNIT_POS_Y == 0 {
            gamma_gradient[channel] = products / gradient_scale;
            beta_gradient[channel] = sum / gradient_scale;
        }
        let count = f32::cast_from(rows as u32);
        let mean = mean[channel];
        let scale = 1.0 / (variance[channel] + epsilon).sqrt();
        let factor = gamma[channel] * scale;
        let sum = sum / count;
        let products = products / count;
        let end = usize::min((CUBE_POS_Y as usize + 1) * part, rows);
        let mut row = CUBE_POS_Y as usize * part + UNIT_POS_Y as usize;
        while row < end {
            let place = row * channels + channel;
            let passed = passed(gradient, output, place, relu);
            let normal = (f32::cast_from(x[place]) - mean) * scale;
            let value = factor * (passed - sum - normal * products);
            x_gradient[place] = half::gradient::<E>(value, is_half);
            if comptime!(has_residual) {
                residual_gradient[place] = E::cast_from(passed);
            }
            row += LINES;
        }
    }
}

/// Moves running statistics a part of the way towards a batch's.
#[cube(launch)]
fn move_statistics(
    mean: &mut [f32],
    variance: &mut [f32],
    batch_mean: &[f32],
    batch_variance: &[f32],
    momentum: f32,
    unbiased: f32,
) {
    let channel = ABSOLUTE_POS;
    if channel < mean.len() {
        let kept = 1.0 - momentum;
        mean[channel] = mean[channel] * kept + batch_mean[channel] * momentum;
        variance[channel] =
            variance[channel] * kept + batch_variance[channel] * unbiased * momentum;
    }
}

/// [`BatchNorm`] on a GPU.
#[derive(Clone, Debug)]
pub(in crate::kernels) struct DeviceBatchNorm {
    x: CubeTensor,
    gamma: CubeTensor,
    epsilon: f32,
    relu: bool,
    output: CubeTensor,
    mean: CubeTensor,
    variance: CubeTensor,
}

impl BatchNorm<Cube> for DeviceBatchNorm {
    fn forward(
        x: CubeTensor,
        gamma: CubeTensor,
        beta: CubeTensor,
        residual: Option<CubeTensor>,
        epsilon: f32,
        relu: bool,
    ) -> Self {
        let x = into_contiguous(x);
        let [gamma, beta] = [gamma, beta].map(into_contiguous);
        let residual = residual.map(into_contiguous);
        let size = Size::of(&x);
        let sums = like(&x, [size.parts(), 2, size.channels]);
        sum_values::launch(
            &x.client,
            size.cubes(size.parts()),
            Size::cube(),
            x.clone().into_buffer_arg(),
            sums.clone().into_buffer_arg(),
            size.rows as u32,
            size.channels as u32,
            size.rows_of_part() as u32,
            element(&x),
        );
        let output = like_of(&x, x.meta.shape().clone(), x.dtype);
        let [mean, variance] = [(); 2].map(|()| like(&x, [size.channels]));
        let has_residual = residual.is_some();
        normalise::launch(
            &x.client,
            size.cubes(size.rows.div_ceil(size.rows_of_cube())),
            Size::cube(),
            x.clone().into_buffer_arg(),
            sums.into_buffer_arg(),
            gamma.clone().into_buffer_arg(),
            beta.into_buffer_arg(),
            residual.unwrap_or_else(|| gamma.clone()).into_buffer_arg(),
            output.clone().into_buffer_arg(),
            mean.clone().into_buffer_arg(),
            variance.clone().into_buffer_arg(),
            size.rows as u32,
            size.channels as u32,
            size.parts() as u32,
            size.rows_of_cube() as u32,
            epsilon,
            has_residual,
            relu,
            element(&x),
        );
        Self { x, gamma, epsilon, relu, output, mean, variance }
    }

    fn output(&self) -> CubeTensor {
        self.output.clone()
    }

    fn mean(&self) -> CubeTensor {
        self.mean.clone()
    }

    fn variance(&self) -> CubeTensor {
        self.variance.clone()
    }

    fn backward(self, gradient: CubeTensor, with_residual: bool) -> BatchNormGradients<Cube> {
        let Self { x, gamma, epsilon, relu, output, mean, variance } = self;
        let gradient = into_contiguous(gradient);
        let size = Size::of(&x);
        let sums = like(&x, [size.parts(), 2, size.channels]);
        sum_gradients::launch(
            &x.client,
            size.cubes(size.parts()),
            Size::cube(),
            gradient.clone().into_buffer_arg(),
            x.clone().into_buffer_arg(),
            output.clone().into_buffer_arg(),
            mean.clone().into_buffer_arg(),
            variance.clone().into_buffer_arg(),
            sums.clone().into_buffer_arg(),
            size.rows as u32,
            size.channels as u32,
            size.rows_of_part() as u32,
            epsilon,
            relu,
            element(&x),
        );
        let x_gradient = like_of(&x, x.meta.shape().clone(), x.dtype);
        let [gamma_gradient, beta_gradient] = [(); 2].map(|()| like(&x, [size.channels]));
        // A kernel has all of its arguments; without a residual this one is not written to.
        let residual_gradient = match with_residual {
            true => like_of(&x, x.meta.shape().clone(), x.dtype),
            false => like_of(&x, [1], x.dtype),
        };
        gradients::launch(
            &x.client,
            size.cubes(size.rows.div_ceil(size.rows_of_cube())),
            Size::cube(),
            gradient.into_buffer_arg(),
            x.clone().into_buffer_arg(),
            output.into_buffer_arg(),
            mean.into_buffer_arg(),
            variance.into_buffer_arg(),
            gamma.into_buffer_arg(),
            sums.into_buffer_arg(),
            x_gradient.clone().into_buffer_arg(),
            gamma_gradient.clone().into_buffer_arg(),
            beta_gradient.clone().into_buffer_arg(),
            residual_gradient.clone().into_buffer_arg(),
            size.rows as u32,
            size.channels as u32,
            size.parts() as u32,
            size.rows_of_cube() as u32,
            epsilon,
            half::scale(&x),
            with_residual,
            relu,
            half::is_half(&x),
            element(&x),
        );
        BatchNormGradients {
            x: x_gradient,
            gamma: gamma_gradient,
            beta: beta_gradient,
            residual: with_residual.then_some(residual_gradient),
        }
    }
}

/// Moves `mean` and `variance`, where they lie, by `momentum` towards a batch's; its variance is multiplied by `unbiased` first.
pub(super) fn move_towards(
    [mean, variance]: [CubeTensor; 2],
    [batch_mean, batch_variance]: [CubeTensor; 2],
    momentum: f32,
    unbiased: f32,
) {
    let length = mean.meta.shape().num_elements();
    let cube = CubeDim::new_1d(LANES as u32);
    let cubes = CubeCount::Static(length.div_ceil(LANES) as u32, 1, 1);
    let client = mean.client.clone();
    move_statistics::launch(
        &client,
        cubes,
        cube,
        mean.into_buffer_arg(),
        variance.into_buffer_arg(),
        into_contiguous(batch_mean).into_buffer_arg(),
        into_contiguous(batch_variance).into_buffer_arg(),
        momentum,
        unbiased,
    );
}

/// A batch as rows of channels, and how it is dealt to cubes.
#[derive(Clone, Copy)]
struct Size {
    rows: usize,
    channels: usize,
}

impl Size {
    fn of(x: &CubeTensor) -> Self {
        let shape = x.meta.shape();
        let channels = shape[shape.num_dims() - 1];
        let rows = shape.num_elements() / channels.max(1);
        assert!(rows > 0 && channels > 0, "a batch to normalise is not empty");
        Self { rows, channels }
    }

    fn rows_of_part(self) -> usize {
        self.rows.div_ceil(MOST_PARTS).max(FEWEST_ROWS)
    }

    fn parts(self) -> usize {
        self.rows.div_ceil(self.rows_of_part())
    }

    fn rows_of_cube(self) -> usize {
        (self.rows * self.channels.div_ceil(LANES)).div_ceil(CUBES).max(FEWEST_ROWS)
    }

    fn cubes(self, parts: usize) -> CubeCount {
        CubeCount::Static(self.channels.div_ceil(LANES) as u32, parts as u32, 1)
    }

    fn cube() -> CubeDim {
        CubeDim::new_2d(LANES as u32, LINES as u32)
    }
}
