//! A host whose segments overlap, as they do after losses: each byte arrives once, and at once.

use std::ops::Range;

use anyhow::{Result, ensure};
use testkit::namespace;
use testkit::pattern::DOWNLINK;
use testkit::prelude::*;
use testkit::raw_host::RawHost;
use testkit::ws::{Frame, RawClient};

use crate::patterns::{expect_closing, read_downlink_to};
use crate::setup::{RELAY_PLAIN, SOCKMAP, Setup};
use crate::stage::Stage;
use testkit::rng::{Rng, seed_or};

/// Any port: the host answers on all of them.
const PORT: u16 = 5_900;

/// A gateway and a host behind it that has no kernel's TCP.
struct Rig {
    stage: Stage,
    host: RawHost,
}

impl Rig {
    async fn start(setup: Setup) -> Result<Self> {
        let host = RawHost::start()?;
        let address = RawHost::ADDRESS.to_string();
        let stage = setup
            .start_with(|gateway| gateway.set("SpiceHost", address))
            .await?;
        Ok(Self { stage, host })
    }

    /// Opens a channel whose host begins to count behind `initial`.
    async fn open(&self, initial: u32) -> Result<Line<'_>> {
        self.host.begin_at(initial);
        let target = format!("/?ver=2&token={PORT}");
        let mut client = RawClient::open(&self.stage.endpoint, &target).await?;
        let link = link_message(ChannelType::Main, 0);
        client.send_frame(&Frame::binary(link.clone())).await?;
        let received = self.host.received(link.len()).await?;
        ensure!(received == link, "another link message arrived");
        self.stage.expect_path().await?;
        Ok(Line {
            host: &self.host,
            client,
            sent: 0,
            seen: 0,
        })
    }
}

/// A channel, and how much of the downlink's pattern has gone through it, in bytes.
struct Line<'a> {
    host: &'a RawHost,
    client: RawClient,
    sent: u32,
    seen: u64,
}

impl Line<'_> {
    /// Sends a segment with these bytes of the stream.
    fn send(&mut self, bytes: Range<u32>) -> Result<()> {
        self.sent = self.sent.max(bytes.end);
        self.host.send(DOWNLINK, bytes)
    }

    /// The client receives all bytes before this place, and not one twice.
    async fn arrives(&mut self, end: u32) -> Result<()> {
        self.seen = read_downlink_to(&mut self.client, self.seen, end.into()).await?;
        ensure!(self.seen == u64::from(end), "more than the host has sent");
        Ok(())
    }

    /// Sends a segment, and all before its end arrives.
    async fn pass(&mut self, bytes: Range<u32>) -> Result<()> {
        let end = bytes.end.max(self.sent);
        self.send(bytes)?;
        self.arrives(end).await
    }

    /// Small messages, each of which arrives before the next one is sent: nothing is withheld.
    async fn pass_small(&mut self) -> Result<()> {
        for len in [6, 20, 85, 200, 333, 700, 6, 6, 100, 6] {
            self.pass(self.sent..self.sent + len).await?;
        }
        Ok(())
    }

    /// The host ends its stream, and all of it has arrived.
    async fn end(mut self) -> Result<()> {
        self.host.send_fin(DOWNLINK, self.sent..self.sent)?;
        expect_closing(&mut self.client, 1000).await
    }
}

