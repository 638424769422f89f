//! A host without a kernel's TCP: it sends exactly the segments that a test wants, as a network
//! that loses and repeats some of them might deliver them.

use std::net::Ipv4Addr;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::net::within;
use crate::pattern::Pattern;
use crate::tun::Tun;

/// TCP's flags (RFC 9293, section 3.1).
const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const PSH: u8 = 0x08;
const ACK: u8 = 0x10;

const IP_HEADER: usize = 20;
const TCP_HEADER: usize = 20;
/// Longest packet of the host's network, in bytes.
const MTU: u16 = 65_000;
/// Longest segment that the host says to take, in bytes.
const MSS: u16 = 60_000;

/// A host behind a TUN device, which talks with the latest connection that was opened to it.
#[derive(Debug)]
pub struct RawHost {
    shared: Arc<Shared>,
    reader: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    tun: Tun,
    latest: Mutex<Latest>,
    changed: Notify,
}

#[derive(Debug)]
struct Latest {
    /// The number of the first byte of the next connection, less one.
    initial: u32,
    connection: Option<Connection>,
}

/// One connection, as this host sees it.
#[derive(Debug)]
struct Connection {
    ends: Ends,
    /// The number of the host's first byte.
    first: u32,
    /// The number of the peer's next byte.
    next: u32,
    /// How many bytes of the host the peer has acknowledged.
    acknowledged: u32,
    /// How many more it takes.
    window: u32,
    window_shift: u8,
    received: Vec<u8>,
}

/// Addresses and ports, the peer's first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ends {
    peer: (Ipv4Addr, u16),
    host: (Ipv4Addr, u16),
}

impl RawHost {
    /// The host's own address.
    pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 2);

    /// Makes its network in the namespace of this thread; only root may. Must be called in a
    /// runtime.
    pub fn start() -> Result<Self> {
        let tun = Tun::open("tunhost", Ipv4Addr::new(10, 99, 0, 1), MTU)?;
        let shared = Arc::new(Shared {
            tun,
            latest: Mutex::new(Latest {
                initial: 0x1234_5678,
                connection: None,
            }),
            changed: Notify::new(),
        });
        let reader = tokio::spawn(read(Arc::clone(&shared)));
        Ok(Self { shared, reader })
    }

    /// The number of the first byte of the next connection's, less one.
    pub fn begin_at(&self, initial: u32) {
        self.shared.lock().initial = initial;
    }

    /// Waits until the latest connection has brought as many bytes, and returns them.
    pub async fn received(&self, len: usize) -> Result<Vec<u8>> {
        let has = |connection: &Connection| connection.received.len() >= len;
        self.wait("bytes at the host", has).await?;
        let latest = self.shared.lock();
        let connection = latest.connection.as_ref();
        Ok(connection.context("no connection")?.received.clone())
    }

    /// Waits until the peer takes the bytes before `end`, counted from the first one.
    pub async fn room(&self, end: u32) -> Result<()> {
        let has = |connection: &Connection| connection.acknowledged + connection.window >= end;
        self.wait("room in the window", has).await
    }

    /// How many bytes of the host the peer has acknowledged.
    pub fn acknowledged(&self) -> u32 {
        let latest = self.shared.lock();
        let connection = latest.connection.as_ref();
        connection.map_or(0, |connection| connection.acknowledged)
    }

    /// Sends a segment with these bytes of a stream, counted from the first one that is sent.
    pub fn send(&self, stream: Pattern, bytes: Range<u32>) -> Result<()> {
        self.send_flagged(stream, bytes, PSH | ACK)
    }

    /// The same with a FIN.
    pub fn send_fin(&self, stream: Pattern, bytes: Range<u32>) -> Result<()> {
        self.send_flagged(stream, bytes, FIN | PSH | ACK)
    }

    fn send_flagged(&self, stream: Pattern, bytes: Range<u32>, flags: u8) -> Result<()> {
        let payload = stream.bytes(
            bytes.start.into(),
            usize::try_from(bytes.end - bytes.start)?,
        );
        let latest = self.shared.lock();
        let connection = latest.connection.as_ref().context("no connection")?;
        let number = connection.first.wrapping_add(bytes.start);
        let segment = connection.segment(number, flags, &[], &payload);
        Ok(self.shared.tun.send(&segment)?)
    }

    async fn wait(&self, what: &str, wanted: impl Fn(&Connection) -> bool) -> Result<()> {
        within(what, async {
            loop {
                let changed = self.shared.changed.notified();
                if self.shared.lock().connection.as_ref().is_some_and(&wanted) {
                    return;
                }
                changed.await;
            }
        })
        .await
    }
}

