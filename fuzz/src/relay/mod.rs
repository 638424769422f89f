//! The relay between two scripted legs: nothing is lost, doubled or reordered, frames are whole,
//! the channel ends, and it may stand still and go on elsewhere at any time.

mod leg;
mod script;
mod sent;

use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use gateway_datapath::end_reason::{EndReason, StopCause};
use gateway_datapath::relay::carry;
use gateway_datapath::websocket::decode::Event;
use gateway_datapath::{
    ClientLeg, Counters, Framing, Inbound, Limits, Order, Outcome, Rest, RestState,
};
use tokio::time::{sleep, timeout};

use crate::frames::{Decoded, decode};
use leg::Leg;
use script::{Peer, Script};
use sent::Sent;

/// The client answers Pings.
const PINGED: u8 = 1;
/// The client leg protects frames where they lie, as TLS does.
const PROTECTED: u8 = 2;
/// The channel is stopped in the end, not after a long while only.
const STOPPED: u8 = 4;
/// The client's bytes are not framed.
const RAW: u8 = 8;

const PING_INTERVAL: Duration = Duration::from_secs(60);
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);
/// When a channel that does not end is stopped.
const PATIENCE: Duration = Duration::from_hours(1);
/// No script takes so long. The clock is virtual.
const FOREVER: Duration = Duration::from_hours(48);

/// A byte of options, one that says at which wake-ups the channel stands still and one at which
/// it is stopped; two bytes each for the client's script and for the host's, in turn.
pub fn run(bytes: &[u8]) {
    crate::poll_through(scene(bytes));
}

/// A channel that was begun elsewhere goes on, and ends, between two legs that end at once.
pub(crate) fn goes_on(rest: Rest, is_protected: bool) {
    let mut client = Leg::new(Script::default(), is_protected);
    let mut host = Leg::new(Script::default(), false);
    let limits = Limits {
        ping_interval: None,
        close_timeout: CLOSE_TIMEOUT,
    };
    let counters = Counters::default();
    let carried = carry(&mut client, &mut host, rest, limits, &counters, |_| {
        Poll::Pending
    });
    crate::poll_through(async {
        let ended = timeout(FOREVER, carried).await.expect("the channel ends");
        assert!(matches!(ended, Outcome::Ended(_)));
    });
}

async fn scene(bytes: &[u8]) {
    let (head, steps) = bytes.split_at(bytes.len().min(3));
    let &[options, freeze_every, stop_at] = head else {
        return;
    };
    let steps: Vec<[u8; 2]> = steps.as_chunks().0.to_vec();
    let client_script = Script::read(Peer::Client, steps.iter().step_by(2).copied());
    let host_script = Script::read(Peer::Host, steps.iter().skip(1).step_by(2).copied());

    let framing = if options & RAW == 0 {
        Framing::WebSocket
    } else {
        Framing::Raw
    };
    let expected = match framing {
        Framing::WebSocket => decode(std::iter::once(&client_script.content[..]), 0),
        Framing::Raw => Decoded {
            payload: client_script.content.clone(),
            ..Decoded::default()
        },
    };
    let downlink = host_script.content.clone();
    let is_rough = client_script.is_rough || host_script.is_rough;
    let mut client = Leg::new(client_script, options & PROTECTED != 0);
    let mut host = Leg::new(host_script, false);
    let counters = Counters::default();
    let orders = Orders {
        freeze_every: (freeze_every > 0).then_some(freeze_every.into()),
        stop_at: (options & STOPPED != 0).then_some(stop_at.into()),
    };
    let limits = Limits {
        ping_interval: (options & PINGED != 0).then_some(PING_INTERVAL),
        close_timeout: CLOSE_TIMEOUT,
    };
    let rest = Inbound::new(framing).into();
    let moved = move_to_the_end(rest, &mut client, &mut host, limits, &counters, orders);
    let reason = timeout(FOREVER, moved).await.expect("the channel ends");

    let sent = match framing {
        Framing::WebSocket => Sent::read(client.taken(), options & PINGED != 0),
        Framing::Raw => Sent::raw(client.taken()),
    };
    let seen = Seen {
        framing,
        reason,
        expected,
        downlink: &downlink,
        uplink: host.taken(),
        sent,
        client: &client,
        host: &host,
    };
    seen.check();
    if !is_rough {
        seen.check_that_all_arrived();
    }
    assert_eq!(counters.uplink(), host.taken().len() as u64);
    assert!(counters.downlink() >= seen.sent.payload.len() as u64);
    assert!(counters.downlink() <= downlink.len() as u64);
}

