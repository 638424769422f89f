//! What connections and requests are served with at this moment.

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::Gateway;
use crate::config::Config;
use crate::congestion::Congestion;
use crate::tls::Identity;

/// Everything that the configuration and its files decide, put together once and never changed:
/// a connection or a request that has it sees one configuration whole.
#[derive(Clone)]
pub struct Serving {
    /// The configuration in effect.
    pub config: Arc<Config>,
    /// What requests are served with.
    pub gateway: Arc<Gateway>,
    /// What handshakes are made with.
    pub identity: Arc<Identity>,
    /// What connections of clients are sent to with.
    pub congestion: Arc<Congestion>,
}

/// The [`Serving`] in effect; a reload puts another one in its place.
pub struct Live(ArcSwap<Serving>);

impl Live {
    /// Begins with this one.
    pub fn new(serving: Serving) -> Self {
        Self(ArcSwap::from_pointee(serving))
    }

    /// The one in effect; takes no lock.
    pub fn current(&self) -> Arc<Serving> {
        self.0.load_full()
    }

    /// Puts another one in its place, for whoever asks from now on.
    pub fn replace(&self, serving: Serving) {
        self.0.store(Arc::new(serving));
    }

    /// When the certificate that clients are shown ends, in seconds since the Unix epoch; `None`:
    /// it does not say so in a form that can be read.
    pub fn certificate_expiry(&self) -> Option<u64> {
        self.0.load().identity.certificate.not_after
    }
}
