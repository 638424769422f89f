//! The client leg: frames are read from its socket, and written through the injector.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use gateway_common::layout::TO_CLIENT;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::flush::Flush;
use super::link::Link;

/// First byte of a Close frame (RFC 6455, section 5.5.1).
const CLOSE: u8 = 0x88;

/// What userspace still has of a client leg. Everything that is written must be whole frames.
pub(super) struct ClientLeg<'a> {
    link: &'a Link,
    flush: Flush,
}

impl<'a> ClientLeg<'a> {
    pub(super) fn new(link: &'a Link) -> Self {
        Self {
            link,
            flush: Flush::default(),
        }
    }
}

impl AsyncRead for ClientLeg<'_> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let link = self.link;
        link.check_abandoned()?;
        let before = buffer.filled().len();
        let read = ready!(link.client.poll_read(context, buffer));
        match &read {
            Ok(()) if buffer.filled().len() == before => link.note_ending(),
            // The end without close_notify, which is usual; or a change of keys, behind which
            // nothing can be read but can be sent.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::UnexpectedEof | io::ErrorKind::Unsupported
                ) =>
            {
                link.note_ending();
            }
            Ok(()) => {}
            Err(_) => link.lose_client(),
        }
        Poll::Ready(read)
    }
}

impl AsyncWrite for ClientLeg<'_> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        frames: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.link.check_client()?;
        if frames.first() == Some(&CLOSE) {
            // No frame may follow a Close.
            this.link.stop();
            ready!(this.flush.poll(context, this.link))?;
        }
        let datagram = [frames, &TO_CLIENT.to_ne_bytes()].concat();
        ready!(this.link.poll_inject(context, &datagram))?;
        Poll::Ready(Ok(frames.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.link.check_client()?;
        this.link.stop();
        // A FIN before the kernel's worker has sent everything would cut it off.
        ready!(this.flush.poll(context, this.link))?;
        this.link.client.poll_shutdown(context)
    }
}

impl crate::ClientLeg for ClientLeg<'_> {
    fn socket(&self) -> Option<BorrowedFd<'_>> {
        Some(self.link.client.socket().as_fd())
    }

    fn give_up(&mut self) {
        self.link.lose_client();
        let _ = SockRef::from(self.link.client.socket()).set_linger(Some(Duration::ZERO));
    }

    /// Looked at only when userspace has something to do for the channel.
    fn is_worn(&self) -> bool {
        let Some(limit) = self.link.client.limit() else {
            return false;
        };
        let state = self.link.state();
        state.is_ok_and(|state| state.to_client() >= limit)
    }
}
