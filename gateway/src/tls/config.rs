//! Certificate, key and settings of the public port.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::{Ticketer, default_provider};
use rustls::server::ServerSessionMemoryCache;
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::config::Config;

/// TLS 1.2 sessions of clients without tickets that can be resumed.
const CACHED_SESSIONS: usize = 4_096;

/// What is wrong with the certificate or its key.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// No certificate can be read.
    #[error("{path}: CertFile: expected a PEM file with a certificate: {reason}")]
    Certificate {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// No private key can be read.
    #[error("{path}: KeyFile: expected a PEM file with a private key: {reason}")]
    Key {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// Certificate and key do not belong together.
    #[error("{key_path}: KeyFile: expected the key of the certificate in {path}: {reason}")]
    Mismatch {
        /// The certificate's file.
        path: PathBuf,
        /// The key's file.
        key_path: PathBuf,
        /// What does not fit.
        reason: String,
    },
    /// The system's random source failed.
    #[error("cannot make a key for session tickets: {0}")]
    Ticketer(rustls::Error),
}

/// Reads certificate and key: TLS 1.2 and 1.3, resumption with and without tickets, no 0-RTT.
pub fn server_config(config: &Config) -> Result<ServerConfig, TlsError> {
    let chain = read_chain(&config.cert_file)?;
    let key = PrivateKeyDer::from_pem_file(&config.key_file).map_err(|error| TlsError::Key {
        path: config.key_file.clone(),
        reason: explain(error),
    })?;
    let mut tls = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap_or_else(|_| unreachable!("the provider carries TLS 1.2 and 1.3"))
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| TlsError::Mismatch {
            path: config.cert_file.clone(),
            key_path: config.key_file.clone(),
            reason: error.to_string(),
        })?;
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    tls.session_storage = ServerSessionMemoryCache::new(CACHED_SESSIONS);
    // Established connections are moved by the gateway's own record layer.
    tls.enable_secret_extraction = true;
    tls.ticketer = Ticketer::new().map_err(TlsError::Ticketer)?;
    Ok(tls)
}

fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let wrong = |reason| TlsError::Certificate {
        path: path.to_owned(),
        reason,
    };
    let chain = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| wrong(explain(error)))?;
    if chain.is_empty() {
        return Err(wrong("it has none".to_owned()));
    }
    Ok(chain)
}

/// What is wrong with a PEM file, in words that never repeat what the file holds.
pub(crate) fn explain(error: pem::Error) -> String {
    match error {
        pem::Error::Io(error) => error.to_string(),
        pem::Error::NoItemsFound => "it has none".to_owned(),
        _ => "it is not well-formed".to_owned(),
    }
}
