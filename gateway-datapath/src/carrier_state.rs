//! A channel's two legs written down, to be gone on with by another process.

use std::os::fd::{AsFd, OwnedFd};

use serde::{Deserialize, Serialize};

use super::ktls::{KtlsState, KtlsStream};
use super::{Carrier, ClientLeg, Rest, RestState};
use crate::client_stream::{ClientState, ClientStream};
use crate::host_stream::{HostState, HostStream};
use crate::received_socket;
use crate::state_error::StateError;

/// Both legs, without their sockets, and what is on its way between them. Holds the secrets of a
/// TLS connection.
#[derive(Clone, Serialize, Deserialize)]
pub struct CarrierState {
    client: LegState,
    host: HostState,
    rest: RestState,
}

#[derive(Clone, Serialize, Deserialize)]
enum LegState {
    /// Frames and records are made by the process.
    Relay(ClientState),
    /// Records are made by the kernel, which keeps keys and numbers with the socket.
    Ktls(Box<KtlsState>),
}

impl Carrier {
    /// Writes a channel that stands still down, its sockets apart: those of client and host.
    /// `None`: it has to go on here.
    pub fn state(&self, rest: &Rest) -> Option<(CarrierState, [OwnedFd; 2])> {
        let (client, host_leg, rest, sockets) = match self {
            Self::Relay(client, host) => (
                LegState::Relay(client.state()?),
                host.state()?,
                rest.state(client.layout()),
                [client.socket(), host.as_fd()],
            ),
            Self::Ktls(client, host) => (
                LegState::Ktls(Box::new(client.state()?)),
                HostState::Tcp,
                rest.state(client.layout()),
                [client.as_fd(), host.as_fd()],
            ),
            // Whatever else moves a channel keeps what is on its way where nobody can take it from.
            _ => return None,
        };
        let [client_socket, host] = sockets.map(|fd| fd.try_clone_to_owned().ok());
        let state = CarrierState {
            client,
            host: host_leg,
            rest,
        };
        Some((state, [client_socket?, host?]))
    }

    /// Goes on with a channel that was written down, on the same data path. Fails when the state
    /// is none that [`Carrier::state`] makes, or the sockets are of no use. Must be called in a
    /// runtime.
    pub fn resume(
        state: CarrierState,
        [client, host]: [OwnedFd; 2],
    ) -> Result<(Self, Rest), StateError> {
        let client = received_socket::tcp(client)?;
        let host = HostStream::resume(host, state.host)?;
        Ok(match state.client {
            LegState::Relay(leg) => {
                let client = Box::new(ClientStream::resume(client, leg)?);
                let rest = Rest::resume(&state.rest, client.layout())?;
                let fits = client
                    .unsent()
                    .is_none_or(|len| len == rest.outbound.protected());
                StateError::unless(fits, "records that wait to be sent")?;
                (Self::Relay(client, host), rest)
            }
            LegState::Ktls(leg) => {
                let HostStream::Tcp(host) = host else {
                    return Err(StateError::Unsound("host of a channel on ktls"));
                };
                let client = Box::new(KtlsStream::resume(client, *leg)?);
                let rest = Rest::resume(&state.rest, client.layout())?;
                (Self::Ktls(client, host), rest)
            }
        })
    }
}
