//! Draining: no new desktop sessions, while those that are open go on.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tracing::info;

use crate::channel::Registry;
use crate::ticket::Tickets;
use gateway_datapath::end_reason::StopCause;

/// Whether the gateway drains.
pub struct Drain {
    channels: Arc<Registry>,
    tickets: Arc<Tickets>,
    /// `Some` while draining.
    state: Mutex<Option<Draining>>,
    /// Told when new desktop sessions begin to be refused.
    refused: Notify,
    count: AtomicU64,
}

struct Draining {
    /// The time is over in which balancers may still send new clients.
    refuses: bool,
    /// Ends that time.
    delay: Option<Task>,
    /// Ends the sessions that are left when theirs is over.
    _limit: Option<Task>,
}

/// A task that ends with this.
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Drain {
    /// Not draining; `channels` are those that a limit on time ends, and with signed ones of
    /// `tickets` sessions begin that are refused.
    pub fn new(channels: Arc<Registry>, tickets: Arc<Tickets>) -> Self {
        Self {
            channels,
            tickets,
            state: Mutex::new(None),
            refused: Notify::new(),
            count: AtomicU64::new(0),
        }
    }

    /// Tells balancers from now on that the gateway drains, and refuses new desktop sessions after
    /// `delay`. Those that are open may go on for `limit`, or as long as they like. A limit takes
    /// the place of an earlier one; a delay that runs already goes on, unless there is to be none.
    /// Must be called in a runtime.
    pub fn begin(self: &Arc<Self>, limit: Option<Duration>, delay: Option<Duration>) {
        let limiting = limit.map(|limit| {
            let channels = Arc::clone(&self.channels);
            Task(tokio::spawn(async move {
                tokio::time::sleep(limit).await;
                let channels = channels.stop_open(StopCause::Drained);
                info!(channels, "the time for draining is over");
            }))
        });
        let mut state = self.lock();
        let before = state.take();
        if before.is_none() {
            self.count.fetch_add(1, Ordering::Relaxed);
        }
        let (began, running) = before.map_or((false, None), |mut before| {
            (before.refuses, before.delay.take())
        });
        let delay = delay.filter(|_| !began);
        let waiting = delay.map(|delay| running.unwrap_or_else(|| self.refuse_after(delay)));
        let refuses = waiting.is_none();
        *state = Some(Draining {
            refuses,
            delay: waiting,
            _limit: limiting,
        });
        self.tickets.set_closed(refuses);
        if refuses {
            self.refused.notify_waiters();
        }
        info!(
            sessions = self.channels.session_count(),
            seconds = limit.map(|limit| limit.as_secs()),
            delay = delay.map(|delay| delay.as_secs()),
            "draining"
        );
    }

    fn refuse_after(self: &Arc<Self>, delay: Duration) -> Task {
        let drain = Arc::downgrade(self);
        Task(tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            let Some(drain) = drain.upgrade() else {
                return;
            };
            let mut state = drain.lock();
            // What was ended meanwhile has another delay, or none.
            if let Some(draining) = &mut *state
                && draining.delay.is_some()
            {
                draining.refuses = true;
                drain.tickets.set_closed(true);
                drain.refused.notify_waiters();
            }
        }))
    }

    /// Takes new desktop sessions again.
    pub fn end(&self) {
        let mut state = self.lock();
        self.tickets.set_closed(false);
        if state.take().is_some() {
            info!("no longer draining");
        }
    }

    /// Whether the gateway drains, as balancers are told.
    pub fn is_on(&self) -> bool {
        self.lock().is_some()
    }

    /// Whether new desktop sessions are refused.
    pub fn refuses(&self) -> bool {
        self.lock()
            .as_ref()
            .is_some_and(|draining| draining.refuses)
    }

    /// Waits until new desktop sessions are refused; cancel safe.
    pub async fn refusing(&self) {
        loop {
            // Whoever waits is told of what happens from here on.
            let refused = self.refused.notified();
            if self.refuses() {
                return;
            }
            refused.await;
        }
    }

    /// How often draining began.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Draining>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);

    fn drain() -> (Arc<Drain>, Arc<Tickets>) {
        let tickets = Tickets::new(Duration::ZERO, Duration::ZERO).unwrap();
        let tickets = Arc::new(tickets);
        let drain = Drain::new(Arc::default(), Arc::clone(&tickets));
        (Arc::new(drain), tickets)
    }

    #[tokio::test]
    async fn goes_on_and_off() {
        let (drain, _) = drain();
        assert!(!drain.is_on());
        drain.begin(None, None);
        drain.begin(Some(HOUR), None);
        assert!(drain.is_on() && drain.refuses());
        drain.end();
        drain.end();
        assert!(!drain.is_on() && !drain.refuses());
        drain.begin(None, None);
        assert_eq!(drain.count(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn balancers_have_time_before_anybody_is_refused() {
        let (drain, tickets) = drain();
        let refuses = || (drain.refuses(), tickets.is_closed());
        let sleep = async |seconds| tokio::time::sleep(Duration::from_secs(seconds)).await;
        let delay = Some(Duration::from_secs(5));
        drain.begin(None, delay);
        assert!(drain.is_on());
        sleep(4).await;
        assert_eq!(refuses(), (false, false));
        let waiting = tokio::spawn({
            let drain = Arc::clone(&drain);
            async move { drain.refusing().await }
        });
        // Another limit is no reason to wait longer.
        drain.begin(Some(HOUR), delay);
        assert!(!waiting.is_finished());
        sleep(2).await;
        assert_eq!(refuses(), (true, true));
        assert!(waiting.is_finished());
        drain.begin(None, delay);
        assert_eq!(refuses(), (true, true));

        drain.end();
        assert_eq!(refuses(), (false, false));
        drain.begin(None, delay);
        sleep(1).await;
        drain.end();
        sleep(10).await;
        assert_eq!(refuses(), (false, false));
        drain.begin(None, delay);
        drain.begin(None, None);
        assert_eq!(refuses(), (true, true));
    }
}
