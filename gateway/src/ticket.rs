//! Tickets: what clients get in place of a host's address and port.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwapOption;
use aws_lc_rs::hmac;
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use tracing::debug;

use crate::encoded::Bytes;
use crate::host::Host;
use crate::pool::{Contents, PoolKeys, SealError, session_number};
use crate::session::SessionId;

/// 96 random bits make 16 characters; old clients cut a token at 17.
const RANDOM_BYTES: usize = 12;
/// Tickets that may wait at a time: a bound on memory, far above any real login rate.
const MAX_TICKETS: usize = 100_000;
/// How often expired tickets are swept out.
const SWEEP_INTERVAL: Duration = Duration::from_secs(10);

/// Where a ticket leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The host.
    pub host: Host,
    /// The Spice port.
    pub port: u16,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host.for_uri(), self.port)
    }
}

/// Why no ticket can be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IssueError {
    /// Too many tickets wait to be used.
    #[error("too many tickets are waiting to be used")]
    Full,
    /// The system's random source failed.
    #[error("the system's random source failed")]
    Random,
    /// A ticket for the pool cannot be sealed.
    #[error(transparent)]
    Seal(#[from] SealError),
}

/// All tickets of this gateway, in memory; with keys of a pool, those that are in use here.
///
/// A pool's tickets hold what they stand for. Until they expire, which is as late as a ticket that
/// was used once may be used again, any gateway takes them; after that only those where a channel
/// of the session is open or was a short time ago.
///
/// Tickets are found by their HMAC under a key of this process, so that neither memory holds
/// them in clear nor the time of a look-up tells anything about them.
pub struct Tickets {
    pool: ArcSwapOption<PoolKeys>,
    store: Mutex<Store>,
}

type Digest = [u8; 32];

/// Tickets written down: what is needed to recognise them, not the tickets themselves.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TicketsState {
    key: Bytes,
    entries: Vec<EntryState>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct EntryState {
    digest: Bytes,
    host: String,
    port: u16,
    session: SessionId,
    /// What is left of its life, in milliseconds; counts only while no channel is open.
    expires: u64,
}

struct Store {
    unused: Duration,
    reconnect: Duration,
    /// Tickets that were issued so far.
    issued: u64,
    key: Key,
    entries: HashMap<Digest, Entry>,
    swept: Instant,
}

struct Entry {
    target: Target,
    session: SessionId,
    open: usize,
    /// Counts only while no channel is open.
    expires: Instant,
}

/// The key with its bytes, which a successor is told.
struct Key {
    key: hmac::Key,
    bytes: Bytes,
}

impl Key {
    fn new(bytes: Bytes) -> Self {
        Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, &bytes),
            bytes,
        }
    }

    fn digest(&self, token: &str) -> Digest {
        let tag = hmac::sign(&self.key, token.as_bytes());
        let mut digest = [0; 32];
        digest.copy_from_slice(tag.as_ref());
        digest
    }
}

impl Entry {
    fn is_expired(&self, now: Instant) -> bool {
        self.open == 0 && now >= self.expires
    }
}

impl Tickets {
    /// `unused`: life of a ticket that was never used; `reconnect`: its life after the last
    /// channel of its desktop session closed.
    pub fn new(unused: Duration, reconnect: Duration) -> Result<Self, IssueError> {
        let mut key = Bytes::from(&[0; 32][..]);
        SystemRandom::new()
            .fill(key.as_mut_vec())
            .map_err(|_| IssueError::Random)?;
        Ok(Self {
            pool: ArcSwapOption::empty(),
            store: Mutex::new(Store {
                unused,
                reconnect,
                issued: 0,
                key: Key::new(key),
                entries: HashMap::new(),
                swept: Instant::now(),
            }),
        })
    }

    /// Changes the lives that [`Tickets::new`] was given; what has begun to run out already does
    /// so as it was.
    pub fn set_lives(&self, unused: Duration, reconnect: Duration) {
        let mut store = self.lock();
        store.unused = unused;
        store.reconnect = reconnect;
    }

    /// Makes and takes the tickets of a pool.
    #[must_use]
    pub fn with_pool(self, keys: PoolKeys) -> Self {
        self.set_pool(Some(keys));
        self
    }

