//! Values of several types that become one: the results of CASE, the columns of UNION, IN, BETWEEN, arrays, COALESCE and its kin.
//!
//! DataFusion's planner gives CASE and UNION the type of the first of them, and widens it only when the plan is analysed: after it was described, and after
//! its columns were assigned to a table's. Here they are cast to what they have in common, before anything else reads a plan's types.
//!
//! What they have in common is DataFusion's to say, but in two cases. Decimals beside floats become the float, as in PostgreSQL: real beside numeric is real, double
//! precision beside either is double precision. DataFusion makes decimals of both, which have no NaN, no infinity and no 2.5e-300. And a text that a
//! query of a UNION spells out is read as what the others have in its column.
//!
//! Left out: rows of VALUES (an INSERT's are made the columns' before), INTERSECT, EXCEPT, `x IN (SELECT ...)`, JOIN USING.

#![allow(clippy::wildcard_enum_match_arm)] // the enums are other libraries', with far more variants than matter here

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode as _};
use datafusion::common::{Column, DFSchema, ExprSchema, Result};
use datafusion::logical_expr::expr::{InList, ScalarFunction};
use datafusion::logical_expr::type_coercion::binary::type_union_coercion;
use datafusion::logical_expr::{
    Between, Case, Cast, Expr, ExprSchemable as _, LogicalPlan, LogicalPlanBuilder, Union,
};

use super::rewrite::rewrite;
use super::rows::is_text;

/// Functions whose arguments become one type.
pub(super) const ONE_TYPE: [&str; 5] = ["coalesce", "nullif", "greatest", "least", "make_array"];

/// Casts what becomes one type to that, everywhere in a plan.
pub(super) fn common_types(plan: LogicalPlan) -> Result<LogicalPlan> {
    let at_node = |node| match node {
        LogicalPlan::Union(union) => typed_union(union),
        node => Ok(Transformed::no(node)),
    };
    rewrite(plan, at_node, common_types_in)
}

/// As [`common_types`], in one expression over the columns of `schema`.
pub(super) fn common_types_in(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    expr.transform_up(|expr| Ok(one_type(expr, schema)))
}

/// Whether a type is PostgreSQL's numeric.
pub(super) fn is_decimal(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Decimal128(..) | DataType::Decimal256(..))
}

/// What values of these types become; none if they do not go together, or there are none.
fn common_type<'a>(types: impl IntoIterator<Item = &'a DataType> + Clone) -> Option<DataType> {
    if let Some(float) = common_float(types.clone()) {
        return Some(float);
    }
    let mut types = types.into_iter();
    let first = types.next()?.clone();
    types.try_fold(first, |common, data_type| type_union_coercion(&common, data_type))
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

/// Expressions with their types. Columns of outer queries may have none here, and stay.
fn typed<'a>(
    expressions: Vec<&'a mut Expr>,
    schema: &dyn ExprSchema,
) -> Vec<(&'a mut Expr, DataType)> {
    expressions
        .into_iter()
        .filter_map(|expr| expr.get_type(schema).ok().map(|data_type| (expr, data_type)))
        .collect()
}

fn cast(expr: &mut Expr, data_type: &DataType) {
    let value = std::mem::take(expr);
    *expr = Expr::Cast(Cast::new(Box::new(value), data_type.clone()));
}

/// Casts the decimals among expressions that become one type, if there are floats.
fn unite_floats(expressions: Vec<&mut Expr>, schema: &dyn ExprSchema) -> bool {
    let typed = typed(expressions, schema);
    let Some(float) = common_float(typed.iter().map(|(_, data_type)| data_type)) else {
        return false;
    };
    for (expr, data_type) in typed {
        if is_decimal(&data_type) {
            cast(expr, &float);
        }
    }
    true
}

/// Casts expressions to their common type. NULLs are of any.
fn unite(expressions: Vec<&mut Expr>, schema: &dyn ExprSchema) -> bool {
    let typed = typed(expressions, schema);
    let Some(common) = common_type(typed.iter().map(|(_, data_type)| data_type)) else {
        return false;
    };
    let mut united = false;
    for (expr, data_type) in typed {
        if data_type != common && data_type != DataType::Null {
            cast(expr, &common);
            united = true;
        }
    }
    united
}

fn one_type(mut expr: Expr, schema: &DFSchema) -> Transformed<Expr> {
    let united = match &mut expr {
        Expr::Between(Between { expr, low, high, .. }) => {
            unite_floats(vec![expr, low, high], schema)
        }
        Expr::InList(InList { expr, list, .. }) => {
            unite_floats(std::iter::once(expr.as_mut()).chain(list).collect(), schema)
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
                    unite_floats(whens, schema)
                }
                None => false,
            };
            unite(thens, schema) || compared
        }
        Expr::ScalarFunction(ScalarFunction { func, args }) if ONE_TYPE.contains(&func.name()) => {
            unite_floats(args.iter_mut().collect(), schema)
        }
        _ => false,
    };
    if united { Transformed::yes(expr) } else { Transformed::no(expr) }
}

/// Whether a column of a query is a text that is spelled out.
fn is_written_text(plan: &LogicalPlan, column: usize) -> bool {
    let LogicalPlan::Projection(projection) = plan else { return false };
    match projection.expr.get(column) {
        Some(Expr::Alias(alias)) => is_text_literal(&alias.expr),
        Some(expr) => is_text_literal(expr),
        None => false,
    }
}

fn is_text_literal(expr: &Expr) -> bool {
    matches!(expr, Expr::Literal(value, _) if is_text(&value.data_type()))
}

/// A union whose queries all have its types.
fn typed_union(union: Union) -> Result<Transformed<LogicalPlan>> {
    let types: Option<Vec<DataType>> = (0..union.schema.fields().len())
        .map(|column| {
            let of = |input: &Arc<LogicalPlan>| input.schema().field(column).data_type().clone();
            let is_open = |input: &&Arc<LogicalPlan>| {
                is_written_text(input, column) || of(input) == DataType::Null
            };
            let given: Vec<DataType> =
                union.inputs.iter().filter(|input| !is_open(input)).map(of).collect();
            if given.is_empty() {
                let texts = union.inputs.iter().map(of).find(|given| *given != DataType::Null);
                return Some(texts.unwrap_or(DataType::Null));
            }
            common_type(&given)
        })
        .collect();
    let has_types = |plan: &LogicalPlan, types: &[DataType]| {
        plan.schema().fields().iter().map(|field| field.data_type()).eq(types)
    };
    let Some(types) = types.filter(|types| {
        union.inputs.iter().any(|input| !has_types(input, types))
            && union.inputs.iter().all(|input| input.schema().fields().len() == types.len())
    }) else {
        return Ok(Transformed::no(LogicalPlan::Union(union)));
    };
    let inputs = union
        .inputs
        .iter()
        .map(|input| {
            if has_types(input, &types) {
                return Ok(Arc::clone(input));
            }
            let columns = input.schema().iter().zip(&types).map(|((qualifier, field), wanted)| {
                let mut column = Expr::Column(Column::from((qualifier, field)));
                if field.data_type() == wanted {
                    return column;
                }
                cast(&mut column, wanted);
                column.alias_qualified(qualifier.cloned(), field.name())
            });
            LogicalPlanBuilder::from(input.as_ref().clone())
                .project(columns.collect::<Vec<_>>())
                .and_then(LogicalPlanBuilder::build)
                .map(Arc::new)
        })
        .collect::<Result<Vec<_>>>()?;
    Union::try_new_with_loose_types(inputs).map(|union| Transformed::yes(LogicalPlan::Union(union)))
}
