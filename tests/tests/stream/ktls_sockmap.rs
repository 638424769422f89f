//! What only the data path `ktls-sockmap` promises.

use std::io;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use futures_util::future::try_join_all;
use testkit::pattern::{DOWNLINK, write_pattern};
use testkit::prelude::*;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::channel::{Channel, open, target};
use crate::patterns::read_downlink;
use crate::setup::{KTLS_SOCKMAP, KTLS_SOCKMAP_REFUSED};
use crate::stage::Stage;

/// The channel, which is ending, has lost nothing in the kernel.
async fn expect_nothing_lost(stage: &Stage) -> Result<()> {
    let line = stage.wait_for_log("channel closed").await?;
    ensure!(line.contains(" 0 bytes dropped"), "{line}");
    Ok(())
}

#[tokio::test]
#[ignore = "needs a kernel with TLS and sockmap on one socket: cargo xtask vm-test"]
async fn ten_thousand_small_messages_arrive() -> Result<()> {
    const LENGTH: u64 = 85;
    let stage = KTLS_SOCKMAP.start().await?;
    let mut channel = stage.open().await?;
    channel.host.set_nodelay(true)?;
    for at in (0..10_000).map(|index| index * LENGTH) {
        write_pattern(&mut channel.host, DOWNLINK, at, LENGTH).await?;
        read_downlink(&mut channel.client, at, LENGTH).await?;
    }
    drop(channel);
    expect_nothing_lost(&stage).await
}

#[tokio::test]
#[ignore = "needs a kernel with TLS and sockmap on one socket, and minutes without KVM: cargo xtask vm-test"]
async fn a_gibibyte_arrives() -> Result<()> {
    let stage = KTLS_SOCKMAP.start().await?;
    let mut channel = stage.open().await?;
    channel.downlink(1 << 30).await?;
    drop(channel);
    expect_nothing_lost(&stage).await
}

/// The kernel's worker, which tries again and again to send what they do not take, may not meet
/// the end of their TLS.
#[tokio::test]
#[ignore = "needs a kernel with TLS and sockmap on one socket: cargo xtask vm-test"]
async fn clients_that_stall_and_vanish_do_no_harm() -> Result<()> {
    const CLIENTS: usize = 24;
    const ROUNDS: usize = 4;
    let stage = KTLS_SOCKMAP.start().await?;
    let endpoint = stage.endpoint.clone().receive_buffer(4_096);
    let target = target(&stage.host);
    for _ in 0..ROUNDS {
        let mut channels = Vec::new();
        for _ in 0..CLIENTS {
            channels.push(open(&endpoint, &stage.host, &target).await?);
        }
        try_join_all(channels.iter().map(|channel| fill(&channel.host))).await?;
        for Channel { client, host, .. } in channels {
            client.reset()?;
            drop(host);
        }
        stage.expect_no_channel().await?;
    }
    // The gateway and the kernel go on.
    stage.open().await?.downlink(100_000).await
}

/// Sends until nothing more is taken.
async fn fill(host: &TcpStream) -> Result<()> {
    const STILL: Duration = Duration::from_millis(400);
    let bytes = DOWNLINK.bytes(0, 65_536);
    for _ in 0..10_000 {
        let Ok(ready) = timeout(STILL, host.writable()).await else {
            return Ok(());
        };
        ready?;
        match host.try_write(&bytes) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error.into()),
            _ => {}
        }
    }
    bail!("everything is taken without a reader")
}

#[tokio::test]
async fn the_start_warns_and_tells_what_is_found() -> Result<()> {
    let gateway = Gateway::builder()
        .set("DataPath", "ktls-sockmap")
        .spawn()
        .await?;
    let is_finding =
        |line: &str| line.contains("data path") && line.contains("path=\"ktls-sockmap\"");
    let finding = gateway.wait_for_log(is_finding, PATIENCE).await?;
    if finding.contains("works=true") {
        let is_warning = |line: &str| line.contains("CVE-2026-93824");
        gateway.wait_for_log(is_warning, PATIENCE).await?;
        return Ok(());
    }
    ensure!(finding.contains("reason="), "{finding}");
    let stage = KTLS_SOCKMAP_REFUSED.start().await?;
    let mut channel = stage.open().await?;
    channel.downlink(100_000).await?;
    channel.uplink(100_000).await?;
    stage.wait_for_log("relay is used instead").await?;
    Ok(())
}
