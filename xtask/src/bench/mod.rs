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

use std::env;
use std::os::unix::process::CommandExt;

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

/// Does what the options say.
pub(crate) fn run(steps: &mut Steps, options: &Options) -> Result<()> {
    match options.task()? {
        Task::Measure(..) if cfg!(debug_assertions) => run_optimised(),
        Task::Measure(plan, json, output) => {
            let results = measure(steps, *plan)?;
            results.save(&json)?;
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
    limits::raise_open_files()?;
    if plan.kinds.contains(&Kind::GatewaySockmap) {
        build_ebpf::run(steps, &build_ebpf::Options::default())?;
    }
    steps.begin("Gateway: release build");
    peers::gateway::build()?;
    steps.done("built");
    let (infos, problems) = prepare(steps, &mut plan)?;

    steps.begin(format!(
        "Measure {} in {} rounds",
        plan.comparison, plan.rounds
    ));
    let runtime = runtime::Builder::new_multi_thread().enable_all().build()?;
    let results = runtime.block_on(async {
        tokio::select! {
            results = runner::run(&plan, infos, problems) => results,
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
fn prepare(steps: &mut Steps, plan: &mut Plan) -> Result<(Vec<PeerInfo>, Vec<Problem>)> {
    steps.begin("Peers");
    let mut infos = Vec::new();
    let mut problems = Vec::new();
    for kind in plan.kinds.clone() {
        let prepared = kind.prepare(|text| steps.note(text));
        match prepared.and_then(|()| kind.version()) {
            Ok(version) => infos.push(PeerInfo {
                name: kind.name().to_owned(),
                role: kind.role().to_owned(),
                version,
            }),
            Err(problem) => {
                steps.note(format!("left out: {}: {problem:#}", kind.name()));
                plan.kinds.retain(|other| *other != kind);
                problems.push(Problem {
                    peer: kind.name().to_owned(),
                    figure: None,
                    reason: format!("{problem:#}"),
                });
            }
        }
    }
    if plan.kinds.is_empty() {
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
