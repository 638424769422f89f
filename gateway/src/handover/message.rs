//! What predecessor and successor say to each other.
//!
//! ```text
//! successor                    predecessor
//!   Hello          ------->
//!                  <-------    Welcome, with the listening sockets
//!   Ready          ------->    (it takes no more connections)
//!                  <-------    Estate: tickets and numbers
//!   Serving        ------->    (from here on the successor takes connections)
//!                  <-------    Channels, with their sockets     \
//!   Taken          ------->                                      } for each batch
//!                  <-------    Go                               /
//!                  <-------    Estate: tickets that were issued late
//!   Settled        ------->    (the successor goes; the predecessor is on its own)
//!   Stop           ------->    (the gateway is being stopped: all of it)
//! ```
//!
//! At the end of the stream before `Settled` or `Stop` the predecessor takes connections again
//! and goes on with the channels that it still has.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::channel::ChannelState;
use crate::ticket::TicketsState;

/// Version of these messages and of all that is in them. Another one is refused.
pub(super) const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
pub(super) enum Message {
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
    /// Two sockets come with each: to the client and to the host.
    Channels(Vec<ChannelState>),
    /// Numbers of the channels that can go on in the successor.
    Taken(Vec<u64>),
    Go,
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
            Self::Channels(_) => "Channels",
            Self::Taken(_) => "Taken",
            Self::Go => "Go",
            Self::Settled => "Settled",
            Self::Stop => "Stop",
        }
    }
}

/// What belongs to no channel.
#[derive(Serialize, Deserialize)]
pub(super) struct EstateState {
    /// Numbers of the next session and channel.
    pub(super) upcoming: [u64; 2],
    pub(super) tickets: TicketsState,
    /// Addresses that are refused, and for how many milliseconds more.
    pub(super) banned: Vec<(IpAddr, u64)>,
}
