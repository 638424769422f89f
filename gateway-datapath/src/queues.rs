//! Bytes of a channel that wait in the kernel, looked at only when somebody asks.

use std::fmt;
use std::iter::Sum;
use std::ops::Add;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What waits in the kernel's queues of a channel, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Queues {
    /// Written to the client and not acknowledged by it.
    pub client_send: u64,
    /// Received from the client and not read.
    pub client_receive: u64,
    /// Written to the host and not acknowledged by it.
    pub host_send: u64,
    /// Received from the host and not read.
    pub host_receive: u64,
    /// On `sockmap`: on their way from the host's socket into the client's.
    pub bridge: u64,
}

impl Queues {
    /// Of a channel's two TCP sockets, four calls of the system.
    fn of(client: RawFd, host: RawFd) -> Self {
        Self {
            client_send: not_acknowledged(client),
            client_receive: not_read(client),
            host_send: not_acknowledged(host),
            host_receive: not_read(host),
            bridge: 0,
        }
    }

    /// Each with its name in metrics.
    pub fn named(self) -> [(&'static str, u64); 5] {
        [
            ("client_send", self.client_send),
            ("client_receive", self.client_receive),
            ("host_send", self.host_send),
            ("host_receive", self.host_receive),
            ("bridge", self.bridge),
        ]
    }
}

impl Add for Queues {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            client_send: self.client_send + other.client_send,
            client_receive: self.client_receive + other.client_receive,
            host_send: self.host_send + other.host_send,
            host_receive: self.host_receive + other.host_receive,
            bridge: self.bridge + other.bridge,
        }
    }
}

impl Sum for Queues {
    fn sum<I: Iterator<Item = Self>>(queues: I) -> Self {
        queues.fold(Self::default(), Add::add)
    }
}

/// A channel's two sockets, to be asked while they are open.
#[derive(Clone, Copy, Debug)]
pub(super) struct TcpLegs {
    client: RawFd,
    host: RawFd,
}

impl TcpLegs {
    pub(super) fn new(client: &impl AsFd, host: &impl AsFd) -> Self {
        Self {
            client: client.as_fd().as_raw_fd(),
            host: host.as_fd().as_raw_fd(),
        }
    }

    pub(super) fn queues(self) -> Queues {
        Queues::of(self.client, self.host)
    }
}

type Look = Box<dyn Fn() -> Queues + Send + Sync>;

/// Looks at the queues of one channel as long as its sockets are open.
#[derive(Default)]
pub(super) struct QueueLook(Mutex<Option<Look>>);

impl QueueLook {
    /// Has `look` called whenever somebody asks, until the result is dropped, which must be before
    /// the sockets are closed.
    pub(super) fn attach(&self, look: impl Fn() -> Queues + Send + Sync + 'static) -> Looking<'_> {
        *self.lock() = Some(Box::new(look));
        Looking(self)
    }

    /// What waits now; nothing before and after the channel moves.
    pub(super) fn now(&self) -> Queues {
        self.lock()
            .as_ref()
            .map_or_else(Queues::default, |look| look())
    }

    fn lock(&self) -> MutexGuard<'_, Option<Look>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for QueueLook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("QueueLook").field(&self.now()).finish()
    }
}

/// While this lives a channel's queues can be looked at; its sockets live longer.
pub(super) struct Looking<'a>(&'a QueueLook);

impl Drop for Looking<'_> {
    fn drop(&mut self) {
        *self.0.lock() = None;
    }
}

/// `SIOCOUTQ` (tcp(7)): bytes that were sent or wait to be, and are not acknowledged.
pub(super) fn not_acknowledged(socket: RawFd) -> u64 {
    ask(socket, libc::TIOCOUTQ)
}

/// `SIOCINQ` (tcp(7)): bytes that can be read.
fn not_read(socket: RawFd) -> u64 {
    ask(socket, libc::FIONREAD)
}

/// 0 when the kernel does not tell, as for a connection that is gone.
fn ask(socket: RawFd, request: libc::Ioctl) -> u64 {
    let mut bytes: libc::c_int = 0;
    #[expect(unsafe_code, reason = "no safe crate asks for SIOCOUTQ")]
    // SAFETY: both requests write one `int` to the pointer, and a wrong descriptor is an error.
    let result = unsafe { libc::ioctl(socket, request, &raw mut bytes) };
    if result == 0 {
        u64::try_from(bytes).unwrap_or(0)
    } else {
        0
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (near, listener.accept().unwrap().0)
    }

    #[test]
    fn what_waits_is_seen_while_the_channel_moves() {
        let ((client, mut client_peer), (host, mut host_peer)) = (pair(), pair());
        let look = QueueLook::default();
        assert_eq!(look.now(), Queues::default());
        let sockets = TcpLegs::new(&client, &host);
        let looking = look.attach(move || sockets.queues());
        client_peer.write_all(&[0; 100]).unwrap();
        host_peer.write_all(&[0; 2_000]).unwrap();
        let seen = look.now();
        assert_eq!((seen.client_receive, seen.host_receive), (100, 2_000));
        (&client).read_exact(&mut [0; 60]).unwrap();
        assert_eq!(look.now().client_receive, 40);
        // Nobody reads at the other end: what does not fit there stays here.
        client.set_nonblocking(true).unwrap();
        let mut written = 0;
        let chunk = vec![0; 65_536];
        while let Ok(len) = (&client).write(&chunk) {
            written += len as u64;
        }
        let waiting = look.now().client_send;
        assert!(waiting > 0 && waiting <= written, "{waiting} of {written}");
        drop(looking);
        assert_eq!(look.now(), Queues::default());
    }

    #[test]
    fn a_socket_that_is_gone_has_no_queues() {
        assert_eq!(Queues::of(-1, -1), Queues::default());
        let sum: Queues = [Queues::of(-1, -1); 2].into_iter().sum();
        assert_eq!(sum.named().map(|(_, bytes)| bytes), [0; 5]);
    }
}
