//! A container, in namespaces of its own, with a root that cannot be written to.

use std::fs;
use std::path::PathBuf;
use std::process::{ExitStatus, Output, Stdio};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use testkit::net::within;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};
use tokio::time::{Duration, sleep};

use super::unpacked::Unpacked;
use crate::process::child_of;

/// How often the begin of the process is looked for.
const POLL: Duration = Duration::from_millis(10);

/// A running container; it ends when dropped.
pub(super) struct Container<'a> {
    image: &'a Unpacked,
    unshare: Child,
    log: Lines<BufReader<ChildStderr>>,
    read: Vec<String>,
    /// Its process 1, as this system numbers it.
    process: Pid,
}

/// What is mounted into a container.
pub(super) struct Mounts {
    /// Seen as `/etc/flexvdi`.
    pub(super) configuration: PathBuf,
    /// Seen as `/etc/hosts`.
    pub(super) hosts: PathBuf,
    /// Seen as `/etc/resolv.conf`.
    pub(super) resolver: PathBuf,
}

impl<'a> Container<'a> {
    /// Starts one, in the network of this thread, as the image says; `arguments` come behind its
    /// entry point.
    pub(super) async fn start(
        image: &'a Unpacked,
        mounts: &Mounts,
        arguments: &[&str],
    ) -> Result<Self> {
        let entry = image.run.entrypoint().as_deref();
        let entry = entry.context("the image has no entry point")?;
        let user = image.run.user().as_deref();
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--pid", "--cgroup", "--ipc", "--uts"])
            .args(["--fork", "--kill-child", "sh", "-c"])
            .arg(include_str!("container.sh"))
            .arg("container")
            .arg(image.root())
            .arg(&mounts.configuration)
            .arg(&mounts.hosts)
            .arg(&mounts.resolver)
            .arg(user.context("the image has no user")?)
            .args(entry)
            .args(arguments)
            .env_clear()
            .envs(variables(image))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut unshare = command.spawn().context("starting unshare")?;
        let log = unshare.stderr.take().context("its log")?;
        let process = within("the container's process", started_by(&unshare)).await??;
        Ok(Self {
            image,
            unshare,
            log: BufReader::new(log).lines(),
            read: Vec::new(),
            process,
        })
    }

    /// Waits until it logs a line with this text.
    pub(super) async fn logs(&mut self, text: &str) -> Result<()> {
        let reading = async {
            while let Some(line) = self.log.next_line().await? {
                let is_it = line.contains(text);
                self.read.push(line);
                if is_it {
                    return Ok(());
                }
            }
            anyhow::bail!("the container's log ends")
        };
        within(&format!("{text:?} in the log"), reading)
            .await
            .flatten()
    }

    /// Ends it, and tells all that it logged.
    pub(super) async fn end(mut self) -> String {
        self.kill();
        let rest = async {
            while let Ok(Some(line)) = self.log.next_line().await {
                self.read.push(line);
            }
        };
        // What was read until then is better than nothing.
        let _ = within("the end of the container's log", rest).await;
        self.read.join("\n")
    }

    /// Ends it at once. That unshare ends would not be enough: a process that becomes another user
    /// is no longer ended with its parent.
    fn kill(&mut self) {
        // A process that was waited for may be another one by now.
        if matches!(self.unshare.try_wait(), Ok(None)) {
            let _ = kill_process(self.process, Signal::KILL);
        }
    }

    /// Runs the health check that the image names.
    pub(super) async fn check_health(&self) -> Result<()> {
        let words = self.image.health_check.iter().map(String::as_str);
        self.output(&words.collect::<Vec<_>>()).await?;
        Ok(())
    }

    /// Runs a command in it, as `docker exec` does.
    pub(super) async fn run(&self, command: &[&str]) -> Result<Output> {
        let user = self.image.run.user().as_deref().unwrap_or_default();
        let (user, group) = user.split_once(':').context("user and group")?;
        let mut nsenter = Command::new("nsenter");
        nsenter
            .arg(format!("--target={}", self.process.as_raw_nonzero()))
            .args(["--mount", "--pid", "--cgroup", "--ipc", "--uts"])
            .args(["--root", "--wd"])
            .arg(format!("--setuid={user}"))
            .arg(format!("--setgid={group}"))
            .arg("--")
            .args(command)
            .env_clear()
            .envs(variables(self.image))
            .stdin(Stdio::null())
            .kill_on_drop(true);
        within("a command in the container", nsenter.output())
            .await?
            .context("starting nsenter")
    }

    /// What a command in it prints, which must succeed.
    pub(super) async fn output(&self, command: &[&str]) -> Result<String> {
        let output = self.run(command).await?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "{}: {}: {said}",
            command.join(" "),
            output.status
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// A line of its process's `/proc/PID/status`.
    pub(super) fn status(&self, name: &str) -> Result<String> {
        let path = format!("/proc/{}/status", self.process.as_raw_nonzero());
        let text = fs::read_to_string(&path).with_context(|| path.clone())?;
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let words = line.with_context(|| format!("{path} has no {name}"))?;
        Ok(words.split_whitespace().collect::<Vec<_>>().join(" "))
    }

    /// Sends the signal by which the image is stopped.
    pub(super) fn stop(&self) -> Result<()> {
        let signal = self.image.run.stop_signal().as_deref();
        ensure!(signal == Some("SIGTERM"), "stopped by {signal:?}");
        kill_process(self.process, Signal::TERM).context("stopping the container")
    }

    /// Waits until it ends by itself.
    pub(super) async fn wait(&mut self) -> Result<ExitStatus> {
        let status = within("the container's end", self.unshare.wait()).await;
        status?.context("waiting for the container")
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The image's environment.
fn variables(image: &Unpacked) -> impl Iterator<Item = (&str, &str)> {
    let all = image.run.env().iter().flatten();
    all.filter_map(|variable| variable.split_once('='))
}

/// Waits for the process that unshare starts. Where unshare has ended, its log says why.
async fn started_by(unshare: &Child) -> Result<Pid> {
    let process = unshare.id().context("unshare ended at once")?;
    loop {
        if let Some(child) = child_of(process)? {
            return Ok(child);
        }
        sleep(POLL).await;
    }
}
