//! A machine with a running systemd, on which packages can be installed without a trace: a copy
//! of this system in namespaces of its own.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tempfile::TempDir;
use testkit::command::run_bounded;

use crate::process::child_of;

/// How long systemd may take to start, and any command inside.
const LIMIT: Duration = Duration::from_mins(2);
/// How often the start of systemd is looked at.
const POLL: Duration = Duration::from_millis(50);

/// The machine; it ends when dropped, with all that runs on it.
pub(crate) struct Machine {
    unshare: Child,
    /// Its process 1, as this system numbers it.
    init: Pid,
    _base: TempDir,
}

impl Machine {
    /// Boots one on which `shown` is to be seen as `/mnt`.
    pub(crate) fn boot(shown: &Path) -> Result<Self> {
        ensure!(
            rustix::process::geteuid().is_root(),
            "namespaces with a systemd of their own need root"
        );
        let base = TempDir::with_prefix("flexvdi-gateway-machine-")?;
        let unshare = Command::new("unshare")
            .args(["--mount", "--net", "--pid", "--cgroup", "--ipc", "--uts"])
            .args(["--fork", "--kill-child", "sh", "-c"])
            .arg(include_str!("machine.sh"))
            .arg("machine")
            .arg(base.path())
            .arg(shown)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .context("starting unshare")?;
        let mut starting = Starting(Some(unshare));
        let init = starting.wait_for(|unshare| child_of(unshare.id()).ok().flatten())?;
        let mut machine = Self {
            unshare: starting.0.take().context("unshare runs")?,
            init,
            _base: base,
        };
        machine.wait_until_booted()?;
        Ok(machine)
    }

    /// Moves the calling thread, and all that it starts from now on, into the machine's network.
    pub(super) fn enter_network(&self) -> Result<()> {
        let path = format!("/proc/{}/ns/net", self.init.as_raw_nonzero());
        let network = File::open(&path).with_context(|| format!("opening {path}"))?;
        move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))
            .context("entering the machine's network")
    }

    /// Runs a command on it; gives back what it wrote to standard output.
    pub(crate) fn run<S: AsRef<OsStr>>(&self, command: &[S]) -> Result<String> {
        let mut nsenter = Command::new("nsenter");
        nsenter
            .arg(format!("--target={}", self.init.as_raw_nonzero()))
            .args(["--mount", "--net", "--pid", "--cgroup", "--ipc", "--uts"])
            .args(["--root", "--wd", "--"])
            .args(command)
            .env("DEBIAN_FRONTEND", "noninteractive");
        Ok(run_bounded(nsenter, LIMIT)?.trim().to_owned())
    }

    /// Runs a line of shell on it.
    pub(crate) fn shell(&self, line: &str) -> Result<String> {
        self.run(&["sh", "-c", line])
    }

    /// Puts a file onto it.
    pub(crate) fn write(&self, path: &str, content: &[u8]) -> Result<()> {
        let root = format!("/proc/{}/root", self.init.as_raw_nonzero());
        fs::write(Path::new(&root).join(path.trim_start_matches('/')), content)
            .with_context(|| format!("writing {path} on the machine"))
    }

    fn wait_until_booted(&mut self) -> Result<()> {
        let began = Instant::now();
        while self
            .run(&["systemctl", "--quiet", "is-active", "basic.target"])
            .is_err()
        {
            if let Some(status) = self.unshare.try_wait()? {
                bail!("the machine with systemd ended at once: {status}");
            }
            ensure!(began.elapsed() < LIMIT, "systemd did not start in time");
            thread::sleep(POLL);
        }
        Ok(())
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Nothing can be done about a process that is gone already.
        let _ = self.unshare.kill();
        let _ = kill_process(self.init, Signal::KILL);
        let _ = self.unshare.wait();
    }
}

/// An unshare that is ended unless something is made of it.
struct Starting(Option<Child>);

impl Starting {
    fn wait_for<T>(&mut self, found: impl Fn(&Child) -> Option<T>) -> Result<T> {
        let began = Instant::now();
        let unshare = self.0.as_mut().context("unshare runs")?;
        loop {
            if let Some(found) = found(unshare) {
                return Ok(found);
            }
            if let Some(status) = unshare.try_wait()? {
                bail!("no namespaces for a machine with systemd: unshare: {status}");
            }
            ensure!(began.elapsed() < LIMIT, "unshare did not start a process");
            thread::sleep(POLL);
        }
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        if let Some(unshare) = &mut self.0 {
            let _ = unshare.kill();
            let _ = unshare.wait();
        }
    }
}
