//! Lines that lose, double, reorder and hold up packets, or are dead for a while, on either leg:
//! whatever moves the bytes, they arrive as they were sent.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use testkit::line::{Direction, Line, Quality};
use testkit::network::{Leg, Network};
use testkit::pattern::DOWNLINK;
use testkit::prelude::*;
use testkit::rng::{Rng, seed_or};
use tokio::io::AsyncWriteExt;

use crate::channel::Channel;
use crate::patterns::{
    expect_closing, expect_uplink_end, read_downlink, read_uplink, send_frames, send_messages,
};
use crate::setup::Setup;
use crate::stage::Stage;

on_every_path_as_root! {
    bytes_arrive_as_sent_over_lines_that_lose_double_and_reorder
    bytes_arrive_as_sent_over_lines_that_lose_packets_in_rows
    bytes_arrive_as_sent_over_lines_that_are_too_slow
    bytes_arrive_as_sent_in_tiny_packets
    a_channel_goes_on_after_its_line_was_dead
}

/// A round trip of the lines, and up to how long packets are held up.
const ROUND_TRIP: Duration = Duration::from_millis(6);
const HOLD: Duration = Duration::from_millis(10);
/// Bytes of each direction, and the environment variable that asks for as many MiB instead.
pub(crate) const SOME: u64 = 400_000;
const MIB_VARIABLE: &str = "STREAM_LINES_MIB";
/// How long a line is dead.
const OUTAGE: Duration = Duration::from_secs(2);
/// How many packets have passed when it dies.
const UNDER_WAY: u64 = 60;

#[derive(Clone, Copy, Debug)]
enum Side {
    Client,
    Host,
}

/// A gateway between two lines, of which one is about to be bad.
pub(crate) struct Rig {
    pub(crate) stage: Stage,
    network: Network,
    side: Side,
    rng: Rng,
}

impl Rig {
    /// Both lines are good at first, so that a channel can be opened without ado.
    async fn start(setup: Setup, side: Side, mtu: u16) -> Result<Self> {
        let seed = seed_or(14)?;
        let leg = |is_bad: bool| Leg::Line {
            quality: slow_to_arrive(),
            mtu: if is_bad { mtu } else { testkit::line::MTU },
        };
        let network = Network::new(
            leg(matches!(side, Side::Client)),
            leg(matches!(side, Side::Host)),
            seed,
        )?;
        Ok(Self {
            stage: setup.start_in(&network).await?,
            network,
            side,
            rng: Rng::new(seed),
        })
    }

    pub(crate) fn line(&self) -> &Line {
        let line = match self.side {
            Side::Client => &self.network.client_leg,
            Side::Host => &self.network.host_leg,
        };
        line.as_ref().expect("both legs are emulated lines")
    }

    /// Opens a channel, makes the line bad, and lets as many bytes pass both ways as `bytes` says,
    /// and the end after them.
    async fn pass(&mut self, bad: Quality, bytes: u64) -> Result<()> {
        let channel = self.stage.open().await?;
        self.line().set(bad);
        let (up, down) = (self.sizes(bytes), self.sizes(bytes));
        exchange(channel, &up, &down).await
    }

    /// Sizes of messages with this sum, most of them as small as most of Spice are.
    pub(crate) fn sizes(&mut self, total: u64) -> Vec<usize> {
        let mut sizes = Vec::new();
        let mut left = usize::try_from(total).unwrap_or(usize::MAX);
        while left > 0 {
            let longest = self.rng.pick(&[30, 700, 700, 700, 20_000, 90_000]);
            let size = left.min(1 + self.rng.below(longest));
            sizes.push(size);
            left -= size;
        }
        sizes
    }
}

/// Sends messages of these sizes both ways at once; in the end the host ends the channel.
async fn exchange(channel: Channel, up: &[usize], down: &[usize]) -> Result<()> {
    let sum = |sizes: &[usize]| sizes.iter().sum::<usize>() as u64;
    let (mut reader, mut writer) = channel.client.split();
    let (mut host_reader, mut host_writer) = channel.host.into_split();
    tokio::try_join!(
        send_frames(&mut writer, up),
        send_messages(&mut host_writer, DOWNLINK, down),
        read_downlink(&mut reader, 0, sum(down)),
        read_uplink(&mut host_reader, 0, sum(up)),
    )?;
    host_writer.shutdown().await?;
    expect_closing(&mut reader, 1000).await?;
    writer.shutdown().await?;
    expect_uplink_end(&mut host_reader, sum(up), sum(up)).await
}

