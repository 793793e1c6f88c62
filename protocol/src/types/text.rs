//! The text forms of values: what PostgreSQL's output functions print.
//!
//! Text is written straight into the output buffer, value by value, because it is the form that psql and most drivers
//! ask for. Kinds of Arrow arrays that stand for no PostgreSQL type (maps, unions) are shown as Arrow shows them.

#![allow(clippy::wildcard_enum_match_arm)] // the enums are other libraries', with far more variants than matter here

use std::fmt::Write;

use arrow::array::{Array, ArrayRef, AsArray, downcast_dictionary_array};
use arrow::datatypes::{
    DataType, Date32Type, Date64Type, Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type,
    DurationMicrosecondType, DurationMillisecondType, DurationNanosecondType, DurationSecondType,
    Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
    IntervalDayTimeType, IntervalMonthDayNanoType, IntervalUnit, IntervalYearMonthType,
    Time32MillisecondType, Time32SecondType, Time64MicrosecondType, Time64NanosecondType, TimeUnit,
    TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
    TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use bytes::{BufMut, BytesMut};

use super::calendar::{
    MICROS_PER_DAY, MICROS_PER_SECOND, civil_from_days, day_of_week, time_of_day,
};
use super::catalog::{TypePlan, oid};
use super::interval::{Interval, write_interval};
use super::style::{ByteaOutput, DateOrder, DateStyle, TextStyle};
use super::{Moment, VECTOR_OID};

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const WEEKDAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];

/// Writes the text form of a value; answers false, and writes nothing, for NULL.
pub(crate) fn write_value(
    array: &dyn Array,
    row: usize,
    plan: &TypePlan,
    style: &TextStyle,
    out: &mut BytesMut,
) -> bool {
    if array.is_null(row) {
        return false;
    }
    match array.data_type() {
        DataType::Null => return false,
        DataType::Boolean => out.put_u8(if array.as_boolean().value(row) { b't' } else { b'f' }),
        DataType::Int8 if plan.oid == oid::CHAR => {
            out.put_u8(array.as_primitive::<Int8Type>().value(row) as u8);
        }
        DataType::Int8 => print(out, array.as_primitive::<Int8Type>().value(row)),
        DataType::Int16 => print(out, array.as_primitive::<Int16Type>().value(row)),
        DataType::Int32 => {
            print_integer(out, plan, i64::from(array.as_primitive::<Int32Type>().value(row)))
        }
        DataType::Int64 => print_integer(out, plan, array.as_primitive::<Int64Type>().value(row)),
        DataType::UInt8 => print(out, array.as_primitive::<UInt8Type>().value(row)),
        DataType::UInt16 => print(out, array.as_primitive::<UInt16Type>().value(row)),
        DataType::UInt32 => print(out, array.as_primitive::<UInt32Type>().value(row)),
        DataType::UInt64 => print(out, array.as_primitive::<UInt64Type>().value(row)),
        DataType::Float16 => {
            write_float4(array.as_primitive::<Float16Type>().value(row).to_f32(), style, out);
        }
        DataType::Float32 => {
            write_float4(array.as_primitive::<Float32Type>().value(row), style, out)
        }
        DataType::Float64 => {
            write_float8(array.as_primitive::<Float64Type>().value(row), style, out)
        }
        DataType::Decimal32(_, scale) => {
            let value = array.as_primitive::<Decimal32Type>().value(row);
            write_decimal(&value.to_string(), *scale, plan, out);
        }
        DataType::Decimal64(_, scale) => {
            let value = array.as_primitive::<Decimal64Type>().value(row);
            write_decimal(&value.to_string(), *scale, plan, out);
        }
        DataType::Decimal128(_, scale) => {
            let value = array.as_primitive::<Decimal128Type>().value(row);
            write_decimal(&value.to_string(), *scale, plan, out);
        }
        DataType::Decimal256(_, scale) => {
            let value = array.as_primitive::<Decimal256Type>().value(row);
            write_decimal(&value.to_string(), *scale, plan, out);
        }
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
            out.put_slice(string(array, row).as_bytes());
        }
        DataType::FixedSizeBinary(16) if plan.oid == oid::UUID => {
            write_uuid(bytes(array, row), out);
        }
        DataType::Binary
        | DataType::LargeBinary
        | DataType::BinaryView
        | DataType::FixedSizeBinary(_) => write_bytea(bytes(array, row), style.bytea_output, out),
        DataType::Date32 | DataType::Date64 => write_date(date(array, row), style, out),
        DataType::Time32(_) | DataType::Time64(_) => write_time(time(array, row), out),
        DataType::Timestamp(_, zone) => {
            write_timestamp(timestamp(array, row), zone.is_some(), style, out);
        }
        DataType::Interval(_) | DataType::Duration(_) => {
            write_interval(interval(array, row), style.interval_style, out);
        }
        DataType::FixedSizeList(..) if plan.oid == VECTOR_OID => {
            write_vector(array.as_fixed_size_list().value(row).as_ref(), style, out);
        }
        DataType::List(_)
        | DataType::LargeList(_)
        | DataType::ListView(_)
        | DataType::LargeListView(_)
        | DataType::FixedSizeList(..) => {
            let elements = list(array, row);
            if matches!(plan.oid, oid::INT2VECTOR | oid::OIDVECTOR) {
                write_spaced(elements.as_ref(), plan.element(), style, out);
            } else {
                write_array(elements.as_ref(), plan.element(), style, out);
            }
        }
        DataType::Struct(_) => write_struct(array, row, plan, style, out),
        DataType::Dictionary(..) => {
            downcast_dictionary_array!(
                array => {
                    return match array.key(row) {
                        Some(key) => write_value(array.values().as_ref(), key, plan, style, out),
                        None => false,
                    };
                }
                _ => unreachable!("a dictionary array has the type of one")
            );
        }
        DataType::Map(..) | DataType::Union(..) | DataType::RunEndEncoded(..) => {
            write_as_arrow_does(array, row, out);
        }
    }
    true
}

