//! A stand-in for the manager: HTTPS with a self-signed certificate, and the API that clients
//! use.

mod body;
mod desktop;
mod files;
mod raw;

use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ::http::header::{ACCEPT_ENCODING, ALLOW, CONTENT_TYPE};
use ::http::{HeaderMap, Method, Request, Response, StatusCode, Uri, Version};
use anyhow::{Context, Result};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

pub use body::{Body, BodySender, chunked, full, gzip, json_response, streamed};
pub use desktop::{DesktopAnswer, Reply};
pub use raw::{RawEnd, RawManager};

use crate::cert::TestCert;
use crate::net::Server;
use desktop::DesktopService;

/// A running manager; stops when dropped.
#[derive(Debug)]
pub struct Manager {
    server: Server,
    cert: Arc<TestCert>,
    shared: Arc<Shared>,
}

/// One request as the manager received it.
#[derive(Clone, Debug)]
pub struct ManagerRequest {
    /// Its method.
    pub method: Method,
    /// Its target.
    pub uri: Uri,
    /// Its version.
    pub version: Version,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its whole body.
    pub body: Bytes,
    /// The trailers after a chunked body.
    pub trailers: Option<HeaderMap>,
    /// Who sent it: requests with equal addresses came over one connection.
    pub peer: SocketAddr,
}

impl ManagerRequest {
    /// The body as JSON.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_slice(&self.body).context("a request's body")
    }

    /// A header's text; `None` when it is not there or no text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// When answers of the API are compressed with gzip.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// Never.
    #[default]
    Never,
    /// When the request's `Accept-Encoding` names gzip.
    IfAsked,
    /// Always, whatever the request says.
    Always,
}

type Handler = dyn Fn(ManagerRequest) -> HandlerFuture + Send + Sync;
type HandlerFuture = Pin<Box<dyn Future<Output = Response<Body>> + Send>>;

/// What the connections have in common.
struct Shared {
    requests: Mutex<Vec<ManagerRequest>>,
    desktop: Mutex<DesktopService>,
    compression: Mutex<Compression>,
    files: Option<PathBuf>,
    handler: Option<Box<Handler>>,
    is_forgetful: bool,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("files", &self.files)
            .field("own_handler", &self.handler.is_some())
            .finish_non_exhaustive()
    }
}

/// A manager to be started.
#[must_use]
pub struct ManagerBuilder {
    addr: SocketAddr,
    cert: Option<TestCert>,
    files: Option<PathBuf>,
    handler: Option<Box<Handler>>,
    is_forgetful: bool,
}

impl ManagerBuilder {
    /// Listens there instead of on a free port of 127.0.0.1.
    pub fn addr(mut self, addr: SocketAddr) -> Self {
        self.addr = addr;
        self
    }

    /// Shows this certificate.
    pub fn cert(mut self, cert: TestCert) -> Self {
        self.cert = Some(cert);
        self
    }

    /// Serves the files of this directory at `GET /vdi/...`.
    pub fn files(mut self, dir: impl Into<PathBuf>) -> Self {
        self.files = Some(dir.into());
        self
    }

    /// Answers every request by this function instead of the API.
    pub fn handler<H, F>(mut self, handler: H) -> Self
    where
        H: Fn(ManagerRequest) -> F + Send + Sync + 'static,
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        self.handler = Some(Box::new(move |request| Box::pin(handler(request))));
        self
    }

    /// Keeps no requests for [`Manager::requests`]: for runs of any length.
    pub fn forgetful(mut self) -> Self {
        self.is_forgetful = true;
        self
    }

    /// Starts it.
    pub async fn spawn(self) -> Result<Manager> {
        let cert = Arc::new(self.cert.map_or_else(TestCert::new, Ok)?);
        let acceptor = TlsAcceptor::from(cert.server_config()?);
        let shared = Arc::new(Shared {
            requests: Mutex::default(),
            desktop: Mutex::default(),
            compression: Mutex::default(),
            files: self.files,
            handler: self.handler,
            is_forgetful: self.is_forgetful,
        });
        let connections = shared.clone();
        let server = Server::spawn(self.addr, move |stream, peer| {
            serve(stream, peer, acceptor.clone(), connections.clone())
        })
        .await?;
        Ok(Manager {
            server,
            cert,
            shared,
        })
    }
}

impl Manager {
    /// A manager whose every user gets the same desktop, on a free port of 127.0.0.1.
    pub async fn spawn(desktop: DesktopAnswer) -> Result<Self> {
        let manager = Self::builder().spawn().await?;
        manager.set_desktop(desktop);
        Ok(manager)
    }

