//! The kernels as operations of burn: on `Flex` they run, on `Autodiff<Flex>` they record how to go back. What [`gpu`](super::gpu) has
//! kernels for is an operation there as well.
//!
//! Tensors are `f32`, on a GPU also `f16` for images, and channels-last; the public functions of [`kernels`](super) see to that. A tensor that is a view with other
//! strides is copied into order first.

use std::fmt::Debug;
use std::marker::PhantomData;
use std::sync::Arc;

use super::buffers;
use super::convolution::{self, Finish, Geometry, Packed};
use super::normalisation::{self, Statistics};
use super::pooling::{self, Plane};
use super::simd::Instructions;
use super::{AdamWConstants, AdamWStep, Convolution, ViewForm, adamw};
use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, NodeGuard, Ops, OpsKind};
use burn::backend::flex::{FlexTensor, Layout};
use burn::backend::tensor::{FloatTensor, IntTensor};
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

    pub(super) fn into_option(self) -> Option<FloatTensor<B>> {
        match self {
            Summand::Nothing => None,
            Summand::Residual(residual) => Some(residual),
        }
    }
}

/// Convolutions of channels-last images.
#[backend_extension(Autodiff, Flex, Cube)]
pub(super) trait ConvolutionKernels: Backend {
    /// Convolution without a bias.
    fn residual_convolution(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        stride: [usize; 2],
        padding: [usize; 2],
    ) -> FloatTensor<Self>;
}

/// Convolutions of channels-last images by weights that are laid out already.
#[backend_extension(Flex)]
pub(super) trait PackedKernels: Backend {
    /// Convolution, bias, residual sum and ReLU in one.
    fn packed_convolution(
        x: FloatTensor<Self>,
        #[extension_type] residual: Summand<Self>,
        layer: Arc<PackedConvolution>,
        relu: bool,
    ) -> FloatTensor<Self>;
}

/// The same on a GPU, which takes weights as they are.
#[backend_extension(Cube)]
pub(super) trait FoldedKernels: Backend {
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
}

/// A convolution with its bias, weights laid out for this processor; for images of any size.
#[derive(Debug)]
pub(super) struct PackedConvolution {
    instructions: Instructions,
    /// `[out_channels, in_channels, kernel_height, kernel_width]`
    shape: [usize; 4],
    options: Convolution,
    packed: Packed,
    bias: Vec<f32>,
}

impl PackedConvolution {
    /// `weight` as for [`conv2d`](super::conv2d), a bias for every output channel.
    ///
    /// # Panics
    ///
    /// If the lengths differ from those of `shape`.
    pub(super) fn new(
        weight: &[f32],
        shape: [usize; 4],
        bias: Vec<f32>,
        options: Convolution,
    ) -> Self {
        assert_eq!(bias.len(), shape[0], "bias");
        let instructions = Instructions::detect();
        let no_image = [0, 0, 0, shape[1]];
        let packed = Packed::new(instructions, &geometry(no_image, shape, options), weight);
        Self { instructions, shape, options, packed, bias }
    }
}

/// Normalisation of channels-last images.
#[backend_extension(Autodiff, Flex, Cube)]
pub(super) trait NormalisationKernels: Backend {
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

impl ConvolutionKernels for Flex {
    fn residual_convolution(
        x: FlexTensor,
        weight: FlexTensor,
        stride: [usize; 2],
        padding: [usize; 2],
    ) -> FlexTensor {
        let options = Convolution { stride, padding };
        let geometry = geometry(x.shape().dims(), weight.shape().dims(), options);
        let x = in_order(x);
        let output = convolve_once(&geometry, &x, &in_order(weight));
        recycle(x);
        output
    }
}

impl PackedKernels for Flex {
    fn packed_convolution(
        x: FlexTensor,
        residual: Summand<Self>,
        layer: Arc<PackedConvolution>,
        relu: bool,
    ) -> FlexTensor {
        let geometry = geometry(x.shape().dims(), layer.shape, layer.options);
        let residual = residual.into_option().map(in_order);
        if let Some(residual) = &residual {
            let [height, width] = geometry.output();
            let shape = [geometry.batch, height, width, geometry.out_channels];
            assert_eq!(residual.shape().dims(), shape, "the residual has the shape of the result");
        }
        let finish =
            Finish { bias: Some(&layer.bias), residual: residual.as_ref().map(values), relu };
        let x = in_order(x);
        let output = convolve(layer.instructions, &geometry, &x, &layer.packed, finish);
        recycle(x);
        if let Some(residual) = residual {
            recycle(residual);
        }
        output
    }
}

/// A convolution that was done, and what its backward pass needs.
pub(super) trait Convolved<B: Backend>: Clone + Debug + Send + 'static {
    /// Also gives the result.
    fn forward(
        x: FloatTensor<B>,
        weight: FloatTensor<B>,
        options: Convolution,
    ) -> (Self, FloatTensor<B>);

