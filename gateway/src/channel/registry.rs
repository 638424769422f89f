//! The desktop sessions and channels that are open, what they have moved, and the way to end them.
//!
//! Reading costs the channels nothing: they count in atomics of their own, which are added up by
//! whoever asks.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::SystemTime;

use tokio::sync::Notify;
use tokio::sync::mpsc::UnboundedSender;

use super::stop::StopSignal;
use super::transfer::Offer;
use crate::metrics::Carried;
use crate::session::{ChannelId, SessionId};
use crate::target::Target;
use gateway_datapath::end_reason::{EndKind, StopCause};
use gateway_datapath::{Counters, Sent};

/// All open channels.
#[derive(Default)]
pub struct Registry {
    channels: Mutex<Channels>,
    /// Told when the last desktop session has ended.
    emptied: Notify,
}

#[derive(Default)]
struct Channels {
    sessions: BTreeMap<SessionId, Vec<Arc<Entry>>>,
    /// Desktop sessions that had a first channel.
    sessions_begun: u64,
    /// What the channels that have ended had moved.
    ended: BTreeMap<Carried, Tally>,
    /// What they had sent to their clients.
    ended_sent: BTreeMap<Carried, Sent>,
    /// How many channels have ended, by reason.
    ended_by: BTreeMap<EndKind, u64>,
    /// Channels that come now are to end at once.
    stopping: bool,
    /// Who takes the channels over; those that come now too.
    successor: Option<UnboundedSender<Offer>>,
}

impl Channels {
    fn open(&self) -> Vec<Arc<Entry>> {
        self.sessions.values().flatten().cloned().collect()
    }
}

/// What is known of a channel when its host is connected.
pub struct NewChannel {
    /// Number of the channel.
    pub id: ChannelId,
    /// The desktop session that it belongs to.
    pub session: SessionId,
    /// Address of the client, as far as trusted proxies report it.
    pub client: IpAddr,
    /// The host and its Spice port.
    pub host: Target,
    /// When the host was connected; earlier than now for a channel that another process began.
    pub opened: SystemTime,
    /// What is counted while it moves.
    pub counters: Arc<Counters>,
}

/// An open channel.
pub struct Entry {
    /// What was known when it was entered.
    pub channel: NewChannel,
    carried: OnceLock<(Carried, u8)>,
    /// Bytes that had been sent to the client when its times were last observed.
    observed: AtomicU64,
    /// It can stand still when it is asked to: it has begun, and its data path allows it.
    is_movable: AtomicBool,
    stop: StopSignal,
}

impl Entry {
    /// What the channel carries, and how.
    pub fn carried(&self) -> Carried {
        self.carried.get().map_or(Carried::NOT_YET, |known| known.0)
    }

    /// Asks the channel to end.
    pub(super) fn stop(&self, cause: StopCause) {
        self.stop.stop(cause);
    }

    /// Whether anything was sent to the client since this was last asked; `sent` is what was sent
    /// by now, in bytes.
    pub fn has_sent_since(&self, sent: u64) -> bool {
        self.observed.swap(sent, Ordering::Relaxed) != sent
    }

    /// Its number among the channels of its type; `None` before the client has named it.
    pub fn number(&self) -> Option<u8> {
        self.carried.get().map(|known| known.1)
    }
}

/// What channels have moved, added up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Channels that are open.
    pub open: u64,
    /// Channels that were ever open, those that are included.
    pub opened: u64,
    /// Bytes of payload handed to hosts.
    pub uplink: u64,
    /// Bytes of payload handed to clients.
    pub downlink: u64,
}

impl Tally {
    fn add(&mut self, entry: &Entry) {
        self.opened += 1;
        self.uplink += entry.channel.counters.uplink();
        self.downlink += entry.channel.counters.downlink();
    }
}

