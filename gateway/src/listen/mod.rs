//! The public port and the plaintext port: accepting connections and serving HTTP on them.

pub mod proxy_protocol;

use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::SockRef;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::time::{timeout, timeout_at};
use tracing::{debug, info, warn};

use proxy_protocol::{ClientAddresses, HeaderError, ProxyProtocol};

use crate::http::{ConnectionInfo, Verified};
use crate::limits::{ConnectionLimits, Permit, TooMany};
use crate::metrics::{ConnectionRefusal, HandshakeFailure, Leg};
use crate::serving;
use crate::serving::Live;
use crate::tcp;
use crate::timed::Timed;
use crate::tls::{Challenges, NotIdentified, noting_certificate, refusal};
use gateway_datapath::ClientStream;
use gateway_datapath::tls::{self, HandshakeError};

/// Pause after the system had no descriptor or memory for a connection.
const RESOURCE_PAUSE: Duration = Duration::from_millis(100);

/// Longest wait for the end of a connection that has only checked a name.
const CHECKED_END: Duration = Duration::from_secs(1);

/// A shortage that goes on is told again after this time.
const SHORTAGE_INTERVAL: Duration = Duration::from_secs(60);

/// Whether connections are taken, and what becomes of those that were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intake {
    /// They are taken.
    Open,
    /// Somebody else takes them; those that were taken here get an answer to their first request
    /// here, whenever it comes.
    Elsewhere,
    /// No more are taken, and those without a request are ended.
    Closed,
}

/// One port.
pub struct Listener {
    /// The socket.
    pub socket: TcpListener,
    /// How its clients reach the gateway.
    pub leg: Leg,
    /// What connections and requests are served with.
    pub live: Arc<Live>,
    /// Who tells of clients at the beginning of a connection.
    pub proxy_protocol: Arc<ProxyProtocol>,
    /// Connections of all ports together.
    pub connections: Arc<ConnectionLimits>,
    /// Names that an authority of certificates checks.
    pub challenges: Arc<Challenges>,
    /// Whether more connections are to be taken.
    pub draining: watch::Receiver<Intake>,
}

