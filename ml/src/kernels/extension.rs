//! The kernels as operations of burn: on `Flex` they run, on `Autodiff<Flex>` they record how to go back.
//!
//! Tensors are `f32` and channels-last; the public functions of [`kernels`](super) see to that. A tensor that is a view with other
//! strides is copied into order first.

use super::buffers;
use super::convolution::{self, Finish, Geometry};
use super::normalisation::{self, ChannelGradients, Statistics};
use super::simd::Instructions;
use super::{AdamWStep, adamw};
use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::{FlexTensor, Layout};
use burn::backend::ops::{ActivationOps, FloatTensorOps};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, ExtensionType, Flex, TensorMetadata, backend_extension};
use burn::tensor::{Bytes, DType, Shape};

/// What a residual block adds before its last activation. (An extension operation cannot take an `Option`.)
#[derive(Clone, Debug, ExtensionType)]
pub(super) enum Summand<B: Backend> {
    /// Nothing.
    Nothing,
    /// The block's input, or what the shortcut has made of it.
    Residual(FloatTensor<B>),
}

impl<B: Backend> Summand<B> {
    pub(super) fn new(residual: Option<FloatTensor<B>>) -> Self {
        residual.map_or(Summand::Nothing, Summand::Residual)
    }

    fn into_option(self) -> Option<FloatTensor<B>> {
        match self {
            Summand::Nothing => None,
            Summand::Residual(residual) => Some(residual),
        }
    }
}

/// Operations of residual networks on channels-last images.
#[backend_extension(Autodiff, Flex)]
pub(super) trait ResidualKernels: Backend {
    /// Convolution without a bias.
    fn residual_convolution(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        stride: [usize; 2],
        padding: [usize; 2],
    ) -> FloatTensor<Self>;

    /// Convolution, bias, residual sum and ReLU in one.
    fn residual_convolution_folded(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        #[extension_type] residual: Summand<Self>,
        stride: [usize; 2],
        padding: [usize; 2],
        relu: bool,
    ) -> FloatTensor<Self>;

    /// Batch normalisation by the batch's own statistics, residual sum and ReLU in one; also returns mean and variance, which carry
    /// no gradient.
    fn residual_batch_norm(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        #[extension_type] residual: Summand<Self>,
        epsilon: f32,
        relu: bool,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);
}

impl ResidualKernels for Flex {
    fn residual_convolution(
        x: FlexTensor,
        weight: FlexTensor,
        stride: [usize; 2],
        padding: [usize; 2],
    ) -> FlexTensor {
        let geometry = geometry(&x, &weight, stride, padding);
        let x = in_order(x);
        let output = convolve(&geometry, &x, &in_order(weight), Finish::default());
        recycle(x);
        output
    }

    fn residual_convolution_folded(
        x: FlexTensor,
        weight: FlexTensor,
        bias: FlexTensor,
        residual: Summand<Self>,
        stride: [usize; 2],
        padding: [usize; 2],
        relu: bool,
    ) -> FlexTensor {
        let geometry = geometry(&x, &weight, stride, padding);
        let bias = in_order(bias);
        let residual = residual.into_option().map(in_order);
        let finish =
            Finish { bias: Some(values(&bias)), residual: residual.as_ref().map(values), relu };
        let x = in_order(x);
        let output = convolve(&geometry, &x, &in_order(weight), finish);
        recycle(x);
        if let Some(residual) = residual {
            recycle(residual);
        }
        output
    }

    fn residual_batch_norm(
        x: FlexTensor,
        gamma: FlexTensor,
        beta: FlexTensor,
        residual: Summand<Self>,
        epsilon: f32,
        relu: bool,
    ) -> (FlexTensor, FlexTensor, FlexTensor) {
        let forward = BatchNorm::forward(x, gamma, beta, residual.into_option(), epsilon, relu);
        recycle(forward.x);
        let mean = channel_tensor(forward.statistics.mean);
        (forward.output, mean, channel_tensor(forward.statistics.variance))
    }
}

