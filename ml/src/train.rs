//! Training: SimCLR (Chen et al. 2020, arXiv 2002.05709), or its supervised form if images with one target are to count as views of one thing.
//!
//! A step takes a batch of images in an order drawn for the epoch, draws two views of each, embeds and projects them, and moves the weights down
//! the gradient of the [contrastive loss](crate::loss). After each epoch there is a checkpoint, and the encoder is [measured](crate::epoch_quality) on a
//! sample of the images, which never takes part in learning. A training that collapses ends there.
//!
//! On the CPU everything follows from the seed bit by bit. On a GPU the loss is fetched every few steps only, because each fetch waits for
//! all work that was sent before.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use burn::tensor::{Tensor, TensorData};

use crate::checkpoint::{Checkpoint, digest};
use crate::device::ComputeDevice;
use crate::encoder::projection::{self, ProjectionHead};
use crate::encoder::residual::{
    ParameterVisitor, ResidualEncoder, Role, STEPS_OF_CHANGING_MOMENTUM,
};
use crate::encoder::{EncoderChoice, projection::add_initial_weights};
use crate::epoch_quality::{EpochQuality, Examiner, Head};
use crate::error::MlError;
use crate::feed::Feed;
use crate::images::Images;
use crate::kernels::gpu::recording::Recording;
use crate::kernels::overwrite;
use crate::loss::{ContrastiveLoss, Positives, contrastive};
use crate::model::Model;
use crate::optimizer::AdamW;
use crate::random::Random;
use crate::recipe::Recipe;
use crate::schedule::Schedule;
use crate::views::Augmentation;
use crate::weights::{Weights, read};

/// Steps after which the loss is fetched from a GPU.
const FETCH_EVERY: usize = 8;

/// Steps that a training runs before it records one on a GPU, for which all is then compiled and tuned.
const STEPS_BEFORE_RECORDING: u64 = 3;

/// Keeps the draw of an epoch's order apart from those of other things.
const ORDER: u64 = 2;

/// Part of chance's loss that counts as no better than it.
const AT_CHANCE: f64 = 0.999;

/// What a training is asked for. `None` leaves the choice to the [recipe](crate::recipe).
#[derive(Clone, Debug, PartialEq)]
pub struct TrainOptions {
    /// How often every image is seen. 0 gives the encoder as it is at the start.
    pub max_epochs: u32,
    /// Source images a step, at least 2; each gives two views. No more than there are images are taken.
    pub batch_size: Option<usize>,
    /// Highest learning rate, which warm-up ends at.
    pub learning_rate: Option<f64>,
    /// What is minimised; a supervised training has a loss of its own and takes the default only.
    pub loss: ContrastiveLoss,
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
            loss: ContrastiveLoss::default(),
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
    /// Source images a second in this epoch, without the first step of a run.
    pub images_per_second: f64,
    /// Time left, by the speed so far.
    pub remaining: Duration,
}

/// What an epoch came to, with what is needed to go on after it.
#[derive(Clone, Debug, PartialEq)]
pub struct EpochReport {
    /// What it came to.
    pub summary: EpochSummary,
    /// All that is needed to go on from here.
    pub checkpoint: Vec<u8>,
}

/// What an epoch came to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EpochSummary {
    /// The epoch, from 1.
    pub epoch: u32,
    /// Mean loss of its steps.
    pub loss: f64,
    /// The loss of a network that tells nothing apart: what learning has to be better than.
    pub chance: f64,
    /// The encoder as it is after it.
    pub quality: EpochQuality,
    /// How long it took.
    pub seconds: f64,
}

