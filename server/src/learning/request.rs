//! What a training was asked for, as it is kept in the store from the moment it is filed until it has ended.
//!
//! A training is run from what is kept, also when nothing happens in between: so the one that goes on after a crash reads what the first one
//! read, and a queue of a hundred trainings keeps no rows in memory. The form is an Arrow IPC file, a row a training row, with everything
//! else as JSON in its schema. Numbers with a fraction are kept as text: a JSON reader may change their last bit, and a checkpoint goes on
//! only from exactly the same options.
//!
//! A file is kept by the path that it was found under when the statement ran. [`TrainingRequest::check_files`] asks again whether it may
//! be read, because the server may have been given other data roots meanwhile.

use std::collections::HashMap;
use std::io::Cursor;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, LargeBinaryBuilder, RecordBatch, StringBuilder};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::ipc::reader::FileReader;
use arrow::ipc::writer::FileWriter;
use serde::{Deserialize, Serialize};
use thanosql_ml::images::ImageSource;
use thanosql_ml::{
    Augmentation, Color, ContrastiveLoss, DeviceChoice, EncoderChoice, TrainOptions,
};
use thanosql_protocol::{SqlError, SqlState};

use super::model::TargetColumn;
use super::{BuildRequest, OnError, TrainingRow};
use crate::files::FileAccess;

/// The version of this form that is written, and the only one that is read.
const FORMAT: u32 = 1;

/// The schema's entry with everything that is no row.
const HEADER: &str = "thanosql.request";

/// Rows that are written at once.
const ROWS_AT_ONCE: usize = 4096;

/// A training as it was asked for. Its name, statement and user are in the job's record.
#[derive(Clone, Debug)]
pub(crate) struct TrainingRequest {
    pub(crate) overwrite: bool,
    pub(crate) options: TrainOptions,
    pub(crate) options_given: serde_json::Value,
    pub(crate) image_size: Option<u32>,
    pub(crate) color: Option<Color>,
    pub(crate) on_error: OnError,
    pub(crate) rows: Vec<TrainingRow>,
    pub(crate) image_col: String,
    pub(crate) fname_col: Option<String>,
    pub(crate) target: Option<TargetColumn>,
    pub(crate) device: Option<DeviceChoice>,
    /// The name and version of the model that it starts from.
    pub(crate) start: Option<(String, u64)>,
    /// SHA-256 of the file with the weights that it starts from.
    pub(crate) pretrained: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    format: u32,
    overwrite: bool,
    max_epochs: u32,
    batch_size: Option<usize>,
    learning_rate: Option<String>,
    /// A name; the default in what older servers kept.
    #[serde(default)]
    loss: Option<String>,
    temperature: Option<String>,
    weight_decay: Option<String>,
    warmup_epochs: Option<String>,
    seed: u64,
    encoder: String,
    augmentations: Option<Vec<String>>,
    supervised: bool,
    options_given: String,
    image_size: Option<u32>,
    color: Option<String>,
    skip: bool,
    image_col: String,
    fname_col: Option<String>,
    target: Option<TargetColumn>,
    device: Option<String>,
    start: Option<(String, u64)>,
    pretrained: Option<String>,
}

/// The bytes of a request. `pretrained` is the digest of the weights that it starts from.
///
/// # Errors
/// XX000 if Arrow refuses, which no request causes.
pub(crate) fn encode(
    request: &BuildRequest,
    pretrained: Option<String>,
) -> Result<Vec<u8>, SqlError> {
    let exact = |number: Option<f64>| number.map(|number| format!("{number:?}"));
    let options = &request.options;
    let header = Header {
        format: FORMAT,
        overwrite: request.overwrite,
        max_epochs: options.max_epochs,
        batch_size: options.batch_size,
        learning_rate: exact(options.learning_rate),
        loss: Some(options.loss.name().to_owned()),
        temperature: exact(options.temperature),
        weight_decay: exact(options.weight_decay),
        warmup_epochs: exact(options.warmup_epochs),
        seed: options.seed,
        encoder: options.encoder.to_string(),
        augmentations: options
            .augmentations
            .as_ref()
            .map(|names| names.iter().map(|name| name.name().to_owned()).collect()),
        supervised: options.supervised,
        options_given: request.options_given.to_string(),
        image_size: request.image_size,
        color: request.color.map(|color| color_name(color).to_owned()),
        skip: request.on_error == OnError::Skip,
        image_col: request.image_col.clone(),
        fname_col: request.fname_col.clone(),
        target: request.target.clone(),
        device: request.device.map(|device| device.to_string()),
        start: request.start.as_ref().map(|entry| (entry.name().to_owned(), entry.version())),
        pretrained,
    };
    let header = serde_json::to_string(&header).map_err(crate::error::internal)?;
    let schema = Arc::new(
        Schema::new(vec![
            Field::new("path", DataType::Utf8, true),
            Field::new("filename", DataType::Utf8, true),
            Field::new("target", DataType::Utf8, true),
            Field::new("file", DataType::LargeBinary, true),
            Field::new("bytes", DataType::LargeBinary, true),
        ])
        .with_metadata(HashMap::from([(HEADER.to_owned(), header)])),
    );
    let mut bytes = Vec::new();
    write_rows(&mut bytes, &schema, &request.rows).map_err(crate::error::arrow_error)?;
    Ok(bytes)
}

