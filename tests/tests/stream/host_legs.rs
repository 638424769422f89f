//! Hosts that are reached otherwise than by a plain TCP port.

use anyhow::{Result, ensure};

use crate::setup::{Setup, TLS_HOST_WITHOUT_SOCKMAP, UNIX_HOST, UNIX_HOST_WITHOUT_KTLS};

async fn move_bytes(setup: Setup) -> Result<String> {
    let stage = setup.start().await?;
    let mut channel = stage.open().await?;
    for length in [1, 100, 16_384, 100_000, 1_000_000] {
        channel.downlink(length).await?;
        channel.uplink(usize::try_from(length)?).await?;
    }
    Ok(stage.gateway.log().await.join("\n"))
}

#[tokio::test]
async fn the_kernels_paths_leave_to_relay_what_they_cannot_move() -> Result<()> {
    falls_back(TLS_HOST_WITHOUT_SOCKMAP, "TLS to a host").await?;
    falls_back(UNIX_HOST_WITHOUT_KTLS, "Unix socket of a host").await
}

async fn falls_back(setup: Setup, reason: &str) -> Result<()> {
    let log = move_bytes(setup).await?;
    // A gateway that may not load eBPF programs, or has no kernel with TLS, has told of that
    // instead.
    let told = log.contains(&format!("reason=\"{reason}\"")) || log.contains("works=false");
    ensure!(told, "{log}");
    Ok(())
}

#[tokio::test]
async fn the_log_names_the_socket_and_whose_it_is() -> Result<()> {
    let log = move_bytes(UNIX_HOST).await?;
    let line = log.lines().find(|line| line.contains("channel open"));
    let line = line.unwrap_or_default();
    ensure!(line.contains("host=unix:/"), "{line}");
    let user = format!("user={}", rustix::process::getuid().as_raw());
    ensure!(line.contains(&user), "{line}");
    Ok(())
}
