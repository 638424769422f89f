//! The sockets that a channel has in the maps besides its two legs, and the way into the maps.

use std::io;
use std::net::TcpStream;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, OnceLock};

use gateway_common::layout::MAX_DATAGRAM;
use rustix::net::{SocketType, sockopt};
use tokio::io::Interest;
use tokio::sync::Notify;

use super::feed::{Bridge, Feed};
use super::pair::{pair, set_send_buffer};
use super::{Link, LinkError};
use crate::sockmap::Sockmap;
use crate::sockmap::host_socket::HostSocket;
use crate::sockmap::leg::Client;
use crate::sockmap::maps::{Cookies, EnterError, Sockets};
use crate::sockmap::registered::register;
use crate::sockmap::watch::Signal;
use crate::tcp_info;

/// Most that waits in an injector, in bytes.
const MOST_INJECTED: usize = 128 * 1024;

/// What a channel has besides its two legs; leaves the maps when dropped.
pub(super) struct Parts {
    place: Place,
    injector: OwnedFd,
    injector_out: OwnedFd,
    feed: Feed,
    written_before: u64,
    signal: Arc<Signal>,
    is_gated: bool,
}

/// A place in the maps.
struct Place {
    sockmap: Arc<Sockmap>,
    slot: u32,
    cookies: Cookies,
    taken: bool,
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.taken {
            self.sockmap.maps.remove(self.slot, self.cookies);
        }
    }
}

impl Parts {
    pub(super) fn new(
        sockmap: &Arc<Sockmap>,
        client: &TcpStream,
        host: &HostSocket,
    ) -> Result<Self, LinkError> {
        let feed = Feed::of(host, sockmap)?;
        let (injector, injector_out) = pair(SocketType::DGRAM)?;
        set_injector_buffer(&injector, feed.bridge().map_or(0, Bridge::queue))?;
        let cookies = Cookies {
            host: sockopt::socket_cookie(host).map_err(io::Error::from)?,
            bridge: feed.bridge().map(Bridge::cookie).transpose()?,
            injector: sockopt::socket_cookie(&injector).map_err(io::Error::from)?,
        };
        let written_before = tcp_info::bytes_written(client)?;
        let slot = sockmap.maps.reserve().map_err(|e| refused(&e))?;
        let place = Place {
            sockmap: Arc::clone(sockmap),
            slot,
            cookies,
            taken: true,
        };
        // What a host on a Unix socket says cannot pass, not even now.
        if matches!(feed, Feed::Host) {
            let open = sockmap.maps.set_gate(slot, feed.open_gate());
            open.map_err(io::Error::other)?;
        }
        let sockets = Sockets {
            client: client.as_fd(),
            host: host.as_fd(),
            bridge: feed.bridge().map(Bridge::ends),
            injector_out: injector_out.as_fd(),
        };
        let inserted = sockmap.maps.insert(slot, cookies, &sockets);
        inserted.map_err(|e| refused(&e))?;
        // Bytes that came before the socket entered the map are unknown to the program's count.
        // The gate then stays closed, and userspace looks for what has come.
        let is_gated = host.has_spoken()?;
        if is_gated && matches!(feed, Feed::Host) {
            return Err(LinkError::HostSpokeMeanwhile);
        }
        let signal = sockmap.watch.add(cookies.host, host, client)?;
        Ok(Self {
            place,
            injector,
            injector_out,
            feed,
            written_before,
            signal,
            is_gated,
        })
    }

    /// Takes both legs off the watch; the maps follow by themselves.
    pub(super) fn forget(&self, client: &TcpStream, host: &HostSocket) {
        let watch = &self.place.sockmap.watch;
        watch.remove(self.place.cookies.host, host, client);
    }

    pub(super) fn register(
        mut self,
        sockmap: &Arc<Sockmap>,
        client: Client,
        host: HostSocket,
    ) -> Result<Link, (io::Error, Client, HostSocket)> {
        let cookies = self.place.cookies;
        let forget = |host: &HostSocket, client: &TcpStream| {
            sockmap.watch.remove(cookies.host, host, client);
        };
        let injector = match register(self.injector, Interest::WRITABLE) {
            Ok(injector) => injector,
            Err((_, error)) => {
                forget(&host, client.socket());
                return Err((error, client, host));
            }
        };
        let host = match register(host, Interest::WRITABLE) {
            Ok(host) => host,
            Err((host, error)) => {
                forget(&host, client.socket());
                return Err((error, client, host));
            }
        };
        // From here on the kernel moves what the host sends.
        if !self.is_gated
            && let Err(error) = sockmap
                .maps
                .set_gate(self.place.slot, self.feed.open_gate())
        {
            forget(host.get_ref(), client.socket());
            return Err((io::Error::other(error), client, host.into_inner()));
        }
        self.place.taken = false;
        Ok(Link {
            sockmap: Arc::clone(sockmap),
            client,
            host,
            injector,
            injector_out: self.injector_out,
            feed: self.feed,
            cookies,
            slot: self.place.slot,
            signal: self.signal,
            is_gated: self.is_gated,
            written_before: self.written_before,
            stopped: OnceLock::new(),
            abandoned: AtomicBool::new(false),
            client_lost: AtomicBool::new(false),
            ending: Notify::new(),
            is_ending: AtomicBool::new(false),
            uplink: AtomicU64::new(0),
            uplink_that_counts: AtomicU64::new(u64::MAX),
            left: AtomicBool::new(false),
            is_lent: AtomicBool::new(false),
            owed: Mutex::default(),
            counted: Arc::default(),
        })
    }
}

fn refused(error: &EnterError) -> LinkError {
    LinkError::Maps(error.to_string())
}

/// Lets no more bytes wait in an injector than in the queue behind it: one datagram at least, as
/// the kernel doubles what it is given.
pub(super) fn set_injector_buffer(injector: &OwnedFd, queue: usize) -> io::Result<()> {
    set_send_buffer(injector, queue.clamp(MAX_DATAGRAM, MOST_INJECTED))
}
