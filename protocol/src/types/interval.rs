//! Intervals: months, days and microseconds, as PostgreSQL keeps them, in its four styles and back.

use std::fmt::Write;

use bytes::{BufMut, BytesMut};

use super::calendar::MICROS_PER_SECOND;
use super::style::IntervalStyle;
use super::text::write_fraction;

const MICROS_PER_MINUTE: i64 = 60 * MICROS_PER_SECOND;
const MICROS_PER_HOUR: i64 = 60 * MICROS_PER_MINUTE;

/// PostgreSQL's interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Interval {
    pub(crate) months: i32,
    pub(crate) days: i32,
    pub(crate) micros: i64,
}

/// An interval's fields, each with its own sign.
struct Fields {
    years: i64,
    months: i64,
    days: i64,
    hours: i64,
    minutes: i64,
    seconds: i64,
    fraction: i64,
}

impl Fields {
    fn of(interval: Interval) -> Fields {
        Fields {
            years: i64::from(interval.months / 12),
            months: i64::from(interval.months % 12),
            days: i64::from(interval.days),
            hours: interval.micros / MICROS_PER_HOUR,
            minutes: interval.micros / MICROS_PER_MINUTE % 60,
            seconds: interval.micros / MICROS_PER_SECOND % 60,
            fraction: interval.micros % MICROS_PER_SECOND,
        }
    }

    fn has_seconds(&self) -> bool {
        self.seconds != 0 || self.fraction != 0
    }

    fn has_time(&self) -> bool {
        self.hours != 0 || self.minutes != 0 || self.has_seconds()
    }

    fn time_is_negative(&self) -> bool {
        self.hours < 0 || self.minutes < 0 || self.seconds < 0 || self.fraction < 0
    }
}

/// Writes an interval in one of PostgreSQL's styles.
pub(crate) fn write_interval(interval: Interval, style: IntervalStyle, out: &mut BytesMut) {
    let fields = Fields::of(interval);
    match style {
        IntervalStyle::Postgres => write_postgres(&fields, out),
        IntervalStyle::PostgresVerbose => write_verbose(&fields, out),
        IntervalStyle::SqlStandard => write_sql_standard(&fields, out),
        IntervalStyle::Iso8601 => write_iso8601(&fields, out),
    }
}

fn write_seconds(fields: &Fields, fill: bool, out: &mut BytesMut) {
    let seconds = fields.seconds.abs();
    let _ = if fill { write!(out, "{seconds:02}") } else { write!(out, "{seconds}") };
    write_fraction(fields.fraction.abs(), out);
}

fn write_clock(fields: &Fields, out: &mut BytesMut, fill_hours: bool) {
    let (hours, minutes) = (fields.hours.abs(), fields.minutes.abs());
    let _ = if fill_hours {
        write!(out, "{hours:02}:{minutes:02}:")
    } else {
        write!(out, "{hours}:{minutes:02}:")
    };
    write_seconds(fields, true, out);
}

/// `1 year 2 mons -3 days +04:05:06.7`
fn write_postgres(fields: &Fields, out: &mut BytesMut) {
    let mut first = true;
    let mut after_negative = false;
    for (value, unit) in [(fields.years, "year"), (fields.months, "mon"), (fields.days, "day")] {
        if value == 0 {
            continue;
        }
        let space = if first { "" } else { " " };
        let plus = if after_negative && value > 0 { "+" } else { "" };
        let plural = if value == 1 { "" } else { "s" };
        let _ = write!(out, "{space}{plus}{value} {unit}{plural}");
        after_negative = value < 0;
        first = false;
    }
    if first || fields.has_time() {
        if !first {
            out.put_u8(b' ');
        }
        if fields.time_is_negative() {
            out.put_u8(b'-');
        } else if after_negative {
            out.put_u8(b'+');
        }
        write_clock(fields, out, true);
    }
}

