//! What only the data path `sockmap` promises for tunnels.

use anyhow::{Context, Result, ensure};
use testkit::gateway::Signal;
use testkit::pattern::{DOWNLINK, UPLINK};
use testkit::prelude::*;
use tokio::io::AsyncReadExt;

use super::setup::{RELAY_PLAIN, SOCKMAP, SOCKMAP_ON_TLS, Setup};
use crate::sockmap::wakeups;

/// Wakeups while each side in turn sends messages, each after the one before has arrived: for the
/// downlink, and for the uplink.
async fn wakeups_of(setup: Setup, messages: u64) -> Result<[u64; 2]> {
    const LENGTH: u64 = 85;
    let stage = setup.start().await?;
    let mut ends = stage.open().await?;
    ends.downlink(100_000).await?;
    ends.uplink(100_000).await?;
    // The kernel has both directions as soon as one message has not passed.
    ends.downlink(LENGTH).await?;
    ends.uplink(LENGTH).await?;
    let before = wakeups(&stage.gateway)?;
    for _ in 0..messages {
        ends.downlink(LENGTH).await?;
    }
    let between = wakeups(&stage.gateway)?;
    for _ in 0..messages {
        ends.uplink(LENGTH).await?;
    }
    Ok([between - before, wakeups(&stage.gateway)? - between])
}

#[tokio::test]
#[cfg_attr(unprivileged, ignore = "needs root: cargo xtask test")]
async fn the_gateway_sleeps_while_bytes_flow_both_ways() -> Result<()> {
    const MESSAGES: u64 = 10_000;
    const OF_RELAY: u64 = 500;
    let relay = wakeups_of(RELAY_PLAIN, OF_RELAY).await?;
    let sockmap = wakeups_of(SOCKMAP, MESSAGES).await?;
    println!(
        "wakeups, down and up: relay {relay:?} for {OF_RELAY}, sockmap {sockmap:?} for {MESSAGES}"
    );
    for (relay, sockmap) in relay.into_iter().zip(sockmap) {
        ensure!(relay > OF_RELAY / 10, "the relay has to wake");
        // Somebody else in the process may.
        ensure!(sockmap < MESSAGES / 100, "{sockmap} wakeups");
    }
    Ok(())
}

#[tokio::test]
#[cfg_attr(unprivileged, ignore = "needs root: cargo xtask test")]
async fn the_log_tells_what_the_kernel_moved() -> Result<()> {
    let stage = SOCKMAP.start().await?;
    let mut ends = stage.open().await?;
    // The first ones pass, and on a busy machine some more until the process has handed over.
    ends.downlink(500).await?;
    ends.uplink(500).await?;
    for _ in 0..100 {
        ends.downlink(950).await?;
        ends.uplink(1_950).await?;
    }
    drop(ends);
    let line = stage.wait_for_log("channel closed").await?;
    let link = link_message(ChannelType::Main, 0).len() as u64;
    let counts = format!("up={} down=95500 ", 195_500 + link);
    ensure!(line.contains(&counts), "not {counts:?} in {line:?}");
    let numbers = line.split("kernel=\"").nth(1).context("no numbers")?;
    let number = |name: &str| -> Result<u64> {
        let before = numbers.split(name).next().context("a number")?;
        Ok(before
            .trim()
            .rsplit(' ')
            .next()
            .unwrap_or_default()
            .parse()?)
    };
    ensure!(number("messages up")? >= 10, "{line}");
    ensure!(number("messages down")? >= 10, "{line}");
    ensure!(number("bytes dropped")? == 0, "{line}");
    Ok(())
}

#[tokio::test]
#[cfg_attr(unprivileged, ignore = "needs root: cargo xtask test")]
async fn a_killed_gateway_leaves_no_wedged_sockets() -> Result<()> {
    let stage = SOCKMAP.start().await?;
    let mut tunnels = Vec::new();
    for _ in 0..10 {
        let mut ends = stage.open().await?;
        ends.downlink(10_000).await?;
        ends.uplink(10_000).await?;
        // Something is on its way both ways, and nobody reads it.
        let _ = ends.host.try_write(&DOWNLINK.bytes(0, 200_000))?;
        let _ = ends.client.tcp().try_write(&UPLINK.bytes(0, 200_000))?;
        tunnels.push(ends);
    }
    stage.gateway.signal(Signal::KILL)?;
    for ends in &mut tunnels {
        let mut buffer = [0; 4_096];
        let rest = async {
            while matches!(ends.client.read(&mut buffer).await, Ok(1..)) {}
            while matches!(ends.host.read(&mut buffer).await, Ok(1..)) {}
        };
        within("both ends", rest).await?;
    }
    Ok(())
}

#[tokio::test]
#[cfg_attr(unprivileged, ignore = "needs root: cargo xtask test")]
async fn a_tls_leg_falls_back_to_relay() -> Result<()> {
    let stage = SOCKMAP_ON_TLS.start().await?;
    let mut ends = stage.open().await?;
    ends.downlink(1_000).await?;
    ends.uplink(1_000).await?;
    let line = stage.wait_for_log("relay is used instead").await?;
    ensure!(line.contains("TLS client leg"), "{line}");
    Ok(())
}
