//! The recipe: every choice that a training rests on, resolved from what was asked for and what the images are like.
//!
//! It follows SimCLR (Chen et al. 2020, arXiv 2002.05709, appendix B.9 on small images). Where it departs, and why:
//!
//! - *Batch*: at most [`MAX_BATCH`] source images, and fewer for small data sets, so that an epoch has at least [`WANTED_STEPS`] steps. The paper
//!   trains for hundreds of epochs on a million images; here a few epochs on thousands are asked for, and steps teach more than negatives do: 10,000 digits
//!   learn visibly more in 1,560 steps of 32 than in 195 of 256.
//! - *Optimizer*: AdamW instead of LARS, which pays for batches of thousands only.
//! - *Temperature*: 0.5, as the paper found for small images.
//! - *Views*: see [`crate::views`]; digits must not be flipped or cut up.
//! - *Last batch*: images that do not fill a batch sit out an epoch, another selection each time, so that all steps have one shape. Fewer images than a batch
//!   make one batch.

use serde::Serialize;

use crate::encoder::Architecture;
use crate::encoder::projection::PROJECTION_DIM;
use crate::error::MlError;
use crate::images::InputSpec;
use crate::loss::ContrastiveLoss;
use crate::model::Model;
use crate::schedule::Schedule;
use crate::train::TrainOptions;
use crate::views::Augmentation;

/// Largest batch that is chosen unasked.
pub const MAX_BATCH: usize = 256;

/// Smallest batch that is chosen unasked, if there are as many images.
pub const MIN_BATCH: usize = 32;

/// Steps that an epoch should have; smaller batches are chosen until it does.
pub const WANTED_STEPS: usize = 256;

/// Fewest images that can be told from one another.
pub const MIN_IMAGES: usize = 2;

/// Highest learning rate, if nothing is asked for.
pub const LEARNING_RATE: f64 = 3e-3;

/// Temperature of the loss, if nothing is asked for.
pub const TEMPERATURE: f64 = 0.5;

/// Weight decay, if nothing is asked for.
pub const WEIGHT_DECAY: f64 = 1e-4;

/// The method whose loss has the targets in it (Khosla et al. 2020, arXiv 2004.11362).
const SUPERVISED: &str = "supcon";

/// Part of all steps in which the learning rate rises, if nothing is asked for.
const WARMUP_SHARE: f64 = 0.05;

/// Every choice of a training. It is part of a checkpoint: only the same recipe can continue it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Recipe {
    pub(crate) method: &'static str,
    pub(crate) encoder: Architecture,
    pub(crate) embedding_dim: usize,
    pub(crate) projection_dim: usize,
    pub(crate) input_size: u32,
    pub(crate) images: usize,
    pub(crate) epochs: u32,
    pub(crate) batch_size: usize,
    pub(crate) steps_per_epoch: usize,
    pub(crate) optimizer: &'static str,
    pub(crate) learning_rate: f64,
    pub(crate) warmup_steps: u64,
    pub(crate) weight_decay: f64,
    pub(crate) loss: ContrastiveLoss,
    pub(crate) temperature: f64,
    pub(crate) augmentations: Vec<Augmentation>,
    pub(crate) seed: u64,
}

impl Recipe {
    /// Resolves what was asked for.
    ///
    /// # Errors
    ///
    /// [`MlError::InvalidOption`] for a value out of range, [`MlError::TooFewImages`] for fewer than [`MIN_IMAGES`], [`MlError::InputMismatch`] if the model to
    /// start from reads other images.
    pub(crate) fn resolve(
        images: usize,
        input: InputSpec,
        options: &TrainOptions,
        start: Option<&Model>,
    ) -> Result<Self, MlError> {
        let positive = "it must be a finite number above 0";
        check(
            "batch_size",
            options.batch_size,
            |&size| size >= MIN_IMAGES,
            "it must be at least 2",
        )?;
        check(
            "learning_rate",
            options.learning_rate,
            |&rate| rate.is_finite() && rate > 0.0,
            positive,
        )?;
        check(
            "temperature",
            options.temperature,
            |&value| value.is_finite() && value > 0.0,
            positive,
        )?;
        let not_negative = "it must be a finite number of at least 0";
        let is_not_negative = |value: &f64| value.is_finite() && *value >= 0.0;
        check("weight_decay", options.weight_decay, is_not_negative, not_negative)?;
        check("warmup_epochs", options.warmup_epochs, is_not_negative, not_negative)?;
        if options.supervised && options.loss != ContrastiveLoss::default() {
            return Err(MlError::InvalidOption {
                option: "loss",
                value: options.loss.to_string(),
                reason: "supervised training has a loss of its own",
            });
        }
        if images < MIN_IMAGES {
            return Err(MlError::TooFewImages { given: images, needed: MIN_IMAGES });
        }
        if let Some(model) = start
            && model.input() != input
        {
            return Err(MlError::InputMismatch { expected: model.input(), found: input });
        }

        let encoder = match start {
            Some(model) => model.architecture().clone(),
            None => options.encoder.resolve(input),
        };
        let batch_size = options.batch_size.unwrap_or_else(|| default_batch(images)).min(images);
        let steps_per_epoch = images / batch_size;
        let total_steps = steps_per_epoch as u64 * u64::from(options.max_epochs);
        let warmup_steps = match options.warmup_epochs {
            Some(epochs) => (epochs * steps_per_epoch as f64).round() as u64,
            None => (total_steps as f64 * WARMUP_SHARE).round() as u64,
        };
        let mut augmentations =
            options.augmentations.clone().unwrap_or_else(|| Augmentation::defaults(input));
        augmentations.sort_unstable();
        augmentations.dedup();
        Ok(Self {
            method: if options.supervised { SUPERVISED } else { "simclr" },
            embedding_dim: encoder.embedding_dim(),
            projection_dim: PROJECTION_DIM,
            encoder,
            input_size: input.size,
            images,
            epochs: options.max_epochs,
            batch_size,
            steps_per_epoch,
            optimizer: "adamw",
            learning_rate: options.learning_rate.unwrap_or(LEARNING_RATE),
            warmup_steps,
            weight_decay: options.weight_decay.unwrap_or(WEIGHT_DECAY),
            loss: options.loss,
            temperature: options.temperature.unwrap_or(TEMPERATURE),
            augmentations,
            seed: options.seed,
        })
    }

