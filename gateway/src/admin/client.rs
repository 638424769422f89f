//! The command line's side of the socket.

use std::future::Future;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use bytes::Bytes;
use http::header::HOST;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;

use super::screen::Screen;
use super::status::Status;
use super::tickets::{Made, Order};
use super::viewer_file::{Destination, ViewerFile};
use super::{SOCKET, table};
use crate::described::Networks;
use crate::host_tls::CertificateDigest;
use crate::output::{print, print_line};
use crate::session::SessionId;
use crate::target::Target;
use crate::ticket::Form;

/// Longest wait for an answer of the running gateway.
const PATIENCE: Duration = Duration::from_secs(10);
/// Time between two looks.
const INTERVAL: Duration = Duration::from_secs(2);

/// How the status is shown.
#[derive(Clone, Copy, Debug)]
pub struct Show {
    /// JSON instead of a table.
    pub json: bool,
    /// Again and again.
    pub watch: bool,
}

/// Prints what the gateway is doing whose `RuntimeDir` this is.
pub async fn status(runtime_dir: &Path, show: Show) -> anyhow::Result<()> {
    if !show.watch {
        return print(look(runtime_dir, show.json).await?);
    }
    let mut stop = std::pin::pin!(asked_to_stop()?);
    let screen = Screen::enter(!show.json)?;
    loop {
        let looked = tokio::select! {
            looked = look(runtime_dir, show.json) => looked?,
            () = &mut stop => return Ok(()),
        };
        screen.show(&looked)?;
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => {}
            () = &mut stop => return Ok(()),
        }
    }
}

/// What the gateway is doing, as it is printed.
async fn look(runtime_dir: &Path, json: bool) -> anyhow::Result<String> {
    let mut text = ask(runtime_dir, Method::GET, "/status").await?;
    if json {
        text.push('\n');
        return Ok(text);
    }
    let status: Status = serde_json::from_str(&text)
        .context("the running gateway is of another version: use --json")?;
    Ok(table::render(&status))
}

/// Ready once somebody ends the watching: with Ctrl-C, or by closing the terminal.
fn asked_to_stop() -> anyhow::Result<impl Future<Output = ()>> {
    let watch = |kind| signal(kind).context("cannot watch for signals");
    let mut interrupt = watch(SignalKind::interrupt())?;
    let mut terminate = watch(SignalKind::terminate())?;
    let mut hangup = watch(SignalKind::hangup())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    })
}

/// Ends a desktop session.
pub async fn kick(runtime_dir: &Path, session: SessionId) -> anyhow::Result<()> {
    act(runtime_dir, &format!("/kick/{session}")).await
}

/// Refuses new desktop sessions; those that are open may go on for `limit` (0 seconds: as long
/// as they like), or as is configured. With `wait` it comes back when none is open any more.
pub async fn drain(runtime_dir: &Path, limit: Option<u32>, wait: bool) -> anyhow::Result<()> {
    let target = match limit {
        Some(seconds) => format!("/drain?timeout={seconds}"),
        None => "/drain".to_owned(),
    };
    act(runtime_dir, &target).await?;
    if wait {
        drained(runtime_dir).await?;
    }
    Ok(())
}

