//! Sockets of descriptors that came from elsewhere: a file or a blocking socket would stop a thread
//! instead of one channel.

use std::io;
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, SocketType, sockopt};
use tokio::net::{TcpStream, UnixStream};

use crate::state_error::StateError;

/// A TCP socket. Fails for all else.
pub(super) fn tcp(descriptor: OwnedFd) -> Result<TcpStream, StateError> {
    let families = [AddressFamily::INET, AddressFamily::INET6];
    let is_tcp = is_stream_of(&families, &descriptor)?;
    StateError::unless(is_tcp, "a descriptor that is no TCP socket")?;
    let socket = std::net::TcpStream::from(descriptor);
    socket.set_nonblocking(true)?;
    Ok(TcpStream::from_std(socket)?)
}

/// A stream socket of this machine (unix(7)). Fails for all else.
pub(super) fn unix(descriptor: OwnedFd) -> Result<UnixStream, StateError> {
    let is_unix = is_stream_of(&[AddressFamily::UNIX], &descriptor)?;
    StateError::unless(is_unix, "a descriptor that is no Unix socket")?;
    let socket = std::os::unix::net::UnixStream::from(descriptor);
    socket.set_nonblocking(true)?;
    Ok(UnixStream::from_std(socket)?)
}

fn is_stream_of(families: &[AddressFamily], descriptor: &OwnedFd) -> io::Result<bool> {
    let family = sockopt::socket_domain(descriptor)?;
    let kind = sockopt::socket_type(descriptor)?;
    Ok(families.contains(&family) && kind == SocketType::STREAM)
}
