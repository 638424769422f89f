//! How the manager's certificate is checked.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::pem_file::PemFile;
use crate::tls::PublicKey;

/// What is wrong with a file of authorities.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {key}: expected a PEM file with certificates: {reason}")]
pub struct ManagerTlsError {
    /// The key that names the file.
    key: &'static str,
    path: PathBuf,
    reason: String,
}

/// Signatures that are asked for where none is checked, beside those that can be: a server with a
/// key of such a kind would otherwise have nothing to answer with (RFC 8446, section 4.2.3;
/// RFC 8734).
const UNCHECKED: [SignatureScheme; 9] = [
    SignatureScheme::ED448,
    SignatureScheme::Unknown(0x0809), // rsa_pss_pss_sha256
    SignatureScheme::Unknown(0x080a), // rsa_pss_pss_sha384
    SignatureScheme::Unknown(0x080b), // rsa_pss_pss_sha512
    SignatureScheme::Unknown(0x081a), // ecdsa_brainpoolP256r1tls13_sha256
    SignatureScheme::Unknown(0x081b), // ecdsa_brainpoolP384r1tls13_sha384
    SignatureScheme::Unknown(0x081c), // ecdsa_brainpoolP512r1tls13_sha512
    SignatureScheme::RSA_PKCS1_SHA1,
    SignatureScheme::ECDSA_SHA1_Legacy,
];

/// TLS towards the manager: certificates that `ca_file` holds or whose authorities it holds; or
/// any.
pub fn client_config(ca_file: Option<&PemFile>) -> Result<ClientConfig, ManagerTlsError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let algorithms = provider.signature_verification_algorithms;
    let verifier: Arc<dyn ServerCertVerifier> = match ca_file {
        Some(file) => Arc::new(Known::of("ManagerCAFile", file, &provider)?),
        None => Arc::new(Any { algorithms }),
    };
    Ok(with_verifier(provider, verifier))
}

/// TLS towards a portal: certificates that `ca_file` holds or whose authorities it holds.
pub fn portal_config(ca_file: &PemFile) -> Result<ClientConfig, ManagerTlsError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = Known::of("TicketURLCAFile", ca_file, &provider)?;
    Ok(with_verifier(provider, Arc::new(verifier)))
}

/// TLS towards an authority of certificates: certificates that `ca_file` holds or whose authorities
/// it holds.
pub fn acme_config(ca_file: &PemFile) -> Result<ClientConfig, ManagerTlsError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = Known::of("DirectoryCAFile of Acme", ca_file, &provider)?;
    Ok(with_verifier(provider, Arc::new(verifier)))
}

fn with_verifier(
    provider: Arc<CryptoProvider>,
    verifier: Arc<dyn ServerCertVerifier>,
) -> ClientConfig {
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap_or_else(|_| unreachable!("the provider carries TLS 1.2 and 1.3"))
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth()
}

/// Certificates signed by an authority in the file, and those that are themselves in it: a
/// manager's self-signed one may well be marked as an authority, which cannot sign itself. In
/// either case the peer must own its key.
#[derive(Debug)]
struct Known {
    algorithms: WebPkiSupportedAlgorithms,
    /// `None`: none of those in the file can be one.
    authorities: Option<Arc<WebPkiServerVerifier>>,
    listed: Vec<CertificateDer<'static>>,
}

impl Known {
    fn of(
        key: &'static str,
        file: &PemFile,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, ManagerTlsError> {
        let wrong = |reason: String| ManagerTlsError {
            key,
            path: file.path.clone(),
            reason,
        };
        let listed = file.certificates().map_err(wrong)?;
        let mut roots = RootCertStore::empty();
        for (at, certificate) in listed.iter().enumerate() {
            if PublicKey::of_certificate(certificate).is_none() {
                return Err(wrong(format!("certificate {} is not well-formed", at + 1)));
            }
            // One that the library does not take as an authority can still be the manager's own.
            let _ = roots.add(certificate.clone());
        }
        let provider = Arc::clone(provider);
        let algorithms = provider.signature_verification_algorithms;
        let authorities = if roots.is_empty() {
            None
        } else {
            let builder = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider);
            Some(builder.build().map_err(|error| wrong(error.to_string()))?)
        };
        Ok(Self {
            algorithms,
            authorities,
            listed,
        })
    }
}

impl ServerCertVerifier for Known {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if self.listed.contains(end_entity) {
            return Ok(ServerCertVerified::assertion());
        }
        let authorities = self.authorities.as_ref();
        let authorities = authorities.ok_or(CertificateError::UnknownIssuer)?;
        authorities.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
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

/// Any certificate, as managers have self-signed ones.
///
/// Nor is it checked that the peer owns the certificate's key: who wants to stand in for the
/// manager can make a pair of their own, and this way certificates and keys that the library
/// cannot read do as well.
#[derive(Debug)]
struct Any {
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Any {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let checked = self.algorithms.supported_schemes();
        checked.into_iter().chain(UNCHECKED).collect()
    }
}
