//! Who may log in, and how they prove who they are.
//!
//! On this machine everyone is trusted (if the configuration says so, which is its default); everywhere else a user
//! proves a password by SCRAM-SHA-256, over TLS also bound to the server's certificate (SCRAM-SHA-256-PLUS). A name that
//! nobody has goes through the same exchange with a made-up secret, which is always the same for that name, and fails
//! with the same answer as a wrong password.

use std::collections::HashMap;
use std::net::IpAddr;

use pgwire::api::auth::sasl::scram::{
    SCRAM_ITERATIONS, ScramSecret, ScramServerAuth, gen_salted_password,
};
use pgwire::api::auth::sasl::{SCRAM_SHA_256_METHOD, SCRAM_SHA_256_PLUS_METHOD};
use pgwire::error::PgWireError;
use pgwire::messages::startup::Authentication;

use crate::base64;
use crate::error::{ProtocolError, SqlError, SqlState};
use crate::frontend::Body;
use crate::options::{ProtocolOptions, Secret};
use crate::tls::{Tls, random_bytes};
use crate::wire::{ReadFailure, Wire};

/// How long a salt is; PostgreSQL's length.
const SALT_BYTES: usize = 16;

/// Decides about logins.
pub(crate) struct Login {
    users: HashMap<String, Verifier>,
    trust_loopback: bool,
    /// What made-up salts are derived from.
    mock_key: [u8; 32],
    scram: ScramServerAuth,
    /// The same, bound to the certificate; for encrypted connections.
    scram_plus: Option<ScramServerAuth>,
}

/// What is kept of a password: enough to check a proof, too little to make one.
#[derive(Clone)]
struct Verifier {
    salt: Vec<u8>,
    iterations: usize,
    stored_key: Vec<u8>,
    server_key: Vec<u8>,
}

/// Why nobody was logged in.
#[derive(Debug)]
pub(crate) enum LoginFailure {
    /// The client has gone.
    Gone,
    /// It is refused, with this answer.
    Refused(SqlError),
}

impl From<ReadFailure> for LoginFailure {
    fn from(failure: ReadFailure) -> LoginFailure {
        match failure {
            ReadFailure::Gone => LoginFailure::Gone,
            ReadFailure::Malformed(error) => LoginFailure::Refused(error),
        }
    }
}

impl From<std::io::Error> for LoginFailure {
    fn from(_: std::io::Error) -> LoginFailure {
        LoginFailure::Gone
    }
}

impl From<SqlError> for LoginFailure {
    fn from(error: SqlError) -> LoginFailure {
        LoginFailure::Refused(error)
    }
}

impl Login {
    /// Prepares every user's verifier, so that no password is needed (or kept) later.
    pub(crate) fn new(
        options: &ProtocolOptions,
        tls: Option<&Tls>,
    ) -> Result<Login, ProtocolError> {
        let mut users = HashMap::new();
        for user in &options.users {
            let verifier = match &user.secret {
                Secret::Password(password) => {
                    let salt = random_bytes::<SALT_BYTES>();
                    let salted = gen_salted_password(password, &salt, SCRAM_ITERATIONS);
                    Verifier::derive(salt.to_vec(), salted)
                }
                Secret::ScramVerifier(text) => Verifier::parse(text)
                    .ok_or_else(|| ProtocolError::Verifier { user: user.name.clone() })?,
            };
            if users.insert(user.name.clone(), verifier).is_some() {
                return Err(ProtocolError::DuplicateUser { user: user.name.clone() });
            }
        }
        let scram_plus = tls.and_then(|tls| {
            let mut scram = ScramServerAuth::new();
            match scram.configure_certificate(&tls.certificate_pem) {
                Ok(()) => Some(scram),
                Err(error) => {
                    tracing::info!(%error, "logins cannot be bound to this certificate");
                    None
                }
            }
        });
        Ok(Login {
            users,
            trust_loopback: options.trust_loopback,
            mock_key: random_bytes(),
            scram: ScramServerAuth::new(),
            scram_plus,
        })
    }

