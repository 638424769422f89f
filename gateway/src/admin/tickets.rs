//! Tickets for whoever may use the socket of the command line: other managers, portals, scripts.

use std::net::IpAddr;
use std::time::Duration;

use http::{Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;
use tracing::info;

use super::Admin;
use crate::access_log::RequestId;
use crate::assignment::AssignError;
use crate::described::{Described, DescribedError, Networks, NetworksError, present};
use crate::grant::Grant;
use crate::host_tls::{DigestError, HostTls};
use crate::http::body::Body;
use crate::http::{Client, reply};
use crate::metrics::DesktopRefusal;
use crate::pool::SealError;
use crate::ticket::{Form, IssueError, Wish};

/// What the port for administrators says, which asks nobody who they are.
pub(super) const NOT_HERE: &str =
    "tickets are made only through the socket admin.sock in RuntimeDir";
/// Longest body of a request, in bytes: far more than a host's name needs.
const MAX_BODY: usize = 16 * 1024;
/// Longest wait for it.
const PATIENCE: Duration = Duration::from_secs(10);

/// The body of `POST /tickets`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Order {
    /// Name or address of the desktop's host, or `unix:` with the path of a socket.
    pub(super) host: String,
    /// Its Spice port; a Unix socket has none.
    #[serde(default, deserialize_with = "present")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) port: Option<u16>,
    /// Its port for Spice inside TLS.
    #[serde(default, deserialize_with = "present")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tls_port: Option<u16>,
    /// Names of the types of channels that may pass; `None`: all.
    #[serde(default, deserialize_with = "present")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) channels: Option<Vec<String>>,
    /// Where clients have to be; `None`: anywhere.
    #[serde(default, deserialize_with = "present")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) network: Option<Networks>,
    /// SHA-256 of the certificate that the host has at its Spice port, which is one for TLS then;
    /// `None`: as the configuration says.
    #[serde(default, deserialize_with = "present")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) fingerprint: Option<String>,
    /// In how many seconds the ticket has to be used; `None`: in `TicketTimeout`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) for_seconds: Option<u64>,
    /// Address of the client that it is for, for logs and limits; `None`: not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) client: Option<IpAddr>,
    /// Whether the ticket is to be a host name.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) host_name: bool,
}

impl Order {
    /// What the ticket is to permit.
    fn grant(&self) -> Result<Grant, NoTicket> {
        let clients = self.network.as_ref().map(Networks::parse).transpose()?;
        let digest = self.fingerprint.as_deref().map(str::parse).transpose()?;
        let described = Described {
            host: &self.host,
            port: self.port,
            tls_port: self.tls_port,
            channels: self.channels.as_deref(),
            clients: clients.unwrap_or_default(),
            tls: digest.map(HostTls::pinned),
        };
        Ok(described.grant()?)
    }
}

/// The answer.
#[derive(Serialize, Deserialize)]
pub(super) struct Made {
    pub(super) ticket: String,
    /// Number of the desktop session.
    pub(super) session: String,
    /// In how many seconds the ticket has to be used.
    pub(super) expires_in: u64,
    /// What a WebSocket of the session is opened with.
    pub(super) path: String,
}

