//! Certificate, key and settings of the public port.

use std::path::PathBuf;
use std::sync::Arc;

use gateway_datapath::tls::server_config;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::{Ticketer, default_provider};
use rustls::server::ServerSessionMemoryCache;
use rustls::sign::{CertifiedKey, SigningKey, SingleCertAndKey};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::certificate::{Certificate, oddity};
use super::public_key::{PublicKey, why_unusable};
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
    /// What is odd about the chain, which is shown as it is.
    pub oddity: Option<String>,
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
        let signing_key = signing_key(private_key).map_err(|reason| TlsError::Key {
            path: key.path.clone(),
            reason,
        })?;
        let oddity = oddity(&certificates)
            .map(|oddity| format!("{}: CertFile: {oddity}", chain.path.display()));
        let certificate = Certificate::of(&certificates[0]);
        let certified = files.pair(certificates, signing_key)?;
        // Established connections are moved by the gateway's own record layer.
        let mut tls = server_config(Arc::new(SingleCertAndKey::from(certified)));
        tls.alpn_protocols = vec![b"http/1.1".to_vec(), b"http/1.0".to_vec()];
        tls.session_storage = ServerSessionMemoryCache::new(CACHED_SESSIONS);
        tls.ticketer = Ticketer::new().map_err(TlsError::Ticketer)?;
        Ok(Self {
            tls: Arc::new(tls),
            certificate,
            oddity,
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

    /// Certificates and the key of the first one.
    ///
    /// What the library does to make a pair refuses certificates that clients may well take: see
    /// [`PublicKey`].
    fn pair(
        &self,
        certificates: Vec<CertificateDer<'static>>,
        key: Arc<dyn SigningKey>,
    ) -> Result<CertifiedKey, TlsError> {
        let mut owner = None;
        for (at, certificate) in certificates.iter().enumerate() {
            let public = PublicKey::of_certificate(certificate);
            let public = public.ok_or_else(|| TlsError::Certificate {
                path: self.chain.path.clone(),
                reason: format!("certificate {} is not well-formed", at + 1),
            })?;
            if owner.is_none() && public.belongs_to(&*key) {
                owner = Some(at);
            }
        }
        let reason = match owner {
            Some(0) => return Ok(CertifiedKey::new(certificates, key)),
            Some(at) => format!(
                "it is that of certificate {}; the gateway's own certificate must come first",
                at + 1
            ),
            None => "it is that of another one".to_owned(),
        };
        Err(TlsError::Mismatch {
            path: self.chain.path.clone(),
            key_path: self.key.path.clone(),
            reason,
        })
    }

    /// Tells whether the files changed.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of([&self.chain, &self.key])
    }
}

/// What the library signs with; else why it cannot.
fn signing_key(key: PrivateKeyDer<'static>) -> Result<Arc<dyn SigningKey>, String> {
    let unusable = why_unusable(&key);
    let loaded = default_provider().key_provider.load_private_key(key);
    loaded.map_err(|_| unusable)
}
