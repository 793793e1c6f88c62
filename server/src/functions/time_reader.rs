//! `to_date` and `to_timestamp`: times read by PostgreSQL's patterns.
//!
//! As in PostgreSQL the pattern leads and the text is taken as it comes. A separator stands for any other or for none, a letter for any character; spaces
//! around fields do not count; a number takes all its digits unless the next field is a number, too; and where the text ends, the fields that are left keep
//! their defaults, the first day of the year 1 BC. Left out: weeks, centuries, Julian days, eras, time zones.

use chrono::{NaiveDate, NaiveDateTime};
use thanosql_protocol::{SqlError, SqlState};

use super::patterns::{DAYS, MONTHS, Part, is_word, parts};

/// Reads a time by a pattern.
///
/// # Errors
/// 22007 for a text that does not fit, 22008 for a field out of range, 0A000 for a field that can only be written.
pub fn read_time(text: &str, pattern: &str) -> Result<NaiveDateTime, SqlError> {
    let parts = parts(pattern);
    let mut reader = Reader { rest: text, ahead: 0 };
    let mut fields = Fields::default();
    for (index, part) in parts.iter().enumerate() {
        if index == 0 {
            reader.skip_spaces();
        }
        if reader.rest.is_empty() {
            break;
        }
        match part {
            Part::Separator(_) => reader.separator(),
            Part::Text(text) => text.chars().for_each(|_| reader.letter()),
            Part::Field { name, fill, ordinal } => {
                reader.skip_spaces();
                if reader.rest.is_empty() {
                    break;
                }
                let ends = ordinal.is_some() || ends_number(parts.get(index + 1));
                fields.read(&mut reader, name, !fill || ends)?;
                if ordinal.is_some() {
                    reader.skip(2);
                }
                reader.ahead = 0;
                reader.skip_spaces();
            }
        }
    }
    fields.time(text)
}

/// Whether a number's digits end before a part of the pattern, so that it need not be as long as its field.
fn ends_number(next: Option<&Part<'_>>) -> bool {
    match next {
        Some(Part::Field { name, .. }) => is_word(name),
        Some(Part::Text(text) | Part::Separator(text)) => {
            !text.starts_with(|first: char| first.is_ascii_digit())
        }
        None => true,
    }
}

/// A text on its way through a pattern.
struct Reader<'a> {
    rest: &'a str,
    /// How many more characters were skipped than the pattern has.
    ahead: i32,
}

impl Reader<'_> {
    fn skip(&mut self, count: usize) {
        let end = self.rest.char_indices().nth(count).map_or(self.rest.len(), |(end, _)| end);
        self.rest = &self.rest[end..];
    }

    fn skip_spaces(&mut self) {
        while self.rest.starts_with(|first: char| first.is_ascii_whitespace()) {
            self.skip(1);
            self.ahead = self.ahead.saturating_add(1);
        }
    }

    /// A separator of the pattern: any one of the text, or none.
    fn separator(&mut self) {
        let is_separator =
            |first: char| first.is_ascii_whitespace() || first.is_ascii_punctuation();
        match self.rest.starts_with(is_separator) {
            true => self.skip(1),
            false => self.ahead = self.ahead.saturating_sub(1),
        }
    }

    /// Another character of the pattern: any one of the text, unless more were skipped already.
    fn letter(&mut self) {
        match self.ahead > 0 {
            true => self.ahead -= 1,
            false => self.skip(1),
        }
    }

    /// A number and how many characters it took: all its digits, or as many as its field is long.
    fn number(
        &mut self,
        name: &str,
        most: usize,
        to_its_end: bool,
    ) -> Result<(i64, usize), SqlError> {
        let left = self.rest.chars().count();
        if !to_its_end && left < most {
            return Err(malformed(format!(
                "source string too short for \"{name}\" formatting field"
            ))
            .with_detail(format!("Field requires {most} characters, but only {left} remain."))
            .with_hint(
                "If your source string is not fixed-width, try using the \"FM\" modifier.",
            ));
        }
        let limit = if to_its_end { usize::MAX } else { most };
        let sign = usize::from(self.rest.starts_with(['-', '+']));
        let digits = self.rest[sign..].bytes().take(limit.saturating_sub(sign));
        let digits = digits.take_while(u8::is_ascii_digit).count();
        let length = if digits == 0 { 0 } else { sign + digits };
        let (number, rest) = self.rest.split_at(length);
        if length == 0 || (!to_its_end && length < most) {
            let shown: String = self.rest.chars().take(most).collect();
            let error = malformed(format!("invalid value \"{shown}\" for \"{name}\""));
            return Err(match length {
                0 => error.with_detail("Value must be an integer."),
                _ => error.with_detail(format!(
                    "Field requires {most} characters, but only {length} could be parsed."
                )),
            });
        }
        self.rest = rest;
        let number: i32 = number.parse().map_err(|_| {
            out_of_range(format!("value for \"{name}\" in source string is out of range"))
                .with_detail(format!("Value must be in the range {} to {}.", i32::MIN, i32::MAX))
        })?;
        Ok((i64::from(number), length))
    }

    /// Which of the words comes next, in any case.
    fn word<const N: usize>(&mut self, name: &str, words: [&str; N]) -> Result<usize, SqlError> {
        let found = words.iter().position(|word| {
            self.rest.get(..word.len()).is_some_and(|next| next.eq_ignore_ascii_case(word))
        });
        let Some(found) = found else {
            return Err(malformed(format!("invalid value \"{}\" for \"{name}\"", self.rest))
                .with_detail(
                    "The given value did not match any of the allowed values for this field.",
                ));
        };
        self.rest = &self.rest[words[found].len()..];
        Ok(found)
    }
}

