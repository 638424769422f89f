//! What status and metrics tell of the lines to clients: what people at desktops feel.

use std::cell::Cell;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use testkit::http::Call;
use testkit::line::{Direction, Line, Quality};
use testkit::net::free_port;
use testkit::network::{Leg, Network};
use testkit::pattern::{DOWNLINK, write_pattern};
use testkit::prelude::*;

use crate::patterns::{read_downlink, read_downlink_to};
use crate::setup::Setup;
use crate::stage::Stage;

on_every_path_as_root! {
    the_round_trip_to_a_far_client_is_told
    what_waits_for_a_busy_client_is_told
    what_a_lossy_line_costs_stays_counted
    a_client_that_answers_nothing_is_told
    a_client_that_takes_nothing_is_told
    counts_never_go_back_while_channels_end
}

/// A usual line: 80 ms, 10 Mbit/s.
const ROUND_TRIP: Duration = Duration::from_millis(80);
const RATE: u64 = 10_000_000;

/// A gateway that can be asked, between a client and a host of its own network.
struct Rig {
    stage: Stage,
    network: Network,
    admin: Endpoint,
}

impl Rig {
    async fn start(setup: Setup, client_leg: Leg) -> Result<Self> {
        let network = Network::new(client_leg, Leg::Ethernet, 5)?;
        let port = free_port()?;
        let ask = |gateway: testkit::gateway::GatewayBuilder| gateway.set("AdminPort", port);
        let stage = setup.start_in_with(&network, ask).await?;
        let admin = Endpoint::plain(SocketAddr::from(([127, 0, 0, 1], port)));
        Ok(Self {
            stage,
            admin: admin.in_namespace(&network.gateway),
            network,
        })
    }

    fn line(&self) -> &Line {
        let line = self.network.client_leg.as_ref();
        line.expect("the client's leg is an emulated line")
    }

    async fn shown(&self, path: &str) -> Result<String> {
        let response = Call::get(&self.admin, path).send().await?;
        Ok(String::from_utf8(response.body().to_vec())?)
    }

    /// How the only session's only channel fares; both must say the same.
    async fn legs(&self) -> Result<Value> {
        let status: Value = serde_json::from_str(&self.shown("/status").await?)?;
        let session = &status["sessions"][0];
        let legs = &session["channels"][0]["legs"];
        ensure!(legs.is_object(), "{status}");
        ensure!(session["legs"] == *legs, "{status}");
        Ok(legs.clone())
    }

