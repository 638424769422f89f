//! What a data path asks of its two byte streams.

use std::io::{self, IoSliceMut, Read};
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

use crate::buffer::Layout;

/// The client leg: it takes frames where they were read, and protects them there if it has to.
pub trait ClientLeg: AsyncRead + AsyncWrite + Unpin {
    /// How a frame must lie in its buffer.
    fn layout(&self) -> Layout {
        Layout::PLAIN
    }

    /// Protects a frame of `len` bytes that lies in `buffer` behind `skipped` bytes of its first
    /// piece; returns the bytes that are to be sent, with [`ClientLeg::poll_send`].
    ///
    /// What was written otherwise is sent first.
    fn poll_protect(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut [u8],
        skipped: usize,
        len: usize,
    ) -> Poll<io::Result<Range<usize>>> {
        let _ = (context, buffer);
        Poll::Ready(Ok(skipped..skipped + len))
    }

    /// Sends bytes of a protected frame; returns how many. Until all of it is sent, nothing else
    /// must be written.
    fn poll_send(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(self).poll_write(context, bytes)
    }
}

impl ClientLeg for TcpStream {}

/// The host leg: it is read into several places at once.
pub trait HostLeg: AsyncRead + AsyncWrite + Unpin {
    /// Reads once, filling one slice after the other; `0` is the end of the stream.
    fn poll_read_room(
        &mut self,
        context: &mut Context<'_>,
        room: &mut [IoSliceMut<'_>],
    ) -> Poll<io::Result<usize>> {
        let Some(first) = room.first_mut() else {
            return Poll::Ready(Ok(0));
        };
        let mut space = ReadBuf::new(first);
        ready!(Pin::new(self).poll_read(context, &mut space))?;
        Poll::Ready(Ok(space.filled().len()))
    }
}

impl HostLeg for TcpStream {
    fn poll_read_room(
        &mut self,
        context: &mut Context<'_>,
        room: &mut [IoSliceMut<'_>],
    ) -> Poll<io::Result<usize>> {
        let capacity: usize = room.iter().map(|slice| slice.len()).sum();
        loop {
            ready!(self.poll_read_ready(context))?;
            let mut partial = None;
            let read = self.try_io(Interest::READABLE, || {
                let len = (&*SockRef::from(&*self)).read_vectored(room)?;
                if len == 0 || len == capacity {
                    return Ok(len);
                }
                // The socket was emptied: readiness is over until the next event, and asking the
                // system for that would be a call that only says so.
                partial = Some(len);
                Err(io::ErrorKind::WouldBlock.into())
            });
            match (read, partial) {
                (_, Some(len)) => return Poll::Ready(Ok(len)),
                (Err(error), None) if error.kind() == io::ErrorKind::WouldBlock => {}
                (Err(error), None) if error.kind() == io::ErrorKind::Interrupted => {}
                (read, None) => return Poll::Ready(read),
            }
        }
    }
}
