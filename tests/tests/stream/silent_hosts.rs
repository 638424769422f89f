//! Hosts that take the connection and never speak: a client must not wait for them for ever.

use anyhow::{Result, ensure};
use serde_json::Value;
use testkit::http::Call;
use testkit::net::free_port;
use testkit::prelude::*;
use testkit::ws::Frame;

use crate::patterns::expect_closing;
use crate::setup::Setup;

on_every_path! {
    a_host_that_never_speaks_is_left
    a_host_that_has_spoken_once_may_be_silent
    a_silent_host_of_a_client_that_ends_is_left_as_any
}
on_path_as_root! { sockmap_unix_host, SOCKMAP_UNIX_HOST,
    a_host_that_never_speaks_is_left
}

async fn a_host_that_never_speaks_is_left(setup: Setup) -> Result<()> {
    let admin = free_port()?;
    let directory = tempfile::tempdir()?;
    let log = directory.path().join("access.log");
    let stage = setup.start_with(|gateway| {
        gateway
            .set("LinkTimeout", 1)
            .set("AdminPort", admin)
            .set("AccessLog", log.to_string_lossy())
    });
    let stage = stage.await?;
    let mut channel = stage.open().await?;
    // A client that goes on does not change what its host does.
    channel.uplink(1_000).await?;
    expect_closing(&mut channel.client, 1011).await?;
    channel.client.send_frame(&Frame::close(1011)).await?;
    channel.expect_host_end().await?;
    let reason = "host did not answer the link message in time";
    stage.expect_reason(reason).await?;
    let endpoint = Endpoint::plain(([127, 0, 0, 1], admin).into());
    let metrics = Call::get(&endpoint, "/metrics").send().await?;
    let metrics = String::from_utf8(metrics.body().to_vec())?;
    let sample = "flexvdi_gateway_channels_closed_total{reason=\"host silent\"} 1";
    ensure!(metrics.lines().any(|line| line == sample), "{metrics}");
    let recorded = within("line in the access log", async {
        loop {
            let text = std::fs::read_to_string(&log)?;
            let closed = text.lines().find(|line| line.contains("channel-closed"));
            match closed {
                Some(line) => return anyhow::Ok(serde_json::from_str::<Value>(line)?),
                None => tokio::task::yield_now().await,
            }
        }
    });
    ensure!(recorded.await??["reason"] == reason);
    drop(channel);
    stage.expect_no_channel().await
}

async fn a_host_that_has_spoken_once_may_be_silent(setup: Setup) -> Result<()> {
    let stage = setup.start_with(|gateway| gateway.set("LinkTimeout", 1));
    let stage = stage.await?;
    let mut spoken = stage.open().await?;
    spoken.downlink(1).await?;
    // Its time begins later, and so it ends later.
    let mut silent = stage.open().await?;
    expect_closing(&mut silent.client, 1011).await?;
    spoken.uplink(1_000).await?;
    spoken.downlink(100_000).await?;
    Ok(())
}

async fn a_silent_host_of_a_client_that_ends_is_left_as_any(setup: Setup) -> Result<()> {
    let stage = setup.start_with(|gateway| gateway.set("LinkTimeout", 1).set("CloseTimeout", 2));
    let stage = stage.await?;
    let mut channel = stage.open().await?;
    channel.client.shutdown().await?;
    channel.expect_host_end().await?;
    stage.expect_reason("client disconnected").await?;
    stage.expect_no_channel().await
}
