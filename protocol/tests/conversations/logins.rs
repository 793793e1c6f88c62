//! Who gets in: trust, SCRAM, TLS with a certificate made for the test, limits and refusals.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use thanosql_protocol::{ProtocolError, ProtocolOptions, Secret, TlsFiles, User};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_postgres::NoTls;

use crate::mock::{self, Server};
use crate::raw::{RawClient, code_of, message, startup};

fn with_password(password: &str) -> ProtocolOptions {
    ProtocolOptions {
        trust_loopback: false,
        users: vec![User {
            name: "anna".to_owned(),
            secret: Secret::Password(password.to_owned()),
        }],
        ..ProtocolOptions::default()
    }
}

async fn log_in(server: &Server, user: &str, password: &str) -> Result<(), String> {
    let mut config = tokio_postgres::Config::new();
    config.host("127.0.0.1").port(server.address.port()).user(user).password(password);
    match config.connect(NoTls).await {
        Ok((client, connection)) => {
            tokio::spawn(connection);
            client.batch_execute("done A").await.unwrap();
            Ok(())
        }
        Err(error) => Err(error.as_db_error().map_or_else(
            || error.to_string(),
            |error| format!("{} {}", error.code().code(), error.message()),
        )),
    }
}

#[tokio::test]
async fn passwords_are_checked_and_users_are_not_revealed() {
    let server = mock::start_with(with_password("pass wörd")).await;
    assert_eq!(log_in(&server, "anna", "pass wörd").await, Ok(()));
    assert_eq!(
        log_in(&server, "anna", "wrong").await,
        Err("28P01 password authentication failed for user \"anna\"".to_owned())
    );
    assert_eq!(
        log_in(&server, "berta", "wrong").await,
        Err("28P01 password authentication failed for user \"berta\"".to_owned())
    );
    assert_eq!(server.events.all().iter().filter(|event| event.starts_with("connect")).count(), 1);
}

#[tokio::test]
async fn a_verifier_that_postgresql_made_is_as_good_as_the_password() {
    // PostgreSQL 15's pg_authid.rolpassword of a role with the password "pencil".
    let verifier = VERIFIER_OF_PENCIL;
    let options = ProtocolOptions {
        trust_loopback: false,
        users: vec![User {
            name: "anna".to_owned(),
            secret: Secret::ScramVerifier(verifier.to_owned()),
        }],
        ..ProtocolOptions::default()
    };
    let server = mock::start_with(options).await;
    assert_eq!(log_in(&server, "anna", "pencil").await, Ok(()));
    assert!(log_in(&server, "anna", "Pencil").await.is_err());
}

const VERIFIER_OF_PENCIL: &str = "SCRAM-SHA-256$4096:nuMMQVHPGLdhpuiqBNPcRQ==$M7dsu/7/gAN2l6Gx5+Oy/ixFPIA9X/llDS4sGa7ik5E=:gGh2rq/pNNTCH3LlIjy/2U9VzT2c8rp+5K43Gn6EjbE=";

#[tokio::test]
async fn malformed_login_messages_are_refused() {
    let server = mock::start_with(with_password("x")).await;
    for (body, code) in [
        (&b"NO-SUCH-MECHANISM\0\0\0\0\x03n,,"[..], "08P01"),
        (b"SCRAM-SHA-256\0\xff\xff\xff\xff", "08P01"),
        (b"SCRAM-SHA-256\0\0\0\0\xffn,,", "08P01"),
        (b"SCRAM-SHA-256\0\0\0\0\x08n,,n=,r=", "08P01"),
        (b"SCRAM-SHA-256\0\0\0\0\x02\xff\xfe", "08P01"),
        (b"SCRAM-SHA-256\0\0\0\0\x05p=x,,", "08P01"),
        (b"SCRAM-SHA-256-PLUS\0\0\0\0\x05p=x,,", "08P01"),
        (b"", "08P01"),
    ] {
        let mut client = RawClient::silent(server.address).await;
        client.send(&startup(3 << 16, &[("user", "anna")])).await;
        assert_eq!(client.messages(1).await, ["R \\x00\\x00\\x00\\nSCRAM-SHA-256\\x00\\x00"]);
        client.send(&message(b'p', body)).await;
        let mut answer = client.messages(1).await;
        if answer[0].starts_with("R ") {
            // An empty nonce is a matter of taste; the proof cannot be right in any case.
            client.send(&message(b'p', b"c=biws,r=x,p=AAAA")).await;
            answer = client.messages(1).await;
        }
        assert_eq!(code_of(&answer[0]), code, "{body:?}: {answer:?}");
        assert_eq!(client.answer().await, ["closed"]);
    }
    // Statements before the login are nothing but a violation.
    let mut client = RawClient::silent(server.address).await;
    client.send(&startup(3 << 16, &[("user", "anna")])).await;
    client.messages(1).await;
    client.send(&message(b'Q', b"done A\0")).await;
    assert_eq!(code_of(&client.answer().await[0]), "08P01");
    assert!(server.events.all().is_empty());
}

