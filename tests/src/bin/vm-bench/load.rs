//! What is sent over a channel, and when.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use testkit::replay::{Direction, Recording};
use testkit::spice::ChannelType;

use super::client::Client;

const KIB: usize = 1024;
/// Between messages that are not sent as fast as they can be.
const PAUSE: Duration = Duration::from_millis(1);
/// Messages of a burst, and the time between two bursts.
const BURST: u32 = 10;
const BURST_PAUSE: Duration = Duration::from_millis(2);
/// What is played of the recording's display channel: a scrolling terminal and an animation,
/// each so many seconds since its start and one second long.
const WINDOWS: [u64; 2] = [12, 30];
/// Messages of a longer run for each of the shorter one.
const LONGER: usize = 5;
/// Longest message, in bytes.
const LONGEST: usize = 256 * KIB;

/// All loads.
pub(crate) const LOADS: [Load; 11] = [
    Load::new("down 64 KiB", Kind::Down, 64 * KIB, 128),
    Load::new("down 16 KiB", Kind::Down, 16 * KIB, 256),
    Load::new("down 1 KiB, ten in 2 ms", Kind::Bursts, KIB, 400),
    Load::new("down 64 B, one in 1 ms", Kind::PacedDown, 64, 100),
    Load::new("down 1 KiB, one in 1 ms", Kind::PacedDown, KIB, 100),
    Load::new("down 4 KiB, one in 1 ms", Kind::PacedDown, 4 * KIB, 100),
    Load::new("down 16 KiB, one in 1 ms", Kind::PacedDown, 16 * KIB, 100),
    Load::new("up 64 B, one in 1 ms", Kind::PacedUp, 64, 100),
    Load::new("up 16 KiB, one in 1 ms", Kind::PacedUp, 16 * KIB, 50),
    Load::new("round trip 64 B", Kind::Echo, 64, 250),
    Load::new("recorded display", Kind::Replay, 0, 0),
];

/// One class of traffic.
#[derive(Clone, Copy)]
pub(crate) struct Load {
    /// What it is called in the table.
    pub(crate) name: &'static str,
    kind: Kind,
    /// Of a message, in bytes.
    size: usize,
    /// Messages of the shorter run; the longer one has [`LONGER`] times as many.
    messages: usize,
}

#[derive(Clone, Copy)]
enum Kind {
    Down,
    Bursts,
    PacedDown,
    PacedUp,
    Echo,
    Replay,
}

/// Messages with the times at which they are sent, from the start on.
type Schedule = Vec<(Duration, usize)>;

/// What both ends of one channel do.
pub(crate) struct Script {
    up: Schedule,
    down: Schedule,
    /// The host sends back what comes, and the client waits for it.
    is_echo: bool,
}

impl Load {
    const fn new(name: &'static str, kind: Kind, size: usize, messages: usize) -> Self {
        Self {
            name,
            kind,
            size,
            messages,
        }
    }

    /// The script of the shorter run, or of the longer one. What both have in common is no part of
    /// the difference between them. The recording has nothing shorter but its absence.
    pub(crate) fn script(&self, is_long: bool) -> Result<Script> {
        let count = self.messages * if is_long { LONGER } else { 1 };
        let at_once = || vec![(Duration::ZERO, self.size); count];
        let paced = || {
            let times = std::iter::successors(Some(PAUSE), |at| Some(*at + PAUSE));
            times.take(count).map(|at| (at, self.size)).collect()
        };
        let (up, down) = match self.kind {
            Kind::Down => (Vec::new(), at_once()),
            Kind::Bursts => {
                let at = |index| BURST_PAUSE * (1 + index / BURST);
                let burst = (0..).take(count).map(|index| (at(index), self.size));
                (Vec::new(), burst.collect())
            }
            Kind::PacedDown => (Vec::new(), paced()),
            Kind::PacedUp => (paced(), Vec::new()),
            Kind::Echo => (at_once(), Vec::new()),
            Kind::Replay if is_long => recorded()?,
            Kind::Replay => (Vec::new(), Vec::new()),
        };
        Ok(Script {
            up,
            down,
            is_echo: matches!(self.kind, Kind::Echo),
        })
    }
}