    async fn wait_for(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        within(what, async {
            loop {
                let legs = self.legs().await?;
                if wanted(&legs) {
                    return Ok(legs);
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await?
    }

    /// The sum of all samples whose line begins so.
    async fn metric(&self, sample: &str) -> Result<f64> {
        sum(&self.shown("/metrics").await?, sample)
    }
}

fn sum(text: &str, sample: &str) -> Result<f64> {
    let sample = format!("flexvdi_gateway_{sample}");
    let found = text.lines().filter(|line| line.starts_with(&sample));
    let values = found.map(|line| Ok(line.rsplit(' ').next().context("a value")?.parse()?));
    let values = values.collect::<Result<Vec<f64>>>()?;
    ensure!(!values.is_empty(), "no {sample} in\n{text}");
    Ok(values.iter().sum())
}

fn number(legs: &Value, name: &str) -> f64 {
    let value = legs[name].as_f64();
    value.unwrap_or_else(|| panic!("no {name} in {legs}"))
}

async fn the_round_trip_to_a_far_client_is_told(setup: Setup) -> Result<()> {
    let far = Quality {
        delay: ROUND_TRIP / 2,
        ..Quality::default()
    };
    let rig = Rig::start(setup, far.into()).await?;
    let mut channel = rig.stage.open().await?;
    for _ in 0..10 {
        channel.downlink(100).await?;
    }
    // The client's system answers the last one a round trip later.
    let legs = rig.wait_for("the last answer", |legs| {
        number(legs, "unacknowledged_bytes") < 0.5
    });
    let legs = legs.await?;
    let least = number(&legs, "client_min_rtt_ms");
    let usual = number(&legs, "client_rtt_ms");
    let line = ROUND_TRIP.as_secs_f64() * 1_000.0;
    // A machine that is busy adds to it, and nothing takes away.
    ensure!(least >= line && least < 1.5 * line, "{legs}");
    ensure!(usual >= least && usual < 2.0 * line, "{legs}");
    ensure!(number(&legs, "host_rtt_ms") < line / 2.0, "{legs}");
    ensure!(number(&legs, "queue_delay_ms") < line / 2.0, "{legs}");
    ensure!(legs["stalled"] == false, "{legs}");
    let text = rig.shown("/metrics").await?;
    ensure!(sum(&text, "client_rtt_seconds_count")? > 0.5, "{text}");
    let rtt = sum(&text, "client_rtt_seconds_sum")?;
    ensure!((0.08..0.16).contains(&rtt), "{rtt}");
    // Nothing was sent since: an old round trip is not observed again.
    let again = rig.metric("client_rtt_seconds_count").await?;
    ensure!(again < 1.5, "{again} times observed");
    Ok(())
}

async fn what_waits_for_a_busy_client_is_told(setup: Setup) -> Result<()> {
    /// Takes this line five seconds.
    const LENGTH: u64 = 6_000_000;
    let rig = Rig::start(setup, Quality::new(ROUND_TRIP, RATE).into()).await?;
    let channel = rig.stage.open().await?;
    let (mut reader, _writer) = channel.client.split();
    let mut host = channel.host;
    let sent = async {
        write_pattern(&mut host, DOWNLINK, 0, LENGTH).await?;
        Ok(())
    };
    let looked = async {
        let busy = |legs: &Value| {
            number(legs, "queue_delay_ms") > 5.0 && number(legs, "sent_bytes") > 2_000_000.0
        };
        rig.wait_for("a queue", busy).await
    };
    let read = read_downlink(&mut reader, 0, LENGTH);
    let (legs, (), ()) = tokio::try_join!(looked, sent, read)?;
    println!("{legs}");
    let queued = number(&legs, "queued_bytes");
    ensure!(queued >= number(&legs, "unsent_bytes"), "{legs}");
    let rate = number(&legs, "delivery_bits_per_second");
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    let line = RATE as f64;
    ensure!(rate > line / 4.0 && rate < 1.5 * line, "{legs}");
    let delay = queued * 8.0 / rate * 1_000.0;
    if legs["app_limited"] == false {
        let told = number(&legs, "queue_delay_ms");
        ensure!((told - delay).abs() < 1.0, "{delay} ms: {legs}");
    }
    ensure!(number(&legs, "unacknowledged_bytes") > 10_000.0, "{legs}");
    // Behind the last byte nothing waits.
    let empty = |legs: &Value| {
        number(legs, "queued_bytes") < 0.5 && number(legs, "unacknowledged_bytes") < 0.5
    };
    let legs = rig.wait_for("an empty queue", empty).await?;
    ensure!(number(&legs, "queue_delay_ms") < 0.001, "{legs}");
    Ok(())
}

async fn what_a_lossy_line_costs_stays_counted(setup: Setup) -> Result<()> {
    const LENGTH: u64 = 1_000_000;
    let good = Quality {
        delay: Duration::from_millis(3),
        ..Quality::default()
    };
    let rig = Rig::start(setup, good.into()).await?;
    let mut channel = rig.stage.open().await?;
    rig.line()
        .set_direction(Direction::Back, good.losing(0.03, 1.0));
    channel.downlink(LENGTH).await?;
    rig.line().set(good);
    let lost = rig.line().stats(Direction::Back).lost;
    ensure!(lost > 0, "the line lost nothing");
    let legs = rig.legs().await?;
    println!("{legs}, {lost} packets lost");
    let segments = number(&legs, "retransmitted_segments");
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    let lost = lost as f64;
    ensure!(segments >= lost, "{lost} lost: {legs}");
    let share = number(&legs, "retransmitted_share");
    ensure!(share > 0.0 && share < 0.5, "{legs}");
    let names = [
        ("client_sent_bytes_total", "sent_bytes"),
        ("client_retransmitted_bytes_total", "retransmitted_bytes"),
        (
            "client_retransmitted_segments_total",
            "retransmitted_segments",
        ),
    ];
    for (metric, name) in names {
        let told = rig.metric(metric).await?;
        ensure!(told >= number(&legs, name), "{metric} {told}: {legs}");
    }
    drop(channel);
    rig.stage.expect_no_channel().await?;
    let ended = rig.shown("/metrics").await?;
    for (metric, name) in names {
        let told = sum(&ended, metric)?;
        ensure!(told >= number(&legs, name), "{metric} {told}: {legs}");
    }
    Ok(())
}

async fn a_client_that_answers_nothing_is_told(setup: Setup) -> Result<()> {
    let near = Quality {
        delay: Duration::from_millis(1),
        ..Quality::default()
    };
    let rig = Rig::start(setup, near.into()).await?;
    let mut channel = rig.stage.open().await?;
    channel.downlink(1_000).await?;
    rig.line().cut();
    write_pattern(&mut channel.host, DOWNLINK, 1_000, 500).await?;
    rig.wait_for("a standstill", |legs| legs["stalled"] == true)
        .await?;
    ensure!(rig.metric("client_stalled_channels{").await? > 0.5);
    rig.line().mend();
    let end = read_downlink_to(&mut channel.client, 1_000, 1_500).await?;
    ensure!(end == 1_500);
    let goes_on = |legs: &Value| legs["stalled"] == false;
    rig.wait_for("its end", goes_on).await?;
    ensure!(rig.metric("client_stalled_channels{").await? < 0.5);
    Ok(())
}

async fn a_client_that_takes_nothing_is_told(setup: Setup) -> Result<()> {
    /// More than what the client's own kernel takes for it.
    const LENGTH: u64 = 32 << 20;
    /// As often in a row it must be seen.
    const LOOKS: u32 = 20;
    let rig = Rig::start(setup, Leg::Ethernet).await?;
    let mut channel = rig.stage.open().await?;
    let mut host = channel.host;
    let sent = tokio::spawn(async move {
        write_pattern(&mut host, DOWNLINK, 0, LENGTH).await?;
        anyhow::Ok(host)
    });
    // It answers the kernel's questions all the time, which must not look like life.
    let in_a_row = Cell::new(0);
    let stays_stalled = |legs: &Value| {
        in_a_row.set(if legs["stalled"] == true {
            in_a_row.get() + 1
        } else {
            0
        });
        in_a_row.get() == LOOKS
    };
    let legs = rig.wait_for("a closed window", stays_stalled).await?;
    ensure!(number(&legs, "queued_bytes") > 1_000.0, "{legs}");
    read_downlink(&mut channel.client, 0, LENGTH).await?;
    let _host = sent.await??;
    rig.wait_for("its end", |legs| legs["stalled"] == false)
        .await?;
    Ok(())
}

/// What channels had sent is counted whether somebody looked before their end or not.
async fn counts_never_go_back_while_channels_end(setup: Setup) -> Result<()> {
    const CHANNELS: u64 = 12;
    const LENGTH: u64 = 3_000;
    let rig = Rig::start(setup, Leg::Ethernet).await?;
    let mut before = 0.0;
    let mut kept = Vec::new();
    for number in 0..CHANNELS {
        let mut channel = rig.stage.open().await?;
        channel.downlink(LENGTH).await?;
        kept.push(channel);
        if number % 3 > 0 {
            drop(kept.pop());
        }
        let now = rig.metric("client_sent_bytes_total").await?;
        ensure!(now >= before, "{before}, then {now}");
        before = now;
    }
    drop(kept);
    within("the end of all", async {
        while rig.metric("channels{").await? > 0.5 {
            let now = rig.metric("client_sent_bytes_total").await?;
            ensure!(now >= before, "{before}, then {now}");
            before = now;
        }
        Ok(())
    })
    .await??;
    let end = rig.metric("client_sent_bytes_total").await?;
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    let all = (CHANNELS * LENGTH) as f64;
    ensure!(end >= before.max(all), "{all} bytes, {before}, then {end}");
    Ok(())
}
