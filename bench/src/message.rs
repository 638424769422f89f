//! What host and client of a show tell each other.

use std::sync::LazyLock;
use std::time::Instant;

use anyhow::{Result, ensure};

/// Length of what the host puts at the start of each message, in bytes.
pub(super) const HEADER: usize = 32;
/// Length of a client's input, in bytes.
pub(super) const INPUT: usize = 16;
/// What marks the start of a message.
const MARK: u64 = 0x7769_6465_6c69_6e65;

/// The start of a host's message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// How many bytes of the show came before.
    pub(super) offset: u64,
    /// When the host began to write it, as [`now`] says.
    pub(super) written: u64,
    /// The latest input that the host had received then; 0: none.
    pub(super) answered: u64,
}

impl Header {
    /// The header as it is sent.
    pub(super) fn encode(&self) -> [u8; HEADER] {
        let words = [MARK, self.offset, self.written, self.answered];
        let mut bytes = [0; HEADER];
        for (place, word) in bytes.chunks_exact_mut(8).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// Reads a header; `offset` is where it must stand.
    pub(super) fn decode(bytes: [u8; HEADER], offset: u64) -> Result<Self> {
        let mut words = [0; 4];
        for (word, place) in words.iter_mut().zip(bytes.chunks_exact(8)) {
            *word = number(place);
        }
        let [mark, found, written, answered] = words;
        ensure!(
            (mark, found) == (MARK, offset),
            "bytes were lost or changed before byte {offset} of a show"
        );
        Ok(Self {
            offset,
            written,
            answered,
        })
    }
}

/// An input with this number, from 1 on.
pub(super) fn input(number: u64) -> [u8; INPUT] {
    let mut bytes = [0; INPUT];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    bytes
}

/// The number of an input.
pub(super) fn input_number(bytes: [u8; INPUT]) -> u64 {
    number(&bytes[..8])
}

/// The time in nanoseconds, since this program first asked.
pub(super) fn now() -> u64 {
    static BEGIN: LazyLock<Instant> = LazyLock::new(Instant::now);
    u64::try_from(BEGIN.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

fn number(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .rev()
        .fold(0, |number, byte| number << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_and_inputs_arrive_as_they_were_sent() {
        let header = Header {
            offset: 1 << 40,
            written: u64::MAX - 1,
            answered: 7,
        };
        assert_eq!(Header::decode(header.encode(), 1 << 40).unwrap(), header);
        assert!(Header::decode(header.encode(), 5).is_err());
        assert!(Header::decode([0; HEADER], 0).is_err());
        assert_eq!(input_number(input(u64::MAX - 3)), u64::MAX - 3);
    }

    #[test]
    fn time_passes() {
        let earlier = now();
        std::thread::sleep(std::time::Duration::from_millis(1));
        assert!(now() > earlier);
    }
}
