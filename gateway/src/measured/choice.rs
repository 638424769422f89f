//! Which data path `auto` takes: a function of what was measured and of what works, and of nothing
//! else.

use gateway_datapath::measure::{Leg, Link, Outcome, Path, PathFigures};
use serde::{Deserialize, Serialize};

use super::record::{Record, RecordError};

/// How much less than `relay` another path must cost, as a share of that.
const LEAST_SAVING: f64 = 0.05;

/// What `auto` takes, and why.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Chosen {
    /// For plaintext client legs.
    pub plaintext: LegChoice,
    /// For TLS client legs.
    pub tls: LegChoice,
    /// What it follows from; `null`: nothing was measured that counts.
    pub measurement: Option<Record>,
}

/// What `auto` takes for one kind of client leg.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LegChoice {
    /// The data path.
    pub path: Path,
    /// Why, for people.
    pub reason: String,
}

impl Chosen {
    /// Of what is known of this machine.
    pub(crate) fn of(record: Result<Record, RecordError>, works: impl Fn(Path) -> bool) -> Self {
        match record {
            Ok(record) => Self {
                plaintext: leg(&record, Leg::Plaintext, &works),
                tls: leg(&record, Leg::Tls, &works),
                measurement: Some(record),
            },
            Err(error) => {
                let relay = LegChoice::relay(error.to_string());
                Self {
                    plaintext: relay.clone(),
                    tls: relay,
                    measurement: None,
                }
            }
        }
    }

    /// The choice for one kind of client leg.
    pub fn of_leg(&self, leg: Leg) -> &LegChoice {
        match leg {
            Leg::Plaintext => &self.plaintext,
            Leg::Tls => &self.tls,
        }
    }

    /// In one line.
    pub(crate) fn told(&self) -> String {
        let legs = [("plaintext", &self.plaintext), ("TLS", &self.tls)];
        if self.measurement.is_none() {
            return format!("relay: {}", self.tls.reason);
        }
        let legs = legs.map(|(name, LegChoice { path, reason })| {
            format!("{name} client legs: {} ({reason})", path.name())
        });
        legs.join("; ")
    }
}

impl LegChoice {
    fn relay(reason: impl Into<String>) -> Self {
        Self {
            path: Path::Relay,
            reason: reason.into(),
        }
    }
}

/// The cheapest path for a leg that works and saves enough.
///
/// Figures of loopback do not count: paths differ in another way there.
fn leg(record: &Record, leg: Leg, works: &impl Fn(Path) -> bool) -> LegChoice {
    if let Link::Loopback { reason } = &record.measurement.link {
        return LegChoice::relay(format!("measured over loopback only: {reason}"));
    }
    let of_leg = record
        .measurement
        .legs
        .iter()
        .find(|figures| figures.leg == leg);
    let paths = of_leg.map_or(&[][..], |figures| &figures.paths);
    let candidates = paths
        .iter()
        .filter(|figures| may_be_taken(leg, figures.path));
    let mut refused = Vec::new();
    let mut best: Option<(&PathFigures, f64)> = None;
    for figures in candidates {
        match saving(figures) {
            Ok(_) if !works(figures.path) => {
                refused.push(format!(
                    "{} is cheaper, but does not work",
                    figures.path.name()
                ));
            }
            Ok(saving) if best.is_none_or(|(_, most)| saving > most) => {
                best = Some((figures, saving));
            }
            Ok(_) => {}
            Err(reason) => refused.push(format!("{} {reason}", figures.path.name())),
        }
    }
    match best {
        Some((figures, saving)) => LegChoice {
            path: figures.path,
            reason: format!("{:.0} % cheaper than relay", 100.0 * saving),
        },
        None if refused.is_empty() => LegChoice::relay("no other path was measured"),
        None => LegChoice::relay(refused.join(", ")),
    }
}

/// `ktls-sockmap` has faults in the kernels that carry it, so it must be asked for by its name.
fn may_be_taken(leg: Leg, path: Path) -> bool {
    let is_of_leg = leg.paths().contains(&path);
    is_of_leg && !matches!(path, Path::Relay | Path::KtlsSockmap)
}

