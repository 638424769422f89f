//! TLS to hosts: whose certificates are accepted.

mod authorities;
mod fault;
mod names;
mod state;
#[cfg(test)]
mod tests;
mod verifier;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use rustls::{CertificateError, ClientConfig};
use rustls_pki_types::{CertificateDer, ServerName};

pub use authorities::{Authorities, AuthoritiesError};
pub use state::HostTlsState;

use crate::certificate_subject::Subject;
use crate::host::Host;
use fault::Fault;
use gateway_datapath::tls::{self, HandshakeError};
use verifier::Verifier;

/// How the certificate of a host is checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostTls {
    /// Who vouches for it.
    pub trust: Trust,
    /// The subject that it must have. `None`: with authorities it must be valid for the host's name
    /// or address, and one that is pinned may be for any.
    pub subject: Option<Subject>,
}

/// Who vouches for a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// It is one of these, or signed by one of them.
    Authorities(Authorities),
    /// It is exactly this one, whatever it says of itself.
    Certificate(CertificateDigest),
}

/// SHA-256 of a certificate in DER; shown and read as hexadecimal digits, in pairs between colons
/// or not.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct CertificateDigest([u8; Self::LENGTH]);

/// A text is no SHA-256 digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected 64 hexadecimal digits, in pairs between colons or not")]
pub struct DigestError;

impl CertificateDigest {
    const LENGTH: usize = 32;

    /// Of a certificate.
    pub fn of(certificate: &CertificateDer<'_>) -> Self {
        let mut bytes = [0; Self::LENGTH];
        bytes.copy_from_slice(digest(&SHA256, certificate).as_ref());
        Self(bytes)
    }

    /// As it is written into tickets and states.
    pub fn bytes(&self) -> &[u8; Self::LENGTH] {
        &self.0
    }
}

impl From<[u8; CertificateDigest::LENGTH]> for CertificateDigest {
    fn from(bytes: [u8; CertificateDigest::LENGTH]) -> Self {
        Self(bytes)
    }
}

impl FromStr for CertificateDigest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let is_spaced = text.contains(':');
        let digits: Vec<_> = text.bytes().filter(|byte| *byte != b':').collect();
        let pairs = text.split(':').all(|pair| pair.len() == 2);
        if digits.len() != 2 * Self::LENGTH || (is_spaced && !pairs) {
            return Err(DigestError);
        }
        let mut bytes = [0; Self::LENGTH];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
            let digit = |at: usize| char::from(pair[at]).to_digit(16).ok_or(DigestError);
            *byte = u8::try_from(digit(0)? * 16 + digit(1)?).map_err(|_| DigestError)?;
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for CertificateDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, byte) in self.0.iter().enumerate() {
            let colon = if at > 0 { ":" } else { "" };
            write!(f, "{colon}{byte:02X}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for CertificateDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl HostTls {
    /// The certificate must be this one.
    pub fn pinned(digest: CertificateDigest) -> Self {
        Self {
            trust: Trust::Certificate(digest),
            subject: None,
        }
    }

    /// What handshakes are made with.
    pub fn client_config(&self) -> ClientConfig {
        tls::client_config(Arc::new(Verifier::new(self.clone())))
    }
}

/// A host as its certificate is asked for it.
///
/// Fails for a name that no certificate can be for.
pub fn server_name(host: &Host) -> Result<ServerName<'static>, String> {
    match host.address() {
        Some(address) => Ok(address.into()),
        None => ServerName::try_from(host.to_string())
            .map_err(|_| format!("no certificate can be for the name {host}")),
    }
}

/// Why a handshake with a host failed, in words for the administrator.
pub fn reason(error: &HandshakeError) -> String {
    match error {
        HandshakeError::Tls(rustls::Error::InvalidCertificate(CertificateError::Other(other)))
            if other.0.is::<Fault>() =>
        {
            other.0.to_string()
        }
        HandshakeError::Tls(error @ rustls::Error::InvalidMessage(_)) => {
            format!("{error}; is this a TLS port?")
        }
        HandshakeError::Tls(error) => error.to_string(),
        HandshakeError::Io(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            "the host ended the connection in the handshake; is this a TLS port?".to_owned()
        }
        HandshakeError::Io(error) => error.to_string(),
    }
}
