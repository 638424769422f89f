//! What goes to the client: whole frames, one after the other, each written to its end. Without
//! framing, a frame is the payload of one read and has no header.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use gateway_common::frame;
use serde::{Deserialize, Serialize};

use super::pipe::Pipe;
use super::{ClientLeg, HostLeg};
use crate::buffer::{Buffer, Layout, SIZE};
use crate::encoded::Bytes;
use crate::framing::Framing;

/// Most that is read from the host for one frame, in bytes: with its header the frame fills four
/// TLS records of 16 KiB.
pub(super) const MAX_READ: usize = 4 * 16_384 - HEADER;
/// Longest header of a frame with as much payload, in bytes.
const HEADER: usize = frame::header_len(4 * 16_384 - 4);
const _: () = assert!(MAX_READ <= frame::MAX_PAYLOAD && HEADER == frame::header_len(MAX_READ));

/// Longest control frame in bytes: header and payload (RFC 6455, section 5.5).
const MAX_CONTROL: usize = 2 + 125;

/// The frame that is being written to the client, if any.
#[derive(Debug, Default)]
pub(super) struct Outbound {
    framing: Framing,
    frame: Option<Frame>,
    /// What is still to be sent of it.
    start: usize,
    end: usize,
    /// The frame lies in its buffer as it is sent, see [`ClientLeg::poll_protect`].
    protected: bool,
    /// Something was written that the stream may still hold back.
    unflushed: bool,
    /// Length of the last payload, in bytes: the next one is expected to be alike.
    last: usize,
}

#[derive(Debug)]
enum Frame {
    /// Read into memory.
    Data(Buffer),
    /// The payload never enters the process.
    Piped(Header, Pipe),
    Control(Vec<u8>),
}

/// A frame's header by itself.
#[derive(Debug)]
struct Header {
    bytes: [u8; frame::MAX_HEADER],
    len: usize,
}

impl Header {
    fn of(framing: Framing, payload: usize) -> Self {
        let mut bytes = [0; frame::MAX_HEADER];
        let len = match framing {
            Framing::WebSocket => frame::write_header(&mut bytes, frame::FIN_BINARY, payload),
            Framing::Raw => 0,
        };
        Self { bytes, len }
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// The frame that is being written, written down: what is still to be sent of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum OutboundState {
    /// Header, if there is one, and payload of a frame of data of which nothing was sent.
    Plain(Bytes),
    /// What is left of a frame as it is sent.
    Protected(Bytes),
    /// What is left of a control frame.
    Control(Bytes),
}

/// Whether this is one frame of data as [`Outbound::poll_fill`] makes it, header included.
fn is_whole_frame(framing: Framing, bytes: &[u8]) -> bool {
    let lengths = 1..=bytes.len().min(MAX_READ);
    lengths.rev().take(frame::MAX_HEADER).any(|payload| {
        let header = Header::of(framing, payload);
        header.len + payload == bytes.len() && bytes.starts_with(header.bytes())
    })
}

impl Outbound {
    pub(super) fn new(framing: Framing) -> Self {
        Self {
            framing,
            ..Self::default()
        }
    }

    pub(super) fn framing(&self) -> Framing {
        self.framing
    }

    /// `layout` is that of the client leg; `None`: no frame is being written.
    pub(super) fn state(&self, layout: Layout) -> Option<OutboundState> {
        Some(match self.frame.as_ref()? {
            Frame::Data(buffer) if self.protected => {
                OutboundState::Protected(buffer[self.start..self.end].into())
            }
            Frame::Data(buffer) => {
                let mut bytes = Bytes::default();
                for (start, len) in layout.pieces(self.start, self.end - self.start) {
                    let text = &buffer[start + layout.prefix..][..len];
                    bytes.as_mut_vec().extend_from_slice(text);
                }
                OutboundState::Plain(bytes)
            }
            Frame::Control(bytes) => OutboundState::Control(bytes[self.start..self.end].into()),
            Frame::Piped(..) => unreachable!("a channel that stands still has no pipe"),
        })
    }

    /// Takes what a pipe holds into memory, where it can be written down.
    pub(super) fn settle(&mut self) -> io::Result<()> {
        if let Some(Frame::Piped(header, pipe)) = &mut self.frame {
            let mut buffer = Buffer::take();
            let head = header.bytes().get(self.start..).unwrap_or_default();
            let end = head.len() + pipe.len();
            buffer[..head.len()].copy_from_slice(head);
            pipe.read(&mut buffer[head.len()..end])?;
            (self.start, self.end) = (0, end);
            self.protected = true;
            self.frame = Some(Frame::Data(buffer));
        }
        Ok(())
    }

    pub(super) fn is_unflushed(&self) -> bool {
        self.unflushed
    }

    /// `None`: that state does not occur.
    pub(super) fn resume(
        framing: Framing,
        state: Option<&OutboundState>,
        unflushed: bool,
        layout: Layout,
    ) -> Option<Self> {
        let mut outbound = Self {
            unflushed,
            ..Self::new(framing)
        };
        let Some(state) = state else {
            return Some(outbound);
        };
        let (OutboundState::Plain(bytes)
        | OutboundState::Protected(bytes)
        | OutboundState::Control(bytes)) = state;
        if bytes.is_empty() || bytes.len() > SIZE {
            return None;
        }
        outbound.end = bytes.len();
        outbound.frame = Some(match state {
            OutboundState::Plain(bytes) => {
                if !is_whole_frame(framing, bytes) {
                    return None;
                }
                let mut buffer = Buffer::take();
                let mut rest = &bytes[..];
                for (start, len) in layout.pieces(0, bytes.len()) {
                    let (text, behind) = rest.split_at(len);
                    buffer[start + layout.prefix..][..len].copy_from_slice(text);
                    rest = behind;
                }
                Frame::Data(buffer)
            }
            OutboundState::Protected(bytes) => {
                let mut buffer = Buffer::take();
                buffer[..bytes.len()].copy_from_slice(bytes);
                outbound.protected = true;
                Frame::Data(buffer)
            }
            OutboundState::Control(bytes)
                if bytes.len() > MAX_CONTROL || framing == Framing::Raw =>
            {
                return None;
            }
            OutboundState::Control(bytes) => Frame::Control(bytes.to_vec()),
        });
        Some(outbound)
    }

