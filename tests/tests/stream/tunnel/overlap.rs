//! Tunnels to a host whose segments overlap, as they do after losses: each byte arrives once, and at
//! once.

use std::ops::Range;

use anyhow::{Result, ensure};
use testkit::namespace;
use testkit::net::Connection;
use testkit::pattern::DOWNLINK;
use testkit::prelude::*;
use testkit::raw_host::RawHost;
use testkit::rng::{Rng, seed_or};
use testkit::tunnel::Tunnel;
use tokio::io::AsyncWriteExt;

use super::setup::{RELAY_PLAIN, SOCKMAP, Setup, Stage, expect_end, read_exactly};

/// Any port: the host answers on all of them.
const PORT: u16 = 5_900;

/// A gateway, a host behind it that has no kernel's TCP, and a tunnel between them.
struct Rig {
    stage: Stage,
    host: RawHost,
}

/// How much of the downlink's pattern has gone through a tunnel, in bytes.
struct Line<'a> {
    host: &'a RawHost,
    client: Connection,
    sent: u32,
    seen: u32,
}

impl Rig {
    async fn open(&self, initial: u32) -> Result<Line<'_>> {
        self.host.begin_at(initial);
        let address = (RawHost::ADDRESS, PORT).into();
        let ticket = self.stage.ticket(address).await?;
        let mut client = Tunnel::new(&self.stage.endpoint, &ticket).stream().await?;
        let link = link_message(ChannelType::Main, 0);
        client.write_all(&link).await?;
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

impl Line<'_> {
    /// Sends a segment with these bytes of the stream.
    fn send(&mut self, bytes: Range<u32>) -> Result<()> {
        self.sent = self.sent.max(bytes.end);
        self.host.send(DOWNLINK, bytes)
    }

    /// The client receives all bytes before this place, and not one twice.
    async fn arrives(&mut self, end: u32) -> Result<()> {
        let (start, length) = (self.seen.into(), (end - self.seen).into());
        read_exactly(&mut self.client, DOWNLINK, start, length).await?;
        self.seen = end;
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
        expect_end(&mut self.client).await
    }
}

/// Runs a test in a namespace of its own, with copied and with redirected bytes.
fn on_both_paths<F>(test: impl Fn(Rig) -> F + Clone + Send + 'static) -> Result<()>
where
    F: Future<Output = Result<()>>,
{
    for setup in [RELAY_PLAIN, SOCKMAP] {
        let test = test.clone();
        namespace::run(move || async move { test(start(setup).await?).await })?;
    }
    Ok(())
}

async fn start(setup: Setup) -> Result<Rig> {
    let host = RawHost::start()?;
    let stage = setup.start().await?;
    Ok(Rig { stage, host })
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
            // These overlap each other while they wait for a hole to be filled.
            let at = line.sent;
            for (start, end) in [(200, 300), (100, 220), (280, 400), (150, 350)] {
                line.send(at + start..at + end)?;
            }
            line.pass(at..at + 110).await?;
            line.pass_small().await?;
            line.end().await?;
        }
        Ok(())
    })
}

#[test]
#[cfg_attr(unprivileged, ignore = "needs root: cargo xtask test")]
fn random_segments_arrive_once() -> Result<()> {
    /// What is sent, in bytes.
    const VOLUME: u32 = 1 << 20;
    /// The most that is sent before the client is asked for it.
    const FLIGHT: usize = 12_000;
    const LONGEST: usize = 1_400;
    let seed = seed_or(1)?;
    on_both_paths(move |rig| async move {
        let mut line = rig.open(7).await?;
        let mut rng = Rng::new(seed);
        while line.sent < VOLUME {
            let begin = line.sent;
            let end = begin + u32::try_from(1 + rng.below(FLIGHT))?;
            line.host.room(end).await?;
            let mut at = begin;
            while at < end {
                let next = end.min(at + u32::try_from(1 + rng.below(LONGEST))?);
                let mut from = at;
                if rng.once_in(3) {
                    from = at.saturating_sub(u32::try_from(rng.below(LONGEST))?);
                }
                line.send(from..next)?;
                at = next;
            }
            line.arrives(end).await?;
        }
        line.end().await
    })
}