    /// Makes tickets with these keys from now on, or such as only this gateway knows; what is in
    /// use here stays good.
    pub fn set_pool(&self, keys: Option<PoolKeys>) {
        self.pool.store(keys.map(Arc::new));
    }

    /// Makes a ticket for a new desktop session.
    pub fn issue(&self, target: Target, now: Instant) -> Result<(String, SessionId), IssueError> {
        if let Some(keys) = &*self.pool.load() {
            let life = {
                let store = self.lock();
                store.unused + store.reconnect
            };
            let expires = SystemTime::now() + life;
            let ticket = keys.seal(&Contents { target, expires })?;
            let session = SessionId::of_pool(session_number(&ticket));
            return Ok((ticket, session));
        }
        let mut random = [0; RANDOM_BYTES];
        SystemRandom::new()
            .fill(&mut random)
            .map_err(|_| IssueError::Random)?;
        let ticket = URL_SAFE_NO_PAD.encode(random);
        let session = SessionId::next();
        let mut store = self.lock();
        store.sweep(now);
        if store.entries.len() >= MAX_TICKETS {
            return Err(IssueError::Full);
        }
        let entry = Entry {
            target,
            session,
            open: 0,
            expires: now + store.unused,
        };
        let digest = store.key.digest(&ticket);
        store.entries.insert(digest, entry);
        store.issued += 1;
        Ok((ticket, session))
    }

    /// Opens a channel with a ticket; `None`: it is unknown or has expired.
    pub fn redeem(self: &Arc<Self>, token: &str, now: Instant) -> Option<Lease> {
        let mut store = self.lock();
        let digest = store.key.digest(token);
        store.sweep(now);
        if store
            .entries
            .get(&digest)
            .is_none_or(|entry| entry.is_expired(now))
        {
            store.entries.remove(&digest);
            // Entered only as it is used: a ticket that was made elsewhere is not known before.
            store.entries.insert(digest, self.open_sealed(token, now)?);
        }
        let entry = store.entries.get_mut(&digest)?;
        entry.open += 1;
        Some(Lease {
            target: entry.target.clone(),
            session: entry.session,
            digest,
            tickets: Arc::clone(self),
        })
    }

    /// What a pool's ticket stands for; `None`: it is wrong or has expired.
    fn open_sealed(&self, token: &str, now: Instant) -> Option<Entry> {
        let keys = self.pool.load();
        let keys = keys.as_ref()?;
        let contents = match keys.open(token) {
            Ok(contents) => contents,
            Err(reason) => {
                debug!(%reason, "no ticket of this pool");
                return None;
            }
        };
        let clock = SystemTime::now();
        if contents.is_expired(clock) {
            let late = clock
                .duration_since(contents.expires)
                .unwrap_or_default()
                .as_secs();
            debug!(seconds = late, "ticket of this pool has expired");
            return None;
        }
        Some(Entry {
            target: contents.target,
            session: SessionId::of_pool(session_number(token)),
            open: 0,
            expires: now,
        })
    }

    /// How many tickets are in memory; some may have expired.
    pub fn count(&self) -> usize {
        self.lock().entries.len()
    }

    fn close(&self, digest: &Digest, now: Instant) {
        let mut store = self.lock();
        let reconnect = store.reconnect;
        if let Some(entry) = store.entries.get_mut(digest) {
            entry.open -= 1;
            entry.expires = now + reconnect;
        }
    }

    /// How many tickets were issued here so far.
    pub fn issued(&self) -> u64 {
        self.lock().issued
    }

    /// Writes all tickets down. Those with open channels get the life that they have after the
    /// last one: the channels are moved on their own.
    pub fn state(&self, now: Instant) -> TicketsState {
        let store = self.lock();
        let entries = store.entries.iter().map(|(digest, entry)| {
            let left = match entry.open {
                0 => entry.expires.saturating_duration_since(now),
                _ => store.reconnect,
            };
            EntryState {
                digest: Bytes::from(&digest[..]),
                host: entry.target.host.to_string(),
                port: entry.target.port,
                session: entry.session,
                expires: u64::try_from(left.as_millis()).unwrap_or(u64::MAX),
            }
        });
        TicketsState {
            key: store.key.bytes.clone(),
            entries: entries.collect(),
        }
    }

