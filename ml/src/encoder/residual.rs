//! The network while it learns: convolutions and batch normalisation with the statistics of the batch at hand.
//!
//! Batch normalisation (Ioffe and Szegedy 2015, arXiv 1502.03167) also keeps the running mean and variance that inference will use. They move
//! by a tenth a step, faster in the first ten steps, where they are the plain mean of what was seen: a training of few steps must not
//! leave behind the zeros and ones that the statistics start from.

use burn::tensor::{Device, Tensor};

use super::{Architecture, NORM_EPSILON, Scale, UnitPlan};
use crate::device::Precision;
use crate::kernels::{
    Activation, batch_norm, channels_last, conv2d, global_average_pool, half_precision, max_pool,
    move_statistics,
};
use crate::weights::Weights;

/// How far running statistics move towards a batch's, after the first steps.
const MOMENTUM: f64 = 0.1;

/// Steps after which they move by [`MOMENTUM`].
pub(crate) const STEPS_OF_CHANGING_MOMENTUM: u64 = 10;

/// What a parameter is to an optimizer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Learned, and decayed.
    Weight,
    /// A bias or a normalisation's scale or shift: learned, not decayed.
    Offset,
    /// Measured, not learned.
    Statistic,
}

/// Sees every array of a network in a fixed order.
pub(crate) trait ParameterVisitor {
    /// One array. A change to `tensor` changes the network.
    fn visit<const D: usize>(&mut self, name: &str, role: Role, tensor: &mut Tensor<D>);
}

/// A convolution without bias, and its normalisation.
#[derive(Debug)]
struct Unit {
    plan: UnitPlan,
    /// `[outputs, inputs, kernel, kernel]`
    weight: Tensor<4>,
    /// `[outputs]`
    gamma: Tensor<1>,
    /// `[outputs]`
    beta: Tensor<1>,
    /// `[outputs]`, without gradients
    mean: Tensor<1>,
    /// `[outputs]`, without gradients
    variance: Tensor<1>,
}

impl Unit {
    fn new(plan: UnitPlan, weights: &Weights, device: &Device) -> Self {
        let autodiff = device.clone().autodiff();
        let name = |part: &str| format!("{}.{part}", plan.name);
        Self {
            weight: weights.tensor(&name("weight"), &autodiff).require_grad(),
            gamma: weights.tensor(&name("gamma"), &autodiff).require_grad(),
            beta: weights.tensor(&name("beta"), &autodiff).require_grad(),
            mean: weights.tensor(&name("mean"), device),
            variance: weights.tensor(&name("variance"), device),
            plan,
        }
    }

    /// `[batch, height, width, inputs]` to `[batch, height / stride, width / stride, outputs]`, with `added` added before the activation.
    fn forward(
        &mut self,
        x: Tensor<4>,
        added: Option<Tensor<4>>,
        activation: Activation,
        momentum: f64,
    ) -> Tensor<4> {
        let y = conv2d(x, self.weight.clone(), self.plan.convolution());
        let (gamma, beta) = (self.gamma.clone(), self.beta.clone());
        let normed = batch_norm(y, gamma, beta, NORM_EPSILON, added, activation);
        move_statistics([&mut self.mean, &mut self.variance], &normed, momentum);
        normed.output
    }

    fn visit(&mut self, visitor: &mut impl ParameterVisitor) {
        let name = |part: &str| format!("{}.{part}", self.plan.name);
        visitor.visit(&name("weight"), Role::Weight, &mut self.weight);
        visitor.visit(&name("gamma"), Role::Offset, &mut self.gamma);
        visitor.visit(&name("beta"), Role::Offset, &mut self.beta);
        visitor.visit(&name("mean"), Role::Statistic, &mut self.mean);
        visitor.visit(&name("variance"), Role::Statistic, &mut self.variance);
    }
}

/// Two units and what is added to them.
#[derive(Debug)]
struct Block {
    first: Unit,
    second: Unit,
    shortcut: Option<Unit>,
}

impl Block {
    fn forward(&mut self, x: Tensor<4>, momentum: f64) -> Tensor<4> {
        let y = self.first.forward(x.clone(), None, Activation::Relu, momentum);
        let x = match &mut self.shortcut {
            Some(shortcut) => shortcut.forward(x, None, Activation::None, momentum),
            None => x,
        };
        self.second.forward(y, Some(x), Activation::Relu, momentum)
    }
}

/// The network while it learns.
#[derive(Debug)]
pub(crate) struct ResidualEncoder {
    precision: Precision,
    normalization: Option<Scale>,
    stem: Unit,
    max_pool: bool,
    blocks: Vec<Block>,
}

impl ResidualEncoder {
    /// Builds it from weights that hold all of [`Architecture::parameters`].
    pub(crate) fn new(
        architecture: &Architecture,
        weights: &Weights,
        device: &Device,
        precision: Precision,
    ) -> Self {
        let unit = |plan| Unit::new(plan, weights, device);
        Self {
            precision,
            normalization: architecture
                .normalization
                .map(|scale| scale.on(&device.clone().autodiff())),
            stem: unit(architecture.stem_plan()),
            max_pool: architecture.stem.max_pool,
            blocks: architecture
                .block_plans()
                .into_iter()
                .map(|plan| Block {
                    first: unit(plan.first),
                    second: unit(plan.second),
                    shortcut: plan.shortcut.map(unit),
                })
                .collect(),
        }
    }

    /// Images `[batch, channels, height, width]` to vectors `[batch, embedding_dim]`. `steps_seen` says how many batches have shaped the running
    /// statistics before.
    pub(crate) fn forward(&mut self, images: Tensor<4>, steps_seen: u64) -> Tensor<2> {
        let momentum = MOMENTUM.max(1.0 / (steps_seen as f64 + 1.0));
        let images = match &self.normalization {
            Some(normalization) => normalization.apply(images),
            None => images,
        };
        let images = match self.precision {
            Precision::Full => channels_last(images),
            Precision::Half => half_precision(channels_last(images)),
        };
        let mut x = self.stem.forward(images, None, Activation::Relu, momentum);
        if self.max_pool {
            x = max_pool(x);
        }
        for block in &mut self.blocks {
            x = block.forward(x, momentum);
        }
        global_average_pool(x)
    }

    /// Shows every array to a visitor.
    pub(crate) fn visit(&mut self, visitor: &mut impl ParameterVisitor) {
        self.stem.visit(visitor);
        for block in &mut self.blocks {
            block.first.visit(visitor);
            block.second.visit(visitor);
            if let Some(shortcut) = &mut block.shortcut {
                shortcut.visit(visitor);
            }
        }
    }
}
