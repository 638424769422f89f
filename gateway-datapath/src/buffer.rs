//! Buffers that are borrowed only while bytes are in hand.
//!
//! An idle channel holds none; each thread keeps a few for its next channel that moves.

use std::cell::RefCell;
use std::io::IoSliceMut;
use std::ops::{Deref, DerefMut};

/// Size of every buffer in bytes: the largest frame that is sent, with what TLS adds to it.
pub const SIZE: usize = 66 * 1024;

/// Buffers that a thread keeps for reuse; about 2 MiB.
const KEPT: usize = 32;

thread_local! {
    static POOL: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
}

/// A buffer of [`SIZE`] bytes with arbitrary content; goes back to the pool when dropped.
#[derive(Debug)]
pub struct Buffer(Box<[u8]>);

impl Buffer {
    /// Takes a buffer from this thread's pool, or makes one.
    pub fn take() -> Self {
        let kept = POOL.with_borrow_mut(Vec::pop);
        Self(kept.unwrap_or_else(|| vec![0; SIZE].into_boxed_slice()))
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let buffer = std::mem::take(&mut self.0);
        // While the thread ends its pool may be gone; then the buffer is simply freed.
        let _ = POOL.try_with(|pool| {
            let mut pool = pool.borrow_mut();
            if pool.len() < KEPT {
                pool.push(buffer);
            }
        });
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

/// How a frame lies in a buffer: in pieces, with room around each so that a record layer can
/// protect it where it lies.
///
/// Piece `k` begins at `k * (prefix + piece + suffix) + prefix`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Bytes before each piece.
    pub prefix: usize,
    /// Most bytes of a piece.
    pub piece: usize,
    /// Bytes behind each piece.
    pub suffix: usize,
}

/// Most pieces that a frame has.
pub const PIECES: usize = 4;

impl Layout {
    /// One piece and nothing around it: no record layer.
    pub const PLAIN: Self = Self {
        prefix: 0,
        piece: SIZE,
        suffix: 0,
    };

    /// Room for up to `most` bytes behind `reserved` bytes of the first piece: as many slices
    /// as the number says.
    pub fn room<'a>(
        &self,
        buffer: &'a mut [u8],
        reserved: usize,
        most: usize,
    ) -> ([IoSliceMut<'a>; PIECES], usize) {
        let mut slices = std::array::from_fn(|_| IoSliceMut::new(&mut []));
        let (mut rest, mut left, mut count) = (buffer, most, 0);
        let (mut before, mut piece) = (self.prefix + reserved, self.piece - reserved);
        while left > 0 && count < PIECES {
            let (_, behind) = rest.split_at_mut(before);
            let (slice, behind) = behind.split_at_mut(piece.min(left));
            left -= slice.len();
            slices[count] = IoSliceMut::new(slice);
            count += 1;
            rest = behind;
            (before, piece) = (self.suffix + self.prefix, self.piece);
        }
        (slices, count)
    }

    /// The pieces of `len` bytes, the first of which leaves `skipped` bytes of its piece unused:
    /// where the room before each begins, and its length.
    pub fn pieces(&self, skipped: usize, len: usize) -> impl Iterator<Item = (usize, usize)> {
        let Self {
            prefix,
            piece,
            suffix,
        } = *self;
        let mut next = (skipped, piece - skipped);
        let mut left = len;
        std::iter::from_fn(move || {
            let (start, most) = next;
            let taken = most.min(left);
            left -= taken;
            next = (start + prefix + most + suffix, piece);
            (taken > 0).then_some((start, taken))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORDS: Layout = Layout {
        prefix: 5,
        piece: 100,
        suffix: 17,
    };

    #[test]
    fn room_is_where_pieces_are() {
        for most in [1, 96, 97, 196, 300, 396] {
            let mut buffer = vec![0; 4 * 122];
            let (mut slices, count) = RECORDS.room(&mut buffer, 4, most);
            for slice in &mut slices[..count] {
                slice.fill(1);
            }
            let mut marked = 0;
            for (start, len) in RECORDS.pieces(4, most) {
                let text = &buffer[start + RECORDS.prefix..][..len];
                assert!(
                    text.iter().all(|byte| *byte == 1),
                    "{most}: piece at {start}"
                );
                marked += len;
            }
            assert_eq!(marked, most);
            let sum: usize = buffer.iter().map(|byte| usize::from(*byte)).sum();
            assert_eq!(sum, most);
        }
    }

    #[test]
    fn protected_pieces_follow_one_another() {
        let pieces: Vec<_> = RECORDS.pieces(2, 250).collect();
        assert_eq!(pieces, [(2, 98), (122, 100), (244, 52)]);
        assert_eq!(Layout::PLAIN.pieces(4, 70).collect::<Vec<_>>(), [(4, 70)]);
        assert_eq!(RECORDS.pieces(0, 0).count(), 0);
    }

    #[test]
    fn a_dropped_buffer_is_taken_again() {
        let first = Buffer::take();
        let address = first.as_ptr();
        drop(first);
        assert_eq!(Buffer::take().as_ptr(), address);
    }
}
