//! The opening handshake (RFC 6455, section 4.2), checked and answered by tungstenite.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{
    CONNECTION, CONTENT_LENGTH, HeaderMap, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderValue, Request, Response, Version};

use crate::refusal::Refusal;

/// The only subprotocol that Spice clients offer.
const SUBPROTOCOL: &str = "binary";

/// Whether a request asks for a WebSocket.
pub(super) fn is_upgrade(headers: &HeaderMap) -> bool {
    has_token(headers.get_all(UPGRADE).iter(), "websocket")
}

/// The 101 that accepts a request, or why it cannot be accepted.
///
/// `binary` is answered exactly when it was offered: a browser demands it, the flexVDI client
/// refuses a subprotocol that it did not ask for. No extension is ever accepted.
pub(super) fn accept<B>(request: &Request<B>) -> Result<Response<()>, Refusal> {
    let headers = request.headers();
    if !is_upgrade(headers) {
        return Err(Refusal::NoUpgrade);
    }
    if request.version() < Version::HTTP_11 {
        return Err(Refusal::MalformedHandshake("HTTP/1.1 is needed"));
    }
    if has_body(headers) {
        return Err(Refusal::MalformedHandshake("a body"));
    }
    if !has_token(headers.get_all(CONNECTION).iter(), "upgrade") {
        return Err(Refusal::MalformedHandshake("Connection without Upgrade"));
    }
    if headers
        .get(SEC_WEBSOCKET_VERSION)
        .map(HeaderValue::as_bytes)
        != Some(b"13")
    {
        return Err(Refusal::WebSocketVersion);
    }
    let key = headers.get(SEC_WEBSOCKET_KEY).map(HeaderValue::as_bytes);
    if key
        .and_then(|key| STANDARD.decode(key).ok())
        .map(|key| key.len())
        != Some(16)
    {
        return Err(Refusal::MalformedHandshake("Sec-WebSocket-Key"));
    }

    let mut bare = Request::new(());
    *bare.method_mut() = request.method().clone();
    *bare.version_mut() = request.version();
    bare.headers_mut().clone_from(headers);
    // tungstenite reads one line of the one and one item of the other, but both are lists (RFC
    // 9110, sections 7.6.1 and 7.8).
    let upgrade = HeaderValue::from_static("Upgrade");
    bare.headers_mut().insert(CONNECTION, upgrade);
    let websocket = HeaderValue::from_static("websocket");
    bare.headers_mut().insert(UPGRADE, websocket);
    let mut response = tungstenite::handshake::server::create_response(&bare)
        .map_err(|_| Refusal::MalformedHandshake("not a WebSocket request"))?;
    if has_token(headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter(), SUBPROTOCOL) {
        response.headers_mut().insert(
            SEC_WEBSOCKET_PROTOCOL,
            HeaderValue::from_static(SUBPROTOCOL),
        );
    }
    Ok(response)
}

/// Whether a body follows a request's head: its bytes would be taken for the channel's.
pub(super) fn has_body(headers: &HeaderMap) -> bool {
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    headers.contains_key(TRANSFER_ENCODING) || lengths.any(|length| length.as_bytes() != b"0")
}

/// Whether a header that is a list of tokens has `token`, in whatever case.
fn has_token<'a>(mut values: impl Iterator<Item = &'a HeaderValue>, token: &str) -> bool {
    values.any(|value| {
        value.to_str().is_ok_and(|list| {
            list.split(',')
                .any(|item| item.trim().eq_ignore_ascii_case(token))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(headers: &[(&str, &str)]) -> Request<()> {
        let mut builder = Request::builder().uri("/?ver=2&token=x");
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        builder.body(()).unwrap()
    }

    const GOOD: [(&str, &str); 4] = [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];

    #[test]
    fn accepts_the_example_of_the_rfc() {
        let response = accept(&request(&GOOD)).unwrap();
        assert_eq!(response.status(), 101);
        assert_eq!(
            response.headers()["Sec-WebSocket-Accept"],
            "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        );
        assert!(!response.headers().contains_key("Sec-WebSocket-Protocol"));
    }

    #[test]
    fn echoes_binary_exactly_when_offered() {
        for (offer, expected) in [
            ("binary", Some("binary")),
            ("chat, binary", Some("binary")),
            ("chat", None),
        ] {
            let offered = [&GOOD[..], &[("Sec-WebSocket-Protocol", offer)]].concat();
            let response = accept(&request(&offered)).unwrap();
            let answer = response.headers().get("Sec-WebSocket-Protocol");
            assert_eq!(
                answer.map(HeaderValue::as_bytes),
                expected.map(str::as_bytes)
            );
        }
    }

    #[test]
    fn declines_extensions() {
        let offer = ("Sec-WebSocket-Extensions", "permessage-deflate");
        let response = accept(&request(&[&GOOD[..], &[offer]].concat())).unwrap();
        assert!(!response.headers().contains_key("Sec-WebSocket-Extensions"));
    }

    #[test]
    fn upgrade_is_a_list() {
        for list in ["h2c, websocket", "WebSocket,h2c"] {
            let headers = GOOD.map(|(n, v)| if n == "Upgrade" { (n, list) } else { (n, v) });
            assert_eq!(accept(&request(&headers)).unwrap().status(), 101);
        }
        let lines = [&[("Upgrade", "h2c")], &GOOD[..]].concat();
        assert_eq!(accept(&request(&lines)).unwrap().status(), 101);
    }

    #[test]
    fn a_body_is_no_handshake() {
        for (name, value, is_refused) in [
            ("Content-Length", "0", false),
            ("Content-Length", "1", true),
            ("Transfer-Encoding", "chunked", true),
        ] {
            let answer = accept(&request(&[&GOOD[..], &[(name, value)]].concat()));
            let refused = Err(Refusal::MalformedHandshake("a body"));
            assert_eq!(answer.map(|_| ()) == refused, is_refused, "{name}: {value}");
        }
    }

    #[test]
    fn refuses_what_is_wrong() {
        let with = |name: &str, value: &'static str| {
            let headers = GOOD.map(|(n, v)| if n == name { (n, value) } else { (n, v) });
            accept(&request(&headers)).unwrap_err()
        };
        assert_eq!(
            with("Sec-WebSocket-Version", "8"),
            Refusal::WebSocketVersion
        );
        assert_eq!(with("Upgrade", "h2c"), Refusal::NoUpgrade);
        for (name, value) in [
            ("Sec-WebSocket-Key", "short"),
            ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25j"),
            ("Connection", "keep-alive"),
        ] {
            assert!(matches!(with(name, value), Refusal::MalformedHandshake(_)));
        }
    }
}
