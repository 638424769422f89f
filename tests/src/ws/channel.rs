//! A Spice channel through the gateway as a byte stream.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use anyhow::{Result, ensure};
use bytes::{Buf, Bytes};
use futures_util::{Sink, Stream};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tungstenite::Message;
use tungstenite::error::{Error as WsError, ProtocolError};
use tungstenite::protocol::CloseFrame;
use tungstenite::protocol::frame::coding::CloseCode;

use super::{Connect, WebSocket};
use crate::net::{Endpoint, within};
use crate::spice::{ChannelType, link_message};

/// The longest frame that the flexVDI client sends, in bytes of payload.
const CLIENT_FRAME: usize = 4096;

/// Opens a channel with this token and sends `link`, its first message.
pub async fn channel(endpoint: &Endpoint, token: &str, link: &[u8]) -> Result<Channel> {
    let socket = Connect::new(endpoint, token).open().await?.opened()?;
    let mut channel = Channel::new(socket);
    within("sending a link message", async {
        channel.write_all(link).await?;
        channel.flush().await
    })
    .await??;
    Ok(channel)
}

/// Opens a channel to a host that echoes, and reads its link message back.
pub async fn echo_channel(endpoint: &Endpoint, token: &str) -> Result<Channel> {
    let link = link_message(ChannelType::Main, 0);
    let mut channel = channel(endpoint, token, &link).await?;
    channel.expect(&link).await?;
    Ok(channel)
}

/// The bytes that binary frames carry. Reading ends at a Close frame, and at an end without one;
/// Pings are answered while it is read. Shutdown sends Close 1000.
#[must_use]
#[derive(Debug)]
pub struct Channel {
    socket: WebSocket,
    /// What came and was not yet read.
    received: Bytes,
    close_code: Option<u16>,
    closing: bool,
}

impl Channel {
    /// The stream of an open WebSocket.
    pub fn new(socket: WebSocket) -> Self {
        Self {
            socket,
            received: Bytes::new(),
            close_code: None,
            closing: false,
        }
    }

    /// The code of the Close frame that came, 1005 for one without; `None` when none came.
    pub fn close_code(&self) -> Option<u16> {
        self.close_code
    }

    /// The WebSocket.
    pub fn into_inner(self) -> WebSocket {
        self.socket
    }

    /// Reads as many bytes as these are, and fails unless they are the same.
    pub async fn expect(&mut self, expected: &[u8]) -> Result<()> {
        let mut received = vec![0; expected.len()];
        within("expected bytes", self.read_exact(&mut received)).await??;
        ensure!(received == expected, "other bytes came than expected");
        Ok(())
    }

    /// Sends bytes to a host that echoes, and reads them back.
    pub async fn echo(&mut self, bytes: &[u8]) -> Result<()> {
        self.write_all(bytes).await?;
        self.flush().await?;
        self.expect(bytes).await
    }

    fn take(&mut self, message: Message) -> io::Result<()> {
        match message {
            Message::Binary(bytes) => self.received = bytes,
            Message::Close(frame) => {
                let code = frame.map_or(CloseCode::Status, |frame| frame.code);
                self.close_code = Some(code.into());
            }
            Message::Text(_) => {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a text message"));
            }
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
        }
        Ok(())
    }
}

impl AsyncRead for Channel {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.received.is_empty() {
            match ready!(Pin::new(&mut this.socket).poll_next(cx)) {
                Some(Ok(message)) => this.take(message)?,
                Some(Err(error)) if !is_end(&error) => return Poll::Ready(Err(to_io(error))),
                Some(Err(_)) | None => return Poll::Ready(Ok(())),
            }
        }
        let length = buf.remaining().min(this.received.len());
        buf.put_slice(&this.received[..length]);
        this.received.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Channel {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(Pin::new(&mut this.socket).poll_ready(cx)).map_err(to_io)?;
        let piece = &buf[..buf.len().min(CLIENT_FRAME)];
        Pin::new(&mut this.socket)
            .start_send(Message::binary(piece.to_vec()))
            .map_err(to_io)?;
        Poll::Ready(Ok(piece.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket)
            .poll_flush(cx)
            .map_err(to_io)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.closing {
            match ready!(Pin::new(&mut this.socket).poll_ready(cx)) {
                Err(error) if is_end(&error) => return Poll::Ready(Ok(())),
                ready => ready.map_err(to_io)?,
            }
            let frame = CloseFrame {
                code: CloseCode::Normal,
                reason: "".into(),
            };
            this.closing = true;
            match Pin::new(&mut this.socket).start_send(Message::Close(Some(frame))) {
                Err(error) if !is_end(&error) => return Poll::Ready(Err(to_io(error))),
                _ => {}
            }
        }
        match ready!(Pin::new(&mut this.socket).poll_flush(cx)) {
            Err(error) if !is_end(&error) => Poll::Ready(Err(to_io(error))),
            _ => Poll::Ready(Ok(())),
        }
    }
}

/// Whether the error only says that the WebSocket is closed, with a Close frame or without.
fn is_end(error: &WsError) -> bool {
    matches!(
        error,
        WsError::ConnectionClosed
            | WsError::AlreadyClosed
            | WsError::Protocol(
                ProtocolError::ResetWithoutClosingHandshake | ProtocolError::SendAfterClosing
            )
    )
}

fn to_io(error: WsError) -> io::Error {
    match error {
        WsError::Io(error) => error,
        error => io::Error::other(error),
    }
}
