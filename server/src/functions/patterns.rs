//! PostgreSQL's patterns: those of `to_char`, and SIMILAR TO's. `time_reader` reads by those of times.
//!
//! A time pattern is cut into fields, longest name first; what is no field stands for itself. A number pattern is a row of
//! places. Left out: Roman numerals, `EEEE`, `V`, and names of months in other languages.

use chrono::{Datelike as _, NaiveDate, NaiveDateTime, Timelike as _};
use datafusion::common::Result;
use thanosql_protocol::{SqlError, SqlState};

use crate::error::through_datafusion;

pub(super) const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
pub(super) const DAYS: [&str; 7] =
    ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/// Fields of time patterns; of two that begin alike the longer one stands first.
const FIELDS: [&str; 47] = [
    "YYYY", "YYY", "YY", "IYYY", "IW", "MONTH", "Month", "month", "MON", "Mon", "mon", "MM", "MI",
    "MS", "DDD", "DD", "DAY", "Day", "day", "DY", "Dy", "dy", "D", "HH24", "HH12", "HH", "SSSS",
    "SS", "US", "A.M.", "P.M.", "a.m.", "p.m.", "AM", "PM", "am", "pm", "WW", "W", "Q", "CC", "J",
    "TZ", "tz", "OF", "FM", "Y",
];

/// A part of a time pattern.
pub(super) enum Part<'a> {
    Field {
        name: &'static str,
        fill: bool,
        ordinal: Option<&'a str>,
    },
    /// What is quoted, or a letter that is no field.
    Text(&'a str),
    /// A space or a sign.
    Separator(&'a str),
}

/// Cuts a time pattern into its parts.
pub(super) fn parts(pattern: &str) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    let mut rest = pattern;
    let mut fill = true;
    while !rest.is_empty() {
        if let Some(quoted) = rest.strip_prefix('"') {
            let end = quoted.find('"').unwrap_or(quoted.len());
            parts.push(Part::Text(&quoted[..end]));
            rest = quoted.get(end + 1..).unwrap_or_default();
            continue;
        }
        let known = FIELDS.iter().find(|name| {
            // Fields of digits may be written in lower case.
            rest.starts_with(**name)
                || (!is_word(name)
                    && rest.get(..name.len()).is_some_and(|text| text.eq_ignore_ascii_case(name)))
        });
        match known {
            Some(&"FM") => {
                fill = false;
                rest = &rest[2..];
            }
            Some(name) => {
                rest = &rest[name.len()..];
                let ordinal = rest.get(..2).filter(|text| text.eq_ignore_ascii_case("th"));
                rest = &rest[ordinal.map_or(0, str::len)..];
                parts.push(Part::Field { name, fill, ordinal });
                fill = true;
            }
            None => {
                let first = rest.chars().next().unwrap_or_default();
                let (text, after) = rest.split_at(first.len_utf8());
                let separates = first.is_ascii_whitespace() || first.is_ascii_punctuation();
                parts.push(if separates { Part::Separator(text) } else { Part::Text(text) });
                rest = after;
            }
        }
    }
    parts
}

/// Whether the field's case says how it is written.
pub(super) fn is_word(name: &str) -> bool {
    ["month", "mon", "day", "dy", "am", "pm", "a.m.", "p.m.", "tz"]
        .iter()
        .any(|word| name.eq_ignore_ascii_case(word))
}

/// A time by a pattern.
pub fn time_text(at: NaiveDateTime, pattern: &str) -> String {
    let mut out = String::new();
    for part in parts(pattern) {
        match part {
            Part::Text(text) | Part::Separator(text) => out.push_str(text),
            Part::Field { name, fill, ordinal } => {
                let text = field_text(at, name, fill);
                out.push_str(&text);
                if let Some(ordinal) = ordinal {
                    let suffix = suffix(&text);
                    out.push_str(if ordinal == "TH" { suffix.0 } else { suffix.1 });
                }
            }
        }
    }
    out
}