fn print(out: &mut BytesMut, value: impl std::fmt::Display) {
    // A BytesMut grows as it needs; writing to it cannot fail.
    let _ = write!(out, "{value}");
}

fn print_integer(out: &mut BytesMut, plan: &TypePlan, value: i64) {
    match plan.oid {
        oid::MONEY => write_money(value, out),
        // Unsigned in PostgreSQL, signed here if that is what the column has.
        oid::OID | oid::XID | oid::CID if value < 0 => print(out, value as u32),
        _ => print(out, value),
    }
}

fn write_as_arrow_does(array: &dyn Array, row: usize, out: &mut BytesMut) {
    match ArrayFormatter::try_new(array, &FormatOptions::default()) {
        Ok(formatter) => print(out, formatter.value(row)),
        Err(error) => tracing::warn!(%error, "a value cannot be shown"),
    }
}

/// A string of any of Arrow's three layouts.
pub(crate) fn string(array: &dyn Array, row: usize) -> &str {
    match array.data_type() {
        DataType::LargeUtf8 => array.as_string::<i64>().value(row),
        DataType::Utf8View => array.as_string_view().value(row),
        _ => array.as_string::<i32>().value(row),
    }
}

/// Bytes of any of Arrow's four layouts.
pub(crate) fn bytes(array: &dyn Array, row: usize) -> &[u8] {
    match array.data_type() {
        DataType::LargeBinary => array.as_binary::<i64>().value(row),
        DataType::BinaryView => array.as_binary_view().value(row),
        DataType::FixedSizeBinary(_) => array.as_fixed_size_binary().value(row),
        _ => array.as_binary::<i32>().value(row),
    }
}

