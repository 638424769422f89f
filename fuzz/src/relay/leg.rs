//! A leg that does what a script says.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use gateway_datapath::buffer::Layout;
use gateway_datapath::{ClientLeg, HostLeg};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use super::script::{Read, Script, Write};

/// Room as TLS wants it, with a header that says how long the piece is.
const PROTECTED: Layout = Layout {
    prefix: 5,
    piece: 16_384,
    suffix: 17,
};

pub(super) struct Leg {
    content: Vec<u8>,
    /// How much of the content has come.
    come: usize,
    reads: VecDeque<Read>,
    writes: VecDeque<Write>,
    reading: Option<Pin<Box<Sleep>>>,
    writing: Option<Pin<Box<Sleep>>>,
    layout: Layout,
    /// What was sent of protected pieces that are not whole yet.
    protected: Vec<u8>,
    taken: Vec<u8>,
    /// Something was written and not flushed.
    is_unflushed: bool,
    is_shut: bool,
    is_write_broken: bool,
}

impl Leg {
    pub(super) fn new(script: Script, is_protected: bool) -> Self {
        Self {
            content: script.content,
            come: 0,
            reads: script.reads.into(),
            writes: script.writes.into(),
            reading: None,
            writing: None,
            layout: if is_protected {
                PROTECTED
            } else {
                Layout::PLAIN
            },
            protected: Vec::new(),
            taken: Vec::new(),
            is_unflushed: false,
            is_shut: false,
            is_write_broken: false,
        }
    }

    /// What arrived at the peer, its protection taken off.
    pub(super) fn taken(&self) -> &[u8] {
        &self.taken
    }

    /// The peer was told that nothing more comes.
    pub(super) fn is_shut(&self) -> bool {
        self.is_shut
    }

    /// Writing has failed.
    pub(super) fn is_write_broken(&self) -> bool {
        self.is_write_broken
    }

    /// Within a protected piece.
    pub(super) fn is_within_piece(&self) -> bool {
        !self.protected.is_empty()
    }

    /// How many bytes may be written now, if any.
    fn poll_room(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        loop {
            if let Some(sleep) = &mut self.writing {
                ready!(sleep.as_mut().poll(context));
                self.writing = None;
            }
            match self.writes.front() {
                None => return Poll::Ready(Ok(usize::MAX)),
                Some(Write::Bytes(room)) => {
                    let room = *room;
                    self.writes.pop_front();
                    return Poll::Ready(Ok(room));
                }
                Some(Write::Pending) => {
                    self.writes.pop_front();
                    context.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Some(Write::Sleep(duration)) => {
                    self.writing = Some(Box::pin(sleep(*duration)));
                    self.writes.pop_front();
                }
                Some(Write::Error(kind)) => {
                    self.is_write_broken = true;
                    return Poll::Ready(Err((*kind).into()));
                }
                Some(Write::Stuck) => return Poll::Pending,
            }
        }
    }

    /// Takes pieces that are whole.
    fn unprotect(&mut self) {
        let Layout { prefix, suffix, .. } = self.layout;
        while let Some(&[1, a, b, c, 2]) = self.protected.first_chunk() {
            let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
            let end = prefix + length + suffix;
            if self.protected.len() < end {
                return;
            }
            assert_eq!(
                self.protected[prefix + length..end],
                [3; 17],
                "a torn piece"
            );
            self.taken
                .extend_from_slice(&self.protected[prefix..][..length]);
            self.protected.drain(..end);
        }
        assert!(self.protected.len() < prefix, "no piece begins here");
    }
}

impl AsyncRead for Leg {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        space: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        assert!(
            space.remaining() > 0,
            "read without room would look like the end"
        );
        loop {
            if let Some(sleep) = &mut self.reading {
                ready!(sleep.as_mut().poll(context));
                self.reading = None;
            }
            match self.reads.front_mut() {
                None => return Poll::Ready(Ok(())),
                Some(Read::Bytes(length)) => {
                    let now = (*length).min(space.remaining());
                    *length -= now;
                    if *length == 0 {
                        self.reads.pop_front();
                    }
                    space.put_slice(&self.content[self.come..][..now]);
                    self.come += now;
                    return Poll::Ready(Ok(()));
                }
                Some(Read::Pending) => {
                    self.reads.pop_front();
                    context.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Some(Read::Sleep(duration)) => {
                    self.reading = Some(Box::pin(sleep(*duration)));
                    self.reads.pop_front();
                }
                Some(Read::Error(kind)) => {
                    let kind = *kind;
                    // A leg that cannot read on says so once, and waits for the client's end.
                    if kind == io::ErrorKind::Unsupported {
                        self.reads = VecDeque::from([Read::Silence]);
                    }
                    return Poll::Ready(Err(kind.into()));
                }
                Some(Read::Silence) => return Poll::Pending,
            }
        }
    }
}

impl AsyncWrite for Leg {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        assert!(!self.is_shut, "written behind the end");
        assert!(!bytes.is_empty() && !self.is_within_piece());
        let length = ready!(self.poll_room(context))?.min(bytes.len());
        self.taken.extend_from_slice(&bytes[..length]);
        self.is_unflushed = true;
        Poll::Ready(Ok(length))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_unflushed {
            ready!(self.poll_room(context))?;
            self.is_unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        assert!(!self.is_shut, "shut down twice");
        ready!(self.poll_room(context))?;
        self.is_shut = true;
        Poll::Ready(Ok(()))
    }
}

impl ClientLeg for Leg {
    fn layout(&self) -> Layout {
        self.layout
    }

    fn poll_protect(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut [u8],
        skipped: usize,
        len: usize,
    ) -> Poll<io::Result<Range<usize>>> {
        if self.layout == Layout::PLAIN {
            return Poll::Ready(Ok(skipped..skipped + len));
        }
        ready!(self.poll_room(context))?;
        let Layout { prefix, suffix, .. } = self.layout;
        let mut end = skipped;
        for (start, len) in self.layout.pieces(skipped, len) {
            assert!(start == end || end == skipped, "a gap between pieces");
            let [.., a, b, c] = len.to_be_bytes();
            buffer[start..start + prefix].copy_from_slice(&[1, a, b, c, 2]);
            end = start + prefix + len + suffix;
            buffer[end - suffix..end].fill(3);
        }
        Poll::Ready(Ok(skipped..end))
    }

    fn poll_send(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.layout == Layout::PLAIN {
            return Pin::new(self).poll_write(context, bytes);
        }
        assert!(!self.is_shut && !bytes.is_empty());
        let length = ready!(self.poll_room(context))?.min(bytes.len());
        self.protected.extend_from_slice(&bytes[..length]);
        self.unprotect();
        self.is_unflushed = true;
        Poll::Ready(Ok(length))
    }
}

impl HostLeg for Leg {}
