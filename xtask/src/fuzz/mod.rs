//! `cargo xtask fuzz`: libFuzzer feeds each target of `fuzz/` with what nobody would write.

mod campaign;
mod target;

use std::thread::available_parallelism;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::steps::Steps;
use campaign::Campaign;
use target::Target;

/// What can be asked for.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// The target, a file of `fuzz/fuzz_targets`; all if none is given.
    target: Option<String>,
    /// For how long each target runs; fractions are fine.
    #[arg(long, default_value_t = 1.0, value_parser = minutes)]
    minutes: f64,
}

/// How long each target runs in `cargo xtask test`.
const QUICK: Duration = Duration::from_secs(6);

fn minutes(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(minutes) if (0.01..=100_000.0).contains(&minutes) => Ok(minutes),
        _ => Err("expected a number of minutes, 0.01 or more".to_owned()),
    }
}

/// Fuzzes what was asked for; fails when a target does.
pub(crate) fn run(steps: &mut Steps, options: &Options) -> Result<()> {
    let mut targets = Target::all()?;
    if let Some(name) = &options.target {
        let known: Vec<_> = targets.iter().map(|target| target.name.clone()).collect();
        targets.retain(|target| target.name == *name);
        ensure!(
            !targets.is_empty(),
            "no target {name:?}; there are: {}",
            known.join(", ")
        );
    }
    fuzz(
        steps,
        &targets,
        Duration::from_secs_f64(options.minutes * 60.0),
    )
}

/// A short run of every target.
pub(crate) fn run_quick(steps: &mut Steps) -> Result<()> {
    fuzz(steps, &Target::all()?, QUICK)
}

fn fuzz(steps: &mut Steps, targets: &[Target], time: Duration) -> Result<()> {
    steps.begin("Fuzz targets");
    target::build(targets)?;
    steps.done(format!("{} built", targets.len()));

    let at_once = available_parallelism()
        .context("counting processors")?
        .get();
    steps.begin(format!(
        "Fuzzing for {:.1} s each, {at_once} at the same time",
        time.as_secs_f64()
    ));
    let mut failed = Vec::new();
    for (target, outcome) in campaign::all(targets, time, at_once) {
        match outcome {
            Ok(Campaign::Passed(figures)) => steps.note(format!("{}: {figures}", target.name)),
            Ok(Campaign::Failed { report }) => {
                steps.note(format!("{}: FAILED\n{report}", target.name));
                failed.push(target.name.clone());
            }
            Err(error) => return Err(error.context(format!("target {}", target.name))),
        }
    }
    ensure!(failed.is_empty(), "failed: {}", failed.join(", "));
    steps.done("nothing was found");
    Ok(())
}
