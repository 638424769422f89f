//! The limit on time without progress while a channel ends.

use std::time::Duration;

use tokio::time::Instant;

/// How often it is looked whether something has moved that nobody here has done: bytes that wait
/// in the sockets' buffers, megabytes perhaps, on their way to slow peers.
const LOOKS: u32 = 4;

/// What peers have taken of what they were sent, in bytes: the client, the host. `None`: not
/// known, or not to be counted.
pub(super) type Taken = [Option<u64>; 2];

/// A channel that is ending.
#[derive(Debug)]
pub(super) struct Ending {
    limit: Duration,
    /// When bytes last moved.
    progress_at: Instant,
    look_at: Instant,
    taken: Taken,
}

impl Ending {
    /// From `now` on bytes must move within each `limit`.
    pub(super) fn new(limit: Duration, now: Instant, taken: Taken) -> Self {
        Self {
            limit,
            progress_at: now,
            look_at: now + limit / LOOKS,
            taken,
        }
    }

    /// Bytes have moved.
    pub(super) fn touch(&mut self) {
        self.progress_at = Instant::now();
    }

    /// When [`Ending::on_timer`] wants to be called.
    pub(super) fn deadline(&self) -> Instant {
        self.look_at.min(self.progress_at + self.limit)
    }

    /// Whether the time for ending is over.
    pub(super) fn on_timer(&mut self, now: Instant, taken: impl FnOnce() -> Taken) -> bool {
        if now < self.deadline() {
            return false;
        }
        let taken = taken();
        if taken != self.taken {
            self.taken = taken;
            self.progress_at = now;
        }
        self.look_at = now + self.limit / LOOKS;
        now >= self.progress_at + self.limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(4);

    /// Calls it whenever it wants, until the time is over; says when that was.
    async fn ended_after(taken: impl Fn(Duration) -> Taken) -> Duration {
        let begun = Instant::now();
        let mut ending = Ending::new(LIMIT, begun, taken(Duration::ZERO));
        loop {
            tokio::time::sleep_until(ending.deadline()).await;
            let now = Instant::now();
            if ending.on_timer(now, || taken(now - begun)) {
                return now - begun;
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn time_counts_from_the_last_byte_that_a_peer_took() {
        let second = Duration::from_secs(1);
        assert_eq!(ended_after(|_| [None, None]).await, LIMIT);
        assert_eq!(ended_after(|_| [Some(5), Some(9)]).await, LIMIT);
        for peer in [0, 1] {
            // A byte each three seconds, until half a minute is over.
            let slow = |elapsed: Duration| {
                let mut taken = [Some(7), None];
                taken[peer] = Some(elapsed.min(second * 30).as_secs() / 3);
                taken
            };
            let took = ended_after(slow).await;
            assert!(took >= second * 34 && took <= second * 35, "{took:?}");
        }
    }
}
