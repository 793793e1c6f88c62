//! Recall at k of a search: the part of all images for which another image of the same kind is among their k nearest (Jégou, Douze, Schmid
//! 2011; as Oh Song et al. 2016, arXiv 1511.06452, use it to compare embeddings).

use std::collections::HashMap;

use super::neighbours::Neighbour;

/// Recall at each of `ks`, from 0 to 1. `nearest` has each vector's nearest among the others, nearest first, as many as the greatest of `ks` (or all). A
/// vector whose label no other has is left out, since nothing could be found; None if that leaves none.
///
/// # Panics
///
/// If the labels are not as many as the vectors.
pub fn recall_at(nearest: &[Vec<Neighbour>], labels: &[u32], ks: &[usize]) -> Option<Vec<f64>> {
    assert_eq!(nearest.len(), labels.len(), "a label for each vector");
    let mut members: HashMap<u32, usize> = HashMap::new();
    for label in labels {
        *members.entry(*label).or_default() += 1;
    }
    let mut asked = 0;
    let mut found = vec![0; ks.len()];
    for (label, nearest) in labels.iter().zip(nearest) {
        if members.get(label).is_none_or(|count| *count < 2) {
            continue;
        }
        asked += 1;
        let rank = nearest.iter().position(|other| labels[other.index as usize] == *label);
        for (found, k) in found.iter_mut().zip(ks) {
            *found += usize::from(rank.is_some_and(|rank| rank < *k));
        }
    }
    (asked > 0).then(|| found.into_iter().map(|found| found as f64 / asked as f64).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quality::Gallery;

    fn nearest(vectors: &[f32], dim: usize) -> Vec<Vec<Neighbour>> {
        Gallery::new(vectors, dim).nearest(vectors, 4, Some, &|| false).unwrap()
    }

    #[test]
    fn worked_by_hand() {
        // On a line of directions: 1 1 2 1 2, then a lonely 3.
        let angles = [0.0_f32, 0.1, 0.25, 0.5, 0.9, 1.5];
        let vectors: Vec<f32> =
            angles.iter().flat_map(|angle| [angle.cos(), angle.sin()]).collect();
        let labels = [1, 1, 2, 1, 2, 3];
        // Nearest others: 0 -> 1; 1 -> 0; 2 -> 1, 0 and 3, 4; 3 -> 2, 1; 4 -> 3, 5, 2.
        let recall = recall_at(&nearest(&vectors, 2), &labels, &[1, 2, 3, 4]).unwrap();
        assert_eq!(recall, [2.0 / 5.0, 3.0 / 5.0, 4.0 / 5.0, 1.0]);
    }

    #[test]
    fn without_pairs_there_is_no_recall() {
        assert_eq!(recall_at(&nearest(&[1.0, 2.0], 1), &[1, 2], &[1]), None);
        assert_eq!(recall_at(&[], &[], &[1]), None);
    }
}
