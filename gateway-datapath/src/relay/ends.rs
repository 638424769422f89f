//! How a channel ends, and how far it has.

use tokio::time::Instant;

use super::Relay;
use crate::end_reason::{EndKind, EndReason};
use crate::ending::{Ending, Taken};
use crate::{ClientLeg, HostLeg};

/// How far each of the four half-streams is closed.
#[derive(Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts, not states of one machine"
)]
pub(super) struct Ends {
    /// Nothing more comes from the client: Close, end of stream, violation or error.
    pub(super) client_done: bool,
    /// The client's Close frame has come.
    pub(super) client_closed: bool,
    /// The client's socket has nothing to read any more.
    pub(super) client_eof: bool,
    /// Nothing can be sent to the client any more.
    pub(super) client_broken: bool,
    /// Our Close frame, if there is one, was written; nothing may follow.
    pub(super) close_sent: bool,
    /// `close_notify` and FIN were sent to the client.
    pub(super) client_shut: bool,
    /// Nothing more comes from the host.
    pub(super) host_eof: bool,
    /// FIN was sent to the host, or nothing can be sent to it any more.
    pub(super) host_shut: bool,
}

impl<C, H> Relay<'_, C, H>
where
    C: ClientLeg,
    H: HostLeg,
{
    pub(super) fn on_client_eof(&mut self) {
        self.ends.client_done = true;
        self.ends.client_eof = true;
        self.end(EndReason::ClientEnd);
    }

    pub(super) fn on_client_error(&mut self, kind: std::io::ErrorKind) {
        self.lose_client(EndReason::ClientLost(kind));
    }

    /// Does as ordered from outside.
    pub(super) fn stop(&mut self, reason: EndReason) {
        if reason.kind() == EndKind::ClientLost {
            self.client.give_up();
            self.lose_client(reason);
        } else {
            self.leave(reason);
        }
    }

    pub(super) fn lose_client(&mut self, reason: EndReason) {
        self.ends.client_done = true;
        self.ends.client_eof = true;
        self.ends.client_broken = true;
        self.rest.outbound.discard();
        self.end(reason);
    }

    pub(super) fn on_host_eof(&mut self, reason: EndReason) {
        self.ends.host_eof = true;
        self.leave(reason);
    }

    /// Ends the channel, and tells the client so unless it was told of something before.
    pub(super) fn leave(&mut self, reason: EndReason) {
        self.end(reason);
        if self.queue.close.is_none() {
            let framing = self.rest.framing();
            let close = reason.close_frame();
            self.queue.close = close.map(|close| framing.farewell(close));
        }
    }

    pub(super) fn end(&mut self, reason: EndReason) {
        self.reason.get_or_insert(reason);
        if self.ending.is_none() {
            let limit = self.limits.close_timeout;
            self.ending = Some(Ending::new(limit, Instant::now(), self.taken()));
        }
    }

    /// What peers have taken so far, as far as it counts while ending.
    pub(super) fn taken(&self) -> Taken {
        let counts = |bytes: u64| bytes.min(self.uplink_that_counts);
        [
            self.client.acknowledged(),
            self.host.acknowledged().map(counts),
        ]
    }

    /// Both sides have ended and nothing is owed to either.
    pub(super) fn is_done(&self) -> bool {
        let ends = &self.ends;
        // Closing a socket with unread bytes is a RST, which could cost the client our last
        // frames: a client that may still be sending is read to its end.
        let client =
            ends.client_broken || (ends.client_shut && (ends.client_closed || ends.client_eof));
        let host = ends.host_shut && ends.host_eof;
        client && host && !self.rest.inbound.has_payload()
    }
}

/// Notes progress of a channel that is ending; one that is not has no such limit.
pub(super) fn touch(ending: &mut Option<Ending>) {
    if let Some(ending) = ending {
        ending.touch();
    }
}
