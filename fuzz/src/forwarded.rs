//! Who a request came from and whom it asked, as reverse proxies tell it: nothing that a client
//! wrote is taken for what a proxy says, what is passed on means the same to the next reader, and
//! hosts, authorities and origins mean the same when they are written again.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use gateway::authority::Authority;
use gateway::config::{Config, ForwardedHeader};
use gateway::host::Host;
use gateway::http::origin::parse_node;
use gateway::http::{Client, ConnectionInfo, Origin, forwarded};
use gateway::limits::ConnectionLimits;
use gateway::web_origin::{OriginRules, WebOrigin};
use http::header::{FORWARDED, HOST, ORIGIN};
use http::{HeaderMap, HeaderValue, Request, Uri};
use ipnet::IpNet;

use crate::input::Input;

const X_FORWARDED_FOR: &str = "x-forwarded-for";
const X_FORWARDED_HOST: &str = "x-forwarded-host";
/// The nearest proxy, and whom it speaks for.
const PROXY: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 9, 0, 1));
const SENDER: &str = "203.0.113.5";

/// A byte that says what follows: the name of a server, or what a client wrote into the headers of
/// a request, a value each line.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let kind = input.byte() % 4;
    let rest = input.rest();
    if kind == 0 {
        if let Ok(text) = std::str::from_utf8(rest) {
            host(text);
            authority(text);
            web_origin(text);
        }
        return;
    }
    let values: Option<Vec<_>> = rest
        .split(|byte| *byte == b'\n')
        .map(|line| HeaderValue::from_bytes(line).ok())
        .collect();
    let Some(values) = values else { return };
    match kind {
        1 => x_forwarded(&values),
        2 => standard(&values),
        _ => asked(&values),
    }
}

fn host(text: &str) {
    let Ok(host) = text.parse::<Host>() else {
        return;
    };
    let shown = [host.to_string(), host.for_uri()];
    for shown in &shown {
        assert_eq!(shown.parse().as_ref(), Ok(&host), "{shown:?}");
        // Nothing that leads a URI's reader to another host, or ends a header.
        let misleads = |byte: u8| !byte.is_ascii_graphic() || b"@/\\?#,;\"%".contains(&byte);
        assert!(!shown.bytes().any(misleads), "{shown:?}");
    }
    let [plain, in_uri] = shown;
    assert_eq!(plain.parse().ok(), host.address());
    let has_brackets = in_uri.starts_with('[') && in_uri.ends_with(']');
    assert_eq!(host.address().is_some_and(|ip| ip.is_ipv6()), has_brackets);
    let uri: Uri = format!("https://{in_uri}:8443/").parse().expect("a URI");
    assert_eq!(uri.host(), Some(in_uri.as_str()));
    let nowhere = |address: IpAddr| address.is_unspecified() || address.to_canonical() != address;
    assert!(!host.address().is_some_and(nowhere), "{plain}");
}

fn authority(text: &str) {
    let Ok(authority) = text.parse::<Authority>() else {
        return;
    };
    let shown = authority.to_string();
    assert_eq!(shown.parse().as_ref(), Ok(&authority));
    let second: http::uri::Authority = shown.parse().expect("an authority");
    assert_eq!(second.host(), authority.host.for_uri());
    assert_eq!(second.port_u16(), authority.port);
    assert_ne!(authority.port, Some(0));
}

fn web_origin(text: &str) {
    let Ok(origin) = text.parse::<WebOrigin>() else {
        return;
    };
    let shown = origin.to_string();
    assert_eq!(shown.parse().as_ref(), Ok(&origin));
    // Where it is configured its pages are let in, whatever they ask, and a page of another
    // scheme, host or port is not.
    let config = Config {
        allowed_origins: vec![origin],
        ..Config::default()
    };
    let rules = OriginRules::new(&config.allowed_origins, config.hijack_all);
    let lets_in = |origin: &str| {
        let mut headers = HeaderMap::new();
        headers.insert(ORIGIN, origin.parse().expect("visible characters"));
        rules.check(&headers, None, true).is_ok()
    };
    assert!(lets_in(&shown));
    assert!(lets_in(&shown.to_uppercase()));
    assert!(!lets_in(&format!("x{shown}")));
    assert!(!lets_in(&shown.replacen("://", "://x.", 1)));
    assert!(!lets_in("null"));
}

/// What a client wrote stands left of what the proxies append.
fn x_forwarded(values: &[HeaderValue]) {
    let of = |values: &[HeaderValue]| {
        let with = |value: &HeaderValue| (X_FORWARDED_FOR, value.clone());
        let headers: Vec<_> = values.iter().map(with).collect();
        origin(ForwardedHeader::XForwarded, &headers)
    };
    let whole = of(values);
    assert_eq!(whole.client, second_opinion(values), "{values:?}");
    is_passed_on(&whole);
    let named = of(&appended(values, SENDER));
    assert_eq!(named.client, at(SENDER));
    is_passed_on(&named);
    for unreadable in ["unknown", "_hidden", "", "0.0.0.0", "1.1.1.1%1", "\u{80}"] {
        let hidden = of(&appended(values, unreadable));
        assert_eq!(hidden.client, Client::Unnamed, "{unreadable:?}");
        is_passed_on(&hidden);
    }
}

