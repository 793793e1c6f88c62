//! The types of parameters that clients leave open.
//!
//! DataFusion infers the type of a placeholder from its neighbour in comparisons and from the target column in VALUES. What
//! it leaves open here takes PostgreSQL's answer: a LIMIT counts in int8, anything else is text.

#![allow(clippy::wildcard_enum_match_arm)] // the enums are other libraries', with far more variants than matter here

use arrow::datatypes::DataType;
use datafusion::common::Result;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::{Expr, LogicalPlan};

use super::Parameters;
use super::types::PG_TYPE;

/// Settles what the plan tells about its parameters.
pub(super) fn infer(plan: &LogicalPlan, parameters: &mut Parameters) -> Result<()> {
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::Limit(limit) = node {
            for expression in limit.skip.iter().chain(&limit.fetch) {
                expression.apply(|expression| {
                    if let Some(n) = placeholder(expression) {
                        parameters.settle(n, DataType::Int64);
                    }
                    Ok(TreeNodeRecursion::Continue)
                })?;
            }
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    for (name, field) in plan.get_parameter_fields()? {
        if let (Some(n), Some(field)) = (number(&name), field) {
            // The protocol's oid is unsigned; columns of oids are wider, so that they compare with any integer.
            let is_oid = field.metadata().get(PG_TYPE).is_some_and(|name| name == "oid");
            let data_type = if is_oid { DataType::UInt32 } else { field.data_type().clone() };
            parameters.settle(n, data_type);
        }
    }
    Ok(())
}

/// The `n` of an expression that is `$n`, perhaps in a cast.
pub(super) fn placeholder(expression: &Expr) -> Option<usize> {
    match expression {
        Expr::Placeholder(placeholder) => number(&placeholder.id),
        _ => None,
    }
}

fn number(id: &str) -> Option<usize> {
    id.strip_prefix('$')?.parse().ok()
}
