//! Channels that have no reason to end before they are told to.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use testkit::pattern::Pattern;
use testkit::prelude::*;
use testkit::ws::Channel;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::stage::{self, Stage};

/// Channels that are opened at the same time.
const AT_ONCE: usize = 20;
/// Longest pause of a channel, in milliseconds.
const LONGEST_PAUSE: u64 = 400;
/// Lengths of what is sent, in bytes.
const PIECES: [usize; 6] = [1, 17, 500, 4_000, 20_000, 60_000];

/// The channels, each of which comes to the bytes that were verified.
pub(super) type Steady = JoinSet<Result<u64>>;

/// Opens channels, half of them over TLS, and `away` more over the line.
pub(super) async fn open(
    stage: &Stage,
    count: usize,
    away: usize,
    ending: &watch::Receiver<bool>,
) -> Result<Steady> {
    let (here, far) = (stage.endpoints(), stage.endpoints_away());
    let mut opening = Opening {
        steady: JoinSet::new(),
        channels: JoinSet::new(),
        verified: Arc::clone(&stage.verified),
        ending: ending.clone(),
    };
    for number in 0..count + away {
        if opening.channels.len() == AT_ONCE {
            opening.take().await?;
        }
        let endpoints = if number < count { &here } else { &far };
        let endpoint = endpoints[number % 2].clone();
        opening
            .channels
            .spawn(async move { Ok((number, stage::open(&endpoint).await?)) });
    }
    while !opening.channels.is_empty() {
        opening.take().await?;
    }
    Ok(opening.steady)
}

/// Channels that are being opened, and those that are.
struct Opening {
    steady: Steady,
    channels: JoinSet<Result<(usize, Channel)>>,
    verified: Arc<AtomicU64>,
    ending: watch::Receiver<bool>,
}

impl Opening {
    async fn take(&mut self) -> Result<()> {
        let opened = self.channels.join_next().await.context("a channel")?;
        let (number, channel) = opened?.context("opening a channel")?;
        let (verified, ending) = (Arc::clone(&self.verified), self.ending.clone());
        self.steady.spawn(async move {
            let moved = move_bytes(channel, number, &verified, ending).await;
            moved.with_context(|| format!("channel {number}"))
        });
        Ok(())
    }
}

/// Sends pieces to a host that echoes, and verifies what comes back, until told to end.
async fn move_bytes(
    mut channel: Channel,
    number: usize,
    verified: &AtomicU64,
    mut ending: watch::Receiver<bool>,
) -> Result<u64> {
    let pattern = Pattern::new(number as u64);
    let mut choice = Choice(number as u64);
    let mut at = 0;
    while !*ending.borrow() {
        let length = PIECES[choice.below(PIECES.len() as u64)?];
        let piece = pattern.bytes(at, length);
        channel
            .echo(&piece)
            .await
            .with_context(|| format!("after {at} bytes"))?;
        at += length as u64;
        verified.fetch_add(2 * length as u64, Ordering::Relaxed);
        let pause = Duration::from_millis(choice.below(LONGEST_PAUSE)? as u64);
        let _ = tokio::time::timeout(pause, ending.wait_for(|ends| *ends)).await;
    }
    channel.shutdown().await.context("closing it")?;
    let mut rest = Vec::new();
    within("the answer to a Close", channel.read_to_end(&mut rest)).await??;
    ensure!(rest.is_empty(), "{} bytes too many", rest.len());
    ensure!(
        channel.close_code() == Some(1000),
        "its Close was answered with {:?}",
        channel.close_code()
    );
    Ok(2 * at)
}

/// Numbers that are the same in each run.
pub(super) struct Choice(pub(super) u64);

impl Choice {
    /// A number below `end`.
    pub(super) fn below(&mut self, end: u64) -> Result<usize> {
        // Knuth's MMIX generator.
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        Ok(usize::try_from((self.0 >> 33) % end)?)
    }
}
