//! The figures: loads that are put on a peer, and what is told of them.

mod latency;
mod memory;
mod replay;
mod sessions;
mod stalled;
mod stream;

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use testkit::cert::TestCert;
use testkit::network::Network;
use testkit::spice::ChannelType;
use tokio::task::JoinSet;

use super::client::{Channel, Target, Tls};
use super::cpu::Usage;
use super::excerpt::Excerpt;
use super::host::BenchHost;
use super::peers::gateway::Setup;
use super::peers::{Kind, Peer};
use super::results::FigureInfo;
use crate::metric::{self, Metric, Values};

/// How many channels are opened at the same time.
const OPENED_AT_ONCE: usize = 32;
/// Size of the message that shows that a channel is open from end to end, in bytes.
const SMALL: usize = 64;
const MIB: u64 = 1 << 20;

/// What all measurements share.
pub(crate) struct Bench {
    /// The host behind all peers.
    pub(crate) host: BenchHost,
    /// The certificate of all peers.
    pub(crate) cert: TestCert,
    /// What is replayed.
    pub(crate) excerpt: Arc<Excerpt>,
    /// The clients' TLS, which resumes nothing.
    pub(crate) tls: Tls,
    /// Where peers are; none: on loopback.
    network: Option<Network>,
    /// The gateway's program; none: the release build.
    gateway: Option<PathBuf>,
}

impl Bench {
    /// Starts the host, in this network or on loopback, and makes the certificate. Without a program
    /// of the gateway it is the release build.
    pub(crate) fn new(network: Option<Network>, gateway: Option<PathBuf>) -> Result<Self> {
        let excerpt = Excerpt::load()?;
        let host = match &network {
            Some(network) => BenchHost::start_in(network, Arc::clone(&excerpt))?,
            None => BenchHost::start(Arc::clone(&excerpt))?,
        };
        Ok(Self {
            host,
            cert: TestCert::new()?,
            excerpt,
            tls: Tls::new(false)?,
            network,
            gateway,
        })
    }

    /// Starts a peer in front of the host.
    pub(crate) async fn start_peer(&self, kind: Kind) -> Result<Peer> {
        let sockets = self.host.socket();
        let setup = Setup {
            network: self.network.as_ref(),
            sockets: Some(&sockets),
            binary: self.gateway.as_deref(),
            ..Setup::default()
        };
        Peer::start_in(kind, &self.cert, self.host.addr(), setup).await
    }
}

/// One figure.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Figure {
    /// Its name in options and files.
    pub(crate) id: &'static str,
    title: &'static str,
    load: Load,
    /// Part of a quick run.
    pub(crate) is_quick: bool,
}

/// What a figure does with a peer.
#[derive(Clone, Copy, Debug)]
enum Load {
    /// Bytes from the host in writes of this size, spread over channels.
    Downlink { write: u32, channels: usize },
    /// Bytes to the host in messages of this size.
    Uplink { message: usize },
    /// Small messages there and back.
    RoundTrip,
    /// Recorded desktops.
    Replay { desktops: usize },
    /// Channels opened and closed.
    Sessions { resuming: bool },
    /// Channels kept open.
    Memory,
    /// Channels whose clients do not read.
    Stalled { channels: usize },
}

/// What came of a measurement.
pub(crate) struct Outcome {
    /// How much was done, in the load's own unit.
    pub(crate) work: u64,
    /// The time that it took.
    pub(crate) usage: Usage,
    /// What is told of it.
    pub(crate) values: Values,
}

/// All figures, in the order in which they are measured and shown.
pub(crate) const FIGURES: [Figure; 19] = [
    downlink("down-256", "Downlink, writes of 256 B", 256),
    quick(downlink("down-1k", "Downlink, writes of 1 KiB", 1 << 10)),
    downlink("down-4k", "Downlink, writes of 4 KiB", 4 << 10),
    quick(downlink("down-16k", "Downlink, writes of 16 KiB", 16 << 10)),
    downlink("down-64k", "Downlink, writes of 64 KiB", 64 << 10),
    quick(uplink("up-64", "Uplink, messages of 64 B", 64)),
    uplink("up-4k", "Uplink, messages of 4 KiB", 4 << 10),
    quick(figure(
        "rtt",
        "Round trip of 64 B on one channel",
        Load::RoundTrip,
    )),
    replay("replay-1", "One recorded desktop", 1),
    quick(replay("replay-10", "10 recorded desktops", 10)),
    replay("replay-100", "100 recorded desktops", 100),
    quick(sessions(
        "sessions-full",
        "New channels, full TLS handshake",
        false,
    )),
    sessions(
        "sessions-resumed",
        "New channels, resumed TLS sessions",
        true,
    ),
    quick(figure("memory", "Memory of open channels", Load::Memory)),
    scale("scale-1", "Downlink of 1 KiB writes over 1 channel", 1),
    scale("scale-10", "Downlink of 1 KiB writes over 10 channels", 10),
    quick(scale(
        "scale-100",
        "Downlink of 1 KiB writes over 100 channels",
        100,
    )),
    scale(
        "scale-1000",
        "Downlink of 1 KiB writes over 1,000 channels",
        1000,
    ),
    figure(
        "stalled",
        "36 clients that do not read",
        Load::Stalled { channels: 36 },
    ),
];

