//! Kernels for training and running small residual networks.
//!
//! Burn's CPU backend runs a convolution at a tenth of what the processor can do, has no backward pass of its own for it, and makes
//! batch normalisation a chain of passes through memory. On a GPU the same chain is one of launches, each of which takes longer to launch than to run, and
//! convolutions of small images are slow. These operations replace burn's where that pays, on `f32` tensors with or without autodiff, and have their own backward
//! passes: on the `Flex` backend by the kernels of this module, on a GPU by those of [`gpu`].
//!
//! On a GPU images may be `f16` as well ([`half_precision`]): weights and statistics stay `f32`, and so do sums. Gradients of such images are [`HALF_GRADIENT_SCALE`] times as
//! large as they are, from [`global_average_pool`], which gives `f32`, back to the first of them; gradients of parameters are what they are.
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
//! use thanosql_ml::kernels::{Activation, Convolution, FoldedConvolution, batch_norm, conv2d, fold_batch_norm};
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
//! let folded = FoldedConvolution::new(weight, bias, moves);
//! let z = folded.forward(x.clone(), Some(x), Activation::Relu);
//! assert_eq!(z.dims(), [2, 8, 8, 16]);
//! ```
//!
//! Results are the same bits with any number of threads. Where to look: `simd` has the instructions, `microkernel` the two inner loops,
//! `convolution` the three computations of a convolution, `normalisation` the fused passes, `pooling` what is behind a stem, `adamw` the optimizer's, `buffers` the memory kept between
//! operations ([`release_buffers`] frees it), `extension` the operations for burn.

mod adamw;
mod buffers;
mod convolution;
mod extension;
pub(crate) mod gpu;
mod microkernel;
mod normalisation;
mod pooling;
mod simd;
mod winograd;

use burn::backend::Dispatch;
use burn::tensor::{DType, Device, Int, Tensor};
use extension::{
    AverageKernels, ConvolutionKernels, FoldedKernels, InPlaceKernels, LossKernels, MaximumKernels,
    NormalisationKernels, OptimizerKernels, PackedConvolution, PackedKernels, Summand, ViewKernels,
};
use std::sync::Arc;

/// What gradients between layers that have 16-bit numbers are multiplied by.
pub const HALF_GRADIENT_SCALE: f32 = 4_096.0;

/// Knots along a side of a view's bend; the outermost two lie outside.
pub(crate) const KNOTS: usize = 7;

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

/// What stays the same in every step of AdamW.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct AdamWConstants {
    /// As in [`AdamWStep`].
    pub(crate) beta_1: f64,
    /// As in [`AdamWStep`].
    pub(crate) beta_2: f64,
    /// As in [`AdamWStep`].
    pub(crate) epsilon: f64,
    /// Whether the parameter decays.
    pub(crate) decays: bool,
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

/// Frees the buffers that the kernels keep between operations, up to 256 MiB. For the end of a training: what is kept then is only in the way. A few megabytes that
/// each thread works in stay.
pub fn release_buffers() {
    buffers::release();
}

/// Turns `[batch, channels, height, width]` into `[batch, height, width, channels]`.
pub fn channels_last(x: Tensor<4>) -> Tensor<4> {
    let [batch, channels, height, width] = x.dims();
    if channels == 1 { x.reshape([batch, height, width, 1]) } else { x.permute([0, 2, 3, 1]) }
}