fn field_text(at: NaiveDateTime, name: &str, fill: bool) -> String {
    let number = |value: i64, width: usize| match fill {
        true => format!("{value:0width$}"),
        false => value.to_string(),
    };
    let word = |text: &str, width: usize| match fill {
        true => format!("{text:width$}"),
        false => text.to_string(),
    };
    let year = i64::from(at.year());
    let month = MONTHS[at.month0() as usize];
    let day = DAYS[at.weekday().num_days_from_sunday() as usize];
    let hour12 = i64::from(if at.hour().is_multiple_of(12) { 12 } else { at.hour() % 12 });
    let half = if at.hour() < 12 { "am" } else { "pm" };
    match name {
        "YYYY" => number(year, 4),
        "YYY" => number(year.rem_euclid(1000), 3),
        "YY" => number(year.rem_euclid(100), 2),
        "Y" => number(year.rem_euclid(10), 1),
        "IYYY" => number(i64::from(at.iso_week().year()), 4),
        "IW" => number(i64::from(at.iso_week().week()), 2),
        "MONTH" => word(&month.to_uppercase(), 9),
        "Month" => word(month, 9),
        "month" => word(&month.to_lowercase(), 9),
        "MON" => month[..3].to_uppercase(),
        "Mon" => month[..3].to_string(),
        "mon" => month[..3].to_lowercase(),
        "MM" => number(i64::from(at.month()), 2),
        "MI" => number(i64::from(at.minute()), 2),
        "MS" => number(i64::from(at.and_utc().timestamp_subsec_millis()), 3),
        "US" => number(i64::from(at.and_utc().timestamp_subsec_micros()), 6),
        "DDD" => number(i64::from(at.ordinal()), 3),
        "DD" => number(i64::from(at.day()), 2),
        "DAY" => word(&day.to_uppercase(), 9),
        "Day" => word(day, 9),
        "day" => word(&day.to_lowercase(), 9),
        "DY" => day[..3].to_uppercase(),
        "Dy" => day[..3].to_string(),
        "dy" => day[..3].to_lowercase(),
        "D" => number(i64::from(at.weekday().num_days_from_sunday()) + 1, 1),
        "HH24" => number(i64::from(at.hour()), 2),
        "HH12" | "HH" => number(hour12, 2),
        "SSSS" => i64::from(at.num_seconds_from_midnight()).to_string(),
        "SS" => number(i64::from(at.second()), 2),
        "AM" | "PM" => half.to_uppercase(),
        "am" | "pm" => half.to_string(),
        "A.M." | "P.M." => if at.hour() < 12 { "A.M." } else { "P.M." }.to_string(),
        "a.m." | "p.m." => if at.hour() < 12 { "a.m." } else { "p.m." }.to_string(),
        "WW" => number(i64::from(at.ordinal0() / 7) + 1, 2),
        "W" => number(i64::from((at.day() - 1) / 7) + 1, 1),
        "Q" => number(i64::from(at.month0() / 3) + 1, 1),
        "CC" => number((year - 1).div_euclid(100) + 1, 2),
        "J" => (i64::from(at.num_days_from_ce()) + 1_721_425).to_string(),
        "TZ" => "UTC".to_string(),
        "tz" => "utc".to_string(),
        "OF" => "+00".to_string(),
        _ => String::new(),
    }
}

/// ST, ND, RD or TH, in both cases.
fn suffix(number: &str) -> (&'static str, &'static str) {
    let digits = number.trim_start_matches('0').as_bytes();
    let teen = digits.len() > 1 && digits[digits.len() - 2] == b'1';
    match digits.last() {
        Some(b'1') if !teen => ("ST", "st"),
        Some(b'2') if !teen => ("ND", "nd"),
        Some(b'3') if !teen => ("RD", "rd"),
        _ => ("TH", "th"),
    }
}

/// How many days a month has.
pub fn days_of_month(year: i32, month: u32) -> u32 {
    let next = if month == 12 {
        NaiveDate::from_ymd_opt(year + 1, 1, 1)
    } else {
        NaiveDate::from_ymd_opt(year, month + 1, 1)
    };
    next.and_then(|next| next.pred_opt()).map_or(30, |last| last.day())
}