/// Who watches a training, and may stop it.
pub trait TrainingObserver {
    /// Before the first step of a training that goes on from a checkpoint: the epochs that it has behind it.
    fn on_resume(&mut self, _done: &[EpochSummary]) {}
    /// After every step.
    fn on_step(&mut self, progress: &StepProgress) -> Flow;
    /// From time to time while the images are hashed, before the first step.
    fn on_hashing(&mut self) -> Flow {
        Flow::Continue
    }
    /// Between the batches that an epoch's measures take.
    fn on_measuring(&mut self) -> Flow {
        Flow::Continue
    }
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

/// Trains an encoder on images.
///
/// `targets`, one an image, measure; they teach only if [`TrainOptions::supervised`] is set. `resume` continues from a checkpoint of a training with the same
/// images, targets and options: on the CPU with the same weights in the end, bit by bit, as without the interruption. `start` gives the weights to start from,
/// and with them the network, in place of random ones.
///
/// Fewer images than a batch make one batch. The images that do not fill a last batch sit out the epoch. With `max_epochs` 0 the encoder comes back as it started.
///
/// # Errors
///
/// [`MlError::TooFewImages`] for fewer than two, [`MlError::InvalidOption`], [`MlError::TargetsMismatch`], [`MlError::InputMismatch`] between `images` and
/// `start`, [`MlError::InvalidCheckpoint`], [`MlError::NotFinite`] if the training diverges, [`MlError::Collapsed`] if
/// after the warm-up it tells nothing apart any more, [`MlError::Stopped`] after the step, the epoch or the part of hashing or measuring at which the observer said
/// [`Flow::Stop`], and [`MlError::Device`].
pub fn train(
    images: &dyn Images,
    targets: Option<&[Option<u32>]>,
    options: &TrainOptions,
    resume: Option<&[u8]>,
    start: Option<&Model>,
    device: &ComputeDevice,
    observer: &mut dyn TrainingObserver,
) -> Result<Trained, MlError> {
    let given = targets.map_or(0, <[_]>::len);
    if (targets.is_some() || options.supervised) && given != images.len() {
        return Err(MlError::TargetsMismatch { targets: given, images: images.len() });
    }
    let recipe = Recipe::resolve(images.len(), images.spec(), options, start)?;
    let description = serde_json::to_value(&recipe)
        .map_err(|error| MlError::InvalidModel { reason: error.to_string() })?;
    let (name, precision) = (device.name(), device.precision());
    tracing::debug!(recipe = %description, device = name, ?precision, "training starts");

    let data = digest(images, targets, &mut || observer.on_hashing() == Flow::Stop)?;
    let mut training = Training::new(images, targets, data, recipe, resume, start, device)?;
    if resume.is_some() {
        observer.on_resume(&training.curve);
    }
    while training.epoch < training.recipe.epochs {
        training.run_epoch(observer)?;
    }
    let weights = training.export(false)?;
    let model = Model::new(images.spec(), training.recipe.encoder.clone(), weights, device);
    Ok(Trained { model, curve: training.curve, recipe: description })
}

/// A training under way.
struct Training<'a> {
    images: &'a dyn Images,
    targets: Option<&'a [Option<u32>]>,
    device: &'a ComputeDevice,
    recipe: Recipe,
    schedule: Schedule,
    feed: Rc<Feed<'a>>,
    /// The other views, the same for every batch; `None` if targets say what belongs together.
    views: Option<Positives>,
    examiner: Examiner,
    data: u64,
    encoder: ResidualEncoder,
    head: ProjectionHead,
    optimizer: AdamW,
    recorded: Option<RecordedStep>,
    /// Epochs done.
    epoch: u32,
    curve: Vec<EpochSummary>,
    /// When this run began, when its first step was done, and how many steps it has done.
    began: Instant,
    warm: Instant,
    steps_run: u64,
    /// The last loss that was fetched.
    latest_loss: f64,
}

