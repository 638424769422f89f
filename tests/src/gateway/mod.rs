//! The real gateway as a child process.

mod builder;
mod log;
mod socket;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, kill_process, prlimit};
use serde_json::{Map, Value};
use tempfile::TempDir;
use tokio::process::{Child, Command};

pub use builder::{GatewayBuilder, gateway_binary, unused_user};
pub use rustix::process::Signal;

use crate::cert::TestCert;
use crate::command::run_bounded;
use crate::net::{Endpoint, PATIENCE, within};
use log::ProcessLog;

/// What the gateway says at SIGUSR1.
const SAID: &str = "SIGUSR1: ";

/// A running gateway; killed when dropped.
#[derive(Debug)]
pub struct Gateway {
    child: Child,
    log: ProcessLog,
    asked_for_log: tokio::sync::Mutex<()>,
    tls: Option<SocketAddr>,
    plain: Option<SocketAddr>,
    config_path: PathBuf,
    cert: TestCert,
    /// One of its own.
    user: Option<u32>,
    /// How many tasks it may have at most, whatever limit is set later.
    tasks: Option<u64>,
    _dir: TempDir,
}

/// How much memory a process occupies, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Resident set size: pages in memory, shared ones included.
    pub rss: u64,
    /// Proportional set size: shared pages are divided by the number of their users.
    pub pss: u64,
    /// Memory of no file, in bytes: its part of the pages that other processes of the same program
    /// share does not change as those come and go.
    pub own: u64,
}

impl Gateway {
    /// A gateway that listens for TLS on a free port of 127.0.0.1.
    pub fn builder() -> GatewayBuilder {
        GatewayBuilder::new()
    }

    /// Address of the TLS port.
    ///
    /// # Panics
    /// When the gateway reported none.
    pub fn tls_addr(&self) -> SocketAddr {
        self.tls.expect("the gateway listens for TLS")
    }

    /// Address of the plaintext port.
    ///
    /// # Panics
    /// When the gateway was started without one.
    pub fn plain_addr(&self) -> SocketAddr {
        self.plain
            .expect("the gateway was built with a plaintext port")
    }

    /// Clients of the TLS port.
    pub fn tls(&self) -> Endpoint {
        Endpoint::tls(self.tls_addr())
    }

    /// Clients of the plaintext port.
    pub fn plain(&self) -> Endpoint {
        Endpoint::plain(self.plain_addr())
    }

    /// The certificate that it was started with.
    pub fn cert(&self) -> &TestCert {
        &self.cert
    }

    /// Its configuration file.
    pub fn config_path(&self) -> &Path {
        &self.config_path
    }

    /// Changes keys of the configuration file; the gateway is not told.
    pub fn change_config(&self, keys: &[(&str, Value)]) -> Result<()> {
        let text = std::fs::read(&self.config_path).context("reading the configuration")?;
        let mut config: Map<String, Value> = serde_json::from_slice(&text)?;
        for (key, value) in keys {
            config.insert((*key).to_owned(), value.clone());
        }
        self.write_config(&config)
    }

    /// Runs a command of the gateway's binary with this gateway's configuration file, to its end.
    pub async fn run(&self, arguments: &[&str]) -> Result<Output> {
        let mut command = Command::new(gateway_binary()?);
        command
            .arg("--config")
            .arg(&self.config_path)
            .args(arguments)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        Ok(within("a command of the gateway", command.output()).await??)
    }

