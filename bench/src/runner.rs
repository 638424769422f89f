//! Measures all peers side by side: round after round, figure after figure, peer after peer.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::ValueEnum;
use testkit::network::Network;
use tokio::time::timeout;

use super::client::PARAMETERS;
use super::figures::{Bench, Figure, Outcome};
use super::peers::{Kind, Peer};
use super::progress::Progress;
use super::results::{Circumstances, Measurement, PeerInfo, Problem, Results};
use super::statistics::{count, float};

/// The longest that one measurement may take.
const LIMIT: Duration = Duration::from_secs(90);
/// How far from the first amount of work the later ones may be, up and down.
const SPREAD: u64 = 256;

/// What connects client, peer and host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Link {
    /// The loopback device.
    Loopback,
    /// Pairs of Ethernet devices between namespaces of their own, with an MTU of 1500; needs root.
    Veth,
}

/// What to measure.
pub(crate) struct Plan {
    /// What is compared, as in `peers`.
    pub(crate) comparison: &'static str,
    /// What connects client, peer and host.
    pub(crate) link: Link,
    /// The command line, for the record.
    pub(crate) command: String,
    /// Who is measured.
    pub(crate) kinds: Vec<Kind>,
    /// Whom ratios refer to.
    pub(crate) reference: Kind,
    /// What is measured.
    pub(crate) figures: Vec<Figure>,
    /// How often.
    pub(crate) rounds: usize,
    /// How long one measurement shall take, in seconds, where that can be chosen.
    pub(crate) seconds: f64,
    /// The gateway's program; none: the release build.
    pub(crate) gateway: Option<PathBuf>,
}

/// Measures what the plan says, in this network or on loopback. `problems` tells who could not be
/// prepared.
pub(crate) async fn run(
    plan: &Plan,
    network: Option<Network>,
    peers: Vec<PeerInfo>,
    problems: Vec<Problem>,
) -> Result<Results> {
    let began = Instant::now();
    let mut results = Results::new(Circumstances {
        comparison: plan.comparison,
        command: plan.command.clone(),
        tls: PARAMETERS,
        reference: plan.reference.name().to_owned(),
    })?;
    results.peers = peers;
    results.problems = problems;
    results.figures = plan.figures.iter().map(Figure::info).collect();

    let mut run = Run::new(plan, network, results)?;
    run.start_peers().await;
    run.warm_up().await;
    for round in 1..=plan.rounds {
        run.round(round).await;
    }
    // Those of one peer beside each other.
    run.results
        .problems
        .sort_by(|a, b| (&a.peer, &a.reason).cmp(&(&b.peer, &b.reason)));
    run.results.seconds = began.elapsed().as_secs_f64();
    Ok(run.results)
}

