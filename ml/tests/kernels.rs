//! The kernels through burn: forward and gradients against burn's own operations on the CPU and against finite differences.
//!
//! On the CPU, and on the GPU that wgpu finds, a software driver too. Without one the GPU's kernels are left out, unless `THANOSQL_REQUIRE_VULKAN=1`.

use burn::tensor::activation::relu;
use burn::tensor::module;
use burn::tensor::ops::{ConvOptions, MaxPoolOptions};
use burn::tensor::{DType, Device, DeviceKind, Tensor, TensorData};
use thanosql_ml::kernels::{
    Activation, Convolution, FoldedConvolution, HALF_GRADIENT_SCALE, batch_norm, channels_last,
    conv2d, fold_batch_norm, global_average_pool, half_precision, max_pool,
};

use thanosql_ml::{ComputeDevice, DeviceChoice};

const EPSILON: f64 = 1e-5;

/// The devices that have kernels.
fn devices() -> Vec<Device> {
    let mut devices = vec![Device::flex()];
    match ComputeDevice::open(DeviceChoice::Wgpu(None)) {
        Ok(_) => devices.push(Device::wgpu(DeviceKind::DefaultDevice)),
        Err(error) => {
            let required = std::env::var("THANOSQL_REQUIRE_VULKAN").is_ok_and(|value| value == "1");
            assert!(!required, "THANOSQL_REQUIRE_VULKAN=1, but {error}");
        }
    }
    devices
}

/// Those whose kernels know half precision.
fn devices_with_half() -> impl Iterator<Item = Device> {
    let gpus = devices().into_iter().filter(|device| *device != Device::flex());
    gpus.filter(|device| device.supports_dtype(DType::F16))
}

/// Numbers between -0.5 and 0.5 that look random, the same for the same seed.
fn numbers(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) + 1;
    (0..count)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
        })
        .collect()
}

fn tensor<const D: usize>(shape: [usize; D], seed: u64, device: &Device) -> Tensor<D> {
    Tensor::from_data(TensorData::new(numbers(shape.iter().product(), seed), shape), device)
}

fn values<const D: usize>(tensor: &Tensor<D>) -> Vec<f32> {
    tensor.to_data().try_to_vec().expect("the tensor is f32")
}

/// The largest difference, relative to the largest value.
fn difference<const D: usize>(actual: &Tensor<D>, expected: &Tensor<D>) -> f32 {
    assert_eq!(actual.dims(), expected.dims());
    let expected = values(expected);
    let largest =
        expected.iter().fold(f32::MIN_POSITIVE, |largest, value| largest.max(value.abs()));
    values(actual).iter().zip(&expected).fold(0.0, |worst: f32, (a, e)| {
        assert!(a.is_finite() && e.is_finite());
        worst.max((a - e).abs() / largest)
    })
}

#[track_caller]
fn assert_close<const D: usize>(actual: &Tensor<D>, expected: &Tensor<D>) {
    let difference = difference(actual, expected);
    assert!(difference < 1e-4, "relative difference {difference}");
}

fn channels_first(x: Tensor<4>) -> Tensor<4> {
    x.permute([0, 3, 1, 2])
}

/// Batch, in and out channels, height and width, kernel, stride, padding.
type Shape = (usize, [usize; 2], [usize; 2], usize, usize, usize);

const SHAPES: [Shape; 9] = [
    (2, [3, 5], [7, 6], 3, 1, 1),
    (1, [1, 32], [28, 28], 3, 2, 1),
    (3, [16, 16], [9, 9], 3, 2, 1),
    (3, [17, 33], [8, 5], 1, 2, 0),
    (5, [32, 64], [14, 14], 3, 2, 1),
    (2, [3, 64], [33, 31], 7, 2, 3),
    (4, [8, 20], [5, 4], 3, 3, 1),
    (1, [128, 128], [4, 4], 3, 1, 1),
    (2, [24, 8], [6, 6], 3, 1, 0),
];

