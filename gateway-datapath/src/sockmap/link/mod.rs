//! One channel's sockets in the kernel's hands.

mod feed;
mod moved;
mod pair;
mod parts;

use std::future::Future;
use std::io;
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use gateway_common::layout::{DESTINATION_LEN, State};
use rustix::net::{self, SendFlags};
use socket2::SockRef;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;

use super::Sockmap;
use super::host_socket::HostSocket;
use super::leg::{Client, Sealed};
use super::maps::Cookies;
use super::registered::register;
use super::watch::Signal;
use crate::buffer::SIZE;
use crate::host_stream::HostStream;
use crate::ktls::{self, KtlsStream};
use crate::queues::{Queues, TcpLegs};
use crate::tcp_info;
use feed::Feed;
pub(super) use moved::Owed;
pub use moved::{LINK_SOCKETS, LinkState, NO_SET};
pub(super) use pair::longest_queue;
use parts::Parts;

/// Why a channel is not moved by the kernel, before any byte of it was.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The host has sent bytes before it was asked to.
    #[error("host spoke first")]
    HostSpoke,
    /// The same while its Unix socket entered the map, and what it sent cannot be put in order.
    #[error("host spoke while its socket entered the map")]
    HostSpokeMeanwhile,
    /// A socket cannot be had or set up.
    #[error("socket: {0}")]
    Socket(#[from] io::Error),
    /// All places in the maps are taken.
    #[error("maps: {0}")]
    Maps(String),
    /// The client's connection stays with the gateway's own record layer.
    #[error(transparent)]
    Tls(#[from] ktls::BeginError),
}

impl LinkError {
    /// The kind of reason, by which it is counted.
    pub fn name(&self) -> &'static str {
        match self {
            Self::HostSpoke | Self::HostSpokeMeanwhile => "host spoke first",
            Self::Socket(_) => "socket",
            Self::Maps(_) => "maps",
            Self::Tls(refusal) => refusal.name(),
        }
    }
}

/// After this long out of the maps, no worker of the kernel sends to a socket any more: it is
/// stopped within a grace period of RCU, some milliseconds (`sk_psock_drop`, `net/core/skmsg.c`).
const WORKER_END: Duration = Duration::from_secs(1);
/// What one processor has written the others see within a few hundred nanoseconds.
const COUNT_SHOWS: Duration = Duration::from_millis(1);

/// A channel's sockets, in the maps until this is dropped at the latest.
pub struct Link {
    sockmap: Arc<Sockmap>,
    pub(super) client: Client,
    /// Registered with the runtime for writing only: reading would wake it for each segment.
    pub(super) host: AsyncFd<HostSocket>,
    /// Sending end; the receiving one only has to be there.
    injector: AsyncFd<OwnedFd>,
    injector_out: OwnedFd,
    feed: Feed,
    cookies: Cookies,
    slot: u32,
    pub(super) signal: Arc<Signal>,
    /// Bytes that had been written to the client before.
    written_before: u64,
    /// All that the host sends passes, and not all of it is counted: the host spoke while its
    /// socket entered the map.
    pub(super) is_gated: bool,
    /// Nothing more of the host's is to reach the client, since then.
    stopped: OnceLock<Instant>,
    /// The time for ending is over: every leg fails.
    abandoned: AtomicBool,
    /// The client's connection broke.
    client_lost: AtomicBool,
    /// Something has ended: there is a limit on time without progress from now on.
    ending: Notify,
    is_ending: AtomicBool,
    /// Bytes of the client that were written to the host.
    uplink: AtomicU64,
    /// Those that count as progress of a channel that ends: behind our Close a client can send
    /// what it likes.
    uplink_that_counts: AtomicU64,
    /// The sockets are no longer in the maps, or are another process's there.
    left: AtomicBool,
    /// It stands still, and another process may have gone on with it: the maps are read only.
    is_lent: AtomicBool,
    /// What its legs owed each other when it came to stand still.
    owed: Mutex<Owed>,
    /// Bytes of payload sent to the client that were counted by now, here or by a process before.
    counted: Arc<AtomicU64>,
}

impl Link {
    /// Puts a channel's sockets into the maps; the host must not have been sent anything.
    ///
    /// Gives the sockets back, as they were, when it cannot.
    pub(super) fn new(
        sockmap: &Arc<Sockmap>,
        client: tokio::net::TcpStream,
        host: io::Result<HostSocket>,
    ) -> Result<Self, (LinkError, io::Result<Legs>)> {
        let (client, host) = match (client.into_std(), host) {
            (Ok(client), Ok(host)) => (client, host),
            (Err(error), _) | (_, Err(error)) => {
                let lost = io::Error::new(error.kind(), error.to_string());
                return Err((error.into(), Err(lost)));
            }
        };
        match host.has_spoken() {
            Ok(false) => Self::enter(sockmap, client, host),
            Ok(true) => Err((LinkError::HostSpoke, back(client, host))),
            Err(error) => Err((error.into(), back(client, host))),
        }
    }

