//! Values on their way into a column or a cast: PostgreSQL's text forms where the source is text.
//!
//! Arrow's casts read numbers and dates from text, but not `'[1,2,3]'::vector(3)`, `'\x00ff'::bytea`, uuids or arrays, and they
//! name errors in their own way. So a cast from text goes through the reader that the wire protocol uses for parameters, and
//! a cast to text through its writer. A number that becomes a whole one is rounded, as in PostgreSQL, where Arrow cuts it off. What
//! becomes a vector is checked as pgvector checks it. Every other cast stays DataFusion's.

#![allow(clippy::wildcard_enum_match_arm)] // the enums are other libraries', with far more variants than matter here

use std::str::FromStr;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, PrimitiveBuilder, StringArray, new_empty_array,
};
use arrow::compute::{CastOptions, cast, cast_with_options, concat};
use arrow::datatypes::{
    DECIMAL128_MAX_PRECISION, DataType, Field, Float32Type, Float64Type, Int16Type, Int32Type,
    Int64Type,
};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, ExprSchema, Result, ScalarValue};
use datafusion::logical_expr::expr::Placeholder;
use datafusion::logical_expr::{
    Cast, ColumnarValue, Expr, ExprSchemable, LogicalPlan, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature, Volatility,
};
use thanosql_protocol::types::{self, TextStyle};
use thanosql_protocol::{SqlError, SqlState};

use super::families::{Texts, assignable, type_name};
use super::json::{self, is_json};
use super::rewrite::rewrite_expressions;
use super::rows::is_text;
use super::types::vector_length;
use crate::error::through_datafusion;
use crate::functions::vector::to_vector_function;
use crate::functions::vector_column::through_column;

/// An expression as a value of a column, as an assignment makes it.
///
/// # Errors
/// 42804 for types that PostgreSQL assigns to no such column.
pub fn assign(expr: Expr, schema: &dyn ExprSchema, column: &Field) -> Result<Expr> {
    let (_, given) = expr.to_field(schema)?;
    let (source, target) = (given.data_type().clone(), column.data_type());
    if source == *target {
        return Ok(expr);
    }
    // A text may be a literal.
    if !assignable(&source, target, Texts::Literals) {
        let message = format!(
            "column \"{}\" is of type {} but expression is of type {}",
            column.name(),
            type_name(column),
            type_name(&given)
        );
        return Err(through_datafusion(
            SqlError::new(SqlState::DATATYPE_MISMATCH, message)
                .with_hint("You will need to rewrite or cast the expression."),
        ));
    }
    if is_text(&source) && !is_text(target) {
        let reader = ReadText { any_length: true, ..ReadText::new(target.clone()) };
        return Ok(ScalarUDF::from(reader).call(vec![expr]));
    }
    if let Some(dimensions) = vector_length(target)
        && is_list(&source)
    {
        return Ok(to_vector(expr, dimensions));
    }
    if is_text(target) && needs_writer(&source) {
        return write_text(expr, schema);
    }
    if is_narrower(&source, target) {
        return Ok(ScalarUDF::from(Narrow::new(target.clone())).call(vec![expr]));
    }
    Ok(Expr::Cast(Cast::new(Box::new(expr), target.clone())))
}

fn is_list(data_type: &DataType) -> bool {
    matches!(data_type, DataType::FixedSizeList(..) | DataType::List(_) | DataType::LargeList(_))
}

fn to_vector(expr: Expr, dimensions: i32) -> Expr {
    let dimensions = Expr::Literal(ScalarValue::Int64(Some(i64::from(dimensions))), None);
    to_vector_function().call(vec![expr, dimensions])
}

/// A cast as PostgreSQL means it, where DataFusion would mean something else.
fn converted(cast: Cast, source: &DataType, schema: &dyn ExprSchema) -> Result<Transformed<Expr>> {
    let target = cast.field.data_type().clone();
    if let Some(dimensions) = vector_length(&target) {
        if let Expr::Placeholder(Placeholder { id, field: None }) = *cast.expr {
            // As in PostgreSQL, the cast says what the parameter is.
            let parameter = Placeholder::new_with_field(id, Some(cast.field));
            return Ok(Transformed::yes(Expr::Placeholder(parameter)));
        }
        if *source == target || (dimensions == 0 && vector_length(source).is_some()) {
            return Ok(Transformed::yes(*cast.expr));
        }
        if *source == DataType::Null {
            let null = ScalarValue::try_new_null(&target)?;
            return Ok(Transformed::yes(Expr::Literal(null, None)));
        }
        if is_list(source) {
            if dimensions == 0 {
                return Err(through_datafusion(unknown_dimensions()));
            }
            return Ok(Transformed::yes(to_vector(*cast.expr, dimensions)));
        }
    }
    if is_text(source) && is_json(&cast.field) {
        let text = Box::new(json::checked(*cast.expr));
        return Ok(Transformed::yes(Expr::Cast(Cast { expr: text, ..cast })));
    }
    if is_text(source) && needs_reader(&target) {
        let reader = ScalarUDF::from(ReadText::new(target));
        return Ok(Transformed::yes(reader.call(vec![*cast.expr])));
    }
    if is_text(&target) && needs_writer(source) {
        let text = write_text(*cast.expr, schema)?;
        return Ok(Transformed::yes(match target {
            DataType::Utf8 => text,
            target => Expr::Cast(Cast::new(Box::new(text), target)),
        }));
    }
    if is_narrower(source, &target) {
        let narrowed = ScalarUDF::from(Narrow::new(target));
        return Ok(Transformed::yes(narrowed.call(vec![*cast.expr])));
    }
    Ok(Transformed::no(Expr::Cast(cast)))
}

