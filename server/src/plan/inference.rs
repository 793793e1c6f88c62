//! The types of parameters that clients leave open.
//!
//! DataFusion infers the type of a placeholder from its neighbour in comparisons and from the target column in VALUES. What
//! it leaves open here takes PostgreSQL's answer: a LIMIT counts in int8, what is compared with a vector is one, anything else is text.

#![allow(clippy::wildcard_enum_match_arm)] // the enums are other libraries', with far more variants than matter here

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, Result};
use datafusion::logical_expr::expr::Placeholder;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan};

use super::Parameters;
use super::types::parameter_of;
use crate::functions::vector::compares_vectors;
use crate::functions::vector_arithmetic::any_vector;

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
        let schema = merge_schema(&node.inputs());
        node.apply_expressions(|expression| {
            expression.apply(|expression| {
                if let Expr::ScalarFunction(call) = expression
                    && compares_vectors(call.name())
                {
                    settle_vectors(&call.args, &schema, parameters);
                }
                if let Expr::ScalarFunction(call) = expression
                    && call.name() == "array_has"
                    && let [array, element] = call.args.as_slice()
                {
                    settle_array(array, element, &schema, parameters);
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    for (name, field) in plan.get_parameter_fields()? {
        if let (Some(n), Some(field)) = (number(&name), field) {
            parameters.settle(n, parameter_of(&field));
        }
    }
    Ok(())
}

/// A parameter of a plan whose number is above `most`.
pub(super) fn parameter_above(plan: &LogicalPlan, most: usize) -> Result<Option<usize>> {
    let mut found = None;
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expression| {
            expression.apply(|expression| {
                found = found.or(placeholder(expression).filter(|n| *n > most));
                Ok(match found {
                    Some(_) => TreeNodeRecursion::Stop,
                    None => TreeNodeRecursion::Continue,
                })
            })
        })
    })?;
    Ok(found)
}

/// A parameter beside a vector is a vector, as long as the other.
fn settle_vectors(arguments: &[Expr], schema: &DFSchema, parameters: &mut Parameters) {
    let vector = arguments
        .iter()
        .filter_map(|argument| argument.get_type(schema).ok())
        .find(|data_type| matches!(data_type, DataType::FixedSizeList(..)));
    for argument in arguments {
        if let Expr::Placeholder(Placeholder { field: None, .. }) = argument
            && let Some(n) = placeholder(argument)
        {
            parameters.settle(n, vector.clone().unwrap_or_else(any_vector));
        }
    }
}

/// `element = ANY($n)`: the parameter is an array of what it is searched for.
fn settle_array(array: &Expr, element: &Expr, schema: &DFSchema, parameters: &mut Parameters) {
    if let Expr::Placeholder(Placeholder { field: None, .. }) = array
        && let Some(n) = placeholder(array)
        && let Ok((_, field)) = element.to_field(schema)
        && *field.data_type() != DataType::Null
    {
        let item = field.as_ref().clone().with_name("item").with_nullable(true);
        parameters.settle(n, DataType::List(Arc::new(item)));
    }
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
