//! `cargo xtask bench instructions`: how many instructions the codec and the relay take for a
//! message, counted by callgrind, whatever else the machine does.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use testkit::command::run_bounded;
use testkit::packages::{self, Package};

use xtask::cargo;
use xtask::steps::Steps;

/// Load and size in bytes; `down` and `up` are the relay's two directions.
const CASES: [&str; 7] = [
    "decode-64",
    "decode-4096",
    "down-64",
    "down-1024",
    "down-16384",
    "up-64",
    "up-4096",
];
/// Messages of the shorter run; the longer has twice as many. A whole number of buffers.
const MESSAGES: u64 = 20_000;
/// Change against the baseline, in percent, that is called one.
const NOTABLE: f64 = 2.0;
/// Where the baseline is, from the workspace's folder on.
const BASELINE: &str = "bench/instructions.json";
const RUN_LIMIT: Duration = Duration::from_mins(2);

/// Instructions for a message, by case, and what compiled them.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Counts {
    compiler: String,
    instructions: BTreeMap<String, f64>,
}

/// Counts, compares with the baseline, and fails when a case takes notably more than there; or
/// replaces the baseline.
pub(crate) fn run(steps: &mut Steps, write_baseline: bool) -> Result<()> {
    steps.begin("Instructions of codec and relay");
    packages::ensure(&[Package::Valgrind])?;
    let program = build()?;
    let mut instructions = BTreeMap::new();
    for case in CASES {
        let (short, long) = (
            count(&program, case, MESSAGES)?,
            count(&program, case, 2 * MESSAGES)?,
        );
        let work = long.checked_sub(short).context("more work took less")?;
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
        instructions.insert(case.to_owned(), work as f64 / MESSAGES as f64);
    }
    let counts = Counts {
        compiler: compiler()?,
        instructions,
    };
    steps.done(&counts.compiler);

    let path = cargo::workspace().join(BASELINE);
    if write_baseline {
        let text = serde_json::to_string_pretty(&counts)? + "\n";
        fs::write(&path, text).with_context(|| format!("writing {BASELINE}"))?;
    }
    let text = fs::read_to_string(&path).with_context(|| format!("reading {BASELINE}"))?;
    let baseline: Counts = serde_json::from_str(&text).with_context(|| BASELINE.to_owned())?;
    if baseline.compiler != counts.compiler {
        println!("the baseline was compiled by {}", baseline.compiler);
    }
    print(&baseline, &counts);
    let worse = worse(&baseline, &counts);
    ensure!(
        worse.is_empty(),
        "more instructions than in {BASELINE}: {}; --write-baseline accepts it",
        worse.join(", ")
    );
    Ok(())
}

fn print(baseline: &Counts, counts: &Counts) {
    println!(
        "\n{:<12} {:>14} {:>10} {:>9}",
        "case", "instructions", "baseline", "change"
    );
    for (case, now) in &counts.instructions {
        match baseline.instructions.get(case) {
            Some(then) => {
                println!(
                    "{case:<12} {now:>14.1} {then:>10.1} {:>+8.1}%",
                    change(*then, *now)
                );
            }
            None => println!("{case:<12} {now:>14.1} {:>10} {:>9}", "-", "-"),
        }
    }
}

/// In percent.
fn change(then: f64, now: f64) -> f64 {
    (now / then - 1.0) * 100.0
}

fn worse(baseline: &Counts, counts: &Counts) -> Vec<String> {
    let cases = counts.instructions.iter();
    cases
        .filter_map(|(case, now)| {
            let change = change(*baseline.instructions.get(case)?, *now);
            (change > NOTABLE).then(|| format!("{case} {change:+.1} %"))
        })
        .collect()
}

/// Builds the program as the gateway is released; gives back where it is.
fn build() -> Result<PathBuf> {
    let output = cargo::command(&[
        "build",
        "--release",
        "--quiet",
        "--package",
        "gateway-datapath",
        "--bench",
        "instructions",
        "--message-format",
        "json",
    ])
    .stderr(Stdio::inherit())
    .output()
    .context("starting cargo")?;
    ensure!(output.status.success(), "cargo build: {}", output.status);
    executable(&String::from_utf8_lossy(&output.stdout))
}

fn executable(messages: &str) -> Result<PathBuf> {
    for message in messages.lines() {
        let message: serde_json::Value = serde_json::from_str(message)?;
        if message["target"]["name"] == "instructions"
            && let Some(path) = message["executable"].as_str()
        {
            return Ok(PathBuf::from(path));
        }
    }
    bail!("cargo named no executable")
}

/// All instructions of one run.
fn count(program: &Path, case: &str, messages: u64) -> Result<u64> {
    let mut command = Command::new("valgrind");
    command
        .args([
            "--tool=callgrind",
            "--callgrind-out-file=/dev/null",
            "--log-fd=1",
        ])
        .arg(program)
        .args([case, &messages.to_string()]);
    let output = run_bounded(command, RUN_LIMIT).with_context(|| format!("callgrind of {case}"))?;
    collected(&output).with_context(|| format!("callgrind told no count:\n{output}"))
}

/// As in `==4711== Collected : 123456`.
fn collected(output: &str) -> Option<u64> {
    let (_, count) = output
        .lines()
        .rev()
        .find_map(|line| line.split_once("Collected : "))?;
    count.trim().parse().ok()
}

fn compiler() -> Result<String> {
    let mut command = Command::new("rustc");
    command.arg("--version");
    Ok(run_bounded(command, RUN_LIMIT)?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(value: f64) -> Counts {
        Counts {
            compiler: "rustc".to_owned(),
            instructions: BTreeMap::from([("down-64".to_owned(), value)]),
        }
    }

    #[test]
    fn only_notably_more_is_worse() {
        assert!(worse(&counts(100.0), &counts(101.0)).is_empty());
        assert!(worse(&counts(100.0), &counts(50.0)).is_empty());
        assert_eq!(worse(&counts(100.0), &counts(110.0)), ["down-64 +10.0 %"]);
    }

    #[test]
    fn counts_and_executables_are_found() {
        let output = "==7== Events    : Ir\n==7== Collected : 1234567\n==7==\n";
        assert_eq!(collected(output), Some(1_234_567));
        assert_eq!(collected("valgrind: failed"), None);
        let messages = "{\"target\":{\"name\":\"gateway\"},\"executable\":null}\n\
                        {\"target\":{\"name\":\"instructions\"},\"executable\":\"/x/y\"}";
        assert_eq!(executable(messages).unwrap(), Path::new("/x/y"));
    }
}
