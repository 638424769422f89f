//! The data path `sockmap`: the kernel moves and frames the downlink of a plaintext client leg.
//!
//! ```text
//!            host_verdict            bridge_verdict
//!   host ----------------> A =====> B ---------------> client
//!   (HOSTS)    no header   AF_UNIX  (BRIDGES)  framed  ^
//!     |                    stream                      |
//!     | over the limit: passed                         | frames of userspace
//!     v                                                |
//!   gateway ----> injector (INJECTORS) ----------------+
//!     ^              \____ passed bytes ____> A
//!     |
//!     +---- uplink, decoded in userspace <-------------- client
//! ```
//!
//! Two hops, because changing the length of a TCP segment in a verdict breaks its source
//! (`tcp_eat_skb` in `net/ipv4/tcp_bpf.c`), and `AF_UNIX` has no such count. Everything that goes to
//! the client goes through one queue of the kernel, in whole frames.
//!
//! A host on a Unix socket is such a stream itself: one hop is enough, and nothing of it passes.
//!
//! ```text
//!            unix_host_verdict
//!   host =====> gateway's end ---------------> client
//!   AF_UNIX     (UNIX_HOSTS)       framed
//! ```

mod charged;
mod client;
mod flush;
mod host;
mod host_socket;
mod kernel;
mod leg;
mod link;
mod load;
mod logger;
mod maps;
mod object;
mod passed;
mod pins;
mod registered;
mod ring;
mod run;
mod set;
mod shared;
mod turn;
mod type_info;
mod watch;

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::task::{Context, Poll};

pub use gateway_common::layout::AGREEMENT;
use gateway_common::layout::{EVENTS, State};
use tokio::net::TcpStream;

pub use host_socket::HostSocket;
pub(super) use kernel::may_have_tls;
pub use link::{LINK_SOCKETS, Legs, Link, LinkError, LinkState, NO_SET, TlsLegs};
pub use load::LoadError;
pub(super) use maps::Ended;
pub use pins::{NoSet, Owner, Provided, is_ready, provide};
pub use shared::{InheritedSets, SetState};

use super::ktls::{self, KtlsStream};
use super::{Counters, Limits, Order, Outcome, Rest};
use crate::supervise::Supervised;
use load::{Held, Loaded, TakeSetError, wrong_maps};
use maps::Maps;
use ring::Ring;
use set::Set;
use turn::Turn;
use watch::Watch;

/// The loaded programs with their maps; unloaded, or left to others, when dropped.
pub struct Sockmap {
    maps: Maps,
    set: Set,
    /// The kernel's number of the set.
    number: u32,
    /// `None`: no other process can have the set, as this one has no file for that.
    turn: Option<Arc<Turn>>,
    watch: Arc<Watch>,
    _watcher: Supervised<Infallible>,
    /// Most bytes of a channel that wait before its bridge, and as many behind it.
    most_queued: usize,
    held: Held,
    room: u32,
    moves_unix_hosts: bool,
}

impl Sockmap {
    /// Loads the programs, with room for `channels` of which each may have up to `queued` bytes
    /// on the way, one half before its bridge and one behind. Must be called in a runtime.
    pub fn load(channels: usize, queued: usize) -> Result<Arc<Self>, LoadError> {
        Self::new(load::load(in_maps(channels))?, queued)
    }

    /// The same with programs that [`provide`] has loaded into a directory. Where there are none
    /// for this process it loads them itself, if it may.
    pub fn take_or_load(
        directory: &Path,
        channels: usize,
        queued: usize,
    ) -> Result<Arc<Self>, LoadError> {
        match load::take(directory, in_maps(channels)) {
            Ok(loaded) => Self::new(loaded, queued),
            Err(TakeSetError::Broken(error)) => Err(error),
            Err(TakeSetError::NoSet(no_set)) => match Self::load(channels, queued) {
                Err(LoadError::NotPermitted) => Err(LoadError::NoSet(no_set)),
                loaded => loaded,
            },
        }
    }

    fn new(loaded: Loaded, queued: usize) -> Result<Arc<Self>, LoadError> {
        let most_queued = link::longest_queue(queued / 2)?;
        // Without /proc the channels of this set end with this process, too.
        let turn = Turn::new().ok();
        Self::with_turn(loaded, most_queued, turn.map(Arc::new))
    }

