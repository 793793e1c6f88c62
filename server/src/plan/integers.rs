//! Whole numbers that are written out: PostgreSQL has one that fits 32 bits as integer, DataFusion all of them as bigint.
//!
//! They become integers where their type becomes another's: as a result's column, in rows of VALUES, beside another integer in arithmetic, and where values of
//! several types become one, such as CASE, arrays and COALESCE. Everywhere else, as an argument of a function, beside a bigint or in a comparison, one type is as
//! good as the other, and they stay.
//!
//! Left out: the columns of WITH RECURSIVE, which stay as wide as they were planned.

#![allow(clippy::wildcard_enum_match_arm)] // the enums are other libraries', with far more variants than matter here

use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use datafusion::common::tree_node::{Transformed, TreeNode as _};
use datafusion::common::{Column, DFSchema, ExprSchema, Result, ScalarValue};
use datafusion::logical_expr::expr::{Alias, ScalarFunction};
use datafusion::logical_expr::{
    BinaryExpr, Case, Cast, Expr, ExprSchemable as _, LogicalPlan, LogicalPlanBuilder, Operator,
    Projection, Union, Values,
};

use super::numbers::ONE_TYPE;
use super::rewrite::rewrite;

/// Makes whole numbers integers, everywhere in a plan.
pub(super) fn integers(plan: LogicalPlan) -> Result<LogicalPlan> {
    let plan = plan.transform_down_with_subqueries(keep_width)?.data;
    let at_node = |node| match node {
        LogicalPlan::Projection(projection) => results(projection),
        LogicalPlan::Values(values) => rows(values),
        LogicalPlan::Union(union) => Ok(union_of(union)),
        node => Ok(Transformed::no(node)),
    };
    rewrite(plan, at_node, integers_in)
}

/// As [`integers`], within one expression over the columns of `schema`.
pub(super) fn integers_in(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    expr.transform_up(|expr| Ok(united(expr, schema)))
}

/// The integer that a whole number is, if it is written out and fits.
fn integer(expr: &Expr) -> Option<ScalarValue> {
    match expr {
        Expr::Literal(ScalarValue::Int64(Some(number)), _) => {
            i32::try_from(*number).ok().map(|number| ScalarValue::Int32(Some(number)))
        }
        _ => None,
    }
}

/// Makes an expression the integer that it is.
fn narrow(expr: &mut Expr) -> bool {
    let Some(number) = integer(expr) else { return false };
    *expr = Expr::Literal(number, None);
    true
}

/// Makes integers of those expressions that are some; says whether there are any.
fn narrow_all<'a>(expressions: impl IntoIterator<Item = &'a mut Expr>) -> bool {
    let mut narrowed = false;
    for expr in expressions {
        narrowed |= narrow(expr);
    }
    narrowed
}

/// Narrows the numbers among expressions that become one type, if no other of them needs more than an integer.
fn unite(expressions: Vec<&mut Expr>, schema: &dyn ExprSchema) -> bool {
    let fit = expressions.iter().all(|expr| {
        integer(expr).is_some()
            || matches!(
                expr.get_type(schema),
                Ok(DataType::Null | DataType::Int16 | DataType::Int32)
            )
    });
    fit && narrow_all(expressions)
}

fn united(mut expr: Expr, schema: &DFSchema) -> Transformed<Expr> {
    let changed = match &mut expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if is_arithmetic(*op) => {
            unite(vec![left, right], schema)
        }
        Expr::Negative(number) => narrow(number),
        Expr::Case(Case { when_then_expr, else_expr, .. }) => {
            let thens = when_then_expr.iter_mut().map(|(_, then)| then.as_mut());
            unite(thens.chain(else_expr.as_deref_mut()).collect(), schema)
        }
        Expr::ScalarFunction(ScalarFunction { func, args }) if ONE_TYPE.contains(&func.name()) => {
            unite(args.iter_mut().collect(), schema)
        }
        Expr::ScalarFunction(ScalarFunction { func, args }) if func.name() == "pg_typeof" => {
            narrow_all(args)
        }
        _ => false,
    };
    if changed { Transformed::yes(expr) } else { Transformed::no(expr) }
}

fn is_arithmetic(operator: Operator) -> bool {
    matches!(
        operator,
        Operator::Plus
            | Operator::Minus
            | Operator::Multiply
            | Operator::Divide
            | Operator::Modulo
            | Operator::BitwiseAnd
            | Operator::BitwiseOr
            | Operator::BitwiseXor
            | Operator::BitwiseShiftLeft
            | Operator::BitwiseShiftRight
    )
}

