//! Clients that do not read: what the peer spends on waiting for them.

use std::time::Duration;

use anyhow::Result;
use testkit::spice::ChannelType;

use super::{Bench, Outcome, open_channels};
use crate::cpu::Gauge;
use crate::metric::cpu_values;
use crate::peers::Peer;

/// What each host sends, in bytes: more than all buffers on the way hold.
const OFFERED: u64 = 64 << 20;
const WRITE: u32 = 64 << 10;
/// After which all buffers are full.
const FILLED: Duration = Duration::from_secs(2);
const MEASURED: Duration = Duration::from_secs(3);
const MILLISECONDS: f64 = 1e3;

/// Lets hosts send on `channels` channels until all buffers are full, and measures from then on.
pub(super) async fn measure(bench: &Bench, peer: &Peer, channels: usize) -> Result<Outcome> {
    let mut opened = open_channels(bench, peer, ChannelType::Display, channels).await?;
    for channel in &mut opened {
        channel.begin_downlink(WRITE, OFFERED).await?;
    }
    tokio::time::sleep(FILLED).await;
    let gauge = Gauge::start(peer.pid())?;
    tokio::time::sleep(MEASURED).await;
    let usage = gauge.finish()?;
    // With what was not read a close is a RST, which ends the hosts as well.
    drop(opened);
    bench.host.idle().await?;
    Ok(Outcome {
        work: channels as u64,
        values: cpu_values(&usage, usage.wall, MILLISECONDS),
        usage,
    })
}