#[test]
fn convolution_agrees_with_burns_forward_and_backward() {
    let cpu = Device::flex().autodiff();
    for (batch, [inputs, outputs], [height, width], kernel, stride, padding) in SHAPES {
        let image = [batch, inputs, height, width];
        let x = tensor(image, 1, &cpu).require_grad();
        let weight = tensor([outputs, inputs, kernel, kernel], 2, &cpu).require_grad();
        let options = ConvOptions::new([stride; 2], [padding; 2], [1, 1], 1);
        let expected = module::conv2d(x.clone(), weight.clone(), None, options);
        let gradients = (expected.clone() * tensor(expected.dims(), 3, &cpu)).sum().backward();
        let (x_expected, weight_expected) =
            (x.grad(&gradients).unwrap(), weight.grad(&gradients).unwrap());

        for device in devices() {
            let device = device.autodiff();
            let x = tensor(image, 1, &device).require_grad();
            let weight = tensor([outputs, inputs, kernel, kernel], 2, &device).require_grad();
            let options = Convolution { stride: [stride; 2], padding: [padding; 2] };
            let actual = channels_first(conv2d(channels_last(x.clone()), weight.clone(), options));
            let direction = tensor(expected.dims(), 3, &device);
            let gradients = (actual.clone() * direction).sum().backward();
            assert_close(&actual, &expected);
            assert_close(&x.grad(&gradients).unwrap(), &x_expected);
            assert_close(&weight.grad(&gradients).unwrap(), &weight_expected);
        }
    }
}

#[test]
fn batch_normalisation_agrees_with_its_formula_forward_and_backward() {
    let cpu = Device::flex().autodiff();
    for (shape, with_residual, activation, offset) in [
        ([2, 3, 5, 7], false, Activation::None, 0.0),
        ([1, 1, 4, 3], false, Activation::Relu, 0.0),
        ([64, 14, 14, 32], true, Activation::Relu, 3.0),
        ([3, 5, 5, 33], true, Activation::None, -40.0),
        ([70, 4, 4, 128], false, Activation::Relu, 0.5),
    ] {
        let channels = shape[3];
        let inputs = |device: &Device| {
            (
                (tensor(shape, 1, device) + offset).require_grad(),
                (tensor([channels], 2, device) + 1.0).require_grad(),
                tensor([channels], 3, device).require_grad(),
                with_residual.then(|| tensor(shape, 4, device).require_grad()),
                tensor(shape, 5, device),
            )
        };
        let (x, gamma, beta, residual, direction) = inputs(&cpu);
        let mean = x.clone().mean_dims(&[0, 1, 2]);
        let variance = (x.clone() - mean.clone()).square().mean_dims(&[0, 1, 2]);
        let mut expected = (x.clone() - mean.clone()) / (variance.clone() + EPSILON).sqrt()
            * gamma.clone().reshape([1, 1, 1, channels])
            + beta.clone().reshape([1, 1, 1, channels]);
        if let Some(residual) = &residual {
            expected = expected + residual.clone();
        }
        if activation == Activation::Relu {
            expected = relu(expected);
        }
        let gradients = (expected.clone() * direction).sum().backward();
        let [x_expected, residual_expected] =
            [Some(x), residual].map(|tensor| Some(tensor?.grad(&gradients).unwrap()));
        let [gamma_expected, beta_expected] =
            [gamma, beta].map(|tensor| tensor.grad(&gradients).unwrap());

        for device in devices() {
            let (x, gamma, beta, residual, direction) = inputs(&device.autodiff());
            let actual = batch_norm(
                x.clone(),
                gamma.clone(),
                beta.clone(),
                EPSILON,
                residual.clone(),
                activation,
            );
            let gradients = (actual.output.clone() * direction).sum().backward();
            assert_close(&actual.output, &expected);
            assert_close(&actual.mean, &mean.clone().reshape([channels]));
            assert_close(&actual.variance, &variance.clone().reshape([channels]));
            // Where the mean is large beside the deviation, the composed operations lose digits, not the kernel.
            let tolerance = if f32::abs(offset) > 10.0 { 2e-3 } else { 1e-4 };
            let x_found = x.grad(&gradients).unwrap();
            assert!(difference(&x_found, x_expected.as_ref().unwrap()) < tolerance);
            let gamma_found = gamma.grad(&gradients).unwrap();
            assert!(difference(&gamma_found, &gamma_expected) < tolerance);
            assert_close(&beta.grad(&gradients).unwrap(), &beta_expected);
            if let Some(residual) = residual {
                let found = residual.grad(&gradients).unwrap();
                assert_close(&found, residual_expected.as_ref().unwrap());
            }
        }
    }
}

