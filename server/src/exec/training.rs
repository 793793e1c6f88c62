//! BUILD MODEL and FIT MODEL.
//!
//! A training is a job: the statement runs its query, files the job with the rows, and waits for it. The model is stored
//! by the job itself, when it is finished; so these statements are no part of a transaction and are refused in one.
//!
//! What a statement asks for is resolved in one place ([`Plan::resolve`], [`TrainingColumns::find`]), for running it and for EXPLAIN, so that both see the
//! same errors. Describing looks at its options and at the query.

#![allow(clippy::wildcard_enum_match_arm)] // the enums are other libraries', with far more variants than matter here

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::logical_expr::LogicalPlan;
use futures::StreamExt as _;
use thanosql_ml::images::ImageSource;
use thanosql_ml::{
    Augmentation, Color, ContrastiveLoss, DeviceChoice, EncoderChoice, MlError, Pretrained,
    TrainOptions,
};
use thanosql_protocol::types::{TextStyle, text_value};
use thanosql_protocol::{Response, RowsTag, SqlError, SqlState};
use thanosql_storage::ModelEntry;

use super::Control;
use super::query::{controlled, rows};
use super::statement_text::statement_text;
use crate::files::file_name;
use crate::functions::embed::{Image, images_of};
use crate::learning::{
    BuildRequest, ModelMetadata, OnError, TargetColumn, TrainingRow, color_name, model_exists,
    values_within_limit,
};
use crate::plan::rows::{Fallback, find_column, image_column, is_text, model, options};
use crate::plan::{self, Scope};
use crate::session::ClientSession;
use crate::sql::{
    self, Body, BuildModelOptions, ColorOption, LossOption, Name, OptionEntry, OptionValue,
    Options, Parsed, closest,
};

/// The usual names of the column of file names.
const FILENAME_COLUMNS: [&str; 2] = ["filename", "file_name"];
/// The usual name of the column of targets.
const TARGET_COLUMN: &str = "label";
/// How many passes over the data a training makes unless it is told.
pub(super) const DEFAULT_EPOCHS: u32 = 5;

/// BUILD MODEL or FIT MODEL.
pub(crate) struct Training<'a> {
    /// The model to be.
    pub(crate) name: &'a Name,
    /// The model from whose weights it starts.
    pub(crate) base: Option<&'a Name>,
    pub(crate) options: &'a Options,
    pub(crate) body: &'a Body,
    /// The command's tag.
    pub(crate) tag: &'static str,
}

/// What BUILD MODEL with `async=True` answers.
pub fn job_id_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("job_id", DataType::Int64, false)]))
}

/// What a training comes to as far as its statement says.
pub(super) struct Plan {
    pub(super) given: BuildModelOptions,
    pub(super) train: TrainOptions,
    pub(super) device: Option<DeviceChoice>,
    pub(super) color: Option<Color>,
    /// FIT MODEL's base.
    pub(super) base: Option<(ModelEntry, ModelMetadata)>,
}

impl Plan {
    /// # Errors
    /// 42704 for a base that is missing, 22023 for options that are wrong or do not fit the base.
    pub(super) fn resolve(scope: &Scope, training: &Training<'_>) -> Result<Plan, SqlError> {
        let written = training.options;
        let given = options(&scope.parameters, written, BuildModelOptions::read)?;
        let base = training.base.map(|base| model(scope, base)).transpose()?;
        let train = train_options(written, &given)?;
        let color = given.color.map(|color| match color {
            ColorOption::Gray => Color::Gray,
            ColorOption::Rgb => Color::Rgb,
        });
        if let Some((entry, metadata)) = &base {
            fits_base(written, &given, &train, color, entry, metadata)?;
        }
        if given.pretrained {
            fits_pretrained(scope, written, &train, color)?;
        }
        let device = match &given.device {
            Some(device) => Some(parse_option::<DeviceChoice>(written, "device", device)?),
            None => None,
        };
        Ok(Plan { given, train, device, color, base })
    }

    /// The base's metadata, if there is one.
    pub(super) fn base_metadata(&self) -> Option<&ModelMetadata> {
        self.base.as_ref().map(|(_, metadata)| metadata)
    }
}

