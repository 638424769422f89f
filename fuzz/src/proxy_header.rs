//! The PROXY protocol's header: the same however it comes in, read to its end and no further, and
//! it says what a second reader finds in it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use gateway::listen::proxy_protocol::{ClientAddresses, HeaderError, ProxyProtocol};
use tokio::io::{AsyncRead, ReadBuf};

use crate::input::{Input, pieces};
use crate::poll_once;

const SIGNATURE_V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// The most that may be read, whatever comes.
const LONGEST: usize = 4_096;

/// One byte that says where to cut, then what the peer sends.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let seed = input.byte();
    let bytes = input.rest();
    let (whole, read) = receive(std::iter::once(bytes));
    let (cut, read_cut) = receive(pieces(bytes, seed));
    assert_eq!(show(&whole), show(&cut), "cut");
    assert_eq!(read, read_cut, "cut");
    assert!(read <= LONGEST);
    if let Ok(told) = whole {
        assert_eq!(told, second_opinion(&bytes[..read]));
    }
}

fn show(outcome: &Result<Option<ClientAddresses>, HeaderError>) -> String {
    format!("{outcome:?}")
}

fn receive<'a>(
    pieces: impl Iterator<Item = &'a [u8]>,
) -> (Result<Option<ClientAddresses>, HeaderError>, usize) {
    let mut peer = Peer {
        pieces: pieces.collect(),
        read: 0,
    };
    peer.pieces.reverse();
    let proxies = ProxyProtocol::new(vec![], Duration::from_secs(5));
    let told = poll_once(proxies.receive(&mut peer, Ipv4Addr::LOCALHOST.into()));
    (told, peer.read)
}

/// Who the client is, of a header that was accepted.
fn second_opinion(header: &[u8]) -> Option<ClientAddresses> {
    let told = |source: IpAddr, source_port, destination: IpAddr| ClientAddresses {
        source: source.to_canonical(),
        source_port,
        destination: destination.to_canonical(),
    };
    if let Some(rest) = header.strip_prefix(SIGNATURE_V2) {
        let &[command, family, high, low, ref addresses @ ..] = rest else {
            panic!("a header without its fixed part");
        };
        assert_eq!(
            usize::from(u16::from_be_bytes([high, low])),
            addresses.len()
        );
        if command == 0x20 {
            return None;
        }
        assert_eq!(command, 0x21);
        let ports = |at: usize| u16::from_be_bytes([addresses[at], addresses[at + 1]]);
        let v4 = |at: usize| Ipv4Addr::from(*addresses[at..].first_chunk().expect("its length"));
        let v6 = |at: usize| Ipv6Addr::from(*addresses[at..].first_chunk().expect("its length"));
        return match family >> 4 {
            1 => Some(told(v4(0).into(), ports(8), v4(4).into())),
            2 => Some(told(v6(0).into(), ports(32), v6(16).into())),
            _ => None,
        };
    }
    // Whatever follows, it says nothing (section 2.1).
    if header.starts_with(b"PROXY UNKNOWN") {
        return None;
    }
    let text = std::str::from_utf8(header).expect("version 1 is text");
    let line = text.strip_suffix("\r\n").expect("a whole line");
    let words: Vec<_> = line.split(' ').collect();
    match words[..] {
        [
            "PROXY",
            family @ ("TCP4" | "TCP6"),
            source,
            destination,
            source_port,
            _,
        ] => {
            let [source, destination]: [IpAddr; 2] =
                [source, destination].map(|text| text.parse().expect("an address"));
            assert_eq!(source.is_ipv4(), family == "TCP4");
            let source_port = source_port.parse().expect("a port");
            Some(told(source, source_port, destination))
        }
        _ => panic!("accepted: {line:?}"),
    }
}

/// Gives one piece for each read, then the end.
struct Peer<'a> {
    /// The next one is the last.
    pieces: Vec<&'a [u8]>,
    read: usize,
}

impl AsyncRead for Peer<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        space: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(piece) = self.pieces.pop() {
            let (now, later) = piece.split_at(piece.len().min(space.remaining()));
            space.put_slice(now);
            self.read += now.len();
            if !later.is_empty() {
                self.pieces.push(later);
            }
        }
        Poll::Ready(Ok(()))
    }
}
