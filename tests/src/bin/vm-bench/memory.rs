//! What channels cost in memory that carry nothing any more.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use testkit::gateway::Gateway;
use testkit::vm::{IdleChannels, Leg};

use super::Bench;

/// Channels that are there before, so that what all of them share is no part of the result.
const SHARED: usize = 20;
/// Channels that are measured.
const CHANNELS: usize = 100;
/// After so many the gateway's log is read, so that it never waits for that.
const LOGGED: usize = 20;
const READING: Duration = Duration::from_millis(5);
/// What is freed later than its use, in the kernel and in the gateway, is freed in this time.
const REST: Duration = Duration::from_secs(1);

impl Bench {
    /// Opens many channels, and looks at the memory when they are idle.
    pub(crate) fn measure_idle(
        &self,
        path: &str,
        leg: Leg,
        gateway: &Gateway,
    ) -> Result<IdleChannels> {
        let open_all = |count: usize| -> Result<Vec<_>> {
            let open = |number: usize| {
                self.read_log(number);
                self.open(Some(gateway), leg)
            };
            (0..count).map(open).collect()
        };
        let mut held = open_all(SHARED)?;
        std::thread::sleep(REST);
        let before = (gateway.memory()?.pss, slabs()?);
        held.extend(open_all(CHANNELS)?);
        std::thread::sleep(REST);
        let after = (gateway.memory()?.pss, slabs()?);
        for (number, (client, _)) in held.into_iter().enumerate() {
            client.close();
            self.read_log(number);
        }
        Ok(IdleChannels {
            path: path.to_owned(),
            leg,
            channels: CHANNELS,
            process: after.0.cast_signed() - before.0.cast_signed(),
            slabs: after.1.cast_signed() - before.1.cast_signed(),
        })
    }

    /// Lets the gateway's log be read once for some channels.
    fn read_log(&self, channel: usize) {
        if channel.is_multiple_of(LOGGED) {
            let reading = async { tokio::time::sleep(READING).await };
            self.runtime.block_on(reading);
        }
    }
}

/// Memory of all slabs, in bytes (`/proc/meminfo`).
fn slabs() -> Result<u64> {
    let text = fs::read_to_string("/proc/meminfo").context("reading /proc/meminfo")?;
    let kib = text
        .lines()
        .find_map(|line| line.strip_prefix("Slab:")?.trim().strip_suffix(" kB"))
        .context("/proc/meminfo has no Slab")?;
    Ok(kib.parse::<u64>()? * 1024)
}
