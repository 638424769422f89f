//! The life of one channel: from an accepted handshake to the last byte.

mod announce;
mod host;
mod journal;
mod link;
mod moved;
mod registry;
mod stop;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::task::Context;
use std::time::{Duration, SystemTime};

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tracing::debug;

pub use host::{ConnectError, HostConnector};
pub use moved::{Arrived, ChannelState, Offer};
pub use registry::{Carried, Entry, NewChannel, Registration, Registry, Session, Tally, Totals};
pub use stop::{StopCause, StopSignal};

use crate::access_log::{AccessLog, RequestId};
use crate::admission::Admission;
use crate::client_limits::Place;
use crate::config::{Config, HostProxyProtocol};
use crate::datapath::{Carrier, EndReason, Inbound, Limits, Outcome, Paths, Rest};
use crate::listen::{ClientStream, Permit, Timed};
use crate::session::ChannelId;
use crate::websocket::close::CloseCode;
use crate::websocket::encode;
use journal::Journal;
use link::{Link, LinkError};

/// Time limits of a channel.
#[derive(Clone, Copy, Debug)]
pub struct ChannelLimits {
    keep_alive: Option<Duration>,
    link_timeout: Duration,
    close_timeout: Duration,
    host_proxy_protocol: HostProxyProtocol,
}

impl ChannelLimits {
    /// As the configuration says.
    pub fn new(config: &Config) -> Self {
        Self {
            keep_alive: config.keep_alive,
            link_timeout: config.link_timeout,
            close_timeout: config.close_timeout,
            host_proxy_protocol: config.host_proxy_protocol,
        }
    }
}

/// A channel whose host is connected and whose client is about to get its 101.
pub struct Channel {
    /// Number of the channel.
    pub id: ChannelId,
    /// Number of the request that became the channel.
    pub request_id: RequestId,
    /// Where it is recorded.
    pub access_log: AccessLog,
    /// Address of the client, as far as trusted proxies tell it.
    pub client: IpAddr,
    /// The client's port; 0: not known.
    pub client_port: u16,
    /// The leave to connect, and where to.
    pub admission: Admission,
    /// The client said `ver=2`: it answers Pings.
    pub answers_pings: bool,
    /// The connection to the host.
    pub host: TcpStream,
    /// The client's place among the connections that are counted.
    pub permit: Arc<Permit>,
    /// Its place among the channels of the client's address.
    pub place: Place,
}

impl Channel {
    /// Enters the registry, and runs in a task of its own once the client's connection is
    /// handed over.
    pub fn spawn(
        self,
        upgrade: OnUpgrade,
        limits: ChannelLimits,
        registry: &Arc<Registry>,
        paths: &Arc<Paths>,
    ) {
        let registration = registry.register(NewChannel {
            id: self.id,
            session: self.admission.session,
            client: self.client,
            host: self.admission.target.clone(),
            opened: SystemTime::now(),
            counters: Arc::default(),
        });
        tokio::spawn(self.run(upgrade, limits, registration, Arc::clone(paths)));
    }

    async fn run(
        self,
        upgrade: OnUpgrade,
        limits: ChannelLimits,
        registration: Registration,
        paths: Arc<Paths>,
    ) {
        let Self {
            id: _,
            request_id,
            access_log,
            client: address,
            client_port,
            admission,
            answers_pings,
            mut host,
            permit,
            place,
        } = self;
        let journal = Journal {
            access_log,
            request_id,
            begun: Instant::now(),
        };
        let client_began = begin(upgrade, limits, registration.stop_signal()).await;
        if client_began.is_ok() {
            let client = SocketAddr::new(address, client_port);
            announce::announce(limits.host_proxy_protocol, client, &mut host).await;
        }
        let begun_well = client_began.and_then(|begun| {
            // The host has been sent nothing of the client yet, so it has not spoken either.
            let carrier = paths.take(*begun.client, host)?;
            Ok((carrier, begun.inbound, begun.link))
        });
        let (carrier, inbound, link) = match begun_well {
            Ok(begun_well) => begun_well,
            Err(error) => {
                registration.count_end(error.name(registration.stop_signal().cause()));
                return journal.closed(&registration, error.to_string(), String::new());
            }
        };
        let (kind, path) = (link.type_name(), carrier.name());
        registration.carries(Carried { path, kind }, link.channel_id);
        journal.open(&registration, link.channel_id);
        let moving = Moving {
            admission,
            answers_pings,
            permit,
            _place: place,
            journal,
            link,
            carrier,
        };
        moving.spawn(Box::new(inbound.into()), limits, registration);
    }
}