/// The same with a bad line to the client and with one to the host.
async fn pass_on_either_leg(setup: Setup, bad: Quality, mtu: u16, bytes: u64) -> Result<()> {
    on_either_leg(setup, mtu, async |rig| rig.pass(bad, bytes).await).await
}

/// Lets bytes pass over the line of a rig, which is made bad meanwhile: that to the client, and that
/// to the host.
pub(crate) async fn on_either_leg(
    setup: Setup,
    mtu: u16,
    pass: impl AsyncFn(&mut Rig) -> Result<()>,
) -> Result<()> {
    for side in [Side::Client, Side::Host] {
        println!("a bad line on the side of {side:?}");
        let mut rig = Rig::start(setup, side, mtu).await?;
        pass(&mut rig).await?;
        let stats = [Direction::There, Direction::Back].map(|way| rig.line().stats(way));
        println!("{stats:?}");
        ensure!(
            stats.iter().any(|way| way.lost + way.overflowed > 0),
            "the line was not bad at all"
        );
    }
    Ok(())
}

/// How many bytes go each way where time allows.
fn some() -> Result<u64> {
    match std::env::var(MIB_VARIABLE) {
        Ok(text) => {
            let mib: u64 = text
                .parse()
                .with_context(|| format!("{MIB_VARIABLE} is no number: {text}"))?;
            Ok(mib << 20)
        }
        Err(_) => Ok(SOME),
    }
}

pub(crate) fn slow_to_arrive() -> Quality {
    Quality {
        delay: ROUND_TRIP / 2,
        ..Quality::default()
    }
}

/// A line that loses, doubles and reorders packets.
pub(crate) fn unreliable() -> Quality {
    slow_to_arrive()
        .losing(0.02, 1.0)
        .doubling(0.03)
        .reordering(0.05, HOLD)
}

async fn bytes_arrive_as_sent_over_lines_that_lose_double_and_reorder(setup: Setup) -> Result<()> {
    pass_on_either_leg(setup, unreliable(), testkit::line::MTU, some()?).await
}

async fn bytes_arrive_as_sent_over_lines_that_lose_packets_in_rows(setup: Setup) -> Result<()> {
    let bad = slow_to_arrive().losing(0.04, 4.0).varying(HOLD);
    pass_on_either_leg(setup, bad, testkit::line::MTU, some()?).await
}

async fn bytes_arrive_as_sent_over_lines_that_are_too_slow(setup: Setup) -> Result<()> {
    let bad = Quality {
        queue: 15_000,
        ..Quality::new(ROUND_TRIP, 4_000_000)
    };
    pass_on_either_leg(setup, bad, testkit::line::MTU, some()?).await
}

/// Bytes of the longest packets of a line for tiny ones.
pub(crate) const TINY: u16 = 296;

/// What such a line is like.
pub(crate) fn of_tiny_packets() -> Quality {
    slow_to_arrive().losing(0.01, 1.0).reordering(0.02, HOLD)
}

async fn bytes_arrive_as_sent_in_tiny_packets(setup: Setup) -> Result<()> {
    pass_on_either_leg(setup, of_tiny_packets(), TINY, some()? / 4).await
}

async fn a_channel_goes_on_after_its_line_was_dead(setup: Setup) -> Result<()> {
    for side in [Side::Client, Side::Host] {
        println!("a dead line on the side of {side:?}");
        let mut rig = Rig::start(setup, side, testkit::line::MTU).await?;
        let channel = rig.stage.open().await?;
        let (up, down) = (rig.sizes(SOME), rig.sizes(SOME));
        let line = rig.line();
        // Slow enough that it dies in the middle.
        line.set(Quality::new(ROUND_TRIP, 4_000_000));
        let start = line.stats(Direction::Back).packets;
        let die = async {
            within("packets under way", async {
                while line.stats(Direction::Back).packets < start + UNDER_WAY {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            })
            .await?;
            line.interrupt(OUTAGE).await;
            Ok(())
        };
        tokio::try_join!(exchange(channel, &up, &down), die)?;
        ensure!(
            line.stats(Direction::Back).lost + line.stats(Direction::There).lost > 0,
            "nothing was under way when the line died"
        );
    }
    Ok(())
}
