//! What the token of a WebSocket or a tunnel is good for.

mod port_sessions;

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use tracing::{debug, warn};

use crate::config::Config;
use crate::grant::{Grant, GrantState};
use crate::limits::FailureLimit;
use crate::limits::Subscriber;
use crate::limits::speak_for_many;
use crate::portal::{NoTurn, Portal, may_be_token};
use crate::refusal::Refusal;
use crate::session::SessionId;
use crate::signed::is_signed;
use crate::spice_host::SpiceHost;
use crate::ticket::{DIGEST, Lease, Presented, RedeemError, Tickets};
use gateway_datapath::encoded::Bytes;
use gateway_datapath::state_error::StateError;
use port_sessions::{PortLease, PortSessions};

/// Decides which channels are let through, and where they lead.
pub struct Admissions {
    mode: Mode,
    failures: FailureLimit,
    /// Clients of these networks cannot be told apart.
    speak_for_many: Vec<IpNet>,
    ban_time: Duration,
    tickets: Arc<Tickets>,
    portal: Arc<ArcSwapOption<Portal>>,
    sessions: Arc<PortSessions>,
}

enum Mode {
    /// `HijackAll` true: a token is a ticket of ours, and nothing else.
    Tickets {
        tickets: Arc<Tickets>,
        ports: RangeInclusive<u16>,
    },
    /// `HijackAll` false: a token is a port of the gateway's own host.
    Ports {
        host: SpiceHost,
        ports: RangeInclusive<u16>,
        sessions: Arc<PortSessions>,
    },
}

/// A channel's leave to connect to its target; its session knows of it until it is dropped.
pub struct Admission {
    /// Where the channel leads, and what it may do.
    pub grant: Arc<Grant>,
    /// The desktop session that the channel belongs to.
    pub session: SessionId,
    hold: Hold,
}

/// An [`Admission`] written down.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AdmissionState {
    grant: GrantState,
    session: SessionId,
    hold: HoldState,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
enum HoldState {
    Ticket(Bytes),
    Port(IpAddr),
    None,
}

impl AdmissionState {
    /// Whether it is one that a gateway writes down.
    pub(crate) fn check(&self) -> Result<(), StateError> {
        self.grant.check()?;
        let is_known = match &self.hold {
            HoldState::Ticket(digest) => digest.len() == DIGEST,
            HoldState::Port(_) | HoldState::None => true,
        };
        StateError::unless(is_known, "ticket of a channel")?;
        StateError::unless(self.session.is_sound(), "number of a desktop session")
    }
}

/// Keeps the session open; what it holds matters only when it is dropped.
enum Hold {
    Ticket(Lease),
    Port(PortLease),
    /// The channel was moved from a gateway with another `HijackAll`.
    None,
}

impl Admission {
    fn with_lease(lease: Lease) -> Self {
        Self {
            grant: Arc::clone(&lease.grant),
            session: lease.session,
            hold: Hold::Ticket(lease),
        }
    }

    /// Writes it down.
    pub fn state(&self) -> AdmissionState {
        AdmissionState {
            grant: self.grant.state(),
            session: self.session,
            hold: match &self.hold {
                Hold::Ticket(lease) => HoldState::Ticket(lease.digest().into()),
                Hold::Port(lease) => HoldState::Port(lease.key.0),
                Hold::None => HoldState::None,
            },
        }
    }
}

impl Admissions {
    /// The admission of a channel that was moved here: it was good once, and stays so. Fails when
    /// its host is none.
    pub fn take_over(&self, state: AdmissionState) -> Result<Admission, StateError> {
        let session = state.session;
        let grant = Grant::try_from(state.grant)?;
        let hold = match (&self.mode, state.hold) {
            (Mode::Tickets { tickets, .. }, HoldState::Ticket(digest)) => {
                tickets.hold(&digest).map_or(Hold::None, Hold::Ticket)
            }
            (Mode::Ports { sessions, .. }, HoldState::Port(client)) => {
                Hold::Port(sessions.open_as((client, grant.target.clone()), || session))
            }
            _ => Hold::None,
        };
        Ok(Admission {
            grant: Arc::new(grant),
            session,
            hold,
        })
    }

