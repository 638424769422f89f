//! Public keys of certificates.
//!
//! A server shows whatever certificate it has; whether a client takes it is the client's affair.
//! So nothing is looked at here but where the key lies: version 1, unknown critical extensions
//! and invalid names, which the library for checking certificates refuses, are no obstacle.

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::sign::SigningKey;
use rustls::{CertificateError, DigitallySignedStruct, PeerMisbehaved, SignatureScheme};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, SignatureVerificationAlgorithm};
use x509_parser::asn1_rs::{Any, Class, FromDer, Oid, Tag};
use x509_parser::objects::{oid_registry, oid2sn};

/// What the library signs with, in words.
const USABLE: &str =
    "RSA of 2048 to 8192 bits, ECDSA on P-256, P-384 and P-521, and Ed25519 can be used";
const RSA: &str = "1.2.840.113549.1.1.1";
const EC: &str = "1.2.840.10045.2.1";
const ED25519: &str = "1.3.101.112";
/// Parameters of an algorithm that has none (RFC 3279, section 2.3.1); some leave them out.
const NULL: [u8; 2] = [5, 0];

/// A public key (RFC 5280, section 4.1.2.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PublicKey<'a> {
    /// Content of the `AlgorithmIdentifier`, without parameters that are NULL.
    algorithm: &'a [u8],
    /// Content of the `BIT STRING`.
    key: &'a [u8],
}

impl<'a> PublicKey<'a> {
    /// Of a certificate in DER; `None`: it is none.
    pub(crate) fn of_certificate(der: &'a [u8]) -> Option<Self> {
        let certificate = sole(der, Tag::Sequence)?;
        let (to_be_signed, _) = element(certificate, Tag::Sequence)?;
        let (version, behind) = any(to_be_signed)?;
        let has_version = version.class() == Class::ContextSpecific;
        let fields = if has_version { behind } else { to_be_signed };
        let (_serial, fields) = element(fields, Tag::Integer)?;
        let (_algorithm, fields) = element(fields, Tag::Sequence)?;
        let (_issuer, fields) = element(fields, Tag::Sequence)?;
        let (_validity, fields) = element(fields, Tag::Sequence)?;
        let (_subject, fields) = element(fields, Tag::Sequence)?;
        let (key, _) = element(fields, Tag::Sequence)?;
        Self::of_content(key)
    }

    /// Of a `SubjectPublicKeyInfo` in DER.
    fn of_info(der: &'a [u8]) -> Option<Self> {
        Self::of_content(sole(der, Tag::Sequence)?)
    }

    fn of_content(info: &'a [u8]) -> Option<Self> {
        let (algorithm, info) = element(info, Tag::Sequence)?;
        let (bits, _) = element(info, Tag::BitString)?;
        let (unused, key) = bits.split_first()?;
        (*unused == 0).then_some(Self {
            algorithm: without_null(algorithm),
            key,
        })
    }

    /// Whether the private key belongs to it; a kind of key that does not tell counts as one that
    /// does.
    pub(crate) fn belongs_to(&self, private: &dyn SigningKey) -> bool {
        private.public_key().is_none_or(|info| {
            PublicKey::of_info(&info).is_some_and(|other| {
                self.algorithm == other.algorithm
                    && (self.key == other.key || is_compressed(self.key, other.key))
            })
        })
    }

    /// What kind of key it is, if it is one with which no signature can be checked.
    pub(crate) fn unusable(&self) -> Option<String> {
        let (_, oid) = Oid::from_der(self.algorithm).ok()?;
        let parameters = any(self.algorithm)?.1;
        let (kind, is_usable) = match oid.to_id_string().as_str() {
            RSA => rsa_of(element(self.key, Tag::Sequence)?.0)?,
            EC => curve(parameters),
            ED25519 => return None,
            _ => (name(&oid), false),
        };
        (!is_usable).then_some(kind)
    }

