//! The gateway and its peers, some of which can be told to hang.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use http::Response;
use tempfile::TempDir;
use testkit::gateway::GatewayBuilder;
use testkit::manager::full;
use testkit::net::free_port;
use testkit::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;

/// How often what the gateway holds is looked at.
const POLL: Duration = Duration::from_millis(100);

/// Everything that a run needs.
pub(super) struct Stage {
    pub(super) gateway: Gateway,
    /// Predecessors that still carry channels which could not be handed over.
    pub(super) lingering: Vec<Gateway>,
    pub(super) cert: TestCert,
    pub(super) host_hangs: watch::Sender<bool>,
    pub(super) manager_hangs: watch::Sender<bool>,
    /// Counts up when new clients may be refused, and again when they may not: odd means now.
    pub(super) refusing: Arc<AtomicU64>,
    host: Host,
    /// Until it goes.
    manager: Option<Manager>,
    manager_address: SocketAddr,
    plain_port: u16,
    runtime_dir: TempDir,
}

/// What a process holds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    pub(super) descriptors: usize,
    pub(super) rss: u64,
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = self.rss / (1 << 20);
        write!(f, "{} descriptors, {mib} MiB", self.descriptors)
    }
}

impl Stage {
    pub(super) async fn set() -> Result<Self> {
        let (host_hangs, hanging) = watch::channel(false);
        let host = Host::spawn(move |mut stream| {
            let mut hanging = hanging.clone();
            async move {
                let mut buffer = vec![0; 64 * 1024];
                loop {
                    // One that hangs neither reads nor writes.
                    hanging.wait_for(|hangs| !hangs).await?;
                    match stream.read(&mut buffer).await? {
                        0 => return Ok(()),
                        length => stream.write_all(&buffer[..length]).await?,
                    }
                }
            }
        })
        .await?;
        let (manager_hangs, hanging) = watch::channel(false);
        let manager = Manager::with_handler(move |_| {
            let mut hanging = hanging.clone();
            async move {
                let _ = hanging.wait_for(|hangs| !hangs).await;
                Response::new(full("an answer"))
            }
        })
        .await?;
        let cert = TestCert::new()?;
        let runtime_dir = TempDir::with_prefix("soak-")?;
        let plain_port = free_port()?;
        let builder = configured(&cert, manager.addr(), runtime_dir.path(), plain_port);
        Ok(Self {
            gateway: builder.spawn().await?,
            lingering: Vec::new(),
            cert,
            host_hangs,
            manager_hangs,
            refusing: Arc::default(),
            host,
            manager_address: manager.addr(),
            manager: Some(manager),
            plain_port,
            runtime_dir,
        })
    }

    /// A gateway that takes over from the one that runs.
    pub(super) fn successor(&self) -> GatewayBuilder {
        let dir = self.runtime_dir.path();
        configured(&self.cert, self.manager_address, dir, self.plain_port)
            .arg("run")
            .arg("--take-over")
    }

    pub(super) fn runtime_dir(&self) -> &Path {
        self.runtime_dir.path()
    }

    /// The address stays through all hand-overs.
    pub(super) fn endpoints(&self) -> [Endpoint; 2] {
        [self.gateway.tls(), self.gateway.plain()]
    }

    pub(super) fn host(&self) -> SocketAddr {
        self.host.addr()
    }

    /// What the gateway holds once it has served a client of each kind.
    pub(super) async fn warm_up(&self) -> Result<Held> {
        let token = self.host().port().to_string();
        for endpoint in self.endpoints() {
            let mut channel = ws::echo_channel(&endpoint, &token).await?;
            channel.shutdown().await?;
            channel.read_to_end(&mut Vec::new()).await?;
        }
        let closed = |line: &str| line.contains("channel closed");
        self.gateway.wait_for_log(closed, PATIENCE).await?;
        // Sockets of what has just ended may still be open.
        let mut least = self.held()?;
        for _ in 0..10 {
            tokio::time::sleep(POLL).await;
            let held = self.held()?;
            least.descriptors = least.descriptors.min(held.descriptors);
        }
        Ok(least)
    }

    pub(super) fn held(&self) -> Result<Held> {
        Ok(Held {
            descriptors: self.gateway.open_fds_but_pipes()?,
            rss: self.gateway.memory()?.rss,
        })
    }

    /// What it holds in the end, waiting as long as it holds more descriptors than before.
    ///
    /// The manager goes: connections to it that are kept for the next request do so, too.
    pub(super) async fn settle(&mut self, before: &Held, limit: Duration) -> Result<Held> {
        self.manager = None;
        let began = Instant::now();
        loop {
            let held = self.held()?;
            if held.descriptors <= before.descriptors || began.elapsed() >= limit {
                return Ok(held);
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// New clients may be refused until the result is dropped, and those that come meanwhile.
    pub(super) fn refuses(&self) -> Refusing {
        self.refusing.fetch_add(1, Ordering::SeqCst);
        Refusing(Arc::clone(&self.refusing))
    }

    /// Ends the gateway, and waits for predecessors, which end with their last channels; the logs
    /// of all of them.
    pub(super) async fn strike(mut self) -> Result<Vec<Vec<String>>> {
        let mut logs = Vec::new();
        for mut gateway in self.lingering {
            let status = gateway.wait().await.context("a predecessor")?;
            ensure!(status.success(), "a predecessor ended with {status}");
            logs.push(gateway.log().await);
        }
        let status = self.gateway.terminate().await?;
        ensure!(status.success(), "the gateway ended with {status}");
        logs.push(self.gateway.log().await);
        Ok(logs)
    }
}

/// While this lives new clients may be refused.
pub(super) struct Refusing(Arc<AtomicU64>);

impl Drop for Refusing {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn configured(
    cert: &TestCert,
    manager: SocketAddr,
    runtime_dir: &Path,
    plain_port: u16,
) -> GatewayBuilder {
    let text = |path: &Path| path.to_string_lossy().into_owned();
    Gateway::builder()
        .set("HijackAll", false)
        .set("PlainPort", plain_port)
        .set("CertFile", text(&cert.cert_path()))
        .set("KeyFile", text(&cert.key_path()))
        .set("CertificatePoll", 1)
        .set("ManagerTimeout", 2)
        .set("KeepAlive", 5)
        .set("RuntimeDir", text(runtime_dir))
        .set("ManagerIP", manager.ip().to_string())
        .set("ManagerPort", manager.port())
}
