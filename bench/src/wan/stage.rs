//! A line with a host and a peer on it, made anew for each measurement so that none sees what the
//! one before has left in queues.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use serde_json::Value;
use testkit::cert::TestCert;
use testkit::line::{Direction, Quality, Stats};
use testkit::net::Endpoint;
use testkit::network::{Leg, Network};
use testkit::spice::ChannelType;

use super::lines::WanLine;
use crate::client::{Channel, Tls};
use crate::excerpt::Excerpt;
use crate::host::BenchHost;
use crate::peers::gateway::Setup;
use crate::peers::{Kind, Peer};
use crate::statistics::float;

/// What all stages share.
pub(crate) struct Props {
    pub(crate) cert: TestCert,
    pub(crate) tls: Tls,
    /// Further keys of the gateway's configuration.
    pub(crate) keys: Vec<(String, Value)>,
    /// The gateway's program; none: the release build.
    pub(crate) gateway: Option<PathBuf>,
}

/// The network of a stage.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    pub(crate) line: &'a WanLine,
    /// What TCP does about congestion, on all machines.
    pub(crate) congestion_control: &'a str,
    /// Decides which packets are lost.
    pub(crate) seed: u64,
}

/// A network with a host and a peer in it.
pub(crate) struct Stage<'a, H = BenchHost> {
    props: &'a Props,
    // Peer and host go before the network that they are in.
    pub(crate) peer: Peer,
    pub(crate) host: H,
    network: Network,
}

impl<'a> Stage<'a> {
    /// Makes it, with the bench host.
    pub(super) async fn new(
        props: &'a Props,
        place: Place<'_>,
        kind: Kind,
        excerpt: &Arc<Excerpt>,
    ) -> Result<Self> {
        let start = async |network: &Network| {
            let host = BenchHost::start_in(network, Arc::clone(excerpt))?;
            let addr = host.addr();
            Ok((host, addr))
        };
        Self::with_host(props, place, kind, start).await
    }

    /// Opens a channel from the client's network.
    pub(super) async fn open(&self) -> Result<Channel> {
        let mut channel = self.connect().await?;
        channel.link(ChannelType::Display).await?;
        self.peer.expect_path().await?;
        Ok(channel)
    }
}

impl<'a, H> Stage<'a, H> {
    /// Makes it; `start` starts the host in the network and says where it listens.
    pub(crate) async fn with_host(
        props: &'a Props,
        place: Place<'_>,
        kind: Kind,
        start: impl AsyncFnOnce(&Network) -> Result<(H, SocketAddr)>,
    ) -> Result<Self> {
        let line = place.line;
        let network = Network::new(line.client_leg, line.host_leg, place.seed)?;
        set_congestion_control(&network, place.congestion_control)?;
        let (host, addr) = start(&network).await?;
        let setup = Setup {
            network: Some(&network),
            binary: props.gateway.as_deref(),
            keys: &props.keys,
            ..Setup::default()
        };
        let peer = Peer::start_in(kind, &props.cert, addr, setup).await?;
        Ok(Self {
            props,
            peer,
            host,
            network,
        })
    }

    /// Connects from the client's network, up to the host, and sends nothing yet.
    pub(crate) async fn connect(&self) -> Result<Channel> {
        let target = &self.peer.target;
        let endpoint = Endpoint::plain(target.addr).in_namespace(&self.network.client);
        let tcp = endpoint.connect_tcp().await;
        let tcp = tcp.with_context(|| format!("connecting to {}", target.addr))?;
        Channel::connect(tcp, target, &self.props.tls).await
    }

    /// The share of packets, in percent, that arrived later than the line would have it: how far
    /// this machine was too busy to play it.
    pub(crate) fn late(&self) -> f64 {
        let lines = [&self.network.client_leg, &self.network.host_leg];
        let stats = lines.into_iter().flatten().flat_map(|line| {
            [Direction::There, Direction::Back].map(|direction| line.stats(direction))
        });
        let add = |sum: (u64, u64), one: Stats| (sum.0 + one.late, sum.1 + one.packets);
        let (late, packets) = stats.fold((0, 0), add);
        100.0 * float(late) / float(packets.max(1))
    }
}

/// Fails where networks cannot be made, or this congestion control not be had.
pub(crate) fn try_network(congestion_control: &str) -> Result<()> {
    let line = Leg::from(Quality::default());
    let network = Network::new(line, Leg::Ethernet, 0).context("networks to measure in")?;
    set_congestion_control(&network, congestion_control)
}

fn set_congestion_control(network: &Network, name: &str) -> Result<()> {
    network.set_congestion_control(name).with_context(|| {
        format!("this kernel has no congestion control {name}, or its module is not loaded")
    })
}
