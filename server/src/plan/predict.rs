//! PREDICT: the query's columns, the class that each row's nearest labelled training images vote for, and its share of the votes.
//!
//! The class has the target's own type. A column of vectors that this model, in this version, has made is used as it is; otherwise images are embedded.

use std::sync::Arc;

use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder};
use thanosql_protocol::{SqlError, SqlState};
use thanosql_storage::ModelEntry;

use super::provenance;
use super::rows::{Fallback, built, column_at, image_column, model, named, options};
use super::{Scope, plan_body};
use crate::functions::evaluate::NEIGHBOURS;
use crate::functions::parts::part_of;
use crate::functions::predict::{PredictContext, predict_function};
use crate::learning::reference::check_labelled;
use crate::learning::{Mark, ModelMetadata, OnError};
use crate::sql::{Predict, PredictOptions};

/// The struct's column before it is taken apart.
const STRUCT_COLUMN: &str = "__thanosql_prediction";

/// What vectors come from in a query: a column of this model's vectors, or one of images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Source {
    /// The column.
    pub(super) column: usize,
    /// Whether it holds vectors.
    pub(super) is_vectors: bool,
}

/// Finds what a model's vectors come from. A column of images that the statement names is taken; then vectors that the model made; then images; then vectors
/// without a mark that bear the model's name and have its length.
///
/// # Errors
/// 42703 and 42804 as for a column of images; 55000 if there are only vectors of another version.
pub(super) fn source_of(
    plan: &LogicalPlan,
    named: Option<&str>,
    entry: &ModelEntry,
    metadata: &ModelMetadata,
    position: usize,
) -> Result<Source, SqlError> {
    let schema = plan.schema();
    let images = || {
        let found =
            image_column(schema, named, Some(&metadata.image_col), Fallback::None, position)?;
        Ok(Source { column: found, is_vectors: false })
    };
    if named.is_some() {
        return images();
    }
    let own = Mark::of_model(entry);
    let made_by_it = |column: &usize| {
        Mark::of(schema.field(*column)).as_ref() == Some(&own)
            && provenance::check_column(plan, *column, entry).is_ok()
    };
    if let Some(column) = (0..schema.fields().len()).find(made_by_it) {
        return Ok(Source { column, is_vectors: true });
    }
    let error = match images() {
        Ok(source) => return Ok(source),
        Err(error) => error,
    };
    let name = metadata.vector_column();
    match schema.index_of_column_by_name(None, &name) {
        Some(column)
            if *schema.field(column).data_type()
                == crate::learning::vector_type(metadata.embedding_dim) =>
        {
            provenance::check_column(plan, column, entry)
                .map_err(|error| SqlError { position: Some(position), ..error })?;
            Ok(Source { column, is_vectors: true })
        }
        Some(_) | None => Err(error),
    }
}

pub(super) fn plan_predict(
    state: &SessionState,
    scope: &Scope,
    predict: &Predict,
) -> Result<LogicalPlan, SqlError> {
    let options = options(&scope.parameters, &predict.options, PredictOptions::read)?;
    let (entry, metadata) = model(scope, &predict.model)?;
    let at_model = |error| SqlError { position: Some(predict.model.position), ..error };
    check_labelled(&entry, &metadata).map_err(at_model)?;
    let target = metadata.target.as_ref().ok_or_else(|| {
        at_model(SqlError::new(SqlState::DATA_CORRUPTED, "the model's targets have no type"))
    })?;
    let input = plan_body(state, scope, &predict.body)?;
    let source =
        source_of(&input, options.image_col.as_deref(), &entry, &metadata, predict.body.position)?;
    let context = Arc::new(PredictContext {
        embed: scope.embed_context(OnError::Fail, None),
        model: entry,
        class_type: target.data_type(),
        k: options.k.map_or(NEIGHBOURS, |k| k as usize),
    });
    let result = options.result_col;
    let score = format!("{result}_score");
    let schema = input.schema().clone();
    let column = |index| column_at(&schema, index);
    let kept: Vec<Expr> = (0..schema.fields().len())
        .filter(|index| ![&result, &score].contains(&schema.field(*index).name()))
        .map(column)
        .collect();
    let prediction = predict_function(Arc::clone(&context)).call(vec![column(source.column)]);
    let inner = kept.iter().cloned().chain([prediction.alias(STRUCT_COLUMN)]);
    let parts = context.fields();
    let part =
        |place: usize, name: &str| part_of(named(STRUCT_COLUMN), place, &parts[place]).alias(name);
    let outer = kept.iter().cloned().chain([part(0, &result), part(1, &score)]);
    built(
        LogicalPlanBuilder::from(input)
            .project(inner.collect::<Vec<_>>())
            .and_then(|builder| builder.project(outer.collect::<Vec<_>>()))
            .and_then(LogicalPlanBuilder::build),
    )
}
