//! What is known of a row group's columns without reading them: NULLs, least and greatest value.
//!
//! A planner uses them to leave row groups out, so they must hold for every live row; after deletions they may be wider
//! than need be. Least and greatest are kept for types with an order that everybody agrees on: numbers, times, text and
//! bytes of up to 64 bytes (bytewise order, which is text order in the C collation). A column with a NaN has none.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayData, ArrayRef, ArrowPrimitiveType, AsArray, BinaryArray, BooleanArray,
    PrimitiveArray, StringArray, make_array,
};
use arrow::buffer::Buffer;
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Date32Type, Date64Type, Decimal128Type, Float32Type, Float64Type, Int8Type,
    Int16Type, Int32Type, Int64Type, Time32MillisecondType, Time32SecondType,
    Time64MicrosecondType, Time64NanosecondType, TimeUnit, TimestampMicrosecondType,
    TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type,
    UInt32Type, UInt64Type,
};
use serde::{Deserialize, Serialize};

/// Text and bytes longer than this have no bounds kept.
const MAX_BOUND_BYTES: usize = 64;

/// What is known of one row group.
#[derive(Clone, Debug)]
pub struct GroupStatistics {
    /// Live rows.
    pub rows: u64,
    /// Whether NULL counts, minima and maxima are those of the live rows; otherwise (rows were deleted) NULL counts are
    /// upper bounds and every live value lies between minimum and maximum.
    pub exact: bool,
    /// One for each column of the table.
    pub columns: Vec<ColumnStatistics>,
}

/// What is known of one column of a row group.
#[derive(Clone, Debug)]
pub struct ColumnStatistics {
    /// NULLs; see [`GroupStatistics::exact`].
    pub null_count: u64,
    /// An array of length 1 and the column's type; `None` when unknown or when all values are NULL.
    pub min: Option<ArrayRef>,
    /// Likewise.
    pub max: Option<ArrayRef>,
}

/// A column's statistics as stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct ColumnRecord {
    pub(crate) nulls: u32,
    pub(crate) bounds: Option<(Bound, Bound)>,
}

/// A least or greatest value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Bound {
    Bool(bool),
    Signed(i64),
    Unsigned(u64),
    Float(f64),
    Decimal(i128),
    Text(String),
    Bytes(Vec<u8>),
}

impl ColumnRecord {
    /// Looks through a column.
    pub(crate) fn of(column: &ArrayRef) -> ColumnRecord {
        ColumnRecord {
            nulls: u32::try_from(column.logical_null_count()).unwrap_or(u32::MAX),
            bounds: bounds(column),
        }
    }

    /// Whether no value within the other's bounds can be in this column.
    pub(crate) fn excludes(&self, other: &ColumnRecord) -> bool {
        let (Some((min, max)), Some((least, greatest))) = (&self.bounds, &other.bounds) else {
            return false;
        };
        greatest.is_below(min) || max.is_below(least)
    }

    /// The statistics as arrays of the column's type.
    pub(crate) fn statistics(&self, data_type: &DataType) -> ColumnStatistics {
        let (min, max) = match &self.bounds {
            Some((min, max)) => (min.array(data_type), max.array(data_type)),
            None => (None, None),
        };
        ColumnStatistics { null_count: u64::from(self.nulls), min, max }
    }
}

impl Bound {
    /// Whether this is less than a bound of the same kind.
    fn is_below(&self, other: &Bound) -> bool {
        match (self, other) {
            (Bound::Bool(a), Bound::Bool(b)) => a < b,
            (Bound::Signed(a), Bound::Signed(b)) => a < b,
            (Bound::Unsigned(a), Bound::Unsigned(b)) => a < b,
            (Bound::Float(a), Bound::Float(b)) => a < b,
            (Bound::Decimal(a), Bound::Decimal(b)) => a < b,
            (Bound::Text(a), Bound::Text(b)) => a < b,
            (Bound::Bytes(a), Bound::Bytes(b)) => a < b,
            _ => false,
        }
    }

