//! The contrastive losses on a GPU: four launches forward and three back, where burn's operations would take about sixty-five, each of them over a few thousand numbers.
//!
//! With the rows' directions `u`, similarities `s = u uᵀ / temperature` and the softmax `p` of a row's sum, the loss is the mean over rows of
//! `log(sum of exp(s(i, k)) over k) - sum of shares(i, k) s(i, k)`, and its gradient at `s(i, k)` is `(p(i, k) - shares(i, k)) / rows`. Forward leaves that behind, divided
//! by the temperature; back, it is added to its transpose, multiplied by `u`, and what points along a row is taken off, since lengths do not count.

use burn::backend::Cube;
use burn::cubecl::{self, prelude::*};
use burn::tensor::Shape;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;

use super::convolution::{self, Geometry};
use super::tensors::{cubes, like};
use crate::kernels::Convolution;
use crate::kernels::extension::{Contrasted, WayBack};

/// Units of a cube, which is a row's, and how often their number can be halved.
const UNITS: usize = 128;
const HALVINGS: usize = UNITS.ilog2() as usize;

/// Added to squared lengths before their root is taken.
const LENGTH_EPSILON: f32 = crate::loss::LENGTH_EPSILON as f32;

/// The sum, or the largest, of what the units of a cube have: in every unit.
#[cube]
fn gather(value: f32, #[comptime] largest: bool) -> f32 {
    let mut shared = Shared::<[f32]>::new_slice(UNITS);
    let unit = UNIT_POS as usize;
    shared[unit] = value;
    sync_cube();
    #[unroll]
    for halving in 1..=HALVINGS {
        let half = comptime!(UNITS >> halving);
        if unit < half {
            let other = shared[unit + half];
            if comptime!(largest) {
                shared[unit] = f32::max(shared[unit], other);
            } else {
                shared[unit] += other;
            }
        }
        sync_cube();
    }
    let found = shared[0];
    // The memory may be that of the next call.
    sync_cube();
    found
}

/// Directions and lengths of rows.
#[cube(launch)]
fn find_directions(rows: &[f32], directions: &mut [f32], lengths: &mut [f32], length: u32) {
    let length = length as usize;
    let row = CUBE_POS_X as usize;
    let mut squares = 0.0f32;
    let mut place = UNIT_POS as usize;
    while place < length {
        let value = rows[row * length + place];
        squares += value * value;
        place += UNITS;
    }
    let size = (gather(squares, false) + LENGTH_EPSILON).sqrt();
    if UNIT_POS == 0 {
        lengths[row] = size;
    }
    let mut place = UNIT_POS as usize;
    while place < length {
        directions[row * length + place] = rows[row * length + place] / size;
        place += UNITS;
    }
}

/// Each row's loss, and in place of its cosines the gradient there, divided by the temperature.
#[cube(launch)]
fn compare(
    cosines: &mut [f32],
    shares: &[f32],
    excluded: &[f32],
    losses: &mut [f32],
    rows: u32,
    temperature: f32,
) {
    let rows = rows as usize;
    let first = CUBE_POS_X as usize * rows;
    let unit = UNIT_POS as usize;
    // Below every similarity, and above what stands for one that is left out only where all are.
    let mut largest = f32::new(-3.0e38);
    let mut column = unit;
    while column < rows {
        let place = first + column;
        largest = f32::max(largest, cosines[place] / temperature + excluded[place]);
        column += UNITS;
    }
    let largest = gather(largest, true);
    let mut sum = 0.0f32;
    let mut pull = 0.0f32;
    let mut column = unit;
    while column < rows {
        let place = first + column;
        let similarity = cosines[place] / temperature;
        sum += (similarity + excluded[place] - largest).exp();
        pull += shares[place] * similarity;
        column += UNITS;
    }
    let sum = gather(sum, false);
    let pull = gather(pull, false);
    if unit == 0 {
        losses[CUBE_POS_X as usize] = largest + sum.ln() - pull;
    }
    let scale = 1.0 / (temperature * f32::cast_from(rows as u32));
    let mut column = unit;
    while column < rows {
        let place = first + column;
        let part = (cosines[place] / temperature + excluded[place] - largest).exp() / sum;
        cosines[place] = (part - shares[place]) * scale;
        column += UNITS;
    }
}

/// The mean of the rows' losses.
#[cube(launch)]
fn average(losses: &[f32], loss: &mut [f32]) {
    let mut sum = 0.0f32;
    let mut row = UNIT_POS as usize;
    while row < losses.len() {
        sum += losses[row];
        row += UNITS;
    }
    let sum = gather(sum, false);
    if UNIT_POS == 0 {
        loss[0] = sum / f32::cast_from(losses.len() as u32);
    }
}

/// A square matrix added to its transpose, times the gradient of the loss.
#[cube(launch)]
fn add_transpose(matrix: &[f32], gradient: &[f32], sums: &mut [f32], rows: u32) {
    if ABSOLUTE_POS < sums.len() {
        let rows = rows as usize;
        let (row, column) = (ABSOLUTE_POS / rows, ABSOLUTE_POS % rows);
        sums[ABSOLUTE_POS] = (matrix[ABSOLUTE_POS] + matrix[column * rows + row]) * gradient[0];
    }
}

