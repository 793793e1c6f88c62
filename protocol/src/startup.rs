//! From an accepted socket to a session: TLS, the startup message, login, and the greeting.
//!
//! Everything here runs within the login timeout, before the client is trusted: messages are small, nothing it says is
//! echoed but its own name, and no session exists until the login has succeeded.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use pgwire::messages::response::{GssEncResponse, SslResponse};
use pgwire::messages::startup::{
    Authentication, BackendKeyData, NegotiateProtocolVersion, ParameterStatus, SecretKey, Startup,
};
use tokio::net::TcpStream;
use tracing::Span;

use crate::backend::{ClientIdentity, TransactionStatus};
use crate::client::{Client, caught};
use crate::connection::Connection;
use crate::error::{SqlError, SqlState};
use crate::frontend::Body;
use crate::listener::Shared;
use crate::login::LoginFailure;
use crate::messages::{error_response, ready_for_query, without_zeros};
use crate::socket::{SharedStream, Stream};
use crate::tls::ALPN;
use crate::wire::Wire;

const SSL_REQUEST: u32 = 80_877_103;
const GSS_ENC_REQUEST: u32 = 80_877_104;
const CANCEL_REQUEST: u32 = 80_877_102;
/// The first byte of a TLS handshake.
const TLS_HANDSHAKE: u8 = 0x16;
/// The newest minor version of protocol 3 that is spoken here.
const NEWEST_MINOR: u32 = 2;

/// Takes a client through its login. `None` when there is no session: it was refused, has gone, took too long, or only
/// came to cancel a statement.
pub(crate) async fn log_in(
    shared: Arc<Shared>,
    stream: TcpStream,
    peer: SocketAddr,
) -> Option<Connection> {
    let socket = SharedStream::new(stream);
    let mut wire = Wire::new(Stream::Plain(socket.clone()), socket);
    let attempt = attempt(&shared, &mut wire, peer);
    let result = tokio::select! {
        result = tokio::time::timeout(shared.options.login_timeout, attempt) => result,
        () = shared.shutdown.cancelled() => return None,
    };
    match result {
        Ok(Ok(Some(ready))) => Some(ready.into_connection(&shared, wire)),
        Ok(Ok(None)) => None,
        Ok(Err(LoginFailure::Gone)) => {
            tracing::debug!("the client left before it was logged in");
            None
        }
        Ok(Err(LoginFailure::Refused(error))) => {
            tracing::info!(sqlstate = error.code.0, message = error.message, "login refused");
            wire.put(&error_response(&SqlError {
                severity: crate::error::ErrorSeverity::Fatal,
                ..error
            }));
            wire.farewell().await;
            None
        }
        Err(_) => {
            tracing::info!("login took too long");
            None
        }
    }
}

/// What a login leaves behind for the connection.
struct Ready {
    session: Box<dyn crate::backend::Session>,
    registration: crate::cancel::Registration,
    place: tokio::sync::OwnedSemaphorePermit,
}

impl Ready {
    fn into_connection(self, shared: &Shared, mut wire: Wire) -> Connection {
        wire.set_max_message_bytes(shared.options.max_message_bytes);
        let client = Client::new(wire, self.registration, shared.shutdown.clone());
        Connection::new(client, self.session, self.place)
    }
}

