//! What each data path costs here: the messages of desktops are moved over each that works, and the
//! processor time is counted, that of the kernel's workers included.
//!
//! Paths take turns, in one order and then in the reverse one, so that whatever else changes on the
//! machine meets all of them. Each turn moves the same. A path is compared with `relay` in the turns
//! beside it; where the result is less certain than it is large, it shows nothing.

mod clock;
mod mix;
mod network;
mod peers;
mod spread;
mod stage;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use rustls::{ClientConfig, ServerConfig};
use serde::{Deserialize, Serialize};

pub use clock::Counted;
pub use network::Link;
pub use spread::Spread;

use crate::DataPath;
use crate::ktls::Support;
use crate::probe::{self, Finding};
use clock::{Clock, busy_ticks, own};
use mix::{CHANNELS, Message};
use peers::Peers;
use spread::rounded;
use stage::Stage;

/// Fewest and most turns of each path.
const TURNS: (u64, u64) = (8, 64);
/// What is on its way to the kernel's workers after a turn has this time to come to an end.
const REST: Duration = Duration::from_millis(2);

/// A client leg.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Leg {
    /// TLS ends at a reverse proxy.
    Plaintext,
    /// TLS ends here.
    Tls,
}

impl Leg {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Plaintext, Self::Tls];

    /// Its name in files and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plaintext => "plaintext",
            Self::Tls => "tls",
        }
    }

    /// The data paths that can move it, `relay` first.
    pub fn paths(self) -> &'static [Path] {
        match self {
            Self::Plaintext => &[Path::Relay, Path::Sockmap],
            Self::Tls => &[Path::Relay, Path::Ktls, Path::KtlsSockmap],
        }
    }
}

/// A data path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Path {
    /// Userspace copies.
    Relay,
    /// eBPF moves the downlink.
    Sockmap,
    /// The kernel makes and opens records.
    Ktls,
    /// Both.
    KtlsSockmap,
}

impl Path {
    /// Its name in configuration, log and metrics.
    pub fn name(self) -> &'static str {
        DataPath::from(self).name()
    }
}

impl From<Path> for DataPath {
    fn from(path: Path) -> Self {
        match path {
            Path::Relay => Self::Relay,
            Path::Sockmap => Self::Sockmap,
            Path::Ktls => Self::Ktls,
            Path::KtlsSockmap => Self::KtlsSockmap,
        }
    }
}

/// How to measure.
pub struct Options {
    /// How long all turns take together. They are long enough for each message of the mix.
    pub time: Duration,
    /// Where somebody may have loaded eBPF programs.
    pub programs: PathBuf,
    /// Most bytes of a channel on the way on `sockmap`.
    pub queue_limit: usize,
    /// From how many bytes on `ktls` splices; `None`: it does not.
    pub splice_from: Option<usize>,
    /// TLS of the gateway.
    pub server: Arc<ServerConfig>,
    /// TLS of clients that trust it.
    pub client: Arc<ClientConfig>,
}

/// What was measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measurement {
    /// What lay between the gateway and its clients and hosts.
    pub link: Link,
    /// Whose processor time was counted.
    pub counted: Counted,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// How many channels were moved at a time.
    pub channels: u32,
    /// The share of the machine's processors that other programs took meanwhile, from 0 to 1.
    pub others: f64,
    /// For each kind of client leg.
    pub legs: Vec<LegFigures>,
}

/// What was measured on one kind of client leg.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LegFigures {
    /// Which one.
    pub leg: Leg,
    /// `relay` first.
    pub paths: Vec<PathFigures>,
}

/// What one data path has cost.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PathFigures {
    /// Which one.
    pub path: Path,
    /// What follows from the figures.
    pub outcome: Outcome,
    /// What went wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// How many turns were counted.
    pub turns: usize,
    /// Messages of each turn.
    pub messages: usize,
    /// Bytes of payload of each turn.
    pub bytes: usize,
    /// Processor time for each message, in microseconds, host and client included, with the middle
    /// half of the turns.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub microseconds: Option<Spread>,
    /// How much less than `relay` it cost in the turns beside it, as a share of that; negative:
    /// more. The range is where the median of any number of turns would be, in 19 of 20 cases.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub saving: Option<Spread>,
}

/// How a data path compares with `relay`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It is `relay`.
    Reference,
    /// It cost less.
    Cheaper,
    /// It cost more.
    Dearer,
    /// The difference is not larger than its range.
    NoDifference,
    /// It did not move all bytes as they were sent, or could not be had.
    Failed,
}

impl Outcome {
    fn of(saving: Spread) -> Self {
        if saving.width() >= saving.median.abs() {
            Self::NoDifference
        } else if saving.median > 0.0 {
            Self::Cheaper
        } else {
            Self::Dearer
        }
    }
}

impl PathFigures {
    /// Of a path that none was measured of.
    fn failed(path: Path, reason: String) -> Self {
        Self {
            path,
            outcome: Outcome::Failed,
            reason: Some(reason),
            turns: 0,
            messages: 0,
            bytes: 0,
            microseconds: None,
            saving: None,
        }
    }
}