/// What was read. As in PostgreSQL zero is a field that was not given.
#[derive(Default)]
struct Fields {
    year: i64,
    month: i64,
    day: i64,
    day_of_year: i64,
    hour: i64,
    minute: i64,
    second: i64,
    micros: i64,
    /// Whether hours are counted to twelve, twice a day.
    is_clock: bool,
    afternoon: bool,
}

impl Fields {
    fn read(
        &mut self,
        reader: &mut Reader<'_>,
        name: &str,
        to_its_end: bool,
    ) -> Result<(), SqlError> {
        let mut number = |most| reader.number(name, most, to_its_end);
        match name {
            "YYYY" | "IYYY" => self.year = number(4)?.0,
            "YYY" | "YY" | "Y" => {
                let (year, length) = number(name.len())?;
                self.year = if length < 4 { near_2020(year) } else { year };
            }
            "MM" => self.month = number(2)?.0,
            "DD" => self.day = number(2)?.0,
            "DDD" => self.day_of_year = number(3)?.0,
            "HH24" => self.hour = number(2)?.0,
            "HH12" | "HH" => {
                self.hour = number(2)?.0;
                self.is_clock = true;
            }
            "MI" => self.minute = number(2)?.0,
            "SS" => self.second = number(2)?.0,
            // They are digits after the point: 5 is half a second, as 500 is.
            "MS" => {
                let (value, length) = number(3)?;
                self.micros += value * power_of_ten(3, length) * 1000;
            }
            "US" => {
                let (value, length) = number(6)?;
                self.micros += value * power_of_ten(6, length);
            }
            "AM" | "PM" | "am" | "pm" => self.set_half(reader.word(name, ["am", "pm"])?),
            "A.M." | "P.M." | "a.m." | "p.m." => {
                self.set_half(reader.word(name, ["a.m.", "p.m."])?);
            }
            "MONTH" | "Month" | "month" => self.month = reader.word(name, MONTHS)? as i64 + 1,
            "MON" | "Mon" | "mon" => {
                self.month = reader.word(name, MONTHS.map(|month| &month[..3]))? as i64 + 1;
            }
            // The date says which day it is.
            "DAY" | "Day" | "day" => _ = reader.word(name, DAYS)?,
            "DY" | "Dy" | "dy" => _ = reader.word(name, DAYS.map(|day| &day[..3]))?,
            _ => {
                return Err(SqlError::new(
                    SqlState::FEATURE_NOT_SUPPORTED,
                    format!("\"{name}\" is not supported in a pattern to read by"),
                ));
            }
        }
        Ok(())
    }

    fn set_half(&mut self, half: usize) {
        self.is_clock = true;
        self.afternoon = half == 1;
    }

    fn time(&self, text: &str) -> Result<NaiveDateTime, SqlError> {
        let hour = match self.is_clock {
            true if !(1..=12).contains(&self.hour) => {
                return Err(malformed(format!(
                    "hour \"{}\" is invalid for the 12-hour clock",
                    self.hour
                ))
                .with_hint("Use the 24-hour clock, or give an hour between 1 and 12."));
            }
            true => self.hour % 12 + if self.afternoon { 12 } else { 0 },
            false => self.hour,
        };
        // Year 0 is 1 BC, and -1 was written for it.
        let year = if self.year < 0 { self.year + 1 } else { self.year };
        let given = |field: i64| if field == 0 { 1 } else { field };
        let (month, day) = (given(self.month), given(self.day));
        let by_ordinal = self.day_of_year != 0 && (month <= 1 || day <= 1);
        if by_ordinal && self.year == 0 {
            return Err(malformed("cannot calculate day of year without year information"));
        }
        let narrow = |value: i64| u32::try_from(value).ok();
        let time = || {
            let year = i32::try_from(year).ok()?;
            let date = match by_ordinal {
                true => NaiveDate::from_yo_opt(year, narrow(self.day_of_year)?)?,
                false => NaiveDate::from_ymd_opt(year, narrow(month)?, narrow(day)?)?,
            };
            // Beyond a second stands what chrono takes for a leap second.
            let micros = narrow(self.micros).filter(|micros| *micros < 1_000_000)?;
            date.and_hms_micro_opt(
                narrow(hour)?,
                narrow(self.minute)?,
                narrow(self.second)?,
                micros,
            )
        };
        time()
            .ok_or_else(|| out_of_range(format!("date/time field value out of range: \"{text}\"")))
    }
}

