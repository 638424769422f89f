//! Answers that the gateway gives itself.

use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderValue, Response, StatusCode};
use serde_json::json;

use super::body::Body;

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
