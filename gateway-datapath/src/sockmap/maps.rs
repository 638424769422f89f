//! The maps that the gateway shares with its programs, and the channels' places in them.

use std::collections::{BTreeSet, VecDeque};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use aya::maps::{Array, HashMap, MapData, MapError, SockHash};
use gateway_common::layout::{self, CLOSED, Gate, Route, State};

use super::set::{Set, SetError};

/// How long a slot is left alone after its channel: a program that still runs for that channel
/// then counts in no other one. Longer than any program takes, by far, and than a channel's last
/// counts are asked for.
const REST: Duration = Duration::from_secs(2);

/// The gate of a channel whose bytes all pass.
const SHUT: [u64; 2] = [CLOSED, 0];

/// All maps but the ring of events.
pub(super) struct Maps(Mutex<Inner>);

struct Inner {
    hosts: SockHash<MapData, u64>,
    unix_hosts: SockHash<MapData, u64>,
    bridges: SockHash<MapData, u64>,
    injectors: SockHash<MapData, u64>,
    targets: SockHash<MapData, u64>,
    routes: HashMap<MapData, u64, [u64; size_of::<Route>() / 8]>,
    states: Array<MapData, [u64; size_of::<State>() / 8]>,
    gates: Array<MapData, [u64; 2]>,
    /// Slots of channels that have ended, with the time of that.
    free: VecDeque<(Instant, u32)>,
    /// Slots from here on were never used.
    unused: u32,
    /// Slots from there on that a process before has left; they are among the free ones.
    left: BTreeSet<u32>,
    /// Slots of channels that are open.
    open: BTreeSet<u32>,
    /// What was counted for channels that have ended here.
    ended: Arc<Ended>,
}

/// What was counted for channels that have ended.
#[derive(Default)]
pub(crate) struct Ended(Mutex<State>);

impl Ended {
    fn add(&self, state: &State) {
        let total = &mut *self.lock();
        *total = total.plus(state);
    }

    pub(crate) fn total(&self) -> State {
        *self.lock()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The cookies of a channel's sockets that send into maps.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cookies {
    pub(super) host: u64,
    /// `None`: the host's socket feeds the client's queue itself.
    pub(super) bridge: Option<u64>,
    pub(super) injector: u64,
}

/// The sockets of a channel, as the maps take them.
pub(super) struct Sockets<'a> {
    pub(super) client: BorrowedFd<'a>,
    pub(super) host: BorrowedFd<'a>,
    /// The end that sends to the other one, on which the frames are made; and that.
    pub(super) bridge: Option<(BorrowedFd<'a>, BorrowedFd<'a>)>,
    pub(super) injector_out: BorrowedFd<'a>,
}

/// Why a channel found no place.
#[derive(Debug, thiserror::Error)]
pub(super) enum EnterError {
    #[error("no room in the maps")]
    Full,
    #[error(transparent)]
    Map(#[from] MapError),
}

impl Maps {
    /// Opens the maps of a set.
    pub(super) fn open(set: &Set) -> Result<Self, SetError> {
        Ok(Self(Mutex::new(Inner {
            hosts: set.open(layout::HOSTS)?.try_into()?,
            unix_hosts: set.open(layout::UNIX_HOSTS)?.try_into()?,
            bridges: set.open(layout::BRIDGES)?.try_into()?,
            injectors: set.open(layout::INJECTORS)?.try_into()?,
            targets: set.open(layout::TARGETS)?.try_into()?,
            routes: set.open(layout::ROUTES)?.try_into()?,
            states: set.open(layout::STATES)?.try_into()?,
            gates: set.open(layout::GATES)?.try_into()?,
            free: VecDeque::new(),
            unused: 0,
            left: BTreeSet::new(),
            open: BTreeSet::new(),
            ended: Arc::default(),
        })))
    }

    /// Takes out what the process that used these maps before has left there. It was killed, or
    /// there is nothing.
    pub(super) fn clear(&self) -> Result<(), MapError> {
        let inner = &mut *self.lock();
        let now = Instant::now();
        for (cookie, route) in inner.routes.iter().collect::<Result<Vec<_>, _>>()? {
            let _ = inner.routes.remove(&cookie);
            let route: Route = bytemuck::cast(route);
            // Its programs may be running for a last time.
            if inner.left.insert(route.slot) {
                inner.free.push_back((now, route.slot));
            }
        }
        // Closed sockets leave by themselves.
        for sockets in [
            &mut inner.hosts,
            &mut inner.unix_hosts,
            &mut inner.bridges,
            &mut inner.injectors,
            &mut inner.targets,
        ] {
            let cookies: Vec<_> = sockets.keys().filter_map(Result::ok).collect();
            for cookie in cookies {
                let _ = sockets.remove(&cookie);
            }
        }
        Ok(())
    }

    /// Finds a place for a channel, with its gate closed; its sockets are in no map yet.
    pub(super) fn reserve(&self) -> Result<u32, EnterError> {
        let mut inner = self.lock();
        let now = Instant::now();
        let rested = |&(ended, _): &(Instant, u32)| now.duration_since(ended) >= REST;
        let slot = if inner.free.front().is_some_and(rested) {
            let (_, slot) = inner.free.pop_front().ok_or(EnterError::Full)?;
            slot
        } else {
            inner.next_unused().ok_or(EnterError::Full)?
        };
        let cleared = inner.states.set(slot, [0; _], 0);
        let closed = cleared.and_then(|()| inner.gates.set(slot, SHUT, 0));
        if let Err(error) = closed {
            inner.free.push_back((now, slot));
            return Err(error.into());
        }
        inner.open.insert(slot);
        Ok(slot)
    }

