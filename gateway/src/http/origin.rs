//! Who sent a request, and under which name the gateway was asked: the connection's own facts,
//! or what a trusted reverse proxy tells of them.

use std::net::{IpAddr, SocketAddr};

use http::header::{FORWARDED, HOST, HeaderMap, HeaderName, HeaderValue};
use http::{Request, uri};
use ipnet::IpNet;

use super::forwarded::{self, Element};
use super::{Client, ConnectionInfo, Verified};
use crate::access_log::RequestId;
use crate::authority::Authority;
use crate::config::ForwardedHeader;
use crate::host::{Host, address_for_uri};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// A client that was not named, as proxies write it (RFC 7239, section 6.2).
const UNKNOWN: &str = "unknown";

/// Facts about a request that the connection alone may not tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The client.
    pub client: Client,
    /// The client's port, if the connection or a proxy tells it; else 0.
    pub client_port: u16,
    /// Number of the request.
    pub request_id: RequestId,
    /// Addresses that the request came through from the client on, for the manager.
    forwarded_for: String,
    /// `https` or `http`.
    proto: String,
    /// The authority that the client asked, with its port if it named one.
    authority: Option<Authority>,
    /// Who the peer is by its certificate, and whether it may speak of a client's.
    verified: Verified,
    is_by_proxy: bool,
    /// The trusted proxy that passed the request on without a word of that.
    silent_proxy: Option<IpAddr>,
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
        let own_proto = if connection.is_tls { "https" } else { "http" };
        if !is_trusted(connection.peer) {
            return Self {
                client: connection.peer.into(),
                client_port: connection.peer_port,
                request_id: RequestId::next(),
                forwarded_for: connection.peer.to_string(),
                proto: own_proto.to_owned(),
                authority: asked_authority(request),
                verified: connection.verified.clone(),
                is_by_proxy: false,
                silent_proxy: None,
            };
        }
        let told = match header {
            ForwardedHeader::XForwarded => Forwarded::by_x_forwarded(headers, is_trusted),
            ForwardedHeader::Forwarded => Forwarded::by_forwarded(headers, is_trusted),
        };
        let sender = told.sender();
        let asked: Option<Authority> = told.host.as_ref().and_then(|host| host.parse().ok());
        let given_id = headers.get(RequestId::HEADER).and_then(RequestId::given);
        Self {
            client: sender.map_or(Client::Unnamed, |sender| sender.ip().into()),
            client_port: sender.map_or(0, |sender| sender.port()),
            request_id: given_id.unwrap_or_else(RequestId::next),
            forwarded_for: told.forwarded_for(connection.peer),
            proto: told
                .proto
                .filter(|proto| proto == "https" || proto == "http")
                .unwrap_or_else(|| own_proto.to_owned()),
            verified: connection.verified.clone(),
            is_by_proxy: true,
            silent_proxy: asked.is_none().then_some(connection.peer),
            authority: asked.or_else(|| asked_authority(request)),
        }
    }

    /// The host part of what the client asked.
    pub fn host(&self) -> Option<&Host> {
        self.authority.as_ref().map(|authority| &authority.host)
    }

    /// The gateway's own name as the client is to use it in URIs: `external_name`, else what it
    /// asked, else `local`, the address that it connected to.
    pub fn own_address(&self, external_name: Option<&Host>, local: IpAddr) -> String {
        match external_name.or(self.host()) {
            Some(host) => host.for_uri(),
            None => address_for_uri(local),
        }
    }

    /// What the client asked, as it sees it.
    pub fn authority(&self) -> Option<&Authority> {
        self.authority.as_ref()
    }

    /// The trusted proxy that passed the request on and did not tell what the client asked for:
    /// [`Self::host`] may be its own name of this gateway.
    pub fn silent_proxy(&self) -> Option<IpAddr> {
        self.silent_proxy
    }

    /// Whether the client asked over HTTPS, as far as anybody tells.
    pub fn is_https(&self) -> bool {
        self.proto == "https"
    }

    /// Tells the manager; what the client wrote there itself is replaced.
    pub fn write(&self, headers: &mut HeaderMap) {
        let authority = self.authority.as_ref().map(ToString::to_string);
        let fields = [
            (FORWARDED_FOR, Some(self.forwarded_for.as_str())),
            (FORWARDED_PROTO, Some(self.proto.as_str())),
            (FORWARDED_HOST, authority.as_deref()),
            (RequestId::HEADER, Some(self.request_id.as_str())),
        ];
        self.verified.write(self.is_by_proxy, headers);
        headers.remove(FORWARDED);
        for (name, value) in fields {
            headers.remove(&name);
            if let Some(value) = value.and_then(|value| HeaderValue::from_str(value).ok()) {
                headers.insert(name, value);
            }
        }
    }
}

/// What trusted proxies tell, and nothing that may be invented: their entries are read from the
/// nearest on, up to the first address that no trusted proxy has.
#[derive(Default)]
struct Forwarded {
    /// Who sent the request to each proxy, the nearest first.
    senders: Vec<SocketAddr>,
    /// The farthest trusted proxy named nobody, or in a way that cannot be read.
    is_cut: bool,
    proto: Option<String>,
    host: Option<String>,
}

