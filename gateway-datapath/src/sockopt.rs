//! Options of sockets (socket(7)) that no library of the gateway sets.
#![expect(unsafe_code, reason = "setsockopt")]

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

/// Has the kernel call a socket readable only once `bytes` bytes have come, or its end; bytes
/// that wait already are told of at once (`tcp_set_rcvlowat` in net/ipv4/tcp.c).
pub(super) fn set_low_water(socket: &impl AsFd, bytes: usize) -> io::Result<()> {
    let value = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
    set(socket, libc::SOL_SOCKET, libc::SO_RCVLOWAT, value)
}

/// Lets the kernel find the sizes of a socket's buffers by itself again after one was set (kernel
/// commit 04190bf8944d, "sock: allow reading and changing `sk_userlocks` with setsockopt", 5.15).
pub(super) fn free_buffers(socket: &impl AsFd) -> io::Result<()> {
    set(socket, libc::SOL_SOCKET, libc::SO_BUF_LOCK, 0)
}

/// Lets a socket offer a window of up to `bytes` again after its receive buffer was smaller
/// (`tcp_measure_rcv_mss`, `net/ipv4/tcp_input.c`, lowers that limit and never raises it).
pub(super) fn set_window_clamp(socket: &impl AsFd, bytes: usize) -> io::Result<()> {
    let value = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
    set(socket, libc::IPPROTO_TCP, libc::TCP_WINDOW_CLAMP, value)
}

/// `TCP_RTO_MAX_MS` of include/uapi/linux/tcp.h (kernel commit 54a378f43425, "tcp: add the ability
/// to control max RTO", 6.15).
const TCP_RTO_MAX_MS: libc::c_int = 44;

/// Has the kernel wait for at most `pause` before it repeats what is not acknowledged, or asks for
/// a window again: 1 to 120 s, which is what it does by itself (`tcp_rto_max`, include/net/tcp.h).
///
/// Fails with `ENOPROTOOPT` on kernels that do not have it.
pub(super) fn set_longest_pause(socket: &impl AsFd, pause: Duration) -> io::Result<()> {
    let value = libc::c_int::try_from(pause.as_millis()).unwrap_or(libc::c_int::MAX);
    set(socket, libc::IPPROTO_TCP, TCP_RTO_MAX_MS, value)
}

fn set(
    socket: &impl AsFd,
    level: libc::c_int,
    name: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    let length = libc::socklen_t::try_from(size_of_val(&value)).unwrap_or_default();
    // SAFETY: the descriptor is borrowed and so open, and the kernel only reads `length` bytes of
    // `value`, which lives until the call returns.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            name,
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
