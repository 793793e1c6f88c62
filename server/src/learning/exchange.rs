//! A stored model as a file and back: what EXPORT MODEL writes and UPLOAD MODEL reads.
//!
//! The file is [`thanosql_ml::ModelFile`]'s: safetensors with the weights, and as text in its header a [`Configuration`], which is the model's
//! metadata with its version and the version of this layout. The rows that the model was trained with travel too, paths, file names and
//! targets without images, because CONVERT, PREDICT and EVALUATE answer from them; whoever gives a model away gives these away. Each row is a line of
//! JSON, `["path", "file name", "target"]`.
//!
//! A file may come from anyone. Everything that it says is checked before a model exists: by `ml` what it computes with, here what is said
//! about it. What the file cannot know is made anew: name, version, date, who uploaded it, and the statement that made it here; the
//! number of a job never comes along, because it would be another server's.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use thanosql_ml::{ComputeDevice, MlError, Model, ModelFile};
use thanosql_protocol::{SqlError, SqlState, types};
use thanosql_storage::ModelEntry;

use super::failure::ml_error;
use super::job::now_us;
use super::model::{
    ALGORITHM, InputMetadata, KeptRow, ModelMetadata, Origin, TrainingRows, WEIGHTS_PART,
};
use super::{Learning, LearningOptions};

/// The version of the layout that is written, and the only one that is read.
const FORMAT: u32 = 1;

/// Longest name of a column, in bytes, as in PostgreSQL.
const MAX_NAME_BYTES: usize = 63;

/// Most epochs, as BUILD MODEL takes them.
const MAX_EPOCHS: usize = 100_000;

/// What is said about a model in its file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Configuration {
    /// Of this layout.
    format: u32,
    /// The program that wrote it.
    program: String,
    /// The model's version where it was exported.
    version: u64,
    model: ModelMetadata,
}

/// One line of the rows.
type Line<T> = (Option<T>, Option<T>, Option<T>);

/// A model from a file, ready to be stored.
#[derive(Debug)]
pub struct UploadedModel {
    /// Its metadata, as JSON.
    pub metadata: Vec<u8>,
    /// Its weights.
    pub weights: Vec<u8>,
    /// The rows that it was trained with.
    pub rows: Vec<u8>,
}

impl Learning {
    /// The bytes of a model's file. Blocking.
    ///
    /// # Errors
    /// XX001 if the store's copy is damaged.
    pub fn export(&self, entry: &ModelEntry) -> Result<Vec<u8>, SqlError> {
        let mut model = ModelMetadata::read(entry)?;
        model.job = None;
        let rows = self.training_rows(entry)?;
        let mut lines = Vec::new();
        for row in 0..rows.len() {
            let text = |column: &arrow::array::StringArray| {
                arrow::array::Array::is_valid(column, row).then(|| column.value(row).to_owned())
            };
            let line: Line<String> =
                (text(rows.paths()), text(rows.filenames()), text(rows.targets()));
            serde_json::to_writer(&mut lines, &line).map_err(crate::error::internal)?;
            lines.push(b'\n');
        }
        let configuration = Configuration {
            format: FORMAT,
            program: concat!("thanosql ", env!("CARGO_PKG_VERSION")).to_owned(),
            version: entry.version(),
            model,
        };
        let file = ModelFile {
            model: entry.part(WEIGHTS_PART).map_err(crate::error::storage_error)?,
            configuration: serde_json::to_string(&configuration).map_err(crate::error::internal)?,
            rows: Some(lines),
        };
        file.to_bytes().map_err(ml_error)
    }

    /// Checks a model's file and makes it a model of this server. Blocking.
    ///
    /// # Errors
    /// 22P03 for what is no model or does not fit together, 0A000 for another algorithm, 54000 for images that are larger than allowed here.
    pub fn uploaded(
        &self,
        bytes: &[u8],
        name: &str,
        user: &str,
        statement: String,
    ) -> Result<UploadedModel, SqlError> {
        take_over(bytes, self.options(), name, user, statement)
    }
}