impl<'a> Training<'a> {
    fn new(
        images: &'a dyn Images,
        targets: Option<&'a [Option<u32>]>,
        data: u64,
        recipe: Recipe,
        resume: Option<&[u8]>,
        start: Option<&Model>,
        device: &'a ComputeDevice,
    ) -> Result<Self, MlError> {
        let dim = recipe.embedding_dim;
        let mut parameters = recipe.encoder.parameters();
        parameters.extend(projection::parameters(dim));
        let mut optimizer = AdamW::new(recipe.weight_decay, device.inner());
        let (mut epoch, mut curve) = (0, Vec::new());
        let weights = match resume {
            Some(bytes) => {
                let learned = || parameters.iter().filter(|(name, _)| is_learned(name));
                let mut expected = parameters.clone();
                expected.extend(learned().flat_map(|(name, shape)| AdamW::parameters(name, shape)));
                let checkpoint = Checkpoint::from_bytes(bytes, &recipe, data, &expected)?;
                (epoch, curve) = (checkpoint.epoch, checkpoint.curve);
                let steps = u64::from(epoch) * recipe.steps_per_epoch as u64;
                let names = learned().map(|(name, _)| name.as_str());
                optimizer.load(steps, names, &checkpoint.weights, device.inner());
                checkpoint.weights
            }
            None => initial_weights(&recipe, start),
        };
        Ok(Self {
            images,
            targets,
            device,
            schedule: recipe.schedule(),
            feed: Rc::new(Feed::new(images, &recipe, device)?),
            views: (!recipe.is_supervised())
                .then(|| Positives::views(recipe.batch_size, recipe.loss, &device.autodiff())),
            examiner: Examiner::new(&recipe, targets),
            data,
            encoder: ResidualEncoder::new(
                &recipe.encoder,
                &weights,
                device.inner(),
                device.precision(),
            ),
            head: ProjectionHead::new(&weights, device.inner()),
            optimizer,
            recorded: None,
            epoch,
            curve,
            began: Instant::now(),
            warm: Instant::now(),
            steps_run: 0,
            latest_loss: 0.0,
            recipe,
        })
    }

    fn run_epoch(&mut self, observer: &mut dyn TrainingObserver) -> Result<(), MlError> {
        let epoch = self.epoch + 1;
        let began = Instant::now();
        let (batch_size, steps) = (self.recipe.batch_size, self.recipe.steps_per_epoch);
        let order = self.order(epoch);
        let fetch_every = if self.device.is_cpu() { 1 } else { FETCH_EVERY };
        let mut losses = Losses { latest: self.latest_loss, ..Losses::default() };
        let feed = Rc::clone(&self.feed);
        let mut step = 0;
        feed.each_batch(epoch, order.chunks_exact(batch_size), |batch, views| {
            let loss = self.step(batch, views, epoch, step)?;
            losses.waiting.push(loss);
            step += 1;
            // The loss of the very first step is waited for, so that there is one to tell.
            if losses.waiting.len() >= fetch_every || step == steps || self.steps_run == 1 {
                losses.fetch(epoch, step)?;
            }
            let progress = self.progress(epoch, step, losses.latest, began);
            match observer.on_step(&progress) {
                Flow::Continue => Ok(()),
                Flow::Stop => Err(MlError::Stopped),
            }
        })?;
        self.latest_loss = losses.latest;
        self.end_epoch(epoch, &losses, began, observer)
    }

    /// The images' places, as an epoch goes through them.
    fn order(&self, epoch: u32) -> Vec<usize> {
        let key = [self.recipe.seed, ORDER, u64::from(epoch)];
        Random::keyed(&key).permutation(self.images.len())
    }

    /// One step, with the views of its batch, `[2 * batch, channels, height, width]`; `done` steps of this epoch are behind it. Gives the loss without waiting
    /// for it.
    fn step(
        &mut self,
        batch: &[usize],
        views: Tensor<4>,
        epoch: u32,
        done: usize,
    ) -> Result<Tensor<1>, MlError> {
        let step = u64::from(epoch - 1) * self.recipe.steps_per_epoch as u64 + done as u64;
        self.optimizer.begin(self.schedule.rate(step));
        let loss = match &self.recorded {
            Some(recorded) => {
                let changed = self.views.is_none().then(|| self.positives(batch));
                recorded.run(views, changed)?
            }
            None if self.can_be_recorded(step) => {
                let (recorded, loss) = self.record(batch, views, step)?;
                self.recorded = Some(recorded);
                loss
            }
            None => self.learn(&self.positives(batch), views, step),
        };
        self.steps_run += 1;
        if self.steps_run == 1 {
            self.warm = Instant::now();
            let seconds = (self.warm - self.began).as_secs_f64();
            tracing::debug!(seconds, "the first step is done");
        }
        Ok(loss)
    }

