//! What training learns, and how fast: SimCLR with its defaults on 28 x 28 digits, on the CPU or a GPU.
//!
//! `cargo bench -p thanosql-ml --bench simclr`, configured by environment variables:
//!
//! | variable | meaning | default |
//! | --- | --- | --- |
//! | `THANOSQL_MNIST` | a folder with the four gzip-compressed IDX files of MNIST | digits drawn here |
//! | `THANOSQL_BENCH_TRAIN` | training images | 10000 |
//! | `THANOSQL_BENCH_TEST` | test images | 10000 |
//! | `THANOSQL_BENCH_EPOCHS` | epochs | 5 |
//! | `THANOSQL_BENCH_DEVICE` | `cpu`, `wgpu`, `auto` | cpu |
//! | `THANOSQL_BENCH_PRECISION` | `auto` (half on a GPU that has it), `full` | auto |
//! | `THANOSQL_BENCH_TUNING` | a folder in which a GPU keeps how its kernels were tuned | of burn's choice |
//! | `THANOSQL_BENCH_SEED` | seed | 0 |
//! | `THANOSQL_BENCH_BATCH`, `_LR`, `_TEMPERATURE`, `_LOSS`, `_DECAY`, `_WARMUP`, `_ENCODER`, `_VIEWS` | options of the training | the recipe's |
//! | `THANOSQL_PEER_PYTHON`, `THANOSQL_PEER` | a Python with PyTorch, and the [peer]'s script for it | no peer |
//! | `THANOSQL_BENCH_ROUNDS` | rounds of ours and the peer's | 3 |
//!
//! Prints, for every epoch, loss, measures, seconds and images a second, then the 5-nearest-neighbour accuracy of the test images among the training images
//! (majority of five, cosine), beside that of raw pixels, that of a linear probe, and the speed of embedding. Images a second are source images; each gives two views. A
//! whole epoch is everything, measures and checkpoint included; the first one warms up and is left out of both speeds, unless it is the only one.
//!
//! With a peer, ours and the peer's training run in turns, on as many threads, and what is printed at the end are the ratios of their speeds. Network, batch,
//! images, epochs, learning rate, temperature and kinds of views are the same. What differs, each to the peer's advantage: our step includes drawing
//! the views, the peer's begins after it; our epoch includes measures and checkpoint, the peer's ends before its own measures; and our
//! shortcuts are normalised, the peer's are convolutions alone. The training images are the same only if all 60,000 are taken: parts are chosen differently.

#![allow(clippy::print_stdout)]

mod peer;

use std::env;
use std::error::Error;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::str::FromStr;
use std::time::Instant;

use flate2::read::GzDecoder;
use thanosql_ml::digits::draw_digit;
use thanosql_ml::linear_probe::linear_probe_accuracy;
use thanosql_ml::quality::knn_accuracy;
use thanosql_ml::{
    Augmentation, Color, ComputeDevice, DeviceChoice, EncoderChoice, EpochReport, EpochSummary,
    Flow, ImageSet, InputSpec, Model, StepProgress, TrainOptions, Trained, TrainingObserver,
    keep_tuning_in, train,
};

use peer::Peer;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const INPUT: InputSpec = InputSpec { size: 28, color: Color::Gray };

/// What is compared with a peer.
#[derive(Clone, Copy)]
struct Figures {
    /// Source images a second.
    step: f64,
    epoch: f64,
    embedding: f64,
    /// Of five nearest neighbours, from 0 to 1.
    accuracy: f64,
}

/// Steps at the start that the step's speed leaves out if there is but one epoch.
const WARM_UP_STEPS: u32 = 10;

struct Digits {
    images: ImageSet,
    labels: Vec<u32>,
}

