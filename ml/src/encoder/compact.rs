//! The compact network, for images of up to 64 pixels a side: stages of 32, 64 and 128 channels, one block each.
//!
//! The stem takes every second position. A digit's strokes are two or three pixels wide and survive that; the network
//! computes a quarter as much and learns as well, so that more epochs fit into a minute. Images of less than 16 pixels keep their resolution.

use super::{Architecture, Stage, Stem};
use crate::images::InputSpec;

/// What people call it.
pub(crate) const NAME: &str = "compact";

/// The network for images of this shape.
pub(crate) fn architecture(input: InputSpec) -> Architecture {
    Architecture {
        name: NAME.to_owned(),
        channels: input.color.channels(),
        stem: Stem { kernel: 3, stride: if input.size < 16 { 1 } else { 2 }, max_pool: false },
        normalization: None,
        stages: [32, 64, 128].map(|channels| Stage { channels, blocks: 1 }).to_vec(),
    }
}