/// A training that goes on from a model's weights has its network and reads the same images.
fn fits_base(
    written: &Options,
    given: &BuildModelOptions,
    train: &TrainOptions,
    color: Option<Color>,
    entry: &ModelEntry,
    metadata: &ModelMetadata,
) -> Result<(), SqlError> {
    let differs = |option: &str, asked: String, has: &str| {
        let message = format!(
            "option {option} cannot be {asked}: the model \"{}\", from which training goes on, has {has}",
            entry.name()
        );
        option_error(written, option, SqlState::INVALID_PARAMETER_VALUE, &message)
            .with_hint("BUILD MODEL makes a model with other options from nothing.")
    };
    if given.pretrained {
        return Err(option_error(
            written,
            "pretrained",
            SqlState::INVALID_PARAMETER_VALUE,
            "FIT MODEL starts from a model's weights, it cannot start from pretrained ones",
        ));
    }
    if let Some(encoder) = &given.encoder
        && train.encoder.to_string() != metadata.encoder
    {
        return Err(differs("encoder", format!("\"{encoder}\""), &metadata.encoder));
    }
    if let Some(size) = given.image_size
        && size != metadata.input.size
    {
        return Err(differs("image_size", size.to_string(), &metadata.input.size.to_string()));
    }
    match color.map(color_name) {
        Some(color) if color != metadata.input.color => {
            Err(differs("color", format!("\"{color}\""), &metadata.input.color))
        }
        Some(_) | None => Ok(()),
    }
}

/// Pretrained weights are those of one network that reads colour images.
fn fits_pretrained(
    scope: &Scope,
    written: &Options,
    train: &TrainOptions,
    color: Option<Color>,
) -> Result<(), SqlError> {
    let wrong = |option: &str, message: &str| {
        Err(option_error(written, option, SqlState::INVALID_PARAMETER_VALUE, message))
    };
    if train.encoder == EncoderChoice::Compact {
        return wrong("encoder", "pretrained weights are those of the encoder \"resnet18\"");
    }
    if color.is_some_and(|color| color != Pretrained::COLOR) {
        return wrong("color", "pretrained weights read color=\"rgb\"; gray images become that");
    }
    if scope.learning.options().pretrained_resnet18.is_none() {
        let message =
            "pretrained=True needs weights, and the setting pretrained_resnet18 names none";
        return wrong("pretrained", message).map_err(|error: SqlError| {
            error.with_hint("The server is started with --pretrained-resnet18 FILE: ResNet-18's weights in torchvision's names, .safetensors or .pth.")
        });
    }
    Ok(())
}

impl ClientSession {
    /// Runs BUILD MODEL or FIT MODEL.
    pub(crate) async fn train(
        &mut self,
        parsed: &Parsed,
        training: Training<'_>,
        parameters: plan::Parameters,
        control: &Control,
    ) -> Result<Response, SqlError> {
        self.refuse_in_read_only()?;
        self.refuse_in_block(training.tag)?;
        let mut scope = self.scope(parsed, parameters, control)?;
        let plan = Plan::resolve(&scope, &training)?;
        if scope.snapshot.model(&training.name.value).is_some() && !plan.given.overwrite {
            return Err(model_exists(&training.name.value).at(training.name.position));
        }
        if self.transaction.has_changes() {
            return Err(SqlError::new(
                SqlState::ACTIVE_SQL_TRANSACTION,
                format!("{} cannot run behind changes that are not committed", training.tag),
            )
            .with_hint("Send it alone, or after COMMIT."));
        }
        self.keep_body(&mut scope, training.body, control).await?;
        let data = self.training_data(&scope, &training, &plan, control).await?;
        // What the query keeps is committed before the training starts: its job outlives the statement's transaction.
        self.transaction.commit()?;
        let request = BuildRequest {
            name: training.name.value.clone(),
            statement: statement_text(parsed, &scope.parameters),
            user: self.client.user.clone(),
            overwrite: plan.given.overwrite,
            options: plan.train,
            options_given: options_given(training.options, &scope.parameters),
            image_size: plan.given.image_size,
            color: plan.color,
            on_error: data.on_error,
            rows: data.rows,
            image_col: data.image_col,
            fname_col: data.fname_col,
            target: data.target,
            device: plan.device,
            pretrained: plan.given.pretrained,
            start: plan.base.map(|(entry, _)| entry),
        };
        let learning = self.server.learning.clone();
        let handle = tokio::task::block_in_place(|| learning.submit(request))?;
        if plan.given.run_async {
            let id = i64::try_from(handle.id()).map_err(crate::error::internal)?;
            let schema = job_id_schema();
            let batch =
                RecordBatch::try_new(schema.clone(), vec![Arc::new(Int64Array::from(vec![id]))])
                    .map_err(crate::error::arrow_error)?;
            return Ok(rows(schema, vec![batch], RowsTag::Fixed(training.tag.to_string())));
        }
        match handle.wait(&control.cancel, &control.notices).await {
            Ok(_) => Ok(Response::Done { tag: training.tag.to_string() }),
            Err(error) => Err(control.with_reason(error)),
        }
    }