fn main() -> Result<()> {
    let train_count = option("THANOSQL_BENCH_TRAIN")?.unwrap_or(10_000);
    let test_count = option("THANOSQL_BENCH_TEST")?.unwrap_or(10_000);
    let seed = option("THANOSQL_BENCH_SEED")?.unwrap_or(0);
    if let Some(folder) = env::var_os("THANOSQL_BENCH_TUNING") {
        keep_tuning_in(Path::new(&folder));
    }
    let device =
        ComputeDevice::open(option("THANOSQL_BENCH_DEVICE")?.unwrap_or(DeviceChoice::Cpu))?
            .with_precision(option("THANOSQL_BENCH_PRECISION")?.unwrap_or_default());
    let (training, test, origin) = match env::var_os("THANOSQL_MNIST") {
        Some(folder) => {
            let folder = Path::new(&folder);
            let all = idx(folder, "train")?;
            let training = some_of(&all, train_count);
            let test = idx(folder, "t10k")?;
            (
                training,
                Digits {
                    images: test.images.select(&first(&test, test_count)),
                    labels: test.labels.into_iter().take(test_count).collect(),
                },
                "MNIST",
            )
        }
        None => (drawn(train_count, 1), drawn(test_count, 2), "drawn digits"),
    };
    println!(
        "{origin}: {} training and {} test images, on {}, {:?} precision",
        training.images.len(),
        test.images.len(),
        device.name(),
        device.precision()
    );
    println!("raw pixels: 5-NN {:.2} %", 100.0 * raw_accuracy(&training, &test));

    let peer = Peer::from_environment()?;
    let options = TrainOptions {
        max_epochs: option("THANOSQL_BENCH_EPOCHS")?.unwrap_or(5),
        batch_size: option("THANOSQL_BENCH_BATCH")?,
        learning_rate: option("THANOSQL_BENCH_LR")?,
        loss: option("THANOSQL_BENCH_LOSS")?.unwrap_or_default(),
        temperature: option("THANOSQL_BENCH_TEMPERATURE")?,
        weight_decay: option("THANOSQL_BENCH_DECAY")?,
        warmup_epochs: option("THANOSQL_BENCH_WARMUP")?,
        seed,
        encoder: option("THANOSQL_BENCH_ENCODER")?.unwrap_or(EncoderChoice::Auto),
        augmentations: match env::var("THANOSQL_BENCH_VIEWS") {
            Ok(names) => Some(
                names
                    .split(',')
                    .map(Augmentation::from_str)
                    .collect::<std::result::Result<_, _>>()?,
            ),
            // Those that the peer draws.
            Err(_) if peer.is_some() => {
                Some(vec![Augmentation::Affine, Augmentation::Contrast, Augmentation::Erasing])
            }
            Err(_) => None,
        },
        supervised: false,
    };
    let Some(peer) = peer else {
        let (_, trained) = measure(&training, &test, &options, &device)?;
        return probe(&trained.model, &training, &test);
    };
    let rounds: usize = option("THANOSQL_BENCH_ROUNDS")?.unwrap_or(3).max(1);
    let (mut ours, mut others) = (Vec::new(), Vec::new());
    for round in 1..=rounds {
        println!("round {round} of {rounds}, ours");
        let (figures, trained) = measure(&training, &test, &options, &device)?;
        ours.push(figures);
        let batch = trained.recipe["batch_size"].as_u64().ok_or("a recipe without a batch")?;
        println!("round {round} of {rounds}, the peer's");
        let sizes = [training.images.len(), test.images.len()];
        let figures = peer.run(&options, batch as usize, sizes, &device)?;
        let Figures { step, epoch, embedding, accuracy } = figures;
        println!("step: {step:.0} images/s\nwhole epoch: {epoch:.0} images/s");
        println!("embedding: {embedding:.0} images/s\n5-NN accuracy: {:.2} %", 100.0 * accuracy);
        others.push(figures);
    }
    peer::print_ratios(&ours, &others);
    Ok(())
}

/// One training of ours, and what its vectors are worth.
fn measure(
    training: &Digits,
    test: &Digits,
    options: &TrainOptions,
    device: &ComputeDevice,
) -> Result<(Figures, Trained)> {
    let mut watch = Watch {
        images_per_epoch: training.images.len(),
        step_began: Instant::now(),
        steps: 0,
        seconds: 0.0,
    };
    let trained = train(&training.images, None, options, None, None, device, &mut watch)?;
    println!("recipe: {}", trained.recipe);
    let recipe = |name: &str| trained.recipe[name].as_u64().unwrap_or(0) as f64;
    let step = f64::from(watch.steps) * recipe("batch_size") / watch.seconds.max(1e-9);
    println!("step: {step:.0} images/s");
    let counted = &trained.curve[usize::from(trained.curve.len() > 1)..];
    let seconds: f64 = counted.iter().map(|epoch| epoch.seconds).sum();
    let seen = recipe("batch_size") * recipe("steps_per_epoch") * counted.len() as f64;
    let epoch = seen / seconds.max(1e-9);
    println!("whole epoch: {epoch:.0} images/s");
    if let Some(memory) = device.memory() {
        println!("memory of the GPU: {} MiB", memory.bytes_reserved >> 20);
    }

    let began = Instant::now();
    let train_vectors = embed(&trained.model, &training.images)?;
    let test_vectors = embed(&trained.model, &test.images)?;
    let count = (training.images.len() + test.images.len()) as f64;
    let embedding = count / began.elapsed().as_secs_f64();
    println!("embedding: {embedding:.0} images/s");
    let dim = trained.model.embedding_dim();
    let accuracy =
        knn_accuracy(&train_vectors, &training.labels, &test_vectors, &test.labels, dim, 5);
    println!("5-NN accuracy: {:.2} %", 100.0 * accuracy);
    Ok((Figures { step, epoch, embedding, accuracy }, trained))
}

