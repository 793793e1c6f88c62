//! Accuracy of the k nearest neighbours. It needs no training of its own, has no settings but k, and is what a search in the
//! database does with the vectors.

use super::neighbours::{Gallery, vote};

/// The part of the test vectors, from 0 to 1, whose label is the one that most of the `k` nearest training vectors have.
///
/// Nearest is by cosine; a vector of zeros is equally far from all. Between labels with equally many votes the one with the larger sum of
/// cosines wins. Vectors are row-major, `[count, dim]`. Without test or training vectors, or with `k` 0, the accuracy is 0.
///
/// # Panics
///
/// If the labels are not as many as the vectors.
pub fn knn_accuracy(
    train: &[f32],
    train_labels: &[u32],
    test: &[f32],
    test_labels: &[u32],
    dim: usize,
    k: usize,
) -> f64 {
    let hits = count_hits(train, train_labels, test, test_labels, dim, k, |_| None);
    ratio(hits, test_labels.len())
}

/// Like [`knn_accuracy`] with the same vectors on both sides, each one looking for its neighbours among the others.
///
/// # Panics
///
/// If the labels are not as many as the vectors.
pub fn knn_accuracy_among(vectors: &[f32], labels: &[u32], dim: usize, k: usize) -> f64 {
    let hits = count_hits(vectors, labels, vectors, labels, dim, k, Some);
    ratio(hits, labels.len())
}

fn ratio(hits: usize, count: usize) -> f64 {
    if count == 0 { 0.0 } else { hits as f64 / count as f64 }
}

/// `skip` names the training vector that a test vector must not see.
fn count_hits(
    train: &[f32],
    train_labels: &[u32],
    test: &[f32],
    test_labels: &[u32],
    dim: usize,
    k: usize,
    skip: impl Fn(usize) -> Option<usize> + Sync,
) -> usize {
    assert_eq!(train.len(), train_labels.len() * dim, "a label for each training vector");
    assert_eq!(test.len(), test_labels.len() * dim, "a label for each test vector");
    if train.is_empty() || test.is_empty() || k == 0 {
        return 0;
    }
    let gallery = Gallery::new(train, dim);
    let nearest = gallery.nearest(test, k, skip, &|| false).expect("nobody stops it");
    nearest
        .iter()
        .zip(test_labels)
        .filter(|(nearest, label)| {
            vote(nearest, train_labels).is_some_and(|vote| vote.label == **label)
        })
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    /// More than a block of them, and no whole number of blocks.
    const COUNT: usize = 589;

    #[test]
    fn directions_decide_and_lengths_do_not() {
        let train = [1.0, 0.0, 100.0, 1.0, 0.0, 0.5, 0.1, 9.0];
        let labels = [1, 1, 2, 2];
        assert_eq!(knn_accuracy(&train, &labels, &[5.0, 0.1, 0.1, 5.0], &[1, 2], 2, 2), 1.0);
        assert_eq!(knn_accuracy(&train, &labels, &[5.0, 0.1, 0.1, 5.0], &[2, 2], 2, 2), 0.5);
    }

    #[test]
    fn most_votes_win_and_ties_go_to_the_nearer() {
        // Cosines with (1, 0): 1, 0.8, 0.6, 0.
        let train = [1.0, 0.0, 0.8, 0.6, 0.6, 0.8, 0.0, 1.0];
        let query = [1.0, 0.0];
        assert_eq!(knn_accuracy(&train, &[7, 8, 8, 9], &query, &[8], 2, 3), 1.0);
        assert_eq!(knn_accuracy(&train, &[7, 8, 8, 9], &query, &[7], 2, 2), 1.0);
        assert_eq!(knn_accuracy(&train, &[7, 8, 8, 9], &query, &[8], 2, 100), 1.0);
    }

    #[test]
    fn among_themselves_no_vector_sees_itself() {
        let vectors = [1.0, 0.0, 0.9, 0.1, 0.0, 1.0, 0.1, 0.9];
        assert_eq!(knn_accuracy_among(&vectors, &[1, 1, 2, 2], 2, 1), 1.0);
        assert_eq!(knn_accuracy_among(&vectors, &[1, 2, 3, 4], 2, 1), 0.0);
    }

    #[test]
    fn nothing_is_no_accuracy() {
        assert_eq!(knn_accuracy(&[], &[], &[1.0], &[1], 1, 5), 0.0);
        assert_eq!(knn_accuracy(&[1.0], &[1], &[], &[], 1, 5), 0.0);
        assert_eq!(knn_accuracy(&[1.0], &[1], &[1.0], &[1], 1, 0), 0.0);
        assert_eq!(knn_accuracy_among(&[1.0], &[1], 1, 5), 0.0);
        assert_eq!(knn_accuracy(&[f32::NAN, 0.0], &[1, 2], &[0.0], &[2], 1, 1), 1.0);
    }

    #[test]
    fn blocks_agree_with_a_plain_search() {
        let dim = 5;
        let mut random = Random::keyed(&[2]);
        let mut draw =
            |count: usize| -> Vec<f32> { (0..count * dim).map(|_| random.normal()).collect() };
        let (train, test) = (draw(300), draw(COUNT));
        let label = |vector: &[f32]| u32::from(vector[0] > 0.0) + 2 * u32::from(vector[1] > 0.0);
        let labels = |vectors: &[f32]| vectors.chunks(dim).map(label).collect::<Vec<_>>();
        let cosine = |a: &[f32], b: &[f32]| {
            let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
            dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
        };
        let plain = test
            .chunks(dim)
            .filter(|query| {
                let nearest = train
                    .chunks(dim)
                    .max_by(|a, b| cosine(a, query).total_cmp(&cosine(b, query)))
                    .unwrap();
                label(nearest) == label(query)
            })
            .count();
        let found = knn_accuracy(&train, &labels(&train), &test, &labels(&test), dim, 1);
        assert!((found - plain as f64 / COUNT as f64).abs() < 1e-9);
        assert!(found > 0.5);
    }
}