    /// Whether its owner has signed a certificate, with one of these algorithms (RFC 5280, section
    /// 4.1.1).
    pub(crate) fn has_signed(&self, der: &[u8], algorithms: &WebPkiSupportedAlgorithms) -> bool {
        let signed = || {
            let content = sole(der, Tag::Sequence)?;
            let (_, behind) = element(content, Tag::Sequence)?;
            let to_be_signed = &content[..content.len() - behind.len()];
            let (algorithm, behind) = element(behind, Tag::Sequence)?;
            let (unused, signature) = sole(behind, Tag::BitString)?.split_first()?;
            (*unused == 0).then_some((to_be_signed, without_null(algorithm), signature))
        };
        let Some((to_be_signed, algorithm, signature)) = signed() else {
            return false;
        };
        let mut known = algorithms.all.iter().filter(|known| {
            without_null(&known.public_key_alg_id()) == self.algorithm
                && without_null(&known.signature_alg_id()) == algorithm
        });
        known.any(|known| {
            let verified = known.verify_signature(self.key, to_be_signed, signature);
            verified.is_ok()
        })
    }

    /// Whether the owner of an accepted certificate's key has signed the message of a handshake with
    /// TLS 1.2, for a verifier of rustls. The library need not be able to read the certificate.
    pub(crate) fn check_12(
        certificate: &CertificateDer<'_>,
        message: &[u8],
        signed: &DigitallySignedStruct,
        algorithms: &WebPkiSupportedAlgorithms,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        accepted(certificate)?.verify_12(message, signed, algorithms)?;
        Ok(HandshakeSignatureValid::assertion())
    }

    /// The same with TLS 1.3.
    pub(crate) fn check_13(
        certificate: &CertificateDer<'_>,
        message: &[u8],
        signed: &DigitallySignedStruct,
        algorithms: &WebPkiSupportedAlgorithms,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        accepted(certificate)?.verify_13(message, signed, algorithms)?;
        Ok(HandshakeSignatureValid::assertion())
    }

    /// Whether the owner of this key has signed the message of a handshake with TLS 1.2 with one
    /// of these algorithms.
    fn verify_12(
        &self,
        message: &[u8],
        signed: &DigitallySignedStruct,
        algorithms: &WebPkiSupportedAlgorithms,
    ) -> Result<(), rustls::Error> {
        self.verify(message, signed, candidates(signed.scheme, algorithms)?)
    }

    /// The same with TLS 1.3, which knows fewer schemes and has a curve in each of those for ECDSA
    /// (RFC 8446, section 4.2.3): that of the library's first candidate.
    fn verify_13(
        &self,
        message: &[u8],
        signed: &DigitallySignedStruct,
        algorithms: &WebPkiSupportedAlgorithms,
    ) -> Result<(), rustls::Error> {
        if !is_of_tls_13(signed.scheme) {
            return Err(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into());
        }
        let candidates = candidates(signed.scheme, algorithms)?;
        self.verify(message, signed, &candidates[..candidates.len().min(1)])
    }

    fn verify(
        &self,
        message: &[u8],
        signed: &DigitallySignedStruct,
        candidates: &[&dyn SignatureVerificationAlgorithm],
    ) -> Result<(), rustls::Error> {
        let is_valid = candidates
            .iter()
            .filter(|candidate| without_null(&candidate.public_key_alg_id()) == self.algorithm)
            .any(|candidate| {
                let verified = candidate.verify_signature(self.key, message, signed.signature());
                verified.is_ok()
            });
        if is_valid {
            Ok(())
        } else {
            Err(rustls::CertificateError::BadSignature.into())
        }
    }
}

/// The key of a certificate that was accepted.
fn accepted<'a>(certificate: &'a CertificateDer<'_>) -> Result<PublicKey<'a>, CertificateError> {
    PublicKey::of_certificate(certificate).ok_or(CertificateError::BadEncoding)
}

/// The algorithms that a scheme may stand for.
fn candidates(
    scheme: SignatureScheme,
    algorithms: &WebPkiSupportedAlgorithms,
) -> Result<&'static [&'static dyn SignatureVerificationAlgorithm], PeerMisbehaved> {
    let mut offered = algorithms.mapping.iter();
    let found = offered.find(|(offered, _)| *offered == scheme);
    let (_, candidates) = found.ok_or(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme)?;
    Ok(candidates)
}