    /// The gradients of `x` and of the weights, those that are wanted.
    fn backward(self, gradient: FloatTensor<B>, wanted: [bool; 2]) -> [Option<FloatTensor<B>>; 2];
}

/// A backend that has a convolution of its own.
pub(super) trait Convolving: Backend {
    type Convolved: Convolved<Self>;
}

impl Convolving for Flex {
    type Convolved = FlexConvolved;
}

impl<B: Convolving, C: CheckpointStrategy> ConvolutionKernels for Autodiff<B, C> {
    fn residual_convolution(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        stride: [usize; 2],
        padding: [usize; 2],
    ) -> FloatTensor<Self> {
        let nodes = [x.node(), weight.node()];
        let (x, weight) = (x.into_primitive(), weight.into_primitive());
        let (done, output) = B::Convolved::forward(x, weight, Convolution { stride, padding });
        let step = ConvolutionBackward::<B>(PhantomData);
        track::<B, C, _, _>(step, nodes, done, output)
    }
}

/// A batch normalisation that was done, and what its backward pass needs.
pub(super) trait BatchNorm<B: Backend>: Clone + Debug + Send + 'static {
    fn forward(
        x: FloatTensor<B>,
        gamma: FloatTensor<B>,
        beta: FloatTensor<B>,
        residual: Option<FloatTensor<B>>,
        epsilon: f32,
        relu: bool,
    ) -> Self;

    fn output(&self) -> FloatTensor<B>;

    fn mean(&self) -> FloatTensor<B>;

    fn variance(&self) -> FloatTensor<B>;

    /// `with_residual` says whether there was one and its gradient is wanted.
    fn backward(self, gradient: FloatTensor<B>, with_residual: bool) -> BatchNormGradients<B>;
}

/// The gradients of a batch normalisation; `residual` only if it was asked for.
pub(super) struct BatchNormGradients<B: Backend> {
    pub(super) x: FloatTensor<B>,
    pub(super) gamma: FloatTensor<B>,
    pub(super) beta: FloatTensor<B>,
    pub(super) residual: Option<FloatTensor<B>>,
}

/// A backend that has a batch normalisation of its own.
pub(super) trait Normalising: Backend {
    type BatchNorm: BatchNorm<Self>;
}

impl Normalising for Flex {
    type BatchNorm = FlexBatchNorm;
}

impl NormalisationKernels for Flex {
    fn residual_batch_norm(
        x: FlexTensor,
        gamma: FlexTensor,
        beta: FlexTensor,
        residual: Summand<Self>,
        epsilon: f32,
        relu: bool,
    ) -> (FlexTensor, FlexTensor, FlexTensor) {
        let done = FlexBatchNorm::forward(x, gamma, beta, residual.into_option(), epsilon, relu);
        recycle(done.x);
        let mean = channel_tensor(done.statistics.mean);
        (done.output, mean, channel_tensor(done.statistics.variance))
    }
}

