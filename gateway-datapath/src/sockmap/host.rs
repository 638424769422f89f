//! The host leg: written as ever; what it sends is seen here only when the kernel does not move it.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::charged::Charged;
use super::flush::Flush;
use super::host_socket::HostSocket;
use super::link::{Link, Owed};
use super::passed::{Passed, check};
use super::watch::{BROKEN, CLIENT_LOST, ENDED, HELD_UP, MISPLACED, PASSED};
use crate::queues::not_acknowledged;

/// What userspace still has of a host leg.
///
/// Reading from it is how the process does its part of the downlink: it returns nothing until the
/// end of the stream, unless the downlink was stopped; then it returns what the host sends.
pub(super) struct HostLeg<'a> {
    link: &'a Link,
    downlink: Downlink,
    /// The host leg's FIN or RST has come.
    ended: bool,
    /// How the host's stream ended, once it was read to its end.
    end: Option<io::Result<()>>,
    flush: Flush,
}

/// What is left of the downlink for the process.
enum Downlink {
    /// Of a host on TCP.
    Passed(Passed),
    /// Of one on a Unix socket.
    Charged(Charged),
}

impl<'a> HostLeg<'a> {
    /// Goes on where a leg before may have left off.
    pub(super) fn new(link: &'a Link) -> Self {
        let downlink = match link.host.get_ref() {
            HostSocket::Tcp(_) => Downlink::Passed(Passed::new(link)),
            HostSocket::Unix(_) => Downlink::Charged(Charged::new()),
        };
        Self {
            link,
            downlink,
            ended: false,
            end: None,
            flush: Flush::default(),
        }
    }

    /// What another leg of this link needs to go on.
    pub(super) fn into_owed(self) -> Owed {
        match self.downlink {
            Downlink::Passed(passed) => passed.into_owed(),
            Downlink::Charged(_) => Owed::default(),
        }
    }

    /// Does the process's part until the host's end; ready when everything before that was read.
    fn poll_end(&mut self, context: &mut Context<'_>, happened: u64) -> Poll<io::Result<()>> {
        if self.end.is_some() {
            return Poll::Ready(Ok(()));
        }
        let end = match &mut self.downlink {
            Downlink::Passed(passed) => {
                if happened & (PASSED | ENDED) != 0 {
                    passed.on_passed();
                }
                ready!(passed.poll_return(context, self.link, self.ended))?
            }
            Downlink::Charged(charged) => {
                if happened & PASSED != 0 {
                    // The process that reads the ring may be another one, which is told.
                    check(&self.link.state()?)?;
                }
                if happened & HELD_UP != 0 {
                    charged.on_held_up(self.link);
                }
                charged.poll_rest(context, self.link);
                if !self.ended {
                    return Poll::Pending;
                }
                match self.link.host.get_ref().read(&mut [0; 1]) {
                    Ok(0) => Ok(()),
                    // Bytes that no program has seen.
                    Ok(_) => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        return Poll::Pending;
                    }
                    Err(error) => Err(error),
                }
            }
        };
        self.end = Some(end);
        Poll::Ready(Ok(()))
    }

    fn poll_stopped(&mut self, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let Some(end) = self.end.take() {
            return Poll::Ready(end);
        }
        match &mut self.downlink {
            Downlink::Passed(passed) => passed.discard(),
            // The program has read it, for nobody.
            Downlink::Charged(charged) => {
                let new = self.link.state()?.passed.saturating_sub(charged.dropped);
                if new > 0 {
                    let len = buffer
                        .remaining()
                        .min(usize::try_from(new).unwrap_or(usize::MAX));
                    buffer.initialize_unfilled_to(len);
                    buffer.advance(len);
                    charged.dropped += len as u64;
                    return Poll::Ready(Ok(()));
                }
            }
        }
        match self.link.host.get_ref().read(buffer.initialize_unfilled()) {
            Ok(len) => {
                buffer.advance(len);
                Poll::Ready(Ok(()))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
            Err(error) => Poll::Ready(Err(error)),
        }
    }
}

impl AsyncRead for HostLeg<'_> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let happened = this.link.signal.take(context.waker());
        if this.link.check_abandoned().is_err() {
            return Poll::Ready(Ok(()));
        }
        if happened & MISPLACED != 0 {
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        }
        if happened & BROKEN != 0 {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if happened & ENDED != 0 {
            this.ended = true;
            this.link.note_ending();
        }
        if happened & CLIENT_LOST != 0 {
            this.link.lose_client();
        }
        if this.link.is_stopped() {
            return this.poll_stopped(buffer);
        }
        ready!(this.poll_end(context, happened))?;
        ready!(this.flush.poll(context, this.link))?;
        Poll::Ready(this.end.take().unwrap_or(Ok(())))
    }
}

impl AsyncWrite for HostLeg<'_> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let link = self.link;
        link.check_abandoned()?;
        loop {
            let mut ready = ready!(link.host.poll_write_ready(context))?;
            match ready.try_io(|host| host.get_ref().write(bytes)) {
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(error)) => {
                    link.note_ending();
                    return Poll::Ready(Err(error));
                }
                Ok(Ok(len)) => {
                    link.add_uplink(len);
                    return Poll::Ready(Ok(len));
                }
                Err(_would_block) => {}
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.link.host.get_ref().shutdown_write())
    }
}

impl crate::HostLeg for HostLeg<'_> {
    fn has_taken_all(&self) -> bool {
        // Nothing is waited for any more once the time for ending is over.
        self.link.check_abandoned().is_err()
            || not_acknowledged(self.link.host.get_ref().as_raw_fd()) == 0
    }

    fn is_ending(&self) -> bool {
        self.end.is_some() || self.link.is_ending()
    }

    fn socket(&self) -> Option<BorrowedFd<'_>> {
        let tcp = self.link.host.get_ref().tcp()?;
        self.link.follows().then(|| tcp.as_fd())
    }
}
