//! FUNCTION compute.*: as plain SQL.
//!
//! | statement | rows |
//! | --- | --- |
//! | `compute.groupby_emb_mean` | `SELECT label, avg(emb) GROUP BY label`: a row a label, the label first; a NULL is a label too |
//! | `compute.similarity` | the query's columns; then `<result_col>_label`, the label of a near row, `<result_col>`, their cosine similarity, and `<result_col>_rank`, from 1: `top_k` rows a row, nearest first |
//!
//! A row whose vector is NULL has no near row: it stays, with NULLs.

use std::sync::Arc;

use arrow::datatypes::Field;
use datafusion::common::DFSchema;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder};
use thanosql_protocol::{SqlError, SqlState};

use super::provenance::marks;
use super::rows::{built, column_at, find_column, named, not_a_vector, options};
use super::types::vector_length;
use super::{Scope, plan_body, plan_relation};
use crate::functions::nearest::{NearestContext, nearest_function};
use crate::functions::parts::part_of;
use crate::learning::Mark;
use crate::sql::{ComputeFunction, ComputeKind, GroupbyEmbMeanOptions, Options, SimilarityOptions};

/// The usual names of a column of labels, best first.
const LABEL_COLUMNS: [&str; 3] = ["label", "name", "id"];

/// The list's column before it is taken apart.
const LIST_COLUMN: &str = "__thanosql_nearest";

pub(super) fn plan_function(
    state: &SessionState,
    scope: &Scope,
    function: &ComputeFunction,
) -> Result<LogicalPlan, SqlError> {
    match function.kind {
        ComputeKind::GroupbyEmbMean => plan_mean(state, scope, function),
        ComputeKind::Similarity => plan_similarity(state, scope, function),
    }
}

fn plan_mean(
    state: &SessionState,
    scope: &Scope,
    function: &ComputeFunction,
) -> Result<LogicalPlan, SqlError> {
    let given = options(&scope.parameters, &function.options, GroupbyEmbMeanOptions::read)?;
    let input = plan_body(state, scope, &function.body)?;
    let schema = input.schema().clone();
    let position = function.body.position;
    let vector = vector_column(&schema, given.emb_col.as_deref(), "emb_col", position)?;
    if let Some((first, other)) = two_of(&input, vector) {
        return Err(
            super::provenance::mixed(schema.field(vector).name(), &other, &first).at(position)
        );
    }
    // While the label is a parameter, any column has the answer's shape.
    let label = if given.label_col.is_empty() {
        0
    } else {
        find_column(&schema, &given.label_col, option_position(&function.options, "label_col"))?
    };
    let avg = state
        .aggregate_functions()
        .get("avg")
        .cloned()
        .ok_or_else(|| crate::error::internal("the function avg is not registered"))?;
    let column = |index| column_at(&schema, index);
    let mean = Expr::AggregateFunction(AggregateFunction::new_udf(
        avg,
        vec![column(vector)],
        false,
        None,
        Vec::new(),
        None,
    ));
    let name = schema.field(label).name().clone();
    built(
        LogicalPlanBuilder::from(input)
            .aggregate([column(label)], [mean.alias(&given.result_col)])
            .and_then(|builder| {
                builder.project([column(label).alias(name), named(&given.result_col)])
            })
            .and_then(LogicalPlanBuilder::build),
    )
}

