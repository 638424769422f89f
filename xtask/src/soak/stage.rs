//! The gateway and its peers, some of which can be told to hang.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::chown;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use http::Response;
use serde_json::json;
use tempfile::TempDir;
use testkit::flexvdi::FlexVdiClient;
use testkit::gateway::{GatewayBuilder, unused_user};
use testkit::line::{End, Line, MTU, Quality};
use testkit::manager::{Body, full, json_response};
use testkit::namespace::Namespace;
use testkit::net::free_port;
use testkit::prelude::*;
use testkit::ws::Channel;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;

/// How often what the gateway holds is looked at.
const POLL: Duration = Duration::from_millis(100);

/// How many tasks the gateway's user may have otherwise.
pub(super) const TASKS: u64 = 4_096;
/// For how long a ticket may wait to be used.
pub(super) const TICKET_LIFE: Duration = Duration::from_secs(20);
/// The ends of the line, and what it is like when nothing is wrong.
const FAR: Ipv4Addr = Ipv4Addr::new(10, 83, 0, 1);
const NEAR: Ipv4Addr = Ipv4Addr::new(10, 83, 0, 2);
const ROUND_TRIP: Duration = Duration::from_millis(20);
const RATE: u64 = 50_000_000;

/// A network of its own, from which a line leads here.
pub(super) struct Away {
    namespace: Namespace,
    pub(super) line: Line,
}

impl Away {
    pub(super) fn usual() -> Quality {
        Quality::new(ROUND_TRIP, RATE)
    }

    /// A line to `here`.
    fn from(here: &Namespace) -> Result<Self> {
        let namespace = Namespace::new()?;
        let end = |namespace: &Namespace, device, address| End {
            namespace: namespace.clone(),
            device,
            address,
        };
        let (far, near) = (end(&namespace, "here", FAR), end(here, "away", NEAR));
        let line = Line::open(&far, &near, Self::usual(), MTU, 1)?;
        Ok(Self { namespace, line })
    }
}

/// Everything that a run needs.
pub(super) struct Stage {
    pub(super) gateway: Gateway,
    /// Predecessors that still carry channels which could not be handed over.
    pub(super) lingering: Vec<Gateway>,
    pub(super) cert: TestCert,
    pub(super) host_hangs: watch::Sender<bool>,
    pub(super) manager_hangs: watch::Sender<bool>,
    pub(super) away: Away,
    pub(super) refusals: Refusals,
    /// Bytes that channels have verified so far.
    pub(super) verified: Arc<AtomicU64>,
    host: Host,
    /// Until it goes.
    manager: Option<Manager>,
    manager_address: SocketAddr,
    plain_port: u16,
    runtime_dir: TempDir,
    user: u32,
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
    /// Sets it up in this namespace, which the calling thread is in.
    pub(super) async fn set(here: &Namespace) -> Result<Self> {
        let (host_hangs, hanging) = watch::channel(false);
        let host = Host::spawn(move |stream| echo_unless(stream, hanging.clone())).await?;
        let (manager_hangs, hanging) = watch::channel(false);
        let desktop = DesktopAnswer::new(host.addr());
        let manager = Manager::builder().forgetful().handler(move |request| {
            let mut hanging = hanging.clone();
            let desktop = desktop.clone();
            async move {
                let _ = hanging.wait_for(|hangs| !hangs).await;
                answer(request.uri.path(), &desktop)
            }
        });
        let manager = manager.spawn().await?;
        let cert = TestCert::new()?;
        let runtime_dir = TempDir::with_prefix("soak-")?;
        let user = unused_user();
        chown(runtime_dir.path(), Some(user), Some(user)).context("this needs root")?;
        let plain_port = free_port()?;
        let builder = configured(&cert, manager.addr(), runtime_dir.path(), plain_port);
        Ok(Self {
            gateway: builder.user(user).spawn().await?,
            lingering: Vec::new(),
            cert,
            host_hangs,
            manager_hangs,
            away: Away::from(here)?,
            refusals: Refusals::default(),
            verified: Arc::default(),
            host,
            manager_address: manager.addr(),
            manager: Some(manager),
            plain_port,
            runtime_dir,
            user,
        })
    }

    /// A gateway that takes over from the one that runs.
    pub(super) fn successor(&self) -> GatewayBuilder {
        let dir = self.runtime_dir.path();
        configured(&self.cert, self.manager_address, dir, self.plain_port)
            .user(self.user)
            .arg("run")
            .arg("--take-over")
    }

    pub(super) fn runtime_dir(&self) -> &Path {
        self.runtime_dir.path()
    }

