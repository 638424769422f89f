//! Requests on their way to the manager (RFC 9110, section 7.6).

use std::error::Error;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use http::header::{
    CONNECTION, EXPECT, HOST, HeaderMap, HeaderName, HeaderValue, TE, TRAILER, TRANSFER_ENCODING,
    UPGRADE, VIA,
};
use http::{Request, Response, Uri, Version};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::ClientConfig;

use crate::causes::causes;
use crate::config::Config;
use crate::http::Origin;

/// Connections that wait for the next request are closed after this time.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// Why the manager gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum ManagerError {
    /// `ManagerIP` is empty; answered with 503.
    #[error("ManagerIP is not configured")]
    NotConfigured,
    /// Answered with 504.
    #[error("the manager did not answer in time")]
    Timeout,
    /// Answered with 502.
    #[error("{0}")]
    Unreachable(String),
}

impl ManagerError {
    /// The kind of reason, by which it is counted.
    pub fn name(&self) -> &'static str {
        match self {
            Self::NotConfigured => "not configured",
            Self::Timeout => "timeout",
            Self::Unreachable(_) => "unreachable",
        }
    }
}

type HttpsClient = Client<HttpsConnector<HttpConnector>, Incoming>;

/// Passes requests to the manager and its answers back, both streamed.
pub struct Forwarder {
    manager: Option<(HttpsClient, String)>,
    timeout: Duration,
}

impl Forwarder {
    /// `tls` decides which certificate the manager may have.
    pub fn new(config: &Config, tls: ClientConfig) -> Self {
        let manager = (!config.manager_ip.is_empty()).then(|| {
            let mut tcp = HttpConnector::new();
            tcp.enforce_http(false);
            tcp.set_nodelay(true);
            tcp.set_connect_timeout(Some(config.connect_timeout));
            let https = HttpsConnectorBuilder::new()
                .with_tls_config(tls)
                .https_only()
                .enable_http1()
                .wrap_connector(tcp);
            let client = Client::builder(TokioExecutor::new())
                .pool_timer(TokioTimer::new())
                .pool_idle_timeout(IDLE_TIMEOUT)
                .build(https);
            let host = &config.manager_ip;
            let authority = match host.parse::<IpAddr>() {
                Ok(IpAddr::V6(v6)) => format!("[{v6}]:{}", config.manager_port),
                _ => format!("{host}:{}", config.manager_port),
            };
            (client, authority)
        });
        Self {
            manager,
            timeout: config.manager_timeout,
        }
    }

    /// Asks the manager; the time limit is for the head of its answer.
    pub async fn forward(
        &self,
        request: Request<Incoming>,
        origin: &Origin,
    ) -> Result<Response<Incoming>, ManagerError> {
        let Some((client, authority)) = &self.manager else {
            return Err(ManagerError::NotConfigured);
        };
        let (mut parts, body) = request.into_parts();
        let target = parts
            .uri
            .path_and_query()
            .map_or("/", |target| target.as_str());
        parts.uri = Uri::builder()
            .scheme("https")
            .authority(authority.as_str())
            .path_and_query(target)
            .build()
            .map_err(|error| ManagerError::Unreachable(error.to_string()))?;
        via(&mut parts.headers, parts.version);
        parts.version = Version::HTTP_11;
        remove_hop_by_hop(&mut parts.headers);
        // The connection's own client writes the manager's name; `Expect` was met here.
        parts.headers.remove(HOST);
        parts.headers.remove(EXPECT);
        origin.write(&mut parts.headers);

        let answer = client.request(Request::from_parts(parts, body));
        match tokio::time::timeout(self.timeout, answer).await {
            Ok(Ok(mut response)) => {
                remove_hop_by_hop(response.headers_mut());
                *response.version_mut() = Version::HTTP_11;
                Ok(response)
            }
            Ok(Err(error)) if is_timeout(&error) => Err(ManagerError::Timeout),
            Ok(Err(error)) => Err(ManagerError::Unreachable(with_causes(&error))),
            Err(_) => Err(ManagerError::Timeout),
        }
    }
}

/// Removes what concerns one connection only (RFC 9110, section 7.6.1).
fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named {
        headers.remove(name);
    }
    for name in [CONNECTION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE] {
        headers.remove(name);
    }
    for name in [
        "keep-alive",
        "proxy-connection",
        "proxy-authorization",
        "proxy-authenticate",
    ] {
        headers.remove(name);
    }
}

/// Says that the request came through here (RFC 9110, section 7.6.3).
fn via(headers: &mut HeaderMap, received: Version) {
    let value = match received {
        Version::HTTP_10 => "1.0 flexvdi-gateway",
        _ => "1.1 flexvdi-gateway",
    };
    headers.append(VIA, HeaderValue::from_static(value));
}

fn with_causes(error: &(dyn Error + 'static)) -> String {
    let texts: Vec<_> = causes(error).map(ToString::to_string).collect();
    texts.join(": ")
}

/// Whether connecting took too long.
fn is_timeout(error: &(dyn Error + 'static)) -> bool {
    causes(error)
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|error| error.kind() == io::ErrorKind::TimedOut)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hop_by_hop_headers_stay_here() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "Keep-Alive, X-Private"),
            ("keep-alive", "timeout=5"),
            ("x-private", "1"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("content-type", "text/json"),
            ("cookie", "a=b"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        remove_hop_by_hop(&mut headers);
        let left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        assert_eq!(left, ["content-type", "cookie"]);
    }
}
