//! The PROXY protocol, versions 1 and 2: who the client is, as the balancer in front tells at the
//! beginning of a connection.
//!
//! <https://www.haproxy.org/download/2.8/doc/proxy-protocol.txt>

use std::io;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use proxy_header::{ParseConfig, ProxyHeader};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::timeout;
use tracing::{debug, warn};

/// Shortest header of both versions: `PROXY UNKNOWN` with its line end.
const SHORTEST: usize = 15;
/// Longest header of version 1, its line end included (section 2.1).
const LONGEST_V1: usize = 107;
/// Version 2: signature, version, family and length (section 2.2).
const FIXED_V2: usize = 16;
const SIGNATURE_V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Longest header of version 2 that is taken. Balancers send some hundred bytes; the protocol
/// would allow 65,551.
const LONGEST_V2: usize = 4_096;

/// Balancers that send no good header are told of again after this time.
const WARN_INTERVAL: Duration = Duration::from_secs(60);

/// Who speaks the PROXY protocol to this gateway.
pub struct ProxyProtocol {
    networks: Vec<IpNet>,
    time_limit: Duration,
    warned: Mutex<Option<Instant>>,
}

/// What a header says of a client's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientAddresses {
    /// Address of the client.
    pub source: IpAddr,
    /// The client's port; 0: not known.
    pub source_port: u16,
    /// Address that the client connected to.
    pub destination: IpAddr,
}

/// Why a connection has no good header.
#[derive(Debug, thiserror::Error)]
pub enum HeaderError {
    /// Closed at once.
    #[error("closed before a byte was sent")]
    Nothing,
    /// Not complete in the time limit.
    #[error("no header in time")]
    Timeout,
    /// Not a header.
    #[error("no PROXY header, or a malformed one")]
    Malformed,
    /// A header of unusual length.
    #[error("header is longer than {LONGEST_V2} bytes")]
    TooLong,
    /// The connection ended or broke.
    #[error("ended within the header: {0}")]
    Ended(#[from] io::Error),
}

impl HeaderError {
    /// A balancer may try whether the port is open, and hang up.
    pub fn is_empty_probe(&self) -> bool {
        matches!(self, Self::Nothing)
    }
}

impl ProxyProtocol {
    /// Peers in these networks must send a header within the time limit; with others it is not
    /// looked for.
    pub fn new(networks: Vec<IpNet>, time_limit: Duration) -> Self {
        Self {
            networks,
            time_limit,
            warned: Mutex::default(),
        }
    }

    /// Whether a peer must send a header.
    pub fn expects(&self, peer: IpAddr) -> bool {
        self.networks.iter().any(|network| network.contains(&peer))
    }

    /// Reads the header and nothing behind it; `None`: the balancer speaks for itself, as in its
    /// health checks. An error was logged.
    pub async fn receive(
        &self,
        stream: &mut (impl AsyncRead + Unpin),
        peer: IpAddr,
    ) -> Result<Option<ClientAddresses>, HeaderError> {
        let read = timeout(self.time_limit, receive(stream));
        let read = read.await.unwrap_or(Err(HeaderError::Timeout));
        if let Err(error) = &read {
            if error.is_empty_probe() || !self.warns_now() {
                debug!(%peer, reason = %error, "no PROXY header");
            } else {
                warn!(%peer, reason = %error, "no PROXY header from a peer in ProxyProtocol: its connections are closed");
            }
        }
        read
    }

