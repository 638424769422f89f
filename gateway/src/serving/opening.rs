//! How a channel is opened: checks, the way to its host, and the answer.

use std::net::SocketAddr;
use std::sync::Arc;

use http::header::ORIGIN;
use http::{HeaderMap, HeaderValue, Request, Response};
use hyper::body::Incoming;

use super::query::Query;
use super::refused::Refused;
use super::{Gateway, handshake, tunnel};
use crate::access_log::Event;
use crate::admission::Admission;
use crate::channel::{Channel, HostSide, LateHost};
use crate::http::body::Body;
use crate::http::{ConnectionInfo, Origin};
use crate::refusal::Refusal;
use crate::session::ChannelId;
use gateway_datapath::Framing;

/// How a channel is asked for.
pub(super) enum Opening {
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

/// Opens it, or says and records why not.
pub(super) async fn open_channel(
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
