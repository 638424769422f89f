//! Bytes of a channel that wait in the kernel, looked at only when somebody asks.

use std::fmt;
use std::io;
use std::iter::Sum;
use std::ops::Add;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::tcp_info;
use super::tcp_stats::{Sent, TcpStats};

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

    /// Bytes that were written to the client; fails on a kernel that tells too little.
    pub(super) fn written_to_client(self) -> io::Result<u64> {
        Ok(tcp_info::read_open(self.client)?.bytes_written())
    }

    /// Of client and host; `None` on a kernel that tells too little.
    fn stats(self) -> [Option<TcpStats>; 2] {
        [self.client, self.host].map(|socket| Some(tcp_info::read_any(socket).ok()?.into()))
    }
}

/// One channel's queues and TCP connections at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Looked {
    /// What waits in the kernel.
    pub queues: Queues,
    /// The client leg's connection; `None` on a kernel that tells too little (before Linux 4.19).
    pub client: Option<TcpStats>,
    /// The host leg's; `None` also of a Unix socket.
    pub host: Option<TcpStats>,
    /// Bytes of the downlink that the process holds, as the client takes no more.
    held: u64,
}

impl Looked {
    /// Bytes that came from the host and were not sent to the client yet: in the host's socket
    /// here, on `sockmap` before the bridge, in the process, and in the client's socket.
    pub fn downlink_waiting(&self) -> u64 {
        let unsent = self.client.map_or(0, |client| client.unsent);
        self.queues.host_receive + self.queues.bridge + self.held + unsent
    }
}

type Look = Box<dyn Fn() -> Queues + Send + Sync>;

/// Looks at one channel's queues and connections as long as its sockets are open.
#[derive(Default)]
pub(super) struct QueueLook {
    /// Told by the relay; what waits elsewhere is asked for.
    held: AtomicU64,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    /// Both only while the sockets are open: afterwards their numbers may be those of others.
    open: Option<(TcpLegs, Look)>,
    /// What had been sent to the client when that was last looked at.
    sent: Sent,
}

impl Inner {
    /// `None` before and after the channel moves.
    fn look(&mut self, held: u64) -> Option<Looked> {
        let (sockets, queues) = self.open.as_ref()?;
        let [client, host] = sockets.stats();
        let looked = Looked {
            queues: queues(),
            client,
            host,
            held,
        };
        if let Some(client) = client {
            self.sent = self.sent.max(client.sent);
        }
        Some(looked)
    }
}

impl QueueLook {
    /// Has these sockets looked at whenever somebody asks, and `queues` called, until the result
    /// is dropped, which must be before the sockets are closed.
    pub(super) fn attach(
        &self,
        sockets: TcpLegs,
        queues: impl Fn() -> Queues + Send + Sync + 'static,
    ) -> Looking<'_> {
        self.lock().open = Some((sockets, Box::new(queues)));
        Looking(self)
    }

    /// What there is now; `None` before and after the channel moves.
    pub(super) fn look(&self) -> Option<Looked> {
        self.lock().look(self.held.load(Ordering::Relaxed))
    }

    /// Says how many bytes of the downlink the process holds, as the client takes no more.
    pub(super) fn set_held(&self, bytes: usize) {
        self.held.store(bytes as u64, Ordering::Relaxed);
    }

    /// What had been sent to the client by the last look, or by the end of the channel; never less
    /// than at an earlier call. Asks nobody.
    pub(super) fn sent(&self) -> Sent {
        self.lock().sent
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for QueueLook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("QueueLook").field(&self.look()).finish()
    }
}

/// While this lives a channel can be looked at; its sockets live longer.
pub(super) struct Looking<'a>(&'a QueueLook);

impl Drop for Looking<'_> {
    fn drop(&mut self) {
        let mut inner = self.0.lock();
        // What was sent until now stays counted.
        inner.look(0);
        inner.open = None;
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
        assert!(look.look().is_none());
        let sockets = TcpLegs::new(&client, &host);
        let looking = look.attach(sockets, move || sockets.queues());
        client_peer.write_all(&[0; 100]).unwrap();
        host_peer.write_all(&[0; 2_000]).unwrap();
        let seen = look.look().unwrap().queues;
        assert_eq!((seen.client_receive, seen.host_receive), (100, 2_000));
        (&client).read_exact(&mut [0; 60]).unwrap();
        assert_eq!(look.look().unwrap().queues.client_receive, 40);
        // Nobody reads at the other end: what does not fit there stays here.
        client.set_nonblocking(true).unwrap();
        let mut written = 0;
        let chunk = vec![0; 65_536];
        while let Ok(len) = (&client).write(&chunk) {
            written += len as u64;
        }
        let looked = look.look().unwrap();
        let waiting = looked.queues.client_send;
        assert!(waiting > 0 && waiting <= written, "{waiting} of {written}");
        let unsent = looked.client.unwrap().unsent;
        assert!(unsent > 0 && unsent <= waiting, "{unsent} of {waiting}");
        // What the host sent and was not read, what the process holds, what was not sent.
        look.set_held(300);
        let all = look.look().unwrap().downlink_waiting();
        assert_eq!(all, 2_000 + 300 + unsent);
        drop(looking);
        assert!(look.look().is_none());
    }

    #[test]
    fn what_was_sent_is_counted_to_the_end_though_nobody_looked() {
        let ((client, mut client_peer), (host, _host_peer)) = (pair(), pair());
        let look = QueueLook::default();
        let sockets = TcpLegs::new(&client, &host);
        let looking = look.attach(sockets, move || sockets.queues());
        (&client).write_all(&[0; 1_000]).unwrap();
        client_peer.read_exact(&mut [0; 1_000]).unwrap();
        assert_eq!(look.sent(), Sent::default());
        drop(looking);
        assert_eq!(look.sent().bytes, 1_000);
        // A channel that goes on, as one does that nobody took over, counts on.
        let looking = look.attach(sockets, move || sockets.queues());
        (&client).write_all(&[0; 500]).unwrap();
        client_peer.read_exact(&mut [0; 500]).unwrap();
        drop(looking);
        drop((client, host));
        assert_eq!(look.sent().bytes, 1_500);
    }

    #[test]
    fn a_connection_that_was_reset_keeps_its_counts() {
        let ((client, client_peer), (host, _host_peer)) = (pair(), pair());
        let look = QueueLook::default();
        let sockets = TcpLegs::new(&client, &host);
        let looking = look.attach(sockets, move || sockets.queues());
        (&client).write_all(&[0; 1_000]).unwrap();
        // What was not read makes a RST of it.
        drop(client_peer);
        assert!((&client).read(&mut [0; 1]).is_err());
        drop(looking);
        assert_eq!(look.sent().bytes, 1_000);
    }

    #[test]
    fn a_socket_that_is_gone_has_no_queues() {
        assert_eq!(Queues::of(-1, -1), Queues::default());
        let sum: Queues = [Queues::of(-1, -1); 2].into_iter().sum();
        assert_eq!(sum.named().map(|(_, bytes)| bytes), [0; 5]);
    }
}
