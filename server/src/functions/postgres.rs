//! PostgreSQL's functions that DataFusion lacks or understands otherwise: times and numbers as text by PostgreSQL's patterns,
//! spans of time, lengths in bytes.

#![allow(clippy::wildcard_enum_match_arm)] // the enums are other libraries', with far more variants than matter here

use arrow::array::AsArray;
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, IntervalMonthDayNano, IntervalUnit, TimeUnit, TimestampMicrosecondType,
};
use chrono::{DateTime, Datelike as _, NaiveDate, NaiveDateTime, TimeDelta};
use datafusion::common::{Result, ScalarValue, exec_err, plan_err};
use datafusion::logical_expr::ScalarUDF;
use thanosql_protocol::types::TimeZone;
use thanosql_protocol::{SqlError, SqlState};

use super::rows::RowFunction;
use super::whole_division::division_functions;
use super::{patterns, time_reader};
use crate::error::through_datafusion;

/// `extract(second FROM x)`.
pub const EXTRACT_SECONDS: &str = "extract_seconds";
/// The regular expression that SIMILAR TO's pattern stands for.
pub const SIMILAR_TO_ESCAPE: &str = "similar_to_escape";

const MICROSECONDS_A_DAY: i64 = 86_400_000_000;
const NANOSECONDS_A_DAY: i64 = MICROSECONDS_A_DAY * 1000;

/// `a - b` of timestamps: days and the rest.
pub fn timestamp_difference() -> ScalarUDF {
    RowFunction::udf(
        "timestamp_difference",
        |_| Ok(interval()),
        |values, _| {
            let (Some(left), Some(right)) = (micros(&values[0]), micros(&values[1])) else {
                return exec_err!("the difference of what are no timestamps");
            };
            let difference = left.checked_sub(right).ok_or_else(|| out_of_range("interval"))?;
            let days = i32::try_from(difference / MICROSECONDS_A_DAY)
                .map_err(|_| out_of_range("interval"))?;
            Ok(span(0, days, difference % MICROSECONDS_A_DAY * 1000))
        },
    )
}

/// A span of time so many times.
pub fn interval_times() -> ScalarUDF {
    RowFunction::udf(
        "interval_times",
        |_| Ok(interval()),
        |values, _| {
            let factor = values[1].cast_to(&DataType::Float64)?;
            match (interval_of(&values[0])?, factor) {
                (span, ScalarValue::Float64(Some(factor))) => times(span, factor),
                _ => exec_err!("an interval times what is no number"),
            }
        },
    )
}

/// The functions of this file, and `div` and `mod`.
pub fn postgres_functions() -> Vec<ScalarUDF> {
    let mut functions = row_functions();
    functions.extend(division_functions());
    functions
}

