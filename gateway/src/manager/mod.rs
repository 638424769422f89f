//! The manager behind the gateway: requests are passed to it, its answers back.

mod certificate;
mod collect;
mod forward;
mod headers;
pub mod hijack;
mod limited;

use std::net::IpAddr;
use std::sync::Arc;

use http::header::{
    ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, ETAG, HeaderMap, TRANSFER_ENCODING,
};
use http::response::Parts;
use http::{HeaderValue, Request, Response, StatusCode};
use hyper::body::Incoming;
use tracing::{debug, info, warn};

pub use certificate::{ManagerTlsError, acme_config, client_config, portal_config};
pub use forward::{Forwarder, ManagerError};
pub use headers::has_known_coding;

use crate::assignment::Assignments;
use crate::canonical_path::CanonicalPath;
use crate::config::Config;
use crate::drain::Drain;
use crate::http::body::Body;
use crate::http::steady::BodyError;
use crate::http::{Client, Origin, reply};
use crate::metrics::{DesktopRefusal, ManagerResult, Metrics};
use crate::refusal;
use collect::Collected;
use hijack::{Answer, DesktopAnswer, HijackError, Replacement};

/// Longest answer that is looked into, in bytes.
const MAX_ANSWER: usize = 1 << 20;

/// The manager, and what the gateway does to its answers.
pub struct Manager {
    forwarder: Forwarder,
    assignments: Assignments,
    drain: Arc<Drain>,
    metrics: Arc<Metrics>,
    config: Config,
}

impl Manager {
    /// `assignments` makes the tickets. While `drain` is on there are no new ones.
    pub fn new(
        config: &Config,
        forwarder: Forwarder,
        assignments: Assignments,
        drain: Arc<Drain>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            forwarder,
            assignments,
            drain,
            metrics,
            config: config.clone(),
        }
    }

    /// Passes a request on and gives the client the manager's answer, or why there is none.
    ///
    /// `local` is the address that the client connected to.
    pub async fn serve(
        &self,
        mut request: Request<Incoming>,
        path: &CanonicalPath,
        origin: &Origin,
        local: IpAddr,
    ) -> Response<Body> {
        let is_desktop = path.is_desktop();
        let (method, shown) = (request.method(), path.as_str());
        debug!(client = %origin.client, %method, path = shown, "manager asked");
        if is_desktop && self.config.hijack_all && self.drain.refuses() {
            // The manager is not asked: it would start a desktop for nobody.
            info!(client = %origin.client, reason = "draining", "desktop refused");
            self.metrics
                .desktops_refused
                .count(DesktopRefusal::Draining);
            return reply::error(StatusCode::SERVICE_UNAVAILABLE, refusal::NO_NEW_DESKTOPS);
        }
        if is_desktop {
            // What is to be read and changed had better come uncompressed.
            let identity = HeaderValue::from_static("identity");
            request.headers_mut().insert(ACCEPT_ENCODING, identity);
        }
        match self.answer(request, path, origin, local).await {
            Ok(response) => {
                self.metrics.manager_requests.count(ManagerResult::Answered);
                response
            }
            Err(failure) => {
                self.metrics.manager_requests.count(failure.label());
                if matches!(failure, ManagerError::NotConfigured) {
                    debug!(client = %origin.client, reason = %failure, "no answer from the manager");
                } else {
                    warn!(client = %origin.client, reason = %failure, "no answer from the manager");
                }
                let (status, message) = answer_for(&failure);
                if path.is_authmode() {
                    // An answer in JSON is shown as "Access denied" there.
                    reply::plain_error(status, message)
                } else {
                    reply::error(status, message)
                }
            }
        }
    }

    async fn answer(
        &self,
        request: Request<Incoming>,
        path: &CanonicalPath,
        origin: &Origin,
        local: IpAddr,
    ) -> Result<Response<Body>, ManagerError> {
        let response = self.forwarder.forward(request, path, origin).await?;
        if !path.is_desktop() {
            return Ok(response.map(Body::Streamed));
        }
        let (mut parts, body) = response.into_parts();
        let collect = collect::up_to(body, MAX_ANSWER);
        let collected = tokio::time::timeout(self.config.manager_timeout, collect)
            .await
            .map_err(|_| ManagerError::Timeout)?
            .map_err(|error| match error {
                BodyError::Stalled(_) => ManagerError::Timeout,
                BodyError::Http(error) => ManagerError::Unreachable(error.to_string()),
            })?;
        let whole = match collected {
            Collected::Whole(whole) => whole,
            Collected::TooLong(..) if self.config.hijack_all => {
                return Ok(
                    self.withheld(origin.client, &HijackError::TooLong { limit: MAX_ANSWER })
                );
            }
            Collected::TooLong(begun, rest) => {
                warn!(client = %origin.client, "the manager's answer is too long to be changed");
                return Ok(Response::from_parts(
                    parts,
                    Body::Resumed(Some(begun), rest),
                ));
            }
        };
        match self.changed(&parts, &whole, origin, local).await {
            Ok(Some(changed)) => {
                let headers = &mut parts.headers;
                for stale in [CONTENT_ENCODING, CONTENT_LENGTH, TRANSFER_ENCODING, ETAG] {
                    headers.remove(stale);
                }
                Ok(Response::from_parts(parts, Body::from(changed)))
            }
            Ok(None) => Ok(Response::from_parts(parts, Body::Whole(Some(whole)))),
            Err(refusal) => Ok(*refusal),
        }
    }

    /// The answer as the client is to see it; `None`: as it is. The error is another answer.
    async fn changed(
        &self,
        parts: &Parts,
        body: &[u8],
        origin: &Origin,
        local: IpAddr,
    ) -> Result<Option<Vec<u8>>, Box<Response<Body>>> {
        let client = origin.client;
        // What shows nothing of a host, and what is plainly an error and none of the API's, passes;
        // anything else that cannot be read might show one.
        let hides = self.config.hijack_all && !body.is_empty();
        let unchanged = |reason: &HijackError, hides: bool| {
            if hides {
                return Err(Box::new(self.withheld(client, reason)));
            }
            warn!(%client, %reason, "the manager's answer is forwarded unchanged");
            Ok(None)
        };
        let decoded = match decode(&parts.headers, body) {
            Ok(decoded) => decoded,
            Err(reason) => return unchanged(&reason, hides),
        };
        let answer = match hijack::parse(decoded.as_deref().unwrap_or(body)) {
            Ok(Answer::Desktop(answer)) => answer,
            Ok(Answer::Other) => return Ok(None),
            Err(reason) => return unchanged(&reason, hides && parts.status.is_success()),
        };
        if self.config.hijack_all {
            self.hijacked(&answer, origin, local).await
        } else {
            Ok(Some(answer.rewrite(None)))
        }
    }

    /// What a client gets in place of an answer that might show it a host.
    fn withheld(&self, client: Client, reason: &HijackError) -> Response<Body> {
        self.metrics.desktops_refused.count(DesktopRefusal::Answer);
        warn!(%client, %reason, "the manager's answer is withheld: it cannot be changed");
        reply::error(StatusCode::BAD_GATEWAY, refusal::NO_DESKTOP)
    }

    async fn hijacked(
        &self,
        answer: &DesktopAnswer<'_>,
        origin: &Origin,
        local: IpAddr,
    ) -> Result<Option<Vec<u8>>, Box<Response<Body>>> {
        let client = origin.client;
        let grant = match answer.destination() {
            Ok(grant) => grant,
            Err(reason) => return Err(Box::new(self.withheld(client, &reason))),
        };
        let assigned = self.assignments.assign(grant, client, &origin.request_id);
        let assigned = assigned
            .await
            .map_err(|refused| Box::new(refused.answer()))?;
        let own_address = origin.own_address(self.config.external_name.as_ref(), local);
        Ok(Some(answer.rewrite(Some(&Replacement {
            address: &own_address,
            ticket: &assigned.ticket,
        }))))
    }
}

