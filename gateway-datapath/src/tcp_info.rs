//! What the kernel tells of a TCP connection: how much was sent, how much has reached the peer,
//! how far away it is.

use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::time::Duration;

/// `struct tcp_info` of include/uapi/linux/tcp.h up to what is needed (Linux 4.19).
#[derive(Clone, Copy, Default, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub(super) struct TcpInfo {
    state: u8,
    ca_state: u8,
    /// How often the timer of the segment that waits has run out.
    pub(super) retransmits: u8,
    /// Questions to a silent peer that are not answered.
    pub(super) probes: u8,
    /// How often a timer was doubled.
    pub(super) backoff: u8,
    options: [u8; 2],
    flags: u8,
    timers: [u32; 2],
    /// Bytes of a segment.
    pub(super) snd_mss: u32,
    rcv_mss: u32,
    /// Segments that were sent and not acknowledged.
    pub(super) unacked: u32,
    segments_under_way: [u32; 4],
    /// Milliseconds since, as the next three.
    pub(super) last_data_sent: u32,
    last_ack_sent: u32,
    pub(super) last_data_recv: u32,
    pub(super) last_ack_recv: u32,
    paths: [u32; 2],
    /// Microseconds.
    pub(super) rtt: u32,
    rtt_variance: [u32; 2],
    /// Segments.
    pub(super) snd_cwnd: u32,
    more_numbers: [u32; 4],
    /// Segments.
    pub(super) total_retrans: u32,
    rates: [u64; 2],
    bytes_acked: u64,
    bytes_received: u64,
    segments: [u32; 2],
    pub(super) notsent_bytes: u32,
    /// Microseconds.
    pub(super) min_rtt: u32,
    data_segments: [u32; 2],
    /// Bytes per second.
    pub(super) delivery_rate: u64,
    limits: [u64; 3],
    delivered: [u32; 2],
    pub(super) bytes_sent: u64,
    pub(super) bytes_retrans: u64,
}

const _: () = assert!(mem::offset_of!(TcpInfo, snd_mss) == 16);
const _: () = assert!(mem::offset_of!(TcpInfo, unacked) == 24);
const _: () = assert!(mem::offset_of!(TcpInfo, last_data_sent) == 44);
const _: () = assert!(mem::offset_of!(TcpInfo, last_ack_recv) == 56);
const _: () = assert!(mem::offset_of!(TcpInfo, rtt) == 68);
const _: () = assert!(mem::offset_of!(TcpInfo, snd_cwnd) == 80);
const _: () = assert!(mem::offset_of!(TcpInfo, total_retrans) == 100);
const _: () = assert!(mem::offset_of!(TcpInfo, bytes_acked) == 120);
const _: () = assert!(mem::offset_of!(TcpInfo, notsent_bytes) == 144);
const _: () = assert!(mem::offset_of!(TcpInfo, delivery_rate) == 160);
const _: () = assert!(mem::offset_of!(TcpInfo, bytes_sent) == 200);

/// `tcpi_delivery_rate_app_limited`: the first bit of `flags`, as compilers lay it out.
const APP_LIMITED: u8 = if cfg!(target_endian = "little") {
    1
} else {
    0x80
};

impl TcpInfo {
    /// There was less to send than could have been when `delivery_rate` was seen.
    pub(super) fn is_app_limited(&self) -> bool {
        self.flags & APP_LIMITED != 0
    }

    /// Bytes that were written to the socket since it was opened, sent or not.
    pub(super) fn bytes_written(&self) -> u64 {
        let sent = self.bytes_sent - self.bytes_retrans;
        sent + u64::from(self.notsent_bytes)
    }

    #[cfg(test)]
    pub(super) fn limit_by_application(&mut self) {
        self.flags = APP_LIMITED;
    }
}

/// State of a socket whose connection is gone (`include/net/tcp_states.h`).
const TCP_CLOSE: u8 = 7;

/// Bytes that were written to a TCP socket since it was opened, sent or not.
///
/// Fails when the connection is gone, and on a kernel that does not count them. Takes the
/// socket's lock: what the kernel did with the socket before is done when this returns.
pub(super) fn bytes_written(socket: impl AsFd) -> io::Result<u64> {
    Ok(read(socket)?.bytes_written())
}

/// Bytes that were written to a TCP socket and have not been sent once.
///
/// Fails as [`bytes_written`] does.
pub(super) fn bytes_unsent(socket: impl AsFd) -> io::Result<u64> {
    Ok(read(socket)?.notsent_bytes.into())
}

/// Bytes that the peer of a TCP socket has acknowledged since it was opened: those that it has
/// room for, whether its program reads them or not.
///
/// Fails as [`bytes_written`] does.
pub fn bytes_acknowledged(socket: impl AsFd) -> io::Result<u64> {
    Ok(read(socket)?.bytes_acked)
}

/// The shortest time in which a TCP socket's peer has answered, or the only one that is known;
/// zero: none is.
///
/// Fails as [`bytes_written`] does.
pub fn round_trip(socket: impl AsFd) -> io::Result<Duration> {
    let info = read(socket)?;
    let micros = if info.min_rtt == 0 || info.min_rtt == u32::MAX {
        info.rtt
    } else {
        info.min_rtt
    };
    Ok(Duration::from_micros(micros.into()))
}

/// Fails when the connection is gone, and on a kernel that tells less.
fn read(socket: impl AsFd) -> io::Result<TcpInfo> {
    read_open(socket.as_fd().as_raw_fd())
}

/// The same of a descriptor, which may be no socket any more.
pub(super) fn read_open(socket: RawFd) -> io::Result<TcpInfo> {
    let info = read_any(socket)?;
    if info.state == TCP_CLOSE {
        return Err(io::ErrorKind::NotConnected.into());
    }
    Ok(info)
}

/// Of a connection that is gone too, whose counts stay. Fails on a kernel that tells less.
pub(super) fn read_any(socket: RawFd) -> io::Result<TcpInfo> {
    let mut info = TcpInfo::default();
    let size = mem::size_of::<TcpInfo>();
    let mut len = libc::socklen_t::try_from(size).map_err(io::Error::other)?;
    #[expect(unsafe_code, reason = "no safe crate reads these fields")]
    // SAFETY: the pointers are to `info`, which takes any bytes, and to its size, and a wrong
    // descriptor is an error.
    let result = unsafe {
        libc::getsockopt(
            socket,
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &raw mut len,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    if usize::try_from(len).is_ok_and(|len| len < size) {
        return Err(io::ErrorKind::Unsupported.into());
    }
    Ok(info)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn counts_what_was_written() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert_eq!(bytes_written(&stream).unwrap(), 0);
        stream.write_all(&vec![0; 100_000]).unwrap();
        assert_eq!(bytes_written(&stream).unwrap(), 100_000);
        assert!(round_trip(&stream).unwrap() < Duration::from_secs(1));
    }
}
