//! Who sent a request, and under which name the gateway was asked: the connection's own facts,
//! or what a trusted reverse proxy tells of them.

use std::net::{IpAddr, SocketAddr};

use http::header::{FORWARDED, HOST, HeaderMap, HeaderName, HeaderValue};
use http::uri::Authority;
use http::{Request, Uri};
use ipnet::IpNet;

use super::ConnectionInfo;
use super::forwarded::{self, Element};
use crate::access_log::RequestId;
use crate::config::ForwardedHeader;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Facts about a request that the connection alone may not tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Address of the client.
    pub client: IpAddr,
    /// The client's port, if the connection or a proxy tells it; else 0.
    pub client_port: u16,
    /// Number of the request.
    pub request_id: RequestId,
    /// Addresses that the request came through, for the manager.
    forwarded_for: String,
    /// `https` or `http`.
    proto: String,
    /// The authority that the client asked, with its port if it named one.
    authority: Option<String>,
}

impl Origin {
    /// Reads the headers of a request; those that proxies write count only from `trusted` peers.
    pub fn of<B>(
        request: &Request<B>,
        connection: &ConnectionInfo,
        trusted: &[IpNet],
        header: ForwardedHeader,
    ) -> Self {
        let headers = request.headers();
        let is_trusted = |address: IpAddr| trusted.iter().any(|net| net.contains(&address));
        let request_id = headers
            .get(RequestId::HEADER)
            .filter(|_| is_trusted(connection.peer))
            .and_then(RequestId::given)
            .unwrap_or_else(RequestId::next);
        let told = if is_trusted(connection.peer) {
            Told::read(headers, header)
        } else {
            Told::default()
        };
        let before = told.senders;
        // The nearest address that no trusted proxy vouches for; all before it may be invented.
        let client = before
            .iter()
            .rev()
            .map_while(|text| parse_address(text))
            .find(|address| !is_trusted(address.ip()))
            .or_else(|| before.first().and_then(|text| parse_address(text)))
            .unwrap_or_else(|| SocketAddr::new(connection.peer, connection.peer_port));
        let mut chain = before;
        chain.push(connection.peer.to_string());

        let own_proto = if connection.is_tls { "https" } else { "http" };
        Self {
            client: client.ip(),
            client_port: client.port(),
            request_id,
            forwarded_for: chain.join(", "),
            proto: told
                .proto
                .filter(|proto| proto == "https" || proto == "http")
                .unwrap_or_else(|| own_proto.to_owned()),
            authority: told.host.or_else(|| asked_authority(request)),
        }
    }

    /// The host part of what the client asked: no port, IPv6 literals without brackets.
    pub fn host(&self) -> Option<&str> {
        let authority = self.authority.as_deref()?;
        let host = match authority.strip_prefix('[') {
            Some(rest) => rest.split_once(']')?.0,
            None => authority
                .split_once(':')
                .map_or(authority, |(host, _)| host),
        };
        (!host.is_empty()).then_some(host)
    }

    /// Tells the manager; what the client wrote there itself is replaced.
    pub fn write(&self, headers: &mut HeaderMap) {
        let fields = [
            (FORWARDED_FOR, Some(self.forwarded_for.as_str())),
            (FORWARDED_PROTO, Some(self.proto.as_str())),
            (FORWARDED_HOST, self.authority.as_deref()),
            (RequestId::HEADER, Some(self.request_id.as_str())),
        ];
        headers.remove(FORWARDED);
        for (name, value) in fields {
            headers.remove(&name);
            if let Some(value) = value.and_then(|value| HeaderValue::from_str(value).ok()) {
                headers.insert(name, value);
            }
        }
    }
}

/// What proxies tell, as they wrote it.
#[derive(Default)]
struct Told {
    /// Who sent the request to each proxy, the farthest first.
    senders: Vec<String>,
    proto: Option<String>,
    host: Option<String>,
}

impl Told {
    fn read(headers: &HeaderMap, header: ForwardedHeader) -> Self {
        match header {
            ForwardedHeader::XForwarded => {
                let first = |name| list(headers, name).into_iter().next();
                Self {
                    senders: list(headers, &FORWARDED_FOR),
                    proto: first(&FORWARDED_PROTO),
                    host: first(&FORWARDED_HOST),
                }
            }
            ForwardedHeader::Forwarded => {
                let elements = forwarded::parse(headers).unwrap_or_default();
                let find =
                    |pick: fn(&Element) -> Option<&String>| elements.iter().find_map(pick).cloned();
                Self {
                    proto: find(|element| element.proto.as_ref()),
                    host: find(|element| element.host.as_ref()),
                    senders: elements.into_iter().filter_map(|e| e.by_whom).collect(),
                }
            }
        }
    }
}

/// The authority of an absolute request target goes before `Host` (RFC 9112, section 3.2.2).
fn asked_authority<B>(request: &Request<B>) -> Option<String> {
    let host = request
        .headers()
        .get(HOST)
        .and_then(|host| host.to_str().ok());
    let authority = request.uri().authority().map(Authority::as_str).or(host)?;
    // Parsed again, so that nothing but an authority gets into an answer.
    let uri = Uri::builder()
        .scheme("https")
        .authority(authority)
        .path_and_query("/");
    let uri = uri.build().ok()?;
    let authority = uri.authority()?.as_str();
    (!authority.contains('@')).then(|| authority.to_owned())
}

