//! What the log tells of a conversation, and what it must never tell.

use std::io::Write;
use std::sync::{Arc, Mutex};

use thanosql_protocol::{ProtocolOptions, Secret, User};
use tokio_postgres::NoTls;
use tracing_subscriber::fmt::format::FmtSpan;

use crate::mock;

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Everything that is logged at this level while a client logs in with a password, fails, and runs a statement with a
/// parameter that comes back as a row.
async fn logged(level: tracing::Level) -> String {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_ansi(false)
        .with_span_events(FmtSpan::CLOSE)
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let user = User { name: "anna".to_owned(), secret: Secret::Password("pass-secret".to_owned()) };
    let options =
        ProtocolOptions { trust_loopback: false, users: vec![user], ..ProtocolOptions::default() };
    let server = mock::start_with(options).await;
    let mut config = tokio_postgres::Config::new();
    config.host("127.0.0.1").port(server.address.port()).user("anna").password("wrong-secret");
    assert!(config.connect(NoTls).await.is_err());
    config.password("pass-secret").application_name("test");
    let (client, connection) = config.connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    let row = client.query_one("echo text", &[&"row-secret"]).await.unwrap();
    assert_eq!(row.get::<_, &str>(0), "row-secret");
    assert!(client.batch_execute("fail").await.is_err());
    drop(client);
    server.events.wait_for("session dropped").await;
    let bytes = log.0.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap()
}

#[tokio::test]
async fn a_log_has_durations_rows_and_codes_but_no_secrets() {
    let info = logged(tracing::Level::INFO).await;
    for expected in [
        "connection{",
        "user=\"anna\"",
        "statement{",
        "rows=1",
        "duration_ms=",
        "sqlstate=\"42703\"",
        "28P01",
    ] {
        assert!(info.contains(expected), "{expected} is not in {info}");
    }
    for absent in ["pass-secret", "wrong-secret", "row-secret", "echo text"] {
        assert!(!info.contains(absent), "{absent} is in {info}");
    }
    let trace = logged(tracing::Level::TRACE).await;
    assert!(trace.contains("echo text"), "the statement's text is there for who asks for it");
    for absent in ["pass-secret", "wrong-secret", "row-secret"] {
        assert!(!trace.contains(absent), "{absent} is in {trace}");
    }
}
