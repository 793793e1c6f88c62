//! A session's run-time settings: what SET, RESET and SHOW act on.
//!
//! One table names every setting with its default, its check and whether clients are told of changes. Settings that
//! change what the server does (statement_timeout, the styles of text, search_path, TimeZone) are read by their own
//! accessors; the others are kept because clients set them and read them back, and they have one meaning here whatever their value:
//! each of those says so in its description.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use thanosql_protocol::types::{
    ByteaOutput, DateOrder, DateStyle, IntervalStyle, TextStyle, TimeZone,
};
use thanosql_protocol::{SqlError, SqlState};

use crate::search::DEFAULT_BREADTH;

/// What values a setting takes.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Bool,
    Integer {
        min: i64,
        max: i64,
    },
    /// Milliseconds when given without a unit.
    Milliseconds,
    Text,
    OneOf(&'static [&'static str]),
    /// Cannot be changed.
    Fixed,
}

/// One setting.
#[derive(Debug)]
struct Definition {
    name: &'static str,
    kind: Kind,
    default: &'static str,
    /// Whether clients hear of changes (ParameterStatus).
    reported: bool,
    description: &'static str,
}

/// The version of PostgreSQL whose behaviour clients may expect.
pub const SERVER_VERSION: &str = "15.0 (ThanoSQL 0.1.0)";

const DEFINITIONS: &[Definition] = &[
    reported("application_name", Kind::Text, "", "The client's name for itself."),
    silent("bytea_output", Kind::OneOf(&["hex", "escape"]), "hex", "How bytea is written as text."),
    reported(
        "client_encoding",
        Kind::OneOf(&["UTF8", "UTF-8", "utf8", "utf-8", "unicode", "UNICODE"]),
        "UTF8",
        "Always UTF8.",
    ),
    silent(
        "client_min_messages",
        Kind::OneOf(&[
            "debug5", "debug4", "debug3", "debug2", "debug1", "log", "notice", "warning", "error",
        ]),
        "notice",
        "The least severe notices that are sent.",
    ),
    reported(
        "DateStyle",
        Kind::Text,
        "ISO, MDY",
        "How dates are written, and in which order their parts are read.",
    ),
    silent(
        "default_transaction_isolation",
        Kind::OneOf(&["serializable", "repeatable read", "read committed", "read uncommitted"]),
        "repeatable read",
        "Every transaction reads one snapshot.",
    ),
    silent(
        "default_transaction_read_only",
        Kind::Bool,
        "off",
        "Whether new transactions refuse changes.",
    ),
    silent(
        "enable_indexscan",
        Kind::Bool,
        "on",
        "Whether a search may use an index over vectors; a key is looked up in any case.",
    ),
    silent(
        "extra_float_digits",
        Kind::Integer { min: -15, max: 3 },
        "1",
        "Above 0 floats are written in their shortest exact form.",
    ),
    silent(
        "hnsw.ef_search",
        Kind::Integer { min: 1, max: 1000 },
        "40",
        "Vectors in view of a search by an index: the more, the surer and the slower.",
    ),
    silent(
        "idle_in_transaction_session_timeout",
        Kind::Milliseconds,
        "0",
        "Kept for clients; idle transactions are not ended.",
    ),
    reported("integer_datetimes", Kind::Fixed, "on", "Timestamps are integers."),
    reported(
        "IntervalStyle",
        Kind::OneOf(&["postgres", "postgres_verbose", "sql_standard", "iso_8601"]),
        "postgres",
        "How intervals are written.",
    ),
    reported("is_superuser", Kind::Fixed, "on", "Every user may do everything."),
    silent("lc_collate", Kind::Fixed, "C", "Texts are ordered by their bytes."),
    silent("lc_ctype", Kind::Fixed, "C", "Classes of characters are Unicode's."),
    silent(
        "lock_timeout",
        Kind::Milliseconds,
        "0",
        "How long a change waits for another one of the same table.",
    ),
    silent("max_identifier_length", Kind::Fixed, "63", "In bytes."),
    silent("max_index_keys", Kind::Fixed, "32", "Columns of a key."),
    silent("row_security", Kind::Bool, "on", "There are no policies."),
    silent("search_path", Kind::Text, "\"$user\", public", "Schemas that names are looked up in."),
    reported("server_encoding", Kind::Fixed, "UTF8", "How texts are stored."),
    reported(
        "server_version",
        Kind::Fixed,
        SERVER_VERSION,
        "The version of PostgreSQL that is spoken, and ours.",
    ),
    silent("server_version_num", Kind::Fixed, "150000", "The same as a number."),
    reported("session_authorization", Kind::Fixed, "", "The user of this session."),
    reported(
        "standard_conforming_strings",
        Kind::OneOf(&["on"]),
        "on",
        "A backslash in a string is a backslash.",
    ),
    silent(
        "statement_timeout",
        Kind::Milliseconds,
        "0",
        "A statement that takes longer is stopped; 0 is never.",
    ),
    silent(
        "synchronous_commit",
        Kind::OneOf(&["on", "off", "local", "remote_write", "remote_apply"]),
        "on",
        "A commit is always on disk before it is answered.",
    ),
    reported("TimeZone", Kind::Text, "UTC", "The time zone in which timestamps are shown."),
    silent(
        "transaction_isolation",
        Kind::OneOf(&["serializable", "repeatable read", "read committed", "read uncommitted"]),
        "repeatable read",
        "Every transaction reads one snapshot.",
    ),
    silent("transaction_read_only", Kind::Bool, "off", "Whether this transaction refuses changes."),
    silent("xmloption", Kind::OneOf(&["content", "document"]), "content", "There is no xml type."),
];

