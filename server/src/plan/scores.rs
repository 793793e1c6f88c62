//! `ORDER BY similarity_image1 DESC LIMIT k` around a SEARCH: rows without a vector come last.
//!
//! PostgreSQL puts NULLs first in a descending order, so a LIMIT would give the rows that were not compared at all. A score's column carries a mark while it is
//! planned; where such a column is sorted by, downwards, NULLs go last, unless the statement says NULLS FIRST somewhere.

#![allow(clippy::wildcard_enum_match_arm)] // the enums are other libraries', with far more variants than matter here

use std::collections::HashMap;
use std::ops::ControlFlow;

use datafusion::common::Result;
use datafusion::common::metadata::FieldMetadata;
use datafusion::common::tree_node::Transformed;
use datafusion::logical_expr::{Expr, LogicalPlan};
use sqlparser::ast::{OrderByKind, Query, Statement, Visit, Visitor};

/// The metadata key of a score. It is not stored.
pub const SCORE_KEY: &str = "thanosql.score";

/// A score under its name, with its mark.
pub(super) fn score_column(score: Expr, name: &str) -> Expr {
    let mark =
        FieldMetadata::from(HashMap::from([(SCORE_KEY.to_owned(), "similarity".to_owned())]));
    score.alias_with_metadata(name, Some(mark))
}

/// Whether a statement says NULLS FIRST.
pub(super) fn says_nulls_first(statement: &Statement) -> bool {
    struct Search;
    impl Visitor for Search {
        type Break = ();

        fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
            let said = query.order_by.as_ref().is_some_and(|order| match &order.kind {
                OrderByKind::Expressions(expressions) => expressions
                    .iter()
                    .any(|expression| expression.options.nulls_first == Some(true)),
                OrderByKind::All(options) => options.nulls_first == Some(true),
            });
            if said { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        }
    }
    statement.visit(&mut Search).is_break()
}

/// Puts rows without a score last wherever a plan sorts by one downwards.
pub(super) fn nulls_last(plan: LogicalPlan) -> Result<LogicalPlan> {
    let plan = plan.transform_up_with_subqueries(|node| {
        let LogicalPlan::Sort(mut sort) = node else { return Ok(Transformed::no(node)) };
        let mut changed = false;
        for key in &mut sort.expr {
            if let Expr::Column(column) = &key.expr
                && !key.asc
                && key.nulls_first
                && let Some(index) = sort.input.schema().maybe_index_of_column(column)
                && sort.input.schema().field(index).metadata().contains_key(SCORE_KEY)
            {
                key.nulls_first = false;
                changed = true;
            }
        }
        let sort = LogicalPlan::Sort(sort);
        Ok(if changed { Transformed::yes(sort) } else { Transformed::no(sort) })
    })?;
    Ok(plan.data)
}