impl Figure {
    /// The figure as it stands in the results; the first metric is the one that is compared
    /// first.
    pub(crate) fn info(&self) -> FigureInfo {
        FigureInfo {
            id: self.id.to_owned(),
            title: self.title.to_owned(),
            metrics: self.metrics().iter().map(Metric::info).collect(),
        }
    }

    /// Why this peer is not measured; `None` when it is.
    pub(crate) fn obstacle(&self, kind: Kind) -> Option<&'static str> {
        let is_round_trip = matches!(self.load, Load::RoundTrip);
        let resumes = matches!(self.load, Load::Sessions { resuming: true });
        if !kind.has_process() && !is_round_trip {
            Some("there is no peer")
        } else if self.channels() > kind.most_channels() {
            Some("too many channels for it")
        } else if resumes && kind.tls().is_none() {
            Some("it does not speak TLS")
        } else {
            None
        }
    }

    /// How much work the first measurement is asked to do, in the load's own unit.
    pub(crate) fn first_work(&self) -> u64 {
        match self.load {
            Load::Downlink { write: 256, .. } => 4 * MIB,
            Load::Downlink { channels, .. } => 16 * MIB.max(channels as u64 * (MIB / 64)),
            Load::Uplink { message: 64 } => MIB,
            Load::Uplink { .. } => 8 * MIB,
            Load::RoundTrip => 1_000,
            Load::Sessions { .. } => 64,
            Load::Replay { .. } | Load::Memory | Load::Stalled { .. } => 1,
        }
    }

    /// Whether it takes longer when it is asked to do more.
    pub(crate) fn is_scalable(&self) -> bool {
        !matches!(
            self.load,
            Load::Replay { .. } | Load::Memory | Load::Stalled { .. }
        )
    }

    /// Measures a peer; `work` is how much to do, in the load's own unit.
    pub(crate) async fn measure(&self, bench: &Bench, peer: &Peer, work: u64) -> Result<Outcome> {
        match self.load {
            Load::Downlink { write, channels } => {
                stream::downlink(bench, peer, write, channels, work).await
            }
            Load::Uplink { message } => stream::uplink(bench, peer, message, work).await,
            Load::RoundTrip => latency::measure(bench, peer, work).await,
            Load::Replay { desktops } => replay::measure(bench, peer, desktops).await,
            Load::Sessions { resuming } => sessions::measure(bench, peer, resuming, work).await,
            Load::Memory => memory::measure(bench, peer.kind).await,
            Load::Stalled { channels } => stalled::measure(bench, peer, channels).await,
        }
    }

    fn metrics(&self) -> &'static [Metric] {
        match self.load {
            Load::Downlink { .. } | Load::Uplink { .. } => &metric::STREAM,
            Load::RoundTrip => &metric::LATENCY,
            Load::Replay { .. } => &metric::REPLAY,
            Load::Sessions { .. } => &metric::SESSIONS,
            Load::Memory => &metric::MEMORY,
            Load::Stalled { .. } => &metric::STALLED,
        }
    }

    fn channels(&self) -> usize {
        match self.load {
            Load::Downlink { channels, .. } | Load::Stalled { channels } => channels,
            Load::Replay { desktops } => desktops * ChannelType::PLAIN_VM.len(),
            // It takes as many as the peer can carry.
            Load::Uplink { .. } | Load::RoundTrip | Load::Sessions { .. } | Load::Memory => 1,
        }
    }
}

const fn figure(id: &'static str, title: &'static str, load: Load) -> Figure {
    Figure {
        id,
        title,
        load,
        is_quick: false,
    }
}

