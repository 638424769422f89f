//! Buffers that are borrowed only while bytes are in hand.
//!
//! An idle channel holds none; each thread keeps a few for its next channel that moves.

use std::cell::RefCell;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_buffer_is_taken_again() {
        let first = Buffer::take();
        let address = first.as_ptr();
        drop(first);
        assert_eq!(Buffer::take().as_ptr(), address);
    }
}
