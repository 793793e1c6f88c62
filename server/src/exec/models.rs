//! Statements about models, jobs and embeddings: DROP MODEL, SHOW CREATE MODEL, CREATE TABLE USING, CANCEL JOB and WAIT JOB. Those that train
//! are in [`super::training`], those that read and write a model's file in [`super::exchange`].

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use datafusion::common::Column;
use datafusion::datasource::{MemTable, provider_as_source};
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, lit};
use thanosql_protocol::{Response, SqlError, SqlState};
use thanosql_storage::{ModelEntry, Snapshot};

use super::query::text_rows;
use super::targets::{check_found, check_schema};
use super::{Control, rowset};
use crate::error::{datafusion_error, not_yet};
use crate::learning::{ModelMetadata, OnError};
use crate::plan::rows::{model, options};
use crate::plan::{self, Scope};
use crate::session::ClientSession;
use crate::sql::{
    self, CreateTableUsing, CreateTableUsingOptions, DropModel, DropVerb, JobId, JobIdValue, Name,
    Parsed, PathArgument, PathType, PathValue,
};

impl ClientSession {
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
        let name = object_name(&create.table, &self.transaction.peek())?;
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
        if scope.snapshot.temporary_table(&name).is_some() {
            return Err(not_yet("a table made by a model beside a temporary one of its name"));
        }
        if exists && scope.snapshot.permanent_table(&name).is_none() {
            return Err(SqlError::new(
                SqlState::WRONG_OBJECT_TYPE,
                format!("\"{name}\" is not a table"),
            )
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
            Err(error) => Err(control.with_reason(error)),
        }
    }
}

/// The name that a model's changes are locked under; it cannot be a table's.
pub(super) fn model_lock(name: &str) -> String {
    format!("model {name}")
}

/// The name of a table that a statement of ThanoSQL's or COPY makes or fills.
///
/// # Errors
/// As [`check_schema`] and [`check_found`].
pub(crate) fn object_name(name: &sql::ObjectName, snapshot: &Snapshot) -> Result<String, SqlError> {
    if let Some(schema) = &name.schema {
        check_schema(&schema.value, &name.name.value)
            .and_then(|()| check_found(&schema.value, &name.name.value, snapshot))
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
pub(super) fn embedding_plan(
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
