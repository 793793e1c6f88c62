//! TLS: the certificate and key of the configuration become one rustls configuration, with ring as its cryptography.
//!
//! Whatever is wrong with them stops the start. A server that was given a certificate never goes on without it.

use std::path::Path;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use crate::error::ProtocolError;
use crate::options::TlsFiles;

/// The name under which TLS without a preceding SSLRequest is negotiated.
pub(crate) const ALPN: &[u8] = b"postgresql";

/// What is needed to encrypt connections and to bind logins to them.
pub(crate) struct Tls {
    pub(crate) acceptor: TlsAcceptor,
    /// The certificate as it stands in its file, for SCRAM's channel binding.
    pub(crate) certificate_pem: Vec<u8>,
}

/// Reads certificate and key.
pub(crate) fn load(files: &TlsFiles) -> Result<Tls, ProtocolError> {
    let certificate_pem = read(&files.certificate)?;
    let certificates = CertificateDer::pem_slice_iter(&certificate_pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| content("certificate", &files.certificate, Some(error.to_string())))?;
    if certificates.is_empty() {
        return Err(content("certificate", &files.certificate, None));
    }
    let key = PrivateKeyDer::from_pem_slice(&read(&files.private_key)?)
        .map_err(|error| content("private key", &files.private_key, Some(error.to_string())))?;

    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(ProtocolError::Tls)?
        .with_no_client_auth()
        .with_single_cert(certificates, key)
        .map_err(ProtocolError::Tls)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(Tls { acceptor: TlsAcceptor::from(Arc::new(config)), certificate_pem })
}

fn read(path: &Path) -> Result<Vec<u8>, ProtocolError> {
    std::fs::read(path).map_err(|source| ProtocolError::TlsFile { path: path.to_owned(), source })
}

fn content(what: &'static str, path: &Path, reason: Option<String>) -> ProtocolError {
    ProtocolError::TlsContent { what, path: path.to_owned(), reason }
}

/// Random bytes that nobody can guess.
pub(crate) fn random_bytes<const LENGTH: usize>() -> [u8; LENGTH] {
    let mut bytes = [0; LENGTH];
    rustls::crypto::ring::default_provider()
        .secure_random
        .fill(&mut bytes)
        .expect("the operating system always gives random bytes");
    bytes
}
