//! One look at every open channel, for whoever reads the metrics.

use std::collections::BTreeMap;

use crate::channel::Registry;
use crate::metrics::{Carried, ChannelTimes};
use gateway_datapath::{Queues, Sent};

/// What was seen of all channels.
pub(super) struct Scrape {
    /// Bytes that wait in the kernel, by data path.
    pub(super) queues: BTreeMap<&'static str, Queues>,
    /// What was sent to clients, those of channels that have ended included.
    pub(super) sent: BTreeMap<Carried, Sent>,
    /// How many open channels have a client that answers nothing.
    pub(super) stalled: BTreeMap<Carried, u64>,
}

impl Scrape {
    /// Looks at every open channel, and observes the times of those that have sent something to
    /// their client since that was last done. No lock is held meanwhile that channels wait for.
    pub(super) fn take(channels: &Registry, times: &ChannelTimes) -> Self {
        let (open, sent) = channels.open_and_ended();
        let mut scrape = Self {
            queues: BTreeMap::new(),
            sent,
            stalled: BTreeMap::new(),
        };
        for entry in open {
            let counters = &entry.channel.counters;
            let looked = counters.look();
            let carried = entry.carried();
            if let Some(looked) = &looked {
                let of_path = scrape.queues.entry(carried.path).or_default();
                *of_path = *of_path + looked.queues;
            }
            // Also of one that has ended by now: it is in this list, and so not in the other one.
            let sent = scrape.sent.entry(carried).or_default();
            *sent = *sent + counters.sent();
            if let Some(looked) = looked
                && let Some(client) = looked.client
            {
                *scrape.stalled.entry(carried).or_default() += u64::from(client.is_stalled);
                if entry.has_sent_since(client.sent.bytes) {
                    let waits = client.time_for(looked.downlink_waiting());
                    let host_rtt = looked.host.map(|host| host.rtt);
                    times.observe(carried, client.rtt, waits, host_rtt);
                }
            }
        }
        scrape
    }
}
