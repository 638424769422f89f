//! What feeds the queue of frames for a client.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};

use gateway_common::layout::{CLOSED, Gate};
use rustix::net::SocketType;
use rustix::net::sockopt;

use super::pair::{pair, set_send_buffer};
use crate::bounds;
use crate::sockmap::Sockmap;
use crate::sockmap::host_socket::HostSocket;

/// How much of a host on a Unix socket may be charged to its send buffer before the process looks
/// at how much its client takes, in bytes with the kernel's own structures: some messages in quick
/// succession, and a third of what most systems let a socket have (`net.core.wmem_default`).
const CHARGED: u64 = 64 * 1024;

/// Where the pieces come from that get a header each.
pub(super) enum Feed {
    /// From the bridge of a host on TCP.
    Bridge(Bridge),
    /// From the host itself, on a Unix socket. What waits of it fills its own send buffer.
    Host,
}

/// A pair of sockets in which what a host sends on TCP gets its headers.
pub(super) struct Bridge {
    sends: OwnedFd,
    receives: OwnedFd,
    /// Most bytes that wait before the bridge, and as many behind it.
    queue: AtomicUsize,
    /// That follows the client's rate: the host is near. A far one would be held back, as the
    /// process hears of a client only when that takes too little.
    pub(super) follows: bool,
}

impl Feed {
    /// What a host needs.
    pub(super) fn of(host: &HostSocket, sockmap: &Sockmap) -> io::Result<Self> {
        match host {
            HostSocket::Tcp(tcp) => Bridge::new(sockmap, bounds::is_near(tcp)).map(Self::Bridge),
            HostSocket::Unix(_) => Ok(Self::Host),
        }
    }

    /// `None`: there is none.
    pub(super) fn bridge(&self) -> Option<&Bridge> {
        match self {
            Self::Bridge(bridge) => Some(bridge),
            Self::Host => None,
        }
    }

    /// The gate of a channel whose host is to be moved, of which nothing has passed.
    pub(super) fn open_gate(&self) -> Gate {
        match self {
            Self::Bridge(bridge) => bridge.gate(0),
            Self::Host => watched(),
        }
    }

    /// The gate of a channel to whose client nothing more is to be sent.
    pub(super) fn shut_gate(&self) -> Gate {
        match self {
            Self::Bridge(bridge) => bridge.gate(CLOSED),
            Self::Host => Gate {
                forwarded: CLOSED,
                limit: u64::MAX,
            },
        }
    }
}

impl Bridge {
    fn new(sockmap: &Sockmap, follows: bool) -> io::Result<Self> {
        let (sends, receives) = pair(SocketType::STREAM)?;
        let queue = if follows {
            bounds::FIRST_QUEUE.min(sockmap.most_queued)
        } else {
            sockmap.most_queued
        };
        // The kernel's worker waits a tick of its clock whenever this is full.
        set_send_buffer(&sends, queue)?;
        Ok(Self {
            sends,
            receives,
            queue: AtomicUsize::new(queue),
            follows,
        })
    }

    /// Of a link that another process has begun: the end that sends, and the other one.
    pub(super) fn moved([sends, receives]: [OwnedFd; 2], queue: usize, follows: bool) -> Self {
        Self {
            sends,
            receives,
            queue: AtomicUsize::new(queue),
            follows,
        }
    }

    pub(super) fn cookie(&self) -> io::Result<u64> {
        Ok(sockopt::socket_cookie(&self.sends)?)
    }

    /// The end that sends to the other one, and that.
    pub(super) fn ends(&self) -> (BorrowedFd<'_>, BorrowedFd<'_>) {
        (self.sends.as_fd(), self.receives.as_fd())
    }

    /// Most bytes that wait before it.
    pub(super) fn queue(&self) -> usize {
        self.queue.load(Ordering::Relaxed)
    }

    /// Lets so many bytes wait behind it and, once the gate was set again, as many before it.
    pub(super) fn set_queue(&self, bytes: usize) {
        // A bridge that keeps its buffer moves bytes as well.
        let _ = set_send_buffer(&self.sends, bytes);
        self.queue.store(bytes, Ordering::Relaxed);
    }

    /// So many passed bytes were forwarded.
    pub(super) fn gate(&self, forwarded: u64) -> Gate {
        Gate {
            forwarded,
            limit: self.queue() as u64,
        }
    }
}

/// The gate of a host on a Unix socket while the process is to hear of a client that takes less
/// than comes.
pub(super) fn watched() -> Gate {
    Gate {
        forwarded: 0,
        limit: CHARGED,
    }
}

/// The same while it is not to.
pub(super) fn unwatched() -> Gate {
    Gate {
        forwarded: 0,
        limit: u64::MAX,
    }
}
