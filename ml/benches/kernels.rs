//! How fast the kernels are, beside burn's own operations: GFLOP/s of convolutions, milliseconds of a normalisation, images a second of a
//! whole small network. Run with `cargo bench -p thanosql-ml --bench kernels`; `-- --quick` leaves burn's own convolutions out.
//!
//! With `-- --gpu`, the convolutions of a batch on the GPU that wgpu finds, beside burn's, which take minutes to tune.
//!
//! Each figure is the best of several runs, so that other work on the machine disturbs it least.

#![allow(clippy::print_stdout, reason = "a benchmark prints its figures")]

use burn::tensor::activation::relu;
use burn::tensor::module;
use burn::tensor::ops::ConvOptions;
use burn::tensor::{Device, DeviceKind, Distribution, Tensor};
use std::time::{Duration, Instant};
use thanosql_ml::kernels::{
    Activation, Convolution, FoldedConvolution, batch_norm, channels_last, conv2d,
    global_average_pool, max_pool,
};

const BATCH: usize = 128;

/// Images larger than those of digits come in smaller batches, as in training.
const LARGE_BATCH: usize = 32;
const LARGE_SIDE: usize = 28;
const EPSILON: f64 = 1e-5;

fn main() {
    let quick = std::env::args().any(|argument| argument == "--quick");
    if std::env::args().any(|argument| argument == "--gpu") {
        return gpu_convolutions(quick);
    }
    println!("{} threads, batch {BATCH}", rayon::current_num_threads());
    convolutions(quick);
    normalisations();
    networks();
}

/// Calls `prepare`, then `run` on what it returned, which alone is timed; the shortest of several times.
fn best<T, R>(mut prepare: impl FnMut() -> T, mut run: impl FnMut(T) -> R) -> Duration {
    let mut shortest = Duration::MAX;
    let began = Instant::now();
    for round in 0.. {
        let input = prepare();
        let start = Instant::now();
        let result = run(input);
        let elapsed = start.elapsed();
        drop(result);
        // The first run fills caches and buffers.
        if round > 0 {
            shortest = shortest.min(elapsed);
        }
        if round >= 3 && began.elapsed() > Duration::from_millis(400) {
            break;
        }
    }
    shortest
}

fn random<const D: usize>(shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::random(shape, Distribution::Uniform(-0.5, 0.5), device)
}

