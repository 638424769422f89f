//! The handshake with a host.

use std::sync::Arc;

use rustls::ClientConfig;
use rustls::client::danger::ServerCertVerifier;
use rustls::client::{Resumption, UnbufferedClientConnection};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;

use super::handshake::{self, HandshakeError};
use super::role::Role;
use super::secrets::Capture;
use super::stream::TlsStream;

/// Settings of a client whose connections [`connect`] can take over from rustls: TLS 1.2 and 1.3,
/// keys that are given out, and no sessions that are resumed, so that each connection's
/// certificate is looked at by `verifier`.
pub fn client_config(verifier: Arc<dyn ServerCertVerifier>) -> ClientConfig {
    let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap_or_else(|_| unreachable!("the provider carries TLS 1.2 and 1.3"))
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    config.enable_secret_extraction = true;
    config.key_log = Arc::new(Capture);
    config
}

/// Makes the client's side of a handshake with the server of this name. The settings must be those
/// of [`client_config`], as far as it makes them. Sets no limit on time.
pub async fn connect(
    tcp: TcpStream,
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
) -> Result<TlsStream, HandshakeError> {
    let connection = UnbufferedClientConnection::new(config, name).map_err(HandshakeError::from)?;
    let (stream, _) = handshake::run(Box::new(connection), tcp, Role::Client).await?;
    Ok(stream)
}
