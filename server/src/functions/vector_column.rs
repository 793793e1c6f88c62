//! Columns of vectors: how they are read, made, and checked. What the functions over vectors share.

#![allow(clippy::wildcard_enum_match_arm)] // the enums are other libraries', with far more variants than matter here

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, FixedSizeListArray, Float32Array, Float32Builder, ListArray,
    ListBuilder,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, Field, FieldRef, Float32Type};
use datafusion::common::{Result, ScalarValue};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::ColumnarValue;
use thanosql_protocol::types::parse_vector;
use thanosql_protocol::{SqlError, SqlState};

use crate::error::through_datafusion;
use crate::learning::{Mark, vector_type};

/// A column of vectors as one run of numbers.
pub(crate) struct Vectors {
    values: Float32Array,
    layout: Layout,
    nulls: Option<NullBuffer>,
    pub(crate) len: usize,
}

enum Layout {
    Fixed { dim: usize },
    Ragged { offsets: OffsetBuffer<i32> },
}

impl Vectors {
    pub(crate) fn of(array: &ArrayRef) -> Result<Vectors> {
        match array.data_type() {
            DataType::FixedSizeList(_, _) => Vectors::of_fixed(array.as_fixed_size_list()),
            DataType::List(_) => Vectors::of_list(array.as_list::<i32>()),
            DataType::Utf8 => {
                let mut builder = ListBuilder::new(Float32Builder::new());
                for text in array.as_string::<i32>() {
                    match text {
                        Some(text) => {
                            builder
                                .values()
                                .append_slice(&parse_vector(text).map_err(through_datafusion)?);
                            builder.append(true);
                        }
                        None => builder.append(false),
                    }
                }
                Vectors::of_list(&builder.finish())
            }
            DataType::Null => Ok(Vectors {
                values: Float32Array::from(Vec::<f32>::new()),
                layout: Layout::Fixed { dim: 0 },
                nulls: Some(NullBuffer::new_null(array.len())),
                len: array.len(),
            }),
            other => Err(not_a_vector(other)),
        }
    }

    fn of_fixed(array: &FixedSizeListArray) -> Result<Vectors> {
        let dim = usize::try_from(array.value_length()).unwrap_or(0);
        // `values` ignores a slice's offset: `value_offset` of the first row is where it starts.
        let start =
            if array.is_empty() { 0 } else { usize::try_from(array.value_offset(0)).unwrap_or(0) };
        let values = float_values(array.values())?.slice(start, array.len() * dim);
        Ok(Vectors {
            values,
            layout: Layout::Fixed { dim },
            nulls: array.nulls().cloned(),
            len: array.len(),
        })
    }

    fn of_list(array: &ListArray) -> Result<Vectors> {
        Ok(Vectors {
            values: float_values(array.values())?,
            layout: Layout::Ragged { offsets: array.offsets().clone() },
            nulls: array.nulls().cloned(),
            len: array.len(),
        })
    }

    /// Errors: 22004 if an element is NULL.
    pub(crate) fn get(&self, row: usize) -> Result<Option<&[f32]>> {
        if self.nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)) {
            return Ok(None);
        }
        let range = match &self.layout {
            Layout::Fixed { dim } => row * dim..(row + 1) * dim,
            Layout::Ragged { offsets } => offsets[row] as usize..offsets[row + 1] as usize,
        };
        if self.values.null_count() > 0 && range.clone().any(|index| self.values.is_null(index)) {
            return Err(through_datafusion(SqlError::new(
                SqlState::NULL_VALUE_NOT_ALLOWED,
                "a vector must not contain nulls",
            )));
        }
        Ok(Some(&self.values.values()[range]))
    }
}

fn float_values(values: &ArrayRef) -> Result<Float32Array> {
    Ok(arrow::compute::cast(values, &DataType::Float32)?.as_primitive::<Float32Type>().clone())
}

/// What a function of one column answers: a constant goes through it as a column of one row and comes back as a constant.
pub(crate) fn through_column(
    argument: &ColumnarValue,
    function: impl FnOnce(&ArrayRef) -> Result<ArrayRef>,
) -> Result<ColumnarValue> {
    match argument {
        ColumnarValue::Array(column) => function(column).map(ColumnarValue::Array),
        ColumnarValue::Scalar(value) => {
            let result = function(&value.to_array()?)?;
            ScalarValue::try_from_array(&result, 0).map(ColumnarValue::Scalar)
        }
    }
}

/// A column of vectors from their numbers, `[count, dim]`, and which rows have one.
pub(super) fn vectors_array(
    values: Vec<f32>,
    valid: Vec<bool>,
    dim: i32,
) -> Result<ArrayRef, SqlError> {
    let item = Arc::new(Field::new("item", DataType::Float32, true));
    let nulls = valid.contains(&false).then(|| NullBuffer::from(valid));
    FixedSizeListArray::try_new(item, dim, Arc::new(Float32Array::from(values)), nulls)
        .map(|array| Arc::new(array) as ArrayRef)
        .map_err(crate::error::arrow_error)
}

