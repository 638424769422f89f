//! `cargo xtask bench desktop`: from key to pixel over lines, with a real Spice server.

mod animation;
mod measure;
mod scenes;
mod spice;
mod xorg;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Result, ensure};
use serde_json::Value;
use testkit::cert::TestCert;
use testkit::packages::{self, Package};

use super::client::{PARAMETERS, Tls};
use super::peers::Kind;
use super::results::{Circumstances, FigureInfo, PeerInfo, Problem, Results};
use super::sweep::sweep;
use super::wan::stage::{self, Props};
use scenes::Scene;

/// What to measure.
pub(crate) struct DesktopPlan {
    /// The command line, for the record.
    pub(crate) command: String,
    /// Who is measured.
    pub(crate) kinds: Vec<Kind>,
    scenes: Vec<Scene>,
    /// How often.
    pub(crate) rounds: usize,
    /// For a shorter time.
    pub(crate) is_quick: bool,
    /// Further keys of the gateway's configuration.
    pub(crate) keys: Vec<(String, Value)>,
    /// The gateway's program; none: the release build.
    pub(crate) gateway: Option<PathBuf>,
}

impl DesktopPlan {
    /// A plan with the scenes of these names; with no name, with all or the quick ones.
    pub(crate) fn new(names: &[String], is_quick: bool) -> Result<Self> {
        let mut scenes = scenes::all();
        for name in names {
            let ids: Vec<_> = scenes.iter().map(|scene| scene.id.as_str()).collect();
            ensure!(
                ids.contains(&name.as_str()),
                "there is no scene {name}; there are: {}",
                ids.join(", ")
            );
        }
        scenes.retain(|scene| {
            if names.is_empty() {
                scene.is_quick || !is_quick
            } else {
                names.contains(&scene.id)
            }
        });
        Ok(Self {
            command: String::new(),
            kinds: Vec::new(),
            scenes,
            rounds: 1,
            is_quick,
            keys: Vec::new(),
            gateway: None,
        })
    }
}

/// Measures what the plan says. `problems` tells who could not be prepared.
pub(crate) async fn run(
    plan: &DesktopPlan,
    peers: Vec<PeerInfo>,
    problems: Vec<Problem>,
) -> Result<Results> {
    let began = Instant::now();
    // What is missing is told once, not by each measurement.
    packages::ensure(&[Package::XorgSpice, Package::Openssl])?;
    for scene in &plan.scenes {
        stage::try_network(scene.congestion_control)?;
    }
    let mut results = Results::new(Circumstances {
        comparison: "desktop",
        command: plan.command.clone(),
        tls: PARAMETERS,
        reference: Kind::reference(&plan.kinds).name().to_owned(),
    })?;
    results.peers = peers;
    results.problems = problems;
    let info = |scene: &Scene| FigureInfo {
        id: scene.id.clone(),
        title: scene.title.clone(),
        metrics: measure::metrics(),
    };
    results.figures = plan.scenes.iter().map(info).collect();
    let props = Props {
        cert: TestCert::new()?,
        tls: Tls::new(false)?,
        keys: plan.keys.clone(),
        gateway: plan.gateway.clone(),
    };
    sweep(
        &mut results,
        &plan.kinds,
        plan.rounds,
        async |index, kind, round| {
            let scene = &plan.scenes[index];
            measure::measure(&props, scene, kind, plan.is_quick, round as u64).await
        },
    )
    .await?;
    results.seconds = began.elapsed().as_secs_f64();
    Ok(results)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scenes_are_chosen_by_name() {
        let names = ["80ms-10m-idle".to_owned()];
        assert_eq!(DesktopPlan::new(&names, false).unwrap().scenes.len(), 1);
        assert!(DesktopPlan::new(&["80ms-10m".to_owned()], false).is_err());
        let (quick, all) = (DesktopPlan::new(&[], true), DesktopPlan::new(&[], false));
        assert!(quick.unwrap().scenes.len() < all.unwrap().scenes.len());
    }
}
