//! Why something in this crate did not succeed: one enum, one variant a cause.
//!
//! Variants carry what a message to a person needs. Which of them is the person's mistake, and which code a protocol gives
//! it, is for the caller to say. Images have their own [`ImageError`], because one bad image is a finding among many good ones.

use std::io;
use std::path::PathBuf;

use crate::device::DeviceChoice;
use crate::images::{ImageError, InputSpec};

/// Everything that can go wrong here besides a single unreadable image.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MlError {
    /// No device of the kind asked for can be opened.
    #[error("no device for {choice}: {reason}")]
    NoDevice {
        /// What was asked for.
        choice: DeviceChoice,
        /// What was found instead.
        reason: String,
    },
    /// A name that stands for nothing.
    #[error("unknown {kind} \"{name}\"")]
    UnknownName {
        /// What kind of thing was to be named: "device", "encoder", "augmentation".
        kind: &'static str,
        /// The name given.
        name: String,
        /// The names that there are, as a sentence may list them.
        known: String,
    },
    /// An option's value is outside its range.
    #[error("{option} cannot be {value}: {reason}")]
    InvalidOption {
        /// The option's name.
        option: &'static str,
        /// The value given.
        value: String,
        /// What it must be.
        reason: &'static str,
    },
    /// Contrastive learning needs at least one other image to tell an image from.
    #[error("{given} image(s) cannot train a model, at least {needed} are needed")]
    TooFewImages {
        /// Images given.
        given: usize,
        /// Images needed.
        needed: usize,
    },
    /// Images do not have the shape that the model reads.
    #[error("the model reads {} images of {size} x {size} pixels, these are {} of {given} x {given}", .expected.color_name(), .found.color_name(), size = .expected.size, given = .found.size)]
    InputMismatch {
        /// The model's shape.
        expected: InputSpec,
        /// The images' shape.
        found: InputSpec,
    },
    /// There are not as many targets as images, or supervised training got none.
    #[error("{targets} target(s) do not fit {images} image(s)")]
    TargetsMismatch {
        /// Targets given.
        targets: usize,
        /// Images given.
        images: usize,
    },
    /// The loss or a weight became infinite or not a number.
    #[error("training diverged: the loss of step {step} in epoch {epoch} is not finite")]
    NotFinite {
        /// Epoch, from 1.
        epoch: u32,
        /// Step within the epoch, from 1.
        step: u32,
    },
    /// Whatever the network is shown comes out the same, and the loss says so, too.
    #[error(
        "training collapsed: after epoch {epoch} the {what} of all images are the same, and the loss, {loss:.4}, is not below that of chance, {chance:.4}"
    )]
    Collapsed {
        /// Epoch, from 1.
        epoch: u32,
        /// What is the same: "vectors" or "projections".
        what: &'static str,
        /// Loss of the epoch's last step.
        loss: f64,
        /// The loss of a network that tells nothing apart.
        chance: f64,
    },
    /// The caller asked to stop.
    #[error("stopped on request")]
    Stopped,
    /// Bytes that should be a model are not one.
    #[error("not a model: {reason}")]
    InvalidModel {
        /// What is wrong with them.
        reason: String,
    },
    /// Bytes that should continue this training do not.
    #[error("not a checkpoint of this training: {reason}")]
    InvalidCheckpoint {
        /// What is wrong with them.
        reason: String,
    },
    /// Bytes that should be a graph of neighbours are not one.
    #[error("not a graph of neighbours: {reason}")]
    InvalidGraph {
        /// What is wrong with them.
        reason: String,
    },
    /// The device failed while it worked.
    #[error("the device failed: {reason}")]
    Device {
        /// What its driver said.
        reason: String,
    },
    /// An image was needed and could not be had.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// A file could not be written or read.
    #[error("{}: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl InputSpec {
    fn color_name(&self) -> &'static str {
        match self.color {
            crate::images::Color::Gray => "gray",
            crate::images::Color::Rgb => "color",
        }
    }
}
