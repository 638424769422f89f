//! The data path `relay`: userspace copies, one task and no idle buffers per channel.
//!
//! Each read from the host becomes one binary frame; the payload of the client's frames is
//! forwarded as it comes. A client without frames gets and sends the payload alone. At most one
//! buffer per direction is in flight, and neither side is read while the other does not take what
//! was read before: back-pressure is the peers' own.
//!
//! At the end of either stream what was received is delivered first; then come Close frame (where
//! there are frames), `close_notify` and FIN, each within the limit on time without progress.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use super::bounds::Bounds;
use super::ending::{Ending, Taken};
use super::moderation::Moderation;
use super::{ClientLeg, Counters, HostLeg, Inbound, Limits, Order, Outcome, Rest};
use crate::buffer::SIZE;
use crate::end_reason::{EndKind, EndReason};
use crate::framing::Framing;
use crate::websocket::decode::Event;
use crate::websocket::encode;

/// Steps of both directions in one turn, of at most a buffer each. Then others have theirs, and
/// orders are looked at: a channel that never waits hears of them within a few milliseconds.
const STEPS: u32 = 32;
/// Intervals of Pings after which a client from which nothing came is given up.
const SILENT_INTERVALS: u32 = 3;
/// Bytes that are read of a host whose client takes nothing any more: more than what is on its way
/// when the host hears of it.
const MOST_DISCARDED: usize = 1 << 20;
/// The same of a host that does not have the uplink yet, which it may want to read when it is done
/// with sending.
const MOST_BEFORE_UPLINK: usize = 64 << 20;

/// Moves a channel's bytes until both sides have ended; says what ended it.
///
/// `inbound` may hold what the client has sent already. `stop` ends the channel when it becomes
/// ready, for the reason that it gives.
pub async fn run<C, H>(
    client: &mut C,
    host: &mut H,
    inbound: Inbound,
    limits: Limits,
    counters: &Counters,
    stop: impl Future<Output = EndReason>,
) -> EndReason
where
    C: ClientLeg,
    H: HostLeg,
{
    let mut stop = std::pin::pin!(stop);
    let orders = |context: &mut Context<'_>| stop.as_mut().poll(context).map(Order::Stop);
    match carry(client, host, inbound.into(), limits, counters, orders).await {
        Outcome::Ended(reason) => reason,
        Outcome::Frozen(_) => unreachable!("nobody asked for it"),
    }
}

/// Moves a channel's bytes until both sides have ended, or until it is ordered to stand still.
///
/// `rest` is what is on its way already. `orders` is asked at each wake-up, and wakes the task
/// when there is a new one. A channel that is ending does not stand still any more.
//
// No `async fn`: that would hold the arguments beside what is made of them, for as long as the
// channel lives.
pub fn carry<'a, C, H>(
    client: &'a mut C,
    host: &'a mut H,
    rest: Rest,
    limits: Limits,
    counters: &'a Counters,
    mut orders: impl FnMut(&mut Context<'_>) -> Poll<Order>,
) -> impl Future<Output = Outcome>
where
    C: ClientLeg,
    H: HostLeg,
{
    let bounds = Bounds::begin(client.socket().map(|client| (host.socket(), client)));
    let pings = limits
        .ping_interval
        .filter(|_| rest.framing() == Framing::WebSocket);
    let mut relay = Relay {
        client,
        host,
        rest,
        counters,
        limits,
        queue: Queue::default(),
        ends: Ends::default(),
        host_unflushed: true,
        reason: None,
        ping: pings.map(Ping::new),
        ending: None,
        uplink_that_counts: u64::MAX,
        discarded: 0,
        moderation: Moderation::default(),
        bounds,
    };
    let mut timer: Option<Pin<Box<Sleep>>> = None;
    std::future::poll_fn(move |context| {
        let order = match relay.reason {
            None => orders(context),
            Some(_) => Poll::Pending,
        };
        if let Poll::Ready(Order::Stop(reason)) = order {
            relay.stop(reason);
        }
        let is_to_freeze = order == Poll::Ready(Order::Freeze);
        // At once: what can be read goes with the sockets as well, and others wait.
        if is_to_freeze && relay.can_freeze() {
            return Poll::Ready(relay.outcome());
        }
        loop {
            relay.poll_streams(context);
            if (is_to_freeze && relay.can_freeze()) || relay.is_done() {
                return Poll::Ready(relay.outcome());
            }
            let Some(deadline) = relay.next_deadline() else {
                timer = None;
                return Poll::Pending;
            };
            let sleep = timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
            // A deadline that moved back is looked at when the timer fires.
            if deadline < sleep.deadline() {
                sleep.as_mut().reset(deadline);
            }
            if sleep.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
            timer = None;
            if relay.on_timer(Instant::now()) {
                return Poll::Ready(relay.outcome());
            }
        }
    })
}

