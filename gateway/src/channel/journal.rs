//! What log and access log say of a channel.

use std::sync::Arc;

use tokio::time::Instant;
use tracing::info;

use super::Registration;
use crate::access_log::{AccessLog, ChannelEnd, ChannelStart, Event, RequestId};
use crate::client_certificate::ClientCertificate;
use crate::metrics::Carried;
use gateway_datapath::end_reason::EndReason;

/// Tells of one channel.
pub(super) struct Journal {
    pub(super) access_log: AccessLog,
    /// The request that became the channel.
    pub(super) request_id: RequestId,
    /// The certificate that its client has shown.
    pub(super) certificate: Option<Arc<ClientCertificate>>,
    /// When its host was connected.
    pub(super) begun: Instant,
}

impl Journal {
    /// The channel moves; `number` is its own among those of its type. `user` listens on the host's
    /// Unix socket.
    pub(super) fn open(&self, registration: &Registration, number: u8, user: Option<u32>) {
        let channel = registration.channel();
        let Carried { path, kind } = registration.carried();
        info!(
            channel = %channel.id,
            session = %channel.session,
            client = %channel.client,
            host = %channel.host,
            kind,
            number,
            path,
            user,
            "channel open"
        );
        if self.access_log.is_on() {
            self.access_log.write(|| Event::ChannelOpen {
                channel: self.start(registration),
                kind,
                number,
                path,
            });
        }
    }

    /// The channel has ended, which is also counted; `kernel` is what the kernel has done for it.
    pub(super) fn closed(&self, registration: &Registration, reason: EndReason, kernel: String) {
        let channel = registration.channel();
        registration.count_end(reason.kind());
        let reason = reason.to_string();
        let Carried { path, kind } = registration.carried();
        let (up, down) = (channel.counters.uplink(), channel.counters.downlink());
        let milliseconds = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        info!(
            channel = %channel.id,
            session = %channel.session,
            client = %channel.client,
            host = %channel.host,
            kind,
            path,
            up,
            down,
            milliseconds,
            reason,
            kernel = (!kernel.is_empty()).then_some(kernel),
            "channel closed"
        );
        if self.access_log.is_on() {
            self.access_log.write(|| Event::ChannelClosed {
                channel: self.start(registration),
                end: ChannelEnd {
                    kind,
                    path,
                    up,
                    down,
                    ms: milliseconds,
                    reason,
                },
            });
        }
    }

    fn start(&self, registration: &Registration) -> ChannelStart {
        let channel = registration.channel();
        ChannelStart {
            request: self.request_id.clone(),
            session: channel.session.to_string(),
            channel: channel.id.to_string(),
            client: channel.client,
            certificate: self.certificate.clone(),
            host: channel.host.to_string(),
        }
    }
}