/// A channel that is on a data path.
struct Moving {
    admission: Admission,
    answers_pings: bool,
    permit: Arc<Permit>,
    _place: Place,
    journal: Journal,
    link: Link,
    carrier: Carrier,
}

impl Moving {
    /// Runs in a task of its own, as one that has begun a channel keeps the memory that this took.
    fn spawn(self, rest: Box<Rest>, limits: ChannelLimits, registration: Registration) {
        let limits = Limits {
            ping_interval: limits.keep_alive.filter(|_| self.answers_pings),
            close_timeout: limits.close_timeout,
        };
        tokio::spawn(Box::new(self).run(rest, limits, registration));
    }

    /// Moves on from `rest` until the channel has ended, or another process has taken it over.
    async fn run(
        mut self: Box<Self>,
        mut rest: Box<Rest>,
        limits: Limits,
        registration: Registration,
    ) {
        let counters = &*registration.channel().counters;
        let stop = registration.stop_signal();
        let reason = loop {
            let orders = |context: &mut Context<'_>| stop.poll_order(context);
            match self.carrier.carry(rest, limits, counters, orders).await {
                Outcome::Ended(reason) => break reason,
                Outcome::Frozen(frozen) => rest = frozen,
            }
            let offer = self.offer(&rest, &registration);
            // Boxed: it is large, rare and short, and the task is there for as long as the channel.
            if Box::pin(registration.hand_over(offer)).await {
                debug!(channel = %registration.channel().id, "channel handed over");
                return;
            }
        };
        let kernel = self.carrier.counts(counters);
        let end = End::of(reason, stop.cause());
        registration.count_end(end.name());
        self.journal.closed(&registration, end.to_string(), kernel);
    }
}

/// Why a channel ended that had begun.
enum End {
    /// By itself, or because the gateway was stopped.
    Moved(EndReason),
    /// Because somebody wanted it.
    Asked(StopCause),
}

impl End {
    fn of(reason: EndReason, cause: Option<StopCause>) -> Self {
        match (reason, cause) {
            (EndReason::Stopped, Some(cause @ (StopCause::Kicked | StopCause::Drained))) => {
                Self::Asked(cause)
            }
            _ => Self::Moved(reason),
        }
    }

    /// The kind of reason, by which it is counted.
    fn name(&self) -> &'static str {
        match self {
            Self::Moved(EndReason::ClientClose(_) | EndReason::ClientEnd) => "client ended",
            Self::Moved(EndReason::ClientLost(_)) => "client lost",
            Self::Moved(EndReason::ClientSilent) => "client silent",
            Self::Moved(EndReason::Violation(_)) => "violation",
            Self::Moved(EndReason::HostEnd) => "host ended",
            Self::Moved(EndReason::HostLost(_) | EndReason::HostTorn) => "host lost",
            Self::Asked(StopCause::Kicked) => "kicked",
            Self::Asked(StopCause::Drained) => "drained",
            Self::Moved(EndReason::ClientKey) => "client changed its key",
            Self::Moved(EndReason::KeyUsedUp) => "key used up",
            Self::Moved(EndReason::Stopped) | Self::Asked(StopCause::Shutdown) => "gateway stopped",
        }
    }
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Moved(reason) => reason.fmt(f),
            Self::Asked(StopCause::Kicked) => f.write_str("ended by the administrator"),
            Self::Asked(StopCause::Drained) => f.write_str("the time for draining was over"),
            Self::Asked(StopCause::Shutdown) => EndReason::Stopped.fmt(f),
        }
    }
}

/// A channel whose client has said what it is.
struct Begun {
    client: Box<ClientStream>,
    inbound: Inbound,
    link: Link,
}