    /// The addresses that are refused, and for how much longer.
    pub fn banned(&self) -> Vec<(IpAddr, Duration)> {
        self.failures.banned(Instant::now())
    }

    /// Refuses addresses as another process has done.
    pub fn ban(&self, banned: impl IntoIterator<Item = (IpAddr, Duration)>) {
        self.failures.ban(banned, Instant::now());
    }

    /// As the configuration says; `tickets` are those that hijacked answers carry.
    pub fn new(config: &Config, tickets: Arc<Tickets>) -> Self {
        let proxies = config.trusted_proxies.clone();
        let failures = FailureLimit::new(config.bad_token_limit, config.ban_time, proxies);
        Self::with(config, failures, tickets, Arc::default(), Arc::default())
    }

    /// As another configuration says; tickets, open sessions and failures stay known.
    #[must_use]
    pub fn changed(&self, config: &Config) -> Self {
        let proxies = config.trusted_proxies.clone();
        let (limit, ban) = (config.bad_token_limit, config.ban_time);
        let failures = self.failures.changed(limit, ban, proxies);
        let (tickets, sessions) = (Arc::clone(&self.tickets), Arc::clone(&self.sessions));
        Self::with(
            config,
            failures,
            tickets,
            Arc::clone(&self.portal),
            sessions,
        )
    }

    /// The tickets that hijacked answers carry.
    pub fn tickets(&self) -> &Arc<Tickets> {
        &self.tickets
    }

    fn with(
        config: &Config,
        failures: FailureLimit,
        tickets: Arc<Tickets>,
        portal: Arc<ArcSwapOption<Portal>>,
        sessions: Arc<PortSessions>,
    ) -> Self {
        let ports = config.first_spice_port..=config.last_spice_port;
        let mode = if config.hijack_all {
            Mode::Tickets {
                tickets: Arc::clone(&tickets),
                ports,
            }
        } else {
            Mode::Ports {
                host: config.spice_host.clone(),
                ports,
                sessions: Arc::clone(&sessions),
            }
        };
        Self {
            mode,
            failures,
            speak_for_many: speak_for_many(config),
            ban_time: config.ban_time,
            tickets,
            portal,
            sessions,
        }
    }

    /// Asks this portal from now on, or none, under all configurations.
    pub fn set_portal(&self, portal: Option<Portal>) {
        self.portal.store(portal.map(Arc::new));
    }

    /// Whether tokens are tickets, so that a desktop session begins with an answer of the manager.
    pub fn are_tickets(&self) -> bool {
        matches!(self.mode, Mode::Tickets { .. })
    }

    /// Looks at a token. One that is good is let through also from an address that has sent too
    /// many wrong ones, as that may be another person's; guessing gets no further by that. Only
    /// what costs more than a look-up, a signature or a question to the portal, waits then.
    pub fn admit(&self, token: Option<&str>, client: IpAddr) -> Result<Admission, Refusal> {
        let now = Instant::now();
        let look_up = |token| self.mode.look_up(&self.shown(token, client, now), now);
        let found = token.map_or(Err(RedeemError::Wrong), look_up);
        self.judge(found, token, client, now)
    }

    /// The same, where a portal may be asked what a token stands for (`TicketURL`).
    pub async fn admit_or_ask(
        &self,
        token: Option<&str>,
        client: IpAddr,
    ) -> Result<Admission, Refusal> {
        let portal = self.portal.load_full();
        let (Some(portal), Some(token), Mode::Tickets { tickets, ports }) =
            (portal, token, &self.mode)
        else {
            return self.admit(token, client);
        };
        let now = Instant::now();
        let shown = self.shown(token, client, now);
        let found = self.mode.look_up(&shown, now);
        let is_signed = is_signed(token) && tickets.takes_signed();
        let is_blocked = |now| self.failures.blocked(client, now).is_some();
        let is_decided = !matches!(found, Err(RedeemError::Wrong)) || is_signed;
        if is_decided || !may_be_token(token) || is_blocked(now) {
            return self.judge(found, Some(token), client, now);
        }
        if tickets.is_closed() {
            return Err(Refusal::Draining);
        }
        let turn = portal.turn(token, shown.owner).await;
        let _turn = turn.map_err(|none| match none {
            NoTurn::TooMany => Refusal::Questions,
            NoTurn::Timeout => Refusal::Portal,
        })?;
        let now = Instant::now();
        let mut found = self.mode.look_up(&shown, now);
        // Other tokens of this address may have been wrong while this one waited.
        if matches!(found, Err(RedeemError::Wrong))
            && !is_blocked(now)
            && let Some(grant) = self.ask(&portal, token, client).await?
        {
            found = if may_be_reached(&grant, ports) {
                let lease = tickets.begin_with(grant, &shown, Instant::now());
                lease.map(Admission::with_lease)
            } else {
                warn!(%client, host = %grant.target, "the portal names a port that is not in FirstSpicePort, LastSpicePort");
                return Err(Refusal::Portal);
            };
        }
        self.judge(found, Some(token), client, Instant::now())
    }

