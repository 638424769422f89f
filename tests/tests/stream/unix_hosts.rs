//! Hosts that listen on Unix sockets themselves, on the data path `sockmap`: what they send gets
//! its frames in their own calls of the system.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use testkit::gateway::GatewayBuilder;
use testkit::pattern::{DOWNLINK, UPLINK, write_pattern};
use testkit::prelude::*;
use testkit::spice::read_link;
use testkit::ws::{Frame, RawClient};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;

use crate::lag::{expect_little_to_wait, slow_client};
use crate::patterns::{check_data, expect_closing, read_downlink, read_downlink_to, read_uplink};
use crate::peers;
use crate::plan::Plan;
use crate::setup::kernel;
use crate::verdict::Disturbance;
use testkit::rng::{Rng, seed_or};

/// A gateway whose hosts are sockets in a folder, named by the ports.
struct Desktops {
    gateway: Gateway,
    endpoint: Endpoint,
    folder: TempDir,
}

impl Desktops {
    async fn start(more: impl FnOnce(GatewayBuilder) -> GatewayBuilder) -> Result<Self> {
        let folder = TempDir::with_prefix("testkit-hosts-")?;
        let template = format!("unix:{}/%p", folder.path().display());
        let builder = Gateway::builder()
            .plain()
            .set("HijackAll", false)
            .set("DataPath", "sockmap");
        let gateway = more(builder).set("SpiceHost", template).spawn().await?;
        Ok(Self {
            endpoint: gateway.plain(),
            gateway,
            folder,
        })
    }

    fn host(&self, port: u16) -> Result<Desktop> {
        Desktop::listen(self.folder.path(), port)
    }

    /// Waits for the line of a channel that has ended, for this reason.
    async fn closing_line(&self, reason: &str) -> Result<String> {
        let is_wanted = |line: &str| line.contains("channel closed") && line.contains(reason);
        self.gateway.wait_for_log(is_wanted, PATIENCE).await
    }

    async fn expect_path(&self) -> Result<()> {
        let is_open = |line: &str| line.contains("channel open");
        let line = self.gateway.wait_for_log(is_open, PATIENCE).await?;
        let path = if kernel() >= (6, 12) {
            "sockmap"
        } else {
            "relay"
        };
        ensure!(line.contains(&format!("path=\"{path}\"")), "{line}");
        Ok(())
    }
}

/// One of them.
struct Desktop {
    port: u16,
    listener: UnixListener,
}

impl Desktop {
    fn listen(folder: &Path, port: u16) -> Result<Self> {
        let listener = UnixListener::bind(folder.join(port.to_string()))?;
        Ok(Self { port, listener })
    }

    /// Opens a channel, whose link message has arrived.
    async fn open(&self, endpoint: &Endpoint) -> Result<(RawClient, UnixStream)> {
        let target = format!("/?ver=2&token={}", self.port);
        let mut client = RawClient::open(endpoint, &target).await?;
        let link = link_message(ChannelType::Main, 0);
        client.send_frame(&Frame::binary(link.clone())).await?;
        let (mut host, _) = within("a connection", self.listener.accept()).await??;
        let received = within("link message", read_link(&mut host)).await??;
        ensure!(received == link, "another link message arrived");
        Ok((client, host))
    }
}

const WORKERS: u64 = 4;
const ROUNDS: u64 = 200;
/// `CloseTimeout` in seconds: on a slow machine the default is too short for what some plans send.
const LONG: u64 = 30;