/// Comes back when no desktop session is open; fails when draining was ended before.
async fn drained(runtime_dir: &Path) -> anyhow::Result<()> {
    loop {
        let status = ask(runtime_dir, Method::GET, "/status").await?;
        let status: Status = serde_json::from_str(&status)?;
        if !status.draining {
            bail!("draining was cancelled before the last desktop session ended");
        }
        if status.refusing && status.sessions.is_empty() {
            return print_line("no desktop session is open");
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// Takes new desktop sessions again.
pub async fn undrain(runtime_dir: &Path) -> anyhow::Result<()> {
    act(runtime_dir, "/undrain").await
}

/// A ticket that somebody asks for on the command line.
pub struct TicketOrder<'a> {
    /// The desktop's host and Spice port, or its socket.
    pub desktop: &'a Target,
    /// The port of its host for Spice inside TLS.
    pub tls_port: Option<u16>,
    /// Names of the types of channels that may pass; empty: all.
    pub channels: Vec<String>,
    /// Networks in which clients have to be; empty: anywhere.
    pub networks: Vec<String>,
    /// The certificate that the host has; `None`: as configured.
    pub fingerprint: Option<CertificateDigest>,
    /// In how many seconds it has to be used; `None`: as configured.
    pub for_seconds: Option<u32>,
    /// Whom it is for.
    pub client: Option<IpAddr>,
    /// How it is written.
    pub form: Form,
}

/// How a ticket is handed out.
pub enum HandOut {
    /// For people.
    Text,
    /// The gateway's answer.
    Json,
    /// A file for virt-viewer.
    Viewer(ViewerFile, Destination),
}

/// Has the running gateway make a ticket, and hands it out.
pub async fn ticket(
    runtime_dir: &Path,
    order: TicketOrder<'_>,
    hand_out: HandOut,
) -> anyhow::Result<()> {
    let (host, port) = match order.desktop {
        Target::Tcp { host, port } => (host.to_string(), Some(*port)),
        socket @ Target::Unix(_) => (socket.to_string(), None),
    };
    let networks = Some(order.networks).filter(|networks| !networks.is_empty());
    let order = Order {
        host,
        port,
        tls_port: order.tls_port,
        channels: Some(order.channels).filter(|names| !names.is_empty()),
        network: networks.map(Networks::Several),
        fingerprint: order.fingerprint.map(|digest| digest.to_string()),
        for_seconds: order.for_seconds.map(u64::from),
        client: order.client,
        host_name: order.form == Form::HostName,
    };
    let body = serde_json::to_vec(&order)?;
    let text = ask_with(runtime_dir, Method::POST, "/tickets", body.into()).await?;
    if matches!(hand_out, HandOut::Json) {
        return print_line(&text);
    }
    let made: Made = serde_json::from_str(&text)
        .map_err(|_| anyhow!("the running gateway is of another version: use --json"))?;
    match hand_out {
        HandOut::Viewer(file, destination) => {
            let told = destination.told();
            destination.write(&file.text(&made.ticket))?;
            if let Some(path) = told {
                let (session, seconds) = (&made.session, made.expires_in);
                print_line(&format!(
                    "{path}: open it within {seconds} seconds (desktop session {session})"
                ))?;
            }
            Ok(())
        }
        HandOut::Text | HandOut::Json => print(format!(
            "ticket      {}\nsession     {}\nexpires in  {} s\npath        {}\n",
            made.ticket, made.session, made.expires_in, made.path
        )),
    }
}

async fn act(runtime_dir: &Path, target: &str) -> anyhow::Result<()> {
    let answer = ask(runtime_dir, Method::POST, target).await?;
    print_line(&message(&answer))
}

/// The answer's body; an answer that is no success is an error.
pub(crate) async fn ask(
    runtime_dir: &Path,
    method: Method,
    target: &str,
) -> anyhow::Result<String> {
    ask_with(runtime_dir, method, target, Bytes::new()).await
}

async fn ask_with(
    runtime_dir: &Path,
    method: Method,
    target: &str,
    body: Bytes,
) -> anyhow::Result<String> {
    timeout(PATIENCE, exchange(runtime_dir, method, target, body))
        .await
        .context("the gateway does not answer")?
}

async fn exchange(
    runtime_dir: &Path,
    method: Method,
    target: &str,
    body: Bytes,
) -> anyhow::Result<String> {
    let stream = open_socket(runtime_dir).await?;
    let request = Request::builder()
        .method(method)
        .uri(target)
        .header(HOST, "localhost")
        .body(Full::new(body))
        .context("asking the gateway")?;
    let (status, text) = speak(stream, request, usize::MAX).await?;
    if !status.is_success() {
        bail!("{}", message(&text));
    }
    Ok(text)
}

/// The socket of the gateway whose `RuntimeDir` this is.
pub(super) async fn open_socket(runtime_dir: &Path) -> anyhow::Result<UnixStream> {
    let socket = runtime_dir.join(SOCKET);
    UnixStream::connect(&socket).await.with_context(|| {
        let socket = socket.display();
        format!("no gateway can be asked at {socket} (RuntimeDir); does it run, and as this user?")
    })
}

/// Asks once on a connection of its own; status and text of the answer, which has at most `most`
/// bytes.
pub(super) async fn speak(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    request: Request<Full<Bytes>>,
    most: usize,
) -> anyhow::Result<(StatusCode, String)> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .context("speaking to the gateway")?;
    let connection = tokio::spawn(connection);
    let response = sender
        .send_request(request)
        .await
        .context("asking the gateway")?;
    let status = response.status();
    let body = Limited::new(response.into_body(), most).collect().await;
    connection.abort();
    let body = body
        .map_err(|error| anyhow!(error))
        .context("the gateway's answer")?
        .to_bytes();
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}

/// What the gateway's answer says to people.
pub(super) fn message(body: &str) -> String {
    let value: Option<serde_json::Value> = serde_json::from_str(body).ok();
    let message = value.as_ref().and_then(|value| value["message"].as_str());
    message.unwrap_or(body).to_owned()
}