impl<C: CheckpointStrategy> ResidualKernels for Autodiff<Flex, C> {
    fn residual_convolution(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        stride: [usize; 2],
        padding: [usize; 2],
    ) -> FloatTensor<Self> {
        let nodes = [x.node(), weight.node()];
        let (x, weight) = (x.into_primitive(), weight.into_primitive());
        let geometry = geometry(&x, &weight, stride, padding);
        let (x, weight) = (in_order(x), in_order(weight));
        let output = convolve(&geometry, &x, &weight, Finish::default());
        match ConvolutionBackward.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(Convolved { geometry, x, weight }, output),
            OpsKind::UnTracked(prep) => prep.finish(output),
        }
    }

    fn residual_convolution_folded(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        residual: Summand<Self>,
        stride: [usize; 2],
        padding: [usize; 2],
        relu: bool,
    ) -> FloatTensor<Self> {
        // Meant for inference; with gradients it is the chain of its parts.
        let channels = bias.shape()[0];
        let mut output = Self::residual_convolution(x, weight, stride, padding);
        output =
            Self::float_add(output, Self::float_reshape(bias, Shape::from([1, 1, 1, channels])));
        if let Summand::Residual(residual) = residual {
            output = Self::float_add(output, residual);
        }
        if relu { Self::relu(output) } else { output }
    }

    fn residual_batch_norm(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        residual: Summand<Self>,
        epsilon: f32,
        relu: bool,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let nodes = [x.node(), gamma.node(), beta.node()];
        let residual = residual.into_option();
        let residual_node = residual.as_ref().map(|residual| residual.node());
        let forward = BatchNorm::forward(
            x.into_primitive(),
            gamma.into_primitive(),
            beta.into_primitive(),
            residual.map(|residual| residual.into_primitive()),
            epsilon,
            relu,
        );
        let mean = FloatTensor::<Self>::new(channel_tensor(forward.statistics.mean.clone()));
        let variance =
            FloatTensor::<Self>::new(channel_tensor(forward.statistics.variance.clone()));
        let output = forward.output.clone();
        let output = match residual_node {
            None => match BatchNormBackward.prepare::<C>(nodes).compute_bound().stateful() {
                OpsKind::Tracked(prep) => prep.finish(forward, output),
                OpsKind::UnTracked(prep) => prep.finish(output),
            },
            Some(residual) => {
                let [x, gamma, beta] = nodes;
                match BatchNormResidualBackward
                    .prepare::<C>([x, gamma, beta, residual])
                    .compute_bound()
                    .stateful()
                {
                    OpsKind::Tracked(prep) => prep.finish(forward, output),
                    OpsKind::UnTracked(prep) => prep.finish(output),
                }
            }
        };
        (output, mean, variance)
    }
}

/// What an optimizer does with tensors that no gradient passes through.
#[backend_extension(Flex)]
pub(super) trait OptimizerKernels: Backend {
    /// A parameter's next value and its gradient's running means, all of one dimension.
    fn adamw(
        parameter: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        first: FloatTensor<Self>,
        second: FloatTensor<Self>,
        step: AdamWStep,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);
}

impl OptimizerKernels for Flex {
    fn adamw(
        parameter: FlexTensor,
        gradient: FlexTensor,
        first: FlexTensor,
        second: FlexTensor,
        step: AdamWStep,
    ) -> (FlexTensor, FlexTensor, FlexTensor) {
        let (parameter, gradient) = (in_order(parameter), in_order(gradient));
        let (mut first, mut second) = (in_order(first), in_order(second));
        let mut updated = buffers::take(values(&parameter).len());
        adamw::step(
            step,
            values(&parameter),
            values(&gradient),
            first.storage_mut(),
            second.storage_mut(),
            &mut updated,
        );
        let updated = tensor(updated, parameter.shape());
        recycle(gradient);
        recycle(parameter);
        (updated, first, second)
    }
}

/// What the backward pass of a convolution needs.
#[derive(Clone, Debug)]
struct Convolved {
    geometry: Geometry,
    x: FlexTensor,
    weight: FlexTensor,
}

#[derive(Debug)]
struct ConvolutionBackward;

impl Backward<Flex, 2> for ConvolutionBackward {
    type State = Convolved;

    fn backward(self, ops: Ops<Convolved, 2>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let [x_node, weight_node] = ops.parents;
        let Convolved { geometry, x, weight } = ops.state;
        let instructions = Instructions::detect();
        let gradient = in_order(gradients.consume::<Flex>(&ops.node));
        if let Some(node) = weight_node {
            let mut weight_gradient = vec![0.0; geometry.weight_values()];
            convolution::weight_gradient(
                instructions,
                &geometry,
                values(&x),
                values(&gradient),
                &mut weight_gradient,
            );
            gradients.register::<Flex>(node.id, tensor(weight_gradient, weight.shape()));
        }
        if let Some(node) = x_node {
            let mut x_gradient = buffers::take(values(&x).len());
            convolution::input_gradient(
                instructions,
                &geometry,
                values(&weight),
                values(&gradient),
                &mut x_gradient,
            );
            gradients.register::<Flex>(node.id, tensor(x_gradient, x.shape()));
        }
        recycle(gradient);
        recycle(x);
    }
}

/// The result of a batch normalisation and what its backward pass needs.
#[derive(Clone, Debug)]
struct BatchNorm {
    x: FlexTensor,
    gamma: FlexTensor,
    statistics: Statistics,
    epsilon: f32,
    relu: bool,
    output: FlexTensor,
}

impl BatchNorm {
    fn forward(
        x: FlexTensor,
        gamma: FlexTensor,
        beta: FlexTensor,
        residual: Option<FlexTensor>,
        epsilon: f32,
        relu: bool,
    ) -> BatchNorm {
        let (x, gamma, beta) = (in_order(x), in_order(gamma), in_order(beta));
        let residual = residual.map(in_order);
        let statistics = normalisation::statistics(values(&x), values(&gamma).len());
        let mut output = buffers::take(values(&x).len());
        normalisation::normalise(
            values(&x),
            &statistics,
            values(&gamma),
            values(&beta),
            epsilon,
            residual.as_ref().map(values),
            relu,
            &mut output,
        );
        let output = tensor(output, x.shape());
        BatchNorm { x, gamma, statistics, epsilon, relu, output }
    }

