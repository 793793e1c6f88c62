//! The text forms of values, read: what PostgreSQL's input functions accept.
//!
//! One value becomes an array of length 1, because parameters arrive one at a time. Dates are read as ISO, as
//! `month/day/year`, and with names of months; relative ones (`yesterday`) are left to SQL.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Decimal256Array,
    FixedSizeBinaryArray, FixedSizeListArray, Float32Array, Float64Array, Int8Array, Int16Array,
    Int32Array, Int64Array, IntervalMonthDayNanoArray, ListArray, StringArray,
    Time64MicrosecondArray, TimestampMicrosecondArray, UInt8Array, UInt16Array, UInt32Array,
    UInt64Array, new_empty_array, new_null_array,
};
use arrow::buffer::OffsetBuffer;
use arrow::compute::{cast, concat};
use arrow::datatypes::{DataType, Field, IntervalMonthDayNano, IntervalUnit, TimeUnit, i256};

use super::calendar::{MICROS_PER_DAY, MICROS_PER_SECOND, days_from_civil, days_in_month};
use super::catalog::{data_type_oid, sql_type_name};
use super::interval::parse_interval;
use super::style::TimeZone;
use super::{Moment, malformed};
use crate::error::{SqlError, SqlState};

/// An array of length 1 from PostgreSQL's text form of a value. A timestamptz without an offset is read in UTC;
/// [`parse_text_in`] takes another time zone.
///
/// # Errors
///
/// 22P02 for text that is malformed, 22003 for numbers out of range, 22007 and 22008 for dates and times, 22000 for a
/// vector of another length, 0A000 for a type that has no input form here.
pub fn parse_text(text: &str, data_type: &DataType) -> Result<ArrayRef, SqlError> {
    parse_text_in(text, data_type, &TimeZone::utc())
}

/// [`parse_text`] where a timestamptz without an offset is local to a time zone.
///
/// # Errors
///
/// As [`parse_text`].
pub fn parse_text_in(
    text: &str,
    data_type: &DataType,
    zone: &TimeZone,
) -> Result<ArrayRef, SqlError> {
    let syntax = || malformed(&name_of(data_type), text);
    Ok(match data_type {
        DataType::Boolean => {
            Arc::new(BooleanArray::from(vec![parse_bool(text).ok_or_else(syntax)?]))
        }
        DataType::Int8 => Arc::new(Int8Array::from(vec![integer::<i8>(text, data_type)?])),
        DataType::Int16 => Arc::new(Int16Array::from(vec![integer::<i16>(text, data_type)?])),
        DataType::Int32 => Arc::new(Int32Array::from(vec![integer::<i32>(text, data_type)?])),
        DataType::Int64 => Arc::new(Int64Array::from(vec![integer::<i64>(text, data_type)?])),
        DataType::UInt8 => Arc::new(UInt8Array::from(vec![integer::<u8>(text, data_type)?])),
        DataType::UInt16 => Arc::new(UInt16Array::from(vec![integer::<u16>(text, data_type)?])),
        DataType::UInt32 => Arc::new(UInt32Array::from(vec![integer::<u32>(text, data_type)?])),
        DataType::UInt64 => Arc::new(UInt64Array::from(vec![integer::<u64>(text, data_type)?])),
        DataType::Float16 => {
            let value = Float32Array::from(vec![float4(text, data_type)?]);
            cast_to(Arc::new(value), data_type)?
        }
        DataType::Float32 => Arc::new(Float32Array::from(vec![float4(text, data_type)?])),
        DataType::Float64 => Arc::new(Float64Array::from(vec![float8(text, data_type)?])),
        DataType::Decimal128(precision, scale) => {
            let value = decimal(text, *precision, *scale)?;
            let value = value.to_i128().ok_or_else(|| overflow(*precision, *scale))?;
            Arc::new(
                Decimal128Array::from(vec![value])
                    .with_precision_and_scale(*precision, *scale)
                    .map_err(|_| overflow(*precision, *scale))?,
            )
        }
        DataType::Decimal256(precision, scale) => Arc::new(
            Decimal256Array::from(vec![decimal(text, *precision, *scale)?])
                .with_precision_and_scale(*precision, *scale)
                .map_err(|_| overflow(*precision, *scale))?,
        ),
        DataType::Utf8 => Arc::new(StringArray::from(vec![text])),
        DataType::LargeUtf8 | DataType::Utf8View | DataType::Dictionary(..) => {
            cast_to(Arc::new(StringArray::from(vec![text])), data_type)?
        }
        DataType::Binary => Arc::new(BinaryArray::from_vec(vec![&parse_bytea(text)?])),
        DataType::LargeBinary | DataType::BinaryView => {
            cast_to(Arc::new(BinaryArray::from_vec(vec![&parse_bytea(text)?])), data_type)?
        }
        DataType::FixedSizeBinary(16) => {
            let bytes = parse_uuid(text).ok_or_else(syntax)?;
            Arc::new(FixedSizeBinaryArray::new(16, bytes.to_vec().into(), None))
        }
        DataType::FixedSizeBinary(_) => {
            cast_to(Arc::new(BinaryArray::from_vec(vec![&parse_bytea(text)?])), data_type)?
        }
        DataType::Date32 => Arc::new(Date32Array::from(vec![parse_date(text, zone)?])),
        DataType::Date64 => {
            cast_to(Arc::new(Date32Array::from(vec![parse_date(text, zone)?])), data_type)?
        }
        DataType::Time32(_) | DataType::Time64(_) => {
            let (micros, rest) =
                parse_time(text.trim()).ok_or_else(|| bad_datetime("time", text))?;
            if !rest.trim().is_empty() && parse_offset(rest.trim(), zone).is_none() {
                return Err(bad_datetime("time", text));
            }
            cast_to(Arc::new(Time64MicrosecondArray::from(vec![micros])), data_type)?
        }
        DataType::Timestamp(unit, with_zone) => {
            let micros = parse_timestamp(text, with_zone.is_some(), zone)?;
            let array =
                TimestampMicrosecondArray::from(vec![micros]).with_timezone_opt(with_zone.clone());
            match unit {
                TimeUnit::Microsecond => Arc::new(array),
                TimeUnit::Second | TimeUnit::Millisecond | TimeUnit::Nanosecond => {
                    cast_to(Arc::new(array), data_type)?
                }
            }
        }
        DataType::Interval(IntervalUnit::MonthDayNano) => {
            let interval = parse_interval(text).ok_or_else(|| bad_datetime("interval", text))?;
            let nanoseconds = interval
                .micros
                .checked_mul(1000)
                .ok_or_else(|| out_of_range_datetime("interval", text))?;
            Arc::new(IntervalMonthDayNanoArray::from(vec![IntervalMonthDayNano {
                months: interval.months,
                days: interval.days,
                nanoseconds,
            }]))
        }
        DataType::FixedSizeList(element, length) if *element.data_type() == DataType::Float32 => {
            vector_array(element, *length, &parse_vector(text)?)?
        }
        DataType::List(element) => parse_array(text, element, zone)?,
        DataType::Null
        | DataType::Duration(_)
        | DataType::Interval(_)
        | DataType::FixedSizeList(..)
        | DataType::LargeList(_)
        | DataType::ListView(_)
        | DataType::LargeListView(_)
        | DataType::Decimal32(..)
        | DataType::Decimal64(..)
        | DataType::Struct(_)
        | DataType::Union(..)
        | DataType::Map(..)
        | DataType::RunEndEncoded(..) => {
            return Err(SqlError::new(
                SqlState::FEATURE_NOT_SUPPORTED,
                format!("values of type {data_type} cannot be read"),
            ));
        }
    })
}

