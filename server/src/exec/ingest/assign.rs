//! Columns of a file that has types, as columns of a table: what PostgreSQL would allow in an assignment, and no more.

#![allow(clippy::wildcard_enum_match_arm)] // the enums are other libraries', with far more variants than matter here

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringArray};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, IntervalUnit, TimeUnit};
use thanosql_protocol::types::{TextStyle, text_value};
use thanosql_protocol::{SqlError, SqlState};

use crate::error::{arrow_error, datafusion_error};
use crate::exec::append::{Places, placed};
use crate::plan::coerce::{narrow_column, read_column};
pub(super) use crate::plan::families::Texts;
use crate::plan::families::{assignable, type_name};
use crate::plan::rows::is_text;

/// # Errors
/// 42804 if the values of a column of the data cannot become values of the table's.
pub(super) fn check(
    table: &str,
    target: &Field,
    given: &Field,
    texts: Texts,
) -> Result<(), SqlError> {
    if assignable(given.data_type(), target.data_type(), texts) {
        return Ok(());
    }
    Err(SqlError::new(
        SqlState::DATATYPE_MISMATCH,
        format!(
            "column \"{}\" is of type {} but the data is of type {}",
            target.name(),
            type_name(target),
            type_name(given)
        ),
    )
    .with_detail(format!("COPY {table}, column {}", given.name())))
}

/// Columns of the data as values of `fields`, which [`check`] has allowed.
///
/// # Errors
/// What the first bad value answers, with its row.
pub(super) fn columns(
    table: &str,
    given: &[ArrayRef],
    fields: &[Field],
    places: &Places,
) -> Result<Vec<ArrayRef>, SqlError> {
    given
        .iter()
        .zip(fields)
        .map(|(array, field)| {
            column(array, field).map_err(|error| {
                let bad = (0..array.len()).find_map(|row| {
                    column(&array.slice(row, 1), field).err().map(|error| (row, error))
                });
                let (row, error) = bad.unwrap_or((0, error));
                placed(error, table, &places.of(row), Some(field.name()))
            })
        })
        .collect()
}

fn column(array: &ArrayRef, field: &Field) -> Result<ArrayRef, SqlError> {
    let target = field.data_type();
    let given = array.data_type();
    if given == target {
        return Ok(Arc::clone(array));
    }
    if let DataType::Dictionary(_, value) = given {
        return column(&strict_cast(array, value)?, field);
    }
    if is_text(target) && !is_text(given) {
        return Ok(as_text(array));
    }
    if is_text(given) && !is_text(target) {
        return read_column(array, target).map_err(|error| datafusion_error(error, None));
    }
    match (given, target) {
        (_, DataType::FixedSizeList(_, length)) => {
            check_lengths(array, *length)?;
            strict_cast(array, target)
        }
        (
            DataType::Float32
            | DataType::Float64
            | DataType::Decimal32(..)
            | DataType::Decimal64(..)
            | DataType::Decimal128(..)
            | DataType::Decimal256(..),
            DataType::Int16 | DataType::Int32 | DataType::Int64 | DataType::Float32,
        ) => narrow_column(array, target).map_err(|error| datafusion_error(error, None)),
        // Arrow casts these by way of others.
        (DataType::Duration(unit), DataType::Interval(IntervalUnit::MonthDayNano))
            if *unit != TimeUnit::Nanosecond =>
        {
            let nanoseconds = strict_cast(array, &DataType::Duration(TimeUnit::Nanosecond))?;
            strict_cast(&nanoseconds, target)
        }
        _ => strict_cast(array, target),
    }
}

/// A cast in which what does not fit is an error, never a NULL.
fn strict_cast(array: &ArrayRef, target: &DataType) -> Result<ArrayRef, SqlError> {
    let options = CastOptions { safe: false, ..CastOptions::default() };
    cast_with_options(array, target, &options).map_err(arrow_error)
}

/// Values in PostgreSQL's text form.
fn as_text(array: &ArrayRef) -> ArrayRef {
    let field = Field::new("", array.data_type().clone(), true);
    let style = TextStyle::default();
    let texts = (0..array.len()).map(|row| text_value(array.as_ref(), row, &field, &style));
    Arc::new(texts.collect::<StringArray>())
}

