//! The sockets that a channel has in the maps besides its two legs, and the way into the maps.

use std::io;
use std::net::TcpStream;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};

use gateway_common::layout::{Gate, MAX_DATAGRAM};
use rustix::net::{self, AddressFamily, RecvFlags, SocketFlags, SocketType, sockopt};
use tokio::io::Interest;
use tokio::sync::Notify;

use super::{Link, LinkError};
use crate::sockmap::Sockmap;
use crate::sockmap::leg::Client;
use crate::sockmap::maps::{Cookies, EnterError, Sockets};
use crate::sockmap::registered::register;
use crate::sockmap::watch::Signal;
use crate::{bounds, tcp_info};

/// Most that waits in an injector, in bytes.
const MOST_INJECTED: usize = 128 * 1024;

/// What a channel has besides its two legs; leaves the maps when dropped.
pub(super) struct Parts {
    place: Place,
    injector: OwnedFd,
    held: [OwnedFd; 3],
    written_before: u64,
    signal: Arc<Signal>,
    is_gated: bool,
    follows: bool,
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
        host: &TcpStream,
    ) -> Result<Self, LinkError> {
        let (bridge, bridge_out) = pair(SocketType::STREAM)?;
        let (injector, injector_out) = pair(SocketType::DGRAM)?;
        // The kernel's worker waits a tick of its clock whenever this is full.
        let follows = bounds::is_near(host);
        let queue = first_queue(sockmap, follows);
        set_send_buffer(&bridge, queue)?;
        set_injector_buffer(&injector, queue)?;
        let cookies = Cookies {
            host: sockopt::socket_cookie(host).map_err(io::Error::from)?,
            bridge: sockopt::socket_cookie(&bridge).map_err(io::Error::from)?,
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
        let sockets = Sockets {
            client: client.as_fd(),
            host: host.as_fd(),
            bridge: bridge.as_fd(),
            bridge_out: bridge_out.as_fd(),
            injector_out: injector_out.as_fd(),
        };
        let inserted = sockmap.maps.insert(slot, cookies, &sockets);
        inserted.map_err(|e| refused(&e))?;
        // Bytes that came before the socket entered the map are unknown to the program's count.
        // The gate then stays closed, and userspace looks for what has come.
        let is_gated = has_spoken(host)?;
        let signal = sockmap.watch.add(cookies.host, host, client)?;
        Ok(Self {
            place,
            injector,
            held: [bridge, bridge_out, injector_out],
            written_before,
            signal,
            is_gated,
            follows,
        })
    }

    /// Takes both legs off the watch; the maps follow by themselves.
    pub(super) fn forget(&self, client: &TcpStream, host: &TcpStream) {
        let watch = &self.place.sockmap.watch;
        watch.remove(self.place.cookies.host, host, client);
    }

    pub(super) fn register(
        mut self,
        sockmap: &Arc<Sockmap>,
        client: Client,
        host: TcpStream,
    ) -> Result<Link, (io::Error, Client, TcpStream)> {
        let cookies = self.place.cookies;
        let forget = |host: &TcpStream, client: &TcpStream| {
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
        let queue = first_queue(sockmap, self.follows);
        let open = Gate {
            forwarded: 0,
            limit: queue as u64,
        };
        // From here on the kernel moves what the host sends.
        if !self.is_gated
            && let Err(error) = sockmap.maps.set_gate(self.place.slot, open)
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
            held: self.held,
            queue: AtomicUsize::new(queue),
            cookies,
            slot: self.place.slot,
            signal: self.signal,
            is_gated: self.is_gated,
            follows: self.follows,
            written_before: self.written_before,
            stopped: AtomicBool::new(false),
            abandoned: AtomicBool::new(false),
            client_lost: AtomicBool::new(false),
            ending: Notify::new(),
            uplink: AtomicU64::new(0),
            uplink_that_counts: AtomicU64::new(u64::MAX),
            left: AtomicBool::new(false),
        })
    }
}

fn refused(error: &EnterError) -> LinkError {
    LinkError::Maps(error.to_string())
}

fn pair(kind: SocketType) -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(net::socketpair(AddressFamily::UNIX, kind, flags, None)?)
}

/// How much of a new channel waits before its bridge and behind it, in bytes each.
fn first_queue(sockmap: &Sockmap, follows: bool) -> usize {
    if follows {
        bounds::FIRST_QUEUE.min(sockmap.most_queued)
    } else {
        sockmap.most_queued
    }
}

/// Beyond the limit that is meant for processes without `CAP_NET_ADMIN`, if this one has it.
pub(super) fn set_send_buffer(socket: &OwnedFd, bytes: usize) -> io::Result<()> {
    let set = match sockopt::set_socket_send_buffer_size_force(socket, bytes) {
        Err(rustix::io::Errno::PERM) => sockopt::set_socket_send_buffer_size(socket, bytes),
        set => set,
    };
    Ok(set?)
}

/// The longest queue up to this one, in bytes, that send buffers of this process have room for:
/// `net.core.wmem_max` holds for all without `CAP_NET_ADMIN`.
pub(in crate::sockmap) fn longest_queue(wanted: usize) -> io::Result<usize> {
    let (socket, _) = pair(SocketType::STREAM)?;
    set_send_buffer(&socket, wanted)?;
    // The kernel doubles what it is given.
    let given = sockopt::socket_send_buffer_size(&socket)? / 2;
    Ok(wanted.min(given))
}

/// Lets no more bytes wait in an injector than in the queue behind it: one datagram at least, as
/// the kernel doubles what it is given.
pub(super) fn set_injector_buffer(injector: &OwnedFd, queue: usize) -> io::Result<()> {
    set_send_buffer(injector, queue.clamp(MAX_DATAGRAM, MOST_INJECTED))
}

/// Whether there is something to read.
pub(super) fn has_spoken(host: &TcpStream) -> io::Result<bool> {
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
    match net::recv(host, &mut [0; 1][..], flags) {
        // An end by now is for the relay to see.
        Ok(_) => Ok(true),
        Err(rustix::io::Errno::AGAIN) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
