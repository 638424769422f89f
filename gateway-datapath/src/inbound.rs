//! What comes from the client: raw bytes in, payload and events out.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::buffer::{Buffer, SIZE};
use crate::encoded::Bytes;
use crate::framing::Framing;
use crate::websocket::decode::{Cursor, Decoder, DecoderState, Event, Violation};

/// The client's stream, with a buffer only while there is something in it. Default: of frames.
#[derive(Debug)]
pub struct Inbound {
    /// `None`: all is payload.
    decoder: Option<Decoder>,
    buffer: Option<Buffer>,
    cursor: Cursor,
    /// Payload up to here was forwarded.
    forwarded: usize,
    /// What [`Inbound::put_back`] was given.
    held: Option<Result<Event, Violation>>,
}

impl Default for Inbound {
    fn default() -> Self {
        Self::new(Framing::WebSocket)
    }
}

/// An [`Inbound`] written down.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct InboundState {
    framing: FramingState,
    payload: Bytes,
    undecoded: Bytes,
}

/// How the bytes are framed, written down. Not an `Option`, which would be read where there is
/// nothing.
#[derive(Clone, Debug, Serialize, Deserialize)]
enum FramingState {
    WebSocket(DecoderState),
    Raw,
}

impl Inbound {
    /// At the first byte behind the request that opened the channel.
    pub fn new(framing: Framing) -> Self {
        Self {
            decoder: match framing {
                Framing::WebSocket => Some(Decoder::new()),
                Framing::Raw => None,
            },
            buffer: None,
            cursor: Cursor::default(),
            forwarded: 0,
            held: None,
        }
    }

    /// How the client's bytes are framed.
    pub fn framing(&self) -> Framing {
        match self.decoder {
            Some(_) => Framing::WebSocket,
            None => Framing::Raw,
        }
    }

    /// Whether it can be written down: nothing was put back.
    pub(super) fn is_writable(&self) -> bool {
        self.held.is_none()
    }

    pub(super) fn state(&self) -> InboundState {
        let undecoded = self
            .buffer
            .as_ref()
            .map_or(&[][..], |buffer| &buffer[self.cursor.read..self.cursor.end]);
        InboundState {
            framing: match &self.decoder {
                Some(decoder) => FramingState::WebSocket(decoder.state()),
                None => FramingState::Raw,
            },
            payload: Bytes::from(self.payload()),
            undecoded: Bytes::from(undecoded),
        }
    }

    /// `None`: that state does not occur.
    pub(super) fn resume(state: &InboundState) -> Option<Self> {
        let write = state.payload.len();
        let end = write.checked_add(state.undecoded.len())?;
        if end > SIZE {
            return None;
        }
        let mut inbound = Self::new(Framing::Raw);
        if let FramingState::WebSocket(decoder) = &state.framing {
            inbound.decoder = Some(Decoder::resume(decoder)?);
        }
        if end > 0 {
            let mut buffer = Buffer::take();
            buffer[..write].copy_from_slice(&state.payload);
            buffer[write..end].copy_from_slice(&state.undecoded);
            inbound.buffer = Some(buffer);
            inbound.cursor = Cursor {
                write,
                read: write,
                end,
            };
        }
        Some(inbound)
    }

    /// Starts with bytes that were received together with the request.
    ///
    /// Returns `None` when they do not fit into one buffer: no client sends as much before it
    /// saw the answer.
    pub fn with_received(framing: Framing, bytes: &[u8]) -> Option<Self> {
        let mut inbound = Self::new(framing);
        if !bytes.is_empty() {
            let mut buffer = Buffer::take();
            buffer.get_mut(..bytes.len())?.copy_from_slice(bytes);
            inbound.buffer = Some(buffer);
            inbound.cursor.end = bytes.len();
        }
        Some(inbound)
    }

    /// Whether all that was received has been decoded.
    pub fn is_decoded(&self) -> bool {
        self.cursor.read == self.cursor.end && self.held.is_none()
    }

    /// Decoded payload that was not yet forwarded.
    pub fn payload(&self) -> &[u8] {
        self.buffer
            .as_ref()
            .map_or(&[], |buffer| &buffer[self.forwarded..self.cursor.write])
    }

