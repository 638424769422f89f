//! Connections to both doors.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
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

/// Serves the port that only shows.
pub(super) async fn tcp(admin: Arc<Admin>, listener: TcpListener) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => {
                let serve = serve(Arc::clone(&admin), stream, Access::Show);
                tokio::spawn(async move {
                    serve.await;
                    drop(place);
                });
            }
            Err(error) => pause(&error).await,
        }
    }
}

/// Serves the socket of the command line.
pub(super) async fn unix(admin: Arc<Admin>, listener: UnixListener) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => {
                let serve = serve(Arc::clone(&admin), stream, Access::ShowAndAct);
                tokio::spawn(async move {
                    serve.await;
                    drop(place);
                });
            }
            Err(error) => pause(&error).await,
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
