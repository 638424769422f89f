//! Hosts that go on sending although their clients have gone.

use anyhow::{Result, ensure};
use socket2::SockRef;
use testkit::pattern::{DOWNLINK, write_pattern};
use testkit::prelude::*;
use testkit::ws::Frame;
use tokio::io::AsyncWriteExt;

use crate::channel::Channel;
use crate::patterns::{expect_closing, expect_uplink_end};
use crate::setup::Setup;

on_every_path! {
    a_host_that_goes_on_sending_to_a_client_that_was_lost_is_left
    a_host_that_goes_on_sending_to_a_client_that_closed_is_left
    a_host_that_sends_a_lot_before_it_reads_gets_what_its_client_sent
    a_host_that_neither_reads_nor_stops_is_left
}
on_path_as_root! { sockmap_unix_host, SOCKMAP_UNIX_HOST,
    a_host_that_goes_on_sending_to_a_client_that_was_lost_is_left
    a_host_that_goes_on_sending_to_a_client_that_closed_is_left
    a_host_that_neither_reads_nor_stops_is_left
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

async fn a_host_that_sends_a_lot_before_it_reads_gets_what_its_client_sent(
    setup: Setup,
) -> Result<()> {
    const DOWN: u64 = 8 << 20;
    let stage = setup.start().await?;
    let mut channel = stage.open().await?;
    close_behind_uplink(&mut channel).await?;
    let sent = within("room", write_pattern(&mut channel.host, DOWNLINK, 0, DOWN));
    sent.await??;
    expect_uplink_end(&mut channel.host, 0, UP as u64).await?;
    drop(channel);
    stage.expect_no_channel().await
}

async fn a_host_that_neither_reads_nor_stops_is_left(setup: Setup) -> Result<()> {
    /// What is read for nobody while the host does not have the uplink.
    const BEFORE_UPLINK: usize = 64 << 20;
    let stage = setup.start_with(|gateway| gateway.set("CloseTimeout", 2));
    let stage = stage.await?;
    let mut channel = stage.open().await?;
    close_behind_uplink(&mut channel).await?;
    send_all_until_left(&mut channel.host, BEFORE_UPLINK + MOST).await?;
    stage.expect_no_channel().await
}

/// More than fits into [`BUFFER`], the host's receive buffer; both in bytes.
const UP: usize = 60_000;
const BUFFER: usize = 16_384;

/// The client sends something and a Close, and is gone.
async fn close_behind_uplink(channel: &mut Channel) -> Result<()> {
    SockRef::from(&channel.host).set_recv_buffer_size(BUFFER)?;
    let frame = channel.next_frame(UP);
    channel.client.send_frame(&frame).await?;
    channel.client.send_frame(&Frame::close(1000)).await?;
    expect_closing(&mut channel.client, 1000).await
}

/// Hears that nothing more comes, and takes no notice.
async fn send_until_left(mut host: tokio::net::TcpStream) -> Result<()> {
    expect_uplink_end(&mut host, 0, 0).await?;
    send_all_until_left(&mut host, MOST).await
}

/// Sends until its connection breaks, at most so many bytes.
async fn send_all_until_left(host: &mut tokio::net::TcpStream, most: usize) -> Result<()> {
    let piece = DOWNLINK.bytes(0, 65_536);
    let mut sent = 0;
    while within("room, or an error", host.write_all(&piece))
        .await?
        .is_ok()
    {
        sent += piece.len();
        ensure!(sent <= most, "{sent} bytes were taken for nobody");
    }
    println!("{sent} bytes were taken for nobody");
    Ok(())
}
