//! How a host's certificate is checked, written down.

use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};

use super::{Authorities, CertificateDigest, HostTls, Trust};
use gateway_datapath::encoded::Bytes;
use gateway_datapath::state_error::StateError;

/// Most authorities of one host, and the longest certificate, in bytes.
const MAX_AUTHORITIES: usize = 64;
const MAX_CERTIFICATE: usize = 64 * 1024;

/// A [`HostTls`] written down.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HostTlsState {
    trust: TrustState,
    subject: Option<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
enum TrustState {
    /// Certificates in DER.
    Authorities(Vec<Bytes>),
    /// SHA-256.
    Certificate(Bytes),
}

impl HostTls {
    /// Writes it down.
    pub fn state(&self) -> HostTlsState {
        HostTlsState {
            trust: match &self.trust {
                Trust::Authorities(authorities) => {
                    let listed = authorities.listed().iter();
                    TrustState::Authorities(listed.map(|der| Bytes::from(&der[..])).collect())
                }
                Trust::Certificate(digest) => TrustState::Certificate(digest.bytes()[..].into()),
            },
            subject: self.subject.as_ref().map(ToString::to_string),
        }
    }
}

impl TryFrom<HostTlsState> for HostTls {
    type Error = StateError;

    fn try_from(state: HostTlsState) -> Result<Self, StateError> {
        let unsound = || StateError::Unsound("certificate of a host");
        let trust = match state.trust {
            TrustState::Authorities(listed) => {
                let fits = listed.len() <= MAX_AUTHORITIES
                    && listed.iter().all(|der| der.len() <= MAX_CERTIFICATE);
                StateError::unless(fits, "certificate of a host")?;
                let listed = listed.iter().map(|der| CertificateDer::from(der.to_vec()));
                let authorities = Authorities::new(listed.collect());
                Trust::Authorities(authorities.map_err(|_| unsound())?)
            }
            TrustState::Certificate(digest) => {
                let digest = <[u8; 32]>::try_from(&digest[..]).map_err(|_| unsound())?;
                Trust::Certificate(CertificateDigest::from(digest))
            }
        };
        let subject = state.subject.map(|subject| subject.parse());
        Ok(Self {
            trust,
            subject: subject.transpose().map_err(|_| unsound())?,
        })
    }
}
