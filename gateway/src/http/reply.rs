//! Answers that the gateway gives itself.

use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderValue, Response, StatusCode};
use serde_json::json;

use super::body::Body;

/// The media type of JSON.
pub const JSON: &str = "application/json";

/// An answer with this content of a media type.
pub fn of_type(
    kind: &'static str,
    status: StatusCode,
    content: impl Into<Vec<u8>>,
) -> Response<Body> {
    let mut response = Response::new(Body::from(content.into()));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static(kind);
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

/// An error in the shape that clients show to people: `status` and `message`.
pub fn error(status: StatusCode, message: &str) -> Response<Body> {
    let body = json!({ "status": "Error", "message": message });
    of_type(JSON, status, body.to_string())
}

/// An error that clients do not take for an answer of the manager: plain text. The flexVDI client
/// says "Failed to contact server" then.
pub fn plain_error(status: StatusCode, message: &str) -> Response<Body> {
    of_type("text/plain; charset=utf-8", status, format!("{message}\n"))
}

/// 405 with the methods that would do.
pub fn method_not_allowed(allowed: &'static str) -> Response<Body> {
    let mut response = error(StatusCode::METHOD_NOT_ALLOWED, "method not allowed");
    let allowed = HeaderValue::from_static(allowed);
    response.headers_mut().insert(ALLOW, allowed);
    response
}
