//! Requests on their way to the manager (RFC 9110, section 7.6).

use std::error::Error as StdError;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use http::header::{CONNECTION, EXPECT, HOST};
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, Uri, Version};
use hyper::body::{Body as _, Incoming};
use hyper_util::client::legacy::{Client, Error};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::ClientConfig;
use tracing::debug;

use super::headers;
use super::limited::Limited;
use crate::background;
use crate::canonical_path::CanonicalPath;
use crate::causes::{self, causes, find};
use crate::config::Config;
use crate::http::Origin;
use crate::http::body::Body;
use crate::http::steady::{BodyError, Steady};
use crate::https::{Connector, connector};
use crate::metrics::ManagerResult;
use crate::tcp;

/// Connections that wait for the next request are closed after this time.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// Connections that wait for the next request, at most.
const MAX_IDLE: usize = 32;

/// Why the manager gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum ManagerError {
    /// `ManagerIP` is empty; answered with 503.
    #[error("ManagerIP is not configured")]
    NotConfigured,
    /// Answered with 504.
    #[error("the manager did not answer in time")]
    Timeout,
    /// The client did not go on with the request's body; answered with 408.
    #[error("the client did not go on with its request")]
    ClientStalled,
    /// The gateway lacks descriptors, memory or threads; answered with 503.
    #[error("gateway is out of resources: {0}")]
    Resources(String),
    /// Answered with 502.
    #[error("{0}")]
    Unreachable(String),
}

impl ManagerError {
    /// The kind of reason, by which it is counted.
    pub fn label(&self) -> ManagerResult {
        match self {
            Self::NotConfigured => ManagerResult::NotConfigured,
            Self::Timeout => ManagerResult::Timeout,
            Self::ClientStalled => ManagerResult::ClientStalled,
            Self::Resources(_) => ManagerResult::Resources,
            Self::Unreachable(_) => ManagerResult::Unreachable,
        }
    }
}

type HttpsClient = Client<Limited<Connector>, Body>;

/// The manager, and the ways to it.
struct Peer {
    authority: String,
    /// Keeps connections for the next request.
    kept: HttpsClient,
    /// Opens a connection for each request. The manager may close a kept one just as a request
    /// comes, and whether it has acted on it nobody knows then (RFC 9112, section 9.3.1).
    fresh: HttpsClient,
}

/// Passes requests to the manager and its answers back, both streamed.
pub struct Forwarder {
    manager: Option<Peer>,
    timeout: Duration,
    /// Longest wait for more of a request's body.
    body_timeout: Duration,
}

impl Forwarder {
    /// `tls` decides which certificate the manager may have.
    pub fn new(config: &Config, tls: ClientConfig) -> Self {
        let manager = (!config.manager_ip.is_empty()).then(|| {
            let https = connector(tls, config.connect_timeout);
            let https = Limited::new(https, config.manager_timeout);
            let kept = Client::builder(TokioExecutor::new())
                .pool_timer(TokioTimer::new())
                .pool_idle_timeout(IDLE_TIMEOUT)
                .pool_max_idle_per_host(MAX_IDLE)
                .build(https.clone());
            let fresh = Client::builder(TokioExecutor::new())
                .pool_max_idle_per_host(0)
                .build(https);
            let host = &config.manager_ip;
            let authority = match host.parse::<IpAddr>() {
                Ok(IpAddr::V6(v6)) => format!("[{v6}]:{}", config.manager_port),
                _ => format!("{host}:{}", config.manager_port),
            };
            Peer {
                authority,
                kept,
                fresh,
            }
        });
        Self {
            manager,
            timeout: config.manager_timeout,
            body_timeout: config.header_timeout,
        }
    }

