//! The nearest of many vectors by cosine, found exactly.
//!
//! The product of a block of vectors with a tile of the gallery is one matrix product on the CPU; from its rows each vector keeps its
//! `k` best in a heap. So memory is bounded by a block times a tile, however large both sides are, and nothing is ever sorted but `k` neighbours.

use std::cmp::{Ordering, Reverse};
use std::collections::{BinaryHeap, HashMap};

use burn::tensor::{Device, Tensor, TensorData};
use rayon::prelude::*;

use super::normalized;
use crate::error::MlError;
use crate::weights::read;

/// Vectors whose cosines are computed at once.
const BLOCK: usize = 256;

/// Vectors of the gallery that a block is multiplied with at once.
const TILE: usize = 8192;

/// Vectors that others are compared with.
#[derive(Debug)]
pub struct Gallery {
    /// Directions, `[dim, at most TILE]` each.
    tiles: Vec<Tensor<2>>,
    count: usize,
    dim: usize,
}

/// One of the nearest vectors.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Neighbour {
    /// Its place in the gallery.
    pub index: u32,
    /// From -1 to 1, higher is closer; 0 if one of the two is a vector of zeros.
    pub cosine: f32,
}

/// Nearer is greater; of two equally near ones the first in the gallery.
impl Eq for Neighbour {}

impl Ord for Neighbour {
    fn cmp(&self, other: &Neighbour) -> Ordering {
        self.cosine.total_cmp(&other.cosine).then(other.index.cmp(&self.index))
    }
}

impl PartialOrd for Neighbour {
    fn partial_cmp(&self, other: &Neighbour) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// What neighbours voted for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Vote {
    /// The label with the most votes.
    pub label: u32,
    /// Its part of the votes, above 0 and up to 1.
    pub share: f64,
}

impl Gallery {
    /// Takes vectors, row-major `[count, dim]`, of which only the directions matter.
    ///
    /// # Panics
    ///
    /// If the numbers are no whole number of vectors, or more than 2^32 of them.
    pub fn new(vectors: &[f32], dim: usize) -> Gallery {
        let dim = dim.max(1);
        assert_eq!(vectors.len() % dim, 0, "a whole number of vectors");
        let count = vectors.len() / dim;
        assert!(u32::try_from(count).is_ok(), "places are 32 bits");
        let tiles = vectors.chunks(TILE * dim).map(|tile| matrix(tile, dim).transpose()).collect();
        Gallery { tiles, count, dim }
    }

    /// How many vectors it holds.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The length of its vectors.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// The `k` nearest of each query, nearest first; fewer only if the gallery holds fewer. `skip` names the vector of the gallery that a query must not
    /// see. `stop` is asked before every product.
    ///
    /// # Errors
    ///
    /// [`MlError::Stopped`] once `stop` says so.
    ///
    /// # Panics
    ///
    /// If the queries are no whole number of vectors of [`dim`](Self::dim) numbers.
    pub fn nearest(
        &self,
        queries: &[f32],
        k: usize,
        skip: impl Fn(usize) -> Option<usize> + Sync,
        stop: &dyn Fn() -> bool,
    ) -> Result<Vec<Vec<Neighbour>>, MlError> {
        assert_eq!(queries.len() % self.dim, 0, "a whole number of vectors");
        let mut nearest = Vec::with_capacity(queries.len() / self.dim);
        for (block, queries) in queries.chunks(BLOCK * self.dim).enumerate() {
            let rows = queries.len() / self.dim;
            let queries = matrix(queries, self.dim);
            let mut best: Vec<Best> = (0..rows).map(|_| Best::new(k)).collect();
            for (tile, directions) in self.tiles.iter().enumerate() {
                if stop() {
                    return Err(MlError::Stopped);
                }
                let [_, width] = directions.dims();
                let cosines = read(queries.clone().matmul(directions.clone()))
                    .map_err(|reason| MlError::Device { reason })?;
                best.par_iter_mut().zip(cosines.par_chunks_exact(width)).enumerate().for_each(
                    |(row, (best, cosines))| {
                        best.offer(tile * TILE, cosines, skip(block * BLOCK + row));
                    },
                );
            }
            nearest.extend(best.into_iter().map(Best::into_sorted));
        }
        Ok(nearest)
    }
}

/// Directions on the CPU, `[count, dim]`.
fn matrix(vectors: &[f32], dim: usize) -> Tensor<2> {
    let shape = [vectors.len() / dim, dim];
    Tensor::from_data(TensorData::new(normalized(vectors, dim), shape), &Device::flex())
}

/// The best so far of one query.
struct Best {
    k: usize,
    /// The worst of them on top.
    heap: BinaryHeap<Reverse<Neighbour>>,
}

impl Best {
    fn new(k: usize) -> Best {
        Best { k, heap: BinaryHeap::new() }
    }

