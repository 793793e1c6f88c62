//! Kernels for training and running small residual networks on the CPU.
//!
//! Burn's CPU backend runs a convolution at a tenth of what the processor can do, has no backward pass of its own for it, and makes
//! batch normalisation a chain of passes through memory. These operations replace that chain where they can, and stand in for
//! the same computation everywhere else: on a tensor of the `Flex` backend (with or without autodiff) in `f32` they run the kernels
//! of this module, with their own backward passes; on any other device they are composed of burn's operations. Model code calls
//! them in both cases.
//!
//! Images are **channels-last**, `[batch, height, width, channels]`: all channels of a pixel lie together, so that a window is a
//! few runs of memory, every elementwise pass has the channels in vector lanes, and residual sums are plain sums. [`channels_last`]
//! turns a batch of `[batch, channels, height, width]` round, once, before the first layer. Weights keep burn's layout,
//! `[out_channels, in_channels, kernel_height, kernel_width]`.
//!
//! A residual block while training, and the same at inference with [`fold_batch_norm`]:
//!
//! ```
//! use burn::tensor::{Device, Tensor};
//! use thanosql_ml::kernels::{Activation, Convolution, batch_norm, conv2d, conv2d_folded, fold_batch_norm};
//!
//! let device = Device::flex();
//! let x = Tensor::<4>::ones([2, 8, 8, 16], &device);
//! let weight = Tensor::<4>::ones([16, 16, 3, 3], &device);
//! let (gamma, beta) = (Tensor::<1>::ones([16], &device), Tensor::<1>::zeros([16], &device));
//! let moves = Convolution { stride: [1, 1], padding: [1, 1] };
//!
//! let y = conv2d(x.clone(), weight.clone(), moves);
//! let y = batch_norm(y, gamma.clone(), beta.clone(), 1e-5, None, Activation::Relu);
//! let z = conv2d(y.output, weight.clone(), moves);
//! let z = batch_norm(z, gamma.clone(), beta.clone(), 1e-5, Some(x.clone()), Activation::Relu);
//!
//! let (weight, bias) = fold_batch_norm(weight, gamma, beta, z.mean, z.variance, 1e-5);
//! let z = conv2d_folded(x.clone(), weight, bias, Some(x), Activation::Relu, moves);
//! assert_eq!(z.dims(), [2, 8, 8, 16]);
//! ```
//!
//! Results are the same bits with any number of threads. Where to look: `simd` has the instructions, `microkernel` the two inner loops,
//! `convolution` the three computations of a convolution, `normalisation` the fused passes, `adamw` the optimizer's, `buffers` the memory kept between
//! operations ([`release_buffers`] frees it), `extension` the operations for burn.

mod adamw;
mod buffers;
mod convolution;
mod extension;
mod microkernel;
mod normalisation;
mod simd;
mod winograd;

use burn::backend::Dispatch;
use burn::tensor::activation::relu;
use burn::tensor::module;
use burn::tensor::ops::ConvOptions;
use burn::tensor::{DType, Device, Tensor};
use extension::{OptimizerKernels, ResidualKernels, Summand};

/// How the kernel moves over the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Convolution {
    /// Step from one window to the next, down and across.
    pub stride: [usize; 2],
    /// Zeros around the image, above and below, left and right.
    pub padding: [usize; 2],
}

/// What happens to a sum at the end of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// Nothing.
    None,
    /// Negative values become zero.
    Relu,
}

/// A batch that has been normalised by its own statistics.
#[derive(Clone, Debug)]
pub struct Normalised {
    /// `[batch, height, width, channels]`
    pub output: Tensor<4>,
    /// The mean of each channel, `[channels]`; carries no gradient.
    pub mean: Tensor<1>,
    /// The variance of each channel, divided by the number of values, `[channels]`; carries no gradient.
    pub variance: Tensor<1>,
}

/// The numbers of one step of AdamW (Loshchilov and Hutter 2019, arXiv 1711.05101, algorithm 2).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamWStep {
    /// Part of the gradients' running mean that stays.
    pub beta_1: f64,
    /// Part of the squared gradients' running mean that stays.
    pub beta_2: f64,
    /// The learning rate divided by `1 - beta_1^t`, which corrects a mean that started from zero.
    pub rate: f64,
    /// What the mean of squares is divided by for the same reason, `1 - beta_2^t`.
    pub correction: f64,
    /// Added to the root of the mean of squares.
    pub epsilon: f64,
    /// What decay leaves of a parameter: the learning rate times the decay taken off 1.
    pub kept: f64,
}