fn plan_similarity(
    state: &SessionState,
    scope: &Scope,
    function: &ComputeFunction,
) -> Result<LogicalPlan, SqlError> {
    let given = options(&scope.parameters, &function.options, SimilarityOptions::read)?;
    let input = plan_body(state, scope, &function.body)?;
    let schema = input.schema().clone();
    let position = function.body.position;
    let vector = vector_column(&schema, given.emb_col.as_deref(), "emb_col", position)?;
    let at = |option| option_position(&function.options, option);
    let source = if given.src_table.is_empty() {
        // Only described: the query itself has a column of vectors.
        input.clone()
    } else {
        plan_relation(state, scope, &given.src_table)
            .map_err(|error| SqlError { position: Some(at("src_table")), ..error })?
    };
    let source_schema = source.schema().clone();
    let source_vector = vector_column(
        &source_schema,
        given.src_emb_col.as_deref(),
        "src_emb_col",
        at("src_emb_col"),
    )?;
    let source_label = match &given.src_label_col {
        Some(name) => find_column(&source_schema, name, at("src_label_col"))?,
        None => LABEL_COLUMNS
            .iter()
            .find_map(|name| source_schema.index_of_column_by_name(None, name))
            .ok_or_else(|| {
                SqlError::new(
                    SqlState::UNDEFINED_COLUMN,
                    format!("table \"{}\" has no column of labels", given.src_table),
                )
                .with_hint(format!(
                    "Name it with the option src_label_col, or call it one of: {}.",
                    LABEL_COLUMNS.join(", ")
                ))
                .at(at("src_table"))
            })?,
    };
    let (ours, theirs) = (schema.field(vector), source_schema.field(source_vector));
    if ours.data_type() != theirs.data_type() {
        return Err(SqlError::new(
            SqlState::DATA_EXCEPTION,
            format!(
                "vectors of different lengths: {} in \"{}\" and {} in \"{}\"",
                length(ours),
                ours.name(),
                length(theirs),
                theirs.name()
            ),
        )
        .at(position));
    }
    let both = marks(&input, vector).into_iter().chain(marks(&source, source_vector));
    if let Some((first, other)) = two(both) {
        return Err(super::provenance::mixed(theirs.name(), &other, &first).at(position));
    }

    let theirs = |index| column_at(&source_schema, index);
    let source = built(
        LogicalPlanBuilder::from(source)
            .project([theirs(source_vector).alias("vector"), theirs(source_label).alias("label")])
            .and_then(LogicalPlanBuilder::build),
    )?;
    let k = usize::try_from(given.top_k).unwrap_or(usize::MAX);
    let context = Arc::new(NearestContext::new(source, state.clone(), k, scope.cancel.clone()));
    let names = [
        format!("{}_label", given.result_col),
        given.result_col.clone(),
        format!("{}_rank", given.result_col),
    ];
    let column = |index| column_at(&schema, index);
    let kept: Vec<Expr> = (0..schema.fields().len())
        .filter(|index| !names.contains(schema.field(*index).name()))
        .map(column)
        .collect();
    let nearest = nearest_function(Arc::clone(&context)).call(vec![column(vector)]);
    let inner = kept.iter().cloned().chain([nearest.alias(LIST_COLUMN)]);
    let fields = context.fields();
    let parts = names
        .iter()
        .enumerate()
        .map(|(place, name)| part_of(named(LIST_COLUMN), place, &fields[place]).alias(name));
    let outer: Vec<Expr> = kept.iter().cloned().chain(parts).collect();
    built(
        LogicalPlanBuilder::from(input)
            .project(inner.collect::<Vec<_>>())
            .and_then(|builder| builder.unnest_column(LIST_COLUMN))
            .and_then(|builder| builder.project(outer))
            .and_then(LogicalPlanBuilder::build),
    )
}

/// The column of vectors: the one that is named, or the only one.
fn vector_column(
    schema: &DFSchema,
    named: Option<&str>,
    option: &str,
    position: usize,
) -> Result<usize, SqlError> {
    let is_vector = |field: &Field| vector_length(field.data_type()).is_some();
    if let Some(name) = named {
        let index = find_column(schema, name, position)?;
        if !is_vector(schema.field(index)) {
            return Err(not_a_vector(name).at(position));
        }
        return Ok(index);
    }
    let mut vectors = (0..schema.fields().len()).filter(|index| is_vector(schema.field(*index)));
    match (vectors.next(), vectors.next()) {
        (Some(index), None) => Ok(index),
        (None, _) => {
            Err(SqlError::new(SqlState::UNDEFINED_COLUMN, "there is no column of vectors")
                .with_hint("CONVERT USING a model makes one.")
                .at(position))
        }
        (Some(_), Some(_)) => Err(SqlError::new(
            SqlState::AMBIGUOUS_COLUMN,
            "there is more than one column of vectors",
        )
        .with_hint(format!("Name one with the option {option}."))
        .at(position)),
    }
}

fn length(field: &Field) -> i32 {
    vector_length(field.data_type()).unwrap_or(0)
}

/// Two marks of a column, if vectors of more than one model or version stand in it.
fn two_of(plan: &LogicalPlan, column: usize) -> Option<(Mark, Mark)> {
    two(marks(plan, column))
}

fn two(marks: impl IntoIterator<Item = Mark>) -> Option<(Mark, Mark)> {
    let mut marks = marks.into_iter();
    let first = marks.next()?;
    let other = marks.find(|mark| *mark != first)?;
    Some((first, other))
}

/// Where an option's value stands, or where it could have stood.
fn option_position(options: &Options, name: &str) -> usize {
    let entry = options.entries.iter().find(|entry| entry.name.value == name);
    entry.map_or(options.position, |entry| entry.value_position)
}
