//! Clients that vanish without a word, and clients that only seem to.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use testkit::gateway::Signal;
use testkit::line::Quality;
use testkit::namespace::sockets;
use testkit::network::{Leg, Network};
use testkit::pattern::{DOWNLINK, write_pattern};
use testkit::prelude::*;
use testkit::ws::RawClient;
use tokio::io::AsyncRead;
use tokio::time::timeout;

use crate::channel::{Channel, open, target};
use crate::patterns::{check_data, expect_uplink_end, read_downlink, read_downlink_to};
use crate::setup::Setup;
use crate::stage::Stage;

on_every_path_as_root! {
    a_client_that_vanishes_while_it_is_sent_to_is_given_up
    a_client_that_vanishes_while_nothing_moves_is_given_up
    a_client_that_vanishes_with_a_full_window_is_given_up
    a_limit_that_is_set_later_counts_for_channels_that_are_open
    a_client_that_does_not_read_is_not_given_up
    a_client_that_was_away_for_less_is_sent_to_soon_after
}

/// `ClientTimeout` in seconds.
const LIMIT: u64 = 2;
const REASON: &str = "client lost: no answer in time";
/// A round trip of the line.
const ROUND_TRIP: Duration = Duration::from_millis(6);

fn line() -> Leg {
    let quality = Quality {
        delay: ROUND_TRIP / 2,
        ..Quality::default()
    };
    quality.into()
}

/// A client at the end of a line, before it vanishes.
struct Scene {
    network: Network,
    stage: Stage,
    channel: Channel,
    /// Of the gateway's network, without those of the channel.
    sockets: u64,
}

impl Scene {
    async fn begin(setup: Setup, limit: u64) -> Result<Self> {
        let network = Network::new(line(), Leg::Ethernet, 1)?;
        let set = |gateway: testkit::gateway::GatewayBuilder| gateway.set("ClientTimeout", limit);
        let stage = setup.start_in_with(&network, set).await?;
        let sockets = network.gateway.enter(sockets)??;
        let channel = stage.open().await?;
        Ok(Self {
            network,
            stage,
            channel,
            sockets,
        })
    }
}

