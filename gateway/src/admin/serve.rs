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
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tracing::debug;

use super::Admin;
use super::places::{Place, Places};
use super::routes::{self, Access};
use crate::runtime_dir::socket::OwnListener;
use crate::timed::{Peer, Timed};

/// Connections of each door at a time.
const CONNECTIONS: usize = 32;
/// Longest wait for the head of a request, also for the next one on a connection, and for a client
/// that takes nothing of its answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// Pause after a connection could not be accepted.
const PAUSE: Duration = Duration::from_millis(100);

/// A socket at which connections are taken.
pub(super) trait Accept {
    type Stream: Peer + Send + 'static;

    /// The next connection.
    fn next(&self) -> impl Future<Output = std::io::Result<Self::Stream>> + Send;
}

impl Accept for TcpListener {
    type Stream = TcpStream;

    async fn next(&self) -> std::io::Result<TcpStream> {
        Ok(self.accept().await?.0)
    }
}

impl Accept for OwnListener {
    type Stream = UnixStream;

    async fn next(&self) -> std::io::Result<UnixStream> {
        self.accept().await
    }
}

/// One of the two doors.
pub(super) struct Door<L> {
    admin: Arc<Admin>,
    listener: L,
    access: Access,
    places: Arc<Places>,
}

impl<L: Accept> Door<L> {
    pub(super) fn new(admin: Arc<Admin>, listener: L, access: Access) -> Self {
        Self {
            admin,
            listener,
            access,
            places: Places::new(CONNECTIONS),
        }
    }

    /// Takes connections for ever.
    pub(super) async fn serve(&mut self) -> Infallible {
        loop {
            match self.listener.next().await {
                Ok(stream) => {
                    let place = self.places.take().await;
                    tokio::spawn(serve(Arc::clone(&self.admin), stream, place, self.access));
                }
                Err(error) => {
                    debug!(%error, "no connection to the administrator's door");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}

async fn serve(
    admin: Arc<Admin>,
    stream: impl Peer + Send + 'static,
    place: Place,
    access: Access,
) {
    let place = Arc::new(place);
    let service = service_fn(|request: Request<Incoming>| {
        let (admin, answering) = (Arc::clone(&admin), place.answering());
        async move {
            let answer = routes::answer(&admin, access, request).await;
            drop(answering);
            Ok::<_, Infallible>(answer)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .serve_connection(TokioIo::new(Timed::new(stream, PATIENCE)), service);
    tokio::select! {
        served = connection => {
            if let Err(error) = served {
                debug!(%error, "connection to the administrator's door failed");
            }
        }
        () = place.is_needed() => {
            debug!("an idle connection to the administrator's door gave way to another one");
        }
    }
}
