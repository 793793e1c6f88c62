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
//! | `THANOSQL_BENCH_SEED` | seed | 0 |
//! | `THANOSQL_BENCH_BATCH`, `_LR`, `_TEMPERATURE`, `_DECAY`, `_WARMUP`, `_ENCODER`, `_VIEWS` | options of the training | the recipe's |
//!
//! Prints, for every epoch, loss, seconds and images a second, then the 5-nearest-neighbour accuracy of the test images among the training images
//! (majority of five, cosine), beside that of raw pixels, that of a linear probe, and the speed of embedding. Images a second are source images; each gives two views. The
//! step's speed leaves out the first steps, which warm up; a whole epoch is everything, the checkpoint included.

#![allow(clippy::print_stdout)]

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
    Augmentation, Color, ComputeDevice, DeviceChoice, EncoderChoice, EpochReport, Flow, ImageSet,
    InputSpec, Model, StepProgress, TrainOptions, TrainingObserver, train,
};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const INPUT: InputSpec = InputSpec { size: 28, color: Color::Gray };

/// Steps at the start that the step's speed leaves out.
const WARM_UP_STEPS: u32 = 10;

struct Digits {
    images: ImageSet,
    labels: Vec<u32>,
}

fn main() -> Result<()> {
    let train_count = option("THANOSQL_BENCH_TRAIN")?.unwrap_or(10_000);
    let test_count = option("THANOSQL_BENCH_TEST")?.unwrap_or(10_000);
    let seed = option("THANOSQL_BENCH_SEED")?.unwrap_or(0);
    let device =
        ComputeDevice::open(option("THANOSQL_BENCH_DEVICE")?.unwrap_or(DeviceChoice::Cpu))?;
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
        "{origin}: {} training and {} test images, on {}",
        training.images.len(),
        test.images.len(),
        device.name()
    );
    println!("raw pixels: 5-NN {:.2} %", 100.0 * raw_accuracy(&training, &test));

    let options = TrainOptions {
        max_epochs: option("THANOSQL_BENCH_EPOCHS")?.unwrap_or(5),
        batch_size: option("THANOSQL_BENCH_BATCH")?,
        learning_rate: option("THANOSQL_BENCH_LR")?,
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
            Err(_) => None,
        },
        supervised: false,
    };
    let mut watch = Watch {
        images_per_epoch: training.images.len(),
        step_began: Instant::now(),
        steps: 0,
        seconds: 0.0,
    };
    let began = Instant::now();
    let trained = train(&training.images, None, &options, None, None, &device, &mut watch)?;
    let seconds = began.elapsed().as_secs_f64();
    println!("recipe: {}", trained.recipe);
    let batch = trained.recipe["batch_size"].as_u64().unwrap_or(0) as f64;
    let images = f64::from(options.max_epochs) * training.images.len() as f64;
    println!("step: {:.0} images/s", f64::from(watch.steps) * batch / watch.seconds.max(1e-9));
    println!("whole training: {:.0} images/s ({seconds:.1} s)", images / seconds);

    let began = Instant::now();
    let train_vectors = embed(&trained.model, &training.images)?;
    let test_vectors = embed(&trained.model, &test.images)?;
    let count = (training.images.len() + test.images.len()) as f64;
    println!("embedding: {:.0} images/s", count / began.elapsed().as_secs_f64());
    let dim = trained.model.embedding_dim();
    let began = Instant::now();
    let accuracy =
        knn_accuracy(&train_vectors, &training.labels, &test_vectors, &test.labels, dim, 5);
    println!("5-NN accuracy: {:.2} % ({:.1} s)", 100.0 * accuracy, began.elapsed().as_secs_f64());
    let began = Instant::now();
    let accuracy =
        linear_probe_accuracy(&train_vectors, &training.labels, &test_vectors, &test.labels, dim);
    println!("linear probe: {:.2} % ({:.1} s)", 100.0 * accuracy, began.elapsed().as_secs_f64());
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
        if progress.step > 1 && (progress.epoch > 1 || progress.step > WARM_UP_STEPS) {
            self.steps += 1;
            self.seconds += self.step_began.elapsed().as_secs_f64();
        }
        self.step_began = Instant::now();
        Flow::Continue
    }

    fn on_epoch(&mut self, report: &EpochReport) -> Flow {
        let rate = self.images_per_epoch as f64 / report.seconds;
        println!(
            "epoch {}: loss {:.4}, {:.1} s, {rate:.0} images/s",
            report.epoch, report.loss, report.seconds
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