fn convolutions(quick: bool) {
    println!(
        "\nconvolution, GFLOP/s: forward, gradient of the input, gradient of the weights (burn's own forward, both gradients)"
    );
    for (inputs, outputs, size, kernel, stride) in [
        (16, 16, 28, 3, 1),
        (32, 32, 14, 3, 1),
        (64, 64, 7, 3, 1),
        (32, 32, 28, 3, 1),
        (64, 64, 14, 3, 1),
        (128, 128, 7, 3, 1),
        (128, 128, 4, 3, 1),
        (1, 32, 28, 3, 2),
        (32, 64, 14, 3, 2),
        (64, 128, 7, 3, 2),
        (32, 64, 14, 1, 2),
        (512, 512, 4, 3, 1),
        (3, 64, 224, 7, 2),
        (64, 64, 56, 3, 1),
        (64, 128, 56, 3, 2),
        (256, 256, 14, 3, 1),
        (512, 512, 7, 3, 1),
    ] {
        let batch = if size > LARGE_SIDE { LARGE_BATCH } else { BATCH };
        let device = Device::flex();
        let autodiff = device.clone().autodiff();
        let options = Convolution { stride: [stride; 2], padding: [kernel / 2; 2] };
        let out_size = (size + 2 * (kernel / 2) - kernel) / stride + 1;
        let operations =
            (2 * batch * out_size * out_size * outputs * inputs * kernel * kernel) as f64;
        let rate = |time: Duration| operations * 1e-9 / time.as_secs_f64();

        let x = random([batch, size, size, inputs], &device);
        let weight = random([outputs, inputs, kernel, kernel], &device);
        let forward = best(|| (), |()| conv2d(x.clone(), weight.clone(), options));
        let tracked = |x_tracked: bool, weight_tracked: bool| {
            let x = Tensor::from_inner(x.clone());
            let weight = Tensor::from_inner(weight.clone());
            let x = if x_tracked { x.require_grad() } else { x };
            let weight = if weight_tracked { weight.require_grad() } else { weight };
            assert_eq!(x.device(), autodiff);
            (x, weight)
        };
        let backward = |x_tracked, weight_tracked| {
            best(
                || {
                    let (x, weight) = tracked(x_tracked, weight_tracked);
                    conv2d(x, weight, options)
                },
                |y| y.backward(),
            )
        };
        print!(
            "{inputs:4} -> {outputs:3}, {size:3}x{size:<3}, {kernel}x{kernel}/{stride}: {:6.1} {:6.1} {:6.1}",
            rate(forward),
            rate(backward(true, false)),
            rate(backward(false, true)),
        );
        if !quick {
            let first = x.clone().permute([0, 3, 1, 2]);
            let first = Tensor::<4>::from_data(first.to_data(), &device);
            let burn_options = ConvOptions::new([stride; 2], [kernel / 2; 2], [1, 1], 1);
            let forward = best(
                || (),
                |()| module::conv2d(first.clone(), weight.clone(), None, burn_options.clone()),
            );
            let backward = best(
                || {
                    let (_, weight) = tracked(false, true);
                    let x = Tensor::from_inner(first.clone()).require_grad();
                    module::conv2d(x, weight, None, burn_options.clone())
                },
                |y| y.backward(),
            );
            print!("   ({:5.1} {:5.1})", rate(forward), 2.0 * rate(backward));
        }
        println!();
    }
}

/// What a step sends before it waits, as in training.
const CALLS: u32 = 10;

fn gpu_convolutions(quick: bool) {
    let device = Device::wgpu(DeviceKind::DefaultDevice);
    println!(
        "batch {BATCH}, convolutions on a GPU: microseconds (TFLOP/s) forward, and of forward and both gradients; then burn's own"
    );
    for (inputs, outputs, size, kernel, stride) in [
        (32, 32, 14, 3, 1),
        (32, 64, 14, 3, 2),
        (128, 128, 4, 3, 1),
        (3, 64, 224, 7, 2),
        (64, 64, 56, 3, 1),
        (128, 128, 28, 3, 1),
        (256, 256, 14, 3, 1),
        (512, 512, 7, 3, 1),
        (256, 512, 14, 1, 2),
    ] {
        let options = Convolution { stride: [stride; 2], padding: [kernel / 2; 2] };
        let out_size = (size + 2 * (kernel / 2) - kernel) / stride + 1;
        let operations =
            (2 * BATCH * out_size * out_size * outputs * inputs * kernel * kernel) as f64;
        print!("{inputs:4} -> {outputs:3}, {size:3}x{size:<3}, {kernel}x{kernel}/{stride}:");
        let x = random([BATCH, size, size, inputs], &device);
        let weight = random([outputs, inputs, kernel, kernel], &device);
        let burns = |x: Tensor<4>, weight: Tensor<4>| {
            let options = ConvOptions::new([stride; 2], [kernel / 2; 2], [1, 1], 1);
            module::conv2d(x.permute([0, 3, 1, 2]), weight, None, options)
        };
        let ours = |x: Tensor<4>, weight: Tensor<4>| conv2d(x, weight, options);
        let wait = || device.sync().expect("a device that works");
        let time = |convolve: &dyn Fn(Tensor<4>, Tensor<4>) -> Tensor<4>| {
            let forward = || drop(convolve(x.clone(), weight.clone()));
            let both = || {
                let x = Tensor::from_inner(x.clone()).require_grad();
                let weight = Tensor::from_inner(weight.clone()).require_grad();
                drop(convolve(x, weight).backward());
            };
            let timed = |run: &dyn Fn()| {
                best(wait, |()| {
                    (0..CALLS).for_each(|_| run());
                    wait();
                }) / CALLS
            };
            let rate = |time: Duration, times: f64| times * operations * 1e-12 / time.as_secs_f64();
            let (forward, both) = (timed(&forward), timed(&both));
            print!(
                " {:6.0} ({:4.1}) {:6.0} ({:4.1})",
                forward.as_secs_f64() * 1e6,
                rate(forward, 1.0),
                both.as_secs_f64() * 1e6,
                rate(both, 3.0),
            );
        };
        time(&ours);
        if !quick {
            print!("   ");
            time(&burns);
        }
        println!();
    }
}