/// A residual block in `f64`, straight from its definition, for finite differences: convolution, normalisation, ReLU, convolution,
/// normalisation, the block's input, ReLU. Returns the sum of the result's products with `direction`.
mod block {
    pub(crate) const BATCH: usize = 3;
    pub(crate) const SIZE: usize = 4;
    pub(crate) const CHANNELS: usize = 5;

    pub(crate) fn loss(parameters: &[Vec<f64>; 7], direction: &[f64]) -> f64 {
        let [x, weight1, gamma1, beta1, weight2, gamma2, beta2] = parameters;
        let y = normalise(&convolve(x, weight1), gamma1, beta1, None);
        let z = normalise(&convolve(&y, weight2), gamma2, beta2, Some(x));
        z.iter().zip(direction).map(|(z, d)| z * d).sum()
    }

    fn convolve(x: &[f64], weight: &[f64]) -> Vec<f64> {
        let mut y = vec![0.0; x.len()];
        for image in 0..BATCH {
            for (row, column, output) in triples(SIZE, SIZE, CHANNELS) {
                let mut sum = 0.0;
                for (kernel_row, kernel_column, input) in triples(3, 3, CHANNELS) {
                    let (source_row, source_column) = (row + kernel_row, column + kernel_column);
                    if (1..=SIZE).contains(&source_row) && (1..=SIZE).contains(&source_column) {
                        sum += x[((image * SIZE + source_row - 1) * SIZE + source_column - 1)
                            * CHANNELS
                            + input]
                            * weight[((output * CHANNELS + input) * 3 + kernel_row) * 3
                                + kernel_column];
                    }
                }
                y[((image * SIZE + row) * SIZE + column) * CHANNELS + output] = sum;
            }
        }
        y
    }

    fn normalise(x: &[f64], gamma: &[f64], beta: &[f64], residual: Option<&[f64]>) -> Vec<f64> {
        let count = (x.len() / CHANNELS) as f64;
        let mut y = x.to_vec();
        for channel in 0..CHANNELS {
            let values = || x.iter().skip(channel).step_by(CHANNELS);
            let mean = values().sum::<f64>() / count;
            let variance = values().map(|value| (value - mean).powi(2)).sum::<f64>() / count;
            for index in (channel..x.len()).step_by(CHANNELS) {
                let normal = (x[index] - mean) / (variance + super::EPSILON).sqrt();
                y[index] = (gamma[channel] * normal
                    + beta[channel]
                    + residual.map_or(0.0, |residual| residual[index]))
                .max(0.0);
            }
        }
        y
    }

    fn triples(a: usize, b: usize, c: usize) -> impl Iterator<Item = (usize, usize, usize)> {
        (0..a).flat_map(move |i| (0..b).flat_map(move |j| (0..c).map(move |k| (i, j, k))))
    }
}

