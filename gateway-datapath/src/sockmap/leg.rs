//! The client's socket: what is read from it, and what becomes of bytes sent to it.

use std::io::{self, Read};
use std::net::TcpStream;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::ktls::KtlsStream;

/// A client's socket.
pub(super) enum Client {
    /// Frames lie in its stream as they are.
    Plain(AsyncFd<TcpStream>),
    /// The kernel makes records of them, and opens the client's.
    Tls(Box<Sealed>),
}

/// A socket whose records the kernel makes.
pub(super) struct Sealed {
    /// One more descriptor of the stream's socket.
    socket: TcpStream,
    stream: Mutex<KtlsStream>,
    /// Number of the first record that the kernel makes.
    first_record: u64,
    /// Bytes of a record besides its plaintext.
    overhead: u64,
    /// Bytes of frames that may be sent with the key.
    limit: u64,
}

impl Sealed {
    /// Nothing must have been sent yet with the kernel's key.
    pub(super) fn new(stream: KtlsStream) -> io::Result<Self> {
        Ok(Self {
            socket: stream.socket()?,
            first_record: stream.next_record()?,
            overhead: stream.suite().overhead(),
            limit: stream.limit(),
            stream: Mutex::new(stream),
        })
    }

    fn stream(&self) -> MutexGuard<'_, KtlsStream> {
        self.stream.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Client {
    /// The TCP socket.
    pub(super) fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(client) => client.get_ref(),
            Self::Tls(client) => &client.socket,
        }
    }

    /// How many bytes TCP is given for so many bytes of frames, of which all were sealed.
    pub(super) fn on_the_wire(&self, frames: u64) -> io::Result<u64> {
        match self {
            Self::Plain(_) => Ok(frames),
            Self::Tls(client) => {
                let next = client.stream().next_record()?;
                let records = next.wrapping_sub(client.first_record);
                Ok(frames + records * client.overhead)
            }
        }
    }

    /// Bytes of frames that may be sent with the key; `None`: there is none, or no limit.
    pub(super) fn limit(&self) -> Option<u64> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(client) => Some(client.limit).filter(|limit| *limit < u64::MAX),
        }
    }

    /// Reads what the client sends.
    pub(super) fn poll_read(
        &self,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let client = match self {
            Self::Plain(client) => client,
            Self::Tls(client) => return Pin::new(&mut *client.stream()).poll_read(context, buffer),
        };
        loop {
            let mut ready = ready!(client.poll_read_ready(context))?;
            let space = buffer.initialize_unfilled();
            match ready.try_io(|client| client.get_ref().read(space)) {
                Ok(Ok(len)) => {
                    buffer.advance(len);
                    return Poll::Ready(Ok(()));
                }
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_would_block) => {}
            }
        }
    }

    /// Ends the stream once everything before was taken: with `close_notify` on TLS, and a FIN.
    pub(super) fn poll_shutdown(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(client) => {
                Poll::Ready(client.get_ref().shutdown(std::net::Shutdown::Write))
            }
            Self::Tls(client) => Pin::new(&mut *client.stream()).poll_shutdown(context),
        }
    }
}
