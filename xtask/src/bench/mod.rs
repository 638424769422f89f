//! `cargo xtask bench`: measures the gateway side by side with others that do a like job, and
//! its data paths side by side with each other.

mod block;
mod chart;
mod client;
mod cpu;
mod document;
mod excerpt;
mod figures;
mod host;
mod instructions;
mod job;
mod limits;
mod machine;
mod memory;
mod options;
mod peers;
mod procfs;
mod progress;
mod results;
mod runner;
mod statistics;
mod table;
mod vm;
mod wan;

use std::env;
use std::os::unix::process::CommandExt;
use std::path::Path;

use anyhow::{Context, Result, bail};
use tokio::runtime;
use tokio::signal::unix::{SignalKind, signal};

use crate::build_ebpf;
use crate::cargo;
use crate::steps::Steps;
pub(crate) use options::Options;
use options::{Output, Task};
use peers::Kind;
use results::{PeerInfo, Problem, Results};
use runner::Plan;
use wan::WanPlan;

/// Does what the options say.
pub(crate) fn run(steps: &mut Steps, options: &Options) -> Result<()> {
    match options.task()? {
        Task::Measure(..) if cfg!(debug_assertions) => run_optimised(),
        // Whoever names a program may not want to wait for optimised builds.
        Task::Wan(plan, ..) if cfg!(debug_assertions) && plan.gateway.is_none() => run_optimised(),
        Task::Measure(plan, json, output) => {
            let results = measure(steps, *plan)?;
            results.save(&json)?;
            show(&results, output)?;
            println!("all values: {}", json.display());
            Ok(())
        }
        Task::Wan(plan, json, output) => {
            let results = measure_wan(steps, *plan)?;
            results.save(json)?;
            show(&results, output)?;
            println!("all values: {}", json.display());
            Ok(())
        }
        Task::Instructions { write_baseline } => instructions::run(steps, write_baseline),
        Task::Vm(options) => vm::run(steps, options),
        Task::Report(json, output) => show(&Results::load(json)?, output),
    }
}

fn measure(steps: &mut Steps, mut plan: Plan) -> Result<Results> {
    let (infos, problems) = build_and_prepare(steps, &mut plan.kinds, None)?;

    steps.begin(format!(
        "Measure {} in {} rounds",
        plan.comparison, plan.rounds
    ));
    finish(steps, runner::run(&plan, infos, problems))
}

fn measure_wan(steps: &mut Steps, mut plan: WanPlan) -> Result<Results> {
    let (infos, problems) = build_and_prepare(steps, &mut plan.kinds, plan.gateway.as_deref())?;
    steps.begin(format!("Measure lines in {} rounds", plan.rounds));
    finish(steps, wan::run(&plan, infos, problems))
}

/// Builds the gateway, unless its program is given, and installs the others.
fn build_and_prepare(
    steps: &mut Steps,
    kinds: &mut Vec<Kind>,
    gateway: Option<&Path>,
) -> Result<(Vec<PeerInfo>, Vec<Problem>)> {
    limits::raise_open_files()?;
    if gateway.is_none() {
        if kinds.contains(&Kind::GatewaySockmap) {
            build_ebpf::run(steps, &build_ebpf::Options::default())?;
        }
        steps.begin("Gateway: release build");
        peers::gateway::build()?;
        steps.done("built");
    }
    prepare(steps, kinds, gateway)
}

/// Runs measurements to their end, or until somebody stops them.
fn finish(steps: &mut Steps, run: impl Future<Output = Result<Results>>) -> Result<Results> {
    let runtime = runtime::Builder::new_multi_thread().enable_all().build()?;
    let results = runtime.block_on(async {
        tokio::select! {
            results = run => results,
            stopped = stop_signal() => stopped.and_then(|()| bail!("stopped")),
        }
    });
    runtime.shutdown_background();
    let results = results?;
    steps.done(table::duration(results.seconds));
    Ok(results)
}

fn show(results: &Results, output: &Output) -> Result<()> {
    println!("{}", table::plain(results));
    let charts = chart::draw_all(results, &output.charts)?;
    println!("{} charts: {}", charts.len(), output.charts.display());
    if output.write_docs {
        let document = document::update(results, &charts)?;
        println!("tables: {}", document.display());
    }
    Ok(())
}

/// Runs this very command again, built with optimisations: a slow client would hide what the
/// peers can do.
fn run_optimised() -> Result<()> {
    let mut command = cargo::command(&["run", "--release", "--quiet", "-p", "xtask", "--"]);
    command
        .args(env::args_os().skip(1))
        .current_dir(env::current_dir()?);
    println!("building the load generator with optimisations");
    Err(command.exec()).context("starting cargo")
}

/// Installs the peers; those that cannot be had are left out, and told of.
fn prepare(
    steps: &mut Steps,
    kinds: &mut Vec<Kind>,
    gateway: Option<&Path>,
) -> Result<(Vec<PeerInfo>, Vec<Problem>)> {
    steps.begin("Peers");
    let mut infos = Vec::new();
    let mut problems = Vec::new();
    for kind in kinds.clone() {
        let prepared = kind.prepare(|text| steps.note(text));
        match prepared.and_then(|()| kind.version(gateway)) {
            Ok(version) => infos.push(PeerInfo {
                name: kind.name().to_owned(),
                role: kind.role().to_owned(),
                version,
            }),
            Err(problem) => {
                steps.note(format!("left out: {}: {problem:#}", kind.name()));
                kinds.retain(|other| *other != kind);
                problems.push(Problem {
                    peer: kind.name().to_owned(),
                    figure: None,
                    reason: format!("{problem:#}"),
                });
            }
        }
    }
    if kinds.is_empty() {
        bail!("no peer can be had");
    }
    steps.done(
        infos
            .iter()
            .map(|peer| peer.name.as_str())
            .collect::<Vec<_>>()
            .join(", "),
    );
    Ok((infos, problems))
}

async fn stop_signal() -> Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}