/// `@ 1 year 2 mons -3 days 4 hours 5 mins 6.7 secs ago`
fn write_verbose(fields: &Fields, out: &mut BytesMut) {
    out.put_u8(b'@');
    let mut zero = true;
    let mut ago = false;
    for (value, unit) in [
        (fields.years, "year"),
        (fields.months, "mon"),
        (fields.days, "day"),
        (fields.hours, "hour"),
        (fields.minutes, "min"),
    ] {
        if value == 0 {
            continue;
        }
        let shown = if zero {
            ago = value < 0;
            value.abs()
        } else if ago {
            -value
        } else {
            value
        };
        let plural = if shown == 1 { "" } else { "s" };
        let _ = write!(out, " {shown} {unit}{plural}");
        zero = false;
    }
    if fields.has_seconds() {
        out.put_u8(b' ');
        if fields.seconds < 0 || fields.fraction < 0 {
            if zero {
                ago = true;
            } else if !ago {
                out.put_u8(b'-');
            }
        } else if ago {
            out.put_u8(b'-');
        }
        write_seconds(fields, false, out);
        let plural = if fields.seconds.abs() != 1 || fields.fraction != 0 { "s" } else { "" };
        let _ = write!(out, " sec{plural}");
        zero = false;
    }
    if zero {
        out.put_slice(b" 0");
    }
    if ago {
        out.put_slice(b" ago");
    }
}

/// `+1-2 -3 +4:05:06.7`, or shorter where the parts agree.
fn write_sql_standard(fields: &Fields, out: &mut BytesMut) {
    let all = [
        fields.years,
        fields.months,
        fields.days,
        fields.hours,
        fields.minutes,
        fields.seconds,
        fields.fraction,
    ];
    let negative = all.iter().any(|value| *value < 0);
    let positive = all.iter().any(|value| *value > 0);
    let year_month = fields.years != 0 || fields.months != 0;
    let day_time = fields.days != 0 || fields.has_time();
    if !negative && !positive {
        out.put_u8(b'0');
    } else if (negative && positive) || (year_month && day_time) {
        let sign = |negative| if negative { '-' } else { '+' };
        let _ = write!(
            out,
            "{}{}-{} {}{} {}",
            sign(fields.years < 0 || fields.months < 0),
            fields.years.abs(),
            fields.months.abs(),
            sign(fields.days < 0),
            fields.days.abs(),
            sign(fields.time_is_negative()),
        );
        write_clock(fields, out, false);
    } else {
        if negative {
            out.put_u8(b'-');
        }
        if year_month {
            let _ = write!(out, "{}-{}", fields.years.abs(), fields.months.abs());
        } else {
            if fields.days != 0 {
                let _ = write!(out, "{} ", fields.days.abs());
            }
            write_clock(fields, out, false);
        }
    }
}

/// `P1Y2M-3DT4H5M6.7S`
fn write_iso8601(fields: &Fields, out: &mut BytesMut) {
    out.put_u8(b'P');
    let start = out.len();
    let part = |value: i64, unit: char, out: &mut BytesMut| {
        if value != 0 {
            let _ = write!(out, "{value}{unit}");
        }
    };
    part(fields.years, 'Y', out);
    part(fields.months, 'M', out);
    part(fields.days, 'D', out);
    if fields.has_time() {
        out.put_u8(b'T');
        part(fields.hours, 'H', out);
        part(fields.minutes, 'M', out);
        if fields.has_seconds() {
            if fields.seconds < 0 || fields.fraction < 0 {
                out.put_u8(b'-');
            }
            write_seconds(fields, false, out);
            out.put_u8(b'S');
        }
    }
    if out.len() == start {
        out.put_slice(b"T0S");
    }
}

/// Adds up the parts of an interval's text. Fractions of a unit go down to smaller ones: half a month is 15 days, half a
/// day 12 hours.
#[derive(Default)]
struct Sum {
    months: i64,
    days: i64,
    micros: i128,
}