/// A parameter after a step of AdamW and its gradient's two running means, all `[length]` and without gradients.
#[derive(Clone, Debug)]
pub struct Moved {
    /// The parameter.
    pub parameter: Tensor<1>,
    /// The mean of the gradients.
    pub first: Tensor<1>,
    /// The mean of the squared gradients.
    pub second: Tensor<1>,
}

/// Frees the buffers that the kernels keep between operations. For the end of a training: what is kept then is only in the way.
pub fn release_buffers() {
    buffers::release();
}

/// Turns `[batch, channels, height, width]` into `[batch, height, width, channels]`.
pub fn channels_last(x: Tensor<4>) -> Tensor<4> {
    let [batch, channels, height, width] = x.dims();
    if channels == 1 { x.reshape([batch, height, width, 1]) } else { x.permute([0, 2, 3, 1]) }
}

/// Whether the kernels of this module, rather than burn's operations, run on this tensor.
pub fn is_accelerated<const D: usize>(x: &Tensor<D>) -> bool {
    x.dtype() == DType::F32 && x.device().without_autodiff() == Device::flex()
}

/// Convolution without a bias.
///
/// # Shapes
///
/// - `x`: `[batch, height, width, in_channels]`
/// - `weight`: `[out_channels, in_channels, kernel_height, kernel_width]`
/// - result: `[batch, out_height, out_width, out_channels]`
///
/// # Panics
///
/// If the channels differ or the kernel is larger than the image with its border.
pub fn conv2d(x: Tensor<4>, weight: Tensor<4>, options: Convolution) -> Tensor<4> {
    if is_accelerated(&x) {
        return Tensor::from_dispatch(<Dispatch as ResidualKernels>::residual_convolution(
            x.into_dispatch(),
            weight.into_dispatch(),
            options.stride,
            options.padding,
        ));
    }
    composed_conv2d(x, weight, None, options)
}

/// Convolution with a bias, then the residual sum and the activation: a layer at inference, its batch normalisation folded into
/// weight and bias by [`fold_batch_norm`]. Differentiable, but not faster than its parts when gradients are wanted.
///
/// # Shapes
///
/// As [`conv2d`]; `bias` is `[out_channels]` and `residual` has the shape of the result.
pub fn conv2d_folded(
    x: Tensor<4>,
    weight: Tensor<4>,
    bias: Tensor<1>,
    residual: Option<Tensor<4>>,
    activation: Activation,
    options: Convolution,
) -> Tensor<4> {
    if is_accelerated(&x) {
        return Tensor::from_dispatch(<Dispatch as ResidualKernels>::residual_convolution_folded(
            x.into_dispatch(),
            weight.into_dispatch(),
            bias.into_dispatch(),
            Summand::new(residual.map(Tensor::into_dispatch)),
            options.stride,
            options.padding,
            activation == Activation::Relu,
        ));
    }
    finish(composed_conv2d(x, weight, Some(bias), options), residual, activation)
}

