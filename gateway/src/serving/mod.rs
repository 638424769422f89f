//! What happens to a request: a channel, the manager, or an error.

mod assembly;
mod handshake;
mod health;
mod live;
mod opening;
mod public_name;
pub(crate) mod query;
mod refused;
mod reply;
mod route;
mod tunnel;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use http::header::CONNECTION;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use ipnet::IpNet;

use crate::access_log::{AccessLog, Event, Requested};
use crate::admission::Admissions;
use crate::assignment::Assignments;
use crate::canonical_path::CanonicalPath;
use crate::channel::{ChannelLimits, HostConnector, Registry};
use crate::channel_type::ChannelTypes;
use crate::config::ForwardedHeader;
use crate::desktops::Desktops;
use crate::drain::Drain;
use crate::http::body::Body;
use crate::http::reply::{error, method_not_allowed};
use crate::http::{Client, ConnectionInfo, Origin, Recorded};
use crate::limits::ClientLimits;
use crate::limits::NetworkRules;
use crate::manager::{Manager, has_known_coding};
use crate::metrics::Metrics;
use crate::web_client::WebClient;
use crate::web_origin::OriginRules;
pub use assembly::PeerTls;
use gateway_datapath::Paths;
pub use health::{Health, Trouble};
pub use live::{Live, Serving};
use opening::open_channel;
use public_name::PublicNames;
use route::{Route, no_such_page, route};

/// Methods that are passed to the manager.
const MANAGER_METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

/// What requests are served with.
pub struct Gateway {
    /// The manager and what is done to its answers.
    pub manager: Manager,
    /// Who answers in place of a manager, if there is a file with desktops.
    pub desktops: Desktops,
    /// Path prefixes that belong to the manager.
    pub manager_paths: Vec<String>,
    /// Which tokens are good, and for what.
    pub admissions: Admissions,
    /// Tickets for whoever asks for them besides the manager's clients.
    pub assignments: Assignments,
    /// How much one client address may have open.
    pub client_limits: ClientLimits,
    /// The way to the hosts.
    pub hosts: HostConnector,
    /// Where requests and channels are recorded.
    pub access_log: AccessLog,
    /// Open channels.
    pub channels: Arc<Registry>,
    /// The data paths that channels can take.
    pub paths: Arc<Paths>,
    /// What channels may carry.
    pub allowed_channels: ChannelTypes,
    /// Time limits of channels.
    pub channel_limits: ChannelLimits,
    /// Whether tunnels are opened.
    pub connect: bool,
    /// Whose web pages may open WebSockets.
    pub origins: OriginRules,
    /// Which clients are served.
    pub clients: NetworkRules,
    /// Whose `X-Forwarded-*` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// In which headers they tell whom they speak for.
    pub forwarded_header: ForwardedHeader,
    /// Whether they tell where clients are to come back to.
    public_names: PublicNames,
    /// Longest request target, in bytes.
    pub max_uri_size: usize,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Whether new desktop sessions are refused.
    pub drain: Arc<Drain>,
    /// What balancers are told.
    pub health: Arc<Health>,
    /// Where they ask; `None`: nowhere.
    pub health_path: Option<String>,
    /// What browsers are shown.
    pub web_client: Arc<WebClient>,
}

impl Gateway {
    /// Whether a peer may go on to TLS and HTTP: a client that is allowed, or a proxy, whose
    /// clients show with their requests.
    pub fn admits(&self, peer: IpAddr) -> bool {
        self.clients.allow(peer) || self.trusted_proxies.iter().any(|net| net.contains(&peer))
    }

    /// Whether a client's requests are answered; one that nobody named only if there are no rules.
    fn serves(&self, client: Client) -> bool {
        match client {
            Client::At(address) => self.clients.allow(address),
            Client::Unnamed => self.clients.are_none(),
        }
    }

    /// Records a connection that was refused before any request.
    pub fn refused(&self, client: IpAddr, reason: &str) {
        self.access_log.write(|| Event::Refused {
            request: None,
            client,
            session: None,
            status: None,
            reason: reason.to_owned(),
        });
    }
}

