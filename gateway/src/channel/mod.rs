//! The life of one channel: from an accepted handshake to the last byte.

mod announce;
mod dial;
mod host;
mod host_side;
mod host_silence;
mod journal;
mod link;
mod lost_clients;
mod registry;
mod socket;
mod stop;
mod transfer;
mod trial;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout};
use tracing::debug;

pub use host::{ConnectError, HostConnector};
pub use host_side::{HostSide, LateHost};
pub use lost_clients::LostClients;
pub use registry::{Entry, NewChannel, Registration, Registry, Session, Tally, Totals};
pub use stop::StopSignal;
pub use transfer::{Arrived, ChannelState, Offer};
pub use trial::{Trial, TrialError};

use crate::access_log::{AccessLog, RequestId};
use crate::admission::Admission;
use crate::channel_type::ChannelTypes;
use crate::client_certificate::ClientCertificate;
use crate::config::{Config, HostProxyProtocol};
use crate::limits::Permit;
use crate::limits::Place;
use crate::metrics::Carried;
use crate::session::ChannelId;
use crate::timed::Timed;
use gateway_datapath::end_reason::EndReason;
use gateway_datapath::{
    Carrier, ClientStream, Framing, Inbound, Limits, Order, Outcome, Paths, Rest,
};
use host_silence::HostSilence;
use journal::Journal;
use link::{Expected, LinkMessage};

/// Time limits of a channel.
#[derive(Clone, Copy, Debug)]
pub struct ChannelLimits {
    keep_alive: Option<Duration>,
    client_timeout: Option<Duration>,
    link_timeout: Duration,
    close_timeout: Duration,
    host_proxy_protocol: HostProxyProtocol,
}

impl ChannelLimits {
    /// As the configuration says.
    pub fn new(config: &Config) -> Self {
        Self {
            keep_alive: config.keep_alive,
            client_timeout: config.client_timeout,
            link_timeout: config.link_timeout,
            close_timeout: config.close_timeout,
            host_proxy_protocol: config.host_proxy_protocol,
        }
    }
}

/// A channel whose host can be reached and whose client is about to get its 101 or 200.
pub struct Channel {
    /// Number of the channel.
    pub id: ChannelId,
    /// Number of the request that became the channel.
    pub request_id: RequestId,
    /// Where it is recorded.
    pub access_log: AccessLog,
    /// The certificate that the client has shown.
    pub certificate: Option<Arc<ClientCertificate>>,
    /// Address of the client, as far as trusted proxies report it.
    pub client: IpAddr,
    /// The client's port; 0: not known.
    pub client_port: u16,
    /// The leave to connect, and where to.
    pub admission: Admission,
    /// How the client's bytes are framed.
    pub framing: Framing,
    /// The client said `ver=2`: it answers Pings.
    pub answers_pings: bool,
    /// The connection to the host, or the way there.
    pub host: HostSide,
    /// The client's place among the connections that are counted.
    pub permit: Arc<Permit>,
    /// Its place among the channels of the client's address.
    pub place: Place,
    /// What it may carry.
    pub allowed: ChannelTypes,
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
            host: self.admission.grant.target.clone(),
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
            certificate,
            client: address,
            client_port,
            admission,
            framing,
            answers_pings,
            host,
            permit,
            place,
            allowed,
        } = self;
        let journal = Journal {
            access_log,
            request_id,
            certificate,
            begun: Instant::now(),
        };
        let expected = if host.is_open() {
            Expected::SpiceOrTls
        } else {
            Expected::Spice
        };
        let stop = registration.stop_signal();
        let begun_well = async {
            let mut begun = begin(upgrade, framing, expected, limits, allowed, stop).await?;
            let connected = tokio::select! {
                connected = host.connection(begun.link, registration.channel()) => connected,
                reason = stop.stopped() => Err(reason),
            };
            let mut host = match connected {
                Ok(host) => host,
                Err(reason) => {
                    begun.part(reason, limits).await;
                    return Err(reason);
                }
            };
            let client = SocketAddr::new(address, client_port);
            let announced = announce::announce(limits.host_proxy_protocol, client, &mut host);
            // The host's window is open; one that is not shows by its silence.
            let _ = timeout(limits.link_timeout, announced).await;
            let user = host.user();
            // The host has been sent nothing of the client yet, so it has not spoken either.
            let carrier = paths.take(*begun.client, host, framing);
            let carrier = carrier.map_err(|error| EndReason::Resources(error.kind()))?;
            Ok((carrier, begun.inbound, begun.link, user))
        };
        let (carrier, inbound, link, user) = match begun_well.await {
            Ok(begun_well) => begun_well,
            Err(reason) => return journal.closed(&registration, reason, String::new()),
        };
        let (kind, path) = (link.type_name(), carrier.name());
        registration.carries(Carried { path, kind }, link.channel_id);
        journal.open(&registration, link.channel_id, user);
        let moving = Moving {
            admission,
            answers_pings,
            permit,
            place,
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
    place: Place,
    journal: Journal,
    link: LinkMessage,
    carrier: Carrier,
}

