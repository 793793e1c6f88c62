//! Rows on their way into a table: which types can be stored, and a stream's batches brought into a table's columns.

#![allow(clippy::wildcard_enum_match_arm)] // the enums are other libraries', with far more variants than matter here

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, IntervalUnit, Schema, SchemaRef, TimeUnit};
use datafusion::execution::SendableRecordBatchStream;
use futures::{StreamExt as _, TryStreamExt as _};
use thanosql_protocol::{SqlError, SqlState};

use super::Control;
use super::query::controlled;
use crate::catalog::sequences::forget_default;
use crate::error::arrow_error;
use crate::plan::json::{check_json, is_json};
use crate::plan::names::shown;
use crate::plan::scores::SCORE_KEY;
use crate::plan::types::PG_TYPMOD;
use crate::session::transaction::SessionTransaction;

/// A query's columns as those of a table. All may be NULL.
///
/// # Errors
/// 42701 for a name that comes twice, 0A000 for a type that no column can have.
pub fn storable_schema(schema: &Schema) -> Result<SchemaRef, SqlError> {
    let mut fields: Vec<Field> = Vec::with_capacity(schema.fields().len());
    for field in schema.fields() {
        let name = shown(field.name());
        if fields.iter().any(|other| other.name() == name) {
            return Err(SqlError::new(
                SqlState::DUPLICATE_COLUMN,
                format!("column \"{name}\" specified more than once"),
            ));
        }
        let data_type = storable_type(field.data_type()).ok_or_else(|| {
            SqlError::new(
                SqlState::FEATURE_NOT_SUPPORTED,
                format!(
                    "column \"{name}\" has a type that cannot be stored: {}",
                    field.data_type()
                ),
            )
        })?;
        // A default belongs to the column that it was given to.
        let mut metadata = field.metadata().clone();
        forget_default(&mut metadata);
        metadata.remove(SCORE_KEY);
        fields.push(Field::new(name, data_type, true).with_metadata(metadata));
    }
    Ok(Arc::new(Schema::new(fields)))
}

fn storable_type(data_type: &DataType) -> Option<DataType> {
    let list = |field: &Field| {
        storable_type(field.data_type())
            .map(|element| DataType::List(Arc::new(Field::new("item", element, true))))
    };
    match data_type {
        DataType::Boolean
        | DataType::Int16
        | DataType::Int32
        | DataType::Int64
        | DataType::Float32
        | DataType::Float64
        | DataType::Utf8
        | DataType::Binary
        | DataType::Date32
        | DataType::FixedSizeBinary(16)
        | DataType::Decimal128(..) => Some(data_type.clone()),
        DataType::Int8 | DataType::UInt8 => Some(DataType::Int16),
        DataType::UInt16 => Some(DataType::Int32),
        DataType::UInt32 | DataType::UInt64 => Some(DataType::Int64),
        DataType::Float16 => Some(DataType::Float32),
        DataType::Null | DataType::LargeUtf8 | DataType::Utf8View => Some(DataType::Utf8),
        DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            Some(DataType::Binary)
        }
        DataType::Date64 => Some(DataType::Timestamp(TimeUnit::Microsecond, None)),
        DataType::Time32(_) | DataType::Time64(_) => Some(DataType::Time64(TimeUnit::Microsecond)),
        DataType::Timestamp(_, zone) => {
            Some(DataType::Timestamp(TimeUnit::Microsecond, zone.as_ref().map(|_| "UTC".into())))
        }
        DataType::Interval(_) | DataType::Duration(_) => {
            Some(DataType::Interval(IntervalUnit::MonthDayNano))
        }
        DataType::Decimal32(precision, scale) | DataType::Decimal64(precision, scale) => {
            Some(DataType::Decimal128(*precision, *scale))
        }
        DataType::Decimal256(_, scale) => Some(DataType::Decimal128(38, *scale)),
        DataType::Dictionary(_, value) => storable_type(value),
        DataType::FixedSizeList(field, length) => match field.data_type() {
            DataType::Float32 => Some(crate::plan::types::vector(*length)),
            _ => list(field),
        },
        DataType::List(field)
        | DataType::LargeList(field)
        | DataType::ListView(field)
        | DataType::LargeListView(field) => list(field),
        DataType::Struct(_)
        | DataType::Union(..)
        | DataType::Map(..)
        | DataType::RunEndEncoded(..) => None,
    }
}

