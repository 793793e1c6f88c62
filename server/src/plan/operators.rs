//! Operators where DataFusion's and PostgreSQL's answers differ: days between dates, text beside other types, spans of time, decimals
//! and whole numbers beside floats, numbers without a sign, quotients of decimals, and sums of whole numbers that do not fit.
//!
//! All but the last are decided by types while a tree is planned ([`PostgresOperators`]). The last is a rule over the analysed plan
//! ([`CheckedIntegers`]), when both sides have one type: DataFusion lets whole numbers wrap around, PostgreSQL answers 22003.

#![allow(clippy::wildcard_enum_match_arm)] // the enums are other libraries', with far more variants than matter here

use arrow::array::Datum;
use arrow::compute::kernels::numeric::{add, mul, sub};
use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType, TimeUnit};
use arrow::error::ArrowError;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode as _};
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{
    BinaryExpr, Cast, ColumnarValue, Expr, ExprSchemable as _, LogicalPlan, Operator,
    ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility, binary_expr,
};
use datafusion::optimizer::AnalyzerRule;
use sqlparser::ast::BinaryOperator;
use thanosql_protocol::{SqlError, SqlState};

use super::coerce::write_text;
use super::common_types::is_decimal;
use super::rewrite::rewrite_expressions;
use super::rows::is_text;
use crate::error::through_datafusion;
use crate::functions::postgres::{interval_times, timestamp_difference};

/// Digits after the point that Arrow's division of decimals adds.
const QUOTIENT_DIGITS: i8 = 4;

/// Plans operators by the types of their sides.
#[derive(Debug)]
pub struct PostgresOperators;

impl ExprPlanner for PostgresOperators {
    fn plan_binary_op(
        &self,
        expr: RawBinaryExpr,
        schema: &DFSchema,
    ) -> Result<PlannerResult<RawBinaryExpr>> {
        let (Ok(left), Ok(right)) = (expr.left.get_type(schema), expr.right.get_type(schema))
        else {
            return Ok(PlannerResult::Original(expr));
        };
        let RawBinaryExpr { op, left: l, right: r } = expr;
        let ((l, left), (r, right)) = match is_arithmetic(&op) {
            true => (signed(l, left), signed(r, right)),
            false => ((l, left), (r, right)),
        };
        let planned = match (&op, &left, &right) {
            (BinaryOperator::Minus, DataType::Date32, DataType::Date32) => {
                binary_expr(days(l), Operator::Minus, days(r))
            }
            (BinaryOperator::Plus, DataType::Date32, whole) if whole.is_integer() => {
                date(binary_expr(days(l), Operator::Plus, int(r)))
            }
            (BinaryOperator::Plus, whole, DataType::Date32) if whole.is_integer() => {
                date(binary_expr(int(l), Operator::Plus, days(r)))
            }
            (BinaryOperator::Minus, DataType::Date32, whole) if whole.is_integer() => {
                date(binary_expr(days(l), Operator::Minus, int(r)))
            }
            // A date and a span of time make a timestamp.
            (
                BinaryOperator::Plus | BinaryOperator::Minus,
                DataType::Date32,
                DataType::Interval(_),
            ) => {
                let operator = match op {
                    BinaryOperator::Plus => Operator::Plus,
                    _ => Operator::Minus,
                };
                binary_expr(timestamp(l), operator, r)
            }
            (BinaryOperator::Minus, DataType::Timestamp(..), DataType::Timestamp(..))
            | (BinaryOperator::Minus, DataType::Timestamp(..), DataType::Date32)
            | (BinaryOperator::Minus, DataType::Date32, DataType::Timestamp(..)) => {
                timestamp_difference().call(vec![l, r])
            }
            (BinaryOperator::Multiply, DataType::Interval(_), number) if number.is_numeric() => {
                interval_times().call(vec![l, r])
            }
            (BinaryOperator::Multiply, number, DataType::Interval(_)) if number.is_numeric() => {
                interval_times().call(vec![r, l])
            }
            (BinaryOperator::Divide, DataType::Interval(_), number) if number.is_numeric() => {
                let one = Expr::Literal(ScalarValue::Float64(Some(1.0)), None);
                let factor = binary_expr(one, Operator::Divide, cast_to(r, DataType::Float64));
                interval_times().call(vec![l, factor])
            }
            (BinaryOperator::StringConcat, text, other) if is_text(text) && is_written(other) => {
                let other = write_text(r, schema)?;
                binary_expr(l, Operator::StringConcat, other)
            }
            (BinaryOperator::StringConcat, other, text) if is_text(text) && is_written(other) => {
                let other = write_text(l, schema)?;
                binary_expr(other, Operator::StringConcat, r)
            }
            (op, decimal, float) if is_decimal(decimal) && float.is_floating() => {
                let decimal = cast_to(l, DataType::Float64);
                let expr = RawBinaryExpr { op: (*op).clone(), left: decimal, right: r };
                return Ok(PlannerResult::Original(expr));
            }
            (op, float, decimal) if float.is_floating() && is_decimal(decimal) => {
                let decimal = cast_to(r, DataType::Float64);
                let expr = RawBinaryExpr { op: (*op).clone(), left: l, right: decimal };
                return Ok(PlannerResult::Original(expr));
            }
            // Also where they are compared: real has too few digits for them.
            (_, DataType::Float32, whole) | (_, whole, DataType::Float32) if whole.is_integer() => {
                let (left, right) = (cast_to(l, DataType::Float64), cast_to(r, DataType::Float64));
                return Ok(PlannerResult::Original(RawBinaryExpr { op, left, right }));
            }
            (BinaryOperator::Divide, dividend, divisor)
                if (is_decimal(dividend) || is_decimal(divisor))
                    && let Some(wide) = quotient_type(dividend)
                    && (divisor.is_integer() || is_decimal(divisor)) =>
            {
                binary_expr(cast_to(l, wide), Operator::Divide, r)
            }
            _ => return Ok(PlannerResult::Original(RawBinaryExpr { op, left: l, right: r })),
        };
        Ok(PlannerResult::Planned(planned))
    }
}

