//! What is counted for monitoring, and how Prometheus reads it.
//!
//! Channels count in atomics of their own, which their registry adds up when somebody asks; here is
//! counted what happens once for a connection, a request or a desktop session.

mod counted;
mod handshakes;
mod process;
mod times;

use std::fmt;
use std::marker::PhantomData;
use std::time::{Duration, SystemTime};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::prometheus_text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::{Metric, Registry};

pub use counted::*;
pub use handshakes::{Group, Handshakes, TlsVersion};
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
    use crate::refusal::ChannelRefusal;

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