/// Images as 16-bit numbers, for a GPU whose shaders have them.
pub fn half_precision(x: Tensor<4>) -> Tensor<4> {
    x.cast(DType::F16)
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
/// If the channels differ, the kernel is larger than the image with its border, or the numbers are not `f32`; those of images on a GPU may be `f16`.
pub fn conv2d(x: Tensor<4>, weight: Tensor<4>, options: Convolution) -> Tensor<4> {
    Tensor::from_dispatch(<Dispatch as ConvolutionKernels>::residual_convolution(
        x.into_dispatch(),
        weight.into_dispatch(),
        options.stride,
        options.padding,
    ))
}

/// Convolution with a bias, then the residual sum and the activation: a layer at inference, its batch normalisation folded into
/// weight and bias by [`fold_batch_norm`]. On the CPU the weights are laid out for the kernels once, here, and not with every batch.
#[derive(Clone, Debug)]
pub struct FoldedConvolution(Folded);

#[derive(Clone, Debug)]
enum Folded {
    OnCpu(Arc<PackedConvolution>),
    OnGpu(Box<Plain>),
}

/// A layer as it was given.
#[derive(Clone, Debug)]
struct Plain {
    weight: Tensor<4>,
    bias: Tensor<1>,
    options: Convolution,
}

impl FoldedConvolution {
    /// `weight` is as for [`conv2d`], `bias` `[out_channels]`; neither has gradients.
    ///
    /// # Panics
    ///
    /// If the lengths do not fit, or the numbers are not `f32`.
    pub fn new(weight: Tensor<4>, bias: Tensor<1>, options: Convolution) -> Self {
        assert_eq!(bias.dims(), [weight.dims()[0]], "a bias for every output channel");
        assert_eq!([weight.dtype(), bias.dtype()], [DType::F32; 2], "weights and bias are f32");
        if !is_on_cpu(&weight.device()) {
            return Self(Folded::OnGpu(Box::new(Plain { weight, bias, options })));
        }
        let shape = weight.dims();
        let weight = weight.into_data();
        let weight = weight.as_slice().expect("weights are f32");
        let bias = bias.into_data().try_into_vec().expect("a bias is f32");
        Self(Folded::OnCpu(Arc::new(PackedConvolution::new(weight, shape, bias, options))))
    }

    /// Its result, without gradients.
    ///
    /// # Shapes
    ///
    /// As [`conv2d`]; `residual` has the shape of the result.
    ///
    /// # Panics
    ///
    /// As [`conv2d`], if `residual` has another shape, or if `x` lies on another device than the weights did.
    pub fn forward(
        &self,
        x: Tensor<4>,
        residual: Option<Tensor<4>>,
        activation: Activation,
    ) -> Tensor<4> {
        let residual = Summand::new(residual.map(Tensor::into_dispatch));
        let relu = activation == Activation::Relu;
        Tensor::from_dispatch(match &self.0 {
            Folded::OnCpu(layer) => {
                let layer = Arc::clone(layer);
                <Dispatch as PackedKernels>::packed_convolution(
                    x.into_dispatch(),
                    residual,
                    layer,
                    relu,
                )
            }
            Folded::OnGpu(layer) => <Dispatch as FoldedKernels>::residual_convolution_folded(
                x.into_dispatch(),
                layer.weight.clone().into_dispatch(),
                layer.bias.clone().into_dispatch(),
                residual,
                layer.options.stride,
                layer.options.padding,
                relu,
            ),
        })
    }
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
/// If the batch is empty, the shapes do not fit, or the numbers are not `f32`; those of images on a GPU may be `f16`.
pub fn batch_norm(
    x: Tensor<4>,
    gamma: Tensor<1>,
    beta: Tensor<1>,
    epsilon: f64,
    residual: Option<Tensor<4>>,
    activation: Activation,
) -> Normalised {
    let (output, mean, variance) = <Dispatch as NormalisationKernels>::residual_batch_norm(
        x.into_dispatch(),
        gamma.into_dispatch(),
        beta.into_dispatch(),
        Summand::new(residual.map(Tensor::into_dispatch)),
        epsilon as f32,
        activation == Activation::Relu,
    );
    Normalised {
        output: Tensor::from_dispatch(output),
        mean: Tensor::from_dispatch(mean),
        variance: Tensor::from_dispatch(variance),
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

/// A linear layer: `x [rows, inputs]`, `weight [inputs, outputs]` and `bias [outputs]` to `[rows, outputs]`.
///
/// On a GPU it is a convolution of images of one pixel, which has nothing to tune: burn's product of matrices tries its kernels for every new shape.
pub(crate) fn linear(x: Tensor<2>, weight: Tensor<2>, bias: Tensor<1>) -> Tensor<2> {
    if is_on_cpu(&x.device()) {
        return burn::tensor::module::linear(x, weight, Some(bias));
    }
    let ([rows, inputs], [outputs]) = (x.dims(), bias.dims());
    let pixel = Convolution { stride: [1, 1], padding: [0, 0] };
    let x = x.reshape([rows, 1, 1, inputs]);
    let weight = weight.transpose().reshape([outputs, inputs, 1, 1]);
    conv2d(x, weight, pixel).reshape([rows, outputs]) + bias.reshape([1, outputs])
}

/// The mean of each channel over the image: `[batch, height, width, channels]` to `[batch, channels]`.
pub fn global_average_pool(x: Tensor<4>) -> Tensor<2> {
    let [batch, height, width, channels] = x.dims();
    if !is_on_cpu(&x.device()) {
        let means = <Dispatch as AverageKernels>::average_places(x.into_dispatch());
        return Tensor::from_dispatch(means);
    }
    x.reshape([batch, height * width, channels]).mean_dim(1).reshape([batch, channels])
}

/// The largest of 3x3 places, every second place down and across: `[batch, height, width, channels]` to `[batch, height / 2, width / 2, channels]`, rounded up.
/// Of places that are equally large the first has the gradient.
pub fn max_pool(x: Tensor<4>) -> Tensor<4> {
    Tensor::from_dispatch(<Dispatch as MaximumKernels>::largest_places(x.into_dispatch()))
}

/// One step of AdamW for one parameter on the CPU; both means start as zeros.
///
/// # Panics
///
/// If the lengths differ, a tensor has gradients, or a GPU has them.
pub fn adamw(before: Moved, gradient: Tensor<1>, step: AdamWStep) -> Moved {
    let Moved { parameter, first, second } = before;
    let (parameter, first, second) = <Dispatch as OptimizerKernels>::adamw(
        parameter.into_dispatch(),
        gradient.into_dispatch(),
        first.into_dispatch(),
        second.into_dispatch(),
        step,
    );
    Moved {
        parameter: Tensor::from_dispatch(parameter),
        first: Tensor::from_dispatch(first),
        second: Tensor::from_dispatch(second),
    }
}

/// One step of AdamW for one parameter on a GPU, all of it written where it lay. `numbers [3]` are rate, correction and what decay leaves, as in [`AdamWStep`]: a
/// tensor, for they change from step to step, and a recorded step must find them on the device.
///
/// # Panics
///
/// If the lengths differ, a tensor has gradients, or the CPU has them.
pub(crate) fn adamw_in_place(
    before: Moved,
    gradient: Tensor<1>,
    numbers: Tensor<1>,
    constants: AdamWConstants,
) -> Moved {
    let Moved { parameter, first, second } = before;
    let (parameter, first, second) = <Dispatch as InPlaceKernels>::adamw_in_place(
        parameter.into_dispatch(),
        gradient.into_dispatch(),
        first.into_dispatch(),
        second.into_dispatch(),
        numbers.into_dispatch(),
        constants,
    );
    Moved {
        parameter: Tensor::from_dispatch(parameter),
        first: Tensor::from_dispatch(first),
        second: Tensor::from_dispatch(second),
    }
}

/// Moves the running mean and variance of channels by `momentum` towards a batch's: on a GPU where they lie.
pub(crate) fn move_statistics(
    [mean, variance]: [&mut Tensor<1>; 2],
    batch: &Normalised,
    momentum: f64,
) {
    let [batch_size, height, width, _] = batch.output.dims();
    let count = (batch_size * height * width) as f64;
    let unbiased = if count > 1.0 { count / (count - 1.0) } else { 1.0 };
    let [batch_mean, batch_variance] = [&batch.mean, &batch.variance].map(|of| of.clone().inner());
    if is_on_cpu(&mean.device()) {
        let towards = |running: &Tensor<1>, batch: Tensor<1>| {
            running.clone().mul_scalar(1.0 - momentum) + batch.mul_scalar(momentum)
        };
        *mean = towards(mean, batch_mean);
        *variance = towards(variance, batch_variance.mul_scalar(unbiased));
        return;
    }
    let (moved_mean, moved_variance) = <Dispatch as InPlaceKernels>::move_statistics_in_place(
        mean.clone().into_dispatch(),
        variance.clone().into_dispatch(),
        batch_mean.into_dispatch(),
        batch_variance.into_dispatch(),
        momentum as f32,
        unbiased as f32,
    );
    *mean = Tensor::from_dispatch(moved_mean);
    *variance = Tensor::from_dispatch(moved_variance);
}

/// Images on a GPU as numbers from 0 to 1, `[images, channels, height, width]`, from `words [images, words]` as in [`draw_views`]; `image` is the shape of one.
pub(crate) fn unpack_images(words: Tensor<2, Int>, image: [usize; 3]) -> Tensor<4> {
    let images = <Dispatch as ViewKernels>::unpack_images(words.into_dispatch(), image);
    Tensor::from_dispatch(images)
}

/// The contrastive loss of `projections [rows, length]` on a GPU, `[1]`: see [`loss`](crate::loss), which says what `shares` and `excluded`, `[rows, rows]`, are.
pub(crate) fn contrastive_loss(
    projections: Tensor<2>,
    shares: Tensor<2>,
    excluded: Tensor<2>,
    temperature: f64,
) -> Tensor<1> {
    Tensor::from_dispatch(<Dispatch as LossKernels>::contrastive_loss(
        projections.into_dispatch(),
        shares.into_dispatch(),
        excluded.into_dispatch(),
        temperature as f32,
    ))
}

/// Views as a GPU draws them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ViewForm {
    /// How many.
    pub(crate) views: usize,
    /// Of the images.
    pub(crate) channels: usize,
    /// Of the images, in pixels.
    pub(crate) side: usize,
    /// Whether plans have a factor of the difference from the background.
    pub(crate) changes_contrast: bool,
    /// Whether plans have a rectangle to blank.
    pub(crate) erases: bool,
}

/// Draws views, `[views, channels, side, side]`, of images on a GPU.
///
/// # Shapes
///
/// - `words`: `[images, words]`, four bytes of an image in each, the first in the lowest bits
/// - `background`: `[images, channels]`
/// - `splines`: `[KNOTS, side]`
/// - `plans`: `[views, PLAN_LENGTH]`
pub(crate) fn draw_views(
    words: Tensor<2, Int>,
    background: Tensor<2>,
    splines: Tensor<2>,
    plans: Tensor<2>,
    form: ViewForm,
) -> Tensor<4> {
    Tensor::from_dispatch(<Dispatch as ViewKernels>::draw_views(
        words.into_dispatch(),
        background.into_dispatch(),
        splines.into_dispatch(),
        plans.into_dispatch(),
        form,
    ))
}

/// Writes the numbers of `source` to where `target` lies on its GPU: whatever shares that memory has them too.
///
/// # Panics
///
/// If the shapes differ or the CPU has them.
pub(crate) fn overwrite<const D: usize>(target: &Tensor<D>, source: Tensor<D>) {
    let target = target.clone().into_dispatch();
    drop(<Dispatch as InPlaceKernels>::overwrite(target, source.into_dispatch()));
}

/// Whether a device is the CPU; what is not is a GPU.
pub(crate) fn is_on_cpu(device: &Device) -> bool {
    device.clone().without_autodiff() == Device::flex()
}