/// Runs a test in a namespace of its own, with copied and with redirected bytes.
fn on_both_paths<F>(test: impl Fn(Rig) -> F + Clone + Send + 'static) -> Result<()>
where
    F: Future<Output = Result<()>>,
{
    for setup in [RELAY_PLAIN, SOCKMAP] {
        let test = test.clone();
        namespace::run(move || async move { test(Rig::start(setup).await?).await })?;
    }
    Ok(())
}

#[test]
#[cfg_attr(unprivileged, ignore = "needs root: cargo xtask test")]
fn bytes_of_overlapping_segments_arrive_once() -> Result<()> {
    on_both_paths(|rig| async move {
        // In the second case TCP's numbers pass their end.
        for initial in [7, u32::MAX - 120] {
            let mut line = rig.open(initial).await?;
            line.pass(0..100).await?;
            line.pass(50..200).await?;
            line.pass_small().await?;
            let end = line.sent;
            line.pass(0..end + 10).await?;
            line.pass_small().await?;
            line.end().await?;
        }
        Ok(())
    })
}

#[test]
#[cfg_attr(unprivileged, ignore = "needs root: cargo xtask test")]
fn each_small_message_behind_a_repeated_one_arrives_at_once() -> Result<()> {
    on_both_paths(|rig| async move {
        let mut line = rig.open(7).await?;
        for message in 0..200 {
            let at = line.sent;
            let repeated = at.min(message * 37 % 120);
            line.pass(at - repeated..at + 6 + message * 53 % 695)
                .await?;
        }
        line.end().await
    })
}

#[test]
#[cfg_attr(unprivileged, ignore = "needs root: cargo xtask test")]
fn segments_that_fill_a_hole_and_more_arrive_once() -> Result<()> {
    on_both_paths(|rig| async move {
        let mut line = rig.open(7).await?;
        line.pass(0..100).await?;
        line.send(150..250)?;
        line.pass(100..200).await?;
        line.pass_small().await?;
        // These overlap each other while they wait for the hole to be filled.
        let at = line.sent;
        for (start, end) in [(200, 300), (100, 220), (280, 400), (150, 350)] {
            line.send(at + start..at + end)?;
        }
        line.pass(at..at + 110).await?;
        line.pass_small().await?;
        line.end().await
    })
}

#[test]
#[cfg_attr(unprivileged, ignore = "needs root: cargo xtask test")]
fn long_repetitions_are_cut_off() -> Result<()> {
    on_both_paths(|rig| async move {
        let mut line = rig.open(7).await?;
        line.pass(0..30_000).await?;
        line.pass(100..40_000).await?;
        // Around what one call of the kernel's helper cuts off.
        for repeated in [4_094, 4_095, 4_096, 8_190, 8_191] {
            line.pass(line.sent - repeated..line.sent + 10).await?;
            line.pass_small().await?;
        }
        line.pass(0..59_000).await?;
        line.pass_small().await?;
        line.end().await
    })
}

#[test]
#[cfg_attr(unprivileged, ignore = "needs root: cargo xtask test")]
fn a_fin_behind_repeated_bytes_ends_the_stream() -> Result<()> {
    on_both_paths(|rig| async move {
        for last in [100..130, 40..130, 50..100] {
            let mut line = rig.open(7).await?;
            line.pass(0..100).await?;
            let end = last.end;
            line.host.send_fin(DOWNLINK, last)?;
            line.arrives(end).await?;
            expect_closing(&mut line.client, 1000).await?;
        }
        Ok(())
    })
}

/// What is sent in [`random_segments_arrive_once`], in bytes.
const VOLUME: u32 = 3 << 20;
/// The most that is sent before the client is asked for it.
const FLIGHT: usize = 12_000;
const LONGEST: usize = 1_400;

#[test]
#[cfg_attr(unprivileged, ignore = "needs root: cargo xtask test")]
fn random_segments_arrive_once() -> Result<()> {
    let seed = seed_or(1)?;
    on_both_paths(move |rig| async move {
        let mut line = rig.open(7).await?;
        let mut rng = Rng::new(seed);
        while line.sent < VOLUME {
            let begin = line.sent;
            let end = begin + u32::try_from(1 + rng.below(FLIGHT))?;
            line.host.room(end).await?;
            for bytes in flight(&mut rng, begin..end)? {
                line.send(bytes)?;
            }
            line.arrives(end).await?;
        }
        line.end().await
    })
}

/// Segments that cover these bytes of the stream; some begin in older bytes, reach over the next
/// one, or come early.
fn flight(rng: &mut Rng, bytes: Range<u32>) -> Result<Vec<Range<u32>>> {
    let mut segments = Vec::new();
    let mut at = bytes.start;
    while at < bytes.end {
        let end = bytes.end.min(at + u32::try_from(1 + rng.below(LONGEST))?);
        let (mut from, mut to) = (at, end);
        if rng.once_in(3) {
            from = at.saturating_sub(u32::try_from(rng.below(LONGEST))?);
        }
        if rng.once_in(3) {
            to = bytes.end.min(end + u32::try_from(rng.below(LONGEST))?);
        }
        segments.push(from..to);
        at = end;
    }
    for _ in 0..rng.below(4) {
        let (one, other) = (rng.below(segments.len()), rng.below(segments.len()));
        segments.swap(one, other);
    }
    Ok(segments)
}