#[test]
fn gradients_of_a_residual_block_agree_with_finite_differences() {
    for device in devices() {
        let device = &device.autodiff();
        use block::{BATCH, CHANNELS, SIZE};
        let image = [BATCH, SIZE, SIZE, CHANNELS];
        let kernel = [CHANNELS, CHANNELS, 3, 3];
        let x = tensor(image, 1, device).require_grad();
        let weights: [Tensor<4>; 2] =
            [2, 3].map(|seed| tensor(kernel, seed, device).require_grad());
        let gammas: [Tensor<1>; 2] =
            [4, 5].map(|seed| (tensor([CHANNELS], seed, device) + 1.0).require_grad());
        let betas: [Tensor<1>; 2] =
            [6, 7].map(|seed| tensor([CHANNELS], seed, device).require_grad());
        let direction = tensor(image, 8, device);

        let options = Convolution { stride: [1, 1], padding: [1, 1] };
        let y = conv2d(x.clone(), weights[0].clone(), options);
        let y = batch_norm(y, gammas[0].clone(), betas[0].clone(), EPSILON, None, Activation::Relu)
            .output;
        let z = conv2d(y, weights[1].clone(), options);
        let z = batch_norm(
            z,
            gammas[1].clone(),
            betas[1].clone(),
            EPSILON,
            Some(x.clone()),
            Activation::Relu,
        )
        .output;
        let gradients = (z * direction.clone()).sum().backward();

        let doubles = |values: Vec<f32>| values.into_iter().map(f64::from).collect::<Vec<f64>>();
        let mut parameters = [
            values(&x),
            values(&weights[0]),
            values(&gammas[0]),
            values(&betas[0]),
            values(&weights[1]),
            values(&gammas[1]),
            values(&betas[1]),
        ]
        .map(doubles);
        let direction = doubles(values(&direction));
        let actual = [
            values(&x.grad(&gradients).unwrap()),
            values(&weights[0].grad(&gradients).unwrap()),
            values(&gammas[0].grad(&gradients).unwrap()),
            values(&betas[0].grad(&gradients).unwrap()),
            values(&weights[1].grad(&gradients).unwrap()),
            values(&gammas[1].grad(&gradients).unwrap()),
            values(&betas[1].grad(&gradients).unwrap()),
        ];
        // A step that crosses a kink of the ReLU has no derivative to compare with; there are few of them, and the step is small.
        let step = 1e-6;
        for (which, actual) in actual.iter().enumerate() {
            let largest = actual.iter().fold(0.0, |largest: f32, value| largest.max(value.abs()));
            assert!(largest > 0.0, "parameter {which} has a gradient");
            for (index, &gradient) in actual.iter().enumerate() {
                let value = parameters[which][index];
                parameters[which][index] = value + step;
                let above = block::loss(&parameters, &direction);
                parameters[which][index] = value - step;
                let below = block::loss(&parameters, &direction);
                parameters[which][index] = value;
                let expected = (above - below) / (2.0 * step);
                let error = (f64::from(gradient) - expected).abs() / f64::from(largest);
                assert!(
                    error < 1e-3,
                    "parameter {which}, value {index}: {gradient} instead of {expected}"
                );
            }
        }
    }
}

#[test]
fn folded_convolution_agrees_with_convolution_and_fixed_normalisation() {
    for device in devices() {
        let device = &device;
        for (batch, [inputs, outputs], [height, width], kernel, stride, padding) in SHAPES {
            let options = Convolution { stride: [stride; 2], padding: [padding; 2] };
            let x = tensor([batch, height, width, inputs], 1, device);
            let weight = tensor([outputs, inputs, kernel, kernel], 2, device);
            let gamma = tensor([outputs], 3, device) + 1.0;
            let beta = tensor([outputs], 4, device);
            let mean = tensor([outputs], 5, device);
            let variance = tensor([outputs], 6, device) + 1.0;
            let convolved = conv2d(x.clone(), weight.clone(), options);
            let residual = tensor(convolved.dims(), 7, device);
            let shape = [1, 1, 1, outputs];
            let expected = relu(
                (convolved - mean.clone().reshape(shape))
                    / (variance.clone().reshape(shape) + EPSILON).sqrt()
                    * gamma.clone().reshape(shape)
                    + beta.clone().reshape(shape)
                    + residual.clone(),
            );
            let (weight, bias) = fold_batch_norm(weight, gamma, beta, mean, variance, EPSILON);
            let folded = FoldedConvolution::new(weight, bias, options);
            let actual = folded.forward(x, Some(residual), Activation::Relu);
            assert_close(&actual, &expected);
        }
    }
}