const fn reported(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    description: &'static str,
) -> Definition {
    Definition { name, kind, default, reported: true, description }
}

const fn silent(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    description: &'static str,
) -> Definition {
    Definition { name, kind, default, reported: false, description }
}

/// A setting as SHOW ALL and pg_settings list it.
#[derive(Clone, Debug)]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// Its value now.
    pub value: String,
    /// Its value at the session's start.
    pub default: String,
    /// What it is for.
    pub description: String,
}

/// The settings of one session.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Values at the session's start that differ from the defaults: RESET goes back to them.
    initial: BTreeMap<String, String>,
    /// Values set since.
    values: BTreeMap<String, String>,
    /// Values before the first SET LOCAL of the transaction; `None` where there was none.
    local: BTreeMap<String, Option<String>>,
    changes: Vec<(String, String)>,
}

impl Settings {
    /// Settings with what the server and the client's startup message give.
    ///
    /// # Errors
    /// 22023 for a value that a setting does not take.
    pub fn new(given: impl IntoIterator<Item = (String, String)>) -> Result<Settings, SqlError> {
        let mut settings = Settings::default();
        for (name, value) in given {
            let (key, value) = match definition(&name) {
                Some(definition) => {
                    (definition.name.to_string(), settings.check_initial(definition, &value)?)
                }
                None => (name.to_lowercase(), value),
            };
            settings.initial.insert(key, value);
        }
        Ok(settings)
    }

    fn check_initial(&self, definition: &Definition, value: &str) -> Result<String, SqlError> {
        match definition.kind {
            Kind::Fixed => Ok(value.to_string()),
            Kind::Bool
            | Kind::Integer { .. }
            | Kind::Milliseconds
            | Kind::Text
            | Kind::OneOf(_) => check(definition, value),
        }
    }

    /// The value of a setting.
    ///
    /// # Errors
    /// 42704 if there is none of that name.
    pub fn get(&self, name: &str) -> Result<String, SqlError> {
        let key = definition(name)
            .map_or_else(|| name.to_lowercase(), |definition| definition.name.to_string());
        if let Some(value) = self.values.get(&key).or_else(|| self.initial.get(&key)) {
            return Ok(value.clone());
        }
        definition(name)
            .map(|definition| definition.default.to_string())
            .ok_or_else(|| unknown(name))
    }