#[tokio::test]
#[cfg_attr(unprivileged, ignore = "needs root: cargo xtask test")]
async fn random_conversations_end_as_planned() -> Result<()> {
    let first = seed_or(1)?;
    let desktops = Desktops::start(|gateway| gateway.set("CloseTimeout", LONG)).await?;
    let mut workers = JoinSet::new();
    for worker in 0..WORKERS {
        let host = desktops.host(5900 + u16::try_from(worker)?)?;
        let endpoint = desktops.endpoint.clone();
        workers.spawn(async move {
            for seed in (first..first + ROUNDS).filter(|seed| seed % WORKERS == worker) {
                let round = conversation(&endpoint, &host, seed);
                round.await.with_context(|| format!("seed {seed}"))?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(worker) = workers.join_next().await {
        worker??;
    }
    desktops.expect_path().await
}

async fn conversation(endpoint: &Endpoint, host: &Desktop, seed: u64) -> Result<()> {
    const VOLUME: usize = 300_000;
    let mut rng = Rng::new(seed);
    let mut plan = Plan::new(&mut rng, VOLUME);
    plan.pause = rng.pick(&[0, 3]);
    let (client, host) = host.open(endpoint).await?;
    if plan.client_vanishes() {
        testkit::net::reset(client.connection().tcp())?;
    }
    let round = peers::run(&plan, client, host).await;
    let checked = round.check(&plan, Disturbance::None);
    checked.with_context(|| format!("{plan:?}"))
}

#[tokio::test]
#[cfg_attr(unprivileged, ignore = "needs root: cargo xtask test")]
async fn what_a_host_sent_before_it_vanished_arrives() -> Result<()> {
    const LENGTH: u64 = 100_000;
    let desktops = Desktops::start(|gateway| gateway).await?;
    let desktop = desktops.host(5900)?;
    let (mut client, mut host) = desktop.open(&desktops.endpoint).await?;
    // What it has not read is lost, which makes its end a break.
    let unread = Frame::binary(UPLINK.bytes(0, 1_000));
    client.send_frame(&unread).await?;
    read_uplink(&mut host, 0, 1).await?;
    write_pattern(&mut host, DOWNLINK, 0, LENGTH).await?;
    drop(host);
    read_downlink(&mut client, 0, LENGTH).await?;
    expect_closing(&mut client, 1011).await?;
    drop(client);
    desktops.closing_line("host lost").await?;
    desktops.expect_path().await
}

#[tokio::test]
#[cfg_attr(unprivileged, ignore = "needs root: cargo xtask test")]
async fn nothing_follows_the_close_of_a_channel_that_is_stopped_while_its_host_sends() -> Result<()>
{
    const CHANNELS: u16 = 40;
    let desktops = Desktops::start(|gateway| gateway).await?;
    let mut channels = JoinSet::new();
    for number in 0..CHANNELS {
        let desktop = desktops.host(5900 + number)?;
        let (mut client, mut host) = desktop.open(&desktops.endpoint).await?;
        let host = async move {
            // Until it is left.
            write_pattern(&mut host, DOWNLINK, 0, u64::MAX).await.ok();
            anyhow::Ok(())
        };
        channels.spawn(host);
        let client = async move {
            let mut at = read_downlink_to(&mut client, 0, 100_000).await?;
            client.send_frame(&Frame::close(1000)).await?;
            loop {
                let frame = client.read_frame().await?;
                if frame.opcode == testkit::ws::Opcode::CLOSE {
                    break;
                }
                check_data(&frame, at)?;
                at += frame.payload.len() as u64;
            }
            // Nothing but the end.
            let end = client.expect_end().await?;
            ensure!(end == testkit::net::StreamEnd::Closed, "{end:?}");
            Ok(())
        };
        channels.spawn(client);
    }
    while let Some(channel) = channels.join_next().await {
        channel??;
    }
    let line = desktops.closing_line("client sent Close 1000").await?;
    ensure!(
        line.contains(" 0 bytes dropped") || kernel() < (6, 12),
        "{line}"
    );
    desktops.expect_path().await
}

#[tokio::test]
#[cfg_attr(unprivileged, ignore = "needs root: cargo xtask test")]
async fn a_kicked_channel_says_so_to_both_sides() -> Result<()> {
    let desktops = Desktops::start(|gateway| gateway).await?;
    let desktop = desktops.host(5900)?;
    let (mut client, mut host) = desktop.open(&desktops.endpoint).await?;
    write_pattern(&mut host, DOWNLINK, 0, 1_000).await?;
    read_downlink(&mut client, 0, 1_000).await?;
    desktops.gateway.output(&["kick", "s1"]).await?;
    let close = client.expect_close(1001).await;
    close.context("the client of a channel that was kicked")?;
    drop(client);
    within("the host's end", host.read_to_end(&mut Vec::new())).await??;
    desktops.expect_path().await
}

#[tokio::test]
#[cfg_attr(unprivileged, ignore = "needs root: cargo xtask test")]
async fn a_host_that_speaks_first_is_left_to_relay() -> Result<()> {
    let desktops = Desktops::start(|gateway| gateway).await?;
    let desktop = desktops.host(5900)?;
    let target = format!("/?ver=2&token={}", desktop.port);
    let mut client = RawClient::open(&desktops.endpoint, &target).await?;
    let (mut host, _) = within("a connection", desktop.listener.accept()).await??;
    write_pattern(&mut host, DOWNLINK, 0, 1_000).await?;
    let link = link_message(ChannelType::Main, 0);
    client.send_frame(&Frame::binary(link)).await?;
    read_downlink(&mut client, 0, 1_000).await?;
    let is_told = |line: &str| line.contains("relay is used instead");
    let line = desktops.gateway.wait_for_log(is_told, PATIENCE).await?;
    ensure!(
        line.contains("host spoke first") || kernel() < (6, 12),
        "{line}"
    );
    Ok(())
}

#[tokio::test]
#[cfg_attr(unprivileged, ignore = "needs root: cargo xtask test")]
async fn little_waits_for_a_client_on_a_slow_line() -> Result<()> {
    let network = slow_client()?;
    let desktops = Desktops::start(|gateway| gateway.in_network(&network)).await?;
    let desktop = desktops.host(5900)?;
    let endpoint = desktops.endpoint.clone().in_namespace(&network.client);
    let (client, host) = desktop.open(&endpoint).await?;
    let (mut reader, _writer) = client.split();
    let read_on = async |at| read_downlink_to(&mut reader, at, at + 1).await;
    expect_little_to_wait(host, read_on).await?;
    desktops.expect_path().await
}

#[tokio::test]
#[cfg_attr(unprivileged, ignore = "needs root: cargo xtask test")]
async fn the_downlink_goes_on_after_a_client_that_was_slow() -> Result<()> {
    const LENGTH: u64 = 20_000_000;
    let desktops = Desktops::start(|gateway| gateway).await?;
    let desktop = desktops.host(5900)?;
    let endpoint = desktops.endpoint.clone().receive_buffer(65_536);
    let (mut client, mut host) = desktop.open(&endpoint).await?;
    let write = async { Ok(write_pattern(&mut host, DOWNLINK, 0, LENGTH).await?) };
    let read = async {
        let mut at = 0;
        while at < 2_000_000 {
            at = read_downlink_to(&mut client, at, at + 100_000).await?;
            tokio::time::sleep(std::time::Duration::from_millis(30)).await;
        }
        let rest = read_downlink_to(&mut client, at, LENGTH).await?;
        ensure!(rest == LENGTH);
        // The other direction is as it was.
        client
            .send_frame(&Frame::binary(UPLINK.bytes(0, 50_000)))
            .await
    };
    tokio::try_join!(write, read)?;
    read_uplink(&mut host, 0, 50_000).await?;
    host.shutdown().await?;
    expect_closing(&mut client, 1000).await?;
    desktops.expect_path().await
}
