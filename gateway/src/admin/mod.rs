//! What an administrator sees of the running gateway, and the little that can be done to it.
//!
//! Two doors: a TCP port that only shows (metrics, health, a page), and a socket in `RuntimeDir`
//! for the command line, which can also end desktop sessions, drain, and make tickets. Both speak
//! HTTP/1.1.

mod asked_host;
mod certificates;
pub mod client;
pub mod health;
mod history;
pub mod legs;
mod now;
mod page;
mod places;
mod routes;
mod scrape;
mod screen;
mod serve;
pub mod status;
mod table;
mod tickets;
mod units;
pub mod viewer_file;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::net::TcpListener;
use tracing::warn;

use crate::acme::Progress;
use crate::capabilities;
use crate::channel::Registry;
use crate::limits::ConnectionLimits;
use crate::measured::Chosen;
use crate::metrics;
use crate::runtime_dir::Held;
use crate::runtime_dir::socket::{Bound, OwnListener};
use crate::serving::Live;
pub(crate) use certificates::told as told_of_certificates;
use gateway_datapath::label::Label as _;
use gateway_datapath::probe::Finding;
use gateway_datapath::supervise::{Supervised, supervised};
use history::History;
pub use now::Now;
use routes::Access;
use scrape::Scrape;
use serve::Door;
use status::{HandshakeStatus, Moved, PathStatus, SessionStatus, Status};
pub(crate) use units::counted;

/// Name of the socket in `RuntimeDir`.
pub const SOCKET: &str = "admin.sock";

/// Everything that is shown, and what can be done.
pub struct Admin {
    sources: Sources,
    history: History,
}

/// What [`Admin`] shows; the parts of the gateway that know it.
#[derive(Clone)]
pub struct Sources {
    /// Open channels.
    pub channels: Arc<Registry>,
    /// What connections and requests are served with.
    pub live: Arc<Live>,
    /// What the probe at the start found.
    pub findings: Vec<Finding>,
    /// What `"DataPath": "auto"` has taken at the start; `None`: the configuration said another.
    pub auto: Option<Arc<Chosen>>,
    /// Connections of clients.
    pub connections: Arc<ConnectionLimits>,
    /// How it goes with certificates that the gateway gets by itself.
    pub certificates: Arc<Progress>,
}

/// Open doors; closed when dropped.
pub struct Doors {
    _tasks: Vec<Supervised<Infallible>>,
    _socket: Option<Bound>,
}

impl Admin {
    /// Opens the doors: `port`, which only shows, and a socket in `directory`. Must be called in a
    /// runtime.
    ///
    /// A socket that cannot be had is a warning: the gateway works without.
    pub fn open(directory: Option<&Held>, port: Option<TcpListener>, sources: Sources) -> Doors {
        let admin = Arc::new(Self {
            sources,
            history: History::default(),
        });
        let mut tasks = Vec::new();
        if let Some(listener) = port {
            let door = Door::new(Arc::clone(&admin), listener, Access::Show);
            tasks.push(supervised("port of administrators", door, |door| {
                Box::pin(door.serve())
            }));
        }
        let bound = directory.and_then(|directory| match OwnListener::bind(directory, SOCKET) {
            Ok((listener, bound)) => {
                let door = Door::new(Arc::clone(&admin), listener, Access::ShowAndAct);
                tasks.push(supervised("socket of the command line", door, |door| {
                    Box::pin(door.serve())
                }));
                Some(bound)
            }
            Err(error) => {
                let directory = directory.path().display();
                warn!(%directory, %error, "no socket for the command line: status, kick, drain and ticket do not work");
                None
            }
        });
        if !tasks.is_empty() {
            tasks.push(supervised("history", admin, |admin| {
                Box::pin(admin.history.record(&admin.sources.channels))
            }));
        }
        Doors {
            _tasks: tasks,
            _socket: bound,
        }
    }

    fn metrics_text(&self) -> Result<String, std::fmt::Error> {
        let serving = self.sources.live.current();
        let gateway = &serving.gateway;
        let scrape = Scrape::take(&self.sources.channels, &gateway.metrics.channel_times);
        gateway.metrics.encode(Now {
            totals: self.sources.channels.totals(),
            fallbacks: gateway.paths.fallbacks(),
            queues: scrape.queues,
            sent: scrape.sent,
            stalled: scrape.stalled,
            programs: gateway.paths.programs(),
            paths: self
                .sources
                .findings
                .iter()
                .map(|f| (f.path, f.works))
                .collect(),
            auto: self.sources.auto.clone(),
            connections: self.sources.connections.open(),
            tickets: gateway.admissions.tickets().count(),
            draining: gateway.drain.is_on(),
            drains: gateway.drain.count(),
            congestion_control: serving.congestion.in_use(),
            certificate_end: self.sources.live.certificate_expiry(),
            acme: self.sources.certificates.now(),
            started: gateway.metrics.started(),
            uptime: gateway.metrics.uptime(),
            open_files: metrics::open_files(),
            open_files_limit: metrics::open_files_limit(),
        })
    }

    fn status(&self) -> Status {
        let now = SystemTime::now();
        let serving = self.sources.live.current();
        let gateway = &serving.gateway;
        let totals = self.sources.channels.totals();
        let (up_rate, down_rate) = self.history.of_all().last().copied().unwrap_or_default();
        let sessions = self.sources.channels.sessions();
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_seconds: gateway.metrics.uptime().as_secs(),
            draining: gateway.drain.is_on(),
            refusing: gateway.drain.refuses(),
            certificate_end: self.sources.live.certificate_expiry(),
            acme: self.sources.certificates.now(),
            connections: self.sources.connections.open(),
            tickets: gateway.admissions.tickets().count(),
            tls: gateway
                .metrics
                .tls_handshakes
                .counted()
                .map(|(version, group, handshakes)| HandshakeStatus {
                    version: version.text().to_owned(),
                    group: group.text().to_owned(),
                    handshakes,
                })
                .collect(),
            congestion_control: serving.congestion.in_use(),
            capabilities: capabilities::held(),
            open_files: metrics::open_files(),
            open_files_limit: metrics::open_files_limit(),
            sessions_opened: totals.sessions_opened,
            channels_opened: totals.channels.values().map(|tally| tally.opened).sum(),
            moved: Moved {
                up_bytes: totals.channels.values().map(|tally| tally.uplink).sum(),
                down_bytes: totals.channels.values().map(|tally| tally.downlink).sum(),
                up_rate,
                down_rate,
            },
            paths: self
                .sources
                .findings
                .iter()
                .map(|finding| PathStatus {
                    path: finding.path.to_owned(),
                    works: finding.works,
                    reason: finding.reason.clone(),
                })
                .collect(),
            auto: self.sources.auto.as_deref().cloned(),
            sessions: sessions
                .iter()
                .map(|session| {
                    let rates = self.history.latest(session.id);
                    SessionStatus::new(session, rates, now)
                })
                .collect(),
        }
    }
}
