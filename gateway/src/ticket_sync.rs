//! Tickets that are issued while another process takes over: it knows them before the client gets
//! them, who may come to it at once.

use std::time::Duration;

use tokio::sync::{Notify, watch};

/// Longest wait until the other process knows a ticket; channels that move may go before.
const LIMIT: Duration = Duration::from_secs(5);

/// How many changes of tickets another process knows.
#[derive(Default)]
pub struct TicketSync {
    /// `None`: no other process takes over.
    count: watch::Sender<Option<u64>>,
    is_asked: Notify,
}

impl TicketSync {
    /// Another process takes over from now on, until the result is dropped.
    pub fn begin(&self) -> Syncing<'_> {
        self.count.send_replace(Some(0));
        Syncing(self)
    }

    /// Waits until a process that takes over has been told of the first `count` changes.
    pub async fn wait_for(&self, count: u64) {
        let is_known = |told: &Option<u64>| told.is_none_or(|told| told >= count);
        let mut told = self.count.subscribe();
        if is_known(&told.borrow()) {
            return;
        }
        self.is_asked.notify_one();
        // After that the client has to try again.
        let _ = tokio::time::timeout(LIMIT, told.wait_for(is_known)).await;
    }
}

/// Tells another process of tickets.
pub struct Syncing<'a>(&'a TicketSync);

impl Syncing<'_> {
    /// Waits until somebody waits for a ticket to be told of.
    pub async fn requested(&self) {
        self.0.is_asked.notified().await;
    }

    /// Of how many changes the other process knows.
    pub fn told(&self) -> u64 {
        self.0.count.borrow().unwrap_or_default()
    }

    /// The other process has been told of the first `count` changes.
    pub fn acknowledge(&self, count: u64) {
        self.0.count.send_replace(Some(count));
    }
}

impl Drop for Syncing<'_> {
    fn drop(&mut self) {
        self.0.count.send_replace(None);
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;

    async fn waits(waiting: impl Future<Output = ()> + Unpin) -> bool {
        let limit = Duration::from_millis(1);
        tokio::time::timeout(limit, waiting).await.is_err()
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_unless_a_process_takes_over_that_was_not_told() {
        let told = TicketSync::default();
        told.wait_for(1).await;
        let syncing = told.begin();
        let mut waiting = pin!(told.wait_for(2));
        assert!(waits(&mut waiting).await);
        syncing.requested().await;
        syncing.acknowledge(1);
        assert!(waits(&mut waiting).await);
        syncing.acknowledge(2);
        waiting.await;
        let mut third = pin!(told.wait_for(3));
        assert!(waits(&mut third).await);
        drop(syncing);
        third.await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_that_cannot_be_told_is_not_waited_for_for_ever() {
        let told = TicketSync::default();
        let _telling = told.begin();
        let begun = tokio::time::Instant::now();
        told.wait_for(1).await;
        assert_eq!(begun.elapsed(), LIMIT);
    }
}
