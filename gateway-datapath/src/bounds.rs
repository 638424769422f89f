//! How much of a channel's downlink may wait on its way.
//!
//! What waits is time: a person's input is answered behind everything that the host wrote before.
//! A kernel left to itself keeps megabytes, in the host's send buffer, before the process and
//! behind it, because it does not know that they go on over a slower line. So what may wait
//! follows the rate at which the client takes it: the receive buffer of the host's socket, by
//! which the host's own send buffer is bound as well, and what the client's socket takes beyond
//! what is on the line (`TCP_NOTSENT_LOWAT`). A fast client's channel waits no less than it would.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use socket2::SockRef;
use tokio::time::Instant;

use super::{sockopt, tcp_info};

/// What a host may have under way to a client that takes little, in bytes; the least with which a
/// connection of segments of 1,460 bytes runs evenly.
const LEAST_RECEIVE: usize = 24 * 1024;
/// What waits behind the process for a client that takes little, in bytes.
const LEAST_UNSENT: usize = 16 * 1024;
/// What waits on `sockmap` for a client that takes little, in bytes: the longest datagram that an
/// injector is sent.
const LEAST_QUEUE: usize = 16 * 1024;
/// What waits there while it is not known yet how much its client takes, in bytes: a segment of
/// 64 KiB. A shorter queue would send most of what hosts say at once through the process.
pub(super) const FIRST_QUEUE: usize = 64 * 1024;
/// The most that is set: what every system allows (`net.core.rmem_max` before Linux 6.18, in
/// bytes). Beyond it the kernel finds the size by itself.
const MOST_RECEIVE: usize = 212_992;
/// How long the process may be busy with something else while a host writes.
const ELSEWHERE: Duration = Duration::from_millis(1);
/// How long the kernel's worker may leave a socket alone that takes no more: two ticks of its
/// clock, of 4 ms on most systems.
const TICKS: Duration = Duration::from_millis(8);
/// Bytes from which on a rate says something.
const SAMPLE: usize = 32 * 1024;
/// Time in which a rate is seen: longer than the bursts in which lines and processes work.
pub(super) const LOOK: Duration = Duration::from_millis(20);
/// Longest time over which a low one is seen: there may be a pause of the host in it.
const FORGET: Duration = Duration::from_millis(500);

/// How much more a client is thought to take than it took without being held up.
const SPARE: u128 = 4;

/// Round trip to a host that a window as small as the least does not hold back.
const NEAR: Duration = Duration::from_millis(1);

/// Whether a host is so near that the least suits whatever the client takes.
pub(super) fn is_near(host: impl AsFd) -> bool {
    tcp_info::round_trip(host).is_ok_and(|time| time <= NEAR)
}

/// What a channel's legs are read from and written to: host, client. A host that is no TCP
/// connection has none: what its system keeps waiting is its own affair.
type Sockets<'a> = Option<(Option<BorrowedFd<'a>>, BorrowedFd<'a>)>;

/// Follows the rate of one channel's downlink, and bounds what waits of it.
#[derive(Debug)]
pub(super) struct Bounds {
    /// Bytes that were moved since `since`.
    moved: usize,
    since: Option<Instant>,
    /// The client took less than there was since then: so what it took says what it can take.
    held_up: bool,
    /// How long whoever moves the bytes may be away.
    away: Duration,
    /// What is set now.
    set: Bound,
}

/// What may wait, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bound {
    /// In the receive buffer of the host's socket, as `SO_RCVBUF` counts.
    receive: usize,
    /// Unsent in the client's socket.
    unsent: usize,
    /// On `sockmap`, before the bridge and as much behind it.
    queue: usize,
}

impl Bounds {
    const fn new(away: Duration, set: Bound) -> Self {
        Self {
            moved: 0,
            since: None,
            held_up: false,
            away,
            set,
        }
    }

    /// Of a channel that the kernel moves. Whatever its sockets have, they get what is found once the
    /// client takes less than comes: the process does not hear of one that takes all.
    pub(super) const fn in_kernel() -> Self {
        Self::new(TICKS, Bound::FREE)
    }

