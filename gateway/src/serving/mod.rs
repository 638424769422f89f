//! What happens to a request: a channel, the manager, or an error.

mod assembly;
mod handshake;
mod health;
mod live;
mod public_name;
mod refused;
mod reply;
mod tunnel;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use http::header::{CONNECTION, HOST, ORIGIN};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use ipnet::IpNet;
use tracing::{debug, info};

use crate::access_log::{AccessLog, Event, Requested};
use crate::admission::{Admission, Admissions};
use crate::assignment::Assignments;
use crate::canonical_path::CanonicalPath;
use crate::channel::{Channel, ChannelLimits, HostConnector, HostSide, LateHost, Registry};
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
use crate::refusal::Refusal;
use crate::session::ChannelId;
use crate::web_client::{WebClient, is_foreign_login};
use crate::web_origin::OriginRules;
pub use assembly::PeerTls;
use gateway_datapath::{Framing, Paths};
pub use health::{Health, Trouble};
pub use live::{Live, Serving};
use public_name::PublicNames;
use refused::Refused;

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

enum Route {
    Health,
    Page(CanonicalPath),
    Manager(CanonicalPath),
    Channel(Opening),
}

/// How a channel is asked for.
enum Opening {
    WebSocket(Query),
    Tunnel,
}

impl Opening {
    fn framing(&self) -> Framing {
        match self {
            Self::WebSocket(_) => Framing::WebSocket,
            Self::Tunnel => Framing::Raw,
        }
    }
}

/// Who answers a request; the error is the answer.
fn route(
    gateway: &Gateway,
    request: &Request<Incoming>,
    origin: &Origin,
) -> Result<Route, Box<Response<Body>>> {
    let refuse = |status, message| Err(Box::new(error(status, message)));
    let uri = request.uri();
    let path_len = uri
        .path_and_query()
        .map_or(0, |target| target.as_str().len());
    let authority_len = uri
        .authority()
        .map_or(0, |authority| authority.as_str().len());
    let target_len = if request.method() == Method::CONNECT {
        authority_len
    } else {
        path_len
    };
    if target_len > gateway.max_uri_size {
        return refuse(StatusCode::URI_TOO_LONG, "request target too long");
    }
    // RFC 9112, section 3.2.
    let hosts = request.headers().get_all(HOST).iter().count();
    if hosts > 1 || (hosts == 0 && request.version() >= Version::HTTP_11) {
        return refuse(StatusCode::BAD_REQUEST, "one Host header is needed");
    }
    if gateway.health_path.as_deref() == Some(uri.path()) {
        return Ok(Route::Health);
    }
    if !gateway.serves(origin.client) {
        info!(client = %origin.client, "client is not allowed");
        return refuse(
            StatusCode::FORBIDDEN,
            "clients of this address are not served",
        );
    }
    // Whose target is no path.
    if request.method() == Method::CONNECT {
        return Ok(Route::Channel(Opening::Tunnel));
    }
    let query = Query::parse(uri.query().unwrap_or_default());
    let is_upgrade = handshake::is_upgrade(request.headers());
    // Channels are known by their tokens, whatever the path is.
    if !(is_upgrade && query.token.is_some()) && uri.path().starts_with('/') {
        match CanonicalPath::parse(uri.path()) {
            Ok(path) if is_managers(&path, &gateway.manager_paths) => {
                let (method, headers) = (request.method(), request.headers());
                // Elsewhere it is for the manager to decide.
                let are_own = gateway.web_client.is_on() || gateway.desktops.are_configured();
                if are_own && is_foreign_login(method, &path, headers, &gateway.origins) {
                    info!(client = %origin.client, "login by a web page of another site refused");
                    let message = "web pages of other sites may not log in here";
                    return refuse(StatusCode::FORBIDDEN, message);
                }
                return Ok(Route::Manager(path));
            }
            // A token or an upgrade is for a channel, which may be at the path of the page.
            Ok(path) if query.token.is_none() && !is_upgrade && gateway.web_client.has(&path) => {
                return Ok(Route::Page(path));
            }
            Ok(_) => {}
            Err(ambiguous) => {
                debug!(client = %origin.client, reason = %ambiguous, "request refused");
                let message = "this path may be read in several ways";
                return refuse(StatusCode::BAD_REQUEST, message);
            }
        }
    }
    if query.token.is_none() && !is_upgrade {
        return Err(Box::new(no_such_page()));
    }
    if request.method() != Method::GET {
        return Err(Box::new(method_not_allowed("GET")));
    }
    Ok(Route::Channel(Opening::WebSocket(query)))
}

