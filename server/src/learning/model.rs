//! What a stored model is besides its weights: the metadata (JSON), the rows that it was trained with (Arrow IPC), and
//! the mark that its vectors carry so that vectors of two versions are never compared.
//!
//! storage keeps all of this without looking into it. The version of a model is storage's count, not part of the
//! metadata: it is given out when the model is stored.

use std::collections::HashMap;
use std::io::Cursor;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, StringArray, StringBuilder};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::ipc::reader::FileReader;
use arrow::ipc::writer::FileWriter;
use serde::{Deserialize, Serialize};
use thanosql_ml::InputSpec;
use thanosql_protocol::{SqlError, SqlState, types};
use thanosql_storage::ModelEntry;

use crate::files::normal_path;
use crate::learning::job::EpochRecord;

/// The part of a stored model that holds the weights, as safetensors.
pub const WEIGHTS_PART: &str = "weights";
/// The part that holds the training rows.
pub const ROWS_PART: &str = "rows";
/// The algorithm's name as LIST MODEL shows it.
pub const ALGORITHM: &str = "SimCLR";

/// A vector column's metadata: the name of the model that made it.
const MODEL_KEY: &str = "thanosql.model";
/// A vector column's metadata: that model's version.
const MODEL_VERSION_KEY: &str = "thanosql.model_version";

const METADATA_FORMAT: u32 = 1;

/// The column that CREATE TABLE USING and CONVERT name after a model: `mnist_model_simclr`.
pub fn vector_column_name(model: &str) -> String {
    format!("{model}_{}", ALGORITHM).to_lowercase()
}

/// A column of the training query that is kept with the model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetColumn {
    /// Its name.
    pub name: String,
    /// The PostgreSQL type of its values.
    pub type_oid: u32,
}

impl TargetColumn {
    /// Keeps the column's name and type.
    pub fn of(field: &Field) -> TargetColumn {
        TargetColumn { name: field.name().clone(), type_oid: types::type_oid(field) }
    }

    /// The Arrow type of the values; text if the type is one that is not known any more.
    pub fn data_type(&self) -> DataType {
        types::data_type(self.type_oid).unwrap_or(DataType::Utf8)
    }
}

/// The shape of the images that the model reads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputMetadata {
    /// Side of the square in pixels.
    pub size: u32,
    /// `gray` or `rgb`.
    pub color: String,
}

impl InputMetadata {
    pub(crate) fn of(spec: InputSpec) -> InputMetadata {
        InputMetadata { size: spec.size, color: super::request::color_name(spec.color).to_owned() }
    }
}

/// How long a training took, in seconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Timings {
    /// From filing to start.
    pub queued: f64,
    /// Reading and decoding the images.
    pub loading: f64,
    /// Training itself.
    pub training: f64,
}

/// Where a model that came as a file has been before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// Its name there.
    pub name: String,
    /// Its version there.
    pub version: u64,
    /// Microseconds since 1970, UTC.
    pub created_at: i64,
    /// Who trained it.
    pub user: String,
    /// The statement that it was trained with.
    pub statement: String,
}

/// Everything that is kept of a model besides weights and rows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelMetadata {
    /// Of this layout.
    pub format: u32,
    /// The model's name.
    pub name: String,
    /// `SimCLR`.
    pub algorithm: String,
    /// Microseconds since 1970, UTC.
    pub created_at: i64,
    /// The job that made it; none made one that came as a file.
    pub job: Option<u64>,
    /// Who filed the job.
    pub user: String,
    /// The statement.
    pub statement: String,
    /// The options as the statement gave them.
    pub options_given: serde_json::Value,
    /// The recipe that was followed, chosen values included.
    pub options_used: serde_json::Value,
    /// The model whose weights it started from: name and version.
    pub started_from: Option<(String, u64)>,
    /// SHA-256, in hexadecimal, of the file with the pretrained weights that it started from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pretrained: Option<String>,
    /// What it was where it was trained, if it came as a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uploaded_from: Option<Origin>,
    /// The query's column with paths or images.
    pub image_col: String,
    /// The query's column with file names.
    pub fname_col: Option<String>,
    /// The query's column with targets.
    pub target: Option<TargetColumn>,
    /// Images that it was trained with.
    pub images: u64,
    /// Rows that were left out because their images could not be read (`on_error='skip'`).
    pub skipped: u64,
    /// SHA-256, in hexadecimal, over the shape and the pixels of the training images in their order.
    pub fingerprint: String,
    /// What it reads.
    pub input: InputMetadata,
    /// Length of its vectors.
    pub embedding_dim: usize,
    /// The network's name.
    pub encoder: String,
    /// The finished epochs.
    pub curve: Vec<EpochRecord>,
    /// The device that it was trained on.
    pub device: String,
    /// How long that took.
    pub timings: Timings,
}

impl ModelMetadata {
    pub(crate) const FORMAT: u32 = METADATA_FORMAT;

