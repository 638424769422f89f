//! The life of a channel whose downlink the kernel moves.
//!
//! The rules of a channel - frames of control, ends, limits - are those of `relay`, which runs on
//! legs that bring it what is left for userspace: the uplink, control frames and ends. Only the
//! limit on time without progress is kept here, where the kernel's progress is seen.

use std::future::Future;
use std::time::Duration;

use super::client::ClientLeg;
use super::host::HostLeg;
use super::link::Link;
use crate::datapath::{Counters, EndReason, Inbound, Limits, relay};

/// Longer than any channel lives.
const NEVER: Duration = Duration::from_secs(10 * 365 * 24 * 3_600);

/// Moves a channel's bytes until both sides have ended; says what ended it.
pub(super) async fn run(
    link: &Link,
    inbound: Inbound,
    limits: Limits,
    counters: &Counters,
    stop: impl Future<Output = ()>,
) -> EndReason {
    let _counted = counters.count_in_kernel(link.downlink_count());
    let (mut client, mut host) = (ClientLeg::new(link), HostLeg::new(link));
    let limit = limits.close_timeout;
    let limits = Limits {
        close_timeout: NEVER,
        ..limits
    };
    let relay = relay::run(&mut client, &mut host, inbound, limits, counters, stop);
    let mut relay = std::pin::pin!(relay);
    let in_time = tokio::select! {
        reason = relay.as_mut() => Some(reason),
        () = standstill(link, limit) => None,
    };
    if let Some(reason) = in_time {
        return reason;
    }
    // All that the relay waits for fails now, and it ends with its own reason.
    link.abandon();
    relay.await
}

/// Ready once a channel that is ending has not moved a byte for this long.
async fn standstill(link: &Link, limit: Duration) {
    link.ending().await;
    let mut seen = link.progress();
    loop {
        tokio::time::sleep(limit).await;
        let progress = link.progress();
        if progress == seen {
            return;
        }
        seen = progress;
    }
}
