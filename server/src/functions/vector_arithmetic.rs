//! pgvector's `+`, `-`, `*` of vectors, element by element, and their comparison, which goes by the first elements that differ.
//!
//! The functions bear pgvector's names; the operators are planned as them (`vector_operators`).

#![allow(clippy::wildcard_enum_match_arm)] // the enums are other libraries', with far more variants than matter here

use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanBuilder};
use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};
use thanosql_protocol::types::parse_vector;
use thanosql_protocol::{SqlError, SqlState};

use super::vector_column::{
    Vectors, common_length, different_lengths, two_vectors, unknown_length, vector_argument,
    vector_result, vectors_by_row, wrong_arguments,
};
use crate::error::through_datafusion;
use crate::learning::vector_type;

/// What is done with each two elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Arithmetic {
    /// `+`
    Add,
    /// `-`
    Subtract,
    /// `*`
    Multiply,
}

/// How two vectors are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Comparison {
    /// `=`
    Equal,
    /// `<>`
    NotEqual,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
}

impl Arithmetic {
    /// All of them.
    pub const ALL: [Arithmetic; 3] = [Arithmetic::Add, Arithmetic::Subtract, Arithmetic::Multiply];

    /// The function's name.
    pub fn name(self) -> &'static str {
        match self {
            Arithmetic::Add => "vector_add",
            Arithmetic::Subtract => "vector_sub",
            Arithmetic::Multiply => "vector_mul",
        }
    }

    fn apply(self, x: f32, y: f32) -> Result<f32> {
        let value = match self {
            Arithmetic::Add => x + y,
            Arithmetic::Subtract => x - y,
            Arithmetic::Multiply => x * y,
        };
        let underflow = self == Arithmetic::Multiply && value == 0.0 && x != 0.0 && y != 0.0;
        if value.is_infinite() || underflow {
            let what = if underflow { "underflow" } else { "overflow" };
            return Err(through_datafusion(SqlError::new(
                SqlState::NUMERIC_VALUE_OUT_OF_RANGE,
                format!("value out of range: {what}"),
            )));
        }
        Ok(value)
    }
}

impl Comparison {
    /// All of them.
    pub const ALL: [Comparison; 6] = [
        Comparison::Equal,
        Comparison::NotEqual,
        Comparison::Less,
        Comparison::LessOrEqual,
        Comparison::Greater,
        Comparison::GreaterOrEqual,
    ];

    /// The function's name.
    pub fn name(self) -> &'static str {
        match self {
            Comparison::Equal => "vector_eq",
            Comparison::NotEqual => "vector_ne",
            Comparison::Less => "vector_lt",
            Comparison::LessOrEqual => "vector_le",
            Comparison::Greater => "vector_gt",
            Comparison::GreaterOrEqual => "vector_ge",
        }
    }

    fn holds(self, order: Ordering) -> bool {
        match self {
            Comparison::Equal => order.is_eq(),
            Comparison::NotEqual => order.is_ne(),
            Comparison::Less => order.is_lt(),
            Comparison::LessOrEqual => order.is_le(),
            Comparison::Greater => order.is_gt(),
            Comparison::GreaterOrEqual => order.is_ge(),
        }
    }
}

/// The function of one operation.
pub fn arithmetic_function(operation: Arithmetic) -> ScalarUDF {
    let signature = Signature::user_defined(Volatility::Immutable);
    ScalarUDF::new_from_impl(ArithmeticFunction { operation, signature })
}

/// The function of one comparison.
pub fn comparison_function(comparison: Comparison) -> ScalarUDF {
    let signature = Signature::user_defined(Volatility::Immutable);
    ScalarUDF::new_from_impl(ComparisonFunction { comparison, signature })
}

/// Both arguments row by row, and whether both are single values. A single value stands for each row.
struct Pairs {
    a: Vectors,
    b: Vectors,
    a_single: bool,
    b_single: bool,
    rows: usize,
}

impl Pairs {
    fn of(name: &str, args: &ScalarFunctionArgs) -> Result<Pairs> {
        let [a, b] = args.args.as_slice() else {
            return Err(wrong_arguments(name, "two vectors"));
        };
        let single = |value: &ColumnarValue| matches!(value, ColumnarValue::Scalar(_));
        let array = |value: &ColumnarValue| match value {
            ColumnarValue::Array(array) => Ok(Arc::clone(array)),
            ColumnarValue::Scalar(value) => value.to_array(),
        };
        let (a_single, b_single) = (single(a), single(b));
        let rows = if a_single && b_single { 1 } else { args.number_rows };
        Ok(Pairs {
            a: Vectors::of(&array(a)?)?,
            b: Vectors::of(&array(b)?)?,
            a_single,
            b_single,
            rows,
        })
    }

    fn get(&self, row: usize) -> Result<Option<(&[f32], &[f32])>> {
        let a = self.a.get(if self.a_single { 0 } else { row })?;
        let b = self.b.get(if self.b_single { 0 } else { row })?;
        match (a, b) {
            (Some(a), Some(b)) if a.len() != b.len() => Err(different_lengths(a.len(), b.len())),
            (Some(a), Some(b)) => Ok(Some((a, b))),
            (None, _) | (_, None) => Ok(None),
        }
    }

