//! The data path `relay` alone, between streams in memory whose every step is chosen at random.
//!
//! Everything runs in one task per run and on a clock that moves only when nothing else can: a
//! seed fixes the whole course of a run, and a run that stalls fails at once.

use std::cell::Cell;
use std::task::Poll;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use gateway_datapath::end_reason::{EndReason, StopCause};
use gateway_datapath::{Counters, Inbound, Limits, relay};
use testkit::net::within;
use testkit::ws::RawClient;

use crate::peers;
use crate::plan::Plan;
use crate::unsteady::Unsteady;
use crate::verdict::Disturbance;
use testkit::rng::{Rng, seed_or};

const RUNS: u64 = 10_000;
const THREADS: u64 = 2;
/// Far more than all runs take on a slow machine.
const LIMIT: Duration = Duration::from_secs(120);

#[test]
fn random_runs() -> Result<()> {
    let first = seed_or(1)?;
    let (done, results) = std::sync::mpsc::channel();
    for thread in 0..THREADS {
        let done = done.clone();
        std::thread::spawn(move || {
            let seeds = (first..first + RUNS).filter(|seed| seed % THREADS == thread);
            // The test may be over.
            let _ = done.send(run_all(seeds));
        });
    }
    for _ in 0..THREADS {
        results.recv_timeout(LIMIT).context("a run without end")??;
    }
    Ok(())
}

fn run_all(seeds: impl Iterator<Item = u64>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()?;
    for seed in seeds {
        let run = runtime.block_on(run(seed));
        run.with_context(|| format!("seed {seed}"))?;
    }
    Ok(())
}

async fn run(seed: u64) -> Result<()> {
    let mut rng = Rng::new(seed);
    let capacity = |rng: &mut Rng| rng.pick(&[1, 7, 64, 1_000, 10_000, 300_000]);
    let (client_capacity, host_capacity) = (capacity(&mut rng), capacity(&mut rng));
    let (client, gateway_client) = tokio::io::duplex(client_capacity);
    let (host, gateway_host) = tokio::io::duplex(host_capacity);
    let mut gateway_client = Unsteady::new(gateway_client, &mut rng);
    let mut gateway_host = Unsteady::new(gateway_host, &mut rng);
    if rng.once_in(2) {
        gateway_client.hold_back();
    }

    // Narrow pipes need many steps for every byte.
    let volume = client_capacity.min(host_capacity) * 50;
    let most = rng.pick(&[500, 5_000, 5_000, 5_000, 30_000, 150_000]);
    let mut plan = Plan::new(&mut rng, volume.min(most));
    plan.pause = rng.pick(&[0, 30]);
    let mut limits = Limits {
        ping_interval: None,
        // Longer than anyone waits here: what ends only by this limit has stalled.
        close_timeout: Duration::from_secs(3_600),
    };
    let mut polls_before_stop = None;
    let disturbance = match rng.below(20) {
        0 => {
            gateway_client.break_after(rng.below(300));
            Disturbance::ClientBreaks
        }
        1 => {
            gateway_host.break_after(rng.below(300));
            Disturbance::HostBreaks
        }
        2 => {
            polls_before_stop = Some(rng.below(100));
            Disturbance::GatewayEnds
        }
        3..=5 => {
            limits.ping_interval = Some(Duration::from_millis(20));
            Disturbance::GatewayEnds
        }
        _ => Disturbance::None,
    };
    let polls = Cell::new(0);
    let stop = std::future::poll_fn(|_| {
        polls.set(polls.get() + 1);
        match polls_before_stop {
            Some(before) if polls.get() > before => {
                Poll::Ready(EndReason::Asked(StopCause::Shutdown))
            }
            _ => Poll::Pending,
        }
    });

    let counters = Counters::default();
    let relay = async {
        let (client, host) = (&mut gateway_client, &mut gateway_host);
        let inbound = Inbound::default();
        let reason = relay::run(client, host, inbound, limits, &counters, stop);
        let reason = within("end of the relay", reason).await;
        // What the peers still wait for comes now or never.
        drop((gateway_client, gateway_host));
        reason
    };
    let (reason, round) = tokio::join!(relay, peers::run(&plan, RawClient::over(client), host));
    let verdict = reason.and_then(|reason| {
        check_reason(reason, &plan, disturbance)?;
        round.check(&plan, disturbance)
    });
    verdict.with_context(|| format!("{disturbance:?} of {plan:?}"))
}

/// The reason must be something that happened.
fn check_reason(reason: EndReason, plan: &Plan, disturbance: Disturbance) -> Result<()> {
    let happened = match reason {
        EndReason::ClientClose(code) => plan.client_closes_with(code),
        EndReason::ClientEnd => plan.client_ends() || plan.client_vanishes(),
        EndReason::Violation(_) => plan.client_violates(),
        EndReason::ClientLost(_) => {
            plan.client_vanishes() || disturbance == Disturbance::ClientBreaks
        }
        EndReason::HostEnd => plan.host_ends() || plan.host_vanishes(),
        EndReason::HostLost(_) => plan.host_vanishes() || disturbance == Disturbance::HostBreaks,
        EndReason::ClientSilent | EndReason::Asked(_) => disturbance == Disturbance::GatewayEnds,
        // The channel has begun, nothing changes keys here, and no program of the kernel moves
        // bytes.
        _ => false,
    };
    ensure!(happened, "ended for the reason {reason:?}");
    Ok(())
}