impl<B: Normalising, C: CheckpointStrategy> NormalisationKernels for Autodiff<B, C> {
    fn residual_batch_norm(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        residual: Summand<Self>,
        epsilon: f32,
        relu: bool,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let [x_node, gamma_node, beta_node] = [x.node(), gamma.node(), beta.node()];
        let residual = residual.into_option();
        let residual_node = residual.as_ref().map(|residual| residual.node());
        let done = B::BatchNorm::forward(
            x.into_primitive(),
            gamma.into_primitive(),
            beta.into_primitive(),
            residual.map(|residual| residual.into_primitive()),
            epsilon,
            relu,
        );
        let mean = FloatTensor::<Self>::new(done.mean());
        let variance = FloatTensor::<Self>::new(done.variance());
        let output = done.output();
        let step = BatchNormBackward::<B>(PhantomData);
        let output = match residual_node {
            None => {
                let nodes = [x_node, gamma_node, beta_node];
                track::<B, C, _, _>(step, nodes, done, output)
            }
            Some(residual_node) => {
                let nodes = [x_node, gamma_node, beta_node, residual_node];
                track::<B, C, _, _>(step, nodes, done, output)
            }
        };
        (output, mean, variance)
    }
}

/// Losses of rows that are compared with each other.
#[backend_extension(Autodiff, Cube)]
pub(super) trait LossKernels: Backend {
    /// The contrastive loss of `projections [rows, length]`, `[1]`; `shares` and `excluded` are `[rows, rows]`, as [`loss`](crate::loss) has them.
    fn contrastive_loss(
        projections: FloatTensor<Self>,
        shares: FloatTensor<Self>,
        excluded: FloatTensor<Self>,
        temperature: f32,
    ) -> FloatTensor<Self>;
}

/// An operation on one tensor that was done, and what its backward pass needs.
pub(super) trait WayBack<B: Backend>: Clone + Debug + Send + 'static {
    /// The gradient of what it was done to.
    fn backward(self, gradient: FloatTensor<B>) -> FloatTensor<B>;
}

/// A contrastive loss that was found.
pub(super) trait Contrasted<B: Backend>: WayBack<B> {
    /// Also gives the loss.
    fn forward(
        projections: FloatTensor<B>,
        shares: FloatTensor<B>,
        excluded: FloatTensor<B>,
        temperature: f32,
    ) -> (Self, FloatTensor<B>);
}

/// A backend that has a contrastive loss of its own.
pub(super) trait Contrasting: Backend {
    type Contrasted: Contrasted<Self>;
}

impl<B: Contrasting, C: CheckpointStrategy> LossKernels for Autodiff<B, C> {
    fn contrastive_loss(
        projections: FloatTensor<Self>,
        shares: FloatTensor<Self>,
        excluded: FloatTensor<Self>,
        temperature: f32,
    ) -> FloatTensor<Self> {
        let nodes = [projections.node()];
        let (done, loss) = B::Contrasted::forward(
            projections.into_primitive(),
            shares.into_primitive(),
            excluded.into_primitive(),
            temperature,
        );
        let step = BackwardOfOne::<B, B::Contrasted>(PhantomData);
        track::<B, C, _, _>(step, nodes, done, loss)
    }
}

/// The mean of images.
#[backend_extension(Autodiff, Cube)]
pub(super) trait AverageKernels: Backend {
    /// `x [batch, height, width, channels]` to `[batch, channels]`.
    fn average_places(x: FloatTensor<Self>) -> FloatTensor<Self>;
}

/// The largest of places.
#[backend_extension(Autodiff, Flex, Cube)]
pub(super) trait MaximumKernels: Backend {
    /// Of 3x3 places, every second place down and across: `x [batch, height, width, channels]` to
    /// `[batch, height / 2, width / 2, channels]`, rounded up.
    fn largest_places(x: FloatTensor<Self>) -> FloatTensor<Self>;
}

/// A pooling that was done.
pub(super) trait Pooled<B: Backend>: WayBack<B> {
    /// Also gives the result.
    fn forward(x: FloatTensor<B>) -> (Self, FloatTensor<B>);
}

/// A backend that has a mean of images of its own.
pub(super) trait Averaging: Backend {
    type Averaged: Pooled<Self>;
}

/// A backend that has a largest of places of its own.
pub(super) trait Maximising: Backend {
    type Maximum: Pooled<Self>;
}

