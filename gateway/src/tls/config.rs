//! Certificate, key and settings of the public port.

use std::path::PathBuf;
use std::sync::Arc;

use gateway_datapath::tls::{Profile, server_config};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::server::{ServerSessionMemoryCache, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};

use super::certificate::{Certificate, oddity};
use super::clients::ClientRule;
use super::own_files::OwnFiles;
use super::placeholder;
use crate::config::{ClientCertificates, Config, TlsProfile};
use crate::pem_file::{Fingerprint, PemFile};

/// TLS 1.2 sessions of clients without tickets that can be resumed.
const CACHED_SESSIONS: usize = 4_096;

/// What is wrong with the certificate or its key.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// No certificate can be read.
    #[error("{path}: {key}: expected a PEM file with a certificate: {reason}")]
    Certificate {
        /// The key of the configuration.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// No private key can be read.
    #[error("{path}: {key}: expected a PEM file with a private key: {reason}")]
    Key {
        /// The key of the configuration.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// Certificate and key do not belong together.
    #[error("{key_path}: {key}: expected the key of the certificate in {path}: {reason}")]
    Mismatch {
        /// The key of the configuration.
        key: &'static str,
        /// The certificate's file.
        path: PathBuf,
        /// The key's file.
        key_path: PathBuf,
        /// What does not fit.
        reason: String,
    },
    /// No certificate can be made for the time until there is one.
    #[error("cannot make a certificate: {0}")]
    Placeholder(String),
    /// No authorities of clients can be read.
    #[error("{path}: ClientCAFile: expected a PEM file with certificates: {reason}")]
    ClientAuthorities {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// No lists of revoked certificates can be read.
    #[error(
        "{path}: ClientCRLFile: expected a PEM file with lists of revoked certificates: {reason}"
    )]
    ClientLists {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// The system's random source failed.
    #[error("cannot make a key for session tickets: {0}")]
    Ticketer(rustls::Error),
}

/// What the gateway shows on its TLS port, and what the handshakes need besides.
pub struct Identity {
    /// Resumption with and without tickets, no 0-RTT.
    ///
    /// Sessions are resumed under the identity that began them only: with another certificate,
    /// clients make a full handshake and see it, and with other rules for theirs they show it.
    pub tls: Arc<ServerConfig>,
    /// Which certificates clients must have; `None`: they are not asked for any.
    pub clients: Option<ClientRule>,
    /// The certificate, as far as the log and metrics tell of it.
    pub certificate: Certificate,
    /// What is odd about the chain, which is shown as it is.
    pub oddity: Option<String>,
    /// Whether it is one of the gateway's own making, until an authority has given one.
    pub is_placeholder: bool,
    /// Tells whether the files still hold this.
    pub fingerprint: Fingerprint,
}

impl Identity {
    /// Reads certificate and key from the files that the configuration names. Where the gateway
    /// gets them by itself and has none that can be used, it makes one of its own, so that the port
    /// can be open.
    pub fn read(config: &Config) -> Result<Self, TlsError> {
        let files = IdentityFiles::read(config);
        let read = Self::from_files(&files);
        match (&config.acme, read) {
            (Some(acme), Err(unusable)) => {
                let certified = placeholder::make(&acme.domains)?;
                let oddity =
                    (!files.are_missing()).then(|| format!("{unusable}; it is ordered anew"));
                let made = Self::new(certified, &files, oddity)?;
                Ok(Self {
                    is_placeholder: true,
                    ..made
                })
            }
            (_, read) => read,
        }
    }

    /// Of files that were read already.
    pub fn from_files(files: &IdentityFiles) -> Result<Self, TlsError> {
        let certified = files.own.certified()?;
        let oddity = oddity(&certified.cert).map(|oddity| {
            let OwnFiles { chain, names, .. } = &files.own;
            format!("{}: {}: {oddity}", chain.path.display(), names[0])
        });
        Self::new(certified, files, oddity)
    }

    fn new(
        certified: CertifiedKey,
        files: &IdentityFiles,
        oddity: Option<String>,
    ) -> Result<Self, TlsError> {
        let certificate = certified.cert.first().map(Certificate::of);
        // Established connections are moved by the gateway's own record layer.
        let clients = files.clients()?;
        let verifier = clients.as_ref().map(ClientRule::verifier);
        let mut tls = server_config(
            files.profile,
            verifier.unwrap_or_else(WebPkiClientVerifier::no_client_auth),
            Arc::new(SingleCertAndKey::from(certified)),
        );
        tls.alpn_protocols = vec![b"http/1.1".to_vec(), b"http/1.0".to_vec()];
        tls.session_storage = ServerSessionMemoryCache::new(CACHED_SESSIONS);
        tls.ticketer = Ticketer::new().map_err(TlsError::Ticketer)?;
        Ok(Self {
            tls: Arc::new(tls),
            clients,
            certificate: certificate.unwrap_or_default(),
            oddity,
            is_placeholder: false,
            fingerprint: files.fingerprint(),
        })
    }
}

/// Versions and ciphers that clients are offered.
pub(crate) fn profile(config: &Config) -> Profile {
    match config.tls_profile {
        TlsProfile::Modern => Profile::Modern,
        TlsProfile::Intermediate => Profile::Intermediate,
    }
}

/// The files of an [`Identity`], read at one moment.
pub struct IdentityFiles {
    own: OwnFiles,
    client_authorities: Option<PemFile>,
    client_lists: Option<PemFile>,
    is_client_required: bool,
    profile: Profile,
}

impl IdentityFiles {
    /// Reads the files that the configuration names.
    pub fn read(config: &Config) -> Self {
        Self {
            own: OwnFiles::read(config),
            client_authorities: config.client_ca_file.as_deref().map(PemFile::read),
            client_lists: config.client_crl_file.as_deref().map(PemFile::read),
            is_client_required: config.client_certificates == ClientCertificates::Required,
            profile: profile(config),
        }
    }

    /// Whether there are no such files.
    pub(crate) fn are_missing(&self) -> bool {
        self.own.chain.is_missing()
    }

    fn clients(&self) -> Result<Option<ClientRule>, TlsError> {
        let Some(authorities) = &self.client_authorities else {
            return Ok(None);
        };
        let lists = self.client_lists.as_ref();
        ClientRule::new(authorities, lists, self.is_client_required).map(Some)
    }

    /// Tells whether the files changed, or what is to be made of them.
    pub fn fingerprint(&self) -> Fingerprint {
        let clients = Fingerprint::of(&self.client_authorities);
        let lists = Fingerprint::of(&self.client_lists);
        let (is_required, profile) = (self.is_client_required, self.profile);
        let settings = format!("{clients:?} {lists:?} {is_required} {profile:?}");
        self.own.fingerprint().with(&settings)
    }
}
