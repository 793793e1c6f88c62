//! The binary forms of values: what PostgreSQL's send functions write and its receive functions read.
//!
//! Integers are big-endian; dates and times count from 2000-01-01; a numeric is a list of base-10000 digits; a vector is
//! pgvector's (a 16-bit length, 16 unused bits, float4s). What has no binary form of its own here is sent as its text,
//! which is what `text` does.

#![allow(clippy::wildcard_enum_match_arm)] // the enums are other libraries', with far more variants than matter here

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Date32Array, Decimal128Array,
    FixedSizeBinaryArray, Float32Array, Float64Array, Int16Array, Int32Array, Int64Array,
    IntervalMonthDayNanoArray, StringArray, Time64MicrosecondArray, TimestampMicrosecondArray,
    downcast_dictionary_array, new_null_array,
};
use arrow::datatypes::{
    DataType, Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type, Field, Float16Type,
    Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, IntervalMonthDayNano,
    UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use bytes::{Buf, BufMut, BytesMut};

use super::calendar::{DAYS_TO_2000, MICROS_TO_2000};
use super::catalog::{self, TypePlan, element_oid, oid};
use super::parse::{
    MAX_DIMENSIONS, cast_to, check_vector_element, check_vector_length, from_digits, list_array,
    vector_array,
};
use super::style::TextStyle;
use super::{Moment, VECTOR_OID, text};
use crate::error::{SqlError, SqlState};

/// Writes the binary form of a value; answers false, and writes nothing, for NULL.
///
/// # Errors
///
/// A value that the type's binary form has no room for.
pub(crate) fn write_value(
    array: &dyn Array,
    row: usize,
    plan: &TypePlan,
    style: &TextStyle,
    out: &mut BytesMut,
) -> Result<bool, SqlError> {
    if array.is_null(row) {
        return Ok(false);
    }
    match array.data_type() {
        DataType::Null => return Ok(false),
        DataType::Boolean => out.put_u8(u8::from(array.as_boolean().value(row))),
        DataType::Int8 => {
            let value = array.as_primitive::<Int8Type>().value(row);
            if plan.oid == oid::CHAR {
                out.put_i8(value);
            } else {
                write_integer(i128::from(value), plan.oid, out)?;
            }
        }
        DataType::Int16 => {
            write_integer(i128::from(array.as_primitive::<Int16Type>().value(row)), plan.oid, out)?
        }
        DataType::Int32 => {
            write_integer(i128::from(array.as_primitive::<Int32Type>().value(row)), plan.oid, out)?
        }
        DataType::Int64 => {
            write_integer(i128::from(array.as_primitive::<Int64Type>().value(row)), plan.oid, out)?
        }
        DataType::UInt8 => {
            write_integer(i128::from(array.as_primitive::<UInt8Type>().value(row)), plan.oid, out)?
        }
        DataType::UInt16 => {
            write_integer(i128::from(array.as_primitive::<UInt16Type>().value(row)), plan.oid, out)?
        }
        DataType::UInt32 => {
            write_integer(i128::from(array.as_primitive::<UInt32Type>().value(row)), plan.oid, out)?
        }
        DataType::UInt64 => {
            write_integer(i128::from(array.as_primitive::<UInt64Type>().value(row)), plan.oid, out)?
        }
        DataType::Float16 => out.put_f32(array.as_primitive::<Float16Type>().value(row).to_f32()),
        DataType::Float32 => out.put_f32(array.as_primitive::<Float32Type>().value(row)),
        DataType::Float64 => out.put_f64(array.as_primitive::<Float64Type>().value(row)),
        DataType::Decimal32(_, scale) => {
            write_decimal(
                &array.as_primitive::<Decimal32Type>().value(row).to_string(),
                *scale,
                plan.oid,
                out,
            )?;
        }
        DataType::Decimal64(_, scale) => {
            write_decimal(
                &array.as_primitive::<Decimal64Type>().value(row).to_string(),
                *scale,
                plan.oid,
                out,
            )?;
        }
        DataType::Decimal128(_, scale) => {
            write_decimal(
                &array.as_primitive::<Decimal128Type>().value(row).to_string(),
                *scale,
                plan.oid,
                out,
            )?;
        }
        DataType::Decimal256(_, scale) => {
            write_decimal(
                &array.as_primitive::<Decimal256Type>().value(row).to_string(),
                *scale,
                plan.oid,
                out,
            )?;
        }
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
            write_string(text::string(array, row), plan.oid, out)?;
        }
        DataType::Binary
        | DataType::LargeBinary
        | DataType::BinaryView
        | DataType::FixedSizeBinary(_) => out.put_slice(text::bytes(array, row)),
        DataType::Date32 | DataType::Date64 => out.put_i32(match text::date(array, row) {
            Moment::Infinity => i32::MAX,
            Moment::MinusInfinity => i32::MIN,
            Moment::At(days) => {
                i32::try_from(days - i64::from(DAYS_TO_2000)).map_err(|_| out_of_range("date"))?
            }
        }),
        DataType::Time32(_) | DataType::Time64(_) => out.put_i64(text::time(array, row)),
        DataType::Timestamp(..) => out.put_i64(match text::timestamp(array, row) {
            Moment::Infinity => i64::MAX,
            Moment::MinusInfinity => i64::MIN,
            Moment::At(micros) => {
                micros.checked_sub(MICROS_TO_2000).ok_or_else(|| out_of_range("timestamp"))?
            }
        }),
        DataType::Interval(_) | DataType::Duration(_) => {
            let interval = text::interval(array, row);
            out.put_i64(interval.micros);
            out.put_i32(interval.days);
            out.put_i32(interval.months);
        }
        DataType::FixedSizeList(..) if plan.oid == VECTOR_OID => {
            write_vector(array.as_fixed_size_list().value(row).as_ref(), out)?;
        }
        DataType::List(_)
        | DataType::LargeList(_)
        | DataType::ListView(_)
        | DataType::LargeListView(_)
        | DataType::FixedSizeList(..) => write_array(text::list(array, row), plan, style, out)?,
        DataType::Dictionary(..) => {
            downcast_dictionary_array!(
                array => {
                    return match array.key(row) {
                        Some(key) => write_value(array.values().as_ref(), key, plan, style, out),
                        None => Ok(false),
                    };
                }
                _ => unreachable!("a dictionary array has the type of one")
            );
        }
        DataType::Struct(_)
        | DataType::Map(..)
        | DataType::Union(..)
        | DataType::RunEndEncoded(..) => {
            return Ok(text::write_value(array, row, plan, style, out));
        }
    }
    Ok(true)
}

