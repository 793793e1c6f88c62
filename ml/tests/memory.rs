//! Memory does not grow from epoch to epoch. Frameworks have leaked graphs, gradients and buffers there (tracel-ai/burn#4792, #5212), and a training may
//! have thousands of epochs.
//!
//! It is a test binary of its own, because it counts what the whole process has allocated. Resident memory would say less: it also
//! moves with the allocator's heaps and with what the operating system takes back.

#![allow(clippy::unwrap_used)] // helpers of tests, too, may end a test

use peak_alloc::PeakAlloc;
use thanosql_ml::digits::draw_digit;
use thanosql_ml::{
    Color, ComputeDevice, EpochReport, Flow, ImageSet, InputSpec, StepProgress, TrainOptions,
    TrainingObserver, train,
};

const EPOCHS: u32 = 50;

/// Epochs after which everything that is kept on purpose is there: buffers, moments, threads' own heaps.
const SETTLED: u32 = 10;

#[global_allocator]
static ALLOCATED: PeakAlloc = PeakAlloc;

#[derive(Default)]
struct Watch {
    /// Bytes in use at the end of each epoch, from [`SETTLED`] on.
    bytes: Vec<f64>,
}

impl TrainingObserver for Watch {
    fn on_step(&mut self, _: &StepProgress) -> Flow {
        Flow::Continue
    }

    fn on_epoch(&mut self, report: &EpochReport) -> Flow {
        if report.summary.epoch >= SETTLED {
            self.bytes.push(ALLOCATED.current_usage() as f64);
        }
        Flow::Continue
    }
}

/// The slope of a straight line through the values, a place: the median of the slopes between all two of them (Theil and Sen), which a few
/// values that stand out do not bend.
fn slope(values: &[f64]) -> f64 {
    let mut slopes = Vec::new();
    for (place, value) in values.iter().enumerate() {
        for (before, earlier) in values[..place].iter().enumerate() {
            slopes.push((value - earlier) / (place - before) as f64);
        }
    }
    slopes.sort_by(f64::total_cmp);
    slopes[slopes.len() / 2]
}

#[test]
fn memory_does_not_grow_from_epoch_to_epoch() {
    assert!((slope(&[1.0, 3.0, 50.0, 7.0, 9.0]) - 2.0).abs() < 1e-12);
    let input = InputSpec { size: 28, color: Color::Gray };
    let pixels = (0..32).flat_map(|index| draw_digit((index % 10) as u8, index)).collect();
    let images = ImageSet::new(input, pixels).unwrap();
    let targets: Vec<Option<u32>> = (0..32).map(|index| Some(index % 10)).collect();
    let options =
        TrainOptions { max_epochs: EPOCHS, batch_size: Some(16), ..TrainOptions::default() };
    let mut watch = Watch::default();
    let device = ComputeDevice::cpu();
    train(&images, Some(&targets), &options, None, None, &device, &mut watch).unwrap();
    assert_eq!(watch.bytes.len(), (EPOCHS - SETTLED + 1) as usize);
    let level = watch.bytes.iter().sum::<f64>() / watch.bytes.len() as f64;
    let growth = slope(&watch.bytes) * f64::from(EPOCHS - SETTLED) / level;
    assert!(
        growth < 0.01,
        "memory grows by {:.2} % of {level:.0} bytes from epoch {SETTLED} to {EPOCHS}: {:?}",
        100.0 * growth,
        watch.bytes
    );
}
