//! Training through the crate's public face, on digits that the crate draws itself.
//!
//! Sets are tiny: what is tested is what a training promises (reproducible, stoppable, continued bit by bit, honest about bad input), and that it
//! learns at all. How much it learns, and how fast, is the benchmark's business.

#![allow(clippy::unwrap_used)] // helpers of tests, too, may end a test

use std::cell::Cell;

use thanosql_ml::digits::draw_digit;
use thanosql_ml::quality::knn_accuracy;
use thanosql_ml::{
    Augmentation, Color, ComputeDevice, ContrastiveLoss, EncoderChoice, EpochReport, EpochSummary,
    Flow, ImageSet, InputSpec, MlError, Model, StepProgress, TrainOptions, Trained,
    TrainingObserver, train,
};

const INPUT: InputSpec = InputSpec { size: 28, color: Color::Gray };

/// `count` digits, 0 to 9 in turn, and what they are.
fn digits(count: usize, seed: u64) -> (ImageSet, Vec<u32>) {
    let labels: Vec<u32> = (0..count as u32).map(|index| index % 10).collect();
    let pixels = labels
        .iter()
        .enumerate()
        .flat_map(|(index, &label)| draw_digit(label as u8, seed * 1_000_000 + index as u64))
        .collect();
    (ImageSet::new(INPUT, pixels).unwrap(), labels)
}

fn options(max_epochs: u32, batch_size: usize) -> TrainOptions {
    TrainOptions { max_epochs, batch_size: Some(batch_size), ..TrainOptions::default() }
}

/// Remembers everything and stops where told.
#[derive(Default)]
struct Recorder {
    steps: Vec<StepProgress>,
    epochs: Vec<EpochReport>,
    behind: Option<Vec<EpochSummary>>,
    stop_after_steps: Option<usize>,
    stop_after_epochs: Option<usize>,
    stop_while_measuring: bool,
    stop_while_hashing: bool,
}

impl TrainingObserver for Recorder {
    fn on_resume(&mut self, done: &[EpochSummary]) {
        self.behind = Some(done.to_vec());
    }

    fn on_step(&mut self, progress: &StepProgress) -> Flow {
        self.steps.push(*progress);
        if self.stop_after_steps == Some(self.steps.len()) { Flow::Stop } else { Flow::Continue }
    }

    fn on_hashing(&mut self) -> Flow {
        if self.stop_while_hashing { Flow::Stop } else { Flow::Continue }
    }

    fn on_measuring(&mut self) -> Flow {
        if self.stop_while_measuring { Flow::Stop } else { Flow::Continue }
    }

    fn on_epoch(&mut self, report: &EpochReport) -> Flow {
        self.epochs.push(report.clone());
        if self.stop_after_epochs == Some(self.epochs.len()) { Flow::Stop } else { Flow::Continue }
    }
}

fn run(images: &ImageSet, options: &TrainOptions) -> Result<Trained, MlError> {
    train(images, None, options, None, None, &ComputeDevice::cpu(), &mut Recorder::default())
}

fn bytes(trained: &Trained) -> Vec<u8> {
    trained.model.to_safetensors().unwrap()
}

fn embed(model: &Model, images: &ImageSet) -> Vec<f32> {
    model.embed(images, &|| false).unwrap()
}

#[test]
fn a_seed_fixes_the_result() {
    let (images, _) = digits(24, 1);
    let first = run(&images, &options(2, 8)).unwrap();
    assert_eq!(bytes(&first), bytes(&run(&images, &options(2, 8)).unwrap()));
    let other = TrainOptions { seed: 1, ..options(2, 8) };
    assert_ne!(bytes(&first), bytes(&run(&images, &other).unwrap()));
    let vectors = embed(&first.model, &images);
    assert_eq!(vectors.len(), 24 * first.model.embedding_dim());
    assert!(vectors.iter().all(|value| value.is_finite() && *value >= 0.0));
}