/// Waits until a channel is gone with its sockets: one that is closed and not reset goes on
/// sending.
async fn expect_nothing_left(network: &Network, stage: &Stage, before: u64) -> Result<()> {
    stage.expect_no_channel().await?;
    within("the end of all sockets", async {
        while network.gateway.enter(sockets)?? > before {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    })
    .await?
}

async fn a_client_that_vanishes_while_it_is_sent_to_is_given_up(setup: Setup) -> Result<()> {
    const BEFORE: u64 = 500_000;
    let scene = Scene::begin(setup, LIMIT).await?;
    let (network, stage) = (&scene.network, &scene.stage);
    let Channel {
        mut client,
        mut host,
        ..
    } = scene.channel;
    let host_sends = async {
        let sent = write_pattern(&mut host, DOWNLINK, 0, u64::MAX).await;
        ensure!(sent.is_err(), "a client that has vanished was sent a lot");
        Ok(())
    };
    let client_vanishes = async {
        read_downlink_to(&mut client, 0, BEFORE).await?;
        cut(network)?;
        let begun = Instant::now();
        stage.expect_reason(REASON).await?;
        let taken = begun.elapsed();
        println!("given up after {taken:?}");
        // The last answer may be older than the cut.
        ensure!(taken > Duration::from_secs(LIMIT) / 2, "after {taken:?}");
        Ok(())
    };
    tokio::try_join!(host_sends, client_vanishes)?;
    expect_nothing_left(network, stage, scene.sockets).await
}

async fn a_client_that_vanishes_while_nothing_moves_is_given_up(setup: Setup) -> Result<()> {
    let scene = Scene::begin(setup, LIMIT).await?;
    let (network, stage) = (&scene.network, &scene.stage);
    let mut channel = scene.channel;
    cut(network)?;
    stage.expect_reason(REASON).await?;
    expect_uplink_end(&mut channel.host, 0, 0).await?;
    drop(channel);
    expect_nothing_left(network, stage, scene.sockets).await
}

async fn a_client_that_vanishes_with_a_full_window_is_given_up(setup: Setup) -> Result<()> {
    /// For so long its system is asked for room, and answers.
    const FULL: Duration = Duration::from_secs(2 * LIMIT);
    let mut scene = Scene::begin(setup, LIMIT).await?;
    let (network, stage) = (&scene.network, &scene.stage);
    let sends = write_pattern(&mut scene.channel.host, DOWNLINK, 0, u64::MAX);
    let mut host_sends = std::pin::pin!(sends);
    // The client reads nothing, so the host cannot go on for ever.
    ensure!(timeout(FULL, &mut host_sends).await.is_err(), "it was left");
    cut(network)?;
    let (sent, given_up) = tokio::join!(host_sends, stage.expect_reason(REASON));
    ensure!(sent.is_err(), "a client that has vanished was sent a lot");
    given_up?;
    expect_nothing_left(network, stage, scene.sockets).await
}

async fn a_limit_that_is_set_later_counts_for_channels_that_are_open(setup: Setup) -> Result<()> {
    let mut scene = Scene::begin(setup, 0).await?;
    let (network, stage) = (&scene.network, &scene.stage);
    cut(network)?;
    // It is on its way for a quarter of an hour, as far as the kernel is concerned.
    write_pattern(&mut scene.channel.host, DOWNLINK, 0, 1_000).await?;
    let gateway = &stage.gateway;
    gateway.change_config(&[("ClientTimeout", json!(LIMIT))])?;
    gateway.signal(Signal::HUP)?;
    stage.expect_reason(REASON).await
}

async fn a_client_that_does_not_read_is_not_given_up(setup: Setup) -> Result<()> {
    /// `ClientTimeout` in seconds, and for how many of them the client does not read.
    const LIMIT: u64 = 1;
    const TIMES: u32 = 5;
    /// More than all buffers hold that are read from or grow slowly.
    const LENGTH: u64 = 8 << 20;
    let stage = setup.start_with(|gateway| gateway.set("ClientTimeout", LIMIT));
    let stage = stage.await?;
    let endpoint = stage.endpoint.clone().receive_buffer(4_096);
    let mut channel = open(&endpoint, &stage.host, &target(&stage.host)).await?;
    stage.expect_path().await?;
    let host_sends = async { Ok(write_pattern(&mut channel.host, DOWNLINK, 0, LENGTH).await?) };
    let client_reads = async {
        tokio::time::sleep(Duration::from_secs(LIMIT) * TIMES).await;
        read_downlink(&mut channel.client, 0, LENGTH).await
    };
    tokio::try_join!(host_sends, client_reads)?;
    channel.uplink(1_000).await
}

async fn a_client_that_was_away_for_less_is_sent_to_soon_after(setup: Setup) -> Result<()> {
    /// `ClientTimeout` in seconds.
    const LIMIT: u64 = 20;
    /// By then a kernel of its own accord waits for 12.8 s before it sends again, half of it yet
    /// to come.
    const AWAY: Duration = Duration::from_secs(14);
    /// Two seconds with a bound on the pauses, about 11 without.
    const SOON: Duration = Duration::from_secs(6);
    const LENGTH: u64 = 20_000_000;
    let mut scene = Scene::begin(setup, LIMIT).await?;
    let (network, channel) = (&scene.network, &mut scene.channel);
    let (client, host) = (&mut channel.client, &mut channel.host);
    let host_sends = async { Ok(write_pattern(host, DOWNLINK, 0, LENGTH).await?) };
    let client_reads = async {
        let at = read_downlink_to(client, 0, 500_000).await?;
        cut(network)?;
        let mut at = read_what_is_there(client, at).await?;
        tokio::time::sleep(AWAY).await;
        let begun = Instant::now();
        network.client_leg.as_ref().context("a line")?.mend();
        at = read_downlink_to(client, at, at + 1).await?;
        let taken = begun.elapsed();
        println!("sent to after {taken:?}");
        ensure!(
            taken < SOON || !bounds_pauses()?,
            "sent to again only after {taken:?}"
        );
        read_downlink(client, at, LENGTH - at).await
    };
    tokio::try_join!(host_sends, client_reads)?;
    channel.uplink(1_000).await
}

fn cut(network: &Network) -> Result<()> {
    network.client_leg.as_ref().context("a line")?.cut();
    Ok(())
}

/// Reads what has come over a line that is dead by now; says how far.
async fn read_what_is_there<S: AsyncRead + Unpin>(
    client: &mut RawClient<S>,
    from: u64,
) -> Result<u64> {
    const QUIET: Duration = Duration::from_millis(300);
    let mut at = from;
    while let Ok(frame) = timeout(QUIET, client.read_frame()).await {
        let frame = frame?;
        check_data(&frame, at)?;
        at += frame.payload.len() as u64;
    }
    Ok(at)
}

/// Whether the kernel has `TCP_RTO_MAX_MS`: from 6.15 on.
fn bounds_pauses() -> Result<bool> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let mut numbers = release.split(['.', '-']).map(str::parse::<u32>);
    let mut next = || numbers.next().context("a short number of a kernel");
    let (major, minor) = (next()??, next()??);
    Ok((major, minor) >= (6, 15))
}