    /// Whether nothing is being written, or a control frame of which nothing was sent.
    pub(super) fn is_whole_control(&self) -> bool {
        match &self.frame {
            None => true,
            Some(Frame::Control(bytes)) => {
                let payload = bytes.get(1).map_or(usize::MAX, |len| usize::from(*len));
                self.start == 0 && bytes.len() == payload.saturating_add(2)
            }
            Some(_) => false,
        }
    }

    /// How much is left of a frame that lies in its buffer as it is sent, in bytes.
    pub(super) fn protected(&self) -> usize {
        match self.frame {
            Some(Frame::Data(_)) if self.protected => self.end - self.start,
            _ => 0,
        }
    }

    /// How much is left of the frame that is being written, in bytes.
    pub(super) fn left(&self) -> usize {
        match self.frame {
            Some(_) => self.end - self.start,
            None => 0,
        }
    }

    /// Whether a frame is begun and not written to its end.
    pub(super) fn is_busy(&self) -> bool {
        self.frame.is_some()
    }

    /// Whether the payload of the frame that is being written is outside of the process.
    pub(super) fn is_piped(&self) -> bool {
        matches!(self.frame, Some(Frame::Piped(..)))
    }

    /// Queues a control frame; only while no frame is being written.
    pub(super) fn push_control(&mut self, bytes: Vec<u8>) {
        debug_assert!(!self.is_busy());
        self.start = 0;
        self.end = bytes.len();
        self.frame = Some(Frame::Control(bytes));
    }

    /// Makes one frame of data of one read from the host, as the client leg wants it; only while
    /// no frame is being written.
    ///
    /// Returns the length of its payload, `0` at the end of the host's stream.
    pub(super) fn poll_fill(
        &mut self,
        context: &mut Context<'_>,
        host: &mut impl HostLeg,
        client: &impl ClientLeg,
    ) -> Poll<io::Result<usize>> {
        debug_assert!(!self.is_busy());
        let most = match client.splice_from() {
            None => MAX_READ,
            // A longer message shows by filling this.
            Some(least) if self.last < least => least.min(MAX_READ),
            Some(_) => match Pipe::take() {
                Ok(pipe) => return self.poll_fill_pipe(context, host, pipe),
                // Without descriptors for a pipe bytes still move.
                Err(_) => MAX_READ,
            },
        };
        let layout = client.layout();
        let mut buffer = Buffer::take();
        let (mut room, count) = layout.room(&mut buffer, HEADER, most);
        let payload = ready!(host.poll_read_room(context, &mut room[..count]))?;
        self.last = payload;
        if payload > 0 {
            let header = Header::of(self.framing, payload);
            // Header and payload stand side by side: one record, one write.
            self.start = HEADER - header.len;
            self.end = HEADER + payload;
            buffer[layout.prefix + self.start..][..header.len].copy_from_slice(header.bytes());
            self.protected = false;
            self.frame = Some(Frame::Data(buffer));
        }
        Poll::Ready(Ok(payload))
    }

    fn poll_fill_pipe(
        &mut self,
        context: &mut Context<'_>,
        host: &mut impl HostLeg,
        mut pipe: Pipe,
    ) -> Poll<io::Result<usize>> {
        let payload = ready!(host.poll_read_piped(context, &mut pipe, MAX_READ))?;
        self.last = payload;
        if payload > 0 {
            let header = Header::of(self.framing, payload);
            self.start = 0;
            self.end = header.len + payload;
            self.frame = Some(Frame::Piped(header, pipe));
        }
        Poll::Ready(Ok(payload))
    }

    /// Writes the frame to its end and flushes; `Ready` once nothing is left.
    ///
    /// Calls `progress` after each write that moved bytes.
    pub(super) fn poll_drain(
        &mut self,
        context: &mut Context<'_>,
        client: &mut impl ClientLeg,
        mut progress: impl FnMut(),
    ) -> Poll<io::Result<()>> {
        if let Some(Frame::Data(buffer)) = &mut self.frame
            && !self.protected
        {
            let len = self.end - self.start;
            let sent = ready!(client.poll_protect(context, buffer, self.start, len))?;
            (self.start, self.end) = (sent.start, sent.end);
            self.protected = true;
        }
        while let Some(frame) = &mut self.frame {
            let written = match frame {
                Frame::Data(buffer) => client.poll_send(context, &buffer[self.start..self.end]),
                Frame::Piped(header, _) if self.start < header.len => {
                    client.poll_send_header(context, &header.bytes()[self.start..])
                }
                Frame::Piped(_, pipe) => client.poll_send_piped(context, pipe),
                Frame::Control(bytes) => {
                    Pin::new(&mut *client).poll_write(context, &bytes[self.start..self.end])
                }
            };
            let len = ready!(written)?;
            if len == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            progress();
            self.unflushed = true;
            self.start += len;
            if self.start == self.end {
                self.frame = None;
            }
        }
        if self.unflushed {
            ready!(Pin::new(client).poll_flush(context))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Drops what could not be written.
    pub(super) fn discard(&mut self) {
        self.frame = None;
        self.unflushed = false;
    }
}