impl<B: Averaging, C: CheckpointStrategy> AverageKernels for Autodiff<B, C> {
    fn average_places(x: FloatTensor<Self>) -> FloatTensor<Self> {
        pooled::<B, B::Averaged, C>(x)
    }
}

impl<B: Maximising, C: CheckpointStrategy> MaximumKernels for Autodiff<B, C> {
    fn largest_places(x: FloatTensor<Self>) -> FloatTensor<Self> {
        pooled::<B, B::Maximum, C>(x)
    }
}

fn pooled<B: Backend, P: Pooled<B>, C: CheckpointStrategy>(
    x: FloatTensor<Autodiff<B, C>>,
) -> FloatTensor<Autodiff<B, C>> {
    let nodes = [x.node()];
    let (done, output) = P::forward(x.into_primitive());
    track::<B, C, _, _>(BackwardOfOne::<B, P>(PhantomData), nodes, done, output)
}

/// The output of an operation, which remembers how to go back if one of its operands wants a gradient.
fn track<B: Backend, C: CheckpointStrategy, Step: Backward<B, N>, const N: usize>(
    step: Step,
    operands: [NodeGuard; N],
    done: Step::State,
    output: FloatTensor<B>,
) -> FloatTensor<Autodiff<B, C>> {
    match step.prepare::<C>(operands).compute_bound().stateful() {
        OpsKind::Tracked(prep) => prep.finish(done, output),
        OpsKind::UnTracked(prep) => prep.finish(output),
    }
}

/// The way back through an operation on one tensor.
#[derive(Debug)]
struct BackwardOfOne<B, S>(PhantomData<(B, S)>);

impl<B: Backend, S: WayBack<B>> Backward<B, 1> for BackwardOfOne<B, S> {
    type State = S;

