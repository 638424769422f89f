//! `cargo xtask soak`: a real gateway with channels whose every byte is verified, while everything
//! around it comes, goes, hangs and breaks.

mod account;
mod faults;
mod stage;
mod steady;
mod visitors;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::runtime::Runtime;
use tokio::sync::watch;

use crate::cargo;
use crate::steps::Steps;
use account::Account;
use faults::Fault;
use stage::Stage;

/// What can be asked for.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// For how long faults are injected; fractions are fine.
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
    /// Channels that must live to the end.
    #[arg(long, default_value_t = 300)]
    channels: usize,
    /// Clients that come and go all the time.
    #[arg(long, default_value_t = 20)]
    visitors: usize,
}

/// What `cargo xtask test` runs.
const QUICK: Options = Options {
    minutes: 0.75,
    channels: 100,
    visitors: 8,
};
/// Between two faults.
const PAUSE: Duration = Duration::from_millis(300);
/// For everything to end, and for what it held to be given back.
const SETTLE: Duration = Duration::from_secs(30);

/// Runs as long as asked for; fails when a byte or a channel is lost, or anything is kept.
pub(crate) fn run(steps: &mut Steps, options: &Options) -> Result<()> {
    ensure!(
        options.minutes > 0.0 && options.minutes < 1e6 && options.channels > 0,
        "nothing to be done"
    );
    steps.begin("The gateway's binary");
    cargo::run(&[
        "build",
        "--quiet",
        "-p",
        "gateway",
        "--bin",
        "flexvdi-gateway",
    ])?;
    steps.done("built");
    Runtime::new()
        .context("a runtime")?
        .block_on(soak(steps, options))
}

/// A short run.
pub(crate) fn run_quick(steps: &mut Steps) -> Result<()> {
    run(steps, &QUICK)
}

async fn soak(steps: &mut Steps, options: &Options) -> Result<()> {
    steps.begin(format!(
        "{} channels and {} clients that come and go",
        options.channels, options.visitors
    ));
    let mut stage = Stage::set().await?;
    let before = stage.warm_up().await?;
    let (end, ending) = watch::channel(false);
    let mut account = Account::default();
    let steady = steady::open(&stage, options.channels, &ending).await?;
    let visitors = visitors::start(&stage, options.visitors, &ending);
    steps.done("all open");

    steps.begin(format!("Faults for {:.1} minutes", options.minutes));
    let began = Instant::now();
    let time = Duration::from_secs_f64(options.minutes * 60.0);
    for fault in Fault::ALL.into_iter().cycle() {
        if began.elapsed() >= time {
            break;
        }
        fault
            .inject(&mut stage, &mut account)
            .await
            .with_context(|| format!("fault {:?}", fault.name()))?;
        account.injected(fault);
        account.seen(&stage)?;
        tokio::time::sleep(PAUSE).await;
    }
    steps.done(account.faults());

    steps.begin("The end of all channels");
    end.send_replace(true);
    account.steady(steady).await?;
    account.visitors(visitors).await?;
    let after = stage.settle(&before, SETTLE).await?;
    account.close(stage).await?;
    steps.note(format!("before: {before}; after: {after}"));
    for line in account.lines() {
        steps.note(line);
    }
    account.verdict(&before, &after)?;
    steps.done("lost: 0");
    Ok(())
}
