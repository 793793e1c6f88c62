//! Batch normalisation with the residual sum and the ReLU in the same pass, forward and backward.
//!
//! Values are rows of channels, `[positions, channels]`, where a position is a pixel of an image of the batch. Forward, one pass
//! reads the batch for its mean and variance and one writes
//!
//! `y = relu(gamma * (x - mean) / sqrt(variance + epsilon) + beta + residual)`;
//!
//! backward (Ioffe and Szegedy 2015, section 3), one pass sums the gradients of `gamma` and `beta` and one writes that of `x`. The
//! variance is the biased one, as published. These passes are bound by memory, so they are plain loops that the
//! compiler vectorises, compiled for several instruction sets ([`vectorised`]).
//!
//! Sums are taken over a partition of the positions that depends on the shapes only: `f32` within a block of a few rows, `f64`
//! across blocks, in the order of the rows. Any number of threads gives the same bits.

use super::simd::vectorised;
use rayon::prelude::*;

/// Rows whose sum is taken in `f32`.
const ROWS_PER_BLOCK: usize = 32;

/// Rows in a part of the partition at least.
const ROWS_PER_PART: usize = 512;

/// Values that one task of an elementwise pass takes, about.
const VALUES_PER_TASK: usize = 1 << 15;

/// Mean and biased variance of each channel.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Statistics {
    /// Mean of each channel.
    pub(super) mean: Vec<f32>,
    /// Variance of each channel, divided by the number of positions.
    pub(super) variance: Vec<f32>,
}

/// The gradients of [`normalise`] that have one value a channel.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ChannelGradients {
    /// Of the factor.
    pub(super) gamma: Vec<f32>,
    /// Of the summand.
    pub(super) beta: Vec<f32>,
}

/// The mean and variance of each channel of `x`.
///
/// # Panics
///
/// If `x` is empty or does not consist of whole rows.
pub(super) fn statistics(x: &[f32], channels: usize) -> Statistics {
    let positions = rows(x, channels);
    assert!(positions > 0, "a mean needs values");
    // Sums of differences from a value of the channel itself lose nothing where the mean is large beside the deviation.
    let pivot = &x[..channels];
    let [first, second] = sum_by_channel(positions, channels, |rows, [first, second]| {
        for row in x[rows.start * channels..rows.end * channels].chunks_exact(channels) {
            for (((first, second), &value), &pivot) in
                first.iter_mut().zip(second.iter_mut()).zip(row).zip(pivot)
            {
                let difference = value - pivot;
                *first += difference;
                *second += difference * difference;
            }
        }
    });
    let count = positions as f64;
    let mean = first
        .iter()
        .zip(pivot)
        .map(|(sum, &pivot)| (f64::from(pivot) + sum / count) as f32)
        .collect();
    let variance = first
        .iter()
        .zip(&second)
        .map(|(first, second)| ((second - first * first / count) / count).max(0.0) as f32)
        .collect();
    Statistics { mean, variance }
}

/// `y = relu(gamma * (x - mean) / sqrt(variance + epsilon) + beta + residual)`, without the residual or the ReLU where not asked.
///
/// # Panics
///
/// If the slices do not fit together.
#[allow(clippy::too_many_arguments, reason = "each is an operand of the formula")]
pub(super) fn normalise(
    x: &[f32],
    statistics: &Statistics,
    gamma: &[f32],
    beta: &[f32],
    epsilon: f32,
    residual: Option<&[f32]>,
    relu: bool,
    y: &mut [f32],
) {
    let channels = gamma.len();
    rows(x, channels);
    assert_eq!(x.len(), y.len(), "input and output");
    assert_eq!(beta.len(), channels, "beta");
    let scale = scales(statistics, gamma, epsilon);
    let shift: Vec<f32> = beta
        .iter()
        .zip(&scale)
        .zip(&statistics.mean)
        .map(|((beta, scale), mean)| beta - mean * scale)
        .collect();
    let length = task_length(channels);
    if let Some(residual) = residual {
        assert_eq!(residual.len(), y.len(), "residual");
        y.par_chunks_mut(length)
            .zip(x.par_chunks(length))
            .zip(residual.par_chunks(length))
            .for_each(|((y, x), residual)| {
                vectorised(
                    #[inline(always)]
                    || {
                        let rows = y
                            .chunks_exact_mut(channels)
                            .zip(x.chunks_exact(channels))
                            .zip(residual.chunks_exact(channels));
                        for ((y, x), residual) in rows {
                            for ((((y, &x), &residual), &scale), &shift) in
                                y.iter_mut().zip(x).zip(residual).zip(&scale).zip(&shift)
                            {
                                let value = x * scale + shift + residual;
                                *y = if relu { rectified(value) } else { value };
                            }
                        }
                    },
                );
            });
    } else {
        y.par_chunks_mut(length).zip(x.par_chunks(length)).for_each(|(y, x)| {
            vectorised(
                #[inline(always)]
                || {
                    for (y, x) in y.chunks_exact_mut(channels).zip(x.chunks_exact(channels)) {
                        for (((y, &x), &scale), &shift) in
                            y.iter_mut().zip(x).zip(&scale).zip(&shift)
                        {
                            let value = x * scale + shift;
                            *y = if relu { rectified(value) } else { value };
                        }
                    }
                },
            );
        });
    }
}

