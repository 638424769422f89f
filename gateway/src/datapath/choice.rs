//! Which data path a channel takes, and what is counted when it is not the wanted one.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::net::TcpStream;
use tracing::warn;

use super::sockmap::{Link, Sockmap};
use super::{Counters, EndReason, Inbound, Limits, relay};
use crate::listen::ClientStream;

/// The data paths that can be had, and which is wanted.
#[derive(Default)]
pub struct Paths {
    /// `None`: every channel uses `relay`.
    sockmap: Option<Arc<Sockmap>>,
    fallbacks: Mutex<BTreeMap<&'static str, u64>>,
}

/// A channel's two legs on the data path that moves them.
pub enum Carrier {
    /// Userspace copies.
    Relay(Box<ClientStream>, TcpStream),
    /// The kernel moves the downlink.
    Sockmap(Box<Link>),
}

impl Paths {
    /// With `sockmap` for plaintext client legs.
    pub fn with_sockmap(sockmap: Arc<Sockmap>) -> Self {
        Self {
            sockmap: Some(sockmap),
            ..Self::default()
        }
    }

    /// Takes the wanted data path or, where that cannot be, `relay`. Nothing must have been sent
    /// to the host yet.
    ///
    /// Fails only when the system cannot register the sockets any more.
    pub fn take(&self, client: Box<ClientStream>, host: TcpStream) -> io::Result<Carrier> {
        let Some(sockmap) = &self.sockmap else {
            return Ok(Carrier::Relay(client, host));
        };
        let tcp = match *client {
            ClientStream::Plain(tcp) => tcp,
            tls @ ClientStream::Tls(_) => {
                self.fall_back(
                    "TLS client leg",
                    &"sockmap moves plaintext client legs only",
                );
                return Ok(Carrier::Relay(Box::new(tls), host));
            }
        };
        match sockmap.enter(tcp, host) {
            Ok(link) => Ok(Carrier::Sockmap(Box::new(link))),
            Err((refusal, legs)) => {
                self.fall_back(refusal.name(), &refusal);
                let (client, host) = legs?;
                let client = Box::new(ClientStream::Plain(client));
                Ok(Carrier::Relay(client, host))
            }
        }
    }

    /// Counts a reason, and tells it the first time.
    fn fall_back(&self, reason: &'static str, detail: &dyn std::fmt::Display) {
        let mut fallbacks = self
            .fallbacks
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let count = fallbacks.entry(reason).or_default();
        *count += 1;
        if *count == 1 {
            warn!(
                wanted = "sockmap",
                reason, %detail,
                "data path relay is used instead; told once for each reason"
            );
        }
    }

    /// How many channels use `relay` although another path was wanted, by reason.
    pub fn fallbacks(&self) -> BTreeMap<&'static str, u64> {
        self.fallbacks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Carrier {
    /// Name of the data path in the log.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Relay(..) => "relay",
            Self::Sockmap(_) => "sockmap",
        }
    }

    /// Moves the channel's bytes until both sides have ended; see [`relay::run`].
    pub async fn run(
        &mut self,
        inbound: Inbound,
        limits: Limits,
        counters: &Counters,
        stop: impl Future<Output = ()>,
    ) -> EndReason {
        match self {
            Self::Relay(client, host) => {
                relay::run(&mut **client, host, inbound, limits, counters, stop).await
            }
            Self::Sockmap(link) => link.run(inbound, limits, counters, stop).await,
        }
    }

    /// What the kernel has counted of the channel, in one line; empty: it moved nothing.
    pub fn counts(&self) -> String {
        match self {
            Self::Relay(..) => String::new(),
            Self::Sockmap(link) => link.counts(),
        }
    }
}