/// A column of vectors of type `data_type`, made row by row: `append` adds a row's elements, or none and answers false for NULL.
///
/// Errors: 22000 for a row of another length.
pub(super) fn vectors_by_row(
    data_type: &DataType,
    rows: usize,
    append: impl Fn(usize, &mut Vec<f32>) -> Result<bool>,
) -> Result<ArrayRef> {
    let DataType::FixedSizeList(item, dim) = data_type else {
        return Err(unknown_length());
    };
    let length = usize::try_from(*dim).unwrap_or(0);
    let mut values = Vec::with_capacity(rows * length);
    let mut valid = Vec::with_capacity(rows);
    for row in 0..rows {
        let before = values.len();
        let present = append(row, &mut values)?;
        if present && values.len() - before != length {
            return Err(different_lengths(length, values.len() - before));
        }
        values.resize(before + length, 0.0);
        valid.push(present);
    }
    Ok(Arc::new(FixedSizeListArray::try_new(
        Arc::clone(item),
        *dim,
        Arc::new(Float32Array::from(values)),
        Some(NullBuffer::from(valid)),
    )?))
}

/// What an argument is turned into before the function sees it.
pub(super) fn vector_argument(data_type: &DataType) -> Result<DataType> {
    let float_item = || Arc::new(Field::new("item", DataType::Float32, true));
    match data_type {
        DataType::FixedSizeList(item, _) if *item.data_type() == DataType::Float32 => {
            Ok(data_type.clone())
        }
        DataType::FixedSizeList(item, dim) if item.data_type().is_numeric() => {
            Ok(DataType::FixedSizeList(float_item(), *dim))
        }
        DataType::List(item) | DataType::LargeList(item)
            if item.data_type().is_numeric() || *item.data_type() == DataType::Null =>
        {
            Ok(DataType::List(float_item()))
        }
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Ok(DataType::Utf8),
        DataType::Null => Ok(DataType::Null),
        other => Err(not_a_vector(other)),
    }
}

/// The length that vectors of these types have in common; none if no type tells. Length 0 stands for any.
///
/// Errors: 22000 if they differ.
pub(super) fn common_length(types: &[DataType]) -> Result<Option<i32>> {
    let mut common = None;
    for data_type in types {
        if let DataType::FixedSizeList(_, length) = data_type
            && *length > 0
        {
            match common {
                Some(other) if other != *length => {
                    return Err(different_lengths(other as usize, *length as usize));
                }
                Some(_) | None => common = Some(*length),
            }
        }
    }
    Ok(common)
}

/// What two vectors of one length are turned into before a function sees them.
///
/// Errors: 42883 unless there are two, 22000 if their types' lengths differ.
pub(super) fn two_vectors(name: &str, arguments: &[DataType]) -> Result<Vec<DataType>> {
    if arguments.len() != 2 {
        return Err(wrong_arguments(name, "two vectors"));
    }
    let coerced = arguments.iter().map(vector_argument).collect::<Result<Vec<_>>>()?;
    common_length(&coerced)?;
    Ok(coerced)
}

/// The field of a vector that is made of others: it carries their model's mark if all of them have the same.
pub(super) fn vector_result(name: &str, dim: usize, made_of: &[FieldRef]) -> Field {
    let field = Field::new(name, vector_type(dim), true);
    let marks: Vec<Option<Mark>> = made_of.iter().map(|field| Mark::of(field)).collect();
    match marks.split_first() {
        Some((Some(mark), rest)) if rest.iter().all(|other| other.as_ref() == Some(mark)) => {
            field.with_metadata(mark.metadata())
        }
        Some(_) | None => field,
    }
}

pub(super) fn not_a_vector(data_type: &DataType) -> DataFusionError {
    through_datafusion(SqlError::new(
        SqlState::DATATYPE_MISMATCH,
        format!("a vector is needed, not {data_type}"),
    ))
}

pub(super) fn different_lengths(a: usize, b: usize) -> DataFusionError {
    through_datafusion(SqlError::new(
        SqlState::DATA_EXCEPTION,
        format!("vectors of different lengths: {a} and {b}"),
    ))
}

pub(super) fn unknown_length() -> DataFusionError {
    through_datafusion(
        SqlError::new(
            SqlState::INDETERMINATE_DATATYPE,
            "the number of dimensions must be written out",
        )
        .with_hint("Write the cast as '[1,2,3]'::vector(3)."),
    )
}

pub(super) fn wrong_arguments(function: &str, wanted: &str) -> DataFusionError {
    through_datafusion(SqlError::new(
        SqlState::UNDEFINED_FUNCTION,
        format!("function {function} takes {wanted}"),
    ))
}
