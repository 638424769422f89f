//! Deterministic bytes that depend on their position, so that lost, repeated or reordered bytes
//! are seen and named by their offset.

use std::fmt;
use std::io;

use tokio::io::{AsyncWrite, AsyncWriteExt};

/// What hosts send to clients.
pub const DOWNLINK: Pattern = Pattern::new(0xd0);
/// What clients send to hosts after the link message.
pub const UPLINK: Pattern = Pattern::new(0x0b);

/// An endless stream of pseudo-random bytes; equal seeds give equal streams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pattern {
    seed: u64,
}

/// A byte that is not the pattern's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// Where in the stream it stands, in bytes.
    pub offset: u64,
    /// The pattern's byte there.
    pub expected: u8,
    /// The byte found.
    pub found: u8,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            offset,
            expected,
            found,
        } = self;
        write!(f, "byte {offset} is {found:#04x}, not {expected:#04x}")
    }
}

impl std::error::Error for Mismatch {}

impl Pattern {
    /// The stream of this seed.
    pub const fn new(seed: u64) -> Self {
        Self { seed }
    }

    /// Fills `buffer` with the stream's bytes from `offset` on.
    pub fn fill(self, offset: u64, buffer: &mut [u8]) {
        let (mut index, skip) = (offset / 8, (offset % 8) as usize);
        let (first, rest) = buffer.split_at_mut(buffer.len().min((8 - skip) % 8));
        if !first.is_empty() {
            first.copy_from_slice(&self.word(index)[skip..skip + first.len()]);
            index += 1;
        }
        let (words, last) = rest.as_chunks_mut();
        for word in words {
            *word = self.word(index);
            index += 1;
        }
        last.copy_from_slice(&self.word(index)[..last.len()]);
    }

    /// The `length` bytes of the stream from `offset` on.
    pub fn bytes(self, offset: u64, length: usize) -> Vec<u8> {
        let mut buffer = vec![0; length];
        self.fill(offset, &mut buffer);
        buffer
    }

    /// Compares `bytes`, found at `offset`, with the stream; the error is the first difference.
    pub fn check(self, offset: u64, bytes: &[u8]) -> Result<(), Mismatch> {
        let mut expected = [0; 4096];
        let mut start = offset;
        for chunk in bytes.chunks(expected.len()) {
            let expected = &mut expected[..chunk.len()];
            self.fill(start, expected);
            if *expected != *chunk {
                let at = expected.iter().zip(chunk).take_while(|(e, f)| e == f);
                let at = at.count();
                return Err(Mismatch {
                    offset: start + at as u64,
                    expected: expected[at],
                    found: chunk[at],
                });
            }
            start += chunk.len() as u64;
        }
        Ok(())
    }

    /// Eight bytes of the stream: the output function of `SplitMix64`.
    fn word(self, index: u64) -> [u8; 8] {
        let mut z = (self.seed ^ index.wrapping_add(1)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)).to_le_bytes()
    }
}

/// Writes `length` bytes of the pattern from `offset` on, in pieces of at most 64 KiB, and
/// flushes.
pub async fn write_pattern(
    writer: &mut (impl AsyncWrite + Unpin),
    pattern: Pattern,
    offset: u64,
    length: u64,
) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    let mut sent = 0;
    while sent < length {
        let piece = usize::try_from(length - sent).map_or(buffer.len(), |n| n.min(buffer.len()));
        pattern.fill(offset + sent, &mut buffer[..piece]);
        writer.write_all(&buffer[..piece]).await?;
        sent += piece as u64;
    }
    writer.flush().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_those_of_the_whole() {
        let pattern = Pattern::new(7);
        let whole = pattern.bytes(0, 64);
        for start in 0..40 {
            for length in 0..24 {
                let piece = pattern.bytes(start as u64, length);
                assert_eq!(piece, whole[start..start + length], "{start}+{length}");
            }
        }
    }

    #[test]
    fn differences_are_found_with_their_offset() {
        let pattern = Pattern::new(1);
        let mut bytes = pattern.bytes(100, 10_000);
        pattern.check(100, &bytes).unwrap();
        assert!(pattern.check(101, &bytes).is_err());
        assert!(Pattern::new(2).check(100, &bytes).is_err());
        bytes[9_000] ^= 1;
        assert_eq!(pattern.check(100, &bytes).unwrap_err().offset, 9_100);
    }
}
