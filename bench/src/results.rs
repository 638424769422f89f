//! What a run measured, as it is kept in a file.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use super::machine::Machine;
use super::metric::{ADDED, MetricInfo, ROUND_TRIP, Values};
use super::statistics::Summary;

/// The file's layout; another number means another layout.
const FORMAT: u32 = 1;

/// All that a run measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Results {
    format: u32,
    /// What was compared: `peers` or `paths`.
    pub(crate) comparison: String,
    /// The command that measured it.
    pub(crate) command: String,
    /// When it began, in seconds since 1970 (UTC).
    pub(crate) began: u64,
    /// How long it took, in seconds.
    pub(crate) seconds: f64,
    /// The TLS that all peers spoke.
    pub(crate) tls: String,
    /// What it was measured on.
    pub(crate) machine: Machine,
    /// Whom ratios refer to.
    pub(crate) reference: String,
    /// Who was measured, in the order in which they are shown.
    pub(crate) peers: Vec<PeerInfo>,
    /// What was measured, in the order in which it is shown.
    pub(crate) figures: Vec<FigureInfo>,
    /// Every measurement of every round.
    pub(crate) measurements: Vec<Measurement>,
    /// What could not be measured, and why.
    pub(crate) problems: Vec<Problem>,
}

/// A peer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct PeerInfo {
    /// Its name.
    pub(crate) name: String,
    /// What it does with a channel.
    pub(crate) role: String,
    /// Its version; empty when it has none.
    pub(crate) version: String,
}

/// A figure.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct FigureInfo {
    /// Its name in options and files.
    pub(crate) id: String,
    /// Its name for people.
    pub(crate) title: String,
    /// What is told of it, the most important first.
    pub(crate) metrics: Vec<MetricInfo>,
}

/// One figure of one peer in one round.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Measurement {
    /// The round, from 1 on.
    pub(crate) round: usize,
    /// The figure's id.
    pub(crate) figure: String,
    /// The peer's name.
    pub(crate) peer: String,
    /// How much was done: bytes, messages or channels.
    pub(crate) work: u64,
    /// How long it took, in seconds.
    pub(crate) seconds: f64,
    /// The share of the machine, 0 to 1, that was busy with something else.
    pub(crate) elsewhere: f64,
    /// The values by the metrics' ids.
    pub(crate) values: Values,
}

/// Something that could not be measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Problem {
    /// The peer's name.
    pub(crate) peer: String,
    /// The figure's id; none when it concerns all of them.
    pub(crate) figure: Option<String>,
    /// Why.
    pub(crate) reason: String,
}

/// Under which circumstances a run was made.
pub(crate) struct Circumstances {
    /// What is compared: `peers` or `paths`.
    pub(crate) comparison: &'static str,
    /// The command line.
    pub(crate) command: String,
    /// The TLS that all peers speak.
    pub(crate) tls: &'static str,
    /// Whom ratios refer to.
    pub(crate) reference: String,
}

impl Results {
    /// Results in which nothing was measured yet.
    pub(crate) fn new(circumstances: Circumstances) -> Result<Self> {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
        Ok(Self {
            format: FORMAT,
            comparison: circumstances.comparison.to_owned(),
            command: circumstances.command,
            began: now.as_secs(),
            seconds: 0.0,
            tls: circumstances.tls.to_owned(),
            machine: Machine::this()?,
            reference: circumstances.reference,
            peers: Vec::new(),
            figures: Vec::new(),
            measurements: Vec::new(),
            problems: Vec::new(),
        })
    }