/// The elements of a list of any of Arrow's layouts.
pub(crate) fn list(array: &dyn Array, row: usize) -> ArrayRef {
    match array.data_type() {
        DataType::LargeList(_) => array.as_list::<i64>().value(row),
        DataType::ListView(_) => array.as_list_view::<i32>().value(row),
        DataType::LargeListView(_) => array.as_list_view::<i64>().value(row),
        DataType::FixedSizeList(..) => array.as_fixed_size_list().value(row),
        _ => array.as_list::<i32>().value(row),
    }
}

/// A date as days after 1970-01-01.
pub(crate) fn date(array: &dyn Array, row: usize) -> Moment {
    match array.data_type() {
        DataType::Date64 => {
            let millis = array.as_primitive::<Date64Type>().value(row);
            Moment::At(millis.div_euclid(86_400_000))
        }
        _ => match array.as_primitive::<Date32Type>().value(row) {
            i32::MAX => Moment::Infinity,
            i32::MIN => Moment::MinusInfinity,
            days => Moment::At(i64::from(days)),
        },
    }
}

/// A time of day in microseconds.
pub(crate) fn time(array: &dyn Array, row: usize) -> i64 {
    match array.data_type() {
        DataType::Time32(TimeUnit::Second) => {
            i64::from(array.as_primitive::<Time32SecondType>().value(row)) * MICROS_PER_SECOND
        }
        DataType::Time32(_) => {
            i64::from(array.as_primitive::<Time32MillisecondType>().value(row)) * 1000
        }
        DataType::Time64(TimeUnit::Nanosecond) => {
            array.as_primitive::<Time64NanosecondType>().value(row) / 1000
        }
        _ => array.as_primitive::<Time64MicrosecondType>().value(row),
    }
}

/// A timestamp in microseconds after 1970-01-01.
pub(crate) fn timestamp(array: &dyn Array, row: usize) -> Moment {
    let (value, micros) = match array.data_type() {
        DataType::Timestamp(TimeUnit::Second, _) => {
            let value = array.as_primitive::<TimestampSecondType>().value(row);
            (value, value.checked_mul(MICROS_PER_SECOND))
        }
        DataType::Timestamp(TimeUnit::Millisecond, _) => {
            let value = array.as_primitive::<TimestampMillisecondType>().value(row);
            (value, value.checked_mul(1000))
        }
        DataType::Timestamp(TimeUnit::Nanosecond, _) => {
            let value = array.as_primitive::<TimestampNanosecondType>().value(row);
            (value, Some(value.div_euclid(1000)))
        }
        _ => {
            let value = array.as_primitive::<TimestampMicrosecondType>().value(row);
            (value, Some(value))
        }
    };
    match (value, micros) {
        (i64::MAX, _) => Moment::Infinity,
        (i64::MIN, _) => Moment::MinusInfinity,
        (_, Some(micros)) => Moment::At(micros),
        // Further away than PostgreSQL's timestamps reach.
        (value, None) if value > 0 => Moment::Infinity,
        (_, None) => Moment::MinusInfinity,
    }
}

/// An interval of any of Arrow's layouts, or a duration.
pub(crate) fn interval(array: &dyn Array, row: usize) -> Interval {
    let micros = |micros| Interval { months: 0, days: 0, micros };
    match array.data_type() {
        DataType::Interval(IntervalUnit::YearMonth) => Interval {
            months: array.as_primitive::<IntervalYearMonthType>().value(row),
            days: 0,
            micros: 0,
        },
        DataType::Interval(IntervalUnit::DayTime) => {
            let value = array.as_primitive::<IntervalDayTimeType>().value(row);
            Interval { months: 0, days: value.days, micros: i64::from(value.milliseconds) * 1000 }
        }
        DataType::Duration(TimeUnit::Second) => micros(
            array.as_primitive::<DurationSecondType>().value(row).saturating_mul(MICROS_PER_SECOND),
        ),
        DataType::Duration(TimeUnit::Millisecond) => {
            micros(array.as_primitive::<DurationMillisecondType>().value(row).saturating_mul(1000))
        }
        DataType::Duration(TimeUnit::Microsecond) => {
            micros(array.as_primitive::<DurationMicrosecondType>().value(row))
        }
        DataType::Duration(TimeUnit::Nanosecond) => {
            micros(array.as_primitive::<DurationNanosecondType>().value(row) / 1000)
        }
        _ => {
            let value = array.as_primitive::<IntervalMonthDayNanoType>().value(row);
            Interval { months: value.months, days: value.days, micros: value.nanoseconds / 1000 }
        }
    }
}