/// Why there is no ticket.
#[derive(Debug, thiserror::Error)]
enum NoTicket {
    #[error("the request's body did not arrive in time")]
    Slow,
    #[error("the request's body is longer than {MAX_BODY} bytes, or broke off")]
    Body,
    #[error("expected a JSON object such as {{\"host\": \"10.0.0.21\", \"port\": 5901}}: {0}")]
    Json(serde_json::Error),
    #[error(transparent)]
    Desktop(#[from] DescribedError),
    #[error(transparent)]
    Network(#[from] NetworksError),
    #[error("fingerprint: {0}")]
    Fingerprint(#[from] DigestError),
    #[error("for_seconds: expected 1 to {most}, found {found}{}", if *.is_pool { " (TicketTimeout, as the gateways of a pool take no ticket that lives longer)" } else { "" })]
    Life {
        most: u64,
        found: u64,
        is_pool: bool,
    },
    #[error("there are no tickets without HijackAll: the token is the Spice port itself")]
    NoTickets,
    #[error("the gateway drains: no new desktop sessions")]
    Draining,
    #[error("{}", refused(*.0))]
    Refused(AssignError),
}

fn refused(error: AssignError) -> String {
    match error {
        AssignError::Port => {
            "port or tls_port: outside of FirstSpicePort and LastSpicePort, see the configuration"
                .to_owned()
        }
        AssignError::Host => {
            "host: not allowed by AllowedHosts and DeniedHosts, see the configuration".to_owned()
        }
        AssignError::Socket => {
            "host: not allowed by AllowedSockets, see the configuration".to_owned()
        }
        AssignError::Issue(error) => error.to_string(),
    }
}

impl NoTicket {
    fn status(&self) -> StatusCode {
        match self {
            Self::Slow => StatusCode::REQUEST_TIMEOUT,
            Self::Body
            | Self::Json(_)
            | Self::Desktop(_)
            | Self::Network(_)
            | Self::Fingerprint(_)
            | Self::Life { .. }
            // In a pool, where a ticket has no room for all that can be asked for.
            | Self::Refused(AssignError::Issue(
                IssueError::HostName | IssueError::Seal(SealError::NoRoom),
            )) => StatusCode::BAD_REQUEST,
            Self::NoTickets => StatusCode::CONFLICT,
            Self::Draining | Self::Refused(AssignError::Issue(_)) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::Refused(AssignError::Port | AssignError::Host | AssignError::Socket) => {
                StatusCode::FORBIDDEN
            }
        }
    }
}

/// Answers `POST /tickets`.
pub(super) async fn make(admin: &Admin, body: Incoming) -> Response<Body> {
    match ordered(admin, body).await {
        Ok(made) => {
            let text = serde_json::json!(made).to_string();
            reply::of_type(reply::JSON, StatusCode::CREATED, text)
        }
        Err(reason) => reply::error(reason.status(), &reason.to_string()),
    }
}

async fn ordered(admin: &Admin, body: Incoming) -> Result<Made, NoTicket> {
    let body = timeout(PATIENCE, Limited::new(body, MAX_BODY).collect()).await;
    let body = body.map_err(|_| NoTicket::Slow)?;
    let body = body.map_err(|_| NoTicket::Body)?.to_bytes();
    let order: Order = serde_json::from_slice(&body).map_err(NoTicket::Json)?;
    let grant = order.grant()?;
    // Not before: the configuration may have changed while the body came.
    let serving = admin.sources.live.current();
    let gateway = &serving.gateway;
    if !gateway.admissions.are_tickets() {
        return Err(NoTicket::NoTickets);
    }
    let most = gateway.assignments.longest_life().as_secs();
    if let Some(found) = order.for_seconds
        && !(1..=most).contains(&found)
    {
        let is_pool = serving.config.pool_key_file.is_some();
        return Err(NoTicket::Life {
            most,
            found,
            is_pool,
        });
    }
    let client = order.client.map(Client::from);
    if gateway.drain.refuses() {
        let client = client.unwrap_or(Client::Unnamed);
        info!(%client, reason = "draining", "desktop refused");
        let refused = &gateway.metrics.desktops_refused;
        refused.count(DesktopRefusal::Draining);
        return Err(NoTicket::Draining);
    }
    let wish = Wish {
        life: order.for_seconds.map(Duration::from_secs),
        form: Form::of(order.host_name),
    };
    let request = RequestId::next();
    let assigning = gateway.assignments.assign_as(wish, grant, client, &request);
    let assigned = assigning.await.map_err(NoTicket::Refused)?;
    Ok(Made {
        // Of characters that mean themselves in an address.
        path: format!("/?ver=2&token={}", assigned.ticket),
        ticket: assigned.ticket,
        session: assigned.session.to_string(),
        expires_in: assigned.life.as_secs(),
    })
}
