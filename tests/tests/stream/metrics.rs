//! What `/metrics` tells of the data paths while channels move.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use testkit::gateway::{GatewayBuilder, Signal};
use testkit::http::Call;
use testkit::net::free_port;
use testkit::prelude::*;
use tokio::time::timeout;

use crate::patterns::read_downlink;
use crate::setup::{RELAY_PLAIN, SOCKMAP, SOCKMAP_ON_TLS, Setup};
use crate::stage::Stage;

on_every_path! {
    what_waits_for_a_slow_client_is_told
}
on_path_as_root! { sockmap_unix_host, SOCKMAP_UNIX_HOST,
    what_waits_for_a_slow_client_is_told
}

/// A gateway whose metrics can be read.
struct Watched {
    stage: Stage,
    admin: Endpoint,
}

impl Watched {
    async fn start(setup: Setup) -> Result<Self> {
        Self::start_with(setup, |gateway| gateway).await
    }

    async fn start_with(
        setup: Setup,
        more: impl FnOnce(GatewayBuilder) -> GatewayBuilder,
    ) -> Result<Self> {
        let port = free_port()?;
        let stage = setup.start_with(|gateway| more(gateway.set("AdminPort", port)));
        Ok(Self {
            stage: stage.await?,
            admin: Endpoint::plain(SocketAddr::from(([127, 0, 0, 1], port))),
        })
    }

    async fn text(&self) -> Result<String> {
        let response = Call::get(&self.admin, "/metrics").send().await?;
        Ok(String::from_utf8(response.body().to_vec())?)
    }

    /// The sum of all samples whose line begins so.
    async fn value(&self, sample: &str) -> Result<f64> {
        let text = self.text().await?;
        let found = text.lines().filter(|line| line.starts_with(sample));
        let values = found.map(|line| Ok(line.rsplit(' ').next().context("a value")?.parse()?));
        values
            .collect::<Result<Vec<f64>>>()
            .map(|values| values.iter().sum())
    }

