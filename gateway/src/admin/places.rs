//! Who holds the places at one of the administrators' doors.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::time::Instant;

/// The places of one door. Whoever waits for nothing but its own next request gives way to
/// newcomers, the longest idle one first: so connections that say nothing keep nobody out.
pub(super) struct Places {
    most: usize,
    holders: Mutex<Holders>,
    /// There is a place, or somebody who can give way.
    changed: Notify,
}

#[derive(Default)]
struct Holders {
    taken: u64,
    by_number: BTreeMap<u64, Holder>,
}

struct Holder {
    /// `None`: a request is being answered.
    idle_since: Option<Instant>,
    gives_way: Arc<Notify>,
}

impl Holders {
    fn enter(&mut self) -> (u64, Arc<Notify>) {
        self.taken += 1;
        let gives_way = Arc::<Notify>::default();
        let holder = Holder {
            idle_since: Some(Instant::now()),
            gives_way: Arc::clone(&gives_way),
        };
        self.by_number.insert(self.taken, holder);
        (self.taken, gives_way)
    }

    /// Sends the longest idle one away, if one is idle.
    fn make_room(&mut self) -> bool {
        let idle = self.by_number.iter();
        let idle = idle.filter_map(|(&number, holder)| Some((holder.idle_since?, number)));
        let Some((_, number)) = idle.min() else {
            return false;
        };
        if let Some(holder) = self.by_number.remove(&number) {
            holder.gives_way.notify_one();
        }
        true
    }
}

impl Places {
    /// At most this many.
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self {
            most,
            holders: Mutex::default(),
            changed: Notify::new(),
        })
    }

    /// A place for a connection, which may cost another one its own. Waits only while requests
    /// are being answered at all of them.
    pub(super) async fn take(self: &Arc<Self>) -> Place {
        loop {
            let changed = self.changed.notified();
            {
                let mut holders = self.lock();
                if holders.by_number.len() < self.most || holders.make_room() {
                    let (number, gives_way) = holders.enter();
                    return Place {
                        number,
                        gives_way,
                        places: Arc::clone(self),
                    };
                }
            }
            changed.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Holders> {
        self.holders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection's place; free again when dropped.
pub(super) struct Place {
    number: u64,
    gives_way: Arc<Notify>,
    places: Arc<Places>,
}

impl Place {
    /// Ready once the connection is to end, as another one needs its place.
    pub(super) async fn is_needed(&self) {
        self.gives_way.notified().await;
    }

    /// Notes that a request is being answered, until the result is dropped.
    pub(super) fn answering(self: &Arc<Self>) -> Answering {
        self.note(None);
        Answering(Arc::clone(self))
    }

    fn note(&self, idle_since: Option<Instant>) {
        if let Some(holder) = self.places.lock().by_number.get_mut(&self.number) {
            holder.idle_since = idle_since;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.lock().by_number.remove(&self.number);
        self.places.changed.notify_waiters();
    }
}

/// While this lives its connection keeps its place.
pub(super) struct Answering(Arc<Place>);

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.note(Some(Instant::now()));
        self.0.places.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use std::pin::{Pin, pin};
    use std::task::{Context, Poll, Waker};
    use std::time::Duration;

    use super::*;

    fn is_ready<T>(future: Pin<&mut impl Future<Output = T>>) -> bool {
        let polled = future.poll(&mut Context::from_waker(Waker::noop()));
        matches!(polled, Poll::Ready(_))
    }

    fn is_needed(place: &Place) -> bool {
        is_ready(pin!(place.is_needed()))
    }

    async fn later() {
        tokio::time::advance(Duration::from_millis(1)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn the_longest_idle_one_gives_way() {
        let places = Places::new(2);
        let asks = Arc::new(places.take().await);
        later().await;
        let idle = places.take().await;
        later().await;
        // Older, but it has just had an answer.
        drop(asks.answering());
        later().await;
        let _new = places.take().await;
        assert!(is_needed(&idle));
        assert!(!is_needed(&asks));
        // What is over twice frees no other's place.
        drop(idle);
        later().await;
        let _newer = places.take().await;
        assert!(is_needed(&asks));
    }

    #[tokio::test(start_paused = true)]
    async fn a_place_where_a_request_is_answered_is_kept() {
        let places = Places::new(1);
        let asks = Arc::new(places.take().await);
        let answering = asks.answering();
        let mut next = pin!(places.take());
        assert!(!is_ready(next.as_mut()));
        assert!(!is_needed(&asks));
        drop(answering);
        let next = next.await;
        assert!(is_needed(&asks));
        drop(next);
        let _free = places.take().await;
    }
}