/// Whether a handshake with TLS 1.3 may be signed so: not with PKCS #1 version 1.5, nor SHA-1.
fn is_of_tls_13(scheme: SignatureScheme) -> bool {
    use SignatureScheme as S;
    !matches!(
        scheme,
        S::RSA_PKCS1_SHA1
            | S::RSA_PKCS1_SHA256
            | S::RSA_PKCS1_SHA384
            | S::RSA_PKCS1_SHA512
            | S::ECDSA_SHA1_Legacy
    )
}

/// Why the library does not sign with this key.
pub(super) fn why_unusable(key: &PrivateKeyDer<'_>) -> String {
    let Some((kind, is_usable)) = kind(key) else {
        return "the key is damaged".to_owned();
    };
    if is_usable {
        format!("the key ({kind}) is damaged")
    } else {
        format!("a key of this kind ({kind}) cannot be used; {USABLE}")
    }
}

/// What a key is, and whether one of this kind could be used.
fn kind(key: &PrivateKeyDer<'_>) -> Option<(String, bool)> {
    let content = sole(key.secret_der(), Tag::Sequence)?;
    let (_version, content) = element(content, Tag::Integer)?;
    match key {
        PrivateKeyDer::Pkcs1(_) => Some(rsa(key.secret_der())?),
        PrivateKeyDer::Sec1(_) => {
            let (_key, content) = element(content, Tag::OctetString)?;
            let (parameters, _) = any(content)?;
            Some(curve(parameters.data))
        }
        _ => {
            let (algorithm, content) = element(content, Tag::Sequence)?;
            let (_, parameters) = any(algorithm)?;
            let (_, oid) = Oid::from_der(algorithm).ok()?;
            let (inner, _) = element(content, Tag::OctetString)?;
            match oid.to_id_string().as_str() {
                RSA => rsa(inner),
                EC => Some(curve(parameters)),
                ED25519 => Some(("Ed25519".to_owned(), true)),
                _ => Some((name(&oid), false)),
            }
        }
    }
}

/// Of an `RSAPrivateKey` (RFC 8017, appendix A.1.2).
fn rsa(der: &[u8]) -> Option<(String, bool)> {
    let content = sole(der, Tag::Sequence)?;
    let (_version, content) = element(content, Tag::Integer)?;
    rsa_of(content)
}

/// Of the content of a key, from its modulus on.
fn rsa_of(content: &[u8]) -> Option<(String, bool)> {
    let (modulus, _) = element(content, Tag::Integer)?;
    let zeros = modulus.iter().take_while(|byte| **byte == 0).count();
    let first = *modulus.get(zeros)?;
    let bits = 8 * (modulus.len() - zeros) - first.leading_zeros() as usize;
    Some((format!("RSA, {bits} bits"), (2048..=8192).contains(&bits)))
}

/// Of the parameters of a key on an elliptic curve (RFC 5480, section 2.1.1).
fn curve(parameters: &[u8]) -> (String, bool) {
    match Oid::from_der(parameters) {
        Ok((_, oid)) => match oid.to_id_string().as_str() {
            "1.2.840.10045.3.1.7" => ("EC, P-256".to_owned(), true),
            "1.3.132.0.34" => ("EC, P-384".to_owned(), true),
            "1.3.132.0.35" => ("EC, P-521".to_owned(), true),
            _ => (format!("EC, {}", name(&oid)), false),
        },
        Err(_) => ("EC, on a curve that has no name".to_owned(), false),
    }
}

fn name(oid: &Oid<'_>) -> String {
    match oid2sn(oid, oid_registry()) {
        Ok(name) => name.to_owned(),
        Err(_) => oid.to_id_string(),
    }
}

/// Whether one is the short form of the other's point (SEC 1, section 2.3.3).
fn is_compressed(short: &[u8], long: &[u8]) -> bool {
    let ([sign, x @ ..], [4, point @ ..]) = (short, long) else {
        return false;
    };
    let is_odd = point.last().is_some_and(|last| last & 1 == 1);
    *sign == 2 + u8::from(is_odd) && point.len() == 2 * x.len() && point.starts_with(x)
}