/// A value in another of Arrow's layouts or units.
pub(crate) fn cast_to(array: ArrayRef, data_type: &DataType) -> Result<ArrayRef, SqlError> {
    if array.data_type() == data_type {
        return Ok(array);
    }
    let options =
        arrow::compute::CastOptions { safe: false, ..arrow::compute::CastOptions::default() };
    arrow::compute::cast_with_options(&array, data_type, &options).map_err(|error| {
        SqlError::new(
            SqlState::NUMERIC_VALUE_OUT_OF_RANGE,
            format!("value out of range for type {}", name_of(data_type)),
        )
        .with_detail(error.to_string())
    })
}

/// A type's name as PostgreSQL's messages have it.
pub(crate) fn name_of(data_type: &DataType) -> String {
    sql_type_name(data_type_oid(data_type)).unwrap_or_else(|| data_type.to_string())
}

fn parse_bool(text: &str) -> Option<bool> {
    let text = text.trim().to_ascii_lowercase();
    let prefix_of = |word: &str, least: usize| text.len() >= least && word.starts_with(&text);
    if text == "1" || prefix_of("true", 1) || prefix_of("yes", 1) || prefix_of("on", 2) {
        Some(true)
    } else if text == "0" || prefix_of("false", 1) || prefix_of("no", 1) || prefix_of("off", 2) {
        Some(false)
    } else {
        None
    }
}

