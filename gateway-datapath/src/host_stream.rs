//! The host leg as a stream of bytes.

use std::fmt;
use std::io::{self, IoSliceMut, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use serde::{Deserialize, Serialize};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use crate::HostLeg;
use crate::received_socket;
use crate::state_error::StateError;
use crate::tls::{Role, TlsState, TlsStream};

/// A connection to a host.
pub enum HostStream {
    /// To its Spice port.
    Tcp(TcpStream),
    /// The same with TLS.
    Tls(Box<TlsStream>),
    /// To a socket on this machine (unix(7)).
    Unix(UnixStream),
}

/// What all kinds of stream do alike.
macro_rules! on_any {
    ($host:expr, $stream:ident => $call:expr) => {
        match $host {
            Self::Tcp($stream) => $call,
            Self::Tls($stream) => $call,
            Self::Unix($stream) => $call,
        }
    };
}

/// A [`HostStream`] written down: all of it but its socket.
#[derive(Clone, Serialize, Deserialize)]
pub enum HostState {
    /// There is no more to it than its socket.
    Tcp,
    /// Holds the connection's secrets.
    Tls(Box<TlsState>),
    /// There is no more to it than its socket.
    Unix,
}

impl HostStream {
    /// The user that listens on a socket of this machine, by number; `None`: that is not known.
    pub fn user(&self) -> Option<u32> {
        match self {
            Self::Tcp(_) | Self::Tls(_) => None,
            Self::Unix(unix) => unix.peer_cred().ok().map(|user| user.uid()),
        }
    }

    /// Writes it down as it stands; `None`: it is ending, and has to do so here.
    pub(crate) fn state(&self) -> Option<HostState> {
        Some(match self {
            Self::Tcp(_) => HostState::Tcp,
            Self::Tls(stream) => HostState::Tls(Box::new(stream.state()?)),
            Self::Unix(_) => HostState::Unix,
        })
    }

    /// Goes on with a connection that was written down. Fails when the state is none that
    /// [`HostStream::state`] makes, or the socket is of another kind.
    pub(crate) fn resume(socket: OwnedFd, state: HostState) -> Result<Self, StateError> {
        Ok(match state {
            HostState::Tcp => Self::Tcp(received_socket::tcp(socket)?),
            HostState::Tls(state) => {
                state.check()?;
                StateError::unless(!state.has_frame(), "frame to a host")?;
                let tcp = received_socket::tcp(socket)?;
                Self::Tls(Box::new(TlsStream::resume(tcp, *state, Role::Client)?))
            }
            HostState::Unix => Self::Unix(received_socket::unix(socket)?),
        })
    }
}

impl fmt::Debug for HostStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp(_) => "Tcp",
            Self::Tls(_) => "Tls",
            Self::Unix(_) => "Unix",
        })
    }
}

impl From<TcpStream> for HostStream {
    fn from(tcp: TcpStream) -> Self {
        Self::Tcp(tcp)
    }
}

impl AsFd for HostStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(tcp) => tcp.as_fd(),
            Self::Tls(tls) => tls.tcp().as_fd(),
            Self::Unix(unix) => unix.as_fd(),
        }
    }
}

impl AsyncRead for HostStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        on_any!(self.get_mut(), stream => Pin::new(stream).poll_read(context, buffer))
    }
}

impl AsyncWrite for HostStream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        on_any!(self.get_mut(), stream => Pin::new(stream).poll_write(context, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_any!(self.get_mut(), stream => Pin::new(stream).poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_any!(self.get_mut(), stream => Pin::new(stream).poll_shutdown(context))
    }
}

impl HostLeg for HostStream {
    fn socket(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Tcp(tcp) => HostLeg::socket(tcp),
            Self::Tls(tls) => HostLeg::socket(&**tls),
            Self::Unix(unix) => HostLeg::socket(unix),
        }
    }

    fn is_tls(&self) -> bool {
        matches!(self, Self::Tls(_))
    }

    fn poll_read_room(
        &mut self,
        context: &mut Context<'_>,
        room: &mut [IoSliceMut<'_>],
    ) -> Poll<io::Result<usize>> {
        on_any!(self, stream => stream.poll_read_room(context, room))
    }

    fn set_low_water(&self, bytes: usize) {
        on_any!(self, stream => stream.set_low_water(bytes));
    }
}

/// What a socket on this machine has no word for (acknowledgements, a low-water mark, windows)
/// is not known of it, and its host is read whenever there is something.
impl HostLeg for UnixStream {
    fn poll_read_room(
        &mut self,
        context: &mut Context<'_>,
        room: &mut [IoSliceMut<'_>],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.poll_read_ready(context))?;
            // Unlike with TCP, less than there is room for does not mean that nothing is left: a
            // read may end where a message does.
            let read = self.try_io(Interest::READABLE, || {
                (&*SockRef::from(&*self)).read_vectored(room)
            });
            match read {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => return Poll::Ready(read),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;
    use crate::probe::round_trip;

    #[tokio::test]
    async fn a_socket_of_this_machine_is_read_into_several_slices_up_to_its_end() {
        let (near, mut far) = UnixStream::pair().unwrap();
        let mut near = HostStream::Unix(near);
        assert_eq!(near.user(), Some(rustix::process::getuid().as_raw()));
        far.write_all(b"0123456789").await.unwrap();
        let mut received = Vec::new();
        loop {
            let mut bytes = [0; 8];
            let (first, second) = bytes.split_at_mut(3);
            let mut room = [IoSliceMut::new(first), IoSliceMut::new(second)];
            let read = std::future::poll_fn(|context| near.poll_read_room(context, &mut room));
            let len = read.await.unwrap();
            received.extend_from_slice(&bytes[..len]);
            match received.len() {
                8 => {}
                10 if len > 0 => far.shutdown().await.unwrap(),
                _ => break,
            }
        }
        assert_eq!(received, b"0123456789");
    }

    #[tokio::test]
    async fn a_socket_of_another_kind_is_refused() {
        let (tcp, _far) = round_trip::pair().await.unwrap();
        let (unix, _far) = UnixStream::pair().unwrap();
        let tcp = OwnedFd::from(tcp.into_std().unwrap());
        let unix = OwnedFd::from(unix.into_std().unwrap());
        let copies = [&tcp, &unix].map(|fd| fd.try_clone().unwrap());
        let [tcp_copy, unix_copy] = copies;
        assert!(HostStream::resume(tcp, HostState::Unix).is_err());
        assert!(HostStream::resume(unix, HostState::Tcp).is_err());
        assert!(HostStream::resume(tcp_copy, HostState::Tcp).is_ok());
        assert!(HostStream::resume(unix_copy, HostState::Unix).is_ok());
    }
}
