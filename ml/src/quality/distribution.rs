//! What can be said of vectors without labels.
//!
//! - *Alignment* and *uniformity* (Wang and Isola 2020, arXiv 2005.10242): views of one image should lie close together, and all images should be spread over the
//!   sphere. Both are losses: lower is better.
//! - *Effective rank* (RankMe, Garrido et al. 2023, arXiv 2210.02885; Roy and Vetterli 2007): how many directions the vectors use, from 1 up to their
//!   length. It foretells how well an encoder serves, and falls when it collapses.
//! - *Dead dimensions*: the part of the numbers in a vector that are the same for every image, and so tell nothing.

use burn::tensor::{Device, Tensor, TensorData};
use rayon::prelude::*;

use super::normalized;
use crate::error::MlError;
use crate::weights::read;

/// Vectors whose products are computed at once.
const BLOCK: usize = 1024;

/// RankMe's small number, which keeps the logarithm finite.
const EPSILON: f64 = 1e-7;

/// `|x/|x| - y/|y||^2`, from 0 to 4: the mean of it over pairs of views is the alignment (with its exponent 2). A vector of zeros stays one.
pub fn squared_distance(x: &[f32], y: &[f32]) -> f64 {
    let dim = x.len();
    let (x, y) = (normalized(x, dim), normalized(y, dim));
    x.iter().zip(&y).map(|(x, y)| f64::from(x - y).powi(2)).sum()
}

/// `log(mean(exp(-2 |x - y|^2)))` over all pairs of different vectors, taken as directions, from -8 to 0; None for fewer than two vectors.
/// `stop` is asked before every block.
///
/// # Errors
///
/// [`MlError::Stopped`] once `stop` says so.
pub fn uniformity(
    vectors: &[f32],
    dim: usize,
    stop: &dyn Fn() -> bool,
) -> Result<Option<f64>, MlError> {
    let dim = dim.max(1);
    let count = vectors.len() / dim;
    if count < 2 {
        return Ok(None);
    }
    let directions = normalized(vectors, dim);
    let squares: Vec<f32> = directions
        .chunks_exact(dim)
        .map(|vector| vector.iter().map(|value| value * value).sum())
        .collect();
    let block = |start: usize| {
        let rows = &directions[start * dim..directions.len().min((start + BLOCK) * dim)];
        let shape = [rows.len() / dim, dim];
        Tensor::<2>::from_data(TensorData::new(rows.to_vec(), shape), &Device::flex())
    };
    let starts: Vec<usize> = (0..count).step_by(BLOCK).collect();
    let mut sum = 0.0;
    for (position, &first) in starts.iter().enumerate() {
        let rows = block(first);
        // Every pair once: blocks from here on, and in the block itself what stands right of the diagonal.
        for &second in &starts[position..] {
            if stop() {
                return Err(MlError::Stopped);
            }
            let columns = block(second);
            let [width, _] = columns.dims();
            let products = read(rows.clone().matmul(columns.transpose()))
                .map_err(|reason| MlError::Device { reason })?;
            sum += products
                .par_chunks_exact(width)
                .enumerate()
                .map(|(row, products)| {
                    let row = first + row;
                    products
                        .iter()
                        .enumerate()
                        .filter(|(column, _)| second + column > row)
                        .map(|(column, product)| {
                            let distance =
                                f64::from(squares[row] + squares[second + column] - 2.0 * product);
                            (-2.0 * distance.max(0.0)).exp()
                        })
                        .sum::<f64>()
                })
                .collect::<Vec<f64>>()
                .iter()
                .sum::<f64>();
        }
    }
    let pairs = count as f64 * (count - 1) as f64 / 2.0;
    Ok(Some((sum / pairs).ln()))
}

