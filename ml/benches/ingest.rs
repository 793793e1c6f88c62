//! How fast images are loaded: many small files, and photographs, which are decoded at a reduced size.
//!
//! `cargo bench -p thanosql-ml --bench ingest`. Everything is made here, in a temporary folder: JPEG files of 28 x 28 pixels and
//! photographs of 4000 x 3000. Each is loaded as a training loads it and, for comparison, in two parts: its bytes are read, and it is decoded whole by the
//! `image` library, one image after another on as many threads. The rounds alternate; what is printed are medians, in images a second.
//!
//! | variable | meaning | default |
//! | --- | --- | --- |
//! | `THANOSQL_BENCH_FILES` | small files | 20000 |
//! | `THANOSQL_BENCH_PHOTOGRAPHS` | photographs | 24 |
//! | `THANOSQL_BENCH_ROUNDS` | rounds | 5 |

#![allow(clippy::print_stdout)]

use std::env;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use image::{DynamicImage, GrayImage, RgbImage};
use jpeg_encoder::{ColorType, Encoder, SamplingFactor};
use rayon::prelude::*;
use thanosql_ml::digits::{DIGIT_SIZE, draw_digit};
use thanosql_ml::images::{ImageLimits, ImageSource, load_images};
use thanosql_ml::{Color, InputSpec};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const PHOTOGRAPH: (u16, u16) = (4000, 3000);

fn main() -> Result<()> {
    let files = count("THANOSQL_BENCH_FILES", 20_000)?;
    let photographs = count("THANOSQL_BENCH_PHOTOGRAPHS", 24)?;
    let rounds = count("THANOSQL_BENCH_ROUNDS", 5)?.max(1);
    let folder = tempfile::tempdir()?;

    let digits = write_digits(folder.path(), files)?;
    let digit = InputSpec { size: DIGIT_SIZE as u32, color: Color::Gray };
    compare("28 x 28 grey", &digits, digit, rounds)?;
    let baseline = write_photographs(folder.path(), photographs, false)?;
    let progressive = write_photographs(folder.path(), photographs, true)?;
    for size in [64, 224] {
        let input = InputSpec { size, color: Color::Rgb };
        compare("4000 x 3000 baseline", &baseline, input, rounds)?;
        compare("4000 x 3000 progressive", &progressive, input, rounds)?;
    }
    Ok(())
}

fn count(variable: &str, otherwise: usize) -> Result<usize> {
    Ok(match env::var(variable) {
        Ok(value) => value.parse()?,
        Err(_) => otherwise,
    })
}

fn compare(name: &str, paths: &[PathBuf], input: InputSpec, rounds: usize) -> Result<()> {
    let sources: Vec<ImageSource> = paths.iter().cloned().map(ImageSource::Path).collect();
    let mut seconds = [Vec::new(), Vec::new(), Vec::new()];
    for _ in 0..rounds {
        let start = Instant::now();
        let (loaded, failures) = load_images(&sources, input, &ImageLimits::default(), &|| false);
        seconds[0].push(start.elapsed().as_secs_f64());
        assert_eq!((loaded.len(), failures.len()), (paths.len(), 0));

        let start = Instant::now();
        let bytes = paths.par_iter().map(|path| Ok(fs::read(path)?.len()));
        let bytes = bytes.collect::<std::io::Result<Vec<usize>>>()?;
        seconds[1].push(start.elapsed().as_secs_f64());
        assert!(bytes.iter().all(|&length| length > 0));

        let start = Instant::now();
        let decoded = paths.par_iter().map(|path| {
            let image = image::load_from_memory(&fs::read(path)?)?;
            Ok(image.width() * image.height())
        });
        let decoded = decoded.collect::<image::ImageResult<Vec<u32>>>()?;
        seconds[2].push(start.elapsed().as_secs_f64());
        assert!(decoded.iter().all(|&pixels| pixels > 0));
    }
    let [loading, reading, decoding] = seconds.map(|seconds| paths.len() as f64 / median(seconds));
    println!(
        "{name} to {}: loaded {loading:.0} images/s, {:.2} of reading and decoding whole ({decoding:.0}); reading alone {reading:.0}",
        input.size,
        loading / decoding
    );
    Ok(())
}

fn median(mut seconds: Vec<f64>) -> f64 {
    seconds.sort_by(f64::total_cmp);
    seconds[seconds.len() / 2]
}

fn write_digits(folder: &Path, count: usize) -> Result<Vec<PathBuf>> {
    let side = DIGIT_SIZE as u32;
    (0..count)
        .map(|index| {
            let pixels = draw_digit((index % 10) as u8, index as u64).to_vec();
            let image = GrayImage::from_raw(side, side, pixels).ok_or("a digit is a square")?;
            let path = folder.join(format!("{index}.jpg"));
            DynamicImage::from(image).save(&path)?;
            Ok(path)
        })
        .collect()
}

/// As cameras write them: chroma of half the size, quality 90, detail everywhere.
fn write_photographs(folder: &Path, count: usize, progressive: bool) -> Result<Vec<PathBuf>> {
    let (width, height) = PHOTOGRAPH;
    let mut noise = 1_u32;
    let image = RgbImage::from_fn(width.into(), height.into(), |x, y| {
        noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let grain = (noise >> 28) as f32;
        let wave = |at: u32, length: f32| (100.0 + 90.0 * (at as f32 / length).sin() + grain) as u8;
        image::Rgb([wave(x, 37.0), wave(y, 53.0), wave(x + y, 211.0)])
    });
    let mut bytes = Vec::new();
    let mut encoder = Encoder::new(&mut bytes, 90);
    encoder.set_sampling_factor(SamplingFactor::F_2_2);
    encoder.set_progressive(progressive);
    encoder.encode(&image, width, height, ColorType::Rgb)?;
    println!("a photograph has {:.1} MB", bytes.len() as f64 / 1e6);
    (0..count)
        .map(|index| {
            let path = folder.join(format!("{progressive}{index}.jpg"));
            fs::write(&path, &bytes)?;
            Ok(path)
        })
        .collect()
}