/// Undoes the answer's content coding; `None`: it has none.
fn decode(headers: &HeaderMap, body: &[u8]) -> Result<Option<Vec<u8>>, HijackError> {
    let mut codings = headers
        .get_all(CONTENT_ENCODING)
        .iter()
        .map(|value| {
            value
                .to_str()
                .unwrap_or("unreadable")
                .trim()
                .to_ascii_lowercase()
        })
        .filter(|coding| !coding.is_empty() && coding != "identity");
    match (codings.next().as_deref(), codings.next()) {
        (None, _) => Ok(None),
        (Some("gzip" | "x-gzip"), None) => hijack::gunzip(body, MAX_ANSWER).map(Some),
        (Some(other), _) => Err(HijackError::Coding(other.to_owned())),
    }
}

/// Why the manager gave no answer: status, and what people are told.
fn answer_for(failure: &ManagerError) -> (StatusCode, &'static str) {
    match failure {
        ManagerError::NotConfigured => (
            StatusCode::SERVICE_UNAVAILABLE,
            "There are no desktops at this address. Please check it, or contact your administrator.",
        ),
        ManagerError::Timeout => (
            StatusCode::GATEWAY_TIMEOUT,
            "The desktop service did not answer in time. Please try again later.",
        ),
        ManagerError::Resources(_) => (
            StatusCode::SERVICE_UNAVAILABLE,
            "Too many people ask for desktops at the moment. Please try again later.",
        ),
        ManagerError::Unreachable(_) => (
            StatusCode::BAD_GATEWAY,
            "The desktop service cannot be reached. Please try again later.",
        ),
        ManagerError::ClientStalled => (
            StatusCode::REQUEST_TIMEOUT,
            "Your request did not arrive in time. Please try again.",
        ),
    }
}
