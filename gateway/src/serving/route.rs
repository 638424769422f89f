//! Who answers a request.

use http::header::HOST;
use http::{Method, Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use tracing::{debug, info};

use super::opening::Opening;
use super::query::Query;
use super::{Gateway, handshake};
use crate::canonical_path::CanonicalPath;
use crate::http::Origin;
use crate::http::body::Body;
use crate::http::reply::{error, method_not_allowed};
use crate::web_client::is_foreign_login;

/// Who answers.
pub(super) enum Route {
    Health,
    Page(CanonicalPath),
    Manager(CanonicalPath),
    Channel(Opening),
}

/// Who answers a request; the error is the answer.
pub(super) fn route(
    gateway: &Gateway,
    request: &Request<Incoming>,
    origin: &Origin,
) -> Result<Route, Box<Response<Body>>> {
    let refuse = |status, message| Err(Box::new(error(status, message)));
    let uri = request.uri();
    let path_len = uri
        .path_and_query()
        .map_or(0, |target| target.as_str().len());
    let authority_len = uri
        .authority()
        .map_or(0, |authority| authority.as_str().len());
    let target_len = if request.method() == Method::CONNECT {
        authority_len
    } else {
        path_len
    };
    if target_len > gateway.max_uri_size {
        return refuse(StatusCode::URI_TOO_LONG, "request target too long");
    }
    // RFC 9112, section 3.2.
    let hosts = request.headers().get_all(HOST).iter().count();
    if hosts > 1 || (hosts == 0 && request.version() >= Version::HTTP_11) {
        return refuse(StatusCode::BAD_REQUEST, "one Host header is needed");
    }
    if gateway.health_path.as_deref() == Some(uri.path()) {
        return Ok(Route::Health);
    }
    if !gateway.serves(origin.client) {
        info!(client = %origin.client, "client is not allowed");
        return refuse(
            StatusCode::FORBIDDEN,
            "clients of this address are not served",
        );
    }
    // Whose target is no path.
    if request.method() == Method::CONNECT {
        return Ok(Route::Channel(Opening::Tunnel));
    }
    let query = Query::parse(uri.query().unwrap_or_default());
    let is_upgrade = handshake::is_upgrade(request.headers());
    // Channels are known by their tokens, whatever the path is.
    if !(is_upgrade && query.token.is_some()) && uri.path().starts_with('/') {
        match CanonicalPath::parse(uri.path()) {
            Ok(path) if is_managers(&path, &gateway.manager_paths) => {
                let (method, headers) = (request.method(), request.headers());
                // Elsewhere it is for the manager to decide.
                let are_own = gateway.web_client.is_on() || gateway.desktops.are_configured();
                if are_own && is_foreign_login(method, &path, headers, &gateway.origins) {
                    info!(client = %origin.client, "login by a web page of another site refused");
                    let message = "web pages of other sites may not log in here";
                    return refuse(StatusCode::FORBIDDEN, message);
                }
                return Ok(Route::Manager(path));
            }
            // A token or an upgrade is for a channel, which may be at the path of the page.
            Ok(path) if query.token.is_none() && !is_upgrade && gateway.web_client.has(&path) => {
                return Ok(Route::Page(path));
            }
            Ok(_) => {}
            Err(ambiguous) => {
                debug!(client = %origin.client, reason = %ambiguous, "request refused");
                let message = "this path may be read in several ways";
                return refuse(StatusCode::BAD_REQUEST, message);
            }
        }
    }
    if query.token.is_none() && !is_upgrade {
        return Err(Box::new(no_such_page()));
    }
    if request.method() != Method::GET {
        return Err(Box::new(method_not_allowed("GET")));
    }
    Ok(Route::Channel(Opening::WebSocket(query)))
}

/// 404: nobody here answers such a request.
pub(super) fn no_such_page() -> Response<Body> {
    error(StatusCode::NOT_FOUND, "no such page on this gateway")
}

fn is_managers(path: &CanonicalPath, prefixes: &[String]) -> bool {
    let mut prefixes = prefixes.iter();
    prefixes.any(|prefix| path.as_str().starts_with(prefix.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_managers_own_paths_are_its() {
        let prefixes = ["/vdi/".to_owned()];
        let managers = |path: &str| {
            let path = CanonicalPath::parse(path).unwrap();
            is_managers(&path, &prefixes)
        };
        for path in ["/vdi/desktop", "/vdi/", "/vdi/a.b/..c", "/%76di/x"] {
            assert!(managers(path), "{path}");
        }
        for path in ["/", "/vdi", "/vdix", "/x/vdi/", "/VDI/x"] {
            assert!(!managers(path), "{path}");
        }
    }
}