fn is_arithmetic(operator: &BinaryOperator) -> bool {
    matches!(
        operator,
        BinaryOperator::Plus
            | BinaryOperator::Minus
            | BinaryOperator::Multiply
            | BinaryOperator::Divide
            | BinaryOperator::Modulo
    )
}

/// PostgreSQL has no numbers without a sign, DataFusion counts and numbers rows in them. One that is written out did not fit a bigint.
fn signed(expr: Expr, data_type: DataType) -> (Expr, DataType) {
    if data_type != DataType::UInt64 {
        return (expr, data_type);
    }
    let signed = match expr {
        Expr::Literal(..) => DataType::Decimal128(20, 0),
        _ => DataType::Int64,
    };
    (cast_to(expr, signed.clone()), signed)
}

/// What a whole number or decimal is made before it is divided, so that the quotient has sixteen digits after the point, about as many
/// as PostgreSQL's: the division adds [`QUOTIENT_DIGITS`] to those of the dividend. None if it has as many, or no room for them.
fn quotient_type(dividend: &DataType) -> Option<DataType> {
    let (precision, scale) = match dividend {
        DataType::Int16 | DataType::Int32 => (10, 0),
        DataType::Int64 => (19, 0),
        DataType::Decimal128(precision, scale) => (*precision, *scale),
        _ => return None,
    };
    let wanted = 16 - QUOTIENT_DIGITS;
    let whole = i16::from(precision) - i16::from(scale);
    let wide = u8::try_from(whole + i16::from(wanted)).ok()?;
    (scale < wanted && wide <= DECIMAL128_MAX_PRECISION)
        .then_some(DataType::Decimal128(wide, wanted))
}

/// Types that `||` beside a text writes as text.
fn is_written(data_type: &DataType) -> bool {
    !is_text(data_type)
        && !matches!(
            data_type,
            // DataFusion writes whole numbers and booleans as PostgreSQL casts them.
            DataType::Null
                | DataType::Boolean
                | DataType::List(_)
                | DataType::LargeList(_)
                | DataType::Struct(_)
        )
}

fn cast_to(expr: Expr, data_type: DataType) -> Expr {
    Expr::Cast(Cast::new(Box::new(expr), data_type))
}

/// A date as the number of its day.
fn days(expr: Expr) -> Expr {
    cast_to(expr, DataType::Int32)
}

fn int(expr: Expr) -> Expr {
    cast_to(expr, DataType::Int32)
}

fn date(expr: Expr) -> Expr {
    cast_to(expr, DataType::Date32)
}

fn timestamp(expr: Expr) -> Expr {
    cast_to(expr, DataType::Timestamp(TimeUnit::Microsecond, None))
}

/// Sums, differences and products of whole numbers that do not wrap around.
#[derive(Debug)]
pub struct CheckedIntegers;

