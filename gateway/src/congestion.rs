//! The congestion control of the clients' connections: what the kernel sends with, and how fast.
//!
//! It is chosen for each connection when that is taken, so that it makes no difference whose the
//! listening socket was before, and a reload needs none of them.

use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use gateway_datapath::congestion::{self, PACED};
use gateway_datapath::tcp_info::round_trip;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tracing::{info, warn};

use crate::config::CongestionControl;

/// What `"auto"` looks for: it does not take each lost packet for a sign that the line is full.
const PREFERRED: &str = PACED;
/// A client that answers within it is near, and gets an algorithm that sends without a pace.
///
/// To a client that is near, writes of 16 KiB went half as fast with a pace on `relay`, and a fifth
/// as fast on `sockmap`. After a loss any algorithm recovers there within milliseconds.
const NEAR: Duration = Duration::from_millis(1);

/// What connections get.
pub struct Congestion {
    wanted: CongestionControl,
    outcome: Outcome,
    /// That a connection could not get it was told.
    failed: AtomicBool,
}

/// What has become of a wish.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    /// Nothing is asked of the kernel, which gives connections what it is set up with.
    System,
    /// The kernel has this algorithm for the process.
    Algorithm(String),
    /// It does not; connections get what the kernel gives them.
    Refused(Unusable),
}

/// Why the kernel does not use an algorithm.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum Unusable {
    #[error(
        "the kernel does not have {0}, or its module is not loaded: `modprobe tcp_{0}` loads it"
    )]
    Unknown(String),
    #[error(
        "the kernel lets only administrators use {0}: \
         net.ipv4.tcp_allowed_congestion_control lists what others may"
    )]
    NotAllowed(String),
    #[error("the kernel does not use {0}: {1}")]
    System(String, String),
}

impl Unusable {
    fn new(name: &str, error: &io::Error) -> Self {
        let name = name.to_owned();
        // tcp_set_congestion_control() of net/ipv4/tcp_cong.c.
        match error.kind() {
            io::ErrorKind::NotFound => Self::Unknown(name),
            io::ErrorKind::PermissionDenied => Self::NotAllowed(name),
            _ => Self::System(name, error.to_string()),
        }
    }
}

impl Congestion {
    /// Asks the kernel for what is wanted.
    pub fn new(wanted: CongestionControl) -> Self {
        let name = match &wanted {
            CongestionControl::Auto => Some(PREFERRED),
            CongestionControl::System => None,
            CongestionControl::Named(name) => Some(name.as_str()),
        };
        let outcome = name.map_or(Outcome::System, |name| {
            match tcp_socket().and_then(|socket| socket.set_tcp_congestion(name.as_bytes())) {
                Ok(()) => Outcome::Algorithm(name.to_owned()),
                Err(error) => Outcome::Refused(Unusable::new(name, &error)),
            }
        });
        Self {
            wanted,
            outcome,
            failed: AtomicBool::new(false),
        }
    }

    /// The algorithm of the connections that are taken now, by its name in the kernel; `None`:
    /// the kernel does not say. With `"auto"` it is that of clients that are not near. Where nothing
    /// is asked of the kernel, a route or a socket unit of the system may say otherwise.
    pub fn in_use(&self) -> Option<String> {
        match &self.outcome {
            Outcome::Algorithm(name) => Some(name.clone()),
            Outcome::System | Outcome::Refused(_) => systems().ok(),
        }
    }

    /// Whether another wish, or another answer of the kernel, leads to the same.
    pub fn is_like(&self, other: &Self) -> bool {
        (&self.wanted, &self.outcome) == (&other.wanted, &other.outcome)
    }

    /// Whether the administrator named what the kernel does not have for the process.
    pub fn is_refused(&self) -> bool {
        matches!(self.wanted, CongestionControl::Named(_))
            && matches!(self.outcome, Outcome::Refused(_))
    }

    /// Tells in the log what connections get, and why it is not what was wanted.
    pub fn tell(&self) {
        let wanted = self.wanted.name();
        let in_use = self.in_use();
        let reason = match &self.outcome {
            Outcome::Refused(refusal) => Some(refusal.to_string()),
            Outcome::System | Outcome::Algorithm(_) => None,
        };
        if self.is_refused() {
            warn!(
                wanted,
                in_use, reason, "the system's congestion control is used instead"
            );
        } else {
            info!(wanted, in_use, reason, "congestion control");
        }
    }

    /// Gives a connection what it is to have. Where the kernel does not, as with a route that
    /// locks its own or a module that was unloaded, the connection goes on with what it has; this
    /// is told once.
    pub fn apply(&self, connection: &impl AsFd) {
        let socket = SockRef::from(connection);
        if self.wanted == CongestionControl::Auto && is_near(round_trip(connection).ok()) {
            if congestion::of(&socket).is_ok_and(|name| name == PACED) {
                // It fails where a route locks its own, and the connection goes on with that.
                let _ = congestion::send_at_once(&socket);
            }
            return;
        }
        let Outcome::Algorithm(name) = &self.outcome else {
            return;
        };
        let set = socket.set_tcp_congestion(name.as_bytes());
        if let Err(error) = set
            && !self.failed.swap(true, Ordering::Relaxed)
        {
            warn!(wanted = name, %error, "a connection keeps the system's congestion control");
        }
    }
}