/// Everything that was counted since the process began.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// Desktop sessions with an open channel.
    pub sessions_open: usize,
    /// Desktop sessions that were ever open; one whose client comes back counts again.
    pub sessions_opened: u64,
    /// Channels by data path and type.
    pub channels: BTreeMap<Carried, Tally>,
    /// Channels that have ended, by reason.
    pub ended_by: BTreeMap<EndKind, u64>,
}

/// The channels of one desktop session, in the order in which they were opened.
pub struct Session {
    /// Its number.
    pub id: SessionId,
    /// Never empty.
    pub channels: Vec<Arc<Entry>>,
}

/// An offer, and where the answer to it arrives.
pub(super) type UnansweredOffer = (Offer, tokio::sync::oneshot::Receiver<bool>);

/// A channel's place in the registry; it leaves when dropped.
pub struct Registration {
    entry: Arc<Entry>,
    registry: Arc<Registry>,
}

impl Registration {
    /// What is known of the channel.
    pub fn channel(&self) -> &NewChannel {
        &self.entry.channel
    }

    /// Notes what the channel carries; `number` is its own among those of its type. The first
    /// word counts.
    pub fn carries(&self, carried: Carried, number: u8) {
        let _ = self.entry.carried.set((carried, number));
    }

    /// What the channel carries, and how.
    pub fn carried(&self) -> Carried {
        self.entry.carried()
    }

    /// Notes whether the channel can be handed over as it stands.
    pub(super) fn set_movable(&self, is_movable: bool) {
        self.entry.is_movable.store(is_movable, Ordering::Relaxed);
    }

    /// Counts the channel's end.
    pub fn count_end(&self, kind: EndKind) {
        *self.registry.lock().ended_by.entry(kind).or_default() += 1;
    }

    /// What asks this channel to end.
    pub fn stop_signal(&self) -> &StopSignal {
        &self.entry.stop
    }

    /// Offers the frozen channel to the successor; whether it took it. If not, the channel has
    /// to go on here; `None` as an offer: it cannot be handed over now.
    pub(super) async fn hand_over(&self, offer: Option<UnansweredOffer>) -> bool {
        self.set_movable(offer.is_some());
        let successor = self.registry.lock().successor.clone();
        let taken = match (offer, successor) {
            (Some((offer, taken)), Some(successor)) => {
                let is_sent = successor.send(offer).is_ok();
                // Offers that are sent just as the receiver goes stay in the queue, also those
                // behind one whose sender was interrupted on the way, and are dropped with the
                // last sender: that must be nobody who waits for an answer.
                drop(successor);
                is_sent && taken.await.unwrap_or(false)
            }
            _ => false,
        };
        if !taken {
            self.entry.stop.thaw();
        }
        taken
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let session = self.entry.channel.session;
        let mut channels = self.registry.lock();
        channels
            .ended
            .entry(self.entry.carried())
            .or_default()
            .add(&self.entry);
        let sent = channels.ended_sent.entry(self.entry.carried()).or_default();
        *sent = *sent + self.entry.channel.counters.sent();
        if let Some(entries) = channels.sessions.get_mut(&session) {
            entries.retain(|entry| !Arc::ptr_eq(entry, &self.entry));
            if entries.is_empty() {
                channels.sessions.remove(&session);
            }
            if channels.sessions.is_empty() {
                self.registry.emptied.notify_waiters();
            }
        }
    }
}

impl Registry {
    /// Enters a channel.
    pub fn register(self: &Arc<Self>, channel: NewChannel) -> Registration {
        let session = channel.session;
        let entry = Arc::new(Entry {
            channel,
            carried: OnceLock::new(),
            observed: AtomicU64::new(0),
            is_movable: AtomicBool::new(false),
            stop: StopSignal::default(),
        });
        let mut channels = self.lock();
        if channels.stopping {
            entry.stop.stop(StopCause::Shutdown);
        }
        if channels.successor.is_some() {
            entry.stop.freeze();
        }
        let of_session = channels.sessions.entry(session).or_default();
        of_session.push(Arc::clone(&entry));
        if of_session.len() == 1 {
            channels.sessions_begun += 1;
        }
        Registration {
            entry,
            registry: Arc::clone(self),
        }
    }

