//! The client's side of a show: how old what it sees is, and how long answers take.

use std::time::Duration;

use anyhow::Result;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use crate::client::Channel;
use crate::excerpt::End;
use crate::host::BenchHost;
use crate::message::{HEADER, Header, input, now};
use crate::statistics::float;

/// Size of the host's messages, in bytes.
pub(super) const MESSAGE: u32 = 4_096;
/// How often the client sends an input.
const INPUT_INTERVAL: Duration = Duration::from_millis(250);

/// What a client saw from a certain time on.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Ages of the messages when they had arrived, in seconds.
    pub(super) ages: Vec<f64>,
    /// How many bytes the host had written by then and the client had not received.
    pub(super) queued: Vec<f64>,
    /// How long the answers to inputs took, in seconds.
    pub(super) answers: Vec<f64>,
    /// How many bytes came.
    pub(super) bytes: u64,
    /// In how many seconds.
    pub(super) seconds: f64,
}

impl Seen {
    /// Megabits per second.
    pub(super) fn rate(&self) -> f64 {
        float(self.bytes) * 8.0 / 1e6 / self.seconds.max(1e-9)
    }
}

/// Watches a show for this long and looks closely only after the warm-up; then the channel is
/// ended.
pub(super) async fn watch(
    mut channel: Channel,
    host: &BenchHost,
    key: u64,
    warm_up: Duration,
    time: Duration,
) -> Result<Seen> {
    channel.begin_show(MESSAGE, key).await?;
    let begin = Instant::now() + warm_up;
    let mut viewer = Viewer::default();
    let mut inputs = interval(INPUT_INTERVAL);
    inputs.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut end = std::pin::pin!(sleep_until(begin + time));
    loop {
        tokio::select! {
            () = &mut end => break,
            _ = inputs.tick() => {
                let number = viewer.next_input(now());
                channel.send(&input(number)).await?;
            }
            received = channel.receive(|bytes| viewer.take(bytes, now())) => {
                received?;
                if Instant::now() < begin {
                    viewer.forget();
                } else {
                    viewer.compare(host.shown(key));
                }
            }
        }
    }
    let mut seen = viewer.finish();
    seen.seconds = begin.elapsed().as_secs_f64();
    channel.reset()?;
    Ok(seen)
}

#[derive(Default)]
struct Viewer {
    seen: Seen,
    /// How many bytes have come in all.
    at: u64,
    header: [u8; HEADER],
    /// The inputs that are not answered yet: number and time.
    inputs: Vec<(u64, u64)>,
    last_input: u64,
}

impl Viewer {
    /// The number of an input that is sent now.
    fn next_input(&mut self, time: u64) -> u64 {
        self.last_input += 1;
        self.inputs.push((self.last_input, time));
        self.last_input
    }

    /// Takes what has come.
    fn take(&mut self, mut bytes: &[u8], time: u64) -> Result<()> {
        while !bytes.is_empty() {
            let place = usize::try_from(self.at % u64::from(MESSAGE))?;
            let end = if place < HEADER {
                HEADER
            } else {
                MESSAGE as usize
            };
            let (piece, rest) = bytes.split_at(bytes.len().min(end - place));
            if place < HEADER {
                self.header[place..place + piece.len()].copy_from_slice(piece);
            }
            self.at += piece.len() as u64;
            self.seen.bytes += piece.len() as u64;
            bytes = rest;
            if self.at.is_multiple_of(u64::from(MESSAGE)) {
                let header = Header::decode(self.header, self.at - u64::from(MESSAGE))?;
                self.arrived(&header, time);
            }
        }
        Ok(())
    }

    fn arrived(&mut self, header: &Header, time: u64) {
        self.seen.ages.push(seconds(header.written, time));
        let (answers, inputs) = (&mut self.seen.answers, &mut self.inputs);
        inputs.retain(|(number, sent)| {
            let is_open = *number > header.answered;
            if !is_open {
                answers.push(seconds(*sent, time));
            }
            is_open
        });
    }

    /// Looks at how far the host is ahead.
    fn compare(&mut self, shown: u64) {
        self.seen.queued.push(float(shown.saturating_sub(self.at)));
    }

    /// Leaves out what was seen so far.
    fn forget(&mut self) {
        self.seen = Seen::default();
    }

    /// What was seen. Inputs that are still not answered count with the time that has passed.
    fn finish(mut self) -> Seen {
        let time = now();
        let open = self.inputs.iter().map(|(_, sent)| seconds(*sent, time));
        // A line may owe the last ones no more than the usual.
        let usual = self.seen.answers.iter().copied().fold(0.0, f64::max);
        self.seen.answers.extend(open.filter(|time| *time > usual));
        for values in [
            &mut self.seen.ages,
            &mut self.seen.queued,
            &mut self.seen.answers,
        ] {
            values.sort_by(f64::total_cmp);
        }
        self.seen
    }
}

fn seconds(from: u64, to: u64) -> f64 {
    float(to.saturating_sub(from)) / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLISECOND: u64 = 1_000_000;

    fn message(offset: u64, written: u64, answered: u64) -> Vec<u8> {
        let header = Header {
            offset,
            written,
            answered,
        };
        let mut bytes = header.encode().to_vec();
        bytes.resize(MESSAGE as usize, 0xaa);
        bytes
    }

    #[test]
    fn ages_and_answers_are_those_of_whole_messages() {
        let mut viewer = Viewer::default();
        assert_eq!(viewer.next_input(10 * MILLISECOND), 1);
        assert_eq!(viewer.next_input(20 * MILLISECOND), 2);
        let size = u64::from(MESSAGE);
        let stream = [message(0, 5 * MILLISECOND, 0), message(size, 0, 1)].concat();
        let (first, rest) = stream.split_at(MESSAGE as usize + 7);
        for piece in first.chunks(1000) {
            viewer.take(piece, 40 * MILLISECOND).unwrap();
        }
        assert_eq!(viewer.seen.ages, [0.035]);
        viewer.take(rest, 110 * MILLISECOND).unwrap();
        viewer.compare(10 * size);
        assert_eq!(viewer.seen.ages, [0.035, 0.11]);
        assert_eq!(viewer.seen.answers, [0.1]);
        assert_eq!(viewer.seen.queued, [float(8 * size)]);
        assert_eq!(viewer.inputs.len(), 1);
    }

    #[test]
    fn lost_bytes_are_noticed() {
        let mut viewer = Viewer::default();
        let stream = message(0, 0, 0);
        assert!(viewer.take(&stream[1..], 0).is_ok());
        assert!(viewer.take(&message(4096, 0, 0), 0).is_err());
    }
}
