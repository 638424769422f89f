//! Tickets: what clients get in place of a host's address and port.

mod host_name;
mod lease;
mod presented;
#[cfg(test)]
mod signed_tests;
mod state;
mod store;
#[cfg(test)]
mod tests;
mod used;
mod wish;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwapOption;

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tracing::{debug, info, warn};

use crate::grant::Grant;
use crate::limits::Subscriber;
use crate::pool::{CLOCK_TOLERANCE, Contents, PoolKeys, session_number};
use crate::session::SessionId;
use crate::signed::{Signed, SignedTickets, is_signed};
use crate::ticket_sync::TicketSync;
use gateway_datapath::encoded::Bytes;
pub use host_name::ticket_of_host;
pub use lease::Lease;
pub use presented::{Presented, RedeemError};
pub use state::TicketsState;
use store::{Entry, Store, TicketKey};
use used::UsedTokens;
pub use wish::{Form, IssueError, Wish};

/// 96 random bits make 16 characters; old clients cut a token at 17.
const RANDOM_BYTES: usize = 12;
/// Tickets that may be in memory: those that wait, and those with open channels.
const MAX_ENTRIES: usize = 1_000_000;
/// Longest time for which a ticket can be asked for to be used.
const LONGEST_WISH: Duration = Duration::from_secs(86_400);
/// Bytes of the key by which tickets are recognised.
const KEY: usize = 32;

/// All tickets of this gateway, in memory; with keys of a pool, those that are in use here.
///
/// A pool's tickets hold what they stand for. Until they expire, which is as late as a ticket that
/// was used once may be used again, any gateway takes them; after that only those where a channel
/// of the session is open or was a short time ago.
///
/// Signed tickets, which a portal made, are entered as they are used, too. What has begun a desktop
/// session with a `jti` is remembered until it expires, and begins no other one.
///
/// Tickets are found by their HMAC under a key of this process, so that neither memory holds
/// them in clear nor the time of a look-up tells anything about them.
pub struct Tickets {
    pool: ArcSwapOption<PoolKeys>,
    signed: ArcSwapOption<SignedTickets>,
    /// No desktop session begins with a signed ticket.
    closed: AtomicBool,
    store: Mutex<Store>,
    sync: TicketSync,
}

/// Bytes that a ticket is recognised by.
pub(crate) const DIGEST: usize = 32;

