//! The linear probe: how well a linear classifier tells images apart by their vectors alone. Together with the nearest neighbours of
//! [`crate::quality`] it is how encoders that learn without labels are compared (Chen et al. 2020, arXiv 2002.05709, section 4).
//!
//! The classifier is multinomial logistic regression with a small L2 penalty on standardised vectors. The whole training set makes one
//! step of Adam, the rate falls along a half cosine, and the start is zero: nothing is drawn by chance.

use std::collections::BTreeMap;

use burn::tensor::activation::softmax;
use burn::tensor::{Device, Tensor, TensorData};

use crate::weights::read;

const STEPS: usize = 300;
const RATE: f32 = 0.1;
/// Times half the squared weights, added to the mean loss of a vector.
const PENALTY: f32 = 1e-5;
const BETA_FIRST: f32 = 0.9;
const BETA_SECOND: f32 = 0.999;
const EPSILON: f32 = 1e-8;

/// The part of the test vectors, from 0 to 1, that a linear classifier gives their own label after it has learnt the training vectors' labels.
///
/// Vectors are row-major, `[count, dim]`. A label that no training vector has is never found. Without test or training vectors the accuracy is 0.
///
/// # Panics
///
/// If the labels are not as many as the vectors.
pub fn linear_probe_accuracy(
    train: &[f32],
    train_labels: &[u32],
    test: &[f32],
    test_labels: &[u32],
    dim: usize,
) -> f64 {
    assert_eq!(train.len(), train_labels.len() * dim, "a label for each training vector");
    assert_eq!(test.len(), test_labels.len() * dim, "a label for each test vector");
    if train.is_empty() || test.is_empty() {
        return 0.0;
    }
    let mut classes: BTreeMap<u32, usize> = train_labels.iter().map(|&label| (label, 0)).collect();
    classes.values_mut().enumerate().for_each(|(index, class)| *class = index);
    let device = Device::flex();
    let scale = Standardisation::of(train, dim);
    let features = scale.matrix(train, &device);
    let count = train_labels.len();
    let mut wanted = vec![0.0_f32; count * classes.len()];
    for (row, label) in train_labels.iter().enumerate() {
        wanted[row * classes.len() + classes[label]] = 1.0;
    }
    let wanted = Tensor::<2>::from_data(TensorData::new(wanted, [count, classes.len()]), &device);
    let weights = fit(&features, &wanted, &device);
    let scores =
        read(scale.matrix(test, &device).matmul(weights)).expect("the CPU's memory can be read");
    let found = scores.chunks_exact(classes.len()).zip(test_labels).filter(|(scores, label)| {
        let best = (0..scores.len()).max_by(|&a, &b| scores[a].total_cmp(&scores[b]));
        best.is_some() && best == classes.get(label).copied()
    });
    found.count() as f64 / test_labels.len() as f64
}

/// The weights `[dim + 1, classes]` that make `features [count, dim + 1]` answer `wanted [count, classes]`.
fn fit(features: &Tensor<2>, wanted: &Tensor<2>, device: &Device) -> Tensor<2> {
    let ([count, inputs], [_, classes]) = (features.dims(), wanted.dims());
    let transposed = features.clone().transpose();
    let mut weights = Tensor::<2>::zeros([inputs, classes], device);
    let (mut first, mut second) = (weights.clone(), weights.clone());
    for step in 1..=STEPS {
        let errors = softmax(features.clone().matmul(weights.clone()), 1) - wanted.clone();
        let gradient = transposed.clone().matmul(errors).div_scalar(count as f32)
            + weights.clone().mul_scalar(PENALTY);
        first = first.mul_scalar(BETA_FIRST) + gradient.clone().mul_scalar(1.0 - BETA_FIRST);
        second = second.mul_scalar(BETA_SECOND) + gradient.square().mul_scalar(1.0 - BETA_SECOND);
        let power = step as i32;
        let mean = first.clone().div_scalar(1.0 - BETA_FIRST.powi(power));
        let spread = second.clone().div_scalar(1.0 - BETA_SECOND.powi(power)).sqrt();
        let along = (step - 1) as f32 / STEPS as f32;
        let rate = RATE * 0.5 * (1.0 + (std::f32::consts::PI * along).cos());
        weights = weights - (mean / spread.add_scalar(EPSILON)).mul_scalar(rate);
    }
    weights
}

