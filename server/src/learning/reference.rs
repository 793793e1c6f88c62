//! A model's labelled vectors: those of the training images that had a target. PREDICT lets them vote.
//!
//! They are computed when the training ends and stored with the model, in the same commit, because the images may be gone or changed by the time they
//! are needed. The part holds nothing but the numbers, little-endian `f32`, `[labelled rows, dim]` in the order of the training rows; which rows are
//! labelled, and how, stands in the rows' own part.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, UInt32Array};
use thanosql_ml::quality::Gallery;
use thanosql_ml::{Images, MlError, Model};
use thanosql_protocol::{SqlError, SqlState};
use thanosql_storage::ModelEntry;

use super::model::{KeptRow, ModelMetadata, TrainingRows};

/// The part of a stored model that holds its labelled vectors.
pub(crate) const VECTORS_PART: &str = "vectors";

/// The labelled vectors of a model, ready to vote.
#[derive(Debug)]
pub struct Reference {
    gallery: Gallery,
    /// The class of each vector, a place in `classes`.
    labels: Vec<u32>,
    /// The classes in the target's own type.
    classes: ArrayRef,
    /// The classes as text.
    names: Vec<String>,
    /// From a training row to its vector.
    by_row: HashMap<u32, u32>,
    rows: Arc<TrainingRows>,
    bytes: u64,
}

/// The vectors of the labelled images, to be stored; none if no row has a target. `between` is called before every batch, and stops the work by an error.
pub(crate) fn labelled_vectors(
    model: &Model,
    images: &dyn Images,
    rows: &[KeptRow<'_>],
    mut between: impl FnMut() -> Result<(), MlError>,
) -> Result<Option<Vec<u8>>, MlError> {
    let labelled: Vec<usize> =
        (0..rows.len()).filter(|index| rows[*index].target.is_some()).collect();
    if labelled.is_empty() {
        return Ok(None);
    }
    let mut bytes = Vec::with_capacity(labelled.len() * model.embedding_dim() * size_of::<f32>());
    for chunk in labelled.chunks(model.batch()) {
        between()?;
        let vectors = model.embed(&images.fetch(chunk)?, &|| false)?;
        bytes.extend(vectors.iter().flat_map(|value| value.to_le_bytes()));
    }
    Ok(Some(bytes))
}

impl Reference {
    /// Reads the labelled vectors of a stored model. Blocking.
    ///
    /// Errors: 55000 if it has none, XX001 if they do not fit its rows.
    pub(crate) fn read(
        entry: &ModelEntry,
        metadata: &ModelMetadata,
        rows: Arc<TrainingRows>,
    ) -> Result<Reference, SqlError> {
        check_labelled(entry, metadata)?;
        let bytes = entry.part(VECTORS_PART).map_err(crate::error::storage_error)?;
        let dim = metadata.embedding_dim;
        let corrupted = || {
            SqlError::new(
                SqlState::DATA_CORRUPTED,
                format!("the vectors of the model \"{}\" do not fit its rows", entry.name()),
            )
        };
        let (numbers, rest) = bytes.as_chunks::<4>();
        let vectors: Vec<f32> = numbers.iter().map(|number| f32::from_le_bytes(*number)).collect();
        let targets = rows.targets();
        let labelled: Vec<usize> =
            (0..targets.len()).filter(|row| targets.is_valid(*row)).collect();
        if !rest.is_empty() || dim == 0 || vectors.len() != labelled.len() * dim {
            return Err(corrupted());
        }
        // Each distinct target, in the order of their texts, with a row that has it.
        let first: BTreeMap<&str, u32> =
            labelled.iter().rev().map(|row| (targets.value(*row), *row as u32)).collect();
        let numbers: HashMap<&str, u32> = first.keys().copied().zip(0..).collect();
        let labels = labelled.iter().map(|row| numbers[targets.value(*row)]).collect();
        let classes = arrow::compute::take(
            rows.typed_targets().as_ref(),
            &UInt32Array::from_iter_values(first.values().copied()),
            None,
        )
        .map_err(crate::error::arrow_error)?;
        let names = first.keys().map(|name| (*name).to_owned()).collect();
        let by_row = labelled.iter().map(|row| *row as u32).zip(0..).collect();
        let gallery = Gallery::new(&vectors, dim);
        let bytes = (bytes.len() + labelled.len() * 24) as u64;
        Ok(Reference { gallery, labels, classes, names, by_row, rows, bytes })
    }

    /// The vectors.
    pub fn gallery(&self) -> &Gallery {
        &self.gallery
    }

    /// The class of each vector, a place in [`classes`](Self::classes).
    pub fn labels(&self) -> &[u32] {
        &self.labels
    }

    /// The classes, in the target's own type.
    pub fn classes(&self) -> &ArrayRef {
        &self.classes
    }

    /// The classes, as text.
    pub fn class_names(&self) -> &[String] {
        &self.names
    }

    /// The vector of a training image, by its path.
    pub fn find(&self, path: &str) -> Option<usize> {
        let row = u32::try_from(self.rows.find(path)?).ok()?;
        self.by_row.get(&row).map(|place| *place as usize)
    }

    /// What it takes in memory, in bytes, besides the rows.
    pub(crate) fn memory_bytes(&self) -> u64 {
        self.bytes
    }
}

/// Whether a model keeps labelled vectors.
pub fn is_labelled(entry: &ModelEntry) -> bool {
    entry.parts().any(|(part, _)| part == VECTORS_PART)
}

/// Errors: 55000 if a model keeps no labelled vectors.
pub fn check_labelled(entry: &ModelEntry, metadata: &ModelMetadata) -> Result<(), SqlError> {
    if is_labelled(entry) {
        return Ok(());
    }
    let why = match &metadata.target {
        None => format!("the model \"{}\" was trained without targets", entry.name()),
        Some(target) => format!(
            "the model \"{}\" keeps no image with a \"{}\" to compare with",
            entry.name(),
            target.name
        ),
    };
    Err(SqlError::new(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, why).with_hint(
        "BUILD MODEL or FIT MODEL with OPTIONS (target_col='...') keeps what PREDICT compares with.",
    ))
}
