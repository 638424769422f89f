//! Runs of libFuzzer, and what it says of them (<https://llvm.org/docs/LibFuzzer.html>).

use std::fmt;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

use super::target::Target;

/// Longest time for one input, in seconds.
const INPUT_LIMIT: u32 = 20;
/// Most memory of a target, in MiB.
const MEMORY_LIMIT: u32 = 2_048;
/// Lines of a failed target's output that are shown.
const SHOWN: usize = 40;

/// How a target's run ended.
pub(super) enum Campaign {
    Passed(Figures),
    Failed { report: String },
}

/// What a run came to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Figures {
    executions: u64,
    /// Edges of the program's code that ran, and how many there are.
    covered: u64,
    edges: u64,
    /// Inputs that are kept because each does something of its own.
    corpus: u64,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} executions, {} of {} edges, {} inputs kept",
            self.executions, self.covered, self.edges, self.corpus
        )
    }
}

/// Runs each target for this time, so many at once; the outcomes in the targets' order.
pub(super) fn all(
    targets: &[Target],
    time: Duration,
    at_once: usize,
) -> Vec<(&Target, Result<Campaign>)> {
    let next = AtomicUsize::new(0);
    let outcomes = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..at_once.min(targets.len()) {
            scope.spawn(|| {
                while let Some(target) = targets.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let outcome = one(target, time);
                    outcomes
                        .lock()
                        .expect("nobody panics with it")
                        .push((target, outcome));
                }
            });
        }
    });
    let mut outcomes = outcomes.into_inner().expect("nobody panics with it");
    outcomes.sort_by(|(one, _), (other, _)| one.name.cmp(&other.name));
    outcomes
}

fn one(target: &Target, time: Duration) -> Result<Campaign> {
    let program = target.program()?;
    let crashes = target.crashes()?;
    let output = Command::new(&program)
        .arg(format!("-max_total_time={}", time.as_secs().max(1)))
        .arg(format!("-timeout={INPUT_LIMIT}"))
        .arg(format!("-rss_limit_mb={MEMORY_LIMIT}"))
        .arg(format!("-artifact_prefix={}/", crashes.display()))
        .args(["-print_final_stats=1", "-use_value_profile=1"])
        .args([target.corpus()?, target.seeds()?])
        // The message of a panic says what was wrong; where is for whoever runs the input again.
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("starting {}", program.display()))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() {
        return Ok(Campaign::Passed(read(&said)));
    }
    let lines: Vec<_> = said.lines().collect();
    let tail = lines[lines.len().saturating_sub(SHOWN)..].join("\n");
    let report = format!(
        "{tail}\n{}; the input is in {}: `{} FILE` runs it again. Once it is mended, make the input a seed.",
        output.status,
        crashes.display(),
        program.display()
    );
    Ok(Campaign::Failed { report })
}

/// Reads libFuzzer's own account.
fn read(said: &str) -> Figures {
    let mut figures = Figures::default();
    for line in said.lines() {
        let words: Vec<_> = line.split_whitespace().collect();
        let after = |word: &str| {
            let at = words.iter().position(|other| *other == word)?;
            let digits = words.get(at + 1)?.split('/').next()?;
            digits.trim_start_matches('(').parse().ok()
        };
        let numbers = [
            (
                after("stat::number_of_executed_units:"),
                &mut figures.executions,
            ),
            (after("cov:"), &mut figures.covered),
            (after("corp:"), &mut figures.corpus),
            (after("modules"), &mut figures.edges),
        ];
        for (number, figure) in numbers {
            if let Some(number) = number {
                *figure = number;
            }
        }
    }
    figures
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_from_what_libfuzzer_says() {
        let said = "INFO: Loaded 1 modules   (947 inline 8-bit counters): 947 [0x5570, 0x5571), \n\
            #2\tINITED cov: 52 ft: 52 corp: 1/1b exec/s: 0 rss: 27Mb\n\
            #1840003\tDONE   cov: 97 ft: 178 corp: 34/1220b lim: 300 exec/s: 87619 rss: 28Mb\n\
            stat::number_of_executed_units: 1840003\n\
            stat::average_exec_per_sec:     87619\n";
        assert_eq!(
            read(said),
            Figures {
                executions: 1_840_003,
                covered: 97,
                edges: 947,
                corpus: 34,
            }
        );
    }
}
