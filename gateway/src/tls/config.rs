//! Certificate, key and settings of the public port.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use gateway_datapath::tls::{Profile, server_config};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::{Ticketer, default_provider};
use rustls::server::{ServerSessionMemoryCache, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SigningKey, SingleCertAndKey};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::certificate::{Certificate, oddity};
use super::clients::{ClientRule, RuleError};
use super::placeholder;
use super::public_key::{PublicKey, why_unusable};
use crate::config::{ClientCertificates, Config, TlsProfile};
use crate::pem_file::{Fingerprint, PemFile};

/// TLS 1.2 sessions of clients without tickets that can be resumed.
const CACHED_SESSIONS: usize = 4_096;

/// What names a certificate that the gateway got by itself, and its key.
const OF_ACME: [&str; 2] = ["Acme", "Acme"];

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
                let (chain, key) = placeholder::make(&acme.domains)?;
                let oddity =
                    (!files.are_missing()).then(|| format!("{unusable}; it is ordered anew"));
                let made = Self::new(CertifiedKey::new(chain, key), &files, oddity)?;
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
        let IdentityFiles {
            chain, key, names, ..
        } = files;
        let certificates = chain
            .certificates()
            .map_err(|reason| TlsError::Certificate {
                key: names[0],
                path: chain.path.clone(),
                reason,
            })?;
        let wrong_key = |reason| TlsError::Key {
            key: names[1],
            path: key.path.clone(),
            reason,
        };
        let private_key = key.private_key().map_err(wrong_key)?;
        let signing_key = signing_key(private_key).map_err(wrong_key)?;
        let oddity = oddity(&certificates)
            .map(|oddity| format!("{}: {}: {oddity}", chain.path.display(), names[0]));
        let certified = files.pair(certificates, signing_key)?;
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

/// The files of an [`Identity`], read at one moment.
pub struct IdentityFiles {
    chain: PemFile,
    key: PemFile,
    /// The keys of the configuration that name them.
    names: [&'static str; 2],
    client_authorities: Option<PemFile>,
    client_lists: Option<PemFile>,
    is_client_required: bool,
    profile: Profile,
}

impl IdentityFiles {
    /// Reads the files that the configuration names.
    pub fn read(config: &Config) -> Self {
        let names = match config.acme {
            Some(_) => OF_ACME,
            None => ["CertFile", "KeyFile"],
        };
        Self {
            chain: PemFile::read(&config.certificate_file()),
            key: PemFile::read(&config.certificate_key_file()),
            names,
            client_authorities: config.client_ca_file.as_deref().map(PemFile::read),
            client_lists: config.client_crl_file.as_deref().map(PemFile::read),
            is_client_required: config.client_certificates == ClientCertificates::Required,
            profile: match config.tls_profile {
                TlsProfile::Modern => Profile::Modern,
                TlsProfile::Intermediate => Profile::Intermediate,
            },
        }
    }

    /// What the gateway has got by itself is in one file.
    pub(crate) fn in_one(path: &Path, content: &[u8]) -> Self {
        Self {
            chain: PemFile::of(path, content),
            key: PemFile::of(path, content),
            names: OF_ACME,
            client_authorities: None,
            client_lists: None,
            is_client_required: false,
            profile: Profile::Intermediate,
        }
    }

    /// Whether there are no such files.
    pub(crate) fn are_missing(&self) -> bool {
        self.chain.is_missing()
    }

    fn clients(&self) -> Result<Option<ClientRule>, TlsError> {
        let Some(authorities) = &self.client_authorities else {
            return Ok(None);
        };
        let lists = self.client_lists.as_ref();
        let rule = ClientRule::new(authorities, lists, self.is_client_required);
        let path = |file: Option<&PemFile>| file.map(|file| file.path.clone()).unwrap_or_default();
        let rule = rule.map_err(|error| match error {
            RuleError::Authorities(reason) => TlsError::ClientAuthorities {
                path: authorities.path.clone(),
                reason,
            },
            RuleError::Lists(reason) => TlsError::ClientLists {
                path: path(lists),
                reason,
            },
        })?;
        Ok(Some(rule))
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
                key: self.names[0],
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
            key: self.names[1],
            path: self.chain.path.clone(),
            key_path: self.key.path.clone(),
            reason,
        })
    }

    /// Tells whether the files changed, or what is to be made of them.
    pub fn fingerprint(&self) -> Fingerprint {
        let own = [&self.chain, &self.key];
        let clients = Fingerprint::of(&self.client_authorities);
        let lists = Fingerprint::of(&self.client_lists);
        let (is_required, profile) = (self.is_client_required, self.profile);
        let settings = format!("{clients:?} {lists:?} {is_required} {profile:?}");
        Fingerprint::of(own).with(&settings)
    }
}

/// What the library signs with; else why it cannot.
fn signing_key(key: PrivateKeyDer<'static>) -> Result<Arc<dyn SigningKey>, String> {
    let unusable = why_unusable(&key);
    let loaded = default_provider().key_provider.load_private_key(key);
    loaded.map_err(|_| unusable)
}
