//! Checks the certificate that a host shows.
//!
//! Chains are the library's affair, except for certificates of version 1, which it refuses and which
//! the instructions of Spice and QEMU make (`openssl x509 -req` without extensions): these must be
//! signed by a trusted authority directly. Names and subjects are compared as Spice clients do.

use std::time::{Duration, UNIX_EPOCH};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;
use x509_parser::x509::X509Version;

use super::fault::Fault;
use super::names::Names;
use super::{Authorities, CertificateDigest, HostTls, Trust};
use crate::certificate_subject::shown;
use crate::tls::{Certificate, PublicKey};

/// Checks what is asked for; in any case that the host owns the certificate's key.
#[derive(Debug)]
pub(super) struct Verifier {
    wanted: HostTls,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Verifier {
    pub(super) fn new(wanted: HostTls) -> Self {
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        Self {
            wanted,
            algorithms: provider.signature_verification_algorithms,
        }
    }

    fn check(
        &self,
        der: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        host: &str,
        now: UnixTime,
    ) -> Result<(), Fault> {
        let key = PublicKey::of_certificate(der).ok_or(Fault::Malformed)?;
        if let Some(kind) = key.unusable() {
            return Err(Fault::Key(kind));
        }
        let (_, certificate) = X509Certificate::from_der(der).map_err(|_| Fault::Malformed)?;
        match &self.wanted.trust {
            Trust::Certificate(pinned) => {
                let found = CertificateDigest::of(der);
                if found != *pinned {
                    return Err(Fault::Pin(found));
                }
            }
            Trust::Authorities(authorities) => {
                let signed = Signed {
                    der,
                    certificate: &certificate,
                    now,
                    algorithms: &self.algorithms,
                };
                signed.check(authorities, intermediates)?;
            }
        }
        self.check_name(&certificate, host)
    }

    fn check_name(&self, certificate: &X509Certificate<'_>, host: &str) -> Result<(), Fault> {
        match (&self.wanted.subject, &self.wanted.trust) {
            (Some(wanted), _) => {
                let subject = certificate.subject();
                if !wanted.is(subject) {
                    return Err(Fault::Subject {
                        found: shown(subject),
                        wanted: wanted.to_string(),
                    });
                }
            }
            (None, Trust::Authorities(_)) => {
                let names = Names::of(certificate);
                if !names.include(host) {
                    return Err(Fault::Name {
                        found: names.shown(),
                        wanted: host.to_owned(),
                    });
                }
            }
            (None, Trust::Certificate(_)) => {}
        }
        Ok(())
    }
}

/// A certificate that somebody must vouch for.
struct Signed<'a> {
    der: &'a CertificateDer<'a>,
    certificate: &'a X509Certificate<'a>,
    now: UnixTime,
    algorithms: &'a WebPkiSupportedAlgorithms,
}

impl Signed<'_> {
    fn check(
        &self,
        authorities: &Authorities,
        intermediates: &[CertificateDer<'_>],
    ) -> Result<(), Fault> {
        if authorities.listed().contains(self.der) {
            return self.check_time();
        }
        if self.certificate.version() == X509Version::V1 {
            self.check_time()?;
            return self.check_directly(authorities);
        }
        let verified = ParsedCertificate::try_from(self.der).and_then(|parsed| {
            verify_server_cert_signed_by_trust_anchor(
                &parsed,
                authorities.roots(),
                intermediates,
                self.now,
                self.algorithms.all,
            )
        });
        verified.map_err(|error| self.fault(&error, authorities))
    }

    fn check_time(&self) -> Result<(), Fault> {
        let now = i64::try_from(self.now.as_secs()).unwrap_or(i64::MAX);
        let validity = self.certificate.validity();
        // Both ends belong to it (RFC 5280, section 4.1.2.5).
        let is_valid =
            (validity.not_before.timestamp()..=validity.not_after.timestamp()).contains(&now);
        if is_valid {
            Ok(())
        } else {
            Err(self.untimely())
        }
    }

    fn untimely(&self) -> Fault {
        let now = UNIX_EPOCH + Duration::from_secs(self.now.as_secs());
        let notice = Certificate::of(self.der).notice(now);
        Fault::Time(notice.map_or_else(
            || "is not valid now".to_owned(),
            |notice| notice.to_string(),
        ))
    }

    /// A certificate without extensions: one of the authorities itself has signed it.
    fn check_directly(&self, authorities: &Authorities) -> Result<(), Fault> {
        let mut fault = self.unknown();
        for authority in authorities.listed() {
            match self.check_signature(authority) {
                Some(Ok(())) => return Ok(()),
                Some(Err(found)) => fault = found,
                None => {}
            }
        }
        Err(fault)
    }

    /// Whether this authority has signed it; `None`: it does not say so, or this is none.
    fn check_signature(&self, authority: &CertificateDer<'_>) -> Option<Result<(), Fault>> {
        let (_, issuer) = X509Certificate::from_der(authority).ok()?;
        if issuer.subject().as_raw() != self.certificate.issuer().as_raw() || !may_sign(&issuer) {
            return None;
        }
        let key = PublicKey::of_certificate(authority)?;
        if let Some(kind) = key.unusable() {
            return Some(Err(Fault::AuthorityKey(kind)));
        }
        Some(if key.has_signed(self.der, self.algorithms) {
            Ok(())
        } else {
            Err(Fault::Signature {
                subject: shown(self.certificate.subject()),
                issuer: shown(issuer.subject()),
            })
        })
    }

    fn unknown(&self) -> Fault {
        Fault::Issuer {
            subject: shown(self.certificate.subject()),
            issuer: shown(self.certificate.issuer()),
        }
    }

    /// What the library means.
    fn fault(&self, error: &rustls::Error, authorities: &Authorities) -> Fault {
        use CertificateError as E;
        let rustls::Error::InvalidCertificate(error) = error else {
            return Fault::Other(error.to_string());
        };
        match error {
            E::BadEncoding => Fault::Malformed,
            E::Expired
            | E::ExpiredContext { .. }
            | E::NotValidYet
            | E::NotValidYetContext { .. } => self.untimely(),
            E::UnknownIssuer | E::BadSignature => {
                let listed = authorities.listed().iter();
                let mut faults = listed.filter_map(|one| self.check_signature(one)?.err());
                faults.next().unwrap_or_else(|| self.unknown())
            }
            _ if is_authority(self.certificate) => {
                Fault::IsAuthority(shown(self.certificate.subject()))
            }
            error => Fault::Other(error.to_string()),
        }
    }
}

/// Whether a certificate is marked as an authority's.
fn is_authority(certificate: &X509Certificate<'_>) -> bool {
    let constraints = certificate.basic_constraints().ok().flatten();
    constraints.is_some_and(|constraints| constraints.value.ca)
}

/// Whether a trusted certificate may sign others of any name: one of version 1, which says nothing
/// of it, or that of an authority.
fn may_sign(certificate: &X509Certificate<'_>) -> bool {
    if certificate.version() == X509Version::V1 {
        return true;
    }
    let usage = certificate.key_usage().ok().flatten();
    let signs = usage.is_none_or(|usage| usage.value.key_cert_sign());
    let is_limited = !matches!(certificate.name_constraints(), Ok(None));
    is_authority(certificate) && signs && !is_limited
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let host = server_name.to_str();
        self.check(end_entity, intermediates, &host, now)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        PublicKey::check_12(certificate, message, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        PublicKey::check_13(certificate, message, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
