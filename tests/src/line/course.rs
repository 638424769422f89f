//! What becomes of each packet in one direction of a line; without sockets and threads.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use super::Quality;
use super::quality::{JITTER_PERIOD, LONGEST_ROW};
use crate::rng::Rng;

/// What became of the packets of one direction so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Packets that arrived, copies included.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Packets that were lost on the way, or while the line was dead.
    pub lost: u64,
    /// Packets that found no room in the queue.
    pub overflowed: u64,
    /// Packets that came twice.
    pub doubled: u64,
    /// Packets that were held up.
    pub held: u64,
    /// The most bytes that waited.
    pub most_queued: u64,
    /// Packets that arrived more than [`LATE`] later than they should have: the machine was too
    /// busy to play the line.
    pub late: u64,
    /// By how much one did, at worst.
    pub latest: Duration,
}

/// What a packet may be late by without being counted.
pub const LATE: Duration = Duration::from_millis(2);

/// One direction of a line, and the packets on it.
#[derive(Debug)]
pub(super) struct Course {
    pub(super) quality: Quality,
    /// Nothing arrives.
    pub(super) is_dead: bool,
    pub(super) stats: Stats,
    rng: Rng,
    /// When the packets before have been sent.
    free: Instant,
    /// Packets are being lost in a row.
    is_losing: bool,
    /// When the last packet was sent.
    last: Instant,
    /// What jitter adds, and until when.
    jitter: (Duration, Instant),
    /// When the last one arrives of those that are not held up.
    in_order: Instant,
    packets: BinaryHeap<Reverse<Packet>>,
    accepted: u64,
}

/// A packet on its way.
#[derive(Debug)]
struct Packet {
    due: Instant,
    number: u64,
    bytes: Vec<u8>,
}

impl Course {
    /// A line without packets; `seed` decides which are lost, doubled and held up.
    pub(super) fn new(quality: Quality, seed: u64) -> Self {
        let now = Instant::now();
        Self {
            quality,
            is_dead: false,
            stats: Stats::default(),
            rng: Rng::new(seed),
            free: now,
            is_losing: false,
            last: now,
            jitter: (Duration::ZERO, now),
            in_order: now,
            packets: BinaryHeap::new(),
            accepted: 0,
        }
    }

    /// Takes a packet that was sent now.
    pub(super) fn accept(&mut self, bytes: &[u8], now: Instant) {
        if self.is_dead || self.is_lost(now) {
            self.stats.lost += 1;
            return;
        }
        self.put(bytes, now);
        if self.rng.share() < self.quality.duplication {
            self.stats.doubled += 1;
            self.put(bytes, now);
        }
    }

    /// When the next packet arrives.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.packets.peek().map(|packet| packet.0.due)
    }

    /// A packet that has arrived.
    pub(super) fn take(&mut self, now: Instant) -> Option<Vec<u8>> {
        loop {
            if self.next_due()? > now {
                return None;
            }
            let Reverse(packet) = self.packets.pop()?;
            if self.is_dead {
                self.stats.lost += 1;
                continue;
            }
            self.stats.packets += 1;
            self.stats.bytes += packet.bytes.len() as u64;
            let lateness = now - packet.due;
            self.stats.late += u64::from(lateness > LATE);
            self.stats.latest = self.stats.latest.max(lateness);
            return Some(packet.bytes);
        }
    }

    fn is_lost(&mut self, now: Instant) -> bool {
        let pause = now - std::mem::replace(&mut self.last, now);
        let Quality { loss, burst, .. } = self.quality;
        if burst <= 1.0 {
            return self.rng.share() < loss;
        }
        // Gilbert's model: rows of losses end with this chance, and begin so often that the share
        // is right.
        let end = 1.0 / burst;
        let begin = loss * end / (1.0 - loss).max(end);
        // What disturbs a line is over at some time also if nobody sends.
        self.is_losing &= pause < LONGEST_ROW;
        let turn = if self.is_losing { end } else { begin };
        if self.rng.share() < turn {
            self.is_losing = !self.is_losing;
        }
        self.is_losing
    }

    fn put(&mut self, bytes: &[u8], now: Instant) {
        let Some(sent) = self.send(bytes.len() as u64, now) else {
            self.stats.overflowed += 1;
            return;
        };
        let mut due = sent + self.quality.delay + self.jitter(now);
        if self.rng.share() < self.quality.reordering {
            self.stats.held += 1;
            due += self.quality.hold.mul_f64(self.rng.share());
        } else {
            due = due.max(self.in_order);
            self.in_order = due;
        }
        self.accepted += 1;
        self.packets.push(Reverse(Packet {
            due,
            number: self.accepted,
            bytes: bytes.to_vec(),
        }));
    }

    /// When a packet of this length has left the queue; `None` when there is no room in it.
    fn send(&mut self, length: u64, now: Instant) -> Option<Instant> {
        let Some(rate) = self.quality.rate else {
            return Some(now);
        };
        let begin = self.free.max(now);
        let waiting = bytes_in(begin - now, rate);
        if waiting + length > self.quality.queue {
            return None;
        }
        self.stats.most_queued = self.stats.most_queued.max(waiting + length);
        self.free = begin + time_for(length, rate);
        Some(self.free)
    }

    fn jitter(&mut self, now: Instant) -> Duration {
        if now >= self.jitter.1 {
            let extra = self.quality.jitter.mul_f64(self.rng.share());
            self.jitter = (extra, now + JITTER_PERIOD);
        }
        self.jitter.0
    }
}

