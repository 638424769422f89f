//! From client to host: bytes and frames that are read, and what they ask for.

use std::pin::Pin;
use std::task::{Context, Poll};

use super::Relay;
use super::ends::touch;
use crate::end_reason::EndReason;
use crate::websocket::decode::Event;
use crate::{ClientLeg, HostLeg, Rest};

impl<C, H> Relay<'_, C, H>
where
    C: ClientLeg,
    H: HostLeg,
{
    /// One step from client to host; `Ready`: there may be more to do.
    pub(super) fn poll_uplink(&mut self, context: &mut Context<'_>) -> Poll<()> {
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
                    ping.on_heard();
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
    pub(super) fn on_host_not_written(&mut self, kind: std::io::ErrorKind) {
        self.ends.host_shut = true;
        self.end(self.host_lost(kind));
    }

    pub(super) fn host_lost(&self, kind: std::io::ErrorKind) -> EndReason {
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
}
