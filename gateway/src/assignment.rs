//! Tickets for desktops: checked, counted and recorded in one place, whoever asks for them.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Response, StatusCode};
use ipnet::IpNet;
use tracing::{info, warn};

use crate::access_log::{AccessLog, Event, RequestId};
use crate::channel::HostConnector;
use crate::config::Config;
use crate::grant::Grant;
use crate::http::body::Body;
use crate::http::{Client, reply};
use crate::limits::{Subscriber, speak_for_many};
use crate::metrics::{DesktopRefusal, Metrics};
use crate::refusal;
use crate::session::SessionId;
use crate::target::Target;
use crate::ticket::{IssueError, Tickets, Wish};

/// Makes tickets for what the configuration lets clients reach.
#[derive(Clone)]
pub struct Assignments {
    ports: RangeInclusive<u16>,
    hosts: HostConnector,
    tickets: Arc<Tickets>,
    /// Of a ticket that is not used.
    life: Duration,
    metrics: Arc<Metrics>,
    access_log: AccessLog,
    speak_for_many: Vec<IpNet>,
}

/// A ticket, and what it began.
pub struct Assigned {
    /// What the client is to show.
    pub ticket: String,
    /// The desktop session that begins with it.
    pub session: SessionId,
    /// In which time it has to be used.
    pub life: Duration,
}

/// Why there is no ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AssignError {
    /// The Spice port is not in the configured range.
    #[error("FirstSpicePort, LastSpicePort")]
    Port,
    /// The host is in no network of `AllowedHosts`, or in one of `DeniedHosts`.
    #[error("AllowedHosts, DeniedHosts")]
    Host,
    /// The Unix socket is in no directory of `AllowedSockets`.
    #[error("AllowedSockets")]
    Socket,
    /// There is no room, or nothing to make it with.
    #[error(transparent)]
    Issue(#[from] IssueError),
}

impl AssignError {
    /// The kind of reason, by which it is counted.
    pub fn label(self) -> DesktopRefusal {
        match self {
            Self::Port => DesktopRefusal::Port,
            Self::Host | Self::Socket => DesktopRefusal::Host,
            Self::Issue(_) => DesktopRefusal::Tickets,
        }
    }

    /// What a person's client is answered.
    pub fn answer(self) -> Response<Body> {
        match self {
            Self::Port | Self::Host | Self::Socket => {
                reply::error(StatusCode::BAD_GATEWAY, refusal::NO_DESKTOP)
            }
            Self::Issue(_) => {
                reply::error(StatusCode::SERVICE_UNAVAILABLE, refusal::TOO_MANY_DESKTOPS)
            }
        }
    }
}

impl Assignments {
    /// The longest life with which a ticket can be asked for.
    pub fn longest_life(&self) -> Duration {
        self.tickets.longest_life()
    }

    /// As the configuration says. `hosts` is the way to where tickets lead.
    pub fn new(
        config: &Config,
        hosts: HostConnector,
        tickets: Arc<Tickets>,
        metrics: Arc<Metrics>,
        access_log: AccessLog,
    ) -> Self {
        Self {
            ports: config.first_spice_port..=config.last_spice_port,
            hosts,
            tickets,
            life: config.ticket_timeout,
            metrics,
            access_log,
            speak_for_many: speak_for_many(config),
        }
    }

    /// Makes a ticket for a client; `request` is the number of what it asked with. Returns once
    /// every process that serves on these ports knows the ticket.
    pub async fn assign(
        &self,
        grant: Grant,
        client: Client,
        request: &RequestId,
    ) -> Result<Assigned, AssignError> {
        self.assign_as(Wish::default(), grant, Some(client), request)
            .await
    }

    /// The same as whoever asks has wished, with a life not above [`Tickets::longest_life`], and
    /// for a client that need not be named, against whom nothing is counted then.
    pub async fn assign_as(
        &self,
        wish: Wish,
        grant: Grant,
        client: Option<Client>,
        request: &RequestId,
    ) -> Result<Assigned, AssignError> {
        let owner = client
            .and_then(|client| Subscriber::unless_many(client.address(), &self.speak_for_many));
        let client = client.unwrap_or(Client::Unnamed);
        let target = grant.target.clone();
        let assigned = self.issue(wish, grant, owner).inspect_err(|reason| {
            self.metrics.desktops_refused.count(reason.label());
            warn!(%client, host = %target, %reason, "no ticket for this desktop");
        })?;
        self.metrics.desktops_assigned.inc();
        let session = assigned.session;
        info!(%session, %client, host = %target, "desktop assigned");
        self.access_log.write(|| Event::DesktopAssigned {
            request: request.clone(),
            session: session.to_string(),
            client: client.address(),
            host: target.to_string(),
        });
        self.tickets.sync().wait_for(self.tickets.changes()).await;
        Ok(assigned)
    }

    fn issue(
        &self,
        wish: Wish,
        grant: Grant,
        owner: Option<Subscriber>,
    ) -> Result<Assigned, AssignError> {
        if !grant.ports().all(|port| self.ports.contains(&port)) {
            return Err(AssignError::Port);
        }
        if !self.hosts.may_reach(&grant.target) {
            return Err(match grant.target {
                Target::Tcp { .. } => AssignError::Host,
                Target::Unix(_) => AssignError::Socket,
            });
        }
        let life = wish.life;
        let life = life.map_or(self.life, |life| life.min(self.tickets.longest_life()));
        let now = Instant::now();
        let wish = Wish {
            life: Some(life),
            ..wish
        };
        let (ticket, session) = self.tickets.issue_as(wish, grant, owner, now)?;
        Ok(Assigned {
            ticket,
            session,
            life,
        })
    }
}
