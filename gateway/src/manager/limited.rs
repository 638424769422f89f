//! A way to connect that has a limit on time for all of it: name, TCP and TLS.

use std::error::Error;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use tokio::time::timeout;
use tower_service::Service;

/// Gives a connection up that is not there in time. Whoever asked for it may be gone before: a
/// connection that has begun goes on for the next request.
#[derive(Clone)]
pub(super) struct Limited<C> {
    connector: C,
    limit: Duration,
}

impl<C> Limited<C> {
    pub(super) fn new(connector: C, limit: Duration) -> Self {
        Self { connector, limit }
    }
}

type BoxError = Box<dyn Error + Send + Sync>;

impl<C> Service<Uri> for Limited<C>
where
    C: Service<Uri, Error: Into<BoxError>, Future: Send + 'static>,
{
    type Response = C::Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<C::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.connector.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connect = timeout(self.limit, self.connector.call(uri));
        Box::pin(async move {
            match connect.await {
                Ok(connected) => connected.map_err(Into::into),
                Err(_) => Err(io::Error::from(io::ErrorKind::TimedOut).into()),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Never connects.
    #[derive(Clone)]
    struct Hangs;

    impl Service<Uri> for Hangs {
        type Response = ();
        type Error = io::Error;
        type Future = std::future::Pending<io::Result<()>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: Uri) -> Self::Future {
            std::future::pending()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_does_not_finish_its_handshake_is_given_up() {
        let mut limited = Limited::new(Hangs, Duration::from_secs(30));
        let error = limited.call(Uri::from_static("https://manager")).await;
        let error = error.unwrap_err().downcast::<io::Error>().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
