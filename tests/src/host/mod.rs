//! Stand-ins for Spice servers: TCP servers on loopback that do with each connection what the
//! test needs.

mod ready;

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Mutex, mpsc, watch};

pub use crate::spice::{link_message, read_link};
pub use ready::{End, MOST_ECHOED, Verified};

use crate::namespace::Namespace;
use crate::net::{Server, listen_in, within};

/// A host whose connections each come to an outcome `T`; stops when dropped.
#[derive(Debug)]
pub struct Host<T = ()> {
    server: Server,
    accepted: Arc<AtomicUsize>,
    outcomes: Mutex<mpsc::UnboundedReceiver<Result<T>>>,
    received: watch::Receiver<Vec<Vec<u8>>>,
}

impl<T: Send + 'static> Host<T> {
    /// A host on a free port of 127.0.0.1 that runs `handler` for each connection.
    pub async fn spawn<H, F>(handler: H) -> Result<Self>
    where
        H: Fn(TcpStream) -> F + Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        Self::spawn_on(LOOPBACK.into(), handler).await
    }

    /// The same on another address, as in `[::1]:0`.
    pub async fn spawn_on<H, F>(addr: SocketAddr, handler: H) -> Result<Self>
    where
        H: Fn(TcpStream) -> F + Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        Self::start(addr, move |stream, _record| handler(stream)).await
    }

    /// The same on a free port of this address of a namespace.
    pub fn spawn_in<H, F>(namespace: &Namespace, address: IpAddr, handler: H) -> Result<Self>
    where
        H: Fn(TcpStream) -> F + Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let listener = listen_in(namespace, (address, 0).into())?;
        Self::over(listener, move |stream, _record| handler(stream))
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.server.addr()
    }

    /// How many connections it accepted so far.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }

    /// The outcome of the next connection to end.
    pub async fn outcome(&self) -> Result<T> {
        let mut outcomes = self.outcomes.lock().await;
        within("end of a host's connection", outcomes.recv())
            .await?
            .context("the host ended")?
    }

    async fn start<H, F>(addr: SocketAddr, handler: H) -> Result<Self>
    where
        H: Fn(TcpStream, Record) -> F + Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let listener = TcpListener::bind(addr)
            .await
            .with_context(|| format!("listening on {addr}"))?;
        Self::over(listener, handler)
    }

    fn over<H, F>(listener: TcpListener, handler: H) -> Result<Self>
    where
        H: Fn(TcpStream, Record) -> F + Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let (outcome_sender, outcomes) = mpsc::unbounded_channel();
        let (received_sender, received) = watch::channel(Vec::new());
        let received_sender = Arc::new(received_sender);
        let accepted = Arc::new(AtomicUsize::new(0));
        let count = accepted.clone();
        let server = Server::over(listener, move |stream, _peer| {
            count.fetch_add(1, Ordering::Relaxed);
            let outcome = handler(stream, Record::new(received_sender.clone()));
            let outcome_sender = outcome_sender.clone();
            async move {
                // Nobody may be interested.
                let _ = outcome_sender.send(outcome.await);
            }
        })?;
        Ok(Self {
            server,
            accepted,
            outcomes: Mutex::new(outcomes),
            received,
        })
    }
}

const LOOPBACK: ([u8; 4], u16) = ([127, 0, 0, 1], 0);

/// What one connection of a recording host brought.
#[derive(Debug)]
struct Record {
    all: Arc<watch::Sender<Vec<Vec<u8>>>>,
    index: usize,
}

impl Record {
    fn new(all: Arc<watch::Sender<Vec<Vec<u8>>>>) -> Self {
        let mut index = 0;
        all.send_modify(|all| {
            index = all.len();
            all.push(Vec::new());
        });
        Self { all, index }
    }

    fn append(&self, bytes: &[u8]) {
        self.all
            .send_modify(|all| all[self.index].extend_from_slice(bytes));
    }

    fn bytes(&self) -> Vec<u8> {
        self.all.borrow()[self.index].clone()
    }
}

/// An address on which connects neither succeed nor fail, as of a host that is switched off.
#[derive(Debug)]
pub struct Unresponsive {
    listener: TcpListener,
    _filler: TcpStream,
}

impl Unresponsive {
    /// A listener that accepts nothing and whose queue is full.
    pub async fn new() -> Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(LOOPBACK.into())?;
        let listener = socket.listen(0)?;
        let filler = within(
            "filling a queue",
            TcpStream::connect(listener.local_addr()?),
        )
        .await??;
        Ok(Self {
            listener,
            _filler: filler,
        })
    }

    /// The address.
    pub fn addr(&self) -> Result<SocketAddr> {
        Ok(self.listener.local_addr()?)
    }
}
