//! Tunnels on `sockmap`: the kernel moves both directions, as they are.
//!
//! ```text
//!              tunnel_verdict
//!   client ---------------------> host
//!          <---------------------
//!              tunnel_verdict
//! ```
//!
//! A tunnel has no frames, so one hop is enough: each segment goes from the socket that it came to
//! into the queue of the other one. What the program lets pass because too much waits, the process
//! forwards as on `relay`, until it has forwarded everything.

mod enter;
mod flow;
mod leg;

pub(super) use enter::room;

use std::future::Future;
use std::io::{self, Read};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use gateway_common::layout::{CLOSED, State};
use socket2::SockRef;
use tokio::io::ReadBuf;
use tokio::io::unix::AsyncFd;

use super::Sockmap;
use super::link::{Legs, LinkError, has_unread};
use super::watch;
use crate::end_reason::EndReason;
use crate::queues::TcpLegs;
use crate::{Counters, Inbound, Limits, relay, sockopt, tcp_info};
use flow::{Flow, Side};
use leg::Leg;

/// A tunnel's legs, in the maps until this is dropped.
pub struct Tunnel {
    sockmap: Arc<Sockmap>,
    /// Client and host, registered with the runtime for writing only: reading would wake it for
    /// each segment.
    legs: [AsyncFd<TcpStream>; 2],
    /// From the client, and from the host.
    flows: [Flow; 2],
    /// What may wait for the client follows its rate: the host is near.
    follows: bool,
}

impl Tunnel {
    /// Puts both legs into the maps. What the client has sent already, and was read, must be
    /// given to [`Tunnel::run`].
    ///
    /// Gives the legs back, as they were, when it cannot.
    pub(super) fn new(
        sockmap: &Arc<Sockmap>,
        client: tokio::net::TcpStream,
        host: tokio::net::TcpStream,
    ) -> Result<Self, (LinkError, io::Result<Legs>)> {
        enter::enter(sockmap, client, host)
    }

    /// Moves the tunnel's bytes until both sides have ended; says what ended it.
    ///
    /// The rules are those of `relay`, which runs on legs that bring it what is left for
    /// userspace: what passes, and ends. `stop` ends the tunnel when it becomes ready, for the
    /// reason that it gives.
    pub async fn run(
        &self,
        inbound: Inbound,
        limits: Limits,
        counters: &Counters,
        stop: impl Future<Output = EndReason>,
    ) -> EndReason {
        let (uplink, downlink) = (self.count(Side::Client), self.count(Side::Host));
        let _counted = counters.count_in_kernel(uplink, downlink);
        let (mut client, mut host) = (Leg::new(self, Side::Client), Leg::new(self, Side::Host));
        relay::run(&mut client, &mut host, inbound, limits, counters, stop).await
    }

