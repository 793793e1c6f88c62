//! The contrastive losses: NT-Xent (Chen et al. 2020, arXiv 2002.05709, equation 1), its supervised form SupCon
//! (Khosla et al. 2020, arXiv 2004.11362, equation 2), and the decoupled loss DCL (Yeh et al. 2021, arXiv 2110.06848, equation 6).
//!
//! With `s(i, j)` the cosine of rows `i` and `j` divided by the temperature, and `P(i)` the rows that show the same as row `i`, they are the mean over all
//! rows of `log(sum of exp(s(i, k)) over k) - mean of s(i, p) over p in P(i)`. Rows come as one view of each image, then the other view of each image in
//! the same order.
//!
//! | loss | `P(i)` | the sum is over |
//! | --- | --- | --- |
//! | NT-Xent | the other view of the same image | all `k != i` |
//! | SupCon | every view of an image with the same target | all `k != i` |
//! | DCL | the other view of the same image | all `k != i` that are not in `P(i)` |
//!
//! In NT-Xent the positive stands in the sum as well, which scales a row's gradient down by how well it is told apart already, most of all where there are
//! few negatives. DCL leaves it out, so small batches teach more.
//!
//! Closed forms to check against: if all rows are equal the loss is the logarithm of the number of terms in the sum, `ln(2N - 1)` or `ln(2N - 2)`; with
//! `N = 1` NT-Xent is 0, and DCL is not defined.

use std::fmt;
use std::str::FromStr;

use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use crate::error::MlError;
use crate::kernels::{contrastive_loss, is_on_cpu, overwrite};

/// Added to squared lengths before their root is taken, so that the gradient at a row of zeros is finite.
pub(crate) const LENGTH_EPSILON: f64 = 1e-12;

/// Stands for minus infinity where `exp` is taken of it.
const EXCLUDED: f32 = -1e9;

/// What a training without supervision minimises.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ContrastiveLoss {
    /// SimCLR's own.
    #[default]
    NtXent,
    /// Decoupled contrastive learning.
    Dcl,
}

impl ContrastiveLoss {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::NtXent, Self::Dcl];

    /// Its name, as it is parsed.
    pub fn name(self) -> &'static str {
        match self {
            Self::NtXent => "nt_xent",
            Self::Dcl => "dcl",
        }
    }

    /// The loss of a network that makes one vector of everything, for a batch of this many images, two at least: what learning has to be better than.
    pub(crate) fn chance(self, images: usize) -> f64 {
        let left_out = match self {
            Self::NtXent => 1,
            Self::Dcl => 2,
        };
        ((2 * images).saturating_sub(left_out) as f64).ln()
    }
}

impl fmt::Display for ContrastiveLoss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for ContrastiveLoss {
    type Err = MlError;

    fn from_str(text: &str) -> Result<Self, MlError> {
        let name = text.trim().to_ascii_lowercase();
        Self::ALL.into_iter().find(|known| known.name() == name).ok_or_else(|| {
            MlError::UnknownName {
                kind: "loss",
                name: text.to_owned(),
                known: Self::ALL.map(Self::name).join(", "),
            }
        })
    }
}

/// The rows that show the same as each row, and those that it is compared with.
#[derive(Clone, Debug)]
pub(crate) struct Positives {
    loss: ContrastiveLoss,
    /// `[2N, 2N]`: `1 / |P(i)|` where column is in `P(row)`, 0 elsewhere.
    shares: Tensor<2>,
    /// `[2N, 2N]`: a large negative number where the column is not in the row's sum, 0 elsewhere.
    excluded: Tensor<2>,
}

impl Positives {
    /// Each image's other view.
    pub(crate) fn views(images: usize, loss: ContrastiveLoss, device: &Device) -> Self {
        Self::new(images, |row, column| row % images == column % images, loss, device)
    }

