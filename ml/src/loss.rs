//! The contrastive losses: NT-Xent (Chen et al. 2020, arXiv 2002.05709, equation 1) and its supervised form SupCon
//! (Khosla et al. 2020, arXiv 2004.11362, equation 2).
//!
//! With `s(i, j)` the cosine of rows `i` and `j` divided by the temperature, and `P(i)` the rows that show the same as row `i`, both are the mean over all
//! rows of `log(sum of exp(s(i, k)) over k != i) - mean of s(i, p) over p in P(i)`. For NT-Xent `P(i)` is the other view of the same image;
//! for SupCon it is every view of an image with the same target. Rows come as one view of each image, then the other view of each image in
//! the same order.
//!
//! Two closed forms to check against: if all rows are equal the loss is `ln(2N - 1)`; with `N = 1` it is 0.

use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, Tensor, TensorData};

/// Added to squared lengths before their root is taken, so that the gradient at a row of zeros is finite.
const LENGTH_EPSILON: f64 = 1e-12;

/// Stands for minus infinity where `exp` is taken of it.
const EXCLUDED: f32 = -1e9;

/// The rows that show the same as each row.
#[derive(Clone, Debug)]
pub(crate) struct Positives {
    /// `[2N, 2N]`: `1 / |P(i)|` where column is in `P(row)`, 0 elsewhere.
    shares: Tensor<2>,
    /// `[2N, 2N]`: a large negative number on the diagonal, 0 elsewhere.
    itself: Tensor<2>,
}

impl Positives {
    /// Each image's other view.
    pub(crate) fn views(images: usize, device: &Device) -> Self {
        Self::new(images, |row, column| row % images == column % images, device)
    }

    /// Each image's other view, and all views of images with the same target.
    pub(crate) fn targets(targets: &[Option<u32>], device: &Device) -> Self {
        let images = targets.len();
        let same = |row: usize, column: usize| {
            let (row, column) = (row % images, column % images);
            row == column || (targets[row].is_some() && targets[row] == targets[column])
        };
        Self::new(images, same, device)
    }

    fn new(images: usize, same: impl Fn(usize, usize) -> bool, device: &Device) -> Self {
        let rows = 2 * images;
        let mut shares = vec![0.0_f32; rows * rows];
        let mut itself = vec![0.0_f32; rows * rows];
        for row in 0..rows {
            let positive = |column: &usize| *column != row && same(row, *column);
            let share = 1.0 / (0..rows).filter(positive).count() as f32;
            for column in (0..rows).filter(positive) {
                shares[row * rows + column] = share;
            }
            itself[row * rows + row] = EXCLUDED;
        }
        let place = |values| Tensor::from_data(TensorData::new(values, [rows, rows]), device);
        Self { shares: place(shares), itself: place(itself) }
    }
}

