//! What the authority is shown to prove that a name leads here.

use std::sync::Arc;

use rcgen::{CertificateParams, CustomExtension, KeyPair};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::sign::CertifiedKey;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use super::failure::Failure;

/// The certificate for a name that carries the digest of what the authority asked for (RFC 8737,
/// section 3). Nobody but the authority sees it, for seconds.
pub(super) fn certificate(name: &str, digest: &[u8]) -> Result<Arc<CertifiedKey>, Failure> {
    let wrong = |error: rcgen::Error| Failure::System(error.to_string());
    let key = KeyPair::generate().map_err(wrong)?;
    let mut parameters = CertificateParams::new([name.to_owned()]).map_err(wrong)?;
    parameters.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
    let certificate = parameters.self_signed(&key).map_err(wrong)?;
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let loaded = default_provider().key_provider.load_private_key(key);
    let key = loaded.map_err(|error| Failure::System(error.to_string()))?;
    let chain = vec![certificate.der().clone()];
    Ok(Arc::new(CertifiedKey::new(chain, key)))
}