/// How many bytes are sent in this time at so many bits per second.
fn bytes_in(time: Duration, rate: u64) -> u64 {
    let bits = time.as_nanos() * u128::from(rate) / 1_000_000_000;
    u64::try_from(bits / 8).unwrap_or(u64::MAX)
}

/// How long it takes to send these bytes at so many bits per second.
fn time_for(bytes: u64, rate: u64) -> Duration {
    let nanos = u128::from(bytes) * 8 * 1_000_000_000 / u128::from(rate.max(1));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

impl Ord for Packet {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.due, self.number).cmp(&(other.due, other.number))
    }
}

impl PartialOrd for Packet {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Packet {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Packet {}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTH: usize = 1250;
    const MILLISECOND: Duration = Duration::from_millis(1);

    /// Sends numbered packets, so many milliseconds apart, and tells which arrive and after how
    /// many milliseconds since the first was sent.
    fn sent(course: &mut Course, count: u32, apart: u32) -> Vec<(u32, u128)> {
        let start = Instant::now();
        for number in 0..count {
            let mut packet = number.to_ne_bytes().to_vec();
            packet.resize(LENGTH, 0);
            course.accept(&packet, start + MILLISECOND * apart * number);
        }
        let mut arrived = Vec::new();
        while let Some(due) = course.next_due() {
            let packet = course.take(due).unwrap();
            let number = u32::from_ne_bytes(*packet.first_chunk().unwrap());
            arrived.push((number, (due - start).as_millis()));
        }
        arrived
    }

    fn course(quality: Quality) -> Course {
        Course::new(quality, 7)
    }

    #[test]
    fn packets_take_their_time_one_after_the_other() {
        // One packet takes 10 ms.
        let mut course = course(Quality::new(MILLISECOND * 80, 1_000_000));
        assert_eq!(sent(&mut course, 3, 0), [(0, 50), (1, 60), (2, 70)]);
    }

    #[test]
    fn what_finds_no_room_in_the_queue_is_lost() {
        let quality = Quality {
            queue: 3 * LENGTH as u64,
            ..Quality::new(MILLISECOND, 1_000_000)
        };
        let mut course = course(quality);
        let arrived = sent(&mut course, 10, 0);
        assert_eq!(
            arrived.iter().map(|one| one.0).collect::<Vec<_>>(),
            [0, 1, 2]
        );
        assert_eq!((course.stats.overflowed, course.stats.packets), (7, 3));
        assert_eq!(course.stats.most_queued, quality.queue);
    }

    #[test]
    fn losses_have_their_share_alone_and_in_rows() {
        for (burst, tenths) in [(1.0, 9..13), (5.0, 45..56)] {
            let mut course = course(Quality::default().losing(0.05, burst));
            let arrived = sent(&mut course, 100_000, 0);
            let lost = 100_000 - arrived.len();
            assert!((4_000..6_000).contains(&lost), "{lost} lost");
            let gaps = arrived.windows(2).filter(|pair| pair[1].0 > pair[0].0 + 1);
            let row = lost * 10 / gaps.count();
            assert!(tenths.contains(&row), "rows of {row} tenths of a packet");
        }
    }

    #[test]
    fn a_row_of_losses_does_not_outlast_a_pause() {
        let mut course = course(Quality::default().losing(0.5, 1e9));
        let now = Instant::now();
        course.is_losing = true;
        course.accept(&[0; LENGTH], now);
        course.accept(&[0; LENGTH], now + LONGEST_ROW);
        assert_eq!((course.stats.lost, course.is_losing), (1, false));
    }

    #[test]
    fn a_perfect_line_loses_nothing() {
        let arrived = sent(&mut course(Quality::default()), 1_000, 0);
        assert!(arrived.iter().map(|one| one.0).eq(0..1_000));
    }

    #[test]
    fn copies_come_and_order_changes_where_it_shall() {
        let mut doubling = course(Quality::default().doubling(0.1));
        let arrived = sent(&mut doubling, 10_000, 0);
        assert_eq!(arrived.len() as u64, 10_000 + doubling.stats.doubled);
        assert!((800..1_200).contains(&doubling.stats.doubled));
        assert!(arrived.is_sorted());

        let mut mixing = course(Quality::default().reordering(0.1, MILLISECOND * 20));
        let arrived = sent(&mut mixing, 10_000, 1);
        assert_eq!(arrived.len(), 10_000);
        assert!(!arrived.iter().map(|one| one.0).is_sorted());
    }

    #[test]
    fn jitter_delays_but_keeps_the_order() {
        let mut course = course(Quality::default().varying(MILLISECOND * 30));
        let arrived = sent(&mut course, 1_000, 1);
        assert!(arrived.iter().map(|one| one.0).eq(0..1_000));
        let late = |one: &(u32, u128)| one.1 - u128::from(one.0);
        assert!(arrived.iter().map(late).max() > Some(20));
        assert!(arrived.iter().map(late).min() < Some(10));
    }

    #[test]
    fn a_dead_line_loses_what_is_sent_and_what_is_on_the_way() {
        let mut course = course(Quality::new(MILLISECOND * 80, 1_000_000));
        let now = Instant::now();
        course.accept(&[0; LENGTH], now);
        course.is_dead = true;
        course.accept(&[0; LENGTH], now);
        assert_eq!(course.take(now + MILLISECOND * 100), None);
        course.is_dead = false;
        assert_eq!((course.next_due(), course.stats.lost), (None, 2));
    }
}