/// The loss of `projections [2N, dim]`, a tensor of one number.
pub(crate) fn contrastive(
    projections: Tensor<2>,
    positives: &Positives,
    temperature: f64,
) -> Tensor<1> {
    let [rows, _] = projections.dims();
    let lengths = projections.clone().square().sum_dim(1).add_scalar(LENGTH_EPSILON).sqrt();
    let directions = projections / lengths;
    let similarities = directions.clone().matmul(directions.transpose()).div_scalar(temperature);
    let log_shares = log_softmax(similarities + positives.itself.clone(), 1);
    (log_shares * positives.shares.clone()).sum().div_scalar(-(rows as f64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;
    use crate::weights::read;

    fn device() -> Device {
        Device::flex().autodiff()
    }

    fn loss_of(rows: &[f32], dim: usize, positives: &Positives, temperature: f64) -> f64 {
        let shape = [rows.len() / dim, dim];
        let rows = Tensor::from_data(TensorData::new(rows.to_vec(), shape), &device());
        f64::from(read(contrastive(rows, positives, temperature)).unwrap()[0])
    }

    fn close(found: f64, expected: f64) {
        assert!((found - expected).abs() < 1e-5, "{found} is not {expected}");
    }

    /// Two images whose views are (1, 0), (0, 1) and (1, 0), (0, -1), at temperature 0.5. Cosines: the views of image 0 are 1 apart from
    /// nothing, those of image 1 are -1 apart, all others 0.
    #[test]
    fn a_hand_worked_example() {
        let rows = [1.0, 0.0, 0.0, 1.0, 2.0, 0.0, 0.0, -3.0];
        // s is cosine / 0.5. Rows of image 0: log(e^2 + 2 e^0) - 2. Rows of image 1: log(e^-2 + 2 e^0) + 2.
        let first = (2f64.exp() + 2.0).ln() - 2.0;
        let second = ((-2f64).exp() + 2.0).ln() + 2.0;
        close(loss_of(&rows, 2, &Positives::views(2, &device()), 0.5), (first + second) / 2.0);
    }

    #[test]
    fn closed_forms() {
        for images in [1, 2, 5, 32] {
            let rows = [3.0, -4.0, 1.0].repeat(2 * images);
            let expected = ((2 * images - 1) as f64).ln();
            close(loss_of(&rows, 3, &Positives::views(images, &device()), 0.5), expected);
            // All have one target: the same value, for any weights of the positives.
            let targets = vec![Some(1); images];
            close(loss_of(&rows, 3, &Positives::targets(&targets, &device()), 0.5), expected);
        }
        // Two images that are perfectly told apart: log(e^(1/t) + 2 e^0) - 1/t.
        let rows = [1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0];
        close(
            loss_of(&rows, 2, &Positives::views(2, &device()), 0.1),
            (10f64.exp() + 2.0).ln() - 10.0,
        );
    }

    #[test]
    fn extreme_rows_stay_finite() {
        let positives = Positives::views(2, &device());
        for rows in [[0.0; 8], [1e-20; 8], [1e15; 8], [1.0, 0.0, -1.0, 0.0, -1.0, 0.0, 1.0, 0.0]] {
            let rows = Tensor::<2>::from_data(TensorData::new(rows.to_vec(), [4, 2]), &device())
                .require_grad();
            let loss = contrastive(rows.clone(), &positives, 0.01);
            let gradient = read(rows.grad(&loss.backward()).unwrap()).unwrap();
            assert!(read(loss).unwrap()[0].is_finite());
            assert!(gradient.iter().all(|value| value.is_finite()));
        }
    }

    #[test]
    fn without_targets_the_supervised_loss_is_the_unsupervised_one() {
        let mut random = Random::keyed(&[5]);
        let rows: Vec<f32> = (0..6 * 4).map(|_| random.normal()).collect();
        let views = loss_of(&rows, 4, &Positives::views(3, &device()), 0.5);
        close(loss_of(&rows, 4, &Positives::targets(&[None; 3], &device()), 0.5), views);
        close(
            loss_of(&rows, 4, &Positives::targets(&[Some(1), Some(2), None], &device()), 0.5),
            views,
        );
        let shared =
            loss_of(&rows, 4, &Positives::targets(&[Some(1), Some(1), None], &device()), 0.5);
        assert!((shared - views).abs() > 1e-3);
    }

    #[test]
    fn gradients_agree_with_finite_differences() {
        let mut random = Random::keyed(&[11]);
        let rows: Vec<f32> = (0..8 * 5).map(|_| random.normal()).collect();
        let targets = [Some(1), Some(2), Some(1), None];
        for positives in [Positives::views(4, &device()), Positives::targets(&targets, &device())] {
            let tensor = Tensor::<2>::from_data(TensorData::new(rows.clone(), [8, 5]), &device())
                .require_grad();
            let loss = contrastive(tensor.clone(), &positives, 0.5);
            let gradient = read(tensor.grad(&loss.backward()).unwrap()).unwrap();
            for (place, &slope) in gradient.iter().enumerate() {
                let step = 1e-2;
                let moved = |by: f32| {
                    let mut rows = rows.clone();
                    rows[place] += by;
                    loss_of(&rows, 5, &positives, 0.5)
                };
                let difference = (moved(step) - moved(-step)) / (2.0 * f64::from(step));
                assert!(
                    (difference - f64::from(slope)).abs() < 1e-3,
                    "{place}: {difference} and {slope}"
                );
            }
        }
    }
}