/// Whether a client is near that takes so long to answer; `None` and zero: not known, which is far.
fn is_near(round_trip: Option<Duration>) -> bool {
    round_trip.is_some_and(|time| !time.is_zero() && time <= NEAR)
}

/// What the kernel gives a connection of which nothing is asked. A socket is asked, as the unit's
/// sandbox does not show /proc/sys.
fn systems() -> io::Result<String> {
    congestion::of(&SockRef::from(&tcp_socket()?))
}

fn tcp_socket() -> io::Result<Socket> {
    Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    /// Every kernel has it, and lets everybody use it.
    const ALWAYS_THERE: &str = "reno";

    fn named(name: &str) -> Congestion {
        Congestion::new(CongestionControl::Named(name.to_owned()))
    }

    fn of(socket: &impl AsFd) -> String {
        congestion::of(&SockRef::from(socket)).unwrap()
    }

    /// What an accepted connection has, before and after.
    fn accepted(listener: &TcpListener, congestion: &Congestion) -> (String, String) {
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let connection = listener.accept().unwrap().0;
        let before = of(&connection);
        congestion.apply(&connection);
        (before, of(&connection))
    }

    #[test]
    fn an_accepted_connection_gets_the_algorithm_and_the_listener_does_not() {
        let congestion = named(ALWAYS_THERE);
        assert_eq!(congestion.in_use().as_deref(), Some(ALWAYS_THERE));
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(address).unwrap();
            let before = of(&listener);
            let (_, after) = accepted(&listener, &congestion);
            assert_eq!(after, ALWAYS_THERE);
            assert_eq!(of(&listener), before);
        }
    }

    #[test]
    fn near_is_whoever_answers_within_a_millisecond() {
        let micros = |micros| Some(Duration::from_micros(micros));
        assert!([1, 80, 1_000].into_iter().map(micros).all(is_near));
        assert!(
            ![Some(Duration::ZERO), micros(1_001), None]
                .into_iter()
                .any(is_near)
        );
    }

    #[test]
    fn the_systems_is_left_as_it_is_also_that_of_a_listener_that_was_set_up() {
        let congestion = Congestion::new(CongestionControl::System);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let system = congestion.in_use().unwrap();
        assert_eq!(
            accepted(&listener, &congestion),
            (system.clone(), system.clone())
        );
        // As a socket unit does it with TCPCongestion=.
        SockRef::from(&listener)
            .set_tcp_congestion(ALWAYS_THERE.as_bytes())
            .unwrap();
        let both = (ALWAYS_THERE.to_owned(), ALWAYS_THERE.to_owned());
        assert_eq!(accepted(&listener, &congestion), both);
    }

    #[test]
    fn what_the_kernel_does_not_have_is_refused_and_the_systems_is_used() {
        let congestion = named("nothing_like_it");
        assert!(congestion.is_refused());
        let Outcome::Refused(refusal) = &congestion.outcome else {
            panic!("taken");
        };
        assert_eq!(*refusal, Unusable::Unknown("nothing_like_it".to_owned()));
        assert!(refusal.to_string().contains("modprobe tcp_nothing_like_it"));
        let system = systems().unwrap();
        assert_eq!(congestion.in_use(), Some(system.clone()));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        assert_eq!(accepted(&listener, &congestion), (system.clone(), system));
    }

    /// As when its module is unloaded while the gateway runs.
    #[test]
    fn a_connection_that_cannot_get_it_any_more_goes_on_with_what_it_has() {
        let congestion = Congestion {
            outcome: Outcome::Algorithm("nothing_like_it".to_owned()),
            ..named("nothing_like_it")
        };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (before, after) = accepted(&listener, &congestion);
        assert_eq!(after, before);
        assert!(congestion.failed.into_inner());
    }

    #[test]
    fn reasons_say_what_helps() {
        let reason = |number| {
            let error = io::Error::from_raw_os_error(number);
            Unusable::new("bbr", &error).to_string()
        };
        assert!(reason(1).contains("net.ipv4.tcp_allowed_congestion_control"));
        assert!(reason(2).contains("modprobe tcp_bbr"));
        assert!(reason(16).contains("busy"));
    }

    #[test]
    fn auto_is_bbr_where_the_kernel_has_it_and_never_a_refusal() {
        let auto = Congestion::new(CongestionControl::Auto);
        assert!(!auto.is_refused());
        let expected = match tcp_socket().unwrap().set_tcp_congestion(b"bbr") {
            Ok(()) => "bbr".to_owned(),
            Err(_) => systems().unwrap(),
        };
        assert_eq!(auto.in_use(), Some(expected));
    }

    #[test]
    fn another_wish_or_another_answer_is_not_alike() {
        assert!(named(ALWAYS_THERE).is_like(&named(ALWAYS_THERE)));
        assert!(!named(ALWAYS_THERE).is_like(&named("nothing_like_it")));
        assert!(!named(ALWAYS_THERE).is_like(&Congestion::new(CongestionControl::System)));
    }
}
