//! A recorded desktop: the messages of a real Spice client and server, as bytes that both ends
//! verify.

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use testkit::gateway::GatewayBuilder;
use testkit::prelude::*;
use testkit::replay::{Played, Recording, Speed};
use testkit::ws::{Channel, Connect};

use crate::setup::{KTLS, Setup};
use crate::stage::Stage;

on_every_path! {
    all_channels_of_a_recorded_desktop
}

/// The channels are played at the same time, as those of a desktop are, but without pauses: what
/// was recorded message by message runs together, too.
async fn all_channels_of_a_recorded_desktop(setup: Setup) -> Result<()> {
    play(&setup.start().await?).await.map(drop)
}

#[tokio::test]
#[ignore = "needs a kernel with TLS: cargo xtask vm-test"]
async fn all_channels_are_spliced() -> Result<()> {
    let splice = |gateway: GatewayBuilder| gateway.set("SpliceFrom", 1);
    for line in play(&KTLS.start_with(splice).await?).await? {
        ensure!(line.contains("bytes spliced, 0 bytes copied"), "{line}");
    }
    Ok(())
}

/// Returns what the log tells of the channels.
async fn play(stage: &Stage) -> Result<Vec<String>> {
    let recording = Recording::load()?;
    let host = recording.host(Speed::Unlimited).await?;
    let token = host.addr().port().to_string();
    let plays = recording.channels().iter().map(async |channel| {
        let socket = Connect::new(&stage.endpoint, &token).open().await?;
        let stream = Channel::new(socket.opened()?);
        let played = channel.play_client(stream, Speed::Unlimited).await;
        played.with_context(|| format!("{} channel", channel.channel_type))
    });
    let mut sent = try_join_all(plays).await?;
    let mut received = Vec::new();
    for _ in &sent {
        received.push(host.outcome().await?);
    }
    let by_type = |played: &Played| played.channel_type as u8;
    sent.sort_by_key(by_type);
    received.sort_by_key(by_type);
    ensure!(sent == received, "{sent:?} instead of {received:?}");
    let mut closed = Vec::new();
    for channel in sent {
        let end = format!("kind=\"{}\"", channel.channel_type);
        let is_end = |line: &str| line.contains("channel closed") && line.contains(&end);
        let line = stage.gateway.wait_for_log(is_end, PATIENCE).await?;
        stage.expect_path_in(&line)?;
        let counts = format!("up={} down={} ", channel.uplink, channel.downlink);
        ensure!(line.contains(&counts), "{line} instead of {counts}");
        closed.push(line);
    }
    stage.expect_no_channel().await?;
    Ok(closed)
}
