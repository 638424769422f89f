//! What only the data path `ktls` promises.

use anyhow::{Context, Result, bail, ensure};
use testkit::net::Connection;
use testkit::pattern::{DOWNLINK, write_pattern};
use testkit::prelude::*;
use testkit::ws::{Frame, RawClient};

use crate::channel::Channel;
use crate::patterns::{expect_closing, read_downlink, read_downlink_to, read_uplink};
use crate::setup::{KTLS, KTLS_ON_PLAIN, KTLS_REPLACED, Setup};
use crate::stage::Stage;

/// Moves bytes both ways.
async fn move_bytes(setup: Setup) -> Result<Stage> {
    let stage = setup.start().await?;
    let mut channel = stage.open().await?;
    for length in [1, 100, 16_384, 100_000, 1_000_000] {
        channel.downlink(length).await?;
        channel.uplink(usize::try_from(length)?).await?;
    }
    channel.ping(b"still there").await?;
    Ok(stage)
}

#[tokio::test]
async fn a_plaintext_leg_falls_back_to_relay() -> Result<()> {
    let stage = move_bytes(KTLS_ON_PLAIN).await?;
    let line = stage.wait_for_log("relay is used instead").await?;
    // A kernel without TLS is told of at the start.
    let reason = line.contains("plaintext client leg") || line.contains("wanted=\"ktls\"");
    ensure!(reason, "{line}");
    Ok(())
}

#[tokio::test]
async fn tls_clients_are_moved_whatever_the_kernel_carries() -> Result<()> {
    let gateway = Gateway::builder().set("DataPath", "ktls").spawn().await?;
    let is_finding = |line: &str| line.contains("data path") && line.contains("path=\"ktls\"");
    let finding = gateway.wait_for_log(is_finding, PATIENCE).await?;
    if finding.contains("works=true") {
        ensure!(finding.contains("TLS 1.3 AES-256-GCM"), "{finding}");
        move_bytes(KTLS).await?;
        return Ok(());
    }
    let stage = move_bytes(KTLS_REPLACED).await?;
    stage.wait_for_log("relay is used instead").await?;
    Ok(())
}

/// Sends messages of this length, each when the one before has arrived; none may be copied.
async fn splice_messages(length: u64, count: u64) -> Result<()> {
    let stage = KTLS
        .start_with(|gateway| gateway.set("SpliceFrom", 1))
        .await?;
    let mut channel = stage.open().await?;
    channel.host.set_nodelay(true)?;
    for at in (0..count).map(|index| index * length) {
        write_pattern(&mut channel.host, DOWNLINK, at, length).await?;
        read_downlink(&mut channel.client, at, length).await?;
    }
    drop(channel);
    expect_counts(&stage, length * count, 0).await
}

/// The channel, which is ending, has moved so much in each way.
async fn expect_counts(stage: &Stage, spliced: u64, copied: u64) -> Result<()> {
    let line = stage.wait_for_log("bytes copied").await?;
    let counts = format!("{spliced} bytes spliced, {copied} bytes copied");
    ensure!(line.contains(&counts), "{line} instead of {counts}");
    Ok(())
}

#[tokio::test]
#[ignore = "needs a kernel with TLS: cargo xtask vm-test"]
async fn ten_thousand_small_messages_are_spliced() -> Result<()> {
    splice_messages(85, 10_000).await
}

/// Sends a stream of this length; none of it may be copied.
async fn splice_stream(length: u64) -> Result<()> {
    let stage = KTLS
        .start_with(|gateway| gateway.set("SpliceFrom", 1))
        .await?;
    let mut channel = stage.open().await?;
    channel.downlink(length).await?;
    drop(channel);
    expect_counts(&stage, length, 0).await
}

#[tokio::test]
#[ignore = "needs a kernel with TLS: cargo xtask vm-test"]
async fn a_stream_is_spliced() -> Result<()> {
    splice_stream(32 << 20).await
}

#[tokio::test]
#[ignore = "needs a kernel with TLS, and minutes without KVM: cargo xtask vm-test"]
async fn a_gibibyte_is_spliced() -> Result<()> {
    splice_stream(1 << 30).await
}

#[tokio::test]
#[ignore = "needs a kernel with TLS: cargo xtask vm-test"]
async fn short_messages_are_copied_and_long_ones_spliced() -> Result<()> {
    let stage = KTLS
        .start_with(|gateway| gateway.set("SpliceFrom", 10_000))
        .await?;
    let mut channel = stage.open().await?;
    for _ in 0..100 {
        channel.downlink(100).await?;
    }
    // The beginning of what is long is copied, too: its length shows only then.
    channel.downlink(10_000_000).await?;
    drop(channel);
    let line = stage.wait_for_log("bytes copied").await?;
    let counts = line.split_once("kernel=\"").context("no counts")?.1;
    let (spliced, rest) = counts.split_once(" bytes spliced, ").context("no counts")?;
    let copied = rest.split_once(" bytes copied").context("no counts")?.0;
    let (spliced, copied): (u64, u64) = (spliced.parse()?, copied.parse()?);
    ensure!(spliced + copied == 10_010_000, "{line}");
    ensure!((20_000..2_000_000).contains(&copied), "{line}");
    Ok(())
}

/// Changes the client's key with what it sends next.
fn change_key(client: &mut RawClient) -> Result<()> {
    let Connection::Tls(tls) = client.connection_mut() else {
        bail!("no TLS");
    };
    Ok(tls.get_mut().1.refresh_traffic_keys()?)
}

/// Changes the client's key several times in a row, while both directions move.
async fn change_keys_under_traffic(mut channel: Channel) -> Result<()> {
    const ROUNDS: u64 = 20;
    const FRAME: usize = 1_000;
    const DOWN: u64 = 100_000;
    let (up, down) = (channel.up, channel.down);
    let frames: Vec<_> = (0..ROUNDS).map(|_| channel.next_frame(FRAME)).collect();
    let Channel {
        mut client, host, ..
    } = channel;
    let (mut reader, mut writer) = host.into_split();
    let send = async { Ok(write_pattern(&mut writer, DOWNLINK, down, ROUNDS * DOWN).await?) };
    let receive = read_uplink(&mut reader, up, ROUNDS * FRAME as u64);
    let talk = async {
        let mut at = down;
        for (round, frame) in (1..).zip(&frames) {
            for _ in 0..=round % 3 {
                change_key(&mut client)?;
            }
            client.send_frame(frame).await?;
            at = read_downlink_to(&mut client, at, down + round * DOWN).await?;
        }
        Ok(())
    };
    tokio::try_join!(send, receive, talk)?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs a kernel with TLS: cargo xtask vm-test"]
async fn a_new_key_of_the_client_is_followed_or_ends_the_channel_in_order() -> Result<()> {
    let stage = KTLS.start().await?;
    let finding = stage.wait_for_log("path=\"ktls\"").await?;
    let mut channel = stage.open().await?;
    channel.uplink(1_000).await?;
    change_key(&mut channel.client)?;
    if finding.contains("new keys") {
        for length in [1, 16_384, 1_000_000] {
            channel.uplink(length).await?;
            channel.downlink(length as u64).await?;
        }
        return change_keys_under_traffic(channel).await;
    }
    channel.client.send_frame(&Frame::binary("new key")).await?;
    expect_closing(&mut channel.client, 1001).await?;
    drop(channel.client);
    let (rest, _) = testkit::net::read_to_end(&mut channel.host).await?;
    ensure!(rest.is_empty(), "the host received {rest:?}");
    drop(channel.host);
    stage.expect_reason("client changed its TLS key").await?;
    stage.expect_no_channel().await
}