/// An integer: decimal, or hexadecimal, octal or binary with a prefix, underscores between digits.
fn integer<T: TryFrom<i128>>(text: &str, data_type: &DataType) -> Result<T, SqlError> {
    let syntax = || malformed(&name_of(data_type), text);
    let range = || {
        SqlError::new(
            SqlState::NUMERIC_VALUE_OUT_OF_RANGE,
            format!("value \"{text}\" is out of range for type {}", name_of(data_type)),
        )
    };
    let trimmed = text.trim();
    let (negative, digits) = match trimmed.as_bytes().first() {
        Some(b'-') => (true, &trimmed[1..]),
        Some(b'+') => (false, &trimmed[1..]),
        _ => (false, trimmed),
    };
    let lower = digits.to_ascii_lowercase();
    let (radix, digits) = if let Some(digits) = lower.strip_prefix("0x") {
        (16, digits.strip_prefix('_').unwrap_or(digits))
    } else if let Some(digits) = lower.strip_prefix("0o") {
        (8, digits.strip_prefix('_').unwrap_or(digits))
    } else if let Some(digits) = lower.strip_prefix("0b") {
        (2, digits.strip_prefix('_').unwrap_or(digits))
    } else {
        (10, lower.as_str())
    };
    let bytes = digits.as_bytes();
    let well_formed = !bytes.is_empty()
        && bytes.first() != Some(&b'_')
        && bytes.last() != Some(&b'_')
        && !digits.contains("__")
        && digits.chars().all(|character| character == '_' || character.is_digit(radix));
    if !well_formed {
        return Err(syntax());
    }
    let digits: String = digits.chars().filter(|character| *character != '_').collect();
    let value = i128::from_str_radix(&digits, radix).map_err(|_| range())?;
    T::try_from(if negative { -value } else { value }).map_err(|_| range())
}

fn float8(text: &str, data_type: &DataType) -> Result<f64, SqlError> {
    let trimmed = float_syntax(text, data_type)?;
    let value: f64 = trimmed.parse().map_err(|_| malformed(&name_of(data_type), text))?;
    check_float(value, text, data_type)
}

/// Read as a float4 at once: a detour over float8 would round twice.
fn float4(text: &str, data_type: &DataType) -> Result<f32, SqlError> {
    let trimmed = float_syntax(text, data_type)?;
    let value: f32 = trimmed.parse().map_err(|_| malformed(&name_of(data_type), text))?;
    check_float(f64::from(value), text, data_type)?;
    Ok(value)
}

fn float_syntax<'a>(text: &'a str, data_type: &DataType) -> Result<&'a str, SqlError> {
    let trimmed = text.trim();
    if trimmed.is_empty() {
        return Err(malformed(&name_of(data_type), text));
    }
    Ok(trimmed)
}

/// A number that became infinite, or zero without being one, is out of range.
fn check_float(value: f64, text: &str, data_type: &DataType) -> Result<f64, SqlError> {
    let has_digit = |range: std::ops::RangeInclusive<u8>| {
        let mantissa = text.split(['e', 'E']).next().unwrap_or_default();
        mantissa.bytes().any(|byte| range.contains(&byte))
    };
    if (value.is_infinite() && has_digit(b'0'..=b'9')) || (value == 0.0 && has_digit(b'1'..=b'9')) {
        return Err(SqlError::new(
            SqlState::NUMERIC_VALUE_OUT_OF_RANGE,
            format!("\"{}\" is out of range for type {}", text.trim(), name_of(data_type)),
        ));
    }
    Ok(value)
}

fn overflow(precision: u8, scale: i8) -> SqlError {
    SqlError::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, "numeric field overflow").with_detail(format!(
        "a field with precision {precision}, scale {scale} must round to an absolute value less than 10^{}",
        i16::from(precision) - i16::from(scale)
    ))
}

/// A numeric's unscaled value, rounded half away from zero.
fn decimal(text: &str, precision: u8, scale: i8) -> Result<i256, SqlError> {
    let syntax = || malformed("numeric", text);
    let trimmed = text.trim();
    let (negative, unsigned) = match trimmed.as_bytes().first() {
        Some(b'-') => (true, &trimmed[1..]),
        Some(b'+') => (false, &trimmed[1..]),
        _ => (false, trimmed),
    };
    if ["nan", "infinity", "inf"].contains(&unsigned.to_ascii_lowercase().as_str()) {
        return Err(SqlError::new(
            SqlState::FEATURE_NOT_SUPPORTED,
            format!("numeric cannot hold {trimmed} here"),
        ));
    }
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().map_err(|_| syntax())?),
        None => (unsigned, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits: Vec<u8> = whole.bytes().chain(fraction.bytes()).collect();
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(syntax());
    }
    let digits: Vec<u8> = digits.iter().map(|digit| digit - b'0').collect();
    // Where the point is, counted in digits from the left, and how many digits are kept.
    let point = i64::try_from(whole.len()).unwrap_or(i64::MAX).saturating_add(i64::from(exponent));
    let value = from_digits(&digits, point, scale).ok_or_else(|| overflow(precision, scale))?;
    if value.to_string().len() > usize::from(precision) && value != i256::ZERO {
        return Err(overflow(precision, scale));
    }
    Ok(if negative { value.wrapping_neg() } else { value })
}

