//! What a ticket permits.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::channel_type::ChannelTypes;
use crate::host_tls::{HostTls, HostTlsState};
use crate::target::Target;
use gateway_datapath::state_error::StateError;

/// What whoever holds a ticket may do with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Where its channels lead.
    pub target: Target,
    /// Networks that its clients have to be in; empty: any.
    pub clients: Vec<IpNet>,
    /// What they may carry.
    pub channels: ChannelTypes,
    /// The port of the same host on which Spice is spoken inside TLS, for clients that do so
    /// themselves; `None`: they may not. A Unix socket has none.
    pub tls_port: Option<u16>,
    /// How the host's certificate is checked; `None`: as the configuration says, by which there may
    /// be none.
    pub tls: Option<HostTls>,
}

/// What a grant says makes no sense together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GrantError {
    /// `tls_port` of a Unix socket.
    #[error("a Unix socket has no port for TLS")]
    SocketTlsPort,
    /// `tls` of a Unix socket.
    #[error("a Unix socket has no TLS")]
    SocketTls,
    /// `channels` with a `tls_port`.
    #[error("with a port for TLS all types must pass, as the gateway cannot see them inside TLS")]
    HiddenChannels,
}

impl Grant {
    /// Whether everything in it can be had at once. Whoever reads a grant that somebody wrote asks
    /// this.
    pub fn check(&self) -> Result<(), GrantError> {
        let is_socket = matches!(self.target, Target::Unix(_));
        if is_socket && self.tls_port.is_some() {
            return Err(GrantError::SocketTlsPort);
        }
        if is_socket && self.tls.is_some() {
            return Err(GrantError::SocketTls);
        }
        if self.tls_port.is_some() && self.channels != ChannelTypes::ALL {
            return Err(GrantError::HiddenChannels);
        }
        Ok(())
    }

    /// The leave to open channels of all types to a target, and no more.
    pub fn new(target: Target) -> Self {
        Self {
            target,
            clients: Vec::new(),
            channels: ChannelTypes::ALL,
            tls_port: None,
            tls: None,
        }
    }

    /// Whether a client may open channels with it. One that nobody named is in no network.
    pub fn admits(&self, client: IpAddr) -> bool {
        self.clients.is_empty()
            || !client.is_unspecified() && self.clients.iter().any(|net| net.contains(&client))
    }

    /// Where its channels lead that are inside TLS between client and host.
    pub fn tls_target(&self) -> Option<Target> {
        match (&self.target, self.tls_port) {
            (Target::Tcp { host, .. }, Some(port)) => Some(Target::new(host.clone(), port)),
            _ => None,
        }
    }

    /// The ports of the host to which it leads.
    pub fn ports(&self) -> impl Iterator<Item = u16> {
        let port = match self.target {
            Target::Tcp { port, .. } => Some(port),
            Target::Unix(_) => None,
        };
        [port, self.tls_port].into_iter().flatten()
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
            clients: self.clients.iter().map(ToString::to_string).collect(),
            channels: self.channels,
            tls_port: self.tls_port,
            tls: self.tls.as_ref().map(HostTls::state),
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
    clients: Vec<String>,
    channels: ChannelTypes,
    tls_port: Option<u16>,
    tls: Option<HostTlsState>,
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
        let tls_port_is_sound = state.tls_port.is_none_or(|port| port != 0 && has_port);
        StateError::unless(tls_port_is_sound, "host or port")?;
        let clients = state.clients.iter().map(|network| network.parse());
        let clients = clients
            .collect::<Result<_, _>>()
            .map_err(|_| StateError::Unsound("network of clients"))?;
        let tls = state.tls.map(HostTls::try_from).transpose()?;
        Ok(Self {
            target,
            clients,
            channels: state.channels,
            tls_port: state.tls_port,
            tls,
        })
    }
}
