//! Certificate, key and settings of the public port.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::{Ticketer, default_provider};
use rustls::server::ServerSessionMemoryCache;

use super::certificate::Certificate;
use super::secrets::Capture;
use crate::config::Config;
use crate::pem_file::{Fingerprint, PemFile};

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

/// What the gateway shows on its TLS port, and what the handshakes need besides.
pub struct Identity {
    /// TLS 1.2 and 1.3, resumption with and without tickets, no 0-RTT.
    ///
    /// Sessions are resumed under the identity that began them only: with another certificate,
    /// clients make a full handshake and see it.
    pub tls: Arc<ServerConfig>,
    /// The certificate, as far as the log and metrics tell of it.
    pub certificate: Certificate,
    /// Tells whether the files still hold this.
    pub fingerprint: Fingerprint,
}

impl Identity {
    /// Reads certificate and key from the files that the configuration names.
    pub fn read(config: &Config) -> Result<Self, TlsError> {
        Self::from_files(&IdentityFiles::read(config))
    }

    /// Of files that were read already.
    pub fn from_files(files: &IdentityFiles) -> Result<Self, TlsError> {
        let IdentityFiles { chain, key } = files;
        let certificates = chain
            .certificates()
            .map_err(|reason| TlsError::Certificate {
                path: chain.path.clone(),
                reason,
            })?;
        let private_key = key.private_key().map_err(|reason| TlsError::Key {
            path: key.path.clone(),
            reason,
        })?;
        let certificate = Certificate::of(&certificates[0]);
        let mut tls = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap_or_else(|_| unreachable!("the provider carries TLS 1.2 and 1.3"))
            .with_no_client_auth()
            .with_single_cert(certificates, private_key)
            .map_err(|error| TlsError::Mismatch {
                path: chain.path.clone(),
                key_path: key.path.clone(),
                reason: error.to_string(),
            })?;
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        tls.session_storage = ServerSessionMemoryCache::new(CACHED_SESSIONS);
        // Established connections are moved by the gateway's own record layer.
        tls.enable_secret_extraction = true;
        tls.key_log = Arc::new(Capture);
        tls.ticketer = Ticketer::new().map_err(TlsError::Ticketer)?;
        Ok(Self {
            tls: Arc::new(tls),
            certificate,
            fingerprint: files.fingerprint(),
        })
    }
}

/// The files of an [`Identity`], read at one moment.
pub struct IdentityFiles {
    chain: PemFile,
    key: PemFile,
}

impl IdentityFiles {
    /// Reads the files that the configuration names.
    pub fn read(config: &Config) -> Self {
        Self {
            chain: PemFile::read(&config.cert_file),
            key: PemFile::read(&config.key_file),
        }
    }

    /// Tells whether the files changed.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of([&self.chain, &self.key])
    }
}
