//! How the connections of channels fare, as the status shows it: what people at desktops feel.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use gateway_datapath::Counters;

/// A round-trip time this old says nothing of the line as it is now.
const FRESH: Duration = Duration::from_secs(60);

/// The connections of a channel or, for a desktop session, of all its channels. Sizes in bytes,
/// times in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LegStatus {
    /// Smoothed round-trip time between gateway and client. Of a session: the longest of those
    /// channels that sent something in the last minute, else that of the last that did.
    pub client_rtt_ms: f64,
    /// The shortest one of the last minutes. What the other is above it, packets wait in the
    /// network. Of a session: the shortest.
    pub client_min_rtt_ms: f64,
    /// How long ago anything was sent to the client: so old is the round-trip time.
    pub idle_ms: u64,
    /// Bits per second that reached the client when that was last seen. Of a session: the fastest.
    pub delivery_bits_per_second: u64,
    /// There was less to send than could have been, so the line may be faster.
    pub app_limited: bool,
    /// Came from the host, and has not been sent to the client yet. Of a session: the sum.
    pub queued_bytes: u64,
    /// How long that will take. Of a session: the longest.
    pub queue_delay_ms: f64,
    /// The part of `queued_bytes` that waits in the client's socket. Of a session: the sum.
    pub unsent_bytes: u64,
    /// Sent to the client, and not acknowledged by it. Of a session: the sum.
    pub unacknowledged_bytes: u64,
    /// The client answers nothing at present. Of a session: on at least one channel.
    pub stalled: bool,
    /// Sent to the client since its connection began, repetitions included. Of a session: the sum.
    pub sent_bytes: u64,
    /// Sent again, as it was lost or seemed so. Of a session: the sum.
    pub retransmitted_bytes: u64,
    /// The same in segments of TCP.
    pub retransmitted_segments: u64,
    /// `retransmitted_bytes` of `sent_bytes`, from 0 to 1.
    pub retransmitted_share: f64,
    /// Smoothed round-trip time between gateway and host; 0 to a Unix socket. Of a session: the
    /// longest.
    pub host_rtt_ms: f64,
}

impl LegStatus {
    /// Of a channel; `None` before it moves, and on a kernel that reports too little.
    pub fn of(counters: &Counters) -> Option<Self> {
        let looked = counters.look()?;
        let client = looked.client?;
        let waiting = looked.downlink_waiting();
        let sent = client.sent;
        let unacknowledged = looked.queues.client_send.saturating_sub(client.unsent);
        Some(Self {
            client_rtt_ms: milliseconds(client.rtt),
            client_min_rtt_ms: milliseconds(client.min_rtt),
            idle_ms: u64::try_from(client.idle.as_millis()).unwrap_or(u64::MAX),
            delivery_bits_per_second: client.delivery_rate.saturating_mul(8),
            app_limited: client.is_app_limited,
            queued_bytes: waiting,
            queue_delay_ms: milliseconds(client.time_for(waiting)),
            unsent_bytes: client.unsent,
            unacknowledged_bytes: unacknowledged,
            stalled: client.is_stalled,
            sent_bytes: sent.bytes,
            retransmitted_bytes: sent.retransmitted_bytes,
            retransmitted_segments: sent.retransmitted_segments,
            retransmitted_share: share(sent.retransmitted_bytes, sent.bytes),
            host_rtt_ms: milliseconds(looked.host.map(|host| host.rtt).unwrap_or_default()),
        })
    }

    /// Of a desktop session with these channels; `None`: of no channel anything is known.
    pub fn of_session(channels: impl Iterator<Item = Self>) -> Option<Self> {
        channels.reduce(Self::with)
    }

