//! Peers that take nothing, and many channels at once: what the gateway holds stays bounded.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use futures_util::{StreamExt, TryStreamExt, stream};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use testkit::pattern::{DOWNLINK, UPLINK};
use testkit::prelude::*;
use testkit::ws::{Frame, RawClient};
use tokio::io::AsyncWriteExt;

use crate::channel::{Channel, open, target};
use crate::patterns::{expect_closing, read_downlink, read_downlink_to, read_uplink};
use crate::setup::Setup;
use crate::stage::Stage;

on_every_path! {
    a_client_that_does_not_read_stops_its_host
    a_host_that_does_not_read_stops_its_client
    a_thousand_channels_at_once
}
on_path_as_root! { sockmap_unix_host, SOCKMAP_UNIX_HOST,
    a_client_that_does_not_read_stops_its_host
    a_host_that_does_not_read_stops_its_client
}

const MIB: u64 = 1 << 20;
/// More than all buffers on the way hold, by far.
pub(crate) const OFFERED: u64 = 1024 * MIB;
/// What the kernel's buffers of four sockets may hold at most.
const BUFFERED: u64 = 256 * MIB;
pub(crate) const DRAINED: u64 = 64 * MIB;
/// How much the gateway's own memory may grow meanwhile.
const GROWTH: u64 = 8 * MIB;

/// Waits until a counter that has begun to count stands still.
pub(crate) async fn standstill(counter: &AtomicU64) -> Result<u64> {
    const STILL: Duration = Duration::from_millis(400);
    within("standstill", async {
        loop {
            let before = counter.load(Ordering::Relaxed);
            tokio::time::sleep(STILL).await;
            if before > 0 && counter.load(Ordering::Relaxed) == before {
                return before;
            }
        }
    })
    .await
}

/// The sender stopped after this many bytes; the gateway must not hold them.
pub(crate) fn check_stall(stage: &Stage, what: &str, sent: u64, start: u64) -> Result<()> {
    let growth = stage.gateway.memory()?.own.saturating_sub(start);
    println!(
        "{what}: stopped after {} KiB; the gateway grew by {} KiB",
        sent / 1024,
        growth / 1024
    );
    ensure!(sent < BUFFERED, "{sent} bytes were taken without a reader");
    ensure!(growth < GROWTH, "the gateway grew by {growth} bytes");
    Ok(())
}

/// Memory of a gateway that has had a channel already.
async fn settled_memory(stage: &Stage) -> Result<u64> {
    let mut channel = stage.open().await?;
    channel.downlink(100_000).await?;
    channel.uplink(100_000).await?;
    channel.client.reset()?;
    drop(channel.host);
    stage.expect_no_channel().await?;
    Ok(stage.gateway.memory()?.own)
}

async fn a_client_that_does_not_read_stops_its_host(setup: Setup) -> Result<()> {
    let stage = setup.start().await?;
    let start = settled_memory(&stage).await?;
    let endpoint = stage.endpoint.clone().receive_buffer(65_536);
    let Channel {
        mut client,
        mut host,
        ..
    } = open(&endpoint, &stage.host, &target(&stage.host)).await?;
    let sent = AtomicU64::new(0);
    let send = async {
        let mut at = 0;
        while at < OFFERED {
            host.write_all(&DOWNLINK.bytes(at, 65_536)).await?;
            at += 65_536;
            sent.store(at, Ordering::Relaxed);
            // The receiver must find its turn although this never waits.
            tokio::task::yield_now().await;
        }
        bail!("the whole of {OFFERED} bytes was taken without a reader")
    };
    let observe = async {
        let stalled = standstill(&sent).await?;
        check_stall(&stage, "slow client", stalled, start)?;
        read_downlink_to(&mut client, 0, DRAINED).await?;
        check_stall(&stage, "drained client", stalled, start)
    };
    tokio::select! {
        sent = send => sent,
        observed = observe => observed,
    }?;
    client.reset()?;
    drop(host);
    stage.expect_no_channel().await
}

async fn a_host_that_does_not_read_stops_its_client(setup: Setup) -> Result<()> {
    const FRAME: usize = 100_000;
    let stage = setup.start().await?;
    let start = settled_memory(&stage).await?;
    let Channel {
        client, mut host, ..
    } = stage.open().await?;
    let (mut reader, mut writer) = client.split();
    let sent = AtomicU64::new(0);
    let send = async {
        let mut at = 0;
        while at < OFFERED {
            let frame = Frame::binary(UPLINK.bytes(at, FRAME));
            writer.send_frame(&frame).await?;
            at += FRAME as u64;
            sent.store(at, Ordering::Relaxed);
            // The receiver must find its turn although this never waits.
            tokio::task::yield_now().await;
        }
        bail!("the whole of {OFFERED} bytes was taken without a reader")
    };
    let observe = async {
        let stalled = standstill(&sent).await?;
        check_stall(&stage, "slow host", stalled, start)?;
        read_uplink(&mut host, 0, DRAINED).await?;
        check_stall(&stage, "drained host", stalled, start)?;
        // With much of the uplink unread this is a RST.
        drop(host);
        expect_closing(&mut reader, 1011).await
    };
    tokio::select! {
        sent = send => sent,
        observed = observe => observed,
    }?;
    drop((reader, writer));
    stage.expect_no_channel().await
}

