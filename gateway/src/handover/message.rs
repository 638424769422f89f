//! What predecessor and successor say to each other.
//!
//! ```text
//! successor                    predecessor
//!   Hello          ------->
//!                  <-------    Welcome, with the listening sockets
//!   Ready          ------->    (it takes no more connections)
//!                  <-------    Estate: tickets and numbers
//!   Serving        ------->    (from here on the successor takes connections)
//!                  <-------    Set, with its maps: before the first of its channels
//!                  <-------    Channels, with their sockets     \
//!   Taken          ------->                                      } for each batch, see
//!                  <-------    Go                                } [`go`](super::go)
//!   Begun          ------->                                     /
//!                  <-------    Estate: tickets that were issued late
//!   Serving        ------->    (it knows them)
//!   Settled        ------->    (the successor goes; the predecessor is on its own)
//!   Stop           ------->    (the gateway is being stopped: all of it)
//! ```
//!
//! At the end of the stream before `Settled` or `Stop` the predecessor takes connections again
//! and goes on with the channels that it still has.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::channel::ChannelState;
use crate::session;
use crate::ticket::TicketsState;
use gateway_datapath::sockmap::SetState;
use gateway_datapath::state_error::StateError;

/// Version of these messages and of all that is in them. Another one is refused.
pub(super) const VERSION: u32 = 5;

#[derive(Serialize, Deserialize)]
pub(crate) enum Message {
    Hello {
        version: u32,
    },
    /// The listening sockets come with it.
    Welcome,
    Refused {
        reason: String,
    },
    Ready,
    Estate(EstateState),
    Serving,
    /// eBPF programs with their maps, which come with it.
    Set(SetState),
    /// The leave to go on with them comes first, then the sockets of each: to the client, to the
    /// host, and those that its data path needs.
    Channels(Vec<ChannelState>),
    /// Numbers of the channels that can go on in the successor.
    Taken(Vec<u64>),
    Go,
    /// The leave was there: the channels are the successor's.
    Begun,
    Settled,
    Stop,
}

impl Message {
    /// Its name in errors: never its content.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Hello { .. } => "Hello",
            Self::Welcome => "Welcome",
            Self::Refused { .. } => "Refused",
            Self::Ready => "Ready",
            Self::Estate(_) => "Estate",
            Self::Serving => "Serving",
            Self::Set(_) => "Set",
            Self::Channels(_) => "Channels",
            Self::Taken(_) => "Taken",
            Self::Go => "Go",
            Self::Begun => "Begun",
            Self::Settled => "Settled",
            Self::Stop => "Stop",
        }
    }
}

/// What belongs to no channel.
#[derive(Serialize, Deserialize)]
pub(crate) struct EstateState {
    /// Numbers of the next session and channel.
    pub(super) upcoming: [u64; 2],
    pub(super) tickets: TicketsState,
    /// Addresses that are refused, and for how many milliseconds more.
    pub(super) banned: Vec<(IpAddr, u64)>,
}

/// Most addresses that can be refused at a time, far above what a gateway remembers.
const MAX_BANNED: usize = 1 << 20;

impl EstateState {
    /// Whether it is one that a gateway writes down.
    pub(super) fn check(&self) -> Result<(), StateError> {
        let is_early = self.upcoming.iter().all(|next| *next < session::MANY);
        StateError::unless(is_early, "number of the next session or channel")?;
        let is_short = self.banned.len() <= MAX_BANNED;
        StateError::unless(is_short, "number of refused addresses")?;
        self.tickets.check()
    }
}