/// Measures the data paths that were found to work. Must be called in a runtime like the gateway's.
pub async fn run(options: &Options, findings: &[Finding]) -> anyhow::Result<Measurement> {
    let begun = Instant::now();
    let mut clock = Clock::find()?;
    let peers = Peers::start()?;
    let support = probe::support(findings);
    let mut runners = Vec::new();
    for leg in Leg::ALL {
        for &path in leg.paths() {
            if probe::works(findings, path.name()) {
                runners.push(Runner::open(leg, path, options, &support, &peers).await);
            }
        }
    }
    let turns = (4 * options.time.as_secs()).clamp(TURNS.0, TURNS.1);
    // Each path has one turn more, which is not counted.
    let all = u32::try_from((turns + 1) * runners.len() as u64)?;
    let time = (options.time / all.max(1)).max(mix::shortest_turn());
    let turn = Arc::new(mix::within(time));
    let mut work = Work::begin()?;
    for runner in &mut runners {
        runner.play(&turn, &mut clock, &peers, &mut work).await?;
        runner.nanoseconds.clear();
    }
    for number in 0..turns {
        let count = runners.len();
        for index in 0..count {
            let index = if number % 2 == 0 {
                index
            } else {
                count - 1 - index
            };
            runners[index]
                .play(&turn, &mut clock, &peers, &mut work)
                .await?;
        }
    }
    let others = rounded(work.others(clock.counted())?);
    let legs = Leg::ALL.map(|leg| {
        let of_leg = runners.iter().filter(|runner| runner.leg == leg);
        LegFigures {
            leg,
            paths: figures(of_leg, &turn),
        }
    });
    for runner in runners {
        runner.close().await?;
    }
    Ok(Measurement {
        link: peers.link(),
        counted: clock.counted(),
        seconds: rounded(begun.elapsed().as_secs_f64()),
        channels: CHANNELS,
        others,
        legs: legs.into(),
    })
}

/// A data path that takes its turns.
struct Runner {
    leg: Leg,
    path: Path,
    /// What it has cost in each turn.
    nanoseconds: Vec<u64>,
    /// No more turns after an error.
    stage: anyhow::Result<Stage>,
}

impl Runner {
    async fn open(
        leg: Leg,
        path: Path,
        options: &Options,
        support: &Support,
        peers: &Peers,
    ) -> Self {
        Self {
            leg,
            path,
            nanoseconds: Vec::new(),
            stage: Stage::open(leg, path, options, support, peers).await,
        }
    }

    /// Fails when nothing tells the time any more; what goes wrong on the path is its own affair.
    async fn play(
        &mut self,
        turn: &Arc<Vec<Vec<Message>>>,
        clock: &mut Clock,
        peers: &Peers,
        work: &mut Work,
    ) -> anyhow::Result<()> {
        let Ok(stage) = &mut self.stage else {
            return Ok(());
        };
        let running = clock.start()?;
        let before = own();
        let played = stage.play(turn, peers).await;
        let used = running.stop()?;
        work.add(used, own() - before);
        match played {
            Ok(()) => self.nanoseconds.push(used),
            Err(error) => self.stage = Err(error),
        }
        tokio::time::sleep(REST).await;
        Ok(())
    }

    async fn close(self) -> anyhow::Result<()> {
        match self.stage {
            Ok(stage) => stage.close().await.context(self.path.name()),
            Err(_) => Ok(()),
        }
    }
}

/// The figures of one leg's paths.
fn figures<'a>(
    runners: impl Iterator<Item = &'a Runner>,
    turn: &[Vec<Message>],
) -> Vec<PathFigures> {
    let messages = turn.iter().map(Vec::len).sum::<usize>();
    let bytes = turn.iter().flatten().map(|message| message.bytes).sum();
    let mut relay: &[u64] = &[];
    let figures = runners.map(|runner| {
        if let Err(error) = &runner.stage {
            return PathFigures::failed(runner.path, format!("{error:#}"));
        }
        let costs = &runner.nanoseconds;
        if runner.path == Path::Relay {
            relay = costs;
        }
        let each = costs
            .iter()
            .map(|&cost| real(cost) / 1000.0 / real(messages.max(1) as u64));
        let saving = match runner.path {
            Path::Relay => None,
            _ => savings(costs, relay),
        };
        PathFigures {
            path: runner.path,
            outcome: match (runner.path, saving) {
                (Path::Relay, _) => Outcome::Reference,
                (_, Some(saving)) => Outcome::of(saving),
                // Without relay there is nothing that it could be compared with.
                (_, None) => Outcome::NoDifference,
            },
            reason: None,
            turns: costs.len(),
            messages,
            bytes,
            microseconds: Spread::of(each.collect()),
            saving,
        }
    });
    figures.collect()
}

