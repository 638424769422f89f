//! Authorities that may sign the certificates of hosts.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;
use x509_parser::x509::X509Version;

use crate::pem_file::{self, PemFile};
use crate::tls::PublicKey;

/// Certificates that are trusted: as authorities, and as those of hosts.
#[derive(Clone)]
pub struct Authorities {
    listed: Arc<[CertificateDer<'static>]>,
    /// Those that the library takes as authorities.
    roots: Arc<RootCertStore>,
}

/// What is wrong with `HostCAFile`.
#[derive(Debug, thiserror::Error)]
#[error("{path}: HostCAFile: expected a PEM file with certificates: {reason}")]
pub struct AuthoritiesError {
    path: PathBuf,
    reason: String,
}

impl Authorities {
    /// The certificates in a PEM text, at least one; else why there are none.
    pub fn from_pem(text: &[u8]) -> Result<Self, String> {
        Self::new(pem_file::certificates(text)?)
    }

    /// The certificates of `HostCAFile`.
    pub fn from_file(file: &PemFile) -> Result<Self, AuthoritiesError> {
        let found = file.certificates().and_then(Self::new);
        found.map_err(|reason| AuthoritiesError {
            path: file.path.clone(),
            reason,
        })
    }

    /// These. Fails for one that is no certificate.
    pub fn new(listed: Vec<CertificateDer<'static>>) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        for (at, certificate) in listed.iter().enumerate() {
            if PublicKey::of_certificate(certificate).is_none() {
                return Err(format!("certificate {} is not well-formed", at + 1));
            }
            // A host's own certificate vouches for that host alone. The library would take any.
            if is_authority(certificate) {
                let _ = roots.add(certificate.clone());
            }
        }
        Ok(Self {
            listed: listed.into(),
            roots: Arc::new(roots),
        })
    }

    /// None, so that no certificate is accepted.
    pub fn none() -> Self {
        Self {
            listed: [].into(),
            roots: Arc::new(RootCertStore::empty()),
        }
    }

    /// All certificates.
    pub(super) fn listed(&self) -> &[CertificateDer<'static>] {
        &self.listed
    }

    /// Those that the library takes as authorities.
    pub(super) fn roots(&self) -> &RootCertStore {
        &self.roots
    }
}

/// Whether a certificate may be that of an authority: it says so, or is of version 1, which cannot.
fn is_authority(der: &CertificateDer<'_>) -> bool {
    X509Certificate::from_der(der).is_ok_and(|(_, certificate)| {
        let constraints = certificate.basic_constraints().ok().flatten();
        certificate.version() == X509Version::V1
            || constraints.is_some_and(|constraints| constraints.value.ca)
    })
}

impl PartialEq for Authorities {
    fn eq(&self, other: &Self) -> bool {
        self.listed == other.listed
    }
}

impl Eq for Authorities {}

impl fmt::Debug for Authorities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Authorities({} certificates)", self.listed.len())
    }
}