/// The number whose digits are these, with its point after `point` of them, times ten to the `scale`, rounded half up.
pub(crate) fn from_digits(digits: &[u8], point: i64, scale: i8) -> Option<i256> {
    let kept = point + i64::from(scale);
    let ten = i256::from_i128(10);
    let mut value = i256::ZERO;
    let leading_zeros = digits.iter().take_while(|digit| **digit == 0).count();
    if leading_zeros == digits.len() {
        return Some(value);
    }
    for index in 0..kept.max(0) {
        let digit = usize::try_from(index).ok().and_then(|index| digits.get(index)).copied();
        value =
            value.checked_mul(ten)?.checked_add(i256::from_i128(i128::from(digit.unwrap_or(0))))?;
    }
    let next = usize::try_from(kept).ok().and_then(|kept| digits.get(kept));
    if next.is_some_and(|digit| *digit >= 5) {
        value = value.checked_add(i256::ONE)?;
    }
    Some(value)
}

/// `\x` and hexadecimal digits, or PostgreSQL's old form with octal escapes.
pub(crate) fn parse_bytea(text: &str) -> Result<Vec<u8>, SqlError> {
    let Some(hex) = text.strip_prefix("\\x") else {
        return parse_escaped_bytea(text);
    };
    let mut bytes = Vec::with_capacity(hex.len() / 2);
    let mut digits = hex.chars();
    while let Some(first) = digits.next() {
        if first.is_ascii_whitespace() {
            continue;
        }
        let invalid = |digit: char| {
            SqlError::new(
                SqlState::INVALID_PARAMETER_VALUE,
                format!("invalid hexadecimal digit: \"{digit}\""),
            )
        };
        let high = first.to_digit(16).ok_or_else(|| invalid(first))?;
        let Some(second) = digits.next() else {
            return Err(SqlError::new(
                SqlState::INVALID_PARAMETER_VALUE,
                "invalid hexadecimal data: odd number of digits",
            ));
        };
        let low = second.to_digit(16).ok_or_else(|| invalid(second))?;
        bytes.push((high * 16 + low) as u8);
    }
    Ok(bytes)
}

fn parse_escaped_bytea(text: &str) -> Result<Vec<u8>, SqlError> {
    let mut rest = text.as_bytes();
    let mut bytes = Vec::with_capacity(rest.len());
    while let Some((&byte, after)) = rest.split_first() {
        if byte != b'\\' {
            bytes.push(byte);
            rest = after;
            continue;
        }
        match after {
            [b'\\', after @ ..] => {
                bytes.push(b'\\');
                rest = after;
            }
            [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..] => {
                bytes.push((a - b'0') * 64 + (b - b'0') * 8 + (c - b'0'));
                rest = after;
            }
            _ => return Err(malformed("bytea", text)),
        }
    }
    Ok(bytes)
}

fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    let text = text.trim();
    let inner = match text.strip_prefix('{') {
        Some(inner) => inner.strip_suffix('}')?,
        None => text,
    };
    let mut bytes = [0; 16];
    let mut digits = 0;
    let mut after_dash = true;
    for character in inner.chars() {
        if character == '-' {
            // PostgreSQL allows a dash after every group of four digits.
            if after_dash || digits % 4 != 0 {
                return None;
            }
            after_dash = true;
            continue;
        }
        let digit = character.to_digit(16)? as u8;
        *bytes.get_mut(digits / 2)? |= if digits % 2 == 0 { digit << 4 } else { digit };
        digits += 1;
        after_dash = false;
    }
    (digits == 32 && !after_dash).then_some(bytes)
}

fn bad_datetime(type_name: &str, text: &str) -> SqlError {
    SqlError::new(
        SqlState::INVALID_DATETIME_FORMAT,
        format!("invalid input syntax for type {type_name}: \"{text}\""),
    )
}

fn out_of_range_datetime(type_name: &str, text: &str) -> SqlError {
    SqlError::new(
        SqlState::DATETIME_FIELD_OVERFLOW,
        format!("{type_name} out of range: \"{text}\""),
    )
}

/// `infinity`, `-infinity` and `epoch`.
fn special_moment(text: &str) -> Option<Moment> {
    match text.to_ascii_lowercase().as_str() {
        "infinity" | "+infinity" => Some(Moment::Infinity),
        "-infinity" => Some(Moment::MinusInfinity),
        "epoch" => Some(Moment::At(0)),
        _ => None,
    }
}

fn parse_date(text: &str, zone: &TimeZone) -> Result<i32, SqlError> {
    let trimmed = text.trim();
    match special_moment(trimmed) {
        Some(Moment::Infinity) => return Ok(i32::MAX),
        Some(Moment::MinusInfinity) => return Ok(i32::MIN),
        Some(Moment::At(_)) => return Ok(0),
        None => {}
    }
    let (trimmed, before_christ) = era(trimmed);
    let (date, rest) = parse_day(trimmed).ok_or_else(|| bad_datetime("date", text))?;
    // A time and a zone after the date are read and left out, as PostgreSQL does. pgjdbc sends `2026-01-02 +00`.
    let (_, rest) = time_after_date(rest).ok_or_else(|| bad_datetime("date", text))?;
    if !rest.is_empty() && parse_offset(rest, zone).is_none() {
        return Err(bad_datetime("date", text));
    }
    let days = date.days(before_christ).ok_or_else(|| field_out_of_range(text))?;
    i32::try_from(days)
        .ok()
        .filter(|days| !matches!(*days, i32::MAX | i32::MIN))
        .ok_or_else(|| out_of_range_datetime("date", text))
}

