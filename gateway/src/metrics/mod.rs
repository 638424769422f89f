//! What is counted for monitoring, and how Prometheus reads it.
//!
//! Channels count in atomics of their own, which [`Registry`](crate::channel::Registry) adds up
//! when somebody asks; here is counted what happens once for a connection, a request or a desktop
//! session.

mod now;
mod process;

use std::fmt;
use std::time::{Duration, Instant, SystemTime};

use prometheus_client::encoding::prometheus_text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Registry};

pub use now::Now;
pub use process::{open_files, open_files_limit};

/// `Content-Type` of [`Metrics::encode`].
pub const CONTENT_TYPE: &str = prometheus_text::CONTENT_TYPE;

/// What every name of a metric of the gateway's own begins with.
const PREFIX: &str = "flexvdi_gateway";

/// Upper bounds of the buckets of times, in seconds: from a connect inside a rack to the longest
/// time that the gateway waits by default.
const SECONDS: [f64; 14] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// One label with a value that the code names.
type Label = [(&'static str, &'static str); 1];

/// A counter for each value of one label.
#[derive(Clone, Debug)]
pub struct Labelled {
    name: &'static str,
    family: Family<Label, Counter>,
}

impl Labelled {
    /// Those of `values` are shown as 0 before they are counted: a rate needs a first sample.
    fn new(name: &'static str, values: &[&'static str]) -> Self {
        let family = Family::<Label, Counter>::default();
        for value in values {
            drop(family.get_or_create(&[(name, *value)]));
        }
        Self { name, family }
    }

    /// Counts one more with this value of the label.
    pub fn count(&self, value: &'static str) {
        self.family.get_or_create(&[(self.name, value)]).inc();
    }
}

/// Everything that is counted as it happens.
pub struct Metrics {
    /// Connections that were accepted, by leg.
    pub connections: Labelled,
    /// Connections that were closed at once because of `MaxConnections` or
    /// `MaxConnectionsPerAddress`.
    pub connections_refused: Counter,
    /// Times of TLS handshakes that succeeded.
    pub tls_handshake: Histogram,
    /// TLS handshakes that did not, by reason.
    pub tls_failures: Labelled,
    /// WebSockets that were refused, by reason.
    pub websockets_refused: Labelled,
    /// Times of connects to hosts that succeeded, names' resolution included.
    pub host_connect: Histogram,
    /// Connects to hosts that did not, by reason.
    pub host_failures: Labelled,
    /// Desktop sessions that a ticket was given for.
    pub desktops_assigned: Counter,
    /// Answers of the manager that were turned into an error, by reason.
    pub desktops_refused: Labelled,
    /// Requests for the manager, by what became of them.
    pub manager_requests: Labelled,
    registry: Registry,
    started: SystemTime,
    up_since: Instant,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix(PREFIX);
        let connections = Labelled::new("leg", &["tls", "plain"]);
        let tls_failures = Labelled::new("reason", &["failed", "timeout"]);
        let websockets_refused = Labelled::new(
            "reason",
            &[
                "token",
                "too many wrong tokens",
                "handshake",
                "origin",
                "draining",
                "too many sessions",
                "too many channels",
            ],
        );
        let host_failures = Labelled::new(
            "reason",
            &["timeout", "unreachable", "not allowed", "resources"],
        );
        let desktops_refused =
            Labelled::new("reason", &["draining", "answer", "port", "host", "tickets"]);
        let manager_requests = Labelled::new(
            "result",
            &[
                "answered",
                "timeout",
                "client stalled",
                "unreachable",
                "resources",
                "not configured",
            ],
        );
        for (family, name, help) in [
            (
                &connections,
                "connections_accepted",
                "Connections of clients that were accepted",
            ),
            (
                &tls_failures,
                "tls_handshake_failures",
                "TLS handshakes that failed",
            ),
            (
                &websockets_refused,
                "websockets_refused",
                "WebSockets that were refused before a host was asked",
            ),
            (
                &host_failures,
                "host_connect_failures",
                "Connects to hosts that failed",
            ),
            (
                &desktops_refused,
                "desktops_refused",
                "Desktops that no ticket was given for",
            ),
            (
                &manager_requests,
                "manager_requests",
                "Requests for the manager",
            ),
        ] {
            registry.register(name, help, family.family.clone());
        }
        let mut entered = Entered(&mut registry);
        Self {
            connections_refused: entered.add(
                "connections_refused",
                "Connections of clients that were closed at once because of a limit",
                Counter::default(),
            ),
            tls_handshake: entered.add(
                "tls_handshake_seconds",
                "Times of TLS handshakes that succeeded",
                Histogram::new(SECONDS),
            ),
            host_connect: entered.add(
                "host_connect_seconds",
                "Times of connects to hosts that succeeded",
                Histogram::new(SECONDS),
            ),
            desktops_assigned: entered.add(
                "desktops_assigned",
                "Desktops that a ticket was given for",
                Counter::default(),
            ),
            connections,
            tls_failures,
            websockets_refused,
            host_failures,
            desktops_refused,
            manager_requests,
            registry,
            started: SystemTime::now(),
            up_since: Instant::now(),
        }
    }
}

/// Puts metrics into the list of those that are read, and hands them out.
struct Entered<'a>(&'a mut Registry);

impl Entered<'_> {
    fn add<M: Metric + Clone>(&mut self, name: &str, help: &str, metric: M) -> M {
        self.0.register(name, help, metric.clone());
        metric
    }
}

impl Metrics {
    /// When the process began.
    pub fn started(&self) -> SystemTime {
        self.started
    }

    /// How long the process has been running.
    pub fn uptime(&self) -> Duration {
        self.up_since.elapsed()
    }

    /// Everything in Prometheus' text format, with what only holds now.
    pub fn encode(&self, now: Now) -> Result<String, fmt::Error> {
        let mut text = String::new();
        prometheus_text::encode(&mut text, &self.registry)?;
        let mut of_now = Registry::default();
        of_now.register_collector(Box::new(now));
        prometheus_text::encode(&mut text, &of_now)?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_is_read() {
        let metrics = Metrics::default();
        metrics.websockets_refused.count("token");
        metrics.websockets_refused.count("token");
        metrics.host_connect.observe(0.003);
        metrics.desktops_assigned.inc();
        let text = metrics.encode(Now::default()).unwrap();
        for line in [
            r#"flexvdi_gateway_websockets_refused_total{reason="token"} 2"#,
            "flexvdi_gateway_desktops_assigned_total 1",
            r#"flexvdi_gateway_host_connect_seconds_bucket{le="0.0025"} 0"#,
            r#"flexvdi_gateway_host_connect_seconds_bucket{le="0.005"} 1"#,
            "flexvdi_gateway_host_connect_seconds_count 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
    }
}