async fn attempt(
    shared: &Arc<Shared>,
    wire: &mut Wire,
    peer: SocketAddr,
) -> Result<Option<Ready>, LoginFailure> {
    let mut encrypted = direct_tls(shared, wire).await?;
    let (mut packet, version) = loop {
        let mut packet = wire.read_startup_packet().await?;
        match packet.get_u32() {
            SSL_REQUEST => match &shared.tls {
                Some(tls) if !encrypted => {
                    if wire.has_input() {
                        return Err(violation("received unencrypted data after SSL request").into());
                    }
                    wire.put(&SslResponse::Accept);
                    wire.flush().await?;
                    wire.start_tls(&tls.acceptor).await?;
                    encrypted = true;
                }
                Some(_) | None => {
                    wire.put(&SslResponse::Refuse);
                    wire.flush().await?;
                }
            },
            GSS_ENC_REQUEST => {
                wire.put(&GssEncResponse::Refuse);
                wire.flush().await?;
            }
            CANCEL_REQUEST => {
                cancel(shared, packet);
                return Ok(None);
            }
            version => break (packet, version),
        }
    };
    Span::current().record("tls", encrypted);

    let (major, minor) = (version >> 16, version & 0xffff);
    if major != 3 {
        return Err(SqlError::fatal(
            SqlState::FEATURE_NOT_SUPPORTED,
            format!("unsupported frontend protocol {major}.{minor}: server supports 3.0 to 3.{NEWEST_MINOR}"),
        )
        .into());
    }
    let startup = StartupMessage::read(&mut packet)?;
    if minor > NEWEST_MINOR || minor == 1 || !startup.unknown_options.is_empty() {
        let newest = if minor >= NEWEST_MINOR {
            Startup::PROTOCOL_VERSION_3_2
        } else {
            Startup::PROTOCOL_VERSION_3_0
        };
        wire.put(&NegotiateProtocolVersion::new(newest, startup.unknown_options.clone()));
    }
    let span = Span::current();
    span.record("user", &startup.user);
    span.record("database", &startup.database);

    let Ok(place) = shared.sessions.clone().try_acquire_owned() else {
        return Err(SqlError::fatal(
            SqlState::TOO_MANY_CONNECTIONS,
            "sorry, too many clients already",
        )
        .with_hint("The server's setting max_connections limits them.")
        .into());
    };
    shared.login.authenticate(wire, &startup.user, peer.ip(), encrypted).await?;
    wire.put(&Authentication::Ok);

    let registration = shared.registry.register(minor >= NEWEST_MINOR);
    span.record("id", registration.id());
    let identity = startup.into_identity(registration.id(), peer, encrypted);
    let session = caught(shared.backend.connect(identity)).await?;
    for (name, value) in session.initial_parameters() {
        wire.put(&ParameterStatus::new(without_zeros(&name), without_zeros(&value)));
    }
    let secret = SecretKey::Bytes(Bytes::copy_from_slice(registration.secret()));
    wire.put(&BackendKeyData::new(registration.id(), secret));
    wire.put(&ready_for_query(TransactionStatus::Idle));
    wire.flush().await?;
    tracing::info!("connected");
    Ok(Some(Ready { session, registration, place }))
}

/// TLS from the first byte on, without an SSLRequest, as PostgreSQL 17's clients may ask for.
async fn direct_tls(shared: &Shared, wire: &mut Wire) -> Result<bool, LoginFailure> {
    let mut first = [0];
    if wire.socket().peek(&mut first).await? == 0 {
        return Err(LoginFailure::Gone);
    }
    if first != [TLS_HANDSHAKE] {
        return Ok(false);
    }
    let Some(tls) = &shared.tls else {
        return Err(LoginFailure::Gone);
    };
    wire.start_tls(&tls.acceptor).await?;
    // Without the name of the protocol this could be a client of another protocol, sent here by an attacker.
    if wire.alpn_protocol() != Some(ALPN) {
        tracing::info!("direct TLS without the protocol's name is refused");
        return Err(LoginFailure::Gone);
    }
    Ok(true)
}

fn cancel(shared: &Shared, mut packet: Bytes) {
    if packet.len() < 8 {
        return;
    }
    let id = packet.get_i32();
    let cancelled = shared.registry.cancel(id, &packet);
    tracing::info!(connection = id, cancelled, "cancel request");
}

fn violation(message: impl Into<String>) -> SqlError {
    SqlError::fatal(SqlState::PROTOCOL_VIOLATION, message)
}

/// What a client says about itself.
#[derive(Debug, PartialEq, Eq)]
struct StartupMessage {
    user: String,
    database: String,
    application_name: Option<String>,
    parameters: BTreeMap<String, String>,
    /// Protocol options (`_pq_.`) that nobody knows here.
    unknown_options: Vec<String>,
}