    /// Changes a setting. `local` lasts until the transaction ends.
    ///
    /// # Errors
    /// 42704 for an unknown name (a name with a dot is an application's own and is kept), 22023 for a bad value, 55P02 for what cannot be changed.
    pub fn set(&mut self, name: &str, value: &str, local: bool) -> Result<(), SqlError> {
        let (key, value, reported) = match definition(name) {
            Some(definition) => {
                (definition.name.to_string(), check(definition, value)?, definition.reported)
            }
            None if name.contains('.') => (name.to_lowercase(), value.to_string(), false),
            None => return Err(unknown(name)),
        };
        if local {
            let before = self.values.get(&key).cloned();
            self.local.entry(key.clone()).or_insert(before);
        }
        if reported {
            self.changes.push((key.clone(), value.clone()));
        }
        self.values.insert(key, value);
        Ok(())
    }

    /// Goes back to the value at the session's start.
    ///
    /// # Errors
    /// 42704 for an unknown name.
    pub fn reset(&mut self, name: &str) -> Result<(), SqlError> {
        let key = match definition(name) {
            Some(definition) => definition.name.to_string(),
            None if name.contains('.') => name.to_lowercase(),
            None => return Err(unknown(name)),
        };
        self.values.remove(&key);
        self.report(&key);
        Ok(())
    }

    /// RESET ALL.
    pub fn reset_all(&mut self) {
        let keys: Vec<String> = std::mem::take(&mut self.values).into_keys().collect();
        for key in keys {
            self.report(&key);
        }
    }

    /// The transaction has ended: SET LOCAL has no effect any more.
    pub fn end_transaction(&mut self) {
        for (key, before) in std::mem::take(&mut self.local) {
            match before {
                Some(value) => self.values.insert(key.clone(), value),
                None => self.values.remove(&key),
            };
            self.report(&key);
        }
    }

    /// Goes back to what the settings were at some moment; clients hear of what changes by it.
    pub fn restore(&mut self, then: &Settings) {
        let keys: BTreeSet<String> =
            self.values.keys().chain(then.values.keys()).cloned().collect();
        let changed: Vec<String> =
            keys.into_iter().filter(|key| self.values.get(key) != then.values.get(key)).collect();
        self.values.clone_from(&then.values);
        self.local.clone_from(&then.local);
        for key in changed {
            self.report(&key);
        }
    }

    fn report(&mut self, key: &str) {
        if definition(key).is_some_and(|definition| definition.reported)
            && let Ok(value) = self.get(key)
        {
            self.changes.push((key.to_string(), value));
        }
    }

    /// What clients have to be told since the last call.
    pub fn take_changes(&mut self) -> Vec<(String, String)> {
        std::mem::take(&mut self.changes)
    }

    /// What clients are told at login.
    pub fn reported(&self) -> Vec<(String, String)> {
        DEFINITIONS
            .iter()
            .filter(|definition| definition.reported)
            .map(|definition| {
                (definition.name.to_string(), self.get(definition.name).unwrap_or_default())
            })
            .collect()
    }

    /// Every setting, by name.
    pub fn list(&self) -> Vec<Listed> {
        DEFINITIONS
            .iter()
            .map(|definition| Listed {
                name: definition.name.to_string(),
                value: self.get(definition.name).unwrap_or_default(),
                default: self
                    .initial
                    .get(definition.name)
                    .cloned()
                    .unwrap_or_else(|| definition.default.to_string()),
                description: definition.description.to_string(),
            })
            .collect()
    }

    /// How long a statement may take; `None` is for ever.
    pub fn statement_timeout(&self) -> Option<Duration> {
        self.milliseconds("statement_timeout")
    }

    /// How long a change waits for another one; `None` is for ever.
    pub fn lock_timeout(&self) -> Option<Duration> {
        self.milliseconds("lock_timeout")
    }

    fn milliseconds(&self, name: &str) -> Option<Duration> {
        let value = self.get(name).ok()?;
        parse_milliseconds(&value)
            .filter(|milliseconds| *milliseconds > 0)
            .map(Duration::from_millis)
    }

    /// Whether a search may use an index.
    pub fn uses_indexes(&self) -> bool {
        self.get("enable_indexscan").is_ok_and(|value| value == "on")
    }

