//! Signed tickets that are good for one desktop session (`jti`) and have begun it.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::IssueError;
use super::state::LONGEST_LIFE;
use crate::signed::{TOKEN_ID, TokenId};
use gateway_datapath::encoded::Bytes;
use gateway_datapath::state_error::StateError;

/// As many are remembered: a bound on memory, as that on tickets.
pub(super) const MAX_USED: usize = 100_000;

/// Which have been used, until they have expired.
#[derive(Default)]
pub(super) struct UsedTokens(HashMap<TokenId, Used>);

struct Used {
    expires: Instant,
    /// The change with which it came, see [`Store`](super::store::Store).
    change: u64,
}

/// One of them written down.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct UsedState {
    id: Bytes,
    /// In how many milliseconds it expires.
    expires: u64,
}

impl UsedState {
    /// Whether it is one that a gateway writes down.
    pub(super) fn check(&self) -> Result<(), StateError> {
        StateError::unless(self.id.len() == TOKEN_ID, "signed ticket that was used")?;
        let life = Duration::from_millis(self.expires);
        StateError::unless(life <= LONGEST_LIFE, "life of a signed ticket")
    }
}

impl UsedTokens {
    /// Whether it has begun a desktop session already.
    pub(super) fn contains(&self, id: &TokenId, now: Instant) -> bool {
        self.0.get(id).is_some_and(|used| now < used.expires)
    }

    /// Remembers one; fails where there is no room, as it could be used again then.
    pub(super) fn insert(
        &mut self,
        id: TokenId,
        expires: Instant,
        change: u64,
        now: Instant,
    ) -> Result<(), IssueError> {
        if self.0.len() >= MAX_USED {
            self.sweep(now);
            if self.0.len() >= MAX_USED {
                return Err(IssueError::Full);
            }
        }
        self.0.insert(id, Used { expires, change });
        Ok(())
    }

    /// Forgets those that have expired.
    pub(super) fn sweep(&mut self, now: Instant) {
        self.0.retain(|_, used| now < used.expires);
    }

    /// Those that came with a later change.
    pub(super) fn state_since(&self, told: u64, now: Instant) -> Vec<UsedState> {
        let news = self.0.iter().filter(|(_, used)| used.change > told);
        let written = news.map(|(id, used)| {
            let left = used.expires.saturating_duration_since(now).as_millis();
            UsedState {
                id: Bytes::from(&id[..]),
                expires: u64::try_from(left).unwrap_or(u64::MAX),
            }
        });
        written.collect()
    }

    /// Remembers those that another process has written down.
    pub(super) fn take_over(&mut self, state: Vec<UsedState>, change: u64, now: Instant) {
        for used in state {
            if let Ok(id) = TokenId::try_from(&used.id[..]) {
                let expires = now + Duration::from_millis(used.expires);
                // There is room: that process had no more than there is room for.
                let _ = self.insert(id, expires, change, now);
            }
        }
    }
}
