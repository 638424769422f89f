//! What comes from the client: raw bytes in, payload and events out. Without framing, payload may
//! pass through a pipe instead of memory.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::buffer::{Buffer, SIZE};
use crate::encoded::Bytes;
use crate::framing::Framing;
use crate::legs::{ClientLeg, HostLeg};
use crate::outbound::MAX_READ;
use crate::pipe::Pipe;
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
    /// Payload that does not enter the process; only while the buffer is empty.
    pipe: Option<Pipe>,
    /// Length of what was read last, in bytes: what comes next is expected to be alike.
    last: usize,
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
            pipe: None,
            last: 0,
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

    /// Whether there is payload that was not yet forwarded.
    pub(super) fn has_payload(&self) -> bool {
        self.pipe.is_some() || !self.payload().is_empty()
    }

    /// Decoded payload in memory that was not yet forwarded.
    pub fn payload(&self) -> &[u8] {
        self.buffer
            .as_ref()
            .map_or(&[], |buffer| &buffer[self.forwarded..self.cursor.write])
    }

    /// Takes once what the client has sent, as its leg wants it; `0` is the end of the stream.
    ///
    /// All that was received must have been decoded.
    pub(super) fn poll_take(
        &mut self,
        context: &mut Context<'_>,
        client: &mut impl ClientLeg,
    ) -> Poll<io::Result<usize>> {
        // As long as the host's: a limit above that means that nothing is spliced either way.
        let last = self.last.min(MAX_READ);
        let least = client.splice_from();
        let is_piped = self.decoder.is_none() && least.is_some_and(|least| last >= least);
        // Without descriptors for a pipe bytes still move.
        if is_piped
            && self.buffer.is_none()
            && let Ok(mut pipe) = Pipe::take()
            && let Some(len) = ready!(client.poll_read_piped(context, &mut pipe, MAX_READ))?
        {
            self.last = len;
            if len > 0 {
                self.pipe = Some(pipe);
            }
            return Poll::Ready(Ok(len));
        }
        self.last = ready!(self.poll_fill(context, client))?;
        Poll::Ready(Ok(self.last))
    }

    /// Takes what a pipe holds into memory, where it can be written down.
    pub(super) fn settle(&mut self) -> io::Result<()> {
        let Some(pipe) = &mut self.pipe else {
            return Ok(());
        };
        let mut buffer = Buffer::take();
        let len = pipe.len();
        pipe.read(&mut buffer[..len])?;
        self.pipe = None;
        self.buffer = Some(buffer);
        self.forwarded = 0;
        self.cursor = Cursor {
            write: len,
            read: len,
            end: len,
        };
        Ok(())
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

    /// Sends payload to the host; `Ready` once there is none left.
    ///
    /// Returns how many bytes were written in this call by way of `written`, errors or not.
    pub fn poll_forward(
        &mut self,
        context: &mut Context<'_>,
        host: &mut impl HostLeg,
        mut written: impl FnMut(usize),
    ) -> Poll<io::Result<()>> {
        while let Some(pipe) = &mut self.pipe {
            match ready!(host.poll_write_piped(context, pipe))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                len => written(len),
            }
            if pipe.is_empty() {
                self.pipe = None;
            }
        }
        self.poll_write(context, host, written)
    }

    /// The same for decoded payload in memory.
    fn poll_write(
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
        self.pipe = None;
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
                std::future::poll_fn(|context| inbound.poll_write(context, &mut host, |_| {}));
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
