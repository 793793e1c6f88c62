//! What vectors are worth.

/// Part of the test vectors whose nearest training vectors agree with their label.
pub fn knn_accuracy(train: &[f32], train_labels: &[u32], test: &[f32], test_labels: &[u32], dim: usize, k: usize) -> f64 {
    let _ = (train, train_labels, test, test_labels, dim, k);
    0.0
}
