//! The bytes that clients and the bench host send: a block that repeats, so that they are made
//! once and compared at the speed of memory.

use std::sync::LazyLock;

use anyhow::{Context, Result};
use testkit::pattern::Pattern;

/// After this many bytes the block begins again. A prime, so that a lost or doubled write of
/// any size shifts the rest and is seen.
const PERIOD: usize = 65_521;
/// The longest piece that can be sent at once, in bytes.
pub(crate) const LONGEST: usize = 65_536;

/// Where in the block a direction begins; different, so that bytes of the other are seen.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stream(u64);

/// Host to client.
pub(crate) const DOWNLINK: Stream = Stream(0);
/// Client to host.
pub(crate) const UPLINK: Stream = Stream(30_011);

static PATTERN: Pattern = Pattern::new(0xbe);
static BLOCK: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let period = PATTERN.bytes(0, PERIOD).into_iter().cycle();
    period.take(PERIOD + LONGEST).collect()
});

impl Stream {
    /// The `length` bytes at `offset`, at most [`LONGEST`].
    pub(crate) fn piece(self, offset: u64, length: usize) -> &'static [u8] {
        let start = self.position(offset);
        &BLOCK[start..start + length.min(LONGEST)]
    }

    /// Fails unless `bytes` are those at `offset`.
    pub(crate) fn check(self, offset: u64, bytes: &[u8]) -> Result<()> {
        let mut at = offset;
        for found in bytes.chunks(LONGEST) {
            let start = self.position(at);
            if *found != BLOCK[start..start + found.len()] {
                return self.name_difference(at, found);
            }
            at += found.len() as u64;
        }
        Ok(())
    }

    fn position(self, offset: u64) -> usize {
        usize::try_from((self.0 + offset) % PERIOD as u64).unwrap_or_default()
    }

    #[cold]
    fn name_difference(self, offset: u64, found: &[u8]) -> Result<()> {
        let expected = self.piece(offset, found.len());
        let at = expected.iter().zip(found).position(|(e, f)| e != f);
        let at = at.context("bytes of another length")? as u64;
        anyhow::bail!("other bytes than were sent, from byte {} on", offset + at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_pass_their_own_check() {
        for offset in [0, 1, 35_509, 35_510, 65_520, 65_521, 1 << 40] {
            let piece = UPLINK.piece(offset, LONGEST);
            assert_eq!(piece.len(), LONGEST);
            UPLINK.check(offset, piece).unwrap();
            assert!(UPLINK.check(offset + 1024, piece).is_err());
            assert!(DOWNLINK.check(offset, piece).is_err());
        }
    }

    #[test]
    fn differences_are_named() {
        let mut bytes = DOWNLINK.piece(100, 1000).to_vec();
        bytes[7] ^= 1;
        let problem = DOWNLINK.check(100, &bytes).unwrap_err().to_string();
        assert!(problem.contains("byte 107"), "{problem}");
    }
}
