//! The networks that turn an image into a vector.
//!
//! All of them are residual networks with basic blocks (He et al. 2015, arXiv 1512.03385): a stem, stages of blocks of two
//! 3x3 convolutions, each followed by batch normalisation, and the mean over all positions after the last ReLU. That mean is the embedding: it
//! is what SimCLR evaluates (arXiv 2002.05709, "representation before the projection head"), and it is never negative.
//!
//! - [`compact`] for small images, [`resnet18`] for the rest: two [`Architecture`]s, no code of their own;
//! - [`residual`] is the network while it learns; [`folded`] the same one for inference, without normalisation layers;
//! - [`projection`] is the head that only training uses.
//!
//! Parameters have fixed names (`encoder.stage1.block0.first.weight`), which are their names in a file.

pub(crate) mod compact;
pub(crate) mod folded;
pub(crate) mod projection;
pub(crate) mod residual;
pub(crate) mod resnet18;

use std::fmt;
use std::str::FromStr;

use burn::tensor::{Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use crate::error::MlError;
use crate::images::InputSpec;
use crate::kernels::Convolution;
use crate::random::Random;
use crate::weights::Weights;

/// Largest side for which [`EncoderChoice::Auto`] takes the compact network.
const COMPACT_MAX_SIDE: u32 = 64;

/// Added to a variance before its root is taken.
pub(crate) const NORM_EPSILON: f64 = 1e-5;

/// Which network to train.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EncoderChoice {
    /// By the images' size: compact up to 64 pixels a side, ResNet-18 above.
    #[default]
    Auto,
    /// Three residual stages of 32, 64 and 128 channels; vectors of 128 numbers.
    Compact,
    /// ResNet-18; vectors of 512 numbers.
    ResNet18,
}

impl EncoderChoice {
    pub(crate) fn resolve(self, input: InputSpec) -> Architecture {
        match self {
            Self::Compact => compact::architecture(input),
            Self::ResNet18 => resnet18::architecture(input),
            Self::Auto if input.size <= COMPACT_MAX_SIDE => compact::architecture(input),
            Self::Auto => resnet18::architecture(input),
        }
    }
}

impl fmt::Display for EncoderChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Compact => compact::NAME,
            Self::ResNet18 => resnet18::NAME,
        })
    }
}

impl FromStr for EncoderChoice {
    type Err = MlError;

    fn from_str(text: &str) -> Result<Self, MlError> {
        match text.trim().to_ascii_lowercase().as_str() {
            "auto" => Ok(Self::Auto),
            compact::NAME => Ok(Self::Compact),
            resnet18::NAME | "resnet-18" | "resnet_18" => Ok(Self::ResNet18),
            _ => Err(MlError::UnknownName {
                kind: "encoder",
                name: text.to_owned(),
                known: "auto, compact, resnet18".to_owned(),
            }),
        }
    }
}

/// What a network is built from. It travels in the header of a model's file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Architecture {
    /// What people call it.
    pub(crate) name: String,
    /// Channels of an image.
    pub(crate) channels: usize,
    /// The first layer.
    pub(crate) stem: Stem,
    /// What follows. The first stage keeps the resolution, each other one halves it.
    pub(crate) stages: Vec<Stage>,
    /// What is done to the pixels, which are numbers from 0 to 1, before the stem; nothing unless the weights come from elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) normalization: Option<Normalization>,
}

/// Scales that pixels are brought to for weights that were trained on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Normalization {
    /// Less ImageNet's mean, divided by its standard deviation, colour by colour: what torchvision's weights expect.
    ImageNet,
}

impl Normalization {
    /// For images on this device.
    pub(crate) fn on(self, device: &Device) -> Scale {
        let Self::ImageNet = self;
        let color = |values: [f32; 3]| {
            Tensor::<4>::from_data(TensorData::new(values.to_vec(), [1, 3, 1, 1]), device)
        };
        Scale { mean: color(IMAGENET_MEAN), deviation: color(IMAGENET_DEVIATION) }
    }
}

/// A [`Normalization`] whose numbers lie on a device.
#[derive(Clone, Debug)]
pub(crate) struct Scale {
    /// `[1, 3, 1, 1]`
    mean: Tensor<4>,
    /// `[1, 3, 1, 1]`
    deviation: Tensor<4>,
}

impl Scale {
    /// Images `[batch, 3, height, width]`, from 0 to 1, brought to scale.
    pub(crate) fn apply(&self, images: Tensor<4>) -> Tensor<4> {
        (images - self.mean.clone()) / self.deviation.clone()
    }
}

