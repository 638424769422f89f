//! What is measured on a line with a peer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::time::timeout;

use super::lines::WanLine;
use super::stage::{Place, Props, Stage};
use super::viewer::{Seen, watch};
use crate::cpu::{Gauge, Usage};
use crate::excerpt::Excerpt;
use crate::metric::{MetricInfo, Values};
use crate::peers::Kind;
use crate::statistics::percentile;

/// Bytes of a transfer, and in how large pieces they are written.
const TRANSFER: u64 = 20_000_000;
const PIECE: u32 = 16_384;
/// The longest that a part of a measurement may take.
const LIMIT: Duration = Duration::from_mins(5);

/// Keys, labels and whether more is better.
const METRICS: [(&str, &str, bool); 10] = [
    ("age", "age s", false),
    ("age95", "age p95 s", false),
    ("queued", "queued MB", false),
    ("rate", "Mbit/s", true),
    ("answer", "answer s", false),
    ("answer95", "answer p95 s", false),
    ("down", "20 MB down s", false),
    ("up", "20 MB up s", false),
    ("fairness", "fairness", true),
    ("late", "packets late %", false),
];

/// How long shows are watched.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    warm_up: Duration,
    time: Duration,
    /// Transfers too, and two clients at once.
    is_full: bool,
}

impl Pace {
    /// As long as a line needs until its queues are full, and some time more.
    pub(super) fn new(line: &WanLine, quick: bool) -> Self {
        let after =
            |seconds, round_trips| Duration::from_secs(seconds) + line.round_trip * round_trips;
        if quick {
            Self {
                warm_up: after(4, 40),
                time: after(4, 20),
                is_full: false,
            }
        } else {
            Self {
                warm_up: after(10, 60),
                time: after(8, 40),
                is_full: true,
            }
        }
    }
}

/// What is told of each line.
pub(super) fn metrics() -> Vec<MetricInfo> {
    METRICS
        .iter()
        .map(|(id, label, more_is_better)| MetricInfo {
            id: (*id).to_owned(),
            label: (*label).to_owned(),
            more_is_better: *more_is_better,
        })
        .collect()
}

/// Measures everything that belongs to a line and a peer.
pub(super) async fn measure(
    props: &Props,
    place: Place<'_>,
    kind: Kind,
    pace: Pace,
    excerpt: &Arc<Excerpt>,
) -> Result<(Values, Usage)> {
    let stage = async || Stage::new(props, place, kind, excerpt).await;
    let mut values = Values::new();
    let usage = {
        let stage = stage().await?;
        let gauge = Gauge::start(stage.peer.pid())?;
        let channel = stage.open().await?;
        let seen = watch(channel, &stage.host, 1, pace.warm_up, pace.time);
        let seen = limited(seen).await.context("a show")?;
        let usage = gauge.finish()?;
        values.extend(told(&seen));
        values.insert("late".to_owned(), stage.late());
        usage
    };
    if pace.is_full {
        let down = limited(download(stage().await?)).await;
        values.insert("down".to_owned(), down.context("20 MB down")?);
        let up = limited(upload(stage().await?)).await;
        values.insert("up".to_owned(), up.context("20 MB up")?);
        let fairness = limited(fairness(stage().await?, pace)).await;
        values.insert("fairness".to_owned(), fairness.context("two clients")?);
    }
    Ok((values, usage))
}

async fn limited<T>(part: impl Future<Output = Result<T>>) -> Result<T> {
    timeout(LIMIT, part)
        .await
        .with_context(|| format!("not done within {LIMIT:?}"))?
}

fn told(seen: &Seen) -> Values {
    let values = [
        ("age", percentile(&seen.ages, 0.5)),
        ("age95", percentile(&seen.ages, 0.95)),
        ("queued", percentile(&seen.queued, 0.5) / 1e6),
        ("rate", seen.rate()),
        ("answer", percentile(&seen.answers, 0.5)),
        ("answer95", percentile(&seen.answers, 0.95)),
    ];
    let named = values.map(|(id, value)| (id.to_owned(), value));
    Values::from(named)
}

async fn download(stage: Stage<'_>) -> Result<f64> {
    let mut channel = stage.open().await?;
    let begin = Instant::now();
    channel.downlink(PIECE, TRANSFER).await?;
    Ok(begin.elapsed().as_secs_f64())
}

async fn upload(stage: Stage<'_>) -> Result<f64> {
    let mut channel = stage.open().await?;
    let begin = Instant::now();
    channel.uplink(PIECE as usize, TRANSFER).await?;
    Ok(begin.elapsed().as_secs_f64())
}

/// The lower of the rates of two clients on the same line, as a share of the higher one.
async fn fairness(stage: Stage<'_>, pace: Pace) -> Result<f64> {
    let channels = (stage.open().await?, stage.open().await?);
    let see = |channel, key| watch(channel, &stage.host, key, pace.warm_up, pace.time);
    let (one, other) = tokio::try_join!(see(channels.0, 1), see(channels.1, 2))?;
    let (one, other) = (one.rate(), other.rate());
    Ok(one.min(other) / one.max(other).max(1e-9))
}

#[cfg(test)]
mod tests {
    use testkit::cert::TestCert;

    use super::*;
    use crate::client::Tls;
    use crate::wan::lines;

    #[tokio::test(flavor = "multi_thread")]
    #[cfg_attr(unprivileged, ignore = "needs root: cargo xtask test")]
    async fn a_show_and_a_client_without_a_peer_feel_the_line() {
        let props = Props {
            cert: TestCert::new().unwrap(),
            tls: Tls::new(false).unwrap(),
            keys: Vec::new(),
            gateway: None,
        };
        let line = lines::all().into_iter().find(|line| line.id == "80ms-50m");
        let line = line.unwrap();
        let pace = Pace {
            warm_up: line.round_trip * 3,
            time: Duration::from_secs(1),
            is_full: false,
        };
        let place = Place {
            line: &line,
            congestion_control: "reno",
            seed: 1,
        };
        let excerpt = Excerpt::load().unwrap();
        let measured = measure(&props, place, Kind::Direct, pace, &excerpt).await;
        let (values, _) = measured.unwrap();
        let half = line.round_trip.as_secs_f64() / 2.0;
        assert!(values["age"] >= half && values["age95"] >= values["age"]);
        assert!(values["answer"] >= 2.0 * half, "{values:?}");
        assert!(values["rate"] > 0.0, "{values:?}");
        assert!(values["queued"] > 0.0, "{values:?}");
        assert!(!values.contains_key("down"));
    }
}
