//! Answers to those who may not open a channel, or find no host.

use std::time::Duration;

use http::header::{PROXY_AUTHENTICATE, RETRY_AFTER, SEC_WEBSOCKET_VERSION, UPGRADE};
use http::{HeaderValue, Response, StatusCode};

use super::handshake::HandshakeError;
use super::tunnel::TunnelError;
use crate::admission::Refusal;
use crate::channel::ConnectError;
use crate::drain;
use crate::http::body::Body;
use crate::http::reply::{NO_DESKTOP, TOO_MANY_DESKTOPS, error, method_not_allowed};

/// Why a token was not accepted.
pub(super) fn refusal(refusal: Refusal) -> Response<Body> {
    let message = refusal.to_string();
    match refusal {
        Refusal::Token => error(StatusCode::FORBIDDEN, &message),
        Refusal::Draining => error(StatusCode::SERVICE_UNAVAILABLE, drain::MESSAGE),
        Refusal::Portal => error(StatusCode::SERVICE_UNAVAILABLE, NO_DESKTOP),
        Refusal::Full => error(StatusCode::SERVICE_UNAVAILABLE, TOO_MANY_DESKTOPS),
        Refusal::Questions => too_many(&message, Duration::ZERO),
        Refusal::TooMany { retry_after } => too_many(&message, retry_after),
    }
}

fn too_many(message: &str, retry_after: Duration) -> Response<Body> {
    let mut response = error(StatusCode::TOO_MANY_REQUESTS, message);
    let seconds = HeaderValue::from(retry_after.as_secs().max(1));
    response.headers_mut().insert(RETRY_AFTER, seconds);
    response
}

/// Why a handshake was not accepted (RFC 6455, section 4.2.2).
pub(super) fn handshake(failure: HandshakeError) -> Response<Body> {
    let message = failure.to_string();
    match failure {
        HandshakeError::Malformed(_) => error(StatusCode::BAD_REQUEST, &message),
        HandshakeError::Version | HandshakeError::NoUpgrade => {
            let mut response = error(StatusCode::UPGRADE_REQUIRED, &message);
            let headers = response.headers_mut();
            headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
            headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
            response
        }
    }
}

/// Why no tunnel is opened (RFC 9110, sections 9.3.6 and 15.5.8).
pub(super) fn tunnel(failure: TunnelError) -> Response<Body> {
    let message = failure.to_string();
    match failure {
        TunnelError::Off => method_not_allowed("GET"),
        TunnelError::NoCredentials => {
            let mut response = error(StatusCode::PROXY_AUTHENTICATION_REQUIRED, &message);
            let basic = HeaderValue::from_static("Basic realm=\"ticket as user name\"");
            response.headers_mut().insert(PROXY_AUTHENTICATE, basic);
            response
        }
        TunnelError::Malformed(_) => error(StatusCode::BAD_REQUEST, &message),
    }
}

/// Why a host was not reached. Where it lies is the log's business, not the client's.
pub(super) fn host(failure: &ConnectError) -> Response<Body> {
    match failure {
        ConnectError::Timeout(_) => error(
            StatusCode::GATEWAY_TIMEOUT,
            "the desktop's host did not answer in time",
        ),
        ConnectError::NotAllowed | ConnectError::SocketNotAllowed => error(
            StatusCode::FORBIDDEN,
            "the desktop's host may not be reached through this gateway",
        ),
        ConnectError::Unreachable(_) | ConnectError::Tls(_) => error(
            StatusCode::BAD_GATEWAY,
            "the desktop's host cannot be reached",
        ),
        ConnectError::Resources(_) => error(
            StatusCode::SERVICE_UNAVAILABLE,
            "the gateway has no room for another channel",
        ),
    }
}