    /// A single value again if both arguments were.
    fn answer(&self, result: ArrayRef) -> Result<ColumnarValue> {
        if self.a_single && self.b_single {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&result, 0)?));
        }
        Ok(ColumnarValue::Array(result))
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct ArithmeticFunction {
    operation: Arithmetic,
    signature: Signature,
}

impl ScalarUDFImpl for ArithmeticFunction {
    fn name(&self) -> &str {
        self.operation.name()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        two_vectors(self.name(), arguments)
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Err(unknown_length())
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let types: Vec<DataType> =
            args.arg_fields.iter().map(|field| field.data_type().clone()).collect();
        let written = |value: &Option<&ScalarValue>| match value {
            Some(ScalarValue::Utf8(Some(text))) => {
                parse_vector(text).ok().map(|vector| vector.len())
            }
            _ => None,
        };
        // Only a parameter's length may be open until it is known.
        let open = types.iter().any(|data_type| matches!(data_type, DataType::FixedSizeList(_, 0)));
        let dim = match common_length(&types)? {
            Some(length) => usize::try_from(length).ok(),
            None => args.scalar_arguments.iter().find_map(written).or(open.then_some(0)),
        }
        .ok_or_else(unknown_length)?;
        Ok(Arc::new(vector_result(self.name(), dim, args.arg_fields)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let pairs = Pairs::of(self.name(), &args)?;
        let array = vectors_by_row(args.return_field.data_type(), pairs.rows, |row, values| {
            let Some((a, b)) = pairs.get(row)? else { return Ok(false) };
            for (x, y) in a.iter().zip(b) {
                values.push(self.operation.apply(*x, *y)?);
            }
            Ok(true)
        })?;
        pairs.answer(array)
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct ComparisonFunction {
    comparison: Comparison,
    signature: Signature,
}

impl ScalarUDFImpl for ComparisonFunction {
    fn name(&self) -> &str {
        self.comparison.name()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        if arguments.len() != 2 {
            return Err(wrong_arguments(self.name(), "two vectors"));
        }
        // Vectors of different lengths can be compared: the shorter one comes first if it is the other's beginning.
        arguments.iter().map(vector_argument).collect()
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(DataType::Boolean)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let pairs = Pairs::of(self.name(), &args)?;
        let mut results = BooleanBuilder::with_capacity(pairs.rows);
        for row in 0..pairs.rows {
            let a = pairs.a.get(if pairs.a_single { 0 } else { row })?;
            let b = pairs.b.get(if pairs.b_single { 0 } else { row })?;
            results.append_option(match (a, b) {
                (Some(a), Some(b)) => Some(self.comparison.holds(order(a, b))),
                (None, _) | (_, None) => None,
            });
        }
        pairs.answer(Arc::new(results.finish()))
    }
}

/// By the first elements that differ, then by length. Zero is one number, whatever its sign.
fn order(a: &[f32], b: &[f32]) -> Ordering {
    let elements = a.iter().zip(b).map(|(x, y)| x.partial_cmp(y).unwrap_or(Ordering::Equal));
    elements.into_iter().find(|order| order.is_ne()).unwrap_or_else(|| a.len().cmp(&b.len()))
}

/// The type of vectors of any length: what a parameter is until its value is known.
pub fn any_vector() -> DataType {
    vector_type(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_overflow_and_underflow_as_in_pgvector() {
        assert_eq!(Arithmetic::Add.apply(1.5, 2.0).unwrap(), 3.5);
        assert_eq!(Arithmetic::Subtract.apply(1.5, 2.0).unwrap(), -0.5);
        assert_eq!(Arithmetic::Multiply.apply(1.5, 2.0).unwrap(), 3.0);
        assert_eq!(Arithmetic::Multiply.apply(0.0, 2.0).unwrap(), 0.0);
        for (operation, x, y) in [
            (Arithmetic::Add, f32::MAX, f32::MAX),
            (Arithmetic::Subtract, f32::MIN, f32::MAX),
            (Arithmetic::Multiply, 1e30, 1e30),
            (Arithmetic::Multiply, 1e-30, 1e-30),
        ] {
            let error = crate::error::datafusion_error(operation.apply(x, y).unwrap_err(), None);
            assert_eq!(error.code, SqlState::NUMERIC_VALUE_OUT_OF_RANGE);
        }
    }

    #[test]
    fn vectors_have_an_order() {
        assert_eq!(order(&[1.0, 2.0], &[1.0, 3.0]), Ordering::Less);
        assert_eq!(order(&[2.0], &[1.0, 3.0]), Ordering::Greater);
        assert_eq!(order(&[1.0], &[1.0, 3.0]), Ordering::Less);
        assert_eq!(order(&[0.0, 3.0], &[-0.0, 3.0]), Ordering::Equal);
    }
}
