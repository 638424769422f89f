//! Channels that are opened, used once and closed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Result, ensure};
use testkit::spice::ChannelType;

use super::{Bench, Outcome, all, open_channel};
use crate::client::{Target, Tls};
use crate::cpu::Gauge;
use crate::metric::cpu_values;
use crate::peers::Peer;
use crate::statistics::float;

/// How many clients open channels at the same time.
const CLIENTS: usize = 8;
const MILLISECONDS: f64 = 1e3;
/// The share of sessions that a peer must resume when it is asked to.
const RESUMED: f64 = 0.95;

/// Opens and closes `count` channels.
pub(super) async fn measure(
    bench: &Bench,
    peer: &Peer,
    resuming: bool,
    count: u64,
) -> Result<Outcome> {
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let client = Client {
            target: peer.target.clone(),
            tls: Tls::new(resuming)?,
        };
        if resuming {
            // There must be a session to resume.
            client.session().await?;
        }
        clients.push(client);
    }
    bench.host.idle().await?;

    let left = Arc::new(AtomicU64::new(count));
    let reloads = peer.begin_reloads();
    let gauge = Gauge::start(peer.pid())?;
    let tasks = clients.into_iter().map(|client| {
        let left = Arc::clone(&left);
        async move { client.sessions(&left).await }
    });
    let resumed: u64 = all(tasks).await?.into_iter().sum();
    // Closing them is part of the work.
    bench.host.idle().await?;
    let usage = gauge.finish()?;
    drop(reloads);

    let share = float(resumed) / float(count);
    ensure!(
        !resuming || share >= RESUMED,
        "it resumes {:.0} % of the TLS sessions",
        share * 100.0
    );
    let mut values = cpu_values(&usage, float(count), MILLISECONDS);
    values.insert("rate".to_owned(), float(count) / usage.wall);
    Ok(Outcome {
        work: count,
        usage,
        values,
    })
}

struct Client {
    target: Target,
    tls: Tls,
}

impl Client {
    /// Opens and closes channels until none is left; says how many resumed a session.
    async fn sessions(self, left: &AtomicU64) -> Result<u64> {
        let take = |left: u64| left.checked_sub(1);
        let mut resumed = 0;
        while left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
            .is_ok()
        {
            resumed += u64::from(self.session().await?);
        }
        Ok(resumed)
    }

    async fn session(&self) -> Result<bool> {
        let channel =
            open_channel(self.target.clone(), self.tls.clone(), ChannelType::Inputs).await?;
        let resumed = channel.is_resumed();
        channel.close().await?;
        Ok(resumed)
    }
}