    /// Asks the manager for `path` and the request's own query. There is a time limit for the head
    /// of its answer, and one for each further part of both bodies.
    pub async fn forward(
        &self,
        request: Request<Incoming>,
        path: &CanonicalPath,
        origin: &Origin,
    ) -> Result<Response<Steady>, ManagerError> {
        let Some(manager) = &self.manager else {
            return Err(ManagerError::NotConfigured);
        };
        let (mut parts, body) = request.into_parts();
        let target = match parts.uri.query() {
            Some(query) => format!("{}?{query}", path.as_str()),
            None => path.as_str().to_owned(),
        };
        parts.uri = Uri::builder()
            .scheme("https")
            .authority(manager.authority.as_str())
            .path_and_query(target)
            .build()
            .map_err(|error| ManagerError::Unreachable(error.to_string()))?;
        headers::via(&mut parts.headers, parts.version);
        parts.version = Version::HTTP_11;
        headers::remove_hop_by_hop(&mut parts.headers);
        headers::remove_believed(&mut parts.headers);
        // The connection's own client writes the manager's name; `Expect` was met here.
        parts.headers.remove(HOST);
        parts.headers.remove(EXPECT);
        origin.write(&mut parts.headers);

        let body = Steady::new(body, self.body_timeout);
        let answer = tokio::time::timeout(self.timeout, manager.ask(parts, body));
        let mut response = match answer.await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) if is_stalled(&error) => return Err(ManagerError::ClientStalled),
            Ok(Err(error)) if is_timeout(&error) => return Err(ManagerError::Timeout),
            Ok(Err(error)) if is_shortage(&error) => {
                return Err(ManagerError::Resources(causes::text(&error)));
            }
            Ok(Err(error)) => return Err(ManagerError::Unreachable(causes::text(&error))),
            Err(_) => return Err(ManagerError::Timeout),
        };
        check(&response)?;
        headers::remove_hop_by_hop(response.headers_mut());
        *response.version_mut() = Version::HTTP_11;
        Ok(response.map(|body| Steady::new(body, self.timeout)))
    }
}

impl Peer {
    async fn ask(&self, mut parts: Parts, body: Steady) -> Result<Response<Incoming>, Error> {
        let is_safe = matches!(parts.method, Method::GET | Method::HEAD | Method::OPTIONS);
        if is_safe && body.is_end_stream() {
            let request = Request::from_parts(parts.clone(), Body::empty());
            match self.kept.request(request).await {
                // Nothing is changed by asking again.
                Err(error) if !error.is_connect() => {}
                answered => return answered,
            }
            debug!("kept connection to the manager was of no use");
        }
        let body = if body.is_end_stream() {
            Body::empty()
        } else {
            Body::Streamed(body)
        };
        // The manager need not wait for another request.
        let close = HeaderValue::from_static("close");
        parts.headers.insert(CONNECTION, close);
        self.fresh.request(Request::from_parts(parts, body)).await
    }
}

/// Whether an answer is one to pass on.
fn check(response: &Response<Incoming>) -> Result<(), ManagerError> {
    let status = response.status();
    let strange = if status.is_informational() {
        // All others of this kind come before an answer, and are skipped.
        format!("status {status}, which nobody asked for")
    } else if !headers::has_known_coding(response.headers()) {
        "a transfer coding other than chunked".to_owned()
    } else {
        return Ok(());
    };
    Err(ManagerError::Unreachable(format!(
        "the manager's answer has {strange}"
    )))
}

/// Whether the client did not go on with the body of its request.
fn is_stalled(error: &(dyn StdError + 'static)) -> bool {
    matches!(find(error), Some(BodyError::Stalled(_)))
}

/// Whether the gateway has not what it takes to connect.
fn is_shortage(error: &(dyn StdError + 'static)) -> bool {
    background::is_busy(error)
        || causes(error)
            .filter_map(|cause| cause.downcast_ref::<io::Error>())
            .any(tcp::is_resource_error)
}

/// Whether connecting took too long.
fn is_timeout(error: &(dyn StdError + 'static)) -> bool {
    causes(error)
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|error| error.kind() == io::ErrorKind::TimedOut)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::background::ResolveError;

    #[test]
    fn a_shortage_of_the_gateway_is_not_the_managers_failure() {
        let is_short = |number| {
            let error: ResolveError = Box::new(io::Error::from_raw_os_error(number));
            is_shortage(&*error)
        };
        // EMFILE and ECONNREFUSED.
        assert!(is_short(24));
        assert!(!is_short(111));
        assert!(is_shortage(&background::WorkError::from(background::Busy)));
    }
}
