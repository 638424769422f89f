//! Processor time of everything that moves bytes: this process, and the workers of the kernel,
//! whose time belongs to no process.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rustix::time::{ClockId, Timespec, clock_gettime};
use serde::{Deserialize, Serialize};

/// Longest content of a file that is read, in bytes; the line of one processor in `/proc/schedstat`
/// and `/proc/stat` has less than 300.
const MOST_TEXT: u64 = 1 << 20;
/// Nanoseconds of a tick in `/proc/stat`: `USER_HZ` is 100 on every platform that has the gateway.
const TICK: u64 = 10_000_000;
/// How often a thread is watched that does nothing but have the kernel pass packets, and for how
/// long each time.
const WATCHED: usize = 30;
const WATCH: Duration = Duration::from_millis(1);
/// Of such a thread's time, the share in percent that its clock has counted where that includes the
/// kernel's work on packets. Where it does not, a third and more is missing.
const COUNTED: u128 = 92;

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Counted {
    /// The threads of this process and those of the kernel, in nanoseconds. What other programs do
    /// meanwhile is not counted.
    Threads,
    /// All that runs on the processors, in nanoseconds (`/proc/schedstat`).
    Processors,
    /// All that runs on the processors, in ticks of 10 ms (`/proc/stat`).
    Ticks,
}

impl Counted {
    /// For people.
    pub fn text(self) -> &'static str {
        match self {
            Self::Threads => "threads of this process and of the kernel, in nanoseconds",
            Self::Processors => "whole machine with other programs, in nanoseconds",
            Self::Ticks => "whole machine with other programs, in ticks of 10 ms",
        }
    }
}

/// Tells processor time.
pub(super) enum Clock {
    Threads(KernelThreads),
    Processors,
    Ticks,
}

impl Clock {
    /// The best one that this system has. Takes some 30 ms.
    pub(super) fn find() -> anyhow::Result<Self> {
        if let Ok(threads) = KernelThreads::find()
            && counts_packets()?
        {
            return Ok(Self::Threads(threads));
        }
        if schedstat().is_ok() {
            return Ok(Self::Processors);
        }
        busy_ticks().context("nothing tells the machine's processor time")?;
        Ok(Self::Ticks)
    }

    pub(super) fn counted(&self) -> Counted {
        match self {
            Self::Threads(_) => Counted::Threads,
            Self::Processors => Counted::Processors,
            Self::Ticks => Counted::Ticks,
        }
    }

    /// Begins to count. Takes a millisecond, which is not counted.
    pub(super) fn start(&mut self) -> anyhow::Result<Running<'_>> {
        let kernel = match self {
            Self::Threads(threads) => {
                threads.refresh()?;
                threads.read()
            }
            Self::Processors | Self::Ticks => BTreeMap::new(),
        };
        Ok(Running {
            begun: self.now()?,
            clock: self,
            kernel,
        })
    }

    /// Nanoseconds by now, without those of the kernel's threads where these are counted apart.
    fn now(&self) -> anyhow::Result<u64> {
        match self {
            Self::Threads(_) => Ok(own()),
            Self::Processors => schedstat(),
            Self::Ticks => busy_ticks(),
        }
    }
}

/// A clock that counts.
pub(super) struct Running<'a> {
    clock: &'a Clock,
    begun: u64,
    /// What each thread of the kernel had used at the begin.
    kernel: BTreeMap<u32, u64>,
}

impl Running<'_> {
    /// Nanoseconds of processor time since the start.
    pub(super) fn stop(self) -> anyhow::Result<u64> {
        let mut used = self.clock.now()?.saturating_sub(self.begun);
        if let Clock::Threads(threads) = self.clock {
            for (thread, now) in threads.read() {
                let before = self.kernel.get(&thread).copied().unwrap_or(now);
                used += now.saturating_sub(before);
            }
        }
        Ok(used)
    }
}

/// Threads of the kernel; kept open, as looking for them takes longer than asking them.
pub(super) struct KernelThreads(BTreeMap<u32, File>);

impl KernelThreads {
    /// Fails where they cannot be seen, as in most containers.
    fn find() -> anyhow::Result<Self> {
        let name = fs::read_to_string("/proc/2/comm")?;
        ensure!(
            name.trim_end() == "kthreadd",
            "the kernel's threads are hidden"
        );
        let mut threads = Self(BTreeMap::new());
        threads.refresh()?;
        ensure!(
            threads.read().values().any(|used| *used > 0),
            "the kernel does not count the time of its threads"
        );
        Ok(threads)
    }

    /// Looks for new ones: workers come and go.
    fn refresh(&mut self) -> io::Result<()> {
        for entry in fs::read_dir("/proc")? {
            let name = entry?.file_name();
            let Some(process) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
                continue;
            };
            if self.0.contains_key(&process) || !is_kernels(process) {
                continue;
            }
            if let Ok(file) = File::open(format!("/proc/{process}/schedstat")) {
                self.0.insert(process, file);
            }
        }
        Ok(())
    }

    /// Nanoseconds that each has used. Those that have ended say nothing any more.
    fn read(&self) -> BTreeMap<u32, u64> {
        let used = self.0.iter().filter_map(|(&thread, file)| {
            let mut text = [0; 64];
            let len = file.read_at(&mut text, 0).ok()?;
            let text = std::str::from_utf8(text.get(..len)?).ok()?;
            let used = text.split_ascii_whitespace().next()?.parse().ok()?;
            Some((thread, used))
        });
        used.collect()
    }
}

