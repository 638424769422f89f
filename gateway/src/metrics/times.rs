//! Times that people at desktops feel, by what channels carry.

use std::time::Duration;

use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;

use super::{Carried, Entered, SECONDS};

/// Upper bounds of the buckets, in seconds: from a network in a house to a satellite's, close to
/// each other where people begin to feel the difference.
const FELT: [f64; 14] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0,
];

/// By data path and type.
type ByCarried = Family<[(&'static str, &'static str); 2], Histogram>;

/// Times of open channels, observed when somebody reads the metrics.
#[derive(Debug)]
pub struct ChannelTimes {
    client_rtt: ByCarried,
    queue_delay: ByCarried,
    host_rtt: Histogram,
}

impl ChannelTimes {
    pub(super) fn new(entered: &mut Entered<'_>) -> Self {
        let by_carried = || ByCarried::new_with_constructor(|| Histogram::new(FELT));
        Self {
            client_rtt: entered.add(
                "client_rtt_seconds",
                "Round-trip times between gateway and client of channels that have sent something \
                 since the scrape before",
                by_carried(),
            ),
            queue_delay: entered.add(
                "client_queue_delay_seconds",
                "How long what came from the host will wait for its client in the gateway, of \
                 channels that have sent something since the scrape before",
                by_carried(),
            ),
            host_rtt: entered.add(
                "host_rtt_seconds",
                "Round-trip times between gateway and host of channels that have sent something \
                 to their client since the scrape before",
                Histogram::new(SECONDS),
            ),
        }
    }

    /// Observes one channel: the round trip to its client, how long what waits for the client will
    /// wait, the round trip to its host, if that is a TCP connection.
    pub fn observe(
        &self,
        carried: Carried,
        client_rtt: Duration,
        queue_delay: Duration,
        host_rtt: Option<Duration>,
    ) {
        let labels = [("path", carried.path), ("type", carried.kind)];
        let observe = |family: &ByCarried, time: Duration| {
            family.get_or_create(&labels).observe(time.as_secs_f64());
        };
        observe(&self.client_rtt, client_rtt);
        observe(&self.queue_delay, queue_delay);
        if let Some(host_rtt) = host_rtt {
            self.host_rtt.observe(host_rtt.as_secs_f64());
        }
    }
}
