//! What a ticket permits.

use serde::{Deserialize, Serialize};

use crate::channel_type::ChannelTypes;
use crate::target::Target;
use gateway_datapath::state_error::StateError;

/// What whoever holds a ticket may do with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Where its channels lead.
    pub target: Target,
    /// What they may carry.
    pub channels: ChannelTypes,
}

impl Grant {
    /// The leave to open channels of all types to a target, and no more.
    pub fn new(target: Target) -> Self {
        Self {
            target,
            channels: ChannelTypes::ALL,
        }
    }

    /// Writes it down.
    pub fn state(&self) -> GrantState {
        let (host, port) = match &self.target {
            Target::Tcp { host, port } => (host.to_string(), *port),
            socket @ Target::Unix(_) => (socket.to_string(), 0),
        };
        GrantState {
            host,
            port,
            channels: self.channels,
        }
    }
}

/// A [`Grant`] written down.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct GrantState {
    /// The host, or a Unix socket as [`Target`] shows it.
    host: String,
    /// 0 for a Unix socket.
    port: u16,
    channels: ChannelTypes,
}

impl GrantState {
    /// Whether it is one that [`Grant::state`] makes.
    pub(crate) fn check(&self) -> Result<(), StateError> {
        Grant::try_from(self.clone()).map(drop)
    }
}

impl TryFrom<GrantState> for Grant {
    type Error = StateError;

    fn try_from(state: GrantState) -> Result<Self, StateError> {
        let unsound = || StateError::Unsound("host or port");
        let target = match Target::socket(&state.host) {
            Some(path) => Target::Unix(path.map_err(|_| unsound())?),
            None => Target::new(state.host.parse().map_err(|_| unsound())?, state.port),
        };
        let has_port = matches!(target, Target::Tcp { .. });
        StateError::unless((state.port != 0) == has_port, "host or port")?;
        Ok(Self {
            target,
            channels: state.channels,
        })
    }
}