    /// Vectors in view of a search by an index.
    pub fn search_breadth(&self) -> usize {
        let given = self.get("hnsw.ef_search").ok().and_then(|value| value.parse().ok());
        given.unwrap_or(DEFAULT_BREADTH)
    }

    /// Whether transactions refuse changes.
    pub fn read_only(&self) -> bool {
        ["transaction_read_only", "default_transaction_read_only"]
            .iter()
            .any(|name| self.get(name).is_ok_and(|value| value == "on"))
    }

    /// How values are written as text.
    pub fn text_style(&self) -> TextStyle {
        let text = |name: &str| self.get(name).unwrap_or_default();
        let date_style = text("DateStyle").to_lowercase();
        let words: Vec<&str> = date_style.split(',').map(str::trim).collect();
        TextStyle {
            extra_float_digits: text("extra_float_digits").parse().unwrap_or(1),
            bytea_output: if text("bytea_output") == "escape" {
                ByteaOutput::Escape
            } else {
                ByteaOutput::Hex
            },
            date_style: match words.first().copied() {
                Some("sql") => DateStyle::Sql,
                Some("postgres") => DateStyle::Postgres,
                Some("german") => DateStyle::German,
                Some(_) | None => DateStyle::Iso,
            },
            date_order: match words.get(1).copied() {
                Some("dmy" | "euro" | "european") => DateOrder::Dmy,
                Some("ymd") => DateOrder::Ymd,
                Some(_) | None => DateOrder::Mdy,
            },
            interval_style: match text("IntervalStyle").as_str() {
                "postgres_verbose" => IntervalStyle::PostgresVerbose,
                "sql_standard" => IntervalStyle::SqlStandard,
                "iso_8601" => IntervalStyle::Iso8601,
                _ => IntervalStyle::Postgres,
            },
            time_zone: TimeZone::parse(&text("TimeZone")).unwrap_or_else(TimeZone::utc),
        }
    }
}

fn definition(name: &str) -> Option<&'static Definition> {
    DEFINITIONS.iter().find(|definition| definition.name.eq_ignore_ascii_case(name))
}

fn unknown(name: &str) -> SqlError {
    SqlError::new(
        SqlState::UNDEFINED_OBJECT,
        format!("unrecognized configuration parameter \"{name}\""),
    )
}

/// The value in its canonical form.
fn check(definition: &Definition, value: &str) -> Result<String, SqlError> {
    let invalid = |what: &str| {
        SqlError::new(
            SqlState::INVALID_PARAMETER_VALUE,
            format!("invalid value for parameter \"{}\": \"{value}\"", definition.name),
        )
        .with_hint(what.to_string())
    };
    match definition.kind {
        Kind::Fixed => Err(SqlError::new(
            SqlState::CANT_CHANGE_RUNTIME_PARAM,
            format!("parameter \"{}\" cannot be changed", definition.name),
        )),
        Kind::Text => {
            if definition.name == "TimeZone" && TimeZone::parse(value).is_none() {
                return Err(invalid(
                    "Use a name of the IANA time zone database, for example Asia/Seoul.",
                ));
            }
            if definition.name == "DateStyle" {
                return date_style(value).ok_or_else(|| {
                    invalid("It takes ISO, SQL, Postgres or German, and MDY, DMY or YMD.")
                });
            }
            Ok(value.to_string())
        }
        Kind::Bool => match value.to_lowercase().as_str() {
            "on" | "true" | "yes" | "1" | "t" => Ok("on".to_string()),
            "off" | "false" | "no" | "0" | "f" => Ok("off".to_string()),
            _ => Err(invalid("It takes on or off.")),
        },
        Kind::Integer { min, max } => match value.trim().parse::<i64>() {
            Ok(number) if (min..=max).contains(&number) => Ok(number.to_string()),
            Ok(_) | Err(_) => {
                Err(invalid(&format!("It takes a whole number from {min} to {max}.")))
            }
        },
        Kind::Milliseconds => match parse_milliseconds(value) {
            Some(milliseconds) => Ok(milliseconds.to_string()),
            None => {
                Err(invalid("It takes milliseconds, or a number with the unit ms, s, min, h or d."))
            }
        },
        Kind::OneOf(words) => words
            .iter()
            // asyncpg quotes the name of its encoding.
            .find(|word| word.eq_ignore_ascii_case(value.trim_matches('\'')))
            .map(|word| {
                if definition.name == "client_encoding" {
                    "UTF8".to_string()
                } else {
                    (*word).to_string()
                }
            })
            .ok_or_else(|| invalid(&format!("It takes one of: {}.", words.join(", ")))),
    }
}