    /// The same for a host that had not spoken a moment ago.
    fn enter(
        sockmap: &Arc<Sockmap>,
        client: TcpStream,
        host: HostSocket,
    ) -> Result<Self, (LinkError, io::Result<Legs>)> {
        let parts = match Parts::new(sockmap, &client, &host) {
            Ok(parts) => parts,
            Err(LinkError::HostSpokeMeanwhile) => {
                let told = io::Error::other(LinkError::HostSpokeMeanwhile);
                return Err((LinkError::HostSpokeMeanwhile, Err(told)));
            }
            Err(refusal) => return Err((refusal, back(client, host))),
        };
        let client = match register(client, Interest::READABLE) {
            Ok(client) => client,
            Err((client, error)) => {
                parts.forget(&client, &host);
                return Err((error.into(), back(client, host)));
            }
        };
        match parts.register(sockmap, Client::Plain(client), host) {
            Ok(link) => Ok(link),
            Err((error, Client::Plain(client), host)) => {
                Err((error.into(), back(client.into_inner(), host)))
            }
            Err((error, Client::Tls(_), _)) => Err((error.into(), Err(lost()))),
        }
    }

    /// Puts a channel's sockets into the maps, and only then gives the kernel the client's keys,
    /// by `protect`: in the other order every kernel refuses. The host must not have been sent
    /// anything.
    ///
    /// `socket` is the client's, as one more descriptor. Gives back the host, and what `protect`
    /// gives back with a refusal; both are lost once the kernel has the keys.
    pub(super) fn with_tls<T>(
        sockmap: &Arc<Sockmap>,
        socket: &TcpStream,
        host: tokio::net::TcpStream,
        protect: impl FnOnce() -> Result<KtlsStream, (ktls::BeginError, io::Result<T>)>,
    ) -> Result<Self, (LinkError, TlsLegs<T>)> {
        let host = match host.try_into() {
            Ok(host) => host,
            Err(error) => return Err((LinkError::Socket(error), TlsLegs::Lost)),
        };
        let parts = match Parts::new(sockmap, socket, &host) {
            Ok(parts) => parts,
            Err(refusal) => return Err((refusal, TlsLegs::untouched(host))),
        };
        let stream = match protect() {
            Ok(stream) => stream,
            Err((refusal, client)) => {
                parts.forget(socket, &host);
                let host = HostStream::try_from(host);
                let legs = client.and_then(|client| Ok(TlsLegs::Refused(client, host?)));
                return Err((refusal.into(), legs.unwrap_or(TlsLegs::Lost)));
            }
        };
        let client = match Sealed::new(stream) {
            Ok(client) => Client::Tls(Box::new(client)),
            Err(error) => {
                parts.forget(socket, &host);
                return Err((error.into(), TlsLegs::Lost));
            }
        };
        let link = parts.register(sockmap, client, host);
        link.map_err(|(error, _, _)| (error.into(), TlsLegs::Lost))
    }

