//! The session settings that decide how values are written as text: extra_float_digits, bytea_output, DateStyle,
//! IntervalStyle and TimeZone.

use std::fmt;
use std::str::FromStr;

use arrow::array::timezone::Tz;
use chrono::{NaiveDateTime, Offset, TimeZone as _};

/// How values are written as text. The default is what a PostgreSQL server starts with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextStyle {
    /// `extra_float_digits`: above 0 the shortest form that reads back exactly, else 15 (6) plus this many digits.
    pub extra_float_digits: i32,
    /// `bytea_output`.
    pub bytea_output: ByteaOutput,
    /// The first half of `DateStyle`.
    pub date_style: DateStyle,
    /// The second half of `DateStyle`.
    pub date_order: DateOrder,
    /// `IntervalStyle`.
    pub interval_style: IntervalStyle,
    /// `TimeZone`: timestamptz is shown in it.
    pub time_zone: TimeZone,
}

impl Default for TextStyle {
    fn default() -> TextStyle {
        TextStyle {
            extra_float_digits: 1,
            bytea_output: ByteaOutput::Hex,
            date_style: DateStyle::Iso,
            date_order: DateOrder::Mdy,
            interval_style: IntervalStyle::Postgres,
            time_zone: TimeZone::utc(),
        }
    }
}

/// `bytea_output`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum ByteaOutput {
    /// `\x` and two digits a byte.
    #[default]
    Hex,
    /// Printable bytes as they are, others as three octal digits.
    Escape,
}

/// The output half of `DateStyle`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum DateStyle {
    /// `1997-12-17 07:37:16-08`
    #[default]
    Iso,
    /// `12/17/1997 07:37:16.00 PST`
    Sql,
    /// `Wed Dec 17 07:37:16 1997 PST`
    Postgres,
    /// `17.12.1997 07:37:16.00 PST`
    German,
}

/// The order half of `DateStyle`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum DateOrder {
    /// Month, day, year.
    #[default]
    Mdy,
    /// Day, month, year.
    Dmy,
    /// Year, month, day.
    Ymd,
}

/// `IntervalStyle`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum IntervalStyle {
    /// `1 year 2 mons 3 days 04:05:06`
    #[default]
    Postgres,
    /// `@ 1 year 2 mons 3 days 4 hours 5 mins 6 secs`
    PostgresVerbose,
    /// `+1-2 +3 +4:05:06`
    SqlStandard,
    /// `P1Y2M3DT4H5M6S`
    Iso8601,
}

/// A time zone: a name of the IANA database or a fixed offset.
#[derive(Clone)]
pub struct TimeZone {
    name: String,
    zone: Tz,
}

impl TimeZone {
    /// Coordinated universal time.
    pub fn utc() -> TimeZone {
        TimeZone {
            name: "UTC".to_owned(),
            zone: Tz::from_str("+00:00").expect("an offset is always understood"),
        }
    }

    /// Finds a zone by its name (`Asia/Seoul`, any case) or offset (`+09:00`).
    pub fn parse(name: &str) -> Option<TimeZone> {
        let name = name.trim();
        if ["utc", "gmt", "z", "zulu", "etc/utc"].contains(&name.to_ascii_lowercase().as_str()) {
            return Some(TimeZone { name: name.to_owned(), ..TimeZone::utc() });
        }
        let zone = Tz::from_str(name).or_else(|_| Tz::from_str(&canonical_case(name))).ok()?;
        Some(TimeZone { name: name.to_owned(), zone })
    }

    /// The name as it was given.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it is UTC, whose clock never jumps.
    pub(crate) fn is_utc(&self) -> bool {
        self.name == "UTC"
    }

    /// How far local time is ahead of UTC at this moment, in seconds.
    pub fn offset_seconds(&self, utc: NaiveDateTime) -> i32 {
        self.zone.offset_from_utc_datetime(&utc).fix().local_minus_utc()
    }

    /// The moment of a local time, in UTC. A time that the clock skips is read with the offset before the jump; of one
    /// that comes twice the first is taken, as in PostgreSQL.
    pub(crate) fn to_utc(&self, local: NaiveDateTime) -> Option<NaiveDateTime> {
        let offset = match self.zone.offset_from_local_datetime(&local) {
            chrono::LocalResult::Single(offset) | chrono::LocalResult::Ambiguous(offset, _) => {
                offset.fix().local_minus_utc()
            }
            chrono::LocalResult::None => {
                let before = local.checked_sub_signed(chrono::TimeDelta::days(1))?;
                self.offset_seconds(before)
            }
        };
        local.checked_sub_signed(chrono::TimeDelta::seconds(i64::from(offset)))
    }
}

/// `asia/seoul` as `Asia/Seoul`: the IANA names start each word with a capital.
fn canonical_case(name: &str) -> String {
    let mut result = String::with_capacity(name.len());
    let mut start = true;
    for character in name.chars() {
        if start {
            result.extend(character.to_uppercase());
        } else {
            result.extend(character.to_lowercase());
        }
        start = matches!(character, '/' | '_' | '-');
    }
    result
}

impl PartialEq for TimeZone {
    fn eq(&self, other: &TimeZone) -> bool {
        self.name == other.name
    }
}

impl Eq for TimeZone {}

impl fmt::Debug for TimeZone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}
