//! Tunnels over lines that lose, double, reorder and hold up packets, and lines on which the client
//! vanishes.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use testkit::line::{Direction, Quality};
use testkit::network::{Leg, Network};
use testkit::pattern::{DOWNLINK, UPLINK, write_pattern};
use testkit::rng::{Rng, seed_or};
use tokio::io::AsyncWriteExt;

use super::setup::{Ends, Setup, expect_end, read_exactly, send_sizes};

on_every_tunnel_as_root! {
    bytes_arrive_as_sent_over_lines_that_lose_double_and_reorder
    bytes_arrive_as_sent_in_tiny_packets
    a_client_that_vanishes_is_given_up
    little_waits_for_a_client_on_a_slow_line
    a_host_that_is_far_away_is_not_held_back
}

const ROUND_TRIP: Duration = Duration::from_millis(6);
/// Up to how long packets are held up.
const HOLD: Duration = Duration::from_millis(10);
/// Bytes of each direction.
const SOME: usize = 400_000;

fn good() -> Quality {
    Quality {
        delay: ROUND_TRIP / 2,
        ..Quality::default()
    }
}

/// Sizes of messages with this sum, most of them as small as most of Spice are.
fn sizes(rng: &mut Rng, mut left: usize) -> Vec<usize> {
    let mut sizes = Vec::new();
    while left > 0 {
        let longest = rng.pick(&[30, 700, 700, 700, 20_000, 90_000]);
        let size = left.min(1 + rng.below(longest));
        sizes.push(size);
        left -= size;
    }
    sizes
}

/// Sends so much both ways at once, with a bad line to the client and with one to the host.
async fn pass_on_either_leg(setup: Setup, bad: Quality, mtu: u16, bytes: usize) -> Result<()> {
    let seed = seed_or(14)?;
    for is_client in [true, false] {
        println!("a bad line to the client: {is_client}");
        let leg = |is_bad: bool| Leg::Line {
            quality: good(),
            mtu: if is_bad { mtu } else { testkit::line::MTU },
        };
        let network = Network::new(leg(is_client), leg(!is_client), seed)?;
        let stage = setup.start_in_with(&network, |gateway| gateway).await?;
        let Ends { client, host, .. } = stage.open().await?;
        let line = if is_client {
            &network.client_leg
        } else {
            &network.host_leg
        };
        let line = line.as_ref().context("a line")?;
        line.set(bad);
        let mut rng = Rng::new(seed);
        let (up, down) = (sizes(&mut rng, bytes), sizes(&mut rng, bytes));
        let (mut reader, mut writer) = tokio::io::split(client);
        let (mut host_reader, mut host_writer) = host.into_split();
        tokio::try_join!(
            send_sizes(&mut writer, UPLINK, &up),
            send_sizes(&mut host_writer, DOWNLINK, &down),
            read_exactly(&mut reader, DOWNLINK, 0, bytes as u64),
            read_exactly(&mut host_reader, UPLINK, 0, bytes as u64),
        )?;
        host_writer.shutdown().await?;
        expect_end(&mut reader).await?;
        writer.shutdown().await?;
        expect_end(&mut host_reader).await?;
        let stats = [Direction::There, Direction::Back].map(|way| line.stats(way));
        println!("{stats:?}");
        let is_bad = stats.iter().any(|way| way.lost + way.overflowed > 0);
        ensure!(is_bad, "the line was not bad at all");
    }
    Ok(())
}

async fn bytes_arrive_as_sent_over_lines_that_lose_double_and_reorder(setup: Setup) -> Result<()> {
    let bad = good()
        .losing(0.02, 1.0)
        .doubling(0.03)
        .reordering(0.05, HOLD);
    pass_on_either_leg(setup, bad, testkit::line::MTU, SOME).await
}

async fn bytes_arrive_as_sent_in_tiny_packets(setup: Setup) -> Result<()> {
    const TINY: u16 = 296;
    let bad = good().losing(0.01, 1.0).reordering(0.02, HOLD);
    pass_on_either_leg(setup, bad, TINY, SOME / 4).await
}

