//! The host leg's socket.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::net::UnixStream;

use rustix::net::{RecvFlags, recv};

use crate::host_stream::HostStream;

/// A connection to a host that the kernel can move.
pub enum HostSocket {
    /// To its Spice port.
    Tcp(TcpStream),
    /// To a socket of this machine.
    Unix(UnixStream),
}

impl HostSocket {
    /// Reads once, whatever signals come meanwhile.
    pub(super) fn read(&self, space: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = match self {
                Self::Tcp(tcp) => (&*tcp).read(space),
                Self::Unix(unix) => (&*unix).read(space),
            };
            match read {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => return read,
            }
        }
    }

    pub(super) fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(tcp) => (&*tcp).write(bytes),
            Self::Unix(unix) => (&*unix).write(bytes),
        }
    }

    pub(super) fn shutdown_write(&self) -> io::Result<()> {
        match self {
            Self::Tcp(tcp) => tcp.shutdown(Shutdown::Write),
            Self::Unix(unix) => unix.shutdown(Shutdown::Write),
        }
    }

    /// The socket, if it is a TCP one.
    pub(super) fn tcp(&self) -> Option<&TcpStream> {
        match self {
            Self::Tcp(tcp) => Some(tcp),
            Self::Unix(_) => None,
        }
    }

    /// Whether there is something to read: bytes, or the end.
    pub(super) fn has_spoken(&self) -> io::Result<bool> {
        match self.peek() {
            Ok(_) => Ok(true),
            Err(rustix::io::Errno::AGAIN) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether there are bytes that were not read.
    pub(super) fn has_unread(&self) -> bool {
        self.peek().is_ok_and(|len| len > 0)
    }

    fn peek(&self) -> rustix::io::Result<usize> {
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        recv(self, &mut [0; 1][..], flags).map(|(len, _)| len)
    }
}

impl AsFd for HostSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(tcp) => tcp.as_fd(),
            Self::Unix(unix) => unix.as_fd(),
        }
    }
}

impl AsRawFd for HostSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl TryFrom<HostSocket> for HostStream {
    type Error = io::Error;

    /// Must be called in a runtime, which then knows the socket.
    fn try_from(socket: HostSocket) -> io::Result<Self> {
        Ok(match socket {
            HostSocket::Tcp(tcp) => Self::Tcp(tcp.try_into()?),
            HostSocket::Unix(unix) => Self::Unix(unix.try_into()?),
        })
    }
}

impl TryFrom<tokio::net::TcpStream> for HostSocket {
    type Error = io::Error;

    /// Fails when the runtime does not let it go.
    fn try_from(tcp: tokio::net::TcpStream) -> io::Result<Self> {
        Ok(Self::Tcp(tcp.into_std()?))
    }
}

impl TryFrom<tokio::net::UnixStream> for HostSocket {
    type Error = io::Error;

    /// Fails when the runtime does not let it go.
    fn try_from(unix: tokio::net::UnixStream) -> io::Result<Self> {
        Ok(Self::Unix(unix.into_std()?))
    }
}
