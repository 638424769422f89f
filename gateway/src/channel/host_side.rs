//! The way to a channel's host, which may be known only when the client has begun.

use std::net::SocketAddr;
use std::sync::Arc;

use tracing::info;

use super::HostConnector;
use super::link::LinkMessage;
use super::registry::NewChannel;
use crate::grant::Grant;
use crate::metrics::Metrics;
use crate::target::Target;
use gateway_datapath::HostStream;
use gateway_datapath::end_reason::EndReason;

/// The way to a channel's host.
pub enum HostSide {
    /// It is connected.
    Connected(HostStream),
    /// It will be: what the client begins with decides about the port.
    Later(LateHost),
}

/// A host with a port for Spice and one for Spice inside TLS.
pub struct LateHost {
    /// The way there.
    pub hosts: HostConnector,
    /// Where it is counted how the connect went.
    pub metrics: Arc<Metrics>,
    /// The host and its Spice port.
    pub grant: Arc<Grant>,
    /// The host and its port for Spice inside TLS.
    pub tls_target: Target,
    /// Whom the host is told of.
    pub client: SocketAddr,
}

impl HostSide {
    /// Whether the host's port depends on what the client begins with.
    pub(super) fn is_open(&self) -> bool {
        matches!(self, Self::Later(_))
    }

    /// The connection for a client that has begun like this.
    pub(super) async fn connection(
        self,
        link: LinkMessage,
        channel: &NewChannel,
    ) -> Result<HostStream, EndReason> {
        let LateHost {
            hosts,
            metrics,
            grant,
            tls_target,
            client,
        } = match self {
            Self::Connected(host) => return Ok(host),
            Self::Later(late) => late,
        };
        let (target, connected) = if link.is_tls() {
            let connected = hosts.connect_through(tls_target.clone(), client, &metrics);
            (&tls_target, connected.await)
        } else {
            (&grant.target, hosts.connect(&grant, client, &metrics).await)
        };
        connected.map_err(|failure| {
            metrics.host_failures.count(failure.label());
            let NewChannel {
                session, client, ..
            } = channel;
            info!(%session, %client, host = %target, reason = %failure, "host not reached");
            EndReason::HostNotReached
        })
    }
}