fn normalisations() {
    println!("\nbatch normalisation, residual sum and ReLU, ms: forward, backward (burn's own)");
    let device = Device::flex();
    for (size, channels) in [(14, 32), (7, 64), (4, 128), (28, 32)] {
        let shape = [BATCH, size, size, channels];
        let [x, residual] = [(); 2].map(|()| random(shape, &device));
        let [gamma, beta] = [(); 2].map(|()| random([channels], &device));
        let track = |tensor: &Tensor<4>| Tensor::from_inner(tensor.clone()).require_grad();
        let track_channels = |tensor: &Tensor<1>| Tensor::from_inner(tensor.clone()).require_grad();
        let ours = || {
            let (gamma, beta) = (track_channels(&gamma), track_channels(&beta));
            batch_norm(track(&x), gamma, beta, EPSILON, Some(track(&residual)), Activation::Relu)
                .output
        };
        let [first, first_residual] = [&x, &residual].map(|tensor| {
            Tensor::<4>::from_data(tensor.clone().permute([0, 3, 1, 2]).to_data(), &device)
        });
        let burns = || {
            let (gamma, beta) = (track_channels(&gamma), track_channels(&beta));
            relu(
                module::batch_norm_train(track(&first), gamma, beta, EPSILON).output
                    + track(&first_residual),
            )
        };
        let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
        println!(
            "{size:2}x{size:<2}, {channels:3} channels: {:6.2} {:6.2}   ({:6.2} {:6.2})",
            milliseconds(best(|| (), |()| ours())),
            milliseconds(best(ours, |y| y.backward())),
            milliseconds(best(|| (), |()| burns())),
            milliseconds(best(burns, |y| y.backward())),
        );
    }
}

/// The shape of a residual network, and the images it is timed with.
struct Plan {
    name: &'static str,
    batch: usize,
    /// Channels and side of an image.
    image: [usize; 2],
    /// Kernel and stride.
    stem: [usize; 2],
    max_pool: bool,
    widths: &'static [usize],
    /// In a stage.
    blocks: usize,
}

/// A residual network's layers: the stem, then the blocks, two convolutions each and perhaps a shortcut.
struct Network<L> {
    stem: L,
    max_pool: bool,
    blocks: Vec<(L, L, Option<L>)>,
}

/// A layer that learns.
struct Unit {
    weight: Tensor<4>,
    gamma: Tensor<1>,
    beta: Tensor<1>,
    options: Convolution,
}

impl Unit {
    fn new(inputs: usize, outputs: usize, kernel: usize, stride: usize, device: &Device) -> Unit {
        let weight = random([outputs, inputs, kernel, kernel], device) * 0.1;
        Unit {
            weight: weight.require_grad(),
            gamma: Tensor::ones([outputs], device).require_grad(),
            beta: Tensor::zeros([outputs], device).require_grad(),
            options: Convolution { stride: [stride; 2], padding: [kernel / 2; 2] },
        }
    }

    fn learn(&self, x: Tensor<4>, residual: Option<Tensor<4>>, last: Activation) -> Tensor<4> {
        let y = conv2d(x, self.weight.clone(), self.options);
        batch_norm(y, self.gamma.clone(), self.beta.clone(), EPSILON, residual, last).output
    }