/// Mean of ImageNet's pixels: red, green, blue.
const IMAGENET_MEAN: [f32; 3] = [0.485, 0.456, 0.406];
/// Their standard deviation.
const IMAGENET_DEVIATION: [f32; 3] = [0.229, 0.224, 0.225];

/// The first layer: a convolution, and perhaps a maximum over 3x3 positions, every second one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Stem {
    pub(crate) kernel: usize,
    pub(crate) stride: usize,
    pub(crate) max_pool: bool,
}

/// Blocks of one width.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Stage {
    pub(crate) channels: usize,
    pub(crate) blocks: usize,
}

/// A convolution with its normalisation, named and measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UnitPlan {
    pub(crate) name: String,
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
    pub(crate) kernel: usize,
    pub(crate) stride: usize,
}

/// A block: `relu(second(relu(first(x))) + shortcut(x))`; without a shortcut, `x` itself is added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BlockPlan {
    pub(crate) first: UnitPlan,
    pub(crate) second: UnitPlan,
    pub(crate) shortcut: Option<UnitPlan>,
}

impl UnitPlan {
    /// How the kernel moves; with a stride of 1 an image keeps its size.
    pub(crate) fn convolution(&self) -> Convolution {
        Convolution { stride: [self.stride; 2], padding: [self.kernel / 2; 2] }
    }

    /// Its arrays. The last two are statistics, not learned by gradients.
    fn parameters(&self) -> [(String, Vec<usize>); 5] {
        let named = |part: &str, shape| (format!("{}.{part}", self.name), shape);
        [
            named("weight", vec![self.outputs, self.inputs, self.kernel, self.kernel]),
            named("gamma", vec![self.outputs]),
            named("beta", vec![self.outputs]),
            named("mean", vec![self.outputs]),
            named("variance", vec![self.outputs]),
        ]
    }
}

impl Architecture {
    /// Length of the vectors.
    pub(crate) fn embedding_dim(&self) -> usize {
        self.stages.last().map_or(0, |stage| stage.channels)
    }

    /// That a network of this kind can be built. Bounds what a hostile header can ask for.
    pub(crate) fn check(&self) -> Result<(), String> {
        let stem = &self.stem;
        let sound = matches!(self.channels, 1 | 3)
            && stem.kernel % 2 == 1
            && stem.kernel <= 15
            && matches!(stem.stride, 1..=4)
            && matches!(self.stages.len(), 1..=6)
            && self
                .stages
                .iter()
                .all(|stage| matches!(stage.channels, 1..=4096) && matches!(stage.blocks, 1..=64))
            && matches!(self.name.len(), 1..=64)
            && self.name.bytes().all(|byte| byte.is_ascii_graphic())
            && (self.normalization.is_none() || self.channels == 3);
        if sound { Ok(()) } else { Err("its architecture is none that can be built".to_owned()) }
    }

    /// Most numbers that an image of this side becomes in one layer.
    pub(crate) fn largest_layer(&self, side: usize) -> usize {
        let mut side = side.div_ceil(self.stem.stride);
        let stem = side * side * self.stem_plan().outputs;
        if self.stem.max_pool {
            side = side.div_ceil(2);
        }
        self.stages.iter().fold(stem, |largest, stage| {
            let layer = side * side * stage.channels;
            side = side.div_ceil(2);
            largest.max(layer)
        })
    }

    /// The stem's convolution.
    pub(crate) fn stem_plan(&self) -> UnitPlan {
        UnitPlan {
            name: "encoder.stem".to_owned(),
            inputs: self.channels,
            outputs: self.stages.first().map_or(0, |stage| stage.channels),
            kernel: self.stem.kernel,
            stride: self.stem.stride,
        }
    }

    /// The blocks in order.
    pub(crate) fn block_plans(&self) -> Vec<BlockPlan> {
        let mut plans = Vec::new();
        let mut inputs = self.stem_plan().outputs;
        for (stage_index, stage) in self.stages.iter().enumerate() {
            for block in 0..stage.blocks {
                let outputs = stage.channels;
                let stride = if stage_index > 0 && block == 0 { 2 } else { 1 };
                let unit = |part: &str, inputs, kernel, stride| UnitPlan {
                    name: format!("encoder.stage{stage_index}.block{block}.{part}"),
                    inputs,
                    outputs,
                    kernel,
                    stride,
                };
                plans.push(BlockPlan {
                    first: unit("first", inputs, 3, stride),
                    second: unit("second", outputs, 3, 1),
                    shortcut: (inputs != outputs || stride != 1)
                        .then(|| unit("shortcut", inputs, 1, stride)),
                });
                inputs = outputs;
            }
        }
        plans
    }