#[tokio::test]
async fn refusals_at_login() {
    let server = mock::start().await;
    for (parameters, code) in [
        (&[("database", "x")][..], "28000"),
        (&[("user", "anna"), ("database", "missing")], "3D000"),
        (&[("user", "anna"), ("database", "panic")], "XX000"),
        (&[("user", "anna"), ("replication", "true")], "0A000"),
        (&[("user", "anna"), ("options", "nonsense")], "42601"),
    ] {
        let mut client = RawClient::silent(server.address).await;
        client.send(&startup(3 << 16, parameters)).await;
        let answer = client.answer().await;
        let error = &answer[answer.len() - 2];
        assert_eq!(code_of(error), code, "{error}");
        assert!(error.starts_with("E S=FATAL V=FATAL"), "{error}");
        assert_eq!(answer.last().unwrap(), "closed");
    }
}

#[tokio::test]
async fn one_connection_too_many() {
    let options = ProtocolOptions { max_connections: 2, ..ProtocolOptions::default() };
    let server = mock::start_with(options).await;
    let first = RawClient::connect(server.address).await;
    let mut second = RawClient::connect(server.address).await;
    let mut third = RawClient::silent(server.address).await;
    third.send(&startup(3 << 16, &[("user", "anna")])).await;
    let answer = third.answer().await;
    assert_eq!(code_of(&answer[0]), "53300");
    assert_eq!(answer[1], "closed");
    assert_eq!(second.query("done A").await, ["C A", "Z I"]);
    drop(first);
    server.events.wait_for("session dropped").await;
    for _ in 0..50 {
        let mut again = RawClient::silent(server.address).await;
        again.send(&startup(3 << 16, &[("user", "anna")])).await;
        if again.answer().await.last().unwrap() == "Z I" {
            return;
        }
    }
    panic!("a place that was given back is not given out again");
}

#[tokio::test]
async fn a_login_that_takes_too_long_is_cut() {
    let options =
        ProtocolOptions { login_timeout: Duration::from_millis(200), ..ProtocolOptions::default() };
    let server = mock::start_with(options).await;
    let started = Instant::now();
    let mut client = RawClient::silent(server.address).await;
    client.send(&[0, 0]).await;
    assert!(client.message().await.is_none());
    assert!(started.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn nobody_listens_where_nobody_could_log_in() {
    for (address, trust_loopback) in [("0.0.0.0:0", true), ("127.0.0.1:0", false)] {
        let listener = TcpListener::bind(address).await.unwrap();
        let options = ProtocolOptions { trust_loopback, ..ProtocolOptions::default() };
        let server = mock::serve_on(listener, options);
        let result = tokio::time::timeout(Duration::from_secs(2), server).await.unwrap();
        assert!(matches!(result, Err(ProtocolError::NoUsers { .. })), "{result:?}");
    }
}

/// Makes a key and a certificate for localhost with the `openssl` command.
fn certificate(folder: &Path, algorithm: &[&str]) -> TlsFiles {
    let certificate = folder.join("server.crt");
    let private_key = folder.join("server.key");
    let status = Command::new("openssl")
        .args(["req", "-x509", "-nodes", "-days", "2", "-subj", "/CN=localhost"])
        .args([
            "-addext",
            "subjectAltName=DNS:localhost",
            "-addext",
            "basicConstraints=critical,CA:FALSE",
        ])
        .args(["-newkey"])
        .args(algorithm)
        .arg("-keyout")
        .arg(&private_key)
        .arg("-out")
        .arg(&certificate)
        .output()
        .unwrap();
    assert!(status.status.success(), "{status:?}");
    TlsFiles { certificate, private_key }
}

const ECDSA: [&str; 3] = ["ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"];

async fn encrypt(
    stream: TcpStream,
    files: &TlsFiles,
    alpn: &[u8],
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&files.certificate).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    if !alpn.is_empty() {
        config.alpn_protocols = vec![alpn.to_vec()];
    }
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    connector.connect(ServerName::try_from("localhost").unwrap(), stream).await
}

/// Reads until a ReadyForQuery or the end.
async fn read_greeting(stream: &mut (impl AsyncReadExt + Unpin)) -> Vec<u8> {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"Z\0\0\0\x05I") {
        if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
            break;
        }
    }
    bytes
}

