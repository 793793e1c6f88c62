//! What can be wrong with settings.

use std::io;
use std::path::PathBuf;

use crate::settings::Source;

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The command line is wrong, or asks for help or the version.
    #[error("{0}")]
    Usage(#[from] clap::Error),
    /// The configuration file cannot be read.
    #[error("configuration file {} cannot be read: {source}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The configuration file is not TOML. The text of the line is left out: it may hold a password.
    #[error("configuration file {}, line {line}: {message}", .path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What the parser said.
        message: String,
    },
    /// The configuration file has a key that is no setting.
    #[error("configuration file {}: unknown key \"{key}\"{}; the keys are {known}", .path.display(), did_you_mean(.nearest))]
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// The key that was probably meant.
        nearest: Option<String>,
        /// All keys.
        known: String,
    },
    /// A setting has a value that it cannot have.
    #[error("{setting} cannot be \"{value}\" ({source_of}): {reason}")]
    Value {
        /// The setting's key.
        setting: &'static str,
        /// The value as it was given; "***" for secrets.
        value: String,
        /// Where it came from.
        source_of: Source,
        /// What it must be.
        reason: String,
    },
    /// Two settings need each other.
    #[error("{given} is set but {missing} is not: TLS needs both")]
    HalfTls {
        /// The one that is set.
        given: &'static str,
        /// The one that is not.
        missing: &'static str,
    },
    /// No client could ever log in.
    #[error(
        "nobody could log in at {listen}: only clients of this machine are let in without a password and there are no users; \
         name some in THANOSQL_USERS=name:password, in users_file or in the configuration file, or listen on 127.0.0.1"
    )]
    NobodyFromElsewhere {
        /// The address to listen on.
        listen: String,
    },
    /// No client could ever log in, not even from this machine.
    #[error(
        "nobody could log in: trust_loopback is false and there are no users; name some in THANOSQL_USERS=name:password, in users_file or in the configuration file"
    )]
    NobodyAtAll,
}

fn did_you_mean(nearest: &Option<String>) -> String {
    nearest.as_ref().map_or_else(String::new, |nearest| format!(", did you mean \"{nearest}\"?"))
}