/// How much a path saves, if that is enough; else why it is not taken.
fn saving(figures: &PathFigures) -> Result<f64, String> {
    let saving = figures.saving.map_or(0.0, |saving| saving.median);
    match figures.outcome {
        Outcome::Cheaper if saving >= LEAST_SAVING => Ok(saving),
        Outcome::Cheaper => Err(format!("is only {:.1} % cheaper", 100.0 * saving)),
        Outcome::Dearer => Err(format!("costs {:.0} % more", -100.0 * saving)),
        Outcome::NoDifference | Outcome::Reference => Err("shows no difference".to_owned()),
        Outcome::Failed => Err(format!(
            "failed: {}",
            figures.reason.as_deref().unwrap_or("unknown")
        )),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use gateway_datapath::measure::{LegFigures, Spread};

    use super::*;
    use crate::measured::record::tests::record;

    fn figures(path: Path, outcome: Outcome, saving: Option<f64>) -> PathFigures {
        PathFigures {
            path,
            outcome,
            reason: None,
            turns: 8,
            messages: 100,
            bytes: 400_000,
            microseconds: None,
            saving: saving.map(|median| Spread {
                median,
                lower: median - 0.01,
                upper: median + 0.01,
            }),
        }
    }

    /// A record in which paths cost so much less than `relay`.
    pub(in crate::measured) fn measured(paths: &[(Path, Outcome, f64)]) -> Record {
        let mut record = record();
        record.measurement.legs = Leg::ALL
            .map(|leg| {
                let relay = figures(Path::Relay, Outcome::Reference, None);
                let others = paths.iter().filter(|path| leg.paths().contains(&path.0));
                let others =
                    others.map(|&(path, outcome, saving)| figures(path, outcome, Some(saving)));
                LegFigures {
                    leg,
                    paths: std::iter::once(relay).chain(others).collect(),
                }
            })
            .into();
        record
    }

    fn paths(chosen: &Chosen) -> [Path; 2] {
        [chosen.plaintext.path, chosen.tls.path]
    }

    const RELAY: [Path; 2] = [Path::Relay, Path::Relay];

    #[test]
    fn without_a_measurement_it_is_relay_and_says_why() {
        for error in [
            RecordError::None,
            RecordError::OtherMachine("kernel 5, now 6".to_owned()),
            RecordError::UnknownMachine("nothing".to_owned()),
        ] {
            let chosen = Chosen::of(Err(error.clone()), |_| true);
            assert_eq!(paths(&chosen), RELAY);
            assert_eq!(chosen.told(), format!("relay: {error}"));
        }
    }

    #[test]
    fn a_path_that_costs_less_is_taken_for_its_legs() {
        let sockmap = measured(&[(Path::Sockmap, Outcome::Cheaper, 0.2)]);
        let chosen = Chosen::of(Ok(sockmap), |_| true);
        assert_eq!(paths(&chosen), [Path::Sockmap, Path::Relay]);
        assert_eq!(chosen.plaintext.reason, "20 % cheaper than relay");
        assert_eq!(chosen.tls.reason, "no other path was measured");
        let ktls = measured(&[
            (Path::Sockmap, Outcome::Dearer, -0.4),
            (Path::Ktls, Outcome::Cheaper, 0.06),
        ]);
        let chosen = Chosen::of(Ok(ktls), |_| true);
        assert_eq!(paths(&chosen), [Path::Relay, Path::Ktls]);
        assert_eq!(chosen.plaintext.reason, "sockmap costs 40 % more");
    }

    #[test]
    fn what_saves_little_or_shows_nothing_or_fails_is_not_taken() {
        for (outcome, saving, reason) in [
            (Outcome::Cheaper, 0.049, "ktls is only 4.9 % cheaper"),
            (Outcome::NoDifference, 0.3, "ktls shows no difference"),
            (Outcome::Dearer, -0.1, "ktls costs 10 % more"),
            (Outcome::Failed, 0.3, "ktls failed: unknown"),
        ] {
            let chosen = Chosen::of(Ok(measured(&[(Path::Ktls, outcome, saving)])), |_| true);
            assert_eq!(paths(&chosen), RELAY);
            assert_eq!(chosen.tls.reason, reason);
        }
    }

    #[test]
    fn figures_of_loopback_do_not_count() {
        let mut record = measured(&[(Path::Sockmap, Outcome::Cheaper, 0.2)]);
        record.measurement.link = Link::Loopback {
            reason: "no network namespace".to_owned(),
        };
        let chosen = Chosen::of(Ok(record), |_| true);
        assert_eq!(paths(&chosen), RELAY);
        assert_eq!(
            chosen.tls.reason,
            "measured over loopback only: no network namespace"
        );
    }

    #[test]
    fn what_does_not_work_here_is_not_taken() {
        let record = measured(&[(Path::Sockmap, Outcome::Cheaper, 0.2)]);
        let chosen = Chosen::of(Ok(record), |path| path != Path::Sockmap);
        assert_eq!(paths(&chosen), RELAY);
        assert_eq!(
            chosen.plaintext.reason,
            "sockmap is cheaper, but does not work"
        );
    }

    #[test]
    fn ktls_sockmap_is_never_taken_and_a_path_only_for_its_own_leg() {
        let record = measured(&[(Path::KtlsSockmap, Outcome::Cheaper, 0.5)]);
        assert_eq!(paths(&Chosen::of(Ok(record), |_| true)), RELAY);
        let mut record = measured(&[(Path::Ktls, Outcome::Cheaper, 0.5)]);
        // As no measurement has it.
        record.measurement.legs[1].leg = Leg::Plaintext;
        record.measurement.legs.remove(0);
        assert_eq!(paths(&Chosen::of(Ok(record), |_| true)), RELAY);
    }
}
