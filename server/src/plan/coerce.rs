//! Values on their way into a column or a cast: PostgreSQL's text forms where the source is text.
//!
//! Arrow's casts read numbers and dates from text, but not `'[1,2,3]'::vector(3)`, `'\x00ff'::bytea`, uuids or arrays, and they
//! name errors in their own way. So a cast from text goes through the reader that the wire protocol uses for parameters;
//! every other cast stays DataFusion's.

#![allow(clippy::wildcard_enum_match_arm)] // the enums are other libraries', with far more variants than matter here

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, PrimitiveBuilder, StringArray, new_empty_array,
};
use arrow::compute::{cast, concat};
use arrow::datatypes::{DataType, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, ExprSchema, Result, ScalarValue};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{
    Cast, ColumnarValue, Expr, ExprSchemable, LogicalPlan, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature, Volatility,
};
use thanosql_protocol::types;

use super::rows::is_text;
use crate::error::through_datafusion;

/// An expression as a value of `target`, as an assignment to a column makes it.
pub fn assign(expr: Expr, schema: &dyn ExprSchema, target: &DataType) -> Result<Expr> {
    let source = expr.get_type(schema)?;
    if source == *target {
        return Ok(expr);
    }
    if is_text(&source) && !is_text(target) {
        return Ok(ScalarUDF::from(ReadText::new(target.clone())).call(vec![expr]));
    }
    Ok(Expr::Cast(Cast::new(Box::new(expr), target.clone())))
}

/// Replaces casts from text by PostgreSQL's reading of it, everywhere in a plan.
pub(super) fn read_texts(plan: LogicalPlan) -> Result<LogicalPlan> {
    let rewritten = plan.transform_up_with_subqueries(|node| {
        let mut schema = DFSchema::empty();
        for input in node.inputs() {
            schema.merge(input.schema());
        }
        let preserver = NamePreserver::new(&node);
        node.map_expressions(|expr| {
            let name = preserver.save(&expr);
            let expr = expr.transform_up(|expr| match expr {
                Expr::Cast(cast) if needs_reader(cast.field.data_type()) => {
                    // Columns of outer queries are not in this schema; their casts stay as they are.
                    match cast.expr.get_type(&schema) {
                        Ok(source) if is_text(&source) => {
                            let reader =
                                ScalarUDF::from(ReadText::new(cast.field.data_type().clone()));
                            Ok(Transformed::yes(reader.call(vec![*cast.expr])))
                        }
                        Ok(_) | Err(_) => Ok(Transformed::no(Expr::Cast(cast))),
                    }
                }
                other => Ok(Transformed::no(other)),
            })?;
            Ok(expr.update_data(|expr| name.restore(expr)))
        })
    })?;
    if rewritten.transformed { rewritten.data.recompute_schema() } else { Ok(rewritten.data) }
}

/// Types whose text form Arrow's own casts do not read as PostgreSQL does.
fn needs_reader(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::FixedSizeList(..)
            | DataType::List(_)
            | DataType::Binary
            | DataType::FixedSizeBinary(_)
            | DataType::Boolean
            | DataType::Int16
            | DataType::Int32
            | DataType::Int64
            | DataType::Float32
            | DataType::Float64
    )
}

/// Reads PostgreSQL's text form of a type.
#[derive(Debug)]
struct ReadText {
    signature: Signature,
    target: DataType,
}

impl ReadText {
    fn new(target: DataType) -> ReadText {
        ReadText { signature: Signature::any(1, Volatility::Immutable), target }
    }
}

impl PartialEq for ReadText {
    fn eq(&self, other: &ReadText) -> bool {
        self.target == other.target
    }
}

impl Eq for ReadText {}

impl Hash for ReadText {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.target.hash(state);
    }
}

impl ScalarUDFImpl for ReadText {
    fn name(&self) -> &str {
        "read_text"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(self.target.clone())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let constant = matches!(args.args[0], ColumnarValue::Scalar(_));
        let texts = args.args[0].to_array(if constant { 1 } else { args.number_rows })?;
        let values = read_column(&texts, &self.target)?;
        if constant {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&values, 0)?));
        }
        Ok(ColumnarValue::Array(values))
    }
}

