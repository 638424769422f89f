//! Channels that have no reason to end before they are told to.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use testkit::net::Endpoint;
use testkit::pattern::Pattern;
use testkit::prelude::*;
use testkit::ws::Channel;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::stage::Stage;

/// Channels that are opened at the same time.
const AT_ONCE: usize = 20;
/// Longest pause of a channel, in milliseconds.
const LONGEST_PAUSE: u64 = 400;
/// Lengths of what is sent, in bytes.
const PIECES: [usize; 6] = [1, 17, 500, 4_000, 20_000, 60_000];

/// The channels, each of which comes to the bytes that were verified.
pub(super) type Steady = JoinSet<Result<u64>>;

/// Opens channels, half of them over TLS.
pub(super) async fn open(
    stage: &Stage,
    count: usize,
    ending: &watch::Receiver<bool>,
) -> Result<Steady> {
    let token = stage.host().port().to_string();
    let endpoints = stage.endpoints();
    let mut steady = JoinSet::new();
    let mut opening: JoinSet<Result<(usize, Channel)>> = JoinSet::new();
    for number in 0..count {
        if opening.len() == AT_ONCE {
            take(&mut opening, &mut steady, ending).await?;
        }
        opening.spawn(open_one(
            endpoints[number % 2].clone(),
            token.clone(),
            number,
        ));
    }
    while !opening.is_empty() {
        take(&mut opening, &mut steady, ending).await?;
    }
    Ok(steady)
}

async fn open_one(endpoint: Endpoint, token: String, number: usize) -> Result<(usize, Channel)> {
    Ok((number, ws::echo_channel(&endpoint, &token).await?))
}

async fn take(
    opening: &mut JoinSet<Result<(usize, Channel)>>,
    steady: &mut Steady,
    ending: &watch::Receiver<bool>,
) -> Result<()> {
    let opened = opening.join_next().await.context("a channel")?;
    let (number, channel) = opened?.context("opening a channel")?;
    let ending = ending.clone();
    steady.spawn(async move {
        let moved = move_bytes(channel, number, ending).await;
        moved.with_context(|| format!("channel {number}"))
    });
    Ok(())
}

/// Sends pieces to a host that echoes, and verifies what comes back, until told to end.
async fn move_bytes(
    mut channel: Channel,
    number: usize,
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