impl Drop for RawHost {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Latest> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn read(shared: Arc<Shared>) {
    let mut space = vec![0; usize::from(u16::MAX)];
    while let Ok(len) = shared.tun.receive(&mut space).await {
        let Some(segment) = Segment::parse(&space[..len]) else {
            continue;
        };
        let answer = shared.lock().take(&segment);
        if let Some(answer) = answer {
            // The device is there as long as the host is.
            let _ = shared.tun.send(&answer);
        }
        // One task waits at a time, and looks before it does.
        shared.changed.notify_waiters();
    }
}

/// A segment that the peer has sent.
struct Segment<'a> {
    ends: Ends,
    number: u32,
    acknowledges: u32,
    flags: u8,
    window: u16,
    options: &'a [u8],
    payload: &'a [u8],
}

impl<'a> Segment<'a> {
    /// `None`: it is none of TCP over IPv4.
    fn parse(packet: &'a [u8]) -> Option<Self> {
        const TCP: u8 = 6;
        if packet.first()? >> 4 != 4 || *packet.get(9)? != TCP {
            return None;
        }
        let address = |at: usize| {
            let octets: [u8; 4] = packet.get(at..at + 4)?.try_into().ok()?;
            Some(Ipv4Addr::from(octets))
        };
        let (from, to) = (address(12)?, address(16)?);
        let len = usize::from(u16::from_be_bytes(packet.get(2..4)?.try_into().ok()?));
        let tcp = packet.get(usize::from(packet[0] & 15) * 4..len)?;
        let short = |at: usize| Some(u16::from_be_bytes(tcp.get(at..at + 2)?.try_into().ok()?));
        let long = |at: usize| Some(u32::from_be_bytes(tcp.get(at..at + 4)?.try_into().ok()?));
        let header = usize::from(tcp.get(12)? >> 4) * 4;
        Some(Self {
            ends: Ends {
                peer: (from, short(0)?),
                host: (to, short(2)?),
            },
            number: long(4)?,
            acknowledges: long(8)?,
            flags: tcp[13],
            window: short(14)?,
            options: tcp.get(TCP_HEADER..header)?,
            payload: tcp.get(header..)?,
        })
    }

    /// By how much its window is shifted (RFC 7323, section 2.2); 0 without the option.
    fn window_shift(&self) -> u8 {
        const NO_OPERATION: u8 = 1;
        const WINDOW_SCALE: u8 = 3;
        let mut options = self.options;
        loop {
            options = match options {
                [NO_OPERATION, rest @ ..] => rest,
                [WINDOW_SCALE, 3, shift, ..] => return *shift,
                [_, len, ..] if *len >= 2 => match options.get(usize::from(*len)..) {
                    Some(rest) => rest,
                    None => return 0,
                },
                _ => return 0,
            };
        }
    }
}

impl Latest {
    /// Returns what is to be answered at once.
    fn take(&mut self, segment: &Segment<'_>) -> Option<Vec<u8>> {
        if segment.flags & SYN != 0 {
            let connection = self.connection.insert(Connection {
                ends: segment.ends,
                first: self.initial.wrapping_add(1),
                next: segment.number.wrapping_add(1),
                acknowledged: 0,
                window: 0,
                window_shift: segment.window_shift(),
                received: Vec::new(),
            });
            // Maximum segment size; window scale of 0, without which the peer has none.
            let [high, low] = MSS.to_be_bytes();
            let options = [2, 4, high, low, 1, 3, 3, 0];
            return Some(connection.segment(self.initial, SYN | ACK, &options, &[]));
        }
        let connection = self.connection.as_mut()?;
        if connection.ends != segment.ends || segment.flags & RST != 0 {
            return None;
        }
        let acknowledged = segment.acknowledges.wrapping_sub(connection.first);
        if acknowledged < 1 << 31 {
            connection.acknowledged = connection.acknowledged.max(acknowledged);
        }
        connection.window = u32::from(segment.window) << connection.window_shift;
        if segment.number == connection.next {
            connection.received.extend_from_slice(segment.payload);
            let len = u32::try_from(segment.payload.len()).unwrap_or_default();
            let fin = u32::from(segment.flags & FIN != 0);
            connection.next = connection.next.wrapping_add(len + fin);
        }
        let speaks = !segment.payload.is_empty() || segment.flags & FIN != 0;
        speaks.then(|| {
            let number = connection.first.wrapping_add(connection.acknowledged);
            connection.segment(number, ACK, &[], &[])
        })
    }
}

