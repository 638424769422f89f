//! What a channel's relay holds between two steps, apart from its two streams: enough to go on
//! with the same streams later, or in another process.

use serde::{Deserialize, Serialize};

use super::outbound::{Outbound, OutboundState};
use super::{Inbound, InboundState};
use crate::buffer::Layout;
use crate::encoded::Bytes;
use crate::framing::Framing;
use crate::state_error::StateError;
use crate::websocket::decode::ControlPayload;

/// What is on its way through a channel. Default: nothing, in frames.
#[derive(Debug, Default)]
pub struct Rest {
    pub(super) inbound: Inbound,
    pub(super) outbound: Outbound,
    /// Only the latest Ping needs an answer (RFC 6455, section 5.5.3).
    pub(super) pong: Option<ControlPayload>,
}

impl From<Inbound> for Rest {
    fn from(inbound: Inbound) -> Self {
        Self {
            outbound: Outbound::new(inbound.framing()),
            inbound,
            pong: None,
        }
    }
}

/// A [`Rest`] written down.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RestState {
    inbound: InboundState,
    outbound: Option<OutboundState>,
    unflushed: bool,
    pong: Option<Bytes>,
}

impl Rest {
    /// How the client's bytes are framed, and those to it alike.
    pub fn framing(&self) -> Framing {
        self.outbound.framing()
    }

    /// Writes it down; `layout` is that of the client leg.
    pub fn state(&self, layout: Layout) -> RestState {
        RestState {
            inbound: self.inbound.state(),
            outbound: self.outbound.state(layout),
            unflushed: self.outbound.is_unflushed(),
            pong: self.pong.as_deref().map(Bytes::from),
        }
    }

    /// Goes on with what was written down; `layout` is that of the client leg, which protects
    /// records as the one before did. Fails when the state is none that [`Rest::state`] makes.
    pub fn resume(state: &RestState, layout: Layout) -> Result<Self, StateError> {
        let outbound = state.outbound.as_ref();
        let wrong = StateError::Unsound;
        let inbound = Inbound::resume(&state.inbound).ok_or(wrong("frames of the client"))?;
        let framing = inbound.framing();
        let outbound = Outbound::resume(framing, outbound, state.unflushed, layout);
        let pong = state.pong.as_deref().map(ControlPayload::new);
        StateError::unless(
            pong.is_none() || framing == Framing::WebSocket,
            "Pong without frames",
        )?;
        Ok(Self {
            inbound,
            outbound: outbound.ok_or(wrong("frame to the client"))?,
            pong: pong
                .map(|pong| pong.ok_or(wrong("Pong to the client")))
                .transpose()?,
        })
    }
}
