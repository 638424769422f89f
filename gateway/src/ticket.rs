//! Tickets: what clients get in place of a host's address and port.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwapOption;
use aws_lc_rs::hmac;
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use tracing::{debug, warn};

use crate::host::Host;
use crate::limits::Subscriber;
use crate::pool::{CLOCK_TOLERANCE, Contents, PoolKeys, SealError, session_number};
use crate::session::SessionId;
use crate::target::Target;
use crate::ticket_sync::TicketSync;
use gateway_datapath::encoded::Bytes;
use gateway_datapath::state_error::StateError;

/// 96 random bits make 16 characters; old clients cut a token at 17.
const RANDOM_BYTES: usize = 12;
/// Tickets that may be known at a time: a bound on memory, far above any real login rate.
const MAX_TICKETS: usize = 100_000;
/// Tickets of one client address without an open channel. One more, and its oldest is forgotten:
/// as many people behind one address as that would have to log in before the first one of them
/// has connected.
const MAX_WAITING: usize = 1_000;
/// Tickets that may be in memory: those that wait, and those with open channels.
const MAX_ENTRIES: usize = 1_000_000;
/// Bytes of the key by which tickets are recognised.
const KEY: usize = 32;
/// How often expired tickets are swept out.
const SWEEP_INTERVAL: Duration = Duration::from_secs(10);

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
    sync: TicketSync,
}

/// Bytes that a ticket is recognised by.
pub(crate) const DIGEST: usize = 32;

type Digest = [u8; DIGEST];

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
    /// Who is counted for it.
    owner: Option<IpAddr>,
    /// What is left of its life, in milliseconds; counts only while no channel is open.
    expires: u64,
}

/// Longest life of a ticket that is taken over: more than the configuration can ask for.
const LONGEST_LIFE: Duration = Duration::from_secs(2 * 366 * 86_400);

/// Whether a ticket may lead there.
pub(crate) fn check_target(host: &str, port: u16) -> Result<(), StateError> {
    let is_host = host.parse::<Host>().is_ok();
    StateError::unless(is_host && port != 0, "host or port")
}

impl TicketsState {
    /// Whether it is one that [`Tickets::state`] makes.
    pub(crate) fn check(&self) -> Result<(), StateError> {
        let check = StateError::unless;
        check(self.key.len() == KEY, "key for tickets")?;
        check(self.entries.len() <= MAX_ENTRIES, "number of tickets")?;
        for entry in &self.entries {
            check(entry.digest.len() == DIGEST, "ticket")?;
            check_target(&entry.host, entry.port)?;
            check(entry.session.is_sound(), "number of a desktop session")?;
            let life = Duration::from_millis(entry.expires);
            check(life <= LONGEST_LIFE, "life of a ticket")?;
        }
        Ok(())
    }
}

struct Store {
    unused: Duration,
    reconnect: Duration,
    /// Tickets that were issued so far.
    issued: u64,
    key: TicketKey,
    entries: HashMap<Digest, Entry>,
    /// Those without an open channel, of each owner, oldest first.
    waiting: HashMap<Subscriber, BTreeMap<u64, Digest>>,
    /// Place of the next one that waits.
    place: u64,
    /// The lives added up that were longer before, and until when a ticket can have them.
    longer: Option<(Duration, Instant)>,
    swept: Instant,
}

struct Entry {
    target: Target,
    session: SessionId,
    /// Who is counted for it; `None`: a proxy that does not tell whom it speaks for.
    owner: Option<Subscriber>,
    /// Its place among those of its owner that wait.
    place: u64,
    open: usize,
    /// Counts only while no channel is open.
    expires: Instant,
}

/// The key with its bytes, which a successor is told.
struct TicketKey {
    key: hmac::Key,
    bytes: Bytes,
}