    /// Each image's other view, and all views of images with the same target.
    pub(crate) fn targets(targets: &[Option<u32>], device: &Device) -> Self {
        let images = targets.len();
        let same = |row: usize, column: usize| {
            let (row, column) = (row % images, column % images);
            row == column || (targets[row].is_some() && targets[row] == targets[column])
        };
        Self::new(images, same, ContrastiveLoss::NtXent, device)
    }

    fn new(
        images: usize,
        same: impl Fn(usize, usize) -> bool,
        loss: ContrastiveLoss,
        device: &Device,
    ) -> Self {
        let rows = 2 * images;
        let mut shares = vec![0.0_f32; rows * rows];
        let mut excluded = vec![0.0_f32; rows * rows];
        for row in 0..rows {
            let positive = |column: &usize| *column != row && same(row, *column);
            let share = 1.0 / (0..rows).filter(positive).count() as f32;
            for column in (0..rows).filter(positive) {
                shares[row * rows + column] = share;
                if loss == ContrastiveLoss::Dcl {
                    excluded[row * rows + column] = EXCLUDED;
                }
            }
            excluded[row * rows + row] = EXCLUDED;
        }
        let place = |values| Tensor::from_data(TensorData::new(values, [rows, rows]), device);
        Self { loss, shares: place(shares), excluded: place(excluded) }
    }
}

impl Positives {
    /// Takes the place of others of as many rows on a GPU, where they lie.
    pub(crate) fn overwrite(&self, others: Self) {
        overwrite(&self.shares.clone().inner(), others.shares.inner());
        overwrite(&self.excluded.clone().inner(), others.excluded.inner());
    }
}