/// A batch in a table's columns, by position. Texts that are too long for their column are an error, and those that are no JSON where that is wanted.
///
/// # Errors
/// 22001, 22P02, and what casting answers.
pub fn conform(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, SqlError> {
    // What does not fit is an error, no NULL.
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(schema.fields().len());
    for (column, field) in batch.columns().iter().zip(schema.fields()) {
        let column = if column.data_type() == field.data_type() {
            column.clone()
        } else {
            cast_with_options(column, field.data_type(), &strict).map_err(arrow_error)?
        };
        check_length(&column, field)?;
        check_texts_of_json(&column, field)?;
        columns.push(column);
    }
    // Nulls are checked where rows are stored, so that the error names the table.
    let fields: Vec<Field> =
        schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(arrow_error)
}

fn check_texts_of_json(column: &ArrayRef, field: &Field) -> Result<(), SqlError> {
    if !is_json(field) {
        return Ok(());
    }
    let mut texts = column.as_string_opt::<i32>().into_iter().flatten().flatten();
    texts.try_for_each(check_json)
}

fn check_length(column: &ArrayRef, field: &Field) -> Result<(), SqlError> {
    let limit = field.metadata().get(PG_TYPMOD).and_then(|modifier| modifier.parse::<usize>().ok());
    let (Some(limit), Some(texts)) =
        (limit.and_then(|modifier| modifier.checked_sub(4)), column.as_string_opt::<i32>())
    else {
        return Ok(());
    };
    for text in texts.iter().flatten() {
        if text.len() > limit && text.chars().count() > limit {
            return Err(SqlError::new(
                SqlState::STRING_DATA_RIGHT_TRUNCATION,
                format!("value too long for column \"{}\" of {limit} characters", field.name()),
            ));
        }
    }
    Ok(())
}

/// Stores a stream's rows in a table of the transaction, as they come. Answers how many.
///
/// # Errors
/// 57014 when the statement is stopped, 23502 for a NULL where none may be, and what the query answers.
pub async fn store(
    transaction: &SessionTransaction,
    table: &str,
    schema: &SchemaRef,
    stream: SendableRecordBatchStream,
    control: &Control,
) -> Result<u64, SqlError> {
    let mut stream = controlled(stream, control.clone());
    let mut rows = 0;
    while let Some(batch) = stream.next().await {
        let batch = batch?;
        rows += batch.num_rows() as u64;
        let batch = conform(&batch, schema)?;
        transaction.change(|transaction| transaction.append(table, &batch))?;
    }
    Ok(rows)
}

/// All rows of a stream, for changes that are small or need them twice.
///
/// # Errors
/// 57014 when the statement is stopped, and what the query answers.
pub async fn collect(
    stream: SendableRecordBatchStream,
    control: &Control,
) -> Result<Vec<RecordBatch>, SqlError> {
    controlled(stream, control.clone()).try_collect().await
}

#[cfg(test)]
mod tests {
    use arrow::array::StringArray;
    use arrow::datatypes::Schema;

    use super::*;
    use crate::plan::types;

    #[test]
    fn odd_types_become_postgresql_ones() {
        assert_eq!(storable_type(&DataType::UInt64), Some(DataType::Int64));
        assert_eq!(storable_type(&DataType::Null), Some(DataType::Utf8));
        assert_eq!(storable_type(&types::vector(3)), Some(types::vector(3)));
        assert_eq!(storable_type(&DataType::Struct(Default::default())), None);
    }

    #[test]
    fn a_name_that_comes_twice_is_refused() {
        let schema = Schema::new(vec![
            Field::new("a", DataType::Int64, true),
            Field::new("a", DataType::Utf8, true),
        ]);
        assert_eq!(storable_schema(&schema).unwrap_err().code, SqlState::DUPLICATE_COLUMN);
    }

    #[test]
    fn varchar_counts_characters() {
        let field = Field::new("v", DataType::Utf8, true)
            .with_metadata([(PG_TYPMOD.to_string(), "6".to_string())].into_iter().collect());
        let schema = Arc::new(Schema::new(vec![field]));
        let batch = |text: &str| {
            let plain = Arc::new(Schema::new(vec![Field::new("v", DataType::Utf8, true)]));
            RecordBatch::try_new(plain, vec![Arc::new(StringArray::from(vec![text]))]).unwrap()
        };
        assert!(conform(&batch("가나"), &schema).is_ok());
        assert_eq!(
            conform(&batch("가나다"), &schema).unwrap_err().code,
            SqlState::STRING_DATA_RIGHT_TRUNCATION
        );
    }
}
