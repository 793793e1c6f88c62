//! New tensors, copies into those that are there already, and how numbers are dealt to cubes.

use burn::cubecl::ir::FloatKind;
use burn::cubecl::{self, prelude::*};
use burn::tensor::{DType, Shape};
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;

use super::half;

/// Units of a cube.
const UNITS: usize = 256;

#[cube(launch)]
fn copy_values(target: &mut [f32], source: &[f32]) {
    if ABSOLUTE_POS < target.len() {
        target[ABSOLUTE_POS] = source[ABSOLUTE_POS];
    }
}

/// Writes the numbers of `source` to where `target` lies.
///
/// # Panics
///
/// If they have different shapes, or the target's numbers do not lie in the order of its axes.
pub(super) fn copy(target: &CubeTensor, source: CubeTensor) {
    assert_eq!(target.meta.shape(), source.meta.shape(), "a tensor is overwritten as a whole");
    assert!(target.is_contiguous(), "what is overwritten lies in order");
    let length = target.meta.shape().num_elements();
    copy_values::launch(
        &target.client,
        cubes(length, UNITS),
        CubeDim::new_1d(UNITS as u32),
        target.clone().into_buffer_arg(),
        into_contiguous(source).into_buffer_arg(),
    );
}

/// A new tensor of 32-bit numbers on the same device, not written yet.
pub(super) fn like(x: &CubeTensor, shape: impl Into<Shape>) -> CubeTensor {
    like_of(x, shape, DType::F32)
}

/// A new tensor on the same device, its numbers not written yet.
pub(super) fn like_of(x: &CubeTensor, shape: impl Into<Shape>, dtype: DType) -> CubeTensor {
    empty_device_contiguous_dtype(x.client.clone(), x.device.clone(), shape.into(), dtype)
}

/// What a kernel calls the numbers of a tensor of 32 or 16 bits.
pub(super) fn element(x: &CubeTensor) -> ElemType {
    ElemType::Float(if half::is_half(x) { FloatKind::F16 } else { FloatKind::F32 })
}

/// Cubes of so many units for so many numbers.
pub(super) fn cubes(length: usize, units: usize) -> CubeCount {
    let [x, y] = spread(length.div_ceil(units));
    CubeCount::Static(x, y, 1)
}

/// So many cubes, or a few more, along two axes: WebGPU has 65,535 along one at most.
pub(super) fn spread(cubes: usize) -> [u32; 2] {
    const MOST: usize = 8_192;
    [cubes.clamp(1, MOST) as u32, cubes.div_ceil(MOST).max(1) as u32]
}