fn field_out_of_range(text: &str) -> SqlError {
    SqlError::new(
        SqlState::DATETIME_FIELD_OVERFLOW,
        format!("date/time field value out of range: \"{text}\""),
    )
}

/// Takes a trailing `BC` or `AD` away.
fn era(text: &str) -> (&str, bool) {
    let split = text.len().saturating_sub(2);
    match (text.get(..split), text.get(split..)) {
        (Some(rest), Some(last)) if last.eq_ignore_ascii_case("bc") => (rest.trim_end(), true),
        (Some(rest), Some(last)) if last.eq_ignore_ascii_case("ad") => (rest.trim_end(), false),
        _ => (text, false),
    }
}

/// A timestamp in microseconds after 1970-01-01; a timestamptz in UTC.
fn parse_timestamp(text: &str, with_zone: bool, zone: &TimeZone) -> Result<i64, SqlError> {
    let type_name = if with_zone { "timestamp with time zone" } else { "timestamp" };
    let syntax = || bad_datetime(type_name, text);
    let trimmed = text.trim();
    match special_moment(trimmed) {
        Some(Moment::Infinity) => return Ok(i64::MAX),
        Some(Moment::MinusInfinity) => return Ok(i64::MIN),
        Some(Moment::At(_)) => return Ok(0),
        None => {}
    }
    let (trimmed, before_christ) = era(trimmed);
    let (date, rest) = parse_day(trimmed).ok_or_else(syntax)?;
    let days = date.days(before_christ).ok_or_else(|| field_out_of_range(text))?;
    let (time, rest) = time_after_date(rest).ok_or_else(syntax)?;
    let local = days
        .checked_mul(MICROS_PER_DAY)
        .and_then(|micros| micros.checked_add(time))
        .ok_or_else(|| out_of_range_datetime(type_name, text))?;
    if rest.is_empty() {
        return if with_zone {
            local_to_utc(local, zone).ok_or_else(|| out_of_range_datetime(type_name, text))
        } else {
            Ok(local)
        };
    }
    let utc = match parse_offset(rest, zone).ok_or_else(syntax)? {
        Offset::Seconds(seconds) => local - seconds * MICROS_PER_SECOND,
        Offset::Zone(zone) => {
            local_to_utc(local, &zone).ok_or_else(|| out_of_range_datetime(type_name, text))?
        }
    };
    // PostgreSQL reads an offset after a timestamp without time zone and takes no notice of it.
    Ok(if with_zone { utc } else { local })
}

fn local_to_utc(micros: i64, zone: &TimeZone) -> Option<i64> {
    if zone.is_utc() {
        return Some(micros);
    }
    let local = chrono::DateTime::from_timestamp_micros(micros)?.naive_utc();
    Some(zone.to_utc(local)?.and_utc().timestamp_micros())
}

enum Offset {
    Seconds(i64),
    Zone(TimeZone),
}

/// `Z`, `+09`, `+0930`, `+09:30`, `-00:44:30`, or a zone's name.
fn parse_offset(text: &str, local: &TimeZone) -> Option<Offset> {
    let sign = match text.as_bytes().first()? {
        b'+' => 1,
        b'-' => -1,
        _ if text.eq_ignore_ascii_case("z") => return Some(Offset::Seconds(0)),
        _ if text.eq_ignore_ascii_case("local") => return Some(Offset::Zone(local.clone())),
        _ => return TimeZone::parse(text).map(Offset::Zone),
    };
    let digits = &text[1..];
    let parts: Vec<&str> = if digits.contains(':') {
        digits.split(':').collect()
    } else {
        match digits.len() {
            1 | 2 => vec![digits],
            3 => vec![&digits[..1], digits.get(1..)?],
            4 => vec![digits.get(..2)?, digits.get(2..)?],
            _ => return None,
        }
    };
    let mut seconds = 0;
    for (part, (unit, limit)) in parts.iter().zip([(3600, 16), (60, 60), (1, 60)]) {
        let value: i64 =
            part.parse().ok().filter(|_| part.bytes().all(|byte| byte.is_ascii_digit()))?;
        if value >= limit {
            return None;
        }
        seconds += value * unit;
    }
    (parts.len() <= 3).then_some(Offset::Seconds(sign * seconds))
}

/// A date as it was written; whether it exists is another question.
struct Day {
    year: i64,
    month: u32,
    day: u32,
}

impl Day {
    /// Days after 1970-01-01, if there is such a day.
    fn days(&self, before_christ: bool) -> Option<i64> {
        if self.year == 0 {
            return None;
        }
        let year = if before_christ { 1 - self.year } else { self.year };
        let exists = (1..=12).contains(&self.month)
            && (1..=days_in_month(year, self.month)).contains(&self.day)
            // PostgreSQL's dates end with the year 5874897.
            && year <= 5_874_897;
        exists.then(|| days_from_civil(year, self.month, self.day))
    }
}