    /// The same with a command that must succeed; gives back what it prints.
    pub async fn output(&self, arguments: &[&str]) -> Result<String> {
        let output = self.run(arguments).await?;
        ensure!(output.status.success(), "{arguments:?}: {output:?}");
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Where its sockets lie, unless it was started with another `RuntimeDir`.
    pub fn runtime_dir(&self) -> PathBuf {
        self.config_path.with_file_name("run")
    }

    /// Replaces the configuration file; the gateway is not told.
    pub fn write_config(&self, config: &Map<String, Value>) -> Result<()> {
        builder::write_config(&self.config_path, config)
    }

    /// All lines logged before this call.
    ///
    /// The gateway writes its log from a queue, later than what the lines tell of. So it is told
    /// to say one more (SIGUSR1), behind which none of the earlier ones can come.
    ///
    /// # Panics
    /// When it does not say that line in time.
    pub async fn log(&self) -> Vec<String> {
        let _one_at_a_time = self.asked_for_log.lock().await;
        let is_said = |line: &str| line.contains(SAID);
        let before = self.log.lines().iter().filter(|line| is_said(line)).count();
        if self.child.id().is_some() && self.signal(Signal::USR1).is_ok() {
            let found = within(
                "the last line of the log",
                self.log.find(after(before, is_said)),
            )
            .await;
            // The inner error: the gateway has ended, and its log is complete.
            if let Err(error) = found {
                panic!("{:#}", self.with_log(&error));
            }
        }
        self.log.lines()
    }

    /// How many lines with this text were logged before this call.
    ///
    /// # Panics
    /// As [`Gateway::log`].
    pub async fn count_logged(&self, text: &str) -> usize {
        let lines = self.log().await;
        lines.iter().filter(|line| line.contains(text)).count()
    }

    /// The last lines logged so far.
    pub fn log_tail(&self) -> String {
        self.log.tail()
    }

    /// The first line logged, from the start on, that `wanted` accepts, which sees each line
    /// once; waits for it at most `limit`.
    pub async fn wait_for_log(
        &self,
        wanted: impl FnMut(&str) -> bool,
        limit: Duration,
    ) -> Result<String> {
        tokio::time::timeout(limit, self.log.find(wanted))
            .await
            .context("the gateway did not log the awaited line in time")
            .flatten()
            .map_err(|error| self.with_log(&error))
    }

    /// The first line that `wanted` accepts behind `before` of them; waits for it at most `limit`.
    pub async fn wait_for_another(
        &self,
        before: usize,
        wanted: impl Fn(&str) -> bool,
        limit: Duration,
    ) -> Result<String> {
        self.wait_for_log(after(before, wanted), limit).await
    }

    /// How it has ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Its process id.
    ///
    /// # Panics
    /// After [`Gateway::terminate`] or [`Gateway::wait`] returned.
    pub fn pid(&self) -> u32 {
        self.child.id().expect("the gateway is running")
    }

    /// The memory that it occupies now.
    pub fn memory(&self) -> Result<Memory> {
        let path = format!("/proc/{}/smaps_rollup", self.pid());
        let text = std::fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
        let field = |name: &str| -> Result<u64> {
            let kib = text
                .lines()
                .find_map(|line| line.strip_prefix(name)?.trim().strip_suffix(" kB"))
                .with_context(|| format!("{path} has no {name}"))?;
            Ok(kib.parse::<u64>()? * 1024)
        };
        Ok(Memory {
            rss: field("Rss:")?,
            pss: field("Pss:")?,
            own: field("Pss_Anon:")?,
        })
    }

    /// How many file descriptors it has open now.
    pub fn open_fds(&self) -> Result<usize> {
        Ok(self.fds()?.count())
    }

    /// How many file descriptors it has open now that are no pipes: of those it keeps some for
    /// the next channel.
    pub fn open_fds_but_pipes(&self) -> Result<usize> {
        let is_pipe = |target: PathBuf| target.to_string_lossy().starts_with("pipe:");
        Ok(self
            .fds()?
            .flatten()
            .filter(|entry| !std::fs::read_link(entry.path()).is_ok_and(is_pipe))
            .count())
    }

    fn fds(&self) -> Result<std::fs::ReadDir> {
        let path = format!("/proc/{}/fd", self.pid());
        std::fs::read_dir(&path).with_context(|| format!("reading {path}"))
    }

    /// Lets it have at most this many file descriptors from now on; those that are open stay. A
    /// later call may allow more again, up to the limit that this process has.
    pub fn limit_open_files(&self, limit: usize) -> Result<()> {
        let maximum = getrlimit(Resource::Nofile).maximum;
        let current = maximum.map_or(limit as u64, |most| most.min(limit as u64));
        if self.user.is_some() {
            let most = maximum.map_or_else(|| "unlimited".to_owned(), |most| most.to_string());
            return self.limit("nofile", current, &most);
        }
        let limit = Rlimit {
            current: Some(current),
            maximum,
        };
        prlimit(Some(self.raw_pid()?), Resource::Nofile, limit)
            .context("limiting the gateway's open files")?;
        Ok(())
    }

    /// Lets it make no further process or thread from now on, for good; for one that was built
    /// with [`GatewayBuilder::tasks`].
    pub fn allow_no_more_tasks(&self) -> Result<()> {
        self.limit("nproc", 0, "0")
    }

    /// Lets it make a further process or thread only while its user has fewer than this many. A
    /// later call may allow more again, up to what [`GatewayBuilder::tasks`] said.
    pub fn limit_tasks(&self, limit: u64) -> Result<()> {
        let most = self.tasks.context("a gateway with a limit on its tasks")?;
        self.limit("nproc", limit.min(most), &most.to_string())
    }

    /// Sets a limit of a gateway with a user of its own.
    fn limit(&self, name: &str, current: u64, most: &str) -> Result<()> {
        let user = self.user.context("a gateway with a user of its own")?;
        // Root may lack CAP_SYS_RESOURCE, which others' limits need; everyone may set his own.
        let mut command = builder::run_as(user, &[])?;
        command
            .arg(builder::util("prlimit")?)
            .arg(format!("--{name}={current}:{most}"))
            .arg(format!("--pid={}", self.pid()));
        run_bounded(command, PATIENCE).with_context(|| format!("limiting the gateway's {name}"))?;
        Ok(())
    }

    /// Ids of its threads.
    pub fn threads(&self) -> Result<BTreeSet<u32>> {
        let path = format!("/proc/{}/task", self.pid());
        let entries = std::fs::read_dir(&path).with_context(|| format!("reading {path}"))?;
        let ids = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().parse()?));
        ids.collect()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill_process(self.raw_pid()?, signal).context("signalling the gateway")
    }

    fn raw_pid(&self) -> Result<Pid> {
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw);
        pid.context("a process id")
    }

    /// Waits until it ends by itself; then its log is complete.
    pub async fn wait(&mut self) -> Result<ExitStatus> {
        let ended = async {
            let status = self.child.wait().await;
            self.log.set_read(true);
            self.log.finished().await;
            status
        };
        match within("end of the gateway", ended).await {
            Ok(status) => status.context("waiting for the gateway"),
            Err(error) => Err(self.with_log(&error)),
        }
    }

    /// Sends SIGTERM and waits until it ended.
    pub async fn terminate(&mut self) -> Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        self.wait().await
    }

    /// Reads no more of the log until the gateway has ended.
    pub fn leave_log_unread(&self) {
        self.log.set_read(false);
    }

    /// Waits for the line that says that all ports are open, and reads the ports.
    async fn wait_until_ready(&mut self) -> Result<()> {
        let log = &self.log;
        let ready = within("start of the gateway", log.find(is_ready));
        let started = tokio::select! {
            found = ready => match found {
                // The log ends a moment before the process does.
                Ok(Err(_)) => None,
                found => Some(found.flatten()),
            },
            _ = self.child.wait() => None,
        };
        let started = if let Some(started) = started {
            started
        } else {
            log.finished().await;
            let status = within("end of the gateway", self.child.wait()).await??;
            Err(anyhow!("the gateway ended at once: {status}"))
        };
        started.map_err(|error| self.with_log(&error))?;
        for line in self.log.lines() {
            match parse_listening(&line) {
                Some(("tls", addr)) => self.tls = Some(addr),
                Some(("plain", addr)) => self.plain = Some(addr),
                _ => {}
            }
        }
        if self.tls.is_none() && self.plain.is_none() {
            bail!(self.with_log(&anyhow!("the gateway named no address that it listens on")));
        }
        Ok(())
    }

    fn with_log(&self, error: &anyhow::Error) -> anyhow::Error {
        anyhow!("{error:#}\nlast lines of its log:\n{}", self.log_tail())
    }
}