/// A number, given by its digits, by a pattern of places.
pub fn number_text(number: &str, pattern: &str) -> String {
    let upper = pattern.to_uppercase();
    let fill = !upper.contains("FM");
    let places: Vec<char> = upper.replace("FM", "").chars().collect();
    let point = places.iter().position(|place| matches!(place, '.' | 'D'));
    let (whole, fraction) = match point {
        Some(point) => (&places[..point], &places[point + 1..]),
        None => (&places[..], &[][..]),
    };
    let is_place = |place: &&char| matches!(place, '9' | '0');
    let decimals = fraction.iter().filter(is_place).count();
    let (negative, digits, decimal) = rounded(number, decimals);
    let width = whole.iter().filter(is_place).count();
    let given: Vec<char> = if digits == "0" { Vec::new() } else { digits.chars().collect() };
    let overflow = given.len() > width;
    let first_zero = whole.iter().filter(is_place).position(|place| *place == '0');

    let mut out = String::new();
    let mut place = 0;
    let mut started = false;
    let explicit = places.iter().any(|place| matches!(place, 'S'))
        || upper.contains("MI")
        || upper.contains("PR");
    let negative_sign = if negative { '-' } else { ' ' };
    let mut sign_put = explicit;
    let mut body = String::new();
    for symbol in whole {
        match symbol {
            '9' | '0' => {
                let from_right = width - place;
                let is_last = from_right == 1;
                let digit = if overflow {
                    Some('#')
                } else if from_right <= given.len() {
                    Some(given[given.len() - from_right])
                } else if first_zero.is_some_and(|zero| place >= zero) || (is_last && decimals == 0)
                {
                    Some('0')
                } else {
                    None
                };
                match digit {
                    Some(digit) => {
                        if !started && !sign_put {
                            body.push(negative_sign);
                            sign_put = true;
                        }
                        started = true;
                        body.push(digit);
                    }
                    None => body.push(' '),
                }
                place += 1;
            }
            ',' | 'G' => body.push(if started { ',' } else { ' ' }),
            'S' => body.push(if negative { '-' } else { '+' }),
            '$' | 'L' => body.push('$'),
            ' ' => body.push(' '),
            _ => {}
        }
    }
    if !sign_put {
        body.push(negative_sign);
    }
    out.push_str(&body);
    if point.is_some() {
        out.push('.');
        let mut decimal: Vec<char> =
            if overflow { vec!['#'; decimals] } else { decimal.chars().collect() };
        if !fill {
            // Trailing zeros go where the pattern has nines.
            let places: Vec<&char> = fraction.iter().filter(is_place).collect();
            while decimal.last() == Some(&'0') && places[decimal.len() - 1] == &'9' {
                decimal.pop();
            }
        }
        out.extend(decimal);
    }
    if places.last() == Some(&'S') && whole.last() != Some(&'S') {
        out.push(if negative { '-' } else { '+' });
    }
    if upper.ends_with("MI") {
        out.push(negative_sign);
    }
    if upper.ends_with("PR") {
        out = match negative {
            true => format!("<{}>", out.trim_start()),
            false => format!(" {out} "),
        };
    }
    if fill { out } else { out.chars().filter(|character| *character != ' ').collect() }
}

/// A number's sign, whole part and so many decimals, rounded half away from zero.
fn rounded(number: &str, decimals: usize) -> (bool, String, String) {
    let plain = match number.parse::<f64>() {
        Ok(value) if number.contains(['e', 'E']) => format!("{value:.17}"),
        Ok(_) | Err(_) => number.to_string(),
    };
    let (negative, plain) = match plain.strip_prefix('-') {
        Some(rest) => (true, rest.to_string()),
        None => (false, plain),
    };
    let (whole, fraction) = plain.split_once('.').unwrap_or((&plain, ""));
    let mut digits: Vec<u8> = whole.bytes().chain(fraction.bytes().take(decimals)).collect();
    digits.resize(whole.len() + decimals, b'0');
    let round_up = fraction.as_bytes().get(decimals).is_some_and(|next| *next >= b'5');
    if round_up {
        let mut at = digits.len();
        loop {
            if at == 0 {
                digits.insert(0, b'1');
                break;
            }
            at -= 1;
            if digits[at] == b'9' {
                digits[at] = b'0';
            } else {
                digits[at] += 1;
                break;
            }
        }
    }
    let text = String::from_utf8_lossy(&digits).into_owned();
    let (whole, fraction) = text.split_at(text.len() - decimals);
    let whole = whole.trim_start_matches('0');
    let is_zero = digits.iter().all(|digit| *digit == b'0');
    let whole = if whole.is_empty() { "0" } else { whole };
    (negative && !is_zero, whole.to_string(), fraction.to_string())
}

/// SIMILAR TO's pattern as a regular expression that matches the whole text.
///
/// A letter or digit after the escape character is PostgreSQL's own escape in regular expressions, such as `\d`.
///
/// # Errors
/// 22025 for an escape at the end, 2201B for a letter that means nothing.
pub fn similar_to_regex(pattern: &str, escape: Option<char>) -> Result<String> {
    let mut out = String::from("^(?:");
    let mut characters = pattern.chars();
    let mut in_class = false;
    while let Some(character) = characters.next() {
        if Some(character) == escape {
            let Some(next) = characters.next() else {
                return Err(through_datafusion(SqlError::new(
                    SqlState::INVALID_ESCAPE_SEQUENCE,
                    "the pattern ends with its escape character",
                )));
            };
            escaped(next, in_class, &mut out)?;
            continue;
        }
        match character {
            '[' => {
                in_class = true;
                out.push('[');
            }
            ']' => {
                in_class = false;
                out.push(']');
            }
            other if in_class => {
                if other == '\\' {
                    out.push('\\');
                }
                out.push(other);
            }
            '%' => out.push_str(".*"),
            '_' => out.push('.'),
            '(' => out.push_str("(?:"),
            '.' | '^' | '$' | '\\' => {
                out.push('\\');
                out.push(character);
            }
            other => out.push(other),
        }
    }
    out.push_str(")$");
    Ok(out)
}

