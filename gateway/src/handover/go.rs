//! The leave to go on with channels, of which there is one: whoever takes it has them.
//!
//! It is a byte in a pipe that both processes can read. The predecessor puts it there once the
//! successor has everything; a successor that does not take it in time, because it stands still
//! or has ended, finds nothing any more when it comes, as the predecessor has taken it back. So
//! channels are never with both, and never with neither.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::pipe::{PipeFlags, pipe_with};

/// The predecessor's side.
pub(super) struct Leave {
    reader: OwnedFd,
    writer: OwnedFd,
}

impl Leave {
    /// One that cannot be taken yet.
    pub(super) fn new() -> io::Result<Self> {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        Ok(Self { reader, writer })
    }

    /// From where the successor takes it.
    pub(super) fn reader(&self) -> BorrowedFd<'_> {
        self.reader.as_fd()
    }

    /// Lets it be taken.
    pub(super) fn give(&self) -> io::Result<()> {
        rustix::io::write(&self.writer, &[1])?;
        Ok(())
    }

    /// Takes it back; false: the successor has it.
    pub(super) fn take_back(&self) -> bool {
        take(self.reader.as_fd())
    }
}

/// Takes the leave; false: it is not there, or not there any more.
pub(super) fn take(reader: BorrowedFd<'_>) -> bool {
    let mut byte = [0_u8];
    rustix::io::retry_on_intr(|| rustix::io::read(reader, &mut byte)) == Ok(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_can_take_it() {
        let leave = Leave::new().unwrap();
        let successor = leave.reader().try_clone_to_owned().unwrap();
        assert!(!take(successor.as_fd()));
        leave.give().unwrap();
        assert!(take(successor.as_fd()));
        assert!(!leave.take_back());
        let leave = Leave::new().unwrap();
        let successor = leave.reader().try_clone_to_owned().unwrap();
        leave.give().unwrap();
        assert!(leave.take_back());
        assert!(!take(successor.as_fd()));
        drop(leave);
        assert!(!take(successor.as_fd()));
    }
}