fn no_such_page() -> Response<Body> {
    error(StatusCode::NOT_FOUND, "no such page on this gateway")
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

async fn open_channel(
    gateway: &Gateway,
    connection: &ConnectionInfo,
    origin: &Origin,
    opening: Opening,
    mut request: Request<Incoming>,
) -> Response<Body> {
    let framing = opening.framing();
    match begin_channel(gateway, connection, origin, opening, &mut request).await {
        Ok(accepted) => accepted.map(|()| Body::empty()),
        Err(refused) => {
            let client = origin.client.address();
            refused.log(client, framing);
            let answer = refused.answered(&gateway.metrics);
            gateway.access_log.write(|| Event::Refused {
                request: Some(origin.request_id.clone()),
                client,
                session: refused.session().map(|session| session.to_string()),
                status: Some(answer.status().as_u16()),
                reason: refused.to_string(),
            });
            answer
        }
    }
}

/// Checks that a channel may be opened, connects to its host and starts it; gives the 101, or the
/// 200 of a tunnel.
async fn begin_channel(
    gateway: &Gateway,
    connection: &ConnectionInfo,
    origin: &Origin,
    opening: Opening,
    request: &mut Request<Incoming>,
) -> Result<Response<()>, Refused> {
    let client = origin.client.address();
    let framing = opening.framing();
    let (response, token, answers_pings) = match opening {
        Opening::WebSocket(query) => {
            let response = handshake::accept(request)?;
            check_page(gateway, origin, request.headers())?;
            (response, query.token, query.version >= 2)
        }
        Opening::Tunnel if !gateway.connect => return Err(Refusal::ConnectOff.into()),
        Opening::Tunnel => {
            let ticket = tunnel::ticket(request)?;
            (Response::new(()), Some(ticket), false)
        }
    };
    let admitted = gateway.admissions.admit_or_ask(token.as_deref(), client);
    let admission = admitted.await?;
    if is_too_new(gateway, &admission) {
        return Err(Refusal::Draining.into());
    }
    let session = admission.session;
    let place = gateway.client_limits.admit(client, session);
    let place = place.map_err(|refusal| Refused::in_session(refusal, session))?;
    let address = SocketAddr::new(client, origin.client_port);
    let host = host_side(gateway, framing, address, &admission).await?;
    let allowed = gateway.allowed_channels.and(admission.grant.channels);
    let channel = Channel {
        id: ChannelId::next(),
        request_id: origin.request_id.clone(),
        access_log: gateway.access_log.clone(),
        certificate: connection.verified.certificate().cloned(),
        client,
        client_port: origin.client_port,
        admission,
        framing,
        answers_pings,
        host,
        permit: Arc::clone(&connection.permit),
        place,
        allowed,
    };
    let upgrade = hyper::upgrade::on(request);
    channel.spawn(
        upgrade,
        gateway.channel_limits,
        &gateway.channels,
        &gateway.paths,
    );
    Ok(response)
}

/// Connects to the host; where a tunnel could go to either of two ports, that is for later.
async fn host_side(
    gateway: &Gateway,
    framing: Framing,
    client: SocketAddr,
    admission: &Admission,
) -> Result<HostSide, Refused> {
    let target = &admission.grant.target;
    if let (Framing::Raw, Some(tls_target)) = (framing, admission.grant.tls_target()) {
        return Ok(HostSide::Later(LateHost {
            hosts: gateway.hosts.clone(),
            metrics: Arc::clone(&gateway.metrics),
            grant: Arc::clone(&admission.grant),
            tls_target,
            client,
        }));
    }
    let connected = gateway
        .hosts
        .connect(&admission.grant, client, &gateway.metrics)
        .await;
    let host = connected.map_err(|failure| Refused::Host {
        failure,
        session: admission.session,
        target: target.clone(),
    })?;
    Ok(HostSide::Connected(host))
}

/// Whether the web page that opens a WebSocket may do so.
fn check_page(gateway: &Gateway, origin: &Origin, headers: &HeaderMap) -> Result<(), Refused> {
    let checked = gateway
        .origins
        .check(headers, origin.authority(), origin.is_https());
    checked.map_err(|refusal| {
        let page = headers.get(ORIGIN).map(HeaderValue::as_bytes);
        let page = page.unwrap_or_default().escape_ascii().to_string();
        Refused::of_page(refusal, page)
    })
}

/// Whether a channel would begin a desktop session while the gateway drains. One with a ticket
/// began with the answer that had the ticket.
fn is_too_new(gateway: &Gateway, admission: &Admission) -> bool {
    gateway.drain.refuses()
        && !gateway.admissions.are_tickets()
        && !gateway.channels.has_session(admission.session)
}

/// What the query of a WebSocket's address says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Query {
    pub(crate) token: Option<String>,
    /// 1 unless `ver` says more; from 2 on the client answers Pings.
    pub(crate) version: u32,
}

impl Query {
    pub(crate) fn parse(query: &str) -> Self {
        let mut parsed = Self {
            token: None,
            version: 1,
        };
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*name {
                "token" => parsed.token = Some(value.into_owned()),
                "ver" => parsed.version = value.parse().unwrap_or(1),
                _ => {}
            }
        }
        parsed
    }
}

fn is_managers(path: &CanonicalPath, prefixes: &[String]) -> bool {
    let mut prefixes = prefixes.iter();
    prefixes.any(|prefix| path.as_str().starts_with(prefix.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_query_is_read_in_any_order() {
        let query = Query::parse("token=a-b_c&ver=2");
        assert_eq!(query.token.as_deref(), Some("a-b_c"));
        assert_eq!(query.version, 2);
        assert_eq!(Query::parse("ver=x&token=5900").version, 1);
        assert_eq!(Query::parse("token=%35900").token.as_deref(), Some("5900"));
        assert_eq!(Query::parse("").token, None);
    }

    #[test]
    fn only_the_managers_own_paths_are_its() {
        let prefixes = ["/vdi/".to_owned()];
        let managers = |path: &str| {
            let path = CanonicalPath::parse(path).unwrap();
            is_managers(&path, &prefixes)
        };
        for path in ["/vdi/desktop", "/vdi/", "/vdi/a.b/..c", "/%76di/x"] {
            assert!(managers(path), "{path}");
        }
        for path in ["/", "/vdi", "/vdix", "/x/vdi/", "/VDI/x"] {
            assert!(!managers(path), "{path}");
        }
    }
}