struct Relay<'a, C, H> {
    client: &'a mut C,
    host: &'a mut H,
    rest: Rest,
    counters: &'a Counters,
    limits: Limits,
    queue: Queue,
    ends: Ends,
    /// The host's stream may hold something back: of what it was written, or of what it came with.
    host_unflushed: bool,
    /// Set by the first event that ends the channel.
    reason: Option<EndReason>,
    ping: Option<Ping>,
    /// While ending.
    ending: Option<Ending>,
    /// Bytes that the host may take and that count as progress while ending: a client that goes on sending
    /// behind our Close must not keep the channel alive.
    uplink_that_counts: u64,
    /// Bytes of the host that were read for nobody.
    discarded: usize,
    moderation: Moderation,
    bounds: Bounds,
}

/// Control frames that wait for the end of the frame being written.
#[derive(Default)]
struct Queue {
    ping: bool,
    /// Empty where there are no frames: then FIN alone tells of the end.
    close: Option<Vec<u8>>,
}

/// How far each of the four half-streams is closed.
#[derive(Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts, not states of one machine"
)]
struct Ends {
    /// Nothing more comes from the client: Close, end of stream, violation or error.
    client_done: bool,
    /// The client's Close frame has come.
    client_closed: bool,
    /// The client's socket has nothing to read any more.
    client_eof: bool,
    /// Nothing can be sent to the client any more.
    client_broken: bool,
    /// Our Close frame, if there is one, was written; nothing may follow.
    close_sent: bool,
    /// `close_notify` and FIN were sent to the client.
    client_shut: bool,
    /// Nothing more comes from the host.
    host_eof: bool,
    /// FIN was sent to the host, or nothing can be sent to it any more.
    host_shut: bool,
}

struct Ping {
    interval: Duration,
    next: Instant,
    heard: bool,
    silent: u32,
}

impl Ping {
    fn new(interval: Duration) -> Self {
        Self {
            interval,
            next: Instant::now() + interval,
            heard: false,
            silent: 0,
        }
    }
}

