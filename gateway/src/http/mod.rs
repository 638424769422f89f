//! What requests and answers are made of, whoever answers.

pub mod body;
mod client;
pub mod forwarded;
pub mod origin;
mod recorded;
pub mod reply;
pub mod steady;
mod verified;

use std::net::IpAddr;
use std::sync::Arc;

pub use client::Client;
pub use origin::Origin;
pub use recorded::Recorded;
pub use verified::Verified;

use crate::limits::Permit;

/// What is known of the connection that a request came on.
#[derive(Clone)]
pub struct ConnectionInfo {
    /// Address of the peer: the client, or a proxy in front of it; what the PROXY protocol tells
    /// goes before.
    pub peer: IpAddr,
    /// The peer's port; 0: not known.
    pub peer_port: u16,
    /// Address that the peer connected to.
    pub local: IpAddr,
    /// TLS ends here.
    pub is_tls: bool,
    /// Who the peer is by its certificate.
    pub verified: Verified,
    /// The connection's place among those that are counted.
    pub permit: Arc<Permit>,
}

#[cfg(test)]
impl ConnectionInfo {
    pub(crate) fn for_test(peer: IpAddr) -> Self {
        let limits = Arc::new(crate::limits::ConnectionLimits::new(1, None, vec![]));
        Self {
            peer,
            peer_port: 4_711,
            local: "127.0.0.1".parse().unwrap(),
            is_tls: true,
            verified: Verified::NotAsked,
            permit: Arc::new(limits.admit(peer).unwrap()),
        }
    }
}