impl Listener {
    /// Takes connections until draining.
    pub async fn run(&mut self) {
        let mut starved: Option<Instant> = None;
        loop {
            let accepted = tokio::select! {
                accepted = self.socket.accept() => accepted,
                () = draining(&mut self.draining, Intake::Elsewhere) => return,
            };
            match accepted {
                Ok((stream, peer)) => self.accept(stream, peer),
                Err(error) if tcp::is_resource_error(&error) => {
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
        let (peer, port) = (peer.ip().to_canonical(), peer.port());
        let permit = match self.connections.admit(peer) {
            Ok(permit) => permit,
            Err(too_many) => return refuse(&self.live, peer, &too_many.into()),
        };
        if let Err(error) = tcp::tune(&stream) {
            debug!(client = %peer, %error, "connection was lost at once");
            return;
        }
        let serving = self.live.current();
        serving.congestion.apply(&stream);
        serving.gateway.metrics.connections.count(self.leg);
        let connection = Connection {
            leg: self.leg,
            live: Arc::clone(&self.live),
            proxy_protocol: Arc::clone(&self.proxy_protocol),
            challenges: Arc::clone(&self.challenges),
            draining: self.draining.clone(),
            may_do_more: true,
        };
        tokio::spawn(connection.serve(stream, (peer, port), permit));
    }
}

/// Tells that a connection is not taken.
fn refuse(live: &Live, peer: IpAddr, reason: &Refused) {
    debug!(client = %peer, %reason, "connection refused");
    let serving = live.current();
    let metrics = &serving.gateway.metrics;
    metrics.connections_refused.count(reason.label());
    serving.gateway.refused(peer, &reason.to_string());
}

/// Why a connection is closed before its TLS handshake or its first request.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error(transparent)]
    TooMany(#[from] TooMany),
    #[error("client is not allowed")]
    NotAllowed,
    #[error(transparent)]
    ProxyHeader(HeaderError),
}

impl Refused {
    fn label(&self) -> ConnectionRefusal {
        match self {
            Self::TooMany(TooMany::Connections) => ConnectionRefusal::TooMany,
            Self::TooMany(TooMany::Unfinished) => ConnectionRefusal::Unfinished,
            Self::NotAllowed => ConnectionRefusal::NotAllowed,
            Self::ProxyHeader(_) => ConnectionRefusal::ProxyHeader,
        }
    }
}

struct Connection {
    leg: Leg,
    live: Arc<Live>,
    proxy_protocol: Arc<ProxyProtocol>,
    challenges: Arc<Challenges>,
    draining: watch::Receiver<Intake>,
    /// Whether the client may do more than check a name.
    may_do_more: bool,
}

impl Connection {
    /// The stages of a connection, each with memory of its own, which is there only while it
    /// lasts: most of what comes from the internet never gets to the last one.
    async fn serve(mut self, stream: TcpStream, peer: (IpAddr, u16), permit: Permit) {
        let begun = Instant::now();
        // Balancers are few and known, and their headers have a limit of their own.
        let is_introduced = self.proxy_protocol.expects(peer.0);
        if !is_introduced && !self.admits(peer.0) {
            return;
        }
        if !is_introduced && !self.has_begun(&stream).await {
            return;
        }
        let shaken = Box::pin(self.shake_hands(stream, peer, permit, begun)).await;
        if let Some(shaken) = shaken {
            Box::pin(self.wait_and_converse(shaken)).await;
        }
    }

    /// Answers a client's requests, once it has sent a first one.
    async fn wait_and_converse(mut self, shaken: Box<(ClientStream, ConnectionInfo)>) {
        let (mut stream, info) = *shaken;
        if self.asks(&mut stream).await {
            Box::pin(self.converse(stream, info)).await;
        } else {
            debug!(client = %info.peer, "no request in time");
        }
    }

    /// Waits for the client's first byte, or its end; whether one of them came in time.
    async fn has_begun(&mut self, stream: &TcpStream) -> bool {
        let leg = self.leg;
        let limit = {
            let config = &self.live.current().config;
            match leg {
                Leg::Tls => config.handshake_timeout,
                Leg::Plain => config.header_timeout,
            }
        };
        // A look, as tokio takes a connection that it has just accepted for readable.
        let mut byte = [0];
        let begun = tokio::select! {
            begun = timeout(limit, stream.peek(&mut byte)) => begun.is_ok(),
            () = draining(&mut self.draining, Intake::Closed) => return false,
        };
        if !begun && leg == Leg::Tls {
            let metrics = &self.live.current().gateway.metrics;
            metrics.tls_failures.count(HandshakeFailure::Timeout);
        }
        begun
    }

    /// The client's stream of plaintext, and who the client is; `None`: there will be none. In a
    /// box, for which there is room in the task of a connection that is silent too.
    async fn shake_hands(
        &mut self,
        mut stream: TcpStream,
        peer: (IpAddr, u16),
        permit: Permit,
        accepted: Instant,
    ) -> Option<Box<(ClientStream, ConnectionInfo)>> {
        let local = stream.local_addr().ok()?;
        let own = ClientAddresses {
            source: peer.0,
            source_port: peer.1,
            destination: local.ip().to_canonical(),
        };
        let is_introduced = self.proxy_protocol.expects(own.source);
        let (told, mut permit) = self.introduced(&mut stream, own, permit).await?;
        // Whom a balancer tells of could not begin before.
        let began = if is_introduced {
            Instant::now()
        } else {
            accepted
        };
        let (stream, verified) = self.begin(stream, told.source, began).await?;
        permit.finished();
        let info = ConnectionInfo {
            peer: told.source,
            peer_port: told.source_port,
            local: told.destination,
            is_tls: self.leg == Leg::Tls,
            verified,
            permit: Arc::new(permit),
        };
        Some(Box::new((stream, info)))
    }

    /// Waits for the first byte of a request, or the client's end; whether one of them came in
    /// time.
    async fn asks(&mut self, stream: &mut ClientStream) -> bool {
        let limit = self.live.current().config.header_timeout;
        tokio::select! {
            input = timeout(limit, stream.input()) => matches!(input, Ok(Ok(()))),
            () = draining(&mut self.draining, Intake::Closed) => false,
        }
    }

    /// Answers requests, which are served with what is in effect when they come.
    async fn converse(mut self, stream: ClientStream, info: ConnectionInfo) {
        let (header_timeout, max_header_size) = {
            let config = &self.live.current().config;
            (config.header_timeout, config.max_header_size)
        };
        // The same limit for what is still to be sent when this process has closed the socket.
        let _ = SockRef::from(stream.tcp()).set_tcp_user_timeout(Some(header_timeout));
        let stream = Timed::new(stream, header_timeout);

        let client = info.peer;
        let live = Arc::clone(&self.live);
        let asked = Arc::new(Notify::new());
        let noted = Arc::clone(&asked);
        let service = service_fn(move |request| {
            noted.notify_one();
            let (serving, info) = (live.current(), info.clone());
            // Boxed, as a connection has room for its next answer while it waits.
            Box::pin(async move {
                let response = serving::serve(&serving.gateway, &info, request).await;
                Ok::<_, std::convert::Infallible>(response)
            })
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(header_timeout)
            .max_buf_size(max_header_size)
            // Who has sent all that it wants to may say so, and still gets its answer.
            .half_close(true)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        let mut connection = std::pin::pin!(connection);
        let served = tokio::select! {
            served = connection.as_mut() => served,
            () = draining_after(&mut self.draining, &asked) => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = served {
            debug!(%client, %error, "connection ended early");
        }
    }

    /// Who the client is: whom the connection shows, or whom a balancer tells of. `None`: it may
    /// not go on.
    async fn introduced(
        &mut self,
        stream: &mut TcpStream,
        own: ClientAddresses,
        permit: Permit,
    ) -> Option<(ClientAddresses, Permit)> {
        if !self.proxy_protocol.expects(own.source) {
            return Some((own, permit));
        }
        let told = tokio::select! {
            told = self.proxy_protocol.receive(stream, own.source) => told,
            () = draining(&mut self.draining, Intake::Closed) => return None,
        };
        let told = match told {
            Ok(told) => told,
            Err(error) => {
                if !error.is_empty_probe() {
                    refuse(&self.live, own.source, &Refused::ProxyHeader(error));
                }
                return None;
            }
        };
        let Some(told) = told else {
            return Some((own, permit));
        };
        if !self.admits(told.source) {
            return None;
        }
        match permit.moved_to(told.source) {
            Ok(permit) => Some((told, permit)),
            Err(too_many) => {
                refuse(&self.live, told.source, &too_many.into());
                None
            }
        }
    }

    fn admits(&mut self, peer: IpAddr) -> bool {
        if self.live.current().gateway.admits(peer) {
            return true;
        }
        // Nobody knows from where an authority checks names.
        if self.leg == Leg::Tls && self.challenges.are_awaited() {
            self.may_do_more = false;
            return true;
        }
        refuse(&self.live, peer, &Refused::NotAllowed);
        false
    }

    /// The client's stream of plaintext, and who it is by its certificate; `None`: there will be
    /// none.
    async fn begin(
        &mut self,
        tcp: TcpStream,
        peer: IpAddr,
        begun: Instant,
    ) -> Option<(ClientStream, Verified)> {
        if self.leg == Leg::Plain {
            return Some((ClientStream::Plain(tcp), Verified::NotAsked));
        }
        let serving = self.live.current();
        let usual = &serving.identity.tls;
        let checked = self.challenges.settings(usual, self.may_do_more);
        if checked.is_none() && !self.may_do_more {
            refuse(&self.live, peer, &Refused::NotAllowed);
            return None;
        }
        let config = Arc::clone(checked.as_ref().map_or(usual, |checked| &checked.tls));
        let limit = serving.config.handshake_timeout;
        let handshake = pin!(timeout_at((begun + limit).into(), tls::accept(tcp, config)));
        let (shaken, shown) = tokio::select! {
            // An authority that checks a name has no certificate to show.
            shaken = noting_certificate(handshake, checked.is_some()) => shaken,
            () = draining(&mut self.draining, Intake::Closed) => return None,
        };
        let metrics = &serving.gateway.metrics;
        let (mut stream, agreed) = match shaken {
            Ok(Ok(shaken)) => shaken,
            Ok(Err(HandshakeError::Tls(error))) => {
                self.handshake_failed(peer, &NotIdentified { error, shown });
                return None;
            }
            Ok(Err(error)) => {
                debug!(client = %peer, %error, "TLS handshake failed");
                metrics.tls_failures.count(HandshakeFailure::Failed);
                return None;
            }
            Err(_) => {
                debug!(client = %peer, "TLS handshake took too long");
                metrics.tls_failures.count(HandshakeFailure::Timeout);
                return None;
            }
        };
        if checked.is_some_and(|checked| checked.has_answered()) {
            info!(client = %peer, "the authority has checked a name");
            let _ = timeout(CHECKED_END, stream.shutdown()).await;
            return None;
        }
        let verified = match serving
            .identity
            .clients
            .as_ref()
            .map(|rule| rule.identify(&agreed, shown))
        {
            None => Verified::NotAsked,
            Some(Ok(None)) => Verified::Without,
            Some(Ok(Some(certificate))) => Verified::By(Arc::new(certificate)),
            Some(Err(refused)) => {
                self.handshake_failed(peer, &refused);
                return None;
            }
        };
        metrics.tls_handshakes.count(&agreed);
        metrics.tls_handshake.observe(begun.elapsed().as_secs_f64());
        Some((ClientStream::Tls(Box::new(stream)), verified))
    }

    /// Logs and counts why a client does not get in.
    fn handshake_failed(&self, peer: IpAddr, refused: &NotIdentified) {
        let NotIdentified { error, shown } = refused;
        let gateway = &self.live.current().gateway;
        let Some(reason) = refusal(error) else {
            debug!(client = %peer, %error, "TLS handshake failed");
            gateway.metrics.tls_failures.count(HandshakeFailure::Failed);
            return;
        };
        let (label, shown) = if let Some(subject) = shown.subject() {
            info!(client = %peer, reason, subject, "client certificate refused");
            let shown = format!(" ({subject})");
            (HandshakeFailure::CertificateRefused, shown)
        } else {
            // As whoever looks for open ports has none.
            debug!(client = %peer, reason, "client certificate refused");
            (HandshakeFailure::NoCertificate, String::new())
        };
        gateway.metrics.tls_failures.count(label);
        gateway.refused(
            peer,
            &format!("client certificate refused: {reason}{shown}"),
        );
    }
}

/// Ready once connections are drained like this, or more.
async fn draining(watched: &mut watch::Receiver<Intake>, how: Intake) {
    let is_reached = |draining: &Intake| match how {
        Intake::Closed => *draining == Intake::Closed,
        _ => *draining != Intake::Open,
    };
    // The sender is never dropped before; were it, stopping would be right as well.
    let _ = watched.wait_for(is_reached).await;
}

/// Ready once a connection is to be ended; before its first request only when there is no time
/// for one.
async fn draining_after(watched: &mut watch::Receiver<Intake>, asked: &Notify) {
    draining(watched, Intake::Elsewhere).await;
    tokio::select! {
        () = asked.notified() => {}
        () = draining(watched, Intake::Closed) => {}
    }
}
