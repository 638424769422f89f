//! The data path `relay`: userspace copies, one task and no idle buffers per channel.
//!
//! Each read from the host becomes one binary frame; the payload of the client's frames is
//! forwarded as it comes. A client without frames gets and sends the payload alone. At most one
//! buffer per direction is in flight, and neither side is read while the other does not take what
//! was read before: back-pressure is the peers' own.
//!
//! At the end of either stream what was received is delivered first; then come Close frame (where
//! there are frames), `close_notify` and FIN, each within the limit on time without progress.

mod downlink;
mod ends;
mod ping;
mod uplink;

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::time::{Instant, Sleep};

use crate::bounds::Bounds;
use crate::end_reason::EndReason;
use crate::ending::Ending;
use crate::framing::Framing;
use crate::moderation::Moderation;
use crate::{ClientLeg, Counters, HostLeg, Inbound, Limits, Order, Outcome, Rest};
use ends::Ends;
use ping::{Due, Ping};

/// Steps of both directions in one turn, of at most a buffer each. Then others have theirs, and
/// orders are looked at: a channel that never waits hears of them within a few milliseconds.
const STEPS: u32 = 32;

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
    /// Bytes that the host may take and that count as progress while ending: a client that goes on
    /// sending behind our Close must not keep the channel alive.
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

    fn next_deadline(&self) -> Option<Instant> {
        let close = self.ending.as_ref().map(Ending::deadline);
        let ping = self.ping.as_ref().map(Ping::deadline);
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
        // While the host does not take what the client sent, the client is not read.
        let is_read = !self.rest.inbound.has_payload();
        match self
            .ping
            .as_mut()
            .and_then(|ping| ping.on_timer(now, is_read))
        {
            Some(Due::Ping) => self.queue.ping = true,
            Some(Due::GivingUp) => {
                self.ping = None;
                self.leave(EndReason::ClientSilent);
            }
            None => {}
        }
        false
    }
}
