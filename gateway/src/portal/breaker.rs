//! A portal that fails again and again is not asked for a while: its clients would only wait.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing::{info, warn};

/// Failures in a row after which it is not asked.
const FAILURES: u32 = 5;
/// How long it is not asked then; after that one question is tried at a time.
pub(super) const PAUSE: Duration = Duration::from_secs(10);

#[derive(Default)]
pub(super) struct Breaker(Mutex<State>);

#[derive(Default)]
struct State {
    failures: u32,
    /// Not before this time.
    paused: Option<Instant>,
}

impl Breaker {
    /// Whether a question may be asked now.
    pub(super) fn allows(&self, now: Instant) -> bool {
        let mut state = self.lock();
        match state.paused {
            None => true,
            Some(until) if now < until => false,
            // Others wait for what becomes of this one.
            Some(_) => {
                state.paused = Some(now + PAUSE);
                true
            }
        }
    }

    /// It has answered.
    pub(super) fn succeeded(&self) {
        let mut state = self.lock();
        state.failures = 0;
        if state.paused.take().is_some() {
            info!("the portal answers again");
        }
    }

    /// It has not.
    pub(super) fn failed(&self, now: Instant) {
        let mut state = self.lock();
        state.failures = state.failures.saturating_add(1);
        if state.failures < FAILURES {
            return;
        }
        if state.paused.replace(now + PAUSE).is_none() {
            warn!(
                failures = state.failures,
                seconds = PAUSE.as_secs(),
                "the portal fails: it is asked only once in a while until it answers"
            );
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_portal_that_fails_is_left_alone_and_tried_again() {
        let breaker = Breaker::default();
        let now = Instant::now();
        for _ in 1..FAILURES {
            breaker.failed(now);
            assert!(breaker.allows(now));
        }
        breaker.succeeded();
        for _ in 0..FAILURES {
            assert!(breaker.allows(now));
            breaker.failed(now);
        }
        assert!(!breaker.allows(now + PAUSE / 2));
        let later = now + PAUSE;
        assert!(breaker.allows(later));
        assert!(!breaker.allows(later), "one question at a time");
        breaker.failed(later);
        assert!(!breaker.allows(later + PAUSE / 2));
        assert!(breaker.allows(later + PAUSE));
        breaker.succeeded();
        assert!(breaker.allows(later + PAUSE));
        assert!(breaker.allows(later + PAUSE));
    }
}
