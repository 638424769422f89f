//! What the processor spends, and on whom. Its clock counts instructions.

use std::fs;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use testkit::vm::Cost;

use super::idle::Idle;

/// The process that all kernel threads are children of.
const KTHREADD: &str = "2";

/// Takes the difference between two moments.
pub(crate) struct Meter<'a> {
    idle: &'a Idle,
    gateway: Option<u32>,
    shares: Shares,
    idle_before: f64,
    begun: Instant,
}

impl<'a> Meter<'a> {
    /// Begins to measure; `gateway` is the process whose share is told.
    pub(crate) fn start(idle: &'a Idle, gateway: Option<u32>) -> Result<Self> {
        let shares = shares(gateway)?;
        // Last, so that reading the shares is not measured.
        Ok(Self {
            idle,
            gateway,
            shares,
            idle_before: idle.nanoseconds(),
            begun: Instant::now(),
        })
    }

    /// What was spent since the start, in nanoseconds of the processor's clock.
    pub(crate) fn stop(self) -> Result<Cost> {
        let all = self.begun.elapsed().as_secs_f64() * 1e9;
        let idle = self.idle.nanoseconds() - self.idle_before;
        let shares = shares(self.gateway)?;
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
        let share = |after: u64, before: u64| after.saturating_sub(before) as f64;
        Ok(Cost {
            machine: all - idle,
            gateway: share(shares.gateway, self.shares.gateway),
            kernel: share(shares.kernel, self.shares.kernel),
            wakeups: share(shares.waits, self.shares.waits),
        })
    }
}

/// What was spent so far.
#[derive(Default)]
struct Shares {
    /// What the gateway's threads have run, in nanoseconds.
    gateway: u64,
    /// What all kernel threads have run, in nanoseconds.
    kernel: u64,
    /// How often a thread of the gateway has waited.
    waits: u64,
}

fn shares(gateway: Option<u32>) -> Result<Shares> {
    let mut shares = Shares::default();
    if let Some(pid) = gateway {
        for thread in fs::read_dir(Path::new("/proc").join(pid.to_string()).join("task"))? {
            let thread = thread?.path();
            shares.gateway += run_time(&thread)?;
            shares.waits += waits(&thread)?;
        }
    }
    for entry in fs::read_dir("/proc")? {
        let path = entry?.path();
        // Threads of the kernel come and go.
        if is_kernel_thread(&path) == Some(true) {
            shares.kernel += run_time(&path).unwrap_or(0);
        }
    }
    Ok(shares)
}

/// Line `voluntary_ctxt_switches` of `status` (man 5 proc).
fn waits(thread: &Path) -> Result<u64> {
    let path = thread.join("status");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let mut lines = text.lines();
    let number = lines.find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    number
        .and_then(|number| number.trim().parse().ok())
        .with_context(|| format!("{} does not tell switches", path.display()))
}

/// The first number of `schedstat`: time on the processor (Documentation/scheduler/sched-stats).
fn run_time(thread: &Path) -> Result<u64> {
    let path = thread.join("schedstat");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let first = text.split_whitespace().next();
    first
        .and_then(|number| number.parse().ok())
        .with_context(|| format!("{} is {text:?}", path.display()))
}

/// `None` for what is no process.
fn is_kernel_thread(process: &Path) -> Option<bool> {
    let stat = fs::read_to_string(process.join("stat")).ok()?;
    // The name may have anything in it; behind it come state and parent.
    let (_, rest) = stat.rsplit_once(')')?;
    Some(rest.split_whitespace().nth(1) == Some(KTHREADD))
}
