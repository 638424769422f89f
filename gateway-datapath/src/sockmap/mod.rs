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
//! the client goes through one queue of the kernel, in whole frames. [Tunnels](tunnel) need one.

mod btf;
mod client;
mod flush;
mod host;
mod kernel;
mod leg;
mod link;
mod load;
mod logger;
mod maps;
mod object;
mod registered;
mod run;
mod tunnel;
mod watch;

use std::convert::Infallible;
use std::future::Future;
use std::sync::{Arc, Mutex, OnceLock};

use aya::Ebpf;
use gateway_common::layout::State;
use tokio::net::TcpStream;

pub(super) use kernel::may_have_tls;
pub use link::{Legs, Link, LinkError, TlsLegs};
pub use load::LoadError;
pub use tunnel::Tunnel;

use super::ktls::{self, KtlsStream};
use super::{Counters, Inbound, Limits, bounds};
use crate::end_reason::EndReason;
use crate::supervise::Supervised;
use maps::Maps;
use watch::Watch;

/// The loaded programs with their maps; unloaded when dropped.
pub struct Sockmap {
    maps: Maps,
    watch: Arc<Watch>,
    _watcher: Supervised<Infallible>,
    /// Most bytes of a channel that wait before its bridge, and as many behind it.
    most_queued: usize,
    /// Why tunnels cannot be moved; nothing: they can.
    no_tunnels: OnceLock<String>,
    /// Holds the programs; locked by nobody.
    _ebpf: Mutex<Ebpf>,
}

impl Sockmap {
    /// Loads the programs, with room for `channels` of which each may have up to `queued` bytes
    /// on the way, one half before its bridge and one behind. Must be called in a runtime.
    pub fn load(channels: usize, queued: usize) -> Result<Arc<Self>, LoadError> {
        let channels = u32::try_from(channels).unwrap_or(u32::MAX);
        let loaded = load::load(channels)?;
        let (watch, watcher) = Watch::start(loaded.events, loaded.logger)?;
        Ok(Arc::new(Self {
            maps: loaded.maps,
            watch,
            _watcher: watcher,
            most_queued: queued / 2,
            no_tunnels: loaded.no_tunnels.map_or_else(OnceLock::new, OnceLock::from),
            _ebpf: Mutex::new(loaded.ebpf),
        }))
    }

    /// What the programs have counted for all channels so far, those that have ended included;
    /// never less than at an earlier call, but for [`State::redirecting`].
    pub fn totals(&self) -> State {
        self.maps.totals()
    }

    /// Puts a channel's sockets into the kernel's hands, before its host was sent anything.
    ///
    /// When that cannot be, gives them back as they were.
    pub fn enter(
        self: &Arc<Self>,
        client: TcpStream,
        host: TcpStream,
    ) -> Result<Link, (LinkError, std::io::Result<Legs>)> {
        Link::new(self, client, host)
    }

    /// Moves no tunnels from now on, for this reason.
    pub fn avoid_tunnels(&self, reason: &str) {
        // There is a reason already, or there is one now.
        let _ = self.no_tunnels.set(reason.to_owned());
    }

    /// Puts the legs of a tunnel, which has no frames, into the kernel's hands. What was read of
    /// them must go on to [`Tunnel::run`].
    ///
    /// When that cannot be, gives them back as they were.
    pub fn enter_tunnel(
        self: &Arc<Self>,
        client: TcpStream,
        host: TcpStream,
    ) -> Result<Tunnel, (LinkError, std::io::Result<Legs>)> {
        Tunnel::new(self, client, host)
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

/// How much of a new channel waits before its bridge and behind it, in bytes each, or of a tunnel's
/// downlink unsent.
fn first_queue(sockmap: &Sockmap, follows: bool) -> usize {
    if follows {
        bounds::FIRST_QUEUE.min(sockmap.most_queued)
    } else {
        sockmap.most_queued
    }
}

impl Link {
    /// Moves the channel's bytes until both sides have ended; says what ended it.
    ///
    /// `inbound` may hold what the client has sent already. `stop` ends the channel when
    /// it becomes ready, for the reason that it gives.
    pub async fn run(
        &self,
        inbound: Inbound,
        limits: Limits,
        counters: &Counters,
        stop: impl Future<Output = EndReason>,
    ) -> EndReason {
        let reason = run::run(self, inbound, limits, counters, stop).await;
        self.part().await;
        reason
    }
}