#[test]
fn views_with_other_strides_are_read_in_the_right_order() {
    for device in devices() {
        let device = &device;
        let options = Convolution { stride: [1, 1], padding: [1, 1] };
        let first = tensor([4, 8, 6, 6], 1, device);
        let weight = tensor([8, 8, 3, 3], 2, device);
        let view = first.clone().permute([0, 2, 3, 1]).narrow(0, 1, 2).flip([1]);
        let copy = Tensor::<4>::from_data(view.to_data(), device);
        assert_close(
            &conv2d(view.clone(), weight.clone(), options),
            &conv2d(copy.clone(), weight, options),
        );
        let (gamma, beta) = (tensor([8], 3, device), tensor([8], 4, device));
        let actual = batch_norm(
            view.clone(),
            gamma.clone(),
            beta.clone(),
            EPSILON,
            Some(view.clone()),
            Activation::Relu,
        );
        let expected =
            batch_norm(copy.clone(), gamma, beta, EPSILON, Some(copy.clone()), Activation::Relu);
        assert_close(&actual.output, &expected.output);
        assert_close(&global_average_pool(view), &copy.mean_dims(&[1, 2]).reshape([2, 8]));
    }
}

#[test]
fn max_pool_agrees_with_burns() {
    let pool = |x: Tensor<4>| {
        let options = MaxPoolOptions::new([3, 3]).with_stride([2, 2]).with_padding([1, 1]);
        channels_last(module::max_pool2d(x.permute([0, 3, 1, 2]), options))
    };
    let run = |pool: &dyn Fn(Tensor<4>) -> Tensor<4>, shape, device: &Device| {
        let x = tensor(shape, 1, &device.clone().autodiff()).require_grad();
        let y = pool(x.clone());
        let direction = tensor(y.dims(), 2, &device.clone().autodiff());
        let gradients = (y.clone() * direction).sum().backward();
        (y, x.grad(&gradients).expect("a leaf has a gradient"))
    };
    for device in devices() {
        for shape in [[2, 7, 6, 5], [3, 8, 9, 16], [1, 1, 2, 3], [2, 1, 1, 4], [1, 21, 33, 7]] {
            let (expected, expected_gradient) = run(&pool, shape, &Device::flex());
            let (actual, gradient) = run(&max_pool, shape, &device);
            assert_eq!(values(&actual), values(&expected));
            assert_close(&gradient, &expected_gradient);
        }
    }
}

#[test]
fn of_places_that_are_equally_large_the_first_has_the_gradient() {
    for device in devices() {
        // As behind a ReLU: most are zero.
        let x = relu(tensor([2, 9, 8, 5], 1, &device.clone().autodiff()) - 0.35).require_grad();
        let y = max_pool(x.clone());
        let direction = tensor(y.dims(), 2, &device.clone().autodiff());
        let gradients = (y * direction.clone()).sum().backward();
        let found = values(&x.grad(&gradients).expect("a leaf has a gradient"));
        let (x, direction) = (values(&x), values(&direction));
        let mut expected = vec![0.0; x.len()];
        for (index, value) in direction.iter().enumerate() {
            let [image, row, column, channel] =
                [index / (5 * 4 * 5), index / (4 * 5) % 5, index / 5 % 4, index % 5];
            let along = |at: usize, places: usize| (2 * at).max(1) - 1..(2 * at + 2).min(places);
            let places = along(row, 9).flat_map(|y| along(column, 8).map(move |x| (y, x)));
            let place = places.map(|(y, x)| ((image * 9 + y) * 8 + x) * 5 + channel);
            let first = place.reduce(|first, next| if x[next] > x[first] { next } else { first });
            expected[first.expect("a window has a place")] += value;
        }
        for (found, expected) in found.iter().zip(&expected) {
            assert!((found - expected).abs() < 1e-6, "{found} instead of {expected}");
        }
    }
}