/// The loss of `projections [2N, dim]`, a tensor of one number.
pub(crate) fn contrastive(
    projections: Tensor<2>,
    positives: &Positives,
    temperature: f64,
) -> Tensor<1> {
    if !is_on_cpu(&projections.device()) {
        let (shares, excluded) = (positives.shares.clone(), positives.excluded.clone());
        return contrastive_loss(projections, shares, excluded, temperature);
    }
    let [rows, _] = projections.dims();
    let lengths = projections.clone().square().sum_dim(1).add_scalar(LENGTH_EPSILON).sqrt();
    let directions = projections / lengths;
    let similarities = directions.clone().matmul(directions.transpose()).div_scalar(temperature);
    let compared = similarities.clone() + positives.excluded.clone();
    let shares = positives.shares.clone();
    match positives.loss {
        ContrastiveLoss::NtXent => {
            (log_softmax(compared, 1) * shares).sum().div_scalar(-(rows as f64))
        }
        ContrastiveLoss::Dcl => {
            // The largest term keeps the sum's logarithm finite, and has no gradient of its own.
            let largest = compared.clone().detach().max_dim(1);
            let sums = (compared - largest.clone()).exp().sum_dim(1).log() + largest;
            let pulls = (similarities * shares).sum_dim(1);
            (sums - pulls).sum().div_scalar(rows as f64)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::ContrastiveLoss::{Dcl, NtXent};
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
        close(
            loss_of(&rows, 2, &Positives::views(2, NtXent, &device()), 0.5),
            (first + second) / 2.0,
        );
    }

    /// Two images whose views are (1, 0), (4/5, 3/5) and (3/5, 4/5), (0, 1), at temperature 0.5. Each view is 4/5 from its other one; the first and the
    /// last view are compared with cosines of 3/5 and 0, the two between them with 3/5 and 24/25.
    #[test]
    fn a_decoupled_example_worked_by_hand() {
        let rows = [1.0, 0.0, 0.6, 0.8, 4.0, 3.0, 0.0, 2.0];
        let outer = (1.2f64.exp() + 1.0).ln() - 1.6;
        let inner = (1.2f64.exp() + 1.92f64.exp()).ln() - 1.6;
        let expected = (outer + inner) / 2.0;
        close(loss_of(&rows, 2, &Positives::views(2, Dcl, &device()), 0.5), expected);
        // NT-Xent has the positive in the sum as well.
        let outer = (1.2f64.exp() + 1.0 + 1.6f64.exp()).ln() - 1.6;
        let inner = (1.2f64.exp() + 1.92f64.exp() + 1.6f64.exp()).ln() - 1.6;
        let expected = (outer + inner) / 2.0;
        close(loss_of(&rows, 2, &Positives::views(2, NtXent, &device()), 0.5), expected);
    }

    /// Eight rows of six numbers each: two views of four images, each number a quarter of `(7 i i + 5 i j + 3 j) mod 13 - 6`. The expected losses were
    /// computed with PyTorch 2.15 in double precision: NT-Xent as `cross_entropy` of the cosines over the temperature, with -1e9 on the diagonal and the
    /// other view as the class; DCL as the mean of `logsumexp` of the same with the other view left out, less its own.
    #[test]
    fn losses_agree_with_pytorch() {
        let number = |i: i32, j: i32| ((7 * i * i + 5 * i * j + 3 * j) % 13 - 6) as f32 / 4.0;
        let rows: Vec<f32> = (0..8).flat_map(|i| (0..6).map(move |j| number(i, j))).collect();
        for (temperature, nt_xent, dcl) in [
            (0.1, 3.302_675_870, 2.476_050_699),
            (0.2, 1.980_473_876, 1.558_928_971),
            (0.5, 1.658_519_191, 1.413_457_121),
            (1.0, 1.743_662_175, 1.545_032_310),
        ] {
            for (loss, expected) in [(NtXent, nt_xent), (Dcl, dcl)] {
                let found = loss_of(&rows, 6, &Positives::views(4, loss, &device()), temperature);
                let apart: f64 = found - expected;
                assert!(apart.abs() < 1e-5, "{loss} at {temperature}: {found}, not {expected}");
            }
        }
    }

    #[test]
    fn names_parse() {
        for loss in ContrastiveLoss::ALL {
            assert_eq!(loss.to_string().parse::<ContrastiveLoss>().unwrap(), loss);
            assert_eq!(serde_json::to_value(loss).unwrap(), loss.name());
        }
        let error = "ntxent".parse::<ContrastiveLoss>().unwrap_err();
        assert!(matches!(error, MlError::UnknownName { kind: "loss", .. }));
    }

    #[test]
    fn closed_forms() {
        for images in [1, 2, 5, 32] {
            let rows = [3.0, -4.0, 1.0].repeat(2 * images);
            let expected = ((2 * images - 1) as f64).ln();
            assert_eq!(NtXent.chance(images), expected);
            close(loss_of(&rows, 3, &Positives::views(images, NtXent, &device()), 0.5), expected);
            if images > 1 {
                let decoupled = Positives::views(images, Dcl, &device());
                close(loss_of(&rows, 3, &decoupled, 0.5), Dcl.chance(images));
                assert_eq!(Dcl.chance(images), ((2 * images - 2) as f64).ln());
            }
            // All have one target: the same value, for any weights of the positives.
            let targets = vec![Some(1); images];
            close(loss_of(&rows, 3, &Positives::targets(&targets, &device()), 0.5), expected);
        }
        // Two images that are perfectly told apart: log(e^(1/t) + 2 e^0) - 1/t.
        let rows = [1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0];
        close(
            loss_of(&rows, 2, &Positives::views(2, NtXent, &device()), 0.1),
            (10f64.exp() + 2.0).ln() - 10.0,
        );
    }

    #[test]
    fn extreme_rows_stay_finite() {
        for (loss, rows) in ContrastiveLoss::ALL.into_iter().flat_map(|loss| {
            [[0.0; 8], [1e-20; 8], [1e15; 8], [1.0, 0.0, -1.0, 0.0, -1.0, 0.0, 1.0, 0.0]]
                .map(|rows| (loss, rows))
        }) {
            let positives = Positives::views(2, loss, &device());
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
        let views = loss_of(&rows, 4, &Positives::views(3, NtXent, &device()), 0.5);
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
        for positives in [
            Positives::views(4, NtXent, &device()),
            Positives::views(4, Dcl, &device()),
            Positives::targets(&targets, &device()),
        ] {
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
