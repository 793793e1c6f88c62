//! Memory of a GPU: it does not grow from epoch to epoch, and half precision takes less of it.
//!
//! A test binary of its own with one test, because it counts what the whole process has on the GPU. Without one it passes, unless `THANOSQL_REQUIRE_VULKAN=1`.

#![allow(clippy::unwrap_used)] // helpers of tests, too, may end a test

use thanosql_ml::{
    Color, ComputeDevice, DeviceChoice, DeviceMemory, EpochReport, Flow, ImageSet, InputSpec,
    Precision, PrecisionChoice, StepProgress, TrainOptions, TrainingObserver, train,
};

/// Bytes in use after each epoch.
struct Watch<'a>(&'a ComputeDevice, Vec<u64>);

impl TrainingObserver for Watch<'_> {
    fn on_step(&mut self, _: &StepProgress) -> Flow {
        Flow::Continue
    }

    fn on_epoch(&mut self, _: &EpochReport) -> Flow {
        self.1.push(memory(self.0).bytes_in_use);
        Flow::Continue
    }
}

fn memory(gpu: &ComputeDevice) -> DeviceMemory {
    gpu.memory().expect("a GPU reports its memory")
}

/// Trains on so many images of so many pixels a side. Gives the bytes in use after each epoch.
fn run(
    images: usize,
    size: u32,
    batch_size: usize,
    max_epochs: u32,
    gpu: &ComputeDevice,
) -> Vec<u64> {
    let input = InputSpec { size, color: Color::Gray };
    let pixels = (0..images * input.image_len()).map(|place| (place * place % 251) as u8).collect();
    let images = ImageSet::new(input, pixels).unwrap();
    let options =
        TrainOptions { max_epochs, batch_size: Some(batch_size), ..TrainOptions::default() };
    let mut watch = Watch(gpu, Vec::new());
    train(&images, None, &options, None, None, gpu, &mut watch).unwrap();
    watch.1
}

#[test]
fn memory_of_a_gpu() {
    let gpu = match ComputeDevice::open(DeviceChoice::Wgpu(None)) {
        Ok(gpu) => gpu,
        Err(error) => {
            let required = std::env::var("THANOSQL_REQUIRE_VULKAN").is_ok_and(|value| value == "1");
            assert!(!required, "THANOSQL_REQUIRE_VULKAN=1, but {error}");
            return;
        }
    };
    // The step is recorded in the fourth epoch.
    let bytes = run(12, 12, 4, 14, &gpu);
    let [early, late] = [&bytes[4..8], &bytes[10..]].map(|part| *part.iter().max().unwrap());
    assert!(late as f64 <= 1.01 * early as f64, "{bytes:?}");

    if gpu.precision() == Precision::Half {
        // What a view leaves behind until the gradient has passed: a convolution's sums and what has become of them, six times in each stage of the network.
        let numbers = 6 * (14 * 14 * 32 + 7 * 7 * 64 + 4 * 4 * 128);
        let (images, views) = (32, 64);
        run(images, 28, images, 1, &gpu);
        let half = memory(&gpu).bytes_reserved;
        let gpu = gpu.with_precision(PrecisionChoice::Full);
        run(images, 28, images, 1, &gpu);
        let full = memory(&gpu).bytes_reserved;
        assert!(full >= half + 2 * views * numbers, "{half} and {full} bytes");
    }
}
