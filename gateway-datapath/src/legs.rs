//! What a data path asks of its two byte streams.

use std::io::{self, IoSliceMut, Read};
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

use super::pipe::Pipe;
use super::queues::not_acknowledged;
use super::sockopt;
use super::tcp_info::bytes_acknowledged;
use crate::buffer::Layout;

/// The client leg: it takes frames where they were read, and protects them there if it has to.
pub trait ClientLeg: AsyncRead + AsyncWrite + Unpin {
    /// How a frame must lie in its buffer.
    fn layout(&self) -> Layout {
        Layout::PLAIN
    }

    /// Protects a frame of `len` bytes that lies in `buffer` behind `skipped` bytes of its first
    /// piece; returns the bytes that are to be sent, with [`ClientLeg::poll_send`].
    ///
    /// What was written otherwise is sent first.
    fn poll_protect(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut [u8],
        skipped: usize,
        len: usize,
    ) -> Poll<io::Result<Range<usize>>> {
        let _ = (context, buffer);
        Poll::Ready(Ok(skipped..skipped + len))
    }

    /// Sends bytes of a protected frame; returns how many. Until all of it is sent, nothing else
    /// must be written.
    fn poll_send(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(self).poll_write(context, bytes)
    }

    /// Bytes that the client's system has taken of what was sent; `None`: that is not known.
    fn acknowledged(&self) -> Option<u64> {
        bytes_acknowledged(self.socket()?).ok()
    }

    /// The TCP socket by which frames leave, if there is one.
    fn socket(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Nothing is to reach the client any more: closing its socket drops what waits there, and
    /// resets the connection.
    fn give_up(&mut self) {
        if let Some(socket) = self.socket() {
            // Where that cannot be, the kernel goes on for a while with what waits.
            let _ = SockRef::from(&socket).set_linger(Some(Duration::ZERO));
        }
    }

    /// Whether the channel should end, for there is no other key for what is sent.
    fn is_worn(&self) -> bool {
        false
    }

    /// Length in bytes from which payload is to pass through a pipe; `None`: it cannot.
    fn splice_from(&self) -> Option<usize> {
        None
    }

    /// Moves up to `most` bytes that the client has sent into an empty pipe; `0` is the end of the
    /// stream. `None`: what comes next must be read into memory.
    fn poll_read_piped(
        &mut self,
        context: &mut Context<'_>,
        pipe: &mut Pipe,
        most: usize,
    ) -> Poll<io::Result<Option<usize>>> {
        let _ = (context, pipe, most);
        Poll::Ready(Ok(None))
    }

    /// Sends bytes of a frame's header behind which the rest of the frame follows at once;
    /// returns how many.
    fn poll_send_header(
        &mut self,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_send(context, bytes)
    }

    /// Sends what a pipe holds; returns how many bytes. Until all of it is sent, nothing else
    /// must be written.
    fn poll_send_piped(
        &mut self,
        context: &mut Context<'_>,
        pipe: &mut Pipe,
    ) -> Poll<io::Result<usize>> {
        let _ = (context, pipe);
        Poll::Ready(Err(io::ErrorKind::Unsupported.into()))
    }
}

impl ClientLeg for TcpStream {
    fn socket(&self) -> Option<BorrowedFd<'_>> {
        Some(self.as_fd())
    }
}