    /// What belongs together in a batch: views of an image, unless targets say it.
    fn positives(&self, batch: &[usize]) -> Positives {
        if let Some(views) = &self.views {
            return views.clone();
        }
        let targets = self.targets.unwrap_or_default();
        let targets: Vec<_> = batch.iter().map(|&image| targets[image]).collect();
        Positives::targets(&targets, &self.device.autodiff())
    }

    /// Moves the weights down the gradient of a batch's loss, which it gives. On a GPU it uploads nothing and reads nothing, so that it can be recorded.
    fn learn(&mut self, positives: &Positives, views: Tensor<4>, step: u64) -> Tensor<1> {
        let views = Tensor::from_inner(views);
        let projections = self.head.forward(self.encoder.forward(views, step));
        let loss = contrastive(projections, positives, self.recipe.temperature);
        let mut update = self.optimizer.update(loss.backward());
        self.encoder.visit(&mut update);
        self.head.visit(&mut update);
        loss.inner()
    }

    /// Whether every step from this one on is the same but for its views, what belongs together and the numbers of the optimizer, and has been run
    /// before so that nothing is left to compile.
    fn can_be_recorded(&self, step: u64) -> bool {
        !self.device.is_cpu()
            && step >= STEPS_OF_CHANGING_MOMENTUM
            && self.steps_run >= STEPS_BEFORE_RECORDING
    }

    /// Runs the step of a batch, and records it.
    fn record(
        &mut self,
        batch: &[usize],
        views: Tensor<4>,
        step: u64,
    ) -> Result<(RecordedStep, Tensor<1>), MlError> {
        let input = Tensor::zeros(views.dims(), self.device.inner());
        overwrite(&input, views);
        let positives = self.positives(batch);
        let (recording, [loss, recorded]) =
            Recording::of(&input, || self.learn(&positives, input.clone(), step))
                .map_err(|reason| MlError::Device { reason })?;
        tracing::debug!(step, "the step is recorded");
        Ok((RecordedStep { views: input, positives, loss: recorded, recording }, loss))
    }

    fn progress(&self, epoch: u32, step: usize, loss: f64, epoch_began: Instant) -> StepProgress {
        let steps = self.recipe.steps_per_epoch;
        // The first step of a run warms up: a GPU compiles and tunes in it. It counts only as long as there is no other.
        let (run_began, run) = match self.steps_run {
            2.. => (self.warm, self.steps_run - 1),
            run => (self.began, run.max(1)),
        };
        let (epoch_began, done) = match step {
            2.. if self.steps_run == step as u64 => (self.warm, step - 1),
            _ => (epoch_began, step),
        };
        let seconds = epoch_began.elapsed().as_secs_f64().max(1e-9);
        let left = u64::from(self.recipe.epochs - epoch) * steps as u64 + (steps - step) as u64;
        let a_step = run_began.elapsed().as_secs_f64() / run as f64;
        StepProgress {
            epoch,
            epochs: self.recipe.epochs,
            step: u32::try_from(step).unwrap_or(u32::MAX),
            steps: u32::try_from(steps).unwrap_or(u32::MAX),
            loss,
            images_per_second: (done * self.recipe.batch_size) as f64 / seconds,
            remaining: Duration::try_from_secs_f64(a_step * left as f64).unwrap_or(Duration::MAX),
        }
    }

    fn end_epoch(
        &mut self,
        epoch: u32,
        losses: &Losses,
        began: Instant,
        observer: &mut dyn TrainingObserver,
    ) -> Result<(), MlError> {
        self.epoch = epoch;
        let weights = self.export(true)?;
        if !weights.is_finite() {
            let step = u32::try_from(self.recipe.steps_per_epoch).unwrap_or(u32::MAX);
            return Err(MlError::NotFinite { epoch, step });
        }
        let quality = self.measure(&weights, losses.latest, observer)?;
        let summary = EpochSummary {
            epoch,
            loss: losses.sum / self.recipe.steps_per_epoch as f64,
            chance: self.recipe.chance(),
            quality,
            seconds: began.elapsed().as_secs_f64(),
        };
        self.curve.push(summary);
        let checkpoint = Checkpoint { epoch, curve: self.curve.clone(), weights };
        let checkpoint = checkpoint.to_bytes(&self.recipe, self.data)?;
        tracing::debug!(?summary, "epoch done");
        match observer.on_epoch(&EpochReport { summary, checkpoint }) {
            Flow::Continue => Ok(()),
            Flow::Stop => Err(MlError::Stopped),
        }
    }

