//! The life of a channel whose downlink the kernel moves.
//!
//! The rules of a channel - frames of control, ends, limits - are those of `relay`, which runs on
//! legs that bring it what is left for userspace: the uplink, control frames and ends. Only the
//! limit on time without progress is kept here, where the kernel's progress is seen.

use std::convert::Infallible;
use std::future::pending;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;

use super::client::ClientLeg;
use super::host::HostLeg;
use super::link::Link;
use crate::ending::Ending;
use crate::{Counters, Limits, Order, Outcome, Rest, relay};

/// Longer than any channel lives.
const NEVER: Duration = Duration::from_secs(10 * 365 * 24 * 3_600);
/// Bytes that no connection moves in a millisecond: 16 GiB/s.
const FASTEST: u64 = (16 << 30) / 1_000;
/// What can be sent with a used-up key in that time is little of what a key bears.
const SHORTEST_LOOK: Duration = Duration::from_millis(50);

/// Moves a channel's bytes until both sides have ended, or until it is ordered to stand still.
pub(super) async fn run(
    link: &Link,
    rest: Rest,
    limits: Limits,
    counters: &Counters,
    orders: impl FnMut(&mut Context<'_>) -> Poll<Order>,
) -> Outcome {
    link.begin();
    let _counted = counters.count_in_kernel(link.downlink_count());
    let (mut client, mut host) = (ClientLeg::new(link), HostLeg::new(link));
    let limit = limits.close_timeout;
    let limits = Limits {
        close_timeout: NEVER,
        ..limits
    };
    let outcome = {
        let relay = relay::carry(&mut client, &mut host, rest, limits, counters, orders);
        let mut relay = std::pin::pin!(relay);
        let in_time = tokio::select! {
            outcome = relay.as_mut() => Some(outcome),
            () = standstill(link, limit) => None,
            never = wake_before_worn(link) => match never {},
        };
        if let Some(outcome) = in_time {
            outcome
        } else {
            // All that the relay waits for fails now, and it ends with its own reason.
            link.abandon();
            relay.await
        }
    };
    if let Outcome::Frozen(_) = outcome {
        link.keep(host.into_owed());
    }
    outcome
}

/// Wakes the relay, which shares its task with this, when the client's key may be used up: while
/// only the host speaks nothing else does.
async fn wake_before_worn(link: &Link) -> Infallible {
    let Some(limit) = link.client.limit() else {
        return pending().await;
    };
    loop {
        let sent = link.state().map_or(limit, |state| state.to_client());
        tokio::time::sleep(next_look(limit.saturating_sub(sent))).await;
    }
}

/// How long a channel that may send so many bytes yet need not be looked at.
fn next_look(left: u64) -> Duration {
    Duration::from_millis(left / FASTEST).max(SHORTEST_LOOK)
}

/// Ready once a channel that is ending has not moved a byte for this long.
async fn standstill(link: &Link, limit: Duration) {
    link.ending().await;
    let progress = || [Some(link.progress()), None];
    let mut ending = Ending::new(limit, Instant::now(), progress());
    loop {
        tokio::time::sleep_until(ending.deadline()).await;
        if ending.on_timer(Instant::now(), progress) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_looked_at_before_it_can_be_worn() {
        assert_eq!(next_look(0), SHORTEST_LOOK);
        assert_eq!(next_look(1 << 20), SHORTEST_LOOK);
        let whole = next_look(1 << 38);
        assert!((15..17).contains(&whole.as_secs()), "{whole:?}");
    }
}