/// The backward pass of [`normalise`] on the batch whose statistics it used.
///
/// `gradient` holds the gradient of the output; on return it holds that of the sum before the ReLU, which is also the
/// gradient of the residual. `output` is the forward pass's result if it ended with a ReLU. Writes the gradient of `x` to
/// `x_gradient`, or over `gradient` if there is none, and returns those of `gamma` and `beta`.
///
/// # Panics
///
/// If the slices do not fit together.
pub(super) fn normalise_backward(
    x: &[f32],
    statistics: &Statistics,
    gamma: &[f32],
    epsilon: f32,
    output: Option<&[f32]>,
    gradient: &mut [f32],
    x_gradient: Option<&mut [f32]>,
) -> ChannelGradients {
    let channels = gamma.len();
    let positions = rows(x, channels);
    assert!(positions > 0, "a batch has values");
    assert_eq!(gradient.len(), x.len(), "gradient of the output");
    assert_eq!(statistics.mean.len(), channels, "statistics");
    if let Some(output) = output {
        assert_eq!(output.len(), x.len(), "output");
    }

    let mean = &statistics.mean[..];
    let part = rows_per_part(positions) * channels;
    let parts: Vec<[Vec<f64>; 2]> = gradient
        .par_chunks_mut(part)
        .enumerate()
        .map(|(index, gradient)| {
            let values = index * part..index * part + gradient.len();
            let x = &x[values.clone()];
            let output = output.map(|output| &output[values]);
            let mut totals = [vec![0.0f64; channels], vec![0.0f64; channels]];
            let (mut sums, mut products) = (vec![0.0f32; channels], vec![0.0f32; channels]);
            vectorised(
                #[inline(always)]
                || {
                    let block = ROWS_PER_BLOCK * channels;
                    for (index, (gradient, x)) in
                        gradient.chunks_mut(block).zip(x.chunks(block)).enumerate()
                    {
                        if let Some(output) = output {
                            for (gradient, &output) in
                                gradient.iter_mut().zip(&output[index * block..])
                            {
                                *gradient = if output > 0.0 { *gradient } else { 0.0 };
                            }
                        }
                        sums.fill(0.0);
                        products.fill(0.0);
                        for (gradient, x) in
                            gradient.chunks_exact(channels).zip(x.chunks_exact(channels))
                        {
                            let sums = sums.iter_mut().zip(products.iter_mut());
                            for ((((sum, product), &gradient), &x), &mean) in
                                sums.zip(gradient).zip(x).zip(mean)
                            {
                                *sum += gradient;
                                *product += gradient * (x - mean);
                            }
                        }
                        add_up(&mut totals, [&sums, &products]);
                    }
                },
            );
            totals
        })
        .collect();
    let [beta, products] = total(parts, channels);

    let count = positions as f64;
    // The gradient of x is `scale * (g - mean(g) - normalised x * mean(g * normalised x))`, here as `a * g + b * x + c`.
    let a = scales(statistics, gamma, epsilon);
    let deviations: Vec<f64> =
        statistics.variance.iter().map(|&v| (f64::from(v) + f64::from(epsilon)).sqrt()).collect();
    let b: Vec<f32> = (0..channels)
        .map(|c| (-f64::from(a[c]) * products[c] / (deviations[c] * deviations[c] * count)) as f32)
        .collect();
    let c: Vec<f32> = (0..channels)
        .map(|c| (-f64::from(a[c]) * beta[c] / count - f64::from(b[c]) * f64::from(mean[c])) as f32)
        .collect();
    let length = task_length(channels);
    match x_gradient {
        Some(x_gradient) => {
            assert_eq!(x_gradient.len(), x.len(), "gradient of the input");
            let tasks = x_gradient.par_chunks_mut(length).zip(x.par_chunks(length));
            tasks.zip(gradient.par_chunks(length)).for_each(|((target, x), gradient)| {
                vectorised(
                    #[inline(always)]
                    || {
                        let rows = target.chunks_exact_mut(channels).zip(x.chunks_exact(channels));
                        for ((target, x), gradient) in rows.zip(gradient.chunks_exact(channels)) {
                            let operands = target.iter_mut().zip(x).zip(gradient);
                            for (((((target, &x), &gradient), &a), &b), &c) in
                                operands.zip(&a).zip(&b).zip(&c)
                            {
                                *target = a * gradient + b * x + c;
                            }
                        }
                    },
                );
            });
        }
        None => {
            gradient.par_chunks_mut(length).zip(x.par_chunks(length)).for_each(|(gradient, x)| {
                vectorised(
                    #[inline(always)]
                    || {
                        for (gradient, x) in
                            gradient.chunks_exact_mut(channels).zip(x.chunks_exact(channels))
                        {
                            let operands = gradient.iter_mut().zip(x);
                            for ((((gradient, &x), &a), &b), &c) in operands.zip(&a).zip(&b).zip(&c)
                            {
                                *gradient = a * *gradient + b * x + c;
                            }
                        }
                    },
                );
            })
        }
    }

    ChannelGradients {
        gamma: products
            .iter()
            .zip(&deviations)
            .map(|(product, deviation)| (product / deviation) as f32)
            .collect(),
        beta: beta.iter().map(|&sum| sum as f32).collect(),
    }
}