const fn quick(figure: Figure) -> Figure {
    Figure {
        is_quick: true,
        ..figure
    }
}

const fn downlink(id: &'static str, title: &'static str, write: u32) -> Figure {
    figure(id, title, Load::Downlink { write, channels: 1 })
}

const fn uplink(id: &'static str, title: &'static str, message: usize) -> Figure {
    figure(id, title, Load::Uplink { message })
}

const fn replay(id: &'static str, title: &'static str, desktops: usize) -> Figure {
    figure(id, title, Load::Replay { desktops })
}

const fn sessions(id: &'static str, title: &'static str, resuming: bool) -> Figure {
    figure(id, title, Load::Sessions { resuming })
}

const fn scale(id: &'static str, title: &'static str, channels: usize) -> Figure {
    let write = 1 << 10;
    figure(id, title, Load::Downlink { write, channels })
}

/// Opens channels of this type, each open to the host when this returns.
async fn open_channels(
    bench: &Bench,
    peer: &Peer,
    kind: ChannelType,
    count: usize,
) -> Result<Vec<Channel>> {
    let mut channels = Vec::with_capacity(count);
    while channels.len() < count {
        let missing = (count - channels.len()).min(OPENED_AT_ONCE);
        let open = (0..missing).map(|_| open_channel(peer.target.clone(), bench.tls.clone(), kind));
        channels.extend(all(open).await?);
    }
    Ok(channels)
}

async fn open_channel(target: Target, tls: Tls, kind: ChannelType) -> Result<Channel> {
    let mut channel = Channel::open(&target, &tls, kind).await?;
    channel.begin_echo(SMALL, 1).await?;
    channel.echo(SMALL, 0).await?;
    Ok(channel)
}

/// Ends channels and waits until the host was told.
async fn close_channels(bench: &Bench, channels: Vec<Channel>) -> Result<()> {
    for channel in channels {
        channel.close().await?;
    }
    bench.host.idle().await
}

/// Runs all of these at the same time; gives back their results in the order in which they
/// ended. The first failure ends the rest.
async fn all<T, F>(tasks: impl IntoIterator<Item = F>) -> Result<Vec<T>>
where
    T: Send + 'static,
    F: Future<Output = Result<T>> + Send + 'static,
{
    let mut tasks: JoinSet<Result<T>> = tasks.into_iter().collect();
    let mut results = Vec::with_capacity(tasks.len());
    while let Some(result) = tasks.join_next().await {
        results.push(result.context("a client's task")??);
    }
    Ok(results)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use testkit::network::Leg;
    use testkit::packages::{self, Package};
    use tokio::runtime;

    use super::*;

    #[test]
    fn ids_are_unique() {
        let ids: BTreeSet<_> = FIGURES.iter().map(|figure| figure.id).collect();
        assert_eq!(ids.len(), FIGURES.len());
    }

    #[test]
    #[cfg_attr(unprivileged, ignore = "needs root: cargo xtask test")]
    fn clients_in_their_own_network_reach_the_host_through_peers() {
        packages::ensure(&[Package::Haproxy]).unwrap();
        let network = Network::new(Leg::Ethernet, Leg::Ethernet, 1).unwrap();
        let client = network.client.clone();
        let runtime = runtime::Builder::new_current_thread().enable_all().build();
        let measure = async {
            let bench = Bench::new(Some(network), None).unwrap();
            for kind in [Kind::Direct, Kind::Haproxy] {
                let peer = bench.start_peer(kind).await.unwrap();
                let measured = latency::measure(&bench, &peer, 3).await.unwrap();
                assert_eq!(measured.work, 3);
            }
        };
        let run = || runtime.unwrap().block_on(measure);
        client.enter(run).unwrap();
    }

    #[test]
    fn peers_are_measured_where_it_makes_sense() {
        let find = |id| FIGURES.into_iter().find(|figure| figure.id == id).unwrap();
        let measured = |id, kind| find(id).obstacle(kind).is_none();
        assert!(measured("rtt", Kind::Direct));
        assert!(!measured("down-1k", Kind::Direct));
        assert!(measured("scale-100", Kind::Websockify));
        assert!(!measured("replay-100", Kind::Websockify));
        assert!(!measured("sessions-resumed", Kind::GatewayPlain));
        assert!(
            FIGURES
                .iter()
                .all(|figure| measured(figure.id, Kind::Gateway))
        );
    }
}
