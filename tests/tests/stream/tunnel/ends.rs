//! How a tunnel ends, whoever ends it and however: nothing that was sent before is lost, and each
//! side learns of it in order.

use anyhow::{Result, ensure};
use testkit::net::{StreamEnd, read_to_end, reset};
use testkit::pattern::{DOWNLINK, UPLINK, write_pattern};
use tokio::io::AsyncWriteExt;

use super::setup::{Ends, send};
use crate::patterns::{expect_end, read_exactly};
use crate::setup::Setup;

on_every_tunnel! {
    the_end_of_one_side_is_told_and_the_other_goes_on
    what_a_side_sent_before_its_end_arrives
    a_reset_of_one_side_ends_the_other
    a_reset_is_told_to_a_side_that_is_sending
    a_client_that_never_reads_is_left
    a_host_that_never_speaks_is_left
    an_administrator_ends_a_tunnel_behind_what_was_sent
    a_gateway_that_stops_ends_its_tunnels
}

async fn the_end_of_one_side_is_told_and_the_other_goes_on(setup: Setup) -> Result<()> {
    const LENGTH: u64 = 3_000_000;
    let stage = setup.start().await?;
    // The client ends, and its host has more to say.
    let mut ends = stage.open_tunnel().await?;
    ends.client.shutdown().await?;
    expect_end(&mut ends.host).await?;
    ends.downlink(LENGTH).await?;
    ends.host.shutdown().await?;
    expect_end(&mut ends.client).await?;
    stage.expect_reason("client disconnected").await?;

    // The host ends, and what the client has under way arrives.
    let mut ends = stage.open_tunnel().await?;
    ends.downlink(LENGTH / 10).await?;
    ends.host.shutdown().await?;
    expect_end(&mut ends.client).await?;
    for _ in 0..10 {
        ends.uplink(50_000).await?;
    }
    ends.client.shutdown().await?;
    expect_end(&mut ends.host).await?;
    stage.expect_reason("host disconnected").await?;
    drop(ends);
    stage.expect_no_channel().await
}

async fn what_a_side_sent_before_its_end_arrives(setup: Setup) -> Result<()> {
    let stage = setup.start().await?;
    for length in [0, 1, 65_536, 5_000_000] {
        let Ends {
            mut client,
            mut host,
            ..
        } = stage.open_tunnel().await?;
        let host_sends = async {
            send(&mut host, DOWNLINK, 0, length).await?;
            Ok(host.shutdown().await?)
        };
        tokio::try_join!(host_sends, read_exactly(&mut client, DOWNLINK, 0, length))?;
        expect_end(&mut client).await?;
        // The last bytes come with the end, when the gateway has ended its own side already.
        let client_sends = async {
            send(&mut client, UPLINK, 0, length).await?;
            Ok(client.shutdown().await?)
        };
        tokio::try_join!(client_sends, read_exactly(&mut host, UPLINK, 0, length))?;
        expect_end(&mut host).await?;
    }
    stage.expect_no_channel().await
}

async fn a_reset_of_one_side_ends_the_other(setup: Setup) -> Result<()> {
    let stage = setup.start().await?;
    let mut ends = stage.open_tunnel().await?;
    ends.downlink(200_000).await?;
    reset(&ends.host)?;
    drop(ends.host);
    expect_end(&mut ends.client).await?;
    drop(ends.client);
    stage.expect_reason("host lost").await?;

    let mut ends = stage.open_tunnel().await?;
    ends.uplink(100_000).await?;
    ends.client.reset()?;
    expect_end(&mut ends.host).await?;
    drop(ends.host);
    stage.expect_reason("client lost").await?;
    stage.expect_no_channel().await
}