#[tokio::test]
async fn connections_are_encrypted() {
    let folder = tempfile::tempdir().unwrap();
    let files = certificate(folder.path(), &ECDSA);
    let options = ProtocolOptions { tls: Some(files.clone()), ..ProtocolOptions::default() };
    let server = mock::start_with(options).await;

    // After an SSLRequest.
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(&message(0, &80_877_103_u32.to_be_bytes())[1..]).await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap(), b'S');
    let mut stream = encrypt(stream, &files, b"").await.unwrap();
    stream.write_all(&startup(3 << 16, &[("user", "anna")])).await.unwrap();
    assert!(read_greeting(&mut stream).await.ends_with(b"Z\0\0\0\x05I"));
    server.events.wait_for("connect anna tls=true").await;
    // Large rows, and a client that disappears in the middle of a statement.
    stream.write_all(&message(b'Q', b"wide 1000000\0")).await.unwrap();
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"Z\0\0\0\x05I") {
        assert_ne!(stream.read_buf(&mut bytes).await.unwrap(), 0);
    }
    assert!(bytes.len() > 1_000_000);
    stream.write_all(&message(b'Q', b"wait\0")).await.unwrap();
    server.events.wait_for("execute wait").await;
    drop(stream);
    server.events.wait_for("wait cancelled").await;

    // From the first byte on.
    let stream = TcpStream::connect(server.address).await.unwrap();
    let mut stream = encrypt(stream, &files, b"postgresql").await.unwrap();
    stream.write_all(&startup(3 << 16, &[("user", "direct")])).await.unwrap();
    assert!(read_greeting(&mut stream).await.ends_with(b"Z\0\0\0\x05I"));

    // From the first byte on, but perhaps meant for another protocol.
    let stream = TcpStream::connect(server.address).await.unwrap();
    if let Ok(mut stream) = encrypt(stream, &files, b"").await {
        let _ = stream.write_all(&startup(3 << 16, &[("user", "anna")])).await;
        assert!(read_greeting(&mut stream).await.is_empty());
    }

    // Bytes that were smuggled in before the encryption are not taken for encrypted ones.
    let mut client = RawClient::silent(server.address).await;
    let smuggled =
        [&message(0, &80_877_103_u32.to_be_bytes())[1..], &startup(3 << 16, &[("user", "eve")])]
            .concat();
    client.send(&smuggled).await;
    assert_eq!(code_of(&client.answer().await[0]), "08P01");
    // Without TLS it still works on this machine.
    RawClient::connect(server.address).await;
}

#[tokio::test]
async fn psql_logs_in_bound_to_the_certificate() {
    if Command::new("psql").arg("--version").output().is_err() {
        return; // the other tests cover all but libpq
    }
    let folder = tempfile::tempdir().unwrap();
    let files = certificate(folder.path(), &ECDSA);
    let options = ProtocolOptions { tls: Some(files), ..with_password("geheim") };
    let server = mock::start_with(options).await;
    let run = |password: &'static str, binding: &'static str| {
        let port = server.address.port();
        tokio::task::spawn_blocking(move || {
            let connection = format!(
                "host=127.0.0.1 port={port} user=anna dbname=db sslmode=require channel_binding={binding}"
            );
            let output = Command::new("psql")
                .args(["-X", "-A", "-t", "-c", "series 2", &connection])
                .env("PGPASSWORD", password)
                .output()
                .unwrap();
            (output.status.success(), String::from_utf8(output.stdout).unwrap())
        })
    };
    assert_eq!(run("geheim", "require").await.unwrap(), (true, "0\n1\n".to_owned()));
    assert_eq!(run("geheim", "disable").await.unwrap(), (true, "0\n1\n".to_owned()));
    assert!(!run("falsch", "require").await.unwrap().0);
}

#[tokio::test]
async fn a_broken_certificate_stops_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let good = certificate(folder.path(), &ECDSA);
    let other = tempfile::tempdir().unwrap();
    let foreign = certificate(other.path(), &ECDSA);
    let garbage = folder.path().join("garbage");
    std::fs::write(&garbage, "-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n")
        .unwrap();
    let empty = folder.path().join("empty");
    std::fs::write(&empty, "").unwrap();
    for (certificate, private_key) in [
        (folder.path().join("missing"), good.private_key.clone()),
        (good.certificate.clone(), folder.path().join("missing")),
        (garbage, good.private_key.clone()),
        (empty.clone(), good.private_key.clone()),
        (good.certificate.clone(), empty),
        (good.certificate.clone(), foreign.private_key),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let tls =
            Some(TlsFiles { certificate: certificate.clone(), private_key: private_key.clone() });
        let server =
            mock::serve_on(listener, ProtocolOptions { tls, ..ProtocolOptions::default() });
        let result = tokio::time::timeout(Duration::from_secs(2), server).await.unwrap();
        assert!(
            matches!(
                result,
                Err(ProtocolError::TlsFile { .. }
                    | ProtocolError::TlsContent { .. }
                    | ProtocolError::Tls(_))
            ),
            "{certificate:?} {private_key:?} {result:?}"
        );
    }
}
