//! Whether a client's system still answers, and how the kernel is had to ask.
//!
//! A client that has vanished and one that merely does not read look alike to whoever writes to
//! them. To the kernel they do not: the system of the latter acknowledges the questions that are
//! put to its window, and those of keep-alive.

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};

use super::sockopt;
use super::tcp_info;

/// What the kernel knows of a peer's answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answers {
    /// Time since the peer's system sent anything.
    pub heard: Duration,
    /// Something was sent, if only a question, that it has not answered.
    pub is_awaited: bool,
    /// How often something was sent again, or asked, since the peer answered last.
    pub attempts: u32,
}

/// A client's socket, to be asked while it is open.
#[derive(Debug, Default)]
pub(super) struct AnswerLook(Mutex<Option<RawFd>>);

impl AnswerLook {
    /// Has this socket asked until the result is dropped, which must be before it is closed.
    pub(super) fn attach(&self, socket: &impl AsFd) -> Asked<'_> {
        *self.lock() = Some(socket.as_fd().as_raw_fd());
        Asked(self)
    }

    /// `None`: there is no socket, or its connection is gone.
    pub(super) fn now(&self) -> Option<Answers> {
        // Locked while the socket is asked, so that its number means nothing else meanwhile.
        let socket = self.lock();
        answers((*socket)?).ok()
    }

    fn lock(&self) -> MutexGuard<'_, Option<RawFd>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// While this lives a client's socket can be asked.
pub(super) struct Asked<'a>(&'a AnswerLook);

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        *self.0.lock() = None;
    }
}

/// Silence after which a peer is asked, at most.
const LONGEST_SILENCE: Duration = Duration::from_secs(60);
/// Questions of keep-alive within the time in which one must be answered.
const QUESTIONS: u32 = 6;
/// Unanswered ones after which the kernel itself gives a peer up: somewhat later than whoever
/// looks at [`Answers`].
const MOST_QUESTIONS: u32 = 8;
/// `MAX_TCP_KEEPINTVL` of include/net/tcp.h.
const LONGEST_INTERVAL: Duration = Duration::from_secs(32_767);
/// The kernel's clock for these times.
const SECOND: Duration = Duration::from_secs(1);

/// Has the kernel ask an idle peer, and repeat what a busy one has not acknowledged, so often that
/// one that answers nothing for `limit` is known to be gone, and soon after a line is back.
///
/// Fails when the connection is gone. Kernels before 6.15 have no bound on the pauses between
/// repetitions.
pub(super) fn ask(socket: &impl AsFd, limit: Duration) -> io::Result<()> {
    let keepalive = TcpKeepalive::new()
        .with_time((limit / 2).clamp(SECOND, LONGEST_SILENCE))
        .with_interval((limit / QUESTIONS).clamp(SECOND, LONGEST_INTERVAL))
        .with_retries(MOST_QUESTIONS);
    SockRef::from(socket).set_tcp_keepalive(&keepalive)?;
    match sockopt::set_longest_pause(socket, longest_pause(limit)) {
        Err(error) if error.raw_os_error() == Some(libc::ENOPROTOOPT) => Ok(()),
        set => set,
    }
}

/// `TCP_RTO_MIN` and `TCP_RTO_MAX_SEC` of include/net/tcp.h.
const SHORTEST_PAUSE: Duration = Duration::from_millis(200);
const PAUSES: std::ops::RangeInclusive<u32> = 1..=120;
/// `TCP_RETR2` of include/net/tcp.h, the default of the sysctl `net.ipv4.tcp_retries2`.
const REPETITIONS: u32 = 15;

/// The shortest bound on pauses with which the kernel goes on for longer than `limit` by itself: a
/// shorter bound makes it give up sooner.
fn longest_pause(limit: Duration) -> Duration {
    // Who looks does so every twelfth of it, and may have to twice.
    let long_enough = limit + limit / 6;
    PAUSES
        .map(|seconds| SECOND * seconds)
        .find(|pause| goes_on_for(*pause) >= long_enough)
        .unwrap_or(SECOND * *PAUSES.end())
}