impl StartupMessage {
    fn read(packet: &mut Bytes) -> Result<StartupMessage, SqlError> {
        let mut body = Body(packet.split_off(0));
        let mut parameters = BTreeMap::new();
        let mut unknown_options = Vec::new();
        loop {
            let name = body.string()?;
            if name.is_empty() {
                break;
            }
            let value = body.string()?;
            if name.starts_with("_pq_.") {
                unknown_options.push(name);
            } else {
                parameters.insert(name.to_ascii_lowercase(), value);
            }
        }
        if !body.0.is_empty() {
            return Err(violation(
                "invalid startup packet layout: expected terminator as last byte",
            ));
        }
        let Some(user) = parameters.remove("user").filter(|user| !user.is_empty()) else {
            return Err(SqlError::fatal(
                SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
                "no PostgreSQL user name specified in startup packet",
            ));
        };
        match parameters.remove("replication").as_deref() {
            None | Some("false" | "off" | "no" | "0") => {}
            Some(_) => {
                return Err(SqlError::fatal(
                    SqlState::FEATURE_NOT_SUPPORTED,
                    "replication connections are not supported",
                ));
            }
        }
        let database = parameters
            .remove("database")
            .filter(|database| !database.is_empty())
            .unwrap_or_else(|| user.clone());
        if let Some(options) = parameters.remove("options") {
            for (name, value) in settings(&options)? {
                parameters.insert(name, value);
            }
        }
        Ok(StartupMessage {
            user,
            database,
            application_name: parameters.remove("application_name"),
            parameters,
            unknown_options,
        })
    }

    fn into_identity(self, connection_id: i32, peer: SocketAddr, tls: bool) -> ClientIdentity {
        ClientIdentity {
            connection_id,
            peer,
            user: self.user,
            database: self.database,
            application_name: self.application_name,
            startup_parameters: self.parameters,
            tls,
        }
    }
}

/// The settings of a startup message's `options`: `-c name=value`, `-cname=value` and `--name=value`; a backslash takes
/// the next character as it is.
fn settings(options: &str) -> Result<Vec<(String, String)>, SqlError> {
    let mut words = vec![String::new()];
    let mut characters = options.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => words.last_mut().expect("never empty").extend(characters.next()),
            space if space.is_whitespace() => words.push(String::new()),
            other => words.last_mut().expect("never empty").push(other),
        }
    }
    let mut words = words.into_iter().filter(|word| !word.is_empty());
    let mut settings = Vec::new();
    while let Some(word) = words.next() {
        let setting = match (word.strip_prefix("--"), word.strip_prefix("-c")) {
            (Some(setting), _) => Some(setting.to_owned()),
            (None, Some("")) => words.next(),
            (None, Some(setting)) => Some(setting.to_owned()),
            (None, None) => None,
        };
        let Some((name, value)) = setting.as_deref().and_then(|setting| setting.split_once('='))
        else {
            return Err(SqlError::fatal(
                SqlState::SYNTAX_ERROR,
                format!("invalid command-line argument for server process: {word}"),
            ));
        };
        settings.push((name.to_ascii_lowercase().replace('-', "_"), value.to_owned()));
    }
    Ok(settings)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &'static [u8]) -> Result<StartupMessage, SqlError> {
        StartupMessage::read(&mut Bytes::from_static(body))
    }

    #[test]
    fn a_startup_message_names_user_database_and_settings() {
        let startup = read(
            b"user\0anna\0options\0-c search_path=a\\ b --DateStyle=ISO -cx=1\0application_name\0psql\0TimeZone\0UTC\0_pq_.x\0\x31\0\0",
        )
        .expect("well formed");
        assert_eq!(startup.user, "anna");
        assert_eq!(startup.database, "anna");
        assert_eq!(startup.application_name.as_deref(), Some("psql"));
        assert_eq!(startup.unknown_options, ["_pq_.x"]);
        let expected =
            [("datestyle", "ISO"), ("search_path", "a b"), ("timezone", "UTC"), ("x", "1")];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(startup.parameters, BTreeMap::from(expected));
    }

    #[test]
    fn startup_messages_that_are_refused() {
        for (body, code) in [
            (&b"user\0anna\0"[..], SqlState::PROTOCOL_VIOLATION),
            (b"user\0anna\0\0x", SqlState::PROTOCOL_VIOLATION),
            (b"user", SqlState::PROTOCOL_VIOLATION),
            (b"database\0x\0\0", SqlState::INVALID_AUTHORIZATION_SPECIFICATION),
            (b"user\0\xff\0\0", SqlState::CHARACTER_NOT_IN_REPERTOIRE),
            (b"user\0a\0replication\0database\0\0", SqlState::FEATURE_NOT_SUPPORTED),
            (b"user\0a\0options\0-x\0\0", SqlState::SYNTAX_ERROR),
        ] {
            assert_eq!(read(body).expect_err("refused").code, code, "{body:?}");
        }
    }
}