/// RankMe: `exp(-sum(p log p))` with `p = s / sum(s) + 1e-7` over the singular values `s` of the vectors, `[count, dim]`. None without vectors, or if all
/// of them are zeros. `stop` is asked before every block.
///
/// The singular values are the roots of the eigenvalues of `V^T V`, whose size does not hang on the number of vectors.
///
/// # Errors
///
/// [`MlError::Stopped`] once `stop` says so.
pub fn effective_rank(
    vectors: &[f32],
    dim: usize,
    stop: &dyn Fn() -> bool,
) -> Result<Option<f64>, MlError> {
    let dim = dim.max(1);
    let mut gram = vec![0.0_f64; dim * dim];
    for rows in vectors.chunks(BLOCK * dim) {
        if stop() {
            return Err(MlError::Stopped);
        }
        add_gram(&mut gram, rows, dim);
    }
    let singular: Vec<f64> =
        eigenvalues(gram, dim).into_iter().map(|value| value.max(0.0).sqrt()).collect();
    let sum: f64 = singular.iter().sum();
    if sum == 0.0 || !sum.is_finite() {
        return Ok(None);
    }
    // There are as many singular values as the smaller side is long.
    let count = dim.min(vectors.len() / dim);
    let mut shares: Vec<f64> = singular.iter().map(|value| value / sum).collect();
    shares.sort_by(|a, b| b.total_cmp(a));
    let entropy: f64 =
        shares[..count].iter().map(|share| share + EPSILON).map(|share| -share * share.ln()).sum();
    Ok(Some(entropy.exp()))
}

/// Adds `rows^T rows` to `gram [dim, dim]`.
fn add_gram(gram: &mut [f64], rows: &[f32], dim: usize) {
    gram.par_chunks_exact_mut(dim).enumerate().for_each(|(i, line)| {
        for row in rows.chunks_exact(dim) {
            let factor = f64::from(row[i]);
            // After a ReLU many are.
            if factor != 0.0 {
                line.iter_mut()
                    .zip(row)
                    .for_each(|(sum, &value)| *sum += factor * f64::from(value));
            }
        }
    });
}

/// The part of the dimensions, from 0 to 1, in which all vectors hold one and the same number. None without vectors.
pub fn dead_dimensions(vectors: &[f32], dim: usize) -> Option<f64> {
    let dim = dim.max(1);
    let mut rows = vectors.chunks_exact(dim);
    let first = rows.next()?;
    let mut alive = vec![false; dim];
    for row in rows {
        for ((alive, value), first) in alive.iter_mut().zip(row).zip(first) {
            *alive |= value != first;
        }
    }
    Some(alive.iter().filter(|alive| !**alive).count() as f64 / dim as f64)
}

/// The eigenvalues of a symmetric matrix `[n, n]`, in no order: Householder's reduction to three diagonals, then the QL method with implicit shifts
/// (Martin, Reinsch, Wilkinson 1968; Dubrulle 1970).
fn eigenvalues(matrix: Vec<f64>, n: usize) -> Vec<f64> {
    let (mut diagonal, mut off) = tridiagonal(matrix, n);
    // off[i] couples i and i + 1.
    for low in 0..n {
        // A matrix of numbers that are not finite never gets there.
        for _ in 0..60 {
            let split = (low..n - 1).find(|&m| {
                let scale = diagonal[m].abs() + diagonal[m + 1].abs();
                off[m].abs() <= f64::EPSILON * scale
            });
            let high = split.unwrap_or(n - 1);
            if high == low {
                break;
            }
            let mut g = (diagonal[low + 1] - diagonal[low]) / (2.0 * off[low]);
            let r = g.hypot(1.0);
            g = diagonal[high] - diagonal[low] + off[low] / (g + r.copysign(g));
            let (mut s, mut c, mut p) = (1.0, 1.0, 0.0);
            let mut stopped = false;
            for i in (low..high).rev() {
                let f = s * off[i];
                let b = c * off[i];
                let r = f.hypot(g);
                off[i + 1] = r;
                if r == 0.0 {
                    diagonal[i + 1] -= p;
                    off[high] = 0.0;
                    stopped = true;
                    break;
                }
                s = f / r;
                c = g / r;
                g = diagonal[i + 1] - p;
                let r = (diagonal[i] - g) * s + 2.0 * c * b;
                p = s * r;
                diagonal[i + 1] = g + p;
                g = c * r - b;
            }
            if !stopped {
                diagonal[low] -= p;
                off[low] = g;
                off[high] = 0.0;
            }
        }
    }
    diagonal
}