#[test]
fn a_continued_training_ends_as_an_uninterrupted_one() {
    let (images, labels) = digits(26, 2);
    let targets: Vec<Option<u32>> = labels.into_iter().map(Some).collect();
    let device = ComputeDevice::cpu();
    let options = options(3, 8);
    let mut whole = Recorder::default();
    let uninterrupted =
        train(&images, Some(&targets), &options, None, None, &device, &mut whole).unwrap();
    for stop in [1, 2] {
        let mut first = Recorder { stop_after_epochs: Some(stop), ..Recorder::default() };
        let stopped = train(&images, Some(&targets), &options, None, None, &device, &mut first);
        assert!(matches!(stopped, Err(MlError::Stopped)));
        let checkpoint = &first.epochs.last().unwrap().checkpoint;
        let mut rest = Recorder::default();
        let continued =
            train(&images, Some(&targets), &options, Some(checkpoint), None, &device, &mut rest)
                .unwrap();
        assert_eq!(bytes(&continued), bytes(&uninterrupted), "stopped after epoch {stop}");
        assert_eq!(rest.epochs.len(), 3 - stop);
        assert_eq!(rest.behind.as_ref().map(Vec::len), Some(stop));
        assert_eq!(rest.behind.as_deref(), Some(&continued.curve[..stop]));
        assert_eq!(rest.steps[0].epoch as usize, stop + 1);
        let curve = |trained: &Trained| {
            trained
                .curve
                .iter()
                .map(|epoch| (epoch.epoch, epoch.loss, epoch.chance, epoch.quality))
                .collect::<Vec<_>>()
        };
        assert_eq!(curve(&continued), curve(&uninterrupted));
    }
}

#[test]
fn a_checkpoint_of_something_else_is_refused() {
    let (images, _) = digits(16, 3);
    let device = ComputeDevice::cpu();
    let mut recorder = Recorder::default();
    train(&images, None, &options(1, 8), None, None, &device, &mut recorder).unwrap();
    let checkpoint = recorder.epochs[0].checkpoint.clone();
    let resume = |images: &ImageSet, options: &TrainOptions, bytes: &[u8]| {
        let observer = &mut Recorder::default();
        let error = train(images, None, options, Some(bytes), None, &device, observer).unwrap_err();
        assert!(matches!(error, MlError::InvalidCheckpoint { .. }), "{error}");
    };
    resume(&images, &options(2, 8), &checkpoint);
    resume(&images, &TrainOptions { loss: ContrastiveLoss::Dcl, ..options(1, 8) }, &checkpoint);
    resume(&images, &TrainOptions { seed: 5, ..options(1, 8) }, &checkpoint);
    resume(&digits(16, 4).0, &options(1, 8), &checkpoint);
    resume(&images, &options(1, 8), b"nonsense");
    resume(&images, &options(1, 8), &checkpoint[..checkpoint.len() / 2]);
    let model = run(&images, &options(1, 8)).unwrap().model.to_safetensors().unwrap();
    resume(&images, &options(1, 8), &model);
    assert!(Model::from_safetensors(&checkpoint, &device).is_err());
}

#[test]
fn an_observer_stops_within_a_step() {
    let (images, _) = digits(32, 5);
    let mut recorder = Recorder { stop_after_steps: Some(3), ..Recorder::default() };
    let stopped =
        train(&images, None, &options(5, 8), None, None, &ComputeDevice::cpu(), &mut recorder);
    assert!(matches!(stopped, Err(MlError::Stopped)));
    assert_eq!(recorder.steps.len(), 3);
    assert!(recorder.epochs.is_empty());
    let last = recorder.steps[2];
    assert_eq!((last.epoch, last.epochs, last.step, last.steps), (1, 5, 3, 4));
    assert!(last.loss > 0.0 && last.images_per_second > 0.0 && !last.remaining.is_zero());
}

#[test]
fn an_observer_stops_while_an_epoch_is_measured_and_while_images_are_hashed() {
    let (images, _) = digits(16, 5);
    let mut recorder = Recorder { stop_while_measuring: true, ..Recorder::default() };
    let stopped =
        train(&images, None, &options(5, 8), None, None, &ComputeDevice::cpu(), &mut recorder);
    assert!(matches!(stopped, Err(MlError::Stopped)));
    assert_eq!((recorder.steps.len(), recorder.epochs.len()), (2, 0));
    let mut recorder = Recorder { stop_while_hashing: true, ..Recorder::default() };
    let stopped =
        train(&images, None, &options(5, 8), None, None, &ComputeDevice::cpu(), &mut recorder);
    assert!(matches!(stopped, Err(MlError::Stopped)));
    assert!(recorder.steps.is_empty());
}

