//! A channel's two legs on a data path, and how they are moved there.

use std::future::Future;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::net::TcpStream;

use crate::answers;
use crate::client_stream::ClientStream;
use crate::end_reason::EndReason;
use crate::host_stream::HostStream;
use crate::ktls::KtlsStream;
use crate::queues::{Looking, TcpLegs};
use crate::sockmap::Link;
use crate::{Counters, Inbound, Limits, Order, Outcome, Rest, relay};

/// A channel's two legs on the data path that moves them.
pub enum Carrier {
    /// Userspace copies.
    Relay(Box<ClientStream>, HostStream),
    /// The kernel moves the downlink.
    Sockmap(Arc<Link>),
    /// It makes and opens TLS records as well.
    KtlsSockmap(Arc<Link>),
    /// Userspace copies, the kernel makes and opens TLS records.
    Ktls(Box<KtlsStream>, TcpStream),
}

impl Carrier {
    /// On `relay`, which needs nothing of the kernel.
    pub(crate) fn relay(client: ClientStream, host: impl Into<HostStream>) -> Self {
        Self::Relay(Box::new(client), host.into())
    }

    /// Name of the data path in the log.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Relay(..) => "relay",
            Self::Sockmap(_) => "sockmap",
            Self::KtlsSockmap(_) => "ktls-sockmap",
            Self::Ktls(..) => "ktls",
        }
    }

    /// Has the kernel find out whether the client is still there, so that its silence of `limit`
    /// shows in [`Counters::client_answers`]. Where it cannot, silence shows later.
    pub fn ask_client(&self, limit: Duration) {
        let _ = answers::ask(&self.client_socket(), limit);
    }

    fn client_socket(&self) -> BorrowedFd<'_> {
        match self {
            Self::Relay(client, _) => client.tcp().as_fd(),
            Self::Ktls(client, _) => client.tcp().as_fd(),
            Self::Sockmap(link) | Self::KtlsSockmap(link) => link.client_socket(),
        }
    }

    /// Moves the channel's bytes until both sides have ended or, where the data path can stand
    /// still, until it is ordered to; see [`relay::carry`].
    pub async fn carry(
        &mut self,
        rest: Box<Rest>,
        limits: Limits,
        counters: &Counters,
        orders: impl FnMut(&mut Context<'_>) -> Poll<Order> + Send,
    ) -> Outcome {
        let socket = self.client_socket();
        let _asked = counters.client.attach(&socket);
        let _looking = self.show_queues(counters);
        self.start(rest, limits, counters, orders).await
    }

    /// Whether another process may go on with it, unless it is ending.
    pub fn can_move(&self) -> bool {
        match self {
            Self::Relay(..) | Self::Ktls(..) => true,
            Self::Sockmap(link) | Self::KtlsSockmap(link) => link.can_move(),
        }
    }

    /// Boxed: each path takes the memory that it needs, not that of the largest.
    fn start<'a>(
        &'a mut self,
        rest: Box<Rest>,
        limits: Limits,
        counters: &'a Counters,
        orders: impl FnMut(&mut Context<'_>) -> Poll<Order> + Send + 'a,
    ) -> Pin<Box<dyn Future<Output = Outcome> + Send + 'a>> {
        match self {
            Self::Relay(client, host) => {
                let client = &mut **client;
                Box::pin(relay::carry(client, host, *rest, limits, counters, orders))
            }
            Self::Ktls(client, host) => {
                let client = &mut **client;
                Box::pin(relay::carry(client, host, *rest, limits, counters, orders))
            }
            Self::Sockmap(link) | Self::KtlsSockmap(link) => {
                if link.can_move() {
                    Box::pin(link.carry(*rest, limits, counters, orders))
                } else {
                    Box::pin(link.carry(*rest, limits, counters, without_freeze(orders)))
                }
            }
        }
    }

    /// Moves the channel's bytes until both sides have ended; see [`relay::run`].
    pub async fn run(
        &mut self,
        inbound: Inbound,
        limits: Limits,
        counters: &Counters,
        stop: impl Future<Output = EndReason> + Send,
    ) -> EndReason {
        let mut stop = std::pin::pin!(stop);
        let orders = |context: &mut Context<'_>| stop.as_mut().poll(context).map(Order::Stop);
        let rest = Box::new(inbound.into());
        match self.carry(rest, limits, counters, orders).await {
            Outcome::Ended(reason) => reason,
            Outcome::Frozen(_) => unreachable!("nobody asked for it"),
        }
    }

    /// Lets what waits in the kernel be seen as long as the result lives.
    fn show_queues<'a>(&self, counters: &'a Counters) -> Looking<'a> {
        let sockets = match self {
            Self::Relay(client, host) => TcpLegs::new(client.tcp(), host),
            Self::Ktls(client, host) => TcpLegs::new(client.tcp(), host),
            Self::Sockmap(link) | Self::KtlsSockmap(link) => {
                return counters.queues.attach(link.sockets(), link.queues());
            }
        };
        counters.queues.attach(sockets, move || sockets.queues())
    }

    /// What the kernel has done for the channel, in one line; empty: it moved nothing.
    pub fn counts(&self, counters: &Counters) -> String {
        match self {
            Self::Relay(..) => String::new(),
            Self::Ktls(..) => {
                let spliced = counters.spliced();
                let copied = counters.downlink().saturating_sub(spliced);
                format!("{spliced} bytes spliced, {copied} bytes copied")
            }
            Self::Sockmap(link) | Self::KtlsSockmap(link) => link.counts(),
        }
    }
}

/// Of a channel that cannot stand still.
fn without_freeze(
    mut orders: impl FnMut(&mut Context<'_>) -> Poll<Order>,
) -> impl FnMut(&mut Context<'_>) -> Poll<Order> {
    move |context| match orders(context) {
        Poll::Ready(Order::Freeze) => Poll::Pending,
        order => order,
    }
}