impl Moving {
    /// Runs in a task of its own, as one that has begun a channel keeps the memory that this took.
    fn spawn(self, rest: Box<Rest>, limits: ChannelLimits, registration: Registration) {
        let silence = HostSilence::new(limits.link_timeout);
        registration.set_movable(self.carrier.can_move());
        if let Some(limit) = limits.client_timeout {
            self.carrier.ask_client(limit);
        }
        let limits = Limits {
            ping_interval: limits.keep_alive.filter(|_| self.answers_pings),
            close_timeout: limits.close_timeout,
        };
        tokio::spawn(Box::new(self).run(rest, limits, silence, registration));
    }

    /// Moves on from `rest` until the channel has ended, or another process has taken it over.
    async fn run(
        mut self: Box<Self>,
        mut rest: Box<Rest>,
        limits: Limits,
        mut silence: HostSilence,
        registration: Registration,
    ) {
        let counters = &*registration.channel().counters;
        let stop = registration.stop_signal();
        let reason = loop {
            let orders = |context: &mut Context<'_>| match stop.poll_order(context) {
                Poll::Pending => silence.poll(context, counters).map(Order::Stop),
                order @ Poll::Ready(_) => order,
            };
            match self.carrier.carry(rest, limits, counters, orders).await {
                Outcome::Ended(reason) => break reason,
                Outcome::Frozen(frozen) => rest = frozen,
            }
            let offer = self.offer(&rest, &registration);
            // Boxed: it is large, rare and short, and the task is there for as long as the channel.
            if Box::pin(registration.hand_over(offer)).await {
                self.carrier.let_go();
                debug!(channel = %registration.channel().id, "channel handed over");
                return;
            }
        };
        let kernel = self.carrier.counts(counters);
        let Self { journal, place, .. } = *self;
        // Whoever reads of the end finds the place free.
        drop(place);
        journal.closed(&registration, reason, kernel);
    }
}

/// A channel whose client has said what it is.
struct Begun {
    client: Box<ClientStream>,
    inbound: Inbound,
    link: LinkMessage,
}

impl Begun {
    /// Ends the client's stream, and says why where there are frames.
    async fn part(&mut self, reason: EndReason, limits: ChannelLimits) {
        part(&mut self.client, self.inbound.framing(), reason, limits).await;
    }
}

/// Takes the client's connection over from HTTP and reads its link message.
async fn begin(
    upgrade: OnUpgrade,
    framing: Framing,
    expected: Expected,
    limits: ChannelLimits,
    allowed: ChannelTypes,
    stop: &StopSignal,
) -> Result<Begun, EndReason> {
    let upgraded = match timeout(limits.link_timeout, upgrade).await {
        Ok(Ok(upgraded)) => upgraded,
        Ok(Err(error)) => {
            debug!(%error, "client lost before its answer");
            return Err(EndReason::AnswerLost);
        }
        Err(_) => return Err(EndReason::AnswerNotTaken),
    };
    let parts = upgraded
        .downcast::<TokioIo<Timed>>()
        .unwrap_or_else(|_| unreachable!("every connection is served on a Timed"));
    let mut client = Box::new(parts.io.into_inner().into_inner());
    let received = async {
        let Some(mut inbound) = Inbound::with_received(framing, &parts.read_buf) else {
            return Err(EndReason::TooEarly);
        };
        let received = link::receive(&mut client, &mut inbound, expected);
        let link = tokio::select! {
            link = timeout(limits.link_timeout, received) => {
                link.map_err(|_| EndReason::NoLinkMessage)??
            }
            reason = stop.stopped() => return Err(reason),
        };
        let may_pass = match link.channel_type {
            Some(kind) => allowed.contains(kind),
            // Whatever it carries is hidden.
            None => allowed == ChannelTypes::ALL,
        };
        if !may_pass {
            return Err(EndReason::ChannelNotAllowed(link.type_name()));
        }
        Ok((inbound, link))
    };
    match received.await {
        Ok((inbound, link)) => Ok(Begun {
            client,
            inbound,
            link,
        }),
        Err(reason) => {
            part(&mut client, framing, reason, limits).await;
            Err(reason)
        }
    }
}

/// Sends the last frame of a channel that ends for this reason, if there is one, and reads to the
/// client's end, so that closing is no RST that would overtake the frame. A client that does not
/// take it in time is simply left.
async fn part(
    client: &mut ClientStream,
    framing: Framing,
    reason: EndReason,
    limits: ChannelLimits,
) {
    let Some(frame) = reason.close_frame() else {
        return;
    };
    let parted = async {
        client.write_all(&framing.farewell(frame)).await?;
        client.shutdown().await?;
        let mut rest = [0; 512];
        while client.read(&mut rest).await? > 0 {}
        std::io::Result::Ok(())
    };
    let _ = timeout(limits.close_timeout, parted).await;
}