#[test]
fn frozen_inputs_get_no_gradient_and_the_others_do() {
    for device in devices() {
        let device = &device;
        let device = &device.clone().autodiff();
        let options = Convolution { stride: [1, 1], padding: [1, 1] };
        let x = tensor([2, 5, 5, 3], 1, device);
        let weight = tensor([4, 3, 3, 3], 2, device).require_grad();
        let gamma = tensor([4], 3, device);
        let beta = tensor([4], 4, device).require_grad();
        let y = batch_norm(
            conv2d(x.clone(), weight.clone(), options),
            gamma.clone(),
            beta.clone(),
            EPSILON,
            None,
            Activation::Relu,
        );
        let gradients = y.output.square().sum().backward();
        assert!(x.grad(&gradients).is_none());
        assert!(gamma.grad(&gradients).is_none());
        assert!(weight.grad(&gradients).is_some());
        assert!(beta.grad(&gradients).is_some());
    }
}

/// The length of the difference, relative to that of what is expected.
fn error<const D: usize>(actual: &Tensor<D>, expected: &Tensor<D>) -> f64 {
    assert_eq!(actual.dims(), expected.dims());
    let length = |values: &mut dyn Iterator<Item = f64>| {
        values.map(|value| value * value).sum::<f64>().sqrt()
    };
    let expected = values(expected).into_iter().map(f64::from);
    let differences = values(actual).into_iter().map(f64::from).zip(expected.clone());
    length(&mut differences.map(|(a, e)| a - e)) / length(&mut expected.into_iter())
}

/// Means of a convolution that is normalised, and the gradients of the image, the weights, gamma and beta where the means' is `direction` times `size`.
fn learn(
    (batch, [inputs, outputs], [height, width], kernel, stride, padding): Shape,
    activation: Activation,
    size: f32,
    in_half: bool,
    device: &Device,
) -> (Tensor<2>, [Tensor<4>; 2], [Tensor<1>; 2]) {
    let device = &device.clone().autodiff();
    // Numbers that 16 bits hold.
    let x = numbers(batch * height * width * inputs, 1);
    let x = x.into_iter().map(|value| (value * 1024.0).round() / 1024.0).collect::<Vec<_>>();
    let x = TensorData::new(x, [batch, height, width, inputs]);
    let x = Tensor::<4>::from_data(x, device).require_grad();
    let weight = tensor([outputs, inputs, kernel, kernel], 2, device).require_grad();
    let gamma = (tensor([outputs], 3, device) + 1.0).require_grad();
    let beta = tensor([outputs], 4, device).require_grad();
    let kept = if in_half { half_precision(x.clone()) } else { x.clone() };
    let options = Convolution { stride: [stride; 2], padding: [padding; 2] };
    let y = conv2d(kept, weight.clone(), options);
    let (gammas, betas) = (gamma.clone(), beta.clone());
    let y = batch_norm(y.clone(), gammas, betas, EPSILON, Some(y), activation);
    let means = global_average_pool(y.output);
    let direction = tensor(means.dims(), 5, device).mul_scalar(size);
    let gradients = (means.clone() * direction).sum().backward();
    let x_gradient = x.grad(&gradients).expect("a leaf has a gradient");
    let x_gradient = match in_half {
        true => x_gradient.div_scalar(HALF_GRADIENT_SCALE),
        false => x_gradient,
    };
    let weight = weight.grad(&gradients).expect("a leaf has a gradient");
    let rest = [gamma, beta].map(|tensor| tensor.grad(&gradients).expect("a leaf has a gradient"));
    (means, [x_gradient, weight], rest)
}