impl Sum {
    fn add(&mut self, number: Number, unit: &str) -> Option<()> {
        match unit {
            "microsecond" | "us" | "usec" | "microsec" => self.add_micros(number, 1),
            "millisecond" | "ms" | "msec" | "millisec" => self.add_micros(number, 1000),
            "second" | "sec" | "s" => self.add_micros(number, MICROS_PER_SECOND),
            "minute" | "min" | "m" => self.add_micros(number, MICROS_PER_MINUTE),
            "hour" | "hr" | "h" => self.add_micros(number, MICROS_PER_HOUR),
            "day" | "d" => self.add_days(number, 1),
            "week" | "w" => self.add_days(number, 7),
            "month" | "mon" => self.add_months(number, 1),
            "year" | "yr" | "y" => self.add_months(number, 12),
            "decade" | "dec" => self.add_months(number, 120),
            "century" | "cent" | "c" => self.add_months(number, 1200),
            "millennium" | "mil" => self.add_months(number, 12_000),
            _ => None,
        }
    }

    fn add_micros(&mut self, number: Number, unit: i64) -> Option<()> {
        self.micros += i128::from(number.whole) * i128::from(unit)
            + (number.fraction * unit as f64).round() as i128;
        Some(())
    }

    fn add_days(&mut self, number: Number, unit: i64) -> Option<()> {
        let days = number.fraction * unit as f64;
        self.days = self
            .days
            .checked_add(number.whole.checked_mul(unit)?)?
            .checked_add(days.trunc() as i64)?;
        self.micros += (days.fract() * 24.0 * MICROS_PER_HOUR as f64).round() as i128;
        Some(())
    }

    fn add_months(&mut self, number: Number, unit: i64) -> Option<()> {
        let months = number.fraction * unit as f64;
        self.months = self
            .months
            .checked_add(number.whole.checked_mul(unit)?)?
            .checked_add(months.trunc() as i64)?;
        self.add_days(
            Number {
                whole: 0,
                fraction: if unit == 1 { months.fract() * 30.0 } else { 0.0 },
                negative: number.negative,
            },
            1,
        )
    }

    fn finish(self) -> Option<Interval> {
        Some(Interval {
            months: i32::try_from(self.months).ok()?,
            days: i32::try_from(self.days).ok()?,
            micros: i64::try_from(self.micros).ok()?,
        })
    }
}

/// A decimal number in its whole part and its fraction, both with its sign.
#[derive(Clone, Copy)]
struct Number {
    whole: i64,
    fraction: f64,
    negative: bool,
}