fn write_rows(
    bytes: &mut Vec<u8>,
    schema: &SchemaRef,
    rows: &[TrainingRow],
) -> Result<(), arrow::error::ArrowError> {
    let mut writer = FileWriter::try_new(bytes, schema)?;
    for rows in rows.chunks(ROWS_AT_ONCE) {
        let text = |value: fn(&TrainingRow) -> Option<&str>| {
            let mut builder = StringBuilder::new();
            rows.iter().for_each(|row| builder.append_option(value(row)));
            Arc::new(builder.finish()) as ArrayRef
        };
        let (mut files, mut values) = (LargeBinaryBuilder::new(), LargeBinaryBuilder::new());
        for row in rows {
            match &row.image {
                ImageSource::Path(file) => {
                    files.append_value(file.as_os_str().as_encoded_bytes());
                    values.append_null();
                }
                ImageSource::Bytes(value) => {
                    files.append_null();
                    values.append_value(value);
                }
            }
        }
        let columns = vec![
            text(|row| row.path.as_deref()),
            text(|row| row.filename.as_deref()),
            text(|row| row.target.as_deref()),
            Arc::new(files.finish()),
            Arc::new(values.finish()),
        ];
        writer.write(&RecordBatch::try_new(Arc::clone(schema), columns)?)?;
    }
    writer.finish()
}

impl TrainingRequest {
    /// Reads what [`encode`] wrote.
    ///
    /// # Errors
    /// XX001.
    pub(crate) fn decode(bytes: Vec<u8>) -> Result<TrainingRequest, SqlError> {
        read(bytes).map_err(|reason| {
            SqlError::new(
                SqlState::DATA_CORRUPTED,
                format!("what the job was asked for cannot be read: {reason}"),
            )
        })
    }

    /// That every file may still be read. What is missing is found when it is opened.
    ///
    /// # Errors
    /// 42501 for a file that no data root holds any more.
    pub(crate) fn check_files(&self, files: &FileAccess) -> Result<(), SqlError> {
        for row in &self.rows {
            if let ImageSource::Path(file) = &row.image {
                let shown = row.path.as_deref();
                files.allow_again(file, shown.unwrap_or(&file.to_string_lossy()))?;
            }
        }
        Ok(())
    }
}

fn read(bytes: Vec<u8>) -> Result<TrainingRequest, String> {
    let text = |error: arrow::error::ArrowError| error.to_string();
    let reader = FileReader::try_new(Cursor::new(bytes), None).map_err(text)?;
    let schema = reader.schema();
    let header = schema.metadata().get(HEADER).ok_or("it has no header")?;
    let header: Header = serde_json::from_str(header).map_err(|error| error.to_string())?;
    if header.format != FORMAT {
        return Err(format!("it has format {}, this server knows {FORMAT}", header.format));
    }
    let mut rows = Vec::new();
    for batch in reader {
        read_rows(&batch.map_err(text)?, &mut rows)?;
    }
    let number = |text: &Option<String>| {
        text.as_deref().map(str::parse::<f64>).transpose().map_err(|error| error.to_string())
    };
    let name = |error: thanosql_ml::MlError| error.to_string();
    let augmentations = header.augmentations.as_ref().map(|names| {
        names.iter().map(|name| name.parse::<Augmentation>()).collect::<Result<Vec<_>, _>>()
    });
    Ok(TrainingRequest {
        overwrite: header.overwrite,
        options: TrainOptions {
            max_epochs: header.max_epochs,
            batch_size: header.batch_size,
            learning_rate: number(&header.learning_rate)?,
            loss: match &header.loss {
                Some(loss) => loss.parse::<ContrastiveLoss>().map_err(name)?,
                None => ContrastiveLoss::default(),
            },
            temperature: number(&header.temperature)?,
            weight_decay: number(&header.weight_decay)?,
            warmup_epochs: number(&header.warmup_epochs)?,
            seed: header.seed,
            encoder: header.encoder.parse::<EncoderChoice>().map_err(name)?,
            augmentations: augmentations.transpose().map_err(name)?,
            supervised: header.supervised,
        },
        options_given: serde_json::from_str(&header.options_given)
            .map_err(|error| error.to_string())?,
        image_size: header.image_size,
        color: match header.color.as_deref() {
            None => None,
            Some("gray") => Some(Color::Gray),
            Some("rgb") => Some(Color::Rgb),
            Some(other) => return Err(format!("unknown color \"{other}\"")),
        },
        on_error: if header.skip { OnError::Skip } else { OnError::Fail },
        rows,
        image_col: header.image_col,
        fname_col: header.fname_col,
        target: header.target,
        device: header
            .device
            .map(|device| device.parse::<DeviceChoice>())
            .transpose()
            .map_err(name)?,
        start: header.start,
        pretrained: header.pretrained,
    })
}