/// Answers one request, and has it recorded.
pub async fn serve(
    gateway: &Gateway,
    connection: &ConnectionInfo,
    request: Request<Incoming>,
) -> Response<Recorded> {
    let begun = Instant::now();
    let (trusted, header) = (&gateway.trusted_proxies, gateway.forwarded_header);
    let origin = Origin::of(&request, connection, trusted, header);
    let mut requested = gateway.access_log.is_on().then(|| Requested {
        request: origin.request_id.clone(),
        client: origin.client.address(),
        certificate: connection.verified.certificate().cloned(),
        method: request.method().to_string(),
        path: Some(request.uri().path().to_owned()),
        status: 0,
        bytes: 0,
        ms: 0,
        complete: false,
    });
    let is_connect = request.method() == Method::CONNECT;
    let response = match answer(gateway, connection, &origin, request).await {
        Answered::Manager(response) | Answered::Page(response) => response,
        Answered::Own(response) => {
            // Somebody may have put a token there.
            if let Some(requested) = &mut requested {
                requested.path = None;
            }
            response
        }
        Answered::Channel(response) | Answered::Health(response) => {
            requested = None;
            response
        }
    };
    let (mut parts, body) = response.into_parts();
    if is_connect && !parts.status.is_success() {
        // What a client has sent already for its tunnel must not be taken for requests.
        let close = HeaderValue::from_static("close");
        parts.headers.insert(CONNECTION, close);
    }
    let body = match requested {
        Some(mut requested) => {
            requested.status = parts.status.as_u16();
            Recorded::new(body, gateway.access_log.clone(), requested, begun)
        }
        None => Recorded::without(body),
    };
    Response::from_parts(parts, body)
}

/// What a request was, with its answer.
enum Answered {
    /// The manager's, or why there is none.
    Manager(Response<Body>),
    /// One of the client for browsers.
    Page(Response<Body>),
    /// This gateway has nothing of the kind.
    Own(Response<Body>),
    /// For a channel, which is recorded in lines of its own.
    Channel(Response<Body>),
    /// For a balancer, which asks every few seconds; not recorded.
    Health(Response<Body>),
}

async fn answer(
    gateway: &Gateway,
    connection: &ConnectionInfo,
    origin: &Origin,
    request: Request<Incoming>,
) -> Answered {
    match route(gateway, &request, origin) {
        Ok(Route::Health) => Answered::Health(gateway.health.answer(request.method()).await),
        Ok(Route::Page(path)) => {
            let (method, headers) = (request.method(), request.headers());
            match gateway.web_client.answer(method, &path, headers, origin) {
                Some(response) => Answered::Page(response),
                None => Answered::Own(no_such_page()),
            }
        }
        Ok(Route::Manager(path)) => {
            Answered::Manager(pass_on(gateway, connection, origin, &path, request).await)
        }
        Ok(Route::Channel(opening)) => {
            Answered::Channel(open_channel(gateway, connection, origin, opening, request).await)
        }
        Err(refusal) => Answered::Own(*refusal),
    }
}

async fn pass_on(
    gateway: &Gateway,
    connection: &ConnectionInfo,
    origin: &Origin,
    path: &CanonicalPath,
    request: Request<Incoming>,
) -> Response<Body> {
    let is_known = MANAGER_METHODS
        .split(", ")
        .any(|method| method == request.method().as_str());
    if !is_known {
        return method_not_allowed(MANAGER_METHODS);
    }
    if !has_known_coding(request.headers()) {
        // RFC 9112, section 6.1.
        let message = "no transfer coding but chunked is known here";
        return error(StatusCode::NOT_IMPLEMENTED, message);
    }
    let local = connection.local;
    if path.is_desktop() {
        gateway.public_names.check(origin, local);
    }
    if gateway.desktops.are_configured() {
        return gateway.desktops.serve(request, path, origin, local).await;
    }
    gateway.manager.serve(request, path, origin, local).await
}