    /// Whether a client from this address gets in without a password.
    pub(crate) fn trusts(&self, peer: IpAddr) -> bool {
        self.trust_loopback && peer.to_canonical().is_loopback()
    }

    /// Whether anyone at all could prove who they are.
    pub(crate) fn has_users(&self) -> bool {
        !self.users.is_empty()
    }

    /// Lets the client prove that it is this user. On success the exchange is complete but for AuthenticationOk.
    pub(crate) async fn authenticate(
        &self,
        wire: &mut Wire,
        user: &str,
        peer: IpAddr,
        encrypted: bool,
    ) -> Result<(), LoginFailure> {
        if self.trusts(peer) {
            return Ok(());
        }
        if !self.has_users() {
            return Err(SqlError::fatal(
                SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
                "no users are configured, so only trusted addresses may connect",
            )
            .with_hint("Configure a user with a password.")
            .into());
        }

        let scram_plus = self.scram_plus.as_ref().filter(|_| encrypted);
        let mut mechanisms = Vec::new();
        if scram_plus.is_some() {
            mechanisms.push(SCRAM_SHA_256_PLUS_METHOD.to_owned());
        }
        mechanisms.push(SCRAM_SHA_256_METHOD.to_owned());
        wire.put(&Authentication::SASL(mechanisms.clone()));
        wire.flush().await?;

        let mut body = read_response(wire).await?;
        let mechanism = body.string()?;
        if !mechanisms.contains(&mechanism) {
            return Err(
                violation("client selected an invalid SASL authentication mechanism").into()
            );
        }
        let Some(client_first) = body.value()? else {
            return Err(violation("malformed SCRAM message").into());
        };
        // With a certificate, pgwire's exchange also checks that nobody has talked the client out of binding.
        let scram = scram_plus.unwrap_or(&self.scram);
        if (mechanism == SCRAM_SHA_256_PLUS_METHOD) != client_first.starts_with(b"p=") {
            return Err(violation("malformed SCRAM message").into());
        }
        let (verifier, known) = match self.users.get(user) {
            Some(verifier) => (verifier.clone(), true),
            None => (self.mock_verifier(user), false),
        };
        let (server_first, exchange) = scram
            .on_client_first_message_with_secret(&client_first, verifier.into_secret())
            .map_err(|error| scram_error(error, user))?;
        wire.put(&Authentication::SASLContinue(server_first.into()));
        wire.flush().await?;

        let client_final = read_response(wire).await?.0;
        let server_final = exchange
            .on_client_final_message(&client_final)
            .map_err(|error| scram_error(error, user))?;
        if !known {
            // Nobody can prove a made-up secret; this is the second bolt.
            return Err(wrong_password(user).into());
        }
        wire.put(&Authentication::SASLFinal(server_final.into()));
        Ok(())
    }

    /// The secret of a user that does not exist: the same salt each time, and keys that nothing matches.
    fn mock_verifier(&self, user: &str) -> Verifier {
        let mut salt = gen_salted_password(user, &self.mock_key, 1);
        salt.truncate(SALT_BYTES);
        Verifier {
            salt,
            iterations: SCRAM_ITERATIONS,
            stored_key: random_bytes::<32>().to_vec(),
            server_key: random_bytes::<32>().to_vec(),
        }
    }
}

impl Verifier {
    fn derive(salt: Vec<u8>, salted_password: Vec<u8>) -> Verifier {
        match ScramSecret::verifier_from_salted_password(salt, salted_password, SCRAM_ITERATIONS) {
            ScramSecret::Verifier { salt, iterations, stored_key, server_key } => {
                Verifier { salt, iterations, stored_key, server_key }
            }
            ScramSecret::SaltedPassword { .. } => {
                unreachable!("a verifier was asked for")
            }
        }
    }