type Digest = [u8; DIGEST];

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
            signed: ArcSwapOption::empty(),
            closed: AtomicBool::new(false),
            store: Mutex::new(Store {
                unused,
                reconnect,
                changes: 0,
                key: TicketKey::new(key),
                entries: HashMap::new(),
                waiting: HashMap::new(),
                used: UsedTokens::default(),
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

    /// Takes signed tickets that these keys and rules let through, or none; what is in use here
    /// stays good.
    pub fn set_signed(&self, signed: Option<SignedTickets>) {
        self.signed.store(signed.map(Arc::new));
    }

    /// Whether no desktop session may begin with a signed ticket, whose first channel begins one.
    pub fn set_closed(&self, closed: bool) {
        self.closed.store(closed, Ordering::Relaxed);
    }

    /// The longest time in which a new ticket can be made to be used. The other gateways of a pool
    /// know how long tickets live, and take none that would live longer.
    pub fn longest_life(&self) -> Duration {
        if self.pool.load().is_some() {
            self.lock().unused
        } else {
            LONGEST_WISH
        }
    }

    /// Makes a ticket for a new desktop session. `owner`: who is counted for it; where it has too
    /// many already, its oldest that waits is forgotten.
    pub fn issue(
        &self,
        grant: Grant,
        owner: Option<Subscriber>,
        now: Instant,
    ) -> Result<(String, SessionId), IssueError> {
        self.issue_as(Wish::default(), grant, owner, now)
    }

    /// The same as whoever asks has wished.
    pub fn issue_as(
        &self,
        wish: Wish,
        grant: Grant,
        owner: Option<Subscriber>,
        now: Instant,
    ) -> Result<(String, SessionId), IssueError> {
        let unused = wish.life.unwrap_or_else(|| self.lock().unused);
        if let Some(keys) = &*self.pool.load() {
            if wish.form == Form::HostName {
                return Err(IssueError::HostName);
            }
            let expires = SystemTime::now() + unused + self.lock().reconnect;
            let ticket = keys.seal(&Contents { grant, expires })?;
            let session = SessionId::of_pool(session_number(&ticket));
            return Ok((ticket, session));
        }
        let mut random = [0; RANDOM_BYTES];
        SystemRandom::new()
            .fill(&mut random)
            .map_err(|_| IssueError::Random)?;
        let ticket = match wish.form {
            Form::Short => URL_SAFE_NO_PAD.encode(random),
            Form::HostName => host_name::write(random),
        };
        let session = SessionId::next();
        let mut store = self.lock();
        store.sweep(now);
        store.make_room()?;
        let entry = Entry {
            grant: Arc::new(grant),
            session,
            owner,
            place: 0,
            open: 0,
            change: 0,
            expires: now + unused,
        };
        let digest = store.key.digest(&ticket);
        store.insert(digest, entry);
        Ok((ticket, session))
    }

    /// Opens a channel with a ticket.
    pub fn redeem(
        self: &Arc<Self>,
        shown: &Presented<'_>,
        now: Instant,
    ) -> Result<Lease, RedeemError> {
        let mut store = self.lock();
        store.sweep(now);
        if let Some(opened) = self.open_known(&mut store, shown, now) {
            return opened;
        }
        let entry = if is_signed(shown.token) {
            drop(store);
            // Others do not wait for the check of a signature.
            let signed = self.open_signed(shown)?;
            store = self.lock();
            // Another channel of the same session may have come first.
            if let Some(opened) = self.open_known(&mut store, shown, now) {
                return opened;
            }
            self.begin(&mut store, signed, shown, now)?
        } else {
            let sealed_life = store.sealed_life(now);
            // Entered only as it is used: a ticket that was made elsewhere is not known before.
            self.open_sealed(shown.token, shown.owner, sealed_life, now)?
        };
        if !entry.grant.admits(shown.client) {
            return Err(RedeemError::Denied);
        }
        let digest = store.key.digest(shown.token);
        // Where others hold all the room, this one is used all the same.
        let _ = store.make_room();
        store.insert(digest, entry);
        self.open(&mut store, digest).ok_or(RedeemError::Wrong)
    }

    /// Opens a channel with a ticket that is known and has not expired; `None`: it is not.
    fn open_known(
        self: &Arc<Self>,
        store: &mut Store,
        shown: &Presented<'_>,
        now: Instant,
    ) -> Option<Result<Lease, RedeemError>> {
        let digest = store.key.digest(shown.token);
        let entry = store.entries.get(&digest)?;
        if entry.is_expired(now) {
            store.remove(&digest);
            return None;
        }
        if !entry.grant.admits(shown.client) {
            let (client, session) = (shown.client, entry.session);
            debug!(%client, %session, "the client is in none of the ticket's networks");
            return Some(Err(RedeemError::Denied));
        }
        self.open(store, digest).map(Ok)
    }

    /// Opens a channel with a ticket that is known.
    fn open(self: &Arc<Self>, store: &mut Store, digest: Digest) -> Option<Lease> {
        let entry = store.open(&digest)?;
        Some(Lease {
            grant: Arc::clone(&entry.grant),
            session: entry.session,
            digest,
            tickets: Arc::clone(self),
        })
    }

    /// What a pool's ticket stands for.
    fn open_sealed(
        &self,
        token: &str,
        owner: Option<Subscriber>,
        life: Duration,
        now: Instant,
    ) -> Result<Entry, RedeemError> {
        let keys = self.pool.load();
        let keys = keys.as_ref().ok_or(RedeemError::Wrong)?;
        let contents = keys.open(token).map_err(|reason| {
            debug!(%reason, "no ticket of this pool");
            RedeemError::Wrong
        })?;
        let clock = SystemTime::now();
        if contents.is_expired(clock) {
            let late = clock
                .duration_since(contents.expires)
                .unwrap_or_default()
                .as_secs();
            debug!(seconds = late, "ticket of this pool has expired");
            return Err(RedeemError::Denied);
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
            return Err(RedeemError::Denied);
        }
        Ok(Entry {
            grant: Arc::new(contents.grant),
            session: SessionId::of_pool(session_number(token)),
            owner,
            place: 0,
            open: 0,
            change: 0,
            expires: now,
        })
    }

    /// What a signed ticket stands for.
    fn open_signed(&self, shown: &Presented<'_>) -> Result<Signed, RedeemError> {
        let client = shown.client;
        let keys = self.signed.load();
        let Some(keys) = keys.as_ref().filter(|_| shown.may_be_new) else {
            return Err(RedeemError::Wrong);
        };
        let signed = keys.open(shown.token).map_err(|reason| {
            debug!(%client, %reason, "signed ticket refused");
            RedeemError::Wrong
        })?;
        if !signed.grant.admits(client) {
            debug!(%client, reason = "the client is in none of its networks", "signed ticket refused");
            return Err(RedeemError::Wrong);
        }
        Ok(signed)
    }

    /// Begins a desktop session with a signed ticket, where it has not begun one before.
    fn begin(
        &self,
        store: &mut Store,
        signed: Signed,
        shown: &Presented<'_>,
        now: Instant,
    ) -> Result<Entry, RedeemError> {
        let client = shown.client;
        let refused = |reason| debug!(%client, reason, "signed ticket refused");
        let is_used = |id| store.used.contains(id, now);
        if signed.id.as_ref().is_some_and(is_used) {
            refused("its jti has begun a desktop session before");
            return Err(RedeemError::Wrong);
        }
        if self.is_closed() {
            return Err(RedeemError::Closed);
        }
        if let Some(id) = signed.id {
            let left = signed.expires.duration_since(SystemTime::now());
            let expires = now + left.unwrap_or_default();
            // The ticket itself is the next change.
            let change = store.changes + 1;
            let remembered = store.used.insert(id, expires, change, now);
            remembered.map_err(|_| {
                warn!(
                    most = used::MAX_USED,
                    "signed ticket refused: too many with a jti are remembered until they expire; let exp be sooner"
                );
                RedeemError::Full
            })?;
        }
        let session = SessionId::of_pool(session_number(shown.token));
        let host = &signed.grant.target;
        info!(%session, %client, %host, "desktop session with a signed ticket");
        Ok(Entry {
            grant: Arc::new(signed.grant),
            session,
            owner: shown.owner,
            place: 0,
            open: 0,
            change: 0,
            expires: now,
        })
    }

    /// Whether tokens that look like signed tickets are some.
    pub fn takes_signed(&self) -> bool {
        self.signed.load().is_some()
    }

    /// Whether no desktop session may begin, see [`Tickets::set_closed`].
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// Opens the first channel of a desktop session with a token of somebody else, who says what
    /// it permits.
    pub fn begin_with(
        self: &Arc<Self>,
        grant: Grant,
        shown: &Presented<'_>,
        now: Instant,
    ) -> Result<Lease, RedeemError> {
        let mut store = self.lock();
        if let Some(opened) = self.open_known(&mut store, shown, now) {
            return opened;
        }
        if self.is_closed() {
            return Err(RedeemError::Closed);
        }
        // Not a hash of the token, by which a short one could be found from the log.
        let session = SessionId::next();
        let (client, host) = (shown.client, &grant.target);
        info!(%session, %client, %host, "desktop session with a token of the portal");
        let entry = Entry {
            grant: Arc::new(grant),
            session,
            owner: shown.owner,
            place: 0,
            open: 0,
            change: 0,
            expires: now,
        };
        let digest = store.key.digest(shown.token);
        // Where others hold all the room, this one is used all the same.
        let _ = store.make_room();
        store.insert(digest, entry);
        self.open(&mut store, digest).ok_or(RedeemError::Wrong)
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

    /// How many changes there were so far that another process has to know of: tickets that came,
    /// and first channels that were opened with them.
    pub fn changes(&self) -> u64 {
        self.lock().changes
    }

    /// Of how many of those another process knows.
    pub fn sync(&self) -> &TicketSync {
        &self.sync
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
