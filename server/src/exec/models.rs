//! Statements about models, jobs and embeddings: BUILD MODEL, FIT MODEL, DROP MODEL, SHOW CREATE MODEL, CREATE TABLE USING, CANCEL JOB
//! and WAIT JOB.
//!
//! A training is a job: the statement runs its query, files the job with the rows, and waits for it. The model is stored
//! by the job itself, when it is finished; so these statements are no part of a transaction and are refused in one.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::Column;
use datafusion::datasource::{MemTable, provider_as_source};
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, lit};
use thanosql_ml::images::ImageSource;
use thanosql_ml::{Augmentation, Color, DeviceChoice, EncoderChoice, TrainOptions};
use thanosql_protocol::types::{TextStyle, text_value};
use thanosql_protocol::{Response, RowsTag, SqlError, SqlState};
use thanosql_storage::ModelEntry;

use super::query::{rows, text_rows};
use super::{Control, rowset};
use crate::error::datafusion_error;
use crate::files::file_name;
use crate::functions::embed::{Image, images_of};
use crate::learning::{BuildRequest, ModelMetadata, OnError, TargetColumn, TrainingRow};
use crate::plan::rows::{Fallback, find_column, image_column, is_text, model, options};
use crate::plan::{self, Scope};
use crate::session::ClientSession;
use crate::sql::{
    self, Body, BuildModelOptions, ColorOption, CreateTableUsing, CreateTableUsingOptions,
    DropModel, DropVerb, JobId, JobIdValue, Name, OptionEntry, OptionValue, Options, Parsed,
    PathArgument, PathType, PathValue,
};