    fn warns_now(&self) -> bool {
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        let due = warned.is_none_or(|at| at.elapsed() >= WARN_INTERVAL);
        if due {
            *warned = Some(Instant::now());
        }
        due
    }
}

async fn receive(
    stream: &mut (impl AsyncRead + Unpin),
) -> Result<Option<ClientAddresses>, HeaderError> {
    let header = read_header(stream).await?;
    let (parsed, length) =
        ProxyHeader::parse(&header, ParseConfig::default()).map_err(|_| HeaderError::Malformed)?;
    if length != header.len() {
        return Err(HeaderError::Malformed);
    }
    Ok(parsed.proxied_address().map(|address| ClientAddresses {
        source: address.source.ip().to_canonical(),
        source_port: address.source.port(),
        destination: address.destination.ip().to_canonical(),
    }))
}

/// The bytes of a header, of which nothing but the extent is looked at. Bytes behind it stay in
/// the socket: they are the client's, and a data path may take the socket over.
async fn read_header(stream: &mut (impl AsyncRead + Unpin)) -> Result<Vec<u8>, HeaderError> {
    let mut header = vec![0; SHORTEST];
    match stream.read(&mut header).await? {
        0 => return Err(HeaderError::Nothing),
        length => stream.read_exact(&mut header[length..]).await?,
    };
    if header.starts_with(SIGNATURE_V2) {
        header.resize(FIXED_V2, 0);
        stream.read_exact(&mut header[SHORTEST..]).await?;
        let rest = usize::from(u16::from_be_bytes([header[14], header[15]]));
        if FIXED_V2 + rest > LONGEST_V2 {
            return Err(HeaderError::TooLong);
        }
        header.resize(FIXED_V2 + rest, 0);
        stream.read_exact(&mut header[FIXED_V2..]).await?;
    } else if header.starts_with(b"PROXY ") {
        while !header.ends_with(b"\r\n") {
            if header.len() == LONGEST_V1 {
                return Err(HeaderError::Malformed);
            }
            header.push(stream.read_u8().await?);
        }
    } else {
        return Err(HeaderError::Malformed);
    }
    Ok(header)
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use proptest::prelude::*;
    use proxy_header::ProxiedAddress;

    use super::*;

    fn run<T>(future: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        runtime.unwrap().block_on(future)
    }

    /// What is told by these bytes, and how many of them are left.
    fn read(bytes: &[u8]) -> Result<(Option<ClientAddresses>, usize), HeaderError> {
        let mut rest = bytes;
        let told = run(receive(&mut rest))?;
        Ok((told, rest.len()))
    }

    fn told(source: &str, source_port: u16, destination: &str) -> ClientAddresses {
        ClientAddresses {
            source: source.parse().unwrap(),
            source_port,
            destination: destination.parse().unwrap(),
        }
    }

    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [SIGNATURE_V2, &[0x20 | command, family], &length, rest].concat()
    }

    #[test]
    fn headers_are_read_to_their_end_and_no_further() {
        let v4 = Some(told("192.0.2.7", 49_152, "198.51.100.1"));
        let v6 = Some(told("2001:db8::7", 1, "2001:db8::1"));
        let addresses = [192, 0, 2, 7, 198, 51, 100, 1, 0xc0, 0, 1, 0xbb];
        let with_tlv = [&addresses[..], &[0x04, 0, 2, 9, 9]].concat();
        let unix = [0; 216];
        for (header, expected) in [
            (
                b"PROXY TCP4 192.0.2.7 198.51.100.1 49152 443\r\n".to_vec(),
                v4,
            ),
            (b"PROXY TCP6 2001:db8::7 2001:db8::1 1 443\r\n".to_vec(), v6),
            (
                b"PROXY TCP6 ::ffff:192.0.2.7 ::ffff:198.51.100.1 49152 2\r\n".to_vec(),
                v4,
            ),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (b"PROXY UNKNOWN ffff::1 whatever 1 2\r\n".to_vec(), None),
            (v2(1, 0x11, &addresses), v4),
            (v2(1, 0x11, &with_tlv), v4),
            // A balancer's own connection, with and without addresses.
            (v2(0, 0x11, &addresses), None),
            (v2(0, 0, &[]), None),
            (v2(1, 0, &[]), None),
            (v2(1, 0x31, &unix), None),
        ] {
            for payload in [&b""[..], b"GET / HTTP/1.1\r\n\r\n"] {
                let bytes = [&header, payload].concat();
                let (told, left) = read(&bytes).unwrap();
                assert_eq!((told, left), (expected, payload.len()), "{header:?}");
            }
        }
    }