/// A character after the escape character, as Rust's regular expressions write what PostgreSQL's mean.
fn escaped(character: char, in_class: bool, out: &mut String) -> Result<()> {
    match character {
        'd' | 'D' | 's' | 'S' | 'w' | 'W' | 'a' | 'f' | 'n' | 'r' | 't' | 'v' => {
            out.push('\\');
            out.push(character);
        }
        'b' => out.push_str("\\x08"),
        'B' => out.push_str("\\\\"),
        'e' => out.push_str("\\x1b"),
        'A' if !in_class => out.push_str("\\A"),
        'Z' if !in_class => out.push_str("\\z"),
        'm' if !in_class => out.push_str("\\b{start}"),
        'M' if !in_class => out.push_str("\\b{end}"),
        'y' if !in_class => out.push_str("\\b"),
        'Y' if !in_class => out.push_str("\\B"),
        // Code points and references to groups are left out.
        other if other.is_ascii_alphanumeric() => {
            return Err(through_datafusion(SqlError::new(
                SqlState::INVALID_REGULAR_EXPRESSION,
                "invalid regular expression: invalid escape \\ sequence",
            )));
        }
        other if other.is_ascii_punctuation() && !matches!(other, '<' | '>') => {
            out.push('\\');
            out.push(other);
        }
        other => out.push(other),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at() -> NaiveDateTime {
        NaiveDate::from_ymd_opt(2024, 1, 15).unwrap().and_hms_milli_opt(22, 31, 2, 500).unwrap()
    }

    /// Each pair was read off a PostgreSQL 15.
    #[test]
    fn times_are_written_as_postgresql_writes_them() {
        for (pattern, text) in [
            ("YYYY-MM-DD HH24:MI:SS", "2024-01-15 22:31:02"),
            ("yyyy-mm-dd hh24:mi:ss", "2024-01-15 22:31:02"),
            ("DD Mon YYYY", "15 Jan 2024"),
            ("Day, DD Month YYYY", "Monday   , 15 January   2024"),
            ("FMDay, FMDD FMMonth", "Monday, 15 January"),
            ("FMDDth \"of\" month", "15th of january  "),
            ("HH12:MI AM", "10:31 PM"),
            ("HH:MI p.m.", "10:31 p.m."),
            ("MS US", "500 500000"),
            ("Q WW IW IYYY DDD D J", "1 03 03 2024 015 2 2460325"),
            ("YY Y CC", "24 4 21"),
            ("DY Dy dy MON", "MON Mon mon JAN"),
            ("SSSS", "81062"),
        ] {
            assert_eq!(time_text(at(), pattern), text, "{pattern}");
        }
    }

    #[test]
    fn numbers_are_written_as_postgresql_writes_them() {
        for (number, pattern, text) in [
            ("125", "999", " 125"),
            ("-125.8", "999D9", "-125.8"),
            ("0.5", "FM0.00", "0.50"),
            ("1234567", "9,999,999", " 1,234,567"),
            ("1234.5", "9999.99", " 1234.50"),
            ("0.5", "9.99", "  .50"),
            ("0", "9", " 0"),
            ("12", "00009", " 00012"),
            ("1234", "99", " ##"),
            ("485", "999MI", "485 "),
            ("-485", "999MI", "485-"),
            ("-485", "FM999MI", "485-"),
            ("485", "S999", "+485"),
            ("-12.345", "99.99", "-12.35"),
            ("148.5", "FM999.990", "148.500"),
            ("148.5", "FM999.999", "148.5"),
            ("12", "9990", "   12"),
            ("-1", "9999", "   -1"),
        ] {
            assert_eq!(number_text(number, pattern), text, "{number} by {pattern}");
        }
    }

    #[test]
    fn similar_to_matches_the_whole_text() {
        let regex = |pattern| similar_to_regex(pattern, Some('\\')).unwrap();
        assert_eq!(regex("%(b|d)%"), "^(?:.*(?:b|d).*)$");
        assert_eq!(regex("a.c_"), "^(?:a\\.c.)$");
        assert_eq!(regex("\\%[^x]+"), "^(?:\\%[^x]+)$");
        assert_eq!(regex("\\d\\<[\\w-]\\b"), "^(?:\\d<[\\w-]\\x08)$");
        assert!(similar_to_regex("\\q", Some('\\')).is_err());
        assert!(similar_to_regex("a\\", Some('\\')).is_err());
    }
}
