//! Whether a balancer should send clients here.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderValue, Method, Response, StatusCode, header};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::background::{MANAGER, ResolveError, resolve};
use crate::config::Config;
use crate::drain::Drain;
use crate::http::body::Body;

/// How long a finding about the manager holds, so that asking often costs the manager nothing.
const FRESH: Duration = Duration::from_secs(5);

/// Why a balancer should send clients elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// No new desktop sessions.
    Draining,
    /// `HealthChecksManager`.
    NoManager,
}

impl Trouble {
    const ALL: [Self; 2] = [Self::Draining, Self::NoManager];

    /// What is answered, without the end of the line.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Draining => "draining",
            Self::NoManager => "the manager cannot be reached",
        }
    }

    /// The one of which an answer speaks; `None`: it is none of a gateway.
    pub fn of(answer: &str) -> Option<Self> {
        let mut all = Self::ALL.into_iter();
        all.find(|trouble| trouble.text() == answer.trim_end())
    }
}

/// Answers questions for the gateway's health.
pub struct Health {
    drain: Arc<Drain>,
    /// `None`: the manager is not part of it.
    manager: Option<ManagerCheck>,
}

impl Health {
    /// As the configuration says.
    pub fn new(config: &Config, drain: Arc<Drain>) -> Self {
        let checks = config.health_checks_manager && !config.manager_ip.is_empty();
        Self {
            drain,
            manager: checks.then(|| ManagerCheck {
                host: config.manager_ip.clone(),
                port: config.manager_port,
                timeout: config.connect_timeout,
                found: Mutex::new(None),
            }),
        }
    }

    /// 200 `ok`, or 503 with the reason, in plain text.
    pub async fn answer(&self, method: &Method) -> Response<Body> {
        if method != Method::GET && method != Method::HEAD {
            return crate::http::reply::method_not_allowed("GET, HEAD");
        }
        let (status, text) = match self.trouble().await {
            None => (StatusCode::OK, "ok"),
            Some(trouble) => (StatusCode::SERVICE_UNAVAILABLE, trouble.text()),
        };
        let mut response = Response::new(Body::from(format!("{text}\n").into_bytes()));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        let plain = HeaderValue::from_static("text/plain; charset=utf-8");
        headers.insert(header::CONTENT_TYPE, plain);
        let no_store = HeaderValue::from_static("no-store");
        headers.insert(header::CACHE_CONTROL, no_store);
        response
    }

    async fn trouble(&self) -> Option<Trouble> {
        if self.drain.is_on() {
            return Some(Trouble::Draining);
        }
        let manager = self.manager.as_ref()?;
        (!manager.is_reached().await).then_some(Trouble::NoManager)
    }
}

struct ManagerCheck {
    host: String,
    port: u16,
    timeout: Duration,
    found: Mutex<Option<(Instant, bool)>>,
}

impl ManagerCheck {
    /// Whether the manager's port takes connections, or did so a moment ago.
    async fn is_reached(&self) -> bool {
        // Held while connecting, so that those who ask meanwhile share the answer.
        let mut found = self.found.lock().await;
        if let Some((when, reached)) = *found
            && when.elapsed() < FRESH
        {
            return reached;
        }
        let connect = async {
            let found = resolve(&MANAGER, &self.host, self.port, self.timeout).await?;
            Ok::<_, ResolveError>(TcpStream::connect(&found[..]).await?)
        };
        let reached = matches!(timeout(self.timeout, connect).await, Ok(Ok(_)));
        *found = Some((Instant::now(), reached));
        reached
    }
}
