//! A peer's program as a child process that leaves nothing behind.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tempfile::TempDir;
use testkit::namespace::Namespace;
use testkit::net::free_port;
use testkit::network::{self, Network};
use tokio::net::TcpSocket;

/// How long a program may take until it listens.
const START_LIMIT: Duration = Duration::from_secs(10);
/// How often it is looked whether it does.
const POLL: Duration = Duration::from_millis(20);

/// A folder with the files of a program, and the port that it shall listen on.
pub(crate) struct Place {
    dir: TempDir,
    /// The network in which the program is; none: that of this process.
    namespace: Option<Namespace>,
    /// Where to listen.
    pub(crate) addr: SocketAddr,
}

impl Place {
    /// A place of its own for each program, on loopback or where a network has its gateway.
    pub(crate) fn new(network: Option<&Network>) -> Result<Self> {
        let address = network.map_or(Ipv4Addr::LOCALHOST, |_| network::GATEWAY);
        Ok(Self {
            dir: TempDir::with_prefix("bench-peer-")?,
            namespace: network.map(|network| network.gateway.clone()),
            addr: (address, free_port()?).into(),
        })
    }

    /// A place in this namespace for a program that listens there.
    pub(crate) fn at(namespace: &Namespace, addr: SocketAddr) -> Result<Self> {
        Ok(Self {
            dir: TempDir::with_prefix("bench-peer-")?,
            namespace: Some(namespace.clone()),
            addr,
        })
    }

    /// Does something in the program's network.
    fn inside<T>(&self, work: impl FnOnce() -> T) -> Result<T> {
        match &self.namespace {
            Some(namespace) => namespace.enter(work),
            None => Ok(work()),
        }
    }

    async fn is_listened_on(&self) -> Result<bool> {
        let socket = self.inside(TcpSocket::new_v4)??;
        Ok(socket.connect(self.addr).await.is_ok())
    }

    /// A path in the folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file into the folder.
    pub(crate) fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.path(name);
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        Ok(path)
    }
}

/// A running program; it and all processes that it started are killed when this is dropped.
pub(crate) struct Program {
    child: Child,
    log: PathBuf,
    place: Place,
}

impl Program {
    /// Starts it and waits until it listens.
    pub(crate) async fn start(mut command: Command, place: Place) -> Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        let log = place.path("log");
        let output = File::create(&log)?;
        command
            .current_dir(place.dir.path())
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            // A group of its own, which can be ended as a whole.
            .process_group(0);
        let child = place
            .inside(|| command.spawn())?
            .with_context(|| format!("starting {name}"))?;
        let mut program = Self { child, log, place };
        program
            .wait_until_it_listens()
            .await
            .with_context(|| format!("{name}; its last words: {}", program.last_words()))?;
        Ok(program)
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where it listens.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.place.addr
    }

    /// Asks it to end and waits until it has, at most this long; blocks.
    pub(crate) fn terminate(&mut self, limit: Duration) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // It may have ended already.
            let _ = kill_process(pid, Signal::TERM);
        }
        let deadline = Instant::now() + limit;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(POLL);
        }
    }

    /// The file with what it says.
    pub(crate) fn log(&self) -> &Path {
        &self.log
    }

    async fn wait_until_it_listens(&mut self) -> Result<()> {
        let deadline = Instant::now() + START_LIMIT;
        while !self.place.is_listened_on().await? {
            if let Some(status) = self.child.try_wait()? {
                bail!("it ended at once: {status}");
            }
            if Instant::now() > deadline {
                bail!("it does not listen after {START_LIMIT:?}");
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    fn last_words(&self) -> String {
        tail(&self.log)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let group = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        if let Some(group) = group {
            // It may have ended already.
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.child.wait();
    }
}

fn tail(log: &Path) -> String {
    const LINES: usize = 5;
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.trim().lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join(" | ")
}
