//! Tickets on their way to another process.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::store::{Entry, TicketKey};
use super::used::{self, UsedState};
use super::{DIGEST, Digest, KEY, MAX_ENTRIES, Tickets};
use crate::grant::{Grant, GrantState};
use crate::limits::Subscriber;
use crate::session::SessionId;
use gateway_datapath::encoded::Bytes;
use gateway_datapath::state_error::StateError;

/// Tickets written down: what is needed to recognise them, not the tickets themselves.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TicketsState {
    key: Bytes,
    pub(super) entries: Vec<EntryState>,
    /// Signed ones that can begin no further desktop session.
    pub(super) used: Vec<UsedState>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct EntryState {
    digest: Bytes,
    grant: GrantState,
    session: SessionId,
    /// Who is counted for it.
    owner: Option<IpAddr>,
    /// What is left of its life, in milliseconds; counts only while no channel is open.
    expires: u64,
    /// It has a channel, so it does not wait to be used.
    is_open: bool,
}

/// Longest life of a ticket that is taken over: more than the configuration can ask for.
pub(super) const LONGEST_LIFE: Duration = Duration::from_secs(2 * 366 * 86_400);

impl TicketsState {
    /// Whether it is one that [`Tickets::state`] makes.
    pub(crate) fn check(&self) -> Result<(), StateError> {
        let check = StateError::unless;
        check(self.key.len() == KEY, "key for tickets")?;
        check(self.entries.len() <= MAX_ENTRIES, "number of tickets")?;
        for entry in &self.entries {
            check(entry.digest.len() == DIGEST, "ticket")?;
            entry.grant.check()?;
            check(entry.session.is_sound(), "number of a desktop session")?;
            let life = Duration::from_millis(entry.expires);
            check(life <= LONGEST_LIFE, "life of a ticket")?;
        }
        check(self.used.len() <= used::MAX_USED, "number of used tickets")?;
        self.used.iter().try_for_each(UsedState::check)
    }
}

impl Tickets {
    /// Writes all tickets down. Those with open channels get the life that they have after the
    /// last one: the channels are moved on their own.
    pub fn state(&self, now: Instant) -> TicketsState {
        self.state_since(0, now)
    }

    /// Writes those tickets down that are affected by a later change than the first `told`. Who was
    /// told of those may have forgotten some of the tickets since, with good reason.
    pub fn state_since(&self, told: u64, now: Instant) -> TicketsState {
        let store = self.lock();
        // Those that have waited longest come first, and so are forgotten first by a successor too.
        let is_news = |(_, entry): &(&Digest, &Entry)| entry.change > told;
        let mut entries: Vec<_> = store.entries.iter().filter(is_news).collect();
        entries.sort_unstable_by_key(|(_, entry)| entry.place);
        let entries = entries.into_iter().map(|(digest, entry)| {
            let left = match entry.open {
                0 => entry.expires.saturating_duration_since(now),
                _ => store.reconnect,
            };
            EntryState {
                digest: Bytes::from(&digest[..]),
                grant: entry.grant.state(),
                session: entry.session,
                owner: entry.owner.map(Subscriber::address),
                expires: u64::try_from(left.as_millis()).unwrap_or(u64::MAX),
                is_open: entry.open > 0,
            }
        });
        TicketsState {
            key: store.key.bytes.clone(),
            entries: entries.collect(),
            used: store.used.state_since(told, now),
        }
    }

    /// Takes over tickets that were written down, and their key: tickets issued here before are
    /// worth nothing then. Of those that are known already it is only noted which have channels.
    pub fn take_over(&self, state: TicketsState, now: Instant) {
        let mut store = self.lock();
        if store.key.bytes != state.key {
            store.key = TicketKey::new(state.key);
            store.entries.clear();
            store.waiting.clear();
        }
        store.changes += 1;
        let change = store.changes;
        store.used.take_over(state.used, change, now);
        for known in state.entries {
            let digest = Digest::try_from(&known.digest[..]);
            let (Ok(digest), Ok(grant)) = (digest, Grant::try_from(known.grant)) else {
                continue;
            };
            let expires = now + Duration::from_millis(known.expires);
            if let Some(entry) = store.entries.get_mut(&digest) {
                if known.is_open && entry.open == 0 {
                    entry.expires = entry.expires.max(expires);
                    store.stop_waiting(&digest);
                }
                continue;
            }
            let entry = Entry {
                grant: Arc::new(grant),
                session: known.session,
                owner: known.owner.map(Subscriber::from),
                place: 0,
                open: 0,
                change: 0,
                expires,
            };
            if known.is_open {
                // Its channel comes, or ends where it is.
                store.enter(digest, entry);
            } else {
                store.insert(digest, entry);
            }
        }
    }
}
