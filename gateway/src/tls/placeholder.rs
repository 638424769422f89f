//! The certificate of the gateway's own making, until an authority has given one.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, DnType, KeyPair};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::sign::SigningKey;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use super::TlsError;

/// It says itself that it is for a short time.
const LIFE: Duration = Duration::from_secs(30 * 86_400);
/// Clocks of clients may be a little behind.
const BEGAN: Duration = Duration::from_secs(86_400);

/// A self-signed certificate for these names, and its key.
pub(super) fn make(
    names: &[String],
) -> Result<(Vec<CertificateDer<'static>>, Arc<dyn SigningKey>), TlsError> {
    let wrong = |error: rcgen::Error| TlsError::Placeholder(error.to_string());
    let key = KeyPair::generate().map_err(wrong)?;
    let mut parameters = CertificateParams::new(names).map_err(wrong)?;
    let now = SystemTime::now();
    parameters.not_before = (now - BEGAN).into();
    parameters.not_after = (now + LIFE).into();
    parameters
        .distinguished_name
        .push(DnType::CommonName, "no certificate of an authority yet");
    let certificate = parameters.self_signed(&key).map_err(wrong)?;
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let loaded = default_provider().key_provider.load_private_key(key);
    let key = loaded.map_err(|error| TlsError::Placeholder(error.to_string()))?;
    Ok((vec![certificate.der().clone()], key))
}
