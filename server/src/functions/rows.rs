//! A frame for functions that are told in one closure over the values of one row.
//!
//! Most of PostgreSQL's smaller functions are called a few times a query; for them clarity counts more than vectors of
//! values. What runs over every row of a table (casts, distances) is written over arrays instead.

use std::hash::{Hash, Hasher};

use arrow::array::new_empty_array;
use arrow::datatypes::DataType;
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

/// What a function gives for arguments of these types; an error where it takes none such.
pub type ResultType = fn(&[DataType]) -> Result<DataType>;
/// What it gives for one row's values.
pub type Body = fn(&[ScalarValue], &DataType) -> Result<ScalarValue>;

/// A function over rows. NULL as soon as an argument is NULL.
#[derive(Debug)]
pub struct RowFunction {
    name: &'static str,
    result: ResultType,
    body: Body,
    signature: Signature,
}

impl RowFunction {
    /// A function of any number of arguments; `result` refuses those that it does not take.
    pub fn udf(name: &'static str, result: ResultType, body: Body) -> ScalarUDF {
        ScalarUDF::from(RowFunction {
            name,
            result,
            body,
            signature: Signature::variadic_any(Volatility::Immutable),
        })
    }
}

impl PartialEq for RowFunction {
    fn eq(&self, other: &RowFunction) -> bool {
        self.name == other.name
    }
}

impl Eq for RowFunction {}

impl Hash for RowFunction {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl ScalarUDFImpl for RowFunction {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        (self.result)(arguments)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let target = args.return_type().clone();
        let call = |values: &[ScalarValue]| {
            if values.iter().any(ScalarValue::is_null) {
                return ScalarValue::try_new_null(&target);
            }
            (self.body)(values, &target)
        };
        let constants: Option<Vec<ScalarValue>> = args
            .args
            .iter()
            .map(|argument| match argument {
                ColumnarValue::Scalar(value) => Some(value.clone()),
                ColumnarValue::Array(_) => None,
            })
            .collect();
        if let Some(values) = constants {
            return call(&values).map(ColumnarValue::Scalar);
        }
        let arrays = args
            .args
            .into_iter()
            .map(|argument| argument.into_array(args.number_rows))
            .collect::<Result<Vec<_>>>()?;
        let mut results = Vec::with_capacity(args.number_rows);
        for row in 0..args.number_rows {
            let values = arrays
                .iter()
                .map(|array| ScalarValue::try_from_array(array, row))
                .collect::<Result<Vec<_>>>()?;
            results.push(call(&values)?);
        }
        if results.is_empty() {
            return Ok(ColumnarValue::Array(new_empty_array(&target)));
        }
        ScalarValue::iter_to_array(results).map(ColumnarValue::Array)
    }
}
