//! What userspace still has of a tunnel's leg.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use super::Tunnel;
use super::flow::Side;
use crate::bounds::Bounds;
use crate::buffer::Buffer;
use crate::queues::not_acknowledged;
use crate::sockmap::flush::Flush;
use crate::sockmap::watch::{BROKEN, ENDED, MISPLACED};
use crate::tcp_info::bytes_acknowledged;

/// Most that is read at once of what passed, in bytes; the receive buffer of a leg that the kernel
/// reads is usually much less.
const MOST_EARLY: usize = 4 << 20;
/// Time between two looks at what passed.
const LOOK: Duration = Duration::from_millis(1);

/// One leg. Reading brings what the kernel does not redirect, until the end of the stream; writing
/// waits until the kernel has written what it redirected before.
pub(super) struct Leg<'a> {
    tunnel: &'a Tunnel,
    side: Side,
    /// While the kernel redirects what comes: how many bytes have passed, of those that were
    /// read.
    passed: Option<u64>,
    /// What was read at once when the kernel had let something pass, and the error behind it.
    early: VecDeque<u8>,
    failed: Option<io::Error>,
    /// Something has passed, or has ended.
    is_called: bool,
    /// Time of the next look at what passed.
    look: Option<Pin<Box<Sleep>>>,
    flush: Flush,
    /// How much of what the host sends may wait.
    bounds: Bounds,
    /// Bytes that were read, and how many had been moved when that was last looked at.
    read: u64,
    moved: u64,
}

impl<'a> Leg<'a> {
    pub(super) fn new(tunnel: &'a Tunnel, side: Side) -> Self {
        // The process begins.
        tunnel.bound_own(side);
        Self {
            tunnel,
            side,
            passed: None,
            early: VecDeque::new(),
            failed: None,
            is_called: false,
            look: None,
            flush: Flush::default(),
            bounds: if side == Side::Host && tunnel.follows {
                Bounds::of_tunnel(tunnel.socket(side).as_fd())
            } else {
                Bounds::in_kernel()
            },
            read: 0,
            moved: 0,
        }
    }

