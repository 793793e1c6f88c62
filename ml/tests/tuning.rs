//! What a GPU has found out about kernels is kept in a folder, and a later process finds nothing out again.
//!
//! Any wgpu adapter serves, Mesa's software Vulkan driver too. Without one the test passes, unless `THANOSQL_REQUIRE_VULKAN=1` demands one.

use std::env;
use std::path::Path;
use std::process::Command;

use thanosql_ml::{
    Color, ComputeDevice, DeviceChoice, EpochReport, Flow, ImageSet, InputSpec, StepProgress,
    TrainOptions, TrainingObserver, keep_tuning_in, train,
};

/// Names the folder to a process that is to use the GPU.
const FOLDER: &str = "THANOSQL_TEST_TUNING_FOLDER";

struct Silent;

impl TrainingObserver for Silent {
    fn on_step(&mut self, _: &StepProgress) -> Flow {
        Flow::Continue
    }

    fn on_epoch(&mut self, _: &EpochReport) -> Flow {
        Flow::Continue
    }
}

/// Embeds with a network that has learned nothing.
fn embed(folder: &Path) {
    keep_tuning_in(folder);
    let device = ComputeDevice::open(DeviceChoice::Wgpu(None)).expect("the parent has opened it");
    let input = InputSpec { size: 8, color: Color::Gray };
    let images = ImageSet::new(input, vec![7; 4 * input.image_len()]).expect("whole images");
    let options = TrainOptions { max_epochs: 0, ..TrainOptions::default() };
    let trained = train(&images, None, &options, None, None, &device, &mut Silent);
    let vectors = trained.expect("nothing is learned").model.embed(&images, &|| false);
    assert_eq!(vectors.expect("a device that works").len(), 4 * 128);
}

#[test]
fn a_second_process_finds_nothing_out_again() {
    if let Some(folder) = env::var_os(FOLDER) {
        return embed(Path::new(&folder));
    }
    if let Err(error) = ComputeDevice::open(DeviceChoice::Wgpu(None)) {
        let required = env::var("THANOSQL_REQUIRE_VULKAN").is_ok_and(|value| value == "1");
        assert!(!required, "THANOSQL_REQUIRE_VULKAN=1, but {error}");
        return;
    }
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("gpu");
    let kept = || {
        let mut command = Command::new(env::current_exe().unwrap());
        let status = command.env(FOLDER, &folder).status().unwrap();
        assert!(status.success());
        // The database has a log of what was added, and a file that processes share.
        std::fs::read(folder.join("default.db-wal")).unwrap()
    };
    let first = kept();
    assert!(!first.is_empty());
    assert!(first == kept(), "the second process added something");
}