    /// Reads once behind what is there; `0` is the end of the stream.
    ///
    /// All that was received must have been decoded.
    pub fn poll_fill(
        &mut self,
        context: &mut Context<'_>,
        client: &mut (impl AsyncRead + Unpin),
    ) -> Poll<io::Result<usize>> {
        debug_assert!(self.is_decoded());
        // What is decoded is contiguous; reading goes on right behind it.
        self.cursor.read = self.cursor.write;
        self.cursor.end = self.cursor.write;
        let mut buffer = self.buffer.take().unwrap_or_else(Buffer::take);
        let mut space = ReadBuf::new(&mut buffer[self.cursor.end..]);
        let polled = Pin::new(client).poll_read(context, &mut space);
        let len = space.filled().len();
        self.cursor.end += len;
        if self.cursor.end > 0 {
            self.buffer = Some(buffer);
        }
        ready!(polled)?;
        Poll::Ready(Ok(len))
    }

    /// Decodes what was received, up to the next event.
    pub fn decode(&mut self) -> Result<Option<Event>, Violation> {
        if let Some(held) = self.held.take() {
            return held.map(Some);
        }
        match (&mut self.buffer, &mut self.decoder) {
            (Some(buffer), Some(decoder)) => decoder.decode(buffer, &mut self.cursor),
            (Some(buffer), None) => {
                let Cursor { write, read, end } = &mut self.cursor;
                // Payload before it may have been forwarded meanwhile.
                if write != read {
                    buffer.copy_within(*read..*end, *write);
                }
                *write += *end - *read;
                *read = *end;
                Ok(None)
            }
            (None, _) => Ok(None),
        }
    }

    /// Lets the next [`Inbound::decode`] return a result once more.
    pub fn put_back(&mut self, result: Result<Event, Violation>) {
        self.held = Some(result);
    }

    /// Drops what was received behind the client's last frame.
    pub fn discard_undecoded(&mut self) {
        self.cursor.read = self.cursor.end;
    }

    /// Writes decoded payload to the host; `Ready` once there is none left.
    ///
    /// Returns how many bytes were written in this call by way of `written`, errors or not.
    pub fn poll_forward(
        &mut self,
        context: &mut Context<'_>,
        host: &mut (impl AsyncWrite + Unpin),
        mut written: impl FnMut(usize),
    ) -> Poll<io::Result<()>> {
        while !self.payload().is_empty() {
            match ready!(Pin::new(&mut *host).poll_write(context, self.payload())) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(len) => {
                    self.forwarded += len;
                    written(len);
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        self.discard_payload();
        Poll::Ready(Ok(()))
    }

    /// Drops decoded payload, and the buffer with it when nothing else is in there.
    pub fn discard_payload(&mut self) {
        self.forwarded = 0;
        self.cursor.write = 0;
        if self.is_decoded() {
            self.buffer = None;
            self.cursor = Cursor::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(payload: &[u8], undecoded: &[u8]) -> InboundState {
        InboundState {
            framing: FramingState::Raw,
            payload: payload.into(),
            undecoded: undecoded.into(),
        }
    }

    /// What the host receives of bytes without frames that are resumed at some point.
    async fn forwarded(state: &InboundState) -> Vec<u8> {
        let mut inbound = Inbound::resume(state).unwrap();
        let mut host = Vec::new();
        while !inbound.payload().is_empty() || !inbound.is_decoded() {
            let forward =
                std::future::poll_fn(|context| inbound.poll_forward(context, &mut host, |_| {}));
            forward.await.unwrap();
            assert_eq!(inbound.decode(), Ok(None));
        }
        host
    }

    #[tokio::test]
    async fn without_frames_no_byte_comes_twice_wherever_it_is_resumed() {
        for at in 0..=6 {
            let (payload, undecoded) = b"abcdef".split_at(at);
            assert_eq!(forwarded(&state(payload, undecoded)).await, b"abcdef");
        }
    }

    #[test]
    fn what_does_not_say_how_it_is_framed_is_not_taken_for_unframed() {
        let text = r#"{"payload":"","undecoded":""}"#;
        assert!(serde_json::from_str::<InboundState>(text).is_err());
        let raw = serde_json::to_string(&state(b"", b"")).unwrap();
        assert!(serde_json::from_str::<InboundState>(&raw).is_ok());
    }
}
