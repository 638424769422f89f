//! Pipes through which the kernel hands bytes from socket to socket; borrowed only while bytes
//! are in hand, like [buffers](crate::buffer).

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::pipe::{PipeFlags, SpliceFlags, pipe_with, splice};

/// Pipes that a thread keeps for reuse. A full one holds 64 KiB or more of the kernel's memory,
/// an empty one about 1 KiB.
const KEPT: usize = 16;

thread_local! {
    static POOL: RefCell<Vec<Ends>> = const { RefCell::new(Vec::new()) };
}

#[derive(Debug)]
struct Ends {
    read: OwnedFd,
    write: OwnedFd,
}

/// A pipe, and how many bytes are in it. It goes back to the pool when dropped empty.
#[derive(Debug)]
pub struct Pipe {
    /// Always there until dropped.
    ends: Option<Ends>,
    held: usize,
}

impl Pipe {
    /// Takes a pipe from this thread's pool, or makes one; fails when the process may not have
    /// more descriptors.
    pub(super) fn take() -> io::Result<Self> {
        let ends = if let Some(kept) = POOL.with_borrow_mut(Vec::pop) {
            kept
        } else {
            let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
            Ends { read, write }
        };
        Ok(Self {
            ends: Some(ends),
            held: 0,
        })
    }

    /// Bytes in it.
    pub fn len(&self) -> usize {
        self.held
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.held == 0
    }

    /// Moves up to `most` bytes from a socket into the pipe, which must be empty; `0` is the end
    /// of the stream. What does not wait on the socket's side is `WouldBlock` for a non-blocking
    /// one. Fewer bytes than there are come when the pipe's places, not its bytes, run out.
    pub(super) fn fill(&mut self, socket: impl AsFd, most: usize) -> io::Result<usize> {
        debug_assert!(self.is_empty());
        let ends = self.ends.as_ref().ok_or(io::ErrorKind::BrokenPipe)?;
        let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
        let len = splice(socket, None, &ends.write, None, most, flags)?;
        self.held = len;
        Ok(len)
    }

    /// Moves bytes from the pipe to a socket; returns how many.
    pub(super) fn drain(&mut self, socket: impl AsFd) -> io::Result<usize> {
        let ends = self.ends.as_ref().ok_or(io::ErrorKind::BrokenPipe)?;
        let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
        let len = splice(&ends.read, None, socket, None, self.held, flags)?;
        self.held = self.held.saturating_sub(len);
        Ok(len)
    }

    /// Takes all that it holds into memory, which must be as long.
    pub(super) fn read(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        debug_assert_eq!(bytes.len(), self.held);
        let ends = self.ends.as_ref().ok_or(io::ErrorKind::BrokenPipe)?;
        let mut at = 0;
        while at < bytes.len() {
            match rustix::io::read(&ends.read, &mut bytes[at..])? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                len => at += len,
            }
            self.held = bytes.len() - at;
        }
        Ok(())
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        let Some(ends) = self.ends.take().filter(|_| self.held == 0) else {
            return;
        };
        // While the thread ends its pool may be gone; then the pipe is simply closed.
        let _ = POOL.try_with(|pool| {
            let mut pool = pool.borrow_mut();
            if pool.len() < KEPT {
                pool.push(ends);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsRawFd;

    use super::*;

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (near, listener.accept().unwrap().0)
    }

    fn number(pipe: &Pipe) -> i32 {
        pipe.ends.as_ref().unwrap().read.as_raw_fd()
    }

    #[test]
    fn bytes_go_from_socket_to_socket() {
        let ((mut source, host), (client, mut sink)) = (pair(), pair());
        host.set_nonblocking(true).unwrap();
        let mut pipe = Pipe::take().unwrap();
        let error = pipe.fill(&host, 100).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        source.write_all(b"0123456789").unwrap();
        assert_eq!(pipe.fill(&host, 4).unwrap(), 4);
        assert_eq!(pipe.drain(&client).unwrap(), 4);
        assert!(pipe.is_empty());
        assert_eq!(pipe.fill(&host, 100).unwrap(), 6);
        assert_eq!(pipe.drain(&client).unwrap(), 6);
        let mut received = [0; 10];
        sink.read_exact(&mut received).unwrap();
        assert_eq!(&received, b"0123456789");
        source.write_all(b"taken out").unwrap();
        assert_eq!(pipe.fill(&host, 100).unwrap(), 9);
        let mut taken = [0; 9];
        pipe.read(&mut taken).unwrap();
        assert_eq!(&taken, b"taken out");
        assert!(pipe.is_empty());
        drop(source);
        assert_eq!(pipe.fill(&host, 100).unwrap(), 0);
    }

    #[test]
    fn only_empty_pipes_are_used_again() {
        let (mut source, host) = pair();
        let mut pipe = Pipe::take().unwrap();
        let first = number(&pipe);
        drop(pipe);
        pipe = Pipe::take().unwrap();
        assert_eq!(number(&pipe), first);
        source.write_all(b"left").unwrap();
        assert_eq!(pipe.fill(&host, 4).unwrap(), 4);
        drop(pipe);
        assert!(POOL.with_borrow(Vec::is_empty));
    }
}
