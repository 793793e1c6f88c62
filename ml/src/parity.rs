//! The GPU path against the CPU path: the same step gives the same loss, the same gradients and the same vectors.
//!
//! Any wgpu adapter serves, Mesa's software Vulkan driver too. Without one these tests pass and say so on standard error, unless
//! `THANOSQL_REQUIRE_VULKAN=1` demands one.

use burn::tensor::{Device, Tensor, TensorData};

use crate::device::{ComputeDevice, DeviceChoice, Precision, PrecisionChoice};
use crate::encoder::EncoderChoice;
use crate::encoder::projection::{ProjectionHead, add_initial_weights};
use crate::encoder::residual::{ParameterVisitor, ResidualEncoder, Role};
use crate::error::MlError;
use crate::images::{Color, ImageSet, InputSpec};
use crate::loss::{ContrastiveLoss, Positives, contrastive};
use crate::random::Random;
use crate::train::tests::Silent;
use crate::train::{EpochReport, Flow, StepProgress, TrainOptions, TrainingObserver, train};
use crate::views::Augmentation;
use crate::views::tests::{apart, resident_and_sent};
use crate::weights::{Weights, read};

const INPUT: InputSpec = InputSpec { size: 12, color: Color::Gray };

pub(crate) fn gpu() -> Option<ComputeDevice> {
    match ComputeDevice::open(DeviceChoice::Wgpu(None)) {
        Ok(device) => Some(device),
        Err(error) => {
            let required = std::env::var("THANOSQL_REQUIRE_VULKAN").is_ok_and(|value| value == "1");
            assert!(
                !required,
                "THANOSQL_REQUIRE_VULKAN=1, but {error}; install a Vulkan driver (mesa-vulkan-drivers)"
            );
            #[allow(clippy::print_stderr)]
            {
                eprintln!("skipped: {error}");
            }
            None
        }
    }
}

fn in_full_precision(gpu: ComputeDevice) -> ComputeDevice {
    gpu.with_precision(PrecisionChoice::Full)
}

/// Collects gradients by name.
struct Slopes {
    gradients: burn::tensor::Gradients,
    collected: Weights,
}

impl ParameterVisitor for Slopes {
    fn visit<const D: usize>(&mut self, name: &str, role: Role, tensor: &mut Tensor<D>) {
        if role == Role::Statistic {
            self.collected.insert_tensor(name, tensor).unwrap();
            return;
        }
        let gradient =
            tensor.grad(&self.gradients).unwrap_or_else(|| panic!("{name} has a gradient"));
        self.collected.insert_tensor(name, &gradient).unwrap();
    }
}

/// The loss of a batch, and every gradient and statistic that it leaves.
fn step(device: &ComputeDevice) -> (f32, Weights) {
    let (device, precision) = (device.inner(), device.precision());
    let architecture = EncoderChoice::Compact.resolve(INPUT);
    let mut weights = architecture.initial_weights(1);
    add_initial_weights(&mut weights, architecture.embedding_dim(), 1);
    let mut encoder = ResidualEncoder::new(&architecture, &weights, device, precision);
    let mut head = ProjectionHead::new(&weights, device);
    let mut random = Random::keyed(&[1]);
    let values = (0..8 * INPUT.image_len()).map(|_| random.unit()).collect::<Vec<_>>();
    let autodiff = device.clone().autodiff();
    let views = Tensor::<4>::from_data(TensorData::new(values, [8, 1, 12, 12]), &autodiff);
    let loss = contrastive(
        head.forward(encoder.forward(views, 3)),
        &Positives::views(4, ContrastiveLoss::NtXent, &autodiff),
        0.5,
    );
    let mut slopes = Slopes { gradients: loss.backward(), collected: Weights::default() };
    encoder.visit(&mut slopes);
    head.visit(&mut slopes);
    (read(loss).unwrap()[0], slopes.collected)
}