impl<C, H> Relay<'_, C, H>
where
    C: ClientLeg,
    H: HostLeg,
{
    /// Goes on with both directions until neither can move, or this turn is over.
    fn poll_streams(&mut self, context: &mut Context<'_>) {
        // An event of one direction can give the other one work, so both take turns until both
        // wait.
        for _ in 0..STEPS {
            if self.poll_uplink(context).is_pending() & self.poll_downlink(context).is_pending() {
                return;
            }
        }
        context.waker().wake_by_ref();
    }

    /// One step from client to host; `Ready`: there may be more to do.
    fn poll_uplink(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.rest.inbound.has_payload() {
            return self.poll_forward(context);
        }
        if self.host_unflushed {
            return self.poll_flush_host(context);
        }
        if !self.rest.inbound.is_decoded() {
            self.decode();
            return Poll::Ready(());
        }
        if self.ends.client_done && !self.ends.host_shut {
            // An error here means that the host is gone: nothing is left to be told.
            if Pin::new(&mut *self.host)
                .poll_shutdown(context)
                .is_pending()
            {
                return Poll::Pending;
            }
            self.ends.host_shut = true;
            return Poll::Ready(());
        }
        if self.ends.client_eof {
            return Poll::Pending;
        }
        match self.rest.inbound.poll_take(context, self.client) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Ok(0)) => self.on_client_eof(),
            Poll::Ready(Ok(_)) => {
                if let Some(bytes) = self.moderation.on_uplink() {
                    self.host.set_low_water(bytes);
                }
                if let Some(ping) = &mut self.ping {
                    ping.heard = true;
                }
                if self.ends.client_done {
                    self.rest.inbound.discard_undecoded();
                    self.rest.inbound.discard_payload();
                }
            }
            // Many clients just close TCP, without close_notify (PROTOCOL: that is normal).
            Poll::Ready(Err(error)) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                self.on_client_eof();
            }
            Poll::Ready(Err(error)) if error.kind() == std::io::ErrorKind::Unsupported => {
                self.ends.client_done = true;
                self.leave(EndReason::ClientKey);
            }
            Poll::Ready(Err(error)) => self.on_client_error(error.kind()),
        }
        Poll::Ready(())
    }

    fn poll_forward(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Self {
            rest: Rest { inbound, .. },
            host,
            counters,
            ending,
            ends,
            ..
        } = self;
        if ends.host_shut {
            inbound.discard_payload();
            return Poll::Ready(());
        }
        let polled = inbound.poll_forward(context, *host, |len| {
            counters.add_uplink(len);
            if !ends.close_sent {
                touch(ending);
            }
        });
        match polled {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Ok(())) => self.host_unflushed = true,
            Poll::Ready(Err(error)) => {
                inbound.discard_payload();
                self.on_host_not_written(error.kind());
            }
        }
        Poll::Ready(())
    }

    fn poll_flush_host(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if !self.ends.host_shut {
            match Pin::new(&mut *self.host).poll_flush(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => self.on_host_not_written(error.kind()),
            }
        }
        self.host_unflushed = false;
        Poll::Ready(())
    }

    /// What the host sent before can still be read. Its end will show there, but as an orderly
    /// one: the system tells of a RST only once.
    fn on_host_not_written(&mut self, kind: std::io::ErrorKind) {
        self.ends.host_shut = true;
        self.end(self.host_lost(kind));
    }

    fn host_lost(&self, kind: std::io::ErrorKind) -> EndReason {
        match kind {
            std::io::ErrorKind::InvalidData if self.host.is_tls() => EndReason::HostTls,
            std::io::ErrorKind::InvalidData => EndReason::HostTorn,
            kind => EndReason::HostLost(kind),
        }
    }

    fn decode(&mut self) {
        match self.rest.inbound.decode() {
            Ok(None) => {
                if !self.rest.inbound.has_payload() {
                    self.rest.inbound.discard_payload();
                }
            }
            Ok(Some(Event::Ping(payload))) => self.rest.pong = Some(payload),
            Ok(Some(Event::Pong)) => {}
            Ok(Some(Event::Close(close))) => {
                self.ends.client_done = true;
                self.ends.client_closed = true;
                self.leave(EndReason::ClientClose(close.code));
            }
            Err(violation) => {
                self.ends.client_done = true;
                self.rest.inbound.discard_undecoded();
                self.leave(EndReason::Violation(violation));
            }
        }
    }

    /// One step from host to client; `Ready`: there may be more to do.
    fn poll_downlink(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.ends.client_broken || self.ends.client_shut {
            return self.poll_discard_host(context);
        }
        let ending = &mut self.ending;
        match self
            .rest
            .outbound
            .poll_drain(context, self.client, || touch(ending))
        {
            Poll::Pending => {
                self.bounds.on_held_up();
                self.counters.queues.set_held(self.rest.outbound.left());
                return Poll::Pending;
            }
            Poll::Ready(Ok(())) => self.counters.queues.set_held(0),
            Poll::Ready(Err(error)) => {
                self.on_client_error(error.kind());
                return Poll::Ready(());
            }
        }
        if self.reason.is_none() && self.client.is_worn() {
            self.leave(EndReason::KeyUsedUp);
        }
        if self.ends.close_sent {
            let Poll::Ready(shut) = Pin::new(&mut *self.client).poll_shutdown(context) else {
                return Poll::Pending;
            };
            self.ends.client_shut = true;
            if let Err(error) = shut {
                self.on_client_error(error.kind());
            }
            return Poll::Ready(());
        }
        if let Some(close) = self.queue.close.take() {
            if !close.is_empty() {
                self.rest.outbound.push_control(close);
            }
            self.ends.close_sent = true;
            // What came before, and what is in hand.
            let written = self.host.written().unwrap_or(self.counters.uplink());
            self.uplink_that_counts = written + SIZE as u64;
            return Poll::Ready(());
        }
        if let Some(payload) = self.rest.pong.take() {
            self.rest.outbound.push_control(encode::pong(&payload));
            return Poll::Ready(());
        }
        if std::mem::take(&mut self.queue.ping) {
            self.rest.outbound.push_control(encode::ping());
            return Poll::Ready(());
        }
        match self
            .rest
            .outbound
            .poll_fill(context, self.host, &*self.client)
        {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Ok(0)) => {
                // After a RST that was noticed when writing.
                let reason = match self.reason {
                    Some(reason @ (EndReason::HostLost(_) | EndReason::HostTls)) => reason,
                    _ => EndReason::HostEnd,
                };
                self.on_host_eof(reason);
            }
            Poll::Ready(Ok(len)) => {
                self.counters.add_downlink(len);
                if self.rest.outbound.is_piped() {
                    self.counters.add_spliced(len);
                }
                if let Some(bytes) = self.moderation.on_read(len, Instant::now) {
                    self.host.set_low_water(bytes);
                }
                let client = self.client.socket();
                let sockets = client.map(|client| (self.host.socket(), client));
                self.bounds.on_moved(len, sockets);
            }
            Poll::Ready(Err(error)) => {
                self.on_host_eof(self.host_lost(error.kind()));
            }
        }
        Poll::Ready(())
    }

    /// Reads what the host still sends, so that closing its socket is no RST that would cost it
    /// bytes of the uplink: until its end or, for a host that goes on, so much that it could have
    /// heard of ours. Then it is left as soon as it has the uplink; once nothing more is read of
    /// it, that is looked at each time that progress is.
    fn poll_discard_host(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.ends.host_eof {
            return Poll::Pending;
        }
        if self.discarded >= MOST_DISCARDED {
            self.ends.host_eof = self.ends.host_shut && self.host.has_taken_all();
            if self.ends.host_eof {
                return Poll::Ready(());
            }
            if self.discarded >= MOST_BEFORE_UPLINK {
                return Poll::Pending;
            }
        }
        match self
            .rest
            .outbound
            .poll_fill(context, self.host, &*self.client)
        {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Ok(len @ 1..)) => {
                self.rest.outbound.discard();
                self.discarded += len;
            }
            Poll::Ready(Ok(0) | Err(_)) => self.ends.host_eof = true,
        }
        Poll::Ready(())
    }

    /// Whether the channel can be gone on with from what is in hand.
    fn can_freeze(&mut self) -> bool {
        let is_ending = self.reason.is_some() || self.host.is_ending();
        if is_ending || !self.rest.inbound.is_writable() {
            return false;
        }
        if let Err(error) = self.rest.outbound.settle() {
            self.on_client_error(error.kind());
            return false;
        }
        if let Err(error) = self.rest.inbound.settle() {
            self.on_host_not_written(error.kind());
            return false;
        }
        true
    }

    /// How it ended; or what is in hand, and whoever goes on with the streams finds them as they
    /// usually are.
    fn outcome(&mut self) -> Outcome {
        if let Some(reason) = self.reason {
            return Outcome::Ended(reason);
        }
        if let Some(bytes) = self.moderation.on_uplink() {
            self.host.set_low_water(bytes);
        }
        Outcome::Frozen(Box::new(std::mem::take(&mut self.rest)))
    }

    fn on_client_eof(&mut self) {
        self.ends.client_done = true;
        self.ends.client_eof = true;
        self.end(EndReason::ClientEnd);
    }

    fn on_client_error(&mut self, kind: std::io::ErrorKind) {
        self.lose_client(EndReason::ClientLost(kind));
    }

    /// Does as ordered from outside.
    fn stop(&mut self, reason: EndReason) {
        if reason.kind() == EndKind::ClientLost {
            self.client.give_up();
            self.lose_client(reason);
        } else {
            self.leave(reason);
        }
    }

    fn lose_client(&mut self, reason: EndReason) {
        self.ends.client_done = true;
        self.ends.client_eof = true;
        self.ends.client_broken = true;
        self.rest.outbound.discard();
        self.end(reason);
    }

    fn on_host_eof(&mut self, reason: EndReason) {
        self.ends.host_eof = true;
        self.leave(reason);
    }

    /// Ends the channel, and tells the client so unless it was told of something before.
    fn leave(&mut self, reason: EndReason) {
        self.end(reason);
        if self.queue.close.is_none() {
            let framing = self.rest.framing();
            let close = reason.close_frame();
            self.queue.close = close.map(|close| framing.farewell(close));
        }
    }

    fn end(&mut self, reason: EndReason) {
        self.reason.get_or_insert(reason);
        if self.ending.is_none() {
            let limit = self.limits.close_timeout;
            self.ending = Some(Ending::new(limit, Instant::now(), self.taken()));
        }
    }

    /// What peers have taken so far, as far as it counts while ending.
    fn taken(&self) -> Taken {
        let counts = |bytes: u64| bytes.min(self.uplink_that_counts);
        [
            self.client.acknowledged(),
            self.host.acknowledged().map(counts),
        ]
    }

    /// Both sides have ended and nothing is owed to either.
    fn is_done(&self) -> bool {
        let ends = &self.ends;
        // Closing a socket with unread bytes is a RST, which could cost the client our last
        // frames: a client that may still be sending is read to its end.
        let client =
            ends.client_broken || (ends.client_shut && (ends.client_closed || ends.client_eof));
        let host = ends.host_shut && ends.host_eof;
        client && host && !self.rest.inbound.has_payload()
    }

    fn next_deadline(&self) -> Option<Instant> {
        let close = self.ending.as_ref().map(Ending::deadline);
        let ping = self.ping.as_ref().map(|ping| ping.next);
        let deadlines = [close, ping, self.moderation.deadline()];
        deadlines.into_iter().flatten().min()
    }

    /// Does what is due; true: the time for ending is over.
    fn on_timer(&mut self, now: Instant) -> bool {
        if let Some(bytes) = self.moderation.on_timer(now) {
            self.host.set_low_water(bytes);
        }
        if let Some(mut ending) = self.ending.take() {
            let is_over = ending.on_timer(now, || self.taken());
            self.ending = Some(ending);
            if is_over {
                return true;
            }
        }
        let Some(ping) = &mut self.ping else {
            return false;
        };
        if now < ping.next {
            return false;
        }
        ping.next = now + ping.interval;
        // While the host does not take what the client sent, the client is not read.
        let unread = self.rest.inbound.has_payload();
        ping.silent = if ping.heard || unread {
            0
        } else {
            ping.silent + 1
        };
        ping.heard = false;
        if ping.silent >= SILENT_INTERVALS {
            self.ping = None;
            self.leave(EndReason::ClientSilent);
        } else {
            self.queue.ping = true;
        }
        false
    }
}

/// Notes progress of a channel that is ending; one that is not has no such limit.
fn touch(ending: &mut Option<Ending>) {
    if let Some(ending) = ending {
        ending.touch();
    }
}