#[test]
fn few_images_behave() {
    let device = ComputeDevice::cpu();
    for count in [0, 1] {
        let error = run(&digits(count, 6).0, &options(1, 8)).unwrap_err();
        assert!(
            matches!(error, MlError::TooFewImages { given, needed: 2 } if given == count),
            "{error}"
        );
    }
    let mut recorder = Recorder::default();
    let (images, _) = digits(2, 6);
    let trained =
        train(&images, None, &options(2, 4096), None, None, &device, &mut recorder).unwrap();
    assert_eq!(recorder.steps.len(), 2, "one step of both images an epoch");
    assert!(embed(&trained.model, &images).iter().all(|value| value.is_finite()));
    // Eleven images in batches of four: three sit out.
    let mut recorder = Recorder::default();
    train(&digits(11, 6).0, None, &options(1, 4), None, None, &device, &mut recorder).unwrap();
    assert_eq!(recorder.steps.len(), 2);
}

#[test]
fn no_epochs_give_the_encoder_as_it_starts() {
    let (images, _) = digits(4, 7);
    let trained = run(&images, &options(0, 4)).unwrap();
    assert!(trained.curve.is_empty());
    assert!(embed(&trained.model, &images).iter().any(|value| *value > 0.0));
}

#[test]
fn a_training_that_diverges_says_so() {
    let (images, _) = digits(16, 8);
    let wild = TrainOptions { learning_rate: Some(1e30), ..options(3, 8) };
    let error = run(&images, &wild).unwrap_err();
    assert!(matches!(error, MlError::NotFinite { .. }), "{error}");
}

#[test]
fn a_training_can_start_from_a_model() {
    let (images, _) = digits(16, 9);
    let device = ComputeDevice::cpu();
    let first = run(&images, &options(1, 8)).unwrap();
    let no_epochs = TrainOptions { encoder: EncoderChoice::ResNet18, ..options(0, 8) };
    let go_on = |images: &ImageSet, options: &TrainOptions| {
        train(images, None, options, None, Some(&first.model), &device, &mut Recorder::default())
    };
    let same = go_on(&images, &no_epochs).unwrap();
    assert_eq!(bytes(&same), bytes(&first), "the model's network counts, and nothing was changed");
    assert_ne!(bytes(&go_on(&images, &options(1, 8)).unwrap()), bytes(&first));
    let other =
        ImageSet::new(InputSpec { size: 14, color: Color::Gray }, vec![0; 14 * 14 * 4]).unwrap();
    assert!(matches!(go_on(&other, &options(1, 2)), Err(MlError::InputMismatch { .. })));
}

#[test]
fn targets_must_fit_the_images() {
    let (images, _) = digits(8, 10);
    let device = ComputeDevice::cpu();
    let go = |targets: Option<&[Option<u32>]>, supervised| {
        let options = TrainOptions { supervised, ..options(1, 4) };
        train(&images, targets, &options, None, None, &device, &mut Recorder::default())
    };
    assert!(matches!(
        go(Some(&[None; 7]), false),
        Err(MlError::TargetsMismatch { targets: 7, images: 8 })
    ));
    assert!(matches!(go(None, true), Err(MlError::TargetsMismatch { targets: 0, images: 8 })));
    let unlabelled = go(Some(&[None; 8]), false).unwrap();
    assert_eq!(unlabelled.curve[0].quality.knn_accuracy, None);
    let labelled = go(Some(&[Some(3); 8]), false).unwrap();
    assert_eq!(labelled.curve[0].quality.knn_accuracy, Some(1.0));
    assert_eq!(bytes(&labelled), bytes(&unlabelled), "targets measure and do not teach");
    let supervised = go(Some(&[Some(3); 8]), true).unwrap();
    assert_ne!(bytes(&labelled), bytes(&supervised), "unless they are asked to");
}

