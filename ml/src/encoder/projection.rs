//! The projection head: two linear layers with a ReLU between them, used by the loss alone (arXiv 2002.05709, section 4.2).
//!
//! It is kept with the model, so that a training that starts from it goes on with a head that fits.

use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor};

use super::INITIAL_WEIGHTS;
use super::residual::{ParameterVisitor, Role};
use crate::kernels::linear;
use crate::random::Random;
use crate::weights::Weights;

/// Length of the vectors that the loss compares.
pub(crate) const PROJECTION_DIM: usize = 128;

/// The head while it learns.
#[derive(Debug)]
pub(crate) struct ProjectionHead {
    /// `[embedding_dim, embedding_dim]`
    hidden_weight: Tensor<2>,
    /// `[embedding_dim]`
    hidden_bias: Tensor<1>,
    /// `[embedding_dim, PROJECTION_DIM]`
    output_weight: Tensor<2>,
    /// `[PROJECTION_DIM]`
    output_bias: Tensor<1>,
}

/// Names and shapes of the head's arrays.
pub(crate) fn parameters(embedding_dim: usize) -> Vec<(String, Vec<usize>)> {
    vec![
        ("head.hidden.weight".to_owned(), vec![embedding_dim, embedding_dim]),
        ("head.hidden.bias".to_owned(), vec![embedding_dim]),
        ("head.output.weight".to_owned(), vec![embedding_dim, PROJECTION_DIM]),
        ("head.output.bias".to_owned(), vec![PROJECTION_DIM]),
    ]
}

/// Adds weights to start from: uniform within `±1 / sqrt(embedding_dim)`.
pub(crate) fn add_initial_weights(weights: &mut Weights, embedding_dim: usize, seed: u64) {
    let bound = 1.0 / (embedding_dim as f32).sqrt();
    for (index, (name, shape)) in parameters(embedding_dim).into_iter().enumerate() {
        let mut random = Random::keyed(&[seed, INITIAL_WEIGHTS, 1_000_000 + index as u64]);
        let count = shape.iter().product();
        weights.insert(name, shape, (0..count).map(|_| random.uniform(-bound, bound)).collect());
    }
}

impl ProjectionHead {
    /// Builds it from weights that hold all of [`parameters`].
    pub(crate) fn new(weights: &Weights, device: &Device) -> Self {
        let device = device.clone().autodiff();
        Self {
            hidden_weight: weights.tensor("head.hidden.weight", &device).require_grad(),
            hidden_bias: weights.tensor("head.hidden.bias", &device).require_grad(),
            output_weight: weights.tensor("head.output.weight", &device).require_grad(),
            output_bias: weights.tensor("head.output.bias", &device).require_grad(),
        }
    }

    /// `[batch, embedding_dim]` to `[batch, PROJECTION_DIM]`.
    pub(crate) fn forward(&self, embeddings: Tensor<2>) -> Tensor<2> {
        let hidden = relu(linear(embeddings, self.hidden_weight.clone(), self.hidden_bias.clone()));
        linear(hidden, self.output_weight.clone(), self.output_bias.clone())
    }

    /// [`forward`](Self::forward) without a graph, for vectors that nobody learns from.
    pub(crate) fn project(&self, embeddings: Tensor<2>) -> Tensor<2> {
        let weight = |weight: &Tensor<2>| weight.clone().inner();
        let bias = |bias: &Tensor<1>| bias.clone().inner();
        let hidden = relu(linear(embeddings, weight(&self.hidden_weight), bias(&self.hidden_bias)));
        linear(hidden, weight(&self.output_weight), bias(&self.output_bias))
    }

    /// Shows every array to a visitor.
    pub(crate) fn visit(&mut self, visitor: &mut impl ParameterVisitor) {
        visitor.visit("head.hidden.weight", Role::Weight, &mut self.hidden_weight);
        visitor.visit("head.hidden.bias", Role::Offset, &mut self.hidden_bias);
        visitor.visit("head.output.weight", Role::Weight, &mut self.output_weight);
        visitor.visit("head.output.bias", Role::Offset, &mut self.output_bias);
    }
}
