//! A line with a host and a peer on it, made anew for each measurement so that none sees what the
//! one before has left in queues.

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
use crate::bench::client::{Channel, Tls};
use crate::bench::excerpt::Excerpt;
use crate::bench::host::BenchHost;
use crate::bench::peers::gateway::Setup;
use crate::bench::peers::{Kind, Peer};
use crate::bench::statistics::float;

/// What all stages share.
pub(super) struct Props {
    pub(super) cert: TestCert,
    pub(super) excerpt: Arc<Excerpt>,
    pub(super) tls: Tls,
    /// What TCP does about congestion, on all machines.
    pub(super) congestion_control: String,
    /// Further keys of the gateway's configuration.
    pub(super) keys: Vec<(String, Value)>,
    /// The gateway's program; none: the release build.
    pub(super) gateway: Option<PathBuf>,
}

/// A network with a host and a peer in it.
pub(super) struct Stage<'a> {
    props: &'a Props,
    // Peer and host go before the network that they are in.
    pub(super) peer: Peer,
    pub(super) host: BenchHost,
    network: Network,
}

impl<'a> Stage<'a> {
    /// Makes it; `seed` decides which packets are lost.
    pub(super) async fn new(
        props: &'a Props,
        line: &WanLine,
        kind: Kind,
        seed: u64,
    ) -> Result<Self> {
        let network = Network::new(line.client_leg, line.host_leg, seed)?;
        set_congestion_control(&network, &props.congestion_control)?;
        let host = BenchHost::start_in(&network, Arc::clone(&props.excerpt))?;
        let setup = Setup {
            network: Some(&network),
            binary: props.gateway.as_deref(),
            keys: &props.keys,
            ..Setup::default()
        };
        let peer = Peer::start_in(kind, &props.cert, host.addr(), setup).await?;
        Ok(Self {
            props,
            peer,
            host,
            network,
        })
    }

    /// Opens a channel from the client's network.
    pub(super) async fn open(&self) -> Result<Channel> {
        let target = &self.peer.target;
        let endpoint = Endpoint::plain(target.addr).in_namespace(&self.network.client);
        let tcp = endpoint.connect_tcp().await;
        let tcp = tcp.with_context(|| format!("connecting to {}", target.addr))?;
        let channel = Channel::over(tcp, target, &self.props.tls, ChannelType::Display).await?;
        self.peer.expect_path().await?;
        Ok(channel)
    }

    /// The share of packets, in percent, that arrived later than the line would have it: how far
    /// this machine was too busy to play it.
    pub(super) fn late(&self) -> f64 {
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
pub(super) fn try_network(congestion_control: &str) -> Result<()> {
    let line = Leg::from(Quality::default());
    let network = Network::new(line, Leg::Ethernet, 0).context("networks to measure in")?;
    set_congestion_control(&network, congestion_control)
}

fn set_congestion_control(network: &Network, name: &str) -> Result<()> {
    network.set_congestion_control(name).with_context(|| {
        format!("this kernel has no congestion control {name}, or its module is not loaded")
    })
}
