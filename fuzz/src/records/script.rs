//! What a client sends, and what happens meanwhile.

use std::fmt;

use rustls::ClientConfig;

use crate::tls_peer::{ALERT, DATA, HANDSHAKE, Handshake, Oddity, Peer, UPDATE};

/// Most steps of a script.
const STEPS: usize = 40;
/// Most bytes of all answers: they fit into the buffer of a socket.
const ANSWERS: usize = 60_000;
/// Longest record of TLS 1.3 as it is sent, without its header.
const MAX_CIPHERTEXT: usize = (1 << 14) + 256;
/// Bytes that protect a record.
const TAG: usize = 16;
const CHANGE_CIPHER_SPEC: [u8; 6] = [20, 3, 3, 0, 1, 1];
const FINISHED: u8 = 20;
const KEY_UPDATE: u8 = 24;

#[derive(Clone)]
pub(super) enum Step {
    /// The client sends a record.
    Record(u8, Vec<u8>, Oddity),
    /// It goes on with its next key.
    Rekey,
    /// It sends bytes as they are.
    Raw(Vec<u8>),
    /// The server sends so many bytes.
    Answer(usize),
    /// The server's process is replaced.
    Move,
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Record(content, text, odd) => {
                let (begin, len) = (&text[..text.len().min(6)], text.len());
                write!(f, "content {content} of {len}: {begin:?}, {odd:?}")
            }
            Self::Rekey => f.write_str("next key"),
            Self::Raw(bytes) => write!(f, "raw {bytes:?}"),
            Self::Answer(length) => write!(f, "answer of {length}"),
            Self::Move => f.write_str("move"),
        }
    }
}

impl Step {
    /// What the client sends.
    pub(super) fn wire(&self, peer: &mut Peer) -> Vec<u8> {
        match self {
            Self::Record(content, text, odd) => peer.seal(*content, text, *odd),
            Self::Raw(bytes) => bytes.clone(),
            Self::Rekey => {
                peer.update();
                Vec::new()
            }
            Self::Answer(_) | Self::Move => Vec::new(),
        }
    }
}

/// Steps, one after the other.
#[derive(Debug)]
pub(super) struct Script(pub(super) Vec<Step>);

impl Script {
    pub(super) fn new(bytes: &[u8], client: &ClientConfig) -> Self {
        let is_13 = client.crypto_provider().cipher_suites[0].tls13().is_some();
        let mut steps = Vec::new();
        let mut answers = 0;
        for chunk in bytes.chunks_exact(3) {
            if steps.len() >= STEPS {
                break;
            }
            let &[kind, low, high] = chunk else { break };
            let step = step(&mut steps, is_13, client, [kind, low, high]);
            if let Step::Answer(length) = step {
                answers += length;
                if answers > ANSWERS {
                    continue;
                }
            }
            steps.push(step);
        }
        Self(steps)
    }
}

impl Script {
    /// Whether a record is of a type that must not occur behind a handshake (RFC 8446, section 5).
    pub(super) fn has_odd_type(&self) -> bool {
        let is_odd = |kind: u8| !(21..=23).contains(&kind);
        self.0.iter().any(|step| match step {
            Step::Record(content, _, odd) => {
                odd.untyped || is_odd(*content) || odd.outer.is_some_and(is_odd)
            }
            Step::Raw(bytes) => is_odd(bytes[0]),
            Step::Rekey | Step::Answer(_) | Step::Move => false,
        })
    }

    /// Whether a record is longer than RFC 8446, section 5.2, allows when it is protected.
    pub(super) fn has_long_record(&self) -> bool {
        self.0.iter().any(|step| {
            let Step::Record(_, text, odd) = step else {
                return false;
            };
            text.len() + 1 + odd.padding + TAG > MAX_CIPHERTEXT
        })
    }
}

/// What three bytes stand for: what is pushed, then what is returned.
fn step(steps: &mut Vec<Step>, is_13: bool, client: &ClientConfig, bytes: [u8; 3]) -> Step {
    let [kind, low, high] = bytes;
    let length = usize::from(low);
    let record = |content, text: &[u8]| Step::Record(content, text.to_vec(), Oddity::default());
    let odd = |odd| Step::Record(DATA, vec![high; length], odd);
    let [update @ .., _] = UPDATE;
    match kind % 18 {
        0 | 1 => record(DATA, &vec![high; length]),
        2 => record(DATA, &vec![high; 16_256 + length]),
        3 if is_13 => {
            for _ in 0..length % 35 {
                steps.extend([record(HANDSHAKE, &UPDATE), Step::Rekey]);
            }
            record(DATA, b"")
        }
        4 | 5 if is_13 => {
            let message = [&update[..], &[high & 1]].concat();
            let (first, second) = message.split_at(length % message.len());
            // rustls takes an empty one, which RFC 8446, section 5.4, forbids.
            if !first.is_empty() {
                steps.push(record(HANDSHAKE, first));
            }
            if high & 12 == 12 {
                steps.push(record(DATA, b"between"));
            }
            steps.push(record(HANDSHAKE, second));
            Step::Rekey
        }
        6 if is_13 => odd(Oddity {
            padding: usize::from(high) * 65,
            ..Oddity::default()
        }),
        7 => record(ALERT, &[1, [90, 100, 0, high][length % 4]]),
        8 if high % 4 == 0 => record(ALERT, &[low % 4, high]),
        8 if high % 4 == 1 => record(ALERT, &vec![1; 1 + length % 4]),
        9 if high % 4 == 0 => odd(Oddity {
            broken: true,
            ..Oddity::default()
        }),
        10 => record(HANDSHAKE, &[&update[..], &[low]].concat()),
        11 if high % 2 == 0 => Step::Raw(CHANGE_CIPHER_SPEC.to_vec()),
        11 if is_13 => Step::Raw(vec![DATA, 3, high, 0, 1, low]),
        11 => Step::Raw(vec![low, 3, high, 0, 1, 1]),
        12 | 13 => Step::Answer(length * usize::from(high % 64)),
        14 => Step::Move,
        15 if is_13 && high % 4 == 0 => odd(Oddity {
            // rustls takes whatever else stands there.
            outer: Some(CHANGE_CIPHER_SPEC[0]),
            ..Oddity::default()
        }),
        15 if is_13 && high % 4 == 1 => odd(Oddity {
            untyped: true,
            ..Oddity::default()
        }),
        16 if is_13 => {
            let kind = [KEY_UPDATE, FINISHED][length % 2];
            record(HANDSHAKE, &[&[kind, 0, 0, high % 9][..], &[1; 8]].concat())
        }
        // Another handshake.
        16 => record(HANDSHAKE, &Handshake::new(client).advance(&[])[5..]),
        17 if high % 2 == 0 => record(DATA, b""),
        17 => record(low % 32, b"data"),
        _ => record(DATA, &[high]),
    }
}