/// The shortest digits that read back as the same float, or `extra_float_digits` below 1: a fixed number of them.
fn write_float8(value: f64, style: &TextStyle, out: &mut BytesMut) {
    if style.extra_float_digits > 0 {
        write_shortest(value, format_args!("{value:e}"), 15, out);
    } else {
        let precision = (15 + style.extra_float_digits).max(1) as usize;
        write_rounded(value, precision, out);
    }
}

fn write_float4(value: f32, style: &TextStyle, out: &mut BytesMut) {
    if style.extra_float_digits > 0 {
        write_shortest(f64::from(value), format_args!("{value:e}"), 6, out);
    } else {
        let precision = (6 + style.extra_float_digits).max(1) as usize;
        write_rounded(f64::from(value), precision, out);
    }
}

/// Floats without digits.
fn special_float(value: f64) -> Option<&'static str> {
    if value.is_nan() {
        Some("NaN")
    } else if value == f64::INFINITY {
        Some("Infinity")
    } else if value == f64::NEG_INFINITY {
        Some("-Infinity")
    } else if value == 0.0 {
        Some(if value.is_sign_negative() { "-0" } else { "0" })
    } else {
        None
    }
}

/// Lays digits that Rust printed as `d.ddde±x` out as PostgreSQL does: with an exponent below 1e-4 and from 10 to the
/// `fixed_digits` upward.
fn write_shortest(
    value: f64,
    scientific: std::fmt::Arguments<'_>,
    fixed_digits: i32,
    out: &mut BytesMut,
) {
    if let Some(special) = special_float(value) {
        out.put_slice(special.as_bytes());
        return;
    }
    let mut buffer = StackText::default();
    // Seventeen digits, a sign, a point and an exponent fit.
    let _ = buffer.write_fmt(scientific);
    write_digits(buffer.as_str(), fixed_digits, out);
}

/// C's `%.{precision}g`.
fn write_rounded(value: f64, precision: usize, out: &mut BytesMut) {
    if let Some(special) = special_float(value) {
        out.put_slice(special.as_bytes());
        return;
    }
    let text = format!("{value:.*e}", precision - 1);
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let mantissa = if mantissa.contains('.') {
        mantissa.trim_end_matches('0').trim_end_matches('.')
    } else {
        mantissa
    };
    write_digits(&format!("{mantissa}e{exponent}"), precision as i32, out);
}

fn write_digits(scientific: &str, fixed_digits: i32, out: &mut BytesMut) {
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if exponent < -4 || exponent >= fixed_digits {
        out.put_slice(mantissa.as_bytes());
        out.put_slice(if exponent < 0 { b"e-" } else { b"e+" });
        let _ = write!(out, "{:02}", exponent.abs());
        return;
    }
    let mantissa = match mantissa.strip_prefix('-') {
        Some(rest) => {
            out.put_u8(b'-');
            rest
        }
        None => mantissa,
    };
    let digits = mantissa.bytes().filter(|byte| *byte != b'.');
    if exponent < 0 {
        out.put_slice(b"0.");
        out.put_bytes(b'0', (-exponent - 1) as usize);
        digits.for_each(|digit| out.put_u8(digit));
        return;
    }
    let whole = exponent as usize + 1;
    let mut written = 0;
    for digit in digits {
        if written == whole {
            out.put_u8(b'.');
        }
        out.put_u8(digit);
        written += 1;
    }
    if written < whole {
        out.put_bytes(b'0', whole - written);
    }
}

