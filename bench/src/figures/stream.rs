//! Bytes in one direction, as fast as they go.

use anyhow::Result;
use testkit::spice::ChannelType;

use super::{Bench, Outcome, all, close_channels, open_channels};
use crate::cpu::{Gauge, Usage};
use crate::metric::cpu_values;
use crate::peers::Peer;
use crate::statistics::float;

/// The host sends about `total` bytes in writes of `write` bytes, spread over channels.
pub(super) async fn downlink(
    bench: &Bench,
    peer: &Peer,
    write: u32,
    channels: usize,
    total: u64,
) -> Result<Outcome> {
    let each = (total / channels as u64).max(u64::from(write));
    let opened = open_channels(bench, peer, ChannelType::Display, channels).await?;
    let gauge = Gauge::start(peer.pid())?;
    let tasks = opened.into_iter().map(|mut channel| async move {
        channel.downlink(write, each).await?;
        Ok(channel)
    });
    let opened = all(tasks).await?;
    let usage = gauge.finish()?;
    close_channels(bench, opened).await?;
    Ok(outcome(usage, each * channels as u64))
}

/// The client sends `total` bytes in messages of `message` bytes on one channel.
pub(super) async fn uplink(
    bench: &Bench,
    peer: &Peer,
    message: usize,
    total: u64,
) -> Result<Outcome> {
    let mut opened = open_channels(bench, peer, ChannelType::Display, 1).await?;
    let gauge = Gauge::start(peer.pid())?;
    for channel in &mut opened {
        channel.uplink(message, total).await?;
    }
    let usage = gauge.finish()?;
    close_channels(bench, opened).await?;
    Ok(outcome(usage, total))
}

fn outcome(usage: Usage, bytes: u64) -> Outcome {
    const MIB: f64 = 1_048_576.0;
    let mib = float(bytes) / MIB;
    let mut values = cpu_values(&usage, mib / 1024.0, 1.0);
    values.insert("rate".to_owned(), mib / usage.wall);
    Outcome {
        work: bytes,
        usage,
        values,
    }
}