async fn a_reset_is_told_to_a_side_that_is_sending(setup: Setup) -> Result<()> {
    let stage = setup.start().await?;
    for _ in 0..10 {
        // It sends until it is reset, a mebibyte after the end that it is shown before.
        let Ends { client, host, .. } = stage.open_tunnel().await?;
        let (mut reader, mut writer) = host.into_split();
        client.reset()?;
        let sent = write_pattern(&mut writer, DOWNLINK, 0, u64::MAX).await;
        sent.expect_err("nobody takes so much");
        expect_end(&mut reader).await?;

        let Ends { client, host, .. } = stage.open_tunnel().await?;
        let (mut reader, mut writer) = tokio::io::split(client);
        writer.write_all(&UPLINK.bytes(0, 30_000)).await?;
        writer.flush().await?;
        reset(&host)?;
        drop(host);
        let bytes = UPLINK.bytes(0, 30_000);
        let flood = async {
            while writer.write_all(&bytes).await.is_ok() {
                // The receiver must find its turn although this never waits.
                tokio::task::yield_now().await;
            }
        };
        let mut end = std::pin::pin!(expect_end(&mut reader));
        tokio::select! {
            ended = &mut end => ended,
            () = flood => end.await,
        }?;
    }
    stage.expect_reason("client lost").await?;
    stage.expect_reason("host lost").await?;
    stage.expect_no_channel().await
}

async fn a_client_that_never_reads_is_left(setup: Setup) -> Result<()> {
    let stage = setup.start_with(|gateway| gateway.set("CloseTimeout", 1));
    let stage = stage.await?;
    let endpoint = stage.endpoint.clone().receive_buffer(4_096);
    let mut ends = stage.open_tunnel_at(&endpoint).await?;
    // More than its own kernel takes, and not more than the gateway does.
    write_pattern(&mut ends.host, DOWNLINK, 0, 12 * 1_024).await?;
    ends.host.shutdown().await?;
    stage.expect_reason("host disconnected").await?;
    stage.expect_no_channel().await
}

async fn a_host_that_never_speaks_is_left(setup: Setup) -> Result<()> {
    let stage = setup.start_with(|gateway| gateway.set("LinkTimeout", 1));
    let stage = stage.await?;
    let mut spoken = stage.open_tunnel().await?;
    spoken.downlink(1).await?;
    let mut silent = stage.open_tunnel().await?;
    // A client that goes on does not change what its host does.
    silent.uplink(1_000).await?;
    expect_end(&mut silent.client).await?;
    stage
        .expect_reason("host did not answer the link message in time")
        .await?;
    spoken.uplink(1_000).await?;
    spoken.downlink(100_000).await
}

async fn an_administrator_ends_a_tunnel_behind_what_was_sent(setup: Setup) -> Result<()> {
    let stage = setup.start().await?;
    let mut ends = stage.open_tunnel().await?;
    ends.uplink(10_000).await?;
    write_pattern(&mut ends.host, DOWNLINK, 0, 100_000).await?;
    // It has come to the gateway once the client has its first byte.
    read_exactly(&mut ends.client, DOWNLINK, 0, 1).await?;
    stage.gateway.output(&["kick", "s1"]).await?;
    let (rest, end) = read_to_end(&mut ends.client).await?;
    DOWNLINK.check(1, &rest)?;
    ensure!(end == StreamEnd::Closed, "{end:?}");
    // What the client had under way arrives.
    ends.uplink(10_000).await?;
    ends.client.shutdown().await?;
    expect_end(&mut ends.host).await?;
    stage.expect_reason("ended by the administrator").await?;
    drop(ends);
    stage.expect_no_channel().await
}

async fn a_gateway_that_stops_ends_its_tunnels(setup: Setup) -> Result<()> {
    let mut stage = setup.start().await?;
    let mut ends = stage.open_tunnel().await?;
    ends.downlink(100_000).await?;
    ends.uplink(100_000).await?;
    let stop = async {
        let status = stage.gateway.terminate().await?;
        ensure!(status.success(), "{status}");
        Ok(())
    };
    let ended = async {
        expect_end(&mut ends.client).await?;
        ends.client.shutdown().await?;
        expect_end(&mut ends.host).await
    };
    tokio::try_join!(stop, ended)?;
    Ok(())
}