fn out_of_range(type_name: &str) -> SqlError {
    SqlError::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, format!("{type_name} out of range"))
}

/// An integer in the width of its PostgreSQL type.
fn write_integer(value: i128, type_oid: u32, out: &mut BytesMut) -> Result<(), SqlError> {
    match type_oid {
        oid::INT2 => out.put_i16(i16::try_from(value).map_err(|_| out_of_range("smallint"))?),
        oid::INT4 => out.put_i32(i32::try_from(value).map_err(|_| out_of_range("integer"))?),
        oid::OID
        | oid::XID
        | oid::CID
        | oid::REGPROC
        | oid::REGPROCEDURE
        | oid::REGOPER
        | oid::REGOPERATOR
        | oid::REGCLASS
        | oid::REGTYPE
        | oid::REGCONFIG
        | oid::REGDICTIONARY
        | oid::REGNAMESPACE
        | oid::REGROLE => {
            // A signed column may hold the same 32 bits as a negative number.
            let bits = u32::try_from(value)
                .or_else(|_| i32::try_from(value).map(|value| value as u32))
                .map_err(|_| out_of_range("oid"))?;
            out.put_u32(bits);
        }
        oid::CHAR => out.put_u8(u8::try_from(value).map_err(|_| out_of_range("\"char\""))?),
        oid::BOOL => out.put_u8(u8::from(value != 0)),
        oid::NUMERIC => write_numeric(&value.to_string(), 0, out)?,
        oid::TEXT | oid::VARCHAR | oid::BPCHAR | oid::NAME => {
            out.put_slice(value.to_string().as_bytes());
        }
        _ => out.put_i64(i64::try_from(value).map_err(|_| out_of_range("bigint"))?),
    }
    Ok(())
}