    /// Measures the encoder after an epoch whose last step had this loss.
    fn measure(
        &self,
        weights: &Weights,
        loss: f64,
        observer: &mut dyn TrainingObserver,
    ) -> Result<EpochQuality, MlError> {
        let encoder = self.recipe.encoder.clone();
        let model = Model::new(self.images.spec(), encoder, weights.clone(), self.device);
        let dim = self.recipe.embedding_dim;
        let project = |vectors: &[f32]| {
            let shape = [vectors.len() / dim, dim];
            let vectors = TensorData::new(vectors.to_vec(), shape);
            let vectors = Tensor::<2>::from_data(vectors, self.device.inner());
            read(self.head.project(vectors)).map_err(|reason| MlError::Device { reason })
        };
        let observer = RefCell::new(observer);
        let stop = || observer.borrow_mut().on_measuring() == Flow::Stop;
        let steps = u64::from(self.epoch) * self.recipe.steps_per_epoch as u64;
        let chance = self.recipe.chance();
        let is_suspect = steps > self.recipe.warmup_steps && loss >= AT_CHANCE * chance;
        let head = is_suspect.then_some(&project as &Head<'_>);
        let (quality, collapse) = self.examiner.examine(&model, self.images, head, &stop)?;
        match collapse {
            Some(collapse) => {
                let (epoch, what) = (self.epoch, collapse.what());
                Err(MlError::Collapsed { epoch, what, loss, chance })
            }
            None => Ok(quality),
        }
    }

    /// The encoder's and the head's arrays, for a checkpoint the optimizer's too.
    fn export(&mut self, with_optimizer: bool) -> Result<Weights, MlError> {
        let mut export = Export { weights: Weights::default(), failure: None };
        self.encoder.visit(&mut export);
        self.head.visit(&mut export);
        let Export { mut weights, failure } = export;
        let device = |reason| MlError::Device { reason };
        if let Some(reason) = failure {
            return Err(device(reason));
        }
        if with_optimizer {
            self.optimizer.save(&mut weights).map_err(device)?;
        }
        Ok(weights)
    }
}

/// A step that a GPU repeats, with what it reads and what it gives.
#[derive(Debug)]
struct RecordedStep {
    views: Tensor<4>,
    positives: Positives,
    loss: Tensor<1>,
    recording: Recording,
}

impl RecordedStep {
    /// Runs it on the views of a batch, and gives the loss; `positives` if they are not those of every batch.
    fn run(&self, views: Tensor<4>, positives: Option<Positives>) -> Result<Tensor<1>, MlError> {
        overwrite(&self.views, views);
        if let Some(positives) = positives {
            self.positives.overwrite(positives);
        }
        self.recording.replay().map_err(|reason| MlError::Device { reason })?;
        // A copy, for the next run writes to the same place.
        Ok(self.loss.clone().add_scalar(0.0))
    }
}

fn is_learned(name: &str) -> bool {
    !name.ends_with(".mean") && !name.ends_with(".variance")
}

fn initial_weights(recipe: &Recipe, start: Option<&Model>) -> Weights {
    let mut weights = match start {
        Some(model) => model.weights().clone(),
        None => recipe.encoder.initial_weights(recipe.seed),
    };
    if !start.is_some_and(Model::has_head) {
        add_initial_weights(&mut weights, recipe.embedding_dim, recipe.seed);
    }
    weights
}

/// Losses of an epoch: those that are known, and those that the device still has.
#[derive(Default)]
struct Losses {
    waiting: Vec<Tensor<1>>,
    sum: f64,
    latest: f64,
}

impl Losses {
    /// Waits for those of the device. `step` is the step of the last one.
    fn fetch(&mut self, epoch: u32, step: usize) -> Result<(), MlError> {
        let count = self.waiting.len();
        let losses = Tensor::cat(std::mem::take(&mut self.waiting), 0);
        for (place, loss) in
            read(losses).map_err(|reason| MlError::Device { reason })?.into_iter().enumerate()
        {
            if !loss.is_finite() {
                let step = u32::try_from(step - count + place + 1).unwrap_or(u32::MAX);
                return Err(MlError::NotFinite { epoch, step });
            }
            self.latest = f64::from(loss);
            self.sum += self.latest;
        }
        Ok(())
    }
}

/// Copies every array to the host.
struct Export {
    weights: Weights,
    failure: Option<String>,
}

impl ParameterVisitor for Export {
    fn visit<const D: usize>(&mut self, name: &str, _role: Role, tensor: &mut Tensor<D>) {
        let copied = self.weights.insert_tensor(name, &tensor.clone().inner());
        self.failure = self.failure.take().or(copied.err());
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::device::PrecisionChoice;
    use crate::encoder::{Architecture, Normalization, Stage, Stem};
    use crate::images::{Color, ImageSet, InputSpec};

    const INPUT: InputSpec = InputSpec { size: 12, color: Color::Gray };

    /// Takes no notice.
    pub(crate) struct Silent;

    impl TrainingObserver for Silent {
        fn on_step(&mut self, _: &StepProgress) -> Flow {
            Flow::Continue
        }

        fn on_epoch(&mut self, _: &EpochReport) -> Flow {
            Flow::Continue
        }
    }

    fn images(count: usize) -> ImageSet {
        let mut random = Random::keyed(&[9]);
        let pixels = (0..count * INPUT.image_len()).map(|_| random.next() as u8).collect();
        ImageSet::new(INPUT, pixels).unwrap()
    }

    fn options(max_epochs: u32) -> TrainOptions {
        TrainOptions { max_epochs, batch_size: Some(8), ..TrainOptions::default() }
    }

    fn run(
        images: &ImageSet,
        options: &TrainOptions,
        start: Option<&Model>,
    ) -> Result<Trained, MlError> {
        train(images, None, options, None, start, &ComputeDevice::cpu(), &mut Silent)
    }

    #[test]
    fn measuring_changes_no_weight() {
        let (images, options, device) = (images(20), options(3), ComputeDevice::cpu());
        let measured = run(&images, &options, None).unwrap();
        assert!(measured.curve.iter().all(|epoch| epoch.quality.uniformity.is_some()));
        let recipe = Recipe::resolve(images.len(), INPUT, &options, None).unwrap();
        let mut plain = Training::new(&images, None, 0, recipe, None, None, &device).unwrap();
        for epoch in 1..=3 {
            let (feed, mut done) = (Rc::clone(&plain.feed), 0);
            let order = plain.order(epoch);
            feed.each_batch(epoch, order.chunks_exact(8), |batch, views| {
                done += 1;
                plain.step(batch, views, epoch, done - 1).map(|_| ())
            })
            .unwrap();
        }
        let bytes = |weights: &Weights| weights.to_safetensors("test", String::new()).unwrap();
        assert_eq!(bytes(measured.model.weights()), bytes(&plain.export(false).unwrap()));
    }

    /// A network whose last ReLU lets nothing through, and so no gradient back.
    fn dead() -> Model {
        let architecture = EncoderChoice::Compact.resolve(INPUT);
        let mut weights = architecture.initial_weights(3);
        for part in ["second", "shortcut"] {
            weights.insert(
                format!("encoder.stage2.block0.{part}.beta"),
                vec![128],
                vec![-1e6; 128],
            );
        }
        Model::new(INPUT, architecture, weights, &ComputeDevice::cpu())
    }

    #[test]
    fn a_collapsed_training_says_so_once_the_warm_up_is_over() {
        let images = images(20);
        // Two steps an epoch.
        for (warmup_epochs, collapsed) in [(0.0, 1), (0.5, 1), (1.0, 2), (1.5, 2)] {
            let options = TrainOptions { warmup_epochs: Some(warmup_epochs), ..options(3) };
            let error = run(&images, &options, Some(&dead())).unwrap_err();
            let MlError::Collapsed { epoch, what, loss, chance } = error else { panic!("{error}") };
            assert_eq!((epoch, what), (collapsed, "vectors"));
            assert_eq!(chance, 15_f64.ln());
            assert!((loss - chance).abs() < 1e-4, "{loss} and {chance}");
        }
        // Blank images cannot be told apart by anyone: the loss says so, and nothing else is wrong.
        let blank = ImageSet::new(INPUT, vec![0; images.pixels().len()]).unwrap();
        let trained = run(&blank, &options(2), Some(&dead())).unwrap();
        assert!((trained.curve[1].loss - trained.curve[1].chance).abs() < 1e-4);
    }

    #[test]
    fn small_trainings_and_images_that_are_alike_do_not_collapse() {
        let alike = ImageSet::new(INPUT, images(1).pixels().repeat(16)).unwrap();
        for seed in 0..4 {
            for images in [&images(2), &images(9), &images(60), &alike] {
                for warmup_epochs in [None, Some(0.0)] {
                    // A temperature at which every loss is close to chance.
                    for temperature in [None, Some(100.0)] {
                        let options =
                            TrainOptions { seed, warmup_epochs, temperature, ..options(1) };
                        run(images, &options, None).unwrap();
                    }
                }
            }
        }
    }

    /// The weights after this many steps of a training on a GPU, recorded as soon as that is possible or never.
    fn weights_after(
        steps: usize,
        is_recorded: bool,
        start: Option<&Model>,
        supervised: bool,
        device: &ComputeDevice,
    ) -> Weights {
        const BATCH: usize = 4;
        let input = start.map_or(INPUT, Model::input);
        let mut random = Random::keyed(&[9]);
        let count = BATCH * steps;
        let pixels = (0..count * input.image_len()).map(|_| random.next() as u8).collect();
        let images = ImageSet::new(input, pixels).unwrap();
        let targets: Vec<_> = (0..count).map(|image| Some(image as u32 % 3)).collect();
        let targets = supervised.then_some(targets.as_slice());
        let options = TrainOptions { batch_size: Some(BATCH), supervised, ..options(1) };
        let recipe = Recipe::resolve(images.len(), input, &options, start).unwrap();
        let mut training = Training::new(&images, targets, 0, recipe, None, start, device).unwrap();
        let (feed, order) = (Rc::clone(&training.feed), training.order(1));
        let mut done = 0;
        feed.each_batch(1, order.chunks_exact(BATCH), |batch, views| {
            if !is_recorded {
                training.steps_run = 0;
            }
            done += 1;
            training.step(batch, views, 1, done - 1).map(|_| ())
        })
        .unwrap();
        assert_eq!(training.recorded.is_some(), is_recorded);
        training.export(true).unwrap()
    }

    #[test]
    fn a_recorded_step_is_the_step() {
        let Some(gpu) = crate::parity::gpu() else { return };
        // All that an encoder may have: a pool, a scale for its pixels, shortcuts.
        let architecture = Architecture {
            name: "small".to_owned(),
            channels: 3,
            stem: Stem { kernel: 3, stride: 1, max_pool: true },
            stages: vec![Stage { channels: 8, blocks: 1 }, Stage { channels: 16, blocks: 1 }],
            normalization: Some(Normalization::ImageNet),
        };
        let photographs = InputSpec { size: 10, color: Color::Rgb };
        let weights = architecture.initial_weights(3);
        let start = Model::new(photographs, architecture, weights, &gpu);
        let steps = STEPS_OF_CHANGING_MOMENTUM as usize + 4;
        for gpu in [gpu.clone(), gpu.with_precision(PrecisionChoice::Full)] {
            for (start, supervised) in [(None, false), (Some(&start), true)] {
                let [recorded, launched] = [true, false].map(|is_recorded| {
                    let weights = weights_after(steps, is_recorded, start, supervised, &gpu);
                    weights.to_safetensors("test", String::new()).unwrap()
                });
                assert!(recorded == launched, "the weights differ, supervised: {supervised}");
            }
        }
    }
}
