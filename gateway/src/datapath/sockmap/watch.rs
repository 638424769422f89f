//! What wakes a channel whose downlink the kernel moves: the end of its host leg, bytes that
//! passed, and nothing else.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use atomic_waker::AtomicWaker;
use aya::maps::{MapData, RingBuf};
use gateway_common::layout::{self, Event};
use rustix::event::{Timespec, epoll};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::task::JoinHandle;
use tracing::warn;

use super::logger::Logger;
use super::registered::register;

/// Bytes of the host wait for userspace.
pub(super) const PASSED: u64 = layout::PASSED;
/// Bytes were lost.
pub(super) const BROKEN: u64 = layout::BROKEN;
/// A segment of the host does not follow the one before.
pub(super) const MISPLACED: u64 = layout::MISPLACED;
/// The host leg has ended or broken.
pub(super) const ENDED: u64 = 4;
/// The client leg has broken, or both its directions have ended.
pub(super) const CLIENT_LOST: u64 = 8;

/// Tells a client leg from the host leg of the same cookie; cookies are far from that long.
const CLIENT: u64 = 1 << 63;

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
}

impl Watch {
    /// Starts watching, in the runtime that this is called in, until the task is aborted.
    pub(super) fn start(
        events: RingBuf<MapData>,
        logger: Option<Logger>,
    ) -> io::Result<(Arc<Self>, JoinHandle<()>)> {
        let watch = Arc::new(Self {
            legs: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            signals: Mutex::default(),
        });
        let readable = Interest::READABLE;
        let legs = register(watch.legs.try_clone()?, readable).map_err(|(_, error)| error)?;
        let ring = register(events, readable).map_err(|(_, error)| error)?;
        let log = logger.map(|logger| register(logger, readable).map_err(|(_, error)| error));
        let log = log.transpose()?;
        let watcher = Arc::clone(&watch);
        let watcher = tokio::spawn(async move {
            let run = async {
                tokio::try_join!(watcher.run_legs(legs), watcher.run_ring(ring), run_log(log))
            };
            if let Err(error) = run.await {
                warn!(%error, "channels of the data path sockmap are no longer watched");
            }
        });
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

    fn raise(&self, cookie: u64, what: u64) {
        if let Some(signal) = self.lock().get(&cookie) {
            signal.raise(what);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Arc<Signal>>> {
        self.signals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn run_legs(&self, legs: AsyncFd<OwnedFd>) -> io::Result<()> {
        loop {
            let mut ready = legs.readable().await?;
            while self.take_legs()? {}
            ready.clear_ready();
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

    async fn run_ring(&self, mut ring: AsyncFd<RingBuf<MapData>>) -> io::Result<()> {
        loop {
            let mut ready = ring.readable_mut().await?;
            while let Some(item) = ready.get_inner_mut().next() {
                if let Ok(event) = bytemuck::try_pod_read_unaligned::<Event>(&item) {
                    self.raise(event.host, event.kind);
                }
            }
            ready.clear_ready();
        }
    }
}

async fn run_log(log: Option<AsyncFd<Logger>>) -> io::Result<()> {
    let Some(mut log) = log else {
        return Ok(());
    };
    loop {
        let mut ready = log.readable_mut().await?;
        ready.get_inner_mut().flush();
        ready.clear_ready();
    }
}
