//! The port at which an authority checks names without TLS (http-01, RFC 8555, section 8.3), open
//! only while it does.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::debug;

use crate::http::body::Body;
use crate::http::reply::plain_error;
use crate::tcp;

/// Where the answers are.
const PATH: &str = "/.well-known/acme-challenge/";
/// Connections at a time; further ones wait to be accepted.
const CONNECTIONS: usize = 32;
/// Longest life of a connection.
const LIMIT: Duration = Duration::from_secs(10);
/// Pause after a connection could not be accepted.
const PAUSE: Duration = Duration::from_millis(100);

/// What is answered for each token.
pub(super) type Answers = HashMap<String, String>;

/// The open port, closed when dropped.
pub(super) struct Port {
    _task: JoinSet<()>,
}

impl Port {
    /// Opens the port on this address; no address means all of them.
    pub(super) fn open(address: Option<IpAddr>, port: u16, answers: Answers) -> io::Result<Self> {
        let listener = tcp::listen(address, port)?;
        let mut task = JoinSet::new();
        task.spawn(serve(listener, Arc::new(answers)));
        Ok(Self { _task: task })
    }
}

async fn serve(listener: TcpListener, answers: Arc<Answers>) {
    let mut connections = JoinSet::new();
    loop {
        if connections.len() >= CONNECTIONS {
            connections.join_next().await;
        }
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, _)) => {
                connections.spawn(converse(stream, Arc::clone(&answers)));
            }
            Err(error) => {
                debug!(%error, "no connection to HttpPort");
                sleep(PAUSE).await;
            }
        }
    }
}

async fn converse(stream: TcpStream, answers: Arc<Answers>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let response = answer(request.method(), request.uri().path(), &answers);
        async move { Ok::<_, Infallible>(response) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(LIMIT)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    if let Ok(Err(error)) = timeout(LIMIT, connection).await {
        debug!(%error, "connection to HttpPort failed");
    }
}

fn answer(method: &Method, path: &str, answers: &Answers) -> Response<Body> {
    let found = path.strip_prefix(PATH).and_then(|token| answers.get(token));
    let is_read = [Method::GET, Method::HEAD].contains(method);
    let Some(text) = found.filter(|_| is_read) else {
        return plain_error(StatusCode::NOT_FOUND, "nothing here");
    };
    let mut response = Response::new(Body::from(text.clone().into_bytes()));
    let kind = HeaderValue::from_static("application/octet-stream");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_asked_for_is_answered() {
        let answers = Answers::from([("token".to_owned(), "token.thumb".to_owned())]);
        let status = |method, path| answer(&method, path, &answers).status();
        let path = "/.well-known/acme-challenge/token";
        assert_eq!(status(Method::GET, path), StatusCode::OK);
        assert_eq!(status(Method::HEAD, path), StatusCode::OK);
        assert_eq!(status(Method::POST, path), StatusCode::NOT_FOUND);
        for path in [
            "/",
            "/token",
            "/.well-known/acme-challenge/",
            "/.well-known/acme-challenge/t",
        ] {
            assert_eq!(status(Method::GET, path), StatusCode::NOT_FOUND, "{path}");
        }
    }
}
