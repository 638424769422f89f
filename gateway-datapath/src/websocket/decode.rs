//! Incremental decoder of the frames that a client sends (RFC 6455, section 5).
//!
//! The payload of data frames is unmasked and moved to the front of the caller's buffer as it
//! comes, whatever the length of the frame: nothing is collected but the few bytes of a header
//! and of a control frame.

use std::ops::Deref;

use serde::{Deserialize, Serialize};

use super::close::{ClientClose, CloseCode};
use super::mask;
use crate::encoded::Bytes;

const FIN: u8 = 0x80;
const RSV: u8 = 0x70;
const MASKED: u8 = 0x80;
const MAX_CONTROL: usize = 125;
/// Two fixed bytes, eight of length, four of mask.
const MAX_HEADER: usize = 14;

/// What a client may interleave with its data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A Ping, to be answered by a Pong with the same payload.
    Ping(ControlPayload),
    /// A Pong; nothing is to be done but to know that the client is there.
    Pong,
    /// The client's Close: its last frame.
    Close(ClientClose),
}

/// Why a client's stream cannot be decoded further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A reserved bit without an extension that gives it a meaning.
    #[error("reserved bits set")]
    ReservedBits,
    /// Clients must mask.
    #[error("frame without mask")]
    Unmasked,
    /// An opcode that RFC 6455 reserves.
    #[error("reserved opcode")]
    ReservedOpcode,
    /// A control frame above 125 bytes, or in fragments.
    #[error("control frame too long or fragmented")]
    BadControl,
    /// A 64-bit length with its top bit set.
    #[error("length out of range")]
    BadLength,
    /// A continuation where none is open, or a new message inside another.
    #[error("fragments out of order")]
    BadFragment,
    /// A Close with a code or length that must not occur.
    #[error("malformed Close")]
    BadClose,
    /// A Close whose reason is not UTF-8.
    #[error("Close with a reason that is not UTF-8")]
    BadCloseReason,
    /// Spice travels in binary messages only.
    #[error("text message")]
    Text,
}

impl Violation {
    /// The code to close with.
    pub fn close_code(self) -> CloseCode {
        match self {
            Self::Text => CloseCode::UnsupportedData,
            Self::BadCloseReason => CloseCode::InvalidPayload,
            _ => CloseCode::ProtocolError,
        }
    }
}

/// The payload of a control frame, at most 125 bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct ControlPayload {
    len: usize,
    bytes: [u8; MAX_CONTROL],
}

impl ControlPayload {
    const EMPTY: Self = Self {
        len: 0,
        bytes: [0; MAX_CONTROL],
    };

    /// `None`: it is too long.
    pub fn new(bytes: &[u8]) -> Option<Self> {
        let mut payload = Self::EMPTY;
        payload.bytes.get_mut(..bytes.len())?.copy_from_slice(bytes);
        payload.len = bytes.len();
        Some(payload)
    }

    fn push(&mut self, bytes: &[u8]) {
        let end = self.len + bytes.len();
        self.bytes[self.len..end].copy_from_slice(bytes);
        self.len = end;
    }
}

impl Deref for ControlPayload {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl std::fmt::Debug for ControlPayload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ControlPayload({} B)", self.len)
    }
}

/// Positions in a buffer that is decoded in place: `[0, write)` is payload, `[read, end)` is not
/// yet decoded; `write <= read <= end`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// End of the decoded payload.
    pub write: usize,
    /// First byte that is not decoded.
    pub read: usize,
    /// End of what was received.
    pub end: usize,
}

/// Where in the client's stream of frames the next byte stands.
#[derive(Debug)]
pub struct Decoder {
    state: State,
    /// A message was begun and its last fragment has not come.
    fragmented: bool,
}

#[derive(Debug)]
enum State {
    Header {
        bytes: [u8; MAX_HEADER],
        have: usize,
    },
    Data(Payload),
    Control {
        opcode: u8,
        payload: Payload,
        content: Box<ControlPayload>,
    },
    Closed,
}

const START: State = State::Header {
    bytes: [0; MAX_HEADER],
    have: 0,
};

/// A [`Decoder`] written down.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DecoderState {
    fragmented: bool,
    at: At,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
enum At {
    Header(Bytes),
    Data(Payload),
    Control {
        opcode: u8,
        payload: Payload,
        content: Bytes,
    },
    Closed,
}

/// What is to come of a frame's payload.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Payload {
    remaining: u64,
    taken: u64,
    mask: [u8; 4],
}

impl Payload {
    /// `None`: no frame has a payload like that, as its length has 63 bits.
    fn sound(self) -> Option<Self> {
        let length = self.remaining.checked_add(self.taken)?;
        (length >> 63 == 0).then_some(self)
    }

