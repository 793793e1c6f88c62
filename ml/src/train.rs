//! Training.
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::device::ComputeDevice;
use crate::encoder::EncoderChoice;
use crate::error::MlError;
use crate::images::ImageSet;
use crate::model::Model;
use crate::views::Augmentation;

/// What a training is asked for. `None` leaves the choice to the [recipe](crate::recipe).
#[derive(Clone, Debug, PartialEq)]
pub struct TrainOptions {
    /// How often every image is seen. 0 gives the encoder as it is at the start.
    pub max_epochs: u32,
    /// Source images a step, at least 2; each gives two views. No more than there are images are taken.
    pub batch_size: Option<usize>,
    /// Highest learning rate, which warm-up ends at.
    pub learning_rate: Option<f64>,
    /// Temperature of the loss.
    pub temperature: Option<f64>,
    /// Weight decay of AdamW.
    pub weight_decay: Option<f64>,
    /// Epochs, or a part of one, in which the learning rate rises from zero.
    pub warmup_epochs: Option<f64>,
    /// Where all chance comes from.
    pub seed: u64,
    /// The network.
    pub encoder: EncoderChoice,
    /// What views are made by; an empty list means the image as it is.
    pub augmentations: Option<Vec<Augmentation>>,
    /// Whether images with the same target are taken as views of one thing (supervised contrastive learning).
    pub supervised: bool,
}

impl Default for TrainOptions {
    fn default() -> Self {
        Self {
            max_epochs: 5,
            batch_size: None,
            learning_rate: None,
            temperature: None,
            weight_decay: None,
            warmup_epochs: None,
            seed: 0,
            encoder: EncoderChoice::Auto,
            augmentations: None,
            supervised: false,
        }
    }
}

/// Whether to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Go on.
    Continue,
    /// Stop as soon as possible; the training ends with [`MlError::Stopped`].
    Stop,
}

/// Where a training stands after a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepProgress {
    /// This epoch, from 1.
    pub epoch: u32,
    /// Epochs in all.
    pub epochs: u32,
    /// This step of the epoch, from 1.
    pub step: u32,
    /// Steps an epoch.
    pub steps: u32,
    /// The latest loss that is known; on a GPU a few steps old.
    pub loss: f64,
    /// Source images a second.
    pub images_per_second: f64,
    /// Time left, by the speed so far.
    pub remaining: Duration,
}

/// What an epoch came to.
#[derive(Clone, Debug, PartialEq)]
pub struct EpochReport {
    /// The epoch, from 1.
    pub epoch: u32,
    /// Mean loss of its steps.
    pub loss: f64,
    /// Nearest-neighbour accuracy among a sample of the images that have targets, from 0 to 1.
    pub knn_accuracy: Option<f64>,
    /// How long it took.
    pub seconds: f64,
    /// All that is needed to go on from here.
    pub checkpoint: Vec<u8>,
}

/// An epoch as the result remembers it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct EpochSummary {
    /// The epoch, from 1.
    pub epoch: u32,
    /// Mean loss of its steps.
    pub loss: f64,
    /// Nearest-neighbour accuracy, from 0 to 1, if there were targets.
    pub knn_accuracy: Option<f64>,
    /// How long it took.
    pub seconds: f64,
}

/// Who watches a training, and may stop it.
pub trait TrainingObserver {
    /// After every step.
    fn on_step(&mut self, progress: &StepProgress) -> Flow;
    /// After every epoch.
    fn on_epoch(&mut self, report: &EpochReport) -> Flow;
}

/// What a training gives.
#[derive(Debug)]
pub struct Trained {
    /// The encoder, ready to embed.
    pub model: Model,
    /// Every epoch, those before a continued checkpoint included.
    pub curve: Vec<EpochSummary>,
    /// Every choice that was made, as JSON.
    pub recipe: serde_json::Value,
}

/// Trains.
pub fn train(
    images: &ImageSet,
    targets: Option<&[Option<u32>]>,
    options: &TrainOptions,
    resume: Option<&[u8]>,
    start: Option<&Model>,
    device: &ComputeDevice,
    observer: &mut dyn TrainingObserver,
) -> Result<Trained, MlError> {
    let _ = (images, targets, options, resume, start, device, observer);
    Err(MlError::Stopped)
}