fn row_functions() -> Vec<ScalarUDF> {
    vec![
        RowFunction::udf("to_char", to_text, |values, _| {
            let pattern = text(&values[1])?;
            let shown = match timestamp(&values[0]) {
                Some(at) => patterns::time_text(at, &pattern),
                None => patterns::number_text(&number_text(&values[0])?, &pattern),
            };
            Ok(ScalarValue::Utf8(Some(shown)))
        }),
        RowFunction::udf(
            "to_date",
            |arguments| two_texts(arguments, DataType::Date32),
            |values, _| {
                let at = read_time(values)?;
                let epoch = NaiveDate::default();
                let days = i32::try_from((at.date() - epoch).num_days());
                Ok(ScalarValue::Date32(Some(days.map_err(|_| out_of_range("date"))?)))
            },
        ),
        RowFunction::udf("to_timestamp", timestamp_type, |values, _| {
            let microseconds = match values {
                [seconds] => {
                    let seconds = seconds.cast_to(&DataType::Float64)?;
                    let ScalarValue::Float64(Some(seconds)) = seconds else {
                        return exec_err!("to_timestamp takes seconds");
                    };
                    moment(seconds)?
                }
                values => read_time(values)?.and_utc().timestamp_micros(),
            };
            Ok(ScalarValue::TimestampMicrosecond(Some(microseconds), Some("UTC".into())))
        }),
        timestamp_difference(),
        interval_times(),
        RowFunction::udf("timezone", zoned_type, |values, target| {
            let name = text(&values[0])?;
            let Some(zone) = TimeZone::parse(&name) else {
                return Err(through_datafusion(SqlError::new(
                    SqlState::INVALID_PARAMETER_VALUE,
                    format!("time zone \"{name}\" not recognized"),
                )));
            };
            let Some(at) = timestamp(&values[1]) else {
                return exec_err!("AT TIME ZONE takes timestamps");
            };
            let has_zone = matches!(values[1].data_type(), DataType::Timestamp(_, Some(_)));
            let offset = |at| TimeDelta::seconds(i64::from(zone.offset_seconds(at)));
            let moved = if has_zone {
                // The clock of the zone at that moment.
                at.checked_add_signed(offset(at))
            } else {
                // The moment at which the zone's clock shows that time.
                at.checked_sub_signed(offset(at))
                    .and_then(|about| at.checked_sub_signed(offset(about)))
            };
            let moved = moved.ok_or_else(|| out_of_range("timestamp"))?;
            ScalarValue::TimestampMicrosecond(Some(moved.and_utc().timestamp_micros()), None)
                .cast_to(&DataType::Timestamp(TimeUnit::Microsecond, None))
                .map(|value| match (target, value) {
                    (
                        DataType::Timestamp(_, Some(zone)),
                        ScalarValue::TimestampMicrosecond(at, _),
                    ) => ScalarValue::TimestampMicrosecond(at, Some(zone.clone())),
                    (_, value) => value,
                })
        }),
        RowFunction::udf(
            EXTRACT_SECONDS,
            |_| Ok(DataType::Decimal128(8, 6)),
            |values, _| {
                let micros = match &values[0] {
                    ScalarValue::IntervalMonthDayNano(Some(span)) => {
                        span.nanoseconds / 1000 % 60_000_000
                    }
                    ScalarValue::Time64Microsecond(Some(micros)) => micros % 60_000_000,
                    value => match micros(value) {
                        Some(micros) => micros.rem_euclid(60_000_000),
                        None => return exec_err!("extract takes times"),
                    },
                };
                Ok(ScalarValue::Decimal128(Some(i128::from(micros)), 8, 6))
            },
        ),
        RowFunction::udf(
            "age",
            |arguments| match arguments {
                [_, _] => Ok(interval()),
                _ => plan_err!("No function matches age with {} arguments", arguments.len()),
            },
            |values, _| {
                let (Some(left), Some(right)) = (timestamp(&values[0]), timestamp(&values[1]))
                else {
                    return exec_err!("age takes timestamps");
                };
                Ok(age(left, right))
            },
        ),
        RowFunction::udf("justify_days", one_interval, |values, _| {
            let given = interval_of(&values[0])?;
            let (months, days) = carry(given.months, given.days, 30)?;
            Ok(span(months, days, given.nanoseconds))
        }),
        RowFunction::udf("justify_hours", one_interval, |values, _| {
            let given = interval_of(&values[0])?;
            let (days, rest) = carry_nanoseconds(given.days, given.nanoseconds)?;
            Ok(span(given.months, days, rest))
        }),
        RowFunction::udf("justify_interval", one_interval, |values, _| {
            let given = interval_of(&values[0])?;
            let (days, rest) = carry_nanoseconds(given.days, given.nanoseconds)?;
            let (months, days) = carry(given.months, days, 30)?;
            Ok(span(months, days, rest))
        }),
        RowFunction::udf(
            "octet_length",
            |_| Ok(DataType::Int32),
            |values, _| {
                let length = match values[0].cast_to(&DataType::Binary)? {
                    ScalarValue::Binary(Some(bytes)) => bytes.len(),
                    _ => return exec_err!("octet_length takes text or bytea"),
                };
                Ok(ScalarValue::Int32(i32::try_from(length).ok()))
            },
        ),
        RowFunction::udf(
            "sign",
            |_| Ok(DataType::Float64),
            |values, _| {
                let ScalarValue::Float64(Some(value)) = values[0].cast_to(&DataType::Float64)?
                else {
                    return exec_err!("sign takes a number");
                };
                Ok(ScalarValue::Float64(Some(if value == 0.0 { 0.0 } else { value.signum() })))
            },
        ),
        RowFunction::udf(SIMILAR_TO_ESCAPE, to_text_of_one, |values, _| {
            let escape = match values.get(1) {
                Some(escape) => escape_character(&text(escape)?)?,
                None => Some('\\'),
            };
            let regex = patterns::similar_to_regex(&text(&values[0])?, escape)?;
            // `_` and `%` stand for the ends of lines, too.
            Ok(ScalarValue::Utf8(Some(format!("(?s){regex}"))))
        }),
    ]
}

fn interval() -> DataType {
    DataType::Interval(IntervalUnit::MonthDayNano)
}

/// AT TIME ZONE takes a zone from a timestamp that has one, and gives one to a timestamp that has none.
fn zoned_type(arguments: &[DataType]) -> Result<DataType> {
    match arguments {
        [zone, DataType::Timestamp(_, Some(_))] if is_text(zone) => {
            Ok(DataType::Timestamp(TimeUnit::Microsecond, None))
        }
        [zone, DataType::Timestamp(_, None) | DataType::Date32] if is_text(zone) => {
            Ok(DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())))
        }
        _ => plan_err!("No function matches timezone with arguments of these types"),
    }
}

