//! Whose turn it is to read a ring that several processes have.
//!
//! A ring of events has one reader (`ring_buffer.rst` in the kernel's documentation). While a
//! gateway follows another one, both may have channels in the same maps. The ring is read by whoever
//! holds a lock (flock(2)) on a file in memory that both have. The lock ends with its process,
//! however that ends.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, MemfdFlags, fstat, memfd_create};

/// One process's part in it.
pub(super) struct Turn {
    /// What other processes are given; nobody locks this description of the file.
    given: OwnedFd,
    /// A description of its own, as locks belong to descriptions.
    own: File,
}

impl Turn {
    /// Of a ring that no other process has yet.
    pub(super) fn new() -> io::Result<Self> {
        Self::of(memfd_create("flexvdi-turn", MemfdFlags::CLOEXEC)?)
    }

    /// Of a ring for which other processes have the same file.
    pub(super) fn of(given: OwnedFd) -> io::Result<Self> {
        let kind = FileType::from_raw_mode(fstat(&given)?.st_mode);
        if kind != FileType::RegularFile {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let path = format!("/proc/self/fd/{}", given.as_raw_fd());
        let own = OpenOptions::new().read(true).write(true).open(path)?;
        Ok(Self { given, own })
    }

    /// Whether it is this process's turn now.
    pub(super) fn take(&self) -> bool {
        self.own.try_lock().is_ok()
    }

    /// Lets another process have it.
    pub(super) fn give_away(&self) {
        let _ = self.own.unlock();
    }
}

impl AsFd for Turn {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.given.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_one_ones_turn_until_it_is_given_away_or_its_owner_ends() {
        let first = Turn::new().unwrap();
        let second = Turn::of(first.as_fd().try_clone_to_owned().unwrap()).unwrap();
        assert!(first.take());
        assert!(first.take());
        assert!(!second.take());
        // However often the descriptor is passed on and closed.
        drop(first.as_fd().try_clone_to_owned().unwrap());
        assert!(!second.take());
        first.give_away();
        assert!(second.take());
        assert!(!first.take());
        drop(second);
        assert!(first.take());
    }

    #[test]
    fn what_would_stop_the_thread_is_not_opened() {
        let (pipe, _) = rustix::pipe::pipe().unwrap();
        assert!(Turn::of(pipe).is_err());
    }
}