#[test]
fn one_step_agrees() {
    let Some(gpu) = gpu() else { return };
    let (cpu_loss, cpu) = step(&ComputeDevice::cpu());
    let (gpu_loss, gpu) = step(&in_full_precision(gpu));
    assert!((cpu_loss - gpu_loss).abs() < 1e-3, "{cpu_loss} and {gpu_loss}");
    let architecture = EncoderChoice::Compact.resolve(INPUT);
    for (name, _) in architecture.parameters() {
        let (cpu, gpu) = (&cpu.get(&name).values, &gpu.get(&name).values);
        let scale = cpu.iter().fold(1e-3_f32, |largest, value| largest.max(value.abs()));
        for (one, other) in cpu.iter().zip(gpu) {
            assert!(
                (one - other).abs() < 1e-3 * scale,
                "{name}: {one} and {other}, of at most {scale}"
            );
        }
    }
}

#[test]
fn a_step_in_half_precision_is_close() {
    let Some(gpu) = gpu().filter(|gpu| gpu.precision() == Precision::Half) else { return };
    let (half_loss, half) = step(&gpu);
    let (full_loss, full) = step(&in_full_precision(gpu));
    assert!((half_loss - full_loss).abs() < 2e-3, "{half_loss} and {full_loss}");
    assert_ne!(half, full);
    for (name, _) in EncoderChoice::Compact.resolve(INPUT).parameters() {
        let [half, full] = [&half, &full].map(|weights| &weights.get(&name).values);
        let length = |values: &mut dyn Iterator<Item = f32>| {
            values.map(|value| f64::from(value).powi(2)).sum::<f64>().sqrt()
        };
        let apart = length(&mut half.iter().zip(full).map(|(half, full)| half - full));
        let relative = apart / length(&mut full.iter().copied());
        // Mostly what rounding makes a ReLU let through or hold back.
        assert!(relative < 0.1, "{name}: {relative}");
    }
}

