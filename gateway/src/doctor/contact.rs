//! A server over HTTPS, asked as the gateway asks it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use http::header::{DATE, HOST};
use http::{Request, StatusCode};
use http_body_util::Empty;
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::background::{MANAGER, resolve};
use crate::config::Config;
use crate::prepared::ManagerTls;

/// Longest wait for each step.
const STEP: Duration = Duration::from_secs(5);

/// How far a server was reached.
#[derive(Clone, Debug)]
pub(super) enum Contact {
    /// It has answered.
    Answered(Answer),
    /// The file of its authorities cannot be used.
    NotAsked(String),
    /// Its name has no address.
    NotResolved(String),
    /// No connection.
    NotConnected(String),
    /// The handshake failed, or its certificate is not accepted.
    NotTrusted(String),
    /// What it says is no HTTP, or nothing comes.
    NoHttp(String),
}

/// An answer over HTTP.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answer {
    pub(super) address: SocketAddr,
    /// `None`: nothing was asked but the handshake.
    pub(super) status: Option<StatusCode>,
    /// For name, connection, TLS and answer together.
    pub(super) took: Duration,
    /// Its clock, and this machine's at that moment.
    pub(super) clocks: Option<(SystemTime, SystemTime)>,
}

impl Contact {
    /// Asks the manager for the first of `ManagerPaths`, which changes nothing there.
    pub(super) async fn manager(config: Arc<Config>) -> Self {
        let file = ManagerTls::file(&config);
        let tls = match ManagerTls::from_file(file.as_ref()) {
            Ok(tls) => tls.config,
            Err(error) => return Self::NotAsked(error.to_string()),
        };
        let paths = config.manager_paths.first();
        let path = paths.map_or("/", String::as_str);
        Self::with(&config.manager_ip, config.manager_port, Some(path), tls).await
    }

    /// Asks for a path; `None`: the handshake is enough.
    pub(super) async fn with(host: &str, port: u16, path: Option<&str>, tls: ClientConfig) -> Self {
        match Self::try_with(host, port, path, tls).await {
            Ok(contact) | Err(contact) => contact,
        }
    }

    async fn try_with(
        host: &str,
        port: u16,
        path: Option<&str>,
        tls: ClientConfig,
    ) -> Result<Self, Self> {
        let begun = Instant::now();
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let found = timeout(STEP, resolve(&MANAGER, bare, port, STEP)).await;
        let found = found.map_err(|_| Self::NotResolved(late()))?;
        let found = found.map_err(|error| Self::NotResolved(error.to_string()))?;
        let connected = timeout(STEP, TcpStream::connect(&found[..])).await;
        let connected = connected.map_err(|_| Self::NotConnected(late()))?;
        let tcp = connected.map_err(|error| Self::NotConnected(error.to_string()))?;
        let address = tcp.peer_addr();
        let address = address.map_err(|error| Self::NotConnected(error.to_string()))?;
        let name = ServerName::try_from(bare.to_owned());
        let name = name.map_err(|error| Self::NotTrusted(error.to_string()))?;
        let secured = timeout(STEP, TlsConnector::from(Arc::new(tls)).connect(name, tcp)).await;
        let secured = secured.map_err(|_| Self::NotTrusted(late()))?;
        let secured = secured.map_err(|error| Self::NotTrusted(error.to_string()))?;
        let (status, date) = match path {
            Some(path) => {
                let asked = timeout(STEP, ask(TokioIo::new(secured), host, port, path)).await;
                let asked = asked.map_err(|_| Self::NoHttp(late()))?;
                let (status, date) = asked.map_err(|error| Self::NoHttp(error.to_string()))?;
                (Some(status), date)
            }
            None => (None, None),
        };
        Ok(Self::Answered(Answer {
            address,
            status,
            took: begun.elapsed(),
            clocks: date.map(|theirs| (theirs, SystemTime::now())),
        }))
    }
}

fn late() -> String {
    format!("no answer within {} s", STEP.as_secs())
}

/// The status of an answer, and the time that it tells.
async fn ask<S>(
    stream: S,
    host: &str,
    port: u16,
    path: &str,
) -> anyhow::Result<(StatusCode, Option<SystemTime>)>
where
    S: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await?;
    let connection = tokio::spawn(connection);
    let authority = if port == 443 {
        host.to_owned()
    } else {
        format!("{host}:{port}")
    };
    let request = Request::get(path)
        .header(HOST, authority)
        .body(Empty::<Bytes>::new())?;
    let answered = sender.send_request(request).await;
    connection.abort();
    let answered = answered?;
    let date = answered.headers().get(DATE);
    let date = date.and_then(|date| date.to_str().ok());
    let date = date.and_then(|date| httpdate::parse_http_date(date).ok());
    Ok((answered.status(), date))
}
