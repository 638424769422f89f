//! The end of a connection on which something was wrong.
//!
//! A socket that is closed with unread bytes resets the connection (RFC 2525, section 2.17), and
//! the client may lose what it was told last. So what comes is read for a while.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;

/// How long the client has to end its side, in time and in bytes that it still sends.
const LIMIT: Duration = Duration::from_secs(1);
const MOST: usize = 1 << 20;

/// The wait for the client's end.
pub(super) struct Ending {
    limit: Pin<Box<Sleep>>,
    left: usize,
    is_shut: bool,
}

impl Ending {
    pub(super) fn begin() -> Self {
        Self {
            limit: Box::pin(tokio::time::sleep(LIMIT)),
            left: MOST,
            is_shut: false,
        }
    }

    /// Ready when the time is over, whatever was sent until then.
    pub(super) fn poll_limit(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.limit.as_mut().poll(context)
    }

    /// Ends our side, for everything was sent; ready when the socket may be closed.
    pub(super) fn poll(&mut self, context: &mut Context<'_>, tcp: &mut TcpStream) -> Poll<()> {
        if !self.is_shut {
            self.is_shut = true;
            if ready!(Pin::new(&mut *tcp).poll_shutdown(context)).is_err() {
                return Poll::Ready(());
            }
        }
        let mut space = [0; 4_096];
        while self.left > 0 {
            let mut space = ReadBuf::new(&mut space);
            match Pin::new(&mut *tcp).poll_read(context, &mut space) {
                Poll::Ready(Ok(())) if !space.filled().is_empty() => {
                    self.left = self.left.saturating_sub(space.filled().len());
                }
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return self.poll_limit(context),
            }
        }
        Poll::Ready(())
    }
}

/// Ends a connection, for everything was sent.
pub(super) async fn end(tcp: &mut TcpStream) {
    let mut ending = Ending::begin();
    poll_fn(|context| ending.poll(context, tcp)).await;
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;
    use crate::probe::round_trip;

    async fn pair() -> (TcpStream, TcpStream) {
        round_trip::pair().await.unwrap()
    }

    #[tokio::test]
    async fn a_client_that_does_not_end_its_side_is_left() {
        let (_silent, mut tcp) = pair().await;
        end(&mut tcp).await;
        let (mut talks, mut tcp) = pair().await;
        let bytes = vec![0; MOST];
        let talking = async { while talks.write_all(&bytes).await.is_ok() {} };
        tokio::join!(talking, async {
            end(&mut tcp).await;
            drop(tcp);
        });
    }
}
