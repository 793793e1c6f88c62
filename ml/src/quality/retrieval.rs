//! Recall at k of a search: the part of all images for which another image of the same kind is among their k nearest (Jégou, Douze, Schmid
//! 2011; as Oh Song et al. 2016, arXiv 1511.06452, use it to compare embeddings).

use std::collections::HashMap;

use super::neighbours::Gallery;
use crate::error::MlError;

/// Recall at each of `ks`, from 0 to 1, each vector looking among the others. A vector whose label no other has is left out, since nothing could be found;
/// None if that leaves none. `stop` is asked from time to time.
///
/// # Errors
///
/// [`MlError::Stopped`] once `stop` says so.
///
/// # Panics
///
/// If the labels are not as many as the vectors.
pub fn recall_at(
    vectors: &[f32],
    labels: &[u32],
    dim: usize,
    ks: &[usize],
    stop: &dyn Fn() -> bool,
) -> Result<Option<Vec<f64>>, MlError> {
    assert_eq!(vectors.len(), labels.len() * dim, "a label for each vector");
    let mut members: HashMap<u32, usize> = HashMap::new();
    for label in labels {
        *members.entry(*label).or_default() += 1;
    }
    let most = ks.iter().copied().max().unwrap_or(0);
    let nearest = Gallery::new(vectors, dim).nearest(vectors, most, Some, stop)?;
    let mut asked = 0;
    let mut found = vec![0; ks.len()];
    for (label, nearest) in labels.iter().zip(&nearest) {
        if members.get(label).is_none_or(|count| *count < 2) {
            continue;
        }
        asked += 1;
        let rank = nearest.iter().position(|other| labels[other.index as usize] == *label);
        for (found, k) in found.iter_mut().zip(ks) {
            *found += usize::from(rank.is_some_and(|rank| rank < *k));
        }
    }
    if asked == 0 {
        return Ok(None);
    }
    Ok(Some(found.into_iter().map(|found| found as f64 / asked as f64).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn worked_by_hand() {
        // On a line of directions: 1 1 2 1 2, then a lonely 3.
        let angles = [0.0_f32, 0.1, 0.25, 0.5, 0.9, 1.5];
        let vectors: Vec<f32> =
            angles.iter().flat_map(|angle| [angle.cos(), angle.sin()]).collect();
        let labels = [1, 1, 2, 1, 2, 3];
        // Nearest others: 0 -> 1; 1 -> 0; 2 -> 1, 0 and 3, 4; 3 -> 2, 1; 4 -> 3, 5, 2.
        let recall = recall_at(&vectors, &labels, 2, &[1, 2, 3, 4], &|| false).unwrap().unwrap();
        assert_eq!(recall, [2.0 / 5.0, 3.0 / 5.0, 4.0 / 5.0, 1.0]);
    }

    #[test]
    fn without_pairs_there_is_no_recall() {
        assert_eq!(recall_at(&[1.0, 2.0], &[1, 2], 1, &[1], &|| false).unwrap(), None);
        assert_eq!(recall_at(&[], &[], 3, &[1], &|| false).unwrap(), None);
    }
}
