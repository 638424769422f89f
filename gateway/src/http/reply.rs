//! Answers that the gateway gives itself.

use http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER, SEC_WEBSOCKET_VERSION, UPGRADE};
use http::{HeaderValue, Response, StatusCode};
use serde_json::json;

use super::body::Body;
use crate::admission::Refusal;
use crate::channel::ConnectError;
use crate::http::handshake::HandshakeError;
use crate::manager::ManagerError;

/// An error in the shape that clients show to people: `status` and `message`.
pub fn error(status: StatusCode, message: &str) -> Response<Body> {
    let body = json!({ "status": "Error", "message": message });
    let mut response = Response::new(Body::from(body.to_string().into_bytes()));
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}

/// Why there is no desktop, for those who see it on their screens; the log tells more.
pub const NO_DESKTOP: &str =
    "Your desktop cannot be reached at the moment. Please contact your administrator.";
/// The same, where waiting may help.
pub const TOO_MANY_DESKTOPS: &str =
    "Too many desktops are being opened at the moment. Please try again later.";

/// An error that clients do not take for an answer of the manager: plain text. The flexVDI client
/// says "Failed to contact server" then.
pub fn plain_error(status: StatusCode, message: &str) -> Response<Body> {
    let mut response = Response::new(Body::from(format!("{message}\n").into_bytes()));
    *response.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, plain);
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

/// Why the manager gave no answer: status, and what people are told.
pub fn manager(failure: &ManagerError) -> (StatusCode, &'static str) {
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
