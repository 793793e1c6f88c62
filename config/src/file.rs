//! The configuration file: TOML, flat, its keys those of the table.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use crate::error::ConfigError;
use crate::settings::Source;
use crate::table::{Kind, SETTINGS, Setting};
use crate::users::{self, User};
use crate::value;

/// The largest file that is taken for a configuration.
const MAX_BYTES: u64 = 1 << 20;

/// What a file sets.
#[derive(Debug, Default)]
pub(crate) struct FileValues {
    pub(crate) path: PathBuf,
    /// As a flag would have them, by key.
    pub(crate) values: BTreeMap<&'static str, Vec<OsString>>,
    pub(crate) users: Option<Vec<User>>,
}

/// Reads and checks a file. Paths in it are relative to its folder.
pub(crate) fn read(path: &Path) -> Result<FileValues, ConfigError> {
    let failed = |source| ConfigError::File { path: path.to_owned(), source };
    let metadata = std::fs::metadata(path).map_err(failed)?;
    if !metadata.is_file() || metadata.len() > MAX_BYTES {
        return Err(failed(std::io::Error::new(
            std::io::ErrorKind::InvalidInput,
            "not a file of at most 1 MiB",
        )));
    }
    parse(path, &std::fs::read_to_string(path).map_err(failed)?)
}

pub(crate) fn parse(path: &Path, text: &str) -> Result<FileValues, ConfigError> {
    let table: Table = toml::from_str(text).map_err(|error| syntax_error(path, text, &error))?;
    let mut read = FileValues { path: path.to_owned(), ..FileValues::default() };
    for (key, value) in &table {
        let setting = SETTINGS
            .iter()
            .find(|setting| setting.key == key)
            .ok_or_else(|| unknown_key(path, key, SETTINGS.iter().map(|setting| setting.key)))?;
        if setting.kind == Kind::Users {
            read.users = Some(read_users(path, setting, value)?);
        } else {
            read.values.insert(setting.key, read_value(path, setting, value)?);
        }
    }
    Ok(read)
}

fn syntax_error(path: &Path, text: &str, error: &toml::de::Error) -> ConfigError {
    let end = error.span().map_or(0, |span| span.start.min(text.len()));
    let line = text.as_bytes()[..end].iter().filter(|&&byte| byte == b'\n').count() + 1;
    ConfigError::Syntax { path: path.to_owned(), line, message: error.message().to_owned() }
}

fn unknown_key<'a>(
    path: &Path,
    key: &str,
    known: impl Iterator<Item = &'a str> + Clone,
) -> ConfigError {
    ConfigError::UnknownKey {
        path: path.to_owned(),
        key: key.to_owned(),
        nearest: value::nearest(key, known.clone()).map(str::to_owned),
        known: known.collect::<Vec<_>>().join(", "),
    }
}

fn wrong(path: &Path, setting: &Setting, value: String, reason: impl Into<String>) -> ConfigError {
    ConfigError::Value {
        setting: setting.key,
        value,
        source_of: Source::File(path.to_owned()),
        reason: reason.into(),
    }
}

fn read_value(path: &Path, setting: &Setting, value: &Value) -> Result<Vec<OsString>, ConfigError> {
    let base = path.parent().unwrap_or(Path::new(""));
    let is_path = matches!(setting.kind, Kind::File | Kind::Folder | Kind::Folders);
    match value {
        Value::String(text) if is_path => Ok(vec![base.join(text).into_os_string()]),
        Value::String(text) => Ok(vec![text.into()]),
        Value::Integer(number) => Ok(vec![number.to_string().into()]),
        Value::Boolean(switch) => Ok(vec![switch.to_string().into()]),
        Value::Array(entries) if setting.kind == Kind::Folders => entries
            .iter()
            .map(|entry| match entry.as_str() {
                Some(text) => Ok(base.join(text).into_os_string()),
                None => Err(wrong(
                    path,
                    setting,
                    entry.type_str().to_owned(),
                    "an array of strings is needed",
                )),
            })
            .collect(),
        Value::Float(_) | Value::Datetime(_) | Value::Array(_) | Value::Table(_) => Err(wrong(
            path,
            setting,
            value.type_str().to_owned(),
            "a string, a whole number or a boolean is needed",
        )),
    }
}

fn read_users(path: &Path, setting: &Setting, value: &Value) -> Result<Vec<User>, ConfigError> {
    const KEYS: [&str; 2] = ["name", "password"];
    let hidden = |reason: String| wrong(path, setting, "***".to_owned(), reason);
    let entries = value
        .as_array()
        .ok_or_else(|| hidden("[[users]] tables with name and password are needed".to_owned()))?;
    let mut users = Vec::with_capacity(entries.len());
    for entry in entries {
        let entry = entry.as_table().ok_or_else(|| {
            hidden("[[users]] tables with name and password are needed".to_owned())
        })?;
        if let Some(key) = entry.keys().find(|key| !KEYS.contains(&key.as_str())) {
            return Err(unknown_key(path, &format!("users.{key}"), KEYS.into_iter()));
        }
        let text = |key: &str| {
            let value = entry.get(key).and_then(Value::as_str);
            value.ok_or_else(|| hidden(format!("every user needs a {key}, a string")))
        };
        users.push(users::user(text("name")?, text("password")?).map_err(hidden)?);
    }
    Ok(users)
}