/// The usual names of the column of file names.
const FILENAME_COLUMNS: [&str; 2] = ["filename", "file_name"];
/// The usual name of the column of targets.
const TARGET_COLUMN: &str = "label";
/// How many passes over the data a training makes unless it is told.
const DEFAULT_EPOCHS: u32 = 5;

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
        let given = options(&scope.parameters, training.options, BuildModelOptions::read)?;
        if scope.snapshot.model(&training.name.value).is_some() && !given.overwrite {
            return Err(SqlError::new(
                SqlState::DUPLICATE_OBJECT,
                format!("model \"{}\" already exists", training.name.value),
            )
            .with_hint("OPTIONS (overwrite=True) replaces it.")
            .at(training.name.position));
        }
        let start = match training.base {
            Some(base) => Some(model(&scope, base)?.0),
            None => None,
        };
        if given.pretrained {
            return Err(option_error(
                training.options,
                "pretrained",
                SqlState::FEATURE_NOT_SUPPORTED,
                "pretrained weights are not supported yet",
            ));
        }
        let train = train_options(training.options, &given)?;
        let device = match &given.device {
            Some(device) => Some(parse_option::<DeviceChoice>(training.options, "device", device)?),
            None => None,
        };
        self.keep_body(&mut scope, training.body, control).await?;
        // What the query keeps is committed before the training starts: its job outlives the statement's transaction.
        self.transaction.commit()?;
        let data = self.training_data(&scope, training.body, &given, control).await?;
        let request = BuildRequest {
            name: training.name.value.clone(),
            statement: parsed.text.clone(),
            user: self.client.user.clone(),
            overwrite: given.overwrite,
            options: train,
            options_given: options_given(training.options, &scope.parameters),
            image_size: given.image_size,
            color: given.color.map(|color| match color {
                ColorOption::Gray => Color::Gray,
                ColorOption::Rgb => Color::Rgb,
            }),
            on_error: data.on_error,
            rows: data.rows,
            image_col: data.image_col,
            fname_col: data.fname_col,
            target: data.target,
            device,
            start,
        };
        let learning = self.server.learning.clone();
        let handle = tokio::task::block_in_place(|| learning.submit(request))?;
        if given.run_async {
            let id = i64::try_from(handle.id()).map_err(crate::error::internal)?;
            let schema = job_id_schema();
            let batch =
                RecordBatch::try_new(schema.clone(), vec![Arc::new(Int64Array::from(vec![id]))])
                    .map_err(crate::error::arrow_error)?;
            return Ok(rows(schema, vec![batch], RowsTag::Fixed(training.tag.to_string())));
        }
        match handle.wait(&control.cancel, &control.notices).await {
            Ok(_) => Ok(Response::Done { tag: training.tag.to_string() }),
            Err(_) if control.cancel.is_cancelled() => Err(control.stopped()),
            Err(error) => Err(error),
        }
    }

    /// The columns that a training's query must yield, checked without running it.
    pub(crate) fn plan_training(
        &self,
        scope: &Scope,
        training: &Training<'_>,
    ) -> Result<LogicalPlan, SqlError> {
        let given = options(&scope.parameters, training.options, BuildModelOptions::read)?;
        let plan = plan::plan_body(&self.state, scope, training.body)?;
        TrainingColumns::find(&plan, training.body, &given)?;
        Ok(plan)
    }

    async fn training_data(
        &self,
        scope: &Scope,
        body: &Body,
        given: &BuildModelOptions,
        control: &Control,
    ) -> Result<TrainingData, SqlError> {
        let plan = plan::plan_body(&self.state, scope, body)?;
        let schema = plan.schema().clone();
        let columns = TrainingColumns::find(&plan, body, given)?;
        let stream = control.run(self.start(scope, plan)).await?;
        let batches = rowset::collect(stream, control).await?;
        let on_error = match given.on_error {
            sql::OnError::Fail => OnError::Fail,
            sql::OnError::Skip => OnError::Skip,
        };
        let files = self.server.files.clone();
        let target_field = columns.target.map(|index| schema.field(index).clone());
        let rows = tokio::task::block_in_place(|| {
            let mut rows = Vec::new();
            for batch in &batches {
                let images = images_of(batch.column(columns.image))?;
                for (row, image) in images.into_iter().enumerate() {
                    let (source, path) = match image {
                        Some(Image::Path(path)) => match files.resolve(&path) {
                            Ok(resolved) => (ImageSource::Path(resolved), Some(path)),
                            Err(error)
                                if on_error == OnError::Skip
                                    && error.code == SqlState::UNDEFINED_FILE =>
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
                    let filename = match columns.fname {
                        Some(index) => text_at(batch.column(index), row, schema.field(index)),
                        None => path.as_deref().map(|path| file_name(path).to_string()),
                    };
                    let target = match (columns.target, &target_field) {
                        (Some(index), Some(field)) => text_at(batch.column(index), row, field),
                        (Some(_), None) | (None, _) => None,
                    };
                    rows.push(TrainingRow { image: source, path, filename, target });
                }
            }
            Ok(rows)
        })?;
        if rows.is_empty() {
            return Err(SqlError::new(
                SqlState::DATA_EXCEPTION,
                "the query yields no images to learn from",
            )
            .at(body.position));
        }
        Ok(TrainingData {
            rows,
            on_error,
            image_col: schema.field(columns.image).name().clone(),
            fname_col: columns.fname.map(|index| schema.field(index).name().clone()),
            target: target_field.as_deref().map(TargetColumn::of),
        })
    }

    /// DELETE MODEL and DROP MODEL. A training of that name is cancelled.
    pub(crate) async fn drop_model(
        &mut self,
        drop: &DropModel,
        control: &Control,
    ) -> Result<Response, SqlError> {
        self.refuse_in_read_only()?;
        let tag = match drop.verb {
            DropVerb::Delete => "DELETE MODEL",
            DropVerb::Drop => "DROP MODEL",
        };
        let name = &drop.name.value;
        self.lock(&model_lock(name), control).await?;
        let learning = self.server.learning.clone();
        let cancelled = tokio::task::block_in_place(|| {
            let mut cancelled = 0;
            for job in learning.jobs() {
                // A job that ends meanwhile needs no cancelling.
                if job.model == *name && !job.state.is_finished() && learning.cancel(job.id).is_ok()
                {
                    cancelled += 1;
                }
            }
            cancelled
        });
        if self.transaction.snapshot().model(name).is_some() {
            self.transaction.change(|transaction| transaction.drop_model(name))?;
        } else if cancelled == 0 {
            if !drop.if_exists {
                return Err(SqlError::new(
                    SqlState::UNDEFINED_OBJECT,
                    format!("model \"{name}\" does not exist"),
                )
                .at(drop.name.position));
            }
            let notice = format!("model \"{name}\" does not exist, skipping");
            control.notices.send(thanosql_protocol::Notice::new(notice));
        }
        Ok(Response::Done { tag: tag.to_string() })
    }

    /// SHOW CREATE MODEL.
    pub(crate) fn show_create_model(
        &self,
        scope: &Scope,
        name: &Name,
    ) -> Result<Response, SqlError> {
        let (entry, metadata) = model(scope, name)?;
        let columns =
            [("model", vec![entry.name().to_string()]), ("statement", vec![metadata.statement])];
        Ok(text_rows(&columns, "SHOW"))
    }

    /// CREATE TABLE USING.
    pub(crate) async fn create_table_using(
        &mut self,
        parsed: &Parsed,
        create: &CreateTableUsing,
        parameters: plan::Parameters,
        control: &Control,
    ) -> Result<Response, SqlError> {
        self.refuse_in_read_only()?;
        let name = object_name(&create.table)?;
        self.lock(&name, control).await?;
        let scope = self.scope(parsed, parameters, control)?;
        let given = options(&scope.parameters, &create.options, CreateTableUsingOptions::read)?;
        let (entry, metadata) = model(&scope, &create.model)?;
        let exists = super::ddl::relation_exists(&scope, &name);
        if exists && !given.overwrite {
            if create.if_not_exists {
                let notice = format!("relation \"{name}\" already exists, skipping");
                control.notices.send(thanosql_protocol::Notice::new(notice));
                return Ok(Response::Done { tag: "CREATE TABLE".to_string() });
            }
            return Err(super::ddl::exists(&name)
                .with_hint("OPTIONS (overwrite=True) replaces it.")
                .at(create.table.position()));
        }
        let path = path_argument(&scope, &create.path)?;
        let files = self.server.files.clone();
        let paths = tokio::task::block_in_place(|| list(&files, &path, &given))
            .map_err(|error| SqlError { position: Some(create.path.position), ..error })?;
        let plan = embedding_plan(&scope, &entry, &metadata, paths, &given)?;
        let schema = rowset::storable_schema(plan.schema().as_arrow())?;
        self.transaction.change(|transaction| {
            if exists {
                transaction.drop_table(&name)?;
            }
            transaction.create_table(&name, schema.clone()).map(|_| ())
        })?;
        let stream = control.run(self.start(&scope, plan)).await?;
        rowset::store(&self.transaction, &name, &schema, stream, control).await?;
        Ok(Response::Done { tag: "CREATE TABLE".to_string() })
    }

    /// CANCEL JOB.
    pub(crate) fn cancel_job(
        &self,
        job: JobId,
        parameters: &plan::Parameters,
    ) -> Result<Response, SqlError> {
        let id = job_number(job, parameters)?;
        let learning = self.server.learning.clone();
        tokio::task::block_in_place(|| learning.cancel(id))
            .map_err(|error| SqlError { position: Some(job.position), ..error })?;
        Ok(Response::Done { tag: "CANCEL JOB".to_string() })
    }

    /// WAIT JOB. Cancelling the statement ends the waiting, not the job.
    pub(crate) async fn wait_job(
        &self,
        job: JobId,
        parameters: &plan::Parameters,
        control: &Control,
    ) -> Result<Response, SqlError> {
        let id = job_number(job, parameters)?;
        let learning = self.server.learning.clone();
        let handle = tokio::task::block_in_place(|| learning.handle(id))
            .map_err(|error| SqlError { position: Some(job.position), ..error })?;
        match handle.watch(&control.cancel, &control.notices).await {
            Ok(_) => Ok(Response::Done { tag: "WAIT JOB".to_string() }),
            Err(_) if control.cancel.is_cancelled() => Err(control.stopped()),
            Err(error) => Err(error),
        }
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
struct TrainingColumns {
    image: usize,
    fname: Option<usize>,
    target: Option<usize>,
}

impl TrainingColumns {
    fn find(
        plan: &LogicalPlan,
        body: &Body,
        given: &BuildModelOptions,
    ) -> Result<TrainingColumns, SqlError> {
        let schema = plan.schema();
        let named = |name: &Option<String>, usual: &[&str]| match name {
            Some(name) => find_column(schema, name, body.position).map(Some),
            None => Ok(usual.iter().find_map(|name| schema.index_of_column_by_name(None, name))),
        };
        let image =
            image_column(schema, given.image_col.as_deref(), None, Fallback::None, body.position)?;
        let columns = TrainingColumns {
            image,
            fname: named(&given.filename_col, &FILENAME_COLUMNS)?,
            target: named(&given.target_col, &[TARGET_COLUMN])?,
        };
        if let Some(fname) = columns.fname
            && !is_text(schema.field(fname).data_type())
        {
            return Err(SqlError::new(
                SqlState::DATATYPE_MISMATCH,
                format!("column \"{}\" of file names must be text", schema.field(fname).name()),
            )
            .at(body.position));
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
    Ok(TrainOptions {
        max_epochs: given.max_epochs.unwrap_or(DEFAULT_EPOCHS),
        batch_size: given.batch_size.map(|size| size as usize),
        learning_rate: given.learning_rate,
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
    T: std::str::FromStr,
    T::Err: std::fmt::Display,
{
    text.parse::<T>().map_err(|error| {
        option_error(
            options,
            name,
            SqlState::INVALID_PARAMETER_VALUE,
            &format!("option {name} cannot be \"{text}\": {error}"),
        )
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

/// The name that a model's changes are locked under; it cannot be a table's.
fn model_lock(name: &str) -> String {
    format!("model {name}")
}

/// The name of a table that a ThanoSQL statement makes.
///
/// # Errors
/// As [`super::dml::check_schema`].
pub(crate) fn object_name(name: &sql::ObjectName) -> Result<String, SqlError> {
    if let Some(schema) = &name.schema {
        super::dml::check_schema(&schema.value, &name.name.value)
            .map_err(|error| error.at(name.position()))?;
    }
    Ok(name.name.value.clone())
}

/// The text of a path that may be a parameter.
pub(crate) fn path_argument(scope: &Scope, path: &PathArgument) -> Result<String, SqlError> {
    match &path.value {
        PathValue::Text(text) => Ok(text.clone()),
        PathValue::Parameter(n) => {
            scope.parameters.text(*n).map_err(|error| error.at(path.position))?.ok_or_else(|| {
                crate::error::internal("a path was asked for before the statement runs")
            })
        }
    }
}

fn list(
    files: &crate::files::FileAccess,
    path: &str,
    given: &CreateTableUsingOptions,
) -> Result<Vec<String>, SqlError> {
    let is_folder = match given.path_type {
        Some(PathType::Folder) => true,
        Some(PathType::File) => false,
        None => files.resolve(path)?.is_dir(),
    };
    if is_folder {
        return files.list_folder(
            path,
            given.file_type.as_deref().unwrap_or_default(),
            given.recursive,
        );
    }
    let resolved = files.resolve(path)?;
    if resolved.is_dir() {
        return Err(SqlError::new(SqlState::WRONG_OBJECT_TYPE, format!("\"{path}\" is a folder"))
            .with_hint("path_type='folder' reads the files in it."));
    }
    Ok(vec![path.to_string()])
}

/// A row a file: its path and its vector.
fn embedding_plan(
    scope: &Scope,
    entry: &ModelEntry,
    metadata: &ModelMetadata,
    paths: Vec<String>,
    given: &CreateTableUsingOptions,
) -> Result<LogicalPlan, SqlError> {
    let failed = |error| datafusion_error(error, None);
    let schema = Arc::new(Schema::new(vec![Field::new("image", DataType::Utf8, true)]));
    let column: ArrayRef = Arc::new(StringArray::from_iter_values(paths));
    let batch =
        RecordBatch::try_new(schema.clone(), vec![column]).map_err(crate::error::arrow_error)?;
    let listing = MemTable::try_new(schema, vec![vec![batch]]).map_err(failed)?;
    let on_error = match given.on_error {
        sql::OnError::Fail => OnError::Fail,
        sql::OnError::Skip => OnError::Skip,
    };
    let image = Expr::Column(Column::from_name("image"));
    let vector = metadata.vector_column();
    let embed = scope.embed(on_error, given.batch_size.map(|size| size as usize));
    let mut builder =
        LogicalPlanBuilder::scan("files", provider_as_source(Arc::new(listing)), None)
            .and_then(|builder| {
                builder.project(vec![
                    image.clone(),
                    embed.call(vec![lit(entry.name()), image]).alias(&vector),
                ])
            })
            .map_err(failed)?;
    if on_error == OnError::Skip {
        builder = builder
            .filter(Expr::Column(Column::from_name(vector)).is_not_null())
            .map_err(failed)?;
    }
    builder.build().map_err(failed)
}

fn job_number(job: JobId, parameters: &plan::Parameters) -> Result<u64, SqlError> {
    match job.value {
        JobIdValue::Number(id) => Ok(id),
        JobIdValue::Parameter(n) => {
            let number =
                parameters.value(n).and_then(|value| value.to_string().parse::<u64>().ok());
            number.ok_or_else(|| {
                SqlError::new(
                    SqlState::INVALID_PARAMETER_VALUE,
                    format!("parameter ${n} must be the number of a job"),
                )
                .at(job.position)
            })
        }
    }
}
