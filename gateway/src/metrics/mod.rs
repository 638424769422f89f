//! What is counted for monitoring, and how Prometheus reads it.
//!
//! Channels count in atomics of their own, which their registry adds up when somebody asks; here is counted what happens once for a connection, a request or a desktop
//! session.

mod handshakes;
mod labels;
mod process;
mod times;

use std::fmt;
use std::marker::PhantomData;
use std::time::{Duration, Instant, SystemTime};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::prometheus_text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Registry};

pub use handshakes::{Group, Handshakes, TlsVersion};
pub use labels::{
    AcmeResult, Carried, ChannelRefusal, ConnectionRefusal, DesktopRefusal, HandshakeFailure,
    HostFailure, Leg, LoginResult, ManagerResult, PortalResult,
};

pub use process::{open_files, open_files_limit};
pub use times::ChannelTimes;

use gateway_datapath::label::Label;

/// `Content-Type` of [`Metrics::encode`].
pub const CONTENT_TYPE: &str = prometheus_text::CONTENT_TYPE;

/// What every name of a metric of the gateway's own begins with.
pub(crate) const PREFIX: &str = "flexvdi_gateway";

/// Upper bounds of the buckets of times, in seconds: from a connect inside a rack to the longest
/// time that the gateway waits by default.
const SECONDS: [f64; 14] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// One label: its name, and one of its values.
type OneLabel = [(&'static str, &'static str); 1];

/// A counter for each value of one label.
#[derive(Debug)]
pub struct Labelled<L> {
    name: &'static str,
    family: Family<OneLabel, Counter>,
    values: PhantomData<L>,
}

impl<L: Label> Labelled<L> {
    fn new(name: &'static str) -> Self {
        let family = Family::<OneLabel, Counter>::default();
        for value in L::ALL {
            drop(family.get_or_create(&[(name, value.text())]));
        }
        Self {
            name,
            family,
            values: PhantomData,
        }
    }

    /// Counts one more with this value of the label.
    pub fn count(&self, value: L) {
        let label = [(self.name, value.text())];
        self.family.get_or_create(&label).inc();
    }
}

/// Everything that is counted as it happens.
pub struct Metrics {
    /// Connections that were accepted, by leg.
    pub connections: Labelled<Leg>,
    /// Connections that were closed before a TLS handshake or a request, by reason.
    pub connections_refused: Labelled<ConnectionRefusal>,
    /// Times of TLS handshakes that succeeded.
    pub tls_handshake: Histogram,
    /// The same by what they have agreed on.
    pub tls_handshakes: Handshakes,
    /// TLS handshakes that did not, by reason.
    pub tls_failures: Labelled<HandshakeFailure>,
    /// WebSockets and tunnels that were refused, by reason.
    pub channels_refused: Labelled<ChannelRefusal>,
    /// Times of connects to hosts that succeeded, names' resolution included.
    pub host_connect: Histogram,
    /// Connects to hosts that did not, by reason.
    pub host_failures: Labelled<HostFailure>,
    /// Desktop sessions that a ticket was given for.
    pub desktops_assigned: Counter,
    /// Answers of the manager that were turned into an error, by reason.
    pub desktops_refused: Labelled<DesktopRefusal>,
    /// Requests for the manager, by what became of them.
    pub manager_requests: Labelled<ManagerResult>,
    /// Questions to the portal, by what became of them.
    pub portal_requests: Labelled<PortalResult>,
    /// Logins to desktops of the file, by what became of them.
    pub logins: Labelled<LoginResult>,
    /// Attempts to get a certificate from the authority of `Acme`, by what became of them.
    pub acme_attempts: Labelled<AcmeResult>,
    /// Times of open channels, observed at a scrape.
    pub channel_times: ChannelTimes,
    registry: Registry,
    started: SystemTime,
    up_since: Instant,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix(PREFIX);
        let mut entered = Entered(&mut registry);
        Self {
            connections: entered.add_labelled(
                "connections_accepted",
                "Connections of clients that were accepted",
                "leg",
            ),
            connections_refused: entered.add_labelled(
                "connections_refused",
                "Connections of clients that were closed before a TLS handshake or a request",
                "reason",
            ),
            tls_failures: entered.add_labelled(
                "tls_handshake_failures",
                "TLS handshakes that failed",
                "reason",
            ),
            channels_refused: entered.add_labelled(
                "channels_refused",
                "WebSockets and tunnels that were refused before a host was asked",
                "reason",
            ),
            host_failures: entered.add_labelled(
                "host_connect_failures",
                "Connects to hosts that failed",
                "reason",
            ),
            desktops_refused: entered.add_labelled(
                "desktops_refused",
                "Desktops that no ticket was given for",
                "reason",
            ),
            manager_requests: entered.add_labelled(
                "manager_requests",
                "Requests for the manager",
                "result",
            ),
            portal_requests: entered.add_labelled(
                "portal_requests",
                "Questions to the portal what a token stands for",
                "result",
            ),
            logins: entered.add_labelled("logins", "Logins to desktops of the file", "result"),
            acme_attempts: entered.add_labelled(
                "acme_attempts",
                "Attempts to get a certificate from the authority of Acme",
                "result",
            ),
            tls_handshakes: Handshakes::new(&mut entered),
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
            channel_times: ChannelTimes::new(&mut entered),
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

    fn add_labelled<L: Label>(
        &mut self,
        name: &str,
        help: &str,
        label: &'static str,
    ) -> Labelled<L> {
        let labelled = Labelled::new(label);
        self.0.register(name, help, labelled.family.clone());
        labelled
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
    pub fn encode(&self, now: impl Collector) -> Result<String, fmt::Error> {
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
    use prometheus_client::encoding::DescriptorEncoder;

    use super::*;

    #[derive(Debug)]
    struct Nothing;

    impl Collector for Nothing {
        fn encode(&self, _: DescriptorEncoder<'_>) -> fmt::Result {
            Ok(())
        }
    }

    #[test]
    fn what_was_counted_is_read() {
        let metrics = Metrics::default();
        metrics.channels_refused.count(ChannelRefusal::Token);
        metrics.channels_refused.count(ChannelRefusal::Token);
        metrics.host_connect.observe(0.003);
        metrics.desktops_assigned.inc();
        let text = metrics.encode(Nothing).unwrap();
        for line in [
            r#"flexvdi_gateway_channels_refused_total{reason="token"} 2"#,
            "flexvdi_gateway_desktops_assigned_total 1",
            r#"flexvdi_gateway_host_connect_seconds_bucket{le="0.0025"} 0"#,
            r#"flexvdi_gateway_host_connect_seconds_bucket{le="0.005"} 1"#,
            "flexvdi_gateway_host_connect_seconds_count 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
    }
}
