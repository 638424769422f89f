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
    SupportedProtocolVersion,
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
        let config = builder(rustls::ALL_VERSIONS, |builder| {
            let any = AnyCertificate::new(&crypto_provider());
            let unchecked = Arc::new(UncheckedCertificate(any));
            builder
                .dangerous()
                .with_custom_certificate_verifier(unchecked)
        });
        Self::from_config(config)
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
        let config = builder(rustls::ALL_VERSIONS, |builder| {
            builder.with_root_certificates(roots)
        });
        Ok(Self::from_config(config))
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

    /// Speaks TLS 1.2 and 1.3, and offers these groups for the key exchange, the first of which with
    /// a share.
    ///
    /// # Panics
    /// When there are none.
    pub fn groups(mut self, groups: &[&'static dyn SupportedKxGroup]) -> Self {
        let config = Arc::make_mut(&mut self.config);
        let mut provider = CryptoProvider::clone(config.crypto_provider());
        provider.kx_groups = groups.to_vec();
        let resumption = config.resumption.clone();
        let versions: &[&'static SupportedProtocolVersion] = rustls::ALL_VERSIONS;
        let verifier = Arc::new(AnyCertificate::new(&provider));
        let builder = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(versions)
            .expect("the provider speaks these versions");
        *config = builder
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        config.resumption = resumption;
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
        Self::from_config(builder(versions, |builder| {
            builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(AnyCertificate::new(&crypto_provider())))
        }))
    }

    fn from_config(mut config: ClientConfig) -> Self {
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
    versions: &[&'static SupportedProtocolVersion],
    verify: impl FnOnce(
        ConfigBuilder<ClientConfig, rustls::WantsVerifier>,
    ) -> ConfigBuilder<ClientConfig, WantsClientCert>,
) -> ClientConfig {
    let builder = ClientConfig::builder_with_provider(crypto_provider())
        .with_protocol_versions(versions)
        .expect("the provider speaks these versions");
    verify(builder).with_no_client_auth()
}

/// Accepts every certificate, as the flexVDI client does, but checks that the server holds its
/// key.
#[derive(Debug)]
pub struct AnyCertificate(WebPkiSupportedAlgorithms);

impl AnyCertificate {
    /// Checks signatures with the algorithms of `provider`.
    pub fn new(provider: &CryptoProvider) -> Self {
        Self(provider.signature_verification_algorithms)
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
        verify_tls12_signature(message, cert, dss, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

/// Accepts every certificate, and does not check that the server holds its key.
#[derive(Debug)]
struct UncheckedCertificate(AnyCertificate);

impl ServerCertVerifier for UncheckedCertificate {
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
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