/// The diagonal `[n]` of a matrix with the same eigenvalues and three diagonals, and the one beside it, with a place to spare.
fn tridiagonal(mut a: Vec<f64>, n: usize) -> (Vec<f64>, Vec<f64>) {
    let mut off = vec![0.0; n];
    let mut reflector = vec![0.0; n];
    for k in 0..n.saturating_sub(2) {
        // Reflects column k below its diagonal onto its first number.
        let norm = (k + 1..n).map(|i| a[i * n + k].powi(2)).sum::<f64>().sqrt();
        if norm == 0.0 {
            continue;
        }
        let first = a[(k + 1) * n + k];
        let target = -norm.copysign(first);
        for i in k + 1..n {
            reflector[i] = a[i * n + k];
        }
        reflector[k + 1] -= target;
        let square: f64 = reflector[k + 1..].iter().map(|value| value * value).sum();
        if square == 0.0 {
            continue;
        }
        // A <- A - v w^T - w v^T with w = p - (v.p / v.v) v and p = 2 A v / v.v.
        let v = &reflector[k + 1..];
        let mut w: Vec<f64> = (k + 1..n)
            .into_par_iter()
            .map(|i| {
                let row = &a[i * n + k + 1..(i + 1) * n];
                2.0 * row.iter().zip(v).map(|(a, v)| a * v).sum::<f64>() / square
            })
            .collect();
        let half = w.iter().zip(v).map(|(p, v)| p * v).sum::<f64>() / square;
        w.iter_mut().zip(v).for_each(|(w, v)| *w -= half * v);
        a.par_chunks_exact_mut(n).enumerate().skip(k + 1).for_each(|(i, row)| {
            let (v_i, w_i) = (v[i - k - 1], w[i - k - 1]);
            for (value, (v, w)) in row[k + 1..].iter_mut().zip(v.iter().zip(&w)) {
                *value -= v_i * w + w_i * v;
            }
        });
        a[(k + 1) * n + k] = target;
        a[k * n + k + 1] = target;
    }
    for i in 0..n.saturating_sub(1) {
        off[i] = a[(i + 1) * n + i];
    }
    ((0..n).map(|i| a[i * n + i]).collect(), off)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    fn near(found: f64, expected: f64) {
        assert!((found - expected).abs() < 1e-5 * expected.abs().max(1.0), "{found} {expected}");
    }

    #[test]
    fn distances_of_directions() {
        near(squared_distance(&[2.0, 0.0], &[0.0, 5.0]), 2.0);
        near(squared_distance(&[2.0, 0.0], &[-1.0, 0.0]), 4.0);
        near(squared_distance(&[3.0, 4.0], &[6.0, 8.0]), 0.0);
        near(squared_distance(&[0.0, 0.0], &[6.0, 8.0]), 1.0);
    }

    #[test]
    fn uniformity_worked_by_hand() {
        let go_on = || false;
        // One point: every distance is 0.
        near(uniformity(&[1.0, 2.0, 2.0, 4.0], 2, &go_on).unwrap().unwrap(), 0.0);
        // Opposite points: exp(-8).
        near(uniformity(&[1.0, 0.0, -3.0, 0.0], 2, &go_on).unwrap().unwrap(), -8.0);
        // Three pairs: two of squared distance 2, one of 4.
        let vectors = [1.0, 0.0, 0.0, 1.0, -1.0, 0.0];
        let expected = ((2.0 * (-4.0_f64).exp() + (-8.0_f64).exp()) / 3.0).ln();
        near(uniformity(&vectors, 2, &go_on).unwrap().unwrap(), expected);
        assert_eq!(uniformity(&[1.0, 2.0], 2, &go_on).unwrap(), None);
        assert!(matches!(uniformity(&vectors, 2, &|| true), Err(MlError::Stopped)));
    }

    #[test]
    fn uniformity_of_more_than_a_block_is_that_of_all_pairs() {
        let dim = 3;
        let count = BLOCK + 5;
        let mut random = Random::keyed(&[3]);
        let vectors: Vec<f32> = (0..count * dim).map(|_| random.normal()).collect();
        let mut sum = 0.0;
        for i in 0..count {
            for j in 0..i {
                let row = |i: usize| &vectors[i * dim..(i + 1) * dim];
                sum += (-2.0 * squared_distance(row(i), row(j))).exp();
            }
        }
        let expected = (sum / (count * (count - 1) / 2) as f64).ln();
        near(uniformity(&vectors, dim, &|| false).unwrap().unwrap(), expected);
    }

    #[test]
    fn rank_counts_directions() {
        let go_on = || false;
        let rank = |vectors: &[f32], dim| effective_rank(vectors, dim, &go_on).unwrap();
        // One direction, whatever the lengths.
        near(rank(&[1.0, 0.0, 2.0, 0.0, 5.0, 0.0], 2).unwrap(), 1.0);
        // Three directions that are used alike.
        let same = [2.0, 0.0, 0.0, 0.0, 2.0, 0.0, 0.0, 0.0, 2.0];
        near(rank(&same, 3).unwrap(), 3.0);
        // Singular values 3 and 1: p is 3/4 and 1/4.
        let expected = (-(0.75_f64 * 0.75_f64.ln() + 0.25 * 0.25_f64.ln())).exp();
        near(rank(&[3.0, 0.0, 0.0, 1.0], 2).unwrap(), expected);
        assert_eq!(rank(&[0.0, 0.0], 2), None);
        assert_eq!(rank(&[], 2), None);
        assert!(matches!(effective_rank(&[1.0], 1, &|| true), Err(MlError::Stopped)));
    }

    #[test]
    fn eigenvalues_of_known_matrices() {
        let sorted = |matrix: Vec<f64>, n| {
            let mut values = eigenvalues(matrix, n);
            values.sort_by(f64::total_cmp);
            values
        };
        let close = |found: &[f64], expected: &[f64]| {
            for (found, expected) in found.iter().zip(expected) {
                assert!((found - expected).abs() < 1e-9, "{found} {expected}");
            }
        };
        close(&sorted(vec![7.0], 1), &[7.0]);
        close(&sorted(vec![2.0, 1.0, 1.0, 2.0], 2), &[1.0, 3.0]);
        // All ones: n once, 0 otherwise.
        close(&sorted(vec![1.0; 25], 5), &[0.0, 0.0, 0.0, 0.0, 5.0]);
        // Second differences: 2 - 2 cos(k pi / (n + 1)).
        let n = 12;
        let mut matrix = vec![0.0; n * n];
        for i in 0..n {
            matrix[i * n + i] = 2.0;
            if i > 0 {
                matrix[i * n + i - 1] = -1.0;
                matrix[(i - 1) * n + i] = -1.0;
            }
        }
        let angle = std::f64::consts::PI / (n + 1) as f64;
        let expected: Vec<f64> = (1..=n).map(|k| 2.0 - 2.0 * (k as f64 * angle).cos()).collect();
        close(&sorted(matrix, n), &expected);
        // A full matrix keeps its trace and its sum of squares.
        let mut random = Random::keyed(&[5]);
        let mut full = vec![0.0; n * n];
        for i in 0..n {
            for j in 0..=i {
                let value = f64::from(random.normal());
                full[i * n + j] = value;
                full[j * n + i] = value;
            }
        }
        let trace: f64 = (0..n).map(|i| full[i * n + i]).sum();
        let squares: f64 = full.iter().map(|value| value * value).sum();
        let values = eigenvalues(full, n);
        assert!((values.iter().sum::<f64>() - trace).abs() < 1e-9);
        assert!((values.iter().map(|value| value * value).sum::<f64>() - squares).abs() < 1e-9);
    }

    #[test]
    fn dimensions_that_never_change_are_dead() {
        assert_eq!(dead_dimensions(&[0.0, 1.0, 5.0, 0.0, 2.0, 5.0], 3), Some(2.0 / 3.0));
        assert_eq!(dead_dimensions(&[0.0, 1.0, 1.0, 0.0], 2), Some(0.0));
        assert_eq!(dead_dimensions(&[], 2), None);
    }
}