/// A year of fewer than four digits as the nearest one to 2020.
fn near_2020(year: i64) -> i64 {
    match year {
        ..70 => year + 2000,
        70..100 => year + 1900,
        100..520 => year + 2000,
        520..1000 => year + 1000,
        _ => year,
    }
}

fn power_of_ten(digits: usize, given: usize) -> i64 {
    (given..digits).fold(1, |power, _| power * 10)
}

fn malformed(message: impl Into<String>) -> SqlError {
    SqlError::new(SqlState::INVALID_DATETIME_FORMAT, message)
}

fn out_of_range(message: String) -> SqlError {
    SqlError::new(SqlState::DATETIME_FIELD_OVERFLOW, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, pattern: &str) -> String {
        read_time(text, pattern).map(|at| at.to_string()).unwrap()
    }

    #[test]
    fn times_are_read() {
        assert_eq!(read("2024-01-15", "YYYY-MM-DD"), "2024-01-15 00:00:00");
        assert_eq!(read("20240115 2231", "YYYYMMDD HH24MI"), "2024-01-15 22:31:00");
        assert_eq!(read("15 January 2024", "DD Month YYYY"), "2024-01-15 00:00:00");
        assert_eq!(read("1/5/24 10:31 PM", "MM/DD/YY HH12:MI AM"), "2024-01-05 22:31:00");
        assert_eq!(read("2024 12:30", "YYYY HH12:MI"), "2024-01-01 00:30:00");
        assert_eq!(read("  2024 / 1 ,5", "YYYY-MM-DD"), "2024-01-05 00:00:00");
        assert_eq!(read("2nd of 2 2024", "DDth \"of\" MM YYYY"), "2024-02-02 00:00:00");
        assert_eq!(read("366 2024", "DDD YYYY"), "2024-12-31 00:00:00");
        assert_eq!(read("519", "YYY"), "2519-01-01 00:00:00");
    }

    #[test]
    fn parts_of_a_second_are_digits_after_the_point() {
        let pattern = "YYYY SS.MS";
        for (text, micros) in [("5", 500_000), ("05", 50_000), ("050", 50_000), ("123", 123_000)] {
            let at = read_time(&format!("2024 1.{text}"), pattern).unwrap();
            assert_eq!(at.and_utc().timestamp_subsec_micros(), micros, "{text}");
        }
        assert_eq!(read("2024 1.25", "YYYY SS.US"), "2024-01-01 00:00:01.250");
    }

    #[test]
    fn fields_that_the_text_lacks_keep_their_defaults() {
        assert_eq!(read("2024", "YYYY-MM-DD HH24:MI:SS"), "2024-01-01 00:00:00");
        assert_eq!(read("2024-05 ", "YYYY-MM-DD"), "2024-05-01 00:00:00");
        assert_eq!(read("", "YYYY"), "0000-01-01 00:00:00");
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let state = |text, pattern| read_time(text, pattern).unwrap_err().code;
        for (text, pattern) in [
            ("2024-13-15", "YYYY-MM-DD"),
            ("2023-02-29", "YYYY-MM-DD"),
            ("99999999999999999999", "YYYY"),
            ("2147483647", "YYYY"),
            ("2024 25", "YYYY HH24"),
            ("2024 1.1000", "YYYY SS.MS"),
            ("2024 1.2147483647", "YYYY SS.MS"),
            ("2023 366", "YYYY DDD"),
        ] {
            assert_eq!(state(text, pattern), SqlState::DATETIME_FIELD_OVERFLOW, "{text}");
        }
        for (text, pattern) in [
            ("x", "YYYY"),
            ("202", "YYYYMM"),
            ("2024 13", "YYYY HH12"),
            ("Jux 2024", "Mon YYYY"),
            ("1 É", "DD AM"),
        ] {
            assert_eq!(state(text, pattern), SqlState::INVALID_DATETIME_FORMAT, "{text}");
        }
        assert_eq!(state("2024", "WW"), SqlState::FEATURE_NOT_SUPPORTED);
    }
}