impl Connection {
    /// A packet to the peer.
    fn segment(&self, number: u32, flags: u8, options: &[u8], payload: &[u8]) -> Vec<u8> {
        let Ends { peer, host } = self.ends;
        let words = (TCP_HEADER + options.len()) / 4;
        let mut tcp = Vec::with_capacity(TCP_HEADER + options.len() + payload.len());
        tcp.extend(host.1.to_be_bytes());
        tcp.extend(peer.1.to_be_bytes());
        tcp.extend(number.to_be_bytes());
        tcp.extend(self.next.to_be_bytes());
        tcp.extend([u8::try_from(words << 4).unwrap_or_default(), flags]);
        tcp.extend(u16::MAX.to_be_bytes()); // window
        tcp.extend([0; 4]); // checksum, urgent pointer
        tcp.extend(options);
        tcp.extend(payload);
        let tcp_len = u16::try_from(tcp.len()).unwrap_or(u16::MAX);
        let mut pseudo = Vec::from(host.0.octets());
        pseudo.extend(peer.0.octets());
        pseudo.extend([0, 6]);
        pseudo.extend(tcp_len.to_be_bytes());
        let sum = checksum(pseudo.chunks(2).chain(tcp.chunks(2)));
        tcp[16..18].copy_from_slice(&sum.to_be_bytes());

        let total = u16::try_from(IP_HEADER + tcp.len()).unwrap_or(u16::MAX);
        let mut packet = vec![0x45, 0];
        packet.extend(total.to_be_bytes());
        packet.extend([0, 0, 0x40, 0, 64, 6, 0, 0]); // not to be fragmented, 64 hops, TCP
        packet.extend(host.0.octets());
        packet.extend(peer.0.octets());
        let sum = checksum(packet.chunks(2));
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        packet.extend(tcp);
        packet
    }
}

/// The Internet checksum (RFC 1071) of these pairs of bytes, of which the last may be half.
fn checksum<'a>(pairs: impl Iterator<Item = &'a [u8]>) -> u16 {
    let value = |pair: &[u8]| match *pair {
        [high, low] => u32::from(u16::from_be_bytes([high, low])),
        [high] => u32::from(high) << 8,
        _ => 0,
    };
    let mut sum: u32 = pairs.map(value).sum();
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_it_sends_is_what_it_reads() {
        let host = (RawHost::ADDRESS, 5900);
        let peer = (Ipv4Addr::new(10, 99, 0, 1), 40_000);
        let connection = Connection {
            ends: Ends { peer, host },
            first: 8,
            next: 7,
            acknowledged: 0,
            window: 0,
            window_shift: 0,
            received: Vec::new(),
        };
        let packet = connection.segment(9, FIN | ACK, &[1, 3, 3, 4], b"abc");
        let read = Segment::parse(&packet).unwrap();
        assert_eq!((read.ends.peer, read.ends.host), (host, peer));
        assert_eq!((read.number, read.acknowledges), (9, 7));
        assert_eq!((read.flags, read.payload), (FIN | ACK, &b"abc"[..]));
        assert_eq!(read.window_shift(), 4);
        // A packet with its checksum in place sums up to nothing.
        assert_eq!(checksum(packet[..IP_HEADER].chunks(2)), 0);
        assert!(Segment::parse(&packet[..30]).is_none());
    }
}