    /// Takes over tickets that were written down, and their key: tickets issued here before are
    /// worth nothing then. Tickets that are known already stay as they are.
    pub fn take_over(&self, state: TicketsState, now: Instant) {
        let mut store = self.lock();
        if store.key.bytes != state.key {
            store.key = Key::new(state.key);
            store.entries.clear();
        }
        for known in state.entries {
            let digest = Digest::try_from(&known.digest[..]);
            let (Ok(digest), Ok(host)) = (digest, known.host.parse()) else {
                continue;
            };
            store.entries.entry(digest).or_insert(Entry {
                target: Target {
                    host,
                    port: known.port,
                },
                session: known.session,
                open: 0,
                expires: now + Duration::from_millis(known.expires),
            });
        }
    }

    /// Holds the ticket of a channel that was moved here; `None`: it is not known.
    pub fn hold(self: &Arc<Self>, digest: &[u8]) -> Option<Lease> {
        let digest = Digest::try_from(digest).ok()?;
        let mut store = self.lock();
        let entry = store.entries.get_mut(&digest)?;
        entry.open += 1;
        Some(Lease {
            target: entry.target.clone(),
            session: entry.session,
            digest,
            tickets: Arc::clone(self),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Store> {
        // No code panics with the lock held; were it so, the map would still be whole.
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store {
    fn sweep(&mut self, now: Instant) {
        if now.saturating_duration_since(self.swept) >= SWEEP_INTERVAL {
            self.entries.retain(|_, entry| !entry.is_expired(now));
            self.swept = now;
        }
    }
}

/// One channel's hold on its ticket; ends when dropped.
pub struct Lease {
    /// Where the channel leads.
    pub target: Target,
    /// The desktop session that the channel belongs to.
    pub session: SessionId,
    digest: Digest,
    tickets: Arc<Tickets>,
}

impl Lease {
    /// What the ticket is recognised by.
    pub(crate) fn digest(&self) -> &[u8] {
        &self.digest
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.tickets.close(&self.digest, Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNUSED: Duration = Duration::from_secs(120);
    const RECONNECT: Duration = Duration::from_secs(300);

    fn tickets() -> Arc<Tickets> {
        Arc::new(Tickets::new(UNUSED, RECONNECT).unwrap())
    }

    fn target() -> Target {
        Target {
            host: "10.0.0.7".parse().unwrap(),
            port: 5900,
        }
    }

    #[test]
    fn is_short_url_safe_and_never_the_same() {
        let tickets = tickets();
        let now = Instant::now();
        let mut seen = std::collections::HashSet::new();
        for _ in 0..1_000 {
            let (ticket, _) = tickets.issue(target(), now).unwrap();
            assert_eq!(ticket.len(), 16);
            let url_safe = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
            assert!(ticket.chars().all(url_safe));
            assert!(seen.insert(ticket));
        }
    }

    #[test]
    fn opens_all_channels_of_one_session() {
        let tickets = tickets();
        let now = Instant::now();
        let (ticket, session) = tickets.issue(target(), now).unwrap();
        let leases: Vec<_> = (0..9)
            .map(|_| tickets.redeem(&ticket, now).unwrap())
            .collect();
        assert!(
            leases
                .iter()
                .all(|l| l.session == session && l.target == target())
        );
        assert!(tickets.redeem("AAAAAAAAAAAAAAAA", now).is_none());
        assert!(tickets.redeem("", now).is_none());
        assert!(tickets.redeem(&ticket[..15], now).is_none());
    }

    #[test]
    fn expires_when_unused() {
        let tickets = tickets();
        let now = Instant::now();
        let (ticket, _) = tickets.issue(target(), now).unwrap();
        let just_before = now + Duration::from_secs(119);
        let lease = tickets.redeem(&ticket, just_before).unwrap();
        // While a channel is open the ticket lives on, however long.
        assert!(tickets.redeem(&ticket, now + 10 * UNUSED).is_some());
        drop(lease);

        let (ticket, _) = tickets.issue(target(), now).unwrap();
        assert!(tickets.redeem(&ticket, now + UNUSED).is_none());
    }

    #[test]
    fn outlives_its_last_channel_for_a_reconnect() {
        let tickets = tickets();
        let (ticket, session) = tickets.issue(target(), Instant::now()).unwrap();
        drop(tickets.redeem(&ticket, Instant::now()).unwrap());
        let soon = Instant::now() + Duration::from_secs(295);
        assert_eq!(tickets.redeem(&ticket, soon).unwrap().session, session);
        let late = Instant::now() + RECONNECT + Duration::from_secs(5);
        assert!(tickets.redeem(&ticket, late).is_none());
    }

    fn pool(fill: &[u8]) -> Arc<Tickets> {
        let tickets = Tickets::new(UNUSED, RECONNECT).unwrap();
        Arc::new(tickets.with_pool(crate::pool::key_for_test(fill)))
    }

    #[test]
    fn a_pools_ticket_is_good_in_every_gateway_with_its_key() {
        let (first, second, stranger) = (pool(&[1]), pool(&[2, 1]), pool(&[3]));
        let now = Instant::now();
        let (ticket, session) = first.issue(target(), now).unwrap();
        for gateway in [&first, &second] {
            let leases = [(); 3].map(|()| gateway.redeem(&ticket, now).unwrap());
            assert!(leases.iter().all(|l| l.session == session));
            assert!(leases.iter().all(|l| l.target == target()));
            assert_eq!(gateway.lock().entries.len(), 1);
        }
        assert!(stranger.redeem(&ticket, now).is_none());
        assert!(first.redeem("AAAAAAAAAAAAAAAA", now).is_none());
        assert!(stranger.lock().entries.is_empty());
        assert!(session.to_string().starts_with('p'));
    }

    #[test]
    fn a_pools_ticket_outlives_its_expiry_where_it_is_in_use() {
        let tickets = pool(&[1]);
        let expired = Contents {
            target: target(),
            expires: SystemTime::now() - Duration::from_secs(60),
        };
        let keys = tickets.pool.load_full().unwrap();
        let sealed = keys.seal(&expired).unwrap();
        let now = Instant::now();
        assert!(tickets.redeem(&sealed, now).is_none());
        let used = Entry {
            target: target(),
            session: SessionId::next(),
            open: 1,
            expires: now,
        };
        let digest = tickets.lock().key.digest(&sealed);
        tickets.lock().entries.insert(digest, used);
        drop(tickets.redeem(&sealed, now + UNUSED).unwrap());
        tickets.close(&digest, now);
        let soon = now + Duration::from_secs(295);
        drop(tickets.redeem(&sealed, soon).unwrap());
        let late = Instant::now() + RECONNECT + Duration::from_secs(5);
        assert!(tickets.redeem(&sealed, late).is_none());
        assert!(tickets.lock().entries.is_empty());
    }

    #[test]
    fn a_successor_knows_them_and_their_channels() {
        let old = tickets();
        let now = Instant::now();
        let (unused, _) = old.issue(target(), now).unwrap();
        let (used, session) = old.issue(target(), now).unwrap();
        let lease = old.redeem(&used, now).unwrap();
        let state = serde_json::to_string(&old.state(now)).unwrap();
        assert!(!state.contains(&used));
        let new = tickets();
        for _ in 0..2 {
            new.take_over(serde_json::from_str(&state).unwrap(), now);
        }
        let held = new.hold(lease.digest()).unwrap();
        assert_eq!((held.session, &held.target), (session, &target()));
        // With an open channel it lives on; the other one does not.
        assert!(new.redeem(&used, now + 2 * RECONNECT).is_some());
        assert!(new.redeem(&unused, now + UNUSED).is_none());
        assert!(new.hold(&[0; 32]).is_none());
    }

    #[test]
    fn sweeps_expired_tickets_out() {
        let tickets = tickets();
        let now = Instant::now();
        for _ in 0..100 {
            tickets.issue(target(), now).unwrap();
        }
        tickets.issue(target(), now + 2 * UNUSED).unwrap();
        assert_eq!(tickets.lock().entries.len(), 1);
    }
}
