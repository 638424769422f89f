//! What wakes a channel whose downlink the kernel moves: the end of its host leg, bytes that
//! passed, and nothing else.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

use atomic_waker::AtomicWaker;
use gateway_common::layout;
use rustix::event::{Timespec, epoll};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::error;

use super::logger::Logger;
use super::registered::register;
use super::ring::Ring;
use crate::supervise::{Supervised, supervised};

/// Bytes of the host wait for userspace.
pub(super) const PASSED: u64 = layout::PASSED;
/// Bytes were lost.
pub(super) const BROKEN: u64 = layout::BROKEN;
/// A segment of the host does not follow the one before.
pub(super) const MISPLACED: u64 = layout::MISPLACED;
/// The send buffer of a host on a Unix socket fills.
pub(super) const HELD_UP: u64 = layout::HELD_UP;
/// The host leg has ended or broken.
pub(super) const ENDED: u64 = 4;
/// The client leg has broken, or both its directions have ended.
pub(super) const CLIENT_LOST: u64 = 8;

/// Tells a client leg from the host leg of the same cookie; cookies are far from that long.
const CLIENT: u64 = 1 << 63;

/// How long watching rests after a failure.
const PAUSE: Duration = Duration::from_secs(1);

/// What may have happened to a channel that was not told: the counters say more.
const UNTOLD: u64 = PASSED | HELD_UP;

/// How often channels look for themselves while another process reads the ring of events.
const LOOK: Duration = Duration::from_millis(20);

/// How long the ring is left to the process that has taken a channel over.
const LEFT: Duration = Duration::from_secs(1);

/// Most events that are taken at a time.
const EVENTS: usize = 256;

/// What has happened to one channel and was not looked at yet.
#[derive(Debug, Default)]
pub(super) struct Signal {
    happened: AtomicU64,
    waker: AtomicWaker,
}

impl Signal {
    /// Registers who is to be woken, and takes what has happened.
    pub(super) fn take(&self, waker: &Waker) -> u64 {
        // Registering first, so that nothing in between is missed.
        self.waker.register(waker);
        self.happened.swap(0, Ordering::AcqRel)
    }

    /// Lets the channel look again.
    pub(super) fn raise(&self, what: u64) {
        self.happened.fetch_or(what, Ordering::AcqRel);
        self.waker.wake();
    }
}

/// Watches all channels.
pub(super) struct Watch {
    /// Apart from the runtime's own, which would wake for each segment of a host.
    legs: OwnedFd,
    signals: Mutex<HashMap<u64, Arc<Signal>>>,
    /// Another process has taken a channel over.
    shared: Notify,
}

impl Watch {
    /// Starts watching, in the runtime that this is called in, until the task is dropped.
    pub(super) fn start(
        mut ring: Ring,
        logger: Option<Logger>,
    ) -> io::Result<(Arc<Self>, Supervised<Infallible>)> {
        let watch = Arc::new(Self {
            legs: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            signals: Mutex::default(),
            shared: Notify::new(),
        });
        let readable = Interest::READABLE;
        let legs = register(watch.legs.try_clone()?, readable).map_err(|(_, error)| error)?;
        ring.begin()?;
        let log = logger.map(|logger| register(logger, readable).map_err(|(_, error)| error));
        let log = log.transpose()?;
        let watcher = Watcher {
            watch: Arc::clone(&watch),
            has_begun: false,
            legs,
            ring,
            log,
        };
        let watcher = supervised("sockmap", watcher, |watcher| Box::pin(watcher.run()));
        Ok((watch, watcher))
    }

    /// Watches both legs of a channel, known by the cookie of the host leg.
    pub(super) fn add(
        &self,
        cookie: u64,
        host: impl AsFd,
        client: impl AsFd,
    ) -> io::Result<Arc<Signal>> {
        let signal = Arc::<Signal>::default();
        self.lock().insert(cookie, Arc::clone(&signal));
        let data = epoll::EventData::new_u64;
        let once = epoll::EventFlags::ET;
        let ends = once | epoll::EventFlags::RDHUP;
        let added = epoll::add(&self.legs, &host, data(cookie), ends)
            .and_then(|()| epoll::add(&self.legs, &client, data(cookie | CLIENT), once));
        if let Err(error) = added {
            self.remove(cookie, host, client);
            return Err(error.into());
        }
        Ok(signal)
    }

