//! The certificate of the gateway's own making, until an authority has given one.

use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, DnType};
use rustls::sign::CertifiedKey;

use super::{TlsError, self_signed};

/// It says itself that it is for a short time.
const LIFE: Duration = Duration::from_secs(30 * 86_400);
/// Clocks of clients may be a little behind.
const BEGAN: Duration = Duration::from_secs(86_400);

/// A self-signed certificate for these names, with its key.
pub(super) fn make(names: &[String]) -> Result<CertifiedKey, TlsError> {
    let parameters = CertificateParams::new(names);
    let mut parameters = parameters.map_err(|error| TlsError::Placeholder(error.to_string()))?;
    let now = SystemTime::now();
    parameters.not_before = (now - BEGAN).into();
    parameters.not_after = (now + LIFE).into();
    parameters
        .distinguished_name
        .push(DnType::CommonName, "no certificate of an authority yet");
    self_signed(&parameters).map_err(TlsError::Placeholder)
}