    /// Reads a stored model's metadata.
    pub fn read(entry: &ModelEntry) -> Result<ModelMetadata, SqlError> {
        ModelMetadata::from_json(entry.metadata()).map_err(|reason| {
            SqlError::new(
                SqlState::DATA_CORRUPTED,
                format!("the metadata of the model \"{}\" cannot be read: {reason}", entry.name()),
            )
        })
    }

    fn from_json(bytes: &[u8]) -> Result<ModelMetadata, String> {
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        let Format { format } = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if format != METADATA_FORMAT {
            return Err(format!("it has format {format}, this server knows {METADATA_FORMAT}"));
        }
        serde_json::from_slice(bytes).map_err(|error| error.to_string())
    }

    /// The name of its vector column.
    pub fn vector_column(&self) -> String {
        vector_column_name(&self.name)
    }
}

/// The column of a model's vectors, `name vector(dim)`, with the mark of the model that made them.
pub fn vector_field(name: &str, entry: &ModelEntry, embedding_dim: usize) -> Field {
    Field::new(name, vector_type(embedding_dim), true)
        .with_metadata(Mark::of_model(entry).metadata())
}

/// `vector(dim)`.
pub fn vector_type(dim: usize) -> DataType {
    // No model comes near 2^31; the storage of its vectors would.
    crate::plan::types::vector(i32::try_from(dim).unwrap_or(i32::MAX))
}

/// The mark of the model that made a column's vectors: its name and version. The column's field carries it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark {
    /// The model's name.
    pub model: String,
    /// Its version.
    pub version: String,
}

impl Mark {
    /// The mark that a field carries.
    pub fn of(field: &Field) -> Option<Mark> {
        let metadata = field.metadata();
        Some(Mark {
            model: metadata.get(MODEL_KEY)?.clone(),
            version: metadata.get(MODEL_VERSION_KEY)?.clone(),
        })
    }

    /// The mark of the vectors that a stored model makes.
    pub fn of_model(entry: &ModelEntry) -> Mark {
        Mark { model: entry.name().to_owned(), version: entry.version().to_string() }
    }

    /// The metadata of a field that carries this mark.
    pub fn metadata(&self) -> HashMap<String, String> {
        HashMap::from([
            (MODEL_KEY.to_owned(), self.model.clone()),
            (MODEL_VERSION_KEY.to_owned(), self.version.clone()),
        ])
    }
}

/// 55000: a column's vectors were made by another model or version than `entry`.
pub fn other_vectors(column: &str, mark: &Mark, entry: &ModelEntry) -> SqlError {
    let Mark { model, version } = mark;
    let message = if model.as_str() == entry.name() {
        format!(
            "the vectors in \"{column}\" were made by version {version} of the model \"{model}\", which is version {} now",
            entry.version()
        )
    } else {
        format!(
            "the vectors in \"{column}\" were made by the model \"{model}\", not by \"{}\"",
            entry.name()
        )
    };
    SqlError::new(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, message)
        .with_hint(format!("CONVERT USING {} makes new vectors.", entry.name()))
}

/// The rows that a model was trained with: path, file name and target of each image, and the way from a path to them.
#[derive(Debug)]
pub struct TrainingRows {
    paths: StringArray,
    filenames: StringArray,
    targets: StringArray,
    /// The targets in their own type, row by row.
    typed_targets: ArrayRef,
    by_path: HashMap<String, u32>,
}

impl TrainingRows {
    /// Reads the rows of a stored model. Blocking.
    pub fn read(entry: &ModelEntry, metadata: &ModelMetadata) -> Result<TrainingRows, SqlError> {
        let bytes = entry.part(ROWS_PART).map_err(crate::error::storage_error)?;
        let target_type = metadata.target.as_ref().map_or(DataType::Utf8, TargetColumn::data_type);
        TrainingRows::from_ipc(bytes, &target_type).map_err(|reason| {
            SqlError::new(
                SqlState::DATA_CORRUPTED,
                format!(
                    "the training rows of the model \"{}\" cannot be read: {reason}",
                    entry.name()
                ),
            )
        })
    }

    pub(crate) fn from_ipc(bytes: Vec<u8>, target_type: &DataType) -> Result<TrainingRows, String> {
        let reader =
            FileReader::try_new(Cursor::new(bytes), None).map_err(|error| error.to_string())?;
        let schema = reader.schema();
        let batches = reader.collect::<Result<Vec<_>, _>>().map_err(|error| error.to_string())?;
        let batch =
            arrow::compute::concat_batches(&schema, &batches).map_err(|error| error.to_string())?;
        let text = |name: &str| {
            batch
                .column_by_name(name)
                .and_then(|column| column.as_any().downcast_ref::<StringArray>().cloned())
                .ok_or_else(|| format!("no text column {name}"))
        };
        let (paths, filenames, targets) = (text("path")?, text("filename")?, text("target")?);
        let typed_targets =
            arrow::compute::cast(&targets, target_type).map_err(|error| error.to_string())?;
        let mut by_path = HashMap::with_capacity(paths.len());
        for row in 0..paths.len() {
            if paths.is_valid(row) {
                let row_number = u32::try_from(row).map_err(|_| "too many rows".to_owned())?;
                by_path.entry(normal_path(paths.value(row))).or_insert(row_number);
            }
        }
        Ok(TrainingRows { paths, filenames, targets, typed_targets, by_path })
    }

