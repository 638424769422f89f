//! `cargo xtask bench wan`: the gateway and others over lines as people have them.

mod lines;
mod measure;
mod message;
mod show;
mod stage;
mod viewer;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Result, bail, ensure};
use serde_json::Value;
use testkit::cert::TestCert;

use super::client::{PARAMETERS, Tls};
use super::excerpt::Excerpt;
use super::peers::Kind;
use super::progress::Progress;
use super::results::{Circumstances, FigureInfo, Measurement, PeerInfo, Problem, Results};
use lines::WanLine;
use measure::Pace;
pub(crate) use show::Shows;
use stage::Props;

/// What to measure.
pub(crate) struct WanPlan {
    /// The command line, for the record.
    pub(crate) command: String,
    /// Who is measured.
    pub(crate) kinds: Vec<Kind>,
    /// On these lines.
    lines: Vec<WanLine>,
    /// How often.
    pub(crate) rounds: usize,
    /// For a shorter time, and only what shows lag.
    pub(crate) is_quick: bool,
    /// What TCP does about congestion on client, gateway and host.
    pub(crate) congestion_control: String,
    /// Further keys of the gateway's configuration.
    pub(crate) keys: Vec<(String, Value)>,
    /// The gateway's program; none: the release build.
    pub(crate) gateway: Option<PathBuf>,
}

impl WanPlan {
    /// A plan with the lines of these names; with no name, with all or the quick ones.
    pub(crate) fn new(names: &[String], is_quick: bool) -> Result<Self> {
        let mut lines = lines::all();
        for name in names {
            ensure!(
                lines.iter().any(|line| line.id == name),
                "there is no line {name}; there are: {}",
                lines
                    .iter()
                    .map(|line| line.id)
                    .collect::<Vec<_>>()
                    .join(", ")
            );
        }
        lines.retain(|line| {
            if names.is_empty() {
                line.is_quick || !is_quick
            } else {
                names.iter().any(|name| line.id == name)
            }
        });
        Ok(Self {
            command: String::new(),
            kinds: Vec::new(),
            lines,
            rounds: 1,
            is_quick,
            congestion_control: testkit::network::CONGESTION_CONTROL.to_owned(),
            keys: Vec::new(),
            gateway: None,
        })
    }

    /// Whom ratios refer to: the connection without a peer, if it is measured.
    fn reference(&self) -> Kind {
        let direct = self.kinds.iter().find(|kind| **kind == Kind::Direct);
        *direct.unwrap_or(&self.kinds[0])
    }
}

/// Measures what the plan says. `problems` tells who could not be prepared.
pub(crate) async fn run(
    plan: &WanPlan,
    peers: Vec<PeerInfo>,
    problems: Vec<Problem>,
) -> Result<Results> {
    let began = Instant::now();
    // What is missing is told once, not by each measurement.
    stage::try_network(&plan.congestion_control)?;
    let mut results = Results::new(Circumstances {
        comparison: "wan",
        command: plan.command.clone(),
        tls: PARAMETERS,
        reference: plan.reference().name().to_owned(),
    })?;
    results.peers = peers;
    results.problems = problems;
    results.figures = plan
        .lines
        .iter()
        .map(|line| FigureInfo {
            id: line.id.to_owned(),
            title: format!("{} ({})", line.title, plan.congestion_control),
            metrics: measure::metrics(),
        })
        .collect();
    let props = Props {
        cert: TestCert::new()?,
        excerpt: Excerpt::load()?,
        tls: Tls::new(false)?,
        congestion_control: plan.congestion_control.clone(),
        keys: plan.keys.clone(),
        gateway: plan.gateway.clone(),
    };
    let mut progress = Progress::new(plan.rounds * plan.lines.len() * plan.kinds.len());
    for round in 1..=plan.rounds {
        for (index, line) in plan.lines.iter().enumerate() {
            let mut kinds = plan.kinds.clone();
            // Nobody always comes first.
            kinds.rotate_left((round + index) % plan.kinds.len());
            for kind in kinds {
                progress.step(&format!("round {round}: {}, {}", line.id, kind.name()));
                let pace = Pace::new(line, plan.is_quick);
                let measured = measure::measure(&props, line, kind, pace, round as u64).await;
                let (figure, peer) = (line.id.to_owned(), kind.name().to_owned());
                match measured {
                    Ok((values, usage)) => results.measurements.push(Measurement {
                        round,
                        figure,
                        peer,
                        work: 1,
                        seconds: usage.wall,
                        elsewhere: usage.elsewhere,
                        values,
                    }),
                    Err(problem) => {
                        let reason = format!("{problem:#}");
                        progress.say(&format!("! {peer}, {figure}: {reason}"));
                        let figure = Some(figure);
                        results.problems.push(Problem {
                            peer,
                            figure,
                            reason,
                        });
                    }
                }
            }
            progress.say(&format!("round {round} of {}: {}", plan.rounds, line.id));
        }
    }
    if results.measurements.is_empty() {
        bail!("nothing could be measured; see above");
    }
    results.seconds = began.elapsed().as_secs_f64();
    Ok(results)
}
