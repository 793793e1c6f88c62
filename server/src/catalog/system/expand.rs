//! `information_schema._pg_expandarray(list)`: pairs of an element (`x`) and its position (`n`).
//!
//! In PostgreSQL it yields a row a pair. Here it yields the list of the pairs, and `adapt` puts `unnest` around it.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int32Array, ListArray, StructArray};
use arrow::datatypes::{DataType, Field, Fields};
use datafusion::common::{Result, exec_err, plan_err};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};

/// The function's name, without its schema.
pub(super) const EXPAND_ARRAY: &str = "_pg_expandarray";

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct ExpandArray {
    signature: Signature,
}

impl ExpandArray {
    pub(super) fn new() -> ExpandArray {
        ExpandArray { signature: Signature::any(1, Volatility::Immutable) }
    }
}

fn pair(element: &DataType) -> Fields {
    Fields::from(vec![
        Field::new("x", element.clone(), true),
        Field::new("n", DataType::Int32, true),
    ])
}

impl ScalarUDFImpl for ExpandArray {
    fn name(&self) -> &str {
        EXPAND_ARRAY
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        match arguments {
            [DataType::List(item)] => Ok(DataType::List(Arc::new(Field::new(
                "item",
                DataType::Struct(pair(item.data_type())),
                true,
            )))),
            _ => plan_err!("{EXPAND_ARRAY} takes an array"),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let Some(value) = args.args.into_iter().next() else {
            return exec_err!("{EXPAND_ARRAY} takes an array");
        };
        let array = value.into_array(args.number_rows)?;
        let lists = array.as_list::<i32>();
        let mut positions = vec![0; lists.values().len()];
        for window in lists.value_offsets().windows(2) {
            for (position, index) in (window[0]..window[1]).enumerate() {
                positions[index as usize] = position as i32 + 1;
            }
        }
        let columns: Vec<ArrayRef> =
            vec![Arc::clone(lists.values()), Arc::new(Int32Array::from(positions))];
        let pairs = StructArray::try_new(pair(&lists.value_type()), columns, None)?;
        let field = Arc::new(Field::new("item", pairs.data_type().clone(), true));
        let list = ListArray::try_new(
            field,
            lists.offsets().clone(),
            Arc::new(pairs),
            lists.nulls().cloned(),
        )?;
        Ok(ColumnarValue::Array(Arc::new(list)))
    }
}