/// `gamma / sqrt(variance + epsilon)`.
pub(super) fn scales(statistics: &Statistics, gamma: &[f32], epsilon: f32) -> Vec<f32> {
    assert_eq!(statistics.variance.len(), gamma.len(), "statistics");
    let deviation = |variance: f32| (f64::from(variance) + f64::from(epsilon)).sqrt();
    gamma
        .iter()
        .zip(&statistics.variance)
        .map(|(&gamma, &variance)| (f64::from(gamma) / deviation(variance)) as f32)
        .collect()
}

/// Two sums a channel over all rows; `add` adds the sums of a range of rows to what it is given.
fn sum_by_channel(
    positions: usize,
    channels: usize,
    add: impl Fn(std::ops::Range<usize>, [&mut [f32]; 2]) + Sync,
) -> [Vec<f64>; 2] {
    let part = rows_per_part(positions);
    let parts = (0..positions.div_ceil(part))
        .into_par_iter()
        .map(|index| {
            let end = ((index + 1) * part).min(positions);
            let mut totals = [vec![0.0f64; channels], vec![0.0f64; channels]];
            let (mut first, mut second) = (vec![0.0f32; channels], vec![0.0f32; channels]);
            vectorised(
                #[inline(always)]
                || {
                    for start in (index * part..end).step_by(ROWS_PER_BLOCK) {
                        first.fill(0.0);
                        second.fill(0.0);
                        add(start..(start + ROWS_PER_BLOCK).min(end), [&mut first, &mut second]);
                        add_up(&mut totals, [&first, &second]);
                    }
                },
            );
            totals
        })
        .collect();
    total(parts, channels)
}

/// Adds a block's sums to the totals of its part.
#[inline(always)]
fn add_up(totals: &mut [Vec<f64>; 2], sums: [&[f32]; 2]) {
    for (totals, sums) in totals.iter_mut().zip(sums) {
        for (total, &sum) in totals.iter_mut().zip(sums) {
            *total += f64::from(sum);
        }
    }
}