    /// Takes what has happened since the last time.
    fn take_signal(&mut self, context: &Context<'_>) -> io::Result<()> {
        let tunnel = self.tunnel;
        let happened = tunnel.flow(self.side).signal.take(context.waker());
        if happened & MISPLACED != 0 {
            return Err(io::ErrorKind::InvalidData.into());
        }
        if happened & BROKEN != 0 {
            let target = self.side.other();
            if tunnel.is_connected(target) {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            // They were for somebody who has gone, which the other leg tells.
            tunnel.lose(target);
            tunnel.flow(target).signal.raise(ENDED);
        }
        self.is_called |= happened != 0;
        Ok(())
    }

    /// Brings what comes, or has the kernel redirect it.
    fn poll_bytes(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let (tunnel, side) = (self.tunnel, self.side);
        if self.passed.is_some() {
            if !self.is_called {
                return Poll::Pending;
            }
            let taken = self.poll_take_back(context);
            // There may be more than is read early.
            if let Some(read) = self.take_early(buffer) {
                return Poll::Ready(read);
            }
            ready!(taken)?;
        }
        if let Some(read) = self.take_early(buffer) {
            return Poll::Ready(read);
        }
        match tunnel.read(side, buffer) {
            Ok(len) => {
                self.read += len as u64;
                self.follow();
                return Poll::Ready(Ok(()));
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Poll::Ready(Err(error)),
        }
        // Whoever reads has written all that was read before.
        if !tunnel.flow(side).is_stopped() && tunnel.is_flowing(side) {
            self.is_called = false;
            self.passed = tunnel.hand_over(side)?;
        }
        Poll::Pending
    }

    /// Takes what comes back from the kernel.
    ///
    /// What has passed and was not read lies in the same queue as what the socket is to send, is
    /// counted in no receive buffer, and is lost when the connection is done. So it is read first,
    /// however long the other side needs to take it; what comes later lies where it belongs.
    fn poll_take_back(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if let Some(look) = &mut self.look {
                ready!(look.as_mut().poll(context));
                self.look = None;
            }
            let Some(passed) = self.passed else {
                return Poll::Ready(Ok(()));
            };
            let passed = passed + self.read_early();
            self.passed = Some(passed);
            self.tunnel.set_taken(self.side, passed);
            if self.failed.is_some() || self.tunnel.take_back(self.side, passed)? {
                self.passed = None;
                return Poll::Ready(Ok(()));
            }
            if !self.tunnel.is_connected(self.side) {
                // Nothing more will come.
                self.passed = None;
                return Poll::Ready(Ok(()));
            }
            // The program has counted what the kernel is about to queue.
            self.look = Some(Box::pin(tokio::time::sleep(LOOK)));
        }
    }

    /// Reads all that has passed; says how much.
    fn read_early(&mut self) -> u64 {
        let before = self.early.len();
        while self.early.len() < MOST_EARLY && self.failed.is_none() {
            let mut bytes = Buffer::take();
            let mut buffer = ReadBuf::new(&mut bytes);
            match self.tunnel.read(self.side, &mut buffer) {
                Ok(0) => break,
                Ok(_) => self.early.extend(buffer.filled()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => self.failed = Some(error),
            }
        }
        (self.early.len() - before) as u64
    }

    /// Brings what was read early; `None`: there is nothing.
    fn take_early(&mut self, buffer: &mut ReadBuf<'_>) -> Option<io::Result<()>> {
        if self.early.is_empty() {
            return self.failed.take().map(Err);
        }
        let (first, _) = self.early.as_slices();
        let len = first.len().min(buffer.remaining());
        buffer.put_slice(&first[..len]);
        self.early.drain(..len);
        if self.early.is_empty() {
            self.early = VecDeque::new();
        }
        self.read += len as u64;
        self.follow();
        Some(Ok(()))
    }

    /// Has what may wait follow the rate at which the client takes it. Bytes that come here are the
    /// sign that it takes less than comes.
    fn follow(&mut self) {
        let tunnel = self.tunnel;
        if self.side == Side::Client || !tunnel.follows || !self.bounds.is_due() {
            return;
        }
        let Ok(state) = tunnel.state(Side::Host) else {
            return;
        };
        self.bounds.on_held_up();
        let all = state.redirected + self.read;
        let moved = usize::try_from(all.saturating_sub(self.moved)).unwrap_or(usize::MAX);
        self.moved = all;
        let sockets = Some((
            Some(tunnel.socket(Side::Host).as_fd()),
            tunnel.socket(Side::Client).as_fd(),
        ));
        if let Some(queue) = self.bounds.on_moved(moved, sockets) {
            tunnel.set_limit(Side::Host, queue);
        }
    }

    /// Ready once the kernel has written to this leg all that it redirected.
    fn poll_drained(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let (tunnel, from) = (self.tunnel, self.side.other());
        self.flush.poll(context, || tunnel.is_drained(from))
    }

    fn poll_send(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let (tunnel, from) = (self.tunnel, self.side.other());
        if !tunnel.flow(from).is_ours() {
            ready!(self.poll_drained(context))?;
            tunnel.flow(from).set_ours(true);
            tunnel.bound_own(from);
        }
        tunnel.poll_write(self.side, context, bytes)
    }

    /// Ends what is sent to this leg. From then on the process reads what comes of it: a connection
    /// that ends behind our FIN is done at once, and then out of all maps (`tcp_time_wait`,
    /// `net/ipv4/tcp_minisocks.c`, and `sock_map_unhash`, `net/core/sock_map.c`).
    fn poll_end(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let (tunnel, side) = (self.tunnel, self.side);
        tunnel.stop(side.other());
        // A FIN before the kernel's worker has written everything would cut it off.
        ready!(self.poll_drained(context))?;
        tunnel.flow(side.other()).note_unwanted();
        if !tunnel.flow(side).is_unwanted() {
            tunnel.stop(side);
            ready!(self.poll_take_back(context))?;
        }
        Poll::Ready(tunnel.shutdown(side))
    }

    fn acknowledged(&self) -> Option<u64> {
        bytes_acknowledged(self.tunnel.socket(self.side)).ok()
    }

    fn not_acknowledged(&self) -> u64 {
        not_acknowledged(self.tunnel.socket(self.side).as_raw_fd())
    }
}

impl AsyncRead for Leg<'_> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let read = match this.take_signal(context) {
            Ok(()) => ready!(this.poll_bytes(context, buffer)),
            Err(error) => Err(error),
        };
        if read.is_err() {
            this.tunnel.lose(this.side);
        }
        Poll::Ready(read)
    }
}

impl AsyncWrite for Leg<'_> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = ready!(this.poll_send(context, bytes));
        if written.is_err() {
            this.tunnel.lose(this.side);
        }
        Poll::Ready(written)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_end(context)
    }
}

/// Its socket is not named: how much waits in it is bounded here.
impl crate::ClientLeg for Leg<'_> {
    fn acknowledged(&self) -> Option<u64> {
        Leg::acknowledged(self)
    }

    fn give_up(&mut self) {
        self.tunnel.lose(self.side);
        let socket = self.tunnel.socket(self.side);
        let _ = SockRef::from(socket).set_linger(Some(Duration::ZERO));
    }
}

impl crate::HostLeg for Leg<'_> {
    fn acknowledged(&self) -> Option<u64> {
        Leg::acknowledged(self)
    }

    fn has_taken_all(&self) -> bool {
        self.not_acknowledged() == 0
    }

    fn written(&self) -> Option<u64> {
        Some(Leg::acknowledged(self)? + self.not_acknowledged())
    }
}
