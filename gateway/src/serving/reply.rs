//! Answers to those who may not open a channel, or find no host.

use http::header::{ALLOW, PROXY_AUTHENTICATE, RETRY_AFTER, SEC_WEBSOCKET_VERSION, UPGRADE};
use http::{HeaderValue, Response, StatusCode};

use crate::channel::ConnectError;
use crate::http::body::Body;
use crate::http::reply::error;
use crate::refusal::{Refusal, With};

/// Why a channel is not opened.
pub(super) fn refusal(refusal: Refusal) -> Response<Body> {
    let consequence = refusal.consequence();
    let reason = refusal.to_string();
    let mut response = error(consequence.status, consequence.message.unwrap_or(&reason));
    let headers = response.headers_mut();
    match consequence.with {
        With::Nothing => {}
        With::WebSocketVersion => {
            headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
            headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        }
        With::Challenge => {
            let basic = HeaderValue::from_static("Basic realm=\"ticket as user name\"");
            headers.insert(PROXY_AUTHENTICATE, basic);
        }
        With::Methods(allowed) => {
            headers.insert(ALLOW, HeaderValue::from_static(allowed));
        }
        With::RetryAfter(wait) => {
            headers.insert(RETRY_AFTER, HeaderValue::from(wait.as_secs().max(1)));
        }
    }
    response
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
