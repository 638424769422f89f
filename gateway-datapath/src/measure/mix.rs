//! The messages of a desktop, as far as a measurement plays them: sizes, directions and pauses.
//!
//! Stretches of eight messages each, which follow each other in a recorded session: a scrolling
//! terminal, typing, an animation, and sound. They are spread over the recording, as many from each
//! of its channels as it has messages, and together have its distribution of sizes and pauses. A
//! test compares them with the recording.

use std::time::Duration;

/// How many channels are open at a time.
pub(super) const CHANNELS: u32 = 32;
/// How many messages a stretch has.
const STRETCH: usize = 8;

/// Who sends a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    /// Client to host.
    Uplink,
    /// Host to client.
    Downlink,
}

/// Bytes that one side sends at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) direction: Direction,
    pub(super) bytes: usize,
    /// When, from the begin of the turn on.
    pub(super) due: Duration,
}

/// Bytes that one side sent at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Recorded {
    direction: Direction,
    bytes: usize,
    /// How long after the message before, in microseconds; at most 50 ms. In a longer pause nothing
    /// happens at a desktop, which costs nothing on any path.
    pause: u64,
}

const fn down(bytes: usize, pause: u64) -> Recorded {
    Recorded {
        direction: Direction::Downlink,
        bytes,
        pause,
    }
}

const fn up(bytes: usize, pause: u64) -> Recorded {
    Recorded {
        direction: Direction::Uplink,
        bytes,
        pause,
    }
}

/// Each with the channel and the entry of `tests/data/spice-traffic.json` that it begins with.
#[rustfmt::skip]
const STRETCHES: [(&str, usize, [Recorded; STRETCH]); 16] = [
    ("display", 114, [
        down(81, 27_000), down(2_375, 300), down(81, 300), up(6, 700),
        down(2_385, 27_500), down(81, 1_200), down(81, 26_200), down(2_545, 2_200),
    ]),
    ("display", 266, [
        down(81, 22_900), down(3_070, 1_300), down(81, 23_700), down(3_135, 300),
        up(6, 900), down(3_146, 24_200), down(81, 24_900), down(3_028, 1_000),
    ]),
    ("display", 608, [
        up(6, 900), down(81, 22_700), down(2_706, 1_000), down(328, 200),
        down(81, 22_900), down(3_075, 500), up(6, 400), down(2_623, 22_900),
    ]),
    ("display", 800, [
        down(328, 200), up(6, 900), down(2_651, 23_700), down(490, 200),
        down(81, 22_500), up(6, 800), down(2_710, 200), down(166, 200),
    ]),
    ("display", 1_122, [
        down(2_411, 1_300), down(85, 800), down(35, 200), down(47, 500),
        down(162, 600), down(166, 200), down(162, 400), down(81, 29_100),
    ]),
    ("display", 1_546, [
        down(428, 500), up(6, 1_500), down(85, 37_500), down(335, 1_300),
        down(231, 1_000), down(618, 27_000), down(170, 33_500), down(406, 3_800),
    ]),
    ("display", 1_691, [
        down(170, 34_900), up(6, 700), down(81, 1_900), down(81, 500),
        down(170, 31_600), down(81, 700), down(81, 1_000), down(332, 27_900),
    ]),
    ("display", 1_985, [
        down(13_085, 700), up(6, 2_100), down(13_835, 0), down(442, 100),
        down(445, 400), down(13_693, 1_900), down(828, 1_000), down(85, 300),
    ]),
    ("display", 2_148, [
        down(81, 500), down(13_669, 4_100), down(455, 1_700), down(400, 700),
        up(6, 1_000), down(13_832, 1_200), down(453, 700), down(440, 500),
    ]),
    ("display", 2_453, [
        down(429, 1_100), down(12_506, 800), up(6, 5_500), down(50_451, 3_500),
        down(13_277, 900), up(6, 500), down(247, 900), down(13_771, 2_800),
    ]),
    ("display", 2_649, [
        down(12_615, 1_000), down(85, 200), up(6, 200), down(519, 600),
        down(12_116, 500), down(25_476, 1_800), down(24_720, 2_200), down(85, 200),
    ]),
    ("display", 3_058, [
        down(81, 500), down(12_598, 1_900), down(612, 1_400), down(13_392, 2_000),
        down(13_543, 1_600), up(6, 600), down(811, 700), down(12_888, 1_000),
    ]),
    ("playback", 253, [
        down(1_930, 10_000), down(1_930, 10_000), down(1_930, 10_000), down(1_930, 10_000),
        down(1_930, 10_100), down(1_930, 13_200), down(1_930, 6_700), down(1_930, 13_100),
    ]),
    ("playback", 461, [
        down(1_930, 10_000), down(1_930, 10_000), down(1_930, 9_900), down(1_930, 10_600),
        down(1_930, 9_400), down(1_930, 10_000), down(1_930, 10_000), down(1_930, 10_000),
    ]),
    ("playback", 604, [
        down(1_930, 10_800), down(1_930, 8_500), down(1_930, 10_700), down(1_930, 9_700),
        down(1_930, 10_200), down(1_930, 9_500), down(1_930, 10_200), down(1_930, 10_900),
    ]),
    ("inputs", 50, [
        up(17, 16_000), up(17, 33_300), up(17, 33_700), down(6, 4_000),
        up(17, 28_900), up(17, 34_800), up(17, 33_400), up(17, 34_200),
    ]),
];

