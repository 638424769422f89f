//! Links that move from one process to another.
//!
//! The kernel goes on moving the downlink meanwhile: sockets, maps and programs stay as they are,
//! and what passed waits in the host's socket. What a process has of a link is written down, and
//! goes along with descriptors of its sockets.
//!
//! From when it is written down until it is carried on, a link is lent: nothing of it is changed
//! in the maps, also when it is dropped, as another process may have begun to.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use gateway_common::layout::{MAX_DATAGRAM, TO_BRIDGE};
use rustix::io::ioctl_fionbio;
use rustix::net::{AddressFamily, SocketType, sockopt};
use serde::{Deserialize, Serialize};
use tokio::io::Interest;
use tokio::sync::Notify;

use super::Link;
use super::feed::{Bridge, Feed};
use crate::buffer::Buffer;
use crate::encoded::Bytes;
use crate::received_socket;
use crate::sockmap::Sockmap;
use crate::sockmap::host_socket::HostSocket;
use crate::sockmap::leg::Client;
use crate::sockmap::maps::Cookies;
use crate::sockmap::registered::{Owner, register};
use crate::sockmap::shared::InheritedSets;
use crate::state_error::StateError;

/// How many sockets go along with a [`LinkState`].
pub const LINK_SOCKETS: usize = 6;

/// What a state lacks whose eBPF programs did not come with it.
pub const NO_SET: &str = "programs of a channel on sockmap, which did not come";

/// More bytes than any connection moves, and longer than any queue.
const MANY: u64 = 1 << 56;

/// What the legs of a link that stands still have in hand.
#[derive(Default)]
pub(in crate::sockmap) struct Owed {
    /// All passed bytes that were read, in bytes.
    pub(in crate::sockmap) forwarded: u64,
    /// A datagram that waits for the injector, and its length.
    pub(in crate::sockmap) datagram: Option<(Buffer, usize)>,
    /// The link stood still: more may have passed, of which nobody was told.
    pub(in crate::sockmap) stood_still: bool,
}

/// A link written down, its sockets apart.
#[derive(Clone, Serialize, Deserialize)]
pub struct LinkState {
    /// The kernel's number of the set that it is in, and its place there.
    set: u32,
    slot: u32,
    queue: u64,
    follows: bool,
    is_gated: bool,
    written_before: u64,
    uplink: u64,
    counted: u64,
    forwarded: u64,
    /// Passed bytes on their way to the injector; empty: none.
    datagram: Bytes,
}

impl LinkState {
    /// Whether it is one that [`Link::write_down`] makes, but for what only the kernel knows.
    pub fn check(&self) -> Result<(), StateError> {
        let counts = [
            self.queue,
            self.written_before,
            self.uplink,
            self.counted,
            self.forwarded,
        ];
        let are_few = counts.into_iter().all(|count| count < MANY);
        StateError::unless(are_few, "numbers of a channel on sockmap")?;
        let payload = match self.datagram.split_last_chunk() {
            None => self.datagram.is_empty().then_some(0),
            Some((payload, destination)) => (u32::from_ne_bytes(*destination) == TO_BRIDGE
                && (1..=MAX_DATAGRAM).contains(&payload.len()))
            .then_some(payload.len()),
        };
        let is_sound = payload.is_some_and(|len| len as u64 <= self.forwarded);
        StateError::unless(is_sound, "datagram of a channel on sockmap")
    }
}

impl Link {
    /// The set in whose maps it is.
    pub(crate) fn sockmap(&self) -> &Arc<Sockmap> {
        &self.sockmap
    }