/// Numbers that are columns of a result by themselves.
fn results(mut projection: Projection) -> Result<Transformed<LogicalPlan>> {
    let mut changed = false;
    for expr in &mut projection.expr {
        changed |= match expr {
            Expr::Alias(Alias { expr, .. }) => narrow(expr),
            expr => {
                let name = expr.schema_name().to_string();
                let narrowed = narrow(expr);
                if narrowed {
                    *expr = std::mem::take(expr).alias(name);
                }
                narrowed
            }
        };
    }
    if !changed {
        return Ok(Transformed::no(LogicalPlan::Projection(projection)));
    }
    let projection = Projection::try_new(projection.expr, projection.input)?;
    Ok(Transformed::yes(LogicalPlan::Projection(projection)))
}

/// Columns of VALUES in which all numbers fit.
fn rows(Values { schema, mut values }: Values) -> Result<Transformed<LogicalPlan>> {
    let fits = |expr: &Expr| {
        integer(expr).is_some()
            || matches!(expr, Expr::Literal(ScalarValue::Null | ScalarValue::Int64(None), _))
    };
    let narrowed: Vec<bool> = (0..schema.fields().len())
        .map(|column| {
            values.iter().all(|row| fits(&row[column]))
                && values.iter().any(|row| integer(&row[column]).is_some())
        })
        .collect();
    if !narrowed.contains(&true) {
        return Ok(Transformed::no(LogicalPlan::Values(Values { schema, values })));
    }
    for row in &mut values {
        for (expr, _) in row.iter_mut().zip(&narrowed).filter(|(_, narrowed)| **narrowed) {
            if !narrow(expr) {
                *expr = Expr::Literal(ScalarValue::Int32(None), None);
            }
        }
    }
    let fields = schema.iter().zip(narrowed).map(|((qualifier, field), narrowed)| {
        let field = match narrowed {
            true => Arc::new(Field::clone(field).with_data_type(DataType::Int32)),
            false => Arc::clone(field),
        };
        (qualifier.cloned(), field)
    });
    let schema = DFSchema::new_with_metadata(fields.collect(), schema.as_ref().metadata().clone())?;
    Ok(Transformed::yes(LogicalPlan::Values(Values { schema: Arc::new(schema), values })))
}

/// A union takes its types from its inputs, which may have others now.
fn union_of(union: Union) -> Transformed<LogicalPlan> {
    let narrower = |input: &Arc<LogicalPlan>| {
        let types = input.schema().fields().iter().map(|field| field.data_type());
        let of_union = union.schema.fields().iter().map(|field| field.data_type());
        types.zip(of_union).any(|types| types == (&DataType::Int32, &DataType::Int64))
    };
    if !union.inputs.iter().any(narrower) {
        return Transformed::no(LogicalPlan::Union(union));
    }
    match Union::try_new_with_loose_types(union.inputs.clone()) {
        Ok(union) => Transformed::yes(LogicalPlan::Union(union)),
        Err(_) => Transformed::no(LogicalPlan::Union(union)),
    }
}

/// What a recursive query reads of itself was planned with the types of its first term.
fn keep_width(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let LogicalPlan::RecursiveQuery(mut query) = plan else {
        return Ok(Transformed::no(plan));
    };
    query.static_term = as_wide(&query.static_term)?;
    query.recursive_term = as_wide(&query.recursive_term)?;
    Ok(Transformed::yes(LogicalPlan::RecursiveQuery(query)))
}

/// The same rows, bigint where they are bigint, whatever becomes of the plan's expressions.
fn as_wide(plan: &Arc<LogicalPlan>) -> Result<Arc<LogicalPlan>> {
    let columns = plan.schema().iter().map(|(qualifier, field)| {
        let column = Expr::Column(Column::from((qualifier, field)));
        match field.data_type() {
            DataType::Int64 => Expr::Cast(Cast::new(Box::new(column), DataType::Int64))
                .alias_qualified(qualifier.cloned(), field.name()),
            _ => column,
        }
    });
    LogicalPlanBuilder::from(plan.as_ref().clone())
        .project(columns.collect::<Vec<_>>())
        .and_then(LogicalPlanBuilder::build)
        .map(Arc::new)
}