    fn array(&self, data_type: &DataType) -> Option<ArrayRef> {
        let array: ArrayRef = match self {
            Bound::Bool(value) => Arc::new(BooleanArray::from(vec![*value])),
            Bound::Signed(value) => return signed_array(*value, data_type),
            Bound::Unsigned(value) => Arc::new(PrimitiveArray::<UInt64Type>::from(vec![*value])),
            Bound::Float(value) => Arc::new(PrimitiveArray::<Float64Type>::from(vec![*value])),
            Bound::Decimal(value) => Arc::new(
                PrimitiveArray::<Decimal128Type>::from(vec![*value])
                    .with_data_type(data_type.clone()),
            ),
            Bound::Text(value) => Arc::new(StringArray::from(vec![value.as_str()])),
            Bound::Bytes(value) => Arc::new(BinaryArray::from(vec![value.as_slice()])),
        };
        cast(&array, data_type).ok()
    }
}

fn bounds(column: &ArrayRef) -> Option<(Bound, Bound)> {
    match column.data_type() {
        DataType::Boolean => {
            let column = column.as_boolean();
            let values = column.iter().flatten();
            values
                .fold(None, |found: Option<(bool, bool)>, value| {
                    Some(found.map_or((value, value), |(min, max)| (min & value, max | value)))
                })
                .map(|(min, max)| (Bound::Bool(min), Bound::Bool(max)))
        }
        DataType::Int8 => ordered::<Int8Type>(column, |value| Bound::Signed(i64::from(value))),
        DataType::Int16 => ordered::<Int16Type>(column, |value| Bound::Signed(i64::from(value))),
        DataType::Int32 => ordered::<Int32Type>(column, |value| Bound::Signed(i64::from(value))),
        DataType::Int64 => ordered::<Int64Type>(column, Bound::Signed),
        DataType::UInt8 => ordered::<UInt8Type>(column, |value| Bound::Unsigned(u64::from(value))),
        DataType::UInt16 => {
            ordered::<UInt16Type>(column, |value| Bound::Unsigned(u64::from(value)))
        }
        DataType::UInt32 => {
            ordered::<UInt32Type>(column, |value| Bound::Unsigned(u64::from(value)))
        }
        DataType::UInt64 => ordered::<UInt64Type>(column, Bound::Unsigned),
        DataType::Float32 => floats::<Float32Type>(column, f64::from),
        DataType::Float64 => floats::<Float64Type>(column, |value| value),
        DataType::Date32 => ordered::<Date32Type>(column, |value| Bound::Signed(i64::from(value))),
        DataType::Date64 => ordered::<Date64Type>(column, Bound::Signed),
        DataType::Time32(TimeUnit::Second) => {
            ordered::<Time32SecondType>(column, |value| Bound::Signed(i64::from(value)))
        }
        DataType::Time32(_) => {
            ordered::<Time32MillisecondType>(column, |value| Bound::Signed(i64::from(value)))
        }
        DataType::Time64(TimeUnit::Microsecond) => {
            ordered::<Time64MicrosecondType>(column, Bound::Signed)
        }
        DataType::Time64(_) => ordered::<Time64NanosecondType>(column, Bound::Signed),
        DataType::Timestamp(unit, _) => match unit {
            TimeUnit::Second => ordered::<TimestampSecondType>(column, Bound::Signed),
            TimeUnit::Millisecond => ordered::<TimestampMillisecondType>(column, Bound::Signed),
            TimeUnit::Microsecond => ordered::<TimestampMicrosecondType>(column, Bound::Signed),
            TimeUnit::Nanosecond => ordered::<TimestampNanosecondType>(column, Bound::Signed),
        },
        DataType::Decimal128(..) => ordered::<Decimal128Type>(column, Bound::Decimal),
        DataType::Utf8 => texts(column.as_string::<i32>().iter()),
        DataType::LargeUtf8 => texts(column.as_string::<i64>().iter()),
        DataType::Utf8View => texts(column.as_string_view().iter()),
        DataType::Binary => bytes(column.as_binary::<i32>().iter()),
        DataType::LargeBinary => bytes(column.as_binary::<i64>().iter()),
        DataType::BinaryView => bytes(column.as_binary_view().iter()),
        DataType::FixedSizeBinary(_) => bytes(column.as_fixed_size_binary().iter()),
        DataType::Null
        | DataType::Float16
        | DataType::Duration(_)
        | DataType::Interval(_)
        | DataType::List(_)
        | DataType::ListView(_)
        | DataType::FixedSizeList(..)
        | DataType::LargeList(_)
        | DataType::LargeListView(_)
        | DataType::Struct(_)
        | DataType::Union(..)
        | DataType::Dictionary(..)
        | DataType::Decimal32(..)
        | DataType::Decimal64(..)
        | DataType::Decimal256(..)
        | DataType::Map(..)
        | DataType::RunEndEncoded(..) => None,
    }
}

