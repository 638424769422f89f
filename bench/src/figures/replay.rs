//! Recorded desktops: the sizes and pauses of real traffic.

use std::sync::Arc;

use anyhow::Result;
use testkit::spice::ChannelType;

use super::{Bench, Outcome, all, close_channels, open_channels};
use crate::cpu::Gauge;
use crate::metric::cpu_values;
use crate::peers::Peer;
use crate::statistics::float;

const MINUTE: f64 = 60.0;

/// Plays the excerpt on this many desktops at a time, each beginning at another place so that
/// their bursts are spread.
pub(super) async fn measure(bench: &Bench, peer: &Peer, desktops: usize) -> Result<Outcome> {
    let mut channels = Vec::new();
    for kind in ChannelType::PLAIN_VM {
        let opened = open_channels(bench, peer, kind, desktops).await?;
        let starts = (0..desktops).map(|desktop| {
            let share = float(desktop as u64) / float(desktops as u64);
            bench.excerpt.length().mul_f64(share)
        });
        let of_kind = opened.into_iter().zip(starts);
        channels.extend(of_kind.map(|(channel, from)| (kind, channel, from)));
    }

    let gauge = Gauge::start(peer.pid())?;
    let tasks = channels.into_iter().map(|(kind, mut channel, from)| {
        let excerpt = Arc::clone(&bench.excerpt);
        async move {
            channel.replay(&excerpt, kind, from).await?;
            Ok(channel)
        }
    });
    let opened = all(tasks).await?;
    let usage = gauge.finish()?;
    close_channels(bench, opened).await?;

    let recorded = bench.excerpt.length().as_secs_f64();
    let desktop_minutes = float(desktops as u64) * recorded / MINUTE;
    let mut values = cpu_values(&usage, desktop_minutes, 1.0);
    values.insert("slowdown".to_owned(), usage.wall / recorded);
    let (uplink, downlink) = bench.excerpt.bytes();
    Ok(Outcome {
        work: (uplink + downlink) * desktops as u64,
        usage,
        values,
    })
}
