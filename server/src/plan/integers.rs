//! Whole numbers that are written out: PostgreSQL has one that fits 32 bits as integer, DataFusion's planner all of them as bigint.
//!
//! They are cast in the syntax tree, before planning, so that every type that follows from theirs is right from the start. Only where their type becomes
//! another's: as a result's column, in VALUES, in arithmetic, and where values of several types become one, such as CASE, arrays and COALESCE. Everywhere
//! else, as an argument of a function or in a comparison, one type is as good as the other, and they stay numbers.
//!
//! Left out: the arguments of functions, whose results follow DataFusion's rules: `abs(-5)` and `max(1)` are bigint.

#![allow(clippy::wildcard_enum_match_arm)] // the enums are other libraries', with far more variants than matter here

use std::ops::ControlFlow;

use arrow::datatypes::DataType as ArrowType;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::{Expr as PlannedExpr, LogicalPlan};
use sqlparser::ast::{
    Array, BinaryOperator, DataType, Expr, FunctionArg, FunctionArgExpr, FunctionArguments,
    ObjectNamePart, Query, Select, SelectItem, SetExpr, UnaryOperator, Value, ValueWithSpan,
    VisitMut, VisitorMut,
};

use super::common_types::ONE_TYPE;
use crate::sql::fold;
use crate::sql::pieces::{cast, take};

/// Makes whole numbers integers, everywhere in a statement or an expression.
pub(super) fn integers(tree: &mut impl VisitMut) {
    let _ = tree.visit(&mut Integers);
}

/// Computes the casts in VALUES at once, which may have tens of thousands of them; no type changes.
pub(super) fn integers_in_values(plan: LogicalPlan) -> Result<LogicalPlan> {
    let computed = |node| match node {
        LogicalPlan::Values(mut values) => {
            values.values.iter_mut().flatten().for_each(compute);
            Ok(Transformed::yes(LogicalPlan::Values(values)))
        }
        node => Ok(Transformed::no(node)),
    };
    plan.transform_down_with_subqueries(computed).map(|plan| plan.data)
}

fn compute(cell: &mut PlannedExpr) {
    if let PlannedExpr::Cast(cast) = cell
        && *cast.field.data_type() == ArrowType::Int32
        && let PlannedExpr::Literal(ScalarValue::Int64(Some(number)), _) = cast.expr.as_ref()
        && let Ok(number) = i32::try_from(*number)
    {
        *cell = PlannedExpr::Literal(ScalarValue::Int32(Some(number)), None);
    }
}

struct Integers;

impl VisitorMut for Integers {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        results(&mut query.body);
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        for item in &mut select.projection {
            if let SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } = item {
                narrow(expr);
            }
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        match expr {
            Expr::BinaryOp { left, op, right } if computes(op) => {
                narrow(left);
                narrow(right);
            }
            Expr::Case { conditions, else_result, .. } => {
                conditions.iter_mut().for_each(|when| narrow(&mut when.result));
                else_result.iter_mut().for_each(|result| narrow(result));
            }
            Expr::Array(Array { elem, .. }) => elem.iter_mut().for_each(narrow),
            Expr::Function(function) => {
                if let [ObjectNamePart::Identifier(name)] = function.name.0.as_slice()
                    && takes_one_type(&fold(name))
                    && let FunctionArguments::List(list) = &mut function.args
                {
                    for argument in &mut list.args {
                        if let FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) = argument {
                            narrow(expr);
                        }
                    }
                }
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

/// The rows of VALUES, wherever a query's body has some.
fn results(body: &mut SetExpr) {
    match body {
        SetExpr::Values(values) => {
            values.rows.iter_mut().flat_map(|row| row.content.iter_mut()).for_each(narrow);
        }
        SetExpr::SetOperation { left, right, .. } => {
            results(left);
            results(right);
        }
        _ => {}
    }
}

fn takes_one_type(function: &str) -> bool {
    ONE_TYPE.contains(&function) || function == "pg_typeof"
}

/// Whether an operator's result is of its sides' type.
fn computes(operator: &BinaryOperator) -> bool {
    matches!(
        operator,
        // Arrays are joined with it, too.
        BinaryOperator::StringConcat
            | BinaryOperator::Plus
            | BinaryOperator::Minus
            | BinaryOperator::Multiply
            | BinaryOperator::Divide
            | BinaryOperator::Modulo
            | BinaryOperator::BitwiseAnd
            | BinaryOperator::BitwiseOr
            | BinaryOperator::BitwiseXor
            | BinaryOperator::PGBitwiseXor
            | BinaryOperator::PGBitwiseShiftLeft
            | BinaryOperator::PGBitwiseShiftRight
    )
}

/// Makes a number that fits an integer one, also behind a sign or in parentheses.
fn narrow(expr: &mut Expr) {
    match expr {
        Expr::Value(ValueWithSpan { value: Value::Number(digits, _), .. })
            if digits.replace('_', "").parse::<i32>().is_ok() =>
        {
            *expr = cast(take(expr), DataType::Int(None));
        }
        Expr::UnaryOp { op: UnaryOperator::Minus | UnaryOperator::Plus, expr }
        | Expr::Nested(expr) => narrow(expr),
        _ => {}
    }
}
