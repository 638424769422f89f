//! Whether the data path `sockmap` works: the programs are loaded and move a channel, and a tunnel.

use std::sync::Arc;
use std::time::Instant;

use std::path::Path;

use anyhow::Context;

use super::{Finding, Part, round_trip};
use crate::Carrier;
use crate::sockmap::Sockmap;

/// Small enough for bytes to pass through userspace too.
const QUEUED: usize = 128 * 1024;
/// The part that moves tunnels, which channels with frames do without.
pub(super) const TUNNELS: &str = "tunnels";

pub(super) async fn probe(begun: Instant, programs: &Path) -> Finding {
    let sockmap = match Sockmap::take_or_load(programs, 1, QUEUED) {
        Ok(sockmap) => sockmap,
        Err(error) => return Finding::new("sockmap", begun, Err(error.into())),
    };
    let channel = channel(&sockmap).await;
    let tunnel = match &channel {
        Ok(()) => Some(tunnel(&sockmap).await),
        Err(_) => None,
    };
    let mut finding = Finding::new("sockmap", begun, channel);
    finding.parts = tunnel
        .map(|outcome| Part::new(TUNNELS, outcome))
        .into_iter()
        .collect();
    finding
}

async fn channel(sockmap: &Arc<Sockmap>) -> anyhow::Result<()> {
    round_trip::run(|client, host| match sockmap.enter(client, host) {
        Ok(link) => Ok(Carrier::Sockmap(Box::new(link))),
        Err((refusal, _)) => Err(refusal).context("sockets were refused"),
    })
    .await
}

async fn tunnel(sockmap: &Arc<Sockmap>) -> anyhow::Result<()> {
    round_trip::run_raw(|client, host| match sockmap.enter_tunnel(client, host) {
        Ok(tunnel) => Ok(Carrier::Tunnel(Box::new(tunnel))),
        Err((refusal, _)) => Err(refusal.into()),
    })
    .await
}
