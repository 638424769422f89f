//! `SO_RCVLOWAT` (socket(7)), which no library of the gateway sets.
#![expect(unsafe_code, reason = "setsockopt")]

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Has the kernel call a socket readable only once `bytes` bytes have come, or its end; bytes
/// that wait already are told of at once (`tcp_set_rcvlowat` in net/ipv4/tcp.c).
pub(super) fn set(socket: &impl AsFd, bytes: usize) -> io::Result<()> {
    let value = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
    let length = libc::socklen_t::try_from(size_of_val(&value)).unwrap_or_default();
    // SAFETY: the descriptor is borrowed and so open, and the kernel only reads `length` bytes of
    // `value`, which lives until the call returns.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVLOWAT,
            (&raw const value).cast(),
            length,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
