//! From host to client: bytes in frames, control frames between them, and the end.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::time::Instant;

use super::Relay;
use super::ends::touch;
use crate::buffer::SIZE;
use crate::end_reason::EndReason;
use crate::websocket::encode;
use crate::{ClientLeg, HostLeg};

/// Bytes that are read of a host whose client takes nothing any more: more than what is on its way
/// when the host hears of it.
const MOST_DISCARDED: usize = 1 << 20;
/// The same of a host that does not have the uplink yet, which it may want to read when it is done
/// with sending.
const MOST_BEFORE_UPLINK: usize = 64 << 20;

impl<C, H> Relay<'_, C, H>
where
    C: ClientLeg,
    H: HostLeg,
{
    /// One step from host to client; `Ready`: there may be more to do.
    pub(super) fn poll_downlink(&mut self, context: &mut Context<'_>) -> Poll<()> {
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
}