/// A text of a few characters without the heap.
#[derive(Default)]
struct StackText {
    bytes: [u8; 32],
    length: usize,
}

impl StackText {
    fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..self.length]).unwrap_or_default()
    }
}

impl Write for StackText {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let end = self.length + text.len();
        let Some(room) = self.bytes.get_mut(self.length..end) else {
            return Err(std::fmt::Error);
        };
        room.copy_from_slice(text.as_bytes());
        self.length = end;
        Ok(())
    }
}

/// A decimal's unscaled digits with their point.
fn write_decimal(unscaled: &str, scale: i8, plan: &TypePlan, out: &mut BytesMut) {
    if plan.oid == oid::MONEY
        && scale == 2
        && let Ok(cents) = unscaled.parse()
    {
        write_money(cents, out);
        return;
    }
    let digits = match unscaled.strip_prefix('-') {
        Some(digits) => {
            out.put_u8(b'-');
            digits
        }
        None => unscaled,
    };
    let Some(scale) = usize::try_from(scale).ok().filter(|scale| *scale > 0) else {
        out.put_slice(digits.as_bytes());
        if digits != "0" {
            out.put_bytes(b'0', usize::from(scale.unsigned_abs()));
        }
        return;
    };
    if digits.len() <= scale {
        out.put_slice(b"0.");
        out.put_bytes(b'0', scale - digits.len());
        out.put_slice(digits.as_bytes());
    } else {
        let (whole, fraction) = digits.split_at(digits.len() - scale);
        out.put_slice(whole.as_bytes());
        out.put_u8(b'.');
        out.put_slice(fraction.as_bytes());
    }
}

/// `money` in the C locale's dollars: `-$1,234.56`.
fn write_money(cents: i64, out: &mut BytesMut) {
    if cents < 0 {
        out.put_u8(b'-');
    }
    out.put_u8(b'$');
    let whole = (cents.unsigned_abs() / 100).to_string();
    for (index, digit) in whole.bytes().enumerate() {
        if index > 0 && (whole.len() - index).is_multiple_of(3) {
            out.put_u8(b',');
        }
        out.put_u8(digit);
    }
    let _ = write!(out, ".{:02}", cents.unsigned_abs() % 100);
}

fn write_uuid(bytes: &[u8], out: &mut BytesMut) {
    for (index, byte) in bytes.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            out.put_u8(b'-');
        }
        put_hex(*byte, out);
    }
}

fn put_hex(byte: u8, out: &mut BytesMut) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out.put_u8(DIGITS[usize::from(byte >> 4)]);
    out.put_u8(DIGITS[usize::from(byte & 15)]);
}

fn write_bytea(bytes: &[u8], output: ByteaOutput, out: &mut BytesMut) {
    match output {
        ByteaOutput::Hex => {
            out.reserve(2 + 2 * bytes.len());
            out.put_slice(b"\\x");
            bytes.iter().for_each(|byte| put_hex(*byte, out));
        }
        ByteaOutput::Escape => {
            for byte in bytes {
                match byte {
                    b'\\' => out.put_slice(b"\\\\"),
                    b' '..=b'~' => out.put_u8(*byte),
                    _ => {
                        let _ = write!(out, "\\{byte:03o}");
                    }
                }
            }
        }
    }
}

fn write_infinity(moment: Moment, out: &mut BytesMut) -> Option<i64> {
    match moment {
        Moment::Infinity => out.put_slice(b"infinity"),
        Moment::MinusInfinity => out.put_slice(b"-infinity"),
        Moment::At(value) => return Some(value),
    }
    None
}

fn write_date(date: Moment, style: &TextStyle, out: &mut BytesMut) {
    let Some(days) = write_infinity(date, out) else {
        return;
    };
    let (year, month, day) = civil_from_days(days);
    let (year, era) = year_and_era(year);
    write_day(year, month, day, style, out);
    out.put_slice(era.as_bytes());
}

