//! Tokens that were refused a short time ago: who sends the same one again and again has no
//! signature checked again.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, PoisonError};

/// Tokens that are remembered, the latest: who sends others is stopped by `BadTokenLimit`.
const REMEMBERED: usize = 1_024;

#[derive(Default)]
pub(super) struct Refused {
    /// Of tokens, which are not kept themselves.
    hashes: RandomState,
    latest: Mutex<VecDeque<u64>>,
}

impl Refused {
    pub(super) fn contains(&self, token: &str) -> bool {
        let hash = self.hashes.hash_one(token);
        let latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        latest.contains(&hash)
    }

    pub(super) fn note(&self, token: &str) {
        let hash = self.hashes.hash_one(token);
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        if latest.len() >= REMEMBERED {
            latest.pop_front();
        }
        latest.push_back(hash);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_are_remembered() {
        let refused = Refused::default();
        for number in 0..=REMEMBERED {
            refused.note(&number.to_string());
        }
        assert!(!refused.contains("0"));
        assert!(refused.contains("1"));
        assert_eq!(refused.latest.lock().unwrap().len(), REMEMBERED);
    }
}