fn standard(values: &[HeaderValue]) {
    let of = |values: &[HeaderValue]| {
        let with = |value: &HeaderValue| (FORWARDED.as_str(), value.clone());
        let headers: Vec<_> = values.iter().map(with).collect();
        origin(ForwardedHeader::Forwarded, &headers)
    };
    is_passed_on(&of(values));
    for value in values {
        for element in forwarded::elements(value.as_bytes()).flatten() {
            let written = write(&element);
            let again: Vec<_> = forwarded::elements(written.as_bytes()).collect();
            assert_eq!(again, [Some(element)], "{written:?}");
        }
    }
    let named = of(&appended(values, r#"for="203.0.113.5";x="a,\"b""#));
    assert_eq!(named.client, at(SENDER));
    is_passed_on(&named);
    for unreadable in ["for=unknown", "for=_hidden", "", "proto=https", "\u{80}"] {
        let hidden = of(&appended(values, unreadable));
        assert_eq!(hidden.client, Client::Unnamed, "{unreadable:?}");
        is_passed_on(&hidden);
    }
}

/// Names that a client asked, from itself and through a proxy.
fn asked(values: &[HeaderValue]) {
    let Some(name) = values.first() else { return };
    let direct = origin(
        ForwardedHeader::XForwarded,
        &[(HOST.as_str(), name.clone())],
    );
    let text = name.to_str().unwrap_or_default();
    assert_eq!(direct.authority(), text.parse().ok().as_ref());
    let told = [
        (HOST.as_str(), HeaderValue::from_static("backend")),
        (X_FORWARDED_HOST, name.clone()),
    ];
    let told = origin(ForwardedHeader::XForwarded, &told);
    let first = text.split(',').map(str::trim).find(|name| !name.is_empty());
    let expected = first.and_then(|name| name.parse::<Authority>().ok());
    let backend = Authority {
        host: "backend".parse().expect("a name"),
        port: None,
    };
    assert_eq!(told.authority(), Some(&expected.unwrap_or(backend)));
    is_passed_on(&direct);
    is_passed_on(&told);
}

fn is_trusted(address: IpAddr) -> bool {
    trusted().iter().any(|net| net.contains(&address))
}

fn trusted() -> [IpNet; 2] {
    ["10.9.0.0/16", "fd00::/8"].map(|net| net.parse().expect("a network"))
}

fn at(address: &str) -> Client {
    Client::At(address.parse().expect("an address"))
}

/// The origin of a request that the nearest proxy passed on.
fn origin(header: ForwardedHeader, headers: &[(&str, HeaderValue)]) -> Origin {
    let mut request = Request::new(());
    for (name, value) in headers {
        let name = http::HeaderName::from_bytes(name.as_bytes()).expect("a name");
        request.headers_mut().append(name, value.clone());
    }
    let limits = Arc::new(ConnectionLimits::new(1, None, vec![]));
    let connection = ConnectionInfo {
        peer: PROXY,
        peer_port: 1,
        local: PROXY,
        verified: gateway::http::Verified::NotAsked,
        is_tls: true,
        permit: Arc::new(limits.admit(PROXY).expect("the only one")),
    };
    Origin::of(&request, &connection, &trusted(), header)
}

/// With an entry that the nearest proxy appends, in the last line.
fn appended(values: &[HeaderValue], entry: &str) -> Vec<HeaderValue> {
    let (last, before) = values.split_last().expect("there is always a line");
    let last = [last.as_bytes(), b", ", entry.as_bytes()].concat();
    let mut all = before.to_vec();
    all.push(HeaderValue::from_bytes(&last).expect("both are values"));
    all
}

/// The next reader, which trusts this gateway as well, finds the same in what it is told; and no
/// address is passed on but those that trusted proxies have vouched for.
fn is_passed_on(origin: &Origin) {
    let mut headers = HeaderMap::new();
    headers.insert(FORWARDED, HeaderValue::from_static("for=1.1.1.1"));
    origin.write(&mut headers);
    assert!(!headers.contains_key(FORWARDED));
    let told = headers[X_FORWARDED_FOR].to_str().expect("text");
    let entries: Vec<_> = told.split(", ").collect();
    let (first, proxies) = entries.split_first().expect("the peer at least");
    for proxy in proxies {
        let proxy = parse_node(proxy.as_bytes()).expect("an address");
        assert!(is_trusted(proxy.ip()), "{told}");
    }
    let next: Vec<_> = headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.clone()))
        .collect();
    let next = self::origin(ForwardedHeader::XForwarded, &next);
    assert_eq!(next.client, origin.client, "{told}");
    assert_eq!(next.client_port, origin.client_port, "{told}");
    assert_eq!(next.authority(), origin.authority());
    assert_eq!(next.is_https(), origin.is_https());
    assert_eq!(next.request_id, origin.request_id);
    let is_unnamed = *first == "unknown";
    assert_eq!(is_unnamed, origin.client == Client::Unnamed, "{told}");
}

/// Reads `X-Forwarded-For` the other way round: who stands left of the last untrusted entry counts
/// for nothing.
fn second_opinion(values: &[HeaderValue]) -> Client {
    let all = values.iter().map(HeaderValue::as_bytes);
    let entries: Vec<_> = all.collect::<Vec<_>>().join(&b',');
    let nodes: Vec<Option<SocketAddr>> = entries
        .split(|byte| *byte == b',')
        .map(parse_node)
        .collect();
    let vouched = |node: &Option<SocketAddr>| node.is_some_and(|node| is_trusted(node.ip()));
    let last = nodes.iter().rposition(|node| !vouched(node)).unwrap_or(0);
    nodes[last].map_or(Client::Unnamed, |node| Client::At(node.ip()))
}

/// An element as a proxy writes it.
fn write(element: &forwarded::Element) -> String {
    let fields = [
        ("for", &element.by_whom),
        ("proto", &element.proto),
        ("host", &element.host),
    ];
    let quoted = |text: &String| text.replace('\\', "\\\\").replace('"', "\\\"");
    let fields = fields.into_iter().filter_map(|(name, value)| {
        let value = value.as_ref()?;
        Some(format!("{name}=\"{}\"", quoted(value)))
    });
    fields.collect::<Vec<_>>().join(";")
}