/// Both directions of the recorded display channel.
fn recorded() -> Result<(Schedule, Schedule)> {
    let recording = Recording::load()?;
    let (mut up, mut down) = (Vec::new(), Vec::new());
    let mut at = Duration::ZERO;
    for entry in &recording.channel(ChannelType::Display)?.entries {
        at += entry.pause;
        let window = WINDOWS
            .iter()
            .zip(0..)
            .find(|(start, _)| at.as_secs() == **start);
        if let Some((_, before)) = window {
            // Windows follow each other without a gap.
            let at = Duration::new(before, at.subsec_nanos());
            match entry.direction {
                Direction::Uplink => up.push((at, entry.bytes)),
                Direction::Downlink => down.push((at, entry.bytes)),
            }
        }
    }
    Ok((up, down))
}

impl Script {
    /// How many messages there are in it, those that are sent back not counted.
    pub(crate) fn messages(&self) -> usize {
        self.up.len() + self.down.len()
    }

    /// How many bytes they have.
    pub(crate) fn bytes(&self) -> usize {
        let all = self.up.iter().chain(&self.down);
        all.map(|(_, size)| size).sum()
    }

    /// The client's messages as the wire carries them.
    pub(crate) fn prepare(&self, client: &mut Client) -> Result<Vec<Vec<u8>>> {
        let message = vec![b'm'; LONGEST];
        let sizes = self.up.iter().map(|(_, size)| *size);
        sizes.map(|size| client.prepare(&message[..size])).collect()
    }

    /// The client's part; ends with the stream.
    pub(crate) fn play_client(&self, client: &Client, wires: &[Vec<u8>]) -> Result<()> {
        if self.is_echo {
            for ((_, size), wire) in self.up.iter().zip(wires) {
                client.send_prepared(wire)?;
                client.await_answer(*size)?;
            }
            return client.discard_all();
        }
        thread::scope(|scope| {
            let sender = scope.spawn(|| {
                let begun = Instant::now();
                for ((at, _), wire) in self.up.iter().zip(wires) {
                    sleep_until(begun + *at);
                    client.send_prepared(wire)?;
                }
                anyhow::Ok(())
            });
            client.discard_all()?;
            match sender.join() {
                Ok(sent) => sent,
                Err(_) => bail!("the client's sender has panicked"),
            }
        })
    }

    /// The host's part; ends the stream when all has come that the client sends.
    pub(crate) fn play_host(&self, mut stream: &TcpStream) -> Result<()> {
        let message = vec![b'm'; LONGEST];
        let uplink: usize = self.up.iter().map(|(_, size)| size).sum();
        thread::scope(|scope| {
            let receiver = scope.spawn(move || {
                let mut space = vec![0; 64 * KIB];
                let mut received = 0;
                while received < uplink {
                    let length = (&*stream).read(&mut space).context("the host's receiver")?;
                    if length == 0 {
                        bail!("{received} of {uplink} bytes came to the host");
                    }
                    received += length;
                    if self.is_echo {
                        (&*stream).write_all(&space[..length])?;
                    }
                }
                Ok(())
            });
            let begun = Instant::now();
            for (at, size) in &self.down {
                if !at.is_zero() {
                    sleep_until(begun + *at);
                }
                stream
                    .write_all(&message[..*size])
                    .context("the host's sender")?;
            }
            match receiver.join() {
                Ok(received) => received?,
                Err(_) => bail!("the host's receiver has panicked"),
            }
            stream
                .shutdown(Shutdown::Write)
                .context("ending the stream")
        })
    }
}

fn sleep_until(due: Instant) {
    let left = due.saturating_duration_since(Instant::now());
    if !left.is_zero() {
        thread::sleep(left);
    }
}