/// Some images have a target, some have none, and the training starts from a model: all that a checkpoint must agree with.
#[test]
fn a_supervised_training_from_a_model_continues_bit_by_bit() {
    let (images, labels) = digits(24, 15);
    let targets: Vec<Option<u32>> =
        labels.iter().map(|label| (label % 3 > 0).then_some(*label)).collect();
    let device = ComputeDevice::cpu();
    let base = run(&images, &options(1, 8)).unwrap().model;
    let go = |targets: &[Option<u32>], supervised, resume: Option<&[u8]>, stop| {
        let options = TrainOptions { supervised, ..options(2, 8) };
        let mut recorder = Recorder { stop_after_epochs: stop, ..Recorder::default() };
        let outcome =
            train(&images, Some(targets), &options, resume, Some(&base), &device, &mut recorder);
        (outcome, recorder.epochs)
    };
    let whole = bytes(&go(&targets, true, None, None).0.unwrap());
    let (stopped, epochs) = go(&targets, true, None, Some(1));
    assert!(matches!(stopped, Err(MlError::Stopped)));
    let checkpoint = epochs[0].checkpoint.as_slice();
    assert_eq!(bytes(&go(&targets, true, Some(checkpoint), None).0.unwrap()), whole);
    // Targets teach here, so neither other ones nor another method can go on from it.
    let unlabelled = vec![None; 24];
    for (targets, supervised) in [(&unlabelled, true), (&targets, false)] {
        let refused = go(targets, supervised, Some(checkpoint), None).0;
        assert!(matches!(refused, Err(MlError::InvalidCheckpoint { .. })));
    }
    assert_ne!(bytes(&go(&unlabelled, true, None, None).0.unwrap()), whole);
}

#[test]
fn every_option_has_an_effect() {
    let (images, _) = digits(16, 11);
    let plain = bytes(&run(&images, &options(2, 8)).unwrap());
    let changes: [fn(&mut TrainOptions); 10] = [
        |o| o.max_epochs = 1,
        |o| o.batch_size = Some(4),
        |o| o.learning_rate = Some(1e-3),
        |o| o.temperature = Some(0.1),
        |o| o.loss = ContrastiveLoss::Dcl,
        |o| o.weight_decay = Some(0.1),
        |o| o.warmup_epochs = Some(1.0),
        |o| o.seed = 1,
        |o| o.encoder = EncoderChoice::ResNet18,
        |o| o.augmentations = Some(vec![Augmentation::Erasing]),
    ];
    for (index, change) in changes.into_iter().enumerate() {
        let mut changed = options(2, 8);
        change(&mut changed);
        assert_ne!(plain, bytes(&run(&images, &changed).unwrap()), "option {index}");
    }
}

#[test]
fn photographs_train_too() {
    let input = InputSpec { size: 66, color: Color::Rgb };
    let pixels = (0..4 * input.image_len()).map(|place| (place * 31 % 251) as u8).collect();
    let images = ImageSet::new(input, pixels).unwrap();
    let trained = run(&images, &options(1, 2)).unwrap();
    assert_eq!(trained.model.encoder_name(), "resnet18");
    assert_eq!(embed(&trained.model, &images).len(), 4 * 512);
    assert_eq!(trained.recipe["augmentations"][0], "resized_crop");
}

/// Raw pixels are ahead on so few images; what 10,000 reach is the benchmark's to show.
#[test]
fn a_short_training_learns() {
    let (train_images, train_labels) = digits(800, 12);
    let (test_images, test_labels) = digits(400, 13);
    let accuracy = |train: &[f32], test: &[f32], dim| {
        knn_accuracy(train, &train_labels, test, &test_labels, dim, 5)
    };
    let of_model = |model: &Model| {
        accuracy(&embed(model, &train_images), &embed(model, &test_images), model.embedding_dim())
    };
    let untrained = of_model(&run(&train_images, &options(0, 32)).unwrap().model);
    // Without the elastic bend, which pays only after many more steps than this.
    let augmentations =
        Some(vec![Augmentation::Affine, Augmentation::Contrast, Augmentation::Erasing]);
    let trained = run(
        &train_images,
        &TrainOptions { max_epochs: 8, augmentations, ..TrainOptions::default() },
    )
    .unwrap();
    let learned = of_model(&trained.model);
    assert!(
        learned > untrained + 0.1 && learned > 0.75,
        "untrained {untrained:.3}, trained {learned:.3}"
    );
    let losses: Vec<f64> = trained.curve.iter().map(|epoch| epoch.loss).collect();
    assert!(losses.last() < losses.first(), "{losses:?}");
}

#[test]
fn embedding_stops_between_batches() {
    let (images, _) = digits(600, 14);
    let model = run(&digits(2, 14).0, &options(0, 2)).unwrap().model;
    let asked = Cell::new(0);
    let stop = || {
        asked.set(asked.get() + 1);
        asked.get() == 2
    };
    assert!(matches!(model.embed(&images, &stop), Err(MlError::Stopped)));
}