    /// The columns that a training's query must yield, checked without running it.
    pub(crate) fn plan_training(
        &self,
        scope: &Scope,
        training: &Training<'_>,
    ) -> Result<LogicalPlan, SqlError> {
        let given = options(&scope.parameters, training.options, BuildModelOptions::read)?;
        let base = training.base.map(|base| model(scope, base)).transpose()?;
        let plan = plan::plan_body(&self.state, scope, training.body)?;
        let base = base.as_ref().map(|(_, metadata)| metadata);
        TrainingColumns::find(&plan, training, &given, base)?;
        Ok(plan)
    }

    async fn training_data(
        &self,
        scope: &Scope,
        training: &Training<'_>,
        resolved: &Plan,
        control: &Control,
    ) -> Result<TrainingData, SqlError> {
        let body = training.body;
        let plan = plan::plan_body(&self.state, scope, body)?;
        let schema = plan.schema().clone();
        let columns =
            TrainingColumns::find(&plan, training, &resolved.given, resolved.base_metadata())?;
        let on_error = match resolved.given.on_error {
            sql::OnError::Fail => OnError::Fail,
            sql::OnError::Skip => OnError::Skip,
        };
        let limit = self.server.learning.options().training_memory_bytes;
        let stream = control.run(self.start(scope, plan)).await?;
        let mut stream = controlled(stream, control.clone());
        let mut rows = Vec::new();
        let mut bytes = 0_u64;
        while let Some(batch) = stream.next().await {
            let batch = batch?;
            bytes = bytes.saturating_add(value_bytes(batch.column(columns.image)));
            values_within_limit(bytes, limit).map_err(|error| error.at(body.position))?;
            tokio::task::block_in_place(|| {
                self.read_batch(&batch, &columns, schema.as_arrow(), on_error, &mut rows)
            })?;
        }
        if rows.is_empty() {
            return Err(SqlError::new(
                SqlState::DATA_EXCEPTION,
                "the query yields no images to learn from",
            )
            .at(body.position));
        }
        if resolved.given.supervised && rows.iter().all(|row| row.target.is_none()) {
            return Err(option_error(
                training.options,
                "supervised",
                SqlState::INVALID_PARAMETER_VALUE,
                "supervised=True needs targets, and every row's is NULL",
            ));
        }
        let name = |index: usize| schema.field(index).name().clone();
        Ok(TrainingData {
            rows,
            on_error,
            image_col: name(columns.image),
            fname_col: columns.fname.map(name),
            target: columns.target.map(|index| TargetColumn::of(schema.field(index))),
        })
    }

    /// Adds the rows of a batch.
    fn read_batch(
        &self,
        batch: &RecordBatch,
        columns: &TrainingColumns,
        schema: &Schema,
        on_error: OnError,
        rows: &mut Vec<TrainingRow>,
    ) -> Result<(), SqlError> {
        let images = images_of(batch.column(columns.image))?;
        for (row, image) in images.into_iter().enumerate() {
            let (source, path) = match image {
                Some(Image::Path(path)) => match self.server.files.resolve(&path) {
                    Ok(resolved) => (ImageSource::Path(resolved), Some(path)),
                    Err(error)
                        if on_error == OnError::Skip && error.code == SqlState::UNDEFINED_FILE =>
                    {
                        continue;
                    }
                    Err(error) => return Err(error),
                },
                Some(Image::Bytes(bytes)) => (ImageSource::Bytes(bytes), None),
                None if on_error == OnError::Skip => continue,
                None => {
                    return Err(SqlError::new(
                        SqlState::NULL_VALUE_NOT_ALLOWED,
                        format!(
                            "column \"{}\" holds a NULL instead of an image",
                            schema.field(columns.image).name()
                        ),
                    )
                    .with_hint("OPTIONS (on_error='skip') leaves such rows out."));
                }
            };
            let text = |index: usize| text_at(batch.column(index), row, schema.field(index));
            let filename = match columns.fname {
                Some(index) => text(index),
                None => path.as_deref().map(|path| file_name(path).to_string()),
            };
            let target = columns.target.and_then(text);
            rows.push(TrainingRow { image: source, path, filename, target });
        }
        Ok(())
    }
}