/// How long the kernel repeats what is not acknowledged, with this bound on pauses
/// (`tcp_model_timeout`, `net/ipv4/tcp_timer.c`).
fn goes_on_for(pause: Duration) -> Duration {
    let doubled = (pause.as_millis() / SHORTEST_PAUSE.as_millis()).ilog2();
    if REPETITIONS <= doubled {
        SHORTEST_PAUSE * ((2 << REPETITIONS) - 1)
    } else {
        SHORTEST_PAUSE * ((2 << doubled) - 1) + pause * (REPETITIONS - doubled)
    }
}

/// What is known of the answers of a TCP socket's peer; `socket` may be no socket any more.
///
/// A segment that acknowledges nothing new counts as data only (`tcp_rcv_established`,
/// `net/ipv4/tcp_input.c`), so that both times are looked at, as keep-alive does
/// (`keepalive_time_elapsed`, include/net/tcp.h). What counts as unanswered are segments, and
/// questions to a window or of keep-alive (`icsk_probes_out`), which each answer sets to 0; so it
/// is from 6.1 to 6.18.
///
/// Fails as [`tcp_info::bytes_written`] does.
fn answers(socket: RawFd) -> io::Result<Answers> {
    let info = tcp_info::read_open(socket)?;
    let heard = info.last_data_recv.min(info.last_ack_recv);
    Ok(Answers {
        heard: Duration::from_millis(heard.into()),
        is_awaited: info.unacked > 0 || info.probes > 0,
        attempts: u32::from(info.retransmits) + u32::from(info.probes),
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};

    use super::*;

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (near, listener.accept().unwrap().0)
    }

    #[test]
    fn a_peer_is_asked_only_while_somebody_has_its_socket() {
        let (client, _peer) = pair();
        let look = AnswerLook::default();
        assert_eq!(look.now(), None);
        let asked = look.attach(&client);
        let answers = look.now().unwrap();
        assert!(!answers.is_awaited && answers.heard < Duration::from_secs(10));
        drop(asked);
        assert_eq!(look.now(), None);
    }

    /// Its window is full, and its system goes on answering all the same.
    #[test]
    fn a_peer_that_does_not_read_answers() {
        let (client, _peer) = pair();
        client.set_nonblocking(true).unwrap();
        while (&client).write(&[0; 8_192]).is_ok() {}
        let look = AnswerLook::default();
        let _asked = look.attach(&client);
        let begun = std::time::Instant::now();
        let mut heard_again = false;
        while !heard_again {
            assert!(begun.elapsed() < Duration::from_secs(30));
            std::thread::sleep(Duration::from_millis(10));
            heard_again = look
                .now()
                .is_some_and(|answers| answers.heard + Duration::from_secs(1) < begun.elapsed());
        }
    }

    #[test]
    fn the_kernel_goes_on_for_longer_than_whoever_looks() {
        // 15 repetitions with the default of 120 s: 924.6 s (Documentation/networking/ip-sysctl.rst).
        assert_eq!(goes_on_for(SECOND * 120), Duration::from_millis(924_600));
        assert_eq!(longest_pause(SECOND), SECOND);
        assert_eq!(longest_pause(SECOND * 60), SECOND * 6);
        for seconds in [10, 30, 60, 120, 300, 600] {
            let limit = SECOND * seconds;
            let pause = longest_pause(limit);
            assert!(goes_on_for(pause) >= limit * 7 / 6, "{limit:?}");
            assert!(pause <= limit / 5, "{pause:?} for {limit:?}");
        }
        assert_eq!(longest_pause(SECOND * 100_000), SECOND * 120);
    }

    #[test]
    fn a_socket_gets_what_the_limit_asks_for() {
        let (client, _peer) = pair();
        ask(&client, SECOND * 60).unwrap();
        let socket = SockRef::from(&client);
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), SECOND * 30);
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), SECOND * 10);
        ask(&client, SECOND * 1_000_000).unwrap();
        assert_eq!(socket.tcp_keepalive_time().unwrap(), SECOND * 60);
    }
}
