//! What is answered at which path.

use std::sync::Arc;
use std::time::Duration;

use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, HeaderName, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
    X_FRAME_OPTIONS,
};
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use tokio::task::block_in_place;
use tracing::info;

use super::asked_host::{self, UnknownName};
use super::units::counted;
use super::{Admin, page, tickets};
use crate::config::effective_json;
use crate::http::body::Body;
use crate::http::reply;
use crate::metrics;
use crate::session::SessionId;

/// What a door lets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// Nothing is changed.
    Show,
    /// Desktop sessions can be ended, draining begun and ended, and tickets made.
    ShowAndAct,
}

/// Headers of every answer: nothing is kept, framed or loaded from elsewhere.
const HEADERS: [(HeaderName, &str); 5] = [
    (CACHE_CONTROL, "no-store"),
    (
        CONTENT_SECURITY_POLICY,
        "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; \
         img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (REFERRER_POLICY, "no-referrer"),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (X_FRAME_OPTIONS, "DENY"),
];

/// Answers one request.
pub(super) async fn answer(
    admin: &Admin,
    access: Access,
    request: Request<Incoming>,
) -> Response<Body> {
    let (request, body) = request.into_parts();
    let mut response = answer_as_such(admin, access, &request, body).await;
    for (name, value) in HEADERS {
        let value = HeaderValue::from_static(value);
        response.headers_mut().entry(name).or_insert(value);
    }
    response
}

async fn answer_as_such(
    admin: &Admin,
    access: Access,
    request: &Parts,
    body: Incoming,
) -> Response<Body> {
    let path = request.uri.path();
    let method = &request.method;
    match action(path) {
        Some(action) if access == Access::ShowAndAct => {
            if method == Method::POST {
                act(admin, action, request.uri.query())
            } else {
                reply::method_not_allowed("POST")
            }
        }
        _ if path == "/tickets" => match access {
            Access::Show => reply::error(StatusCode::FORBIDDEN, tickets::NOT_HERE),
            Access::ShowAndAct if method == Method::POST => tickets::make(admin, body).await,
            Access::ShowAndAct => reply::method_not_allowed("POST"),
        },
        // It names files, which the port for administrators need not tell.
        _ if path == "/configuration" && access == Access::ShowAndAct => {
            if method == Method::GET {
                configuration(admin)
            } else {
                reply::method_not_allowed("GET")
            }
        }
        _ if path == "/healthz" => {
            let health = Arc::clone(&admin.sources.live.current().gateway.health);
            health.answer(method).await
        }
        // What these tell is no secret of anybody, and those who ask for them name the gateway as
        // they like: balancers and Prometheus.
        _ if access == Access::Show
            && path != "/metrics"
            && asked_host::check(request, &admin.sources.live.current()).is_err() =>
        {
            reply::plain_error(UnknownName::STATUS, &UnknownName.to_string())
        }
        _ => match show(admin, path) {
            None => reply::error(StatusCode::NOT_FOUND, "no such page"),
            Some(_) if method != Method::GET && method != Method::HEAD => {
                reply::method_not_allowed("GET, HEAD")
            }
            Some(response) => response,
        },
    }
}

/// The values in effect, as `check` prints those of the file.
fn configuration(admin: &Admin) -> Response<Body> {
    let values = effective_json(&admin.sources.live.current().config);
    reply::of_type(reply::JSON, StatusCode::OK, values.to_string())
}

fn show(admin: &Admin, path: &str) -> Option<Response<Body>> {
    // Every channel is asked: for a thread, with many of them, longer than others should wait.
    let (kind, text) = match path {
        "/" => (
            "text/html; charset=utf-8",
            block_in_place(|| page::render(admin)),
        ),
        "/page.css" => ("text/css; charset=utf-8", page::STYLE.to_owned()),
        "/page.js" => ("text/javascript; charset=utf-8", page::SCRIPT.to_owned()),
        "/metrics" => match block_in_place(|| admin.metrics_text()) {
            Ok(text) => (metrics::CONTENT_TYPE, text),
            Err(_) => return Some(failed()),
        },
        "/status" => match serde_json::to_string(&block_in_place(|| admin.status())) {
            Ok(text) => (reply::JSON, text),
            Err(_) => return Some(failed()),
        },
        _ => return None,
    };
    Some(reply::of_type(kind, StatusCode::OK, text))
}

fn failed() -> Response<Body> {
    reply::error(StatusCode::INTERNAL_SERVER_ERROR, "it cannot be written")
}

#[derive(Clone, Copy)]
enum Action<'a> {
    Kick(&'a str),
    Drain,
    Undrain,
}

fn action(path: &str) -> Option<Action<'_>> {
    match path {
        "/drain" => Some(Action::Drain),
        "/undrain" => Some(Action::Undrain),
        _ => path.strip_prefix("/kick/").map(Action::Kick),
    }
}

fn act(admin: &Admin, action: Action<'_>, query: Option<&str>) -> Response<Body> {
    let message = match action {
        Action::Kick(session) => {
            let id: SessionId = match session.parse() {
                Ok(id) => id,
                Err(wrong) => return reply::error(StatusCode::BAD_REQUEST, &wrong.to_string()),
            };
            let channels = admin.sources.channels.stop_session(id);
            if channels == 0 {
                return reply::error(StatusCode::NOT_FOUND, "no such desktop session is open");
            }
            info!(session = %id, channels, "desktop session ended by the administrator");
            format!("{id}: {} closed", counted(channels, "channel"))
        }
        Action::Drain => {
            let serving = admin.sources.live.current();
            let limit = match drain_limit(query) {
                Ok(None) => serving.config.drain_timeout,
                Ok(Some(0)) => None,
                Ok(Some(seconds)) => Some(Duration::from_secs(seconds.into())),
                Err(message) => return reply::error(StatusCode::BAD_REQUEST, message),
            };
            let delay = serving.config.drain_delay;
            serving.gateway.drain.begin(limit, delay);
            let sessions = admin.sources.channels.session_count();
            format!("draining; {} open", counted(sessions, "desktop session"))
        }
        Action::Undrain => {
            admin.sources.live.current().gateway.drain.end();
            "not draining".to_owned()
        }
    };
    let body = serde_json::json!({ "message": message });
    reply::of_type(reply::JSON, StatusCode::OK, body.to_string())
}

/// `timeout=SECONDS` of a query; `None`: as configured.
fn drain_limit(query: Option<&str>) -> Result<Option<u32>, &'static str> {
    form_urlencoded::parse(query.unwrap_or_default().as_bytes())
        .find(|(name, _)| name == "timeout")
        .map(|(_, value)| value.parse())
        .transpose()
        .map_err(|_| "timeout: expected whole seconds")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_of_draining() {
        assert_eq!(drain_limit(None), Ok(None));
        assert_eq!(drain_limit(Some("")), Ok(None));
        assert_eq!(drain_limit(Some("timeout=0")), Ok(Some(0)));
        assert_eq!(drain_limit(Some("timeout=90")), Ok(Some(90)));
        for wrong in ["timeout=", "timeout=-1", "timeout=x", "timeout=99999999999"] {
            assert!(drain_limit(Some(wrong)).is_err(), "{wrong}");
        }
    }
}
