//! AdamW on a GPU: one launch a parameter, which changes it and its gradient's means where they lie.

use burn::cubecl::{self, prelude::*};
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;

use super::tensors::cubes;
use crate::kernels::AdamWConstants;

/// Units of a cube.
const UNITS: usize = 256;

/// `numbers` are the rate, the correction and what decay leaves, as in [`AdamWStep`](crate::kernels::AdamWStep).
#[cube(launch)]
fn move_parameter(
    parameter: &mut [f32],
    gradient: &[f32],
    first: &mut [f32],
    second: &mut [f32],
    numbers: &[f32],
    beta_1: f32,
    beta_2: f32,
    epsilon: f32,
    #[comptime] decays: bool,
) {
    let place = ABSOLUTE_POS;
    if place < parameter.len() {
        let slope = gradient[place];
        let mean = first[place] * beta_1 + slope * (1.0 - beta_1);
        let square = second[place] * beta_2 + slope * slope * (1.0 - beta_2);
        first[place] = mean;
        second[place] = square;
        let change = mean / ((square / numbers[1]).sqrt() + epsilon) * numbers[0];
        let mut value = parameter[place];
        if comptime!(decays) {
            value *= numbers[2];
        }
        parameter[place] = value - change;
    }
}

/// One step of one parameter, in place.
pub(super) fn step(
    parameter: CubeTensor,
    gradient: CubeTensor,
    [first, second]: [CubeTensor; 2],
    numbers: CubeTensor,
    constants: AdamWConstants,
) {
    let length = parameter.meta.shape().num_elements();
    let client = parameter.client.clone();
    move_parameter::launch(
        &client,
        cubes(length, UNITS),
        CubeDim::new_1d(UNITS as u32),
        parameter.into_buffer_arg(),
        into_contiguous(gradient).into_buffer_arg(),
        first.into_buffer_arg(),
        second.into_buffer_arg(),
        numbers.into_buffer_arg(),
        constants.beta_1 as f32,
        constants.beta_2 as f32,
        constants.epsilon as f32,
        constants.decays,
    );
}
