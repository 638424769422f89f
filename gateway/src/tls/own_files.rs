//! The certificate that clients see with its key, as files hold them.

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs::default_provider;
use rustls::sign::{CertifiedKey, SigningKey};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::TlsError;
use super::public_key::{PublicKey, why_unusable};
use crate::config::Config;
use crate::pem_file::{Fingerprint, PemFile};

/// What names a certificate that the gateway got by itself, and its key.
const OF_ACME: [&str; 2] = ["Acme", "Acme"];

/// Certificate and key, read at one moment.
pub(crate) struct OwnFiles {
    pub(super) chain: PemFile,
    key: PemFile,
    /// The keys of the configuration that name them.
    pub(super) names: [&'static str; 2],
}

impl OwnFiles {
    /// Reads the files that the configuration names.
    pub(super) fn read(config: &Config) -> Self {
        Self {
            chain: PemFile::read(&config.certificate_file()),
            key: PemFile::read(&config.certificate_key_file()),
            names: match config.acme {
                Some(_) => OF_ACME,
                None => ["CertFile", "KeyFile"],
            },
        }
    }

    /// What the gateway has got by itself is in one file.
    pub(crate) fn in_one(path: &Path, content: &[u8]) -> Self {
        Self {
            chain: PemFile::of(path, content),
            key: PemFile::of(path, content),
            names: OF_ACME,
        }
    }

    /// The certificate with its chain and its key, if they belong together.
    pub(crate) fn certified(&self) -> Result<CertifiedKey, TlsError> {
        let Self { chain, key, names } = self;
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
        self.pair(certificates, signing_key)
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

    /// Tells whether the files changed.
    pub(crate) fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of([&self.chain, &self.key])
    }
}

/// What the library signs with; else why it cannot.
fn signing_key(key: PrivateKeyDer<'static>) -> Result<Arc<dyn SigningKey>, String> {
    let unusable = why_unusable(&key);
    let loaded = default_provider().key_provider.load_private_key(key);
    loaded.map_err(|_| unusable)
}
