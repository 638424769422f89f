//! Connections, listeners and limits that all peers share.

use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use anyhow::{Context, Result};
use rustls::ClientConnection;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::client::TlsStream;

use crate::namespace::Namespace;
use crate::tls::TlsClient;

/// The longest wait for anything that should happen at once; far beyond what a slow machine
/// needs.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Awaits `future` for at most [`PATIENCE`]; `what` names it in the error.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> Result<T> {
    tokio::time::timeout(PATIENCE, future)
        .await
        .with_context(|| format!("{what}: nothing within {PATIENCE:?}"))
}

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 1_024;

/// A free TCP port of 127.0.0.1: one that nobody listens on at the moment.
pub fn free_port() -> Result<u16> {
    // Below the range from which the kernel takes ports by itself: a port out of that could be
    // any connection's before its user listens on it.
    const FIRST: u16 = 10_000;
    const COUNT: u16 = 20_000;
    let random = RandomState::new().hash_one(std::process::id());
    let start = u16::try_from(random % u64::from(COUNT))?;
    (0..COUNT)
        .map(|step| FIRST + (start + step) % COUNT)
        .find(|port| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .context("finding a free port")
}

/// Where and how a client connects.
#[must_use]
#[derive(Clone, Debug)]
pub struct Endpoint {
    addr: SocketAddr,
    tls: Option<TlsClient>,
    source: Option<IpAddr>,
    receive_buffer: Option<u32>,
    namespace: Option<Namespace>,
}

impl Endpoint {
    /// Plain TCP.
    pub fn plain(addr: SocketAddr) -> Self {
        Self {
            addr,
            tls: None,
            source: None,
            receive_buffer: None,
            namespace: None,
        }
    }

    /// TLS that accepts any certificate, as the flexVDI client does.
    pub fn tls(addr: SocketAddr) -> Self {
        Self::plain(addr).with_tls(TlsClient::new())
    }

    /// TLS with these settings; clones share the store of sessions to resume.
    pub fn with_tls(mut self, tls: TlsClient) -> Self {
        self.tls = Some(tls);
        self
    }

    /// The same settings for another address.
    pub fn with_addr(mut self, addr: SocketAddr) -> Self {
        self.addr = addr;
        self
    }

    /// Connects from this address of this machine, as in 127.0.0.2.
    pub fn from_source(mut self, source: IpAddr) -> Self {
        self.source = Some(source);
        self
    }

    /// The size of the socket's receive buffer in bytes, for clients that read slowly.
    pub fn receive_buffer(mut self, bytes: u32) -> Self {
        self.receive_buffer = Some(bytes);
        self
    }

    /// Connects from this network.
    pub fn in_namespace(mut self, namespace: &Namespace) -> Self {
        self.namespace = Some(namespace.clone());
        self
    }

    /// The address connected to.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Whether the connection is a TLS one.
    pub fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Connects, TLS handshake included.
    pub async fn connect(&self) -> Result<Connection> {
        let what = format!("connecting to {}", self.addr);
        let tcp = within(&what, self.connect_tcp())
            .await?
            .with_context(|| what.clone())?;
        match &self.tls {
            None => Ok(Connection::Plain(tcp)),
            Some(tls) => {
                let stream = within(&format!("TLS, {what}"), tls.handshake(tcp)).await??;
                Ok(Connection::Tls(Box::new(stream)))
            }
        }
    }

    /// Connects by TCP alone, whatever the endpoint's TLS is.
    pub async fn connect_tcp(&self) -> io::Result<TcpStream> {
        let socket = socket(self.addr, self.namespace.as_ref())?;
        if let Some(source) = self.source {
            socket.bind((source, 0).into())?;
        }
        if let Some(bytes) = self.receive_buffer {
            socket.set_recv_buffer_size(bytes)?;
        }
        let stream = socket.connect(self.addr).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

/// A socket for this kind of address, of the namespace or else of this thread's.
fn socket(addr: SocketAddr, namespace: Option<&Namespace>) -> io::Result<TcpSocket> {
    let new = || match addr {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    };
    match namespace {
        Some(namespace) => namespace.enter(new).map_err(io::Error::other)?,
        None => new(),
    }
}

/// Listens on an address of the namespace.
pub fn listen_in(namespace: &Namespace, addr: SocketAddr) -> Result<TcpListener> {
    let listen = || {
        let socket = socket(addr, Some(namespace))?;
        socket.set_reuseaddr(true)?;
        socket.bind(addr)?;
        socket.listen(BACKLOG)
    };
    listen().with_context(|| format!("listening on {addr}"))
}

/// A client's connection.
#[derive(Debug)]
pub enum Connection {
    /// Plain TCP.
    Plain(TcpStream),
    /// TLS over TCP.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Connection {
    /// The TCP socket below.
    pub fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => stream.get_ref().0,
        }
    }

    /// What TLS negotiated; `None` for plain TCP.
    pub fn tls(&self) -> Option<&ClientConnection> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(stream) => Some(stream.get_ref().1),
        }
    }

    /// Ends the connection by RST.
    pub fn reset(self) -> io::Result<()> {
        reset(self.tcp())
    }

    fn inner(self: Pin<&mut Self>) -> Pin<&mut dyn ReadWrite> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream),
            Self::Tls(stream) => Pin::new(stream),
        }
    }
}

