//! When the authority itself wants a certificate to be renewed (RFC 9773).

use std::time::{Duration, SystemTime};

use instant_acme::CertificateIdentifier;
use rustls_pki_types::{CertificateDer, Der};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::{FromDer, ParsedExtension};

/// It is not asked more often than this, and at least so often (RFC 9773, section 4.3.3).
pub(super) const PAUSES: (Duration, Duration) =
    (Duration::from_secs(3_600), Duration::from_secs(86_400));

/// What an authority has said of a certificate.
#[derive(Clone, Copy, Debug)]
pub(super) struct Advice {
    /// Which certificate that is.
    pub(super) of: u64,
    /// When it is to be renewed.
    pub(super) due: SystemTime,
}

impl Advice {
    /// The authority wants it to be renewed from `start` to `end`; `share` (0 to 1) says when in
    /// that time.
    pub(super) fn new(of: u64, (start, end): (SystemTime, SystemTime), share: f64) -> Self {
        let window = end.duration_since(start).unwrap_or_default();
        let due = start.checked_add(window.mul_f64(share.clamp(0.0, 1.0)));
        Self {
            of,
            due: due.unwrap_or(start),
        }
    }
}

/// How an authority calls a certificate (RFC 9773, section 4.1); `None`: it cannot be read.
pub(super) fn identifier(leaf: &CertificateDer<'_>) -> Option<CertificateIdentifier<'static>> {
    let (_, certificate) = X509Certificate::from_der(leaf).ok()?;
    let mut extensions = certificate.iter_extensions();
    let authority = extensions.find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(found) => found.key_identifier.as_ref(),
        _ => None,
    })?;
    let serial = certificate.tbs_certificate.raw_serial();
    let (authority, serial) = (Der::from_slice(authority.0), Der::from_slice(serial));
    Some(CertificateIdentifier::new(authority, serial).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_lies_within_what_the_authority_says() {
        let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000);
        let end = start + Duration::from_secs(100);
        let due = |share| {
            let due = Advice::new(1, (start, end), share).due;
            due.duration_since(start).unwrap().as_secs()
        };
        assert_eq!((due(0.0), due(0.5), due(1.0)), (0, 50, 100));
        // The other way round it is no window.
        assert_eq!(Advice::new(1, (end, start), 0.5).due, end);
    }

    #[test]
    fn certificates_are_called_as_the_standard_has_it() {
        use rcgen::{CertificateParams, IsCa, Issuer, KeyIdMethod, KeyPair, SerialNumber};
        let mut parameters = CertificateParams::default();
        parameters.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        parameters.key_identifier_method = KeyIdMethod::PreSpecified(vec![0xc0, 0xff, 0xee]);
        let issuer = Issuer::new(parameters, KeyPair::generate().unwrap());
        let mut parameters = CertificateParams::new(["a.example".to_owned()]).unwrap();
        parameters.serial_number = Some(SerialNumber::from_slice(&[0xca, 0xfe]));
        parameters.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().unwrap();
        let leaf = parameters.signed_by(&key, &issuer).unwrap();
        // The serial number is positive, so its first byte is zero.
        assert_eq!(identifier(leaf.der()).unwrap().to_string(), "wP_u.AMr-");
        assert!(identifier(&CertificateDer::from(vec![1])).is_none());
    }
}