/// What makes every dimension of the training vectors have mean 0 and deviation 1.
struct Standardisation {
    dim: usize,
    means: Vec<f32>,
    /// One over the deviation; 0 for a dimension that never changes.
    scales: Vec<f32>,
}

impl Standardisation {
    fn of(vectors: &[f32], dim: usize) -> Self {
        let count = (vectors.len() / dim) as f64;
        let (mut sums, mut squares) = (vec![0.0_f64; dim], vec![0.0_f64; dim]);
        for vector in vectors.chunks_exact(dim) {
            for (place, &value) in vector.iter().enumerate() {
                sums[place] += f64::from(value);
                squares[place] += f64::from(value) * f64::from(value);
            }
        }
        let variance = |place: usize| squares[place] / count - (sums[place] / count).powi(2);
        let scale = |place: usize| match variance(place) {
            variance if variance > 1e-12 => (1.0 / variance.sqrt()) as f32,
            _ => 0.0,
        };
        Self {
            dim,
            means: sums.iter().map(|sum| (sum / count) as f32).collect(),
            scales: (0..dim).map(scale).collect(),
        }
    }

    /// `[count, dim + 1]`: the vectors, standardised, and a column of ones.
    fn matrix(&self, vectors: &[f32], device: &Device) -> Tensor<2> {
        let count = vectors.len() / self.dim;
        let mut values = Vec::with_capacity(count * (self.dim + 1));
        for vector in vectors.chunks_exact(self.dim) {
            let standard = vector.iter().zip(&self.means).zip(&self.scales);
            values.extend(standard.map(|((value, mean), scale)| (value - mean) * scale));
            values.push(1.0);
        }
        Tensor::from_data(TensorData::new(values, [count, self.dim + 1]), device)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    /// Points around one centre a label, in a plane.
    fn around(centres: &[(u32, [f32; 2])], count: usize, seed: u64) -> (Vec<f32>, Vec<u32>) {
        let mut random = Random::keyed(&[seed]);
        let (mut vectors, mut labels) = (Vec::new(), Vec::new());
        for index in 0..count {
            let (label, centre) = centres[index % centres.len()];
            vectors.extend(centre.map(|value| value + 0.1 * random.normal()));
            labels.push(label);
        }
        (vectors, labels)
    }

    #[test]
    fn what_a_line_can_part_is_parted() {
        let centres = [(3, [0.0, 0.0]), (7, [5.0, 0.0]), (9, [0.0, 5.0])];
        let (train, train_labels) = around(&centres, 90, 1);
        let (test, test_labels) = around(&centres, 60, 2);
        assert_eq!(linear_probe_accuracy(&train, &train_labels, &test, &test_labels, 2), 1.0);
    }

    #[test]
    fn what_no_line_can_part_is_not() {
        // Two labels on opposite corners each: a line gets three corners right at best.
        let centres = [(0, [1.0, 1.0]), (1, [-1.0, 1.0]), (0, [-1.0, -1.0]), (1, [1.0, -1.0])];
        let (train, labels) = around(&centres, 200, 3);
        let accuracy = linear_probe_accuracy(&train, &labels, &train, &labels, 2);
        assert!(accuracy <= 0.76, "{accuracy}");
    }

    #[test]
    fn a_dimension_that_never_changes_does_no_harm() {
        let train = [1.0, 4.0, 2.0, 4.0, 9.0, 4.0, 10.0, 4.0];
        assert_eq!(
            linear_probe_accuracy(&train, &[0, 0, 1, 1], &[1.5, 4.0, 9.5, 4.0], &[0, 1], 2),
            1.0
        );
    }

    #[test]
    fn nothing_is_no_accuracy_and_an_unknown_label_is_never_found() {
        assert_eq!(linear_probe_accuracy(&[], &[], &[1.0], &[1], 1), 0.0);
        assert_eq!(linear_probe_accuracy(&[1.0], &[1], &[], &[], 1), 0.0);
        assert_eq!(linear_probe_accuracy(&[1.0, 2.0], &[1, 1], &[1.0, 2.0], &[1, 5], 1), 0.5);
    }
}
