//! How a TCP connection of a channel fares: what the kernel tells of it (`struct tcp_info` of
//! include/uapi/linux/tcp.h), looked at only when somebody asks.

use std::ops::Add;
use std::time::Duration;

use super::tcp_info::TcpInfo;

/// A TCP connection, as the kernel sees it at this end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpStats {
    /// Smoothed round-trip time (RFC 6298), the wait in the network's queues included.
    pub rtt: Duration,
    /// The shortest round trip of the last minutes (`net.ipv4.tcp_min_rtt_wlen`): that of empty
    /// queues. Never more than `rtt`.
    pub min_rtt: Duration,
    /// How long ago bytes were last sent: at least as old is `rtt`.
    pub idle: Duration,
    /// Bytes per second that reached the peer lately. With [`TcpStats::is_app_limited`] it may be
    /// able to take more.
    pub delivery_rate: u64,
    /// There was less to send than could have been.
    pub is_app_limited: bool,
    /// Bytes that were written and have not been sent once.
    pub unsent: u64,
    /// The peer answers nothing or takes nothing: a segment was sent again because its timer ran
    /// out, a question to a silent peer was asked again, or the peer's window is closed and stayed
    /// so when it was asked about.
    pub is_stalled: bool,
    /// What was sent since the connection began.
    pub sent: Sent,
    /// Bytes per second of a full congestion window in each round trip.
    window_rate: u64,
}

/// What was sent on TCP connections since they began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Bytes, those included that were sent again.
    pub bytes: u64,
    /// Bytes that were sent again.
    pub retransmitted_bytes: u64,
    /// Segments that were sent again.
    pub retransmitted_segments: u64,
}

impl TcpStats {
    /// Bytes per second at which what waits will leave.
    ///
    /// The rate that was seen, unless too little was sent to see it: then what the congestion
    /// window allows, for a single small message says nothing of the line.
    pub fn rate(&self) -> u64 {
        if self.is_app_limited {
            self.delivery_rate.max(self.window_rate)
        } else {
            self.delivery_rate
        }
    }

    /// How long it takes until so many bytes have left. No time for no bytes.
    pub fn time_for(&self, bytes: u64) -> Duration {
        // Without a rate nothing was ever sent: the first bytes leave at once.
        let micros = (u128::from(bytes) * 1_000_000)
            .checked_div(self.rate().into())
            .unwrap_or(0);
        Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
    }
}

impl From<TcpInfo> for TcpStats {
    fn from(info: TcpInfo) -> Self {
        let rtt = Duration::from_micros(info.rtt.into());
        let min_rtt = match info.min_rtt {
            // Not known yet.
            0 | u32::MAX => rtt,
            micros => Duration::from_micros(micros.into()).min(rtt),
        };
        let window = u64::from(info.snd_cwnd) * u64::from(info.snd_mss);
        Self {
            rtt,
            min_rtt,
            idle: Duration::from_millis(info.last_data_sent.into()),
            delivery_rate: info.delivery_rate,
            is_app_limited: info.is_app_limited(),
            unsent: info.notsent_bytes.into(),
            is_stalled: info.retransmits > 0 || info.probes > 1 || has_closed_window(&info),
            sent: Sent {
                bytes: info.bytes_sent,
                retransmitted_bytes: info.bytes_retrans,
                retransmitted_segments: info.total_retrans.into(),
            },
            window_rate: (window * 1_000_000)
                .checked_div(info.rtt.into())
                .unwrap_or(0),
        }
    }
}

/// Answers to questions about a window are no sign of life: what counts of them is the timer, which
/// is doubled until the window opens (`tcp_send_probe0`, `tcp_ack_probe`).
fn has_closed_window(info: &TcpInfo) -> bool {
    info.backoff > 0 && info.unacked == 0 && info.notsent_bytes > 0
}

