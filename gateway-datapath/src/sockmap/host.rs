//! The host leg: written as ever; what it sends is seen here only when the kernel passes it.

use std::future::Future;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use gateway_common::layout::{DESTINATION_LEN, MAX_DATAGRAM, TO_BRIDGE};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use super::flush::Flush;
use super::link::Link;
use super::watch::{BROKEN, CLIENT_LOST, ENDED, MISPLACED, PASSED};
use crate::bounds::Bounds;
use crate::buffer::Buffer;
use crate::queues::not_acknowledged;

/// Time between two looks at a leg whose bytes are not all counted.
const LOOK: Duration = Duration::from_millis(5);

/// What userspace still has of a host leg.
///
/// Reading from it is how passed bytes are sent back to the kernel: it returns nothing until the
/// end of the stream, unless the downlink was stopped; then it returns what the host sends.
pub(super) struct HostLeg<'a> {
    link: &'a Link,
    /// Bytes may have passed that were not yet read.
    passing: bool,
    /// All passed bytes that were read, in bytes.
    forwarded: u64,
    /// How much may wait, and how much the programs have framed when that was last looked at.
    bounds: Bounds,
    framed: u64,
    /// A datagram that waits for the injector, and its length.
    datagram: Option<(Buffer, usize)>,
    /// The host leg's FIN or RST has come.
    ended: bool,
    /// How the host's stream ended, once it was read to its end.
    end: Option<io::Result<()>>,
    flush: Flush,
    /// Time of the next look at a leg whose bytes are not all counted.
    look: Option<Pin<Box<Sleep>>>,
}

impl<'a> HostLeg<'a> {
    pub(super) fn new(link: &'a Link) -> Self {
        Self {
            link,
            passing: link.is_gated,
            forwarded: 0,
            bounds: Bounds::in_kernel(),
            framed: 0,
            datagram: None,
            ended: false,
            end: None,
            flush: Flush::default(),
            look: None,
        }
    }

    /// Sends passed bytes back to the kernel until there are none, or until the host's end.
    fn poll_return(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if let Some((buffer, len)) = &self.datagram {
                ready!(self.link.poll_inject(context, &buffer[..*len]))?;
                self.datagram = None;
                self.follow();
            }
            if !self.passing || self.end.is_some() {
                return Poll::Ready(Ok(()));
            }
            let mut buffer = Buffer::take();
            match read(self.link, &mut buffer[..MAX_DATAGRAM]) {
                Ok(0) => self.end = Some(Ok(())),
                Ok(len) => {
                    self.forwarded += len as u64;
                    buffer[len..len + DESTINATION_LEN].copy_from_slice(&TO_BRIDGE.to_ne_bytes());
                    self.datagram = Some((buffer, len + DESTINATION_LEN));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && self.link.is_gated => {
                    let wait = self
                        .look
                        .get_or_insert_with(|| Box::pin(tokio::time::sleep(LOOK)));
                    ready!(wait.as_mut().poll(context));
                    self.look = None;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.link.set_forwarded(self.forwarded)?;
                    self.passing = self.ended || self.link.state()?.passed != self.forwarded;
                    if self.passing {
                        // The program has counted what the kernel is about to queue.
                        context.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                }
                Err(error) => self.end = Some(Err(error)),
            }
        }
    }

    /// Has what may wait follow the rate at which the client takes it. Bytes that pass are the
    /// sign that it takes less than comes.
    fn follow(&mut self) {
        if !self.link.follows || !self.bounds.is_due() {
            return;
        }
        let Ok(state) = self.link.state() else {
            return;
        };
        self.bounds.on_held_up();
        let moved = state.framed.saturating_sub(self.framed);
        self.framed = state.framed;
        let moved = usize::try_from(moved).unwrap_or(usize::MAX);
        let sockets = Some((
            Some(self.link.host.get_ref().as_fd()),
            self.link.client.socket().as_fd(),
        ));
        if let Some(queue) = self.bounds.on_moved(moved, sockets) {
            self.link.set_queue(queue);
        }
    }

    fn poll_stopped(&mut self, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.datagram = None;
        if let Some(end) = self.end.take() {
            return Poll::Ready(end);
        }
        match read(self.link, buffer.initialize_unfilled()) {
            Ok(len) => {
                buffer.advance(len);
                Poll::Ready(Ok(()))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
            Err(error) => Poll::Ready(Err(error)),
        }
    }
}

fn read(link: &Link, space: &mut [u8]) -> io::Result<usize> {
    loop {
        match link.host.get_ref().read(space) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

impl AsyncRead for HostLeg<'_> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let happened = this.link.signal.take(context.waker());
        if this.link.check_abandoned().is_err() {
            return Poll::Ready(Ok(()));
        }
        if happened & MISPLACED != 0 {
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        }
        if happened & BROKEN != 0 {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if happened & ENDED != 0 {
            this.ended = true;
            this.link.note_ending();
        }
        if happened & CLIENT_LOST != 0 {
            this.link.lose_client();
        }
        if this.link.is_stopped() {
            return this.poll_stopped(buffer);
        }
        if happened & (PASSED | ENDED) != 0 {
            this.passing = true;
        }
        ready!(this.poll_return(context))?;
        if this.end.is_none() {
            return Poll::Pending;
        }
        ready!(this.flush.poll(context, this.link))?;
        Poll::Ready(this.end.take().unwrap_or(Ok(())))
    }
}

impl AsyncWrite for HostLeg<'_> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let link = self.link;
        link.check_abandoned()?;
        loop {
            let mut ready = ready!(link.host.poll_write_ready(context))?;
            match ready.try_io(|host| host.get_ref().write(bytes)) {
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(error)) => {
                    link.note_ending();
                    return Poll::Ready(Err(error));
                }
                Ok(Ok(len)) => {
                    link.add_uplink(len);
                    return Poll::Ready(Ok(len));
                }
                Err(_would_block) => {}
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.link.host.get_ref().shutdown(Shutdown::Write))
    }
}

impl crate::HostLeg for HostLeg<'_> {
    fn has_taken_all(&self) -> bool {
        // Nothing is waited for any more once the time for ending is over.
        self.link.check_abandoned().is_err()
            || not_acknowledged(self.link.host.get_ref().as_raw_fd()) == 0
    }

    fn socket(&self) -> Option<BorrowedFd<'_>> {
        self.link.follows.then(|| self.link.host.get_ref().as_fd())
    }
}
