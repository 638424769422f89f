//! How fast bytes have moved lately: a sample every few seconds, for as long as the page shows.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::channel::{Registry, Session};
use crate::session::SessionId;

/// Time between two samples.
pub(super) const INTERVAL: Duration = Duration::from_secs(2);
/// Samples that are kept: two minutes.
const KEPT: usize = 60;

/// Bytes per second, up and down.
pub(super) type Rates = (f64, f64);

/// Rates of the whole gateway and of every open desktop session.
#[derive(Default)]
pub(super) struct History(Mutex<Samples>);

#[derive(Default)]
struct Samples {
    taken: Option<Instant>,
    all: Track,
    sessions: HashMap<SessionId, Track>,
}

/// Counts and rates of one thing.
#[derive(Default)]
struct Track {
    seen: Option<(u64, u64)>,
    rates: VecDeque<Rates>,
}

impl Track {
    #[expect(clippy::cast_precision_loss, reason = "rates need no more digits")]
    fn add(&mut self, counts: (u64, u64), seconds: f64) {
        if let Some((up, down)) = self.seen.replace(counts)
            && seconds > 0.0
        {
            if self.rates.len() == KEPT {
                self.rates.pop_front();
            }
            // Channels that ended take their counts away from a session.
            let rate = |now: u64, then: u64| now.saturating_sub(then) as f64 / seconds;
            self.rates
                .push_back((rate(counts.0, up), rate(counts.1, down)));
        }
    }
}

impl History {
    /// Takes samples for ever.
    pub(super) async fn record(&self, channels: &Registry) -> Infallible {
        let mut ticks = tokio::time::interval(INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.sample(channels, Instant::now());
        }
    }

    fn sample(&self, channels: &Registry, now: Instant) {
        let sessions = channels.sessions();
        let totals = channels.totals();
        let mut samples = self.lock();
        let seconds = samples.taken.replace(now).map_or(0.0, |then| {
            now.saturating_duration_since(then).as_secs_f64()
        });
        let all = totals.channels.values().fold((0, 0), |(up, down), tally| {
            (up + tally.uplink, down + tally.downlink)
        });
        samples.all.add(all, seconds);
        let mut earlier = std::mem::take(&mut samples.sessions);
        for session in &sessions {
            let mut track = earlier.remove(&session.id).unwrap_or_default();
            track.add(counts(session), seconds);
            samples.sessions.insert(session.id, track);
        }
    }

    /// Rates of the whole gateway, oldest first.
    pub(super) fn of_all(&self) -> Vec<Rates> {
        self.lock().all.rates.iter().copied().collect()
    }

    /// Rates of a session, oldest first.
    pub(super) fn of_session(&self, session: SessionId) -> Vec<Rates> {
        let samples = self.lock();
        let track = samples.sessions.get(&session);
        track.map_or_else(Vec::new, |track| track.rates.iter().copied().collect())
    }

    /// The newest rates of a session.
    pub(super) fn latest(&self, session: SessionId) -> Rates {
        let samples = self.lock();
        let track = samples.sessions.get(&session);
        track
            .and_then(|track| track.rates.back().copied())
            .unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, Samples> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn counts(session: &Session) -> (u64, u64) {
    session.channels.iter().fold((0, 0), |(up, down), entry| {
        let counters = &entry.channel.counters;
        (up + counters.uplink(), down + counters.downlink())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_differences_over_time() {
        let mut track = Track::default();
        track.add((100, 1_000), 0.0);
        track.add((300, 5_000), 2.0);
        // Some channels ended.
        track.add((200, 6_000), 2.0);
        assert_eq!(track.rates, [(100.0, 2_000.0), (0.0, 500.0)]);
        for _ in 0..2 * KEPT {
            track.add((0, 0), 2.0);
        }
        assert_eq!(track.rates.len(), KEPT);
    }

    #[test]
    fn sessions_that_ended_are_forgotten() {
        let history = History::default();
        let ended = SessionId::next();
        history.lock().sessions.insert(ended, Track::default());
        history.sample(&Registry::default(), Instant::now());
        assert!(history.lock().sessions.is_empty());
    }
}