    /// The gradients of `x`, of `gamma` and `beta`, and, if there was one, of the residual.
    fn backward(
        self,
        gradient: FlexTensor,
        with_residual: bool,
    ) -> (FlexTensor, ChannelGradients, Option<FlexTensor>) {
        let mut gradient = in_order(gradient);
        let mut x_gradient = with_residual.then(|| buffers::take(values(&self.x).len()));
        let channels = normalisation::normalise_backward(
            values(&self.x),
            &self.statistics,
            values(&self.gamma),
            self.epsilon,
            self.relu.then(|| values(&self.output)),
            gradient.storage_mut::<f32>(),
            x_gradient.as_deref_mut(),
        );
        let shape = self.x.shape();
        recycle(self.x);
        recycle(self.output);
        match x_gradient {
            Some(x_gradient) => (tensor(x_gradient, shape), channels, Some(gradient)),
            None => (gradient, channels, None),
        }
    }
}

#[derive(Debug)]
struct BatchNormBackward;

impl Backward<Flex, 3> for BatchNormBackward {
    type State = BatchNorm;

    fn backward(self, ops: Ops<BatchNorm, 3>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<Flex>(&ops.node);
        let (x_gradient, channels, _) = ops.state.backward(gradient, false);
        let [x, gamma, beta] = ops.parents.map(|parent| parent.map(|node| node.id));
        register(gradients, x, || x_gradient);
        register(gradients, gamma, || channel_tensor(channels.gamma));
        register(gradients, beta, || channel_tensor(channels.beta));
    }
}

#[derive(Debug)]
struct BatchNormResidualBackward;

impl Backward<Flex, 4> for BatchNormResidualBackward {
    type State = BatchNorm;

    fn backward(self, ops: Ops<BatchNorm, 4>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<Flex>(&ops.node);
        let (x_gradient, channels, residual_gradient) = ops.state.backward(gradient, true);
        let [x, gamma, beta, residual] = ops.parents.map(|parent| parent.map(|node| node.id));
        register(gradients, x, || x_gradient);
        register(gradients, gamma, || channel_tensor(channels.gamma));
        register(gradients, beta, || channel_tensor(channels.beta));
        if let Some(residual_gradient) = residual_gradient {
            register(gradients, residual, || residual_gradient);
        }
    }
}

/// Hands a gradient to its node, if that wants one.
fn register(
    gradients: &mut Gradients,
    node: Option<NodeId>,
    gradient: impl FnOnce() -> FlexTensor,
) {
    if let Some(node) = node {
        gradients.register::<Flex>(node, gradient());
    }
}

fn convolve(
    geometry: &Geometry,
    x: &FlexTensor,
    weight: &FlexTensor,
    finish: Finish<'_>,
) -> FlexTensor {
    let mut output = buffers::take(geometry.output_values());
    convolution::forward(
        Instructions::detect(),
        geometry,
        values(x),
        values(weight),
        finish,
        &mut output,
    );
    let [height, width] = geometry.output();
    tensor(output, [geometry.batch, height, width, geometry.out_channels])
}

/// The shapes of a convolution, from its operands.
///
/// # Panics
///
/// If input and weights do not have the same number of channels.
fn geometry(
    x: &FlexTensor,
    weight: &FlexTensor,
    stride: [usize; 2],
    padding: [usize; 2],
) -> Geometry {
    let [batch, height, width, in_channels] = x.shape().dims();
    let [out_channels, weight_channels, kernel_height, kernel_width] = weight.shape().dims();
    assert_eq!(in_channels, weight_channels, "the input has as many channels as the weights");
    Geometry {
        batch,
        in_channels,
        out_channels,
        input: [height, width],
        kernel: [kernel_height, kernel_width],
        stride,
        padding,
    }
}

/// The tensor with its values in the order of its axes and nothing else in its buffer.
fn in_order(tensor: FlexTensor) -> FlexTensor {
    let length = tensor.layout().num_elements();
    if tensor.layout().contiguous_offsets() == Some((0, length))
        && tensor.storage::<f32>().len() == length
    {
        return tensor;
    }
    match tensor.as_slice::<f32>() {
        Some(values) => self::tensor(values.to_vec(), tensor.shape()),
        None => tensor.to_contiguous(),
    }
}

/// The values of a tensor that [`in_order`] has returned.
fn values(tensor: &FlexTensor) -> &[f32] {
    tensor.as_slice().expect("the tensor is f32 and in order")
}

/// Keeps the tensor's memory for a later output, if nothing else uses it.
fn recycle(tensor: FlexTensor) {
    if tensor.is_unique()
        && let Ok(buffer) = tensor.into_data().try_into_vec::<f32>()
    {
        buffers::give(buffer);
    }
}

fn tensor(values: Vec<f32>, shape: impl Into<Shape>) -> FlexTensor {
    FlexTensor::new(Bytes::from_elems(values), Layout::contiguous(shape.into()), DType::F32)
}

fn channel_tensor(values: Vec<f32>) -> FlexTensor {
    let channels = values.len();
    tensor(values, [channels])
}