    /// Whether targets teach.
    pub(crate) fn is_supervised(&self) -> bool {
        self.method == SUPERVISED
    }

    /// The loss of a network that tells nothing apart.
    pub(crate) fn chance(&self) -> f64 {
        self.loss.chance(self.batch_size)
    }

    /// The learning rates that follow from it.
    pub(crate) fn schedule(&self) -> Schedule {
        let total = self.steps_per_epoch as u64 * u64::from(self.epochs);
        Schedule::new(self.learning_rate, self.warmup_steps, total)
    }
}

fn check<T: std::fmt::Display>(
    option: &'static str,
    value: Option<T>,
    is_valid: impl Fn(&T) -> bool,
    reason: &'static str,
) -> Result<(), MlError> {
    match value {
        Some(value) if !is_valid(&value) => {
            Err(MlError::InvalidOption { option, value: value.to_string(), reason })
        }
        Some(_) | None => Ok(()),
    }
}

/// The largest power of two, from [`MIN_BATCH`] to [`MAX_BATCH`], that leaves an epoch [`WANTED_STEPS`] steps.
fn default_batch(images: usize) -> usize {
    let mut batch = MAX_BATCH;
    while batch > MIN_BATCH && images / batch < WANTED_STEPS {
        batch /= 2;
    }
    batch
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::images::Color;

    const INPUT: InputSpec = InputSpec { size: 28, color: Color::Gray };

    fn resolve(images: usize, options: TrainOptions) -> Result<Recipe, MlError> {
        Recipe::resolve(images, INPUT, &options, None)
    }

    #[test]
    fn small_data_sets_get_small_batches() {
        for (images, batch) in [
            (2, 2),
            (31, 31),
            (100, 32),
            (10_000, 32),
            (20_000, 64),
            (60_000, 128),
            (70_000, 256),
            (1 << 30, 256),
        ] {
            let recipe = resolve(images, TrainOptions::default()).unwrap();
            assert_eq!((images, recipe.batch_size), (images, batch));
            assert_eq!(recipe.steps_per_epoch, images / batch);
        }
    }

    #[test]
    fn a_batch_larger_than_the_data_is_the_data() {
        let options = TrainOptions { batch_size: Some(4096), ..TrainOptions::default() };
        let recipe = resolve(10, options).unwrap();
        assert_eq!((recipe.batch_size, recipe.steps_per_epoch), (10, 1));
    }

    #[test]
    fn too_few_images_are_refused() {
        for given in [0, 1] {
            let error = resolve(given, TrainOptions::default()).unwrap_err();
            assert!(matches!(error, MlError::TooFewImages { needed: 2, .. }), "{error}");
        }
    }

    #[test]
    fn values_out_of_range_are_refused() {
        type Change = fn(&mut TrainOptions);
        let bad: [(&str, Change); 9] = [
            ("batch_size", |o| o.batch_size = Some(0)),
            ("batch_size", |o| o.batch_size = Some(1)),
            ("learning_rate", |o| o.learning_rate = Some(0.0)),
            ("learning_rate", |o| o.learning_rate = Some(f64::NAN)),
            ("temperature", |o| o.temperature = Some(-1.0)),
            ("temperature", |o| o.temperature = Some(f64::INFINITY)),
            ("weight_decay", |o| o.weight_decay = Some(-0.1)),
            ("warmup_epochs", |o| o.warmup_epochs = Some(f64::NAN)),
            ("loss", |o| (o.loss, o.supervised) = (ContrastiveLoss::Dcl, true)),
        ];
        for (name, change) in bad {
            let mut options = TrainOptions::default();
            change(&mut options);
            match resolve(100, options) {
                Err(MlError::InvalidOption { option, .. }) => assert_eq!(option, name),
                other => panic!("{name}: {other:?}"),
            }
        }
    }

    #[test]
    fn no_epochs_are_no_steps() {
        let recipe =
            resolve(100, TrainOptions { max_epochs: 0, ..TrainOptions::default() }).unwrap();
        assert_eq!((recipe.epochs, recipe.warmup_steps), (0, 0));
    }
}