/// Batch normalisation by the statistics of the batch, then the residual sum and the activation:
/// `activation(gamma * (x - mean) / sqrt(variance + epsilon) + beta + residual)` (Ioffe and Szegedy 2015; He et al. 2015).
///
/// Gradients flow to `x`, `gamma`, `beta` and `residual`, through the statistics too.
///
/// # Shapes
///
/// - `x`, `residual`: `[batch, height, width, channels]`
/// - `gamma`, `beta`: `[channels]`
///
/// # Panics
///
/// If the batch is empty or the shapes do not fit.
pub fn batch_norm(
    x: Tensor<4>,
    gamma: Tensor<1>,
    beta: Tensor<1>,
    epsilon: f64,
    residual: Option<Tensor<4>>,
    activation: Activation,
) -> Normalised {
    let [_, _, _, channels] = x.dims();
    if is_accelerated(&x) {
        let (output, mean, variance) = <Dispatch as ResidualKernels>::residual_batch_norm(
            x.into_dispatch(),
            gamma.into_dispatch(),
            beta.into_dispatch(),
            Summand::new(residual.map(Tensor::into_dispatch)),
            epsilon as f32,
            activation == Activation::Relu,
        );
        return Normalised {
            output: Tensor::from_dispatch(output),
            mean: Tensor::from_dispatch(mean),
            variance: Tensor::from_dispatch(variance),
        };
    }
    let [batch, height, width, _] = x.dims();
    let rows = x.clone().reshape([batch * height * width, channels]);
    let mean = rows.clone().mean_dim(0);
    let variance = (rows - mean.clone()).square().mean_dim(0);
    let shape = [1, 1, 1, channels];
    let scale = gamma.reshape(shape) / (variance.clone().reshape(shape) + epsilon).sqrt();
    let output = (x - mean.clone().reshape(shape)) * scale + beta.reshape(shape);
    Normalised {
        output: finish(output, residual, activation),
        mean: mean.detach().reshape([channels]),
        variance: variance.detach().reshape([channels]),
    }
}

/// Weight and bias of a convolution that does what the convolution followed by batch normalisation with fixed statistics does.
///
/// # Shapes
///
/// - `weight`: `[out_channels, in_channels, kernel_height, kernel_width]`, as is the first result
/// - all others: `[out_channels]`, as is the second result
pub fn fold_batch_norm(
    weight: Tensor<4>,
    gamma: Tensor<1>,
    beta: Tensor<1>,
    mean: Tensor<1>,
    variance: Tensor<1>,
    epsilon: f64,
) -> (Tensor<4>, Tensor<1>) {
    let [out_channels, _, _, _] = weight.dims();
    let scale = gamma / (variance + epsilon).sqrt();
    let bias = beta - mean * scale.clone();
    (weight * scale.reshape([out_channels, 1, 1, 1]), bias)
}

/// The mean of each channel over the image: `[batch, height, width, channels]` to `[batch, channels]`.
pub fn global_average_pool(x: Tensor<4>) -> Tensor<2> {
    let [batch, height, width, channels] = x.dims();
    x.reshape([batch, height * width, channels]).mean_dim(1).reshape([batch, channels])
}

/// One step of AdamW for one parameter; both means start as zeros.
///
/// # Panics
///
/// If the lengths differ or a tensor has gradients.
pub fn adamw(before: Moved, gradient: Tensor<1>, step: AdamWStep) -> Moved {
    let Moved { parameter, first, second } = before;
    if is_accelerated(&parameter) {
        let (parameter, first, second) = <Dispatch as OptimizerKernels>::adamw(
            parameter.into_dispatch(),
            gradient.into_dispatch(),
            first.into_dispatch(),
            second.into_dispatch(),
            step,
        );
        return Moved {
            parameter: Tensor::from_dispatch(parameter),
            first: Tensor::from_dispatch(first),
            second: Tensor::from_dispatch(second),
        };
    }
    let AdamWStep { beta_1, beta_2, rate, correction, epsilon, kept } = step;
    let squared = gradient.clone().square();
    let first = first.mul_scalar(beta_1) + gradient.mul_scalar(1.0 - beta_1);
    let second = second.mul_scalar(beta_2) + squared.mul_scalar(1.0 - beta_2);
    let root = second.clone().div_scalar(correction).sqrt().add_scalar(epsilon);
    let change = (first.clone() / root).mul_scalar(rate);
    Moved { parameter: parameter.mul_scalar(kept) - change, first, second }
}

/// [`conv2d`] through burn's own operation, which wants the channels first.
fn composed_conv2d(
    x: Tensor<4>,
    weight: Tensor<4>,
    bias: Option<Tensor<1>>,
    options: Convolution,
) -> Tensor<4> {
    let x = x.permute([0, 3, 1, 2]);
    let options = ConvOptions::new(options.stride, options.padding, [1, 1], 1);
    module::conv2d(x, weight, bias, options).permute([0, 2, 3, 1])
}

fn finish(output: Tensor<4>, residual: Option<Tensor<4>>, activation: Activation) -> Tensor<4> {
    let output = match residual {
        Some(residual) => output + residual,
        None => output,
    };
    match activation {
        Activation::None => output,
        Activation::Relu => relu(output),
    }
}
