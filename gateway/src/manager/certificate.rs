//! How the manager's certificate is checked.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::pem_file::PemFile;

/// What is wrong with `ManagerCAFile`.
#[derive(Debug, thiserror::Error)]
#[error("{path}: ManagerCAFile: expected a PEM file with certificates: {reason}")]
pub struct ManagerTlsError {
    path: PathBuf,
    reason: String,
}

/// TLS towards the manager: certificates signed by an authority in `ca_file`, or any.
pub fn client_config(ca_file: Option<&PemFile>) -> Result<ClientConfig, ManagerTlsError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = Verifier {
        algorithms: provider.signature_verification_algorithms,
        known: ca_file
            .map(|file| KnownCertificates::of(file, Arc::clone(&provider)))
            .transpose()?,
    };
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap_or_else(|_| unreachable!("the provider carries TLS 1.2 and 1.3"))
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    Ok(config)
}

/// Certificates signed by an authority in the file, and those that are themselves in it: a
/// manager's self-signed one may well be marked as an authority, which cannot sign itself.
#[derive(Debug)]
struct KnownCertificates {
    authorities: Arc<WebPkiServerVerifier>,
    listed: Vec<CertificateDer<'static>>,
}

impl KnownCertificates {
    fn of(file: &PemFile, provider: Arc<CryptoProvider>) -> Result<Self, ManagerTlsError> {
        let wrong = |reason: String| ManagerTlsError {
            path: file.path.clone(),
            reason,
        };
        let listed = file.certificates().map_err(wrong)?;
        let mut roots = RootCertStore::empty();
        for certificate in &listed {
            roots
                .add(certificate.clone())
                .map_err(|error| wrong(error.to_string()))?;
        }
        let authorities = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map_err(|error| wrong(error.to_string()))?;
        Ok(Self {
            authorities,
            listed,
        })
    }
}

/// Accepts known certificates, or any where none are known, as managers have self-signed ones;
/// in either case the peer must own its key.
#[derive(Debug)]
struct Verifier {
    algorithms: WebPkiSupportedAlgorithms,
    known: Option<KnownCertificates>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match &self.known {
            Some(known) if !known.listed.contains(end_entity) => known
                .authorities
                .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now),
            _ => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
