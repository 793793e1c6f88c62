//! Values on their way into a column or a cast: PostgreSQL's text forms where the source is text.
//!
//! Arrow's casts read numbers and dates from text, but not `'[1,2,3]'::vector(3)`, `'\x00ff'::bytea`, uuids or arrays, and they
//! name errors in their own way. So a cast from text goes through the reader that the wire protocol uses for parameters; and a cast of a
//! vector or an array to text through its writer. What becomes a vector is checked as pgvector checks it. Every other cast stays
//! DataFusion's.

#![allow(clippy::wildcard_enum_match_arm)] // the enums are other libraries', with far more variants than matter here

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, StringArray, new_empty_array};
use arrow::compute::{cast, concat};
use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, ExprSchema, Result, ScalarValue};
use datafusion::logical_expr::expr::Placeholder;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{
    Cast, ColumnarValue, Expr, ExprSchemable, LogicalPlan, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature, Volatility,
};
use thanosql_protocol::types::{self, TextStyle};
use thanosql_protocol::{SqlError, SqlState};

use super::rows::is_text;
use crate::error::through_datafusion;
use crate::functions::vector::to_vector_function;

/// An expression as a value of `target`, as an assignment to a column makes it.
pub fn assign(expr: Expr, schema: &dyn ExprSchema, target: &DataType) -> Result<Expr> {
    let source = expr.get_type(schema)?;
    if source == *target {
        return Ok(expr);
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
    Ok(Expr::Cast(Cast::new(Box::new(expr), target.clone())))
}

/// The number of dimensions of a vector's type; 0 stands for any.
fn vector_length(data_type: &DataType) -> Option<i32> {
    match data_type {
        DataType::FixedSizeList(item, length) if *item.data_type() == DataType::Float32 => {
            Some(*length)
        }
        _ => None,
    }
}

fn is_list(data_type: &DataType) -> bool {
    matches!(data_type, DataType::FixedSizeList(..) | DataType::List(_) | DataType::LargeList(_))
}

fn to_vector(expr: Expr, dimensions: i32) -> Expr {
    let dimensions = Expr::Literal(ScalarValue::Int64(Some(i64::from(dimensions))), None);
    to_vector_function().call(vec![expr, dimensions])
}

/// A cast as PostgreSQL means it, where DataFusion would mean something else.
fn converted(cast: Cast, source: &DataType) -> Result<Transformed<Expr>> {
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
    if is_text(source) && needs_reader(&target) {
        let reader = ScalarUDF::from(ReadText::new(target));
        return Ok(Transformed::yes(reader.call(vec![*cast.expr])));
    }
    if is_text(&target) && is_list(source) {
        let writer = ScalarUDF::from(WriteText::new(target));
        return Ok(Transformed::yes(writer.call(vec![*cast.expr])));
    }
    Ok(Transformed::no(Expr::Cast(cast)))
}

fn unknown_dimensions() -> SqlError {
    SqlError::new(SqlState::INDETERMINATE_DATATYPE, "the number of dimensions must be written out")
        .with_hint("Write the cast as x::vector(3).")
}

/// Replaces casts from text by PostgreSQL's reading of it, everywhere in a plan.
pub(super) fn read_texts(plan: LogicalPlan) -> Result<LogicalPlan> {
    let mut changed = false;
    let rewritten = plan.transform_up_with_subqueries(|node| {
        // A cast may have changed the type of a column below.
        let node = if changed { node.recompute_schema()? } else { node };
        let mut schema = DFSchema::empty();
        for input in node.inputs() {
            schema.merge(input.schema());
        }
        let preserver = NamePreserver::new(&node);
        let mapped = node.map_expressions(|expr| {
            let name = preserver.save(&expr);
            let expr = expr.transform_up(|expr| match expr {
                Expr::Cast(cast)
                    if needs_reader(cast.field.data_type()) || is_text(cast.field.data_type()) =>
                {
                    // Columns of outer queries are not in this schema; their casts stay as they are.
                    match cast.expr.get_type(&schema) {
                        Ok(source) => converted(cast, &source),
                        Err(_) if matches!(*cast.expr, Expr::Placeholder(_)) => {
                            converted(cast, &DataType::Null)
                        }
                        Err(_) => Ok(Transformed::no(Expr::Cast(cast))),
                    }
                }
                other => Ok(Transformed::no(other)),
            })?;
            Ok(expr.update_data(|expr| name.restore(expr)))
        })?;
        changed |= mapped.transformed;
        Ok(if changed { Transformed::yes(mapped.data.recompute_schema()?) } else { mapped })
    })?;
    Ok(rewritten.data)
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
    /// Whether a vector of any length may come of it, where no plan hangs on the type: the value of a parameter.
    any_length: bool,
}

impl ReadText {
    fn new(target: DataType) -> ReadText {
        ReadText { signature: Signature::any(1, Volatility::Immutable), target, any_length: false }
    }
}

impl PartialEq for ReadText {
    fn eq(&self, other: &ReadText) -> bool {
        self.target == other.target && self.any_length == other.any_length
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
        if vector_length(&self.target) == Some(0) && !self.any_length {
            // It may be described, but a column's vectors have one length, which must be known.
            return Err(through_datafusion(unknown_dimensions()));
        }
        let texts = args.args[0].to_array(if constant { 1 } else { args.number_rows })?;
        let values = read_column(&texts, &self.target)?;
        if constant {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&values, 0)?));
        }
        Ok(ColumnarValue::Array(values))
    }
}

/// PostgreSQL's text form of a vector or an array.
#[derive(Debug, PartialEq, Eq, Hash)]
struct WriteText {
    signature: Signature,
    target: DataType,
}

impl WriteText {
    fn new(target: DataType) -> WriteText {
        WriteText { signature: Signature::any(1, Volatility::Immutable), target }
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
        Ok(self.target.clone())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let constant = matches!(args.args[0], ColumnarValue::Scalar(_));
        let values = args.args[0].to_array(if constant { 1 } else { args.number_rows })?;
        let (field, style) = (&args.arg_fields[0], TextStyle::default());
        let texts: StringArray = (0..values.len())
            .map(|row| types::text_value(values.as_ref(), row, field, &style))
            .collect();
        let texts = cast(&texts, &self.target)?;
        if constant {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&texts, 0)?));
        }
        Ok(ColumnarValue::Array(texts))
    }
}

/// A column of texts as a column of `target`.
pub fn read_column(texts: &dyn Array, target: &DataType) -> Result<ArrayRef> {
    let texts = cast(texts, &DataType::Utf8)?;
    let texts = texts.as_any().downcast_ref::<StringArray>().expect("cast gave text");
    if is_text(target) {
        return Ok(cast(texts, target)?);
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
