//! What a TLS connection has received and not given out, and what it has still to send.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::record::{MAX_OVERHEAD, RecordError};
use crate::buffer::{self, Buffer};

/// Records that were read: `[start, end)` are still closed, `[plain_start, plain_end)` is
/// plaintext of the record before `start`.
#[derive(Default)]
pub(super) struct Incoming {
    pub(super) buffer: Option<Buffer>,
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) plain_start: usize,
    pub(super) plain_end: usize,
    pub(super) early: Vec<u8>,
    /// What is wrong with the record behind the plaintext that was given out.
    pub(super) fault: Option<RecordError>,
}

impl Incoming {
    /// Hands out plaintext; true if there was any.
    pub(super) fn give(&mut self, target: &mut ReadBuf<'_>) -> bool {
        let before = target.filled().len();
        if !self.early.is_empty() {
            let len = self.early.len().min(target.remaining());
            target.put_slice(&self.early[..len]);
            self.early.drain(..len);
        } else if let Some(buffer) = &self.buffer {
            let len = (self.plain_end - self.plain_start).min(target.remaining());
            target.put_slice(&buffer[self.plain_start..self.plain_start + len]);
            self.plain_start += len;
        }
        target.filled().len() > before
    }

    pub(super) fn has_plaintext(&self) -> bool {
        !self.early.is_empty() || self.plain_start < self.plain_end
    }

    /// Reads records behind what is there; `0` is the end of the stream.
    pub(super) fn poll_fill(
        &mut self,
        context: &mut Context<'_>,
        tcp: &mut TcpStream,
    ) -> Poll<io::Result<usize>> {
        let mut buffer = self.buffer.take().unwrap_or_else(Buffer::take);
        buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        (self.start, self.plain_start, self.plain_end) = (0, 0, 0);
        let mut space = ReadBuf::new(&mut buffer[self.end..]);
        let polled = Pin::new(tcp).poll_read(context, &mut space);
        let len = space.filled().len();
        self.end += len;
        if self.end > 0 {
            self.buffer = Some(buffer);
        }
        ready!(polled)?;
        Poll::Ready(Ok(len))
    }
}

/// Records that wait to be sent.
#[derive(Default)]
pub(super) struct Outgoing {
    pub(super) buffer: Option<Buffer>,
    pub(super) start: usize,
    pub(super) end: usize,
}

impl Outgoing {
    /// Sends what the socket takes now, and asks for no wakeup.
    pub(super) fn drain_at_once(&mut self, tcp: &TcpStream) {
        if let Some(buffer) = &self.buffer
            && let Ok(len) = tcp.try_write(&buffer[self.start..self.end])
        {
            self.start += len;
            if self.start == self.end {
                *self = Self::default();
            }
        }
    }

    /// Whether a record with `plaintext` bytes fits behind what waits.
    pub(super) fn has_room(&self, plaintext: usize) -> bool {
        self.end + plaintext + MAX_OVERHEAD <= buffer::SIZE
    }

    pub(super) fn poll_drain(
        &mut self,
        context: &mut Context<'_>,
        tcp: &mut TcpStream,
    ) -> Poll<io::Result<()>> {
        while let Some(buffer) = self.buffer.as_ref().filter(|_| self.start < self.end) {
            let bytes = &buffer[self.start..self.end];
            let len = ready!(Pin::new(&mut *tcp).poll_write(context, bytes))?;
            if len == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.start += len;
        }
        *self = Self::default();
        Poll::Ready(Ok(()))
    }
}