fn write_string(value: &str, type_oid: u32, out: &mut BytesMut) -> Result<(), SqlError> {
    match type_oid {
        oid::JSONB => {
            out.put_u8(1);
            out.put_slice(value.as_bytes());
        }
        oid::CHAR => out.put_u8(value.as_bytes().first().copied().unwrap_or(0)),
        // A column of text that stands for numbers: its binary form is the number's.
        oid::OID
        | oid::XID
        | oid::CID
        | oid::REGPROC
        | oid::REGPROCEDURE
        | oid::REGOPER
        | oid::REGOPERATOR
        | oid::REGCLASS
        | oid::REGTYPE
        | oid::REGCONFIG
        | oid::REGDICTIONARY
        | oid::REGNAMESPACE
        | oid::REGROLE => {
            let number: u32 = if value == "-" { Ok(0) } else { value.parse() }.map_err(|_| {
                SqlError::new(
                    SqlState::FEATURE_NOT_SUPPORTED,
                    format!("\"{value}\" has no binary form, because only its name is known"),
                )
                .with_hint("Ask for the column in text format, or cast it to text.")
            })?;
            out.put_u32(number);
        }
        _ => out.put_slice(value.as_bytes()),
    }
    Ok(())
}

fn write_decimal(
    unscaled: &str,
    scale: i8,
    type_oid: u32,
    out: &mut BytesMut,
) -> Result<(), SqlError> {
    if type_oid == oid::MONEY && scale == 2 {
        out.put_i64(unscaled.parse().map_err(|_| out_of_range("money"))?);
        return Ok(());
    }
    write_numeric(unscaled, scale, out)
}

/// PostgreSQL's numeric: how many base-10000 digits, the weight of the first, sign, digits after the point, the digits.
fn write_numeric(unscaled: &str, scale: i8, out: &mut BytesMut) -> Result<(), SqlError> {
    let (negative, digits) = match unscaled.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, unscaled),
    };
    let mut digits: Vec<u8> = digits.bytes().map(|digit| digit - b'0').collect();
    let fraction = usize::try_from(scale).unwrap_or(0);
    digits.extend(std::iter::repeat_n(0, usize::from(scale.min(0).unsigned_abs())));
    // Zeros on the left until the whole part, and on the right until the fraction, fill groups of four.
    let whole = digits.len().saturating_sub(fraction);
    let missing_before = fraction.saturating_sub(digits.len()) + (4 - whole % 4) % 4;
    let missing_after = (4 - fraction % 4) % 4;
    let mut aligned = vec![0; missing_before];
    aligned.append(&mut digits);
    aligned.extend(std::iter::repeat_n(0, missing_after));
    let groups: Vec<i16> = aligned
        .chunks(4)
        .map(|group| group.iter().fold(0, |value, digit| value * 10 + i16::from(*digit)))
        .collect();
    let weight = (aligned.len() - fraction - missing_after) as i64 / 4 - 1;
    let first = groups.iter().take_while(|group| **group == 0).count();
    let groups = &groups[first..];
    let last = groups.len() - groups.iter().rev().take_while(|group| **group == 0).count();
    let groups = &groups[..last];
    let weight = if groups.is_empty() { 0 } else { weight - first as i64 };
    out.put_i16(i16::try_from(groups.len()).map_err(|_| out_of_range("numeric"))?);
    out.put_i16(i16::try_from(weight).map_err(|_| out_of_range("numeric"))?);
    out.put_u16(if negative && !groups.is_empty() { 0x4000 } else { 0 });
    out.put_u16(fraction as u16);
    groups.iter().for_each(|group| out.put_i16(*group));
    Ok(())
}

