//! The client leg: frames are read from its socket, and written through the injector.

use std::io::{self, Read};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use gateway_common::layout::TO_CLIENT;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::drain::Drain;
use super::link::Link;
use crate::datapath;

/// First byte of a Close frame (RFC 6455, section 5.5.1).
const CLOSE: u8 = 0x88;

/// What userspace still has of a client leg. Everything that is written must be whole frames.
pub(super) struct ClientLeg<'a> {
    link: &'a Link,
    drain: Drain,
}

impl<'a> ClientLeg<'a> {
    pub(super) fn new(link: &'a Link) -> Self {
        Self {
            link,
            drain: Drain::default(),
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
        loop {
            let mut ready = ready!(link.client.poll_read_ready(context))?;
            let space = buffer.initialize_unfilled();
            match ready.try_io(|client| client.get_ref().read(space)) {
                Ok(Ok(len)) => {
                    if len == 0 {
                        link.note_ending();
                    }
                    buffer.advance(len);
                    return Poll::Ready(Ok(()));
                }
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(error)) => {
                    link.lose_client();
                    return Poll::Ready(Err(error));
                }
                Err(_would_block) => {}
            }
        }
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
            ready!(this.drain.poll(context, this.link))?;
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
        ready!(this.drain.poll(context, this.link))?;
        Poll::Ready(this.link.shut_client())
    }
}

impl datapath::ClientLeg for ClientLeg<'_> {}
