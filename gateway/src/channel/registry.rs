//! The channels that are open, and the way to end them.

use std::collections::HashMap;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use atomic_waker::AtomicWaker;

use crate::session::ChannelId;

/// All open channels.
#[derive(Default)]
pub struct Registry(Mutex<Channels>);

#[derive(Default)]
struct Channels {
    open: HashMap<ChannelId, Arc<StopSignal>>,
    /// Channels that come now are to end at once.
    stopping: bool,
}

/// Asks one channel to end.
#[derive(Default)]
pub struct StopSignal {
    stopped: AtomicBool,
    waker: AtomicWaker,
}

impl StopSignal {
    fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        self.waker.wake();
    }

    /// Ready once the channel is to end.
    pub fn stopped(&self) -> impl Future<Output = ()> {
        std::future::poll_fn(|context| {
            // Registering first, so that a stop in between is not missed.
            self.waker.register(context.waker());
            if self.stopped.load(Ordering::Acquire) {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
    }
}

/// A channel's place in the registry; it leaves when dropped.
pub struct Registration {
    id: ChannelId,
    signal: Arc<StopSignal>,
    registry: Arc<Registry>,
}

impl Registration {
    /// What asks this channel to end.
    pub fn stop_signal(&self) -> &StopSignal {
        &self.signal
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.registry.lock().open.remove(&self.id);
    }
}

impl Registry {
    /// Enters a channel.
    pub fn register(self: &Arc<Self>, id: ChannelId) -> Registration {
        let signal = Arc::<StopSignal>::default();
        let mut channels = self.lock();
        if channels.stopping {
            signal.stop();
        }
        channels.open.insert(id, Arc::clone(&signal));
        Registration {
            id,
            signal,
            registry: Arc::clone(self),
        }
    }

    /// Asks all channels to end, those to come too; returns how many are open.
    pub fn stop_all(&self) -> usize {
        let mut channels = self.lock();
        channels.stopping = true;
        for signal in channels.open.values() {
            signal.stop();
        }
        channels.open.len()
    }

    fn lock(&self) -> MutexGuard<'_, Channels> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn stops_every_channel_and_forgets_those_that_ended() {
        let registry = Arc::<Registry>::default();
        let first = registry.register(ChannelId::next());
        drop(registry.register(ChannelId::next()));
        let waiting = tokio::spawn(async move { first.stop_signal().stopped().await });
        tokio::task::yield_now().await;
        assert_eq!(registry.stop_all(), 1);
        waiting.await.unwrap();
        assert_eq!(registry.stop_all(), 0);
        registry
            .register(ChannelId::next())
            .stop_signal()
            .stopped()
            .await;
    }
}
