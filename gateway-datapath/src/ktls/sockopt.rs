//! What Linux offers for TLS on a TCP socket (Documentation/networking/tls.rst), which no library
//! of the gateway wraps.
#![expect(unsafe_code, reason = "setsockopt, getsockopt, sendmsg and recvmsg")]

use std::ffi::c_int;
use std::io;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsFd, AsRawFd};
use std::ptr;

use zeroize::Zeroizing;

// linux/tls.h, linux/sock_diag.h
const TLS_TX: c_int = 1;
const TLS_RX: c_int = 2;
const TLS_SET_RECORD_TYPE: c_int = 1;
const TLS_GET_RECORD_TYPE: c_int = 2;
const SK_MEMINFO_SNDBUF: usize = 3;
const SK_MEMINFO_WMEM_QUEUED: usize = 5;
const SK_MEMINFO_VARS: usize = 9;
/// Longer than any structure with a key, in bytes.
const MAX_INFO: usize = 64;

/// Which way a key is for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Direction {
    /// Records that are sent.
    Transmit,
    /// Records that are received.
    Receive,
}

/// What a read has brought.
#[derive(Clone, Copy, Debug)]
pub(super) struct Received {
    /// Content type of the records (RFC 8446, section 5.1); `None`: there was no record.
    pub(super) kind: Option<u8>,
    /// Bytes of their plaintext.
    pub(super) len: usize,
}

/// Gives a TCP socket the upper layer protocol "tls". Without keys it goes on as before.
pub(super) fn attach(socket: &impl AsFd) -> io::Result<()> {
    set(socket, libc::SOL_TCP, libc::TCP_ULP, b"tls")
}

/// Hands over the key of one direction, as one of the structures `tls12_crypto_info_*`.
pub(super) fn set_key(socket: &impl AsFd, direction: Direction, info: &[u8]) -> io::Result<()> {
    let name = match direction {
        Direction::Transmit => TLS_TX,
        Direction::Receive => TLS_RX,
    };
    set(socket, libc::SOL_TLS, name, info)
}

fn set(socket: &impl AsFd, level: c_int, name: c_int, value: &[u8]) -> io::Result<()> {
    let length = libc::socklen_t::try_from(value.len()).unwrap_or(libc::socklen_t::MAX);
    // SAFETY: the descriptor is borrowed and so open, and the kernel only reads `length` bytes of
    // `value`, which is as long.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            name,
            value.as_ptr().cast(),
            length,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Number of the next record that is sent; `info_len` is the length of the key's structure, in
/// which it stands last.
pub(super) fn next_record(socket: &impl AsFd, info_len: usize) -> io::Result<u64> {
    // What comes has a key in it.
    let mut info = Zeroizing::new([0_u8; MAX_INFO]);
    // The kernel refuses every other length.
    let mut length = libc::socklen_t::try_from(info_len.min(MAX_INFO)).unwrap_or_default();
    // SAFETY: the descriptor is borrowed and so open, and the kernel writes at most `length`
    // bytes, which is at most the size of `info`.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_TLS,
            TLS_TX,
            info.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    let number = info[..info_len.min(MAX_INFO)].last_chunk().copied();
    number
        .map(u64::from_be_bytes)
        .ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// How many bytes of memory are free in the socket's send buffer; `None`: all of it.
pub(super) fn send_room(socket: &impl AsFd) -> io::Result<Option<u32>> {
    let mut values = [0_u32; SK_MEMINFO_VARS];
    let mut length = libc::socklen_t::try_from(size_of_val(&values)).unwrap_or_default();
    // SAFETY: the descriptor is borrowed and so open, and the kernel writes at most `length`
    // bytes, which is the size of `values`.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            values.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    let queued = values[SK_MEMINFO_WMEM_QUEUED];
    Ok((queued > 0).then(|| values[SK_MEMINFO_SNDBUF].saturating_sub(queued)))
}

/// Room for one control message with one byte, aligned as its header must be.
#[repr(C)]
union Control {
    _header: libc::cmsghdr,
    bytes: [u8; 64],
}

/// A message of one buffer with room for control messages; what it points to must outlive it.
fn message(buffer: &mut libc::iovec, control: &mut Control, len: usize) -> libc::msghdr {
    // SAFETY: a msghdr consists of numbers and pointers, for which zero is a value.
    let mut message: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    message.msg_iov = ptr::from_mut(buffer);
    message.msg_iovlen = 1;
    message.msg_control = ptr::from_mut(control).cast();
    message.msg_controllen = len;
    message
}

/// Reads plaintext of records of one kind, without waiting.
pub(super) fn receive(socket: &impl AsFd, space: &mut [u8]) -> io::Result<Received> {
    let mut buffer = libc::iovec {
        iov_base: space.as_mut_ptr().cast(),
        iov_len: space.len(),
    };
    let mut control = Control { bytes: [0; 64] };
    let mut message = message(&mut buffer, &mut control, size_of::<Control>());
    // SAFETY: the descriptor is borrowed and so open; the message points to `space` and `control`
    // with their lengths, which are borrowed mutably until the call returns.
    let result = unsafe {
        libc::recvmsg(
            socket.as_fd().as_raw_fd(),
            &raw mut message,
            libc::MSG_DONTWAIT,
        )
    };
    let len = usize::try_from(result).map_err(|_| io::Error::last_os_error())?;
    // SAFETY: the kernel has set the length of what it has written to `control`, which is still
    // there; the macros of libc stay inside it, and a header they return is aligned and written.
    let kind = unsafe {
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        header
            .as_ref()
            .filter(|found| {
                found.cmsg_level == libc::SOL_TLS && found.cmsg_type == TLS_GET_RECORD_TYPE
            })
            .map(|_| libc::CMSG_DATA(header).read())
    };
    Ok(Received { kind, len })
}

/// Sends a record of this content type, without waiting; it is taken whole or not at all.
pub(super) fn send_record(socket: &impl AsFd, kind: u8, plaintext: &[u8]) -> io::Result<usize> {
    let mut buffer = libc::iovec {
        iov_base: plaintext.as_ptr().cast_mut().cast(),
        iov_len: plaintext.len(),
    };
    let mut control = Control { bytes: [0; 64] };
    // SAFETY: these two only compute lengths.
    let (space, length) = unsafe { (libc::CMSG_SPACE(1), libc::CMSG_LEN(1)) };
    let message = message(&mut buffer, &mut control, space as usize);
    // SAFETY: `control` is longer than CMSG_SPACE(1), aligned for a header and borrowed mutably;
    // so there is a first header, with one byte of data behind it.
    unsafe {
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        (*header).cmsg_level = libc::SOL_TLS;
        (*header).cmsg_type = TLS_SET_RECORD_TYPE;
        (*header).cmsg_len = length as usize;
        libc::CMSG_DATA(header).write(kind);
    }
    // SAFETY: the descriptor is borrowed and so open; the kernel only reads what the message
    // points to, which lives until the call returns.
    let result = unsafe {
        libc::sendmsg(
            socket.as_fd().as_raw_fd(),
            &raw const message,
            libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
        )
    };
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}