/// Makes the socket's end, when its stream is dropped, a RST.
pub fn reset(stream: &TcpStream) -> io::Result<()> {
    SockRef::from(stream).set_linger(Some(Duration::ZERO))
}

/// How a peer ended its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamEnd {
    /// In order: FIN, on TLS after `close_notify`.
    Closed,
    /// FIN on TLS without `close_notify`.
    CutOff,
    /// RST.
    Reset,
}

impl StreamEnd {
    /// The end that this error of a read stands for; other errors are handed back.
    pub fn from_error(error: io::Error) -> io::Result<Self> {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Ok(Self::CutOff),
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Ok(Self::Reset),
            _ => Err(error),
        }
    }
}

/// Reads all that comes until the peer ends its stream, and says how it did.
pub async fn read_to_end(stream: &mut (impl AsyncRead + Unpin)) -> Result<(Vec<u8>, StreamEnd)> {
    let mut bytes = Vec::new();
    let end = within("end of a stream", stream.read_to_end(&mut bytes)).await?;
    let end = match end {
        Ok(_) => StreamEnd::Closed,
        Err(error) => StreamEnd::from_error(error)?,
    };
    Ok((bytes, end))
}

/// A byte stream in both directions.
pub trait ReadWrite: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> ReadWrite for T {}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.inner().poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.inner().poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        self.inner().poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        self.inner().poll_shutdown(cx)
    }
}

/// A listener whose connections are served until it is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    addr: SocketAddr,
    task: JoinHandle<()>,
}

impl Server {
    /// Listens on `addr` and runs `handler` for each connection.
    pub(crate) async fn spawn<F, H>(addr: SocketAddr, handler: H) -> Result<Self>
    where
        H: Fn(TcpStream, SocketAddr) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind(addr)
            .await
            .with_context(|| format!("listening on {addr}"))?;
        Self::over(listener, handler)
    }

    /// Runs `handler` for each connection of this listener.
    pub(crate) fn over<F, H>(listener: TcpListener, handler: H) -> Result<Self>
    where
        H: Fn(TcpStream, SocketAddr) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let addr = listener.local_addr()?;
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                tokio::select! {
                    accepted = listener.accept() => {
                        // The peer may be gone again, or descriptors short for a moment.
                        let Ok((stream, peer)) = accepted else { continue };
                        let _ = stream.set_nodelay(true);
                        connections.spawn(handler(stream, peer));
                    }
                    Some(_) = connections.join_next() => {}
                }
            }
        });
        Ok(Self { addr, task })
    }

    /// The address that is listened on.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}
