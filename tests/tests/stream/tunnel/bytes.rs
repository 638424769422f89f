//! Every byte arrives once, in order and unchanged, in both directions.

use anyhow::{Context, Result, ensure};
use testkit::pattern::{DOWNLINK, UPLINK};
use testkit::prelude::*;
use testkit::rng::Rng;
use tokio::io::AsyncWriteExt;

use super::setup::{Ends, send};
use crate::channel::linked;
use crate::patterns::{expect_end, read_exactly, send_messages};
use crate::setup::Setup;

on_every_tunnel! {
    bytes_of_all_lengths_arrive_unchanged_both_ways
    messages_of_every_size_arrive_at_once
    many_small_messages_both_ways
    bulk_between_small_messages
    what_comes_with_the_link_message_arrives_behind_it
}

async fn bytes_of_all_lengths_arrive_unchanged_both_ways(setup: Setup) -> Result<()> {
    let stage = setup.start().await?;
    let Ends { client, host, .. } = stage.open_tunnel().await?;
    let (mut client_reader, mut client_writer) = tokio::io::split(client);
    let (mut host_reader, mut host_writer) = host.into_split();
    let (mut up, mut down) = (0, 0);
    for length in [
        1_u64, 2, 125, 126, 16_384, 65_532, 65_536, 131_072, 5_000_000,
    ] {
        tokio::try_join!(
            send(&mut client_writer, UPLINK, up, length),
            send(&mut host_writer, DOWNLINK, down, length),
            read_exactly(&mut host_reader, UPLINK, up, length),
            read_exactly(&mut client_reader, DOWNLINK, down, length),
        )
        .with_context(|| format!("{length} bytes"))?;
        up += length;
        down += length;
    }
    let mut client = client_reader.unsplit(client_writer);
    client.shutdown().await?;
    expect_end(&mut host_reader).await?;
    drop((host_reader, host_writer));
    expect_end(&mut client).await?;
    let line = stage.closing_line("client disconnected").await?;
    let link = link_message(ChannelType::Main, 0).len() as u64;
    let counts = format!("up={} down={down} ", up + link);
    ensure!(line.contains(&counts), "not {counts:?} in {line:?}");
    stage.expect_no_channel().await
}

async fn messages_of_every_size_arrive_at_once(setup: Setup) -> Result<()> {
    let stage = setup.start().await?;
    let mut ends = stage.open_tunnel().await?;
    let borders = [4_095, 4_096, 4_097, 16_383, 16_385, 65_535, 65_537, 1 << 20];
    for size in (1..=300).chain(borders) {
        ends.downlink(size).await?;
        ends.uplink(size).await?;
    }
    Ok(())
}

async fn many_small_messages_both_ways(setup: Setup) -> Result<()> {
    const MESSAGES: usize = 10_000;
    let stage = setup.start().await?;
    let Ends { client, host, .. } = stage.open_tunnel().await?;
    let mut rng = Rng::new(1);
    let sizes: Vec<usize> = (0..MESSAGES).map(|_| 1 + rng.below(200)).collect();
    let total = sizes.iter().sum::<usize>() as u64;
    let (mut client_reader, mut client_writer) = tokio::io::split(client);
    let (mut host_reader, mut host_writer) = host.into_split();
    tokio::try_join!(
        send_messages(&mut client_writer, UPLINK, &sizes),
        send_messages(&mut host_writer, DOWNLINK, &sizes),
        read_exactly(&mut client_reader, DOWNLINK, 0, total),
        read_exactly(&mut host_reader, UPLINK, 0, total),
    )?;
    Ok(())
}

async fn bulk_between_small_messages(setup: Setup) -> Result<()> {
    const BULK: u64 = 64 << 20;
    let stage = setup.start().await?;
    let mut ends = stage.open_tunnel().await?;
    for length in [100, BULK, 100] {
        for _ in 0..if length == BULK { 1 } else { 50 } {
            ends.downlink(length).await?;
            ends.uplink(length).await?;
        }
    }
    Ok(())
}

/// Much of what a client sends at its beginning was read by the process, or waits to be, when the
/// kernel takes over.
async fn what_comes_with_the_link_message_arrives_behind_it(setup: Setup) -> Result<()> {
    let stage = setup.start().await?;
    let link = link_message(ChannelType::Main, 0);
    for length in [1, 10_000, 60_000, 200_000, 3_000_000] {
        let ticket = stage.gateway.ticket(stage.host.addr()).await?;
        let mut client = stage.endpoint.connect().await?;
        let request = testkit::tunnel::Tunnel::new(&stage.endpoint, &ticket).request();
        client.write_all(request.as_bytes()).await?;
        client.flush().await?;
        let mut client = testkit::ws::RawClient::over(client);
        client.read_head().await?;
        let (mut reader, mut writer) = tokio::io::split(client.into_connection()?);
        let early = async {
            writer.write_all(&link).await?;
            send(&mut writer, UPLINK, 0, length).await
        };
        let host = async {
            let mut host = linked(&stage.host, &link).await?;
            read_exactly(&mut host, UPLINK, 0, length).await?;
            send(&mut host, DOWNLINK, 0, 1_000).await?;
            Ok(host)
        };
        let ((), _host) = tokio::try_join!(early, host)?;
        read_exactly(&mut reader, DOWNLINK, 0, 1_000).await?;
    }
    stage.expect_path().await
}
