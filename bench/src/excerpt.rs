//! The part of the recorded session that is played: some seconds of each kind of work.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use testkit::replay::{Direction, Recording};
use testkit::spice::ChannelType;
use tokio::time::{Instant, sleep_until};

use super::block::{self, Stream};

/// What is taken from the recording, in milliseconds since its start: a scrolling terminal, the
/// mouse, typing, an animation.
const WINDOWS: [(u64, u64); 4] = [
    (12_000, 13_000),
    (22_000, 23_000),
    (26_000, 27_000),
    (30_000, 31_000),
];

/// The excerpt, in which the windows follow each other without a gap.
#[derive(Debug)]
pub(crate) struct Excerpt {
    length: Duration,
    channels: Vec<(ChannelType, Vec<Step>)>,
}

/// Bytes that one side sends at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    direction: Direction,
    bytes: usize,
    /// Since the start of the excerpt.
    at: Duration,
}

/// One end of a channel, as both sides see it.
pub(crate) trait End {
    /// Sends all of `bytes` at once.
    async fn send(&mut self, bytes: &[u8]) -> Result<()>;
    /// Waits for bytes, passes them on and says how many they were.
    async fn receive(&mut self, consume: impl FnMut(&[u8]) -> Result<()>) -> Result<usize>;
}

impl Excerpt {
    /// The excerpt of the recorded session that comes with the tests.
    pub(crate) fn load() -> Result<Arc<Self>> {
        let recording = Recording::load()?;
        let mut channels = Vec::new();
        for kind in ChannelType::PLAIN_VM {
            let mut at = Duration::ZERO;
            let mut steps = Vec::new();
            for entry in &recording.channel(kind)?.entries {
                at += entry.pause;
                // Nothing longer than a block was recorded; the host's reads were that long.
                if let Some(at) = placed(at).filter(|_| entry.bytes <= block::LONGEST) {
                    let (direction, bytes) = (entry.direction, entry.bytes);
                    steps.push(Step {
                        direction,
                        bytes,
                        at,
                    });
                }
            }
            channels.push((kind, steps));
        }
        Ok(Arc::new(Self {
            length: WINDOWS.iter().map(length).sum(),
            channels,
        }))
    }

    /// How long it takes.
    pub(crate) fn length(&self) -> Duration {
        self.length
    }

    /// The bytes of all channels together: uplink, downlink.
    pub(crate) fn bytes(&self) -> (u64, u64) {
        let total = |direction| {
            let steps = self.channels.iter().flat_map(|(_, steps)| steps);
            let steps = steps.filter(|step| step.direction == direction);
            steps.map(|step| step.bytes as u64).sum()
        };
        (total(Direction::Uplink), total(Direction::Downlink))
    }

    /// Plays one side of a channel, from this place on and then what lies before it. Each step
    /// waits for all steps before it, those of the other side included.
    pub(crate) async fn play(
        &self,
        end: &mut impl End,
        own: Direction,
        channel: ChannelType,
        from: Duration,
    ) -> Result<()> {
        let found = self.channels.iter().find(|(kind, _)| *kind == channel);
        let (_, steps) = found.context("a channel that is not in the excerpt")?;
        let first = steps.partition_point(|step| step.at < from);
        let begin = Instant::now();
        let (mut sent, mut received, mut expected) = (0, 0, 0);
        for step in steps[first..].iter().chain(&steps[..first]) {
            if step.direction == own {
                sleep_until(begin + self.since(from, step.at)).await;
                end.send(stream(own).piece(sent, step.bytes)).await?;
                sent += step.bytes as u64;
                continue;
            }
            expected += step.bytes as u64;
            while received < expected {
                let check = |bytes: &[u8]| {
                    stream(step.direction).check(received, bytes)?;
                    received += bytes.len() as u64;
                    Ok(())
                };
                end.receive(check).await?;
            }
        }
        Ok(())
    }

    fn since(&self, from: Duration, at: Duration) -> Duration {
        at.checked_sub(from)
            .unwrap_or_else(|| (at + self.length).saturating_sub(from))
    }
}

/// Where in the excerpt what was recorded at this time has its place.
fn placed(recorded: Duration) -> Option<Duration> {
    let mut before = Duration::ZERO;
    for window in &WINDOWS {
        let begin = Duration::from_millis(window.0);
        if (begin..begin + length(window)).contains(&recorded) {
            return Some(before + recorded.saturating_sub(begin));
        }
        before += length(window);
    }
    None
}

fn length((begin, end): &(u64, u64)) -> Duration {
    Duration::from_millis(end - begin)
}

fn stream(direction: Direction) -> Stream {
    match direction {
        Direction::Uplink => block::UPLINK,
        Direction::Downlink => block::DOWNLINK,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_follow_each_other() {
        let millis = Duration::from_millis;
        assert_eq!(placed(millis(12_000)), Some(millis(0)));
        assert_eq!(placed(millis(22_500)), Some(millis(1_500)));
        assert_eq!(placed(millis(13_000)), None);
        let excerpt = Excerpt::load().unwrap();
        assert_eq!(excerpt.length(), millis(4_000));
        for (kind, steps) in &excerpt.channels {
            assert!(steps.is_sorted_by_key(|step| step.at), "{kind}");
        }
        let (uplink, downlink) = excerpt.bytes();
        assert!(uplink > 1_000 && downlink > 1_000_000);
    }

    #[test]
    fn what_lies_before_the_start_comes_last() {
        let excerpt = Excerpt::load().unwrap();
        let millis = Duration::from_millis;
        assert_eq!(excerpt.since(millis(1_000), millis(1_250)), millis(250));
        assert_eq!(excerpt.since(millis(1_000), millis(999)), millis(3_999));
    }
}
