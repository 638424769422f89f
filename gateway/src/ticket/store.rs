//! The tickets that are known, and room for more.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use tracing::debug;

use super::used::UsedTokens;
use super::{Digest, IssueError};
use crate::grant::Grant;
use crate::limits::Subscriber;
use crate::session::SessionId;
use gateway_datapath::encoded::Bytes;

/// Tickets that may be known at a time: a bound on memory, far above any real login rate.
pub(super) const MAX_TICKETS: usize = 100_000;
/// Tickets of one client address without an open channel. One more, and its oldest is forgotten:
/// as many people behind one address as that would have to log in before the first one of them
/// has connected.
pub(super) const MAX_WAITING: usize = 1_000;
/// How often expired tickets are swept out.
const SWEEP_INTERVAL: Duration = Duration::from_secs(10);

pub(super) struct Store {
    pub(super) unused: Duration,
    pub(super) reconnect: Duration,
    /// Changes so far that another process has to know of.
    pub(super) changes: u64,
    pub(super) key: TicketKey,
    pub(super) entries: HashMap<Digest, Entry>,
    /// Those without an open channel, of each owner, oldest first.
    pub(super) waiting: HashMap<Subscriber, BTreeMap<u64, Digest>>,
    /// Signed ones that were good once.
    pub(super) used: UsedTokens,
    /// Place of the next one that waits.
    pub(super) place: u64,
    /// The lives added up that were longer before, and until when a ticket can have them.
    pub(super) longer: Option<(Duration, Instant)>,
    pub(super) swept: Instant,
}

pub(super) struct Entry {
    pub(super) grant: Arc<Grant>,
    pub(super) session: SessionId,
    /// Who is counted for it; `None`: a proxy that does not tell whom it speaks for.
    pub(super) owner: Option<Subscriber>,
    /// Its place among those of its owner that wait.
    pub(super) place: u64,
    pub(super) open: usize,
    /// The last of the changes that another process has to know of.
    pub(super) change: u64,
    /// Counts only while no channel is open.
    pub(super) expires: Instant,
}

/// The key with its bytes, which a successor is told.
pub(super) struct TicketKey {
    pub(super) key: hmac::Key,
    pub(super) bytes: Bytes,
}

impl TicketKey {
    pub(super) fn new(bytes: Bytes) -> Self {
        Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, &bytes),
            bytes,
        }
    }

    pub(super) fn digest(&self, token: &str) -> Digest {
        let tag = hmac::sign(&self.key, token.as_bytes());
        let mut digest = [0; 32];
        digest.copy_from_slice(tag.as_ref());
        digest
    }
}

impl Entry {
    pub(super) fn is_expired(&self, now: Instant) -> bool {
        self.open == 0 && now >= self.expires
    }
}

impl Store {
    pub(super) fn sweep(&mut self, now: Instant) {
        if now.saturating_duration_since(self.swept) >= SWEEP_INTERVAL {
            let expired = self.entries.extract_if(|_, entry| entry.is_expired(now));
            for (_, entry) in expired {
                forget(&mut self.waiting, &entry);
            }
            self.used.sweep(now);
            self.swept = now;
        }
    }

    /// The longest life that a pool's ticket can have been given.
    pub(super) fn sealed_life(&self, now: Instant) -> Duration {
        let life = self.unused + self.reconnect;
        match self.longer {
            Some((before, until)) if now < until => life.max(before),
            _ => life,
        }
    }

    /// Enters a ticket without an open channel; where its owner has too many of them, the oldest
    /// is forgotten.
    pub(super) fn insert(&mut self, digest: Digest, entry: Entry) {
        self.enter(digest, entry);
        self.wait(digest);
    }

    /// Enters a ticket that does not wait.
    pub(super) fn enter(&mut self, digest: Digest, mut entry: Entry) {
        self.changes += 1;
        entry.change = self.changes;
        self.entries.insert(digest, entry);
    }

    /// One more channel has a ticket that is known.
    pub(super) fn open(&mut self, digest: &Digest) -> Option<&Entry> {
        self.stop_waiting(digest);
        let entry = self.entries.get_mut(digest)?;
        if entry.open == 0 {
            self.changes += 1;
            entry.change = self.changes;
        }
        entry.open += 1;
        Some(entry)
    }

    pub(super) fn remove(&mut self, digest: &Digest) {
        if let Some(entry) = self.entries.remove(digest) {
            forget(&mut self.waiting, &entry);
        }
    }

    /// The ticket has no open channel any more.
    pub(super) fn wait(&mut self, digest: Digest) {
        let Some(entry) = self.entries.get_mut(&digest) else {
            return;
        };
        let Some(owner) = entry.owner else {
            return;
        };
        self.place += 1;
        entry.place = self.place;
        let waiting = self.waiting.entry(owner).or_default();
        waiting.insert(entry.place, digest);
        if waiting.len() > MAX_WAITING
            && let Some((_, oldest)) = waiting.pop_first()
        {
            debug!(owner = %owner.address(), "too many tickets of one address: the oldest is forgotten");
            self.entries.remove(&oldest);
        }
    }

    pub(super) fn stop_waiting(&mut self, digest: &Digest) {
        if let Some(entry) = self.entries.get(digest) {
            forget(&mut self.waiting, entry);
        }
    }

    /// Room for one more ticket, where there is none at the expense of who has most.
    pub(super) fn make_room(&mut self) -> Result<(), IssueError> {
        if self.entries.len() < MAX_TICKETS {
            return Ok(());
        }
        let most = self.waiting.values().max_by_key(|waiting| waiting.len());
        let oldest = most.and_then(|waiting| waiting.values().next()).copied();
        self.remove(&oldest.ok_or(IssueError::Full)?);
        Ok(())
    }
}

/// The ticket does not wait any more, if it did.
fn forget(waiting: &mut HashMap<Subscriber, BTreeMap<u64, Digest>>, entry: &Entry) {
    if let Some(owner) = entry.owner
        && let Some(places) = waiting.get_mut(&owner)
    {
        places.remove(&entry.place);
        if places.is_empty() {
            waiting.remove(&owner);
        }
    }
}