    /// Of a channel that begins to move; its host should not have been asked for much yet.
    pub(super) fn begin(sockets: Sockets<'_>) -> Self {
        let bounds = Self::new(ELSEWHERE, Bound::LEAST);
        if let Some((host, client)) = sockets {
            bounds.set.set(Bound::LEAST, host, client);
        }
        bounds
    }

    /// The client takes no more for now.
    pub(super) fn on_held_up(&mut self) {
        self.held_up = true;
    }

    /// Whether the time has come to look at what was moved.
    pub(super) fn is_due(&self) -> bool {
        self.since.is_none_or(|since| since.elapsed() >= LOOK)
    }

    /// After `len` bytes were moved; returns how much may wait on `sockmap`, where that changes.
    ///
    /// The clock is read only when it matters.
    pub(super) fn on_moved(&mut self, len: usize, sockets: Sockets<'_>) -> Option<usize> {
        self.moved = self.moved.saturating_add(len);
        if self.moved < SAMPLE {
            return None;
        }
        let (host, client) = sockets?;
        let round_trip = || {
            let time = host.and_then(|host| tcp_info::round_trip(host).ok());
            time.unwrap_or_default()
        };
        let before = self.set;
        let bound = self.sample(Instant::now(), round_trip)?;
        bound.set(before, host, client);
        Some(bound.queue)
    }

    /// What is to be set now, where it changes.
    fn sample(&mut self, now: Instant, round_trip: impl Fn() -> Duration) -> Option<Bound> {
        let elapsed = self.since.map(|since| now - since);
        if elapsed.is_some_and(|elapsed| elapsed < LOOK) {
            return None;
        }
        let moved = std::mem::take(&mut self.moved);
        let held_up = std::mem::take(&mut self.held_up);
        self.since = Some(now);
        let elapsed = elapsed?;
        let took = moved as u128 * 1_000_000 / elapsed.as_micros();
        // On a busy machine the process reads late, so that what the host may have under way is
        // what holds up the channel: a rate that follows from it would never grow. While the
        // client takes all that comes, nothing waits for it.
        let rate = if held_up { took } else { SPARE * took };
        let rate = usize::try_from(rate).unwrap_or(usize::MAX);
        let bound = Bound::of(rate, round_trip(), self.away);
        // A host that says little says nothing of what its client could take; a client has taken
        // at least what it took.
        let is_known = (held_up && elapsed <= FORGET) || bound.receive > self.set.receive;
        if !is_known || !bound.is_far_from(self.set) {
            return None;
        }
        self.set = bound;
        Some(bound)
    }
}

impl Bound {
    const LEAST: Self = Self {
        receive: LEAST_RECEIVE,
        unsent: LEAST_UNSENT,
        queue: LEAST_QUEUE,
    };

    /// Of sockets that are as the kernel makes them.
    const FREE: Self = Self {
        receive: usize::MAX,
        unsent: usize::MAX,
        queue: FIRST_QUEUE,
    };

    /// For a client that takes `rate` bytes a second of a host that far away, moved by one who may
    /// be away for so long.
    fn of(rate: usize, round_trip: Duration, away: Duration) -> Self {
        let in_time = |time: Duration| {
            let bytes = rate as u128 * time.as_micros() / 1_000_000;
            usize::try_from(bytes).unwrap_or(usize::MAX)
        };
        Self {
            // Twice what is on its way, so that a client that could take more is found out.
            receive: LEAST_RECEIVE.saturating_add(in_time(2 * (round_trip + ELSEWHERE))),
            unsent: LEAST_UNSENT.saturating_add(in_time(away)),
            // Twice what is taken meanwhile: a queue that is too short for its client shows by a
            // rate that fills half of the next one.
            queue: LEAST_QUEUE.saturating_add(in_time(2 * TICKS)),
        }
    }