    fn unit_plans(&self) -> Vec<UnitPlan> {
        let mut plans = vec![self.stem_plan()];
        for block in self.block_plans() {
            plans.extend([block.first, block.second]);
            plans.extend(block.shortcut);
        }
        plans
    }

    /// Names and shapes of all arrays.
    pub(crate) fn parameters(&self) -> Vec<(String, Vec<usize>)> {
        self.unit_plans().iter().flat_map(UnitPlan::parameters).collect()
    }

    /// Weights to start from: normal with variance `2 / (outputs * kernel²)` (He et al. 2015, arXiv 1502.01852), as is customary for residual
    /// networks; normalisation that changes nothing.
    pub(crate) fn initial_weights(&self, seed: u64) -> Weights {
        let mut weights = Weights::default();
        for (index, plan) in self.unit_plans().iter().enumerate() {
            let [weight, gamma, beta, mean, variance] = plan.parameters();
            let deviation = (2.0 / (plan.outputs * plan.kernel * plan.kernel) as f32).sqrt();
            let mut random = Random::keyed(&[seed, INITIAL_WEIGHTS, index as u64]);
            let count = weight.1.iter().product();
            weights.insert(
                weight.0,
                weight.1,
                (0..count).map(|_| random.normal() * deviation).collect(),
            );
            for ((name, shape), value) in [(gamma, 1.0), (beta, 0.0), (mean, 0.0), (variance, 1.0)]
            {
                weights.insert(name, shape, vec![value; plan.outputs]);
            }
        }
        weights
    }
}

/// Keeps the draws of initial weights apart from those of other things.
pub(crate) const INITIAL_WEIGHTS: u64 = 1;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::images::Color;

    fn gray(size: u32) -> InputSpec {
        InputSpec { size, color: Color::Gray }
    }

    #[test]
    fn size_chooses_the_network() {
        let name = |choice: EncoderChoice, size| choice.resolve(gray(size)).name;
        assert_eq!(name(EncoderChoice::Auto, 28), "compact");
        assert_eq!(name(EncoderChoice::Auto, 64), "compact");
        assert_eq!(name(EncoderChoice::Auto, 65), "resnet18");
        assert_eq!(name(EncoderChoice::Compact, 224), "compact");
        assert_eq!(name(EncoderChoice::ResNet18, 28), "resnet18");
    }

    #[test]
    fn names_parse() {
        for choice in [EncoderChoice::Auto, EncoderChoice::Compact, EncoderChoice::ResNet18] {
            assert_eq!(choice.to_string().parse::<EncoderChoice>().unwrap(), choice);
        }
        assert!(matches!("resnet50".parse::<EncoderChoice>(), Err(MlError::UnknownName { .. })));
    }

    #[test]
    fn networks_have_the_published_size() {
        // ResNet-18's 11,176,512 weights without the classifier, with running statistics counted in.
        let input = InputSpec { size: 224, color: Color::Rgb };
        let architecture = EncoderChoice::ResNet18.resolve(input);
        let count: usize = architecture
            .parameters()
            .iter()
            .map(|(_, shape)| shape.iter().product::<usize>())
            .sum();
        assert_eq!(count, 11_176_512 + 2 * 4_800);
        assert_eq!(architecture.embedding_dim(), 512);
        assert_eq!(EncoderChoice::Compact.resolve(gray(28)).embedding_dim(), 128);
    }

    #[test]
    fn hostile_architectures_are_refused() {
        let good = EncoderChoice::Compact.resolve(gray(28));
        assert!(good.check().is_ok());
        let broken: [fn(&mut Architecture); 7] = [
            |a| a.channels = 2,
            |a| a.stem.kernel = 0,
            |a| a.stem.kernel = usize::MAX,
            |a| a.stem.stride = 0,
            |a| a.stages.clear(),
            |a| a.stages[0].channels = 0,
            |a| a.stages[0].blocks = usize::MAX,
        ];
        for change in broken {
            let mut bad = good.clone();
            change(&mut bad);
            assert!(bad.check().is_err(), "{bad:?}");
        }
    }
}