fn unknown_dimensions() -> SqlError {
    SqlError::new(SqlState::INDETERMINATE_DATATYPE, "the number of dimensions must be written out")
        .with_hint("Write the cast as x::vector(3).")
}

/// An expression as PostgreSQL writes its values.
pub fn write_text(expr: Expr, schema: &dyn ExprSchema) -> Result<Expr> {
    let (_, field) = expr.to_field(schema)?;
    Ok(ScalarUDF::from(WriteText::new(&field)).call(vec![expr]))
}

/// Replaces casts from text by PostgreSQL's reading of it, everywhere in a plan.
pub(super) fn read_texts(plan: LogicalPlan) -> Result<LogicalPlan> {
    rewrite_expressions(plan, read_texts_in)
}

/// As [`read_texts`], in one expression over the columns of `schema`.
pub(super) fn read_texts_in(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    expr.transform_up(|expr| match expr {
        Expr::Cast(cast) => {
            // Columns of outer queries are not in this schema; their casts stay as they are.
            match cast.expr.get_type(schema) {
                Ok(source) => converted(cast, &source, schema),
                Err(_) if matches!(*cast.expr, Expr::Placeholder(_)) => {
                    converted(cast, &DataType::Null, schema)
                }
                Err(_) => Ok(Transformed::no(Expr::Cast(cast))),
            }
        }
        other => Ok(Transformed::no(other)),
    })
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
            | DataType::Date32
            | DataType::Time64(_)
            | DataType::Timestamp(..)
            | DataType::Interval(_)
    )
}

/// Types whose text form Arrow's own casts do not write as PostgreSQL does.
fn needs_writer(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Float32
            | DataType::Float64
            | DataType::Timestamp(..)
            | DataType::Time64(_)
            | DataType::Interval(_)
            | DataType::Binary
            | DataType::FixedSizeBinary(_)
            | DataType::List(_)
            | DataType::LargeList(_)
            | DataType::FixedSizeList(..)
    )
}

/// Whether a cast between numbers rounds or may not fit, in a way that Arrow's does not know.
fn is_narrower(source: &DataType, target: &DataType) -> bool {
    match target {
        DataType::Int16 | DataType::Int32 | DataType::Int64 => {
            matches!(source, DataType::Float32 | DataType::Float64 | DataType::Decimal128(..))
        }
        DataType::Float32 => matches!(source, DataType::Float64 | DataType::Decimal128(..)),
        _ => false,
    }
}

/// Writes PostgreSQL's text form of a type.
#[derive(Debug, PartialEq, Eq, Hash)]
struct WriteText {
    signature: Signature,
    /// The type, with the metadata that says more about it.
    field: Field,
}

impl WriteText {
    fn new(field: &Field) -> WriteText {
        WriteText {
            signature: Signature::any(1, Volatility::Immutable),
            field: field.clone().with_name(""),
        }
    }
}

impl ScalarUDFImpl for WriteText {
    fn name(&self) -> &str {
        "write_text"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let style = TextStyle::default();
        through_column(&args.args[0], |values| {
            let texts: StringArray = (0..values.len())
                .map(|row| types::text_value(values.as_ref(), row, &self.field, &style))
                .collect();
            Ok(Arc::new(texts))
        })
    }
}

/// A number as one of a narrower type. As a whole one: numeric away from zero at the half, floats to the even one, as PostgreSQL rounds. As a real, if it is
/// one.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Narrow {
    signature: Signature,
    target: DataType,
}

impl Narrow {
    fn new(target: DataType) -> Narrow {
        Narrow { signature: Signature::any(1, Volatility::Immutable), target }
    }
}

impl ScalarUDFImpl for Narrow {
    fn name(&self) -> &str {
        "narrow"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(self.target.clone())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        through_column(&args.args[0], |values| narrow_column(values, &self.target))
    }
}

