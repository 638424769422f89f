//! A client's connection that is given up when its client takes nothing.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};
use tracing::debug;

use super::ClientStream;
use crate::datapath::sockmap::tcp_info::bytes_acknowledged;

/// A [`ClientStream`] on which HTTP is spoken. Writing, flushing and shutting down fail with
/// [`io::ErrorKind::TimedOut`] once they have waited for a time in which the client acknowledged
/// no byte.
///
/// What counts is what reaches the client, not what its socket takes here: the kernel's buffer
/// holds megabytes, which a slow line needs minutes for.
pub struct Timed {
    stream: ClientStream,
    limit: Duration,
    /// There only while something waits, as most connections never do.
    waiting: Option<Waiting>,
}

struct Waiting {
    time: Pin<Box<Sleep>>,
    /// Bytes that the client had acknowledged when this wait began.
    acknowledged: Option<u64>,
}

impl Timed {
    /// Gives a client up that takes nothing for `limit`.
    pub fn new(stream: ClientStream, limit: Duration) -> Self {
        Self {
            stream,
            limit,
            waiting: None,
        }
    }

    /// The connection, without a limit, also in the kernel.
    pub fn into_inner(self) -> ClientStream {
        let _ = SockRef::from(self.stream.tcp()).set_tcp_user_timeout(None);
        self.stream
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
            let tcp = self.stream.tcp();
            let waiting = self.waiting.get_or_insert_with(|| Waiting {
                time: Box::pin(sleep(self.limit)),
                acknowledged: bytes_acknowledged(tcp).ok(),
            });
            ready!(waiting.time.as_mut().poll(context));
            let by_now = bytes_acknowledged(tcp).ok();
            if by_now.is_none() || by_now == waiting.acknowledged {
                debug!(seconds = self.limit.as_secs(), "client takes nothing");
                // The kernel would go on to offer it what it does not take, megabytes perhaps.
                let _ = SockRef::from(tcp).set_linger(Some(Duration::ZERO));
                return Poll::Ready(Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "the client took nothing for too long",
                )));
            }
            self.waiting = None;
        }
    }
}

impl AsyncRead for Timed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Timed {
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
    use tokio::net::{TcpListener, TcpStream};

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
