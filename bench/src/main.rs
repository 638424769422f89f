//! `cargo xtask bench`: measures the gateway side by side with others that do a like job, and
//! its data paths side by side with each other.

mod block;
mod chart;
mod client;
mod command_line;
mod cpu;
mod desktop;
mod document;
mod excerpt;
mod figures;
mod host;
mod instructions;
mod job;
mod limits;
mod machine;
mod memory;
mod message;
mod metric;
mod options;
mod peers;
mod procfs;
mod progress;
mod results;
mod runner;
mod show;
mod statistics;
mod sweep;
mod table;
mod vm;
mod wan;

use std::env;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Parser;
use testkit::namespace::Namespace;
use testkit::network::{Leg, Network};
use tokio::runtime;
use tokio::signal::unix::{SignalKind, signal};

use desktop::DesktopPlan;
use options::{Options, Output, Task};
use peers::Kind;
use results::{PeerInfo, Problem, Results};
use runner::{Link, Plan};
use wan::WanPlan;
use xtask::build_ebpf;
use xtask::cargo;
use xtask::steps::Steps;

fn main() -> ExitCode {
    let mut steps = Steps::default();
    match run(&mut steps, &Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            steps.failed(&error);
            ExitCode::FAILURE
        }
    }
}

/// Does what the options say.
fn run(steps: &mut Steps, options: &Options) -> Result<()> {
    match options.task()? {
        Task::Measure(..) if cfg!(debug_assertions) => run_optimised(),
        // Whoever names a program may not want to wait for optimised builds.
        Task::Wan(plan, ..) if cfg!(debug_assertions) && plan.gateway.is_none() => run_optimised(),
        Task::Desktop(plan, ..) if cfg!(debug_assertions) && plan.gateway.is_none() => {
            run_optimised()
        }
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
        Task::Desktop(plan, json, output) => {
            let results = measure_desktop(steps, *plan)?;
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
    let (infos, problems) = build_and_prepare(steps, &mut plan.kinds, plan.gateway.as_deref())?;

    steps.begin(format!(
        "Measure {} in {} rounds",
        plan.comparison, plan.rounds
    ));
    let network = match plan.link {
        Link::Loopback => None,
        Link::Veth => Some(Network::new(Leg::Ethernet, Leg::Ethernet, 0)?),
    };
    let client = network.as_ref().map(|network| network.client.clone());
    finish(steps, client, runner::run(&plan, network, infos, problems))
}

fn measure_wan(steps: &mut Steps, mut plan: WanPlan) -> Result<Results> {
    let (infos, problems) = build_and_prepare(steps, &mut plan.kinds, plan.gateway.as_deref())?;
    steps.begin(format!("Measure lines in {} rounds", plan.rounds));
    finish(steps, None, wan::run(&plan, infos, problems))
}

fn measure_desktop(steps: &mut Steps, mut plan: DesktopPlan) -> Result<Results> {
    let (infos, problems) = build_and_prepare(steps, &mut plan.kinds, plan.gateway.as_deref())?;
    steps.begin(format!("Measure desktops in {} rounds", plan.rounds));
    finish(steps, None, desktop::run(&plan, infos, problems))
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

/// Runs measurements to their end, or until somebody stops them; all threads of the client are in
/// this namespace, if it is given.
fn finish(
    steps: &mut Steps,
    client: Option<Namespace>,
    run: impl Future<Output = Result<Results>>,
) -> Result<Results> {
    let mut builder = runtime::Builder::new_multi_thread();
    if let Some(client) = client.clone() {
        builder.on_thread_start(move || {
            client.settle().expect("what made a namespace may enter it");
        });
    }
    let runtime = builder.enable_all().build()?;
    let run = async {
        tokio::select! {
            results = run => results,
            stopped = stop_signal() => stopped.and_then(|()| bail!("stopped")),
        }
    };
    let results = match client {
        Some(client) => client.enter(|| runtime.block_on(run))?,
        None => runtime.block_on(run),
    };
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
    let mut command = cargo::command(&["run", "--release", "--quiet", "-p", "bench", "--"]);
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
