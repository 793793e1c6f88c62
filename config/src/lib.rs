//! Settings: names, units, defaults, precedence and validation.
//!
//! [`SETTINGS`] is the one table of what can be set. Flags, environment variables, the configuration file, the help text
//! and the report of where a value came from are all made from it, so a setting cannot exist in one of them and be missing in
//! another. A flag wins over the environment, the environment over the file, the file over the default.
//!
//! What is wrong stops the start: an unknown key in the file, a value out of its range, a data root that is not there. Each error names
//! the setting, the value and where it came from.
//!
//! **Architecture invariant**: this crate knows no other crate of the server. It says what was asked for; whoever owns a socket, a store or
//! a device takes its own options from there.

mod command;
mod error;
mod file;
mod settings;
mod table;
mod users;
mod value;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ffi::OsString;

pub use error::ConfigError;
pub use settings::{
    DemoSettings, HealthcheckSettings, LogFormat, LogSettings, Reported, Settings, Source, TlsFiles,
};
pub use table::{Group, Kind, SETTINGS, Setting};
pub use users::{User, UserSecret};

/// What the program was asked to do.
#[derive(Clone, Debug)]
pub enum Invocation {
    /// Run the server: `thanosql serve`, or no command at all.
    Serve(Box<Settings>),
    /// Draw digits and run the tutorial on them: `thanosql demo`.
    Demo(Box<DemoSettings>),
    /// See whether a server answers: `thanosql healthcheck`.
    Healthcheck(HealthcheckSettings),
}

/// Reads the command line, the environment and the configuration file of this process.
///
/// `--help`, `--version` and a wrong command line are answered here: they print and end the process, with code 0 or 2.
///
/// # Errors
/// [`ConfigError`], every variant but [`ConfigError::Usage`].
pub fn load() -> Result<Invocation, ConfigError> {
    match load_from(std::env::args_os(), std::env::vars_os()) {
        Err(ConfigError::Usage(usage)) => usage.exit(),
        outcome => outcome,
    }
}

/// The same from given arguments, the program's name first, and given variables.
///
/// # Errors
/// [`ConfigError`]; help and version come as [`ConfigError::Usage`].
pub fn load_from(
    arguments: impl IntoIterator<Item = OsString>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Invocation, ConfigError> {
    let matches = command::command().try_get_matches_from(arguments)?;
    let environment: BTreeMap<String, OsString> = environment
        .into_iter()
        .filter_map(|(name, value)| name.into_string().ok().map(|name| (name, value)))
        .filter(|(name, value)| name.starts_with(table::ENVIRONMENT_PREFIX) && !value.is_empty())
        .collect();
    match matches.subcommand() {
        None => settings::serve(&matches, &environment),
        Some((command::SERVE, matches)) => settings::serve(matches, &environment),
        Some((command::DEMO, matches)) => settings::demo(matches, &environment),
        Some((command::HEALTHCHECK, matches)) => settings::healthcheck(matches, &environment),
        Some((name, _)) => unreachable!("clap accepts no command {name}"),
    }
}