fn write_vector(elements: &dyn Array, out: &mut BytesMut) -> Result<(), SqlError> {
    let values = elements.as_primitive::<Float32Type>();
    out.put_u16(u16::try_from(values.len()).map_err(|_| out_of_range("vector"))?);
    out.put_u16(0);
    out.reserve(values.len() * 4);
    for value in values {
        out.put_f32(value.unwrap_or(f32::NAN));
    }
    Ok(())
}

/// Dimensions, whether there are NULLs, the elements' type, each dimension's length and first index, the elements.
fn write_array(
    elements: ArrayRef,
    plan: &TypePlan,
    style: &TextStyle,
    out: &mut BytesMut,
) -> Result<(), SqlError> {
    let mut dimensions = Vec::new();
    let mut leaf = plan.element();
    let mut level = vec![elements];
    loop {
        let length = level.first().map_or(0, |array| array.len());
        if level.iter().any(|array| array.len() != length) {
            return Err(ragged());
        }
        dimensions.push(length);
        let nested =
            leaf.oid != VECTOR_OID && !leaf.inner.is_empty() && level.first().is_some_and(is_list);
        if !nested || length == 0 {
            break;
        }
        let mut next = Vec::new();
        for array in &level {
            for row in 0..array.len() {
                if array.is_null(row) {
                    return Err(ragged());
                }
                next.push(text::list(array.as_ref(), row));
            }
        }
        level = next;
        leaf = leaf.element();
    }
    while !leaf.inner.is_empty() && leaf.oid != VECTOR_OID && element_oid(leaf.oid).is_some() {
        leaf = leaf.element();
    }
    let empty = dimensions.contains(&0);
    // int2vector and oidvector count from 0.
    let first_index = i32::from(!matches!(plan.oid, oid::INT2VECTOR | oid::OIDVECTOR));
    if empty {
        dimensions.clear();
    }
    if dimensions.len() > MAX_DIMENSIONS {
        return Err(SqlError::new(
            SqlState::PROGRAM_LIMIT_EXCEEDED,
            format!("number of array dimensions exceeds the maximum of {MAX_DIMENSIONS}"),
        ));
    }
    let element_type = element_oid(plan.oid).unwrap_or(leaf.oid);
    out.put_i32(dimensions.len() as i32);
    out.put_i32(i32::from(level.iter().any(|array| array.logical_null_count() > 0)));
    out.put_u32(element_type);
    for length in &dimensions {
        out.put_i32(i32::try_from(*length).map_err(|_| out_of_range("array"))?);
        out.put_i32(first_index);
    }
    if empty {
        return Ok(());
    }
    for array in &level {
        for row in 0..array.len() {
            write_sized(out, |out| write_value(array.as_ref(), row, leaf, style, out))?;
        }
    }
    Ok(())
}

fn ragged() -> SqlError {
    SqlError::new(
        SqlState::ARRAY_SUBSCRIPT_ERROR,
        "multidimensional arrays must have sub-arrays with matching dimensions",
    )
}

fn is_list(array: &ArrayRef) -> bool {
    matches!(
        array.data_type(),
        DataType::List(_)
            | DataType::LargeList(_)
            | DataType::ListView(_)
            | DataType::LargeListView(_)
            | DataType::FixedSizeList(..)
    )
}

/// Writes a value after its length; -1 for NULL.
pub(crate) fn write_sized(
    out: &mut BytesMut,
    write: impl FnOnce(&mut BytesMut) -> Result<bool, SqlError>,
) -> Result<(), SqlError> {
    let start = out.len();
    out.put_i32(-1);
    if write(out)? {
        let length = i32::try_from(out.len() - start - 4).map_err(|_| {
            SqlError::new(SqlState::PROGRAM_LIMIT_EXCEEDED, "value is larger than 2 GB")
        })?;
        out[start..start + 4].copy_from_slice(&length.to_be_bytes());
    }
    Ok(())
}

