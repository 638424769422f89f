//! Hosts that take a connection and never speak.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Sleep, sleep};

use gateway_datapath::Counters;
use gateway_datapath::end_reason::EndReason;

/// Waits for the first byte of a host. Spice servers answer a link message at once, so one that
/// says nothing will not show its client a desktop, and the client would wait for ever.
pub(super) struct HostSilence {
    /// `None`: the host has spoken.
    wait: Option<Pin<Box<Sleep>>>,
}

impl HostSilence {
    /// The host has this long from now on.
    pub(super) fn new(limit: Duration) -> Self {
        Self {
            wait: Some(Box::pin(sleep(limit))),
        }
    }

    /// Ready with the reason once the time is over in which the host has sent nothing. What it has
    /// sent is looked at only then: the kernel may have to be asked.
    pub(super) fn poll(
        &mut self,
        context: &mut Context<'_>,
        counters: &Counters,
    ) -> Poll<EndReason> {
        let Some(wait) = &mut self.wait else {
            return Poll::Pending;
        };
        if wait.as_mut().poll(context).is_pending() {
            return Poll::Pending;
        }
        self.wait = None;
        if counters.downlink() > 0 {
            return Poll::Pending;
        }
        Poll::Ready(EndReason::HostSilent)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::time::timeout;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn a_host_that_has_spoken_may_be_silent_for_ever() {
        for (spoken, expected) in [(0, Some(EndReason::HostSilent)), (1, None)] {
            let counters = Counters::starting_at(100, spoken, 0);
            let mut silence = HostSilence::new(LIMIT);
            let ended = poll_fn(|context| silence.poll(context, &counters));
            let ended = timeout(LIMIT * 100, ended).await.ok();
            assert_eq!(ended, expected, "{spoken} bytes");
        }
    }
}
