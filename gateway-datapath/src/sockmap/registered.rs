//! Descriptors registered with the runtime.

use std::io;
use std::os::fd::AsRawFd;

use aya::maps::{MapData, RingBuf};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::host_socket::HostSocket;
use super::logger::Logger;

/// What owns its descriptor: it has one and the same until it is dropped.
pub(super) trait Owner: AsRawFd {}

impl Owner for std::os::fd::OwnedFd {}
impl Owner for std::net::TcpStream {}
impl Owner for HostSocket {}
impl Owner for RingBuf<MapData> {}
impl Owner for Logger {}

/// Registers a descriptor with the runtime that this is called in; gives it back when that fails.
pub(super) fn register<T: Owner>(
    inner: T,
    interest: Interest,
) -> Result<AsyncFd<T>, (T, io::Error)> {
    #[expect(
        unsafe_code,
        reason = "the runtime's only way to register any descriptor"
    )]
    // SAFETY: an `Owner` keeps its descriptor open and the same for as long as it lives.
    let registered = unsafe { AsyncFd::register_with_interest(inner, interest) };
    registered.map_err(tokio::io::unix::AsyncFdRegisterError::into_parts)
}
