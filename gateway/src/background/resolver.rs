//! The system's resolver for clients of HTTP.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::client::legacy::connect::dns::Name;
use tower_service::Service;

use super::places::Places;
use super::resolve::{ResolveError, resolve};

/// The system's resolver.
#[derive(Clone)]
pub struct Resolver {
    places: &'static Places,
    wait: Duration,
}

impl Resolver {
    /// `wait`: longest wait for a thread among `places`.
    pub fn new(places: &'static Places, wait: Duration) -> Self {
        Self { places, wait }
    }
}

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = ResolveError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let (places, wait) = (self.places, self.wait);
        Box::pin(async move {
            let found = resolve(places, name.as_str(), 0, wait).await?;
            Ok(found.into_iter())
        })
    }
}