impl Sent {
    /// The larger of each number. A connection only adds to its own, so this is the later one.
    #[must_use]
    pub(super) fn max(self, other: Self) -> Self {
        Self {
            bytes: self.bytes.max(other.bytes),
            retransmitted_bytes: self.retransmitted_bytes.max(other.retransmitted_bytes),
            retransmitted_segments: self
                .retransmitted_segments
                .max(other.retransmitted_segments),
        }
    }
}

impl Add for Sent {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            bytes: self.bytes + other.bytes,
            retransmitted_bytes: self.retransmitted_bytes + other.retransmitted_bytes,
            retransmitted_segments: self.retransmitted_segments + other.retransmitted_segments,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsRawFd;
    use std::time::Instant;

    use super::*;
    use crate::tcp_info;

    /// What is known of a connection that may send 10 segments of 1,000 bytes in each 100 ms, but
    /// for `change`.
    fn stats(change: impl FnOnce(&mut TcpInfo)) -> TcpStats {
        let mut info = TcpInfo::default();
        info.rtt = 100_000;
        info.min_rtt = 80_000;
        info.snd_mss = 1_000;
        info.snd_cwnd = 10;
        info.delivery_rate = 20_000;
        change(&mut info);
        info.into()
    }

    #[test]
    fn what_waits_leaves_at_the_rate_that_was_seen() {
        let stats = stats(|_| ());
        assert_eq!(stats.time_for(0), Duration::ZERO);
        assert_eq!(stats.time_for(10_000), Duration::from_millis(500));
    }

    #[test]
    fn a_rate_for_which_too_little_was_sent_is_that_of_the_window() {
        let few = stats(TcpInfo::limit_by_application);
        assert_eq!(few.rate(), 100_000);
        assert_eq!(few.time_for(10_000), Duration::from_millis(100));
        let fast = stats(|info| {
            info.limit_by_application();
            info.delivery_rate = 1_000_000;
        });
        assert_eq!(fast.rate(), 1_000_000);
    }

    #[test]
    fn a_connection_without_a_round_trip_yet_has_no_times() {
        let fresh = stats(|info| {
            info.rtt = 0;
            info.min_rtt = u32::MAX;
            info.delivery_rate = 0;
        });
        assert_eq!((fresh.rtt, fresh.min_rtt), Default::default());
        assert_eq!(fresh.time_for(1_000), Duration::ZERO);
    }

    #[test]
    fn the_shortest_round_trip_is_no_longer_than_the_usual_one() {
        let lucky = stats(|info| info.rtt = 70_000);
        assert_eq!(lucky.min_rtt, lucky.rtt);
    }

    #[test]
    fn who_does_not_answer_or_take_anything_stands_still() {
        assert!(!stats(|_| ()).is_stalled);
        assert!(stats(|info| info.retransmits = 1).is_stalled);
        // The first question of those that keep a connection alive is under way.
        assert!(!stats(|info| info.probes = 1).is_stalled);
        assert!(stats(|info| info.probes = 2).is_stalled);
        let closed = |info: &mut TcpInfo| (info.backoff, info.notsent_bytes) = (1, 1_000);
        assert!(stats(closed).is_stalled);
        let answers = stats(|info| {
            closed(info);
            info.unacked = 1;
        });
        assert!(!answers.is_stalled);
    }

    #[test]
    fn a_peer_that_reads_nothing_stands_still_though_its_system_answers() {
        const PATIENCE: Duration = Duration::from_secs(20);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let _far = listener.accept().unwrap();
        near.set_nonblocking(true).unwrap();
        while near.write(&[0; 8_192]).is_ok() {}
        let begun = Instant::now();
        loop {
            let info = tcp_info::read_any(near.as_raw_fd()).unwrap();
            let is_answered = info.backoff > 1 && info.probes == 0;
            let stats = TcpStats::from(info);
            if is_answered {
                assert!(stats.is_stalled, "{stats:?}");
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "{stats:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
