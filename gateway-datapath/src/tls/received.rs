//! What came from the client while the handshake goes on.

use std::io;

use tokio::net::TcpStream;

use super::record::HEADER;
use crate::buffer::{Buffer, SIZE};

/// Records in the order in which they came, of which the handshake is shown one after another.
#[derive(Default)]
pub(super) struct Received {
    /// `[start, end)` was not yet taken.
    pub(super) buffer: Option<Buffer>,
    pub(super) start: usize,
    pub(super) end: usize,
    /// Where the last record ends that was shown whole.
    whole: usize,
    /// Where that ends which may be seen: there, or in the middle of the record behind.
    limit: usize,
}

impl Received {
    /// What may be seen: records, and the beginning of one that has come in part, so that it is
    /// refused without waiting for the rest.
    pub(super) fn shown(&mut self) -> &mut [u8] {
        match &mut self.buffer {
            Some(buffer) => &mut buffer[self.start..self.limit],
            None => &mut [],
        }
    }

    /// Shows the next record, or more of it; `false`: there is nothing that was not shown.
    pub(super) fn show_next(&mut self) -> bool {
        let Some(buffer) = &self.buffer else {
            return false;
        };
        let next = &buffer[self.whole..self.end];
        if let Some(&[_, _, _, high, low]) = next.first_chunk::<HEADER>() {
            let len = HEADER + usize::from(u16::from_be_bytes([high, low]));
            if len <= next.len() {
                self.whole += len;
                self.limit = self.whole;
                return true;
            }
        }
        let is_more = self.limit < self.end;
        self.limit = self.end;
        is_more
    }

    /// Drops bytes at the front of what was shown.
    pub(super) fn discard(&mut self, len: usize) {
        self.start += len;
        debug_assert!(self.start <= self.limit, "only what was shown is taken");
        self.whole = self.whole.max(self.start);
        if self.start == self.end {
            *self = Self::default();
        }
    }

    /// Waits for bytes. No buffer is held meanwhile: the beginning of a record waits in as much
    /// memory as it needs.
    pub(super) async fn read(&mut self, tcp: &mut TcpStream) -> io::Result<()> {
        let begun = self.buffer.take();
        let begun = begun.map_or_else(Vec::new, |buffer| buffer[self.start..self.end].to_vec());
        if begun.len() == SIZE {
            let error = "handshake message is too long";
            return Err(io::Error::new(io::ErrorKind::InvalidData, error));
        }
        self.whole -= self.start;
        self.limit -= self.start;
        self.start = 0;
        loop {
            tcp.readable().await?;
            let mut buffer = Buffer::take();
            buffer[..begun.len()].copy_from_slice(&begun);
            match tcp.try_read(&mut buffer[begun.len()..]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(len) => {
                    self.end = begun.len() + len;
                    self.buffer = Some(buffer);
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(bytes: &[u8]) -> Received {
        let mut buffer = Buffer::take();
        buffer[..bytes.len()].copy_from_slice(bytes);
        Received {
            buffer: Some(buffer),
            end: bytes.len(),
            ..Received::default()
        }
    }

    #[test]
    fn records_are_shown_one_after_another() {
        let mut received = received(&[22, 3, 1, 0, 2, 8, 9, 20, 3, 3, 0, 1, 1, 23, 3]);
        assert!(received.shown().is_empty());
        assert!(received.show_next());
        assert_eq!(received.shown(), [22, 3, 1, 0, 2, 8, 9]);
        // One that is not taken stays in sight.
        assert!(received.show_next());
        assert_eq!(received.shown(), [22, 3, 1, 0, 2, 8, 9, 20, 3, 3, 0, 1, 1]);
        received.discard(13);
        assert!(received.shown().is_empty());
        assert!(received.show_next());
        assert_eq!(received.shown(), [23, 3]);
        assert!(!received.show_next());
    }

    #[test]
    fn nothing_behind_a_record_is_shown_with_it() {
        let mut received = received(&[20, 3, 3, 0, 1, 1, 23, 3, 3, 0, 1, 7]);
        assert!(received.show_next());
        received.discard(6);
        assert!(received.shown().is_empty());
        assert_eq!((received.start, received.end), (6, 12));
    }
}
