//! Which headers pass between clients and the manager.

use http::Version;
use http::header::{
    CONNECTION, HeaderMap, HeaderName, HeaderValue, TE, TRAILER, TRANSFER_ENCODING, UPGRADE, VIA,
};

/// What stacks behind may believe more than the request itself: another address of the client,
/// host, path or method than what was checked here. What the gateway itself tells of these is
/// written afterwards.
const BELIEVED: &[&str] = &[
    // The client.
    "x-real-ip",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-original-forwarded-for",
    "x-originating-ip",
    "x-remote-ip",
    "x-remote-addr",
    "x-azure-clientip",
    "x-envoy-external-address",
    "true-client-ip",
    "client-ip",
    "cf-connecting-ip",
    "cf-connecting-ipv6",
    "cf-pseudo-ipv4",
    "fastly-client-ip",
    "proxy-client-ip",
    "wl-proxy-client-ip",
    // The host.
    "x-host",
    "x-original-host",
    "x-http-host-override",
    "x-forwarded-server",
    "x-forwarded-port",
    // The path.
    "x-original-url",
    "x-original-uri",
    "x-original-path",
    "x-rewrite-url",
    "x-override-url",
    "x-forwarded-prefix",
    "x-forwarded-path",
    "x-forwarded-uri",
    // The scheme.
    "x-forwarded-protocol",
    "x-forwarded-scheme",
    "x-forwarded-ssl",
    "x-url-scheme",
    "front-end-https",
    // The method.
    "x-http-method-override",
    "x-http-method",
    "x-method-override",
    "x-method",
    "x-forwarded-method",
    "x-original-method",
    // CGI's HTTP_PROXY, by which programs find their proxy.
    "proxy",
];

/// Removes what the manager may believe and nobody has checked. A name with an underscore is the
/// same as one with a hyphen to CGI and its kind (RFC 3875, section 4.1.18).
pub(super) fn remove_believed(headers: &mut HeaderMap) {
    for name in BELIEVED {
        headers.remove(*name);
    }
    let with_underscore: Vec<_> = headers
        .keys()
        .filter(|name| name.as_str().contains('_'))
        .cloned()
        .collect();
    for name in with_underscore {
        headers.remove(name);
    }
}

/// Whether a message has no transfer coding but `chunked`, which ends with this connection; what
/// is coded otherwise would be passed on without a word of it (RFC 9112, section 6.1).
pub fn has_known_coding(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let first = codings.next().map(HeaderValue::as_bytes);
    first.is_none_or(|coding| coding.trim_ascii().eq_ignore_ascii_case(b"chunked"))
        && codings.next().is_none()
}

/// Removes what concerns one connection only (RFC 9110, section 7.6.1).
pub(super) fn remove_hop_by_hop(headers: &mut HeaderMap) {
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
pub(super) fn via(headers: &mut HeaderMap, received: Version) {
    let value = match received {
        Version::HTTP_10 => "1.0 flexvdi-gateway",
        _ => "1.1 flexvdi-gateway",
    };
    headers.append(VIA, HeaderValue::from_static(value));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            let name: HeaderName = name.parse().unwrap();
            headers.append(name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn hop_by_hop_headers_stay_here() {
        let mut headers = headers(&[
            ("connection", "Keep-Alive, X-Private"),
            ("keep-alive", "timeout=5"),
            ("x-private", "1"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("content-type", "text/json"),
            ("cookie", "a=b"),
        ]);
        remove_hop_by_hop(&mut headers);
        let left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        assert_eq!(left, ["content-type", "cookie"]);
    }

    #[test]
    fn what_may_be_believed_stays_here() {
        let mut headers = headers(&[
            ("X-Real-IP", "1.2.3.4"),
            ("X-HTTP-Method-Override", "DELETE"),
            ("X_Forwarded_For", "1.2.3.4"),
            ("Content_Length", "5"),
            ("X-Custom", "1"),
            ("Content-Type", "text/json"),
        ]);
        remove_believed(&mut headers);
        let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["content-type", "x-custom"]);
        // Each is found: the map knows names in lower case only.
        assert!(
            BELIEVED
                .iter()
                .all(|name| *name == name.to_ascii_lowercase())
        );
    }

    #[test]
    fn chunked_is_the_only_coding() {
        for (codings, is_known) in [
            (&[][..], true),
            (&["chunked"][..], true),
            (&["Chunked "], true),
            (&["gzip, chunked"], false),
            (&["gzip", "chunked"], false),
            (&["chunked, chunked"], false),
            (&["chunked", "chunked"], false),
            (&["identity"], false),
            (&[""], false),
        ] {
            let fields: Vec<_> = codings.iter().map(|c| ("transfer-encoding", *c)).collect();
            assert_eq!(has_known_coding(&headers(&fields)), is_known, "{codings:?}");
        }
    }
}