/// An array of length 1 from the binary form of a value of this type.
///
/// # Errors
///
/// 22P03 for bytes that are no such value, 22003 for one that Arrow's type has no room for, 22021 for text that is not
/// UTF-8, 0A000 for a type whose binary form is not known.
pub(crate) fn read_value(
    bytes: &[u8],
    type_oid: u32,
    data_type: &DataType,
) -> Result<ArrayRef, SqlError> {
    let mut body = Reader { rest: bytes, type_oid };
    let array: ArrayRef = match type_oid {
        oid::BOOL => Arc::new(BooleanArray::from(vec![body.array::<1>()?[0] != 0])),
        oid::INT2 => Arc::new(Int16Array::from(vec![i16::from_be_bytes(body.array()?)])),
        oid::INT4 => Arc::new(Int32Array::from(vec![i32::from_be_bytes(body.array()?)])),
        oid::INT8 | oid::XID8 => {
            Arc::new(Int64Array::from(vec![i64::from_be_bytes(body.array()?)]))
        }
        oid::OID | oid::XID | oid::CID => {
            Arc::new(Int64Array::from(vec![i64::from(u32::from_be_bytes(body.array()?))]))
        }
        oid::REGPROC
        | oid::REGPROCEDURE
        | oid::REGOPER
        | oid::REGOPERATOR
        | oid::REGCLASS
        | oid::REGTYPE
        | oid::REGCONFIG
        | oid::REGDICTIONARY
        | oid::REGNAMESPACE
        | oid::REGROLE => {
            Arc::new(StringArray::from(vec![u32::from_be_bytes(body.array()?).to_string()]))
        }
        oid::FLOAT4 => Arc::new(Float32Array::from(vec![f32::from_be_bytes(body.array()?)])),
        oid::FLOAT8 => Arc::new(Float64Array::from(vec![f64::from_be_bytes(body.array()?)])),
        oid::MONEY => Arc::new(
            Decimal128Array::from(vec![i128::from(i64::from_be_bytes(body.array()?))])
                .with_precision_and_scale(19, 2)
                .map_err(|_| out_of_range("money"))?,
        ),
        oid::BYTEA => Arc::new(BinaryArray::from_vec(vec![body.all()])),
        oid::DATE => {
            let days = match i32::from_be_bytes(body.array()?) {
                infinite @ (i32::MAX | i32::MIN) => infinite,
                days => days.checked_add(DAYS_TO_2000).ok_or_else(|| out_of_range("date"))?,
            };
            Arc::new(Date32Array::from(vec![days]))
        }
        oid::TIME => {
            let micros = i64::from_be_bytes(body.array()?);
            if !(0..=super::calendar::MICROS_PER_DAY).contains(&micros) {
                return Err(SqlError::new(SqlState::DATETIME_FIELD_OVERFLOW, "time out of range"));
            }
            Arc::new(Time64MicrosecondArray::from(vec![micros]))
        }
        oid::TIMESTAMP | oid::TIMESTAMPTZ => {
            let micros = match i64::from_be_bytes(body.array()?) {
                infinite @ (i64::MAX | i64::MIN) => infinite,
                micros => {
                    micros.checked_add(MICROS_TO_2000).ok_or_else(|| out_of_range("timestamp"))?
                }
            };
            let zone = (type_oid == oid::TIMESTAMPTZ).then(|| "UTC".into());
            Arc::new(
                TimestampMicrosecondArray::from(vec![micros]).with_timezone_opt::<Arc<str>>(zone),
            )
        }
        oid::INTERVAL => {
            let micros = i64::from_be_bytes(body.array()?);
            let days = i32::from_be_bytes(body.array()?);
            let months = i32::from_be_bytes(body.array()?);
            let nanoseconds = micros.checked_mul(1000).ok_or_else(|| out_of_range("interval"))?;
            Arc::new(IntervalMonthDayNanoArray::from(vec![IntervalMonthDayNano {
                months,
                days,
                nanoseconds,
            }]))
        }
        oid::NUMERIC => return read_numeric(&mut body, data_type),
        oid::UUID => {
            let bytes: [u8; 16] = body.array()?;
            Arc::new(FixedSizeBinaryArray::new(16, bytes.to_vec().into(), None))
        }
        oid::JSONB => {
            if body.array::<1>()? != [1] {
                return Err(SqlError::new(
                    SqlState::INVALID_BINARY_REPRESENTATION,
                    "unsupported jsonb version number",
                ));
            }
            Arc::new(StringArray::from(vec![crate::frontend::text(body.all())?]))
        }
        VECTOR_OID => {
            let length = usize::from(u16::from_be_bytes(body.array()?));
            body.array::<2>()?;
            check_vector_length(length)?;
            let values = (0..length)
                .map(|_| check_vector_element(f32::from_be_bytes(body.array()?)))
                .collect::<Result<Vec<f32>, SqlError>>()?;
            body.end()?;
            return read_vector(&values, data_type);
        }
        other => {
            if let Some(element) = element_oid(other) {
                return read_array(&mut body, element, data_type);
            }
            if catalog::data_type(other) != Some(DataType::Utf8) {
                return Err(SqlError::new(
                    SqlState::FEATURE_NOT_SUPPORTED,
                    format!(
                        "parameters of type {} cannot be read in binary format",
                        catalog::type_name(other).unwrap_or("unknown")
                    ),
                ));
            }
            Arc::new(StringArray::from(vec![crate::frontend::text(body.all())?]))
        }
    };
    body.end()?;
    cast_to(array, data_type)
}