    /// Forgets a channel's legs.
    pub(super) fn remove(&self, cookie: u64, host: impl AsFd, client: impl AsFd) {
        // The worst that a descriptor left behind can do is to wake for nothing.
        let _ = epoll::delete(&self.legs, host);
        let _ = epoll::delete(&self.legs, client);
        self.lock().remove(&cookie);
    }

    /// Lets the process that has taken a channel over read the ring of events.
    pub(super) fn leave_ring(&self) {
        self.shared.notify_one();
    }

    fn raise(&self, cookie: u64, what: u64) {
        if let Some(signal) = self.lock().get(&cookie) {
            signal.raise(what);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Arc<Signal>>> {
        self.signals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn raise_all(&self, what: u64) {
        for signal in self.lock().values() {
            signal.raise(what);
        }
    }

    /// Tells the channels whose legs have ended; false: there was none.
    fn take_legs(&self) -> io::Result<bool> {
        let mut events = Vec::with_capacity(EVENTS);
        let space = rustix::buffer::spare_capacity(&mut events);
        match epoll::wait(&self.legs, space, Some(&Timespec::default())) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok(true),
            Err(error) => return Err(error.into()),
        }
        for event in &events {
            let key = event.data.u64();
            let what = if key & CLIENT == 0 {
                ENDED
            } else {
                CLIENT_LOST
            };
            self.raise(key & !CLIENT, what);
        }
        Ok(!events.is_empty())
    }
}

/// What the task that watches has.
struct Watcher {
    watch: Arc<Watch>,
    /// Channels may be there before it watches for the first time, and miss nothing.
    has_begun: bool,
    legs: AsyncFd<OwnedFd>,
    ring: Ring,
    log: Option<AsyncFd<Logger>>,
}

impl Watcher {
    /// Watches for ever. A failure, or a panic before, ends the channels that are open: an event
    /// may have been taken and not told. Those that come later are watched again.
    async fn run(&mut self) -> Infallible {
        loop {
            if std::mem::replace(&mut self.has_begun, true) {
                self.watch.raise_all(BROKEN);
            }
            let Self {
                watch,
                has_begun: _,
                legs,
                ring,
                log,
            } = self;
            let watching = async {
                tokio::try_join!(run_legs(watch, legs), run_ring(watch, ring), run_log(log))
            };
            let Err(error) = watching.await;
            error!(%error, "channels on sockmap end, because they could not be watched");
            tokio::time::sleep(PAUSE).await;
        }
    }
}

async fn run_legs(watch: &Watch, legs: &AsyncFd<OwnedFd>) -> io::Result<Infallible> {
    loop {
        let mut ready = legs.readable().await?;
        while watch.take_legs()? {}
        ready.clear_ready();
    }
}

/// Tells the channels what the programs say. While another process reads that, lets them look at
/// what the programs have counted instead.
async fn run_ring(watch: &Watch, ring: &mut Ring) -> io::Result<Infallible> {
    let mut left_until = Instant::now();
    loop {
        while Instant::now() < left_until || !ring.begin().unwrap_or(false) {
            watch.raise_all(UNTOLD);
            tokio::time::sleep(LOOK).await;
        }
        // Nobody was told of what another process has read for itself.
        watch.raise_all(UNTOLD);
        let left = async {
            loop {
                tokio::select! {
                    biased;
                    () = watch.shared.notified() => return io::Result::Ok(()),
                    read = ring.read(|event| watch.raise(event.host, event.kind)) => {
                        if read? {
                            // A host that is held up sends nothing more, and so is told of once.
                            watch.raise_all(UNTOLD);
                        }
                    }
                }
            }
        };
        left.await?;
        ring.end();
        left_until = Instant::now() + LEFT;
    }
}

async fn run_log(log: &mut Option<AsyncFd<Logger>>) -> io::Result<Infallible> {
    let Some(log) = log else {
        return std::future::pending().await;
    };
    loop {
        let mut ready = log.readable_mut().await?;
        ready.get_inner_mut().flush();
        ready.clear_ready();
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn channels_that_were_not_watched_for_a_while_are_told_to_end() {
        let watch = Watch {
            legs: epoll::create(epoll::CreateFlags::CLOEXEC).unwrap(),
            signals: Mutex::default(),
            shared: Notify::new(),
        };
        let (host, client) = UnixStream::pair().unwrap();
        let signal = watch.add(7, &host, &client).unwrap();
        let waker = Waker::noop();
        assert_eq!(signal.take(waker), 0);
        watch.raise_all(BROKEN);
        assert_eq!(signal.take(waker), BROKEN);
        watch.remove(7, &host, &client);
    }
}
