//! What a line does to the packets of one direction.

use std::time::Duration;

/// How good a line is in one direction. The default is a perfect one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quality {
    /// How long a packet is on the way, besides waiting and being sent.
    pub delay: Duration,
    /// Up to how much longer, drawn anew every [`JITTER_PERIOD`]; packets stay in order, as where
    /// a radio cell serves others in between.
    pub jitter: Duration,
    /// How fast packets are sent, in bits per second; `None`: at once.
    pub rate: Option<u64>,
    /// How many bytes may wait for that; packets that find no room are lost.
    pub queue: u64,
    /// The share of packets that are lost, from 0 to 1.
    pub loss: f64,
    /// How many packets are lost in a row, on average; 1: each by itself (Gilbert's model). A pause
    /// of [`LONGEST_ROW`] ends a row.
    pub burst: f64,
    /// The share of packets that arrive twice, from 0 to 1.
    pub duplication: f64,
    /// The share of packets that are held up so that later ones overtake them, from 0 to 1.
    pub reordering: f64,
    /// Up to how long those are held up.
    pub hold: Duration,
}

/// How long the delay that jitter adds stays the same.
pub const JITTER_PERIOD: Duration = Duration::from_millis(20);
/// The pause after which a packet is lost or not whatever became of the one before.
pub const LONGEST_ROW: Duration = Duration::from_millis(100);
/// The least queue of a line with a rate, in bytes.
pub const LEAST_QUEUE: u64 = 65_536;

impl Default for Quality {
    fn default() -> Self {
        Self {
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            rate: None,
            queue: u64::MAX,
            loss: 0.0,
            burst: 1.0,
            duplication: 0.0,
            reordering: 0.0,
            hold: Duration::ZERO,
        }
    }
}

impl Quality {
    /// One direction of a line with this round-trip time and rate, in bits per second. As in usual
    /// routers, what is sent in one round trip, and at least [`LEAST_QUEUE`], may wait.
    pub fn new(round_trip: Duration, rate: u64) -> Self {
        let millis = u64::try_from(round_trip.as_millis()).unwrap_or(u64::MAX);
        let product = rate.saturating_mul(millis) / 8 / 1000;
        Self {
            delay: round_trip / 2,
            rate: Some(rate),
            queue: product.max(LEAST_QUEUE),
            ..Self::default()
        }
    }

    /// This share of packets is lost, `burst` of them in a row.
    #[must_use]
    pub fn losing(self, loss: f64, burst: f64) -> Self {
        Self {
            loss,
            burst,
            ..self
        }
    }

    /// The delay varies.
    #[must_use]
    pub fn varying(self, jitter: Duration) -> Self {
        Self { jitter, ..self }
    }

    /// This share of packets arrives twice.
    #[must_use]
    pub fn doubling(self, duplication: f64) -> Self {
        Self {
            duplication,
            ..self
        }
    }

    /// This share of packets is held up for so long at most.
    #[must_use]
    pub fn reordering(self, reordering: f64, hold: Duration) -> Self {
        Self {
            reordering,
            hold,
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_hold_a_round_trip_and_some_packets_at_least() {
        let long = Quality::new(Duration::from_millis(80), 10_000_000);
        assert_eq!((long.delay.as_millis(), long.queue), (40, 100_000));
        let short = Quality::new(Duration::from_millis(1), 1_000_000);
        assert_eq!(short.queue, LEAST_QUEUE);
    }
}