fn read_vector(values: &[f32], data_type: &DataType) -> Result<ArrayRef, SqlError> {
    match data_type {
        DataType::FixedSizeList(element, length) if *element.data_type() == DataType::Float32 => {
            vector_array(element, *length, values)
        }
        other => {
            let field = Arc::new(Field::new_list_field(DataType::Float32, true));
            cast_to(vector_array(&field, 0, values)?, other)
        }
    }
}

fn read_numeric(body: &mut Reader<'_>, data_type: &DataType) -> Result<ArrayRef, SqlError> {
    let count = usize::from(u16::from_be_bytes(body.array()?));
    let weight = i64::from(i16::from_be_bytes(body.array()?));
    let sign = u16::from_be_bytes(body.array()?);
    let digits_after_point = u16::from_be_bytes(body.array()?);
    if digits_after_point & !0x3fff != 0 {
        return Err(body.invalid());
    }
    let negative = match sign {
        0 => false,
        0x4000 => true,
        0xc000 | 0xd000 | 0xf000 => {
            return Err(SqlError::new(
                SqlState::FEATURE_NOT_SUPPORTED,
                "numeric cannot hold NaN or infinity here",
            ));
        }
        _ => return Err(body.invalid()),
    };
    let mut digits = Vec::with_capacity(count.min(1000) * 4);
    for _ in 0..count {
        let group = i16::from_be_bytes(body.array()?);
        if !(0..10_000).contains(&group) {
            return Err(body.invalid());
        }
        digits.extend(
            [group / 1000, group / 100 % 10, group / 10 % 10, group % 10].map(|digit| digit as u8),
        );
    }
    body.end()?;
    let (precision, scale) = match data_type {
        DataType::Decimal128(precision, scale) => (*precision, *scale),
        // Another type takes part: go through as many digits as there are.
        _ => (38, i8::try_from(digits_after_point.min(30)).unwrap_or(30)),
    };
    let overflow = || SqlError::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, "numeric field overflow");
    let value = from_digits(&digits, (weight + 1) * 4, scale)
        .and_then(arrow::datatypes::i256::to_i128)
        .ok_or_else(overflow)?;
    if value.unsigned_abs().to_string().len() > usize::from(precision) {
        return Err(overflow());
    }
    let array = Decimal128Array::from(vec![if negative { -value } else { value }])
        .with_precision_and_scale(precision, scale)
        .map_err(|_| overflow())?;
    cast_to(Arc::new(array), data_type)
}

