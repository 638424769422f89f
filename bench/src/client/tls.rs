//! TLS as the load generator speaks it: the same parameters with every peer.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use rustls::client::{ClientConfig, Resumption};
use rustls::crypto::aws_lc_rs::{cipher_suite, default_provider, kx_group};
use rustls::crypto::{CryptoProvider, SupportedKxGroup};
use rustls::{HandshakeKind, NamedGroup, ProtocolVersion};
use rustls_pki_types::ServerName;
use testkit::tls::AnyCertificate;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// What is negotiated with every peer that can.
pub(crate) const PARAMETERS: &str = "TLS 1.3, TLS_AES_128_GCM_SHA256, X25519, ECDSA P-256";

/// What must be negotiated; both with the same cryptography.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    /// TLS 1.3.
    Tls13,
    /// TLS 1.2, for peers that speak nothing newer.
    Tls12,
}

/// A TLS client; its clones share the sessions that can be resumed.
#[derive(Clone)]
pub(crate) struct Tls {
    connector: TlsConnector,
    name: ServerName<'static>,
}

impl Tls {
    /// A client that begins every session anew, or one that resumes them.
    pub(crate) fn new(resuming: bool) -> Result<Self> {
        let provider = Arc::new(CryptoProvider {
            cipher_suites: vec![
                cipher_suite::TLS13_AES_128_GCM_SHA256,
                cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
            ],
            // The second only for what knows no other; it costs a peer about as much.
            kx_groups: vec![kx_group::X25519, kx_group::SECP256R1],
            ..default_provider()
        });
        let verifier = Arc::new(AnyCertificate::new(&provider));
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .context("TLS 1.3 and 1.2")?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        config.resumption = if resuming {
            Resumption::in_memory_sessions(8)
        } else {
            Resumption::disabled()
        };
        Ok(Self {
            connector: TlsConnector::from(Arc::new(config)),
            name: ServerName::try_from("localhost").context("the name of the server")?,
        })
    }

    /// The handshake over a new connection; fails unless it leads to what all peers
    /// of this version shall speak.
    pub(crate) async fn handshake(
        &self,
        stream: TcpStream,
        version: Version,
    ) -> Result<TlsStream<TcpStream>> {
        let connect = self.connector.connect(self.name.clone(), stream);
        let stream = connect.await.context("TLS handshake")?;
        let session = stream.get_ref().1;
        let group = session.negotiated_key_exchange_group();
        let negotiated = (
            session.protocol_version(),
            group.map(SupportedKxGroup::name),
        );
        let is_expected = match version {
            Version::Tls13 => {
                negotiated == (Some(ProtocolVersion::TLSv1_3), Some(NamedGroup::X25519))
            }
            Version::Tls12 => negotiated.0 == Some(ProtocolVersion::TLSv1_2),
        };
        ensure!(
            is_expected,
            "{negotiated:?} was negotiated instead of {version:?}"
        );
        Ok(stream)
    }
}

/// Whether a session was resumed rather than begun anew.
pub(crate) fn is_resumed(stream: &TlsStream<TcpStream>) -> bool {
    stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed)
}