#[test]
fn half_precision_agrees_with_full() {
    for device in devices_with_half() {
        // The mean of a single image is its shift, whatever was normalised.
        for shape in SHAPES.into_iter().filter(|shape| shape.0 > 1) {
            // What rounding makes a ReLU let through or hold back is an error of its own. The second size would be lost in 16 bits.
            for (activation, size, tolerance) in [
                (Activation::None, 1.0, 3e-3),
                (Activation::None, 1e-5, 3e-3),
                (Activation::Relu, 1.0, 3e-2),
            ] {
                let full = learn(shape, activation, size, false, &Device::flex());
                let half = learn(shape, activation, size, true, &device);
                assert!(error(&half.0, &full.0) < 1e-3);
                let errors = half.1.iter().zip(&full.1).map(|(half, full)| error(half, full));
                let others = half.2.iter().zip(&full.2).map(|(half, full)| error(half, full));
                for error in errors.chain(others) {
                    assert!(error < tolerance, "{shape:?}, {activation:?}, {size}: {error}");
                }
            }
        }
    }
}

#[test]
fn max_pool_in_half_precision_finds_the_same_places() {
    // Few numbers, so that many are equal, and that 16 bits hold, and so the sums of four gradients.
    let coarse = |x: Tensor<4>| (x * 64.0).round() / 64.0;
    let run = |device: &Device, in_half: bool| {
        let device = &device.clone().autodiff();
        let x = coarse(tensor([2, 9, 8, 5], 1, device)).detach().require_grad();
        let y = match in_half {
            true => max_pool(half_precision(x.clone())).cast(DType::F32),
            false => max_pool(x.clone()),
        };
        let direction = coarse(tensor(y.dims(), 2, device));
        let gradients = (y.clone() * direction).sum().backward();
        (values(&y), values(&x.grad(&gradients).expect("a leaf has a gradient")))
    };
    for device in devices_with_half() {
        assert!(run(&device, true) == run(&Device::flex(), false));
    }
}

#[test]
fn gradients_too_large_for_half_precision_are_cut_off() {
    for device in devices_with_half() {
        let (_, images_and_weights, rest) = learn(SHAPES[0], Activation::Relu, 1e9, true, &device);
        let rest = rest.iter().flat_map(values);
        let all = images_and_weights.iter().flat_map(values).chain(rest);
        assert!(all.into_iter().all(f32::is_finite));
    }
}

#[test]
fn more_rows_than_are_dealt_along_one_axis_are_all_computed() {
    let options = Convolution { stride: [1, 1], padding: [0, 0] };
    for device in devices() {
        let x = tensor([1, 730, 730, 1], 1, &device);
        let convolved = conv2d(x.clone(), Tensor::ones([1, 1, 1, 1], &device), options);
        assert_eq!(values(&convolved), values(&x));
    }
}

#[test]
#[should_panic(expected = "a bias for every output channel")]
fn a_bias_of_another_length_is_refused() {
    let device = Device::flex();
    let options = Convolution { stride: [1, 1], padding: [1, 1] };
    FoldedConvolution::new(tensor([2, 4, 3, 3], 1, &device), tensor([3], 2, &device), options);
}

#[test]
#[should_panic(expected = "the shape of the result")]
fn a_residual_of_another_shape_is_refused() {
    let device = Device::flex();
    let options = Convolution { stride: [1, 1], padding: [0, 0] };
    let layer =
        FoldedConvolution::new(tensor([2, 4, 1, 1], 1, &device), tensor([2], 2, &device), options);
    let residual = tensor([1, 2, 4, 2], 4, &device);
    layer.forward(tensor([1, 4, 2, 4], 3, &device), Some(residual), Activation::None);
}

#[test]
#[should_panic(expected = "as many channels")]
fn channels_that_differ_are_refused() {
    let device = Device::flex();
    let options = Convolution { stride: [1, 1], padding: [1, 1] };
    conv2d(tensor([1, 4, 4, 3], 1, &device), tensor([2, 4, 3, 3], 2, &device), options);
}