/// Year 0 is 1 BC.
fn year_and_era(year: i64) -> (i64, &'static str) {
    if year <= 0 { (1 - year, " BC") } else { (year, "") }
}

fn write_day(year: i64, month: u32, day: u32, style: &TextStyle, out: &mut BytesMut) {
    let european = style.date_order == DateOrder::Dmy;
    let (first, second) = if european { (day, month) } else { (month, day) };
    let _ = match style.date_style {
        DateStyle::Iso => write!(out, "{year:04}-{month:02}-{day:02}"),
        DateStyle::Sql => write!(out, "{first:02}/{second:02}/{year:04}"),
        DateStyle::Postgres => write!(out, "{first:02}-{second:02}-{year:04}"),
        DateStyle::German => write!(out, "{day:02}.{month:02}.{year:04}"),
    };
}

pub(super) fn write_time(micros: i64, out: &mut BytesMut) {
    let (hour, minute, second, fraction) = time_of_day(micros);
    let _ = write!(out, "{hour:02}:{minute:02}:{second:02}");
    write_fraction(fraction, out);
}

/// Microseconds after a point, without the zeros at their end; nothing for none.
pub(super) fn write_fraction(micros: i64, out: &mut BytesMut) {
    if micros == 0 {
        return;
    }
    let start = out.len();
    let _ = write!(out, ".{micros:06}");
    while out.len() > start && out.last() == Some(&b'0') {
        out.truncate(out.len() - 1);
    }
}

fn write_timestamp(timestamp: Moment, with_zone: bool, style: &TextStyle, out: &mut BytesMut) {
    let Some(micros) = write_infinity(timestamp, out) else {
        return;
    };
    let utc = chrono::DateTime::from_timestamp_micros(micros).map(|moment| moment.naive_utc());
    // Beyond the years that the time zones' rules reach, UTC is shown.
    let offset = match utc {
        Some(utc) if with_zone => style.time_zone.offset_seconds(utc),
        Some(_) | None => 0,
    };
    let local = micros.saturating_add(i64::from(offset) * MICROS_PER_SECOND);
    let days = local.div_euclid(MICROS_PER_DAY);
    let (year, month, day) = civil_from_days(days);
    let (year, era) = year_and_era(year);
    let time = local.rem_euclid(MICROS_PER_DAY);
    match style.date_style {
        DateStyle::Iso | DateStyle::Sql | DateStyle::German => {
            write_day(year, month, day, style, out);
            out.put_u8(b' ');
            write_time(time, out);
        }
        DateStyle::Postgres => {
            let weekday = WEEKDAYS[day_of_week(days)];
            let month = MONTHS[month as usize - 1];
            let _ = if style.date_order == DateOrder::Dmy {
                write!(out, "{weekday} {day:02} {month} ")
            } else {
                write!(out, "{weekday} {month} {day:02} ")
            };
            write_time(time, out);
            let _ = write!(out, " {year:04}");
        }
    }
    if with_zone {
        match style.date_style {
            // The abbreviations of other zones (`PST`) are not known here; PostgreSQL too writes the offset of a zone that
            // has none.
            DateStyle::Sql | DateStyle::German | DateStyle::Postgres
                if style.time_zone.is_utc() =>
            {
                out.put_slice(b" UTC");
            }
            DateStyle::Iso | DateStyle::Sql | DateStyle::German | DateStyle::Postgres => {
                write_offset(offset, out);
            }
        }
    }
    out.put_slice(era.as_bytes());
}

/// `+09`, `+05:30`, `-00:44:30`.
fn write_offset(seconds: i32, out: &mut BytesMut) {
    out.put_u8(if seconds < 0 { b'-' } else { b'+' });
    let seconds = seconds.unsigned_abs();
    let _ = write!(out, "{:02}", seconds / 3600);
    if !seconds.is_multiple_of(3600) {
        let _ = write!(out, ":{:02}", seconds / 60 % 60);
    }
    if !seconds.is_multiple_of(60) {
        let _ = write!(out, ":{:02}", seconds % 60);
    }
}