/// The host leg: it is read into several places at once.
pub trait HostLeg: AsyncRead + AsyncWrite + Unpin {
    /// Reads once, filling one slice after the other; `0` is the end of the stream.
    fn poll_read_room(
        &mut self,
        context: &mut Context<'_>,
        room: &mut [IoSliceMut<'_>],
    ) -> Poll<io::Result<usize>> {
        let Some(first) = room.first_mut() else {
            return Poll::Ready(Ok(0));
        };
        let mut space = ReadBuf::new(first);
        ready!(Pin::new(self).poll_read(context, &mut space))?;
        Poll::Ready(Ok(space.filled().len()))
    }

    /// Moves up to `most` bytes into an empty pipe; `0` is the end of the stream.
    fn poll_read_piped(
        &mut self,
        context: &mut Context<'_>,
        pipe: &mut Pipe,
        most: usize,
    ) -> Poll<io::Result<usize>> {
        let _ = (context, pipe, most);
        Poll::Ready(Err(io::ErrorKind::Unsupported.into()))
    }

    /// Sends bytes that a pipe holds; returns how many.
    fn poll_write_piped(
        &mut self,
        context: &mut Context<'_>,
        pipe: &mut Pipe,
    ) -> Poll<io::Result<usize>> {
        let _ = (context, pipe);
        Poll::Ready(Err(io::ErrorKind::Unsupported.into()))
    }

    /// Bytes that the host's system has taken of what was sent; `None`: that is not known.
    fn acknowledged(&self) -> Option<u64> {
        bytes_acknowledged(self.socket()?).ok()
    }

    /// Whether the host's system has all that it was sent; true where that is not known.
    fn has_taken_all(&self) -> bool {
        self.socket()
            .is_none_or(|socket| not_acknowledged(socket.as_raw_fd()) == 0)
    }

    /// The TCP socket that is read, if there is one.
    fn socket(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Bytes that the socket was given to send, taken by the host's system or not; `None`: that is
    /// not known.
    fn written(&self) -> Option<u64> {
        let waiting = not_acknowledged(self.socket()?.as_raw_fd());
        Some(self.acknowledged()? + waiting)
    }

    /// Whether one of the legs has ended, although that was not returned yet.
    fn is_ending(&self) -> bool {
        false
    }

    /// Whether it has TLS: data that cannot be is then a fault of that.
    fn is_tls(&self) -> bool {
        false
    }

    /// Wakes the reader only once so many bytes, or the end, have come; where that is possible.
    fn set_low_water(&self, bytes: usize) {
        let _ = bytes;
    }
}

impl HostLeg for TcpStream {
    fn socket(&self) -> Option<BorrowedFd<'_>> {
        Some(self.as_fd())
    }

    fn poll_read_room(
        &mut self,
        context: &mut Context<'_>,
        room: &mut [IoSliceMut<'_>],
    ) -> Poll<io::Result<usize>> {
        let capacity: usize = room.iter().map(|slice| slice.len()).sum();
        loop {
            ready!(self.poll_read_ready(context))?;
            let mut partial = None;
            let read = self.try_io(Interest::READABLE, || {
                let len = (&*SockRef::from(&*self)).read_vectored(room)?;
                if len == 0 || len == capacity {
                    return Ok(len);
                }
                // The socket was emptied: readiness is over until the next event, and asking the
                // system for that would be a call that only says so.
                partial = Some(len);
                Err(io::ErrorKind::WouldBlock.into())
            });
            match (read, partial) {
                (_, Some(len)) => return Poll::Ready(Ok(len)),
                (Err(error), None) if error.kind() == io::ErrorKind::WouldBlock => {}
                (Err(error), None) if error.kind() == io::ErrorKind::Interrupted => {}
                (read, None) => return Poll::Ready(read),
            }
        }
    }

    fn poll_read_piped(
        &mut self,
        context: &mut Context<'_>,
        pipe: &mut Pipe,
        most: usize,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.poll_read_ready(context))?;
            // Readiness is over only when the system says so: less than asked for may also mean
            // that the pipe's places ran out.
            match self.try_io(Interest::READABLE, || pipe.fill(&*self, most)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                filled => return Poll::Ready(filled),
            }
        }
    }

    fn poll_write_piped(
        &mut self,
        context: &mut Context<'_>,
        pipe: &mut Pipe,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.poll_write_ready(context))?;
            match self.try_io(Interest::WRITABLE, || pipe.drain(&*self)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                drained => return Poll::Ready(drained),
            }
        }
    }

    fn set_low_water(&self, bytes: usize) {
        // A system that refuses it wakes the reader for every byte, as without.
        let _ = sockopt::set_low_water(self, bytes);
    }
}

#[cfg(test)]
mod tests {
    use std::mem::MaybeUninit;

    use super::*;
    use crate::probe::round_trip;

    async fn pair() -> (TcpStream, TcpStream) {
        round_trip::pair().await.unwrap()
    }

    /// Reads once into two slices of 3 and 5 bytes.
    async fn read(stream: &mut TcpStream) -> Vec<u8> {
        let mut bytes = [0; 8];
        let (first, second) = bytes.split_at_mut(3);
        let mut room = [IoSliceMut::new(first), IoSliceMut::new(second)];
        let len = std::future::poll_fn(|context| stream.poll_read_room(context, &mut room));
        let len = len.await.unwrap();
        bytes[..len].to_vec()
    }

    #[tokio::test]
    async fn room_is_filled_slice_after_slice_up_to_the_end() {
        let (mut near, far) = pair().await;
        far.writable().await.unwrap();
        far.try_write(b"0123456789").unwrap();
        assert_eq!(read(&mut near).await, b"01234567");
        assert_eq!(read(&mut near).await, b"89");
        far.try_write(b"abc").unwrap();
        assert_eq!(read(&mut near).await, b"abc");
        drop(far);
        assert_eq!(read(&mut near).await, b"");
    }

    #[tokio::test]
    async fn below_the_low_water_mark_nobody_is_woken() {
        let (mut near, far) = pair().await;
        near.set_low_water(1_000);
        far.writable().await.unwrap();
        far.try_write(b"abc").unwrap();
        // The bytes are there, whatever the socket says of it.
        let mut seen = [MaybeUninit::uninit(); 8];
        while !matches!(SockRef::from(&near).peek(&mut seen), Ok(3)) {
            tokio::task::yield_now().await;
        }
        let mut bytes = [0; 8];
        let mut room = [IoSliceMut::new(&mut bytes)];
        let read_now = std::future::poll_fn(|context| {
            Poll::Ready(near.poll_read_room(context, &mut room).is_ready())
        });
        assert!(!read_now.await);
        near.set_low_water(1);
        assert_eq!(read(&mut near).await, b"abc");
        // The end counts whatever the mark.
        near.set_low_water(1_000);
        drop(far);
        assert_eq!(read(&mut near).await, b"");
    }
}
