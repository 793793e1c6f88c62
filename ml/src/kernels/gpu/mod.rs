//! Kernels for GPUs, written once and compiled for each graphics interface when they first run.
//!
//! A small network leaves a GPU idle for most of a step: what takes the time is the launching of kernels, of which burn's operations need many hundreds
//! a step. The kernels here replace those of which there are many: [`normalisation`], the optimizer ([`adamw`]), running statistics, views ([`views`]); and
//! [`convolution`]s, which take the most time of all; and the [`loss`]. The projection head's layers are convolutions of images of one pixel.
//!
//! The second kind of saving is not to launch at all: what a step leaves behind is written where it lay before, so that a step can be
//! recorded once and repeated ([`recording`]).

mod adamw;
mod convolution;
mod half;
mod loss;
mod normalisation;
mod pooling;
pub(crate) mod recording;
mod tensors;
pub(crate) mod views;

use burn::backend::Cube;
use burn_cubecl::tensor::CubeTensor;

use super::extension::{
    AverageKernels, Averaging, BatchNorm, Contrasted, Contrasting, ConvolutionKernels, Convolved,
    Convolving, FoldedKernels, InPlaceKernels, LossKernels, Maximising, MaximumKernels,
    NormalisationKernels, Normalising, Pooled, Summand,
};
use super::{AdamWConstants, Convolution};

/// [`Convolved`] on a GPU.
#[derive(Clone, Debug)]
pub(super) struct DeviceConvolved {
    geometry: convolution::Geometry,
    x: CubeTensor,
    weight: CubeTensor,
}

impl Convolved<Cube> for DeviceConvolved {
    fn forward(x: CubeTensor, weight: CubeTensor, options: Convolution) -> (Self, CubeTensor) {
        let geometry = convolution::Geometry::new(&x, &weight, options);
        let output = convolution::forward(geometry, x.clone(), weight.clone(), None, None, false);
        (Self { geometry, x, weight }, output)
    }

    fn backward(
        self,
        gradient: CubeTensor,
        [x_wanted, weight_wanted]: [bool; 2],
    ) -> [Option<CubeTensor>; 2] {
        let Self { geometry, x, weight } = self;
        let weight_gradient =
            weight_wanted.then(|| convolution::weight_gradient(geometry, x, gradient.clone()));
        let x_gradient = x_wanted.then(|| convolution::input_gradient(geometry, gradient, weight));
        [x_gradient, weight_gradient]
    }
}

impl Convolving for Cube {
    type Convolved = DeviceConvolved;
}

impl ConvolutionKernels for Cube {
    fn residual_convolution(
        x: CubeTensor,
        weight: CubeTensor,
        stride: [usize; 2],
        padding: [usize; 2],
    ) -> CubeTensor {
        DeviceConvolved::forward(x, weight, Convolution { stride, padding }).1
    }
}

impl FoldedKernels for Cube {
    fn residual_convolution_folded(
        x: CubeTensor,
        weight: CubeTensor,
        bias: CubeTensor,
        residual: Summand<Self>,
        stride: [usize; 2],
        padding: [usize; 2],
        relu: bool,
    ) -> CubeTensor {
        let geometry = convolution::Geometry::new(&x, &weight, Convolution { stride, padding });
        convolution::forward(geometry, x, weight, Some(bias), residual.into_option(), relu)
    }
}

impl Normalising for Cube {
    type BatchNorm = normalisation::DeviceBatchNorm;
}

impl NormalisationKernels for Cube {
    fn residual_batch_norm(
        x: CubeTensor,
        gamma: CubeTensor,
        beta: CubeTensor,
        residual: Summand<Self>,
        epsilon: f32,
        relu: bool,
    ) -> (CubeTensor, CubeTensor, CubeTensor) {
        type Done = <Cube as Normalising>::BatchNorm;
        let done = Done::forward(x, gamma, beta, residual.into_option(), epsilon, relu);
        (done.output(), done.mean(), done.variance())
    }
}

impl Averaging for Cube {
    type Averaged = pooling::DeviceAveraged;
}

impl AverageKernels for Cube {
    fn average_places(x: CubeTensor) -> CubeTensor {
        pooling::DeviceAveraged::forward(x).1
    }
}

impl Maximising for Cube {
    type Maximum = pooling::DeviceMaximum;
}

impl MaximumKernels for Cube {
    fn largest_places(x: CubeTensor) -> CubeTensor {
        pooling::DeviceMaximum::forward(x).1
    }
}

impl Contrasting for Cube {
    type Contrasted = loss::DeviceContrasted;
}

impl LossKernels for Cube {
    fn contrastive_loss(
        projections: CubeTensor,
        shares: CubeTensor,
        excluded: CubeTensor,
        temperature: f32,
    ) -> CubeTensor {
        loss::DeviceContrasted::forward(projections, shares, excluded, temperature).1
    }
}

impl InPlaceKernels for Cube {
    fn adamw_in_place(
        parameter: CubeTensor,
        gradient: CubeTensor,
        first: CubeTensor,
        second: CubeTensor,
        numbers: CubeTensor,
        constants: AdamWConstants,
    ) -> (CubeTensor, CubeTensor, CubeTensor) {
        let means = [first.clone(), second.clone()];
        adamw::step(parameter.clone(), gradient, means, numbers, constants);
        (parameter, first, second)
    }

    fn move_statistics_in_place(
        mean: CubeTensor,
        variance: CubeTensor,
        batch_mean: CubeTensor,
        batch_variance: CubeTensor,
        momentum: f32,
        unbiased: f32,
    ) -> (CubeTensor, CubeTensor) {
        let running = [mean.clone(), variance.clone()];
        normalisation::move_towards(running, [batch_mean, batch_variance], momentum, unbiased);
        (mean, variance)
    }

    fn overwrite(target: CubeTensor, source: CubeTensor) -> CubeTensor {
        tensors::copy(&target, source);
        target
    }
}