fn to_text(arguments: &[DataType]) -> Result<DataType> {
    match arguments {
        [value, pattern]
            if is_text(pattern)
                && (value.is_numeric()
                    || matches!(value, DataType::Date32 | DataType::Timestamp(..))) =>
        {
            Ok(DataType::Utf8)
        }
        _ => plan_err!("No function matches to_char with arguments of these types"),
    }
}

fn to_text_of_one(arguments: &[DataType]) -> Result<DataType> {
    if matches!(arguments.len(), 1 | 2) && arguments.iter().all(is_text) {
        return Ok(DataType::Utf8);
    }
    plan_err!("No function matches similar_to_escape with arguments of these types")
}

fn two_texts(arguments: &[DataType], result: DataType) -> Result<DataType> {
    match arguments {
        [value, pattern] if is_text(value) && is_text(pattern) => Ok(result),
        _ => plan_err!("No function matches with arguments of these types"),
    }
}

fn timestamp_type(arguments: &[DataType]) -> Result<DataType> {
    let result = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    match arguments {
        [value] if value.is_numeric() => Ok(result),
        arguments => two_texts(arguments, result),
    }
}

fn one_interval(arguments: &[DataType]) -> Result<DataType> {
    match arguments {
        [DataType::Interval(_)] => Ok(interval()),
        _ => plan_err!("No function matches with arguments of these types"),
    }
}

fn is_text(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null)
}

fn text(value: &ScalarValue) -> Result<String> {
    match value.try_as_str() {
        Some(Some(text)) => Ok(text.to_string()),
        _ => exec_err!("a text is wanted"),
    }
}

/// A number's digits.
fn number_text(value: &ScalarValue) -> Result<String> {
    match value.cast_to(&DataType::Utf8)? {
        ScalarValue::Utf8(Some(text)) => Ok(text),
        _ => exec_err!("a number is wanted"),
    }
}

fn micros(value: &ScalarValue) -> Option<i64> {
    let array = value.to_array_of_size(1).ok()?;
    let array = cast(&array, &DataType::Timestamp(TimeUnit::Microsecond, None)).ok()?;
    array.as_primitive_opt::<TimestampMicrosecondType>().map(|array| array.value(0))
}

/// A date or timestamp; those with a time zone in UTC.
fn timestamp(value: &ScalarValue) -> Option<NaiveDateTime> {
    if !matches!(value.data_type(), DataType::Date32 | DataType::Timestamp(..)) {
        return None;
    }
    DateTime::from_timestamp_micros(micros(value)?).map(|at| at.naive_utc())
}

/// None if nothing escapes.
fn escape_character(escape: &str) -> Result<Option<char>> {
    let mut characters = escape.chars();
    let first = characters.next();
    if characters.next().is_some() {
        return Err(through_datafusion(
            SqlError::new(SqlState::INVALID_ESCAPE_SEQUENCE, "invalid escape string")
                .with_detail("Escape string must be empty or one character."),
        ));
    }
    Ok(first)
}

/// Seconds since 1970 as microseconds.
fn moment(seconds: f64) -> Result<i64> {
    /// 4714 BC, and where 64 bits of microseconds end.
    const SECONDS: std::ops::Range<f64> = -210_866_803_200.0..9_223_372_036_854.0;
    if seconds.is_nan() {
        return Err(through_datafusion(SqlError::new(
            SqlState::DATETIME_FIELD_OVERFLOW,
            "timestamp cannot be NaN",
        )));
    }
    if seconds.is_infinite() {
        // The ends of the range stand for what never comes.
        return Ok(if seconds > 0.0 { i64::MAX } else { i64::MIN });
    }
    if !SECONDS.contains(&seconds) {
        return Err(through_datafusion(SqlError::new(
            SqlState::DATETIME_FIELD_OVERFLOW,
            format!("timestamp out of range: \"{seconds}\""),
        )));
    }
    Ok((seconds * 1e6).round_ties_even() as i64)
}

fn read_time(values: &[ScalarValue]) -> Result<NaiveDateTime> {
    time_reader::read_time(&text(&values[0])?, &text(&values[1])?).map_err(through_datafusion)
}

fn interval_of(value: &ScalarValue) -> Result<IntervalMonthDayNano> {
    match value.cast_to(&interval())? {
        ScalarValue::IntervalMonthDayNano(Some(span)) => Ok(span),
        _ => exec_err!("an interval is wanted"),
    }
}

fn span(months: i32, days: i32, nanoseconds: i64) -> ScalarValue {
    ScalarValue::IntervalMonthDayNano(Some(IntervalMonthDayNano { months, days, nanoseconds }))
}