    async fn wait_for(&self, sample: &str, wanted: impl Fn(f64) -> bool) -> Result<f64> {
        within(sample, async {
            loop {
                let value = self.value(sample).await?;
                if wanted(value) {
                    return Ok(value);
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await?
    }
}

async fn what_waits_for_a_slow_client_is_told(setup: Setup) -> Result<()> {
    /// More than what the client's own kernel takes for it.
    const LENGTH: u64 = 32 << 20;
    let watched = Watched::start(setup).await?;
    let mut channel = watched.stage.open().await?;
    let queues = "flexvdi_gateway_kernel_queue_bytes{";
    watched.wait_for(queues, |bytes| bytes < 1.0).await?;
    let mut host = channel.host;
    let sent = tokio::spawn(async move {
        testkit::pattern::write_pattern(&mut host, testkit::pattern::DOWNLINK, 0, LENGTH).await?;
        anyhow::Ok(host)
    });
    let waiting = watched.wait_for(queues, |bytes| bytes > 65_536.0).await?;
    // What is behind the gateway is not its queues'.
    ensure!(waiting < 64.0 * 1_048_576.0, "{waiting} bytes");
    read_downlink(&mut channel.client, 0, LENGTH).await?;
    let _host = sent.await??;
    watched.wait_for(queues, |bytes| bytes < 1.0).await?;
    Ok(())
}

#[tokio::test]
#[cfg_attr(unprivileged, ignore = "needs root: cargo xtask test")]
async fn what_the_programs_count_stays_counted() -> Result<()> {
    const LENGTH: u64 = 16 << 20;
    let watched = Watched::start(SOCKMAP).await?;
    let sample = |name: &str| format!("flexvdi_gateway_sockmap_{name}");
    let redirected = sample(r#"segments_total{path="sockmap",verdict="redirected"}"#);
    let passed = sample(r#"segments_total{path="sockmap",verdict="passed"}"#);
    let resumes = sample("resumes_total");
    let mut channel = watched.stage.open().await?;
    channel.downlink(1_000).await?;
    ensure!(watched.value(&redirected).await? >= 1.0);
    ensure!((watched.value(&resumes).await? - 1.0).abs() < 0.5);
    // The client does not read, so the queue before its bridge fills: segments pass.
    let mut host = channel.host;
    let sent = tokio::spawn(async move {
        testkit::pattern::write_pattern(&mut host, testkit::pattern::DOWNLINK, 1_000, LENGTH)
            .await?;
        anyhow::Ok(host)
    });
    watched.wait_for(&passed, |count| count >= 1.0).await?;
    ensure!(watched.value(&sample("stops_total")).await? >= 1.0);
    read_downlink(&mut channel.client, 1_000, LENGTH).await?;
    drop((channel.client, sent.await??));
    watched.stage.expect_no_channel().await?;
    let ended = watched.text().await?;
    ensure!(watched.value(&passed).await? >= 1.0, "{ended}");
    let dropped = sample(r#"bytes_total{path="sockmap",verdict="dropped"}"#);
    ensure!(watched.value(&dropped).await? < 1.0, "{ended}");
    let moved = watched.value(&sample("bytes_total")).await?;
    // What passed comes back by another way, and is not counted again.
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    let all = (1_000 + LENGTH) as f64;
    ensure!((moved - all).abs() < 0.5, "{moved} bytes of {all}");
    Ok(())
}

#[tokio::test]
#[cfg_attr(unprivileged, ignore = "needs root: cargo xtask test")]
async fn counts_survive_another_data_path() -> Result<()> {
    let watched = Watched::start(SOCKMAP_ON_TLS).await?;
    let fallbacks = r#"flexvdi_gateway_fallbacks_total{reason="TLS client leg"}"#;
    let segments = r#"flexvdi_gateway_sockmap_segments_total{path="sockmap",verdict="redirected"}"#;
    drop(watched.stage.open().await?);
    let plain = watched.stage.gateway.plain();
    let target = crate::channel::target(&watched.stage.host);
    let mut channel = crate::channel::open(&plain, &watched.stage.host, &target).await?;
    channel.downlink(1_000).await?;
    let before = watched.value(segments).await?;
    ensure!(before >= 1.0);
    for path in ["relay", "sockmap"] {
        let gateway = &watched.stage.gateway;
        gateway.change_config(&[("DataPath", json!(path))])?;
        gateway.signal(Signal::HUP)?;
        let text = format!("-> \\\"{path}");
        let reloaded = |line: &str| line.contains("reloaded") && line.contains(&text);
        gateway.wait_for_log(reloaded, PATIENCE).await?;
        ensure!(
            (watched.value(fallbacks).await? - 1.0).abs() < 0.5,
            "{path}"
        );
        channel.downlink(1_000).await?;
        ensure!(watched.value(segments).await? > before, "{path}");
    }
    drop(watched.stage.open().await?);
    watched.wait_for(fallbacks, |count| count > 1.5).await?;
    Ok(())
}

/// What a scrape and the status cost with many channels; not part of the suite. A channel needs
/// two descriptors here and, in the gateway, two on `relay` and six on `sockmap`: 20,000 are
/// enough for these.
#[tokio::test]
#[ignore = "a measurement, for a build with optimisation and a quiet machine"]
async fn cost_of_a_scrape() -> Result<()> {
    const LOOKS: usize = 100_000;
    for (setup, counts) in [(RELAY_PLAIN, [1_000, 8_000]), (SOCKMAP, [1_000, 2_500])] {
        let watched = Watched::start_with(setup, |gateway| {
            gateway.set("MaxConnectionsPerAddress", 20_000)
        });
        let watched = watched.await?;
        let mut channels = Vec::new();
        let target = crate::channel::target(&watched.stage.host);
        for count in counts {
            while channels.len() < count {
                let stage = &watched.stage;
                let opened = crate::channel::open(&stage.endpoint, &stage.host, &target);
                channels.push(timeout(PATIENCE, opened).await??);
            }
            for path in ["/metrics", "/status"] {
                let times = u32::try_from(LOOKS / count)?;
                let before = cpu_ticks(watched.stage.gateway.pid())?;
                let begun = std::time::Instant::now();
                for _ in 0..times {
                    let response = Call::get(&watched.admin, path).send().await?;
                    ensure!(response.status() == 200);
                }
                let took = begun.elapsed() / times;
                let ticks = cpu_ticks(watched.stage.gateway.pid())? - before;
                println!(
                    "{count} channels: {path} took {took:?}, and {} us of the gateway's CPU time",
                    ticks * 10_000 / u64::from(times)
                );
            }
        }
    }
    Ok(())
}

/// User and system time in ticks of 10 ms.
fn cpu_ticks(pid: u32) -> Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, fields) = stat.rsplit_once(") ").context("a name in parentheses")?;
    let fields: Vec<_> = fields.split(' ').collect();
    Ok(fields[11].parse::<u64>()? + fields[12].parse::<u64>()?)
}