fn take_over(
    bytes: &[u8],
    options: &LearningOptions,
    name: &str,
    user: &str,
    statement: String,
) -> Result<UploadedModel, SqlError> {
    let file = ModelFile::from_bytes(bytes).map_err(no_model)?;
    let network = Model::from_safetensors(&file.model, &ComputeDevice::cpu()).map_err(no_model)?;
    let configuration: Configuration =
        serde_json::from_str(&file.configuration).map_err(|error| refused(error.to_string()))?;
    if configuration.format != FORMAT {
        return Err(refused(format!(
            "its format is {}, this server knows {FORMAT}",
            configuration.format
        )));
    }
    let Configuration { version, model, .. } = configuration;
    check(&model, &network)?;
    let (side, limits) = (model.input.size, &options.limits);
    if side > limits.max_side || u64::from(side) * u64::from(side) > limits.max_pixels {
        return Err(SqlError::new(
            SqlState::PROGRAM_LIMIT_EXCEEDED,
            format!("the model reads images of {side} x {side} pixels, more than are allowed"),
        )
        .with_hint("The settings max_image_side and max_image_pixels are the limits."));
    }
    let rows = read_rows(&file.rows.unwrap_or_default(), &model)?;
    let origin = Origin {
        name: model.name.clone(),
        version,
        created_at: model.created_at,
        user: model.user.clone(),
        statement: model.statement.clone(),
    };
    let metadata = ModelMetadata {
        format: ModelMetadata::FORMAT,
        name: name.to_owned(),
        created_at: now_us(),
        job: None,
        user: user.to_owned(),
        statement,
        // A model that travels twice remembers where it was trained.
        uploaded_from: Some(model.uploaded_from.clone().unwrap_or(origin)),
        ..model
    };
    Ok(UploadedModel {
        metadata: serde_json::to_vec(&metadata).map_err(crate::error::internal)?,
        weights: file.model,
        rows,
    })
}

/// That what is said about a model is true of its network, and can be shown.
fn check(model: &ModelMetadata, network: &Model) -> Result<(), SqlError> {
    if model.algorithm != ALGORITHM {
        return Err(SqlError::new(
            SqlState::FEATURE_NOT_SUPPORTED,
            format!("models of the algorithm \"{}\" are not supported", shown(&model.algorithm)),
        ));
    }
    let said = (&model.input, model.embedding_dim, model.encoder.as_str());
    if said
        != (&InputMetadata::of(network.input()), network.embedding_dim(), network.encoder_name())
    {
        return Err(refused("its configuration does not fit its weights"));
    }
    let target = model.target.as_ref();
    let names =
        [Some(&model.image_col), model.fname_col.as_ref(), target.map(|target| &target.name)];
    let is_name = |name: &String| matches!(name.len(), 1..=MAX_NAME_BYTES);
    if !names.into_iter().flatten().all(is_name) {
        return Err(refused("a column's name is empty or too long"));
    }
    if target.is_some_and(|target| types::data_type(target.type_oid).is_none()) {
        return Err(refused("the type of its target is not known"));
    }
    let in_order = model.curve.iter().zip(1..).all(|(point, epoch)| point.epoch == epoch);
    if !in_order || model.curve.len() > MAX_EPOCHS {
        return Err(refused("its loss curve is out of order"));
    }
    let is_digest = |text: &String| text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
    if !is_digest(&model.fingerprint) || !model.pretrained.iter().all(is_digest) {
        return Err(refused("a fingerprint in it is none"));
    }
    // Counts and versions are shown as numbers of 64 bits with a sign.
    if [model.images, model.skipped].iter().any(|count| i64::try_from(*count).is_err()) {
        return Err(refused("its number of images is too large"));
    }
    let all = serde_json::to_value(model).map_err(crate::error::internal)?;
    if holds_zero(&all) {
        return Err(refused("a text in it holds the character with code zero"));
    }
    Ok(())
}

/// Whether a text holds what no text here can. JSON nests no deeper than its parser allowed.
fn holds_zero(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
        Value::String(text) => text.contains('\0'),
        Value::Array(values) => values.iter().any(holds_zero),
        Value::Object(entries) => {
            entries.iter().any(|(name, value)| name.contains('\0') || holds_zero(value))
        }
    }
}

