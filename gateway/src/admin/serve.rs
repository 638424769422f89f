//! Connections to both doors.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tracing::debug;

use super::Admin;
use super::routes::{self, Access};

/// Connections of each door at a time; more wait.
const CONNECTIONS: usize = 32;
/// Longest wait for the head of a request, also for the next one on a connection.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// Pause after a connection could not be accepted.
const PAUSE: Duration = Duration::from_millis(100);

/// A socket at which connections are taken.
pub(super) trait Accept {
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// The next connection.
    fn next(&self) -> impl Future<Output = std::io::Result<Self::Stream>> + Send;
}

impl Accept for TcpListener {
    type Stream = TcpStream;

    async fn next(&self) -> std::io::Result<TcpStream> {
        Ok(self.accept().await?.0)
    }
}

impl Accept for UnixListener {
    type Stream = UnixStream;

    async fn next(&self) -> std::io::Result<UnixStream> {
        Ok(self.accept().await?.0)
    }
}

/// One of the two doors.
pub(super) struct Door<L> {
    admin: Arc<Admin>,
    listener: L,
    access: Access,
    places: Arc<Semaphore>,
}

impl<L: Accept> Door<L> {
    pub(super) fn new(admin: Arc<Admin>, listener: L, access: Access) -> Self {
        Self {
            admin,
            listener,
            access,
            places: Arc::new(Semaphore::new(CONNECTIONS)),
        }
    }

    /// Takes connections for ever.
    pub(super) async fn serve(&mut self) -> Infallible {
        loop {
            let Ok(place) = Arc::clone(&self.places).acquire_owned().await else {
                unreachable!("nobody closes the semaphore")
            };
            match self.listener.next().await {
                Ok(stream) => {
                    let serve = serve(Arc::clone(&self.admin), stream, self.access);
                    tokio::spawn(async move {
                        serve.await;
                        drop(place);
                    });
                }
                Err(error) => pause(&error).await,
            }
        }
    }
}

async fn pause(error: &std::io::Error) {
    debug!(%error, "no connection to the administrator's door");
    tokio::time::sleep(PAUSE).await;
}

async fn serve<S>(admin: Arc<Admin>, stream: S, access: Access)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request: Request<Incoming>| {
        let admin = Arc::clone(&admin);
        let (parts, _) = request.into_parts();
        async move { Ok::<_, Infallible>(routes::answer(&admin, access, &parts).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        debug!(%error, "connection to the administrator's door failed");
    }
}
