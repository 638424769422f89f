//! Whether the data path `sockmap` works: the programs are loaded and move a channel.

use std::path::Path;

use anyhow::Context;

use super::round_trip;
use crate::Carrier;
use crate::sockmap::Sockmap;

/// Small enough for bytes to pass through userspace too.
const QUEUED: usize = 128 * 1024;

pub(super) async fn probe(programs: &Path) -> anyhow::Result<()> {
    let sockmap = Sockmap::take_or_load(programs, 1, QUEUED)?;
    round_trip::run(|client, host| match sockmap.enter(client, host) {
        Ok(link) => Ok(Carrier::Sockmap(Box::new(link))),
        Err((refusal, _)) => Err(refusal).context("sockets were refused"),
    })
    .await
}
