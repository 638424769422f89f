//! Draining: no new desktop sessions, while those that are open go on.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;
use tracing::info;

use crate::channel::Registry;
use crate::ticket::Tickets;
use gateway_datapath::end_reason::StopCause;

/// What clients are told while the gateway drains.
pub const MESSAGE: &str = "No new desktops are opened here at the moment. Please try again later.";

/// Whether the gateway drains.
pub struct Drain {
    channels: Arc<Registry>,
    tickets: Arc<Tickets>,
    /// Ends the sessions that are left when their time is over; `Some` while draining.
    state: Mutex<Option<Draining>>,
    count: AtomicU64,
}

struct Draining {
    limit: Option<JoinHandle<()>>,
}

impl Drop for Draining {
    fn drop(&mut self) {
        if let Some(limit) = &self.limit {
            limit.abort();
        }
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
            count: AtomicU64::new(0),
        }
    }

    /// Refuses new desktop sessions from now on. Those that are open may go on for `limit`, or
    /// as long as they like; a limit takes the place of an earlier one. Must be called in a
    /// runtime.
    pub fn begin(&self, limit: Option<Duration>) {
        let task = limit.map(|limit| {
            let channels = Arc::clone(&self.channels);
            tokio::spawn(async move {
                tokio::time::sleep(limit).await;
                let channels = channels.stop_open(StopCause::Drained);
                info!(channels, "the time for draining is over");
            })
        });
        let mut state = self.lock();
        if state.is_none() {
            self.count.fetch_add(1, Ordering::Relaxed);
        }
        *state = Some(Draining { limit: task });
        self.tickets.set_closed(true);
        info!(
            sessions = self.channels.session_count(),
            seconds = limit.map(|limit| limit.as_secs()),
            "draining"
        );
    }

    /// Takes new desktop sessions again.
    pub fn end(&self) {
        let mut state = self.lock();
        self.tickets.set_closed(false);
        if state.take().is_some() {
            info!("no longer draining");
        }
    }

    /// Whether new desktop sessions are refused.
    pub fn is_on(&self) -> bool {
        self.lock().is_some()
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

    #[tokio::test]
    async fn goes_on_and_off() {
        let tickets = Tickets::new(Duration::ZERO, Duration::ZERO).unwrap();
        let drain = Drain::new(Arc::default(), Arc::new(tickets));
        assert!(!drain.is_on());
        drain.begin(None);
        drain.begin(Some(Duration::from_secs(3_600)));
        assert!(drain.is_on());
        drain.end();
        drain.end();
        assert!(!drain.is_on());
        drain.begin(None);
        assert_eq!(drain.count(), 2);
    }
}
