//! Which models made the vectors of a plan's column.
//!
//! A column of vectors carries its model's name and version in its field, but DataFusion keeps only what the inputs of a UNION have in common,
//! and nothing of what goes through CASE or coalesce. Vectors of two versions would pass unmarked. So the column is followed down to where it comes from, and
//! every mark on the way is found.

#![allow(clippy::wildcard_enum_match_arm)] // the enums are other libraries', with far more variants than matter here

use std::collections::BTreeSet;

use arrow::datatypes::{DataType, Field};
use datafusion::common::DFSchema;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::{Distinct, Expr, ExprSchemable, JoinType, LogicalPlan};
use thanosql_protocol::{SqlError, SqlState};
use thanosql_storage::ModelEntry;

use crate::learning::{Mark, other_vectors};

/// Every mark of what a plan's column is made of.
pub fn marks(plan: &LogicalPlan, column: usize) -> BTreeSet<Mark> {
    let mut found = BTreeSet::new();
    collect(plan, column, &mut found);
    found
}

/// Checks that nothing in a column was made by another model or version. Vectors without a mark, that someone loaded, pass.
///
/// # Errors
/// 55000.
pub fn check_column(plan: &LogicalPlan, column: usize, entry: &ModelEntry) -> Result<(), SqlError> {
    let own = Mark::of_model(entry);
    match marks(plan, column).into_iter().find(|mark| *mark != own) {
        None => Ok(()),
        Some(other) => Err(other_vectors(plan.schema().field(column).name(), &other, entry)),
    }
}

/// Checks that values may stand in a stored column: vectors of two models or versions never stand in one.
///
/// # Errors
/// 55000.
pub fn check_assignment(plan: &LogicalPlan, column: usize, target: &Field) -> Result<(), SqlError> {
    let Some(kept) = Mark::of(target) else { return Ok(()) };
    match marks(plan, column).into_iter().find(|mark| *mark != kept) {
        None => Ok(()),
        Some(given) => Err(mixed(target.name(), &given, &kept)),
    }
}

/// 55000: two models' vectors for one column.
pub fn mixed(column: &str, given: &Mark, kept: &Mark) -> SqlError {
    SqlError::new(
        SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!(
            "column \"{column}\" holds vectors of version {} of the model \"{}\", not of version {} of \"{}\"",
            kept.version, kept.model, given.version, given.model
        ),
    )
    .with_hint("Vectors of different models or versions cannot be compared. CONVERT all rows with one model, into a new table.")
}

fn collect(plan: &LogicalPlan, column: usize, found: &mut BTreeSet<Mark>) {
    match plan {
        LogicalPlan::Projection(node) => {
            of_expr(node.expr.get(column), &node.input, found);
        }
        LogicalPlan::Filter(node) => collect(&node.input, column, found),
        LogicalPlan::Sort(node) => collect(&node.input, column, found),
        LogicalPlan::Limit(node) => collect(&node.input, column, found),
        LogicalPlan::Repartition(node) => collect(&node.input, column, found),
        LogicalPlan::SubqueryAlias(node) => collect(&node.input, column, found),
        LogicalPlan::Subquery(node) => collect(&node.subquery, column, found),
        LogicalPlan::Distinct(Distinct::All(input)) => collect(input, column, found),
        LogicalPlan::Distinct(Distinct::On(node)) => {
            of_expr(node.select_expr.get(column), &node.input, found);
        }
        LogicalPlan::Union(node) => {
            for input in &node.inputs {
                collect(input, column, found);
            }
        }
        LogicalPlan::RecursiveQuery(node) => {
            collect(&node.static_term, column, found);
            collect(&node.recursive_term, column, found);
        }
        LogicalPlan::Join(node) => {
            let left = node.left.schema().fields().len();
            let right_only = matches!(
                node.join_type,
                JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark
            );
            if right_only {
                collect(&node.right, column, found);
            } else if column < left {
                collect(&node.left, column, found);
            } else {
                collect(&node.right, column - left, found);
            }
        }
        LogicalPlan::Aggregate(node) => match column.checked_sub(node.group_expr.len()) {
            None => of_expr(node.group_expr.get(column), &node.input, found),
            Some(place) => of_expr(node.aggr_expr.get(place), &node.input, found),
        },
        LogicalPlan::Window(node) => match column.checked_sub(node.input.schema().fields().len()) {
            None => collect(&node.input, column, found),
            Some(place) => of_expr(node.window_expr.get(place), &node.input, found),
        },
        LogicalPlan::Values(node) => {
            for row in &node.values {
                if let Some(expr) = row.get(column) {
                    of_parts(expr, &[], &node.schema, found);
                }
            }
        }
        LogicalPlan::TableScan(scan) => {
            let source_column =
                scan.projection.as_ref().map_or(Some(column), |kept| kept.get(column).copied());
            match (scan.source.get_logical_plan(), source_column) {
                (Some(view), Some(source_column)) => collect(&view, source_column, found),
                (None, _) | (_, None) => of_field(plan, column, found),
            }
        }
        LogicalPlan::Unnest(node) => {
            // Columns are taken apart, so positions differ: the name tells.
            let name = plan.schema().field(column).name();
            match node.input.schema().index_of_column_by_name(None, name) {
                Some(column) => collect(&node.input, column, found),
                None => of_field(plan, column, found),
            }
        }
        _ => of_field(plan, column, found),
    }
}