    /// `most_queued` bytes of a channel may wait before its bridge, and as many behind it.
    fn with_turn(
        loaded: Loaded,
        most_queued: usize,
        turn: Option<Arc<Turn>>,
    ) -> Result<Arc<Self>, LoadError> {
        let Loaded {
            set,
            logger,
            held,
            room,
            moves_unix_hosts,
        } = loaded;
        let maps = Maps::open(&set).map_err(|e| wrong_maps(&e))?;
        let events = set.descriptor(EVENTS).map_err(|e| wrong_maps(&e))?;
        let ring = Ring::new(events, turn.clone()).map_err(|e| wrong_maps(&e))?;
        let (watch, watcher) = Watch::start(ring, logger)?;
        Ok(Arc::new(Self {
            maps,
            number: set.number().map_err(|e| wrong_maps(&e))?,
            set,
            turn,
            watch,
            _watcher: watcher,
            most_queued,
            held,
            room,
            moves_unix_hosts,
        }))
    }

    /// Where the programs lie that somebody else has loaded for this process; `None`: nowhere.
    pub fn set(&self) -> Option<&Path> {
        match &self.held {
            Held::Programs(_) | Held::Inherited { .. } => None,
            Held::Set { folder, .. } => Some(folder),
        }
    }

    /// Most bytes of a channel on the way: what was asked for, unless the process may not have
    /// that much.
    pub fn queued(&self) -> usize {
        2 * self.most_queued
    }

    /// How many channels there is room for.
    pub fn room(&self) -> usize {
        usize::try_from(self.room).unwrap_or(usize::MAX)
    }

    /// What a kernel must have for hosts on Unix sockets to be moved.
    pub const UNIX_HOSTS_NEED: &str = "needs Linux 6.12 or later and /sys/kernel/btf/vmlinux";

    /// Whether hosts on Unix sockets can be moved on this kernel.
    pub fn moves_unix_hosts(&self) -> bool {
        self.moves_unix_hosts
    }

    /// What the programs have counted for all channels so far, those that have ended included;
    /// never less than at an earlier call, but for [`State::redirecting`].
    pub fn totals(&self) -> State {
        self.maps.totals()
    }

    /// What was counted for the channels that have ended; when nobody has this any more, for all.
    pub(super) fn ended(&self) -> Arc<Ended> {
        self.maps.ended()
    }

    /// Puts a channel's sockets into the kernel's hands, before its host was sent anything.
    ///
    /// When that cannot be, gives them back as they were.
    ///
    /// A host on a Unix socket needs a kernel that [moves it](Self::moves_unix_hosts). If it speaks
    /// while its socket enters the map, both sockets are lost.
    pub fn enter<H>(
        self: &Arc<Self>,
        client: TcpStream,
        host: H,
    ) -> Result<Link, (LinkError, std::io::Result<Legs>)>
    where
        H: TryInto<HostSocket, Error = std::io::Error>,
    {
        Link::new(self, client, host.try_into())
    }

    /// The same for a client leg whose keys `protect` gives to the kernel, which it does once
    /// the sockets are in their maps; see [`Link::with_tls`]. `socket` is the client's, as one
    /// more descriptor.
    pub fn enter_tls<T>(
        self: &Arc<Self>,
        socket: &std::net::TcpStream,
        host: TcpStream,
        protect: impl FnOnce() -> Result<KtlsStream, (ktls::BeginError, std::io::Result<T>)>,
    ) -> Result<Link, (LinkError, TlsLegs<T>)> {
        Link::with_tls(self, socket, host, protect)
    }
}

fn in_maps(channels: usize) -> u32 {
    u32::try_from(channels).unwrap_or(u32::MAX)
}

impl Link {
    /// Moves the channel's bytes until both sides have ended, or until it is ordered to stand
    /// still; see [`relay::carry`](crate::relay::carry).
    pub async fn carry(
        &self,
        rest: Rest,
        limits: Limits,
        counters: &Counters,
        orders: impl FnMut(&mut Context<'_>) -> Poll<Order>,
    ) -> Outcome {
        let outcome = run::run(self, rest, limits, counters, orders).await;
        if let Outcome::Ended(_) = outcome {
            self.part().await;
        }
        outcome
    }
}
