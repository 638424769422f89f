//! Tunnels over lines that lose, double, reorder and hold up packets, and lines on which the client
//! vanishes.

use anyhow::{Context, Result, ensure};
use testkit::line::Quality;
use testkit::network::{Leg, Network};
use testkit::pattern::{DOWNLINK, UPLINK, write_pattern};
use tokio::io::AsyncWriteExt;

use super::setup::Ends;
use crate::lag::{PICTURE, expect_little_to_wait, far_host, in_few_round_trips, slow_client};
use crate::lines::{Rig, SOME, TINY, of_tiny_packets, on_either_leg, slow_to_arrive, unreliable};
use crate::patterns::{expect_end, read_exactly, send_messages};
use crate::setup::Setup;

on_every_tunnel_as_root! {
    bytes_arrive_as_sent_over_lines_that_lose_double_and_reorder
    bytes_arrive_as_sent_in_tiny_packets
    a_client_that_vanishes_is_given_up
    little_waits_for_a_client_on_a_slow_line
    a_host_that_is_far_away_is_not_held_back
}

/// Sends so much both ways at once, with a bad line to the client and with one to the host.
async fn pass_on_either_leg(setup: Setup, bad: Quality, mtu: u16, bytes: u64) -> Result<()> {
    on_either_leg(setup, mtu, async |rig| pass(rig, bad, bytes).await).await
}

async fn pass(rig: &mut Rig, bad: Quality, bytes: u64) -> Result<()> {
    let Ends { client, host, .. } = rig.stage.open_tunnel().await?;
    rig.line().set(bad);
    let (up, down) = (rig.sizes(bytes), rig.sizes(bytes));
    let (mut reader, mut writer) = tokio::io::split(client);
    let (mut host_reader, mut host_writer) = host.into_split();
    tokio::try_join!(
        send_messages(&mut writer, UPLINK, &up),
        send_messages(&mut host_writer, DOWNLINK, &down),
        read_exactly(&mut reader, DOWNLINK, 0, bytes),
        read_exactly(&mut host_reader, UPLINK, 0, bytes),
    )?;
    host_writer.shutdown().await?;
    expect_end(&mut reader).await?;
    writer.shutdown().await?;
    expect_end(&mut host_reader).await
}

async fn bytes_arrive_as_sent_over_lines_that_lose_double_and_reorder(setup: Setup) -> Result<()> {
    pass_on_either_leg(setup, unreliable(), testkit::line::MTU, SOME).await
}

async fn bytes_arrive_as_sent_in_tiny_packets(setup: Setup) -> Result<()> {
    pass_on_either_leg(setup, of_tiny_packets(), TINY, SOME / 4).await
}

async fn a_client_that_vanishes_is_given_up(setup: Setup) -> Result<()> {
    /// `ClientTimeout` in seconds.
    const LIMIT: u64 = 2;
    for is_sent_to in [false, true] {
        let network = Network::new(slow_to_arrive().into(), Leg::Ethernet, 1)?;
        let stage = setup.start_in_with(&network, |gateway| gateway.set("ClientTimeout", LIMIT));
        let stage = stage.await?;
        let mut ends = stage.open_tunnel().await?;
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
        stage.expect_no_channel().await?;
    }
    Ok(())
}

async fn little_waits_for_a_client_on_a_slow_line(setup: Setup) -> Result<()> {
    let network = slow_client()?;
    let stage = setup.start_in(&network).await?;
    let Ends { client, host, .. } = stage.open_tunnel().await?;
    let (mut reader, _writer) = tokio::io::split(client);
    let read_on = async |at| {
        read_exactly(&mut reader, DOWNLINK, at, 1_000).await?;
        Ok(at + 1_000)
    };
    expect_little_to_wait(host, read_on).await
}

async fn a_host_that_is_far_away_is_not_held_back(setup: Setup) -> Result<()> {
    let network = far_host()?;
    let stage = setup.start_in(&network).await?;
    let mut ends = stage.open_tunnel().await?;
    in_few_round_trips(ends.downlink(PICTURE)).await?;
    ends.uplink(PICTURE / 10).await
}