/// Why a channel ended before any byte reached its host.
#[derive(Debug, thiserror::Error)]
enum BeginError {
    #[error("client lost before its answer: {0}")]
    Upgrade(#[from] hyper::Error),
    #[error("client did not take its answer in time")]
    UpgradeTimeout,
    #[error("client sent too much before its answer")]
    TooEarly,
    #[error("no Spice link message in time")]
    LinkTimeout,
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error("sockets cannot be registered any more: {0}")]
    Register(#[from] std::io::Error),
}

impl BeginError {
    /// The kind of reason, by which it is counted; `cause` is why the channel was to end, if it
    /// was.
    fn name(&self, cause: Option<StopCause>) -> &'static str {
        match self {
            Self::Upgrade(_) | Self::UpgradeTimeout => "client lost",
            Self::TooEarly => "violation",
            Self::LinkTimeout => "no link message",
            Self::Link(LinkError::NotSpice) => "not spice",
            Self::Link(LinkError::Ended(reason)) => End::of(*reason, cause).name(),
            Self::Register(_) => "resources",
        }
    }

    /// What the client is told.
    fn close_frame(&self) -> Option<Vec<u8>> {
        match self {
            Self::Upgrade(_) | Self::UpgradeTimeout | Self::Register(_) => None,
            Self::TooEarly | Self::LinkTimeout | Self::Link(LinkError::NotSpice) => {
                Some(encode::close(CloseCode::PolicyViolation))
            }
            Self::Link(LinkError::Ended(reason)) => match reason {
                EndReason::ClientClose(code) => Some(encode::close_echo(*code)),
                EndReason::Violation(violation) => Some(encode::close(violation.close_code())),
                EndReason::Stopped => Some(encode::close(CloseCode::GoingAway)),
                _ => None,
            },
        }
    }
}

/// Takes the client's connection over from HTTP and reads its link message.
async fn begin(
    upgrade: OnUpgrade,
    limits: ChannelLimits,
    stop: &StopSignal,
) -> Result<Begun, BeginError> {
    let upgraded = match timeout(limits.link_timeout, upgrade).await {
        Ok(upgraded) => upgraded?,
        Err(_) => return Err(BeginError::UpgradeTimeout),
    };
    let parts = upgraded
        .downcast::<TokioIo<Timed>>()
        .unwrap_or_else(|_| unreachable!("every connection is served on a Timed"));
    let mut client = Box::new(parts.io.into_inner().into_inner());
    let received = async {
        let Some(mut inbound) = Inbound::with_received(&parts.read_buf) else {
            return Err(BeginError::TooEarly);
        };
        let link = tokio::select! {
            link = timeout(limits.link_timeout, link::receive(&mut client, &mut inbound)) => {
                link.map_err(|_| BeginError::LinkTimeout)??
            }
            () = stop.stopped() => return Err(LinkError::Ended(EndReason::Stopped).into()),
        };
        Ok((inbound, link))
    };
    match received.await {
        Ok((inbound, link)) => Ok(Begun {
            client,
            inbound,
            link,
        }),
        Err(error) => {
            if let Some(frame) = error.close_frame() {
                // A client that does not take its Close in time is simply left.
                let _ = timeout(limits.close_timeout, part(&mut client, &frame)).await;
            }
            Err(error)
        }
    }
}

/// Sends a last frame and reads to the client's end, so that closing is no RST that would
/// overtake the frame.
async fn part(client: &mut ClientStream, frame: &[u8]) -> std::io::Result<()> {
    client.write_all(frame).await?;
    client.shutdown().await?;
    let mut rest = [0; 512];
    while client.read(&mut rest).await? > 0 {}
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_that_ended_is_counted_by_what_ended_it() {
        for (reason, name) in [
            (EndReason::ClientKey, "client changed its key"),
            (EndReason::KeyUsedUp, "key used up"),
            (EndReason::Stopped, "gateway stopped"),
        ] {
            assert_eq!(End::of(reason, None).name(), name);
        }
        for (error, name) in [
            (BeginError::UpgradeTimeout, "client lost"),
            (BeginError::TooEarly, "violation"),
            (BeginError::LinkTimeout, "no link message"),
            (LinkError::NotSpice.into(), "not spice"),
            (
                LinkError::Ended(EndReason::ClientEnd).into(),
                "client ended",
            ),
            (std::io::Error::other("full").into(), "resources"),
        ] {
            assert_eq!(error.name(None), name);
        }
        let kicked = BeginError::from(LinkError::Ended(EndReason::Stopped));
        assert_eq!(kicked.name(Some(StopCause::Kicked)), "kicked");
    }
}
