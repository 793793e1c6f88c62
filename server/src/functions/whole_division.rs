//! `div` and `mod`, without a float in between: whole numbers and decimals are divided as integers of one scale.

use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType, i256};
use datafusion::common::{Result, ScalarValue, exec_err, plan_err};
use datafusion::logical_expr::ScalarUDF;
use thanosql_protocol::{SqlError, SqlState};

use super::rows::RowFunction;
use crate::error::{division_by_zero, through_datafusion};

/// The functions of this file.
pub(super) fn division_functions() -> [ScalarUDF; 2] {
    [
        RowFunction::udf("div", quotient_type, |values, target| {
            if *target == DataType::Float64 {
                let (left, right) = floats(values)?;
                return Ok(ScalarValue::Float64(Some((left / right).trunc())));
            }
            let (left, right, _) = aligned(values)?;
            let quotient = left.checked_div(right).ok_or_else(overflow)?;
            decimal(quotient, 0)
        }),
        RowFunction::udf("mod", rest_type, |values, target| {
            if *target == DataType::Float64 {
                let (left, right) = floats(values)?;
                return Ok(ScalarValue::Float64(Some(left % right)));
            }
            let (left, right, scale) = aligned(values)?;
            let rest = left.checked_rem(right).ok_or_else(overflow)?;
            decimal(rest, scale)?.cast_to(target)
        }),
    ]
}

/// numeric; floats stay floats.
fn quotient_type(arguments: &[DataType]) -> Result<DataType> {
    check(arguments)?;
    Ok(match arguments.iter().any(DataType::is_floating) {
        true => DataType::Float64,
        false => DataType::Decimal128(DECIMAL128_MAX_PRECISION, 0),
    })
}

/// The type of both numbers.
fn rest_type(arguments: &[DataType]) -> Result<DataType> {
    check(arguments)?;
    if arguments.iter().any(DataType::is_floating) {
        return Ok(DataType::Float64);
    }
    let scale = arguments.iter().filter_map(scale_of).max();
    Ok(match scale {
        Some(scale) => DataType::Decimal128(DECIMAL128_MAX_PRECISION, scale),
        None if arguments.iter().all(|kind| *kind == DataType::Int16) => DataType::Int16,
        None if arguments.iter().all(|kind| matches!(kind, DataType::Int16 | DataType::Int32)) => {
            DataType::Int32
        }
        None => DataType::Int64,
    })
}

fn check(arguments: &[DataType]) -> Result<()> {
    let fits =
        arguments.len() == 2 && arguments.iter().all(|kind| kind.is_numeric() || kind.is_null());
    if fits { Ok(()) } else { plan_err!("No function matches with arguments of these types") }
}

/// The scale of a decimal.
fn scale_of(data_type: &DataType) -> Option<i8> {
    if let DataType::Decimal128(_, scale) | DataType::Decimal256(_, scale) = data_type {
        Some(*scale)
    } else {
        None
    }
}

/// Both numbers as integers of one scale; the second is not zero.
fn aligned(values: &[ScalarValue]) -> Result<(i256, i256, i8)> {
    let ((left, left_scale), (right, right_scale)) = (digits(&values[0])?, digits(&values[1])?);
    if right == i256::ZERO {
        return Err(through_datafusion(division_by_zero()));
    }
    let scale = left_scale.max(right_scale);
    let lifted = |number: i256, from: i8| {
        (from..scale).try_fold(number, |number, _| number.checked_mul(i256::from_i128(10)))
    };
    match (lifted(left, left_scale), lifted(right, right_scale)) {
        (Some(left), Some(right)) => Ok((left, right, scale)),
        (None, _) | (_, None) => Err(overflow()),
    }
}

/// A number's digits and its scale.
fn digits(value: &ScalarValue) -> Result<(i256, i8)> {
    if let ScalarValue::Decimal128(Some(digits), _, scale) = value {
        return Ok((i256::from_i128(*digits), *scale));
    }
    if let ScalarValue::Decimal256(Some(digits), _, scale) = value {
        return Ok((*digits, *scale));
    }
    let cast = value.cast_to(&DataType::Decimal128(DECIMAL128_MAX_PRECISION, 0))?;
    if let ScalarValue::Decimal128(Some(number), ..) = cast
        && value.data_type().is_integer()
    {
        return Ok((i256::from_i128(number), 0));
    }
    exec_err!("a number is wanted")
}

fn decimal(digits: i256, scale: i8) -> Result<ScalarValue> {
    let limit = 10_i128.pow(u32::from(DECIMAL128_MAX_PRECISION));
    let fits = digits.to_i128().filter(|digits| (-limit + 1..limit).contains(digits));
    let digits = fits.ok_or_else(overflow)?;
    Ok(ScalarValue::Decimal128(Some(digits), DECIMAL128_MAX_PRECISION, scale))
}

fn floats(values: &[ScalarValue]) -> Result<(f64, f64)> {
    let float = |value: &ScalarValue| {
        let ScalarValue::Float64(Some(value)) = value.cast_to(&DataType::Float64)? else {
            return exec_err!("a number is wanted");
        };
        Ok(value)
    };
    match (float(&values[0])?, float(&values[1])?) {
        (_, 0.0) => Err(through_datafusion(division_by_zero())),
        numbers => Ok(numbers),
    }
}

fn overflow() -> datafusion::error::DataFusionError {
    through_datafusion(SqlError::new(
        SqlState::NUMERIC_VALUE_OUT_OF_RANGE,
        "value overflows numeric format",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(digits: i128, scale: i8) -> ScalarValue {
        ScalarValue::Decimal128(Some(digits), 38, scale)
    }

    #[test]
    fn digits_beyond_a_float_are_kept() {
        let (left, right, scale) =
            aligned(&[number(12_345_678_901_234_567_890_123, 1), number(3, 0)]).unwrap();
        assert_eq!(scale, 1);
        let quotient = left.checked_div(right).unwrap();
        assert_eq!(decimal(quotient, 0).unwrap(), number(411_522_630_041_152_263_004, 0));
        let (left, right, _) =
            aligned(&[ScalarValue::Int64(Some(i64::MIN)), ScalarValue::Int64(Some(-1))]).unwrap();
        assert_eq!(left.checked_rem(right), Some(i256::ZERO));
    }

    #[test]
    fn what_has_no_quotient_is_an_error() {
        assert!(aligned(&[number(1, 0), number(0, 3)]).is_err());
        let (left, right, _) = aligned(&[number(10_i128.pow(37), 0), number(1, 10)]).unwrap();
        assert!(decimal(left.checked_div(right).unwrap(), 0).is_err());
    }
}