/// The shortest turn in which the channels together carry each message once.
pub(super) fn shortest_turn() -> Duration {
    period() / CHANNELS
}

/// What each channel carries within `time`. All play the same, one stretch after the other and then
/// from the begin, and each is as far behind the one before as the last one is behind the first.
pub(super) fn within(time: Duration) -> Vec<Vec<Message>> {
    let begins = (0..CHANNELS).map(|channel| period() * channel / CHANNELS);
    begins.map(|begin| between(begin, begin + time)).collect()
}

/// How long all stretches take.
fn period() -> Duration {
    let pauses = recorded().map(|recorded| recorded.pause);
    Duration::from_micros(pauses.sum())
}

fn recorded() -> impl Iterator<Item = &'static Recorded> + Clone {
    STRETCHES.iter().flat_map(|(_, _, messages)| messages)
}

/// What is due then, if all stretches follow each other again and again.
fn between(begin: Duration, end: Duration) -> Vec<Message> {
    let mut now = Duration::ZERO;
    let timed = recorded().cycle().map(|recorded| {
        now += Duration::from_micros(recorded.pause);
        (now, recorded)
    });
    let those = timed
        .skip_while(|(now, _)| *now < begin)
        .take_while(|(now, _)| *now < end);
    let those = those.map(|(now, recorded)| Message {
        direction: recorded.direction,
        bytes: recorded.bytes,
        due: now.saturating_sub(begin),
    });
    those.collect()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    /// In microseconds.
    const LONGEST_PAUSE: u64 = 50_000;

    /// The messages of the recording's channels, by name.
    fn recording() -> Vec<(String, Vec<Recorded>)> {
        let text = include_str!("../../../tests/data/spice-traffic.json");
        let file: Value = serde_json::from_str(text).unwrap();
        let read = |entry: &Value| {
            let milliseconds = entry[2].as_f64().unwrap().max(0.0);
            let pause = Duration::from_secs_f64(milliseconds / 1000.0);
            // The recording tells tenths of a millisecond.
            let pause = 100 * u64::try_from((pause.as_micros() + 50) / 100).unwrap();
            let bytes = entry[1].as_u64().unwrap().try_into().unwrap();
            match entry[0].as_str().unwrap() {
                "c2s" => up(bytes, pause.min(LONGEST_PAUSE)),
                _ => down(bytes, pause.min(LONGEST_PAUSE)),
            }
        };
        let channels = file["channels"].as_object().unwrap().iter();
        let channels = channels.map(|(name, entries)| {
            let name = name.split(':').next().unwrap();
            let entries = entries.as_array().unwrap().iter().map(read).collect();
            (name.to_owned(), entries)
        });
        channels.collect()
    }

    /// The largest distance between two distributions (Kolmogorov and Smirnov), in percent.
    fn distance(one: &[u64], other: &[u64]) -> u64 {
        let share = |values: &[u64], most: u64| {
            let count = values.iter().filter(|value| **value <= most).count() as u64;
            100 * count / values.len() as u64
        };
        let points = one.iter().chain(other);
        let distances = points.map(|&point| share(one, point).abs_diff(share(other, point)));
        distances.max().unwrap()
    }

    /// How far the means of both differ, in percent.
    fn means_differ(one: &[u64], other: &[u64]) -> u64 {
        let mean = |values: &[u64]| values.iter().sum::<u64>() / values.len() as u64;
        100 * mean(one).abs_diff(mean(other)) / mean(other)
    }

    fn bytes(messages: &[Recorded], direction: Direction) -> Vec<u64> {
        let those = messages
            .iter()
            .filter(|message| message.direction == direction);
        those.map(|message| message.bytes as u64).collect()
    }

    #[test]
    fn the_stretches_are_in_the_recording() {
        let recording = recording();
        for (name, begin, stretch) in STRETCHES {
            let (_, channel) = recording.iter().find(|channel| channel.0 == name).unwrap();
            assert_eq!(
                channel[begin..begin + STRETCH],
                stretch,
                "{name}, entry {begin}"
            );
        }
    }

    #[test]
    fn sizes_and_pauses_are_distributed_as_in_the_recording() {
        // All but the link messages.
        let channels = recording().into_iter();
        let recorded: Vec<_> = channels
            .flat_map(|(_, all)| all.into_iter().skip(1))
            .collect();
        let played: Vec<_> = STRETCHES.iter().flat_map(|stretch| stretch.2).collect();
        for (direction, most) in [(Direction::Downlink, 6), (Direction::Uplink, 12)] {
            let (one, other) = (bytes(&played, direction), bytes(&recorded, direction));
            let distance = distance(&one, &other);
            assert!(distance <= most, "{direction:?}: {distance} %");
            assert!(means_differ(&one, &other) <= most, "{direction:?}");
            let share = |some: &[u64], all: &[Recorded]| 100 * some.len() / all.len();
            let difference = share(&one, &played).abs_diff(share(&other, &recorded));
            assert!(
                difference <= 2,
                "{direction:?}: {difference} % of the messages"
            );
        }
        let pauses = |messages: &[Recorded]| -> Vec<u64> {
            messages.iter().map(|message| message.pause).collect()
        };
        let (one, other) = (pauses(&played), pauses(&recorded));
        let distance = distance(&one, &other);
        assert!(distance <= 6, "{distance} %");
        assert!(means_differ(&one, &other) <= 6);
    }

    #[test]
    fn the_shortest_turn_carries_each_message_once_and_longer_ones_go_on() {
        let time = shortest_turn() + Duration::from_micros(1);
        let turn = within(time);
        assert_eq!(turn, within(time));
        assert_eq!(turn.len(), 32);
        let bytes = |turn: &[Vec<Message>]| -> usize {
            turn.iter().flatten().map(|message| message.bytes).sum()
        };
        let all: usize = recorded().map(|recorded| recorded.bytes).sum();
        assert!(
            (all..all + all / 4).contains(&bytes(&turn)),
            "{}",
            bytes(&turn)
        );
        let turn = within(3 * period());
        for channel in &turn {
            // One may be due just before the begin, or at the end.
            assert!(channel.len().abs_diff(3 * recorded().count()) <= 1);
            assert!(channel.is_sorted_by_key(|message| message.due));
        }
    }
}
