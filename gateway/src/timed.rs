//! Connections that are given up when their peers take nothing.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Sleep, sleep};
use tracing::debug;

use gateway_datapath::ClientStream;
use gateway_datapath::tcp_info::bytes_acknowledged;

/// A connection of which it can be told how much its peer has taken.
pub trait Peer: AsyncRead + AsyncWrite + Unpin {
    /// Bytes that the peer has acknowledged; `None`: nobody counts them, or it is gone.
    fn acknowledged(&self) -> Option<u64>;

    /// Drops what the peer has not taken, once this is closed.
    fn drop_unsent(&self);
}

impl Peer for TcpStream {
    fn acknowledged(&self) -> Option<u64> {
        bytes_acknowledged(self).ok()
    }

    fn drop_unsent(&self) {
        // The kernel would go on to offer it what it does not take, megabytes perhaps.
        let _ = SockRef::from(self).set_linger(Some(Duration::ZERO));
    }
}

impl Peer for ClientStream {
    fn acknowledged(&self) -> Option<u64> {
        self.tcp().acknowledged()
    }

    fn drop_unsent(&self) {
        self.tcp().drop_unsent();
    }
}

/// What the peer has not taken of it is in its own queue.
impl Peer for UnixStream {
    fn acknowledged(&self) -> Option<u64> {
        None
    }

    fn drop_unsent(&self) {}
}

/// A connection on which HTTP is spoken. Writing, flushing and shutting down fail with
/// [`io::ErrorKind::TimedOut`] once they have waited for a time in which the peer took no byte.
///
/// What counts is what reaches the peer, where that is known, not what its socket takes here: the
/// kernel's buffer holds megabytes, which a slow line needs minutes for.
pub struct Timed<S = ClientStream> {
    stream: S,
    limit: Duration,
    /// There only while something waits, as most connections never do.
    waiting: Option<Waiting>,
}

struct Waiting {
    time: Pin<Box<Sleep>>,
    /// Bytes that the peer had acknowledged when this wait began.
    acknowledged: Option<u64>,
}

impl Timed {
    /// The connection, without a limit, also in the kernel.
    pub fn into_inner(self) -> ClientStream {
        let _ = SockRef::from(self.stream.tcp()).set_tcp_user_timeout(None);
        self.stream
    }
}

impl<S: Peer> Timed<S> {
    /// Gives a peer up that takes nothing for `limit`.
    pub fn new(stream: S, limit: Duration) -> Self {
        Self {
            stream,
            limit,
            waiting: None,
        }
    }

    /// Passes on what writing has come to, or that it has taken too long.
    fn watch<T>(
        &mut self,
        context: &mut Context<'_>,
        polled: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.waiting = None;
            return polled;
        }
        loop {
            let stream = &self.stream;
            let waiting = self.waiting.get_or_insert_with(|| Waiting {
                time: Box::pin(sleep(self.limit)),
                acknowledged: stream.acknowledged(),
            });
            ready!(waiting.time.as_mut().poll(context));
            let by_now = stream.acknowledged();
            if by_now.is_none() || by_now == waiting.acknowledged {
                debug!(seconds = self.limit.as_secs(), "peer takes nothing");
                stream.drop_unsent();
                return Poll::Ready(Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "the peer took nothing for too long",
                )));
            }
            self.waiting = None;
        }
    }
}

impl<S: Peer> AsyncRead for Timed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: Peer> AsyncWrite for Timed<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.watch(context, polled)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(context);
        self.watch(context, polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_shutdown(context);
        self.watch(context, polled)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// Longer than a busy machine keeps a test waiting.
    const LIMIT: Duration = Duration::from_secs(1);

    async fn pair() -> (TcpStream, Timed) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
        let near = near.unwrap();
        SockRef::from(&near).set_recv_buffer_size(16_384).unwrap();
        (near, Timed::new(ClientStream::Plain(far.unwrap().0), LIMIT))
    }

    #[tokio::test]
    async fn a_client_that_takes_nothing_is_given_up() {
        let (mut client, mut timed) = pair().await;
        let begun = Instant::now();
        let error = timed.write_all(&vec![0; 32 << 20]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(begun.elapsed() >= LIMIT);
        // What the kernel still holds is dropped.
        drop(timed);
        let mut rest = Vec::new();
        let error = client.read_to_end(&mut rest).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }

    /// Several times the limit passes before the socket takes more, while bytes arrive.
    #[tokio::test]
    async fn a_slow_client_is_served_for_as_long_as_it_takes_anything() {
        let (mut client, mut timed) = pair().await;
        let bytes = vec![7; 1 << 20];
        let length = bytes.len();
        let writing = tokio::spawn(async move {
            timed.write_all(&bytes).await?;
            timed.shutdown().await
        });
        let begun = Instant::now();
        let (mut taken, mut piece) = (0, vec![0; 8_192]);
        while taken < length {
            taken += client.read(&mut piece).await.unwrap();
            if begun.elapsed() < 3 * LIMIT {
                tokio::time::sleep(LIMIT / 10).await;
            }
        }
        writing.await.unwrap().unwrap();
    }
}
