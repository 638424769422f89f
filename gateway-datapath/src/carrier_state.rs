//! A channel's two legs written down, to be gone on with by another process.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::ktls::{KtlsState, KtlsStream};
use super::sockmap::{InheritedSets, LINK_SOCKETS, Link, LinkState, Sockmap};
use super::{Carrier, ClientLeg, Rest, RestState};
use crate::buffer::Layout;
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
    /// The kernel moves the downlink. This is of both legs.
    Sockmap(LinkState),
}

/// Sockets of a channel that stands still.
pub enum ChannelSockets {
    /// More descriptors of those to client and host.
    Legs([OwnedFd; 2]),
    /// All those of a channel on `sockmap`.
    Link(Arc<Link>),
}

impl ChannelSockets {
    /// Their descriptors, in the order in which [`Carrier::resume`] takes them.
    pub fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        match self {
            Self::Legs(legs) => legs.iter().map(AsFd::as_fd).collect(),
            Self::Link(link) => link.descriptors(),
        }
    }

    /// The set in whose maps they are, which has to go along.
    pub fn set(&self) -> Option<&Arc<Sockmap>> {
        match self {
            Self::Legs(_) => None,
            Self::Link(link) => Some(link.sockmap()),
        }
    }
}

impl CarrierState {
    /// How many sockets go along with it.
    pub fn sockets(&self) -> usize {
        match self.client {
            LegState::Relay(_) | LegState::Ktls(_) => 2,
            LegState::Sockmap(_) => LINK_SOCKETS,
        }
    }

    /// Whether programs of the kernel are part of it, with which the next process must have an
    /// agreement.
    pub fn has_programs(&self) -> bool {
        matches!(self.client, LegState::Sockmap(_))
    }
}

impl Carrier {
    /// Writes a channel that stands still down, its sockets apart. `None`: it has to go on here.
    pub fn state(&self, rest: &Rest) -> Option<(CarrierState, ChannelSockets)> {
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
            Self::Sockmap(link) => {
                let state = CarrierState {
                    client: LegState::Sockmap(link.write_down()?),
                    host: HostState::Tcp,
                    rest: rest.state(Layout::PLAIN),
                };
                return Some((state, ChannelSockets::Link(Arc::clone(link))));
            }
            Self::KtlsSockmap(_) => return None,
        };
        let [client_socket, host] = sockets.map(|fd| fd.try_clone_to_owned().ok());
        let state = CarrierState {
            client,
            host: host_leg,
            rest,
        };
        Some((state, ChannelSockets::Legs([client_socket?, host?])))
    }

    /// Goes on with a channel that was written down, on the same data path. Fails when the state
    /// is none that [`Carrier::state`] makes, or the sockets are of no use. Must be called in a
    /// runtime.
    pub fn resume(
        state: CarrierState,
        sockets: Vec<OwnedFd>,
        sets: &InheritedSets,
    ) -> Result<(Self, Rest), StateError> {
        let two = |sockets| {
            let [client, host] = counted(sockets)?;
            let client = received_socket::tcp(client)?;
            Ok::<_, StateError>((client, HostStream::resume(host, state.host)?))
        };
        Ok(match state.client {
            LegState::Sockmap(link) => {
                let rest = Rest::resume(&state.rest, Layout::PLAIN)?;
                let is_whole = rest.outbound.is_whole_control();
                StateError::unless(is_whole, "frame to the client of a channel on sockmap")?;
                let link = Link::resume(&link, counted(sockets)?, sets)?;
                (Self::Sockmap(Arc::new(link)), rest)
            }
            LegState::Relay(leg) => {
                let (client, host) = two(sockets)?;
                let client = Box::new(ClientStream::resume(client, leg)?);
                let rest = Rest::resume(&state.rest, client.layout())?;
                let fits = client
                    .unsent()
                    .is_none_or(|len| len == rest.outbound.protected());
                StateError::unless(fits, "records that wait to be sent")?;
                (Self::Relay(client, host), rest)
            }
            LegState::Ktls(leg) => {
                let (client, host) = two(sockets)?;
                let HostStream::Tcp(host) = host else {
                    return Err(StateError::Unsound("host of a channel on ktls"));
                };
                let client = Box::new(KtlsStream::resume(client, *leg)?);
                let rest = Rest::resume(&state.rest, client.layout())?;
                (Self::Ktls(client, host), rest)
            }
        })
    }

    /// Another process has gone on with the channel that was written down, which is to be dropped.
    pub fn let_go(&self) {
        if let Self::Sockmap(link) = self {
            link.let_go();
        }
    }
}

fn counted<const N: usize>(sockets: Vec<OwnedFd>) -> Result<[OwnedFd; N], StateError> {
    sockets
        .try_into()
        .map_err(|_| StateError::Unsound("number of sockets"))
}