impl Number {
    fn parse(text: &str) -> Option<Number> {
        let (negative, digits) = match text.as_bytes().first()? {
            b'-' => (true, &text[1..]),
            b'+' => (false, &text[1..]),
            _ => (false, text),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let all_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if (whole.is_empty() && fraction.is_empty()) || !all_digits(whole) || !all_digits(fraction)
        {
            return None;
        }
        let sign = if negative { -1 } else { 1 };
        let whole: i64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        let fraction: f64 =
            if fraction.is_empty() { 0.0 } else { format!("0.{fraction}").parse().ok()? };
        Some(Number { whole: sign * whole, fraction: f64::from(sign as i32) * fraction, negative })
    }
}

/// Reads an interval: PostgreSQL's own forms (`1 year 2 mons 3 days 04:05:06`, `@ 1 hour ago`), the SQL standard's
/// (`1-2 3 4:05:06`) and ISO 8601's (`P1Y2M3DT4H5M6S`). `None` where it is malformed or out of range.
pub(crate) fn parse_interval(text: &str) -> Option<Interval> {
    let text = text.trim().to_ascii_lowercase();
    if let Some(rest) = text.strip_prefix('p') {
        return parse_iso8601(rest);
    }
    let mut sum = Sum::default();
    let mut words: Vec<&str> = text.strip_prefix('@').unwrap_or(&text).split_whitespace().collect();
    let ago = words.last() == Some(&"ago");
    if ago {
        words.pop();
    }
    if words.is_empty() {
        return None;
    }
    // The standard's form gives its leading sign to everything that has none of its own.
    let mut words = words.into_iter().peekable();
    while let Some(word) = words.next() {
        if word.contains(':') {
            add_clock(&mut sum, word)?;
            continue;
        }
        if let Some((years, months)) = year_month(word) {
            sum.add(years, "year")?;
            sum.add(months, "month")?;
            continue;
        }
        // `1h30m` is one word of several parts.
        let mut parts = word;
        while !parts.is_empty() {
            let is_letter = |character: char| character.is_ascii_alphabetic();
            let digits_end = parts.find(is_letter).unwrap_or(parts.len());
            let (digits, after) = parts.split_at(digits_end);
            let unit_end = after.find(|character| !is_letter(character)).unwrap_or(after.len());
            let (unit, rest) = after.split_at(unit_end);
            let number = Number::parse(digits)?;
            let unit = match (unit, words.peek()) {
                // A number before a time is days; a lone one is seconds.
                ("", Some(next)) if next.starts_with(is_letter) => words.next().unwrap_or_default(),
                ("", Some(next)) if next.contains(':') => "day",
                ("", Some(_)) => return None,
                ("", None) => "second",
                (unit, _) => unit,
            };
            sum.add(number, singular(unit))?;
            parts = rest;
        }
    }
    if ago {
        sum = Sum { months: -sum.months, days: -sum.days, micros: -sum.micros };
    }
    sum.finish()
}

fn singular(unit: &str) -> &str {
    match unit {
        "s" | "ms" | "us" => unit,
        "centuries" => "century",
        "millennia" | "mils" => "millennium",
        other => other.strip_suffix('s').unwrap_or(other),
    }
}

/// `1-2` and `-1-2` as years and months.
fn year_month(word: &str) -> Option<(Number, Number)> {
    let dash = word.get(1..)?.find('-')? + 1;
    let years = Number::parse(&word[..dash])?;
    let mut months = Number::parse(word.get(dash + 1..)?)?;
    if years.fraction != 0.0 || months.fraction != 0.0 || months.negative {
        return None;
    }
    if years.negative {
        months.whole = -months.whole;
    }
    Some((years, months))
}

/// `04:05`, `04:05:06.7`, `-04:05:06`.
fn add_clock(sum: &mut Sum, word: &str) -> Option<()> {
    let (negative, digits) = match word.as_bytes().first()? {
        b'-' => (true, &word[1..]),
        b'+' => (false, &word[1..]),
        _ => (false, word),
    };
    let mut parts = digits.split(':');
    let hours = Number::parse(parts.next()?)?;
    let minutes = Number::parse(parts.next()?)?;
    let seconds = parts
        .next()
        .map_or(Some(Number { whole: 0, fraction: 0.0, negative: false }), Number::parse)?;
    let sane = parts.next().is_none()
        && hours.fraction == 0.0
        && minutes.fraction == 0.0
        && !hours.negative
        && (0..60).contains(&minutes.whole)
        && (0..=60).contains(&seconds.whole)
        && !minutes.negative
        && !seconds.negative;
    if !sane {
        return None;
    }
    let mut clock = Sum::default();
    clock.add_micros(hours, MICROS_PER_HOUR)?;
    clock.add_micros(minutes, MICROS_PER_MINUTE)?;
    clock.add_micros(seconds, MICROS_PER_SECOND)?;
    sum.micros += if negative { -clock.micros } else { clock.micros };
    Some(())
}

fn parse_iso8601(text: &str) -> Option<Interval> {
    let mut sum = Sum::default();
    let (date, time) = text.split_once('t').map_or((text, None), |(date, time)| (date, Some(time)));
    if date.is_empty() && time.is_none_or(str::is_empty) {
        return None;
    }
    let mut add_all = |mut text: &str, units: &[(char, &str)]| {
        while !text.is_empty() {
            let end = text.find(|character: char| character.is_ascii_alphabetic())?;
            let number = Number::parse(&text[..end])?;
            let designator = text[end..].chars().next()?;
            let (_, unit) = units.iter().find(|(known, _)| *known == designator)?;
            sum.add(number, unit)?;
            text = &text[end + designator.len_utf8()..];
        }
        Some(())
    };
    add_all(date, &[('y', "year"), ('m', "month"), ('w', "week"), ('d', "day")])?;
    if let Some(time) = time {
        if time.is_empty() {
            return None;
        }
        add_all(time, &[('h', "hour"), ('m', "minute"), ('s', "second")])?;
    }
    sum.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(interval: Interval, style: IntervalStyle) -> String {
        let mut out = BytesMut::new();
        write_interval(interval, style, &mut out);
        String::from_utf8(out.to_vec()).expect("ASCII")
    }

    /// What PostgreSQL prints with each setting of IntervalStyle.
    #[test]
    fn four_styles() {
        let check = |months, days, micros, expected: [&str; 4]| {
            let interval = Interval { months, days, micros };
            let styles = [
                IntervalStyle::Postgres,
                IntervalStyle::PostgresVerbose,
                IntervalStyle::SqlStandard,
                IntervalStyle::Iso8601,
            ];
            for (style, expected) in styles.into_iter().zip(expected) {
                assert_eq!(shown(interval, style), expected, "{style:?}");
            }
        };
        let clock = 4 * MICROS_PER_HOUR + 5 * MICROS_PER_MINUTE + 6 * MICROS_PER_SECOND;
        check(0, 0, 0, ["00:00:00", "@ 0", "0", "PT0S"]);
        check(14, 0, 0, ["1 year 2 mons", "@ 1 year 2 mons", "1-2", "P1Y2M"]);
        check(
            0,
            3,
            clock,
            ["3 days 04:05:06", "@ 3 days 4 hours 5 mins 6 secs", "3 4:05:06", "P3DT4H5M6S"],
        );
        check(
            -14,
            3,
            -clock,
            [
                "-1 years -2 mons +3 days -04:05:06",
                "@ 1 year 2 mons -3 days 4 hours 5 mins 6 secs ago",
                "-1-2 +3 -4:05:06",
                "P-1Y-2M3DT-4H-5M-6S",
            ],
        );
        check(0, 0, 1_500_000, ["00:00:01.5", "@ 1.5 secs", "0:00:01.5", "PT1.5S"]);
        check(0, -1, 0, ["-1 days", "@ 1 day ago", "-1 0:00:00", "P-1D"]);
        check(0, 0, 100 * MICROS_PER_HOUR, ["100:00:00", "@ 100 hours", "100:00:00", "PT100H"]);
    }

    #[test]
    fn every_style_is_read_back() {
        for interval in [
            Interval { months: 14, days: 3, micros: 4_000_005 },
            Interval { months: 0, days: 0, micros: 0 },
            Interval { months: 1, days: 0, micros: 0 },
            Interval { months: 0, days: 1, micros: -1 },
            Interval { months: -14, days: 3, micros: -3_600_000_000 },
            Interval { months: 0, days: 0, micros: 360_000_000_001 },
        ] {
            for style in
                [IntervalStyle::Postgres, IntervalStyle::PostgresVerbose, IntervalStyle::Iso8601]
            {
                let text = shown(interval, style);
                assert_eq!(parse_interval(&text), Some(interval), "{text}");
            }
        }
    }

    #[test]
    fn forms_that_people_write() {
        let check = |text: &str, months, days, micros| {
            assert_eq!(parse_interval(text), Some(Interval { months, days, micros }), "{text}");
        };
        check("1 day", 0, 1, 0);
        check("2 weeks", 0, 14, 0);
        check("1.5 months", 1, 15, 0);
        check("1 month 1.5 days", 1, 1, 12 * MICROS_PER_HOUR);
        check("90 minutes", 0, 0, 90 * MICROS_PER_MINUTE);
        check("1h30m", 0, 0, 90 * MICROS_PER_MINUTE);
        check("10 ms", 0, 0, 10_000);
        check("5", 0, 0, 5 * MICROS_PER_SECOND);
        check("3 4:05", 0, 3, 4 * MICROS_PER_HOUR + 5 * MICROS_PER_MINUTE);
        check("1-2", 14, 0, 0);
        check("-1-2", -14, 0, 0);
        check("1 year ago", -12, 0, 0);
        check("1 century", 1200, 0, 0);
        for malformed in
            ["", "x", "1 parsec", "day", "1:2:3:4", "1:70", "P", "PT", "P1", "ago", "1 2 3"]
        {
            assert_eq!(parse_interval(malformed), None, "{malformed}");
        }
    }
}