    /// Whether it is worth some calls of the system to go on from `other` to this.
    fn is_far_from(self, other: Self) -> bool {
        let differ = |one: usize, other: usize| {
            let (less, more) = (one.min(other), one.max(other));
            more > less.saturating_add(less / 2)
        };
        differ(self.receive, other.receive)
            || differ(self.unsent, other.unsent)
            || differ(self.queue, other.queue)
    }

    /// Whether the kernel finds the size of the receive buffer.
    fn is_free(self) -> bool {
        self.receive > MOST_RECEIVE
    }

    /// `before` is what was set until now.
    fn set(self, before: Self, host: Option<BorrowedFd<'_>>, client: BorrowedFd<'_>) {
        // A system that refuses one of these keeps what it has: bytes move as well.
        if let Some(host) = host
            && !(self.is_free() && before.is_free())
        {
            let receive = self.receive.min(MOST_RECEIVE);
            let _ = SockRef::from(&host).set_recv_buffer_size(receive);
            // The kernel doubles the size that it is given.
            let _ = sockopt::set_window_clamp(&host, 2 * receive);
            if self.is_free() {
                let _ = sockopt::free_buffers(&host);
            }
        }
        let unsent = u32::try_from(self.unsent).unwrap_or(u32::MAX);
        let _ = SockRef::from(&client).set_tcp_notsent_lowat(unsent);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEAR: Duration = Duration::from_micros(100);
    const FAR: Duration = Duration::from_millis(20);

    /// Moves `rate` bytes a second for so long, in steps of a millisecond, to a client that could
    /// not take more.
    fn run(bounds: &mut Bounds, now: &mut Instant, rate: usize, time: Duration, host: Duration) {
        for _ in 0..time.as_millis() {
            *now += Duration::from_millis(1);
            bounds.moved += rate / 1_000;
            bounds.on_held_up();
            if bounds.moved >= SAMPLE {
                bounds.sample(*now, || host);
            }
        }
    }

    #[test]
    fn what_waits_for_a_slow_client_is_little() {
        let (mut bounds, mut now) = (Bounds::begin(None), Instant::now());
        // 5 to 50 Mbit/s.
        for rate in [625_000, 1_250_000, 6_250_000] {
            run(&mut bounds, &mut now, rate, Duration::from_secs(2), NEAR);
            let Bound {
                receive, unsent, ..
            } = bounds.set;
            assert!(receive < 48 * 1024 && unsent < 32 * 1024, "{bounds:?}");
        }
    }

    #[test]
    fn a_fast_client_is_not_held_up_and_a_slow_one_behind_it_is_bounded_again() {
        let (mut bounds, mut now) = (Bounds::begin(None), Instant::now());
        run(
            &mut bounds,
            &mut now,
            1_000_000_000,
            Duration::from_millis(50),
            NEAR,
        );
        assert!(bounds.set.receive > MOST_RECEIVE, "{bounds:?}");
        assert!(bounds.set.unsent > 900_000, "{bounds:?}");
        run(
            &mut bounds,
            &mut now,
            1_250_000,
            Duration::from_millis(200),
            NEAR,
        );
        assert!(bounds.set.receive < 48 * 1024, "{bounds:?}");
    }

    #[test]
    fn a_host_that_is_far_away_may_have_twice_as_much_under_way_as_is_taken() {
        let (mut bounds, mut now) = (Bounds::begin(None), Instant::now());
        let rate = 4_000_000;
        run(&mut bounds, &mut now, rate, Duration::from_millis(100), FAR);
        assert!(bounds.set.receive >= 2 * rate / 50, "{bounds:?}");
    }

    #[test]
    fn a_host_half_the_world_away_gets_what_its_client_takes() {
        let (mut bounds, mut now) = (Bounds::begin(None), Instant::now());
        let satellite = Duration::from_millis(600);
        bounds.sample(now, || satellite);
        now += satellite;
        bounds.moved += SAMPLE;
        bounds.sample(now, || satellite);
        assert!(bounds.set.receive > 2 * LEAST_RECEIVE, "{bounds:?}");
    }

    #[test]
    fn a_process_that_reads_late_holds_up_no_fast_client() {
        let late = Duration::from_millis(5);
        let (mut bounds, mut now) = (Bounds::begin(None), Instant::now());
        for _ in 0..200 {
            now += late;
            bounds.moved += bounds.set.receive;
            if bounds.moved >= SAMPLE {
                bounds.sample(now, || NEAR);
            }
        }
        assert!(bounds.set.is_free(), "{bounds:?}");
    }

    #[test]
    fn a_host_that_says_little_leaves_a_fast_client_what_it_has() {
        let (mut bounds, mut now) = (Bounds::begin(None), Instant::now());
        let fast = 100_000_000;
        run(&mut bounds, &mut now, fast, Duration::from_millis(50), NEAR);
        let before = bounds.set;
        bounds.held_up = false;
        for _ in 0..10 {
            now += Duration::from_millis(100);
            bounds.moved += SAMPLE;
            assert_eq!(bounds.sample(now, || NEAR), None);
        }
        assert_eq!(bounds.set, before);
    }

    #[test]
    fn a_pause_of_the_host_says_nothing_of_the_client() {
        let (mut bounds, mut now) = (Bounds::begin(None), Instant::now());
        let fast = 100_000_000;
        run(&mut bounds, &mut now, fast, Duration::from_millis(50), NEAR);
        let before = bounds.set;
        assert_ne!(before, Bound::LEAST);
        now += Duration::from_secs(10);
        bounds.moved += SAMPLE;
        assert_eq!(bounds.sample(now, || NEAR), None);
        assert_eq!(bounds.set, before);
    }

    #[test]
    fn a_channel_that_the_kernel_moves_is_bounded_once_its_client_is_slow() {
        let (mut bounds, mut now) = (Bounds::in_kernel(), Instant::now());
        assert!(bounds.set.is_free());
        let rate = 1_250_000;
        run(
            &mut bounds,
            &mut now,
            rate,
            Duration::from_millis(300),
            NEAR,
        );
        let Bound {
            receive,
            unsent,
            queue,
        } = bounds.set;
        assert!(receive < 48 * 1024 && unsent < 32 * 1024, "{bounds:?}");
        // A line that is left alone for two ticks does not run dry.
        let taken = rate * 8 / 1_000;
        assert!(unsent > taken && queue > taken, "{bounds:?}");
        assert!(queue < 48 * 1024, "{bounds:?}");
    }

    #[test]
    fn a_queue_that_is_too_short_for_its_client_grows() {
        let (mut bounds, mut now) = (Bounds::in_kernel(), Instant::now());
        let wanted = 25_000_000;
        for _ in 0..500 {
            now += Duration::from_millis(4);
            // The worker finds a full queue once in two ticks.
            bounds.moved += (bounds.set.queue / 2).min(wanted / 250);
            bounds.on_held_up();
            if bounds.moved >= SAMPLE {
                bounds.sample(now, || NEAR);
            }
        }
        assert!(bounds.set.queue >= wanted / 250 * 2, "{bounds:?}");
    }

    #[test]
    fn sockets_get_what_is_set_and_are_freed_again() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let near = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (far, _) = listener.accept().unwrap();
        let (host, client) = (near.as_fd(), far.as_fd());
        Bounds::begin(Some((Some(host), client)));
        // The kernel doubles it, for its own structures.
        let receive = SockRef::from(&host).recv_buffer_size().unwrap();
        assert_eq!(receive, 2 * LEAST_RECEIVE);
        let unsent = SockRef::from(&client).tcp_notsent_lowat().unwrap();
        assert_eq!(unsent as usize, LEAST_UNSENT);
        let fast = Bound::of(1_000_000_000, NEAR, ELSEWHERE);
        fast.set(Bound::LEAST, Some(host), client);
        let receive = SockRef::from(&host).recv_buffer_size().unwrap();
        assert!(receive >= MOST_RECEIVE, "{receive}");
    }
}