    fn backward(self, ops: Ops<Self::State, 1>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<B>(&ops.node);
        let [parent] = ops.parents.map(|parent| parent.map(|node| node.id));
        register::<B>(gradients, [(parent, ops.state.backward(gradient))]);
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

/// What a training on a GPU changes where it lies, so that a step that was recorded finds it there again.
#[backend_extension(Cube)]
pub(super) trait InPlaceKernels: Backend {
    /// A step of AdamW; `numbers` are the rate, the correction and what decay leaves. Gives the three tensors it has changed.
    fn adamw_in_place(
        parameter: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        first: FloatTensor<Self>,
        second: FloatTensor<Self>,
        numbers: FloatTensor<Self>,
        constants: AdamWConstants,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);

    /// Moves running statistics towards a batch's. Gives the two tensors it has changed.
    fn move_statistics_in_place(
        mean: FloatTensor<Self>,
        variance: FloatTensor<Self>,
        batch_mean: FloatTensor<Self>,
        batch_variance: FloatTensor<Self>,
        momentum: f32,
        unbiased: f32,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    /// Writes the numbers of `source` to where `target` lies, and gives that.
    fn overwrite(target: FloatTensor<Self>, source: FloatTensor<Self>) -> FloatTensor<Self>;
}

/// Views of images that lie on a GPU.
#[backend_extension(Cube)]
pub(super) trait ViewKernels: Backend {
    /// `words [images, words]` to `[images, channels, height, width]`, from 0 to 1.
    fn unpack_images(words: IntTensor<Self>, image: [usize; 3]) -> FloatTensor<Self>;

    /// `words [images, words]`, `background [images, channels]`, `splines [KNOTS, side]` and `plans [views, PLAN_LENGTH]` to
    /// `[views, channels, side, side]`.
    fn draw_views(
        words: IntTensor<Self>,
        background: FloatTensor<Self>,
        splines: FloatTensor<Self>,
        plans: FloatTensor<Self>,
        form: ViewForm,
    ) -> FloatTensor<Self>;
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

/// [`Convolved`] on the CPU.
#[derive(Clone, Debug)]
pub(super) struct FlexConvolved {
    geometry: Geometry,
    x: FlexTensor,
    weight: FlexTensor,
}

impl Convolved<Flex> for FlexConvolved {
    fn forward(x: FlexTensor, weight: FlexTensor, options: Convolution) -> (Self, FlexTensor) {
        let geometry = geometry(x.shape().dims(), weight.shape().dims(), options);
        let (x, weight) = (in_order(x), in_order(weight));
        let output = convolve_once(&geometry, &x, &weight);
        (Self { geometry, x, weight }, output)
    }

    fn backward(
        self,
        gradient: FlexTensor,
        [x_wanted, weight_wanted]: [bool; 2],
    ) -> [Option<FlexTensor>; 2] {
        let Self { geometry, x, weight } = self;
        let instructions = Instructions::detect();
        let gradient = in_order(gradient);
        let weight_gradient = weight_wanted.then(|| {
            let mut found = vec![0.0; geometry.weight_values()];
            convolution::weight_gradient(
                instructions,
                &geometry,
                values(&x),
                values(&gradient),
                &mut found,
            );
            tensor(found, weight.shape())
        });
        let x_gradient = x_wanted.then(|| {
            let mut found = buffers::take(values(&x).len());
            convolution::input_gradient(
                instructions,
                &geometry,
                values(&weight),
                values(&gradient),
                &mut found,
            );
            tensor(found, x.shape())
        });
        recycle(gradient);
        recycle(x);
        [x_gradient, weight_gradient]
    }
}

/// The way back through a convolution.
#[derive(Debug)]
struct ConvolutionBackward<B>(PhantomData<B>);

impl<B: Convolving> Backward<B, 2> for ConvolutionBackward<B> {
    type State = B::Convolved;

    fn backward(self, ops: Ops<Self::State, 2>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<B>(&ops.node);
        let nodes = ops.parents.map(|parent| parent.map(|node| node.id));
        let found = ops.state.backward(gradient, nodes.map(|node| node.is_some()));
        let pairs = nodes.into_iter().zip(found);
        register::<B>(gradients, pairs.filter_map(|(node, gradient)| Some((node, gradient?))));
    }
}

/// [`BatchNorm`] on the CPU.
#[derive(Clone, Debug)]
pub(super) struct FlexBatchNorm {
    x: FlexTensor,
    gamma: FlexTensor,
    statistics: Statistics,
    epsilon: f32,
    relu: bool,
    output: FlexTensor,
}

impl BatchNorm<Flex> for FlexBatchNorm {
    fn forward(
        x: FlexTensor,
        gamma: FlexTensor,
        beta: FlexTensor,
        residual: Option<FlexTensor>,
        epsilon: f32,
        relu: bool,
    ) -> Self {
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
        Self { x, gamma, statistics, epsilon, relu, output }
    }

    fn output(&self) -> FlexTensor {
        self.output.clone()
    }

    fn mean(&self) -> FlexTensor {
        channel_tensor(self.statistics.mean.clone())
    }

    fn variance(&self) -> FlexTensor {
        channel_tensor(self.statistics.variance.clone())
    }

    fn backward(self, gradient: FlexTensor, with_residual: bool) -> BatchNormGradients<Flex> {
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
        let (x, residual) = match x_gradient {
            Some(x_gradient) => (tensor(x_gradient, shape), Some(gradient)),
            None => (gradient, None),
        };
        let [gamma, beta] = [channels.gamma, channels.beta].map(channel_tensor);
        BatchNormGradients { x, gamma, beta, residual }
    }
}

/// [`Pooled`] on the CPU, by the largest.
#[derive(Clone, Debug)]
pub(super) struct FlexMaximum {
    x: FlexTensor,
    output: FlexTensor,
}

impl Maximising for Flex {
    type Maximum = FlexMaximum;
}

impl MaximumKernels for Flex {
    fn largest_places(x: FlexTensor) -> FlexTensor {
        let (done, output) = FlexMaximum::forward(x);
        recycle(done.x);
        output
    }
}

impl Pooled<Flex> for FlexMaximum {
    fn forward(x: FlexTensor) -> (Self, FlexTensor) {
        let x = in_order(x);
        let ([batch, ..], plane) = plane(&x);
        let mut output = buffers::take(batch * plane.pooled_length());
        pooling::largest(plane, values(&x), &mut output);
        let [height, width] = [plane.height, plane.width].map(pooling::windows);
        let output = tensor(output, [batch, height, width, plane.channels]);
        (Self { x, output: output.clone() }, output)
    }
}

impl WayBack<Flex> for FlexMaximum {
    fn backward(self, gradient: FlexTensor) -> FlexTensor {
        let Self { x, output } = self;
        let gradient = in_order(gradient);
        let mut found = buffers::take(values(&x).len());
        let (_, plane) = plane(&x);
        pooling::largest_gradient(
            plane,
            values(&x),
            values(&output),
            values(&gradient),
            &mut found,
        );
        let found = tensor(found, x.shape());
        [x, output, gradient].into_iter().for_each(recycle);
        found
    }
}

/// The shape of images, and what a pooling needs of it.
fn plane(x: &FlexTensor) -> ([usize; 4], Plane) {
    let shape = x.shape().dims();
    let [_, height, width, channels] = shape;
    (shape, Plane { height, width, channels })
}

/// The way back through a batch normalisation, with a residual for a parent or without.
#[derive(Debug)]
struct BatchNormBackward<B>(PhantomData<B>);

impl<B: Normalising> Backward<B, 3> for BatchNormBackward<B> {
    type State = B::BatchNorm;

    fn backward(self, ops: Ops<Self::State, 3>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<B>(&ops.node);
        let [x, gamma, beta] = ops.parents.map(|parent| parent.map(|node| node.id));
        let found = ops.state.backward(gradient, false);
        register::<B>(gradients, [(x, found.x), (gamma, found.gamma), (beta, found.beta)]);
    }
}

impl<B: Normalising> Backward<B, 4> for BatchNormBackward<B> {
    type State = B::BatchNorm;

    fn backward(self, ops: Ops<Self::State, 4>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<B>(&ops.node);
        let [x, gamma, beta, residual] = ops.parents.map(|parent| parent.map(|node| node.id));
        let found = ops.state.backward(gradient, true);
        register::<B>(gradients, [(x, found.x), (gamma, found.gamma), (beta, found.beta)]);
        register::<B>(gradients, found.residual.map(|gradient| (residual, gradient)));
    }
}

/// Hands gradients to their nodes, if those want them.
fn register<B: Backend>(
    gradients: &mut Gradients,
    found: impl IntoIterator<Item = (Option<NodeId>, FloatTensor<B>)>,
) {
    for (node, gradient) in found {
        if let Some(node) = node {
            gradients.register::<B>(node, gradient);
        }
    }
}

fn convolve(
    instructions: Instructions,
    geometry: &Geometry,
    x: &FlexTensor,
    packed: &Packed,
    finish: Finish<'_>,
) -> FlexTensor {
    let mut output = buffers::take(geometry.output_values());
    convolution::forward(instructions, geometry, values(x), packed, finish, &mut output);
    let [height, width] = geometry.output();
    tensor(output, [geometry.batch, height, width, geometry.out_channels])
}

/// As [`convolve`], by weights that are laid out for this one time.
fn convolve_once(geometry: &Geometry, x: &FlexTensor, weight: &FlexTensor) -> FlexTensor {
    let instructions = Instructions::detect();
    let packed = Packed::new(instructions, geometry, values(weight));
    let output = convolve(instructions, geometry, x, &packed, Finish::default());
    packed.recycle();
    output
}

/// The shapes of a convolution, from those of images and weights.
///
/// # Panics
///
/// If the two do not have the same number of channels.
fn geometry(x: [usize; 4], weight: [usize; 4], options: Convolution) -> Geometry {
    let [batch, height, width, in_channels] = x;
    let [out_channels, weight_channels, kernel_height, kernel_width] = weight;
    assert_eq!(in_channels, weight_channels, "the input has as many channels as the weights");
    Geometry {
        batch,
        in_channels,
        out_channels,
        input: [height, width],
        kernel: [kernel_height, kernel_width],
        stride: options.stride,
        padding: options.padding,
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