fn probe(model: &Model, training: &Digits, test: &Digits) -> Result<()> {
    let (train_vectors, test_vectors) =
        (embed(model, &training.images)?, embed(model, &test.images)?);
    let dim = model.embedding_dim();
    let accuracy =
        linear_probe_accuracy(&train_vectors, &training.labels, &test_vectors, &test.labels, dim);
    println!("linear probe: {:.2} %", 100.0 * accuracy);
    Ok(())
}

/// Prints epochs, and measures steps without what happens between epochs.
struct Watch {
    images_per_epoch: usize,
    step_began: Instant,
    steps: u32,
    seconds: f64,
}

impl TrainingObserver for Watch {
    fn on_step(&mut self, progress: &StepProgress) -> Flow {
        let is_warm = progress.epoch > 1 || (progress.epochs == 1 && progress.step > WARM_UP_STEPS);
        // The time before an epoch's first step is what comes between epochs.
        if progress.step > 1 && is_warm {
            self.steps += 1;
            self.seconds += self.step_began.elapsed().as_secs_f64();
        }
        self.step_began = Instant::now();
        Flow::Continue
    }

    fn on_epoch(&mut self, report: &EpochReport) -> Flow {
        let EpochSummary { epoch, loss, chance, quality, seconds } = report.summary;
        let after = self.step_began.elapsed().as_secs_f64();
        println!(
            "epoch {epoch}: loss {loss:.4} (chance {chance:.4}), alignment {:.3}, uniformity {:.3}, effective rank {:.1}, dead {:.0} %, \
             {seconds:.1} s, {:.0} images/s, {:.1} % of it after the steps",
            quality.alignment.unwrap_or(f64::NAN),
            quality.uniformity.unwrap_or(f64::NAN),
            quality.effective_rank.unwrap_or(f64::NAN),
            100.0 * quality.dead_dimensions.unwrap_or(f64::NAN),
            self.images_per_epoch as f64 / seconds,
            100.0 * after / seconds,
        );
        Flow::Continue
    }
}

fn option<T: FromStr>(name: &str) -> Result<Option<T>>
where
    T::Err: Error + 'static,
{
    match env::var(name) {
        Ok(text) => Ok(Some(text.parse().map_err(|error| format!("{name}: {error}"))?)),
        Err(_) => Ok(None),
    }
}

fn embed(model: &Model, images: &ImageSet) -> Result<Vec<f32>> {
    Ok(model.embed(images, &|| false)?)
}

fn raw_accuracy(training: &Digits, test: &Digits) -> f64 {
    let pixels = |digits: &Digits| {
        digits.images.pixels().iter().map(|&byte| f32::from(byte)).collect::<Vec<_>>()
    };
    knn_accuracy(
        &pixels(training),
        &training.labels,
        &pixels(test),
        &test.labels,
        INPUT.image_len(),
        5,
    )
}

fn drawn(count: usize, seed: u64) -> Digits {
    let labels: Vec<u32> = (0..count as u32).map(|index| index % 10).collect();
    let draw =
        |(index, &label): (usize, &u32)| draw_digit(label as u8, (seed << 32) + index as u64);
    let pixels = labels.iter().enumerate().flat_map(draw).collect();
    Digits { images: ImageSet::new(INPUT, pixels).expect("whole images"), labels }
}

fn first(digits: &Digits, count: usize) -> Vec<usize> {
    (0..digits.images.len().min(count)).collect()
}

/// Images spread evenly over the set.
fn some_of(digits: &Digits, count: usize) -> Digits {
    let all = digits.images.len();
    let chosen: Vec<usize> =
        (0..count.min(all)).map(|index| index * all / count.min(all)).collect();
    Digits {
        images: digits.images.select(&chosen),
        labels: chosen.iter().map(|&index| digits.labels[index]).collect(),
    }
}

/// Reads images and labels of one part of MNIST.
fn idx(folder: &Path, part: &str) -> Result<Digits> {
    let read = |name: &str| -> Result<Vec<u8>> {
        let path = folder.join(format!("{part}-{name}-ubyte.gz"));
        let mut bytes = Vec::new();
        let file = File::open(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        GzDecoder::new(file).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let images = read("images-idx3")?;
    let labels = read("labels-idx1")?;
    let images = ImageSet::new(INPUT, images.get(16..).unwrap_or_default().to_vec())
        .ok_or("images of another size")?;
    let labels: Vec<u32> =
        labels.get(8..).unwrap_or_default().iter().map(|&label| u32::from(label)).collect();
    if images.len() != labels.len() {
        return Err("not as many labels as images".into());
    }
    Ok(Digits { images, labels })
}
