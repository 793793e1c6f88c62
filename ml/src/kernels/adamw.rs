//! A step of AdamW in one pass: both running means and the parameter are read and written once.
//!
//! As a chain of elementwise operations a step passes over every parameter a dozen times, on one core. Here it takes 0.2 ms instead of 1.1 ms for the
//! 300,000 parameters of the compact encoder, of a training step of 50 ms.

use super::simd::vectorised;
use rayon::prelude::*;

use super::AdamWStep;

/// Values that one task takes, about.
const VALUES_PER_TASK: usize = 1 << 15;

/// Moves the running means `first` and `second` towards `gradient` and its square, and writes the parameter that follows to `updated`.
///
/// # Panics
///
/// If the slices do not have one length.
pub(super) fn step(
    step: AdamWStep,
    parameter: &[f32],
    gradient: &[f32],
    first: &mut [f32],
    second: &mut [f32],
    updated: &mut [f32],
) {
    for length in [gradient.len(), first.len(), second.len(), updated.len()] {
        assert_eq!(length, parameter.len(), "every value has a gradient and two means");
    }
    let AdamWStep { beta_1, beta_2, rate, correction, epsilon, kept } = step;
    let (rest_1, rest_2) = (1.0 - beta_1, 1.0 - beta_2);
    let [beta_1, beta_2, rest_1, rest_2, rate, correction, epsilon, kept] =
        [beta_1, beta_2, rest_1, rest_2, rate, correction, epsilon, kept].map(|value| value as f32);
    let means = first.par_chunks_mut(VALUES_PER_TASK).zip(second.par_chunks_mut(VALUES_PER_TASK));
    let values = parameter.par_chunks(VALUES_PER_TASK).zip(gradient.par_chunks(VALUES_PER_TASK));
    updated.par_chunks_mut(VALUES_PER_TASK).zip(values).zip(means).for_each(
        |((updated, (parameter, gradient)), (first, second))| {
            vectorised(
                #[inline(always)]
                || {
                    let values = updated.iter_mut().zip(parameter).zip(gradient);
                    for (((updated, &parameter), &gradient), (first, second)) in
                        values.zip(first.iter_mut().zip(second.iter_mut()))
                    {
                        *first = *first * beta_1 + gradient * rest_1;
                        *second = *second * beta_2 + gradient * gradient * rest_2;
                        let root = (*second / correction).sqrt() + epsilon;
                        *updated = parameter * kept - *first / root * rate;
                    }
                },
            );
        },
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_follows_the_formulas() {
        let count = VALUES_PER_TASK + 77;
        let numbers = |factor: f32| {
            (0..count).map(|i| ((i as f32 * factor).sin() + 1e-3) * 0.1).collect::<Vec<f32>>()
        };
        let (parameter, gradient) = (numbers(0.37), numbers(0.91));
        let (first, second) = (numbers(0.11), numbers(0.7).iter().map(|x| x * x).collect());
        let asked = AdamWStep {
            beta_1: 0.9,
            beta_2: 0.999,
            rate: 0.01,
            correction: 0.3,
            epsilon: 1e-8,
            kept: 0.99,
        };
        let (mut new_first, mut new_second): (Vec<f32>, Vec<f32>) = (first.clone(), second);
        let old_second = new_second.clone();
        let mut updated = vec![f32::NAN; count];
        step(asked, &parameter, &gradient, &mut new_first, &mut new_second, &mut updated);
        for i in 0..count {
            let slope = f64::from(gradient[i]);
            let mean = 0.9 * f64::from(first[i]) + 0.1 * slope;
            let square = 0.999 * f64::from(old_second[i]) + 0.001 * slope * slope;
            let expected =
                0.99 * f64::from(parameter[i]) - 0.01 * mean / ((square / 0.3).sqrt() + 1e-8);
            assert!((f64::from(new_first[i]) - mean).abs() < 1e-7, "first mean of value {i}");
            assert!((f64::from(new_second[i]) - square).abs() < 1e-8, "second mean of value {i}");
            assert!((f64::from(updated[i]) - expected).abs() < 1e-5, "value {i}");
        }
    }
}