pub(crate) const CHANNELS: usize = 1_000;
/// Channels that are opened or closed at the same time.
const AT_ONCE: usize = 32;
/// What an idle channel may hold in bytes, its part of the allocator's gaps included; no buffer
/// for payload is as small.
const IDLE_CHANNEL: u64 = 32 * 1024;
/// What may look like a leak of each channel in bytes, but is the allocator's, which finds no
/// use for some of the gaps that the channels before left.
const LEAK: u64 = 8 * 1024;

/// Lets this process have a socket to the gateway and one at the host for each channel.
pub(crate) fn raise_descriptor_limit() -> Result<()> {
    const NEEDED: u64 = 2 * CHANNELS as u64 + 500;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < NEEDED) {
        ensure!(
            limit.maximum.is_none_or(|maximum| maximum >= NEEDED),
            "the hard limit on open files is below {NEEDED}: raise it with `ulimit -Hn {NEEDED}`"
        );
        let raised = Rlimit {
            current: Some(NEEDED),
            ..limit
        };
        setrlimit(Resource::Nofile, raised).context("raising the limit on open files")?;
    }
    Ok(())
}

async fn a_thousand_channels_at_once(setup: Setup) -> Result<()> {
    raise_descriptor_limit()?;
    let stage = setup.start().await?;
    let start = stage.gateway.memory()?.own;
    let first = thousand_channels(&stage).await?;
    let second = thousand_channels(&stage).await?;
    let after = stage.gateway.memory()?.own;
    let each = first.saturating_sub(start) / CHANNELS as u64;
    println!(
        "{CHANNELS} channels: {each} bytes each when idle; KiB before {}, idle {}, idle again {}, \
         after {}",
        start / 1024,
        first / 1024,
        second / 1024,
        after / 1024
    );
    ensure!(each < IDLE_CHANNEL, "an idle channel holds {each} bytes");
    // What the first ones left was used again.
    let leak = second.saturating_sub(first) / CHANNELS as u64;
    ensure!(leak < LEAK, "each channel leaves {leak} bytes behind");
    Ok(())
}

/// Opens, uses and closes channels; returns the gateway's memory while they were all idle.
async fn thousand_channels(stage: &Stage) -> Result<u64> {
    let host = Host::echo().await?;
    let clients = open_thousand(stage, &host).await?;
    // All of them move at once.
    let clients: Vec<RawClient> = stream::iter(clients)
        .map(|client| echo(client, 3_000))
        .buffer_unordered(CHANNELS)
        .try_collect()
        .await?;
    let idle = stage.gateway.memory()?.own;
    close_thousand(clients).await?;
    stage.expect_no_channel().await?;
    Ok(idle)
}

/// Opens channels to a host that echoes, and moves some bytes on each.
pub(crate) async fn open_thousand(stage: &Stage, host: &Host<Vec<u8>>) -> Result<Vec<RawClient>> {
    let clients: Vec<RawClient> = stream::iter(0..CHANNELS)
        .map(|_| open_echo(&stage.endpoint, host))
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await?;
    ensure!(host.accepted() == CHANNELS);
    Ok(clients)
}

/// Closes channels in an orderly way.
pub(crate) async fn close_thousand(clients: Vec<RawClient>) -> Result<()> {
    stream::iter(clients)
        .map(|mut client| async move {
            client.send_frame(&Frame::close(1000)).await?;
            expect_closing(&mut client, 1000).await
        })
        .buffer_unordered(AT_ONCE)
        .try_collect::<()>()
        .await
}

/// Opens a channel to a host that echoes, and moves some bytes both ways.
async fn open_echo(endpoint: &Endpoint, host: &Host<Vec<u8>>) -> Result<RawClient> {
    let mut client = RawClient::open(endpoint, &target(host)).await?;
    let link = link_message(ChannelType::Display, 0);
    client.send_frame(&Frame::binary(link.clone())).await?;
    expect_bytes(&mut client, &link).await?;
    echo(client, 20_000).await
}

async fn echo(mut client: RawClient, length: usize) -> Result<RawClient> {
    let bytes = DOWNLINK.bytes(0, length);
    client.send_frame(&Frame::binary(bytes)).await?;
    read_downlink(&mut client, 0, length as u64).await?;
    Ok(client)
}

async fn expect_bytes(client: &mut RawClient, expected: &[u8]) -> Result<()> {
    let mut received = Vec::new();
    while received.len() < expected.len() {
        received.extend(client.read_frame().await?.payload);
    }
    ensure!(received == expected, "other bytes than were sent");
    Ok(())
}