impl Forwarded {
    fn by_x_forwarded(headers: &HeaderMap, is_trusted: impl Fn(IpAddr) -> bool) -> Self {
        let first = |name| list(headers, name).into_iter().next();
        let mut told = Self {
            proto: first(&FORWARDED_PROTO),
            host: first(&FORWARDED_HOST),
            ..Self::default()
        };
        let values: Vec<_> = headers.get_all(FORWARDED_FOR).iter().collect();
        let values = values.into_iter().rev();
        for entry in values.flat_map(|value| value.as_bytes().rsplit(|byte| *byte == b',')) {
            if !told.goes_on(parse_node(entry), &is_trusted) {
                break;
            }
        }
        told
    }

    fn by_forwarded(headers: &HeaderMap, is_trusted: impl Fn(IpAddr) -> bool) -> Self {
        let mut told = Self::default();
        for element in forwarded::nearest_first(headers) {
            let Element {
                by_whom,
                proto,
                host,
            } = element.unwrap_or_default();
            // The farthest proxy knows best what the client asked.
            told.proto = proto.or(told.proto);
            told.host = host.or(told.host);
            let sender = by_whom.and_then(|node| parse_node(node.as_bytes()));
            if !told.goes_on(sender, &is_trusted) {
                break;
            }
        }
        told
    }

    /// Takes the next entry; whether the one before it is a trusted proxy's too.
    fn goes_on(
        &mut self,
        sender: Option<SocketAddr>,
        is_trusted: &impl Fn(IpAddr) -> bool,
    ) -> bool {
        self.is_cut = sender.is_none();
        self.senders.extend(sender);
        sender.is_some_and(|sender| is_trusted(sender.ip()))
    }

    /// The client; `None`: nobody was named.
    fn sender(&self) -> Option<SocketAddr> {
        self.senders.last().copied().filter(|_| !self.is_cut)
    }

    /// `X-Forwarded-For` of a request that came from `peer` at last.
    fn forwarded_for(&self, peer: IpAddr) -> String {
        let unnamed = self.sender().is_none().then(|| UNKNOWN.to_owned());
        let senders = self.senders.iter().rev().map(|sender| match sender.port() {
            0 => sender.ip().to_string(),
            _ => sender.to_string(),
        });
        let all = unnamed.into_iter().chain(senders).chain([peer.to_string()]);
        all.collect::<Vec<_>>().join(", ")
    }
}

