//! Answers that the gateway gives itself.

use http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER, SEC_WEBSOCKET_VERSION, UPGRADE};
use http::{HeaderValue, Response, StatusCode};
use serde_json::json;

use super::body::Body;
use crate::admission::Refusal;
use crate::channel::ConnectError;
use crate::manager::ManagerError;
use crate::websocket::handshake::HandshakeError;

/// An error in the shape that clients show to people: `status` and `message`.
pub fn error(status: StatusCode, message: &str) -> Response<Body> {
    let body = json!({ "status": "Error", "message": message });
    let mut response = Response::new(Body::from(body.to_string().into_bytes()));
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}

/// 405 with the methods that would do.
pub fn method_not_allowed(allowed: &'static str) -> Response<Body> {
    let mut response = error(StatusCode::METHOD_NOT_ALLOWED, "method not allowed");
    let allowed = HeaderValue::from_static(allowed);
    response.headers_mut().insert(ALLOW, allowed);
    response
}

/// Why a token was not accepted.
pub fn refusal(refusal: Refusal) -> Response<Body> {
    let message = refusal.to_string();
    match refusal {
        Refusal::Token => error(StatusCode::FORBIDDEN, &message),
        Refusal::TooMany { retry_after } => {
            let mut response = error(StatusCode::TOO_MANY_REQUESTS, &message);
            let seconds = HeaderValue::from(retry_after.as_secs().max(1));
            response.headers_mut().insert(RETRY_AFTER, seconds);
            response
        }
    }
}

/// Why a handshake was not accepted (RFC 6455, section 4.2.2).
pub fn handshake(failure: HandshakeError) -> Response<Body> {
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

/// Why a host was not reached. Where it lies is the log's business, not the client's.
pub fn host(failure: &ConnectError) -> Response<Body> {
    match failure {
        ConnectError::Timeout(_) => error(
            StatusCode::GATEWAY_TIMEOUT,
            "the desktop's host did not answer in time",
        ),
        ConnectError::NotAllowed => error(
            StatusCode::FORBIDDEN,
            "the desktop's host may not be reached through this gateway",
        ),
        ConnectError::Unreachable(_) => error(
            StatusCode::BAD_GATEWAY,
            "the desktop's host cannot be reached",
        ),
        ConnectError::Resources(_) => error(
            StatusCode::SERVICE_UNAVAILABLE,
            "the gateway has no room for another channel",
        ),
    }
}

/// Why the manager gave no answer.
pub fn manager(failure: &ManagerError) -> Response<Body> {
    match failure {
        ManagerError::NotConfigured => error(
            StatusCode::SERVICE_UNAVAILABLE,
            "this gateway has no manager: ManagerIP is not configured",
        ),
        ManagerError::Timeout => error(
            StatusCode::GATEWAY_TIMEOUT,
            "the manager did not answer in time",
        ),
        ManagerError::Unreachable(_) => {
            error(StatusCode::BAD_GATEWAY, "the manager cannot be reached")
        }
    }
}
