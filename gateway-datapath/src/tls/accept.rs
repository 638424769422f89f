//! The handshake with a client.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ResolvesServerCert, UnbufferedServerConnection};
use tokio::net::TcpStream;

use super::agreed::Agreed;
use super::handshake::{self, HandshakeError};
use super::profile::Profile;
use super::role::Role;
use super::secrets::Capture;
use super::stream::TlsStream;

/// Settings of a server whose connections [`accept`] can take over from rustls: the versions of a
/// profile, and keys that are given out. `clients` decides whether clients need a certificate.
pub fn server_config(
    profile: Profile,
    clients: Arc<dyn ClientCertVerifier>,
    certificates: Arc<dyn ResolvesServerCert>,
) -> ServerConfig {
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(profile.versions())
        .unwrap_or_else(|_| unreachable!("the provider carries TLS 1.2 and 1.3"))
        .with_client_cert_verifier(clients)
        .with_cert_resolver(certificates);
    config.enable_secret_extraction = true;
    config.key_log = Arc::new(Capture);
    config
}

/// Makes the server's side of a handshake, and says what it has agreed on. The settings must be those
/// of [`server_config`], as far as it makes them.
pub async fn accept(
    tcp: TcpStream,
    config: Arc<ServerConfig>,
) -> Result<(TlsStream, Agreed), HandshakeError> {
    let connection = UnbufferedServerConnection::new(config).map_err(HandshakeError::from)?;
    handshake::run(Box::new(connection), tcp, Role::Server).await
}