    fn offer(&mut self, first: usize, cosines: &[f32], skip: Option<usize>) {
        if self.k == 0 {
            return;
        }
        for (place, &cosine) in cosines.iter().enumerate() {
            let index = first + place;
            if skip == Some(index) {
                continue;
            }
            // A vector with a NaN is near to nothing; rounding must not make a cosine of more than 1.
            let cosine = if cosine.is_nan() { f32::NEG_INFINITY } else { cosine.clamp(-1.0, 1.0) };
            let neighbour = Neighbour { index: index as u32, cosine };
            if self.heap.len() < self.k {
                self.heap.push(Reverse(neighbour));
            } else if let Some(mut worst) = self.heap.peek_mut()
                && worst.0 < neighbour
            {
                *worst = Reverse(neighbour);
            }
        }
    }

    fn into_sorted(self) -> Vec<Neighbour> {
        self.heap.into_sorted_vec().into_iter().map(|Reverse(neighbour)| neighbour).collect()
    }
}

/// The label that most of the neighbours have; `labels[index]` is that of a vector in the gallery. Between labels with equally many votes the one with the
/// larger sum of cosines wins, then the smaller one. None without neighbours.
pub fn vote(neighbours: &[Neighbour], labels: &[u32]) -> Option<Vote> {
    let mut votes: HashMap<u32, (usize, f32)> = HashMap::new();
    for neighbour in neighbours {
        let entry = votes.entry(labels[neighbour.index as usize]).or_default();
        entry.0 += 1;
        entry.1 += neighbour.cosine;
    }
    let (label, (count, _)) = votes.into_iter().max_by(stronger)?;
    Some(Vote { label, share: count as f64 / neighbours.len() as f64 })
}

/// More votes, then the larger sum, then the smaller label, so that the outcome never hangs on the order of a map.
fn stronger(left: &(u32, (usize, f32)), right: &(u32, (usize, f32))) -> Ordering {
    let (left_label, (left_votes, left_sum)) = left;
    let (right_label, (right_votes, right_sum)) = right;
    left_votes
        .cmp(right_votes)
        .then(left_sum.total_cmp(right_sum))
        .then(right_label.cmp(left_label))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    #[test]
    fn the_nearest_come_first_and_equals_in_their_order() {
        // Cosines with (1, 0): 0.6, 1, 0, 1.
        let gallery = Gallery::new(&[0.6, 0.8, 2.0, 0.0, 0.0, 0.0, 9.0, 0.0], 2);
        let found = gallery.nearest(&[3.0, 0.0], 3, |_| None, &|| false).unwrap();
        let places: Vec<u32> = found[0].iter().map(|neighbour| neighbour.index).collect();
        assert_eq!(places, [1, 3, 0]);
        assert_eq!(found[0][0].cosine, 1.0);
        assert!((found[0][2].cosine - 0.6).abs() < 1e-6);
        let without = gallery.nearest(&[3.0, 0.0], 9, |_| Some(1), &|| false).unwrap();
        let places: Vec<u32> = without[0].iter().map(|neighbour| neighbour.index).collect();
        assert_eq!(places, [3, 0, 2]);
        assert_eq!(without[0][2].cosine, 0.0, "zeros are near to nothing");
    }

    #[test]
    fn tiles_and_blocks_agree_with_a_plain_search() {
        let dim = 4;
        let mut random = Random::keyed(&[12]);
        let mut draw =
            |count: usize| -> Vec<f32> { (0..count * dim).map(|_| random.normal()).collect() };
        let (vectors, queries) = (draw(TILE + 321), draw(BLOCK + 3));
        let found = Gallery::new(&vectors, dim).nearest(&queries, 4, |_| None, &|| false).unwrap();
        assert_eq!(found.len(), BLOCK + 3);
        let cosine = |a: &[f32], b: &[f32]| {
            let dot = |a: &[f32], b: &[f32]| {
                a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>()
            };
            dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
        };
        for (query, found) in queries.chunks(dim).zip(&found) {
            let mut plain: Vec<f64> =
                vectors.chunks(dim).map(|vector| cosine(vector, query)).collect();
            plain.sort_by(|a, b| b.total_cmp(a));
            for (found, expected) in found.iter().zip(plain) {
                assert!((f64::from(found.cosine) - expected).abs() < 1e-5);
            }
        }
    }

    #[test]
    fn a_vote_has_a_share() {
        let neighbour = |index, cosine| Neighbour { index, cosine };
        let nearest = [neighbour(0, 1.0), neighbour(1, 0.9), neighbour(2, 0.8), neighbour(3, 0.1)];
        assert_eq!(vote(&nearest, &[7, 8, 8, 9]), Some(Vote { label: 8, share: 0.5 }));
        // Two votes each: 7 has 1.1, 8 has 1.7.
        assert_eq!(vote(&nearest, &[7, 8, 8, 7]), Some(Vote { label: 8, share: 0.5 }));
        assert_eq!(vote(&nearest[..1], &[7]), Some(Vote { label: 7, share: 1.0 }));
        assert_eq!(vote(&[], &[]), None);
    }

    #[test]
    fn a_search_stops_when_it_is_told() {
        let gallery = Gallery::new(&[1.0, 0.0], 2);
        let stopped = gallery.nearest(&[1.0, 0.0], 1, |_| None, &|| true);
        assert!(matches!(stopped, Err(MlError::Stopped)));
        assert!(
            Gallery::new(&[], 2).nearest(&[1.0, 0.0], 1, |_| None, &|| true).unwrap()[0].is_empty()
        );
    }
}