fn of_field(plan: &LogicalPlan, column: usize, found: &mut BTreeSet<Mark>) {
    if let Some(field) = plan.schema().fields().get(column) {
        found.extend(Mark::of(field));
    }
}

fn of_expr(expr: Option<&Expr>, input: &LogicalPlan, found: &mut BTreeSet<Mark>) {
    if let Some(expr) = expr {
        of_parts(expr, &[input], input.schema(), found);
    }
}

/// The marks of all vectors that an expression's value is made of; parts that are no vectors, such as a condition, do not count.
fn of_parts(expr: &Expr, inputs: &[&LogicalPlan], schema: &DFSchema, found: &mut BTreeSet<Mark>) {
    let walked = expr.apply(|part| {
        match part {
            Expr::Column(column) => {
                for input in inputs {
                    if let Some(index) = input.schema().maybe_index_of_column(column) {
                        collect(input, index, found);
                    }
                }
            }
            Expr::ScalarSubquery(query) => collect(&query.subquery, 0, found),
            Expr::Literal(_, Some(metadata)) => {
                let field = metadata.add_to_field(Field::new("", DataType::Null, true));
                found.extend(Mark::of(&field));
            }
            // The vectors that embed makes, and what was computed from its field before.
            Expr::ScalarFunction(call) => {
                if call.func.as_async().is_some()
                    && let Ok((_, field)) = part.to_field(schema)
                {
                    found.extend(Mark::of(&field));
                }
                let is_vector =
                    part.get_type(schema).is_ok_and(|data_type| holds_vectors(&data_type));
                if !is_vector {
                    return Ok(TreeNodeRecursion::Jump);
                }
            }
            _ => {}
        }
        Ok(TreeNodeRecursion::Continue)
    });
    debug_assert!(walked.is_ok(), "the walk makes no errors");
}

fn holds_vectors(data_type: &DataType) -> bool {
    match data_type {
        DataType::FixedSizeList(..) => true,
        DataType::List(item) | DataType::LargeList(item) => {
            item.data_type().is_numeric() || holds_vectors(item.data_type())
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, FixedSizeListArray, Int32Array, RecordBatch};
    use arrow::datatypes::{Float32Type, Schema};
    use datafusion::prelude::SessionContext;

    use super::*;

    fn marked(name: &str, version: &str) -> RecordBatch {
        let vectors = FixedSizeListArray::from_iter_primitive::<Float32Type, _, _>(
            [Some([Some(1.0), Some(0.0)])],
            2,
        );
        let mark = Mark { model: name.to_owned(), version: version.to_owned() };
        let vector =
            Field::new("v", crate::plan::types::vector(2), true).with_metadata(mark.metadata());
        let schema = Schema::new(vec![Field::new("id", DataType::Int32, true), vector]);
        let columns: Vec<ArrayRef> = vec![Arc::new(Int32Array::from(vec![1])), Arc::new(vectors)];
        RecordBatch::try_new(Arc::new(schema), columns).unwrap()
    }

    async fn marks_of(sql: &str) -> Vec<String> {
        let context = SessionContext::new();
        context.register_batch("old", marked("m", "1")).unwrap();
        context.register_batch("new", marked("m", "2")).unwrap();
        context.sql("CREATE VIEW seen AS SELECT v AS w, id FROM old").await.unwrap();
        let plan = context.sql(sql).await.unwrap().into_unoptimized_plan();
        marks(&plan, 0).into_iter().map(|mark| mark.version).collect()
    }

    #[tokio::test]
    async fn marks_are_found_wherever_vectors_come_from() {
        for (sql, versions) in [
            ("SELECT v FROM old", vec!["1"]),
            (
                "SELECT x.v AS y FROM (SELECT id, v FROM old WHERE id > 0 ORDER BY id LIMIT 3) x",
                vec!["1"],
            ),
            ("SELECT v FROM new UNION ALL SELECT v FROM old", vec!["1", "2"]),
            ("SELECT v FROM (SELECT v, id FROM old UNION SELECT v, id FROM new)", vec!["1", "2"]),
            ("WITH c AS (SELECT v FROM new) SELECT v FROM c", vec!["2"]),
            ("SELECT w FROM seen", vec!["1"]),
            ("SELECT old.v FROM old JOIN new ON old.id = new.id", vec!["1"]),
            ("SELECT new.v FROM old JOIN new ON old.id = new.id", vec!["2"]),
            (
                "SELECT CASE WHEN id = 1 THEN v ELSE (SELECT v FROM new) END FROM old",
                vec!["1", "2"],
            ),
            ("SELECT first_value(v) FROM old GROUP BY id", vec!["1"]),
            ("SELECT v FROM old GROUP BY v", vec!["1"]),
            ("SELECT id FROM old", vec![]),
        ] {
            assert_eq!(marks_of(sql).await, versions, "{sql}");
        }
    }
}
