//! The handshake with a client.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::server::{ResolvesServerCert, UnbufferedServerConnection};
use tokio::net::TcpStream;

use super::handshake::{self, HandshakeError};
use super::role::Role;
use super::secrets::Capture;
use super::stream::TlsStream;

/// Settings of a server whose connections [`accept`] can take over from rustls: TLS 1.2 and 1.3,
/// and keys that are given out.
pub fn server_config(certificates: Arc<dyn ResolvesServerCert>) -> ServerConfig {
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap_or_else(|_| unreachable!("the provider carries TLS 1.2 and 1.3"))
        .with_no_client_auth()
        .with_cert_resolver(certificates);
    config.enable_secret_extraction = true;
    config.key_log = Arc::new(Capture);
    config
}

/// Makes the server's side of a handshake. The settings must be those of [`server_config`], as far
/// as it makes them.
pub async fn accept(
    tcp: TcpStream,
    config: Arc<ServerConfig>,
) -> Result<TlsStream, HandshakeError> {
    let connection = UnbufferedServerConnection::new(config).map_err(HandshakeError::from)?;
    handshake::run(Box::new(connection), tcp, Role::Server).await
}