impl AnalyzerRule for CheckedIntegers {
    fn name(&self) -> &str {
        "checked_integers"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        rewrite_expressions(plan, |expr, schema| {
            expr.transform_up(|expr| Ok(checked(expr, schema)))
        })
    }
}

fn checked(expr: Expr, schema: &DFSchema) -> Transformed<Expr> {
    let (left, op, right) = match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => (left, op, right),
        Expr::Negative(number) => return negated(number, schema),
        other => return Transformed::no(other),
    };
    let arithmetic = match op {
        Operator::Plus => Some(Arithmetic::Add),
        Operator::Minus => Some(Arithmetic::Subtract),
        Operator::Multiply => Some(Arithmetic::Multiply),
        _ => None,
    };
    // Columns of outer queries are not in this schema; what holds them stays as it is.
    let types = (left.get_type(schema), right.get_type(schema));
    match (arithmetic, types) {
        (Some(arithmetic), (Ok(a), Ok(b)))
            if a == b && matches!(a, DataType::Int16 | DataType::Int32 | DataType::Int64) =>
        {
            let function = ScalarUDF::from(CheckedArithmetic::new(arithmetic));
            Transformed::yes(function.call(vec![*left, *right]))
        }
        _ => Transformed::no(Expr::BinaryExpr(BinaryExpr { left, op, right })),
    }
}

/// The least whole number has no counterpart.
fn negated(number: Box<Expr>, schema: &DFSchema) -> Transformed<Expr> {
    let zero = match number.get_type(schema) {
        Ok(DataType::Int16) => ScalarValue::Int16(Some(0)),
        Ok(DataType::Int32) => ScalarValue::Int32(Some(0)),
        Ok(DataType::Int64) => ScalarValue::Int64(Some(0)),
        _ => return Transformed::no(Expr::Negative(number)),
    };
    let subtract = ScalarUDF::from(CheckedArithmetic::new(Arithmetic::Subtract));
    Transformed::yes(subtract.call(vec![Expr::Literal(zero, None), *number]))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Arithmetic {
    Add,
    Subtract,
    Multiply,
}

/// One of the operations over two columns of one whole type.
#[derive(Debug, PartialEq, Eq, Hash)]
struct CheckedArithmetic {
    operation: Arithmetic,
    signature: Signature,
}

impl CheckedArithmetic {
    fn new(operation: Arithmetic) -> CheckedArithmetic {
        CheckedArithmetic { operation, signature: Signature::any(2, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for CheckedArithmetic {
    fn name(&self) -> &str {
        match self.operation {
            Arithmetic::Add => "checked_add",
            Arithmetic::Subtract => "checked_subtract",
            Arithmetic::Multiply => "checked_multiply",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        Ok(arguments[0].clone())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let apply = |left: &dyn Datum, right: &dyn Datum| {
            let outcome = match self.operation {
                Arithmetic::Add => add(left, right),
                Arithmetic::Subtract => sub(left, right),
                Arithmetic::Multiply => mul(left, right),
            };
            outcome.map_err(|error| overflow(error, args.return_field.data_type()))
        };
        match (&args.args[0], &args.args[1]) {
            (ColumnarValue::Array(left), ColumnarValue::Array(right)) => {
                apply(left, right).map(ColumnarValue::Array)
            }
            (ColumnarValue::Array(left), ColumnarValue::Scalar(right)) => {
                apply(left, &right.to_scalar()?).map(ColumnarValue::Array)
            }
            (ColumnarValue::Scalar(left), ColumnarValue::Array(right)) => {
                apply(&left.to_scalar()?, right).map(ColumnarValue::Array)
            }
            (ColumnarValue::Scalar(left), ColumnarValue::Scalar(right)) => {
                let value = apply(&left.to_scalar()?, &right.to_scalar()?)?;
                ScalarValue::try_from_array(&value, 0).map(ColumnarValue::Scalar)
            }
        }
    }
}

fn overflow(error: ArrowError, data_type: &DataType) -> datafusion::error::DataFusionError {
    if !matches!(error, ArrowError::ArithmeticOverflow(_)) {
        return error.into();
    }
    let name = match data_type {
        DataType::Int16 => "smallint",
        DataType::Int32 => "integer",
        _ => "bigint",
    };
    through_datafusion(SqlError::new(
        SqlState::NUMERIC_VALUE_OUT_OF_RANGE,
        format!("{name} out of range"),
    ))
}
