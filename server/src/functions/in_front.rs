//! For functions that take the place of DataFusion's of their name, and hand on what is not theirs.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::Result;
use datafusion::logical_expr::type_coercion::functions::{UDFCoercionExt, fields_with_udf};

/// The types that a function wants for arguments of these, for one that stands in front of it.
pub(super) fn coerced_types(
    arguments: &[DataType],
    function: &impl UDFCoercionExt,
) -> Result<Vec<DataType>> {
    let fields: Vec<FieldRef> = arguments
        .iter()
        .map(|data_type| Arc::new(Field::new("argument", data_type.clone(), true)))
        .collect();
    let coerced = fields_with_udf(&fields, function)?;
    Ok(coerced.iter().map(|field| field.data_type().clone()).collect())
}