    /// The sockets, in the order in which [`Link::resume`] takes them: of client and host first.
    /// Fewer than [`LINK_SOCKETS`] are those of a link that [cannot move](Link::can_move).
    pub(crate) fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        let bridge = self.feed.bridge().map(Bridge::ends);
        let legs = [
            self.client.socket().as_fd(),
            self.host.get_ref().as_fd(),
            self.injector.as_fd(),
            self.injector_out.as_fd(),
        ];
        let bridge = bridge
            .into_iter()
            .flat_map(|(sends, receives)| [sends, receives]);
        legs.into_iter().chain(bridge).collect()
    }

    /// Whether another process may go on with it, as long as neither side has ended: with a host
    /// on TCP and a plaintext client.
    pub(crate) fn can_move(&self) -> bool {
        let is_plain = matches!(self.client, Client::Plain(_));
        is_plain && self.feed.bridge().is_some() && self.sockmap.can_be_shared()
    }

    /// Writes a link that stands still down. `None`: no other process can go on with it.
    ///
    /// From here on it is lent, until it is carried on.
    pub(crate) fn write_down(&self) -> Option<LinkState> {
        let bridge = self.feed.bridge()?;
        if !self.can_move() || self.is_ending() {
            return None;
        }
        self.is_lent.store(true, Ordering::Release);
        let owed = self.lock_owed();
        let datagram = owed.datagram.as_ref();
        Some(LinkState {
            set: self.sockmap.number(),
            slot: self.slot,
            queue: bridge.queue() as u64,
            follows: bridge.follows,
            is_gated: self.is_gated,
            written_before: self.written_before,
            uplink: self.uplink.load(Ordering::Relaxed),
            counted: self.counted.load(Ordering::Relaxed),
            forwarded: owed.forwarded,
            datagram: datagram.map_or_else(Bytes::default, |(buffer, len)| buffer[..*len].into()),
        })
    }

    /// Goes on with a link that was written down. Fails when the state is none that
    /// [`Link::write_down`] makes, or sockets or maps are not as it says. Must be called in a runtime.
    ///
    /// Nothing is changed in the maps until it is carried on.
    pub(crate) fn resume(
        state: &LinkState,
        sockets: [OwnedFd; LINK_SOCKETS],
        sets: &InheritedSets,
    ) -> Result<Self, StateError> {
        state.check()?;
        let sockmap = sets.get(state.set);
        let sockmap = sockmap.ok_or(StateError::Unsound(NO_SET))?;
        let [client, host, injector, injector_out, bridge, bridge_out] = sockets;
        let client = received_socket::tcp(client)?.into_std()?;
        let host = HostSocket::Tcp(received_socket::tcp(host)?.into_std()?);
        let pairs = [
            (&bridge, SocketType::STREAM),
            (&bridge_out, SocketType::STREAM),
            (&injector, SocketType::DGRAM),
            (&injector_out, SocketType::DGRAM),
        ];
        for (socket, kind) in pairs {
            let is_unix = sockopt::socket_domain(socket).map_err(io::Error::from)?
                == AddressFamily::UNIX
                && sockopt::socket_type(socket).map_err(io::Error::from)? == kind;
            StateError::unless(is_unix, "sockets of a channel on sockmap")?;
            ioctl_fionbio(socket, true).map_err(io::Error::from)?;
        }
        let cookie = |socket: BorrowedFd<'_>| sockopt::socket_cookie(socket);
        let cookies = Cookies {
            host: cookie(host.as_fd()).map_err(io::Error::from)?,
            bridge: Some(cookie(bridge.as_fd()).map_err(io::Error::from)?),
            injector: cookie(injector.as_fd()).map_err(io::Error::from)?,
        };
        let is_known = sockmap.maps.has(state.slot, cookies);
        StateError::unless(is_known, "place of a channel on sockmap")?;
        let client = registered(client, Interest::READABLE)?;
        let host = registered(host, Interest::WRITABLE)?;
        let injector = registered(injector, Interest::WRITABLE)?;
        let signal = sockmap
            .watch
            .add(cookies.host, host.get_ref(), client.get_ref())?;
        let datagram = (!state.datagram.is_empty()).then(|| {
            let mut buffer = Buffer::take();
            buffer[..state.datagram.len()].copy_from_slice(&state.datagram);
            (buffer, state.datagram.len())
        });
        Ok(Self {
            sockmap: Arc::clone(sockmap),
            client: Client::Plain(client),
            host,
            injector,
            injector_out,
            feed: Feed::Bridge(Bridge::moved(
                [bridge, bridge_out],
                usize::try_from(state.queue).unwrap_or(usize::MAX),
                state.follows,
            )),
            cookies,
            slot: state.slot,
            signal,
            written_before: state.written_before,
            is_gated: state.is_gated,
            stopped: OnceLock::new(),
            abandoned: AtomicBool::new(false),
            client_lost: AtomicBool::new(false),
            ending: Notify::new(),
            is_ending: AtomicBool::new(false),
            uplink: AtomicU64::new(state.uplink),
            uplink_that_counts: AtomicU64::new(u64::MAX),
            left: AtomicBool::new(false),
            is_lent: AtomicBool::new(true),
            owed: Mutex::new(Owed {
                forwarded: state.forwarded,
                datagram,
                stood_still: true,
            }),
            counted: Arc::new(AtomicU64::new(state.counted)),
        })
    }

    /// Another process has gone on with the link, which is to be dropped.
    pub(crate) fn let_go(&self) {
        self.sockmap.maps.let_go(self.slot);
        self.sockmap.watch.leave_ring();
    }

    /// The link is carried on here.
    pub(in crate::sockmap) fn begin(&self) {
        if self.is_lent.swap(false, Ordering::AcqRel) {
            self.sockmap.maps.adopt(self.slot);
        }
    }

    /// Keeps what its legs have in hand, for those that go on.
    pub(in crate::sockmap) fn keep(&self, owed: Owed) {
        *self.lock_owed() = Owed {
            stood_still: true,
            ..owed
        };
    }

    /// Takes what legs before have left in hand.
    pub(in crate::sockmap) fn owed(&self) -> Owed {
        std::mem::take(&mut *self.lock_owed())
    }
}

