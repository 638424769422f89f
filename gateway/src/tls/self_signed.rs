//! Certificates of the gateway's own making.

use rcgen::{CertificateParams, KeyPair};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::sign::CertifiedKey;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

/// A certificate that signs itself, with a new key; else why there is none.
pub(crate) fn self_signed(parameters: &CertificateParams) -> Result<CertifiedKey, String> {
    let wrong = |error: rcgen::Error| error.to_string();
    let key = KeyPair::generate().map_err(wrong)?;
    let certificate = parameters.self_signed(&key).map_err(wrong)?;
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let loaded = default_provider().key_provider.load_private_key(key);
    let key = loaded.map_err(|error| error.to_string())?;
    Ok(CertifiedKey::new(vec![certificate.der().clone()], key))
}