/// The authority of an absolute request target goes before `Host` (RFC 9112, section 3.2.2).
fn asked_authority<B>(request: &Request<B>) -> Option<Authority> {
    let host = request
        .headers()
        .get(HOST)
        .and_then(|host| host.to_str().ok());
    let asked = request.uri().authority().map(uri::Authority::as_str);
    asked.or(host)?.parse().ok()
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

/// An address as proxies write it: with or without port, which is 0 then; IPv6 with or without
/// brackets. `None`: it cannot be read, or is nobody's.
pub fn parse_node(text: &[u8]) -> Option<SocketAddr> {
    let text = std::str::from_utf8(text).ok()?.trim();
    let bare = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .filter(|inner| inner.contains(':'))
        .unwrap_or(text);
    let address = match bare.parse() {
        Ok(address) => SocketAddr::new(address, 0),
        // A scope would be taken in too.
        Err(_) if text.contains('%') => return None,
        Err(_) => text.parse().ok()?,
    };
    let ip = address.ip().to_canonical();
    (!ip.is_unspecified()).then(|| SocketAddr::new(ip, address.port()))
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

    fn at(address: &str) -> Client {
        Client::At(address.parse().unwrap())
    }

    fn host(origin: &Origin) -> Option<String> {
        origin.host().map(ToString::to_string)
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
        assert_eq!(origin.client, at("192.0.2.1"));
        assert_eq!(origin.client_port, 4_711);
        assert_eq!(host(&origin).as_deref(), Some("gw.example"));
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
        assert_eq!(origin.client, at("192.0.2.7"));
        assert_eq!(origin.client_port, 0);
        assert_eq!(host(&origin).as_deref(), Some("gw.example"));
        let headers = forwarded(&origin);
        // 1.2.3.4 is only what 192.0.2.7 said.
        assert_eq!(headers["x-forwarded-for"], "192.0.2.7, 10.9.0.3, 127.0.0.1");
    }

    #[test]
    fn a_client_does_not_become_its_proxy() {
        for (told, client) in [
            (&["\u{80}, 203.0.113.5"][..], Some("203.0.113.5")),
            (&["\u{80}", "203.0.113.5"], Some("203.0.113.5")),
            (
                &["198.51.100.9, 203.0.113.5, 10.9.0.3"],
                Some("203.0.113.5"),
            ),
            (&["203.0.113.5:4711"], Some("203.0.113.5")),
            (&["[2001:db8::5]:4711"], Some("2001:db8::5")),
            (&["::ffff:203.0.113.5"], Some("203.0.113.5")),
            // A proxy that asks on its own behalf.
            (&["10.9.0.3"], Some("10.9.0.3")),
            (&[], None),
            (&[""], None),
            (&["\u{80}"], None),
            (&["203.0.113.9, unknown"], None),
            (&["203.0.113.9", "unknown"], None),
            (&["203.0.113.9,"], None),
            (&["203.0.113.9, \u{80}"], None),
            (&["203.0.113.9, _hidden, 10.9.0.3"], None),
            (&["203.0.113.9, 0.0.0.0"], None),
            (&["203.0.113.9, [::]:1"], None),
            (&["203.0.113.9, fe80::1%1"], None),
            (&["203.0.113.9, [fe80::1%1]:5"], None),
            (&["203.0.113.9, [[::1]]"], None),
            (&["203.0.113.9, unix:"], None),
        ] {
            let x_forwarded: Vec<_> = told
                .iter()
                .map(|value| ("X-Forwarded-For", *value))
                .collect();
            let origin = origin("127.0.0.1", &x_forwarded);
            assert_eq!(
                origin.client,
                client.map_or(Client::Unnamed, at),
                "{told:?}"
            );
            let to_manager = forwarded(&origin)["x-forwarded-for"].clone();
            let to_manager = to_manager.to_str().unwrap();
            let named = to_manager.starts_with("unknown, ");
            assert_eq!(named, client.is_none(), "{told:?}: {to_manager}");
            assert!(
                !to_manager.contains("203.0.113.9"),
                "{told:?}: {to_manager}"
            );
            assert!(
                to_manager.ends_with(", 127.0.0.1"),
                "{told:?}: {to_manager}"
            );
        }
    }

    #[test]
    fn no_element_of_a_client_counts() {
        let told = |value: &str| {
            origin_by(
                ForwardedHeader::Forwarded,
                "127.0.0.1",
                &[("Host", "backend"), ("Forwarded", value)],
            )
        };
        let honest = told("for=1.2.3.4;host=evil;proto=http, for=203.0.113.5;host=gw;proto=https");
        assert_eq!(honest.client, at("203.0.113.5"));
        assert_eq!(host(&honest).as_deref(), Some("gw"));
        assert_eq!(forwarded(&honest)["x-forwarded-proto"], "https");
        for (value, client) in [
            ("\u{80}, for=203.0.113.5", Some("203.0.113.5")),
            ("for=\", for=203.0.113.5", Some("203.0.113.5")),
            ("for=1.2.3.4, for=\"", None),
            ("for=1.2.3.4, for=unknown", None),
            ("for=1.2.3.4, for=_gazonk, for=10.9.0.3", None),
            ("for=1.2.3.4, proto=https", None),
            ("for=1.2.3.4,", None),
            ("", None),
        ] {
            let client = client.map_or(Client::Unnamed, at);
            assert_eq!(told(value).client, client, "{value}");
        }
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
        assert_eq!(told.client, at("2001:db8::7"));
        assert_eq!(told.client_port, 4_711);
        assert_eq!(host(&told).as_deref(), Some("gw.example"));
        let to_manager = forwarded(&told);
        assert_eq!(
            to_manager["x-forwarded-for"],
            "[2001:db8::7]:4711, 10.9.0.3, 127.0.0.1"
        );
        assert_eq!(to_manager["x-forwarded-proto"], "http");

        let strange = origin_by(ForwardedHeader::Forwarded, "192.0.2.1", &headers);
        assert_eq!(strange.client, at("192.0.2.1"));
        let other = origin("127.0.0.1", &headers);
        assert_eq!(other.client, at("198.51.100.9"));
    }

    #[test]
    fn the_host_loses_its_port_and_must_be_one() {
        for (header, expected) in [
            ("gw.example", Some("gw.example")),
            ("10.0.0.1:443", Some("10.0.0.1")),
            ("[2001:db8::1]:443", Some("[2001:db8::1]")),
            ("[2001:db8::1]", Some("[2001:db8::1]")),
            ("user@gw.example", None),
            ("not a host", None),
            ("0.0.0.0", None),
            ("[fe80::1%25eth0]", None),
        ] {
            let of = |origin: &Origin| origin.host().map(Host::for_uri);
            let asked = origin("192.0.2.1", &[("Host", header)]);
            assert_eq!(of(&asked).as_deref(), expected, "{header}");
            // What proxies tell is held to the same rules.
            let told = [("Host", "backend"), ("X-Forwarded-Host", header)];
            let told = origin("127.0.0.1", &told);
            assert_eq!(of(&told).as_deref(), expected.or(Some("backend")));
            let told = format!("for=192.0.2.7;host=\"{header}\"");
            let told = [("Host", "backend"), ("Forwarded", told.as_str())];
            let told = origin_by(ForwardedHeader::Forwarded, "127.0.0.1", &told);
            assert_eq!(of(&told).as_deref(), expected.or(Some("backend")));
        }
    }
}
