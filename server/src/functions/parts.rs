//! The fields of a struct as columns: functions that give several values for an image give a struct, and a projection above takes it apart.

use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::Result;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};

use crate::error::through_datafusion;

/// The field at `place` of a struct.
pub(crate) fn part_of(structure: Expr, place: usize, field: &FieldRef) -> Expr {
    let function = ScalarUDF::new_from_impl(StructPart {
        place,
        field: Arc::clone(field),
        signature: Signature::any(1, Volatility::Immutable),
    });
    function.call(vec![structure])
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct StructPart {
    place: usize,
    field: FieldRef,
    signature: Signature,
}

impl ScalarUDFImpl for StructPart {
    fn name(&self) -> &str {
        "struct_part"
    }

    fn schema_name(&self, _arguments: &[Expr]) -> Result<String> {
        Ok(format!("part {}", self.field.name()))
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(self.field.data_type().clone())
    }

    fn return_field_from_args(&self, _args: ReturnFieldArgs) -> Result<FieldRef> {
        Ok(Arc::new(self.field.as_ref().clone().with_nullable(true)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let structure =
            args.args.first().map(|argument| argument.to_array(args.number_rows)).transpose()?;
        let part =
            structure.as_ref().and_then(|structure| structure.as_struct_opt()).and_then(|fields| {
                let part = fields.columns().get(self.place)?;
                Some(Arc::clone(part))
            });
        match part {
            Some(part) => Ok(ColumnarValue::Array(part)),
            None => Err(through_datafusion(crate::error::internal("a value is no struct"))),
        }
    }
}
