//! A manager that answers with exact bytes, right or wrong.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use anyhow::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::lock;
use crate::cert::TestCert;
use crate::http::request_length;
use crate::net::{Server, reset};

/// How a [`RawManager`] ends a connection after its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RawEnd {
    /// `close_notify` and FIN.
    Close,
    /// FIN without `close_notify`.
    CutOff,
    /// RST.
    Reset,
    /// Not at all: it waits for the peer's end.
    Hold,
}

/// A TLS server that knows of HTTP only where a request ends; stops when dropped.
#[derive(Debug)]
pub struct RawManager {
    server: Server,
    cert: Arc<TestCert>,
    requests: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl RawManager {
    /// Answers each connection's first request with these bytes, then ends it.
    pub async fn reply(bytes: impl Into<Vec<u8>>, end: RawEnd) -> Result<Self> {
        let bytes: Arc<[u8]> = bytes.into().into();
        Self::with_handler(move |stream, _request| {
            let bytes = bytes.clone();
            async move {
                // A peer that gave up earlier is what some tests are about.
                let _ = write_and_end(stream, &bytes, end).await;
            }
        })
        .await
    }

    /// Hands each connection to this function after its first request was read, with that
    /// request's bytes.
    pub async fn with_handler<H, F>(handler: H) -> Result<Self>
    where
        H: Fn(TlsStream<TcpStream>, Vec<u8>) -> F + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let cert = Arc::new(TestCert::new()?);
        let acceptor = TlsAcceptor::from(cert.server_config()?);
        let requests: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
        let handler = Arc::new(handler);
        let recorded = requests.clone();
        let addr = SocketAddr::from(([127, 0, 0, 1], 0));
        let server = Server::spawn(addr, move |stream, _peer| {
            let (acceptor, handler) = (acceptor.clone(), handler.clone());
            let recorded = recorded.clone();
            async move {
                let Ok(mut stream) = acceptor.accept(stream).await else {
                    return;
                };
                if let Ok(request) = read_request(&mut stream).await {
                    lock(&recorded).push(request.clone());
                    handler(stream, request).await;
                }
            }
        })
        .await?;
        Ok(Self {
            server,
            cert,
            requests,
        })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.server.addr()
    }

    /// The certificate that it shows.
    pub fn cert(&self) -> &TestCert {
        &self.cert
    }

    /// The first request of each connection, byte for byte, oldest first.
    pub fn requests(&self) -> Vec<Vec<u8>> {
        lock(&self.requests).clone()
    }
}

/// Reads until a whole request is there or the peer ends.
async fn read_request(stream: &mut TlsStream<TcpStream>) -> std::io::Result<Vec<u8>> {
    let mut request = Vec::new();
    while request_length(&request).is_none_or(|length| request.len() < length) {
        if stream.read_buf(&mut request).await? == 0 {
            break;
        }
    }
    Ok(request)
}

async fn write_and_end(
    mut stream: TlsStream<TcpStream>,
    bytes: &[u8],
    end: RawEnd,
) -> std::io::Result<()> {
    stream.write_all(bytes).await?;
    stream.flush().await?;
    match end {
        RawEnd::Close => {
            stream.shutdown().await?;
            wait_for_end(&mut stream).await;
        }
        RawEnd::CutOff => {
            let (mut tcp, _) = stream.into_inner();
            tcp.shutdown().await?;
            let mut rest = Vec::new();
            tcp.read_to_end(&mut rest).await?;
        }
        RawEnd::Reset => reset(stream.get_ref().0)?,
        RawEnd::Hold => wait_for_end(&mut stream).await,
    }
    Ok(())
}

/// Reads what may still come: closing a socket with unread bytes would be a RST.
async fn wait_for_end(stream: &mut TlsStream<TcpStream>) {
    let mut rest = [0; 4096];
    while matches!(stream.read(&mut rest).await, Ok(1..)) {}
}