#[test]
fn losses_and_their_gradients_agree() {
    let Some(gpu) = gpu() else { return };
    let mut random = Random::keyed(&[7]);
    // More rows and longer ones than a cube has units; then few, short, and one of zeros.
    let long: Vec<f32> = (0..140 * 150).map(|_| random.normal()).collect();
    let mut short: Vec<f32> = (0..8 * 5).map(|_| random.normal()).collect();
    short[10..15].fill(0.0);
    let targets: Vec<_> = (0..70).map(|image| (image % 3 > 0).then_some(image % 7)).collect();
    let nt_xent =
        |images| move |device: &Device| Positives::views(images, ContrastiveLoss::NtXent, device);
    let dcl =
        |images| move |device: &Device| Positives::views(images, ContrastiveLoss::Dcl, device);
    let by_target = |device: &Device| Positives::targets(&targets, device);
    type Make<'a> = &'a dyn Fn(&Device) -> Positives;
    let cases: [(&[f32], usize, Make<'_>); 5] = [
        (&long, 150, &nt_xent(70)),
        (&long, 150, &dcl(70)),
        (&long, 150, &by_target),
        (&short, 5, &nt_xent(4)),
        (&short, 5, &dcl(4)),
    ];
    for (rows, length, positives) in cases {
        for temperature in [0.05, 0.5] {
            let run = |device: &ComputeDevice| {
                let device = device.autodiff();
                let shape = [rows.len() / length, length];
                let rows = TensorData::new(rows.to_vec(), shape);
                let rows = Tensor::<2>::from_data(rows, &device).require_grad();
                let loss = contrastive(rows.clone(), &positives(&device), temperature);
                let gradient = rows.grad(&loss.clone().mul_scalar(3.0).backward()).unwrap();
                (read(loss).unwrap()[0], read(gradient).unwrap())
            };
            let (cpu_loss, cpu) = run(&ComputeDevice::cpu());
            let (gpu_loss, gpu) = run(&gpu);
            assert!((cpu_loss - gpu_loss).abs() < 1e-4, "{cpu_loss} and {gpu_loss}");
            // A row of zeros has gradients of another size.
            for (cpu, gpu) in cpu.chunks(length).zip(gpu.chunks(length)) {
                let scale = cpu.iter().fold(1e-6_f32, |scale, value| scale.max(value.abs()));
                for (one, other) in cpu.iter().zip(gpu) {
                    assert!((one - other).abs() < 1e-3 * scale, "{one} and {other} of {scale}");
                }
            }
        }
    }
}

#[test]
fn training_and_embedding_agree() {
    let Some(gpu) = gpu().map(in_full_precision) else { return };
    let mut random = Random::keyed(&[2]);
    let pixels = (0..9 * INPUT.image_len()).map(|_| random.next() as u8).collect();
    let images = ImageSet::new(INPUT, pixels).expect("whole images");
    let options = TrainOptions { max_epochs: 1, batch_size: Some(9), ..TrainOptions::default() };
    let run = |device: &ComputeDevice| -> Result<_, MlError> {
        let trained = train(&images, None, &options, None, None, device, &mut Silent)?;
        let loaded = crate::Model::from_safetensors(&trained.model.to_safetensors()?, device)?;
        Ok((trained.curve[0].loss, loaded.embed(&images, &|| false)?))
    };
    let (cpu_loss, cpu) = run(&ComputeDevice::cpu()).unwrap();
    let (gpu_loss, gpu) = run(&gpu).unwrap();
    assert!((cpu_loss - gpu_loss).abs() < 1e-3, "{cpu_loss} and {gpu_loss}");
    // The first step of AdamW moves every weight by the sign of its gradient, which rounding decides where the gradient is almost zero.
    let scale = cpu.iter().fold(0.0_f32, |largest, value| largest.max(*value));
    let apart = cpu.iter().zip(&gpu).map(|(one, other)| (one - other).abs()).fold(0.0, f32::max);
    assert!(apart < 1e-2 * scale, "vectors are {apart} apart, of at most {scale}");
}

#[test]
fn every_step_tells_a_loss() {
    let Some(gpu) = gpu() else { return };
    struct Watch(Vec<f64>);
    impl TrainingObserver for Watch {
        fn on_step(&mut self, progress: &StepProgress) -> Flow {
            self.0.push(progress.loss);
            Flow::Continue
        }

        fn on_epoch(&mut self, _: &EpochReport) -> Flow {
            Flow::Continue
        }
    }
    let mut random = Random::keyed(&[5]);
    let pixels = (0..6 * INPUT.image_len()).map(|_| random.next() as u8).collect();
    let images = ImageSet::new(INPUT, pixels).expect("whole images");
    let options = TrainOptions { max_epochs: 2, batch_size: Some(2), ..TrainOptions::default() };
    let mut watch = Watch(Vec::new());
    train(&images, None, &options, None, None, &gpu, &mut watch).unwrap();
    assert_eq!(watch.0.len(), 6);
    assert!(watch.0.iter().all(|loss| *loss > 0.0), "{:?}", watch.0);
}

#[test]
fn views_agree() {
    let Some(gpu) = gpu() else { return };
    // 81 bytes are no whole number of words. Above 64 pixels a side views are blurred, and their jitter is stronger.
    let gray = InputSpec { size: 9, color: Color::Gray };
    let large = InputSpec { size: 66, color: Color::Rgb };
    let check = |input, augmentations: &[Augmentation], count| {
        let apart = apart(gpu.inner(), input, augmentations, count);
        assert!(apart < 1e-3, "{augmentations:?} of {input:?}: views are {apart} apart");
    };
    for augmentation in Augmentation::ALL {
        check(gray, &[augmentation], 6);
        check(InputSpec { size: 6, color: Color::Rgb }, &[augmentation], 6);
    }
    check(gray, &Augmentation::defaults(gray), 24);
    check(gray, &Augmentation::ALL, 6);
    check(large, &Augmentation::ALL, 2);
    check(gray, &[], 3);
}

#[test]
fn images_that_are_sent_a_batch_at_a_time_give_the_same_views() {
    let Some(gpu) = gpu() else { return };
    let (resident, sent) = resident_and_sent(gpu.inner(), INPUT, &[4, 0, 4]);
    assert_eq!(resident, sent);
}
