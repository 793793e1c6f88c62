//! `json` and `jsonb` are kept as texts. A text that becomes one must be JSON.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray};
use arrow::datatypes::{DataType, Field};
use datafusion::common::Result;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use thanosql_protocol::{SqlError, SqlState};

use super::types::PG_TYPE;
use crate::error::through_datafusion;
use crate::functions::vector_column::through_column;

const NAME: &str = "check_json";

/// Whether a column holds JSON.
pub fn is_json(field: &Field) -> bool {
    field.metadata().get(PG_TYPE).is_some_and(|name| name == "json" || name == "jsonb")
}

/// # Errors
/// 22P02 for a text that is no JSON.
pub fn check_json(text: &str) -> Result<(), SqlError> {
    serde_json::from_str::<serde::de::IgnoredAny>(text).map(drop).map_err(|error| {
        SqlError::new(
            SqlState::INVALID_TEXT_REPRESENTATION,
            "invalid input syntax for type json".to_owned(),
        )
        .with_detail(error.to_string())
    })
}

/// The same text, after it was checked.
pub(super) fn checked(text: Expr) -> Expr {
    match &text {
        Expr::ScalarFunction(call) if call.name() == NAME => text,
        _ => {
            let signature = Signature::any(1, Volatility::Immutable);
            ScalarUDF::from(CheckJson { signature }).call(vec![text])
        }
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct CheckJson {
    signature: Signature,
}

impl ScalarUDFImpl for CheckJson {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        through_column(&args.args[0], |texts| {
            let texts: ArrayRef = arrow::compute::cast(texts, &DataType::Utf8)?;
            for text in texts.as_string::<i32>().iter().flatten() {
                check_json(text).map_err(through_datafusion)?;
            }
            Ok(Arc::clone(&texts))
        })
    }
}
