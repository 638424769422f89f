//! What only the data path `sockmap` promises.

use std::fs;

use anyhow::{Context, Result, ensure};
use testkit::gateway::Signal;
use testkit::pattern::DOWNLINK;
use testkit::prelude::*;
use testkit::ws::{Frame, Opcode, RawClient};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::channel::{Channel, target};
use crate::patterns::read_downlink;
use crate::setup::{RELAY_PLAIN, SOCKMAP, SOCKMAP_ON_TLS, SOCKMAP_UNIX_HOST, Setup};
use crate::stage::Stage;

/// How often the gateway's threads have waited for something and were woken.
fn wakeups(stage: &Stage) -> Result<u64> {
    let mut sum = 0;
    for task in fs::read_dir(format!("/proc/{}/task", stage.gateway.pid()))? {
        let status = fs::read_to_string(task?.path().join("status"))?;
        let count = status
            .lines()
            .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))
            .context("a thread without switches")?;
        sum += count.trim().parse::<u64>()?;
    }
    Ok(sum)
}

/// Wakeups while a host sends messages, each after the one before has arrived.
async fn wakeups_of(setup: Setup, messages: u64) -> Result<u64> {
    const LENGTH: u64 = 85;
    let stage = setup.start().await?;
    let mut channel = stage.open().await?;
    channel.downlink(100_000).await?;
    let before = wakeups(&stage)?;
    for _ in 0..messages {
        channel.downlink(LENGTH).await?;
    }
    Ok(wakeups(&stage)? - before)
}

#[tokio::test]
#[cfg_attr(unprivileged, ignore = "needs root: cargo xtask test")]
async fn the_downlink_does_not_wake_the_gateway() -> Result<()> {
    const MESSAGES: u64 = 10_000;
    let relay = wakeups_of(RELAY_PLAIN, 1_000).await? * (MESSAGES / 1_000);
    let sockmap = wakeups_of(SOCKMAP, MESSAGES).await?;
    println!("wakeups for {MESSAGES} messages: relay about {relay}, sockmap {sockmap}");
    ensure!(sockmap < MESSAGES / 100, "{sockmap} wakeups");
    // Older kernels leave such hosts to relay.
    if moves_unix_hosts().await? {
        let unix = wakeups_of(SOCKMAP_UNIX_HOST, MESSAGES).await?;
        println!("with a host on a Unix socket {unix}");
        ensure!(unix < MESSAGES / 100, "{unix} wakeups");
    }
    Ok(())
}

/// Whether the probe found that the kernel moves hosts on Unix sockets.
async fn moves_unix_hosts() -> Result<bool> {
    let stage = SOCKMAP.start().await?;
    let line = stage.wait_for_log("path=\"sockmap\" works=true").await?;
    Ok(line.contains("Unix sockets of hosts"))
}

#[tokio::test]
async fn more_than_two_gib_are_counted_and_arrive() -> Result<()> {
    const LENGTH: u64 = (2 << 30) + 12_345;
    let stage = SOCKMAP.start().await?;
    let Channel {
        client, mut host, ..
    } = stage.open().await?;
    let mut client = client;
    let send = async {
        let block = vec![b'x'; 1 << 20];
        let mut left = LENGTH;
        while left > 0 {
            let part = usize::try_from(left.min(1 << 20))?;
            host.write_all(&block[..part]).await?;
            left -= part as u64;
        }
        host.shutdown().await?;
        anyhow::Ok(())
    };
    let receive = async {
        let mut received = 0;
        loop {
            let frame = client.read_frame().await?;
            if frame.opcode == Opcode::CLOSE {
                return anyhow::Ok(received);
            }
            received += frame.payload.len() as u64;
        }
    };
    let ((), received) = tokio::try_join!(send, receive)?;
    drop((client, host));
    let line = stage.wait_for_log("channel closed").await?;
    ensure!(
        received == LENGTH,
        "{received} bytes of {LENGTH} arrived: {line}"
    );
    ensure!(
        line.contains(&format!("down={LENGTH} ")) && line.contains(" 0 bytes dropped"),
        "{line}"
    );
    stage.expect_no_channel().await
}

#[tokio::test]
#[cfg_attr(unprivileged, ignore = "needs root: cargo xtask test")]
async fn a_killed_gateway_leaves_no_wedged_sockets() -> Result<()> {
    let stage = SOCKMAP.start().await?;
    let mut channels = Vec::new();
    for _ in 0..10 {
        let mut channel = stage.open().await?;
        channel.downlink(10_000).await?;
        // Something is on its way, and the client does not read it.
        let _ = channel.host.try_write(&DOWNLINK.bytes(0, 200_000))?;
        channels.push(channel);
    }
    stage.gateway.signal(Signal::KILL)?;
    for channel in &mut channels {
        let _ = channel.client.read_to_end().await?;
        let rest = async {
            let mut buffer = [0; 4096];
            while matches!(channel.host.read(&mut buffer).await, Ok(1..)) {}
        };
        within("the host's end", rest).await?;
    }
    Ok(())
}

#[tokio::test]
#[cfg_attr(unprivileged, ignore = "needs root: cargo xtask test")]
async fn a_tls_leg_falls_back_to_relay() -> Result<()> {
    let stage = SOCKMAP_ON_TLS.start().await?;
    let mut channel = stage.open().await?;
    channel.downlink(1_000).await?;
    let line = stage.wait_for_log("relay is used instead").await?;
    ensure!(line.contains("TLS client leg"), "{line}");
    Ok(())
}

#[tokio::test]
#[cfg_attr(unprivileged, ignore = "needs root: cargo xtask test")]
async fn a_host_that_speaks_first_falls_back_to_relay() -> Result<()> {
    let stage = SOCKMAP.start().await?;
    let mut client = RawClient::open(&stage.endpoint, &target(&stage.host)).await?;
    let mut host = stage.host.outcome().await?;
    host.write_all(&DOWNLINK.bytes(0, 1_000)).await?;
    // On loopback the bytes are in the gateway's socket once they were written.
    let link = link_message(ChannelType::Main, 0);
    client.send_frame(&Frame::binary(link)).await?;
    read_downlink(&mut client, 0, 1_000).await?;
    let line = stage.wait_for_log("relay is used instead").await?;
    ensure!(line.contains("host spoke first"), "{line}");
    let line = stage.wait_for_log("channel open").await?;
    ensure!(line.contains("path=\"relay\""), "{line}");
    Ok(())
}
