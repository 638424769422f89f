//! What is wrong with a host's certificate, in words for the administrator.

use std::sync::Arc;

use rustls::{CertificateError, OtherError};

use super::CertificateDigest;

/// Why a certificate is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    #[error("the host's certificate is not well-formed")]
    Malformed,
    #[error("the key of the host's certificate cannot be checked ({0}); {USABLE}")]
    Key(String),
    #[error(
        "the key of the authority that signed the host's certificate cannot be checked ({0}); {USABLE}"
    )]
    AuthorityKey(String),
    #[error(
        "the host's certificate ({subject}) is signed by none of the trusted authorities: its \
         issuer is {issuer}"
    )]
    Issuer { subject: String, issuer: String },
    #[error(
        "the host's certificate ({subject}) was not signed with the key of {issuer}, which is trusted"
    )]
    Signature { subject: String, issuer: String },
    #[error(
        "the host's certificate ({0}) is that of an authority; one that is not, or its own entry \
         among the trusted certificates, is needed"
    )]
    IsAuthority(String),
    #[error("the host's certificate {0}")]
    Time(String),
    #[error("the host's certificate is for {found}, and not for {wanted}")]
    Name { found: String, wanted: String },
    #[error("the subject of the host's certificate is {found:?}, and not {wanted:?}")]
    Subject { found: String, wanted: String },
    #[error("the host's certificate is another one than was pinned: its SHA-256 digest is {0}")]
    Pin(CertificateDigest),
    #[error("the host's certificate is not accepted: {0}")]
    Other(String),
}

/// Keys that the library checks signatures with.
const USABLE: &str =
    "RSA of 2048 to 8192 bits, ECDSA on P-256, P-384 and P-521, and Ed25519 can be";

impl From<Fault> for rustls::Error {
    fn from(fault: Fault) -> Self {
        CertificateError::Other(OtherError(Arc::new(fault))).into()
    }
}