impl TicketKey {
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
        let mut key = Bytes::from(&[0; KEY][..]);
        SystemRandom::new()
            .fill(key.as_mut_vec())
            .map_err(|_| IssueError::Random)?;
        Ok(Self {
            pool: ArcSwapOption::empty(),
            store: Mutex::new(Store {
                unused,
                reconnect,
                issued: 0,
                key: TicketKey::new(key),
                entries: HashMap::new(),
                waiting: HashMap::new(),
                place: 0,
                longer: None,
                swept: Instant::now(),
            }),
            sync: TicketSync::default(),
        })
    }

    /// Changes the lives that [`Tickets::new`] was given; what has begun to run out already does
    /// so as it was.
    pub fn set_lives(&self, unused: Duration, reconnect: Duration) {
        let mut store = self.lock();
        let before = store.unused + store.reconnect;
        if before > unused + reconnect {
            store.longer = Some((before, Instant::now() + before));
        }
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

    /// Makes a ticket for a new desktop session. `owner`: who is counted for it; where it has too
    /// many already, its oldest that waits is forgotten.
    pub fn issue(
        &self,
        target: Target,
        owner: Option<Subscriber>,
        now: Instant,
    ) -> Result<(String, SessionId), IssueError> {
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
        store.make_room()?;
        let entry = Entry {
            target,
            session,
            owner,
            place: 0,
            open: 0,
            expires: now + store.unused,
        };
        let digest = store.key.digest(&ticket);
        store.insert(digest, entry);
        store.issued += 1;
        Ok((ticket, session))
    }

    /// Opens a channel with a ticket; `None`: it is unknown or has expired. `owner` is counted for
    /// one that was made elsewhere.
    pub fn redeem(
        self: &Arc<Self>,
        token: &str,
        owner: Option<Subscriber>,
        now: Instant,
    ) -> Option<Lease> {
        let mut store = self.lock();
        let digest = store.key.digest(token);
        store.sweep(now);
        if store
            .entries
            .get(&digest)
            .is_none_or(|entry| entry.is_expired(now))
        {
            store.remove(&digest);
            let sealed_life = store.sealed_life(now);
            // Entered only as it is used: a ticket that was made elsewhere is not known before.
            let entry = self.open_sealed(token, owner, sealed_life, now)?;
            // Where others hold all the room, this one is used all the same.
            let _ = store.make_room();
            store.insert(digest, entry);
        }
        self.open(&mut store, digest)
    }

    /// Opens a channel with a ticket that is known.
    fn open(self: &Arc<Self>, store: &mut Store, digest: Digest) -> Option<Lease> {
        store.stop_waiting(&digest);
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
    fn open_sealed(
        &self,
        token: &str,
        owner: Option<Subscriber>,
        life: Duration,
        now: Instant,
    ) -> Option<Entry> {
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
        // A member whose clock was far ahead for a moment has made tickets that would be good for
        // as long.
        let ahead = contents.expires.duration_since(clock).unwrap_or_default();
        if ahead > life + CLOCK_TOLERANCE {
            let (seconds, most) = (ahead.as_secs(), life.as_secs());
            warn!(
                seconds,
                most,
                "ticket of this pool would live too long: does each gateway have the right time, \
                 and the same TicketTimeout and ReconnectTimeout?"
            );
            return None;
        }
        Some(Entry {
            target: contents.target,
            session: SessionId::of_pool(session_number(token)),
            owner,
            place: 0,
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
            if entry.open == 0 {
                store.wait(*digest);
            }
        }
    }

    /// How many tickets were issued here so far.
    pub fn issued(&self) -> u64 {
        self.lock().issued
    }

    /// Of how many of those another process knows.
    pub fn sync(&self) -> &TicketSync {
        &self.sync
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
                owner: entry.owner.map(Subscriber::address),
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
            store.key = TicketKey::new(state.key);
            store.entries.clear();
            store.waiting.clear();
        }
        for known in state.entries {
            let digest = Digest::try_from(&known.digest[..]);
            let (Ok(digest), Ok(host)) = (digest, known.host.parse()) else {
                continue;
            };
            if store.entries.contains_key(&digest) {
                continue;
            }
            let entry = Entry {
                target: Target {
                    host,
                    port: known.port,
                },
                session: known.session,
                owner: known.owner.map(Subscriber::from),
                place: 0,
                open: 0,
                expires: now + Duration::from_millis(known.expires),
            };
            store.insert(digest, entry);
        }
    }

    /// Holds the ticket of a channel that was moved here; `None`: it is not known.
    pub fn hold(self: &Arc<Self>, digest: &[u8]) -> Option<Lease> {
        let digest = Digest::try_from(digest).ok()?;
        self.open(&mut self.lock(), digest)
    }

    fn lock(&self) -> MutexGuard<'_, Store> {
        // No code panics with the lock held; were it so, the map would still be whole.
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store {
    fn sweep(&mut self, now: Instant) {
        if now.saturating_duration_since(self.swept) >= SWEEP_INTERVAL {
            let expired = self.entries.extract_if(|_, entry| entry.is_expired(now));
            for (_, entry) in expired {
                forget(&mut self.waiting, &entry);
            }
            self.swept = now;
        }
    }

    /// The longest life that a pool's ticket can have been given.
    fn sealed_life(&self, now: Instant) -> Duration {
        let life = self.unused + self.reconnect;
        match self.longer {
            Some((before, until)) if now < until => life.max(before),
            _ => life,
        }
    }

    /// Enters a ticket without an open channel; where its owner has too many of them, the oldest
    /// is forgotten.
    fn insert(&mut self, digest: Digest, entry: Entry) {
        self.entries.insert(digest, entry);
        self.wait(digest);
    }

    fn remove(&mut self, digest: &Digest) {
        if let Some(entry) = self.entries.remove(digest) {
            forget(&mut self.waiting, &entry);
        }
    }

    /// The ticket has no open channel any more.
    fn wait(&mut self, digest: Digest) {
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

    fn stop_waiting(&mut self, digest: &Digest) {
        if let Some(entry) = self.entries.get(digest) {
            forget(&mut self.waiting, entry);
        }
    }

    /// Room for one more ticket, where there is none at the expense of who has most.
    fn make_room(&mut self) -> Result<(), IssueError> {
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
            let (ticket, _) = tickets.issue(target(), None, now).unwrap();
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
        let (ticket, session) = tickets.issue(target(), None, now).unwrap();
        let leases: Vec<_> = (0..9)
            .map(|_| tickets.redeem(&ticket, None, now).unwrap())
            .collect();
        assert!(
            leases
                .iter()
                .all(|l| l.session == session && l.target == target())
        );
        assert!(tickets.redeem("AAAAAAAAAAAAAAAA", None, now).is_none());
        assert!(tickets.redeem("", None, now).is_none());
        assert!(tickets.redeem(&ticket[..15], None, now).is_none());
    }

    #[test]
    fn expires_when_unused() {
        let tickets = tickets();
        let now = Instant::now();
        let (ticket, _) = tickets.issue(target(), None, now).unwrap();
        let just_before = now + Duration::from_secs(119);
        let lease = tickets.redeem(&ticket, None, just_before).unwrap();
        // While a channel is open the ticket lives on, however long.
        assert!(tickets.redeem(&ticket, None, now + 10 * UNUSED).is_some());
        drop(lease);

        let (ticket, _) = tickets.issue(target(), None, now).unwrap();
        assert!(tickets.redeem(&ticket, None, now + UNUSED).is_none());
    }

    #[test]
    fn outlives_its_last_channel_for_a_reconnect() {
        let tickets = tickets();
        let (ticket, session) = tickets.issue(target(), None, Instant::now()).unwrap();
        drop(tickets.redeem(&ticket, None, Instant::now()).unwrap());
        let soon = Instant::now() + Duration::from_secs(295);
        assert_eq!(
            tickets.redeem(&ticket, None, soon).unwrap().session,
            session
        );
        let late = Instant::now() + RECONNECT + Duration::from_secs(5);
        assert!(tickets.redeem(&ticket, None, late).is_none());
    }

    fn pool(fill: &[u8]) -> Arc<Tickets> {
        let tickets = Tickets::new(UNUSED, RECONNECT).unwrap();
        Arc::new(tickets.with_pool(crate::pool::key_for_test(fill)))
    }

    #[test]
    fn a_pools_ticket_is_good_in_every_gateway_with_its_key() {
        let (first, second, stranger) = (pool(&[1]), pool(&[2, 1]), pool(&[3]));
        let now = Instant::now();
        let (ticket, session) = first.issue(target(), None, now).unwrap();
        for gateway in [&first, &second] {
            let leases = [(); 3].map(|()| gateway.redeem(&ticket, None, now).unwrap());
            assert!(leases.iter().all(|l| l.session == session));
            assert!(leases.iter().all(|l| l.target == target()));
            assert_eq!(gateway.lock().entries.len(), 1);
        }
        assert!(stranger.redeem(&ticket, None, now).is_none());
        assert!(first.redeem("AAAAAAAAAAAAAAAA", None, now).is_none());
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
        assert!(tickets.redeem(&sealed, None, now).is_none());
        let used = Entry {
            target: target(),
            session: SessionId::next(),
            owner: None,
            place: 0,
            open: 1,
            expires: now,
        };
        let digest = tickets.lock().key.digest(&sealed);
        tickets.lock().entries.insert(digest, used);
        drop(tickets.redeem(&sealed, None, now + UNUSED).unwrap());
        tickets.close(&digest, now);
        let soon = now + Duration::from_secs(295);
        drop(tickets.redeem(&sealed, None, soon).unwrap());
        let late = Instant::now() + RECONNECT + Duration::from_secs(5);
        assert!(tickets.redeem(&sealed, None, late).is_none());
        assert!(tickets.lock().entries.is_empty());
    }

    #[test]
    fn a_successor_knows_them_and_their_channels() {
        let old = tickets();
        let now = Instant::now();
        let (unused, _) = old.issue(target(), None, now).unwrap();
        let (used, session) = old.issue(target(), None, now).unwrap();
        let lease = old.redeem(&used, None, now).unwrap();
        let state = serde_json::to_string(&old.state(now)).unwrap();
        assert!(!state.contains(&used));
        let new = tickets();
        for _ in 0..2 {
            new.take_over(serde_json::from_str(&state).unwrap(), now);
        }
        let held = new.hold(lease.digest()).unwrap();
        assert_eq!((held.session, &held.target), (session, &target()));
        // With an open channel it lives on; the other one does not.
        assert!(new.redeem(&used, None, now + 2 * RECONNECT).is_some());
        assert!(new.redeem(&unused, None, now + UNUSED).is_none());
        assert!(new.hold(&[0; 32]).is_none());
    }

    #[test]
    fn sweeps_expired_tickets_out() {
        let tickets = tickets();
        let now = Instant::now();
        for _ in 0..100 {
            tickets.issue(target(), None, now).unwrap();
        }
        tickets.issue(target(), None, now + 2 * UNUSED).unwrap();
        assert_eq!(tickets.lock().entries.len(), 1);
    }

    fn client(address: &str) -> Subscriber {
        address.parse::<IpAddr>().unwrap().into()
    }

    #[test]
    fn one_client_forgets_only_its_own() {
        let tickets = tickets();
        let now = Instant::now();
        let issue = |owner| tickets.issue(target(), Some(client(owner)), now).unwrap().0;
        let others = issue("192.0.2.8");
        let used = issue("192.0.2.7");
        let lease = tickets.redeem(&used, None, now).unwrap();
        let first = issue("192.0.2.7");
        let rest: Vec<_> = (0..MAX_WAITING).map(|_| issue("192.0.2.7")).collect();
        assert_eq!(tickets.count(), MAX_WAITING + 2);
        assert!(tickets.redeem(&first, None, now).is_none());
        for good in [&others, &used, &rest[0], &rest[MAX_WAITING - 1]] {
            assert!(tickets.redeem(good, None, now).is_some());
        }
        // Back among those that wait, as the last one.
        drop(lease);
        for _ in 0..MAX_WAITING - 1 {
            issue("192.0.2.7");
        }
        assert!(tickets.redeem(&used, None, now).is_some());
        issue("192.0.2.7");
        issue("192.0.2.7");
        assert_eq!(tickets.count(), MAX_WAITING + 1);
    }

    #[test]
    fn a_full_table_costs_who_has_most() {
        let tickets = tickets();
        let now = Instant::now();
        let issue = |owner: Option<Subscriber>| tickets.issue(target(), owner, now);
        let (mine, _) = issue(Some(client("192.0.2.7"))).unwrap();
        let mut greedy = Vec::new();
        for _ in 0..10 {
            greedy.push(issue(Some(client("2001:db8::1"))).unwrap().0);
        }
        while tickets.count() < MAX_TICKETS {
            issue(None).unwrap();
        }
        for _ in 0..5 {
            issue(Some(client("192.0.2.9"))).unwrap();
        }
        assert_eq!(tickets.count(), MAX_TICKETS);
        assert!(tickets.redeem(&mine, None, now).is_some());
        let good = |ticket: &String| tickets.redeem(ticket, None, now).is_some();
        let gone = greedy.iter().filter(|ticket| !good(ticket)).count();
        assert_eq!(gone, 5);
    }

    #[test]
    fn owners_are_known_to_a_successor_and_forgotten_with_their_tickets() {
        let (old, new) = (tickets(), tickets());
        let now = Instant::now();
        for _ in 0..MAX_WAITING {
            old.issue(target(), Some(client("2001:db8::1")), now)
                .unwrap();
        }
        new.take_over(old.state(now), now);
        new.issue(target(), Some(client("2001:db8::2")), now)
            .unwrap();
        assert_eq!(new.count(), MAX_WAITING);
        new.issue(target(), None, now + 2 * UNUSED).unwrap();
        assert_eq!(new.count(), 1);
        assert!(new.lock().waiting.is_empty());
    }

    #[test]
    fn a_pools_ticket_of_a_clock_far_ahead_is_refused() {
        let tickets = pool(&[1]);
        let seal = |ahead: Duration| {
            let contents = Contents {
                target: target(),
                expires: SystemTime::now() + ahead,
            };
            tickets.pool.load_full().unwrap().seal(&contents).unwrap()
        };
        let now = Instant::now();
        let life = UNUSED + RECONNECT;
        let good = |ticket: &str, now| tickets.redeem(ticket, None, now).is_some();
        assert!(good(&seal(life + CLOCK_TOLERANCE / 2), now));
        assert!(!good(&seal(life + CLOCK_TOLERANCE * 2), now));
        assert!(!good(&seal(Duration::from_secs(10 * 365 * 86_400)), now));
        // What was made before lives became shorter stays good, for as long as it can live.
        let before = seal(life);
        tickets.set_lives(UNUSED / 10, RECONNECT / 10);
        assert!(good(&before, now));
        assert!(!good(&seal(life), now + life + Duration::from_secs(5)));
    }
}
