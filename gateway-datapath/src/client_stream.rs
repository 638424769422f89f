//! The client leg as a stream of plaintext.

use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll};

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::ClientLeg;
use crate::buffer::Layout;
use crate::state_error::StateError;
use crate::tls::{Role, TlsState, TlsStream};

/// A client's connection, whether TLS ends here or before.
pub enum ClientStream {
    /// Plaintext from a reverse proxy.
    Plain(TcpStream),
    /// TLS from the client itself.
    Tls(Box<TlsStream>),
}

impl ClientStream {
    /// The TCP socket, to be asked and not to be read.
    pub fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(tls) => tls.tcp(),
        }
    }

    /// Waits until there is something to be read, or the client has ended. Takes no memory for
    /// that; what is there may be less than reading waits for.
    pub async fn input(&mut self) -> io::Result<()> {
        match self {
            Self::Tls(tls) if tls.has_received() => Ok(()),
            // That the socket could be read is known of what the handshake has read already, so it
            // is asked.
            _ => self.tcp().peek(&mut [0]).await.map(drop),
        }
    }
}

/// What both kinds of stream do alike.
macro_rules! on_either {
    ($client:expr, $stream:ident => $call:expr) => {
        match $client {
            Self::Plain($stream) => $call,
            Self::Tls($stream) => $call,
        }
    };
}

/// A [`ClientStream`] written down: all of it but its socket.
#[derive(Clone, Serialize, Deserialize)]
pub enum ClientState {
    /// There is no more to it than its socket.
    Plain,
    /// Holds the connection's secrets.
    Tls(Box<TlsState>),
}

impl ClientStream {
    /// Writes it down as it stands; `None`: it is ending, and has to do so here.
    pub fn state(&self) -> Option<ClientState> {
        match self {
            Self::Plain(_) => Some(ClientState::Plain),
            Self::Tls(stream) => stream
                .state()
                .map(|state| ClientState::Tls(Box::new(state))),
        }
    }

    /// Goes on with a connection that was written down. Fails when the state is none that
    /// [`ClientStream::state`] makes.
    pub fn resume(tcp: TcpStream, state: ClientState) -> Result<Self, StateError> {
        Ok(match state {
            ClientState::Plain => Self::Plain(tcp),
            ClientState::Tls(state) => {
                state.check()?;
                Self::Tls(Box::new(TlsStream::resume(tcp, *state, Role::Server)?))
            }
        })
    }

    /// How much is still to be sent of a frame whose records were made already, in bytes; `None`
    /// without records.
    pub(crate) fn unsent(&self) -> Option<usize> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(stream) => Some(stream.unsent()),
        }
    }

    /// The socket below.
    pub fn socket(&self) -> BorrowedFd<'_> {
        match self {
            Self::Plain(tcp) => tcp.as_fd(),
            Self::Tls(stream) => stream.socket(),
        }
    }
}

impl AsyncRead for ClientStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        on_either!(self.get_mut(), stream => Pin::new(stream).poll_read(context, buffer))
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        on_either!(self.get_mut(), stream => Pin::new(stream).poll_write(context, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_either!(self.get_mut(), stream => Pin::new(stream).poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_either!(self.get_mut(), stream => Pin::new(stream).poll_shutdown(context))
    }
}

impl ClientLeg for ClientStream {
    fn socket(&self) -> Option<BorrowedFd<'_>> {
        Some(Self::socket(self))
    }

    fn layout(&self) -> Layout {
        on_either!(self, stream => stream.layout())
    }

    fn poll_protect(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut [u8],
        skipped: usize,
        len: usize,
    ) -> Poll<io::Result<Range<usize>>> {
        on_either!(self, stream => stream.poll_protect(context, buffer, skipped, len))
    }

    fn poll_send(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        on_either!(self, stream => stream.poll_send(context, bytes))
    }
}
