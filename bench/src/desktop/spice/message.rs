//! Messages with the mini header of spice-protocol's protocol.h: two bytes of type, four of length.

use anyhow::{Context, Result};

/// Length of a mini header, in bytes.
const HEADER: usize = 6;
/// How much of a message is kept, in bytes: more than of any that is looked into.
const KEPT: usize = 64;

/// A message that has arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message {
    /// Its type; what numbers mean depends on the channel.
    pub(super) kind: u16,
    /// How long it is without its header, in bytes.
    pub(super) length: usize,
    start: Vec<u8>,
}

impl Message {
    /// The 32 bits at this place of its first bytes.
    pub(super) fn word(&self, at: usize) -> Result<u32> {
        let bytes = self.start.get(at..).and_then(<[u8]>::first_chunk);
        let bytes = bytes.with_context(|| format!("a message {} that is too short", self.kind))?;
        Ok(u32::from_le_bytes(*bytes))
    }

    /// These of its first bytes.
    pub(super) fn bytes(&self, range: std::ops::Range<usize>) -> Result<&[u8]> {
        let bytes = self.start.get(range);
        bytes.with_context(|| format!("a message {} that is too short", self.kind))
    }
}

/// The message as it is sent.
pub(super) fn encode(kind: u16, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
    let mut bytes = kind.to_le_bytes().to_vec();
    bytes.extend(length.to_le_bytes());
    bytes.extend_from_slice(body);
    bytes
}

/// Takes a stream of messages apart, whatever pieces it comes in.
#[derive(Debug, Default)]
pub(super) struct Messages {
    header: Vec<u8>,
    start: Vec<u8>,
    /// Bytes of the message's body that came.
    came: usize,
}

impl Messages {
    /// Takes what has come and adds the messages that are whole by it.
    pub(super) fn take(&mut self, mut bytes: &[u8], whole: &mut Vec<Message>) {
        loop {
            fill(&mut self.header, HEADER, &mut bytes);
            let Some((kind, length)) = self.message() else {
                return;
            };
            let before = bytes;
            let piece = &mut &before[..before.len().min(length - self.came)];
            self.came += piece.len();
            bytes = &before[piece.len()..];
            fill(&mut self.start, KEPT, piece);
            if self.came < length {
                return;
            }
            whole.push(Message {
                kind,
                length,
                start: std::mem::take(&mut self.start),
            });
            self.header.clear();
            self.came = 0;
        }
    }

    /// Type and length, once the header is whole.
    fn message(&self) -> Option<(u16, usize)> {
        let header: [u8; HEADER] = self.header.as_slice().try_into().ok()?;
        let [kind @ .., a, b, c, d] = header;
        let length = usize::try_from(u32::from_le_bytes([a, b, c, d])).ok()?;
        Some((u16::from_le_bytes(kind), length))
    }
}

/// Moves bytes until `to` has `length` of them.
fn fill(to: &mut Vec<u8>, length: usize, from: &mut &[u8]) {
    let missing = length.saturating_sub(to.len()).min(from.len());
    let (piece, rest) = from.split_at(missing);
    to.extend_from_slice(piece);
    *from = rest;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_found_whatever_pieces_they_come_in() {
        let bodies = [
            &b""[..],
            b"abcd",
            &[7; 1000],
            b"\x01\x02\x03\x04\x05\x06\x07",
        ];
        let stream: Vec<u8> = bodies.iter().flat_map(|body| encode(304, body)).collect();
        for size in [1, 5, 6, 7, 64, 333, 5000] {
            let (mut messages, mut whole) = (Messages::default(), Vec::new());
            for piece in stream.chunks(size) {
                messages.take(piece, &mut whole);
            }
            let lengths: Vec<_> = whole.iter().map(|message| message.length).collect();
            assert_eq!(lengths, [0, 4, 1000, 7], "pieces of {size}");
            assert!(whole.iter().all(|message| message.kind == 304));
            assert_eq!(whole[3].word(1).unwrap(), 0x0504_0302);
            assert_eq!(whole[2].bytes(60..64).unwrap(), [7; 4]);
            assert!(whole[1].word(1).is_err() && whole[2].bytes(64..65).is_err());
        }
    }
}
