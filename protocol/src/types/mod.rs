//! PostgreSQL's types as Arrow's, and the text and binary forms of their values.
//!
//! | PostgreSQL | Arrow |
//! | --- | --- |
//! | bool, int2, int4, int8, float4, float8 | Boolean, Int16, Int32, Int64, Float32, Float64 |
//! | text | Utf8 (LargeUtf8 and Utf8View in results) |
//! | bytea | Binary (LargeBinary and BinaryView in results) |
//! | numeric | Decimal128 (Decimal256 in results) |
//! | date, time, timestamp, timestamptz | Date32, Time64(us), Timestamp(_, None), Timestamp(_, Some) |
//! | interval | Interval(MonthDayNano) |
//! | uuid | FixedSizeBinary(16) |
//! | vector(n) | FixedSizeList(Float32, n); n = 0 stands for a vector whose length is not known |
//! | arrays | List |
//!
//! Results may hold more: unsigned and 8-bit integers, Float16, durations, dictionaries, other list layouts, structs
//! (text, like a PostgreSQL row).
//!
//! A field's metadata may name another PostgreSQL type for the same bits ([`PG_TYPE_KEY`]), carry a type modifier
//! ([`PG_TYPMOD_KEY`]), and say which stored column a result's column is ([`Origin`]).

mod binary;
mod calendar;
mod catalog;
mod interval;
#[cfg(test)]
mod known_values;
mod origin;
mod parse;
mod style;
mod text;

use arrow::array::{Array, ArrayRef, new_null_array};
use arrow::datatypes::{DataType, Field};
use bytes::BytesMut;

pub use catalog::{
    array_type_oid, data_type, element_oid, oid_by_name, sql_type_name, type_length, type_modifier,
    type_name, type_oid,
};
pub use origin::Origin;
pub use parse::{MAX_VECTOR_DIMENSIONS, parse_text, parse_text_in, parse_vector};
pub use style::{ByteaOutput, DateOrder, DateStyle, IntervalStyle, TextStyle, TimeZone};

pub(crate) use binary::{write_sized, write_value as write_binary};
pub(crate) use catalog::{TypePlan, oid};
pub(crate) use parse::cast_to;
pub(crate) use text::write_value as write_text;

use crate::error::{SqlError, SqlState};

/// The metadata key that names another PostgreSQL type for a field's bits, such as `oid` or `varchar`.
pub const PG_TYPE_KEY: &str = "pg_type";
/// The metadata key of a field's type modifier, a decimal i32.
pub const PG_TYPMOD_KEY: &str = "pg_typmod";

/// The OID of the type `vector`.
pub const VECTOR_OID: u32 = 16385;
/// The OID of the type `vector[]`.
pub const VECTOR_ARRAY_OID: u32 = 16386;

/// The two ways in which values travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Text,
    Binary,
}

impl Format {
    /// The format of a code in Bind.
    pub(crate) fn from_code(code: i16) -> Result<Format, SqlError> {
        match code {
            0 => Ok(Format::Text),
            1 => Ok(Format::Binary),
            other => Err(SqlError::new(
                SqlState::INVALID_PARAMETER_VALUE,
                format!("unsupported format code: {other}"),
            )),
        }
    }

    pub(crate) fn code(self) -> i16 {
        match self {
            Format::Text => 0,
            Format::Binary => 1,
        }
    }
}

/// A point in time, or one of PostgreSQL's two ends of it. Arrow's largest and smallest values stand for these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    At(i64),
    Infinity,
    MinusInfinity,
}

/// PostgreSQL's text form of a value; `None` for NULL.
pub fn text_value(
    array: &dyn Array,
    row: usize,
    field: &Field,
    style: &TextStyle,
) -> Option<String> {
    let mut out = BytesMut::new();
    write_text(array, row, &TypePlan::of(field), style, &mut out)
        .then(|| String::from_utf8_lossy(&out).into_owned())
}

/// A parameter as it came in Bind: an array of length 1 of the described type.
pub(crate) fn read_parameter(
    value: Option<&[u8]>,
    format: Format,
    type_oid: u32,
    data_type: &DataType,
    zone: &TimeZone,
) -> Result<ArrayRef, SqlError> {
    match (value, format) {
        (None, _) => Ok(new_null_array(data_type, 1)),
        (Some(bytes), Format::Text) => {
            parse_text_in(crate::frontend::text(bytes)?, data_type, zone)
        }
        (Some(bytes), Format::Binary) => binary::read_value(bytes, type_oid, data_type),
    }
}

/// An array of length 1 from PostgreSQL's binary form of a value of a field's type, as COPY has it.
///
/// # Errors
///
/// 22P03 for bytes that are no such value, 22003 for one that Arrow's type has no room for, 22021 for text that is not
/// UTF-8, 22000 for a vector of another length, 54000 for one of more dimensions than a vector can have, 0A000 for a type whose binary form is
/// not known.
pub fn parse_binary(bytes: &[u8], field: &Field) -> Result<ArrayRef, SqlError> {
    binary::read_value(bytes, type_oid(field), field.data_type())
}

fn malformed(type_name: &str, text: &str) -> SqlError {
    SqlError::new(
        SqlState::INVALID_TEXT_REPRESENTATION,
        format!("invalid input syntax for type {type_name}: \"{text}\""),
    )
}