fn read_array(
    body: &mut Reader<'_>,
    element: u32,
    data_type: &DataType,
) -> Result<ArrayRef, SqlError> {
    let dimensions = i32::from_be_bytes(body.array()?);
    body.array::<4>()?;
    let sent_element = u32::from_be_bytes(body.array()?);
    let dimensions = usize::try_from(dimensions)
        .ok()
        .filter(|count| *count <= MAX_DIMENSIONS)
        .ok_or_else(|| body.invalid())?;
    if sent_element != element && sent_element != oid::UNKNOWN {
        return Err(SqlError::new(
            SqlState::DATATYPE_MISMATCH,
            format!(
                "binary data has array element type {sent_element} instead of expected {element}"
            ),
        ));
    }
    let mut lengths = Vec::with_capacity(dimensions);
    for _ in 0..dimensions {
        let length = i32::from_be_bytes(body.array()?);
        body.array::<4>()?;
        lengths.push(usize::try_from(length).map_err(|_| body.invalid())?);
    }
    if lengths.is_empty() {
        lengths.push(0);
    }
    let leaf_type = catalog::data_type(element).ok_or_else(|| body.invalid())?;
    let array = read_dimension(body, &lengths, element, data_type, &leaf_type)?;
    body.end()?;
    cast_to(array, data_type)
}

/// One dimension's elements as a list of length 1.
fn read_dimension(
    body: &mut Reader<'_>,
    lengths: &[usize],
    element: u32,
    data_type: &DataType,
    leaf_type: &DataType,
) -> Result<ArrayRef, SqlError> {
    let Some((&length, inner_lengths)) = lengths.split_first() else {
        return Err(body.invalid());
    };
    let field = match data_type {
        DataType::List(field) => field.clone(),
        _ if inner_lengths.is_empty() => Arc::new(Field::new_list_field(leaf_type.clone(), true)),
        _ => return Err(body.invalid()),
    };
    // A claim, held against what is there: every element takes at least four bytes.
    if length > body.rest.len() / 4 {
        return Err(body.invalid());
    }
    let mut parts = Vec::with_capacity(length);
    for _ in 0..length {
        if !inner_lengths.is_empty() {
            parts.push(read_dimension(body, inner_lengths, element, field.data_type(), leaf_type)?);
            continue;
        }
        let size = i32::from_be_bytes(body.array()?);
        parts.push(if size == -1 {
            new_null_array(field.data_type(), 1)
        } else {
            let size = usize::try_from(size).map_err(|_| body.invalid())?;
            read_value(body.take(size)?, element, field.data_type())?
        });
    }
    list_array(&parts, &field)
}

/// Reads a binary value from its front.
struct Reader<'a> {
    rest: &'a [u8],
    type_oid: u32,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], SqlError> {
        if count > self.rest.len() {
            return Err(self.invalid());
        }
        let (taken, rest) = self.rest.split_at(count);
        self.rest = rest;
        Ok(taken)
    }

    fn array<const LENGTH: usize>(&mut self) -> Result<[u8; LENGTH], SqlError> {
        let mut array = [0; LENGTH];
        self.take(LENGTH)?.copy_to_slice(&mut array);
        Ok(array)
    }

    fn all(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    fn end(&self) -> Result<(), SqlError> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.invalid()) }
    }

    fn invalid(&self) -> SqlError {
        SqlError::new(
            SqlState::INVALID_BINARY_REPRESENTATION,
            format!(
                "incorrect binary data format for type {}",
                catalog::sql_type_name(self.type_oid).unwrap_or_else(|| self.type_oid.to_string())
            ),
        )
    }
}