    /// Reads PostgreSQL's form: `SCRAM-SHA-256$4096:<salt>$<stored key>:<server key>`.
    fn parse(text: &str) -> Option<Verifier> {
        let (parameters, keys) = text.strip_prefix("SCRAM-SHA-256$")?.split_once('$')?;
        let (iterations, salt) = parameters.split_once(':')?;
        let (stored_key, server_key) = keys.split_once(':')?;
        let verifier = Verifier {
            salt: base64::decode(salt)?,
            iterations: iterations.parse().ok()?,
            stored_key: base64::decode(stored_key)?,
            server_key: base64::decode(server_key)?,
        };
        let whole = !verifier.salt.is_empty()
            && (1..=10_000_000).contains(&verifier.iterations)
            && verifier.stored_key.len() == 32
            && verifier.server_key.len() == 32;
        whole.then_some(verifier)
    }

    fn into_secret(self) -> ScramSecret {
        ScramSecret::Verifier {
            salt: self.salt,
            iterations: self.iterations,
            stored_key: self.stored_key,
            server_key: self.server_key,
        }
    }
}

async fn read_response(wire: &mut Wire) -> Result<Body, LoginFailure> {
    let frame = wire.read_frame().await?;
    if frame.kind == b'X' {
        return Err(LoginFailure::Gone);
    }
    if frame.kind != b'p' {
        return Err(
            violation(format!("expected SASL response, got message type {}", frame.kind)).into()
        );
    }
    Ok(Body(frame.body))
}

fn violation(message: impl Into<String>) -> SqlError {
    SqlError::fatal(SqlState::PROTOCOL_VIOLATION, message)
}

fn wrong_password(user: &str) -> SqlError {
    SqlError::fatal(
        SqlState::INVALID_PASSWORD,
        format!("password authentication failed for user \"{user}\""),
    )
}

/// A failed proof is a wrong password. Everything else is a client that does not speak SCRAM; pgwire's words for it go
/// to the log.
fn scram_error(error: PgWireError, user: &str) -> SqlError {
    if matches!(error, PgWireError::InvalidPassword(_)) {
        return wrong_password(user);
    }
    tracing::debug!(%error, "malformed SCRAM message");
    violation("malformed SCRAM message")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::User;

    fn options(secret: Secret) -> ProtocolOptions {
        ProtocolOptions {
            users: vec![User { name: "anna".to_owned(), secret }],
            ..ProtocolOptions::default()
        }
    }

    #[test]
    fn a_verifier_of_postgresql_is_understood() {
        let good = "SCRAM-SHA-256$4096:aGFsbG9oYWxsbzEyMzQ1Ng==$\
                    AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
        assert!(Login::new(&options(Secret::ScramVerifier(good.to_owned())), None).is_ok());
        for bad in [
            "",
            "md5aaaa",
            "SCRAM-SHA-256$4096:aGFs$AAEC:AAEC",
            "SCRAM-SHA-256$0:aGFs$AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
            "SCRAM-SHA-256$4096$x:y",
        ] {
            assert!(
                matches!(
                    Login::new(&options(Secret::ScramVerifier(bad.to_owned())), None),
                    Err(ProtocolError::Verifier { .. })
                ),
                "{bad}"
            );
        }
    }

    #[test]
    fn a_name_that_stands_twice_stops_the_start() {
        let mut options = options(Secret::Password("a".to_owned()));
        options.users.push(options.users[0].clone());
        assert!(matches!(Login::new(&options, None), Err(ProtocolError::DuplicateUser { .. })));
    }

    #[test]
    fn unknown_users_always_see_the_same_salt() {
        let login = Login::new(&options(Secret::Password("a".to_owned())), None).expect("valid");
        assert_eq!(login.mock_verifier("x").salt, login.mock_verifier("x").salt);
        assert_ne!(login.mock_verifier("x").salt, login.mock_verifier("y").salt);
        assert_eq!(login.mock_verifier("x").salt.len(), SALT_BYTES);
    }

    #[test]
    fn secrets_are_never_printed() {
        let printed = format!("{:?}", options(Secret::Password("geheim".to_owned())));
        assert!(!printed.contains("geheim"), "{printed}");
    }
}