/// The date at the start of a text, and what follows it.
fn parse_day(text: &str) -> Option<(Day, &str)> {
    let end = text
        .find(|character: char| character.is_whitespace() || matches!(character, 'T' | 't'))
        .filter(|end| text.as_bytes().first().is_some_and(u8::is_ascii_digit) && *end > 0);
    let (word, rest) = text.split_at(end.unwrap_or(text.len()));
    if let Some(day) = numeric_day(word) {
        return Some((day, rest));
    }
    named_day(text)
}

/// `2024-02-29`, `20240229`, `2024/02/29`, `02/29/2024`, `29.02.2024`.
fn numeric_day(word: &str) -> Option<Day> {
    let number = |text: &str| -> Option<i64> {
        (!text.is_empty() && text.len() <= 8 && text.bytes().all(|byte| byte.is_ascii_digit()))
            .then(|| text.parse().ok())
            .flatten()
    };
    let day = |year: &str, month: &str, day: &str| {
        Some(Day {
            year: number(year)?,
            month: number(month)?.try_into().ok()?,
            day: number(day)?.try_into().ok()?,
        })
    };
    if word.len() == 8 && number(word).is_some() {
        return day(&word[..4], &word[4..6], &word[6..]);
    }
    let separator = word.chars().find(|character| !character.is_ascii_digit())?;
    let parts: Vec<&str> = word.split(separator).collect();
    let [first, second, third] = parts.as_slice() else {
        return None;
    };
    match separator {
        '-' | '/' | '.' if first.len() > 2 => day(first, second, third),
        '/' | '-' => day(third, first, second),
        '.' => day(third, second, first),
        _ => None,
    }
}

/// `Jan 8, 1999`, `January 8 1999`, `8 Jan 1999`, `1999-Jan-08`.
fn named_day(text: &str) -> Option<(Day, &str)> {
    let mut rest = text;
    let mut words = Vec::new();
    while words.len() < 3 {
        rest = rest.trim_start_matches([' ', ',', '-', '/']);
        let letters = rest.starts_with(|character: char| character.is_ascii_alphabetic());
        let end = rest
            .find(|character: char| {
                if letters { !character.is_ascii_alphabetic() } else { !character.is_ascii_digit() }
            })
            .unwrap_or(rest.len());
        if end == 0 {
            return None;
        }
        let (word, after) = rest.split_at(end);
        rest = after;
        words.push(word);
    }
    let place = words.iter().position(|word| month_by_name(word).is_some())?;
    let month = month_by_name(words[place])?;
    let numbers: Vec<&str> = words
        .iter()
        .enumerate()
        .filter(|(index, _)| *index != place)
        .map(|(_, word)| *word)
        .collect();
    let (year, day) =
        if numbers[0].len() > 2 { (numbers[0], numbers[1]) } else { (numbers[1], numbers[0]) };
    Some((Day { year: year.parse().ok()?, month, day: day.parse().ok()? }, rest))
}

fn month_by_name(word: &str) -> Option<u32> {
    const NAMES: [&str; 12] = [
        "january",
        "february",
        "march",
        "april",
        "may",
        "june",
        "july",
        "august",
        "september",
        "october",
        "november",
        "december",
    ];
    let word = word.to_ascii_lowercase();
    NAMES
        .iter()
        .position(|name| {
            word.len() >= 3
                && name.starts_with(&word)
                && (word.len() == 3 || word.len() == name.len())
        })
        .map(|index| index as u32 + 1)
}

/// The time of day that stands after a date in microseconds, 0 without one, and what follows it: a zone, if anything.
fn time_after_date(text: &str) -> Option<(i64, &str)> {
    let text = text.trim_start();
    let text = text.strip_prefix(['T', 't']).unwrap_or(text).trim_start();
    let (time, rest) = if text.starts_with(|character: char| character.is_ascii_digit()) {
        parse_time(text)?
    } else {
        (0, text)
    };
    Some((time, rest.trim()))
}

