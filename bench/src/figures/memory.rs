//! What open channels take of memory.

use std::time::Duration;

use anyhow::{Context, Result};
use testkit::spice::ChannelType;

use super::{Bench, Outcome, all, close_channels, open_channels};
use crate::client::Channel;
use crate::cpu::Gauge;
use crate::memory::Memory;
use crate::metric::Values;
use crate::peers::Kind;
use crate::statistics::float;

/// How many channels are kept open, where the peer carries as many.
const CHANNELS: usize = 500;
/// What each of them carries while it is busy, in bytes.
const BUSY_BYTES: u64 = 512 << 10;
const BUSY_WRITE: u32 = 1 << 10;
/// How often a busy peer's memory is looked at; it is a costly look.
const LOOK: Duration = Duration::from_millis(100);

/// Measures a peer that did nothing before: memory that was used once is seldom given back.
pub(super) async fn measure(bench: &Bench, kind: Kind) -> Result<Outcome> {
    let channels = CHANNELS.min(kind.most_channels());
    let peer = bench.start_peer(kind).await?;
    let pid = peer.pid().context("a peer without a process")?;
    let first = open_channels(bench, &peer, ChannelType::Display, 1).await?;
    close_channels(bench, first).await?;

    let gauge = Gauge::start(Some(pid))?;
    let before = Memory::now(pid)?;
    let opened = open_channels(bench, &peer, ChannelType::Display, channels).await?;
    let idle = Memory::now(pid)?;
    let (opened, busy) = peak_of(pid, opened).await?;
    let usage = gauge.finish()?;
    close_channels(bench, opened).await?;

    let each = |now: u64, then: u64| (float(now) - float(then)) / 1024.0 / float(channels as u64);
    let values = Values::from([
        ("idle".to_owned(), each(idle.peer, before.peer)),
        ("busy".to_owned(), each(busy.peer, before.peer)),
        ("kernel_idle".to_owned(), each(idle.sockets, before.sockets)),
        ("kernel_busy".to_owned(), each(busy.sockets, before.sockets)),
        ("base".to_owned(), float(before.peer) / 1_048_576.0),
    ]);
    Ok(Outcome {
        work: channels as u64,
        usage,
        values,
    })
}

/// Has all channels carry something at the same time; gives back the most memory that was seen
/// meanwhile.
async fn peak_of(pid: u32, channels: Vec<Channel>) -> Result<(Vec<Channel>, Memory)> {
    let tasks = channels.into_iter().map(|mut channel| async move {
        channel.downlink(BUSY_WRITE, BUSY_BYTES).await?;
        Ok(channel)
    });
    let mut done = std::pin::pin!(all(tasks));
    let mut looks = tokio::time::interval(LOOK);
    let mut peak = Memory::now(pid)?;
    loop {
        tokio::select! {
            channels = &mut done => return Ok((channels?, peak.max(Memory::now(pid)?))),
            _ = looks.tick() => peak = peak.max(Memory::now(pid)?),
        }
    }
}