struct Run<'a> {
    plan: &'a Plan,
    bench: Bench,
    peers: BTreeMap<Kind, Peer>,
    /// How much work each measurement is asked to do.
    work: BTreeMap<(Kind, &'static str), u64>,
    given_up: BTreeSet<(Kind, &'static str)>,
    results: Results,
    progress: Progress,
}

impl<'a> Run<'a> {
    fn new(plan: &'a Plan, network: Option<Network>, results: Results) -> Result<Self> {
        let of_round = plan.figures.iter().map(|figure| {
            let measured = plan
                .kinds
                .iter()
                .filter(|kind| figure.obstacle(**kind).is_none());
            measured.count() * (plan.rounds + usize::from(figure.is_scalable()))
        });
        Ok(Self {
            plan,
            bench: Bench::new(network, plan.gateway.clone())?,
            peers: BTreeMap::new(),
            work: BTreeMap::new(),
            given_up: BTreeSet::new(),
            results,
            progress: Progress::new(of_round.sum()),
        })
    }

    async fn start_peers(&mut self) {
        for kind in &self.plan.kinds {
            self.start_peer(*kind).await;
        }
    }

    async fn start_peer(&mut self, kind: Kind) {
        match self.bench.start_peer(kind).await {
            Ok(peer) => {
                self.peers.insert(kind, peer);
            }
            Err(problem) => self.report(kind, None, &problem),
        }
    }

    /// Does each figure once without counting it, to find out how much work takes how long.
    async fn warm_up(&mut self) {
        self.progress.say("warm-up");
        for figure in &self.plan.figures {
            for kind in &self.plan.kinds {
                if figure.is_scalable() && self.is_due(figure, *kind) {
                    self.progress
                        .step(&format!("warm-up: {}, {}", figure.id, kind.name()));
                    if let Some(outcome) = self.measure(figure, *kind).await {
                        let work = self.fitting_work(figure, &outcome);
                        self.work.insert((*kind, figure.id), work);
                    }
                }
            }
        }
    }

    async fn round(&mut self, round: usize) {
        let began = Instant::now();
        for (index, figure) in self.plan.figures.iter().enumerate() {
            let mut kinds = self.plan.kinds.clone();
            // Nobody always comes first.
            let first = (round + index) % kinds.len().max(1);
            kinds.rotate_left(first);
            for kind in kinds {
                if self.is_due(figure, kind) {
                    self.progress.step(&format!(
                        "round {round} of {}: {}, {}",
                        self.plan.rounds,
                        figure.id,
                        kind.name()
                    ));
                    if let Some(outcome) = self.measure(figure, kind).await {
                        self.keep(round, figure, kind, outcome);
                    }
                }
            }
        }
        self.results.add_latencies(round, Kind::Direct.name());
        self.progress.say(&format!(
            "round {round} of {} ({} s)",
            self.plan.rounds,
            began.elapsed().as_secs()
        ));
    }

    fn is_due(&self, figure: &Figure, kind: Kind) -> bool {
        figure.obstacle(kind).is_none()
            && self.peers.contains_key(&kind)
            && !self.given_up.contains(&(kind, figure.id))
    }

    /// Measures a peer; one that fails is not asked for this figure again.
    async fn measure(&mut self, figure: &Figure, kind: Kind) -> Option<Outcome> {
        let peer = self.peers.get(&kind)?;
        let work = self.work.get(&(kind, figure.id)).copied();
        let work = work.unwrap_or_else(|| figure.first_work());
        let measured = timeout(LIMIT, figure.measure(&self.bench, peer, work))
            .await
            .with_context(|| format!("not done within {LIMIT:?}"))
            .flatten();
        match measured {
            Ok(outcome) => {
                // Channels that the peer took time to end are not of interest.
                self.bench.host.take_problems();
                Some(outcome)
            }
            Err(problem) => {
                let died = if peer.is_alive() { "" } else { "it died: " };
                let problem = anyhow::anyhow!("{died}{problem:#}{}", self.problems_of_host());
                self.given_up.insert((kind, figure.id));
                self.report(kind, Some(figure.id), &problem);
                // Whatever state it is in, the other figures shall not see it.
                self.peers.remove(&kind);
                self.start_peer(kind).await;
                None
            }
        }
    }

    fn problems_of_host(&self) -> String {
        let problems = self.bench.host.take_problems();
        // The first is the cause, others follow from it.
        let first = problems.first();
        first.map_or_else(String::new, |problem| format!("; the host says: {problem}"))
    }

    fn fitting_work(&self, figure: &Figure, outcome: &Outcome) -> u64 {
        let first = figure.first_work();
        let per_second = float(outcome.work) / outcome.usage.wall.max(1e-3);
        count(per_second * self.plan.seconds)
            .clamp(first / SPREAD, first * SPREAD)
            .max(1)
    }

    fn keep(&mut self, round: usize, figure: &Figure, kind: Kind, outcome: Outcome) {
        self.results.measurements.push(Measurement {
            round,
            figure: figure.id.to_owned(),
            peer: kind.name().to_owned(),
            work: outcome.work,
            seconds: outcome.usage.wall,
            elsewhere: outcome.usage.elsewhere,
            values: outcome.values,
        });
    }

    fn report(&mut self, kind: Kind, figure: Option<&str>, problem: &anyhow::Error) {
        let reason = format!("{problem:#}");
        let what = figure.unwrap_or("start");
        self.progress
            .say(&format!("! {}, {what}: {reason}", kind.name()));
        self.results.problems.push(Problem {
            peer: kind.name().to_owned(),
            figure: figure.map(str::to_owned),
            reason,
        });
    }
}
