//! Answers with the files of the client for browsers.

use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HeaderName, IF_NONE_MATCH,
    REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};

use super::{File, Pages};
use crate::authority::Authority;
use crate::http::body::Body;
use crate::http::reply::{error, method_not_allowed, plain_error};

/// What the page may load, but for where it may connect to: scripts of the gateway, and nothing of
/// others. spice-html5 makes pictures of `data:` addresses, and plays sound and video from `blob:`
/// ones.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    img-src 'self' data: blob:; media-src blob:; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'; \
    connect-src 'self'";

/// Further headers of every answer: the page is in no frame and in no group with pages of others.
const HEADERS: [(HeaderName, &str); 7] = [
    // Kept, but asked for each time: a page and scripts of two versions do not fit.
    (CACHE_CONTROL, "no-cache"),
    (REFERRER_POLICY, "no-referrer"),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (X_FRAME_OPTIONS, "DENY"),
    (
        HeaderName::from_static("cross-origin-opener-policy"),
        "same-origin",
    ),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    ),
    (
        HeaderName::from_static("permissions-policy"),
        "camera=(), display-capture=(), fullscreen=(self), geolocation=(), microphone=(), \
         payment=(), usb=()",
    ),
];

/// For people who come while the directory cannot be used.
const NO_CLIENT: &str =
    "There is no client for browsers here at the moment. Please contact your administrator.";

/// Answers a request for `path`.
pub(super) fn answer(
    pages: &Pages,
    method: &Method,
    path: &str,
    headers: &HeaderMap,
) -> Response<Body> {
    match &pages.content {
        _ if method != Method::GET && method != Method::HEAD => method_not_allowed("GET, HEAD"),
        Err(_) => plain_error(StatusCode::SERVICE_UNAVAILABLE, NO_CLIENT),
        Ok(files) => match files.get(path) {
            Some(file) => show(file, headers),
            None => error(StatusCode::NOT_FOUND, "no such page on this gateway"),
        },
    }
}

/// Adds what keeps the page from others, and others from the page. `asked`: the authority by which
/// the browser knows the gateway.
pub(super) fn protect(response: &mut Response<Body>, asked: Option<&Authority>, is_https: bool) {
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    let policy = HeaderValue::try_from(policy(asked, is_https))
        .unwrap_or_else(|_| HeaderValue::from_static(POLICY));
    headers.insert(CONTENT_SECURITY_POLICY, policy);
}

/// WebSockets to the page's own origin are `'self'` (CSP 3, section 6.7.2.8), which older browsers
/// do not know: they need its name. IPv6 addresses cannot be written there (section 2.3.1).
fn policy(asked: Option<&Authority>, is_https: bool) -> String {
    let scheme = if is_https { "wss" } else { "ws" };
    match asked.map(ToString::to_string) {
        Some(asked) if !asked.starts_with('[') => format!("{POLICY} {scheme}://{asked}"),
        _ => POLICY.to_owned(),
    }
}

fn show(file: &File, asked: &HeaderMap) -> Response<Body> {
    let mut response = if has_already(file, asked) {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else {
        let mut response = Response::new(Body::Whole(Some(file.bytes.clone())));
        let kind = HeaderValue::from_static(file.kind);
        response.headers_mut().insert(CONTENT_TYPE, kind);
        response
    };
    response.headers_mut().insert(ETAG, file.tag.clone());
    response
}

/// Whether the browser has what it asks for (RFC 9110, section 13.1.2). The comparison is weak:
/// proxies that compress make tags weak.
fn has_already(file: &File, asked: &HeaderMap) -> bool {
    let mut tags = asked
        .get_all(IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim);
    tags.any(|tag| {
        let tag = tag.strip_prefix("W/").unwrap_or(tag);
        tag == "*" || tag.as_bytes() == file.tag.as_bytes()
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn the_page_connects_to_where_it_came_from_only() {
        let connect = |asked: &str, is_https| {
            let policy = policy(asked.parse().ok().as_ref(), is_https);
            policy.rsplit_once("connect-src ").unwrap().1.to_owned()
        };
        for (asked, is_https, expected) in [
            ("gw.example", true, "'self' wss://gw.example"),
            ("gw.example:8443", true, "'self' wss://gw.example:8443"),
            ("10.0.0.1:8080", false, "'self' ws://10.0.0.1:8080"),
            ("[2001:db8::1]:8443", true, "'self'"),
            ("gw.example; script-src *", true, "'self'"),
            ("gw.example *", true, "'self'"),
            ("", true, "'self'"),
        ] {
            assert_eq!(connect(asked, is_https), expected, "{asked}");
        }
    }

    #[test]
    fn what_the_browser_has_is_not_sent_again() {
        let file = File::new("text/css", Bytes::from_static(b"x"));
        let tag = file.tag.to_str().unwrap();
        let status = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(IF_NONE_MATCH, value.parse().unwrap());
            }
            show(&file, &headers).status()
        };
        for values in [
            &[tag][..],
            &["*"],
            &[&format!("W/{tag}")],
            &[&format!("\"a\", {tag}")],
            &["\"a\"", tag],
        ] {
            assert_eq!(status(values), StatusCode::NOT_MODIFIED, "{values:?}");
        }
        for values in [&[][..], &["\"a\""], &[""], &[tag.trim_matches('"')]] {
            assert_eq!(status(values), StatusCode::OK, "{values:?}");
        }
    }
}
