//! What `/proc` tells of processes and of the machine.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

use super::statistics::float;

/// What is read from `/proc/PID/stat`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    /// One letter: `R`, `S`, `Z`, ...
    pub(crate) state: char,
    /// Who started it.
    pub(crate) parent: u32,
    /// Time in userspace, all its threads together, in clock ticks.
    pub(crate) user: u64,
    /// Time in the kernel.
    pub(crate) system: u64,
    /// The same of its children that ended.
    pub(crate) children_user: u64,
    /// The same of its children that ended.
    pub(crate) children_system: u64,
}

impl Stat {
    /// Reads a process's; `None` when it is gone.
    pub(crate) fn read(pid: u32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    fn parse(text: &str) -> Option<Self> {
        // The name stands in parentheses and may hold anything.
        let (_, rest) = text.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        let number = |index: usize| fields.get(index)?.parse().ok();
        Some(Self {
            state: fields.first()?.chars().next()?,
            parent: fields.get(1)?.parse().ok()?,
            user: number(11)?,
            system: number(12)?,
            children_user: number(13)?,
            children_system: number(14)?,
        })
    }
}

/// A process and all that descend from it.
pub(crate) fn tree(root: u32) -> Result<Vec<u32>> {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for entry in fs::read_dir("/proc").context("reading /proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        if let Some(stat) = Stat::read(pid) {
            children.entry(stat.parent).or_default().push(pid);
        }
    }
    let mut found = vec![root];
    let mut next = 0;
    while let Some(pid) = found.get(next) {
        found.extend(children.remove(pid).unwrap_or_default());
        next += 1;
    }
    Ok(found)
}

/// The time for which a process's threads that still live ran, to the nanosecond.
pub(crate) fn run_time(pid: u32) -> Duration {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return Duration::ZERO;
    };
    threads
        .flatten()
        .filter_map(|thread| fs::read_to_string(thread.path().join("schedstat")).ok())
        .filter_map(|text| text.split_ascii_whitespace().next()?.parse().ok())
        .map(Duration::from_nanos)
        .sum()
}

/// The time for which each of the kernel's own workers (kworker threads) that still lives ran, by
/// its id.
pub(crate) fn worker_times() -> BTreeMap<u32, Duration> {
    let Ok(processes) = fs::read_dir("/proc") else {
        return BTreeMap::new();
    };
    let pids = processes
        .flatten()
        .filter_map(|process| process.file_name().to_str()?.parse().ok());
    let is_worker = |pid: &u32| {
        let name = fs::read_to_string(format!("/proc/{pid}/comm"));
        name.is_ok_and(|name| name.starts_with("kworker/"))
    };
    pids.filter(is_worker)
        .map(|pid| (pid, run_time(pid)))
        .collect()
}

/// How long all processors were busy since the machine started, in seconds. Time that the
/// hypervisor took away is not part of it.
pub(crate) fn busy_seconds() -> Result<f64> {
    let text = fs::read_to_string("/proc/stat").context("reading /proc/stat")?;
    let ticks = parse_busy(&text).context("/proc/stat is not as expected")?;
    Ok(seconds(ticks))
}

fn parse_busy(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let fields: Vec<u64> = line
        .split_ascii_whitespace()
        .map_while(|field| field.parse().ok())
        .collect();
    let [user, nice, system, _idle, _iowait, irq, softirq, ..] = fields[..] else {
        return None;
    };
    Some(user + nice + system + irq + softirq)
}

/// Clock ticks as seconds.
pub(crate) fn seconds(ticks: u64) -> f64 {
    float(ticks) / float(rustix::param::clock_ticks_per_second())
}

/// A process's memory in bytes, in which what it shares is divided by the number of sharers.
pub(crate) fn proportional_memory(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    parse_pss(&text).with_context(|| format!("{path} is not as expected"))
}

fn parse_pss(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib * 1024)
}

/// What the kernel holds for all TCP sockets of this machine, in bytes.
pub(crate) fn socket_memory() -> Result<u64> {
    let path = "/proc/net/sockstat";
    let text = fs::read_to_string(path).with_context(|| format!("reading {path}"))?;
    let pages = parse_sockstat(&text).with_context(|| format!("{path} is not as expected"))?;
    Ok(pages * rustix::param::page_size() as u64)
}

fn parse_sockstat(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("TCP:"))?;
    let mut words = line.split_ascii_whitespace();
    words.find(|word| *word == "mem")?;
    words.next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_is_read_behind_any_name() {
        let text = "4242 (a ) (b) S 17 4242 1 0 -1 4194560 9 0 0 0 \
                    11 22 33 44 20 0 3 0 12345 99 88 777";
        let stat = Stat::parse(text).unwrap();
        assert_eq!((stat.state, stat.parent), ('S', 17));
        assert_eq!((stat.user, stat.system), (11, 22));
        assert_eq!((stat.children_user, stat.children_system), (33, 44));
        assert_eq!(Stat::parse("1 (x) S 1"), None);
    }

    #[test]
    fn idle_and_stolen_time_are_not_busy() {
        let text = "intr 1\ncpu  1 2 3 1000 1000 4 5 1000 0 0\ncpu0 9 9 9 9 9 9 9 9 0 0\n";
        assert_eq!(parse_busy(text), Some(15));
        assert_eq!(parse_busy("cpu0 1 2 3"), None);
    }

    #[test]
    fn memory_is_read_in_its_units() {
        let text = "00-ff ---p 00 00:00 0 [rollup]\nRss:  99 kB\nPss:   12 kB\nPss_Dirty: 3 kB\n";
        assert_eq!(parse_pss(text), Some(12 * 1024));
        let text = "sockets: used 27\nTCP: inuse 7 orphan 0 tw 25 alloc 7 mem 1125\nUDP: mem 3\n";
        assert_eq!(parse_sockstat(text), Some(1125));
    }

    #[test]
    fn this_process_is_seen() {
        let own = std::process::id();
        assert!(Stat::read(own).is_some());
        assert_eq!(tree(own).unwrap()[0], own);
        assert!(run_time(own) > Duration::ZERO);
        assert!(proportional_memory(own).unwrap() > 0);
        assert!(busy_seconds().unwrap() > 0.0);
        socket_memory().unwrap();
    }
}
