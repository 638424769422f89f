//! A reverse proxy as a child process.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;
use testkit::command::find_program;
use testkit::net::free_port;
use testkit::packages::{self, Package};
use testkit::prelude::*;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

/// How often a proxy that is starting is looked at: it tells nobody when it is ready.
const POLL: Duration = Duration::from_millis(20);
/// Starts with another port, in case somebody else took the port that was free a moment ago.
const ATTEMPTS: usize = 3;

/// A running proxy; killed when dropped.
#[derive(Debug)]
pub(crate) struct Proxy {
    child: Child,
    addr: SocketAddr,
    dir: TempDir,
}

/// The folder of a proxy that is about to start.
pub(crate) struct Setup<'a> {
    /// Where it is to listen.
    pub(crate) addr: SocketAddr,
    /// For everything that it reads and writes.
    pub(crate) dir: &'a Path,
}

impl Setup<'_> {
    /// Writes a file into the folder; gives back its path.
    pub(crate) fn write(&self, name: &str, text: &str) -> Result<String> {
        let path = self.dir.join(name);
        std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        Ok(path.display().to_string())
    }

    /// The path of a file in the folder.
    pub(crate) fn path(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }
}

/// A command that runs this program; an ordinary user's `PATH` may lack its folder.
pub(crate) fn program(name: &str) -> Result<Command> {
    let path = find_program(name).with_context(|| format!("there is no {name}"))?;
    Ok(Command::new(path))
}

impl Proxy {
    /// Starts `package` with what `prepare` wrote and the command it gave back, which must stay
    /// one process in the foreground.
    ///
    /// Fails with the command that installs the package when it is missing and cannot be
    /// installed.
    pub(crate) async fn start(
        package: Package,
        prepare: impl Fn(&Setup<'_>) -> Result<Command>,
    ) -> Result<Self> {
        tokio::task::spawn_blocking(move || packages::ensure(&[package])).await??;
        let mut failed = None;
        for _ in 0..ATTEMPTS {
            let dir = TempDir::with_prefix("testkit-proxy-")?;
            let addr = SocketAddr::from(([127, 0, 0, 1], free_port()?));
            let command = prepare(&Setup {
                addr,
                dir: dir.path(),
            })?;
            match Self::spawn(command, addr, dir).await {
                Ok(proxy) => return Ok(proxy),
                Err(error) => failed = Some(error),
            }
        }
        Err(failed.context("no attempt was made")?)
    }

    /// Its TLS port.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Clients of its TLS port.
    pub(crate) fn tls(&self) -> Endpoint {
        Endpoint::tls(self.addr)
    }

    /// What its log has now: the file `access.log` in its folder and all that it printed.
    pub(crate) fn log(&self) -> Result<String> {
        let printed = read(&output(self.dir.path()))?;
        Ok(printed + &read(&self.dir.path().join("access.log")).unwrap_or_default())
    }

    /// Waits until its log has this text.
    pub(crate) async fn wait_for_log(&self, text: &str) -> Result<()> {
        let found = async {
            while !self.log()?.contains(text) {
                tokio::time::sleep(POLL).await;
            }
            Ok(())
        };
        within(&format!("{text:?} in the proxy's log"), found).await?
    }

    async fn spawn(mut command: Command, addr: SocketAddr, dir: TempDir) -> Result<Self> {
        let printed = std::fs::File::create(output(dir.path()))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(printed.try_clone()?)
            .stderr(printed)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("starting {}", command.as_std().get_program().display()))?;
        let mut proxy = Self { child, addr, dir };
        match within("start of a proxy", proxy.ready()).await.flatten() {
            Ok(()) => Ok(proxy),
            Err(error) => bail!(
                "{error:#}\nit printed:\n{}",
                read(&output(proxy.dir.path()))?
            ),
        }
    }

    async fn ready(&mut self) -> Result<()> {
        while TcpStream::connect(self.addr).await.is_err() {
            self.fail_if_ended()?;
            tokio::time::sleep(POLL).await;
        }
        // Somebody else may have answered.
        self.fail_if_ended()
    }

    fn fail_if_ended(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("the proxy ended at once: {status}"),
        }
    }
}

fn output(dir: &Path) -> PathBuf {
    dir.join("output.log")
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))
}
