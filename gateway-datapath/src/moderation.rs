//! Fewer and larger reads while small messages come in quick succession.
//!
//! Each wake-up costs more than the bytes that it moves when those are few. As network cards
//! moderate their interrupts, a host that sends small messages fast is read only when some time's
//! worth of them has come: its socket's `SO_RCVLOWAT` is raised, and lowered again as soon as
//! nothing was read for [`PATIENCE`], which delays the end of a burst by as much, or as the
//! client says something: what follows may be the answer.

use std::time::Duration;

use tokio::time::Instant;

/// Reads by which the rate is judged.
const WINDOW: u32 = 8;
/// Longest window that counts as quick succession.
const QUICK: Duration = Duration::from_micros(800);
/// For how long bytes are to collect.
const COLLECT: Duration = Duration::from_micros(250);
/// Time without a read after which moderation ends.
const PATIENCE: Duration = Duration::from_millis(1);
/// Reads from which on little is to be gained, in bytes.
const LARGE: usize = 8 * 1024;
/// The most that is waited for, in bytes.
const MOST: usize = 32 * 1024;
/// What `SO_RCVLOWAT` is unless changed.
const UNMODERATED: usize = 1;

/// Watches the reads of one socket, and says when its low-water mark should change.
#[derive(Debug, Default)]
pub(super) struct Moderation {
    reads: u32,
    bytes: usize,
    /// When the first read of the window came.
    since: Option<Instant>,
    /// The mark that is set, and until when a read must come.
    active: Option<(usize, Instant)>,
}

impl Moderation {
    /// After a read of `len` bytes: the low-water mark to be set, in bytes, where it changes.
    ///
    /// The clock is read only when it matters.
    pub(super) fn on_read(&mut self, len: usize, now: impl Fn() -> Instant) -> Option<usize> {
        if self.active.is_none() && len >= LARGE {
            self.reads = 0;
            return None;
        }
        if let Some((_, until)) = &mut self.active {
            *until = now() + PATIENCE;
        }
        if self.reads == 0 {
            self.since = Some(now());
            self.bytes = 0;
        } else {
            self.bytes += len;
        }
        self.reads += 1;
        if self.reads <= WINDOW {
            return None;
        }
        self.reads = 0;
        let now = now();
        let elapsed = now - self.since?;
        let mark = mark(self.bytes, elapsed);
        let is_due = match self.active {
            None => elapsed <= QUICK,
            Some((set, _)) => mark > set * 2 || mark < set / 2,
        };
        is_due.then(|| {
            self.active = Some((mark, now + PATIENCE));
            mark
        })
    }

    /// After the client sent something: the low-water mark to be set, if moderation is over.
    pub(super) fn on_uplink(&mut self) -> Option<usize> {
        let was_active = self.active.is_some();
        *self = Self::default();
        was_active.then_some(UNMODERATED)
    }

    /// When [`Moderation::on_timer`] wants to be called.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.active.map(|(_, until)| until)
    }

    /// The low-water mark to be set now, if moderation is over.
    pub(super) fn on_timer(&mut self, now: Instant) -> Option<usize> {
        self.active.filter(|(_, until)| now >= *until)?;
        *self = Self::default();
        Some(UNMODERATED)
    }
}

/// What comes in [`COLLECT`] at this rate.
fn mark(bytes: usize, elapsed: Duration) -> usize {
    let micros = usize::try_from(elapsed.as_micros())
        .unwrap_or(usize::MAX)
        .max(1);
    let collect = usize::try_from(COLLECT.as_micros()).unwrap_or(usize::MAX);
    (bytes.saturating_mul(collect) / micros).clamp(UNMODERATED, MOST)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads of `len` bytes, `gap` apart, until a mark is set.
    fn first_mark(moderation: &mut Moderation, len: usize, gap: Duration) -> Option<usize> {
        let begin = Instant::now();
        (0..100).find_map(|read| moderation.on_read(len, || begin + gap * read))
    }

    #[test]
    fn quick_small_reads_are_moderated() {
        let mut moderation = Moderation::default();
        // 100 bytes in 10 us: 2,500 in 250 us.
        let mark = first_mark(&mut moderation, 100, Duration::from_micros(10));
        assert_eq!(mark, Some(2_500));
        let until = moderation.deadline().unwrap();
        assert_eq!(moderation.on_timer(until - Duration::from_micros(1)), None);
        assert_eq!(moderation.on_timer(until), Some(UNMODERATED));
        assert_eq!(moderation.deadline(), None);
    }

    #[test]
    fn slow_or_large_reads_are_not() {
        let mut moderation = Moderation::default();
        assert_eq!(
            first_mark(&mut moderation, 100, Duration::from_micros(200)),
            None
        );
        assert_eq!(
            first_mark(&mut moderation, LARGE, Duration::from_micros(1)),
            None
        );
        assert_eq!(moderation.deadline(), None);
    }

    #[test]
    fn the_mark_follows_the_rate_and_is_bounded() {
        let mut moderation = Moderation::default();
        first_mark(&mut moderation, 100, Duration::from_micros(10));
        let faster = first_mark(&mut moderation, 4_000, Duration::from_micros(10));
        assert_eq!(faster, Some(MOST));
        assert_eq!(
            first_mark(&mut moderation, 4_000, Duration::from_micros(10)),
            None
        );
    }

    #[test]
    fn conversations_are_not_moderated() {
        let mut moderation = Moderation::default();
        let now = Instant::now();
        for _ in 0..100 {
            assert_eq!(moderation.on_read(100, || now), None);
            assert_eq!(moderation.on_uplink(), None);
        }
        first_mark(&mut moderation, 100, Duration::from_micros(10));
        assert_eq!(moderation.on_uplink(), Some(UNMODERATED));
        assert_eq!(moderation.deadline(), None);
    }

    #[test]
    fn each_read_prolongs_it() {
        let mut moderation = Moderation::default();
        first_mark(&mut moderation, 100, Duration::from_micros(10));
        let later = moderation.deadline().unwrap() + PATIENCE;
        moderation.on_read(100, || later);
        assert_eq!(moderation.deadline(), Some(later + PATIENCE));
    }
}