/// Every array must be as long as the vectors of its column.
fn check_lengths(array: &ArrayRef, length: i32) -> Result<(), SqlError> {
    let Some(lists) = array.as_list_opt::<i32>() else { return Ok(()) };
    let wrong = (0..lists.len())
        .filter(|row| lists.is_valid(*row))
        .map(|row| lists.value_length(row))
        .find(|found| *found != length);
    match wrong {
        Some(found) => Err(SqlError::new(
            SqlState::DATA_EXCEPTION,
            format!("expected {length} dimensions, not {found}"),
        )),
        None if lists.values().null_count() > 0 => {
            Err(SqlError::new(SqlState::NULL_VALUE_NOT_ALLOWED, "array must not contain nulls"))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Float64Array, Int64Array, ListArray};
    use arrow::datatypes::Int32Type;

    use super::*;
    use crate::plan::types::vector;

    fn field(data_type: DataType) -> Field {
        Field::new("a", data_type, true)
    }

    #[test]
    fn what_postgresql_assigns_is_assigned() {
        let check = |given: DataType, target: DataType, texts, expect: bool| {
            assert_eq!(assignable(&given, &target, texts), expect, "{given} to {target}");
        };
        let list = |element| DataType::new_list(element, true);
        check(DataType::Int64, DataType::Int16, Texts::Typed, true);
        check(DataType::Int64, DataType::Utf8, Texts::Typed, true);
        check(DataType::Utf8, DataType::Int64, Texts::Typed, false);
        check(DataType::Utf8, DataType::Int64, Texts::Literals, true);
        check(DataType::Boolean, DataType::Int64, Texts::Literals, false);
        check(
            DataType::Date32,
            DataType::Timestamp(TimeUnit::Microsecond, None),
            Texts::Typed,
            true,
        );
        check(list(DataType::Float64), vector(3), Texts::Typed, true);
        check(list(DataType::Boolean), vector(3), Texts::Typed, false);
        check(list(DataType::Int64), DataType::Int64, Texts::Typed, false);
    }

    fn one(array: ArrayRef, target: DataType) -> Result<ArrayRef, SqlError> {
        column(&array, &field(target))
    }

    #[test]
    fn numbers_are_rounded_and_never_lost() {
        let floats: ArrayRef = Arc::new(Float64Array::from(vec![Some(1.5), Some(2.5), None]));
        let integers = one(floats, DataType::Int32).unwrap();
        let expect = arrow::array::Int32Array::from(vec![Some(2), Some(2), None]);
        assert_eq!(integers.as_ref(), &expect as &dyn Array);
        let large: ArrayRef = Arc::new(Int64Array::from(vec![3_000_000_000]));
        let error = one(large, DataType::Int32).unwrap_err();
        assert_eq!(error.code, SqlState::NUMERIC_VALUE_OUT_OF_RANGE);
    }

    #[test]
    fn vectors_have_their_length() {
        let lists = |rows: Vec<Option<Vec<Option<i32>>>>| -> ArrayRef {
            Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(rows))
        };
        let fine = lists(vec![Some(vec![Some(1), Some(2)]), None]);
        let vectors = one(fine, vector(2)).unwrap();
        assert_eq!((vectors.len(), vectors.null_count()), (2, 1));
        let short = lists(vec![Some(vec![Some(1)])]);
        assert_eq!(one(short, vector(2)).unwrap_err().code, SqlState::DATA_EXCEPTION);
        let holes = lists(vec![Some(vec![Some(1), None])]);
        assert_eq!(one(holes, vector(2)).unwrap_err().code, SqlState::NULL_VALUE_NOT_ALLOWED);
    }

    #[test]
    fn the_row_of_a_bad_value_is_named() {
        let texts: ArrayRef = Arc::new(StringArray::from(vec!["1", "x"]));
        let places = Places::Rows { first: 5, count: 2 };
        let fields = [field(DataType::Int64)];
        let error = columns("t", &[texts], &fields, &places).unwrap_err();
        assert_eq!(error.code, SqlState::INVALID_TEXT_REPRESENTATION);
        assert_eq!(error.detail.as_deref(), Some("COPY t, row 6, column a"));
    }
}
