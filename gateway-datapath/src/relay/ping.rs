//! When a client is pinged, and when it has been silent for too long.

use std::time::Duration;

use tokio::time::Instant;

/// Intervals of Pings after which a client from which nothing came is given up.
const SILENT_INTERVALS: u32 = 3;

/// The Pings of one client, and whether it is still heard of.
pub(super) struct Ping {
    interval: Duration,
    next: Instant,
    heard: bool,
    silent: u32,
}

/// What is to be done when the timer fires.
pub(super) enum Due {
    /// The next Ping.
    Ping,
    /// The client has been silent for too long.
    GivingUp,
}

impl Ping {
    pub(super) fn new(interval: Duration) -> Self {
        Self {
            interval,
            next: Instant::now() + interval,
            heard: false,
            silent: 0,
        }
    }

    pub(super) fn deadline(&self) -> Instant {
        self.next
    }

    /// Something came from the client.
    pub(super) fn on_heard(&mut self) {
        self.heard = true;
    }

    /// What is due now. Of a client that is not read nothing can be heard.
    pub(super) fn on_timer(&mut self, now: Instant, is_read: bool) -> Option<Due> {
        if now < self.next {
            return None;
        }
        self.next = now + self.interval;
        self.silent = if self.heard || !is_read {
            0
        } else {
            self.silent + 1
        };
        self.heard = false;
        Some(if self.silent >= SILENT_INTERVALS {
            Due::GivingUp
        } else {
            Due::Ping
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_is_read_and_silent_is_given_up_after_some_intervals() {
        const INTERVAL: Duration = Duration::from_secs(1);
        let mut ping = Ping::new(INTERVAL);
        let tell = |ping: &mut Ping, is_read| {
            let now = ping.deadline();
            assert!(ping.on_timer(now - INTERVAL / 2, is_read).is_none());
            matches!(ping.on_timer(now, is_read), Some(Due::GivingUp))
        };
        for _ in 0..2 * SILENT_INTERVALS {
            ping.on_heard();
            assert!(!tell(&mut ping, true));
        }
        for _ in 0..2 * SILENT_INTERVALS {
            assert!(!tell(&mut ping, false));
        }
        for _ in 1..SILENT_INTERVALS {
            assert!(!tell(&mut ping, true));
        }
        assert!(tell(&mut ping, true));
    }
}
