//! Connecting to one of a host's addresses.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::tcp;

/// What an address has before the next one is tried beside it (RFC 8305, section 5).
const HEAD_START: Duration = Duration::from_millis(250);
/// Largest segment of a host on the same machine, in bytes: as on Ethernet. Loopback's own are 44
/// times as long, and a kernel lets twenty of them wait in the host's socket, whatever the client
/// takes (`tcp_sndbuf_expand`, `net/ipv4/tcp_input.c`). They still travel many at a time.
const SEGMENT: u32 = 1_460;

/// Connects to the first address that answers, families in turn (RFC 8305); the last error if none
/// does. Sets no limit on time.
pub(super) async fn dial(addresses: Vec<SocketAddr>) -> io::Result<TcpStream> {
    let mut waiting = in_turn(addresses).into_iter();
    let mut attempts = JoinSet::new();
    let mut last = io::ErrorKind::AddrNotAvailable.into();
    loop {
        match waiting.next() {
            Some(address) => {
                attempts.spawn(attempt(address));
            }
            None if attempts.is_empty() => return Err(last),
            None => {}
        }
        let answer = attempts.join_next();
        let answer = if waiting.len() > 0 {
            timeout(HEAD_START, answer).await.ok().flatten()
        } else {
            answer.await
        };
        match answer {
            Some(Ok(Ok(stream))) => return Ok(stream),
            Some(Ok(Err(error))) => last = error,
            Some(Err(failed)) => last = io::Error::other(failed),
            None => {}
        }
    }
}

/// IPv6 and IPv4 alternate, beginning with the family that the resolver prefers.
fn in_turn(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let count = addresses.len();
    let prefers_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) = addresses
        .into_iter()
        .partition(|address| address.is_ipv6() == prefers_v6);
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let mut ordered = Vec::with_capacity(count);
    while ordered.len() < count {
        ordered.extend(first.next());
        ordered.extend(second.next());
    }
    ordered
}

async fn attempt(address: SocketAddr) -> io::Result<TcpStream> {
    let kind = Type::STREAM.nonblocking();
    let socket = Socket::new(Domain::for_address(address), kind, Some(Protocol::TCP))?;
    tcp::tune(&socket)?;
    if is_here(address.ip()) {
        // Without it the host keeps more waiting, and all else is the same.
        let _ = socket.set_tcp_mss(SEGMENT);
    }
    TcpSocket::from_std_stream(socket.into())
        .connect(address)
        .await
}

/// Whether an address is one of this machine's: the way there then begins at the address itself.
/// Nothing is sent.
fn is_here(address: IpAddr) -> bool {
    if address.is_loopback() {
        return true;
    }
    let any: IpAddr = match address {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let way = UdpSocket::bind((any, 0)).and_then(|probe| {
        // Any port but 0.
        probe.connect((address, 9))?;
        probe.local_addr()
    });
    way.is_ok_and(|way| way.ip() == address)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn listener(address: &str) -> (tokio::net::TcpListener, SocketAddr) {
        let listener = tokio::net::TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    #[test]
    fn families_alternate_beginning_with_the_preferred_one() {
        let addresses = ["[::1]:1", "[::2]:1", "[::3]:1", "1.1.1.1:1"].map(|a| a.parse().unwrap());
        let ordered = in_turn(addresses.to_vec());
        let ordered: Vec<_> = ordered.iter().map(ToString::to_string).collect();
        assert_eq!(ordered, ["[::1]:1", "1.1.1.1:1", "[::2]:1", "[::3]:1"]);
    }

    #[tokio::test]
    async fn an_address_that_refuses_gives_way_to_the_next_one() {
        let (closed, refuses) = listener("127.0.0.1:0").await;
        drop(closed);
        let (_open, answers) = listener("127.0.0.1:0").await;
        let stream = dial(vec![refuses, answers]).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), answers);
        let error = dial(vec![refuses]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        let error = dial(Vec::new()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrNotAvailable);
    }

    #[tokio::test]
    async fn an_address_that_does_not_answer_is_not_waited_for() {
        // A queue of one that is full answers no more.
        let full = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        full.bind(&any.into()).unwrap();
        full.listen(0).unwrap();
        let silent = full.local_addr().unwrap().as_socket().unwrap();
        let mut queued = Vec::new();
        while let Ok(connected) = timeout(HEAD_START, TcpStream::connect(silent)).await {
            queued.push(connected.unwrap());
        }
        let (_open, answers) = listener("127.0.0.1:0").await;
        let stream = dial(vec![silent, answers]).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), answers);
    }

    #[tokio::test]
    async fn a_host_on_the_same_machine_sends_segments_as_others_do() {
        let (listener, address) = listener("127.0.0.1:0").await;
        let (_near, far) = tokio::join!(dial(vec![address]), listener.accept());
        let segment = socket2::SockRef::from(&far.unwrap().0).tcp_mss().unwrap();
        assert!(segment <= SEGMENT, "{segment}");
    }

    #[test]
    fn own_addresses_are_known() {
        assert!(is_here("127.0.0.1".parse().unwrap()));
        assert!(is_here("127.9.9.9".parse().unwrap()));
        assert!(!is_here("192.0.2.1".parse().unwrap()));
    }
}
