//! `cargo xtask bench wan`: the gateway and others over lines as people have them.

pub(super) mod lines;
mod measure;
pub(super) mod stage;
mod viewer;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Result, ensure};
use serde_json::Value;
use testkit::cert::TestCert;

use super::client::{PARAMETERS, Tls};
use super::excerpt::Excerpt;
use super::peers::Kind;
use super::results::{Circumstances, FigureInfo, PeerInfo, Problem, Results};
use super::sweep::sweep;
use lines::WanLine;
use measure::Pace;

use stage::{Place, Props};

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
        reference: Kind::reference(&plan.kinds).name().to_owned(),
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
        tls: Tls::new(false)?,
        keys: plan.keys.clone(),
        gateway: plan.gateway.clone(),
    };
    let excerpt = Excerpt::load()?;
    sweep(
        &mut results,
        &plan.kinds,
        plan.rounds,
        async |index, kind, round| {
            let line = &plan.lines[index];
            let pace = Pace::new(line, plan.is_quick);
            let place = Place {
                line,
                congestion_control: &plan.congestion_control,
                seed: round as u64,
            };
            measure::measure(&props, place, kind, pace, &excerpt).await
        },
    )
    .await?;
    results.seconds = began.elapsed().as_secs_f64();
    Ok(results)
}