    /// Asks the portal. A token to which it fails to answer counts as a wrong one: it may be the
    /// token that makes it fail.
    async fn ask(
        &self,
        portal: &Portal,
        token: &str,
        client: IpAddr,
    ) -> Result<Option<Grant>, Refusal> {
        portal.ask(token, client).await.map_err(|failure| {
            if failure.was_asked() {
                self.note_wrong(client, Some(token), Instant::now());
            }
            Refusal::Portal
        })
    }

    fn shown<'a>(&self, token: &'a str, client: IpAddr, now: Instant) -> Presented<'a> {
        Presented {
            token,
            client,
            owner: Subscriber::unless_many(client, &self.speak_for_many),
            may_be_new: !is_signed(token) || self.failures.blocked(client, now).is_none(),
        }
    }

    /// What becomes of a client whose token was looked at.
    fn judge(
        &self,
        found: Result<Admission, RedeemError>,
        token: Option<&str>,
        client: IpAddr,
        now: Instant,
    ) -> Result<Admission, Refusal> {
        match found {
            Ok(admission) => return Ok(admission),
            Err(RedeemError::Wrong | RedeemError::Denied) => {}
            Err(RedeemError::Closed) => return Err(Refusal::Draining),
            Err(RedeemError::Full) => return Err(Refusal::Full),
        }
        if let Some(retry_after) = self.failures.blocked(client, now) {
            return Err(Refusal::TooManyWrongTokens { retry_after });
        }
        self.note_wrong(client, token, now);
        Err(Refusal::Token)
    }

    fn note_wrong(&self, client: IpAddr, token: Option<&str>, now: Instant) {
        if self.failures.note(client, token, now) {
            warn!(
                %client,
                seconds = self.ban_time.as_secs(),
                "too many wrong tokens: further ones from this address are refused"
            );
        }
    }
}

impl Mode {
    fn look_up(&self, shown: &Presented<'_>, now: Instant) -> Result<Admission, RedeemError> {
        match self {
            Self::Tickets { tickets, ports } => {
                let lease = tickets.redeem(shown, now)?;
                if !may_be_reached(&lease.grant, ports) {
                    let (client, host) = (shown.client, &lease.grant.target);
                    debug!(%client, %host, "the ticket's port is not in FirstSpicePort, LastSpicePort");
                    return Err(RedeemError::Denied);
                }
                Ok(Admission::with_lease(lease))
            }
            Self::Ports {
                host,
                ports,
                sessions,
            } => {
                let port = parse_port(shown.token).filter(|port| ports.contains(port));
                let target = host.target(port.ok_or(RedeemError::Wrong)?);
                let lease = sessions.open((shown.client, target.clone()));
                Ok(Admission {
                    grant: Arc::new(Grant::new(target)),
                    session: lease.session,
                    hold: Hold::Port(lease),
                })
            }
        }
    }
}

/// Whether the ports are permitted to which a ticket leads. Which sockets may be reached is looked at
/// when one is connected.
fn may_be_reached(grant: &Grant, ports: &RangeInclusive<u16>) -> bool {
    grant.ports().all(|port| ports.contains(&port))
}

/// Digits only: what `str::parse` takes besides is no port that a manager gave.
fn parse_port(token: &str) -> Option<u16> {
    let digits = token.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| token.parse().ok()).flatten()
}

#[cfg(test)]
mod tests;
