//! The ways in which an established channel's bytes move.
//!
//! A data path knows two byte streams and the rule that frames one of them; nothing of HTTP,
//! tickets or configuration files.

mod choice;
mod inbound;
mod legs;
mod low_water;
mod moderation;
mod outbound;
pub mod probe;
pub mod relay;
pub mod sockmap;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

pub use choice::{Carrier, Paths};
pub use inbound::Inbound;
pub use legs::{ClientLeg, HostLeg};

use crate::websocket::decode::Violation;

/// Time limits of a moving channel.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Interval of Pings; `None`: the client is not to be pinged.
    pub ping_interval: Option<Duration>,
    /// Longest time without progress once one side has ended.
    pub close_timeout: Duration,
}

/// Bytes of payload that a channel has moved, readable while it moves.
#[derive(Debug, Default)]
pub struct Counters {
    uplink: AtomicU64,
    downlink: AtomicU64,
}

impl Counters {
    /// Bytes of payload handed to the host.
    pub fn uplink(&self) -> u64 {
        self.uplink.load(Ordering::Relaxed)
    }

    /// Bytes of payload handed to the client.
    pub fn downlink(&self) -> u64 {
        self.downlink.load(Ordering::Relaxed)
    }

    pub(crate) fn add_uplink(&self, bytes: usize) {
        self.uplink.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn add_downlink(&self, bytes: usize) {
        self.downlink.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// Which event ended a channel: the first one, whatever followed from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndReason {
    /// The client sent a Close frame with this code.
    ClientClose(Option<u16>),
    /// The client ended its TCP stream without a Close frame, as the flexVDI client does.
    ClientEnd,
    /// The client's connection broke.
    ClientLost(std::io::ErrorKind),
    /// Nothing came from the client for three intervals of Pings.
    ClientSilent,
    /// The client broke the framing rules.
    Violation(Violation),
    /// The host ended its stream.
    HostEnd,
    /// The host's connection broke.
    HostLost(std::io::ErrorKind),
    /// The gateway ended the channel.
    Stopped,
}

impl std::fmt::Display for EndReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::ClientClose(Some(code)) => write!(f, "client sent Close {code}"),
            Self::ClientClose(None) => f.write_str("client sent Close"),
            Self::ClientEnd => f.write_str("client disconnected"),
            Self::ClientLost(kind) => write!(f, "client lost: {kind}"),
            Self::ClientSilent => f.write_str("client did not answer Pings"),
            Self::Violation(violation) => write!(f, "client broke the protocol: {violation}"),
            Self::HostEnd => f.write_str("host disconnected"),
            Self::HostLost(kind) => write!(f, "host lost: {kind}"),
            Self::Stopped => f.write_str("gateway stopped"),
        }
    }
}
