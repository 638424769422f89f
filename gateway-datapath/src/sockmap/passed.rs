//! What a host on TCP sends while too much waits: it passes to the process, which sends it back to
//! the kernel.

use std::future::Future;
use std::io;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use gateway_common::layout::{DESTINATION_LEN, MAX_DATAGRAM, State, TO_BRIDGE};
use tokio::time::Sleep;

use super::link::{Link, Owed};
use crate::bounds::Bounds;
use crate::buffer::Buffer;

/// Time between two looks at a leg whose bytes are not all counted.
const LOOK: Duration = Duration::from_millis(5);

/// What has passed of a host, and how much may wait.
pub(super) struct Passed {
    /// Bytes may have passed that were not yet read.
    passing: bool,
    /// What passed and was read.
    owed: Owed,
    /// How much may wait, and how much the programs have framed when that was last looked at.
    bounds: Bounds,
    framed: u64,
    /// Time of the next look at a leg whose bytes are not all counted.
    look: Option<Pin<Box<Sleep>>>,
}

impl Passed {
    /// Goes on where a leg before may have left off.
    pub(super) fn new(link: &Link) -> Self {
        let owed = link.owed();
        Self {
            passing: link.is_gated || owed.stood_still,
            owed,
            bounds: Bounds::in_kernel(),
            framed: link.state().map_or(0, |state| state.framed),
            look: None,
        }
    }

    /// What another leg of this link needs to go on.
    pub(super) fn into_owed(self) -> Owed {
        self.owed
    }

    /// Bytes may have passed.
    pub(super) fn on_passed(&mut self) {
        self.passing = true;
    }

    /// What waits is wanted by nobody any more.
    pub(super) fn discard(&mut self) {
        self.owed.datagram = None;
    }

    /// Sends passed bytes back to the kernel; ready with the end of the host's stream, and how that
    /// came. `ended`: the kernel has told of it. Fails when nothing can be sent back.
    pub(super) fn poll_return(
        &mut self,
        context: &mut Context<'_>,
        link: &Link,
        ended: bool,
    ) -> Poll<io::Result<io::Result<()>>> {
        loop {
            if let Some((buffer, len)) = &self.owed.datagram {
                ready!(link.poll_inject(context, &buffer[..*len]))?;
                self.owed.datagram = None;
                self.follow(link);
            }
            if !self.passing {
                return Poll::Pending;
            }
            let mut buffer = Buffer::take();
            match link.host.get_ref().read(&mut buffer[..MAX_DATAGRAM]) {
                Ok(0) => return Poll::Ready(Ok(Ok(()))),
                Ok(len) => {
                    self.owed.forwarded += len as u64;
                    buffer[len..len + DESTINATION_LEN].copy_from_slice(&TO_BRIDGE.to_ne_bytes());
                    self.owed.datagram = Some((buffer, len + DESTINATION_LEN));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && link.is_gated => {
                    let wait = self
                        .look
                        .get_or_insert_with(|| Box::pin(tokio::time::sleep(LOOK)));
                    ready!(wait.as_mut().poll(context));
                    self.look = None;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    link.set_forwarded(self.owed.forwarded)?;
                    let state = link.state()?;
                    check(&state)?;
                    self.passing = ended || state.passed != self.owed.forwarded;
                    if self.passing {
                        // The program has counted what the kernel is about to queue.
                        context.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                }
                Err(error) => return Poll::Ready(Ok(Err(error))),
            }
        }
    }

    /// Has what may wait follow the rate at which the client takes it. Bytes that pass are the
    /// sign that it takes less than comes.
    fn follow(&mut self, link: &Link) {
        if !link.follows() || !self.bounds.is_due() {
            return;
        }
        let Ok(state) = link.state() else {
            return;
        };
        self.bounds.on_held_up();
        let moved = state.framed.saturating_sub(self.framed);
        self.framed = state.framed;
        let moved = usize::try_from(moved).unwrap_or(usize::MAX);
        let sockets = Some((
            Some(link.host.get_ref().as_fd()),
            link.client.socket().as_fd(),
        ));
        if let Some(queue) = self.bounds.on_moved(moved, sockets) {
            link.set_queue(queue);
        }
    }
}

/// Fails once bytes are lost, which may have been told to another process.
pub(super) fn check(state: &State) -> io::Result<()> {
    if state.misplaced > 0 {
        return Err(io::ErrorKind::InvalidData.into());
    }
    if state.dropped() > 0 {
        return Err(io::ErrorKind::BrokenPipe.into());
    }
    Ok(())
}
