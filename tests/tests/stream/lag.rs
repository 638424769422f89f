//! What waits for a client on a slow line: a person's input is answered behind it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use testkit::line::Quality;
use testkit::network::{Leg, Network};
use testkit::pattern::DOWNLINK;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use crate::patterns::read_downlink_to;
use crate::setup::Setup;

on_every_path_as_root! {
    little_waits_for_a_client_on_a_slow_line
    a_host_that_is_far_away_is_not_held_back
}

/// Bytes that are read before what waits counts: kernels left to themselves have filled their
/// buffers by then.
const SETTLED: u64 = 2_000_000;
/// Bytes over which it counts.
const LOOKED_AT: u64 = 1_000_000;
/// Bytes of one write of the host.
const CHUNK: usize = 16 * 1024;
/// Without a gateway 0.65 MB wait on such a line, and unbounded queues of a gateway hold 4 to 8.
const MOST: u64 = 1_500_000;

/// A round trip to a host that is far away.
const FAR: Duration = Duration::from_millis(200);
/// Bytes that it sends.
pub(crate) const PICTURE: u64 = 6_000_000;
/// With a window that stays as small as for a slow client this takes 120 round trips, with one
/// that grows 20.
const MOST_ROUND_TRIPS: u32 = 60;

/// A network whose host is far away.
pub(crate) fn far_host() -> Result<Network> {
    let line = Quality {
        delay: FAR / 2,
        ..Quality::default()
    };
    Network::new(Leg::Ethernet, line.into(), 1)
}

/// Bytes of the picture must arrive in a time that only a growing window allows.
pub(crate) async fn in_few_round_trips(arrive: impl Future<Output = Result<()>>) -> Result<()> {
    let begun = Instant::now();
    arrive.await?;
    let taken = begun.elapsed();
    println!("{taken:?}");
    ensure!(taken < FAR * MOST_ROUND_TRIPS, "{taken:?} for a picture");
    Ok(())
}

async fn a_host_that_is_far_away_is_not_held_back(setup: Setup) -> Result<()> {
    let network = far_host()?;
    let stage = setup.start_in(&network).await?;
    let mut channel = stage.open().await?;
    in_few_round_trips(channel.downlink(PICTURE)).await
}

/// A network whose client has a slow line.
pub(crate) fn slow_client() -> Result<Network> {
    let line = Quality::new(Duration::from_millis(80), 10_000_000);
    Network::new(line.into(), Leg::Ethernet, 1)
}

/// A host sends without end, and little of it must wait for a client that reads. `read_on` reads
/// from a place of the pattern on, and says how far.
pub(crate) async fn expect_little_to_wait(
    host: impl AsyncRead + AsyncWrite,
    mut read_on: impl AsyncFnMut(u64) -> Result<u64>,
) -> Result<()> {
    let (_host_reader, mut host_writer) = tokio::io::split(host);
    let sent = AtomicU64::new(0);
    let host_sends = async {
        loop {
            let at = sent.load(Ordering::Relaxed);
            host_writer.write_all(&DOWNLINK.bytes(at, CHUNK)).await?;
            sent.fetch_add(CHUNK as u64, Ordering::Relaxed);
        }
    };
    let client_reads = async {
        let (mut at, mut most) = (0, 0);
        while at < SETTLED + LOOKED_AT {
            at = read_on(at).await?;
            if at >= SETTLED {
                most = most.max(sent.load(Ordering::Relaxed).saturating_sub(at));
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

async fn little_waits_for_a_client_on_a_slow_line(setup: Setup) -> Result<()> {
    let network = slow_client()?;
    let stage = setup.start_in(&network).await?;
    let channel = stage.open().await?;
    let (mut reader, _writer) = channel.client.split();
    let read_on = async |at| read_downlink_to(&mut reader, at, at + 1).await;
    expect_little_to_wait(channel.host, read_on).await
}