    /// Puts a channel's sockets into the maps, the host's last: with it the programs run.
    pub(super) fn insert(
        &self,
        slot: u32,
        cookies: Cookies,
        sockets: &Sockets<'_>,
    ) -> Result<(), EnterError> {
        let Inner {
            hosts,
            unix_hosts,
            bridges,
            injectors,
            targets,
            routes,
            ..
        } = &mut *self.lock();
        let route = Route {
            host: cookies.host,
            slot,
            padding: 0,
        };
        for cookie in cookies.all() {
            routes.insert(cookie, bytemuck::cast::<_, [u64; 2]>(route), 0)?;
        }
        targets.insert(cookies.injector, fd(sockets.client), 0)?;
        injectors.insert(cookies.host, fd(sockets.injector_out), 0)?;
        if let (Some(cookie), Some((bridge, bridge_out))) = (cookies.bridge, sockets.bridge) {
            targets.insert(cookies.host, fd(bridge), 0)?;
            targets.insert(cookie, fd(sockets.client), 0)?;
            bridges.insert(cookies.host, fd(bridge_out), 0)?;
            hosts.insert(cookies.host, fd(sockets.host), 0)?;
        } else {
            targets.insert(cookies.host, fd(sockets.client), 0)?;
            unix_hosts.insert(cookies.host, fd(sockets.host), 0)?;
        }
        Ok(())
    }

    /// Takes a channel's sockets out of all maps and gives its place back. What is not there, or
    /// no more, is no mistake: a socket that ends leaves the maps by itself.
    pub(super) fn remove(&self, slot: u32, cookies: Cookies) {
        let inner = &mut *self.lock();
        if cookies.bridge.is_some() {
            let _ = inner.hosts.remove(&cookies.host);
            let _ = inner.bridges.remove(&cookies.host);
        } else {
            let _ = inner.unix_hosts.remove(&cookies.host);
        }
        let _ = inner.injectors.remove(&cookies.host);
        for cookie in cookies.all() {
            let _ = inner.targets.remove(&cookie);
            let _ = inner.routes.remove(&cookie);
        }
        inner.end(slot);
        inner.free.push_back((Instant::now(), slot));
    }

    /// Whether the maps have these sockets as those of a channel with this place.
    pub(super) fn has(&self, slot: u32, cookies: Cookies) -> bool {
        let inner = self.lock();
        let route = Route {
            host: cookies.host,
            slot,
            padding: 0,
        };
        let is_there = |cookie| {
            let found = inner.routes.get(&cookie, 0);
            found.is_ok_and(|found| bytemuck::cast::<_, Route>(found) == route)
        };
        inner.state(slot).is_ok() && cookies.all().into_iter().all(is_there)
    }

    /// Counts a channel that another process has had until now.
    pub(super) fn adopt(&self, slot: u32) {
        self.lock().open.insert(slot);
    }

    /// Another process has the channel from now on. Its place is free here never again.
    pub(super) fn let_go(&self, slot: u32) {
        self.lock().end(slot);
    }

    /// What was counted for channels that have ended here; after the last one, of all.
    pub(super) fn ended(&self) -> Arc<Ended> {
        Arc::clone(&self.lock().ended)
    }

    /// What the programs have counted for all channels, one call of the system for each that is
    /// open.
    pub(super) fn totals(&self) -> State {
        let inner = self.lock();
        let open = inner.open.iter().filter_map(|&slot| inner.state(slot).ok());
        open.fold(inner.ended.total(), |sum, state| sum.plus(&state))
    }

    /// What the programs have counted.
    pub(super) fn state(&self, slot: u32) -> Result<State, MapError> {
        self.lock().state(slot)
    }

    /// Tells the host leg's program.
    pub(super) fn set_gate(&self, slot: u32, gate: Gate) -> Result<(), MapError> {
        self.lock()
            .gates
            .set(slot, bytemuck::cast::<_, [u64; 2]>(gate), 0)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// A slot that no channel has had.
    fn next_unused(&mut self) -> Option<u32> {
        while self.unused < self.states.len() {
            let slot = self.unused;
            self.unused += 1;
            if !self.left.remove(&slot) {
                return Some(slot);
            }
        }
        None
    }

    /// Keeps what was counted for a channel that is open here no more.
    fn end(&mut self, slot: u32) {
        if self.open.remove(&slot)
            && let Ok(state) = self.state(slot)
        {
            self.ended.add(&state);
        }
    }

    fn state(&self, slot: u32) -> Result<State, MapError> {
        Ok(bytemuck::cast(self.states.get(&slot, 0)?))
    }
}

impl Cookies {
    fn all(self) -> impl Iterator<Item = u64> {
        [self.host, self.injector].into_iter().chain(self.bridge)
    }
}

fn fd(socket: BorrowedFd<'_>) -> impl AsRawFd {
    socket
}