/// The time of day at the start of a text in microseconds, and what follows it.
fn parse_time(text: &str) -> Option<(i64, &str)> {
    let end = text
        .find(|character: char| !(character.is_ascii_digit() || matches!(character, ':' | '.')))
        .unwrap_or(text.len());
    let (clock, mut rest) = text.split_at(end);
    let (whole, fraction) = clock.split_once('.').unwrap_or((clock, ""));
    let parts: Vec<&str> = if whole.contains(':') {
        whole.split(':').collect()
    } else {
        match whole.len() {
            4 => vec![&whole[..2], &whole[2..]],
            6 => vec![&whole[..2], &whole[2..4], &whole[4..]],
            _ => return None,
        }
    };
    let mut fields = [0_i64; 3];
    if !(2..=3).contains(&parts.len()) {
        return None;
    }
    for (field, part) in fields.iter_mut().zip(&parts) {
        *field = part.parse().ok().filter(|_| part.len() <= 2)?;
    }
    let [mut hour, minute, second] = fields;
    let after = rest.trim_start();
    for (suffix, afternoon) in [("am", false), ("pm", true)] {
        let word = after.get(..2).is_some_and(|word| word.eq_ignore_ascii_case(suffix));
        if word && !after[2..].starts_with(|next: char| next.is_alphabetic()) {
            if !(1..=12).contains(&hour) {
                return None;
            }
            hour = hour % 12 + if afternoon { 12 } else { 0 };
            rest = &after[2..];
        }
    }
    if fraction.len() > 6 && !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let micros = if fraction.is_empty() {
        0
    } else {
        let seconds: f64 = format!("0.{fraction}").parse().ok()?;
        (seconds * MICROS_PER_SECOND as f64).round() as i64
    };
    let total = ((hour * 60 + minute) * 60 + second) * MICROS_PER_SECOND + micros;
    let sane = minute < 60 && second <= 60 && total <= MICROS_PER_DAY;
    sane.then_some((total, rest))
}

/// The most dimensions of a vector, as in pgvector.
pub const MAX_VECTOR_DIMENSIONS: usize = 16_000;

/// The elements of pgvector's text form, `[1,2.5,3]`.
///
/// # Errors
/// As pgvector's: 22P02 for anything else, 22003 for a number that no f32 holds, 22000 for NaN, infinity and a vector without elements, 54000 for more than
/// [`MAX_VECTOR_DIMENSIONS`].
pub fn parse_vector(text: &str) -> Result<Vec<f32>, SqlError> {
    let syntax = || malformed("vector", text).with_hint("A vector is written as [1,2,3].");
    let inner = text
        .trim()
        .strip_prefix('[')
        .and_then(|inner| inner.strip_suffix(']'))
        .ok_or_else(syntax)?;
    if inner.trim().is_empty() {
        return Err(no_dimensions());
    }
    let mut values = Vec::new();
    for element in inner.split(',') {
        let element = element.trim();
        let value: f32 = element.parse().map_err(|_| syntax())?;
        // Infinity may be written out; a number must not become it.
        if value.is_infinite() && element.bytes().any(|byte| byte.is_ascii_digit()) {
            return Err(SqlError::new(
                SqlState::NUMERIC_VALUE_OUT_OF_RANGE,
                format!("\"{element}\" is out of range for type vector"),
            ));
        }
        if values.len() == MAX_VECTOR_DIMENSIONS {
            return Err(too_many_dimensions());
        }
        values.push(check_vector_element(value)?);
    }
    Ok(values)
}

/// A vector's dimensions as pgvector allows them.
pub(crate) fn check_vector_length(length: usize) -> Result<(), SqlError> {
    match length {
        0 => Err(no_dimensions()),
        1..=MAX_VECTOR_DIMENSIONS => Ok(()),
        _ => Err(too_many_dimensions()),
    }
}

fn no_dimensions() -> SqlError {
    SqlError::new(SqlState::DATA_EXCEPTION, "a vector must have at least 1 dimension")
}

fn too_many_dimensions() -> SqlError {
    SqlError::new(
        SqlState::PROGRAM_LIMIT_EXCEEDED,
        format!("a vector cannot have more than {MAX_VECTOR_DIMENSIONS} dimensions"),
    )
}

/// pgvector refuses elements that are not finite.
pub(crate) fn check_vector_element(value: f32) -> Result<f32, SqlError> {
    if value.is_finite() {
        Ok(value)
    } else {
        let what = if value.is_nan() { "NaN" } else { "infinite value" };
        Err(SqlError::new(SqlState::DATA_EXCEPTION, format!("{what} not allowed in vector")))
    }
}

/// A vector of the expected length; 0 expects any.
pub(crate) fn vector_array(
    element: &Arc<Field>,
    expected: i32,
    values: &[f32],
) -> Result<ArrayRef, SqlError> {
    let length = i32::try_from(values.len()).unwrap_or(i32::MAX);
    if expected != 0 && expected != length {
        return Err(SqlError::new(
            SqlState::DATA_EXCEPTION,
            format!("expected {expected} dimensions, not {length}"),
        ));
    }
    Ok(Arc::new(FixedSizeListArray::new(
        element.clone(),
        length,
        Arc::new(Float32Array::from(values.to_vec())),
        None,
    )))
}

/// One element of an array's text: a value, NULL, or an array of its own.
enum Element {
    Null,
    Value(String),
    Nested(Vec<Element>),
}