/// Adds the parts in their order.
fn total(parts: Vec<[Vec<f64>; 2]>, channels: usize) -> [Vec<f64>; 2] {
    let mut totals = [vec![0.0; channels], vec![0.0; channels]];
    for part in parts {
        for (totals, sums) in totals.iter_mut().zip(part) {
            for (total, sum) in totals.iter_mut().zip(sums) {
                *total += sum;
            }
        }
    }
    totals
}

/// Negative values become zero, NaN stays NaN.
#[inline(always)]
fn rectified(value: f32) -> f32 {
    if value < 0.0 { 0.0 } else { value }
}

/// Rows in `values`, which must be whole.
fn rows(values: &[f32], channels: usize) -> usize {
    assert!(
        channels > 0 && values.len().is_multiple_of(channels),
        "values come in rows of {channels} channels"
    );
    values.len() / channels
}

/// Rows in each part of the partition that sums are taken over: a function of the shape alone.
fn rows_per_part(positions: usize) -> usize {
    positions.div_ceil(64).max(ROWS_PER_PART).next_multiple_of(ROWS_PER_BLOCK)
}

/// Values in a task of an elementwise pass: whole rows.
fn task_length(channels: usize) -> usize {
    VALUES_PER_TASK.div_ceil(channels) * channels
}

#[cfg(test)]
mod tests {
    use super::*;

    const EPSILON: f32 = 1e-5;

