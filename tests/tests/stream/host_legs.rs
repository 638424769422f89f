//! Hosts that are reached otherwise than by a plain TCP port.

use anyhow::{Result, ensure};

use crate::setup::{Setup, UNIX_HOST, UNIX_HOST_WITHOUT_SOCKMAP};

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
async fn the_kernels_paths_leave_unix_sockets_to_relay() -> Result<()> {
    let log = move_bytes(UNIX_HOST_WITHOUT_SOCKMAP).await?;
    // A gateway that may not load eBPF programs has told of that instead.
    let told = log.contains("reason=\"Unix socket of a host\"")
        || log.contains("path=\"sockmap\" works=false");
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