async fn a_client_that_vanishes_is_given_up(setup: Setup) -> Result<()> {
    /// `ClientTimeout` in seconds.
    const LIMIT: u64 = 2;
    for is_sent_to in [false, true] {
        let network = Network::new(good().into(), Leg::Ethernet, 1)?;
        let stage = setup.start_in_with(&network, |gateway| gateway.set("ClientTimeout", LIMIT));
        let stage = stage.await?;
        let mut ends = stage.open().await?;
        ends.downlink(10_000).await?;
        network.client_leg.as_ref().context("a line")?.cut();
        if is_sent_to {
            let sent = write_pattern(&mut ends.host, DOWNLINK, 0, u64::MAX).await;
            ensure!(sent.is_err(), "a client that has vanished was sent a lot");
        }
        stage
            .expect_reason("client lost: no answer in time")
            .await?;
        if !is_sent_to {
            expect_end(&mut ends.host).await?;
        }
        drop(ends);
        stage.expect_no_tunnel().await?;
    }
    Ok(())
}

async fn little_waits_for_a_client_on_a_slow_line(setup: Setup) -> Result<()> {
    /// Bytes that are read before what waits counts, and bytes over which it does.
    const SETTLED: u64 = 2_000_000;
    const LOOKED_AT: u64 = 1_000_000;
    const CHUNK: usize = 16 * 1_024;
    /// Without a gateway 0.65 MB wait on such a line, and unbounded queues hold several.
    const MOST: u64 = 1_500_000;
    let line = Quality::new(Duration::from_millis(80), 10_000_000);
    let network = Network::new(line.into(), Leg::Ethernet, 1)?;
    let stage = setup.start_in_with(&network, |gateway| gateway).await?;
    let Ends { client, host, .. } = stage.open().await?;
    let (mut reader, _writer) = tokio::io::split(client);
    let (_host_reader, mut host_writer) = host.into_split();
    let sent = std::sync::atomic::AtomicU64::new(0);
    let order = std::sync::atomic::Ordering::Relaxed;
    let host_sends = async {
        loop {
            let bytes = DOWNLINK.bytes(sent.load(order), CHUNK);
            host_writer.write_all(&bytes).await?;
            sent.fetch_add(CHUNK as u64, order);
        }
    };
    let client_reads = async {
        let (mut at, mut most) = (0, 0);
        while at < SETTLED + LOOKED_AT {
            read_exactly(&mut reader, DOWNLINK, at, 1_000).await?;
            at += 1_000;
            if at >= SETTLED {
                most = most.max(sent.load(order).saturating_sub(at));
            }
        }
        Ok(most)
    };
    let most: u64 = tokio::select! {
        never = host_sends => {
            let never: Result<u64> = never;
            never?
        }
        most = client_reads => {
            let most: Result<u64> = most;
            most?
        }
    };
    println!("{most} bytes waited at most");
    ensure!(most <= MOST, "{most} bytes waited for the client");
    Ok(())
}

async fn a_host_that_is_far_away_is_not_held_back(setup: Setup) -> Result<()> {
    /// A round trip to it.
    const FAR: Duration = Duration::from_millis(200);
    /// Bytes that it sends.
    const PICTURE: u64 = 6_000_000;
    /// With a window that does not grow this takes 90 round trips and more.
    const MOST_ROUND_TRIPS: u32 = 60;
    let line = Quality {
        delay: FAR / 2,
        ..Quality::default()
    };
    let network = Network::new(Leg::Ethernet, line.into(), 1)?;
    let stage = setup.start_in_with(&network, |gateway| gateway).await?;
    let mut ends = stage.open().await?;
    let begun = Instant::now();
    ends.downlink(PICTURE).await?;
    let taken = begun.elapsed();
    println!("{taken:?}");
    ensure!(taken < FAR * MOST_ROUND_TRIPS, "{taken:?} for a picture");
    ends.uplink(PICTURE / 10).await
}
