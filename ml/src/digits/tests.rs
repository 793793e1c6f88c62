//! What drawn digits are like: repeatable, various, recognisable, and not too easy.

use std::fs;

use super::*;
use crate::images::{Color, ImageLimits, ImageSource, InputSpec, load_images};

#[test]
fn a_seed_means_the_same_pixels() {
    for label in 0..10 {
        assert_eq!(draw_digit(label, 5), draw_digit(label, 5));
        assert_ne!(draw_digit(label, 5), draw_digit(label, 6));
        assert_ne!(draw_digit(label, 5), draw_digit((label + 1) % 10, 5));
    }
    assert_eq!(
        Chance::new(0).next(),
        0xe220_a839_7b1d_cdaf,
        "the first value that the paper's generator gives"
    );
}

#[test]
fn digits_are_written_in_the_middle_of_black_paper() {
    for label in 0..10 {
        for seed in 0..200 {
            let pixels = draw_digit(label, seed);
            let ink = pixels.iter().filter(|&&pixel| pixel > 100).count();
            assert!((12..330).contains(&ink), "{label} {seed}: {ink} pixels of ink");
            let corners = [0, 27, 27 * 28, 783].map(|place| pixels[place]);
            assert_eq!(corners, [0; 4], "{label} {seed}");
            let weight: u64 = pixels.iter().map(|&pixel| u64::from(pixel)).sum();
            let column: u64 = pixels
                .iter()
                .enumerate()
                .map(|(place, &pixel)| (place % 28) as u64 * u64::from(pixel))
                .sum();
            let middle = column as f64 / weight as f64;
            assert!((8.0..20.0).contains(&middle), "{label} {seed}: middle at column {middle}");
        }
    }
}

#[test]
#[should_panic(expected = "index out of bounds")]
fn there_are_ten_digits() {
    draw_digit(10, 0);
}

/// Nearest neighbours on the bare pixels know most digits, so labels are right, and not all, so there is something to learn.
#[test]
fn bare_pixels_are_good_and_not_perfect() {
    const TRAIN: u64 = 2_000;
    const TEST: u64 = 500;
    let drawn = |from: u64, count: u64| -> Vec<(u8, Vec<f32>)> {
        (0..count)
            .map(|place| {
                let label = (place % 10) as u8;
                let pixels: Vec<f32> =
                    draw_digit(label, from + place).iter().map(|&pixel| f32::from(pixel)).collect();
                let length = pixels.iter().map(|pixel| pixel * pixel).sum::<f32>().sqrt();
                (label, pixels.into_iter().map(|pixel| pixel / length).collect())
            })
            .collect()
    };
    let train = drawn(0, TRAIN);
    let right = drawn(1 << 40, TEST)
        .iter()
        .filter(|(label, pixels)| nearest_five(&train, pixels) == *label)
        .count();
    let accuracy = right as f64 / TEST as f64;
    assert!((0.87..0.975).contains(&accuracy), "{accuracy}");
}

fn nearest_five(train: &[(u8, Vec<f32>)], pixels: &[f32]) -> u8 {
    let cosine =
        |other: &[f32]| pixels.iter().zip(other).map(|(left, right)| left * right).sum::<f32>();
    let mut scored: Vec<(f32, u8)> =
        train.iter().map(|(label, other)| (cosine(other), *label)).collect();
    scored.sort_by(|left, right| right.0.total_cmp(&left.0));
    let votes = |label: u8| scored[..5].iter().filter(|(_, other)| *other == label).count();
    (0..10).max_by_key(|&label| votes(label)).unwrap()
}

#[test]
fn a_dataset_is_files_and_their_table() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("자료, 손글씨");
    let dataset = write_dataset(&place, 30, 5, 7).unwrap();
    assert_eq!((dataset.train.len(), dataset.test.len()), (30, 5));
    assert_eq!(dataset.folder, place.canonicalize().unwrap());
    let table = fs::read_to_string(&dataset.table).unwrap();
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!((lines[0], lines.len()), ("img_path,filename,label", 31));
    let third = &dataset.train[2];
    assert_eq!(
        lines[3],
        format!("\"{}\",2.jpg,{}", third.path.display(), third.label),
        "a comma is quoted"
    );
    assert!(third.path.is_absolute() && third.path.ends_with("train_data/2.jpg"));
    assert_eq!(fs::read_to_string(&dataset.test_table).unwrap().lines().count(), 6);
    let sources: Vec<ImageSource> = dataset
        .train
        .iter()
        .chain(&dataset.test)
        .map(|file| ImageSource::Path(file.path.clone()))
        .collect();
    let spec = InputSpec { size: 28, color: Color::Gray };
    let (set, failures) = load_images(&sources, spec, &ImageLimits::default(), &|| false);
    assert_eq!((set.len(), failures.len()), (35, 0));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
}

#[test]
fn a_dataset_is_repeatable_and_grows_at_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let small = write_dataset(&folder.path().join("small"), 8, 2, 3).unwrap();
    let large = write_dataset(&folder.path().join("large"), 16, 4, 3).unwrap();
    let other = write_dataset(&folder.path().join("other"), 8, 2, 4).unwrap();
    let bytes = |dataset: &DigitsDataset| {
        dataset.train[..8].iter().map(|file| fs::read(&file.path).unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(bytes(&small), bytes(&large));
    assert_ne!(bytes(&small), bytes(&other));
    assert_ne!(fs::read(&small.train[0].path).unwrap(), fs::read(&small.test[0].path).unwrap());
}

#[test]
fn only_a_dataset_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("digits");
    fs::create_dir(&place).unwrap();
    write_dataset(&place, 4, 1, 1).unwrap();
    let again = write_dataset(&place, 2, 1, 1).unwrap();
    assert_eq!(fs::read_dir(place.join("train_data")).unwrap().count(), 2);
    assert_eq!(again.train.len(), 2);
    let precious = folder.path().join("precious");
    fs::create_dir(&precious).unwrap();
    fs::write(precious.join("thesis.txt"), "years of work").unwrap();
    let refused = write_dataset(&precious, 4, 1, 1).unwrap_err();
    assert!(
        matches!(&refused, crate::MlError::Io { source, .. } if source.kind() == std::io::ErrorKind::AlreadyExists),
        "{refused:?}"
    );
    assert!(precious.join("thesis.txt").is_file());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
}
