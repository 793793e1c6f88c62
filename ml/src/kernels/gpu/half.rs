//! Half precision: what lies between the layers of an encoder that learns, and its gradients, as 16-bit numbers.
//!
//! That halves the memory of a training and what its kernels read and write. All else has 32 bits: every sum and product, the weights and their gradients, the statistics, the
//! optimizer, and what comes after the encoder.
//!
//! A 16-bit number reaches from 6e-8 to 65,504. Gradients of large batches and images are below that, so they are multiplied by [`SCALE`] where they enter the encoder from behind, by
//! the average over its last image ([`pooling`](super::pooling)), and divided by it where they leave it as gradients of parameters: the optimizer does not know of it
//! (Micikevicius et al. 2018, arXiv 1710.03740, has the idea). Gradients too large are cut off at [`LARGEST`], so that nothing becomes infinite and no step needs repeating.

use burn::cubecl::{self, prelude::*};
use burn::tensor::DType;
use burn_cubecl::tensor::CubeTensor;

use crate::kernels::HALF_GRADIENT_SCALE as SCALE;

/// Beyond it gradients are cut off: the sum of those of both branches of a block is still a 16-bit number.
const LARGEST: f32 = 8_000.0;

/// Whether a tensor has 16-bit numbers.
pub(super) fn is_half(x: &CubeTensor) -> bool {
    x.dtype == DType::F16
}

/// What gradients of this tensor's kind are multiplied by.
pub(super) fn scale(x: &CubeTensor) -> f32 {
    if is_half(x) { SCALE } else { 1.0 }
}

/// A gradient as it is kept.
#[cube]
pub(super) fn gradient<E: Float>(value: f32, #[comptime] is_half: bool) -> E {
    let mut kept = value;
    if comptime!(is_half) {
        kept = value.clamp(-LARGEST, LARGEST);
    }
    E::cast_from(kept)
}