fn without_null(algorithm: &[u8]) -> &[u8] {
    algorithm.strip_suffix(&NULL).unwrap_or(algorithm)
}

/// The next element, and what follows.
fn any(der: &[u8]) -> Option<(Any<'_>, &[u8])> {
    let (behind, element) = Any::from_der(der).ok()?;
    Some((element, behind))
}

/// The content of the next element, which must have this tag, and what follows.
fn element(der: &[u8], tag: Tag) -> Option<(&[u8], &[u8])> {
    let (element, behind) = any(der)?;
    let fits = element.class() == Class::Universal && element.tag() == tag;
    fits.then_some((element.data, behind))
}

/// The same, with nothing behind it.
fn sole(der: &[u8], tag: Tag) -> Option<&[u8]> {
    let (content, behind) = element(der, tag)?;
    behind.is_empty().then_some(content)
}

#[cfg(test)]
mod tests {
    use rustls::crypto::aws_lc_rs::sign::any_supported_type;
    use rustls_pki_types::alg_id;

    use super::*;

    #[test]
    fn tls_13_has_fewer_schemes_each_with_its_curve() {
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let algorithms = provider.signature_verification_algorithms;
        for scheme in algorithms.supported_schemes() {
            let name = format!("{scheme:?}");
            assert_eq!(is_of_tls_13(scheme), !name.contains("PKCS1"), "{name}");
        }
        for (scheme, curve) in [
            (SignatureScheme::ECDSA_NISTP256_SHA256, alg_id::ECDSA_P256),
            (SignatureScheme::ECDSA_NISTP384_SHA384, alg_id::ECDSA_P384),
            (SignatureScheme::ECDSA_NISTP521_SHA512, alg_id::ECDSA_P521),
        ] {
            let first = candidates(scheme, &algorithms).unwrap()[0];
            assert_eq!(first.public_key_alg_id(), curve, "{scheme:?}");
        }
    }

    #[test]
    fn keys_belong_to_their_certificates_only() {
        let pairs = [(); 2].map(|()| {
            let key = rcgen::KeyPair::generate().unwrap();
            let parameters = rcgen::CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
            let certificate = parameters.self_signed(&key).unwrap().der().to_vec();
            let private = PrivateKeyDer::Pkcs8(key.serialize_der().into());
            (certificate, any_supported_type(&private).unwrap())
        });
        for (at, (certificate, _)) in pairs.iter().enumerate() {
            let public = PublicKey::of_certificate(certificate).unwrap();
            for (other, (_, private)) in pairs.iter().enumerate() {
                assert_eq!(public.belongs_to(&**private), at == other);
            }
        }
    }

    #[test]
    fn points_are_compared_in_both_forms() {
        let long = [4, 1, 2, 3, 5];
        assert!(is_compressed(&[3, 1, 2], &long));
        for short in [&[2, 1, 2][..], &[3, 1, 3], &[3, 1], &[], &long] {
            assert!(!is_compressed(short, &long), "{short:?}");
        }
    }

    #[test]
    fn what_is_no_certificate_has_no_key() {
        for der in [
            &[][..],
            &[0x30],
            &[0x30, 0],
            &[0x30, 2, 0x30, 0],
            &[2, 1, 0],
        ] {
            assert_eq!(PublicKey::of_certificate(der), None);
        }
    }

    #[test]
    fn keys_that_cannot_be_used_are_named() {
        let told = |der: &[u8]| why_unusable(&PrivateKeyDer::Pkcs8(der.to_vec().into()));
        assert_eq!(told(&[1, 2, 3]), "the key is damaged");
        // PrivateKeyInfo with the algorithm Ed448 (RFC 8410, section 3).
        let ed448 = [48, 14, 2, 1, 0, 48, 5, 6, 3, 43, 101, 113, 4, 2, 4, 0];
        let expected = format!("a key of this kind (ed448) cannot be used; {USABLE}");
        assert_eq!(told(&ed448), expected);
        let ed25519 = [48, 14, 2, 1, 0, 48, 5, 6, 3, 43, 101, 112, 4, 2, 4, 0];
        assert_eq!(told(&ed25519), "the key (Ed25519) is damaged");
    }
}