/// Numbers as whole ones or as reals, see [`Narrow`].
///
/// # Errors
/// 22003 for one that does not fit.
pub fn narrow_column(values: &ArrayRef, target: &DataType) -> Result<ArrayRef> {
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    if *target == DataType::Float32 {
        let values = cast_with_options(values, &DataType::Float64, &strict)?;
        let reals = values.as_primitive::<Float64Type>().try_unary::<_, Float32Type, _>(real)?;
        return Ok(Arc::new(reals));
    }
    let whole: ArrayRef = match values.data_type() {
        DataType::Decimal32(..)
        | DataType::Decimal64(..)
        | DataType::Decimal128(..)
        | DataType::Decimal256(..) => {
            cast_with_options(values, &DataType::Decimal128(DECIMAL128_MAX_PRECISION, 0), &strict)?
        }
        _ => {
            let values = cast(values, &DataType::Float64)?;
            let values = values.as_primitive::<Float64Type>();
            Arc::new(values.unary::<_, Float64Type>(f64::round_ties_even))
        }
    };
    Ok(cast_with_options(&whole, target, &strict)?)
}

/// The real next to a number: neither infinite nor zero if that is not.
fn real(value: f64) -> Result<f32> {
    let real = value as f32;
    let lost = match real {
        _ if real.is_infinite() && value.is_finite() => "overflow",
        0.0 if value != 0.0 => "underflow",
        _ => return Ok(real),
    };
    let message = format!("value out of range: {lost}");
    Err(through_datafusion(SqlError::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, message)))
}

/// Reads PostgreSQL's text form of a type.
#[derive(Debug, PartialEq, Eq, Hash)]
struct ReadText {
    signature: Signature,
    target: DataType,
    /// Whether a vector of any length may come of it, where no plan hangs on the type: the value of a parameter.
    any_length: bool,
}

impl ReadText {
    fn new(target: DataType) -> ReadText {
        ReadText { signature: Signature::any(1, Volatility::Immutable), target, any_length: false }
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
        if vector_length(&self.target) == Some(0) && !self.any_length {
            // It may be described, but a column's vectors have one length, which must be known.
            return Err(through_datafusion(unknown_dimensions()));
        }
        through_column(&args.args[0], |texts| read_column(texts, &self.target))
    }
}

/// Numbers in the form in which nearly all of them come, at once. `None` if a text is anything else, valid or not: the
/// careful way below knows PostgreSQL's other forms and its errors.
fn read_plain_numbers(texts: &StringArray, target: &DataType) -> Option<ArrayRef> {
    fn numbers<T: ArrowPrimitiveType>(
        texts: &StringArray,
        read: impl Fn(&str) -> Option<T::Native>,
    ) -> Option<ArrayRef> {
        let mut values = PrimitiveBuilder::<T>::with_capacity(texts.len());
        for text in texts {
            match text {
                Some(text) => values.append_value(read(text)?),
                None => values.append_null(),
            }
        }
        Some(Arc::new(values.finish()))
    }
    /// Zeros and infinities may be numbers that do not fit.
    fn float<F: Default + FromStr>(text: &str, is_plain: impl Fn(&F) -> bool) -> Option<F> {
        if text == "0" { Some(F::default()) } else { text.parse().ok().filter(is_plain) }
    }
    match target {
        DataType::Int16 => numbers::<Int16Type>(texts, |text| text.parse().ok()),
        DataType::Int32 => numbers::<Int32Type>(texts, |text| text.parse().ok()),
        DataType::Int64 => numbers::<Int64Type>(texts, |text| text.parse().ok()),
        DataType::Float32 => {
            numbers::<Float32Type>(texts, |text| float(text, |value: &f32| value.is_normal()))
        }
        DataType::Float64 => {
            numbers::<Float64Type>(texts, |text| float(text, |value: &f64| value.is_normal()))
        }
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
    use arrow::array::{Decimal128Array, Float64Array, Int32Array, Int64Array};

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

    #[test]
    fn numbers_are_rounded_as_postgresql_rounds_them() {
        let floats: ArrayRef =
            Arc::new(Float64Array::from(vec![Some(1.7), Some(2.5), Some(3.5), Some(-2.5), None]));
        let whole = narrow_column(&floats, &DataType::Int32).unwrap();
        let expected = Int32Array::from(vec![Some(2), Some(2), Some(4), Some(-2), None]);
        assert_eq!(whole.as_ref(), &expected);
        let decimals = Decimal128Array::from(vec![125, -125, 124, 175])
            .with_precision_and_scale(5, 1)
            .unwrap();
        let whole = narrow_column(&(Arc::new(decimals) as ArrayRef), &DataType::Int32).unwrap();
        assert_eq!(whole.as_ref(), &Int32Array::from(vec![13, -13, 12, 18]));
        let large: ArrayRef = Arc::new(Float64Array::from(vec![1e20]));
        assert!(narrow_column(&large, &DataType::Int64).is_err());
    }
}