/// Accepts what `wanted` accepts, but for the first `before` of them.
fn after(before: usize, wanted: impl Fn(&str) -> bool) -> impl FnMut(&str) -> bool {
    let mut seen = 0;
    move |line| {
        let is_wanted = wanted(line);
        seen += usize::from(is_wanted);
        is_wanted && seen > before
    }
}

fn is_ready(line: &str) -> bool {
    line.split_whitespace().any(|word| word == "ready")
}

/// The leg and address of a line such as `INFO listening leg="tls" address=127.0.0.1:43210`.
fn parse_listening(line: &str) -> Option<(&str, SocketAddr)> {
    let mut words = line.split_whitespace();
    words.find(|word| *word == "listening")?;
    let (mut leg, mut addr) = (None, None);
    for word in words {
        match word.split_once('=')? {
            ("leg", value) => leg = Some(value.trim_matches('"')),
            ("address", value) => addr = value.trim_matches('"').parse().ok(),
            _ => {}
        }
    }
    Some((leg?, addr?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listening_lines_are_understood() {
        let line = "2026-01-02T03:04:05.678901Z  INFO listening leg=\"tls\" address=127.0.0.1:4321";
        let (leg, addr) = parse_listening(line).unwrap();
        assert_eq!((leg, addr.port()), ("tls", 4321));
        let line = "2026-01-02T03:04:05Z  INFO gateway: listening address=[::1]:80 leg=plain";
        let (leg, addr) = parse_listening(line).unwrap();
        assert_eq!((leg, addr.to_string().as_str()), ("plain", "[::1]:80"));
        assert_eq!(parse_listening("INFO ready version=\"1\""), None);
        assert!(is_ready("INFO ready version=\"1\""));
        assert!(!is_ready("INFO already"));
    }
}
