//! Runs the programs of the manifest.

use std::fs::File;
use std::io::Write;
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use testkit::vm::{Manifest, PREFIX, Program};

/// How often a running program is looked at.
const POLL: Duration = Duration::from_millis(20);

/// Runs them one after the other; gives back whether all succeeded.
pub(crate) fn run_all(console: &mut File, manifest: &Manifest) -> Result<bool> {
    let deadline = Instant::now() + Duration::from_secs(manifest.seconds);
    let mut all = true;
    for program in &manifest.programs {
        writeln!(console, "{PREFIX}{} begins", program.name)?;
        let began = Instant::now();
        let end = match run(console, program, deadline) {
            Ok(Some(status)) => {
                all &= status.success();
                status.to_string()
            }
            Ok(None) => {
                all = false;
                format!("killed: the limit of {} s is over", manifest.seconds)
            }
            Err(problem) => {
                all = false;
                format!("{problem:#}")
            }
        };
        let seconds = began.elapsed().as_secs_f64();
        writeln!(console, "{PREFIX}{}: {end}, {seconds:.1} s", program.name)?;
    }
    Ok(all)
}

/// Gives back how it ended; `None` when it had to be killed at the deadline.
fn run(console: &File, program: &Program, deadline: Instant) -> Result<Option<ExitStatus>> {
    let mut child = Command::new(&program.path)
        .args(&program.arguments)
        .env_clear()
        .envs(&program.environment)
        .stdin(Stdio::null())
        .stdout(console.try_clone()?)
        .stderr(console.try_clone()?)
        .spawn()
        .with_context(|| format!("starting {}", program.path))?;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        thread::sleep(POLL);
    }
}
