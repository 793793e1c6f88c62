//! What the listener is told by the configuration. Plain values: where they came from is the configuration's business.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// Everything that [`serve`](crate::serve) needs to know beside the socket and the backend.
#[derive(Clone, Debug)]
pub struct ProtocolOptions {
    /// Connections at the same time; one more is answered 53300.
    pub max_connections: usize,
    /// The largest message that a client may send after login, in bytes. Before login it is 10,000.
    pub max_message_bytes: usize,
    /// How long a client may take from connecting to being logged in.
    pub login_timeout: Duration,
    /// Certificate and key; without them TLS is declined.
    pub tls: Option<TlsFiles>,
    /// Who may log in with a password.
    pub users: Vec<User>,
    /// Whether clients on this machine need no password.
    pub trust_loopback: bool,
}

impl Default for ProtocolOptions {
    fn default() -> ProtocolOptions {
        ProtocolOptions {
            max_connections: 100,
            max_message_bytes: 256 * 1024 * 1024,
            login_timeout: Duration::from_secs(60),
            tls: None,
            users: Vec::new(),
            trust_loopback: true,
        }
    }
}

/// Where certificate and key are, both PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The server's certificate, followed by those that lead to its root.
    pub certificate: PathBuf,
    /// Its private key (PKCS#8, PKCS#1 or SEC1).
    pub private_key: PathBuf,
}

/// Somebody who may log in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The name.
    pub name: String,
    /// How the name is proved.
    pub secret: Secret,
}

/// A user's secret. Never printed, also not for debugging.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    /// The password itself.
    Password(String),
    /// What PostgreSQL keeps in `pg_authid.rolpassword`: `SCRAM-SHA-256$<iterations>:<salt>$<stored key>:<server key>`.
    ScramVerifier(String),
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Secret::Password(_) => f.write_str("Password(..)"),
            Secret::ScramVerifier(_) => f.write_str("ScramVerifier(..)"),
        }
    }
}