fn ordered<T>(column: &ArrayRef, bound: impl Fn(T::Native) -> Bound) -> Option<(Bound, Bound)>
where
    T: ArrowPrimitiveType,
    T::Native: PartialOrd,
{
    min_and_max(column.as_primitive::<T>().iter().flatten())
        .map(|(min, max)| (bound(min), bound(max)))
}

fn floats<T>(column: &ArrayRef, widen: impl Fn(T::Native) -> f64) -> Option<(Bound, Bound)>
where
    T: ArrowPrimitiveType,
{
    let column = column.as_primitive::<T>();
    if column.iter().flatten().any(|value| widen(value).is_nan()) {
        return None;
    }
    let (min, max) = min_and_max(column.iter().flatten().map(widen))?;
    Some((Bound::Float(min), Bound::Float(max)))
}

fn texts<'a>(values: impl Iterator<Item = Option<&'a str>>) -> Option<(Bound, Bound)> {
    let (min, max) = min_and_max(values.flatten())?;
    (min.len() <= MAX_BOUND_BYTES && max.len() <= MAX_BOUND_BYTES)
        .then(|| (Bound::Text(min.to_owned()), Bound::Text(max.to_owned())))
}

fn bytes<'a>(values: impl Iterator<Item = Option<&'a [u8]>>) -> Option<(Bound, Bound)> {
    let (min, max) = min_and_max(values.flatten())?;
    (min.len() <= MAX_BOUND_BYTES && max.len() <= MAX_BOUND_BYTES)
        .then(|| (Bound::Bytes(min.to_vec()), Bound::Bytes(max.to_vec())))
}

fn min_and_max<V: PartialOrd + Copy>(mut values: impl Iterator<Item = V>) -> Option<(V, V)> {
    let first = values.next()?;
    Some(values.fold((first, first), |(min, max), value| {
        (if value < min { value } else { min }, if value > max { value } else { max })
    }))
}

/// A number in the column's own type. The bits are the stored ones, so no unit or time zone is converted.
fn signed_array(value: i64, data_type: &DataType) -> Option<ArrayRef> {
    let bytes = value.to_le_bytes();
    let bytes = bytes.get(..data_type.primitive_width()?)?;
    let data = ArrayData::builder(data_type.clone()).len(1).add_buffer(Buffer::from(bytes)).build();
    data.ok().map(make_array)
}

#[cfg(test)]
mod tests {
    use arrow::array::{Float32Array, Int32Array, TimestampMicrosecondArray};

    use super::*;

    fn both(column: ArrayRef) -> (Option<ArrayRef>, Option<ArrayRef>) {
        let statistics = ColumnRecord::of(&column).statistics(column.data_type());
        (statistics.min, statistics.max)
    }

    #[test]
    fn bounds_have_the_type_of_the_column() {
        let times = TimestampMicrosecondArray::from(vec![Some(5), None, Some(-7)])
            .with_timezone("Asia/Seoul");
        let (min, max) = both(Arc::new(times.clone()));
        assert_eq!(min.unwrap().to_data(), times.slice(2, 1).to_data());
        assert_eq!(max.unwrap().to_data(), times.slice(0, 1).to_data());

        let decimals = PrimitiveArray::<Decimal128Type>::from(vec![150, -25])
            .with_precision_and_scale(10, 2)
            .unwrap();
        let (min, max) = both(Arc::new(decimals.clone()));
        assert_eq!(min.unwrap().to_data(), decimals.slice(1, 1).to_data());
        assert_eq!(max.unwrap().to_data(), decimals.slice(0, 1).to_data());

        let texts: ArrayRef = Arc::new(StringArray::from(vec!["나", "가", "다"]));
        let (min, max) = both(Arc::clone(&texts));
        assert_eq!(&min.unwrap(), &texts.slice(1, 1));
        assert_eq!(&max.unwrap(), &texts.slice(2, 1));
    }

    #[test]
    fn there_are_no_bounds_where_they_would_mislead() {
        assert!(both(Arc::new(Float32Array::from(vec![1.0, f32::NAN]))).0.is_none());
        assert!(both(Arc::new(StringArray::from(vec!["a".repeat(65)]))).1.is_none());
        let nulls: ArrayRef = Arc::new(Int32Array::from(vec![None, None]));
        assert!(both(Arc::clone(&nulls)).0.is_none());
        assert_eq!(ColumnRecord::of(&nulls).nulls, 2);
    }
}