/// Why it ends when the script says so.
const BY_THE_GATEWAY: EndReason = EndReason::Asked(StopCause::Shutdown);

/// When the channel is told something, in wake-ups.
#[derive(Clone, Copy)]
struct Orders {
    freeze_every: Option<u32>,
    stop_at: Option<u32>,
}

async fn move_to_the_end(
    mut rest: Rest,
    client: &mut Leg,
    host: &mut Leg,
    limits: Limits,
    counters: &Counters,
    orders: Orders,
) -> EndReason {
    let mut patience = pin!(sleep(PATIENCE));
    let mut wake_ups = 0;
    loop {
        let layout = client.layout();
        let mut since = 0;
        let orders = |context: &mut std::task::Context<'_>| {
            wake_ups += 1;
            since += 1;
            if orders.stop_at.is_some_and(|at| wake_ups > at)
                || patience.as_mut().poll(context).is_ready()
            {
                return Poll::Ready(Order::Stop(BY_THE_GATEWAY));
            }
            match orders.freeze_every {
                Some(every) if since > every => Poll::Ready(Order::Freeze),
                _ => Poll::Pending,
            }
        };
        match carry(client, host, rest, limits, counters, orders).await {
            Outcome::Ended(reason) => return reason,
            Outcome::Frozen(frozen) => {
                let state = serde_json::to_string(&frozen.state(layout)).expect("plain data");
                let state: RestState = serde_json::from_str(&state).expect("what was written");
                rest = Rest::resume(&state, layout).expect("a state that occurs");
            }
        }
    }
}

/// What there is to see when a channel has ended.
struct Seen<'a> {
    framing: Framing,
    reason: EndReason,
    /// What the client's stream means.
    expected: Decoded,
    downlink: &'a [u8],
    uplink: &'a [u8],
    sent: Sent,
    client: &'a Leg,
    host: &'a Leg,
}

impl Seen<'_> {
    /// What is true however badly the legs behave.
    fn check(&self) {
        assert!(
            self.expected.payload.starts_with(self.uplink),
            "the host got something else: {:?}",
            self.reason
        );
        assert!(
            self.downlink.starts_with(&self.sent.payload),
            "the client got something else: {:?}",
            self.reason
        );
        let mut pings = self.expected.events.iter().filter_map(|event| match event {
            Event::Ping(payload) => Some(&payload[..]),
            _ => None,
        });
        for pong in &self.sent.pongs {
            assert!(pings.any(|ping| ping == pong), "a Pong without its Ping");
        }
        if !self.sent.is_whole || self.client.is_within_piece() {
            assert!(!self.client.is_shut(), "shut down within a frame");
        }
        if self.client.is_shut() && self.framing == Framing::WebSocket {
            assert!(self.sent.close.is_some(), "shut down without a Close");
        }
        if self.host.is_shut() && !self.client.is_write_broken() {
            // Nothing more comes from the client, and all of it was handed on.
            let ended_by_client = !matches!(
                self.reason,
                EndReason::HostEnd | EndReason::HostLost(_) | BY_THE_GATEWAY
            );
            if ended_by_client {
                assert_eq!(self.uplink, self.expected.payload, "{:?}", self.reason);
            }
        }
    }

    /// The last that the client got is a Close with this code, where there are frames.
    fn assert_closed(&self, code: Option<u16>) {
        let close = (self.framing == Framing::WebSocket).then_some(code);
        assert_eq!(self.sent.close, close);
    }

    /// What is true besides when neither leg breaks nor takes longer than it may.
    fn check_that_all_arrived(&self) {
        assert!(self.sent.is_whole, "{:?}", self.reason);
        assert!(self.client.is_shut() && self.host.is_shut());
        match self.reason {
            EndReason::HostEnd => {
                assert_eq!(
                    self.sent.payload.len(),
                    self.downlink.len(),
                    "lost at the end"
                );
                self.assert_closed(Some(1000));
            }
            EndReason::ClientEnd => {
                assert_eq!(self.uplink, self.expected.payload);
                let has_close = self.framing == Framing::WebSocket;
                assert_eq!(self.sent.close.is_some(), has_close);
            }
            EndReason::ClientClose(code) => {
                assert_eq!(self.uplink, self.expected.payload);
                self.assert_closed(code);
            }
            EndReason::Violation(violation) => {
                assert_eq!(self.expected.violation, Some(violation));
                assert_eq!(self.uplink, self.expected.payload);
                self.assert_closed(Some(violation.close_code() as u16));
            }
            BY_THE_GATEWAY | EndReason::ClientSilent => {
                self.assert_closed(Some(1001));
            }
            _ => panic!("neither leg broke: {:?}", self.reason),
        }
    }
}
