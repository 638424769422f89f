//! What the two peers of a channel do, read from pairs of bytes: what, and how much.

use std::io::ErrorKind;
use std::time::Duration;

/// A step of a leg that is read.
#[derive(Debug)]
pub(super) enum Read {
    /// The next so many bytes of the content have come.
    Bytes(usize),
    /// Nothing yet, but the reader is woken at once.
    Pending,
    /// Nothing for a while.
    Sleep(Duration),
    Error(ErrorKind),
    /// Nothing for ever.
    Silence,
}

/// A step of a leg that is written to.
#[derive(Debug)]
pub(super) enum Write {
    /// Takes up to so many bytes.
    Bytes(usize),
    Pending,
    Sleep(Duration),
    Error(ErrorKind),
    /// Takes no more, for ever.
    Stuck,
}

/// What a peer sends, how that comes in, and how what is sent to it is taken. At the end of the
/// steps it has ended its stream, and takes everything.
#[derive(Debug, Default)]
pub(super) struct Script {
    pub(super) content: Vec<u8>,
    pub(super) reads: Vec<Read>,
    pub(super) writes: Vec<Write>,
    /// It breaks off, is silent or deaf from some time on, or takes longer than it may.
    pub(super) is_rough: bool,
    /// All pauses together.
    paused: Duration,
}

/// Whose script it is.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Peer {
    /// Sends frames.
    Client,
    /// Sends plain bytes.
    Host,
}

/// Lengths at which something changes.
const LENGTHS: [usize; 16] = [
    0, 1, 3, 64, 125, 126, 127, 1_000, 4_096, 16_378, 16_384, 32_768, 65_526, 65_535, 65_536,
    70_000,
];
/// The most that a peer sends, in bytes.
const MOST: usize = 200_000;
/// What a peer may pause without being given up, in one go or in many.
const PATIENCE: Duration = Duration::from_secs(4);

impl Script {
    pub(super) fn read(peer: Peer, steps: impl Iterator<Item = [u8; 2]>) -> Self {
        let mut script = Self::default();
        let mut position = 0;
        let mut mask = 0_u32;
        for [what, argument] in steps {
            let pause = Duration::from_millis(u64::from(argument) * 4);
            let sent = match what & 0x1f {
                kind @ 0..=5 => {
                    let payload = pattern(&mut position, length(argument), peer);
                    // Three times a message, then its first, a middle and its last fragment.
                    let first = [0x82, 0x82, 0x82, 0x02, 0x00, 0x80][usize::from(kind)];
                    Some((first, payload))
                }
                kind @ 6..=8 => {
                    let payload = vec![argument; usize::from(argument) % 126];
                    Some(([0x89, 0x89, 0x8a][usize::from(kind) - 6], payload))
                }
                9 if argument == 0 => Some((0x88, Vec::new())),
                9 => Some((0x88, (980 + u16::from(argument)).to_be_bytes().to_vec())),
                10 => Some((argument, vec![argument])),
                11 => {
                    script.cut_last(length(argument));
                    None
                }
                12 => {
                    script.join_last();
                    None
                }
                13 => script.waits(Read::Pending),
                14 => script.waits(Read::Sleep(pause)),
                15 | 16 => script.takes(Write::Pending),
                17 => script.takes(Write::Sleep(pause)),
                18..=20 => script.takes(Write::Bytes(length(argument).max(1))),
                // What the peer does itself goes on at the same time as what it takes: both have
                // a last step.
                21 => {
                    script.waits(Read::Error(error(argument)));
                    break;
                }
                22 => {
                    script.waits(Read::Silence);
                    break;
                }
                23 => {
                    script.takes(Write::Error(error(argument)));
                    break;
                }
                24 => {
                    script.takes(Write::Stuck);
                    break;
                }
                _ => None,
            };
            let Some((first, payload)) = sent else {
                continue;
            };
            let before = script.content.len();
            match peer {
                Peer::Host => script.content.extend_from_slice(&payload),
                Peer::Client => {
                    mask = mask.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    mask_into(&mut script.content, first, &payload, mask.to_be_bytes());
                }
            }
            let length = script.content.len() - before;
            if length > 0 {
                script.reads.push(Read::Bytes(length));
            }
            if script.content.len() > MOST {
                break;
            }
        }
        script
    }

    fn waits(&mut self, read: Read) -> Option<(u8, Vec<u8>)> {
        if let Read::Sleep(pause) = &read {
            self.pauses(*pause);
        }
        self.is_rough |= matches!(read, Read::Error(_) | Read::Silence);
        self.reads.push(read);
        None
    }

    fn takes(&mut self, write: Write) -> Option<(u8, Vec<u8>)> {
        if let Write::Sleep(pause) = &write {
            self.pauses(*pause);
        }
        self.is_rough |= matches!(write, Write::Error(_) | Write::Stuck);
        self.writes.push(write);
        None
    }

    fn pauses(&mut self, pause: Duration) {
        self.paused += pause;
        self.is_rough |= self.paused > PATIENCE;
    }

    /// The last bytes come in two parts.
    fn cut_last(&mut self, at: usize) {
        if let Some(Read::Bytes(length)) = self.reads.last_mut()
            && at > 0
            && at < *length
        {
            let rest = *length - at;
            *length = at;
            self.reads.push(Read::Bytes(rest));
        }
    }

    /// The last two parts come at once.
    fn join_last(&mut self) {
        if let [.., Read::Bytes(first), Read::Bytes(second)] = &mut self.reads[..] {
            *first += *second;
            self.reads.pop();
        }
    }
}

fn length(argument: u8) -> usize {
    LENGTHS[usize::from(argument & 0xf)] + usize::from(argument >> 4)
}

fn error(argument: u8) -> ErrorKind {
    [
        ErrorKind::ConnectionReset,
        ErrorKind::UnexpectedEof,
        ErrorKind::BrokenPipe,
        ErrorKind::TimedOut,
        ErrorKind::InvalidData,
        ErrorKind::Unsupported,
    ][usize::from(argument % 6)]
}

/// Bytes that show where in the stream they stand, and whose they are.
fn pattern(position: &mut u32, length: usize, peer: Peer) -> Vec<u8> {
    let salt = if peer == Peer::Client { 1 } else { 7 };
    let mut bytes = Vec::with_capacity(length + 4);
    while bytes.len() < length {
        *position += 1;
        let word = position.wrapping_mul(2_654_435_761).rotate_left(salt);
        bytes.extend_from_slice(&word.to_be_bytes());
    }
    bytes.truncate(length);
    bytes
}

fn mask_into(content: &mut Vec<u8>, first: u8, payload: &[u8], mask: [u8; 4]) {
    content.push(first);
    match payload.len() {
        length @ 0..=125 => content.push(0x80 | length.to_be_bytes()[7]),
        length @ 126..=65_535 => {
            content.push(0xfe);
            content.extend_from_slice(&length.to_be_bytes()[6..]);
        }
        length => {
            content.push(0xff);
            content.extend_from_slice(&length.to_be_bytes());
        }
    }
    content.extend_from_slice(&mask);
    let masked = payload.iter().zip(mask.iter().cycle());
    content.extend(masked.map(|(byte, mask)| byte ^ mask));
}