    /// The client's socket, to be asked and set up only.
    pub(crate) fn client_socket(&self) -> BorrowedFd<'_> {
        self.client.socket().as_fd()
    }

    /// What the programs have counted.
    pub(super) fn state(&self) -> io::Result<State> {
        self.sockmap.maps.state(self.slot).map_err(io::Error::other)
    }

    /// Reads how many bytes of payload were sent to the client since this call; only while the link
    /// lives. What was sent before, and had not been counted when the channel came to stand still,
    /// is among them.
    pub(super) fn downlink_count(&self) -> impl Fn() -> u64 + Send + Sync + 'static {
        let (sockmap, slot) = (Arc::clone(&self.sockmap), self.slot);
        let counted = Arc::clone(&self.counted);
        let before = counted.load(Ordering::Relaxed);
        move || {
            // Without a state the maps are gone, and the channel with them.
            let framed = sockmap.maps.state(slot).map_or(0, |state| state.framed);
            let framed = counted.fetch_max(framed, Ordering::Relaxed).max(framed);
            framed - before
        }
    }

    /// Its two TCP sockets, to be asked while the link lives.
    pub(crate) fn sockets(&self) -> TcpLegs {
        TcpLegs::new(self.client.socket(), self.host.get_ref())
    }

    /// Looks at what waits in the kernel; only while the link lives.
    pub(crate) fn queues(&self) -> impl Fn() -> Queues + Send + Sync + 'static {
        let (sockmap, slot) = (Arc::clone(&self.sockmap), self.slot);
        let (sockets, written_before) = (self.sockets(), self.written_before);
        let has_bridge = self.feed.bridge().is_some();
        move || {
            let state = sockmap.maps.state(slot).unwrap_or_default();
            if !has_bridge {
                let written = sockets.written_to_client().unwrap_or(0);
                let taken = written.saturating_sub(written_before);
                return Queues {
                    bridge: state.to_client().saturating_sub(taken),
                    ..sockets.queues()
                };
            }
            Queues {
                // What the host sends is taken out of its socket at once: what passed waits for
                // the process, the rest before the bridge.
                host_receive: state.passed.saturating_sub(state.returned),
                // Read word by word while the programs count: a later word may be ahead.
                bridge: (state.redirected + state.returned).saturating_sub(state.framed),
                ..sockets.queues()
            }
        }
    }

    /// What the programs have counted, as the log tells it.
    pub(crate) fn counts(&self) -> String {
        let Ok(state) = self.state() else {
            return String::new();
        };
        format!(
            "{} messages, {} frames, {} passes, {} stops, {} resumes, {} bytes repeated, \
             {} bytes dropped",
            state.messages,
            state.frames,
            state.passes,
            state.stops,
            state.resumes,
            state.repeated,
            state.dropped()
        )
    }

    /// Says how many passed bytes were forwarded; equal to all of them, the kernel redirects.
    pub(super) fn set_forwarded(&self, forwarded: u64) -> io::Result<()> {
        match self.feed.bridge() {
            Some(bridge) => self.set_gate(bridge.gate(forwarded)),
            None => Ok(()),
        }
    }

    /// Whether the process hears of a host on a Unix socket when its client takes less than comes.
    pub(super) fn set_watched(&self, watched: bool) {
        if self.is_stopped() || self.feed.bridge().is_some() {
            return;
        }
        let gate = if watched {
            feed::watched()
        } else {
            feed::unwatched()
        };
        // Without a gate the programs' maps are gone, and the programs with them.
        let _ = self.set_gate(gate);
    }

    fn set_gate(&self, gate: gateway_common::layout::Gate) -> io::Result<()> {
        let set = self.sockmap.maps.set_gate(self.slot, gate);
        set.map_err(io::Error::other)
    }

    /// What may wait follows the client's rate.
    pub(super) fn follows(&self) -> bool {
        self.feed.bridge().is_none_or(|bridge| bridge.follows)
    }

    /// Lets so many bytes wait behind the bridge and, once passed bytes were forwarded, as many
    /// before it; at most what the configuration allows.
    pub(super) fn set_queue(&self, bytes: usize) {
        let bytes = bytes.min(self.sockmap.most_queued);
        if let Some(bridge) = self.feed.bridge() {
            bridge.set_queue(bytes);
            let _ = parts::set_injector_buffer(self.injector.get_ref(), bytes);
        }
    }

    /// Lets nothing more of the host's reach the client; what was redirected before still does.
    pub(super) fn stop(&self) {
        if self.stopped.set(Instant::now()).is_err() {
            return;
        }
        // Without a gate the programs' maps are gone, and the programs with them.
        let _ = self.set_gate(self.feed.shut_gate());
        // The kernel runs the host leg's program under the socket's lock, which this takes: no
        // program that found the gate open runs any more.
        if let Some(tcp) = self.host.get_ref().tcp() {
            let _ = tcp_info::bytes_written(tcp);
        }
        // What was written before, and what is in hand.
        let counts = self.uplink.load(Ordering::Relaxed) + SIZE as u64;
        self.uplink_that_counts.store(counts, Ordering::Release);
        self.note_ending();
        // The host's leg reads from now on.
        self.signal.raise(super::watch::PASSED);
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.get().is_some()
    }

    /// Notes that one side has ended.
    pub(super) fn note_ending(&self) {
        self.is_ending.store(true, Ordering::Release);
        self.ending.notify_one();
    }

    /// Whether one side has ended.
    pub(super) fn is_ending(&self) -> bool {
        self.is_ending.load(Ordering::Acquire)
    }

    /// Ready once one side has ended.
    pub(super) fn ending(&self) -> impl Future<Output = ()> {
        self.ending.notified()
    }

    /// Notes that nothing can reach the client any more.
    pub(super) fn lose_client(&self) {
        self.client_lost.store(true, Ordering::Release);
        self.stop();
    }

    /// Fails once nothing can reach the client any more.
    pub(super) fn check_client(&self) -> io::Result<()> {
        self.check_abandoned()?;
        if self.client_lost.load(Ordering::Acquire) {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        Ok(())
    }

    /// Makes everything fail that is still waited for.
    pub(super) fn abandon(&self) {
        self.abandoned.store(true, Ordering::Release);
        self.stop();
    }

    pub(super) fn check_abandoned(&self) -> io::Result<()> {
        if self.abandoned.load(Ordering::Acquire) {
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(())
    }

    fn lock_owed(&self) -> MutexGuard<'_, Owed> {
        self.owed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add_uplink(&self, bytes: usize) {
        self.uplink.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Grows as long as peers take what they were sent, the kernel's part included.
    pub(super) fn progress(&self) -> u64 {
        let client = tcp_info::bytes_acknowledged(self.client.socket()).unwrap_or(0);
        let host = match self.host.get_ref() {
            HostSocket::Tcp(tcp) => tcp_info::bytes_acknowledged(tcp).unwrap_or(0),
            // What such a socket accepts is with its host.
            HostSocket::Unix(_) => self.uplink.load(Ordering::Relaxed),
        };
        client + host.min(self.uplink_that_counts.load(Ordering::Acquire))
    }

    /// Whether all that was sent towards the client has been taken by its TCP.
    pub(super) fn is_drained(&self) -> io::Result<bool> {
        let state = self.state()?;
        if state.dropped() > 0 {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        if state.waiting() > 0 || self.may_still_send() {
            return Ok(false);
        }
        // Asked first: records made meanwhile must not be taken for some that were written.
        let written = tcp_info::bytes_written(self.client.socket())?;
        let expected = self.client.on_the_wire(state.to_client())?;
        Ok(written.saturating_sub(self.written_before) >= expected)
    }

    /// Whether a program that found the gate open may be about to say so. The one of a Unix socket
    /// runs under no lock that could be taken here, but counts before it looks at the gate; its
    /// count is seen long before this time is over.
    fn may_still_send(&self) -> bool {
        let shut = self.stopped.get();
        let is_fresh = shut.is_some_and(|shut| shut.elapsed() < COUNT_SHOWS);
        is_fresh && self.feed.bridge().is_none()
    }

    /// Ready when the sockets can be closed, if nothing is to be sent any more.
    ///
    /// A client with TLS that did not take everything is one to which the kernel's worker may be
    /// about to send. It would find no TLS context behind a close, and take the kernel with it:
    /// `tls_sk_proto_close` (`net/tls/tls_main.c`) takes that away before anything waits for the
    /// worker (`sock_map_close`, `net/core/sock_map.c`).
    pub(super) async fn part(&self) {
        let is_taken = || self.is_drained().is_ok_and(|drained| drained);
        if matches!(self.client, Client::Tls(_)) && !is_taken() {
            self.leave();
            tokio::time::sleep(WORKER_END).await;
        }
    }

    /// Takes the sockets out of the maps.
    fn leave(&self) {
        if self.left.swap(true, Ordering::AcqRel) {
            return;
        }
        self.sockmap
            .watch
            .remove(self.cookies.host, self.host.get_ref(), self.client.socket());
        if self.is_lent.load(Ordering::Acquire) {
            return;
        }
        // What passed and was not read lies where the kernel's close does not look. Without a
        // RST the host would go on waiting for a window to open.
        let host = self.host.get_ref();
        if let Some(tcp) = host.tcp()
            && host.has_unread()
        {
            let _ = SockRef::from(tcp).set_linger(Some(Duration::ZERO));
        }
        self.sockmap.maps.remove(self.slot, self.cookies);
    }

    /// Sends a datagram, which ends with its destination, through the injector.
    pub(super) fn poll_inject(
        &self,
        context: &mut Context<'_>,
        datagram: &[u8],
    ) -> Poll<io::Result<()>> {
        debug_assert!(datagram.len() > DESTINATION_LEN);
        loop {
            let mut ready = ready!(self.injector.poll_write_ready(context))?;
            let sent =
                ready.try_io(|injector| Ok(net::send(injector, datagram, SendFlags::NOSIGNAL)?));
            match sent {
                Ok(sent) => return Poll::Ready(sent.map(drop)),
                Err(_would_block) => {}
            }
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.leave();
    }
}

/// What is left of a channel whose client leg was to be protected by the kernel.
pub enum TlsLegs<T> {
    /// The client's connection is as it was.
    Untouched(HostStream),
    /// So is this, which gave up its connection for a moment.
    Refused(T, HostStream),
    /// Nothing.
    Lost,
}

impl<T> TlsLegs<T> {
    fn untouched(host: HostSocket) -> Self {
        HostStream::try_from(host).map_or(Self::Lost, Self::Untouched)
    }
}

fn lost() -> io::Error {
    io::Error::other("the kernel has taken the client's connection over")
}

/// Sockets of a channel that the runtime knows: the client's and the host's.
pub type Legs = (tokio::net::TcpStream, HostStream);

fn back(client: TcpStream, host: HostSocket) -> io::Result<Legs> {
    Ok((client.try_into()?, host.try_into()?))
}

#[cfg(test)]
mod tests;