    /// The client's socket, to be asked and set up only.
    pub(crate) fn client_socket(&self) -> BorrowedFd<'_> {
        self.socket(Side::Client).as_fd()
    }

    /// Its two sockets, to be asked while the tunnel lives.
    pub(crate) fn sockets(&self) -> TcpLegs {
        TcpLegs::new(self.socket(Side::Client), self.socket(Side::Host))
    }

    /// What the programs have counted, as the log tells it.
    pub(crate) fn counts(&self) -> String {
        let (Ok(up), Ok(down)) = (self.state(Side::Client), self.state(Side::Host)) else {
            return String::new();
        };
        let sum = up.plus(&down);
        format!(
            "{} messages up, {} messages down, {} passes, {} stops, {} resumes, \
             {} bytes repeated, {} bytes dropped",
            up.messages,
            down.messages,
            sum.passes,
            sum.stops,
            sum.resumes,
            sum.repeated,
            sum.dropped()
        )
    }

    /// What this side sends.
    fn flow(&self, from: Side) -> &Flow {
        &self.flows[from as usize]
    }

    fn leg(&self, side: Side) -> &AsyncFd<TcpStream> {
        &self.legs[side as usize]
    }

    fn socket(&self, side: Side) -> &TcpStream {
        self.leg(side).get_ref()
    }

    /// What the program has counted of what this side sends.
    fn state(&self, from: Side) -> io::Result<State> {
        let slot = self.flow(from).direction.slot;
        self.sockmap.maps.state(slot).map_err(io::Error::other)
    }

    /// Reads how many bytes of this side were redirected; only while the tunnel lives.
    fn count(&self, from: Side) -> impl Fn() -> u64 + Send + Sync + 'static + use<> {
        let (sockmap, slot) = (Arc::clone(&self.sockmap), self.flow(from).direction.slot);
        // Without a state the maps are gone, and the tunnel with them.
        move || sockmap.maps.state(slot).map_or(0, |state| state.redirected)
    }

    fn set_gate(&self, from: Side) -> io::Result<()> {
        let flow = self.flow(from);
        let set = self.sockmap.maps.set_gate(flow.direction.slot, flow.gate());
        set.map_err(io::Error::other)
    }

    /// Notes that so many bytes of those that have passed of this side were read.
    fn set_taken(&self, from: Side, taken: u64) {
        let flow = self.flow(from);
        if flow.is_news(taken) {
            flow.set_taken(taken);
            // Without a gate the programs' maps are gone, and the programs with them.
            let _ = self.set_gate(from);
        }
    }

    /// Has the kernel redirect what this side sends, of which all that was read must have been
    /// written; returns how many bytes of it have passed so far. `None`: it does not want to, as
    /// when the side has just ended.
    fn hand_over(&self, from: Side) -> io::Result<Option<u64>> {
        let (flow, socket) = (self.flow(from), self.socket(from));
        let cookie = flow.direction.cookie;
        self.sockmap.watch.watch_bytes(cookie, socket, false)?;
        if flow.is_ours() {
            flow.set_ours(false);
            set_unsent(self.socket(from.other()), None)?;
        }
        let passed = self.state(from)?.passed;
        flow.set_forwarded(passed);
        flow.set_taken(passed);
        self.set_gate(from)?;
        let attached = self.sockmap.maps.attach_leg(flow.direction, socket.as_fd());
        if attached.is_err() {
            flow.note_stopped();
            self.sockmap.watch.watch_bytes(cookie, socket, true)?;
            return Ok(None);
        }
        self.run_program(from);
        Ok(Some(passed))
    }

    /// Takes what this side sends back from the kernel; false: something has passed besides these
    /// `passed` bytes, and can be read only meanwhile.
    fn take_back(&self, from: Side, passed: u64) -> io::Result<bool> {
        let (flow, socket) = (self.flow(from), self.socket(from));
        let cookie = flow.direction.cookie;
        let is_all = || io::Result::Ok(self.state(from)?.passed <= passed);
        if !is_all()? {
            return Ok(false);
        }
        self.sockmap.maps.detach_leg(cookie);
        // The kernel runs the program under the socket's lock, which this takes: none runs any
        // more.
        let _ = tcp_info::bytes_written(socket);
        if !is_all()? {
            let attached = self.sockmap.maps.attach_again(cookie, socket.as_fd());
            attached.map_err(io::Error::other)?;
            self.run_program(from);
            return Ok(false);
        }
        self.sockmap.watch.watch_bytes(cookie, socket, true)?;
        Ok(true)
    }

    /// Has the program see what has come before it ran on this leg, which would otherwise wait for
    /// the next segment (`tcp_set_rcvlowat`, net/ipv4/tcp.c).
    fn run_program(&self, side: Side) {
        let _ = sockopt::set_low_water(self.socket(side), 1);
    }

    /// Whether little enough of what this side has sent waits for the kernel to redirect the rest.
    fn is_flowing(&self, from: Side) -> bool {
        let unsent = tcp_info::bytes_unsent(self.socket(from.other()));
        unsent.is_ok_and(|unsent| unsent <= self.flow(from).limit() as u64 / 2)
    }

    /// Lets nothing more of what this side sends be redirected; what was before still arrives.
    fn stop(&self, from: Side) {
        let flow = self.flow(from);
        if !flow.note_stopped() {
            return;
        }
        // Without a gate the programs' maps are gone, and the programs with them.
        flow.set_forwarded(CLOSED);
        let _ = self.set_gate(from);
        // The kernel runs the program under the socket's lock, which this takes: none that found
        // the gate open runs any more.
        let _ = tcp_info::bytes_written(self.socket(from));
        // The leg reads from now on.
        flow.signal.raise(watch::PASSED);
    }

    /// Notes that nothing can reach this side any more.
    fn lose(&self, side: Side) {
        self.flow(side.other()).note_unwanted();
        self.stop(side.other());
    }

    /// Whether this side's connection was not reset.
    fn is_connected(&self, side: Side) -> bool {
        tcp_info::bytes_written(self.socket(side)).is_ok()
    }

    /// Whether the other side's TCP has taken all that the kernel redirected of this one.
    fn is_drained(&self, from: Side) -> io::Result<bool> {
        let state = self.state(from)?;
        if state.dropped() > 0 {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let written = tcp_info::bytes_written(self.socket(from.other()))?;
        Ok(written >= self.flow(from).expected(state.redirected))
    }

    /// Lets at most so many bytes of what this side sends be unsent, now if the process writes
    /// them, or when it opens the gate again; at most what the configuration allows.
    fn set_limit(&self, from: Side, bytes: usize) {
        let flow = self.flow(from);
        flow.set_limit(bytes.min(self.sockmap.most_queued));
        self.bound_own(from);
    }

    /// While the process writes, the kernel lets it as long as less than the limit is unsent.
    fn bound_own(&self, from: Side) {
        let flow = self.flow(from);
        let limit = flow.is_ours().then(|| flow.limit());
        // A system that refuses it takes more.
        let _ = set_unsent(self.socket(from.other()), limit);
    }

    fn read(&self, from: Side, buffer: &mut ReadBuf<'_>) -> io::Result<usize> {
        loop {
            match self.socket(from).read(buffer.initialize_unfilled()) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(len) => {
                    buffer.advance(len);
                    return Ok(len);
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn poll_write(
        &self,
        to: Side,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut ready = ready!(self.leg(to).poll_write_ready(context))?;
            match ready.try_io(|leg| io::Write::write(&mut leg.get_ref(), bytes)) {
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(Ok(len)) => {
                    self.flow(to.other()).add_own(len);
                    return Poll::Ready(Ok(len));
                }
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_would_block) => {}
            }
        }
    }

    fn shutdown(&self, side: Side) -> io::Result<()> {
        self.socket(side).shutdown(Shutdown::Write)
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        for side in [Side::Client, Side::Host] {
            let socket = self.socket(side);
            // What passed and was not read lies where the kernel's close does not look. Without
            // a RST the peer would go on waiting for a window to open.
            if has_unread(socket) {
                let _ = SockRef::from(socket).set_linger(Some(Duration::ZERO));
            }
            let direction = self.flow(side).direction;
            self.sockmap.watch.remove_leg(direction.cookie, socket);
        }
        for flow in &self.flows {
            self.sockmap.maps.remove_direction(flow.direction);
        }
    }
}

/// Lets a socket take more only while less than so many bytes are unsent (`TCP_NOTSENT_LOWAT`);
/// `None`: as much as its send buffer takes.
fn set_unsent(socket: impl AsFd, bytes: Option<usize>) -> io::Result<()> {
    let bytes = bytes.and_then(|bytes| u32::try_from(bytes).ok());
    SockRef::from(&socket).set_tcp_notsent_lowat(bytes.unwrap_or(u32::MAX))
}