fn registered<T: Owner>(
    socket: T,
    interest: Interest,
) -> Result<tokio::io::unix::AsyncFd<T>, StateError> {
    Ok(register(socket, interest).map_err(|(_, error)| error)?)
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Poll};
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::probe::round_trip;
    use crate::{Counters, Inbound, Limits, Order, Outcome, Rest};

    fn sound() -> LinkState {
        LinkState {
            set: 1,
            slot: 2,
            queue: 65_536,
            follows: true,
            is_gated: false,
            written_before: 129,
            uplink: 1_000,
            counted: 2_000,
            forwarded: 3,
            datagram: b"abc\x01\0\0\0"[..].into(),
        }
    }

    #[test]
    fn a_state_that_does_not_occur_is_refused() {
        assert!(sound().check().is_ok());
        let empty = LinkState {
            datagram: Bytes::default(),
            ..sound()
        };
        assert!(empty.check().is_ok());
        let long = [&vec![0; MAX_DATAGRAM + 1][..], &[1, 0, 0, 0]].concat();
        let unsound = [
            LinkState {
                uplink: MANY,
                ..sound()
            },
            LinkState {
                queue: u64::MAX,
                ..sound()
            },
            // More is on its way than was read.
            LinkState {
                forwarded: 2,
                ..sound()
            },
            LinkState {
                datagram: b"abc"[..].into(),
                ..sound()
            },
            // Without content, to the client, too long.
            LinkState {
                datagram: [1, 0, 0, 0][..].into(),
                ..sound()
            },
            LinkState {
                datagram: b"abc\0\0\0\0"[..].into(),
                ..sound()
            },
            LinkState {
                forwarded: MANY - 1,
                datagram: long[..].into(),
                ..sound()
            },
        ];
        for state in unsound {
            assert!(state.check().is_err());
        }
    }

    const LIMITS: Limits = Limits {
        ping_interval: None,
        close_timeout: Duration::from_secs(5),
    };

    /// Has a link move until it stands still.
    async fn freeze(link: &Link) -> Rest {
        let freeze = |_: &mut Context<'_>| Poll::Ready(Order::Freeze);
        let rest = Inbound::default().into();
        match link.carry(rest, LIMITS, &Counters::default(), freeze).await {
            Outcome::Frozen(rest) => *rest,
            Outcome::Ended(reason) => panic!("{reason:?}"),
        }
    }

    fn resumed(link: &Link, sets: &InheritedSets) -> Link {
        let state = link.write_down().unwrap();
        let sockets = link.descriptors().into_iter();
        let sockets: Vec<_> = sockets
            .map(|socket| socket.try_clone_to_owned().unwrap())
            .collect();
        Link::resume(&state, sockets.try_into().unwrap(), sets)
            .unwrap_or_else(|error| panic!("{error}"))
    }

    async fn expect_message(host: &mut tokio::net::TcpStream, client: &mut tokio::net::TcpStream) {
        host.write_all(b"abc").await.unwrap();
        let mut frame = [0; 5];
        let read = tokio::time::timeout(Duration::from_secs(20), client.read_exact(&mut frame));
        read.await.unwrap().unwrap();
        assert_eq!(&frame, b"\x82\x03abc");
    }

    /// Reads frames until so many bytes of payload have come.
    async fn read_frames(client: &mut tokio::net::TcpStream, len: usize) {
        let mut received = 0;
        while received < len {
            assert_eq!(client.read_u8().await.unwrap(), 0x82);
            let len = match client.read_u8().await.unwrap() {
                126 => client.read_u16().await.unwrap().into(),
                len => usize::from(len),
            };
            let mut payload = vec![0; len];
            client.read_exact(&mut payload).await.unwrap();
            assert!(payload.iter().all(|byte| *byte == b'x'));
            received += len;
        }
        assert_eq!(received, len);
    }

    #[tokio::test]
    #[cfg_attr(unprivileged, ignore = "needs root: cargo xtask test")]
    async fn what_had_passed_when_it_stood_still_is_sent_by_whoever_goes_on() {
        const LENGTH: usize = 16 << 20;
        let sockmap = Sockmap::load(1, 128 << 10)
            .unwrap_or_else(|error| panic!("{error}; this test is for root"));
        let (mut client, client_leg) = round_trip::pair().await.unwrap();
        let (mut host, host_leg) = round_trip::pair().await.unwrap();
        let link = sockmap.enter(client_leg, host_leg);
        let link = link.unwrap_or_else(|(refusal, _)| panic!("{refusal}"));
        let sent = tokio::spawn(async move {
            host.write_all(&vec![b'x'; LENGTH]).await.unwrap();
        });
        let counters = Counters::default();
        let passed = |_: &mut Context<'_>| {
            if link.state().unwrap().passed > 0 {
                Poll::Ready(Order::Freeze)
            } else {
                Poll::Pending
            }
        };
        let run = link.carry(Inbound::default().into(), LIMITS, &counters, passed);
        let frozen = tokio::time::timeout(Duration::from_secs(20), run).await;
        let Outcome::Frozen(rest) = frozen.unwrap() else {
            panic!("the link has ended");
        };
        // It was offered to nobody.
        let orders = |_: &mut Context<'_>| Poll::Pending;
        let run = link.carry(*rest, LIMITS, &counters, orders);
        let peers = async {
            read_frames(&mut client, LENGTH).await;
            sent.await.unwrap();
            let mut close = [0; 4];
            client.read_exact(&mut close).await.unwrap();
            drop(client);
        };
        let ended = async { tokio::join!(run, peers).0 };
        let outcome = tokio::time::timeout(Duration::from_secs(60), ended).await;
        assert!(matches!(outcome.unwrap(), Outcome::Ended(_)));
        assert_eq!(counters.downlink(), LENGTH as u64);
    }

    #[tokio::test]
    #[cfg_attr(unprivileged, ignore = "needs root: cargo xtask test")]
    async fn whoever_goes_without_having_gone_on_leaves_the_link_in_its_maps() {
        let sockmap = Sockmap::load(1, 1 << 20)
            .unwrap_or_else(|error| panic!("{error}; this test is for root"));
        let (mut client, client_leg) = round_trip::pair().await.unwrap();
        let (mut host, host_leg) = round_trip::pair().await.unwrap();
        let link = sockmap.enter(client_leg, host_leg);
        let first = link.unwrap_or_else(|(refusal, _)| panic!("{refusal}"));
        let rest = freeze(&first).await;
        expect_message(&mut host, &mut client).await;
        let (state, descriptors) = sockmap.share().unwrap();
        let descriptors = descriptors.iter();
        let descriptors = descriptors.map(|fd| fd.try_clone_to_owned().unwrap());
        let mut sets = InheritedSets::default();
        sets.take(&state, descriptors.collect()).unwrap();
        // A successor that does not begin, then one that does and whose predecessor ends.
        drop(resumed(&first, &sets));
        expect_message(&mut host, &mut client).await;
        let second = resumed(&first, &sets);
        drop((first, sockmap, sets));
        expect_message(&mut host, &mut client).await;
        // It goes on, and ends as any does.
        drop(freeze(&second).await);
        assert_eq!(second.state().unwrap().framed, 9);
        let orders = |_: &mut Context<'_>| Poll::Pending;
        let counters = Counters::default();
        let run = second.carry(rest, LIMITS, &counters, orders);
        let peers = async {
            expect_message(&mut host, &mut client).await;
            drop(host);
            let mut close = [0; 4];
            client.read_exact(&mut close).await.unwrap();
            assert_eq!(close, [0x88, 2, 0x03, 0xe8]);
            drop(client);
        };
        let ended = async { tokio::join!(run, peers).0 };
        let outcome = tokio::time::timeout(Duration::from_secs(20), ended).await;
        assert!(matches!(outcome.unwrap(), Outcome::Ended(_)));
        // What was sent before is counted once.
        assert_eq!(counters.downlink(), 3);
    }
}