fn list(headers: &HeaderMap, name: &HeaderName) -> Vec<String> {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|item| item.trim().to_owned())
        .filter(|item| !item.is_empty())
        .collect()
}

/// An address, with or without port, which is 0 then; IPv6 with or without brackets.
fn parse_address(text: &str) -> Option<SocketAddr> {
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    let address = match bare.parse() {
        Ok(address) => SocketAddr::new(address, 0),
        Err(_) => text.parse().ok()?,
    };
    Some(SocketAddr::new(address.ip().to_canonical(), address.port()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(peer: &str, headers: &[(&str, &str)]) -> Origin {
        origin_by(ForwardedHeader::XForwarded, peer, headers)
    }

    fn origin_by(header: ForwardedHeader, peer: &str, headers: &[(&str, &str)]) -> Origin {
        let mut request = Request::builder().uri("/vdi/desktop");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let connection = ConnectionInfo::for_test(peer.parse().unwrap());
        let trusted = [
            "127.0.0.0/8".parse().unwrap(),
            "10.9.0.0/16".parse().unwrap(),
        ];
        Origin::of(&request.body(()).unwrap(), &connection, &trusted, header)
    }

    fn forwarded(origin: &Origin) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert("x-forwarded-for", HeaderValue::from_static("1.1.1.1"));
        origin.write(&mut headers);
        headers
    }

    #[test]
    fn strangers_are_not_believed() {
        let origin = origin(
            "192.0.2.1",
            &[
                ("Host", "gw.example:8443"),
                ("X-Forwarded-For", "10.0.0.1"),
                ("X-Forwarded-Host", "evil.example"),
                ("X-Forwarded-Proto", "http"),
            ],
        );
        assert_eq!(origin.client, "192.0.2.1".parse::<IpAddr>().unwrap());
        assert_eq!(origin.client_port, 4_711);
        assert_eq!(origin.host(), Some("gw.example"));
        let headers = forwarded(&origin);
        assert_eq!(headers["x-forwarded-for"], "192.0.2.1");
        assert_eq!(headers["x-forwarded-host"], "gw.example:8443");
        assert_eq!(headers["x-forwarded-proto"], "https");
    }

    #[test]
    fn a_trusted_proxy_is() {
        let origin = origin(
            "127.0.0.1",
            &[
                ("Host", "backend"),
                ("X-Forwarded-For", "1.2.3.4, 192.0.2.7"),
                ("X-Forwarded-For", "10.9.0.3"),
                ("X-Forwarded-Host", "gw.example"),
            ],
        );
        // 1.2.3.4 is only what 192.0.2.7 said.
        assert_eq!(origin.client, "192.0.2.7".parse::<IpAddr>().unwrap());
        assert_eq!(origin.client_port, 0);
        assert_eq!(origin.host(), Some("gw.example"));
        let headers = forwarded(&origin);
        assert_eq!(
            headers["x-forwarded-for"],
            "1.2.3.4, 192.0.2.7, 10.9.0.3, 127.0.0.1"
        );
    }

    #[test]
    fn the_standard_header_is_read_where_it_is_configured() {
        let headers = [
            ("Host", "backend"),
            ("X-Forwarded-For", "198.51.100.9"),
            ("X-Forwarded-Host", "evil.example"),
            (
                "Forwarded",
                "for=1.2.3.4, for=\"[2001:db8::7]:4711\";proto=http;host=\"gw.example:8443\", for=10.9.0.3",
            ),
        ];
        let told = origin_by(ForwardedHeader::Forwarded, "127.0.0.1", &headers);
        assert_eq!(told.client, "2001:db8::7".parse::<IpAddr>().unwrap());
        assert_eq!(told.client_port, 4_711);
        assert_eq!(told.host(), Some("gw.example"));
        let to_manager = forwarded(&told);
        assert_eq!(
            to_manager["x-forwarded-for"],
            "1.2.3.4, [2001:db8::7]:4711, 10.9.0.3, 127.0.0.1"
        );
        assert_eq!(to_manager["x-forwarded-proto"], "http");

        let strange = origin_by(ForwardedHeader::Forwarded, "192.0.2.1", &headers);
        assert_eq!(strange.client, "192.0.2.1".parse::<IpAddr>().unwrap());
        let other = origin("127.0.0.1", &headers);
        assert_eq!(other.client, "198.51.100.9".parse::<IpAddr>().unwrap());
        let broken = [("Forwarded", "for=\"1.2.3.4")];
        let broken = origin_by(ForwardedHeader::Forwarded, "127.0.0.1", &broken);
        assert_eq!(broken.client, "127.0.0.1".parse::<IpAddr>().unwrap());
    }

    #[test]
    fn the_host_loses_port_and_brackets() {
        for (header, expected) in [
            ("gw.example", Some("gw.example")),
            ("10.0.0.1:443", Some("10.0.0.1")),
            ("[2001:db8::1]:443", Some("2001:db8::1")),
            ("[2001:db8::1]", Some("2001:db8::1")),
            ("user@gw.example", None),
            ("not a host", None),
        ] {
            let origin = origin("192.0.2.1", &[("Host", header)]);
            assert_eq!(origin.host(), expected, "{header}");
        }
    }
}