    /// Reads a file that [`Results::save`] wrote.
    pub(crate) fn load(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| {
            let path = path.display();
            format!("reading {path}; `cargo xtask bench peers` writes it")
        })?;
        let results: Self =
            serde_json::from_str(&text).with_context(|| format!("in {}", path.display()))?;
        ensure!(
            results.format == FORMAT,
            "{} has layout {}, not {FORMAT}: measure again",
            path.display(),
            results.format
        );
        Ok(results)
    }

    /// Writes a file.
    pub(crate) fn save(&self, path: &Path) -> Result<()> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        fs::write(path, text).with_context(|| format!("writing {}", path.display()))
    }

    /// How many rounds were measured.
    pub(crate) fn rounds(&self) -> usize {
        let rounds = self.measurements.iter().map(|one| one.round);
        rounds.max().unwrap_or_default()
    }

    /// A value in each round that has it.
    pub(crate) fn by_round(&self, figure: &str, peer: &str, metric: &str) -> BTreeMap<usize, f64> {
        self.measurements
            .iter()
            .filter(|one| one.figure == figure && one.peer == peer)
            .filter_map(|one| Some((one.round, *one.values.get(metric)?)))
            .collect()
    }

    /// A value over all rounds.
    pub(crate) fn summary(&self, figure: &str, peer: &str, metric: &str) -> Option<Summary> {
        Summary::of(self.by_round(figure, peer, metric).into_values())
    }

    /// A value's ratio to the reference's, round by round; none for the reference itself.
    pub(crate) fn ratio(&self, figure: &str, peer: &str, metric: &str) -> Option<Summary> {
        if peer == self.reference {
            return None;
        }
        let own = self.by_round(figure, peer, metric);
        Summary::of_ratios(&own, &self.by_round(figure, &self.reference, metric))
    }

    /// Whether a peer was measured in any round.
    pub(crate) fn was_measured(&self, figure: &str, peer: &str) -> bool {
        self.measurements
            .iter()
            .any(|one| one.figure == figure && one.peer == peer)
    }

    /// Whether a metric has a value at all.
    pub(crate) fn has_values(&self, figure: &str, metric: &str) -> bool {
        self.measurements
            .iter()
            .any(|one| one.figure == figure && one.values.contains_key(metric))
    }

    /// Tells of the round trips of a round what they add to those of `direct`.
    pub(crate) fn add_latencies(&mut self, round: usize, direct: &str) {
        let median = |one: &Measurement| one.values.get(ROUND_TRIP).copied();
        let (own, others): (Vec<_>, Vec<_>) = self
            .measurements
            .iter_mut()
            .filter(|one| one.round == round)
            .partition(|one| one.peer == direct);
        let Some(base) = own.iter().find_map(|one| median(one)) else {
            return;
        };
        for one in others {
            if let Some(value) = median(one) {
                one.values.insert(ADDED.to_owned(), value - base);
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Two rounds of one figure, in which the gateway takes half of the reference's time.
    pub(crate) fn sample() -> Results {
        let mut results = Results::new(Circumstances {
            comparison: "peers",
            command: "cargo xtask bench peers".to_owned(),
            tls: "TLS 1.3",
            reference: "haproxy".to_owned(),
        })
        .unwrap();
        results.peers = ["gateway", "haproxy"]
            .map(|name| PeerInfo {
                name: name.to_owned(),
                role: "TLS to TCP".to_owned(),
                version: "1.2".to_owned(),
            })
            .into();
        results.figures = vec![FigureInfo {
            id: "down-1k".to_owned(),
            title: "Downlink".to_owned(),
            metrics: vec![MetricInfo {
                id: "cpu".to_owned(),
                label: "CPU s/GiB".to_owned(),
                more_is_better: false,
            }],
        }];
        for (round, value) in [(1, 2.0), (2, 4.0)] {
            for (peer, value) in [("gateway", value / 2.0), ("haproxy", value)] {
                results.measurements.push(Measurement {
                    round,
                    figure: "down-1k".to_owned(),
                    peer: peer.to_owned(),
                    work: 1,
                    seconds: 1.0,
                    elsewhere: 0.0,
                    values: Values::from([("cpu".to_owned(), value)]),
                });
            }
        }
        results
    }

    #[test]
    fn values_and_ratios_are_found() {
        let results = sample();
        assert_eq!(results.rounds(), 2);
        let value = results.summary("down-1k", "gateway", "cpu").unwrap();
        let ratio = results.ratio("down-1k", "gateway", "cpu").unwrap();
        assert_eq!((value.min, value.max), (1.0, 2.0));
        assert_eq!((ratio.min, ratio.median), (0.5, 0.5));
        assert_eq!(results.ratio("down-1k", "haproxy", "cpu"), None);
        assert!(!results.was_measured("down-1k", "nginx"));
    }

    #[test]
    fn files_keep_everything() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new").join("peers.json");
        let results = sample();
        results.save(&path).unwrap();
        let loaded = Results::load(&path).unwrap();
        assert_eq!(format!("{loaded:?}"), format!("{results:?}"));
    }

    #[test]
    fn latencies_are_compared_within_a_round() {
        let mut results = sample();
        for one in &mut results.measurements {
            let value = if one.peer == "haproxy" { 40.0 } else { 55.0 };
            one.values = Values::from([(ROUND_TRIP.to_owned(), value)]);
        }
        results.add_latencies(2, "haproxy");
        let added = results.by_round("down-1k", "gateway", ADDED);
        assert_eq!(added, BTreeMap::from([(2, 15.0)]));
    }
}