/// pgvector's form: `[1,2.5,3]`.
fn write_vector(elements: &dyn Array, style: &TextStyle, out: &mut BytesMut) {
    // pgvector always writes the shortest form.
    let style = TextStyle { extra_float_digits: 1, ..style.clone() };
    out.put_u8(b'[');
    for (index, value) in elements.as_primitive::<Float32Type>().iter().enumerate() {
        if index > 0 {
            out.put_u8(b',');
        }
        // A vector's element is never NULL in PostgreSQL; one that is here shows as what it is: not a number.
        write_float4(value.unwrap_or(f32::NAN), &style, out);
    }
    out.put_u8(b']');
}

/// int2vector's and oidvector's form: `1 2 3`.
fn write_spaced(elements: &dyn Array, plan: &TypePlan, style: &TextStyle, out: &mut BytesMut) {
    for index in 0..elements.len() {
        if index > 0 {
            out.put_u8(b' ');
        }
        write_value(elements, index, plan, style, out);
    }
}

fn is_list(data_type: &DataType) -> bool {
    match data_type {
        DataType::List(_)
        | DataType::LargeList(_)
        | DataType::ListView(_)
        | DataType::LargeListView(_) => true,
        DataType::FixedSizeList(element, _) => *element.data_type() != DataType::Float32,
        _ => false,
    }
}

/// An array's form: `{1,NULL,"a b"}`, nested for arrays of arrays.
fn write_array(elements: &dyn Array, plan: &TypePlan, style: &TextStyle, out: &mut BytesMut) {
    let nested = is_list(elements.data_type());
    out.put_u8(b'{');
    let mut element = BytesMut::new();
    for index in 0..elements.len() {
        if index > 0 {
            out.put_u8(b',');
        }
        if nested {
            if !write_value(elements, index, plan, style, out) {
                out.put_slice(b"NULL");
            }
            continue;
        }
        element.clear();
        if !write_value(elements, index, plan, style, &mut element) {
            out.put_slice(b"NULL");
        } else if needs_quotes_in_array(&element) {
            out.put_u8(b'"');
            for byte in &element {
                if matches!(byte, b'"' | b'\\') {
                    out.put_u8(b'\\');
                }
                out.put_u8(*byte);
            }
            out.put_u8(b'"');
        } else {
            out.put_slice(&element);
        }
    }
    out.put_u8(b'}');
}

fn needs_quotes_in_array(element: &[u8]) -> bool {
    element.is_empty()
        || element.eq_ignore_ascii_case(b"null")
        || element
            .iter()
            .any(|byte| matches!(byte, b'{' | b'}' | b',' | b'"' | b'\\') || is_space(*byte))
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c)
}

/// A row's form: `(1,,"a b")`.
fn write_struct(
    array: &dyn Array,
    row: usize,
    plan: &TypePlan,
    style: &TextStyle,
    out: &mut BytesMut,
) {
    out.put_u8(b'(');
    let mut value = BytesMut::new();
    let columns = array.as_struct().columns();
    for (index, (column, plan)) in columns.iter().zip(&plan.inner).enumerate() {
        if index > 0 {
            out.put_u8(b',');
        }
        value.clear();
        if !write_value(column.as_ref(), row, plan, style, &mut value) {
            continue;
        }
        let quoted = value.is_empty()
            || value
                .iter()
                .any(|byte| matches!(byte, b'(' | b')' | b',' | b'"' | b'\\') || is_space(*byte));
        if quoted {
            out.put_u8(b'"');
            for byte in &value {
                if matches!(byte, b'"' | b'\\') {
                    out.put_u8(*byte);
                }
                out.put_u8(*byte);
            }
            out.put_u8(b'"');
        } else {
            out.put_slice(&value);
        }
    }
    out.put_u8(b')');
}