/// Numbers in the form in which nearly all of them come, at once. `None` if a text is anything else, valid or not: the
/// careful way below knows PostgreSQL's other forms and its errors.
fn read_plain_numbers(texts: &StringArray, target: &DataType) -> Option<ArrayRef> {
    fn integers<T: ArrowPrimitiveType>(texts: &StringArray) -> Option<ArrayRef>
    where
        T::Native: std::str::FromStr,
    {
        let mut values = PrimitiveBuilder::<T>::with_capacity(texts.len());
        for text in texts {
            match text {
                Some(text) => values.append_value(text.parse().ok()?),
                None => values.append_null(),
            }
        }
        Some(Arc::new(values.finish()))
    }
    /// Zeros and infinities may be numbers that do not fit.
    fn floats<T: ArrowPrimitiveType>(
        texts: &StringArray,
        is_plain: impl Fn(T::Native) -> bool,
    ) -> Option<ArrayRef>
    where
        T::Native: std::str::FromStr,
    {
        let mut values = PrimitiveBuilder::<T>::with_capacity(texts.len());
        for text in texts {
            match text {
                Some("0") => values.append_value(T::default_value()),
                Some(text) => {
                    values.append_value(text.parse().ok().filter(|value| is_plain(*value))?)
                }
                None => values.append_null(),
            }
        }
        Some(Arc::new(values.finish()))
    }
    match target {
        DataType::Int16 => integers::<Int16Type>(texts),
        DataType::Int32 => integers::<Int32Type>(texts),
        DataType::Int64 => integers::<Int64Type>(texts),
        DataType::Float32 => floats::<Float32Type>(texts, |value| value.is_normal()),
        DataType::Float64 => floats::<Float64Type>(texts, |value| value.is_normal()),
        _ => None,
    }
}

/// A column of texts as a column of `target`.
pub fn read_column(texts: &dyn Array, target: &DataType) -> Result<ArrayRef> {
    let texts = cast(texts, &DataType::Utf8)?;
    let texts = texts.as_any().downcast_ref::<StringArray>().expect("cast gave text");
    if is_text(target) {
        return Ok(cast(texts, target)?);
    }
    if let Some(numbers) = read_plain_numbers(texts, target) {
        return Ok(numbers);
    }
    let null = arrow::array::new_null_array(target, 1);
    let mut parts: Vec<ArrayRef> = Vec::with_capacity(texts.len());
    for text in texts {
        parts.push(match text {
            Some(text) => types::parse_text(text, target).map_err(through_datafusion)?,
            None => Arc::clone(&null),
        });
    }
    if parts.is_empty() {
        return Ok(new_empty_array(target));
    }
    let parts: Vec<&dyn Array> = parts.iter().map(AsRef::as_ref).collect();
    Ok(concat(&parts)?)
}

#[cfg(test)]
mod tests {
    use arrow::array::{AsArray, Float64Array, Int64Array};

    use super::*;

    #[test]
    fn plain_numbers_and_all_others_are_read_alike() {
        let texts = StringArray::from(vec![Some("1"), None, Some("-20")]);
        let plain = read_column(&texts, &DataType::Int64).unwrap();
        assert_eq!(plain.as_ref(), &Int64Array::from(vec![Some(1), None, Some(-20)]) as &dyn Array);
        let texts = StringArray::from(vec![Some(" 1 "), Some("0x10"), Some("+5")]);
        let careful = read_column(&texts, &DataType::Int64).unwrap();
        assert_eq!(careful.as_ref(), &Int64Array::from(vec![1, 16, 5]) as &dyn Array);
        let texts = StringArray::from(vec!["0", "1.5", "-2e3"]);
        let floats = read_column(&texts, &DataType::Float64).unwrap();
        assert_eq!(floats.as_ref(), &Float64Array::from(vec![0.0, 1.5, -2000.0]) as &dyn Array);
        let texts = StringArray::from(vec!["1", "NaN", "-0"]);
        let floats = read_column(&texts, &DataType::Float64).unwrap();
        assert!(floats.as_primitive::<Float64Type>().value(1).is_nan());
    }

    #[test]
    fn what_does_not_fit_is_an_error_and_no_other_number() {
        for (text, target) in [
            ("3000000000", DataType::Int32),
            ("1e999", DataType::Float64),
            ("1e-999", DataType::Float64),
            ("1e39", DataType::Float32),
            ("x", DataType::Int64),
            ("", DataType::Float64),
        ] {
            let texts = StringArray::from(vec!["1", text]);
            assert!(read_column(&texts, &target).is_err(), "{text} as {target}");
        }
    }
}