    /// The rows as they are stored.
    pub(crate) fn to_ipc(rows: &[KeptRow<'_>]) -> Result<Vec<u8>, arrow::error::ArrowError> {
        let column = |value: fn(&KeptRow<'_>) -> Option<String>| {
            let mut builder = StringBuilder::new();
            for row in rows {
                builder.append_option(value(row));
            }
            Arc::new(builder.finish()) as ArrayRef
        };
        let schema = Arc::new(Schema::new(vec![
            Field::new("path", DataType::Utf8, true),
            Field::new("filename", DataType::Utf8, true),
            Field::new("target", DataType::Utf8, true),
        ]));
        let batch = RecordBatch::try_new(
            Arc::clone(&schema),
            vec![
                column(|row| row.path.map(str::to_owned)),
                column(|row| row.filename.map(str::to_owned)),
                column(|row| row.target.map(str::to_owned)),
            ],
        )?;
        let mut bytes = Vec::new();
        let mut writer = FileWriter::try_new(&mut bytes, &schema)?;
        writer.write(&batch)?;
        writer.finish()?;
        drop(writer);
        Ok(bytes)
    }

    /// What the rows take in memory, in bytes.
    pub(crate) fn memory_bytes(&self) -> u64 {
        let index: usize = self.by_path.keys().map(|path| path.len() + 40).sum();
        let columns = self.paths.get_array_memory_size()
            + self.filenames.get_array_memory_size()
            + self.targets.get_array_memory_size()
            + self.typed_targets.get_array_memory_size();
        (index + columns) as u64
    }

    #[cfg(test)]
    pub(crate) fn for_tests(bytes: Vec<u8>) -> TrainingRows {
        TrainingRows::from_ipc(bytes, &DataType::Utf8).expect("the test made the bytes")
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.paths.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.paths.is_empty()
    }

    /// The row of an image by its path; spellings that differ in slashes or `.` are one.
    pub fn find(&self, path: &str) -> Option<usize> {
        let row = match self.by_path.get(path) {
            Some(row) => *row,
            None => *self.by_path.get(&normal_path(path))?,
        };
        Some(row as usize)
    }

    /// The paths of the training images, row by row; NULL where an image was given as bytes.
    pub fn paths(&self) -> &StringArray {
        &self.paths
    }

    /// The file names, row by row.
    pub fn filenames(&self) -> &StringArray {
        &self.filenames
    }

    /// The targets in text form, row by row.
    pub fn targets(&self) -> &StringArray {
        &self.targets
    }

    /// The targets in their own type, row by row.
    pub fn typed_targets(&self) -> &ArrayRef {
        &self.typed_targets
    }
}

/// One row to keep.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeptRow<'a> {
    pub(crate) path: Option<&'a str>,
    pub(crate) filename: Option<&'a str>,
    pub(crate) target: Option<&'a str>,
}

#[cfg(test)]
mod tests {
    use arrow::array::Int64Array;

    use super::*;

    #[test]
    fn the_tutorials_column_name() {
        assert_eq!(vector_column_name("mnist_model"), "mnist_model_simclr");
        assert_eq!(vector_column_name("Mixed"), "mixed_simclr");
    }

    #[test]
    fn rows_are_found_by_path_in_other_spellings() {
        let kept = [
            KeptRow { path: Some("/d/1.jpg"), filename: Some("1.jpg"), target: Some("7") },
            KeptRow { path: None, filename: None, target: None },
            KeptRow { path: Some("/d//숫자/./2.jpg"), filename: None, target: Some("3") },
        ];
        let bytes = TrainingRows::to_ipc(&kept).unwrap();
        let rows = TrainingRows::from_ipc(bytes, &DataType::Int64).unwrap();
        assert_eq!(rows.len(), 3);
        assert_eq!(rows.find("/d/1.jpg"), Some(0));
        assert_eq!(rows.find("/d/./1.jpg"), Some(0));
        assert_eq!(rows.find("/d/숫자/2.jpg"), Some(2));
        assert_eq!(rows.find("/d/3.jpg"), None);
        let expected: ArrayRef = Arc::new(Int64Array::from(vec![Some(7), None, Some(3)]));
        assert_eq!(rows.typed_targets(), &expected);
        assert!(TrainingRows::from_ipc(b"no rows".to_vec(), &DataType::Int64).is_err());
    }
}
