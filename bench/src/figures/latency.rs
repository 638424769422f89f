//! How long a small message takes there and back.

use std::time::Instant;

use anyhow::Result;
use testkit::spice::ChannelType;

use super::{Bench, Outcome, SMALL, close_channels, open_channels};
use crate::cpu::Gauge;
use crate::metric::{ROUND_TRIP, Values};
use crate::peers::Peer;
use crate::statistics::{float, percentile};

const MICROSECONDS: f64 = 1e6;

/// Sends `count` messages, each when the one before came back.
pub(super) async fn measure(bench: &Bench, peer: &Peer, count: u64) -> Result<Outcome> {
    let mut opened = open_channels(bench, peer, ChannelType::Inputs, 1).await?;
    let mut times = Vec::with_capacity(usize::try_from(count)?);
    let gauge = Gauge::start(peer.pid())?;
    for channel in &mut opened {
        channel.begin_echo(SMALL, count).await?;
        for index in 0..count {
            let begin = Instant::now();
            channel.echo(SMALL, index).await?;
            times.push(begin.elapsed().as_secs_f64() * MICROSECONDS);
        }
    }
    let usage = gauge.finish()?;
    close_channels(bench, opened).await?;

    times.sort_by(f64::total_cmp);
    let mut values = Values::from([
        (ROUND_TRIP.to_owned(), percentile(&times, 0.5)),
        ("p99".to_owned(), percentile(&times, 0.99)),
        ("p999".to_owned(), percentile(&times, 0.999)),
    ]);
    let tasks = usage.tasks * MICROSECONDS / float(count);
    values.insert("tasks".to_owned(), tasks);
    if peer.kind.has_process() {
        let cpu = usage.peer.total * MICROSECONDS / float(count);
        values.insert("cpu".to_owned(), cpu);
    }
    Ok(Outcome {
        work: count,
        usage,
        values,
    })
}