/// The rows of a file as they are stored.
fn read_rows(bytes: &[u8], model: &ModelMetadata) -> Result<Vec<u8>, SqlError> {
    let text = std::str::from_utf8(bytes).map_err(|_| refused("its rows are not UTF-8"))?;
    let mut lines: Vec<Line<String>> = Vec::new();
    for line in text.lines() {
        let line: Line<String> = serde_json::from_str(line)
            .map_err(|error| refused(format!("row {} cannot be read: {error}", lines.len() + 1)))?;
        let texts = [&line.0, &line.1, &line.2];
        if texts.into_iter().flatten().any(|text| text.contains('\0')) {
            return Err(refused("a row holds the character with code zero"));
        }
        lines.push(line);
    }
    // A model that was exported without its rows has none; else they are those of its images.
    if !lines.is_empty() && lines.len() as u64 != model.images {
        return Err(refused("it has not as many rows as images"));
    }
    let kept: Vec<KeptRow<'_>> = lines
        .iter()
        .map(|(path, filename, target)| KeptRow {
            path: path.as_deref(),
            filename: filename.as_deref(),
            target: target.as_deref(),
        })
        .collect();
    let rows = TrainingRows::to_ipc(&kept).map_err(crate::error::arrow_error)?;
    let target_type =
        model.target.as_ref().map_or(arrow::datatypes::DataType::Utf8, |target| target.data_type());
    TrainingRows::from_ipc(rows.clone(), &target_type)
        .map_err(|reason| refused(format!("its targets cannot be read: {reason}")))?;
    Ok(rows)
}

fn no_model(error: MlError) -> SqlError {
    if let MlError::InvalidModel { reason } = error { refused(reason) } else { ml_error(error) }
}

/// 22P03.
fn refused(reason: impl Into<String>) -> SqlError {
    SqlError::new(
        SqlState::INVALID_BINARY_REPRESENTATION,
        format!("the file holds no model that can be used: {}", reason.into()),
    )
    .with_hint("UPLOAD MODEL reads what EXPORT MODEL writes.")
}

