//! The network for inference: normalisation is folded into the convolutions.
//!
//! With fixed statistics, normalisation is `gamma * (y - mean) / sqrt(variance + epsilon) + beta`, a scale and a shift of each channel. The scale
//! multiplies the convolution's weights, the shift becomes its bias, and nothing is left to do after it. Each image's vector depends on that image
//! alone.

use burn::tensor::{Device, Tensor, TensorData};

use super::{Architecture, NORM_EPSILON, Scale, UnitPlan};
use crate::kernels::{Activation, FoldedConvolution, channels_last, global_average_pool, max_pool};
use crate::weights::Weights;

/// A convolution with the bias that its normalisation has become.
fn fold(plan: UnitPlan, weights: &Weights, device: &Device) -> FoldedConvolution {
    let part = |part: &str| weights.get(&format!("{}.{part}", plan.name));
    let (weight, gamma, beta) = (part("weight"), part("gamma"), part("beta"));
    let (mean, variance) = (part("mean"), part("variance"));
    let mut folded = weight.values.clone();
    let mut bias = Vec::with_capacity(plan.outputs);
    let per_output = plan.inputs * plan.kernel * plan.kernel;
    for (output, values) in folded.chunks_exact_mut(per_output).enumerate() {
        // A variance is not negative; one from a file may be, and must not give NaN.
        let variance = f64::from(variance.values[output]).max(0.0);
        let scale = f64::from(gamma.values[output]) / (variance + NORM_EPSILON).sqrt();
        for value in values {
            *value = (f64::from(*value) * scale) as f32;
        }
        bias.push((f64::from(beta.values[output]) - f64::from(mean.values[output]) * scale) as f32);
    }
    let weight = Tensor::from_data(TensorData::new(folded, weight.shape.clone()), device);
    let bias = Tensor::from_data(TensorData::new(bias, [plan.outputs]), device);
    FoldedConvolution::new(weight, bias, plan.convolution())
}

#[derive(Debug)]
struct FoldedBlock {
    first: FoldedConvolution,
    second: FoldedConvolution,
    shortcut: Option<FoldedConvolution>,
}

/// The network for inference.
#[derive(Debug)]
pub(crate) struct FoldedEncoder {
    normalization: Option<Scale>,
    stem: FoldedConvolution,
    max_pool: bool,
    blocks: Vec<FoldedBlock>,
}

impl FoldedEncoder {
    /// Builds it from weights that hold all of [`Architecture::parameters`].
    pub(crate) fn new(architecture: &Architecture, weights: &Weights, device: &Device) -> Self {
        let unit = |plan| fold(plan, weights, device);
        Self {
            normalization: architecture.normalization.map(|scale| scale.on(device)),
            stem: unit(architecture.stem_plan()),
            max_pool: architecture.stem.max_pool,
            blocks: architecture
                .block_plans()
                .into_iter()
                .map(|plan| FoldedBlock {
                    first: unit(plan.first),
                    second: unit(plan.second),
                    shortcut: plan.shortcut.map(unit),
                })
                .collect(),
        }
    }

    /// Images `[batch, channels, height, width]` to vectors `[batch, embedding_dim]`.
    pub(crate) fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        let images = match &self.normalization {
            Some(normalization) => normalization.apply(images),
            None => images,
        };
        let mut x = self.stem.forward(channels_last(images), None, Activation::Relu);
        if self.max_pool {
            x = max_pool(x);
        }
        for block in &self.blocks {
            let y = block.first.forward(x.clone(), None, Activation::Relu);
            let x_kept = match &block.shortcut {
                Some(shortcut) => shortcut.forward(x, None, Activation::None),
                None => x,
            };
            x = block.second.forward(y, Some(x_kept), Activation::Relu);
        }
        global_average_pool(x)
    }
}
