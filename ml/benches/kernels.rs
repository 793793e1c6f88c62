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
    global_average_pool,
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

/// A residual network's layers: the stem, then for each stage two convolutions and perhaps a shortcut.
struct Network<L> {
    stem: L,
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
    fn new(
        widths: &[usize],
        stem_stride: usize,
        unit: impl Fn(usize, usize, usize, usize) -> L,
    ) -> Self {
        let mut inputs = widths[0];
        let mut blocks = Vec::new();
        for (stage, &outputs) in widths.iter().enumerate() {
            let stride = if stage == 0 { 1 } else { 2 };
            let shortcut = (stride != 1).then(|| unit(inputs, outputs, 1, stride));
            blocks.push((unit(inputs, outputs, 3, stride), unit(outputs, outputs, 3, 1), shortcut));
            inputs = outputs;
        }
        Network { stem: unit(1, widths[0], 3, stem_stride), blocks }
    }

    fn forward(
        &self,
        images: Tensor<4>,
        layer: impl Fn(&L, Tensor<4>, Option<Tensor<4>>, Activation) -> Tensor<4>,
    ) -> Tensor<2> {
        let mut x = layer(&self.stem, channels_last(images), None, Activation::Relu);
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
    println!(
        "\nnetwork on 28x28 grey images, images/s: forward while training, forward and backward, embedding"
    );
    for (widths, stem_stride) in [([16, 32, 64], 1), ([32, 64, 128], 1), ([32, 64, 128], 2)] {
        let device = Device::flex();
        let images = random([BATCH, 1, 28, 28], &device);
        let autodiff = device.clone().autodiff();
        let unit =
            |inputs, outputs, kernel, stride| Unit::new(inputs, outputs, kernel, stride, &autodiff);
        let network = Network::new(&widths, stem_stride, unit);
        let fixed = Network::new(&widths, stem_stride, |inputs, outputs, kernel, stride| {
            unit(inputs, outputs, kernel, stride).fixed()
        });
        let learn = |images| network.forward(images, Unit::learn);
        let embed = |images| fixed.forward(images, FoldedConvolution::forward);
        let tracked = || Tensor::from_inner(images.clone());
        let forward = best(tracked, learn);
        let both = best(tracked, |images| learn(images).sum().backward());
        let embedding = best(|| images.clone(), embed);
        let rate = |time: Duration| BATCH as f64 / time.as_secs_f64();
        println!(
            "{widths:?}, stem stride {stem_stride}: {:7.0} {:7.0} {:7.0}",
            rate(forward),
            rate(both),
            rate(embedding)
        );
    }
}
