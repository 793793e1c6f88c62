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
//! A field's metadata may name another PostgreSQL type for the same bits ([`PG_TYPE_KEY`]) and carry a type modifier
//! ([`PG_TYPMOD_KEY`]).

mod style;

pub use style::{ByteaOutput, DateOrder, DateStyle, IntervalStyle, TextStyle, TimeZone};

use arrow::array::{Array, ArrayRef};
use arrow::datatypes::{DataType, Field};

use crate::error::SqlError;

/// The metadata key that names another PostgreSQL type for a field's bits, such as `oid` or `varchar`.
pub const PG_TYPE_KEY: &str = "pg_type";
/// The metadata key of a field's type modifier, a decimal i32.
pub const PG_TYPMOD_KEY: &str = "pg_typmod";

/// The OID of the type `vector`.
pub const VECTOR_OID: u32 = 16385;
/// The OID of the type `vector[]`.
pub const VECTOR_ARRAY_OID: u32 = 16386;

/// The OID of a field's PostgreSQL type.
pub fn type_oid(field: &Field) -> u32 {
    let _ = field;
    0
}
/// The type modifier of a field, -1 if it has none.
pub fn type_modifier(field: &Field) -> i32 {
    let _ = field;
    -1
}
/// The Arrow type that a PostgreSQL type is read as; `None` for one that this crate does not know.
pub fn data_type(oid: u32) -> Option<DataType> {
    let _ = oid;
    None
}
/// PostgreSQL's internal name (`int4`, `_text`) of a type.
pub fn type_name(oid: u32) -> Option<&'static str> {
    let _ = oid;
    None
}
/// PostgreSQL's text form of a value; `None` for NULL.
pub fn text_value(
    array: &dyn Array,
    row: usize,
    field: &Field,
    style: &TextStyle,
) -> Option<String> {
    let _ = (array, row, field, style);
    None
}
/// An array of length 1 from PostgreSQL's text form of a value.
///
/// # Errors
///
/// 22P02 (or 22003, 22007, 22008) where PostgreSQL says so.
pub fn parse_text(text: &str, data_type: &DataType) -> Result<ArrayRef, SqlError> {
    let _ = (text, data_type);
    Err(SqlError::new(crate::SqlState::INTERNAL_ERROR, "not yet"))
}
