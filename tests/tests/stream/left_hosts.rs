//! Hosts that go on sending although their clients have gone.

use anyhow::{Result, ensure};
use testkit::pattern::DOWNLINK;
use testkit::prelude::*;
use testkit::ws::Frame;
use tokio::io::AsyncWriteExt;

use crate::setup::{Channel, Setup, expect_closing, expect_uplink_end};

on_every_path! {
    a_host_that_goes_on_sending_to_a_client_that_was_lost_is_left
    a_host_that_goes_on_sending_to_a_client_that_closed_is_left
}

/// `CloseTimeout` in seconds: more than a test waits for anything.
const LONG: u64 = 90;
/// What is read for nobody, and what fits into the sockets at both ends.
const MOST: usize = 24 << 20;

async fn a_host_that_goes_on_sending_to_a_client_that_was_lost_is_left(setup: Setup) -> Result<()> {
    let stage = setup.start_with(|gateway| gateway.set("CloseTimeout", LONG));
    let stage = stage.await?;
    let channel = stage.open().await?;
    channel.client.reset()?;
    send_until_left(channel.host).await?;
    stage.expect_reason("client lost").await?;
    stage.expect_no_channel().await
}

async fn a_host_that_goes_on_sending_to_a_client_that_closed_is_left(setup: Setup) -> Result<()> {
    let stage = setup.start_with(|gateway| gateway.set("CloseTimeout", LONG));
    let stage = stage.await?;
    let Channel {
        mut client, host, ..
    } = stage.open().await?;
    client.send_frame(&Frame::close(1000)).await?;
    expect_closing(&mut client, 1000).await?;
    drop(client);
    send_until_left(host).await?;
    stage.expect_reason("client sent Close 1000").await?;
    stage.expect_no_channel().await
}

/// Hears that nothing more comes, and takes no notice.
async fn send_until_left(mut host: tokio::net::TcpStream) -> Result<()> {
    expect_uplink_end(&mut host, 0, 0).await?;
    let piece = DOWNLINK.bytes(0, 65_536);
    let mut sent = 0;
    while within("room, or an error", host.write_all(&piece))
        .await?
        .is_ok()
    {
        sent += piece.len();
        ensure!(sent <= MOST, "{sent} bytes were taken for nobody");
    }
    println!("{sent} bytes were taken for nobody");
    Ok(())
}