fn shown(text: &str) -> String {
    text.chars().take(40).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A model without training, as its file's configuration and rows describe it.
    fn example() -> (ModelFile, Value) {
        let input = thanosql_ml::InputSpec { size: 8, color: thanosql_ml::Color::Gray };
        let images = thanosql_ml::ImageSet::new(input, vec![7; 3 * 64]).unwrap();
        struct Nobody;
        impl thanosql_ml::TrainingObserver for Nobody {
            fn on_step(&mut self, _: &thanosql_ml::StepProgress) -> thanosql_ml::Flow {
                thanosql_ml::Flow::Continue
            }
            fn on_epoch(&mut self, _: &thanosql_ml::EpochReport) -> thanosql_ml::Flow {
                thanosql_ml::Flow::Continue
            }
        }
        let options =
            thanosql_ml::TrainOptions { max_epochs: 0, ..thanosql_ml::TrainOptions::default() };
        let device = ComputeDevice::cpu();
        let trained =
            thanosql_ml::train(&images, None, &options, None, None, &device, &mut Nobody).unwrap();
        let configuration = serde_json::json!({
            "format": 1,
            "program": "thanosql 0",
            "version": 3,
            "model": {
                "format": 1, "name": "far", "algorithm": "SimCLR", "created_at": 5, "job": null, "user": "u",
                "statement": "BUILD MODEL far", "options_given": {}, "options_used": trained.recipe,
                "started_from": ["base", 1], "image_col": "image", "fname_col": null,
                "target": { "name": "label", "type_oid": 20 }, "images": 3, "skipped": 0,
                "fingerprint": "0".repeat(64), "input": { "size": 8, "color": "gray" },
                "embedding_dim": 128, "encoder": "compact",
                "curve": [{ "epoch": 1, "loss": 2.5, "knn_accuracy": null, "seconds": 0.5 }],
                "device": "cpu", "timings": { "queued": 0.0, "loading": 0.5, "training": 1.0 },
            },
        });
        let rows = b"[\"/d/1.jpg\",\"1.jpg\",\"7\"]\n[null,null,null]\n[\"\xec\x88\xab/2.jpg\",null,\"8\"]\n";
        let file = ModelFile {
            model: trained.model.to_safetensors().unwrap(),
            configuration: configuration.to_string(),
            rows: Some(rows.to_vec()),
        };
        (file, configuration)
    }

    fn upload(file: &ModelFile) -> Result<UploadedModel, SqlError> {
        let statement = "UPLOAD MODEL near FROM 'f'".to_owned();
        take_over(&file.to_bytes().unwrap(), &LearningOptions::default(), "near", "me", statement)
    }

    #[test]
    fn a_file_becomes_a_model_of_this_server() {
        let (file, _) = example();
        let model = upload(&file).unwrap();
        assert_eq!(model.weights, file.model);
        let metadata: ModelMetadata = serde_json::from_slice(&model.metadata).unwrap();
        assert_eq!((metadata.name.as_str(), metadata.user.as_str()), ("near", "me"));
        assert_eq!(
            (metadata.job, metadata.statement.as_str()),
            (None, "UPLOAD MODEL near FROM 'f'")
        );
        assert!(metadata.created_at > 5);
        let origin = metadata.uploaded_from.unwrap();
        assert_eq!((origin.name.as_str(), origin.version, origin.created_at), ("far", 3, 5));
        assert_eq!(origin.statement, "BUILD MODEL far");
        let rows = TrainingRows::from_ipc(model.rows, &arrow::datatypes::DataType::Int64).unwrap();
        assert_eq!(
            (rows.len(), rows.find("/d/1.jpg"), rows.find("숫/2.jpg")),
            (3, Some(0), Some(2))
        );
        let without = ModelFile { rows: None, ..file };
        let rows = upload(&without).unwrap().rows;
        let rows = TrainingRows::from_ipc(rows, &arrow::datatypes::DataType::Int64).unwrap();
        assert!(rows.is_empty());
    }

    #[test]
    fn what_a_file_says_must_be_true() {
        let (file, configuration) = example();
        let long = "x".repeat(64);
        type Change<'a> = &'a dyn Fn(&mut Value);
        let changes: [(&str, Change<'_>); 18] = [
            ("format", &|all| all["format"] = 2.into()),
            ("unknown field", &|all| all["more"] = 2.into()),
            ("version", &|all| all["version"] = (-1).into()),
            ("embedding_dim", &|all| all["model"]["embedding_dim"] = 129.into()),
            ("encoder", &|all| all["model"]["encoder"] = "resnet18".into()),
            ("size", &|all| all["model"]["input"]["size"] = 9.into()),
            ("color", &|all| all["model"]["input"]["color"] = "rgb".into()),
            ("name", &|all| all["model"]["image_col"] = "".into()),
            ("name", &|all| all["model"]["image_col"] = long.clone().into()),
            ("type", &|all| all["model"]["target"]["type_oid"] = 4_000_000_000_u32.into()),
            ("curve", &|all| all["model"]["curve"][0]["epoch"] = 2.into()),
            ("fingerprint", &|all| all["model"]["fingerprint"] = "00".into()),
            ("pretrained", &|all| all["model"]["pretrained"] = "00".into()),
            ("images", &|all| all["model"]["images"] = u64::MAX.into()),
            ("rows", &|all| all["model"]["images"] = 4.into()),
            ("zero", &|all| all["model"]["user"] = "a\0".into()),
            ("zero", &|all| all["model"]["options_used"]["a\0"] = 1.into()),
            ("missing", &|all| drop(all["model"].as_object_mut().unwrap().remove("statement"))),
        ];
        for (what, change) in changes {
            let mut changed = configuration.clone();
            change(&mut changed);
            let file = ModelFile { configuration: changed.to_string(), ..file.clone() };
            let error = upload(&file).unwrap_err();
            assert_eq!(error.code, SqlState::INVALID_BINARY_REPRESENTATION, "{what}: {error}");
        }
        let mut other = configuration.clone();
        other["model"]["algorithm"] = "CLIP".into();
        let other = ModelFile { configuration: other.to_string(), ..file.clone() };
        assert_eq!(upload(&other).unwrap_err().code, SqlState::FEATURE_NOT_SUPPORTED);
        let deep = "[".repeat(100_000);
        for text in ["", "{}", "null", deep.as_str()] {
            let file = ModelFile { configuration: text.to_owned(), ..file.clone() };
            assert!(upload(&file).is_err());
        }
        for rows in [&b"[]\n"[..], b"[null,null]\n", b"[1,2,3]\n", b"\xff\n", b"[null,null,null]\n"]
        {
            let file = ModelFile { rows: Some(rows.to_vec()), ..file.clone() };
            assert!(upload(&file).is_err(), "{rows:?}");
        }
        let mut options = LearningOptions::default();
        options.limits.max_side = 7;
        let bytes = file.to_bytes().unwrap();
        let error = take_over(&bytes, &options, "m", "u", String::new()).unwrap_err();
        assert_eq!(error.code, SqlState::PROGRAM_LIMIT_EXCEEDED);
    }
}