    /// How many channels are open.
    pub fn count(&self) -> usize {
        self.lock().sessions.values().map(Vec::len).sum()
    }

    /// How many of them can stand still.
    pub fn count_movable(&self) -> usize {
        let channels = self.lock();
        let entries = channels.sessions.values().flatten();
        let movable = entries.filter(|entry| entry.is_movable.load(Ordering::Relaxed));
        movable.count()
    }

    /// Asks all channels to end, those to come too; returns how many are open.
    pub fn stop_all(&self) -> usize {
        self.lock().stopping = true;
        self.stop_open(StopCause::Shutdown)
    }

    /// Asks the channels that are open to end; returns how many they are.
    pub fn stop_open(&self, cause: StopCause) -> usize {
        let channels = self.lock();
        let mut open = 0;
        for entry in channels.sessions.values().flatten() {
            entry.stop.stop(cause);
            open += 1;
        }
        open
    }

    /// Asks all channels to stand still and to be offered to a successor, those to come too.
    pub fn freeze_all(&self, successor: UnboundedSender<Offer>) {
        let mut channels = self.lock();
        channels.successor = Some(successor);
        for entry in channels.sessions.values().flatten() {
            entry.stop.freeze();
        }
    }

    /// There is no successor any more; channels that stand still go on once their offers are
    /// dropped.
    pub fn thaw_all(&self) {
        let mut channels = self.lock();
        channels.successor = None;
        for entry in channels.sessions.values().flatten() {
            entry.stop.thaw();
        }
    }

    /// Asks the channels of one desktop session to end; returns how many are open, 0 when there
    /// is no such session.
    pub fn stop_session(&self, session: SessionId) -> usize {
        let channels = self.lock();
        let entries = channels
            .sessions
            .get(&session)
            .map_or(&[][..], Vec::as_slice);
        for entry in entries {
            entry.stop.stop(StopCause::Kicked);
        }
        entries.len()
    }

    /// The open desktop sessions, oldest first.
    pub fn sessions(&self) -> Vec<Session> {
        let channels = self.lock();
        channels
            .sessions
            .iter()
            .map(|(&id, entries)| Session {
                id,
                channels: entries.clone(),
            })
            .collect()
    }

    /// Whether a desktop session has an open channel.
    pub fn has_session(&self, session: SessionId) -> bool {
        self.lock().sessions.contains_key(&session)
    }

    /// How many desktop sessions are open.
    pub fn session_count(&self) -> usize {
        self.lock().sessions.len()
    }

    /// Waits until no desktop session is open; cancel safe.
    pub async fn no_session(&self) {
        loop {
            // Whoever waits is told of what happens from here on.
            let emptied = self.emptied.notified();
            if self.session_count() == 0 {
                return;
            }
            emptied.await;
        }
    }

    /// The open channels, and what those that have ended had sent to their clients: each channel is
    /// among the one or in the other.
    pub fn open_and_ended(&self) -> (Vec<Arc<Entry>>, BTreeMap<Carried, Sent>) {
        let channels = self.lock();
        (channels.open(), channels.ended_sent.clone())
    }

    /// What was counted so far; never less than at an earlier call.
    pub fn totals(&self) -> Totals {
        let (open, mut totals) = {
            let channels = self.lock();
            let totals = Totals {
                sessions_open: channels.sessions.len(),
                sessions_opened: channels.sessions_begun,
                channels: channels.ended.clone(),
                ended_by: channels.ended_by.clone(),
            };
            (channels.open(), totals)
        };
        // The kernel may have to be asked for each: nobody waits for that to open or end a channel.
        for entry in &open {
            let tally = totals.channels.entry(entry.carried()).or_default();
            tally.open += 1;
            tally.add(entry);
        }
        totals
    }

