//! Programs of this machine: found, and run with a time limit.

use std::fs::File;
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, thread};

use anyhow::{Context, Result, bail, ensure};

/// How often a running child is looked at.
const POLL: Duration = Duration::from_millis(20);
/// Where programs lie that an ordinary user's `PATH` may lack.
const SYSTEM_PROGRAMS: [&str; 2] = ["/usr/sbin", "/sbin"];

/// A program on `PATH` or among the system's programs.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(SYSTEM_PROGRAMS.map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|program| program.is_file())
}

/// Cargo's target directory: for what is built or fetched once and kept.
pub fn target_dir() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"),
        PathBuf::from,
    )
}

/// Makes a script that can be run at once.
///
/// Another process writes it: one that this process starts meanwhile would keep the file open for
/// writing, and such a file cannot be run.
pub fn write_program(path: &Path, script: &str) -> Result<()> {
    let text = path.with_extension("text");
    std::fs::write(&text, script)?;
    let mut install = Command::new("install");
    let status = install.arg("--mode=755").arg(&text).arg(path).status()?;
    ensure!(status.success(), "install: {status}");
    Ok(())
}

/// Runs `command` to its end, at most for `limit`; gives back what it wrote to standard output.
///
/// Fails with the tail of its output when it fails, and when it takes too long: then it is killed.
pub fn run_bounded(mut command: Command, limit: Duration) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    // Files take any amount of output without a reader; a full pipe would block the child.
    let mut out = tempfile::tempfile().context("a file for the output")?;
    let mut err = tempfile::tempfile().context("a file for the errors")?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(out.try_clone()?)
        .stderr(err.try_clone()?)
        .spawn()
        .with_context(|| format!("starting {name}"))?;
    let deadline = Instant::now() + limit;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if Instant::now() >= deadline {
            child.kill()?;
            child.wait()?;
            bail!("{name} took longer than {limit:?}: {}", tail(&mut err)?);
        }
        thread::sleep(POLL);
    };
    ensure!(status.success(), "{name}: {status}: {}", tail(&mut err)?);
    read_all(&mut out)
}

fn tail(file: &mut File) -> Result<String> {
    const LINES: usize = 5;
    let text = read_all(file)?;
    let lines: Vec<_> = text.trim().lines().collect();
    Ok(lines[lines.len().saturating_sub(LINES)..].join("\n"))
}

fn read_all(file: &mut File) -> Result<String> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_mins(1);

    #[test]
    fn what_every_debian_has_is_found() {
        assert!(find_program("sh").is_some());
        assert!(find_program("no-program-has-this-name").is_none());
    }

    #[test]
    fn output_is_given_back() {
        let mut echo = Command::new("sh");
        echo.args(["-c", "echo said"]);
        assert_eq!(run_bounded(echo, LIMIT).unwrap(), "said\n");
    }

    #[test]
    fn a_failure_says_what_the_program_said() {
        let mut failing = Command::new("sh");
        failing.args(["-c", "echo why >&2; exit 3"]);
        let problem = run_bounded(failing, LIMIT).unwrap_err().to_string();
        assert!(
            problem.contains('3') && problem.contains("why"),
            "{problem}"
        );
    }

    #[test]
    fn what_takes_too_long_is_killed() {
        let mut endless = Command::new("sleep");
        endless.arg("600");
        let problem = run_bounded(endless, Duration::from_millis(10))
            .unwrap_err()
            .to_string();
        assert!(problem.contains("longer"), "{problem}");
    }
}