    /// For clients on this machine; they stay through all hand-overs.
    pub(super) fn endpoints(&self) -> [Endpoint; 2] {
        self.endpoints_at(Ipv4Addr::LOCALHOST)
    }

    /// For clients at the other end of the line.
    pub(super) fn endpoints_away(&self) -> [Endpoint; 2] {
        let away = &self.away.namespace;
        self.endpoints_at(NEAR)
            .map(|endpoint| endpoint.in_namespace(away))
    }

    fn endpoints_at(&self, address: Ipv4Addr) -> [Endpoint; 2] {
        [self.gateway.tls(), self.gateway.plain()].map(|endpoint| {
            let port = endpoint.addr().port();
            endpoint.with_addr((address, port).into())
        })
    }

    pub(super) fn host(&self) -> SocketAddr {
        self.host.addr()
    }

    /// What the gateway holds once it has served a client of each kind.
    pub(super) async fn warm_up(&self) -> Result<Held> {
        for endpoint in self.endpoints() {
            let mut channel = open(&endpoint).await?;
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

    /// Logs of predecessors that have ended since.
    pub(super) async fn left(&mut self) -> Result<Vec<Vec<String>>> {
        let mut logs = Vec::new();
        for mut gateway in std::mem::take(&mut self.lingering) {
            if gateway.ended().is_none() {
                self.lingering.push(gateway);
                continue;
            }
            let status = gateway.wait().await.context("a predecessor")?;
            ensure!(status.success(), "a predecessor ended with {status}");
            logs.push(gateway.log().await);
        }
        Ok(logs)
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

/// Whether new clients may be refused.
#[derive(Clone, Default)]
pub(super) struct Refusals(
    /// Counts up when they may be, and again when they may not: odd means now.
    Arc<AtomicU64>,
);

impl Refusals {
    /// New clients may be refused until the result is dropped, and those that come meanwhile.
    pub(super) fn begin(&self) -> Refusing {
        self.0.fetch_add(1, Ordering::SeqCst);
        Refusing(Arc::clone(&self.0))
    }

    /// What comes of `attempt`; `None`: it failed, and new clients might be refused meanwhile.
    pub(super) async fn bear<T>(
        &self,
        attempt: impl Future<Output = Result<T>>,
    ) -> Result<Option<T>> {
        let before = self.0.load(Ordering::SeqCst);
        let outcome = attempt.await;
        let might_be = before % 2 == 1 || self.0.load(Ordering::SeqCst) != before;
        match outcome {
            Err(_) if might_be => Ok(None),
            outcome => outcome.map(Some),
        }
    }
}

/// While this lives new clients may be refused.
pub(super) struct Refusing(Arc<AtomicU64>);

impl Drop for Refusing {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// Asks the manager for a desktop and opens a channel with the ticket.
pub(super) async fn open(endpoint: &Endpoint) -> Result<Channel> {
    let desktop = FlexVdiClient::new(endpoint).desktop().await?;
    ws::echo_channel(endpoint, &desktop.token).await
}

/// A host that echoes; while it hangs it neither reads nor writes.
async fn echo_unless(mut stream: TcpStream, mut hanging: watch::Receiver<bool>) -> Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        hanging.wait_for(|hangs| !hangs).await?;
        match stream.read(&mut buffer).await? {
            0 => return Ok(()),
            length => stream.write_all(&buffer[..length]).await?,
        }
    }
}

/// What the manager answers.
fn answer(path: &str, desktop: &DesktopAnswer) -> Response<Body> {
    match path {
        "/vdi/authmode" => {
            let mode = json!({"status": "OK", "auth_mode": "active_directory"});
            json_response(&mode, false)
        }
        // Compressed although nobody asked for it.
        "/vdi/desktop" => json_response(&desktop.to_json(), true),
        _ => Response::new(full("an answer")),
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
        .tasks(TASKS)
        .set("HijackAll", true)
        .set("TicketTimeout", TICKET_LIFE.as_secs())
        // What has ended is forgotten soon, so that memory does not depend on the time.
        .set("ReconnectTimeout", 10)
        .set("ListenAddress", "0.0.0.0")
        .set("PlainAddress", "0.0.0.0")
        .set("PlainPort", plain_port)
        .set("CertFile", text(&cert.cert_path()))
        .set("KeyFile", text(&cert.key_path()))
        .set("CertificatePoll", 1)
        .set("ManagerTimeout", 10)
        .set("KeepAlive", 5)
        .set("RuntimeDir", text(runtime_dir))
        .set("ManagerIP", manager.ip().to_string())
        .set("ManagerPort", manager.port())
}
