//! How much processor time a measurement took, and whose.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::procfs::{self, Stat};

/// Processor time of a process and all that descend from it, in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct CpuTime {
    /// All of it, exact.
    pub(crate) total: f64,
    /// In userspace, as sampled by the kernel's clock ticks.
    user: f64,
    /// In the kernel, sampled too.
    system: f64,
}

impl CpuTime {
    /// What the tree of processes below `root` used so far.
    pub(crate) fn of_tree(root: u32) -> Result<Self> {
        let processes = procfs::tree(root)?;
        let stats = processes
            .iter()
            .filter_map(|pid| Some((Stat::read(*pid)?, procfs::run_time(*pid))));
        Ok(stats.fold(Self::default(), |sum, (stat, run)| {
            sum.plus(&Self::of_process(&stat, run))
        }))
    }

    fn of_process(stat: &Stat, run: Duration) -> Self {
        let own = procfs::seconds(stat.user + stat.system);
        let children = procfs::seconds(stat.children_user + stat.children_system);
        Self {
            // The one lacks threads that ended, the other the last part of a tick.
            total: run.as_secs_f64().max(own) + children,
            user: procfs::seconds(stat.user + stat.children_user),
            system: procfs::seconds(stat.system + stat.children_system),
        }
    }

    /// The part in userspace.
    pub(crate) fn user(&self) -> f64 {
        let sampled = self.user + self.system;
        if sampled > 0.0 {
            self.total * self.user / sampled
        } else {
            0.0
        }
    }

    /// The part in the kernel.
    pub(crate) fn system(&self) -> f64 {
        (self.total - self.user()).max(0.0)
    }

    fn plus(&self, other: &Self) -> Self {
        Self {
            total: self.total + other.total,
            user: self.user + other.user,
            system: self.system + other.system,
        }
    }

    fn minus(&self, earlier: &Self) -> Self {
        let since = |now: f64, then: f64| (now - then).max(0.0);
        Self {
            total: since(self.total, earlier.total),
            user: since(self.user, earlier.user),
            system: since(self.system, earlier.system),
        }
    }
}

/// What is read at the start of a measurement.
pub(crate) struct Gauge {
    /// The process of the peer; `None` when there is none.
    pid: Option<u32>,
    peer: CpuTime,
    /// Process and time of a host that is a program of its own.
    host: Option<(u32, f64)>,
    own: Duration,
    /// Of the kernel's workers, by id.
    workers: BTreeMap<u32, Duration>,
    busy: f64,
    at: Instant,
}

/// What a measurement took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    /// Seconds that passed.
    pub(crate) wall: f64,
    /// Of the peer.
    pub(crate) peer: CpuTime,
    /// Seconds for which processors were busy, whoever kept them so.
    pub(crate) busy: f64,
    /// Seconds of the peer, the host, this program and the kernel's workers, which move bytes for
    /// a peer without being part of it. What else the machine does is not in it.
    pub(crate) tasks: f64,
    /// The share of the machine, 0 to 1, that was busy with none of these.
    pub(crate) elsewhere: f64,
}

impl Gauge {
    /// Begins to measure this peer.
    pub(crate) fn start(pid: Option<u32>) -> Result<Self> {
        Ok(Self {
            pid,
            peer: peer_time(pid)?,
            host: None,
            own: procfs::run_time(std::process::id()),
            workers: procfs::worker_times(),
            busy: procfs::busy_seconds()?,
            at: Instant::now(),
        })
    }

    /// Counts this process as the host, not as something else that keeps the machine busy.
    pub(crate) fn with_host(self, pid: u32) -> Result<Self> {
        let host = Some((pid, CpuTime::of_tree(pid)?.total));
        Ok(Self { host, ..self })
    }

    /// Ends it.
    pub(crate) fn finish(self) -> Result<Usage> {
        let wall = self.at.elapsed().as_secs_f64();
        let busy = procfs::busy_seconds()? - self.busy;
        let own = procfs::run_time(std::process::id()).saturating_sub(self.own);
        let peer = peer_time(self.pid)?.minus(&self.peer);
        let cores = std::thread::available_parallelism()?.get();
        let capacity = wall * super::statistics::float(cores as u64);
        let host = match self.host {
            Some((pid, before)) => CpuTime::of_tree(pid)?.total - before,
            None => 0.0,
        };
        let workers = procfs::worker_times();
        let workers = workers.into_iter().map(|(pid, time)| {
            let before = self.workers.get(&pid).copied().unwrap_or_default();
            time.saturating_sub(before).as_secs_f64()
        });
        let tasks = own.as_secs_f64() + peer.total + host + workers.sum::<f64>();
        Ok(Usage {
            wall,
            peer,
            busy,
            tasks,
            elsewhere: (busy - tasks).max(0.0) / capacity,
        })
    }
}

fn peer_time(pid: Option<u32>) -> Result<CpuTime> {
    pid.map_or(Ok(CpuTime::default()), CpuTime::of_tree)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: Stat = Stat {
        state: 'S',
        parent: 1,
        user: 30,
        system: 10,
        children_user: 0,
        children_system: 20,
    };

    fn is_near(value: f64, expected: f64) -> bool {
        (value - expected).abs() < 1e-9
    }

    #[test]
    fn the_exact_time_is_split_as_sampled() {
        let time = CpuTime::of_process(&STAT, Duration::from_millis(1_000));
        assert!(is_near(time.total, 1.2), "{time:?}");
        assert!(is_near(time.user(), 0.6) && is_near(time.system(), 0.6));
    }

    #[test]
    fn threads_that_ended_are_in_the_ticks() {
        let time = CpuTime::of_process(&STAT, Duration::from_millis(1));
        assert!(is_near(time.total, 0.6), "{time:?}");
    }

    #[test]
    fn work_is_measured() {
        let gauge = Gauge::start(Some(std::process::id())).unwrap();
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_millis(30) {
            std::hint::spin_loop();
        }
        let usage = gauge.finish().unwrap();
        assert!(usage.wall >= 0.03 && usage.peer.total > 0.0);
    }
}