/// From gradients at directions to gradients at rows.
#[cube(launch)]
fn pass_lengths(
    gradients: &[f32],
    directions: &[f32],
    lengths: &[f32],
    found: &mut [f32],
    length: u32,
) {
    let length = length as usize;
    let row = CUBE_POS_X as usize;
    let mut product = 0.0f32;
    let mut place = UNIT_POS as usize;
    while place < length {
        let at = row * length + place;
        product += gradients[at] * directions[at];
        place += UNITS;
    }
    let product = gather(product, false);
    let mut place = UNIT_POS as usize;
    while place < length {
        let at = row * length + place;
        found[at] = (gradients[at] - product * directions[at]) / lengths[row];
        place += UNITS;
    }
}

/// [`Contrasted`] on a GPU.
#[derive(Clone, Debug)]
pub(in crate::kernels) struct DeviceContrasted {
    directions: CubeTensor,
    lengths: CubeTensor,
    /// `[rows, rows]`: the gradient at each similarity, divided by the temperature.
    slopes: CubeTensor,
}

impl WayBack<Cube> for DeviceContrasted {
    fn backward(self, gradient: CubeTensor) -> CubeTensor {
        let Self { directions, lengths, slopes } = self;
        let [rows, length] = directions.meta.shape().dims();
        let client = directions.client.clone();
        let sums = like(&lengths, [rows, 1, 1, rows]);
        add_transpose::launch(
            &client,
            cubes(rows * rows, UNITS),
            CubeDim::new_1d(UNITS as u32),
            slopes.into_buffer_arg(),
            into_contiguous(gradient).into_buffer_arg(),
            sums.clone().into_buffer_arg(),
            rows as u32,
        );
        // The sums are symmetric, so that their product with the directions is that of a gradient of weights, which takes the transpose.
        let (pixels, weights) = (as_pixels(&directions), as_weights(&directions));
        let geometry = Geometry::new(&pixels, &weights, PIXEL);
        let gradients = convolution::weight_gradient(geometry, pixels, sums);
        let found = like(&lengths, [rows, length]);
        pass_lengths::launch(
            &client,
            CubeCount::Static(rows as u32, 1, 1),
            CubeDim::new_1d(UNITS as u32),
            gradients.into_buffer_arg(),
            directions.into_buffer_arg(),
            lengths.into_buffer_arg(),
            found.clone().into_buffer_arg(),
            length as u32,
        );
        found
    }
}

impl Contrasted<Cube> for DeviceContrasted {
    fn forward(
        projections: CubeTensor,
        shares: CubeTensor,
        excluded: CubeTensor,
        temperature: f32,
    ) -> (Self, CubeTensor) {
        let [projections, shares, excluded] = [projections, shares, excluded].map(into_contiguous);
        let [rows, length] = projections.meta.shape().dims();
        let client = projections.client.clone();
        let a_row = || CubeCount::Static(rows as u32, 1, 1);
        let units = CubeDim::new_1d(UNITS as u32);
        let directions = like(&projections, [rows, length]);
        let lengths = like(&projections, [rows]);
        find_directions::launch(
            &client,
            a_row(),
            units,
            projections.into_buffer_arg(),
            directions.clone().into_buffer_arg(),
            lengths.clone().into_buffer_arg(),
            length as u32,
        );
        let (pixels, weights) = (as_pixels(&directions), as_weights(&directions));
        let geometry = Geometry::new(&pixels, &weights, PIXEL);
        let slopes = convolution::forward(geometry, pixels, weights, None, None, false);
        let losses = like(&lengths, [rows]);
        compare::launch(
            &client,
            a_row(),
            units,
            slopes.clone().into_buffer_arg(),
            shares.into_buffer_arg(),
            excluded.into_buffer_arg(),
            losses.clone().into_buffer_arg(),
            rows as u32,
            temperature,
        );
        let loss = like(&lengths, [1]);
        average::launch(
            &client,
            CubeCount::Static(1, 1, 1),
            units,
            losses.into_buffer_arg(),
            loss.clone().into_buffer_arg(),
        );
        (Self { directions, lengths, slopes }, loss)
    }
}

/// A convolution of images of one pixel is a product of matrices.
const PIXEL: Convolution = Convolution { stride: [1, 1], padding: [0, 0] };

/// Rows as images of one pixel.
fn as_pixels(rows: &CubeTensor) -> CubeTensor {
    let [count, length] = rows.meta.shape().dims();
    shaped(rows, [count, 1, 1, length])
}

/// Rows as the weights of as many outputs.
fn as_weights(rows: &CubeTensor) -> CubeTensor {
    let [count, length] = rows.meta.shape().dims();
    shaped(rows, [count, length, 1, 1])
}

fn shaped(tensor: &CubeTensor, shape: [usize; 4]) -> CubeTensor {
    let CubeTensor { client, device, handle, dtype, .. } = tensor.clone();
    CubeTensor::new_contiguous(client, device, Shape::from(shape), handle, dtype)
}