    /// Unmasks what there is of the payload at the start of `bytes`; returns its length.
    fn take(&mut self, bytes: &mut [u8]) -> usize {
        let len = usize::try_from(self.remaining).map_or(bytes.len(), |r| r.min(bytes.len()));
        mask::apply(&mut bytes[..len], self.mask, self.taken);
        self.remaining -= len as u64;
        self.taken += len as u64;
        len
    }
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Decoder {
    /// A decoder at the first byte behind the handshake.
    pub const fn new() -> Self {
        Self {
            state: START,
            fragmented: false,
        }
    }

    /// Writes it down.
    pub fn state(&self) -> DecoderState {
        let at = match &self.state {
            State::Header { bytes, have } => At::Header(bytes[..*have].into()),
            State::Data(payload) => At::Data(*payload),
            State::Control {
                opcode,
                payload,
                content,
            } => At::Control {
                opcode: *opcode,
                payload: *payload,
                content: content[..].into(),
            },
            State::Closed => At::Closed,
        };
        DecoderState {
            fragmented: self.fragmented,
            at,
        }
    }

    /// Goes on with what was written down; `None`: that state does not occur.
    pub fn resume(state: &DecoderState) -> Option<Self> {
        let at = match &state.at {
            At::Header(known) => {
                // Only a beginning is written down: a whole header has become another state.
                if !matches!(Header::parse(known), Ok(None)) {
                    return None;
                }
                let mut bytes = [0; MAX_HEADER];
                bytes.get_mut(..known.len())?.copy_from_slice(known);
                let have = known.len();
                State::Header { bytes, have }
            }
            At::Data(payload) => State::Data(payload.sound()?),
            At::Control {
                opcode,
                payload,
                content,
            } => {
                let payload = payload.sound()?;
                let is_control = (0x8..=0xa).contains(opcode);
                let fits = payload.remaining + payload.taken <= MAX_CONTROL as u64;
                if !is_control || !fits || payload.taken != content.len() as u64 {
                    return None;
                }
                State::Control {
                    opcode: *opcode,
                    payload,
                    content: Box::new(ControlPayload::new(content)?),
                }
            }
            At::Closed => State::Closed,
        };
        Some(Self {
            state: at,
            fragmented: state.fragmented,
        })
    }

    /// Decodes `buffer` from `cursor.read` on, until an event or `cursor.end`.
    ///
    /// Payload of data frames is appended at `cursor.write`. Behind a Close everything is
    /// dropped. After an error the decoder must not be used again.
    pub fn decode(
        &mut self,
        buffer: &mut [u8],
        cursor: &mut Cursor,
    ) -> Result<Option<Event>, Violation> {
        loop {
            let input = &mut buffer[cursor.read..cursor.end];
            match &mut self.state {
                State::Header { bytes, have } => {
                    let filled = *have;
                    let len = input.len().min(MAX_HEADER - filled);
                    bytes[filled..filled + len].copy_from_slice(&input[..len]);
                    let Some(header) = Header::parse(&bytes[..filled + len])? else {
                        cursor.read += len;
                        *have += len;
                        return Ok(None);
                    };
                    cursor.read += header.len - filled;
                    self.state = self.begin(&header)?;
                }
                State::Data(payload) => {
                    if payload.remaining == 0 {
                        self.state = START;
                        continue;
                    }
                    let len = payload.take(input);
                    if cursor.write != cursor.read {
                        buffer.copy_within(cursor.read..cursor.read + len, cursor.write);
                    }
                    cursor.read += len;
                    cursor.write += len;
                    if cursor.read == cursor.end {
                        return Ok(None);
                    }
                }
                State::Control {
                    opcode,
                    payload,
                    content,
                } => {
                    let len = payload.take(input);
                    content.push(&input[..len]);
                    cursor.read += len;
                    if payload.remaining > 0 {
                        return Ok(None);
                    }
                    let event = control_event(*opcode, content)?;
                    self.state = match event {
                        Event::Close(_) => State::Closed,
                        _ => START,
                    };
                    return Ok(Some(event));
                }
                State::Closed => {
                    cursor.read = cursor.end;
                    return Ok(None);
                }
            }
            if cursor.read == cursor.end && self.needs_input() {
                return Ok(None);
            }
        }
    }

    fn needs_input(&self) -> bool {
        match &self.state {
            State::Header { .. } => true,
            State::Data(payload) | State::Control { payload, .. } => payload.remaining > 0,
            State::Closed => false,
        }
    }

    /// Checks a header against the rules and the fragments before it.
    fn begin(&mut self, header: &Header) -> Result<State, Violation> {
        let payload = Payload {
            remaining: header.payload,
            taken: 0,
            mask: header.mask,
        };
        match header.opcode {
            0x0 if self.fragmented => self.fragmented = !header.fin,
            0x1 | 0x2 if self.fragmented => return Err(Violation::BadFragment),
            0x0 => return Err(Violation::BadFragment),
            0x1 => return Err(Violation::Text),
            0x2 => self.fragmented = !header.fin,
            0x8..=0xa => {
                if !header.fin || header.payload > MAX_CONTROL as u64 {
                    return Err(Violation::BadControl);
                }
                return Ok(State::Control {
                    opcode: header.opcode,
                    payload,
                    content: Box::new(ControlPayload::EMPTY),
                });
            }
            _ => return Err(Violation::ReservedOpcode),
        }
        Ok(State::Data(payload))
    }
}

fn control_event(opcode: u8, content: &ControlPayload) -> Result<Event, Violation> {
    match opcode {
        0x9 => Ok(Event::Ping(content.clone())),
        0xa => Ok(Event::Pong),
        _ => ClientClose::parse(content)
            .map(Event::Close)
            .map_err(|code| match code {
                CloseCode::InvalidPayload => Violation::BadCloseReason,
                _ => Violation::BadClose,
            }),
    }
}

struct Header {
    fin: bool,
    opcode: u8,
    payload: u64,
    mask: [u8; 4],
    /// Length of the header itself.
    len: usize,
}

impl Header {
    /// `None`: more bytes are needed. What the first two bytes forbid is refused at once.
    fn parse(bytes: &[u8]) -> Result<Option<Self>, Violation> {
        let Some(&first) = bytes.first() else {
            return Ok(None);
        };
        if first & RSV != 0 {
            return Err(Violation::ReservedBits);
        }
        let Some(&second) = bytes.get(1) else {
            return Ok(None);
        };
        if second & MASKED == 0 {
            return Err(Violation::Unmasked);
        }
        let extended = match second & !MASKED {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let Some(length) = bytes.get(2..2 + extended) else {
            return Ok(None);
        };
        let payload = if extended == 0 {
            u64::from(second & !MASKED)
        } else {
            length
                .iter()
                .fold(0, |sum, &byte| sum << 8 | u64::from(byte))
        };
        if payload >> 63 != 0 {
            return Err(Violation::BadLength);
        }
        let Some(mask) = bytes
            .get(2 + extended..)
            .and_then(|rest| rest.first_chunk::<4>())
        else {
            return Ok(None);
        };
        Ok(Some(Self {
            fin: first & FIN != 0,
            opcode: first & 0x0f,
            payload,
            mask: *mask,
            len: 2 + extended + 4,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(at: At) -> DecoderState {
        DecoderState {
            fragmented: false,
            at,
        }
    }

    fn payload(remaining: u64, taken: u64) -> Payload {
        Payload {
            remaining,
            taken,
            mask: [0; 4],
        }
    }

    #[test]
    fn a_state_that_does_not_occur_is_refused() {
        let header = |bytes: &[u8]| At::Header(bytes.into());
        let control = |opcode, remaining, taken, content: &[u8]| At::Control {
            opcode,
            payload: payload(remaining, taken),
            content: content.into(),
        };
        let longest = [0x82, 0xff, 0, 0, 0, 0, 0, 0, 0, 1, 1, 2, 3];
        for wrong in [
            header(&[longest.as_slice(), &[4]].concat()),
            header(&[0x82; 15]),
            header(&[0x82; 14]),
            header(&[0x82, 0x85, 1, 2, 3, 4]),
            header(&[0xf2]),
            At::Data(payload(u64::MAX, 1)),
            At::Data(payload(1 << 63, 0)),
            control(0x2, 2, 3, b"abc"),
            control(0x9, 123, 3, b"abc"),
            control(0x9, 2, 4, b"abc"),
            control(0x9, 0, 126, &[0; 126]),
            control(0x9, u64::MAX, 1, b"a"),
        ] {
            let state = at(wrong);
            assert!(Decoder::resume(&state).is_none(), "{state:?}");
        }
        for good in [
            header(&longest),
            header(&[]),
            At::Data(payload((1 << 63) - 2, 1)),
            control(0x9, 122, 3, b"abc"),
        ] {
            let mut decoder = Decoder::resume(&at(good)).unwrap();
            let mut bytes = [0; 200];
            let mut cursor = Cursor {
                end: bytes.len(),
                ..Cursor::default()
            };
            // Whatever it makes of them.
            while let Ok(Some(_)) = decoder.decode(&mut bytes, &mut cursor) {}
        }
    }
}
