//! EVALUATE: one row a metric, over all rows of the query.
//!
//! With labels: `accuracy`, `precision_macro`, `recall_macro` and `f1_macro` of what PREDICT would answer, and `recall@1`, `recall@5`, `recall@10` of a search among
//! the query's own rows. An image that the model was trained with does not vote for itself; and if the model keeps no labelled images, the query's rows vote
//! for one another. Without labels: `alignment`, `uniformity`, `effective_rank`, `dead_dimensions`. Rows without an image or a label do not count, and a
//! score of nothing is NULL.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, cast, lit};
use thanosql_protocol::SqlError;

use super::predict::source_of;
use super::rows::{
    Fallback, built, column_at, find_column, image_column, is_text, model, named, options,
};
use super::{Scope, plan_body};
use crate::functions::evaluate::{
    EvaluateContext, Measures, examine_function, sample_function, score_fields, scores_function,
};
use crate::functions::parts::part_of;
use crate::learning::OnError;
use crate::learning::reference::is_labelled;
use crate::sql::{Evaluate, EvaluateOptions};

/// The usual name of the column of labels.
const LABEL_COLUMN: &str = "label";

/// Columns on the way, which no query can name by chance.
const LOOK: &str = "__thanosql_look";
const LABEL: &str = "__thanosql_label";
const SAMPLE: &str = "__thanosql_sample";
const SCORES: &str = "__thanosql_scores";

pub(super) fn plan_evaluate(
    state: &SessionState,
    scope: &Scope,
    evaluate: &Evaluate,
) -> Result<LogicalPlan, SqlError> {
    let options = options(&scope.parameters, &evaluate.options, EvaluateOptions::read)?;
    let (entry, metadata) = model(scope, &evaluate.model)?;
    let position = evaluate.body.position;
    let input = plan_body(state, scope, &evaluate.body)?;
    let schema = input.schema().clone();
    let column = |index| column_at(&schema, index);

    let label = match &options.target_col {
        Some(name) => Some(find_column(&schema, name, position)?),
        None => {
            let usual = metadata.target.iter().map(|target| target.name.as_str());
            usual.chain([LABEL_COLUMN]).find_map(|name| schema.index_of_column_by_name(None, name))
        }
    };
    let image_col = options.image_col.as_deref();
    let source = source_of(&input, image_col, &entry, &metadata, position)?;
    // Beside vectors there may be images, of which views can be drawn and which tell what the model was trained with.
    let image = if source.is_vectors {
        image_column(&schema, None, Some(&metadata.image_col), Fallback::None, position).ok()
    } else {
        Some(source.column)
    };
    let measures = match label {
        Some(_) => Measures::Labelled { by_model: is_labelled(&entry) },
        None => Measures::Unlabelled { views: image.is_some() },
    };
    let context = Arc::new(EvaluateContext {
        embed: scope.embed_context(OnError::Fail, None),
        model: entry,
        dim: metadata.embedding_dim,
        measures,
    });
    let null = || lit(ScalarValue::Utf8(None));
    let look = examine_function(Arc::clone(&context))
        .call(vec![column(source.column), image.map_or_else(null, column)]);
    let label = match label {
        Some(index) if is_text(schema.field(index).data_type()) => column(index),
        Some(index) => cast(column(index), DataType::Utf8),
        None => null(),
    };
    let looks = context.looks();
    let look_part = |place: usize| part_of(named(LOOK), place, &looks[place]);
    let labelled = matches!(measures, Measures::Labelled { .. });
    let sample = Expr::AggregateFunction(AggregateFunction::new_udf(
        Arc::new(sample_function(labelled)),
        vec![look_part(0), named(LABEL), look_part(1), look_part(2)],
        false,
        None,
        Vec::new(),
        None,
    ));
    let scores = scores_function(measures, scope.cancel.clone()).call(vec![named(SAMPLE)]);
    let fields = score_fields();
    let part =
        |place: usize| part_of(named(SCORES), place, &fields[place]).alias(fields[place].name());
    built(
        LogicalPlanBuilder::from(input)
            .project([look.alias(LOOK), label.alias(LABEL)])
            .and_then(|builder| builder.aggregate(Vec::<Expr>::new(), [sample.alias(SAMPLE)]))
            .and_then(|builder| builder.project([scores.alias(SCORES)]))
            .and_then(|builder| builder.unnest_column(SCORES))
            .and_then(|builder| builder.project([part(0), part(1)]))
            .and_then(LogicalPlanBuilder::build),
    )
}
