//! TLS as the clients of the gateway speak it.

use std::sync::Arc;

use anyhow::{Context, Result};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WantsClientCert};
use rustls::crypto::{
    CryptoProvider, SupportedKxGroup, WebPkiSupportedAlgorithms, verify_tls12_signature,
    verify_tls13_signature,
};
use rustls::sign::SingleCertAndKey;
use rustls::{
    ClientConfig, ConfigBuilder, DigitallySignedStruct, RootCertStore, SignatureScheme,
    SupportedProtocolVersion, WantsVerifier,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::client_cert::ClientCert;

/// The cryptography of every TLS peer here; named, so that no process-wide choice is needed.
pub(crate) fn crypto_provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// Settings of a TLS client: unless told otherwise it verifies no certificate, offers no ALPN,
/// speaks 1.2 and 1.3 and resumes nothing, like the flexVDI client.
#[must_use]
#[derive(Clone, Debug)]
pub struct TlsClient {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl TlsClient {
    /// A client that accepts any certificate.
    pub fn new() -> Self {
        Self::with_versions(rustls::ALL_VERSIONS)
    }

    /// One that does not even look at the certificate: it may be one that the library cannot take.
    pub fn unchecked() -> Self {
        let verifier = AnyCertificate {
            checks_key: false,
            ..AnyCertificate::new(&crypto_provider())
        };
        Self::accepting(verifier, crypto_provider(), rustls::ALL_VERSIONS)
    }

    /// One that offers these groups for the key exchange, the first of which with a share.
    pub fn with_groups(groups: &[&'static dyn SupportedKxGroup]) -> Self {
        let provider = CryptoProvider {
            kx_groups: groups.to_vec(),
            ..rustls::crypto::aws_lc_rs::default_provider()
        };
        let verifier = AnyCertificate::new(&provider);
        Self::accepting(verifier, Arc::new(provider), rustls::ALL_VERSIONS)
    }

    /// A client that accepts any certificate, TLS 1.2 only.
    pub fn tls12() -> Self {
        Self::with_versions(&[&rustls::version::TLS12])
    }

    /// The same, TLS 1.3 only.
    pub fn tls13() -> Self {
        Self::with_versions(&[&rustls::version::TLS13])
    }

    /// A client that accepts only certificates signed by `root`.
    pub fn trusting(root: &CertificateDer<'static>) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(root.clone()).context("trusting a certificate")?;
        let builder = builder(crypto_provider(), rustls::ALL_VERSIONS);
        Ok(Self::from_config(builder.with_root_certificates(roots)))
    }

    /// Resumes sessions: the connections of this value and of its clones share their tickets.
    pub fn resuming(mut self) -> Self {
        Arc::make_mut(&mut self.config).resumption = Resumption::in_memory_sessions(64);
        self
    }

    /// Shows this certificate when it is asked for one.
    pub fn presenting(mut self, cert: &ClientCert) -> Self {
        Arc::make_mut(&mut self.config).client_auth_cert_resolver =
            Arc::new(SingleCertAndKey::from(cert.certified.clone()));
        self
    }

    /// Puts so few bytes into each record.
    pub fn fragments(mut self, bytes: usize) -> Self {
        // With the header of a record.
        Arc::make_mut(&mut self.config).max_fragment_size = Some(bytes + 5);
        self
    }

    /// Offers these application protocols.
    pub fn alpn(mut self, protocols: &[&str]) -> Self {
        Arc::make_mut(&mut self.config).alpn_protocols = protocols
            .iter()
            .map(|protocol| protocol.as_bytes().to_vec())
            .collect();
        self
    }

    /// Asks for this server name instead of `localhost`.
    pub fn server_name(mut self, name: &str) -> Result<Self> {
        self.name = ServerName::try_from(name.to_owned())?;
        Ok(self)
    }

    /// The handshake over an open connection.
    pub async fn handshake<S>(&self, stream: S) -> Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        TlsConnector::from(self.config.clone())
            .connect(self.name.clone(), stream)
            .await
            .context("TLS handshake")
    }

    fn with_versions(versions: &[&'static SupportedProtocolVersion]) -> Self {
        let provider = crypto_provider();
        Self::accepting(AnyCertificate::new(&provider), provider, versions)
    }

    fn accepting(
        verifier: AnyCertificate,
        provider: Arc<CryptoProvider>,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Self {
        let builder = builder(provider, versions).dangerous();
        Self::from_config(builder.with_custom_certificate_verifier(Arc::new(verifier)))
    }

    fn from_config(verified: ConfigBuilder<ClientConfig, WantsClientCert>) -> Self {
        let mut config = verified.with_no_client_auth();
        config.resumption = Resumption::disabled();
        Self {
            config: Arc::new(config),
            name: ServerName::try_from("localhost").expect("a valid name"),
        }
    }
}

impl Default for TlsClient {
    fn default() -> Self {
        Self::new()
    }
}

fn builder(
    provider: Arc<CryptoProvider>,
    versions: &[&'static SupportedProtocolVersion],
) -> ConfigBuilder<ClientConfig, WantsVerifier> {
    ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .expect("the provider speaks these versions")
}

/// Accepts every certificate, as the flexVDI client does, but checks that the server holds its
/// key.
#[derive(Debug)]
pub struct AnyCertificate {
    algorithms: WebPkiSupportedAlgorithms,
    checks_key: bool,
}

impl AnyCertificate {
    /// Checks signatures with the algorithms of `provider`.
    pub fn new(provider: &CryptoProvider) -> Self {
        Self {
            algorithms: provider.signature_verification_algorithms,
            checks_key: true,
        }
    }
}

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        if !self.checks_key {
            return Ok(HandshakeSignatureValid::assertion());
        }
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        if !self.checks_key {
            return Ok(HandshakeSignatureValid::assertion());
        }
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
