//! What the authority is shown to prove that a name leads here.

use std::sync::Arc;

use rcgen::{CertificateParams, CustomExtension};
use rustls::sign::CertifiedKey;

use super::failure::Failure;
use crate::tls::self_signed;

/// The certificate for a name that carries the digest of what the authority asked for (RFC 8737,
/// section 3). Nobody but the authority sees it, for seconds.
pub(super) fn certificate(name: &str, digest: &[u8]) -> Result<Arc<CertifiedKey>, Failure> {
    let parameters = CertificateParams::new([name.to_owned()]);
    let mut parameters = parameters.map_err(|error| Failure::System(error.to_string()))?;
    parameters.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
    let certified = self_signed(&parameters).map_err(Failure::System)?;
    Ok(Arc::new(certified))
}
