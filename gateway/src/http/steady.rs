//! A body that is given up when nothing comes of it.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use tokio::time::{Sleep, sleep};

/// Why a body is not whole.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// Its connection broke, or what came is no HTTP.
    #[error(transparent)]
    Http(#[from] hyper::Error),
    /// Nothing came although somebody waited for it.
    #[error("nothing came for {} s", .0.as_secs())]
    Stalled(Duration),
}

/// A body that fails once it has been waited for, for a time in which nothing came. Time in which
/// nobody asks for more does not count.
pub struct Steady<B = Incoming> {
    body: B,
    limit: Duration,
    /// There only while somebody waits.
    waiting: Option<Pin<Box<Sleep>>>,
}

impl<B> Steady<B> {
    /// Waits for each part of `body` at most for `limit`.
    pub fn new(body: B, limit: Duration) -> Self {
        Self {
            body,
            limit,
            waiting: None,
        }
    }
}

impl<B> HttpBody for Steady<B>
where
    B: HttpBody<Data = Bytes> + Unpin,
    BodyError: From<B::Error>,
{
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(context) {
            this.waiting = None;
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let limit = this.limit;
        let waiting = this.waiting.get_or_insert_with(|| Box::pin(sleep(limit)));
        waiting
            .as_mut()
            .poll(context)
            .map(|()| Some(Err(BodyError::Stalled(limit))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http_body_util::BodyExt;
    use tokio::sync::mpsc;
    use tokio::time::Instant;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    impl From<Infallible> for BodyError {
        fn from(never: Infallible) -> Self {
            match never {}
        }
    }

    struct Pieces(mpsc::Receiver<&'static str>);

    impl HttpBody for Pieces {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            let piece = self.0.poll_recv(context);
            piece.map(|piece| piece.map(|piece| Ok(Frame::data(piece.into()))))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn only_waiting_without_progress_counts() {
        let (sender, pieces) = mpsc::channel(1);
        let mut body = Steady::new(Pieces(pieces), LIMIT);
        let begun = Instant::now();
        for _ in 0..3 {
            let (frame, _) = tokio::join!(body.frame(), async {
                tokio::time::sleep(LIMIT * 9 / 10).await;
                sender.send("piece").await
            });
            assert!(frame.unwrap().is_ok());
            // Nobody asks for more; meanwhile the next piece comes.
            tokio::time::sleep(LIMIT * 2).await;
            sender.send("waits").await.unwrap();
            assert!(body.frame().await.unwrap().is_ok());
        }
        let waiting = Instant::now();
        let error = body.frame().await.unwrap().unwrap_err();
        assert!(matches!(error, BodyError::Stalled(_)), "{error}");
        assert_eq!(waiting.elapsed(), LIMIT);
        assert!(begun.elapsed() > LIMIT * 8);
    }
}
