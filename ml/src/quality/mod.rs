//! What vectors are worth: whether the nearest vectors belong to images of the same kind, and how vectors are spread where nobody
//! says what kind an image is.
//!
//! - [`neighbours`]: the nearest of many vectors, found exactly, a block of products at a time, and the class that they vote for;
//! - [`accuracy`]: how often that class is right, which an epoch of a training is measured by;
//! - [`classification`]: accuracy, precision, recall and F1 of any prediction;
//! - [`retrieval`]: how often a search finds another image of the same kind;
//! - [`distribution`]: alignment, uniformity, effective rank and dead dimensions, which need no labels.

pub mod accuracy;
pub mod classification;
pub mod distribution;
pub mod neighbours;
pub mod retrieval;

pub use accuracy::{knn_accuracy, knn_accuracy_among};
pub use classification::Classification;
pub use distribution::{dead_dimensions, effective_rank, squared_distance, uniformity};
pub use neighbours::{Gallery, Neighbour, Vote, vote};
pub use retrieval::recall_at;

/// Vectors of length 1 in the same directions; a vector of zeros stays one.
pub(crate) fn normalized(vectors: &[f32], dim: usize) -> Vec<f32> {
    let mut normalized = vectors.to_vec();
    for vector in normalized.chunks_exact_mut(dim.max(1)) {
        let length = vector.iter().map(|value| value * value).sum::<f32>().sqrt();
        if length > 0.0 {
            vector.iter_mut().for_each(|value| *value /= length);
        }
    }
    normalized
}
