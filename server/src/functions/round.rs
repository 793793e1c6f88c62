//! `round` of one number: PostgreSQL takes a float to the nearest whole number, to the even one of two, DataFusion away from zero. A whole number
//! becomes a double, as there. Numerics, and numbers of digits, are DataFusion's.

#![allow(clippy::wildcard_enum_match_arm)] // the enums are other libraries', with far more variants than matter here

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray};
use arrow::datatypes::{DataType, Field, FieldRef, Float64Type};
use datafusion::common::Result;
use datafusion::logical_expr::sort_properties::{ExprProperties, SortProperties};
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};

use super::in_front::coerced_types;
use super::vector_column::through_column;

/// Puts PostgreSQL's rounding in front of DataFusion's `round`.
pub fn round_function(numbers: Arc<ScalarUDF>) -> ScalarUDF {
    let signature = Signature::user_defined(Volatility::Immutable);
    ScalarUDF::from(Round { numbers, signature })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Round {
    /// The function for all but a single float.
    numbers: Arc<ScalarUDF>,
    signature: Signature,
}

impl ScalarUDFImpl for Round {
    fn name(&self) -> &str {
        self.numbers.name()
    }

    fn aliases(&self) -> &[String] {
        self.numbers.aliases()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        match arguments {
            [number] if number.is_integer() || number.is_floating() || number.is_null() => {
                Ok(vec![DataType::Float64])
            }
            _ => coerced_types(arguments, self.numbers.as_ref()),
        }
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        self.numbers.return_type(arguments)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        match args.arg_fields {
            [number] if *number.data_type() == DataType::Float64 => {
                Ok(Arc::new(Field::new(self.name(), DataType::Float64, number.is_nullable())))
            }
            _ => self.numbers.return_field_from_args(args),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        match args.args.as_slice() {
            [number] if number.data_type() == DataType::Float64 => {
                through_column(number, |values| {
                    let values = values.as_primitive::<Float64Type>();
                    Ok(Arc::new(values.unary::<_, Float64Type>(f64::round_ties_even)) as ArrayRef)
                })
            }
            _ => self.numbers.invoke_with_args(args),
        }
    }

    fn output_ordering(&self, inputs: &[ExprProperties]) -> Result<SortProperties> {
        self.numbers.output_ordering(inputs)
    }
}
