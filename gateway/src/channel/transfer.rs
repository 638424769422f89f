//! Channels that move from one process to another.

use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::HeaderValue;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::link::LinkMessage;
use super::registry::UnansweredOffer;
use super::{ChannelLimits, Journal, Moving, NewChannel, Registration, Registry};
use crate::access_log::{AccessLog, RequestId};
use crate::admission::{AdmissionState, Admissions};
use crate::channel_type::ChannelType;
use crate::client_certificate::ClientCertificate;
use crate::limits::{ClientLimits, ConnectionLimits};
use crate::metrics::Carried;
use crate::session::{ChannelId, MANY};
use gateway_datapath::sockmap::InheritedSets;
use gateway_datapath::state_error::StateError;
use gateway_datapath::{Carrier, CarrierState, ChannelSockets, Counters, Rest};

/// A channel written down: all of it but its sockets. Holds its TLS secrets.
#[derive(Clone, Serialize, Deserialize)]
pub struct ChannelState {
    id: u64,
    request: String,
    admission: AdmissionState,
    client: IpAddr,
    /// Left out where there is none, as by gateways that do not know of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    certificate: Option<ClientCertificate>,
    peer: IpAddr,
    answers_pings: bool,
    /// Milliseconds of the Unix epoch.
    opened: u64,
    /// `None`: hidden by TLS between client and host.
    kind: Option<u8>,
    number: u8,
    uplink: u64,
    downlink: u64,
    spliced: u64,
    carrier: CarrierState,
}

/// A frozen channel that waits to be taken over; it goes on in this process when this is
/// dropped.
pub struct Offer {
    /// What it is.
    pub state: ChannelState,
    /// Its sockets.
    pub sockets: ChannelSockets,
    taken: oneshot::Sender<bool>,
}

impl Offer {
    /// The channel goes on elsewhere, and ends here without a trace.
    pub fn taken(self) {
        // The channel waits for this answer; if it does not, its process is ending.
        let _ = self.taken.send(true);
    }
}

impl ChannelState {
    /// Number of the channel.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// How many sockets go along with it.
    pub fn sockets(&self) -> usize {
        self.carrier.sockets()
    }

    /// What moves it.
    #[cfg(test)]
    pub(crate) fn carrier(&self) -> &CarrierState {
        &self.carrier
    }

    /// Whether it is one that a gateway writes down, but for what its carrier looks at.
    pub(crate) fn check(&self) -> Result<(), StateError> {
        let check = StateError::unless;
        check(self.id < MANY, "number of the channel")?;
        let request = HeaderValue::from_str(&self.request).ok();
        let request = request.as_ref().and_then(RequestId::given);
        check(request.is_some(), "number of the request")?;
        let counters = [self.uplink, self.downlink, self.spliced];
        check(counters.into_iter().all(|count| count < MANY), "counters")?;
        let certificate = self.certificate.as_ref();
        let is_sound = certificate.is_none_or(ClientCertificate::is_sound);
        check(is_sound, "certificate of the client")?;
        self.admission.check()
    }
}

impl Moving {
    /// `None`: the channel cannot be handed over as it stands.
    pub(super) fn offer(
        &self,
        rest: &Rest,
        registration: &Registration,
    ) -> Option<UnansweredOffer> {
        let (carrier, sockets) = self.carrier.state(rest)?;
        let channel = registration.channel();
        let opened = channel.opened.duration_since(UNIX_EPOCH);
        let state = ChannelState {
            id: channel.id.number(),
            request: self.journal.request_id.as_str().to_owned(),
            admission: self.admission.state(),
            client: channel.client,
            certificate: self.journal.certificate.as_deref().cloned(),
            peer: self.permit.peer(),
            answers_pings: self.answers_pings,
            opened: u64::try_from(opened.unwrap_or_default().as_millis()).unwrap_or(u64::MAX),
            kind: self.link.channel_type.map(ChannelType::number),
            number: self.link.channel_id,
            uplink: channel.counters.uplink(),
            downlink: channel.counters.downlink(),
            spliced: channel.counters.spliced(),
            carrier,
        };
        let (taken, answer) = oneshot::channel();
        let offer = Offer {
            state,
            sockets,
            taken,
        };
        Some((offer, answer))
    }
}

/// A channel that has come from another process and does not move yet. Dropping it leaves the
/// sockets as they are.
pub struct Arrived {
    moving: Moving,
    rest: Rest,
    new: NewChannel,
}

impl Arrived {
    /// Makes a channel of what was written down. Fails when the state is none that a gateway of
    /// this version makes, or the sockets are of no use.
    pub fn new(
        state: ChannelState,
        sockets: Vec<OwnedFd>,
        sets: &InheritedSets,
        admissions: &Admissions,
        limits: &ClientLimits,
        access_log: AccessLog,
        connections: &Arc<ConnectionLimits>,
    ) -> Result<Self, StateError> {
        state.check()?;
        let (carrier, rest) = Carrier::resume(state.carrier, sockets, sets)?;
        let admission = admissions.take_over(state.admission);
        let admission = admission.map_err(|_| StateError::Unsound("host of a channel"))?;
        let opened = UNIX_EPOCH + Duration::from_millis(state.opened);
        let age = SystemTime::now().duration_since(opened).unwrap_or_default();
        let new = NewChannel {
            id: ChannelId::known(state.id),
            session: admission.session,
            client: state.client,
            host: admission.grant.target.clone(),
            opened,
            counters: Arc::new(Counters::starting_at(
                state.uplink,
                state.downlink,
                state.spliced,
            )),
        };
        let moving = Moving {
            admission,
            answers_pings: state.answers_pings,
            permit: Arc::new(connections.take_over(state.peer)),
            place: limits.take_over(state.client, new.session),
            journal: Journal {
                access_log,
                request_id: RequestId::known(&state.request),
                certificate: state.certificate.map(Arc::new),
                begun: Instant::now().checked_sub(age).unwrap_or_else(Instant::now),
            },
            link: LinkMessage {
                channel_type: state.kind.map(ChannelType::new),
                channel_id: state.number,
            },
            carrier,
        };
        Ok(Self { moving, rest, new })
    }

    /// Number of the channel.
    pub fn id(&self) -> u64 {
        self.new.id.number()
    }

    /// Enters the registry, and moves on.
    pub fn start(self, limits: ChannelLimits, registry: &Arc<Registry>) {
        let registration = registry.register(self.new);
        let carried = Carried {
            path: self.moving.carrier.name(),
            kind: self.moving.link.type_name(),
        };
        registration.carries(carried, self.moving.link.channel_id);
        self.moving.spawn(Box::new(self.rest), limits, registration);
    }
}
