//! Other ways to a host than its TCP port: whatever comes to a front is passed on to the host, and
//! back.

use std::fs::{self, Permissions};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

/// Stands before a host until it is dropped.
#[derive(Debug)]
pub struct Front(JoinHandle<()>);

impl Front {
    /// A Unix socket at this path, where there must be none yet.
    pub fn unix(path: &Path, host: SocketAddr) -> Result<Self> {
        let listener =
            UnixListener::bind(path).with_context(|| format!("listening at {}", path.display()))?;
        // Whoever the gateway runs as.
        fs::set_permissions(path, Permissions::from_mode(0o666))?;
        Ok(Self(tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(pass(stream, host));
            }
        })))
    }

    /// A TLS port on this address, with the number of the host's own port.
    pub async fn tls(address: IpAddr, config: Arc<ServerConfig>, host: SocketAddr) -> Result<Self> {
        let address = SocketAddr::new(address, host.port());
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("listening on {address}"))?;
        let acceptor = TlsAcceptor::from(config);
        Ok(Self(tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let handshake = acceptor.accept(stream);
                connections.spawn(async move {
                    // A client that does not trust it is the test's affair.
                    if let Ok(stream) = handshake.await {
                        pass(stream, host).await;
                    }
                });
            }
        })))
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Until both sides have ended, or one breaks.
async fn pass(mut near: impl AsyncRead + AsyncWrite + Unpin, host: SocketAddr) {
    if let Ok(mut far) = TcpStream::connect(host).await {
        let _ = copy_bidirectional(&mut near, &mut far).await;
    }
}
