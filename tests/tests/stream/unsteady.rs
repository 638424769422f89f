//! Streams that move a little at a time, and break.

use std::io::{self, IoSliceMut};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use gateway_datapath::{ClientLeg, HostLeg};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use testkit::rng::Rng;

/// How much is held back at most before a flush, in bytes.
const HELD: usize = 20_000;

/// A stream whose reads and writes move fewer bytes than they could, or none at first, and fail
/// from some operation on if told so.
#[derive(Debug)]
pub(crate) struct Unsteady<S> {
    inner: S,
    rng: Rng,
    /// The most bytes that an operation moves.
    longest: usize,
    /// Operations until it breaks.
    left: Option<usize>,
    /// What was written and waits for a flush, as on TLS; `None`: nothing waits.
    held: Option<BytesMut>,
}

impl<S> Unsteady<S> {
    pub(crate) fn new(inner: S, rng: &mut Rng) -> Self {
        Self {
            inner,
            longest: rng.pick(&[10, 1_000, 10_000]),
            rng: Rng::new(rng.next()),
            left: None,
            held: None,
        }
    }

    /// Holds back what is written until it is flushed.
    pub(crate) fn hold_back(&mut self) {
        self.held = Some(BytesMut::new());
    }

    /// Breaks after this many operations.
    pub(crate) fn break_after(&mut self, operations: usize) {
        self.left = Some(operations);
    }

    /// Whether an operation goes on; else it is to be tried again, or the stream is broken.
    fn poll_begin(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.left {
            Some(0) => return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            Some(left) => *left -= 1,
            None => {}
        }
        if self.rng.once_in(8) {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }

    fn length(&mut self, most: usize) -> usize {
        most.min(1 + self.rng.below(self.longest))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Unsteady<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_begin(context))?;
        let mut bytes = vec![0; this.length(buffer.remaining())];
        let mut part = ReadBuf::new(&mut bytes);
        ready!(Pin::new(&mut this.inner).poll_read(context, &mut part))?;
        buffer.put_slice(part.filled());
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> Unsteady<S> {
    /// Writes what was held back.
    fn poll_release(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(held) = &mut self.held else {
            return Poll::Ready(Ok(()));
        };
        while !held.is_empty() {
            let length = ready!(Pin::new(&mut self.inner).poll_write(context, held))?;
            held.advance(length);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Unsteady<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_begin(context))?;
        let length = this.length(bytes.len());
        if this.held.as_ref().is_some_and(|held| held.len() >= HELD) {
            ready!(this.poll_release(context))?;
        }
        match &mut this.held {
            Some(held) => {
                held.extend_from_slice(&bytes[..length]);
                Poll::Ready(Ok(length))
            }
            None => Pin::new(&mut this.inner).poll_write(context, &bytes[..length]),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_begin(context))?;
        ready!(this.poll_release(context))?;
        Pin::new(&mut this.inner).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_begin(context))?;
        ready!(this.poll_release(context))?;
        Pin::new(&mut this.inner).poll_shutdown(context)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> ClientLeg for Unsteady<S> {}

impl<S: AsyncRead + AsyncWrite + Unpin> HostLeg for Unsteady<S> {
    fn poll_read_room(
        &mut self,
        context: &mut Context<'_>,
        room: &mut [IoSliceMut<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut read = 0;
        for slice in room {
            let mut space = ReadBuf::new(slice);
            match Pin::new(&mut *self).poll_read(context, &mut space) {
                Poll::Ready(Ok(())) => read += space.filled().len(),
                // The next call tells.
                _ if read > 0 => break,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
            if space.remaining() > 0 {
                break;
            }
        }
        Poll::Ready(Ok(read))
    }
}
