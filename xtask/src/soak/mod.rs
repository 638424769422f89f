//! `cargo xtask soak`: a real gateway with channels whose every byte is verified, while everything
//! around it comes, goes, hangs and breaks.

mod account;
mod faults;
mod killed;
mod stage;
mod steady;
mod strangers;
mod successor;
mod visitors;

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use testkit::namespace::Namespace;
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
    /// Channels that must do so over a line that is bad and dead at times.
    #[arg(long, default_value_t = 30)]
    away: usize,
    /// Clients that come and go all the time.
    #[arg(long, default_value_t = 20)]
    visitors: usize,
}

/// What `cargo xtask test` runs.
const QUICK: Options = Options {
    minutes: 0.75,
    channels: 100,
    away: 12,
    visitors: 8,
};
/// How often somebody who waits is told how far it is.
const PROGRESS: Duration = Duration::from_mins(1);
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
    cargo::build_for_tests()?;
    steps.done("built");
    // The line leads here, and to nobody else's network; the runtime's threads are here, too.
    let here = Namespace::new()?;
    here.enter(|| {
        Runtime::new()
            .context("a runtime")?
            .block_on(soak(steps, options, &here))
    })?
}

/// A short run.
pub(crate) fn run_quick(steps: &mut Steps) -> Result<()> {
    run(steps, &QUICK)
}

async fn soak(steps: &mut Steps, options: &Options, here: &Namespace) -> Result<()> {
    steps.begin(format!(
        "{} channels, {} over a line, and {} clients that come and go",
        options.channels, options.away, options.visitors
    ));
    let mut stage = Stage::set(here).await?;
    let before = stage.warm_up().await?;
    let (end, ending) = watch::channel(false);
    let mut account = Account::default();
    let steady = steady::open(&stage, options.channels, options.away, &ending).await?;
    let visitors = visitors::start(&stage, options.visitors, &ending);
    let strangers = strangers::start(&stage, &ending);
    steps.done("all open");

    steps.begin(format!("Faults for {:.1} minutes", options.minutes));
    let time = Duration::from_secs_f64(options.minutes * 60.0);
    inject(steps, &mut stage, &mut account, time).await?;
    steps.done(account.faults());

    steps.begin("The end of all channels");
    end.send_replace(true);
    account.steady(steady).await?;
    account.visitors(visitors).await?;
    account.strangers(strangers).await?;
    let after = stage.settle(&before, SETTLE).await?;
    let closed = account.close(stage).await;
    steps.note(format!("before: {before}; after: {after}"));
    for line in account.lines() {
        steps.note(line);
    }
    // Figures say more about a process that does not end than its last lines do.
    closed?;
    account.verdict(&before, &after)?;
    steps.done("lost: 0");
    Ok(())
}

/// Injects one fault after the other, and tells now and then what was done.
async fn inject(
    steps: &Steps,
    stage: &mut Stage,
    account: &mut Account,
    time: Duration,
) -> Result<()> {
    let began = Instant::now();
    let mut told = 1;
    for fault in Fault::ALL.into_iter().cycle() {
        if began.elapsed() >= time {
            break;
        }
        let injected = fault.inject(stage, account).await;
        injected.with_context(|| format!("fault {:?}", fault.name()))?;
        account.injected(fault);
        account.seen(stage).await?;
        if began.elapsed() >= PROGRESS * told {
            told += 1;
            steps.note(format!(
                "{:.1} minutes: {} faults, {} MiB verified, {}",
                began.elapsed().as_secs_f64() / 60.0,
                account.count_all(),
                stage.verified.load(Ordering::Relaxed) >> 20,
                stage.held()?
            ));
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}