fn parse_array(text: &str, element: &Arc<Field>, zone: &TimeZone) -> Result<ArrayRef, SqlError> {
    let bad = || {
        SqlError::new(
            SqlState::INVALID_TEXT_REPRESENTATION,
            format!("malformed array literal: \"{text}\""),
        )
    };
    let mut trimmed = text.trim();
    // Bounds before the braces (`[2:3]={1,2}`) are read and left out: arrays here begin with 1.
    if trimmed.starts_with('[') {
        trimmed = trimmed.split_once('=').ok_or_else(bad)?.1.trim_start();
    }
    let mut parser = ArrayParser { rest: trimmed.strip_prefix('{').ok_or_else(bad)?, depth: 0 };
    let elements = parser.elements().ok_or_else(bad)?;
    if !parser.rest.trim().is_empty() {
        return Err(bad());
    }
    build_list(&elements, element, zone, &bad)
}

/// Arrays have at most this many dimensions; PostgreSQL's limit.
pub(crate) const MAX_DIMENSIONS: usize = 6;

struct ArrayParser<'a> {
    rest: &'a str,
    depth: usize,
}

impl ArrayParser<'_> {
    /// The elements up to the closing brace, whose opening one has been read.
    fn elements(&mut self) -> Option<Vec<Element>> {
        self.depth += 1;
        if self.depth > MAX_DIMENSIONS {
            return None;
        }
        let mut elements = Vec::new();
        self.skip_space();
        if self.eat('}') {
            self.depth -= 1;
            return Some(elements);
        }
        loop {
            self.skip_space();
            elements.push(self.element()?);
            self.skip_space();
            if self.eat('}') {
                self.depth -= 1;
                return Some(elements);
            }
            if !self.eat(',') {
                return None;
            }
        }
    }

    fn element(&mut self) -> Option<Element> {
        if self.eat('{') {
            return self.elements().map(Element::Nested);
        }
        if self.eat('"') {
            return self.quoted().map(Element::Value);
        }
        let mut value = String::new();
        let mut escaped = false;
        let mut kept = 0;
        loop {
            let next = self.rest.chars().next()?;
            match next {
                ',' | '}' => break,
                '{' | '"' => return None,
                '\\' => {
                    self.advance(next);
                    let literal = self.rest.chars().next()?;
                    self.advance(literal);
                    value.push(literal);
                    escaped = true;
                    kept = value.len();
                }
                _ => {
                    self.advance(next);
                    value.push(next);
                    if !next.is_ascii_whitespace() {
                        kept = value.len();
                    }
                }
            }
        }
        value.truncate(kept);
        if value.is_empty() {
            return None;
        }
        if !escaped && value.eq_ignore_ascii_case("null") {
            return Some(Element::Null);
        }
        Some(Element::Value(value))
    }

    fn quoted(&mut self) -> Option<String> {
        let mut value = String::new();
        loop {
            let next = self.rest.chars().next()?;
            self.advance(next);
            match next {
                '"' => return Some(value),
                '\\' => {
                    let literal = self.rest.chars().next()?;
                    self.advance(literal);
                    value.push(literal);
                }
                _ => value.push(next),
            }
        }
    }

    fn advance(&mut self, character: char) {
        self.rest = &self.rest[character.len_utf8()..];
    }

    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start_matches(|character: char| character.is_ascii_whitespace());
    }

    fn eat(&mut self, character: char) -> bool {
        match self.rest.strip_prefix(character) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }
}

fn build_list(
    elements: &[Element],
    field: &Arc<Field>,
    zone: &TimeZone,
    bad: &dyn Fn() -> SqlError,
) -> Result<ArrayRef, SqlError> {
    let mut parts = Vec::with_capacity(elements.len());
    for element in elements {
        parts.push(match (element, field.data_type()) {
            (Element::Null, data_type) => new_null_array(data_type, 1),
            (Element::Nested(inner), DataType::List(inner_field)) => {
                build_list(inner, inner_field, zone, bad)?
            }
            (Element::Nested(_), _) => return Err(bad()),
            (Element::Value(value), data_type) => parse_text_in(value, data_type, zone)?,
        });
    }
    list_array(&parts, field)
}

/// A list of length 1 whose elements are these arrays of length 1.
pub(crate) fn list_array(parts: &[ArrayRef], field: &Arc<Field>) -> Result<ArrayRef, SqlError> {
    let internal = |error: arrow::error::ArrowError| {
        SqlError::new(SqlState::DATATYPE_MISMATCH, format!("an array's elements differ: {error}"))
    };
    let parts: Vec<ArrayRef> = parts
        .iter()
        .map(|part| cast(part, field.data_type()).map_err(internal))
        .collect::<Result<_, _>>()?;
    let references: Vec<&dyn arrow::array::Array> = parts.iter().map(AsRef::as_ref).collect();
    let values = if references.is_empty() {
        new_empty_array(field.data_type())
    } else {
        concat(&references).map_err(internal)?
    };
    let offsets = OffsetBuffer::from_lengths([values.len()]);
    Ok(Arc::new(ListArray::try_new(field.clone(), offsets, values, None).map_err(internal)?))
}
