//! The public port and the plaintext port: accepting connections and serving HTTP on them.

mod inherited;
pub mod limits;
pub mod socket;
mod stream;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::{debug, warn};

pub use inherited::{Inherited, InheritedError};
pub use limits::{ConnectionLimits, Permit};
pub use stream::ClientStream;

use crate::http::{self, ConnectionInfo, Gateway};
use crate::tls;

/// Pause after the system had no descriptor or memory for a connection.
const RESOURCE_PAUSE: Duration = Duration::from_millis(100);

/// A shortage that goes on is told again after this time.
const SHORTAGE_INTERVAL: Duration = Duration::from_secs(60);

/// How the clients of a port reach the gateway.
#[derive(Clone)]
pub enum Leg {
    /// TLS ends here.
    Tls(Arc<ServerConfig>),
    /// TLS ends at a reverse proxy in front of this port.
    Plain,
}

impl Leg {
    /// Name in the log.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Tls(_) => "tls",
            Self::Plain => "plain",
        }
    }
}

/// Time limits and sizes of the HTTP side.
#[derive(Clone, Copy, Debug)]
pub struct HttpLimits {
    /// Longest TLS handshake.
    pub handshake_timeout: Duration,
    /// Longest wait for the head of a request.
    pub header_timeout: Duration,
    /// Longest head of a request, in bytes.
    pub max_header_size: usize,
}

/// One port.
pub struct Listener {
    /// The socket.
    pub socket: TcpListener,
    /// How its clients reach the gateway.
    pub leg: Leg,
    /// Time limits and sizes.
    pub http_limits: HttpLimits,
    /// Connections of all ports together.
    pub connections: Arc<ConnectionLimits>,
    /// What the requests are served with.
    pub gateway: Arc<Gateway>,
    /// True once no more connections are to be taken.
    pub draining: watch::Receiver<bool>,
}

impl Listener {
    /// Takes connections until draining.
    pub async fn run(mut self) {
        let mut starved: Option<Instant> = None;
        loop {
            let accepted = tokio::select! {
                accepted = self.socket.accept() => accepted,
                () = draining(&mut self.draining) => return,
            };
            match accepted {
                Ok((stream, peer)) => self.accept(stream, peer),
                Err(error) if socket::is_resource_error(&error) => {
                    // Room comes and goes while clients do: that is one and the same shortage.
                    if starved.is_none_or(|told| told.elapsed() >= SHORTAGE_INTERVAL) {
                        warn!(%error, "no resources for further connections; those that are open go on");
                        starved = Some(Instant::now());
                    }
                    tokio::time::sleep(RESOURCE_PAUSE).await;
                }
                // The client was gone before it was taken: nothing to be told.
                Err(error) => debug!(%error, "accept failed"),
            }
        }
    }

    fn accept(&self, stream: TcpStream, peer: SocketAddr) {
        let peer = peer.ip().to_canonical();
        let Some(permit) = self.connections.admit(peer) else {
            debug!(client = %peer, "too many connections");
            return;
        };
        if let Err(error) = socket::tune(&stream) {
            debug!(client = %peer, %error, "connection was lost at once");
            return;
        }
        let connection = Connection {
            leg: self.leg.clone(),
            http_limits: self.http_limits,
            gateway: Arc::clone(&self.gateway),
            draining: self.draining.clone(),
        };
        tokio::spawn(connection.serve(stream, peer, Arc::new(permit)));
    }
}

struct Connection {
    leg: Leg,
    http_limits: HttpLimits,
    gateway: Arc<Gateway>,
    draining: watch::Receiver<bool>,
}

impl Connection {
    async fn serve(mut self, stream: TcpStream, peer: IpAddr, permit: Arc<Permit>) {
        let Ok(local) = stream.local_addr() else {
            return;
        };
        let info = ConnectionInfo {
            peer,
            local: local.ip().to_canonical(),
            is_tls: matches!(self.leg, Leg::Tls(_)),
            permit,
        };
        let Some(stream) = self.begin(stream, peer).await else {
            return;
        };

        let gateway = Arc::clone(&self.gateway);
        let service = service_fn(move |request| {
            let (gateway, info) = (Arc::clone(&gateway), info.clone());
            async move { Ok::<_, std::convert::Infallible>(http::serve(&gateway, &info, request).await) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.http_limits.header_timeout)
            .max_buf_size(self.http_limits.max_header_size)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        let mut connection = std::pin::pin!(connection);
        let served = tokio::select! {
            served = connection.as_mut() => served,
            () = draining(&mut self.draining) => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = served {
            debug!(client = %peer, %error, "connection ended early");
        }
    }

    /// The client's stream of plaintext; `None`: there will be none.
    async fn begin(&mut self, tcp: TcpStream, peer: IpAddr) -> Option<ClientStream> {
        let config = match &self.leg {
            Leg::Plain => return Some(ClientStream::Plain(tcp)),
            Leg::Tls(config) => Arc::clone(config),
        };
        let handshake = timeout(self.http_limits.handshake_timeout, tls::accept(tcp, config));
        let shaken = tokio::select! {
            shaken = handshake => shaken,
            () = draining(&mut self.draining) => return None,
        };
        match shaken {
            Ok(Ok(stream)) => return Some(ClientStream::Tls(Box::new(stream))),
            Ok(Err(error)) => debug!(client = %peer, %error, "TLS handshake failed"),
            Err(_) => debug!(client = %peer, "TLS handshake took too long"),
        }
        None
    }
}

/// Ready once no more is to be taken.
async fn draining(watched: &mut watch::Receiver<bool>) {
    // The sender is never dropped before; were it, stopping would be right as well.
    let _ = watched.wait_for(|draining| *draining).await;
}
