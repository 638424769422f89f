//! What only the data path `ktls-sockmap` promises.

use anyhow::{Result, ensure};
use testkit::pattern::{DOWNLINK, write_pattern};
use testkit::prelude::*;

use crate::setup::{KTLS_SOCKMAP, KTLS_SOCKMAP_REFUSED, Stage, read_downlink};

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