    /// A manager that answers every request by this function.
    pub async fn with_handler<H, F>(handler: H) -> Result<Self>
    where
        H: Fn(ManagerRequest) -> F + Send + Sync + 'static,
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        Self::builder().handler(handler).spawn().await
    }

    /// The start of any other manager.
    pub fn builder() -> ManagerBuilder {
        ManagerBuilder {
            addr: SocketAddr::from(([127, 0, 0, 1], 0)),
            cert: None,
            files: None,
            handler: None,
            is_forgetful: false,
        }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.server.addr()
    }

    /// The certificate that it shows.
    pub fn cert(&self) -> &TestCert {
        &self.cert
    }

    /// The requests so far, oldest first.
    pub fn requests(&self) -> Vec<ManagerRequest> {
        lock(&self.shared.requests).clone()
    }

    /// The desktop that every user gets from now on.
    pub fn set_desktop(&self, desktop: DesktopAnswer) {
        lock(&self.shared.desktop).desktop = desktop;
    }

    /// What `/vdi/authmode` answers from now on.
    pub fn set_auth_mode(&self, mode: &str) {
        mode.clone_into(&mut lock(&self.shared.desktop).auth_mode);
    }

    /// From now on other users and passwords than these are answered with an error.
    pub fn require_password(&self, username: &str, password: &str) {
        lock(&self.shared.desktop).credentials = Some((username.to_owned(), password.to_owned()));
    }

    /// From now on users must choose one of these desktops, given as keys and names.
    pub fn offer_desktops(&self, desktops: &[(&str, &str)]) {
        lock(&self.shared.desktop).choice = desktops
            .iter()
            .map(|(key, name)| ((*key).to_owned(), Value::from(*name)))
            .collect();
    }

    /// Answers the next requests for a desktop in this way, before anything else counts.
    pub fn script(&self, replies: impl IntoIterator<Item = Reply>) {
        lock(&self.shared.desktop).script.extend(replies);
    }

    /// When answers are compressed from now on.
    pub fn set_compression(&self, compression: Compression) {
        *lock(&self.shared.compression) = compression;
    }
}

/// Serves one connection until it ends; how is the peer's business.
async fn serve(stream: TcpStream, peer: SocketAddr, acceptor: TlsAcceptor, shared: Arc<Shared>) {
    let Ok(stream) = acceptor.accept(stream).await else {
        return;
    };
    let service = service_fn(move |request| answer(request, peer, shared.clone()));
    let _ = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn answer(
    request: Request<Incoming>,
    peer: SocketAddr,
    shared: Arc<Shared>,
) -> Result<Response<Body>, hyper::Error> {
    let (head, body) = request.into_parts();
    let body = body.collect().await?;
    let trailers = body.trailers().cloned();
    let request = ManagerRequest {
        method: head.method,
        uri: head.uri,
        version: head.version,
        headers: head.headers,
        body: body.to_bytes(),
        trailers,
        peer,
    };
    if !shared.is_forgetful {
        lock(&shared.requests).push(request.clone());
    }
    Ok(match &shared.handler {
        Some(handler) => handler(request).await,
        None => shared.api(&request),
    })
}

impl Shared {
    fn api(&self, request: &ManagerRequest) -> Response<Body> {
        let path = request.uri.path();
        match path {
            "/vdi/authmode" | "/vdi/desktop" if request.method != Method::POST => {
                let mut response = status(StatusCode::METHOD_NOT_ALLOWED);
                let post = ::http::HeaderValue::from_static("POST");
                response.headers_mut().insert(ALLOW, post);
                response
            }
            "/vdi/authmode" => {
                let mode = lock(&self.desktop).auth_mode.clone();
                self.json(request, &json!({"status": "OK", "auth_mode": mode}))
            }
            "/vdi/desktop" => match request.json() {
                Ok(asked) => {
                    let reply = lock(&self.desktop).reply(&asked);
                    self.json(request, &reply)
                }
                Err(_) => status(StatusCode::BAD_REQUEST),
            },
            _ if matches!(request.method, Method::GET | Method::HEAD) => self
                .files
                .as_deref()
                .and_then(|dir| files::read(dir, path))
                .unwrap_or_else(|| status(StatusCode::NOT_FOUND)),
            _ => status(StatusCode::NOT_FOUND),
        }
    }

    fn json(&self, request: &ManagerRequest, value: &Value) -> Response<Body> {
        let compress = match *lock(&self.compression) {
            Compression::Never => false,
            Compression::Always => true,
            Compression::IfAsked => request
                .headers
                .get_all(ACCEPT_ENCODING)
                .iter()
                .any(|value| value.to_str().is_ok_and(|value| value.contains("gzip"))),
        };
        json_response(value, compress)
    }
}

fn status(status: StatusCode) -> Response<Body> {
    let text = status.canonical_reason().unwrap_or_default();
    let mut response = Response::new(full(text));
    *response.status_mut() = status;
    let plain = ::http::HeaderValue::from_static("text/plain");
    response.headers_mut().insert(CONTENT_TYPE, plain);
    response
}

/// A test that panicked while it held the lock has failed already.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
