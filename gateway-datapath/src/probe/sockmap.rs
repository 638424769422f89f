//! Whether the data path `sockmap` works: the programs are loaded and move a channel.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, ensure};

use super::{Part, round_trip};
use crate::Carrier;
use crate::sockmap::Sockmap;

/// Small enough for bytes to pass through userspace too.
const QUEUED: usize = 128 * 1024;
/// Places of ended channels rest for a while.
const CHANNELS: usize = 2;

/// Tries it with a host on TCP; where that works, with one on a Unix socket as well.
pub(super) async fn probe(programs: &Path) -> anyhow::Result<Vec<Part>> {
    let sockmap = Sockmap::take_or_load(programs, CHANNELS, QUEUED)?;
    round_trip::run(|client, host| match sockmap.enter(client, host) {
        Ok(link) => Ok(Carrier::Sockmap(Arc::new(link))),
        Err((refusal, _)) => Err(refusal).context("sockets were refused"),
    })
    .await?;
    let unix = async {
        ensure!(sockmap.moves_unix_hosts(), Sockmap::UNIX_HOSTS_NEED);
        round_trip::run_with_unix_host(|client, host| match sockmap.enter(client, host) {
            Ok(link) => Ok(Carrier::Sockmap(Arc::new(link))),
            Err((refusal, _)) => Err(refusal).context("sockets were refused"),
        })
        .await
    };
    Ok(vec![Part::new("Unix sockets of hosts", unix.await)])
}