/// A DateStyle in PostgreSQL's own spelling; a half that is left out keeps its default.
fn date_style(value: &str) -> Option<String> {
    let (mut style, mut order) = ("ISO", "MDY");
    for word in value.split(',').map(|word| word.trim().to_lowercase()) {
        match word.as_str() {
            "iso" => style = "ISO",
            "sql" => style = "SQL",
            "postgres" => style = "Postgres",
            "german" => style = "German",
            "mdy" | "us" => order = "MDY",
            "dmy" | "euro" | "european" => order = "DMY",
            "ymd" => order = "YMD",
            _ => return None,
        }
    }
    Some(format!("{style}, {order}"))
}

fn parse_milliseconds(value: &str) -> Option<u64> {
    let value = value.trim();
    let digits = value.find(|character: char| !character.is_ascii_digit()).unwrap_or(value.len());
    let number = value[..digits].parse::<u64>().ok()?;
    let factor = match value[digits..].trim() {
        "" | "ms" => 1,
        "s" => 1_000,
        "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.checked_mul(factor).filter(|milliseconds| *milliseconds <= i32::MAX as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_case_insensitive_and_values_checked() {
        let mut settings = Settings::new([]).unwrap();
        settings.set("STATEMENT_timeout", "2s", false).unwrap();
        assert_eq!(settings.statement_timeout(), Some(Duration::from_secs(2)));
        assert_eq!(
            settings.set("statement_timeout", "soon", false).unwrap_err().code,
            SqlState::INVALID_PARAMETER_VALUE
        );
        assert_eq!(
            settings.set("no_such_thing", "1", false).unwrap_err().code,
            SqlState::UNDEFINED_OBJECT
        );
        assert_eq!(
            settings.set("server_version", "9", false).unwrap_err().code,
            SqlState::CANT_CHANGE_RUNTIME_PARAM
        );
        settings.set("myapp.user_id", "7", false).unwrap();
        assert_eq!(settings.get("myapp.user_id").unwrap(), "7");
    }

    #[test]
    fn set_local_ends_with_the_transaction_and_is_reported_both_ways() {
        let mut settings =
            Settings::new([("application_name".to_string(), "psql".to_string())]).unwrap();
        settings.set("application_name", "inside", true).unwrap();
        assert_eq!(settings.get("application_name").unwrap(), "inside");
        settings.end_transaction();
        assert_eq!(settings.get("application_name").unwrap(), "psql");
        let changes = settings.take_changes();
        assert_eq!(changes.len(), 2);
        assert_eq!(changes[1], ("application_name".to_string(), "psql".to_string()));
    }

    #[test]
    fn a_rollback_takes_set_back() {
        let mut settings = Settings::new([]).unwrap();
        settings.set("application_name", "before", false).unwrap();
        let then = settings.clone();
        settings.set("application_name", "inside", false).unwrap();
        settings.set("extra_float_digits", "3", true).unwrap();
        settings.take_changes();
        settings.restore(&then);
        assert_eq!(settings.get("application_name").unwrap(), "before");
        assert_eq!(settings.get("extra_float_digits").unwrap(), "1");
        let changes = settings.take_changes();
        assert_eq!(changes, [("application_name".to_string(), "before".to_string())]);
    }

    #[test]
    fn reset_goes_back_to_the_start() {
        let mut settings = Settings::new([]).unwrap();
        settings.set("extra_float_digits", "3", false).unwrap();
        settings.reset("extra_float_digits").unwrap();
        assert_eq!(settings.get("extra_float_digits").unwrap(), "1");
        settings.set("DateStyle", "ISO, DMY", false).unwrap();
        settings.reset_all();
        assert_eq!(settings.get("datestyle").unwrap(), "ISO, MDY");
    }
}