/// Whole units of `each` from the smaller number into the larger one, both with one sign.
fn carry(large: i32, small: i32, each: i32) -> Result<(i32, i32)> {
    let (whole, mut small) = (small / each, small % each);
    let mut large = large.checked_add(whole).ok_or_else(|| out_of_range("interval"))?;
    if large > 0 && small < 0 {
        (large, small) = (large - 1, small + each);
    } else if large < 0 && small > 0 {
        (large, small) = (large + 1, small - each);
    }
    Ok((large, small))
}

fn carry_nanoseconds(days: i32, nanoseconds: i64) -> Result<(i32, i64)> {
    let whole = i32::try_from(nanoseconds / NANOSECONDS_A_DAY)
        .ok()
        .and_then(|whole| whole.checked_add(days))
        .ok_or_else(|| out_of_range("interval"))?;
    let rest = nanoseconds % NANOSECONDS_A_DAY;
    Ok(if whole > 0 && rest < 0 {
        (whole - 1, rest + NANOSECONDS_A_DAY)
    } else if whole < 0 && rest > 0 {
        (whole + 1, rest - NANOSECONDS_A_DAY)
    } else {
        (whole, rest)
    })
}

/// As PostgreSQL multiplies: the parts of a month become days, those of a day time.
fn times(given: IntervalMonthDayNano, factor: f64) -> Result<ScalarValue> {
    let months = f64::from(given.months) * factor;
    let days = f64::from(given.days) * factor;
    let nanoseconds = given.nanoseconds as f64 * factor;
    let days_of_months = (months - months.trunc()) * 30.0;
    let rest_of_days = days - days.trunc() + days_of_months - days_of_months.trunc();
    let whole_days = days.trunc() + days_of_months.trunc();
    let nanoseconds = (rest_of_days * NANOSECONDS_A_DAY as f64 + nanoseconds).round();
    let fits = |value: f64, limit: f64| value.is_finite() && value.abs() < limit;
    if !fits(months, f64::from(i32::MAX))
        || !fits(whole_days, f64::from(i32::MAX))
        || !fits(nanoseconds, i64::MAX as f64)
    {
        return Err(out_of_range("interval"));
    }
    Ok(span(months.trunc() as i32, whole_days as i32, (nanoseconds / 1000.0).round() as i64 * 1000))
}

/// The difference in years, months and days of the calendar.
fn age(left: NaiveDateTime, right: NaiveDateTime) -> ScalarValue {
    let negative = left < right;
    let (later, earlier) = if negative { (right, left) } else { (left, right) };
    let mut nanoseconds = (later.time() - earlier.time()).num_microseconds().unwrap_or(0) * 1000;
    let mut days = later.day() as i32 - earlier.day() as i32;
    let mut months =
        (later.year() - earlier.year()) * 12 + later.month() as i32 - earlier.month() as i32;
    if nanoseconds < 0 {
        nanoseconds += NANOSECONDS_A_DAY;
        days -= 1;
    }
    if days < 0 {
        // The days of the month in which the span begins.
        days += patterns::days_of_month(earlier.year(), earlier.month()) as i32;
        months -= 1;
    }
    let sign = if negative { -1 } else { 1 };
    span(months * sign, days * sign, nanoseconds * i64::from(sign))
}

fn out_of_range(what: &str) -> datafusion::error::DataFusionError {
    through_datafusion(SqlError::new(
        SqlState::DATETIME_FIELD_OVERFLOW,
        format!("{what} out of range"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> NaiveDateTime {
        NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S").unwrap()
    }

    /// Values of PostgreSQL 15.
    #[test]
    fn ages_are_counted_on_the_calendar() {
        assert_eq!(age(at("2024-03-01 00:00:00"), at("2023-01-15 00:00:00")), span(13, 17, 0));
        assert_eq!(age(at("2023-01-15 00:00:00"), at("2024-03-01 00:00:00")), span(-13, -17, 0));
        assert_eq!(
            age(at("2024-01-02 01:00:00"), at("2024-01-01 02:00:00")),
            span(0, 0, 23 * 3_600_000_000_000)
        );
    }

    #[test]
    fn parts_of_a_month_become_days() {
        let month = IntervalMonthDayNano { months: 1, days: 1, nanoseconds: 0 };
        assert_eq!(times(month, 1.5).unwrap(), span(1, 16, NANOSECONDS_A_DAY / 2));
        assert_eq!(times(month, -2.0).unwrap(), span(-2, -2, 0));
        assert!(times(month, 1e300).is_err());
    }

    #[test]
    fn days_are_carried_with_one_sign() {
        assert_eq!(carry(0, 35, 30).unwrap(), (1, 5));
        assert_eq!(carry(1, -5, 30).unwrap(), (0, 25));
        assert_eq!(carry(-1, 5, 30).unwrap(), (0, -25));
        assert!(carry(i32::MAX, 30, 30).is_err());
        assert!(carry(i32::MIN, -30, 30).is_err());
    }
}