    #[test]
    fn anything_else_is_refused() {
        let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(100));
        for bytes in [
            &b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..],
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\0\0\0\0\0\0",
            b"PROXY TCP4 192.0.2.7 198.51.100.1 49152\r\n",
            b"PROXY TCP4 2001:db8::7 2001:db8::1 1 443\r\n",
            b"PROXY TCP4 192.0.2.7 198.51.100.1 1 65536\r\n",
            b"PROXY TCP4 192.0.2.7 198.51.100.1 1 2 3\r\n",
            b"PROXY UDP4 192.0.2.7 198.51.100.1 1 2\r\n",
            b"proxy TCP4 192.0.2.7 198.51.100.1 1 2\r\n",
            long.as_bytes(),
            &v2(2, 0x11, &[0; 12]),
            &v2(1, 0x11, &[0; 11]),
            &v2(1, 0x41, &[0; 36]),
            &v2(1, 0x13, &[0; 36]),
        ] {
            let error = read(bytes).unwrap_err();
            assert!(
                matches!(error, HeaderError::Malformed),
                "{bytes:?}: {error}"
            );
        }
        let huge = v2(1, 0x11, &[0; LONGEST_V2]);
        assert!(matches!(read(&huge), Err(HeaderError::TooLong)));
        assert!(matches!(read(b""), Err(HeaderError::Nothing)));
    }

    #[test]
    fn a_header_that_does_not_come_is_not_waited_for() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build();
        let peer = "192.0.2.1".parse().unwrap();
        runtime.unwrap().block_on(async {
            let (mut balancer, mut gateway) = tokio::io::duplex(64);
            tokio::io::AsyncWriteExt::write_all(&mut balancer, b"PROXY TCP4 1.2.3")
                .await
                .unwrap();
            let proxies = ProxyProtocol::new(vec![], Duration::from_secs(5));
            let received = proxies.receive(&mut gateway, peer).await;
            assert!(matches!(received, Err(HeaderError::Timeout)));
        });
    }

    proptest! {
        #[test]
        fn every_cut_of_a_header_is_an_early_end(v4: bool, is_first: bool, port: u16) {
            let source: SocketAddr = if v4 { ([192, 0, 2, 7], port).into() } else { ([1, 2, 3, 4, 5, 6, 7, 8], port).into() };
            let header = ProxyHeader::with_address(ProxiedAddress::stream(source, source));
            let mut bytes = vec![0; 256];
            let length = if is_first {
                header.encode_to_slice_v1(&mut bytes)
            } else {
                header.encode_to_slice_v2(&mut bytes)
            };
            bytes.truncate(length.unwrap());
            let (told, left) = read(&bytes).unwrap();
            let told = told.map(|told| SocketAddr::new(told.source, told.source_port));
            prop_assert_eq!(told, Some(source));
            prop_assert_eq!(left, 0);
            for cut in 1..bytes.len() {
                prop_assert!(matches!(read(&bytes[..cut]), Err(HeaderError::Ended(_))));
            }
        }

        #[test]
        fn garbage_neither_panics_nor_is_read_far(start in 0..3_usize, bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let starts = [&b""[..], b"PROXY ", SIGNATURE_V2];
            let bytes = [starts[start], &bytes].concat();
            let mut rest = &bytes[..];
            let told = run(receive(&mut rest));
            if let Ok(Some(told)) = told {
                prop_assert_ne!(start, 0, "{:?}", told);
            }
            prop_assert!(bytes.len() - rest.len() <= LONGEST_V2);
        }

        #[test]
        fn flipped_bits_do_not_panic(at in 0..44_usize, bit in 0..8_u8) {
            let mut bytes = b"PROXY TCP4 192.0.2.7 198.51.100.1 49152 443\r\n".to_vec();
            bytes[at] ^= 1_u8 << bit;
            let _ = read(&bytes);
        }
    }
}