    fn lock(&self) -> MutexGuard<'_, Channels> {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DISPLAY: Carried = Carried {
        path: "relay",
        kind: "display",
    };

    fn channel(session: SessionId) -> NewChannel {
        NewChannel {
            id: ChannelId::next(),
            session,
            client: IpAddr::from([192, 0, 2, 7]),
            host: Target::new("10.0.0.7".parse().unwrap(), 5900),
            opened: SystemTime::now(),
            counters: Arc::default(),
        }
    }

    #[tokio::test]
    async fn stops_every_channel_and_forgets_those_that_ended() {
        let registry = Arc::<Registry>::default();
        let session = SessionId::next();
        let first = registry.register(channel(session));
        drop(registry.register(channel(session)));
        let waiting = tokio::spawn(async move {
            first.stop_signal().stopped().await;
            first.stop_signal().cause()
        });
        tokio::task::yield_now().await;
        assert_eq!(registry.stop_all(), 1);
        assert_eq!(waiting.await.unwrap(), Some(StopCause::Shutdown));
        assert_eq!(registry.stop_all(), 0);
        registry
            .register(channel(session))
            .stop_signal()
            .stopped()
            .await;
    }

    #[tokio::test]
    async fn ends_one_session_and_no_other() {
        let registry = Arc::<Registry>::default();
        let (kicked, other) = (SessionId::next(), SessionId::next());
        let gone = [(); 3].map(|()| registry.register(channel(kicked)));
        let stays = registry.register(channel(other));
        assert_eq!(registry.stop_session(kicked), 3);
        for registration in &gone {
            registration.stop_signal().stopped().await;
            assert_eq!(registration.stop_signal().cause(), Some(StopCause::Kicked));
        }
        assert_eq!(stays.stop_signal().cause(), None);
        drop(gone);
        assert_eq!(registry.stop_session(kicked), 0);
        assert_eq!(registry.session_count(), 1);
    }

    #[test]
    fn channels_are_grouped_by_session() {
        let registry = Arc::<Registry>::default();
        let (first, second) = (SessionId::next(), SessionId::next());
        let registrations = [second, first, second].map(|s| registry.register(channel(s)));
        let sizes: Vec<_> = registry
            .sessions()
            .iter()
            .map(|session| (session.id, session.channels.len()))
            .collect();
        assert_eq!(sizes, [(first, 1), (second, 2)]);
        drop(registrations);
        assert!(registry.sessions().is_empty());
    }

    #[tokio::test]
    async fn the_end_of_the_last_session_is_awaited() {
        let registry = Arc::<Registry>::default();
        registry.no_session().await;
        let first = registry.register(channel(SessionId::next()));
        let last = registry.register(channel(SessionId::next()));
        let waiting = tokio::spawn({
            let registry = Arc::clone(&registry);
            async move { registry.no_session().await }
        });
        tokio::task::yield_now().await;
        drop(first);
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(last);
        waiting.await.unwrap();
    }

    #[test]
    fn what_ended_channels_have_moved_stays_counted() {
        let registry = Arc::<Registry>::default();
        let session = SessionId::next();
        let open = registry.register(channel(session));
        let ended = registry.register(channel(session));
        for registration in [&open, &ended] {
            registration.carries(DISPLAY, 0);
            registration.channel().counters.add_uplink(10);
        }
        let before = registry.totals();
        drop(ended);
        let after = registry.totals();
        assert_eq!(before.channels[&DISPLAY].open, 2);
        let tally = Tally {
            open: 1,
            opened: 2,
            uplink: 20,
            downlink: 0,
        };
        assert_eq!(after.channels[&DISPLAY], tally);
        assert_eq!((after.sessions_open, after.sessions_opened), (1, 1));
        drop(open);
        let _again = registry.register(channel(session));
        let again = registry.totals();
        assert_eq!((again.sessions_open, again.sessions_opened), (1, 2));
        assert_eq!(again.channels[&Carried::NOT_YET].open, 1);
    }
}