/// Whether a process is a thread of the kernel: those are the children of kthreadd.
fn is_kernels(process: u32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{process}/stat")) else {
        return false;
    };
    // The name stands in parentheses and may hold any character.
    let parent = stat
        .rsplit_once(')')
        .and_then(|(_, rest)| rest.split_ascii_whitespace().nth(1));
    process == 2 || parent == Some("2")
}

/// Whether the clocks of threads count the kernel's work on packets, which is done in whichever
/// thread sends them over loopback.
///
/// With `CONFIG_IRQ_TIME_ACCOUNTING` they do not, and what is done there, by the programs of
/// `sockmap` too, would cost nothing. So one thread does nothing else for a while, and its clock is
/// compared with the time that passes: on a busy machine it falls behind at times, but not always.
fn counts_packets() -> anyhow::Result<bool> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).context("no socket on loopback")?;
    socket.connect(socket.local_addr()?)?;
    socket.set_nonblocking(true)?;
    let mut packet = [0; 64];
    for _ in 0..WATCHED {
        let (begun, used) = (Instant::now(), clock_gettime(ClockId::ThreadCPUTime));
        while begun.elapsed() < WATCH {
            socket.send(&packet)?;
            // It has come already; if not, the next one does.
            let _ = socket.recv(&mut packet);
        }
        let used = nanoseconds(clock_gettime(ClockId::ThreadCPUTime)) - nanoseconds(used);
        if u128::from(used) * 100 >= begun.elapsed().as_nanos() * COUNTED {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Nanoseconds in which any task ran, on all processors.
fn schedstat() -> anyhow::Result<u64> {
    running_time(&read("/proc/schedstat")?)
}

/// The seventh number of each processor (`Documentation/scheduler/sched-stats.rst`).
fn running_time(schedstat: &str) -> anyhow::Result<u64> {
    let lines = schedstat.lines().filter(|line| line.starts_with("cpu"));
    let times = lines.map(|line| line.split_ascii_whitespace().nth(7)?.parse::<u64>().ok());
    let sum: Option<u64> = times.sum();
    match sum {
        Some(0) | None => bail!("/proc/schedstat has no times of processors"),
        Some(sum) => Ok(sum),
    }
}

/// Nanoseconds in which processors were busy, to a tick.
pub(super) fn busy_ticks() -> anyhow::Result<u64> {
    let text = read("/proc/stat")?;
    busy(&text).context("/proc/stat has no line of all processors")
}

/// All but idle, iowait, and what guests did, which is counted as the program's too (`proc_stat(5)`).
fn busy(stat: &str) -> Option<u64> {
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    let mut sum = 0;
    for (index, number) in line.split_ascii_whitespace().take(8).enumerate() {
        let ticks = number.parse::<u64>().ok()?;
        if index != 3 && index != 4 {
            sum += ticks;
        }
    }
    Some(sum * TICK)
}

fn read(path: &str) -> anyhow::Result<String> {
    let file = File::open(path).with_context(|| path.to_owned())?;
    let text = io::read_to_string(io::Read::take(file, MOST_TEXT));
    text.with_context(|| path.to_owned())
}

/// What this process has used so far.
pub(super) fn own() -> u64 {
    nanoseconds(clock_gettime(ClockId::ProcessCPUTime))
}

fn nanoseconds(time: Timespec) -> u64 {
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    let nanoseconds = u64::try_from(time.tv_nsec).unwrap_or_default();
    seconds * 1_000_000_000 + nanoseconds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_running_time_of_processors_is_summed() {
        let text = "version 17\ntimestamp 4294927296\n\
            cpu0 0 0 0 0 0 0 1500 20 30\ndomain0 SMT 3 1 2\ncpu1 0 0 0 0 0 0 2500 20 30\n";
        assert_eq!(running_time(text).unwrap(), 4_000);
        for wrong in [
            "",
            "version 17\n",
            "cpu0 0 0 0 0 0 0 x\n",
            "cpu0 0 0 0 0 0 0 0 0 0\n",
        ] {
            assert!(running_time(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn busy_is_all_but_idle_and_waiting() {
        let text = "cpu  1 2 4 1000 2000 8 16 32 64 128\ncpu0 1 2 4\n";
        assert_eq!(busy(text), Some(63 * TICK));
        assert_eq!(busy("intr 5\n"), None);
    }

    #[test]
    fn work_takes_processor_time() {
        let mut clock = Clock::find().unwrap();
        // Ticks tell nothing of less.
        let long = match clock.counted() {
            Counted::Ticks => Duration::from_millis(100),
            _ => Duration::from_millis(5),
        };
        let running = clock.start().unwrap();
        // Of all threads: other tests run meanwhile.
        let before = own();
        while Duration::from_nanos(own() - before) < long {
            std::hint::spin_loop();
        }
        assert!(Duration::from_nanos(running.stop().unwrap()) >= long / 2);
    }
}
