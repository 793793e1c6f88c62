//! Decimals beside floats: PostgreSQL makes floats of both, DataFusion decimals, which have no NaN, no infinity and no 2.5e-300.
//!
//! Operators that are planned by the types of their sides are [`super::operators`]'s. Here are the other places where values of two types
//! become one: CASE, IN, BETWEEN, arrays, COALESCE and its kin, and UNION. As in PostgreSQL the common type there is the float that
//! takes part: real beside numeric is real, double precision beside either is double precision.
//!
//! Left out: rows of VALUES (an INSERT's are made the columns' before), INTERSECT, EXCEPT, `x IN (SELECT ...)`, JOIN USING.

#![allow(clippy::wildcard_enum_match_arm)] // the enums are other libraries', with far more variants than matter here

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode as _};
use datafusion::common::{Column, DFSchema, ExprSchema, Result};
use datafusion::logical_expr::expr::{InList, ScalarFunction};
use datafusion::logical_expr::{
    Between, Case, Cast, Expr, ExprSchemable as _, LogicalPlan, LogicalPlanBuilder, Union,
};

use super::rewrite::rewrite;

/// Functions whose arguments become one type.
pub(super) const ONE_TYPE: [&str; 5] = ["coalesce", "nullif", "greatest", "least", "make_array"];

/// Makes decimals floats where they meet floats, everywhere in a plan.
pub(super) fn floats_beside_decimals(plan: LogicalPlan) -> Result<LogicalPlan> {
    let at_node = |node| match node {
        LogicalPlan::Union(union) => float_union(union),
        node => Ok(Transformed::no(node)),
    };
    rewrite(plan, at_node, floats_beside_decimals_in)
}

/// As [`floats_beside_decimals`], in one expression over the columns of `schema`.
pub(super) fn floats_beside_decimals_in(
    expr: Expr,
    schema: &DFSchema,
) -> Result<Transformed<Expr>> {
    expr.transform_up(|expr| Ok(one_type(expr, schema)))
}

/// The float that decimals among these types become; none if either kind is missing.
fn common_float<'a>(types: impl IntoIterator<Item = &'a DataType>) -> Option<DataType> {
    let (mut float, mut decimal) = (None, false);
    for data_type in types {
        match data_type {
            DataType::Float64 => float = Some(DataType::Float64),
            DataType::Float32 => float = float.or(Some(DataType::Float32)),
            data_type => decimal |= is_decimal(data_type),
        }
    }
    float.filter(|_| decimal)
}

/// Whether a type is PostgreSQL's numeric.
pub(super) fn is_decimal(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Decimal128(..) | DataType::Decimal256(..))
}

/// Casts the decimals among expressions that become one type. Columns of outer queries have no type here and stay.
fn unite<'a>(expressions: Vec<&'a mut Expr>, schema: &dyn ExprSchema) -> bool {
    let typed: Vec<(&'a mut Expr, DataType)> = expressions
        .into_iter()
        .filter_map(|expr| expr.get_type(schema).ok().map(|data_type| (expr, data_type)))
        .collect();
    let Some(float) = common_float(typed.iter().map(|(_, data_type)| data_type)) else {
        return false;
    };
    for (expr, data_type) in typed {
        if is_decimal(&data_type) {
            let decimal = std::mem::take(expr);
            *expr = Expr::Cast(Cast::new(Box::new(decimal), float.clone()));
        }
    }
    true
}

fn one_type(mut expr: Expr, schema: &DFSchema) -> Transformed<Expr> {
    let united = match &mut expr {
        Expr::Between(Between { expr, low, high, .. }) => unite(vec![expr, low, high], schema),
        Expr::InList(InList { expr, list, .. }) => {
            unite(std::iter::once(expr.as_mut()).chain(list).collect(), schema)
        }
        Expr::Case(Case { expr, when_then_expr, else_expr }) => {
            let (mut whens, mut thens) = (Vec::new(), Vec::new());
            for (when, then) in when_then_expr {
                whens.push(when.as_mut());
                thens.push(then.as_mut());
            }
            thens.extend(else_expr.as_deref_mut());
            let compared = match expr {
                Some(expr) => {
                    whens.push(expr);
                    unite(whens, schema)
                }
                None => false,
            };
            unite(thens, schema) || compared
        }
        Expr::ScalarFunction(ScalarFunction { func, args }) if ONE_TYPE.contains(&func.name()) => {
            unite(args.iter_mut().collect(), schema)
        }
        _ => false,
    };
    if united { Transformed::yes(expr) } else { Transformed::no(expr) }
}

fn float_union(union: Union) -> Result<Transformed<LogicalPlan>> {
    let width = union.schema.fields().len();
    let floats: Vec<Option<DataType>> = (0..width)
        .map(|index| {
            common_float(union.inputs.iter().map(|input| input.schema().field(index).data_type()))
        })
        .collect();
    if floats.iter().all(Option::is_none) {
        return Ok(Transformed::no(LogicalPlan::Union(union)));
    }
    let inputs = union
        .inputs
        .iter()
        .map(|input| {
            let columns = floats.iter().enumerate().map(|(index, float)| {
                let (qualifier, field) = input.schema().qualified_field(index);
                let column = Expr::Column(Column::from((qualifier, field)));
                match float {
                    Some(float) if is_decimal(field.data_type()) => {
                        Expr::Cast(Cast::new(Box::new(column), float.clone()))
                            .alias_qualified(qualifier.cloned(), field.name())
                    }
                    Some(_) | None => column,
                }
            });
            LogicalPlanBuilder::from(input.as_ref().clone())
                .project(columns.collect::<Vec<_>>())
                .and_then(LogicalPlanBuilder::build)
                .map(Arc::new)
        })
        .collect::<Result<Vec<_>>>()?;
    Union::try_new_with_loose_types(inputs).map(|union| Transformed::yes(LogicalPlan::Union(union)))
}
