//! Judges a virtual machine by what it said.

use std::time::Duration;

use anyhow::{Result, bail};
use testkit::vm::{FAILURE, MEASURED, PREFIX, SUCCESS};

use super::paths::Paths;

/// How lines of the kernel begin that no good run has.
const COMPLAINTS: [&str; 12] = [
    "BUG:",
    "INFO: rcu_",
    "INFO: task ",
    "Internal error:",
    "KASAN:",
    "Kernel panic",
    "Oops",
    "UBSAN:",
    "WARNING:",
    "general protection fault",
    "rcu: INFO:",
    "refcount_t:",
];
/// What they have in them, whatever stands before.
const COMPLAINTS_INSIDE: [&str; 4] = [
    "self-detected stall",
    "detected stalls on CPUs",
    "Out of memory",
    "soft lockup",
];

/// What has been heard of a virtual machine so far.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    /// Whether anything was said at all.
    heard: bool,
    complaints: Vec<String>,
    /// What the init itself said last.
    last: String,
    /// How many tests have begun.
    tests: u64,
    /// What was measured, each as JSON.
    measured: Vec<String>,
    paths: Paths,
    success: bool,
    failure: bool,
}

impl Verdict {
    /// A line of the kernel.
    pub(crate) fn kernel_said(&mut self, line: &str) {
        self.heard = true;
        let text = without_time(line);
        let is_complaint = COMPLAINTS.iter().any(|start| text.starts_with(start))
            || COMPLAINTS_INSIDE.iter().any(|part| text.contains(part));
        if is_complaint {
            self.complaints.push(text.to_owned());
        }
    }

    /// A line of the init or of a program that it runs.
    pub(crate) fn init_said(&mut self, line: &str) {
        self.heard = true;
        self.paths.init_said(line);
        match line {
            SUCCESS => self.success = true,
            FAILURE => self.failure = true,
            _ if line.starts_with(PREFIX) => line.clone_into(&mut self.last),
            _ => match line.strip_prefix(MEASURED) {
                Some(json) => self.measured.push(json.to_owned()),
                None => self.tests += tests_that_begin(line).unwrap_or(0),
            },
        }
    }

    /// Whether nothing has been said yet.
    pub(crate) fn is_silent(&self) -> bool {
        !self.heard
    }

    /// What the programs have measured.
    pub(crate) fn into_measured(self) -> Vec<String> {
        self.measured
    }

    /// What was said about data paths.
    pub(crate) fn paths(&self) -> &Paths {
        &self.paths
    }

    /// Whether the run was good. `ended` is false when the machine had to be stopped after
    /// `limit`.
    pub(crate) fn judge(&self, ended: bool, limit: Duration) -> Result<()> {
        if let Some(first) = self.complaints.first() {
            bail!(
                "the kernel complained {} times, first: {first}",
                self.complaints.len()
            );
        }
        if !ended {
            bail!("stopped after {limit:?}; it had come to: {}", self.last);
        }
        match (self.success, self.failure) {
            (true, false) if self.tests == 0 && self.measured.is_empty() => {
                bail!("no test has this name")
            }
            (true, false) => Ok(()),
            (_, true) => bail!("something inside failed, see above; at last: {}", self.last),
            (false, false) => bail!("it ended without a result; it had come to: {}", self.last),
        }
    }
}

/// The number in a test executable's `running 66 tests`.
fn tests_that_begin(line: &str) -> Option<u64> {
    let number = line.strip_prefix("running ")?;
    let number = number
        .strip_suffix(" tests")
        .or_else(|| number.strip_suffix(" test"))?;
    number.parse().ok()
}

/// A line of the kernel without the seconds since the start, as in `[   12.345678] `.
fn without_time(line: &str) -> &str {
    let rest = line
        .strip_prefix('[')
        .and_then(|rest| rest.split_once("] "));
    match rest {
        Some((time, text)) if time.trim().parse::<f64>().is_ok() => text,
        _ => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(1);

    fn judge(kernel: &[&str], init: &[&str]) -> Result<()> {
        let mut verdict = Verdict::default();
        for line in kernel {
            verdict.kernel_said(line);
        }
        for line in init {
            verdict.init_said(line);
        }
        verdict.judge(true, LIMIT)
    }

    #[test]
    fn a_run_is_good_only_when_the_init_says_so() {
        judge(&[], &["running 1 test", "test x ... ok", "init: success"]).unwrap();
        judge(&[], &["measured: {}", "init: success"]).unwrap();
        for said in [
            &["init: stream: exit status: 101, 3.0 s", "init: failure"][..],
            &["init: success", "init: failure"],
            &["a program says init: success"],
            &["init: stream begins"],
            &["running 0 tests", "init: success"],
            &["init: success"],
            &[],
        ] {
            assert!(judge(&[], said).is_err(), "{said:?}");
        }
    }

    #[test]
    fn complaints_of_the_kernel_spoil_a_run() {
        for line in [
            "[    3.141592] WARNING: CPU: 1 PID: 42 at net/core/stream.c:205 x+0x1/0x2",
            "[   31.415926] BUG: kernel NULL pointer dereference, address: 0000000000000010",
            "[   31.415926] Oops: 0000 [#1] PREEMPT SMP NOPTI",
            "[  314.159265] rcu: INFO: rcu_preempt self-detected stall on CPU",
            "[  314.159265] INFO: task test-stream:77 blocked for more than 120 seconds.",
            "[  314.159265] watchdog: BUG: soft lockup - CPU#0 stuck for 26s! [a:1]",
            "[    0.314159] Kernel panic - not syncing: Attempted to kill init!",
            "general protection fault, probably for non-canonical address",
        ] {
            let problem = judge(&[line], &["running 2 tests", "init: success"])
                .unwrap_err()
                .to_string();
            assert!(problem.contains("complained 1 times"), "{line}: {problem}");
        }
    }

    #[test]
    fn other_lines_of_the_kernel_do_not() {
        let lines = [
            "[    0.000000] Warning: unable to open an initial console.",
            "[    0.031415] TSC deadline timer available, debugging of BUG: none",
            "[    1.000000] tls: loading out-of-tree module taints kernel.",
        ];
        judge(&lines, &["running 2 tests", "init: success"]).unwrap();
    }

    #[test]
    fn a_run_without_end_names_how_far_it_came() {
        let mut verdict = Verdict::default();
        verdict.init_said("init: stream begins");
        let problem = verdict.judge(false, LIMIT).unwrap_err().to_string();
        assert!(problem.contains("stream begins"), "{problem}");
    }
}
