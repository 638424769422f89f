//! Tokens that the portal did not know a short time ago, or said nothing about: who sends the same
//! one again and again does not make the gateway ask again and again.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long the portal is not asked again. A person who is given a token a moment later need not
/// wait for long.
pub(super) const KEPT: Duration = Duration::from_secs(5);
/// Tokens that are remembered, the latest.
const REMEMBERED: usize = 1_024;

/// Hashes of tokens, which are not kept themselves, oldest first.
#[derive(Default)]
pub(super) struct Unknown(Mutex<VecDeque<(u64, Instant)>>);

impl Unknown {
    pub(super) fn contains(&self, hash: u64, now: Instant) -> bool {
        let latest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_it = |(known, at): &(u64, Instant)| {
            *known == hash && now.saturating_duration_since(*at) < KEPT
        };
        latest.iter().any(is_it)
    }

    pub(super) fn note(&self, hash: u64, now: Instant) {
        let mut latest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if latest.len() >= REMEMBERED {
            latest.pop_front();
        }
        latest.push_back((hash, now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_are_remembered_for_a_short_time() {
        let unknown = Unknown::default();
        let now = Instant::now();
        for hash in 0..=REMEMBERED as u64 {
            unknown.note(hash, now);
        }
        assert!(!unknown.contains(0, now));
        assert!(unknown.contains(1, now));
        assert!(!unknown.contains(1, now + KEPT));
        assert_eq!(unknown.0.lock().unwrap().len(), REMEMBERED);
    }
}
