//! The lines that are measured.

use std::time::Duration;

use testkit::line::Quality;
use testkit::network::Leg;

const MEGABIT: u64 = 1_000_000;

/// A line, and how long things take on it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WanLine {
    /// Its name in options and files.
    pub(crate) id: &'static str,
    /// What it is.
    pub(crate) title: &'static str,
    /// From the client to the gateway.
    pub(crate) client_leg: Leg,
    /// From the gateway to the host.
    pub(crate) host_leg: Leg,
    /// A round trip from the client to the host.
    pub(crate) round_trip: Duration,
    /// Part of a quick run.
    pub(crate) is_quick: bool,
}

/// All lines, in the order in which they are measured and shown.
pub(crate) fn all() -> Vec<WanLine> {
    let line = |id, title, round_trip: u64, megabits: u64| {
        let round_trip = Duration::from_millis(round_trip);
        WanLine {
            id,
            title,
            client_leg: Quality::new(round_trip, megabits * MEGABIT).into(),
            host_leg: Leg::Ethernet,
            round_trip,
            is_quick: false,
        }
    };
    let quick = |line: WanLine| WanLine {
        is_quick: true,
        ..line
    };
    let with = |line: WanLine, change: fn(Quality) -> Quality| {
        let change = |leg| match leg {
            Leg::Line { quality, mtu } => Leg::Line {
                quality: change(quality),
                mtu,
            },
            Leg::Ethernet => leg,
        };
        WanLine {
            client_leg: change(line.client_leg),
            ..line
        }
    };
    let far = line(
        "far-host",
        "Host 20 ms away, 200 Mbit/s; client near",
        20,
        200,
    );
    vec![
        quick(line("20ms-50m", "20 ms, 50 Mbit/s", 20, 50)),
        quick(line("80ms-10m", "80 ms, 10 Mbit/s", 80, 10)),
        line("80ms-50m", "80 ms, 50 Mbit/s", 80, 50),
        line("300ms-5m", "300 ms, 5 Mbit/s", 300, 5),
        with(
            line("80ms-50m-loss", "80 ms, 50 Mbit/s, 1 % lost", 80, 50),
            |quality| quality.losing(0.01, 1.0),
        ),
        quick(with(
            line(
                "mobile",
                "Mobile: 60 ms and up to 30 ms more, 20 Mbit/s, 1 % lost in rows of 4",
                60,
                20,
            ),
            |quality| {
                let jitter = Duration::from_millis(15);
                quality.losing(0.01, 4.0).varying(jitter)
            },
        )),
        WanLine {
            client_leg: Leg::Ethernet,
            host_leg: far.client_leg,
            ..far
        },
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn ids_are_unique_and_some_lines_quick() {
        let lines = all();
        let ids: BTreeSet<_> = lines.iter().map(|line| line.id).collect();
        assert_eq!(ids.len(), lines.len());
        assert!(lines.iter().any(|line| line.is_quick));
    }

    #[test]
    fn each_line_has_one_slow_leg() {
        for line in all() {
            let legs = [line.client_leg, line.host_leg];
            let ethernets = legs.iter().filter(|leg| **leg == Leg::Ethernet);
            assert_eq!(ethernets.count(), 1, "{}", line.id);
        }
    }
}