    /// Of two channels together.
    fn with(self, other: Self) -> Self {
        let (newer, older) = if self.idle_ms <= other.idle_ms {
            (self, other)
        } else {
            (other, self)
        };
        let older_counts = u128::from(older.idle_ms) <= FRESH.as_millis();
        let faster = if self.delivery_bits_per_second >= other.delivery_bits_per_second {
            self
        } else {
            other
        };
        let sent_bytes = self.sent_bytes + other.sent_bytes;
        let retransmitted_bytes = self.retransmitted_bytes + other.retransmitted_bytes;
        Self {
            client_rtt_ms: if older_counts {
                newer.client_rtt_ms.max(older.client_rtt_ms)
            } else {
                newer.client_rtt_ms
            },
            client_min_rtt_ms: self.client_min_rtt_ms.min(other.client_min_rtt_ms),
            idle_ms: newer.idle_ms,
            delivery_bits_per_second: faster.delivery_bits_per_second,
            app_limited: faster.app_limited,
            queued_bytes: self.queued_bytes + other.queued_bytes,
            queue_delay_ms: self.queue_delay_ms.max(other.queue_delay_ms),
            unsent_bytes: self.unsent_bytes + other.unsent_bytes,
            unacknowledged_bytes: self.unacknowledged_bytes + other.unacknowledged_bytes,
            stalled: self.stalled || other.stalled,
            sent_bytes,
            retransmitted_bytes,
            retransmitted_segments: self.retransmitted_segments + other.retransmitted_segments,
            retransmitted_share: share(retransmitted_bytes, sent_bytes),
            host_rtt_ms: self.host_rtt_ms.max(other.host_rtt_ms),
        }
    }
}

/// With three digits behind the point: the kernel counts microseconds.
#[expect(clippy::cast_precision_loss, reason = "far below 2^53 microseconds")]
fn milliseconds(time: Duration) -> f64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX) as f64 / 1_000.0
}

/// 0 of nothing.
#[expect(clippy::cast_precision_loss, reason = "a share needs no more digits")]
fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        0.0
    } else {
        part as f64 / whole as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leg(idle_ms: u64, client_rtt_ms: f64) -> LegStatus {
        LegStatus {
            client_rtt_ms,
            client_min_rtt_ms: client_rtt_ms / 2.0,
            idle_ms,
            ..LegStatus::default()
        }
    }

    #[expect(clippy::float_cmp, reason = "numbers that were put in come out")]
    fn rtt_of(legs: &[LegStatus]) -> f64 {
        let session = LegStatus::of_session(legs.iter().copied()).unwrap();
        let shortest = legs.iter().map(|leg| leg.client_min_rtt_ms);
        assert_eq!(
            session.client_min_rtt_ms,
            shortest.reduce(f64::min).unwrap()
        );
        session.client_rtt_ms
    }

    #[test]
    #[expect(clippy::float_cmp, reason = "numbers that were put in come out")]
    fn a_session_has_the_longest_round_trip_that_is_still_true() {
        assert_eq!(rtt_of(&[leg(10, 80.0), leg(59_000, 120.0)]), 120.0);
        // Of yesterday, when the line was bad.
        let (now, old) = (leg(10, 80.0), leg(86_400_000, 900.0));
        assert_eq!(rtt_of(&[now, old]), 80.0);
        assert_eq!(rtt_of(&[old, now, old]), 80.0);
        // Better than nothing.
        assert_eq!(rtt_of(&[old, leg(90_000_000, 50.0)]), 900.0);
    }

    #[test]
    #[expect(clippy::float_cmp, reason = "numbers that were put in come out")]
    fn a_session_has_the_worst_and_the_sum_of_its_channels() {
        let lossy = LegStatus {
            sent_bytes: 1_000,
            retransmitted_bytes: 100,
            retransmitted_segments: 2,
            queued_bytes: 5_000,
            queue_delay_ms: 40.0,
            stalled: true,
            ..leg(0, 1.0)
        };
        let good = LegStatus {
            sent_bytes: 9_000,
            queued_bytes: 1_000,
            queue_delay_ms: 60.0,
            delivery_bits_per_second: 8_000,
            app_limited: true,
            ..leg(0, 1.0)
        };
        let session = LegStatus::of_session([lossy, good].into_iter()).unwrap();
        assert_eq!(session.retransmitted_share, 0.01);
        assert_eq!(session.retransmitted_segments, 2);
        assert_eq!(session.queued_bytes, 6_000);
        assert_eq!(session.queue_delay_ms, 60.0);
        assert!(session.stalled && session.app_limited);
        assert_eq!(LegStatus::of_session(std::iter::empty()), None);
    }
}