    fn numbers(count: usize, seed: u64, offset: f32) -> Vec<f32> {
        let mut state = seed + 1;
        (0..count)
            .map(|_| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5 + offset
            })
            .collect()
    }

    #[track_caller]
    fn assert_close(actual: &[f32], expected: &[f64]) {
        let largest =
            expected.iter().fold(f64::MIN_POSITIVE, |largest, value| largest.max(value.abs()));
        for (actual, expected) in actual.iter().zip(expected) {
            assert!(
                (f64::from(*actual) - expected).abs() / largest < 2e-5,
                "{actual} instead of {expected}"
            );
        }
    }

    #[test]
    fn statistics_keep_their_digits_when_the_mean_is_large() {
        for (positions, channels, offset) in
            [(1, 3, 0.0), (7, 1, 2.0), (700, 33, -1000.0), (5000, 32, 50.0)]
        {
            let x = numbers(positions * channels, 1, offset);
            let statistics = statistics(&x, channels);
            for channel in 0..channels {
                let values =
                    || x.iter().skip(channel).step_by(channels).map(|&value| f64::from(value));
                let mean = values().sum::<f64>() / positions as f64;
                let variance =
                    values().map(|value| (value - mean).powi(2)).sum::<f64>() / positions as f64;
                assert!(
                    (f64::from(statistics.mean[channel]) - mean).abs()
                        <= 1e-6 * mean.abs().max(1.0)
                );
                assert!(
                    (f64::from(statistics.variance[channel]) - variance).abs()
                        <= 1e-5 * variance.max(1e-6)
                );
            }
        }
    }

    #[test]
    fn values_worked_by_hand() {
        // Two positions, one channel: mean 2, variance 1; normalised values are -1 and 1.
        let x = [1.0, 3.0];
        let statistics = statistics(&x, 1);
        assert_eq!(statistics, Statistics { mean: vec![2.0], variance: vec![1.0] });
        let mut y = [0.0; 2];
        normalise(&x, &statistics, &[3.0], &[0.5], 0.0, Some(&[1.0, -1.0]), true, &mut y);
        assert_eq!(y, [0.0, 2.5]);
        // Only the second passes the ReLU: gradients of beta 2, of gamma 2 * 1, and of x none, since a normalisation of two
        // values does not depend on them.
        let mut gradient = [5.0, 2.0];
        let mut x_gradient = [9.0; 2];
        let channels = normalise_backward(
            &x,
            &statistics,
            &[3.0],
            0.0,
            Some(&y),
            &mut gradient,
            Some(&mut x_gradient),
        );
        assert_eq!(channels, ChannelGradients { gamma: vec![2.0], beta: vec![2.0] });
        assert_eq!(gradient, [0.0, 2.0]);
        assert_eq!(x_gradient, [0.0, 0.0]);
    }

    #[test]
    fn forward_and_backward_agree_with_the_formulas() {
        for (positions, channels, relu) in [(3, 5, true), (1100, 33, true), (2000, 16, false)] {
            let x = numbers(positions * channels, 1, 0.3);
            let gamma = numbers(channels, 2, 1.0);
            let beta = numbers(channels, 3, 0.0);
            let residual = numbers(x.len(), 4, 0.0);
            let gradient = numbers(x.len(), 5, 0.1);
            let statistics = statistics(&x, channels);
            let deviation =
                |c: usize| (f64::from(statistics.variance[c]) + f64::from(EPSILON)).sqrt();
            let normal = |i: usize| {
                (f64::from(x[i]) - f64::from(statistics.mean[i % channels]))
                    / deviation(i % channels)
            };
            let sum = |i: usize| {
                f64::from(gamma[i % channels]) * normal(i)
                    + f64::from(beta[i % channels])
                    + f64::from(residual[i])
            };
            let expected: Vec<f64> =
                (0..x.len()).map(|i| if relu { sum(i).max(0.0) } else { sum(i) }).collect();
            let mut y = vec![f32::NAN; x.len()];
            normalise(&x, &statistics, &gamma, &beta, EPSILON, Some(&residual), relu, &mut y);
            assert_close(&y, &expected);

            let through: Vec<f64> = (0..x.len())
                .map(|i| if relu && y[i] <= 0.0 { 0.0 } else { f64::from(gradient[i]) })
                .collect();
            let over = |c: usize, f: &dyn Fn(usize) -> f64| {
                (c..x.len()).step_by(channels).map(f).sum::<f64>()
            };
            let beta_gradient: Vec<f64> = (0..channels).map(|c| over(c, &|i| through[i])).collect();
            let gamma_gradient: Vec<f64> =
                (0..channels).map(|c| over(c, &|i| through[i] * normal(i))).collect();
            let x_expected: Vec<f64> = (0..x.len())
                .map(|i| {
                    let c = i % channels;
                    let mean_part =
                        (beta_gradient[c] + normal(i) * gamma_gradient[c]) / positions as f64;
                    f64::from(gamma[c]) / deviation(c) * (through[i] - mean_part)
                })
                .collect();
            let mut gradient = gradient.clone();
            let mut x_gradient = vec![f32::NAN; x.len()];
            let output = relu.then_some(&y[..]);
            let channel_gradients = normalise_backward(
                &x,
                &statistics,
                &gamma,
                EPSILON,
                output,
                &mut gradient,
                Some(&mut x_gradient),
            );
            assert_close(&gradient, &through);
            assert_close(&channel_gradients.beta, &beta_gradient);
            assert_close(&channel_gradients.gamma, &gamma_gradient);
            assert_close(&x_gradient, &x_expected);
            let again =
                normalise_backward(&x, &statistics, &gamma, EPSILON, output, &mut gradient, None);
            assert_eq!(again, channel_gradients);
            assert_eq!(gradient, x_gradient);
        }
    }

    #[test]
    fn the_number_of_threads_does_not_change_a_bit() {
        let channels = 24;
        let x = numbers(channels * 9000, 1, 0.0);
        let gamma = numbers(channels, 2, 1.0);
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let statistics = statistics(&x, channels);
                let mut y = vec![0.0; x.len()];
                normalise(&x, &statistics, &gamma, &gamma, EPSILON, None, true, &mut y);
                let mut gradient = numbers(x.len(), 3, 0.0);
                let mut x_gradient = vec![0.0; x.len()];
                let channel_gradients = normalise_backward(
                    &x,
                    &statistics,
                    &gamma,
                    EPSILON,
                    Some(&y),
                    &mut gradient,
                    Some(&mut x_gradient),
                );
                (statistics, y, x_gradient, channel_gradients)
            })
        };
        let one = run(1);
        assert!(one == run(2) && one == run(3));
    }

    #[test]
    fn a_nan_is_not_hidden_by_the_relu() {
        let statistics = Statistics { mean: vec![0.0], variance: vec![1.0] };
        let mut y = [0.0];
        normalise(&[f32::NAN], &statistics, &[1.0], &[0.0], 0.0, None, true, &mut y);
        assert!(y[0].is_nan());
    }
}
