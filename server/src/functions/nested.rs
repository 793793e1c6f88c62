//! One asynchronous function within another, for instance `embed('m', image_bytes)` over a PRINT.
//!
//! DataFusion (55.2) computes all asynchronous functions of a projection side by side, from its input's columns, so one cannot be an argument of another. Such calls
//! seldom stand in a statement, but the optimizer makes them when it merges two projections. [`separate_nested`] takes them apart again; it is to be called after the
//! last optimization.

#![allow(clippy::wildcard_enum_match_arm)] // the enums are other libraries', with far more variants than matter here

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, Result};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{Expr, LogicalPlan, Projection};

/// Computes asynchronous functions that are arguments of others in a projection of their own.
pub fn separate_nested(plan: LogicalPlan) -> Result<LogicalPlan> {
    let plan = plan.transform_up_with_subqueries(|node| match node {
        LogicalPlan::Projection(projection) => {
            let mut below = Vec::new();
            let mut expressions = Vec::with_capacity(projection.expr.len());
            let names = NamePreserver::new_for_projection();
            for expression in &projection.expr {
                let name = names.save(expression);
                expressions.push(name.restore(without_nested(expression.clone(), &mut below)?));
            }
            if below.is_empty() {
                return Ok(Transformed::no(LogicalPlan::Projection(projection)));
            }
            let columns = projection.input.schema().columns().into_iter().map(Expr::Column);
            let below = columns.chain(below).collect();
            let below = Projection::try_new(below, Arc::clone(&projection.input))?;
            // What was taken down may hold such calls itself.
            let below = Arc::new(separate_nested(LogicalPlan::Projection(below))?);
            let above = Projection::try_new_with_schema(
                expressions,
                below,
                Arc::clone(&projection.schema),
            )?;
            Ok(Transformed::yes(LogicalPlan::Projection(above)))
        }
        other => Ok(Transformed::no(other)),
    })?;
    Ok(plan.data)
}

/// An expression with columns in place of the asynchronous calls that are arguments of others; the calls go to `below`, under the columns' names.
fn without_nested(expression: Expr, below: &mut Vec<Expr>) -> Result<Expr> {
    let replaced = expression.transform_down(|part| match part {
        Expr::ScalarFunction(mut call) if call.func.as_async().is_some() => {
            let mut changed = false;
            for argument in &mut call.args {
                let replaced = argument.clone().transform_down(|inner| {
                    if !is_asynchronous(&inner) {
                        return Ok(Transformed::no(inner));
                    }
                    let name = format!("__thanosql_nested_{}", below.len());
                    below.push(inner.alias(&name));
                    Ok(Transformed::yes(Expr::Column(Column::from_name(name))))
                })?;
                changed |= replaced.transformed;
                *argument = replaced.data;
            }
            let call = Expr::ScalarFunction(call);
            Ok(if changed { Transformed::yes(call) } else { Transformed::no(call) })
        }
        other => Ok(Transformed::no(other)),
    })?;
    Ok(replaced.data)
}

fn is_asynchronous(expression: &Expr) -> bool {
    matches!(expression, Expr::ScalarFunction(call) if call.func.as_async().is_some())
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch};
    use arrow::datatypes::{DataType, Int64Type};
    use async_trait::async_trait;
    use datafusion::logical_expr::async_udf::{AsyncScalarUDF, AsyncScalarUDFImpl};
    use datafusion::logical_expr::{
        ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
    };
    use datafusion::prelude::SessionContext;

    use super::*;

    /// Adds one, asynchronously.
    #[derive(Debug, PartialEq, Eq, Hash)]
    struct Next(Signature);

    impl ScalarUDFImpl for Next {
        fn name(&self) -> &str {
            "next"
        }

        fn signature(&self) -> &Signature {
            &self.0
        }

        fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
            Ok(DataType::Int64)
        }

        fn invoke_with_args(&self, _args: ScalarFunctionArgs) -> Result<ColumnarValue> {
            panic!("it was called in its other form")
        }
    }

    #[async_trait]
    impl AsyncScalarUDFImpl for Next {
        async fn invoke_async_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
            let numbers = args.args[0].to_array(args.number_rows)?;
            let next: Int64Array =
                numbers.as_primitive::<Int64Type>().iter().map(|n| n.map(|n| n + 1)).collect();
            Ok(ColumnarValue::Array(Arc::new(next)))
        }
    }

    #[tokio::test]
    async fn calls_within_calls_are_computed_one_after_another() {
        let context = SessionContext::new();
        let next = Next(Signature::any(1, Volatility::Volatile));
        context.register_udf(AsyncScalarUDF::new(Arc::new(next)).into_scalar_udf());
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![1, 10]));
        context.register_batch("t", RecordBatch::try_from_iter([("n", numbers)]).unwrap()).unwrap();
        for (sql, expected) in [
            ("SELECT next(next(next(n))) AS m FROM t", [4, 13]),
            ("SELECT next(a) AS m FROM (SELECT next(n) AS a FROM t)", [3, 12]),
            ("SELECT next(1 + next(n)) + next(n) AS m FROM t", [6, 24]),
            ("SELECT next(n) AS m FROM t", [2, 11]),
        ] {
            let state = context.state();
            let plan = context.sql(sql).await.unwrap().into_unoptimized_plan();
            let plan = separate_nested(state.optimize(&plan).unwrap()).unwrap();
            let planned = state.query_planner().create_physical_plan(&plan, &state).await.unwrap();
            let batches =
                datafusion::physical_plan::collect(planned, state.task_ctx()).await.unwrap();
            let batch = arrow::compute::concat_batches(&batches[0].schema(), &batches).unwrap();
            assert_eq!(batch.schema().field(0).name(), "m");
            let found = batch.column(0).as_primitive::<Int64Type>();
            assert_eq!(found.values(), &expected, "{sql}");
            assert_eq!(found.null_count(), 0);
        }
    }
}