/// The bytes of images that came as values; paths take next to nothing.
fn value_bytes(column: &ArrayRef) -> u64 {
    match column.data_type() {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => 0,
        // Shared buffers may hold more than this batch; the values alone count.
        DataType::Binary => {
            let values = column.as_binary::<i32>();
            values.iter().flatten().map(|value| value.len() as u64).sum()
        }
        DataType::LargeBinary => {
            let values = column.as_binary::<i64>();
            values.iter().flatten().map(|value| value.len() as u64).sum()
        }
        DataType::BinaryView => {
            let values = column.as_binary_view();
            values.iter().flatten().map(|value| value.len() as u64).sum()
        }
        _ => column.get_array_memory_size() as u64,
    }
}

struct TrainingData {
    rows: Vec<TrainingRow>,
    on_error: OnError,
    image_col: String,
    fname_col: Option<String>,
    target: Option<TargetColumn>,
}

/// Where a training's query has what.
pub(super) struct TrainingColumns {
    pub(super) image: usize,
    pub(super) fname: Option<usize>,
    pub(super) target: Option<usize>,
}

impl TrainingColumns {
    /// Columns that the statement does not name are those of the base, if the query has them, or else found by their usual names.
    pub(super) fn find(
        plan: &LogicalPlan,
        training: &Training<'_>,
        given: &BuildModelOptions,
        base: Option<&ModelMetadata>,
    ) -> Result<TrainingColumns, SqlError> {
        let (schema, position) = (plan.schema(), training.body.position);
        let named = |name: &Option<String>, bases: Option<&String>, usual: &[&str]| match name {
            Some(name) => find_column(schema, name, position).map(Some),
            None => Ok(bases
                .into_iter()
                .map(String::as_str)
                .chain(usual.iter().copied())
                .find_map(|name| schema.index_of_column_by_name(None, name))),
        };
        let image = image_column(
            schema,
            given.image_col.as_deref(),
            base.map(|base| base.image_col.as_str()),
            Fallback::None,
            position,
        )?;
        let base_fname = base.and_then(|base| base.fname_col.as_ref());
        let base_target = base.and_then(|base| base.target.as_ref()).map(|target| &target.name);
        let columns = TrainingColumns {
            image,
            fname: named(&given.filename_col, base_fname, &FILENAME_COLUMNS)?,
            target: named(&given.target_col, base_target, &[TARGET_COLUMN])?,
        };
        if let Some(fname) = columns.fname
            && !is_text(schema.field(fname).data_type())
        {
            return Err(SqlError::new(
                SqlState::DATATYPE_MISMATCH,
                format!("column \"{}\" of file names must be text", schema.field(fname).name()),
            )
            .at(position));
        }
        if given.supervised && columns.target.is_none() {
            let message = format!(
                "supervised=True needs a column of targets, and the query yields none named \"{TARGET_COLUMN}\""
            );
            return Err(option_error(
                training.options,
                "supervised",
                SqlState::INVALID_PARAMETER_VALUE,
                &message,
            )
            .with_hint("The option target names the column."));
        }
        Ok(columns)
    }
}

fn text_at(column: &ArrayRef, row: usize, field: &Field) -> Option<String> {
    text_value(column.as_ref(), row, field, &TextStyle::default())
}