/// By which share each turn was cheaper than that of `relay` beside it.
fn savings(costs: &[u64], relay: &[u64]) -> Option<Spread> {
    let pairs = costs.iter().zip(relay).filter(|(_, relay)| **relay > 0);
    Spread::of_median(
        pairs
            .map(|(&cost, &relay)| 1.0 - real(cost) / real(relay))
            .collect(),
    )
}

#[expect(clippy::cast_precision_loss, reason = "costs are far below 2^53")]
fn real(number: u64) -> f64 {
    number as f64
}

/// What was going on in the meantime.
struct Work {
    begun: Instant,
    busy: u64,
    own: u64,
    /// What the workers of the kernel did for the turns, in nanoseconds, as far as it was counted.
    kernel: u64,
}

impl Work {
    fn begin() -> anyhow::Result<Self> {
        Ok(Self {
            begun: Instant::now(),
            busy: busy_ticks()?,
            own: own(),
            kernel: 0,
        })
    }

    fn add(&mut self, counted: u64, own: u64) {
        self.kernel += counted.saturating_sub(own);
    }

    /// The share of the processors that others took.
    fn others(&self, counted: Counted) -> anyhow::Result<f64> {
        let processors = std::thread::available_parallelism()?.get() as u64;
        let all = u64::try_from(self.begun.elapsed().as_nanos())? * processors;
        let kernel = match counted {
            Counted::Threads => self.kernel,
            // There it holds what others did.
            Counted::Processors | Counted::Ticks => 0,
        };
        let busy = busy_ticks()?.saturating_sub(self.busy);
        let others = busy.saturating_sub(own() - self.own + kernel);
        Ok((real(others) / real(all.max(1))).min(1.0))
    }
}

#[cfg(test)]
mod tests {
    use rustls::client::WebPkiServerVerifier;
    use rustls::crypto::aws_lc_rs::default_provider;
    use rustls::server::WebPkiClientVerifier;
    use rustls::sign::{CertifiedKey, SingleCertAndKey};
    use rustls_pki_types::PrivateKeyDer;

    use super::*;
    use crate::tls::{Profile, client_config, server_config};

    fn options(programs: &std::path::Path) -> Options {
        let identity = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = PrivateKeyDer::Pkcs8(identity.signing_key.serialize_der().into());
        let provider = default_provider();
        let certificate = identity.cert.der().clone();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(certificate.clone()).unwrap();
        let key = provider.key_provider.load_private_key(key).unwrap();
        let server = server_config(
            Profile::Modern,
            WebPkiClientVerifier::no_client_auth(),
            Arc::new(SingleCertAndKey::from(CertifiedKey::new(
                vec![certificate],
                key,
            ))),
        );
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::new(provider));
        Options {
            time: Duration::from_millis(500),
            programs: programs.to_owned(),
            queue_limit: 1 << 20,
            splice_from: None,
            server: Arc::new(server),
            client: Arc::new(client_config(verifier.build().unwrap())),
        }
    }

    fn spread(lower: f64, median: f64, upper: f64) -> Spread {
        Spread {
            median,
            lower,
            upper,
        }
    }

    #[test]
    fn a_difference_that_is_smaller_than_its_range_shows_nothing() {
        assert_eq!(Outcome::of(spread(0.08, 0.1, 0.12)), Outcome::Cheaper);
        assert_eq!(Outcome::of(spread(-0.12, -0.1, -0.08)), Outcome::Dearer);
        assert_eq!(Outcome::of(spread(0.02, 0.1, 0.13)), Outcome::NoDifference);
        assert_eq!(Outcome::of(spread(0.0, 0.0, 0.0)), Outcome::NoDifference);
    }

    #[test]
    fn a_turn_is_compared_with_the_one_beside_it() {
        // The machine gets slower; the path takes half of what relay takes all the time.
        let saving = savings(&[50, 100, 200], &[100, 200, 400]).unwrap();
        assert_eq!((saving.median, saving.width()), (0.5, 0.0));
        assert_eq!(savings(&[], &[]), None);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_works_is_measured_and_moves_all_bytes() {
        let programs = std::path::Path::new("/nowhere");
        let findings = crate::probe::run(crate::probe::Extent::Usual, programs).await;
        let measured = run(&options(programs), &findings).await.unwrap();
        assert_eq!(measured.link == Link::Ethernet, !cfg!(unprivileged));
        for (leg, figures) in Leg::ALL.into_iter().zip(&measured.legs) {
            assert_eq!(figures.leg, leg);
            assert_eq!(figures.paths[0].outcome, Outcome::Reference, "{figures:?}");
            for path in &figures.paths {
                assert_ne!(path.outcome, Outcome::Failed, "{path:?}");
                assert!(path.microseconds.unwrap().median > 0.0, "{path:?}");
            }
        }
        let worked = findings.iter().filter(|finding| finding.works).count();
        let measured = measured.legs.iter().map(|leg| leg.paths.len());
        // relay is measured on both legs.
        assert_eq!(measured.sum::<usize>(), worked + 1);
    }
}
