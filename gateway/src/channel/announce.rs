//! Telling a host who its client is, by the PROXY protocol.
//!
//! <https://www.haproxy.org/download/2.8/doc/proxy-protocol.txt>

use std::io;
use std::net::{IpAddr, SocketAddr};

use proxy_header::{ProxiedAddress, ProxyHeader};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tracing::debug;

use crate::config::HostProxyProtocol;
use crate::http::Client;
use gateway_datapath::HostStream;

/// Sends the header that begins a plain TCP connection to a host, if hosts expect one. One with
/// TLS has begun with it before its handshake.
pub(super) async fn announce(
    protocol: HostProxyProtocol,
    client: SocketAddr,
    host: &mut HostStream,
) {
    if let HostStream::Tcp(host) = host {
        announce_on(protocol, client, host).await;
    }
}

/// Sends the header that begins a TCP connection to a host, if hosts expect one. A host that is
/// lost already is noticed by whoever moves its stream.
pub(super) async fn announce_on(
    protocol: HostProxyProtocol,
    client: SocketAddr,
    host: &mut TcpStream,
) {
    if protocol == HostProxyProtocol::Off {
        return;
    }
    let announced = async {
        let header = header(protocol, client, host.peer_addr()?)?;
        host.write_all(&header).await
    };
    if let Err(error) = announced.await {
        debug!(%client, %error, "host lost before it was told of its client");
    }
}

/// The client's port is 0 where a reverse proxy has told nothing but its address; where it has
/// told nothing at all, neither do we: the header is then `UNKNOWN` or, in version 2, `LOCAL`.
fn header(
    protocol: HostProxyProtocol,
    client: SocketAddr,
    host: SocketAddr,
) -> io::Result<Vec<u8>> {
    let port = client.port();
    // Both addresses must be of the same family.
    let (client, address) = match (client.ip().to_canonical(), host.ip().to_canonical()) {
        (IpAddr::V4(v4), IpAddr::V6(host)) => (v4.to_ipv6_mapped().into(), host.into()),
        (IpAddr::V6(client), IpAddr::V4(v4)) => (client.into(), v4.to_ipv6_mapped().into()),
        same => same,
    };
    let source = SocketAddr::new(client, port);
    let destination = SocketAddr::new(address, host.port());
    let header = match Client::from(source.ip()) {
        Client::At(_) => ProxyHeader::with_address(ProxiedAddress::stream(source, destination)),
        Client::Unnamed => ProxyHeader::with_local(),
    };
    let mut bytes = Vec::new();
    match protocol {
        HostProxyProtocol::Off => Ok(()),
        HostProxyProtocol::V1 => header.encode_v1(&mut bytes),
        HostProxyProtocol::V2 => header.encode_v2(&mut bytes),
    }
    .map_err(|error| io::Error::other(error.to_string()))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v1(client: &str, host: &str) -> String {
        let header = header(
            HostProxyProtocol::V1,
            client.parse().unwrap(),
            host.parse().unwrap(),
        );
        String::from_utf8(header.unwrap()).unwrap()
    }

    #[test]
    fn names_client_and_host_in_one_family() {
        assert_eq!(
            v1("192.0.2.7:0", "10.0.0.1:5900"),
            "PROXY TCP4 192.0.2.7 10.0.0.1 0 5900\r\n"
        );
        assert_eq!(
            v1("192.0.2.7:4711", "[fd00::1]:5900"),
            "PROXY TCP6 ::ffff:192.0.2.7 fd00::1 4711 5900\r\n"
        );
        assert_eq!(
            v1("[2001:db8::7]:4711", "10.0.0.1:5900"),
            "PROXY TCP6 2001:db8::7 ::ffff:10.0.0.1 4711 5900\r\n"
        );
    }

    #[test]
    fn a_client_that_nobody_named_is_not_named() {
        assert_eq!(v1("0.0.0.0:0", "10.0.0.1:5900"), "PROXY UNKNOWN\r\n");
        assert_eq!(v1("0.0.0.0:0", "[fd00::1]:5900"), "PROXY UNKNOWN\r\n");
    }

    #[test]
    fn version_2_is_binary() {
        let client = "192.0.2.7:258".parse().unwrap();
        let host = "10.0.0.1:5900".parse().unwrap();
        let header = header(HostProxyProtocol::V2, client, host).unwrap();
        let addresses = [192, 0, 2, 7, 10, 0, 0, 1, 1, 2, 0x17, 0x0c];
        assert_eq!(header[..12], *b"\r\n\r\n\0\r\nQUIT\n");
        assert_eq!(header[12..16], [0x21, 0x11, 0, 12]);
        assert_eq!(header[16..], addresses);
    }
}
