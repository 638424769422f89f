//! What is told of a measurement.

use std::collections::BTreeMap;

use crate::cpu::Usage;
use serde::{Deserialize, Serialize};

/// The values of one measurement, by the metrics' ids.
pub(crate) type Values = BTreeMap<String, f64>;

/// One of a figure's values.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct MetricInfo {
    /// Its key in [`Measurement::values`](crate::results::Measurement::values).
    pub(crate) id: String,
    /// What it is, with its unit.
    pub(crate) label: String,
    /// Whether a greater value is better.
    pub(crate) more_is_better: bool,
}

/// One of a figure's values.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Metric {
    id: &'static str,
    /// What it is, with its unit.
    label: &'static str,
    more_is_better: bool,
}

impl Metric {
    const fn less(id: &'static str, label: &'static str) -> Self {
        Self {
            id,
            label,
            more_is_better: false,
        }
    }

    const fn more(id: &'static str, label: &'static str) -> Self {
        Self {
            id,
            label,
            more_is_better: true,
        }
    }

    /// The metric as it stands in the results.
    pub(crate) fn info(&self) -> MetricInfo {
        MetricInfo {
            id: self.id.to_owned(),
            label: self.label.to_owned(),
            more_is_better: self.more_is_better,
        }
    }
}

/// Of loads that move bytes.
pub(super) const STREAM: [Metric; 6] = [
    Metric::less("cpu", "CPU s/GiB"),
    Metric::less("user", "user s/GiB"),
    Metric::less("system", "system s/GiB"),
    Metric::less("tasks", "tasks s/GiB"),
    Metric::less("machine", "machine s/GiB"),
    Metric::more("rate", "MiB/s"),
];

/// Id of the median round trip.
pub(crate) const ROUND_TRIP: &str = "p50";
/// Id of what a peer adds to it.
pub(crate) const ADDED: &str = "added";

/// Of round trips.
pub(super) const LATENCY: [Metric; 6] = [
    Metric::less(ROUND_TRIP, "p50 \u{b5}s"),
    Metric::less("p99", "p99 \u{b5}s"),
    Metric::less("p999", "p99.9 \u{b5}s"),
    Metric::less(ADDED, "added p50 \u{b5}s"),
    Metric::less("cpu", "CPU \u{b5}s/message"),
    Metric::less("tasks", "tasks \u{b5}s/message"),
];

/// Of desktops that are played.
pub(super) const REPLAY: [Metric; 6] = [
    Metric::less("cpu", "CPU s/desktop-minute"),
    Metric::less("user", "user s/desktop-minute"),
    Metric::less("system", "system s/desktop-minute"),
    Metric::less("tasks", "tasks s/desktop-minute"),
    Metric::less("machine", "machine s/desktop-minute"),
    Metric::less("slowdown", "time / recorded time"),
];

/// Of channels that are opened and closed.
pub(super) const SESSIONS: [Metric; 6] = [
    Metric::less("cpu", "CPU ms/channel"),
    Metric::less("user", "user ms/channel"),
    Metric::less("system", "system ms/channel"),
    Metric::less("tasks", "tasks ms/channel"),
    Metric::less("machine", "machine ms/channel"),
    Metric::more("rate", "channels/s"),
];

/// Of clients that do not read.
pub(super) const STALLED: [Metric; 5] = [
    Metric::less("cpu", "CPU ms/s"),
    Metric::less("user", "user ms/s"),
    Metric::less("system", "system ms/s"),
    Metric::less("tasks", "tasks ms/s"),
    Metric::less("machine", "machine ms/s"),
];

/// Of memory.
pub(super) const MEMORY: [Metric; 5] = [
    Metric::less("idle", "KiB/idle channel"),
    Metric::less("busy", "KiB/busy channel"),
    Metric::less("kernel_idle", "kernel KiB/idle channel"),
    Metric::less("kernel_busy", "kernel KiB/busy channel"),
    Metric::less("base", "MiB without channels"),
];

/// The processor times of a measurement in which `units` units of work were done, each metric's
/// unit being one `per_second`th of a second.
pub(super) fn cpu_values(usage: &Usage, units: f64, per_second: f64) -> Values {
    let value = |seconds: f64| seconds * per_second / units;
    Values::from([
        ("cpu".to_owned(), value(usage.peer.total)),
        ("user".to_owned(), value(usage.peer.user())),
        ("system".to_owned(), value(usage.peer.system())),
        ("tasks".to_owned(), value(usage.tasks)),
        ("machine".to_owned(), value(usage.busy)),
    ])
}