    fn fixed(&self) -> FoldedConvolution {
        let (weight, bias) = (self.weight.clone().inner(), self.beta.clone().inner());
        FoldedConvolution::new(weight, bias, self.options)
    }
}

impl<L> Network<L> {
    fn new(plan: &Plan, unit: impl Fn(usize, usize, usize, usize) -> L) -> Self {
        let mut inputs = plan.widths[0];
        let mut blocks = Vec::new();
        for (stage, &outputs) in plan.widths.iter().enumerate() {
            for block in 0..plan.blocks {
                let stride = if stage == 0 || block > 0 { 1 } else { 2 };
                let shortcut = (stride != 1).then(|| unit(inputs, outputs, 1, stride));
                let second = unit(outputs, outputs, 3, 1);
                blocks.push((unit(inputs, outputs, 3, stride), second, shortcut));
                inputs = outputs;
            }
        }
        let [kernel, stride] = plan.stem;
        let stem = unit(plan.image[0], plan.widths[0], kernel, stride);
        Network { stem, max_pool: plan.max_pool, blocks }
    }

    fn forward(
        &self,
        images: Tensor<4>,
        layer: impl Fn(&L, Tensor<4>, Option<Tensor<4>>, Activation) -> Tensor<4>,
    ) -> Tensor<2> {
        let mut x = layer(&self.stem, channels_last(images), None, Activation::Relu);
        if self.max_pool {
            x = max_pool(x);
        }
        for (first, second, shortcut) in &self.blocks {
            let y = layer(first, x.clone(), None, Activation::Relu);
            let residual = match shortcut {
                Some(shortcut) => layer(shortcut, x, None, Activation::None),
                None => x,
            };
            x = layer(second, y, Some(residual), Activation::Relu);
        }
        global_average_pool(x)
    }
}

fn networks() {
    println!("\nnetwork, images/s: forward while training, forward and backward, embedding");
    let digits = Plan {
        name: "16, 32, 64, 28x28 grey, stem stride 1",
        batch: BATCH,
        image: [1, 28],
        stem: [3, 1],
        max_pool: false,
        widths: &[16, 32, 64],
        blocks: 1,
    };
    let wide = &[32, 64, 128];
    for plan in [
        Plan { name: "32, 64, 128, 28x28 grey, stem stride 1", widths: wide, ..digits },
        Plan {
            name: "32, 64, 128, 28x28 grey, stem stride 2",
            widths: wide,
            stem: [3, 2],
            ..digits
        },
        digits,
        Plan {
            name: "ResNet-18, 224x224 RGB",
            batch: LARGE_BATCH,
            image: [3, 224],
            stem: [7, 2],
            max_pool: true,
            widths: &[64, 128, 256, 512],
            blocks: 2,
        },
    ] {
        let device = Device::flex();
        let [channels, side] = plan.image;
        let images = random([plan.batch, channels, side, side], &device);
        let autodiff = device.clone().autodiff();
        let unit =
            |inputs, outputs, kernel, stride| Unit::new(inputs, outputs, kernel, stride, &autodiff);
        let network = Network::new(&plan, unit);
        let fixed = Network::new(&plan, |inputs, outputs, kernel, stride| {
            unit(inputs, outputs, kernel, stride).fixed()
        });
        let learn = |images| network.forward(images, Unit::learn);
        let embed = |images| fixed.forward(images, FoldedConvolution::forward);
        let tracked = || Tensor::from_inner(images.clone());
        let forward = best(tracked, learn);
        let both = best(tracked, |images| learn(images).sum().backward());
        let embedding = best(|| images.clone(), embed);
        let rate = |time: Duration| plan.batch as f64 / time.as_secs_f64();
        println!(
            "{:38}: {:7.1} {:7.1} {:7.1}",
            plan.name,
            rate(forward),
            rate(both),
            rate(embedding)
        );
    }
}
