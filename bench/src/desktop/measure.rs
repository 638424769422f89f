//! From key to pixel: how long it takes until what a key draws has arrived.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use testkit::network::Network;
use tokio::time::{sleep_until, timeout};

use super::animation::answer;
use super::scenes::Scene;
use super::spice::{Drawn, SpiceClient};
use super::xorg::Xorg;
use crate::cpu::{Gauge, Usage};
use crate::metric::{MetricInfo, Values};
use crate::peers::Kind;
use crate::statistics::{float, percentile};
use crate::wan::stage::{Place, Props, Stage};

/// Keys of a measurement, and of a quick one.
const KEYS: (u16, u16) = (15, 7);
/// The longest that an answer may take.
const LIMIT: Duration = Duration::from_mins(1);
/// The longest that it may take to open all channels.
const OPEN_LIMIT: Duration = Duration::from_mins(1);
/// After an answer, how long until the next key: the first pause, what each is longer than the one
/// before, and after how many it begins again. They keep no step with anything on the line.
const PAUSE: Duration = Duration::from_millis(300);
const PAUSE_STEP: Duration = Duration::from_millis(70);
const PAUSES: u32 = 5;
/// What is shorter shows no picture.
const PICTURE: usize = 1_024;

/// Keys, labels and whether more is better.
const METRICS: [(&str, &str, bool); 5] = [
    ("answer", "key to pixel s", false),
    ("longest", "longest s", false),
    ("rate", "Mbit/s", true),
    ("picture", "KB/picture", true),
    ("late", "packets late %", false),
];

/// What is told of each scene.
pub(super) fn metrics() -> Vec<MetricInfo> {
    let info = |(id, label, more_is_better): &(&str, &str, bool)| MetricInfo {
        id: (*id).to_owned(),
        label: (*label).to_owned(),
        more_is_better: *more_is_better,
    };
    METRICS.iter().map(info).collect()
}

/// Measures a scene with a peer.
pub(super) async fn measure(
    props: &Props,
    scene: &Scene,
    kind: Kind,
    is_quick: bool,
    seed: u64,
) -> Result<(Values, Usage)> {
    let place = Place {
        line: &scene.line,
        congestion_control: scene.congestion_control,
        seed,
    };
    let start = async |network: &Network| Xorg::start(network, scene.load).await;
    let stage = Stage::with_host(props, place, kind, start).await?;
    let gauge = Gauge::start(stage.peer.pid())?.with_host(stage.host.pid())?;
    let client = timeout(OPEN_LIMIT, SpiceClient::open(&stage)).await;
    let mut viewer = Viewer {
        client: client.context("opening the channels takes too long")??,
        seen: Seen::default(),
    };
    viewer.watch(warm_up(scene, is_quick)).await?;
    viewer.seen = Seen::default();
    let begin = Instant::now();
    let keys = if is_quick { KEYS.1 } else { KEYS.0 };
    for number in 0..keys {
        viewer.press(number).await?;
        let pause = PAUSE + PAUSE_STEP * (u32::from(number) % PAUSES);
        viewer.watch(pause).await?;
    }
    let seconds = begin.elapsed().as_secs_f64();
    let mut values = viewer.seen.told(seconds);
    values.insert("late".to_owned(), stage.late());
    Ok((values, gauge.finish()?))
}

/// As long as queues need to fill.
fn warm_up(scene: &Scene, is_quick: bool) -> Duration {
    let (seconds, round_trips) = if is_quick { (4, 20) } else { (8, 60) };
    Duration::from_secs(seconds) + scene.line.round_trip * round_trips
}

struct Viewer {
    client: SpiceClient,
    seen: Seen,
}

/// What came.
#[derive(Debug, Default)]
struct Seen {
    /// How long answers took, in seconds.
    answers: Vec<f64>,
    /// Lengths of the messages that show a picture, in bytes.
    pictures: Vec<f64>,
    /// Of the display channel.
    bytes: u64,
}

impl Seen {
    fn told(mut self, seconds: f64) -> Values {
        self.answers.sort_by(f64::total_cmp);
        self.pictures.sort_by(f64::total_cmp);
        let mut values = Values::from([
            ("answer".to_owned(), percentile(&self.answers, 0.5)),
            ("longest".to_owned(), percentile(&self.answers, 1.0)),
            ("rate".to_owned(), float(self.bytes) * 8.0 / 1e6 / seconds),
        ]);
        if !self.pictures.is_empty() {
            let picture = percentile(&self.pictures, 0.5) / 1e3;
            values.insert("picture".to_owned(), picture);
        }
        values
    }
}

impl Viewer {
    /// Takes what comes for this long.
    async fn watch(&mut self, time: Duration) -> Result<()> {
        let mut end = std::pin::pin!(sleep_until((Instant::now() + time).into()));
        loop {
            tokio::select! {
                () = &mut end => return Ok(()),
                length = self.client.receive() => {
                    self.seen.bytes += length? as u64;
                    self.take().await?;
                }
            }
        }
    }

    /// Presses a key and waits until its answer has arrived.
    async fn press(&mut self, number: u16) -> Result<()> {
        let begin = Instant::now();
        self.client.press().await?;
        loop {
            let drawn = self.take().await?;
            if drawn.contains(&Some(answer(number))) {
                self.seen.answers.push(begin.elapsed().as_secs_f64());
                return Ok(());
            }
            ensure!(
                begin.elapsed() < LIMIT,
                "no answer to key {number} in {LIMIT:?}"
            );
            let length = timeout(LIMIT, self.client.receive()).await;
            let length = length.with_context(|| format!("no answer to key {number}"))??;
            self.seen.bytes += length as u64;
        }
    }

    /// Where it was drawn.
    async fn take(&mut self) -> Result<Vec<Option<[u32; 4]>>> {
        let drawn = self.client.drawn().await?;
        let pictures = drawn.iter().filter(|drawn| drawn.length >= PICTURE);
        self.seen
            .pictures
            .extend(pictures.map(|drawn| float(drawn.length as u64)));
        let place = |drawn: Drawn| drawn.place;
        Ok(drawn.into_iter().map(place).collect())
    }
}

#[cfg(test)]
mod tests {
    use testkit::cert::TestCert;
    use testkit::packages::{self, Package};

    use super::*;
    use crate::client::Tls;
    use crate::desktop::scenes;

    #[tokio::test(flavor = "multi_thread")]
    #[cfg_attr(unprivileged, ignore = "needs root: cargo xtask test")]
    async fn keys_show_while_pictures_move() {
        packages::ensure(&[Package::XorgSpice, Package::Openssl]).unwrap();
        let props = Props {
            cert: TestCert::new().unwrap(),
            tls: Tls::new(false).unwrap(),
            keys: Vec::new(),
            gateway: None,
        };
        let mut scenes = scenes::all().into_iter();
        let scene = scenes.find(|scene| scene.id == "20ms-50m-512x384").unwrap();
        let measured = measure(&props, &scene, Kind::Direct, true, 1).await;
        let (values, _) = measured.unwrap();
        assert!(values["answer"] >= scene.line.round_trip.as_secs_f64());
        assert!(values["longest"] >= values["answer"], "{values:?}");
        // Whole pictures, and they keep coming.
        assert!(values["picture"] > 780.0, "{values:?}");
        assert!(values["rate"] > 1.0, "{values:?}");
    }
}
