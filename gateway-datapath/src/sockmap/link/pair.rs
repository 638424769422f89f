//! Pairs of sockets on this machine, and how much waits in them.

use std::io;
use std::os::fd::OwnedFd;

use rustix::net::{self, AddressFamily, SocketFlags, SocketType, sockopt};

pub(super) fn pair(kind: SocketType) -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(net::socketpair(AddressFamily::UNIX, kind, flags, None)?)
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
