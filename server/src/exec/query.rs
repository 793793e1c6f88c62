//! Queries: a logical plan becomes a stream of rows that stops when its statement does.

#![allow(clippy::wildcard_enum_match_arm)] // the enums are other libraries', with far more variants than matter here

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use futures::StreamExt as _;
use thanosql_protocol::{Response, RowStream, RowsTag, SqlError};

use super::Control;
use super::interruptible::interruptible;
use super::planning;
use crate::error::datafusion_error;
use crate::functions::{resolve_constants, separate_nested};
use crate::plan::{self, Scope};
use crate::search::rule::use_indexes;
use crate::session::ClientSession;

impl ClientSession {
    /// Starts a plan. Its rows come as they are made.
    pub(crate) async fn start(
        &self,
        scope: &Scope,
        plan: LogicalPlan,
    ) -> Result<SendableRecordBatchStream, SqlError> {
        let plan = plan::bind(plan, &scope.parameters)?;
        let failed = |error| datafusion_error(error, Some(&scope.script));
        // now() is the time at which its statement started.
        let mut state = self.state.clone();
        let options = state.config_options().clone();
        state.execution_props_mut().mark_start_execution(options);
        let physical = optimized(&state, &plan).await;
        let physical = physical.and_then(|plan| interruptible(plan, &scope.cancel));
        execute_stream(physical.map_err(failed)?, state.task_ctx()).map_err(failed)
    }

    /// Answers a client with the rows of a plan.
    pub(crate) async fn answer(
        &self,
        scope: &Scope,
        plan: LogicalPlan,
        tag: RowsTag,
        control: &Control,
    ) -> Result<Response, SqlError> {
        let schema = result_schema(&plan);
        let stream = control.run(self.start(scope, plan)).await?;
        Ok(Response::Rows { schema, rows: controlled(stream, control.clone()), tag })
    }
}

/// A plan that runs, with its constants computed.
///
/// # Errors
/// What planning, and computing constants, answer.
pub async fn physical_plan(
    state: &SessionState,
    plan: &LogicalPlan,
) -> Result<Arc<dyn ExecutionPlan>, SqlError> {
    optimized(state, plan).await.map_err(|error| datafusion_error(error, None))
}

/// Whatever is done to the plan after its optimization stays: DataFusion's own way would optimize once more.
async fn optimized(
    state: &SessionState,
    plan: &LogicalPlan,
) -> datafusion::common::Result<Arc<dyn ExecutionPlan>> {
    let plan = state.optimize(plan)?;
    // EXPLAIN computes nothing of what it explains.
    if matches!(plan, LogicalPlan::Explain(_)) {
        let plan = use_indexes(plan, state.config())?;
        return planning::physical(state, &plan).await;
    }
    let plan = resolve_constants(plan, state.config_options()).await?;
    let plan = use_indexes(plan, state.config())?;
    let plan = separate_nested(plan)?;
    planning::physical(state, &plan).await
}

/// The columns of a plan's rows, as they are described to clients, with where they come from.
pub fn result_schema(plan: &LogicalPlan) -> SchemaRef {
    let shown = plan::names::shown_schema(plan.schema().as_arrow());
    let fields =
        shown.fields().iter().enumerate().map(|(column, field)| {
            match plan::origins::origin(plan, column) {
                Some(origin) => Arc::new(origin.mark(field.as_ref().clone())),
                None => Arc::clone(field),
            }
        });
    Arc::new(Schema::new_with_metadata(fields.collect::<Vec<_>>(), shown.metadata().clone()))
}

/// The rows of a stream until the statement is stopped; then its error.
pub fn controlled(stream: SendableRecordBatchStream, control: Control) -> RowStream {
    let start = Some((stream, control));
    Box::pin(futures::stream::unfold(start, |state| async move {
        let (mut stream, control) = state?;
        tokio::select! {
            biased;
            () = control.cancel.cancelled() => Some((Err(control.stopped()), None)),
            batch = stream.next() => match batch? {
                Ok(batch) => Some((Ok(batch), Some((stream, control)))),
                // An operator may notice the cancellation before this stream does.
                Err(_) if control.cancel.is_cancelled() => Some((Err(control.stopped()), None)),
                Err(error) => Some((Err(datafusion_error(error, None)), None)),
            },
        }
    }))
}

/// Rows that are at hand.
pub fn rows(schema: SchemaRef, batches: Vec<RecordBatch>, tag: RowsTag) -> Response {
    Response::Rows {
        schema,
        rows: Box::pin(futures::stream::iter(batches.into_iter().map(Ok))),
        tag,
    }
}

/// One column of texts, as SHOW answers.
pub fn text_rows(columns: &[(&str, Vec<String>)], tag: &str) -> Response {
    let schema = text_schema(columns.iter().map(|(name, _)| *name));
    let arrays: Vec<ArrayRef> = columns
        .iter()
        .map(|(_, values)| Arc::new(StringArray::from_iter_values(values)) as ArrayRef)
        .collect();
    match RecordBatch::try_new(schema.clone(), arrays) {
        Ok(batch) => rows(schema, vec![batch], RowsTag::Fixed(tag.to_string())),
        Err(_) => rows(schema, Vec::new(), RowsTag::Fixed(tag.to_string())),
    }
}

/// Columns of text.
pub fn text_schema<'a>(names: impl IntoIterator<Item = &'a str>) -> SchemaRef {
    let fields: Vec<Field> =
        names.into_iter().map(|name| Field::new(name, DataType::Utf8, true)).collect();
    Arc::new(Schema::new(fields))
}
