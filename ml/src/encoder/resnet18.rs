//! ResNet-18 (He et al. 2015, arXiv 1512.03385, table 1).
//!
//! Up to 64 pixels a side the stem is the one that SimCLR uses for small images (arXiv 2002.05709, appendix B.9): a 3x3 convolution that
//! keeps the resolution, and no pooling. Above, the published stem: 7x7, every second position, then the pooling. Published weights have the
//! published stem, whatever the images' size.

use super::{Architecture, Normalization, Stage, Stem};
use crate::images::{Color, InputSpec};

/// What people call it.
pub(crate) const NAME: &str = "resnet18";

/// The network for images of this shape.
pub(crate) fn architecture(input: InputSpec) -> Architecture {
    let small = input.size <= 64;
    Architecture {
        name: NAME.to_owned(),
        channels: input.color.channels(),
        stem: Stem {
            kernel: if small { 3 } else { 7 },
            stride: if small { 1 } else { 2 },
            max_pool: !small,
        },
        normalization: None,
        stages: [64, 128, 256, 512].map(|channels| Stage { channels, blocks: 2 }).to_vec(),
    }
}

/// The network of published weights: the published stem, and pixels as those of ImageNet.
pub(crate) fn published() -> Architecture {
    Architecture {
        normalization: Some(Normalization::ImageNet),
        ..architecture(InputSpec { size: 224, color: Color::Rgb })
    }
}