fn train_options(written: &Options, given: &BuildModelOptions) -> Result<TrainOptions, SqlError> {
    let encoder = match &given.encoder {
        Some(encoder) => parse_option::<EncoderChoice>(written, "encoder", encoder)?,
        None => EncoderChoice::Auto,
    };
    let augmentations = match &given.augmentations {
        Some(names) => {
            let mut augmentations = Vec::with_capacity(names.len());
            for name in names {
                augmentations.push(parse_option::<Augmentation>(written, "augmentations", name)?);
            }
            Some(augmentations)
        }
        None => None,
    };
    let loss = match given.loss {
        LossOption::NtXent => ContrastiveLoss::NtXent,
        LossOption::Dcl => ContrastiveLoss::Dcl,
    };
    if given.supervised && loss != ContrastiveLoss::NtXent {
        let message = format!(
            "loss='{loss}' and supervised=True exclude each other: a supervised training has a loss of its own"
        );
        return Err(option_error(written, "loss", SqlState::INVALID_PARAMETER_VALUE, &message));
    }
    Ok(TrainOptions {
        max_epochs: given.max_epochs.unwrap_or(DEFAULT_EPOCHS),
        batch_size: given.batch_size.map(|size| size as usize),
        learning_rate: given.learning_rate,
        loss,
        temperature: given.temperature,
        weight_decay: given.weight_decay,
        warmup_epochs: given.warmup_epochs,
        seed: given.seed.unwrap_or(0),
        encoder,
        augmentations,
        supervised: given.supervised,
    })
}

/// An option's text as what ml names.
fn parse_option<T>(options: &Options, name: &str, text: &str) -> Result<T, SqlError>
where
    T: std::str::FromStr<Err = MlError>,
{
    text.parse::<T>().map_err(|error: MlError| {
        let message = format!("option {name} cannot be \"{text}\": {error}");
        let wrong = option_error(options, name, SqlState::INVALID_PARAMETER_VALUE, &message);
        let MlError::UnknownName { known, .. } = &error else { return wrong };
        let all = format!("Valid are: {known}.");
        wrong.with_hint(match closest(text, known.split(", ")) {
            Some(near) => format!("Did you mean \"{near}\"? {all}"),
            None => all,
        })
    })
}

fn option_error(options: &Options, name: &str, code: SqlState, message: &str) -> SqlError {
    let entry = options.entries.iter().find(|entry| entry.name.value == name);
    SqlError::new(code, message).at(entry.map_or(options.position, |entry| entry.value_position))
}

/// The options as they were written, to be kept with the model.
fn options_given(options: &Options, parameters: &plan::Parameters) -> serde_json::Value {
    let values = parameters.option_values().unwrap_or_default();
    let entry = |entry: &OptionEntry| (entry.name.value.clone(), json(&entry.value, &values));
    serde_json::Value::Object(options.entries.iter().map(entry).collect())
}

fn json(value: &OptionValue, parameters: &[OptionValue]) -> serde_json::Value {
    match value {
        OptionValue::String(text) | OptionValue::Word(text) => {
            serde_json::Value::String(text.clone())
        }
        OptionValue::Number(text) => {
            serde_json::from_str(text).unwrap_or_else(|_| serde_json::Value::String(text.clone()))
        }
        OptionValue::Bool(value) => serde_json::Value::Bool(*value),
        OptionValue::Null | OptionValue::Bytes(_) => serde_json::Value::Null,
        OptionValue::List(values) => values.iter().map(|value| json(value, parameters)).collect(),
        OptionValue::Parameter(n) => n
            .checked_sub(1)
            .and_then(|index| parameters.get(index))
            .map_or(serde_json::Value::Null, |value| json(value, &[])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_none_gets_those_that_there_are() {
        let hint = |error: SqlError| error.hint.unwrap();
        let options = Options::default();
        let error = parse_option::<EncoderChoice>(&options, "encoder", "resnet19").unwrap_err();
        assert_eq!(error.code, SqlState::INVALID_PARAMETER_VALUE);
        assert!(hint(error).starts_with("Did you mean \"resnet18\"? Valid are: auto, "));
        let error = parse_option::<Augmentation>(&options, "augmentations", "afine").unwrap_err();
        assert!(hint(error).starts_with("Did you mean \"affine\"? "));
        let error = parse_option::<DeviceChoice>(&options, "device", "quantum").unwrap_err();
        assert!(hint(error).starts_with("Valid are: auto, cpu, "));
    }
}
