//! Tunnels for Spice clients that speak no WebSocket but can use an HTTP proxy: CONNECT (RFC 9110,
//! section 9.3.6) with a ticket.
//!
//! The ticket is the user name of Basic credentials (RFC 7617), or, where there are none, the host
//! that the request names. It alone says where the tunnel leads: host and port are otherwise those
//! that the client believes in, or made up, and nobody looks them up.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{HeaderMap, PROXY_AUTHORIZATION};
use http::{Request, Uri};

use super::handshake::has_body;
use crate::refusal::Refusal;
use crate::ticket::ticket_of_host;

/// The ticket of a request, which must be a sound one.
pub(super) fn ticket<B>(request: &Request<B>) -> Result<String, Refusal> {
    if !names_host_and_port(request.uri()) {
        return Err(Refusal::MalformedConnect("no host and port"));
    }
    if has_body(request.headers()) {
        return Err(Refusal::MalformedConnect("a body"));
    }
    match user_name(request.headers())? {
        Some(ticket) => Ok(ticket),
        // Nothing but a ticket: a client that asks for its host in this way has to be asked for
        // credentials, and must not be banned for it.
        None => request
            .uri()
            .host()
            .and_then(ticket_of_host)
            .ok_or(Refusal::NoCredentials),
    }
}

/// Whether a request target is one of CONNECT (RFC 9112, section 3.2.3).
fn names_host_and_port(target: &Uri) -> bool {
    let is_alone = target.scheme().is_none() && target.path_and_query().is_none();
    let authority = target.authority();
    let is_sound = authority.is_some_and(|authority| {
        authority.port_u16().is_some()
            && !authority.host().is_empty()
            && !authority.as_str().contains('@')
    });
    is_alone && is_sound
}

/// The user name of the credentials; `None`: the client has sent none.
fn user_name(headers: &HeaderMap) -> Result<Option<String>, Refusal> {
    let malformed = || Refusal::MalformedConnect("credentials");
    let mut lines = headers.get_all(PROXY_AUTHORIZATION).iter();
    let Some(credentials) = lines.next() else {
        return Ok(None);
    };
    if lines.next().is_some() {
        // Two could be read differently by this gateway and a proxy in front of it.
        return Err(Refusal::MalformedConnect("several Proxy-Authorization"));
    }
    let credentials = credentials.as_bytes();
    let end = credentials.iter().position(|byte| *byte == b' ');
    let (scheme, rest) = credentials.split_at(end.unwrap_or(credentials.len()));
    if !scheme.eq_ignore_ascii_case(b"Basic") {
        return Err(Refusal::NoCredentials);
    }
    let decoded = STANDARD
        .decode(rest.trim_ascii())
        .map_err(|_| malformed())?;
    let decoded = String::from_utf8(decoded).map_err(|_| malformed())?;
    let (user_name, _) = decoded.split_once(':').ok_or_else(malformed)?;
    Ok(Some(user_name.to_owned()))
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;

    fn connect(target: &str, headers: &[(&str, &str)]) -> Result<String, Refusal> {
        let mut request = Request::builder().method(Method::CONNECT).uri(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        ticket(&request.body(()).unwrap())
    }

    fn basic(text: &str) -> String {
        format!("Basic {}", STANDARD.encode(text))
    }

    #[test]
    fn the_user_name_is_the_ticket_whatever_the_target() {
        for target in ["desktop:5900", "10.0.0.1:1", "[2001:db8::1]:5901"] {
            for (credentials, ticket) in [
                (basic("AbC-_9:x"), "AbC-_9"),
                (basic("ticket:"), "ticket"),
                (basic("ticket:a:b"), "ticket"),
                (basic(":x"), ""),
                (basic("ticket:x").replace("Basic ", "bAsIc   "), "ticket"),
            ] {
                let found = connect(target, &[("Proxy-Authorization", &credentials)]);
                assert_eq!(found.as_deref(), Ok(ticket), "{credentials}");
            }
        }
    }

    #[test]
    fn without_basic_credentials_the_client_is_asked_for_them() {
        let none = Err(Refusal::NoCredentials);
        assert_eq!(connect("h:1", &[]), none);
        assert_eq!(connect("h:1", &[("Authorization", &basic("t:x"))]), none);
        for other in ["Bearer dDp4", "Digest username=t", "", "BasicdDp4"] {
            assert_eq!(connect("h:1", &[("Proxy-Authorization", other)]), none);
        }
    }

    #[test]
    fn a_host_is_a_ticket_only_where_there_are_no_credentials() {
        let host = "ticket-0123456789abcdef01234567";
        let target = format!("{host}:5900");
        assert_eq!(connect(&target, &[]).as_deref(), Ok(host));
        let upper = target.to_uppercase();
        assert_eq!(connect(&upper, &[]).as_deref(), Ok(host));
        let credentials = basic("other:x");
        let with = |value| connect(&target, &[("Proxy-Authorization", value)]);
        assert_eq!(with(&credentials).as_deref(), Ok("other"));
        assert_eq!(with("Bearer dDp4"), Err(Refusal::NoCredentials));
        assert!(matches!(with("Basic"), Err(Refusal::MalformedConnect(_))));
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_refused() {
        let good = basic("ticket:x");
        let is_malformed = |target: &str, headers: &[(&str, &str)]| {
            let found = connect(target, headers);
            assert!(
                matches!(found, Err(Refusal::MalformedConnect(_))),
                "{target} {headers:?}: {found:?}"
            );
        };
        let credentials = ("Proxy-Authorization", good.as_str());
        let other = basic("other:x");
        is_malformed("h:1", &[credentials, ("Proxy-Authorization", &other)]);
        is_malformed("h:1", &[credentials, credentials]);
        is_malformed("h:1", &[credentials, ("Content-Length", "1")]);
        is_malformed("h:1", &[credentials, ("Transfer-Encoding", "chunked")]);
        for target in ["/", "/?token=x", "http://h:1/", "h", "user@h:1"] {
            is_malformed(target, &[credentials]);
        }
        for wrong in [
            "Basic",
            "Basic !!!!",
            "Basic dGlja2V0",
            "Basic dGlja2V0OnM",
            "Basic /w==",
            "Basic dDp4 dDp4",
        ] {
            is_malformed("h:1", &[("Proxy-Authorization", wrong)]);
        }
    }
}