fn read_rows(batch: &RecordBatch, rows: &mut Vec<TrainingRow>) -> Result<(), String> {
    let missing = |name: &str| format!("its column {name} is missing");
    let text = |name: &str| {
        let column = batch.column_by_name(name).and_then(|column| column.as_string_opt::<i32>());
        column.ok_or_else(|| missing(name))
    };
    let binary = |name: &str| {
        let column = batch.column_by_name(name).and_then(|column| column.as_binary_opt::<i64>());
        column.ok_or_else(|| missing(name))
    };
    let (paths, filenames, targets) = (text("path")?, text("filename")?, text("target")?);
    let (files, values) = (binary("file")?, binary("bytes")?);
    for row in 0..batch.num_rows() {
        let value = |column: &arrow::array::StringArray| {
            column.is_valid(row).then(|| column.value(row).to_owned())
        };
        let image = match (files.is_valid(row), values.is_valid(row)) {
            (true, false) => ImageSource::Path(file_path(files.value(row))?),
            (false, true) => ImageSource::Bytes(values.value(row).to_vec()),
            (true, true) | (false, false) => return Err("a row has no image".to_owned()),
        };
        rows.push(TrainingRow {
            image,
            path: value(paths),
            filename: value(filenames),
            target: value(targets),
        });
    }
    Ok(())
}

#[cfg(unix)]
fn file_path(bytes: &[u8]) -> Result<PathBuf, String> {
    use std::os::unix::ffi::OsStrExt as _;
    Ok(PathBuf::from(std::ffi::OsStr::from_bytes(bytes)))
}

#[cfg(not(unix))]
fn file_path(bytes: &[u8]) -> Result<PathBuf, String> {
    std::str::from_utf8(bytes).map(PathBuf::from).map_err(|error| error.to_string())
}

/// `gray` or `rgb`.
pub(crate) fn color_name(color: Color) -> &'static str {
    match color {
        Color::Gray => "gray",
        Color::Rgb => "rgb",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> BuildRequest {
        let row = |image, path: Option<&str>| TrainingRow {
            image,
            path: path.map(str::to_owned),
            filename: Some("글.jpg".to_owned()),
            target: None,
        };
        BuildRequest {
            name: "m".to_owned(),
            statement: "BUILD MODEL m".to_owned(),
            user: "u".to_owned(),
            overwrite: true,
            options: TrainOptions {
                max_epochs: 3,
                batch_size: Some(7),
                // A number whose shortest form a JSON reader may read one bit off.
                learning_rate: Some(0.1 + 0.2),
                loss: ContrastiveLoss::Dcl,
                temperature: Some(f64::MIN_POSITIVE),
                weight_decay: None,
                warmup_epochs: Some(1e300),
                seed: u64::MAX,
                encoder: EncoderChoice::Compact,
                augmentations: Some(vec![Augmentation::Affine, Augmentation::Blur]),
                supervised: true,
            },
            options_given: serde_json::json!({ "seed": u64::MAX, "encoder": "compact" }),
            image_size: Some(28),
            color: Some(Color::Rgb),
            on_error: OnError::Skip,
            rows: vec![
                row(ImageSource::Path(PathBuf::from("/d/숫자/1.jpg")), Some("/d/숫자/./1.jpg")),
                row(ImageSource::Bytes(vec![0, 1, 2]), None),
            ],
            image_col: "image".to_owned(),
            fname_col: None,
            target: None,
            device: Some(DeviceChoice::Wgpu(Some(1))),
            pretrained: false,
            start: None,
        }
    }

    #[test]
    fn a_request_comes_back_as_it_was() {
        let mut many = request();
        many.rows = many.rows.iter().cycle().take(2 * ROWS_AT_ONCE + 1).cloned().collect();
        for request in [request(), many] {
            let bytes = encode(&request, Some("digest".to_owned())).unwrap();
            let read = TrainingRequest::decode(bytes).unwrap();
            assert_eq!(read.options, request.options);
            assert_eq!(read.rows, request.rows);
            assert_eq!((read.overwrite, read.image_size), (true, Some(28)));
            assert_eq!((read.color, read.on_error), (Some(Color::Rgb), OnError::Skip));
            assert_eq!(read.options_given, request.options_given);
            assert_eq!(read.device, request.device);
            assert_eq!((read.start, read.pretrained.as_deref()), (None, Some("digest")));
        }
    }

    #[test]
    fn what_cannot_be_read_says_so() {
        let good = encode(&request(), None).unwrap();
        for bytes in [Vec::new(), b"ARROW1".to_vec(), good[..good.len() / 2].to_vec()] {
            let error = TrainingRequest::decode(bytes).unwrap_err();
            assert_eq!(error.code, SqlState::DATA_CORRUPTED);
            assert!(error.message.contains("was asked for"), "{error}");
        }
    }
}
