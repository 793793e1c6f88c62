//! Vectors from vectors: `l2_normalize(v)` and `subvector(v, start, count)`, as pgvector has them.

#![allow(clippy::wildcard_enum_match_arm)] // the enums are other libraries', with far more variants than matter here

use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};
use thanosql_protocol::types::parse_vector;
use thanosql_protocol::{SqlError, SqlState};

use super::vector::dot;
use super::vector_column::{
    Vectors, through_column, unknown_length, vector_argument, vector_result, vectors_by_row,
    wrong_arguments,
};
use crate::error::through_datafusion;

/// Both functions.
pub fn shape_functions() -> Vec<ScalarUDF> {
    [Shape::Normalize, Shape::Part]
        .map(|shape| {
            let signature = Signature::user_defined(Volatility::Immutable);
            ScalarUDF::new_from_impl(ShapeFunction { shape, signature })
        })
        .into()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Shape {
    /// `l2_normalize`: the same direction with length 1; zeros stay.
    Normalize,
    /// `subvector`: `count` elements from `start` on, which counts from 1; what lies outside is cut off.
    Part,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct ShapeFunction {
    shape: Shape,
    signature: Signature,
}

impl ScalarUDFImpl for ShapeFunction {
    fn name(&self) -> &str {
        match self.shape {
            Shape::Normalize => "l2_normalize",
            Shape::Part => "subvector",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        match (self.shape, arguments) {
            (Shape::Normalize, [vector]) => Ok(vec![vector_argument(vector)?]),
            (Shape::Part, [vector, start, count]) if start.is_integer() && count.is_integer() => {
                Ok(vec![vector_argument(vector)?, DataType::Int64, DataType::Int64])
            }
            (Shape::Normalize, _) => Err(wrong_arguments(self.name(), "one vector")),
            (Shape::Part, _) => Err(wrong_arguments(
                self.name(),
                "a vector, a first place and a number of elements",
            )),
        }
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Err(unknown_length())
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let length = match args.arg_fields.first().map(|field| field.data_type()) {
            Some(DataType::FixedSizeList(_, length)) => usize::try_from(*length).ok(),
            _ => match args.scalar_arguments.first() {
                Some(Some(ScalarValue::Utf8(Some(text)))) => {
                    Some(parse_vector(text).map_err(through_datafusion)?.len())
                }
                _ => None,
            },
        }
        .ok_or_else(unknown_length)?;
        match self.shape {
            Shape::Normalize => Ok(Arc::new(vector_result(self.name(), length, args.arg_fields))),
            // A part of a vector is no vector of its model.
            Shape::Part => {
                let number = |place: usize| match args.scalar_arguments.get(place) {
                    Some(Some(ScalarValue::Int64(Some(number)))) => Ok(*number),
                    _ => Err(unknown_length()),
                };
                let (start, end) = part(length, number(1)?, number(2)?)?;
                Ok(Arc::new(vector_result(self.name(), end - start, &[])))
            }
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let Some(argument) = args.args.first() else {
            return Err(wrong_arguments(self.name(), "a vector"));
        };
        let number = |place: usize| match args.args.get(place) {
            Some(ColumnarValue::Scalar(ScalarValue::Int64(Some(number)))) => Ok(*number),
            _ => Err(unknown_length()),
        };
        through_column(argument, |column| {
            let vectors = Vectors::of(column)?;
            vectors_by_row(args.return_field.data_type(), vectors.len, |row, values| {
                let Some(vector) = vectors.get(row)? else { return Ok(false) };
                match self.shape {
                    Shape::Normalize => {
                        let norm = f64::from(dot(vector, vector)).sqrt();
                        values.extend(vector.iter().map(|value| {
                            if norm > 0.0 { (f64::from(*value) / norm) as f32 } else { 0.0 }
                        }));
                    }
                    Shape::Part => {
                        let (start, end) = part(vector.len(), number(1)?, number(2)?)?;
                        values.extend_from_slice(&vector[start..end]);
                    }
                }
                Ok(true)
            })
        })
    }
}

/// Where the part lies in a vector of `length` elements, from 0.
///
/// Errors: 22000 if it holds no element.
fn part(length: usize, start: i64, count: i64) -> Result<(usize, usize)> {
    let end = start.saturating_add(count).saturating_sub(1).clamp(0, length as i64);
    let start = start.saturating_sub(1).clamp(0, length as i64);
    if count < 1 || start >= end {
        return Err(through_datafusion(SqlError::new(
            SqlState::DATA_EXCEPTION,
            "a vector must have at least 1 dimension",
        )));
    }
    Ok((start as usize, end as usize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_count_from_one_and_are_cut_off() {
        assert_eq!(part(5, 1, 3).unwrap(), (0, 3));
        assert_eq!(part(5, 3, 2).unwrap(), (2, 4));
        assert_eq!(part(5, 4, 9).unwrap(), (3, 5));
        // pgvector counts what lies before the beginning.
        assert_eq!(part(5, -1, 3).unwrap(), (0, 1));
        assert_eq!(part(5, 2, i64::MAX).unwrap(), (1, 5));
        for (start, count) in [(1, 0), (1, -1), (6, 1), (-1, 2), (0, 1)] {
            let error = crate::error::datafusion_error(part(5, start, count).unwrap_err(), None);
            assert_eq!(error.code, SqlState::DATA_EXCEPTION, "{start} {count}");
        }
    }
}
