//! Limits on memory and threads of the control group in which the gateway runs.

use std::fs;
use std::path::Path;

use procfs::process::Process;

use super::super::finding::{Finding, or_ok};
use super::super::running::process;
use super::super::scene::Scene;
use super::Check;

pub(super) const CHECK: Check = Check::blocking("memory", look);

/// What an open connection takes in the process and in the kernel, in bytes: docs/operations.md,
/// "Sizing".
const EACH: u64 = 23 * 1024;
/// What a gateway takes without connections, in bytes.
const BASE: u64 = 8 << 20;
/// Threads besides those of `WorkerThreads`, and one for the program that is asked at a restart.
const THREADS: u64 = 31;
const MIB: u64 = 1 << 20;
/// The root of all control groups.
const ROOT: &str = "/sys/fs/cgroup";

/// The limits that were found, and what the kernel has had to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Limits {
    /// In bytes; `None`: there is none.
    memory: Option<u64>,
    tasks: Option<u64>,
    /// Processes that were killed as there was no memory left.
    killed: u64,
}

fn look(scene: &Scene) -> Vec<Finding> {
    let process = match scene.pid() {
        Some(pid) => process(pid),
        // A container's limits are those of every process in it.
        None => Process::myself().ok(),
    };
    let Some(groups) = process.and_then(|process| process.cgroups().ok()) else {
        return vec![Finding::skipped("the control group is not known")];
    };
    let mut limits = Limits::default();
    for group in groups.0 {
        let controllers = &group.controllers;
        let is_unified = group.hierarchy == 0;
        let path = Path::new(group.pathname.trim_start_matches('/'));
        if is_unified {
            limits.take(&Path::new(ROOT).join(path), "memory.max", "pids.max");
        } else if controllers.iter().any(|name| name == "memory") {
            let path = Path::new(ROOT).join("memory").join(path);
            limits.take(&path, "memory.limit_in_bytes", "");
        } else if controllers.iter().any(|name| name == "pids") {
            limits.take(&Path::new(ROOT).join("pids").join(path), "", "pids.max");
        }
    }
    let workers = scene
        .config
        .worker_threads
        .map_or_else(cores, |count| count as u64);
    judge(limits, scene.config.max_connections as u64, workers)
}

fn cores() -> u64 {
    std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64)
}

fn judge(limits: Limits, connections: u64, workers: u64) -> Vec<Finding> {
    let mut troubles = Vec::new();
    let needed = BASE + connections * EACH;
    if let Some(limit) = limits.memory
        && limit < needed
    {
        troubles.push(Finding::warning(
            format!(
                "the control group may use {} MiB, and {connections} busy connections \
                 (MaxConnections) take about {} MiB",
                limit / MIB,
                needed / MIB
            ),
            "With so many clients the kernel would kill the gateway",
            "Raise MemoryMax= of the unit or the container's limit, or lower MaxConnections",
        ));
    }
    if limits.killed > 0 {
        troubles.push(Finding::warning(
            format!(
                "the kernel has killed {} processes of the control group for lack of memory",
                limits.killed
            ),
            "Sessions end when that hits the gateway",
            "Raise MemoryMax= of the unit or the container's limit",
        ));
    }
    let threads = THREADS + workers;
    if let Some(limit) = limits.tasks
        && limit < threads
    {
        troubles.push(Finding::error(
            format!("the control group may have {limit} threads, and the gateway needs {threads}"),
            "The gateway does not start (exit code 71)",
            "Raise TasksMax= of the unit or the container's limit, or lower WorkerThreads",
        ));
    }
    or_ok(troubles, || match limits.memory {
        Some(limit) => format!("{} MiB, enough for {connections} connections", limit / MIB),
        None => "no limit but that of the machine".to_owned(),
    })
}

impl Limits {
    /// Takes the least of a group and those above it.
    fn take(&mut self, group: &Path, memory: &str, tasks: &str) {
        let above = group.ancestors().take_while(|path| path.starts_with(ROOT));
        for folder in above {
            self.memory = least(self.memory, number(&folder.join(memory)));
            self.tasks = least(self.tasks, number(&folder.join(tasks)));
        }
        self.killed = self.killed.max(killed(&group.join("memory.events")));
    }
}

fn least(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    [one, other].into_iter().flatten().min()
}

/// `None`: there is no such file, or no limit.
fn number(path: &Path) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    // The old hierarchy's way to say that there is none.
    let is_limit = |limit: &u64| *limit < 1 << 60;
    text.trim().parse().ok().filter(is_limit)
}

fn killed(path: &Path) -> u64 {
    let text = fs::read_to_string(path).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
    line.and_then(|count| count.trim().parse().ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_limit_is_told_by_itself() {
        let none = Limits::default();
        assert_eq!(
            judge(none, 20_000, 2),
            [Finding::ok("no limit but that of the machine")]
        );
        for (limits, told) in [
            (
                Limits {
                    memory: Some(64 * MIB),
                    ..none
                },
                "may use 64 MiB",
            ),
            (
                Limits {
                    tasks: Some(10),
                    ..none
                },
                "may have 10 threads, and the gateway needs 33",
            ),
            (Limits { killed: 3, ..none }, "has killed 3 processes"),
        ] {
            let found = judge(limits, 20_000, 2);
            assert_eq!(found.len(), 1);
            assert!(found[0].found.contains(told), "{found:?}");
        }
        let enough = Limits {
            memory: Some(1 << 30),
            tasks: Some(33),
            killed: 0,
        };
        assert_eq!(judge(enough, 20_000, 2).len(), 1);
    }
}
