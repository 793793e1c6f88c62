//! pgvector's operators as calls of functions: `<=>`, `<->`, `<#>`, `<+>`, and where a vector stands on one side, `+`, `-`, `*` and the
//! comparisons.
//!
//! In DataFusion `<=>` is MySQL's comparison, which PostgreSQL does not have; here it is always pgvector's. A parameter without a type
//! beside a vector is a vector, as PostgreSQL would have it.

#![allow(clippy::wildcard_enum_match_arm)] // the enums are other libraries', with far more variants than matter here

use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use datafusion::common::{DFSchema, Result};
use datafusion::logical_expr::expr::Placeholder;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{Expr, ExprSchemable, ScalarUDF};
use sqlparser::ast::BinaryOperator;
use thanosql_protocol::types::sql_type_name;
use thanosql_protocol::{SqlError, SqlState};

use super::vector::{Metric, metric_function};
use super::vector_arithmetic::{
    Arithmetic, Comparison, any_vector, arithmetic_function, comparison_function,
};
use super::vector_column::common_length;
use crate::error::through_datafusion;

/// Plans the operators of vectors.
#[derive(Debug)]
pub struct VectorOperators;

/// What an operator means between vectors.
enum Meaning {
    /// It exists for nothing else.
    Metric(Metric),
    Arithmetic(Arithmetic),
    Comparison(Comparison),
}

fn meaning(operator: &BinaryOperator) -> Option<Meaning> {
    let symbol = match operator {
        BinaryOperator::Spaceship => "<=>",
        BinaryOperator::LtDashGt => "<->",
        BinaryOperator::Custom(symbol) => symbol,
        BinaryOperator::PGCustomBinaryOperator(parts) => parts.last()?,
        BinaryOperator::Plus => "+",
        BinaryOperator::Minus => "-",
        BinaryOperator::Multiply => "*",
        BinaryOperator::Eq => "=",
        BinaryOperator::NotEq => "<>",
        BinaryOperator::Lt => "<",
        BinaryOperator::LtEq => "<=",
        BinaryOperator::Gt => ">",
        BinaryOperator::GtEq => ">=",
        _ => return None,
    };
    if let Some(metric) = Metric::of_operator(symbol) {
        return Some(Meaning::Metric(metric));
    }
    Some(match symbol {
        "+" => Meaning::Arithmetic(Arithmetic::Add),
        "-" => Meaning::Arithmetic(Arithmetic::Subtract),
        "*" => Meaning::Arithmetic(Arithmetic::Multiply),
        "=" => Meaning::Comparison(Comparison::Equal),
        "<>" => Meaning::Comparison(Comparison::NotEqual),
        "<" => Meaning::Comparison(Comparison::Less),
        "<=" => Meaning::Comparison(Comparison::LessOrEqual),
        ">" => Meaning::Comparison(Comparison::Greater),
        ">=" => Meaning::Comparison(Comparison::GreaterOrEqual),
        _ => return None,
    })
}

impl ExprPlanner for VectorOperators {
    fn plan_binary_op(
        &self,
        expr: RawBinaryExpr,
        schema: &DFSchema,
    ) -> Result<PlannerResult<RawBinaryExpr>> {
        let Some(meaning) = meaning(&expr.op) else {
            return Ok(PlannerResult::Original(expr));
        };
        if !matches!(meaning, Meaning::Metric(_))
            && !is_vector(&expr.left, schema)
            && !is_vector(&expr.right, schema)
        {
            return Ok(PlannerResult::Original(expr));
        }
        let (left, right) = (type_of(&expr.left, schema), type_of(&expr.right, schema));
        if !can_be_vector(&left) || !can_be_vector(&right) {
            return Err(no_operator(&left, &expr.op, &right));
        }
        if !matches!(meaning, Meaning::Comparison(_)) {
            common_length(&[left.clone(), right.clone()])?;
        }
        let function: ScalarUDF = match meaning {
            Meaning::Metric(metric) => metric_function(metric),
            Meaning::Arithmetic(operation) => arithmetic_function(operation),
            Meaning::Comparison(comparison) => comparison_function(comparison),
        };
        let sides = vec![settled(expr.left, &right), settled(expr.right, &left)];
        Ok(PlannerResult::Planned(function.call(sides)))
    }
}

/// The type of one side; NULL's where it is open.
fn type_of(side: &Expr, schema: &DFSchema) -> DataType {
    side.get_type(schema).unwrap_or(DataType::Null)
}

/// Whether a side yields a vector. Operators that are left to DataFusion never do, so that a long chain of them is not walked again at each link.
fn is_vector(side: &Expr, schema: &DFSchema) -> bool {
    !matches!(side, Expr::BinaryExpr(_))
        && matches!(type_of(side, schema), DataType::FixedSizeList(..))
}

/// A parameter that nothing else has given a type is a vector, as long as the one beside it.
fn settled(side: Expr, other: &DataType) -> Expr {
    match side {
        Expr::Placeholder(Placeholder { id, field: None }) => {
            let data_type = match other {
                DataType::FixedSizeList(..) => other.clone(),
                _ => any_vector(),
            };
            let field = Arc::new(Field::new("", data_type, true));
            Expr::Placeholder(Placeholder::new_with_field(id, Some(field)))
        }
        side => side,
    }
}

fn can_be_vector(data_type: &DataType) -> bool {
    match data_type {
        DataType::Null | DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => true,
        DataType::FixedSizeList(item, _) | DataType::List(item) | DataType::LargeList(item) => {
            item.data_type().is_numeric() || *item.data_type() == DataType::Null
        }
        _ => false,
    }
}

fn no_operator(
    left: &DataType,
    operator: &BinaryOperator,
    right: &DataType,
) -> datafusion::error::DataFusionError {
    let name = |data_type: &DataType| {
        let field = Field::new("", data_type.clone(), true);
        sql_type_name(thanosql_protocol::types::type_oid(&field))
            .unwrap_or_else(|| data_type.to_string())
    };
    through_datafusion(
        SqlError::new(
            SqlState::UNDEFINED_FUNCTION,
            format!("operator does not exist: {} {operator} {}", name(left), name(right)),
        )
        .with_hint("This operator takes two vectors; a cast makes them: '[1,2,3]'::vector(3)."),
    )
}
