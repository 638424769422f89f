//! WebSocket clients: a whole one, one that sends exact bytes and frames, and a byte stream for
//! those who speak Spice.

mod channel;
mod raw;

use ::http::header::{
    CONNECTION, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use ::http::{Response, StatusCode};
use anyhow::{Context, Result, anyhow, bail, ensure};
use bytes::Bytes;
use hyper::upgrade::Parts;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tungstenite::handshake::client::generate_key;
use tungstenite::handshake::derive_accept_key;
use tungstenite::protocol::{Role, WebSocketConfig};

pub use channel::{Channel, channel, echo_channel};
pub use raw::{Frame, Head, Opcode, RawClient, handshake_request};

use crate::http::{Call, HttpConnection, collect};
use crate::net::{Connection, Endpoint};

/// An open WebSocket.
pub type WebSocket = WebSocketStream<Connection>;

/// What came of a handshake.
#[derive(Debug)]
pub enum Outcome {
    /// The WebSocket is open; with the head of the answer.
    Open(Box<WebSocket>, Response<()>),
    /// The server answered something else than 101.
    Refused(Response<Bytes>),
}

impl Outcome {
    /// The WebSocket; a refusal is an error.
    pub fn opened(self) -> Result<WebSocket> {
        match self {
            Self::Open(socket, _) => Ok(*socket),
            Self::Refused(response) => Err(anyhow!(
                "the handshake was refused: {}: {}",
                response.status(),
                String::from_utf8_lossy(response.body())
            )),
        }
    }

    /// The refusal; an open WebSocket is an error.
    pub fn refused(self) -> Result<Response<Bytes>> {
        match self {
            Self::Open(..) => bail!("the handshake was accepted"),
            Self::Refused(response) => Ok(response),
        }
    }
}

/// A WebSocket to be opened.
#[must_use]
#[derive(Clone, Debug)]
pub struct Connect {
    endpoint: Endpoint,
    call: Call,
    key: String,
    subprotocol: Option<String>,
}

impl Connect {
    /// The handshake of the flexVDI client with this token: `GET /?ver=2&token=...`, without
    /// subprotocol, `Origin` and extensions.
    pub fn new(endpoint: &Endpoint, token: &str) -> Self {
        Self::to(endpoint, &format!("/?ver=2&token={token}"))
    }

    /// The same with any target.
    ///
    /// # Panics
    /// When it is no URI: such ones are sent by [`RawClient`].
    pub fn to(endpoint: &Endpoint, target: &str) -> Self {
        let key = generate_key();
        let call = Call::get(endpoint, target)
            .header(UPGRADE.as_str(), "websocket")
            .header(CONNECTION.as_str(), "Upgrade")
            .header(SEC_WEBSOCKET_KEY.as_str(), &key)
            .header(SEC_WEBSOCKET_VERSION.as_str(), "13");
        Self {
            endpoint: endpoint.clone(),
            call,
            key,
            subprotocol: None,
        }
    }

    /// Adds a header, or replaces `Host`.
    ///
    /// # Panics
    /// When it is no valid header.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.call = self.call.header(name, value);
        self
    }

    /// Offers subprotocols, as in `binary`; the answer must then name one of them.
    pub fn subprotocol(mut self, offered: &str) -> Self {
        self.call = self.call.header(SEC_WEBSOCKET_PROTOCOL.as_str(), offered);
        self.subprotocol = Some(offered.to_owned());
        self
    }

    /// Connects and makes the handshake. An answer that breaks RFC 6455 is an error.
    pub async fn open(self) -> Result<Outcome> {
        let mut connection = HttpConnection::open(&self.endpoint).await?;
        let request = self.call.clone().into_request();
        let mut response = connection.send_streaming(request).await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Ok(Outcome::Refused(collect(response).await?));
        }
        self.check(response.headers())?;
        let upgraded = hyper::upgrade::on(&mut response).await?;
        let parts: Parts<TokioIo<Connection>> = upgraded
            .downcast()
            .map_err(|_| anyhow!("the upgraded stream is the connection"))?;
        let socket = WebSocketStream::from_partially_read(
            parts.io.into_inner(),
            parts.read_buf.into(),
            Role::Client,
            Some(config()),
        )
        .await;
        let (head, _) = response.into_parts();
        Ok(Outcome::Open(
            Box::new(socket),
            Response::from_parts(head, ()),
        ))
    }

    fn check(&self, headers: &::http::HeaderMap) -> Result<()> {
        let text =
            |name: HeaderName| -> Option<&str> { headers.get(name).map(HeaderValue::to_str)?.ok() };
        let upgrade = text(UPGRADE).context("101 without Upgrade")?;
        ensure!(
            upgrade.eq_ignore_ascii_case("websocket"),
            "Upgrade: {upgrade}"
        );
        let connection = text(CONNECTION).context("101 without Connection")?;
        let mut tokens = connection.split(',').map(str::trim);
        ensure!(
            tokens.any(|token| token.eq_ignore_ascii_case("upgrade")),
            "Connection: {connection}"
        );
        let accept = text(SEC_WEBSOCKET_ACCEPT).context("101 without Sec-WebSocket-Accept")?;
        ensure!(
            accept == derive_accept_key(self.key.as_bytes()),
            "a wrong Sec-WebSocket-Accept"
        );
        ensure!(
            !headers.contains_key("sec-websocket-extensions"),
            "an extension that was not offered"
        );
        match (&self.subprotocol, text(SEC_WEBSOCKET_PROTOCOL)) {
            (None, None) => Ok(()),
            (None, Some(chosen)) => bail!("Server requested unsupported protocol: {chosen}"),
            (Some(_), None) => bail!("none of the offered subprotocols was chosen"),
            (Some(offered), Some(chosen)) => {
                let mut offered = offered.split(',').map(str::trim);
                ensure!(
                    offered.any(|offered| offered == chosen),
                    "a subprotocol that was not offered: {chosen}"
                );
                Ok(())
            }
        }
    }
}

/// The longest payload of a server frame that the flexVDI client takes, in bytes.
pub const LONGEST_SERVER_FRAME: usize = 131_071;

/// Frames are written at once, and longer ones than the flexVDI client takes are an error.
fn config() -> WebSocketConfig {
    WebSocketConfig::default()
        .write_buffer_size(0)
        .max_frame_size(Some(LONGEST_SERVER_FRAME))
}

#[cfg(test)]
mod tests;
