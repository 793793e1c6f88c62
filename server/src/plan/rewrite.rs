//! Going through all expressions of a plan, those of subqueries included, to put others in their places.
//!
//! From the leaves up, so that a node sees the types that the columns below it have by then. The names of results stay what they are.

use datafusion::common::tree_node::{Transformed, TreeNode as _};
use datafusion::common::{DFSchema, Result};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Expr, LogicalPlan};

/// Rewrites the expressions of a plan. `in_expression` is told which columns an expression's node reads.
pub(crate) fn rewrite_expressions(
    plan: LogicalPlan,
    in_expression: impl FnMut(Expr, &DFSchema) -> Result<Transformed<Expr>>,
) -> Result<LogicalPlan> {
    rewrite(plan, |node| Ok(Transformed::no(node)), in_expression)
}

/// As [`rewrite_expressions`]; a node itself is rewritten before its expressions.
pub(super) fn rewrite(
    plan: LogicalPlan,
    mut at_node: impl FnMut(LogicalPlan) -> Result<Transformed<LogicalPlan>>,
    mut in_expression: impl FnMut(Expr, &DFSchema) -> Result<Transformed<Expr>>,
) -> Result<LogicalPlan> {
    let mut changed = false;
    let rewritten = plan.transform_up_with_subqueries(|node| {
        // A column below may have another type now.
        let node = if changed { node.recompute_schema()? } else { node };
        let node = at_node(node)?;
        let schema = merge_schema(&node.data.inputs());
        let names = NamePreserver::new(&node.data);
        let node = node.transform_data(|node| {
            if matches!(node, LogicalPlan::Values(_)) {
                // Of many expressions, whose names nobody reads.
                return node.map_expressions(|expression| in_expression(expression, &schema));
            }
            let mut in_named = |expression: Expr| {
                let name = names.save(&expression);
                let rewritten = in_expression(expression, &schema)?;
                Ok(rewritten.update_data(|expression| name.restore(expression)))
            };
            node.map_expressions(|expression| match expression {
                // Has no name of its own, but each of its columns.
                Expr::GroupingSet(_) => expression.map_children(&mut in_named),
                expression => in_named(expression),
            })
        })?;
        changed |= node.transformed;
        Ok(if changed { Transformed::yes(node.data.recompute_schema()?) } else { node })
    })?;
    Ok(rewritten.data)
}
