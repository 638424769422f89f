//! The WebSocket frames (RFC 6455) of a client that costs as little as possible: one masked
//! frame a message, frames of the server read where they lie.

use anyhow::{Result, bail, ensure};

const FIN: u8 = 0x80;
const MASKED: u8 = 0x80;
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
/// Lengths that mean that two or eight bytes with the length follow.
const LENGTH_16: u8 = 126;
const LENGTH_64: u8 = 127;
/// The masking key; any key costs the peer the same.
const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
const LONGEST_HEADER: usize = 10;

/// Puts one binary message with this payload into `out`, replacing what is there.
pub(crate) fn encode(payload: &[u8], out: &mut Vec<u8>) {
    out.clear();
    out.push(FIN | BINARY);
    let length = payload.len();
    if let Ok(short @ ..LENGTH_16) = u8::try_from(length) {
        out.push(MASKED | short);
    } else if let Ok(medium) = u16::try_from(length) {
        out.push(MASKED | LENGTH_16);
        out.extend_from_slice(&medium.to_be_bytes());
    } else {
        out.push(MASKED | LENGTH_64);
        out.extend_from_slice(&(length as u64).to_be_bytes());
    }
    out.extend_from_slice(&KEY);
    let start = out.len();
    out.extend_from_slice(payload);
    mask(&mut out[start..]);
}

fn mask(payload: &mut [u8]) {
    const WIDE: u64 = u32::from_ne_bytes(KEY) as u64;
    let mut words = payload.chunks_exact_mut(8);
    for word in &mut words {
        let mut value = [0; 8];
        value.copy_from_slice(word);
        let masked = u64::from_ne_bytes(value) ^ (WIDE | WIDE << 32);
        word.copy_from_slice(&masked.to_ne_bytes());
    }
    for (byte, key) in words.into_remainder().iter_mut().zip(KEY.iter().cycle()) {
        *byte ^= key;
    }
}

/// Takes a server's frames apart, whatever pieces they come in.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    header: [u8; LONGEST_HEADER],
    /// Bytes of the header that came.
    came: usize,
    /// Bytes of the frame's payload still to come.
    remaining: u64,
    is_control: bool,
}

impl Decoder {
    /// The next piece of a message's payload in `bytes`, which is advanced behind it; `None`
    /// when all of `bytes` was read.
    pub(crate) fn next<'a>(&mut self, bytes: &mut &'a [u8]) -> Result<Option<&'a [u8]>> {
        while !bytes.is_empty() {
            if self.remaining == 0 {
                self.read_header(bytes)?;
                continue;
            }
            let length = usize::try_from(self.remaining)
                .unwrap_or(usize::MAX)
                .min(bytes.len());
            let (piece, rest) = bytes.split_at(length);
            *bytes = rest;
            self.remaining -= length as u64;
            if !self.is_control {
                return Ok(Some(piece));
            }
        }
        Ok(None)
    }

    fn read_header(&mut self, bytes: &mut &[u8]) -> Result<()> {
        while let Some((byte, rest)) = bytes.split_first() {
            *bytes = rest;
            self.header[self.came] = *byte;
            self.came += 1;
            if self.came == header_length(self.header[1], self.came) {
                self.came = 0;
                return self.begin_frame();
            }
        }
        Ok(())
    }

    fn begin_frame(&mut self) -> Result<()> {
        let [first, second, ref long @ ..] = self.header;
        ensure!(second & MASKED == 0, "a masked frame from a server");
        ensure!(first & 0x70 == 0, "a frame with reserved bits");
        if first & 0xf == CLOSE {
            bail!("the peer closed the WebSocket");
        }
        self.is_control = first & CLOSE != 0;
        self.remaining = match second {
            LENGTH_16 => u64::from(u16::from_be_bytes([long[0], long[1]])),
            LENGTH_64 => u64::from_be_bytes(*long),
            short => u64::from(short),
        };
        Ok(())
    }
}

fn header_length(second: u8, came: usize) -> usize {
    match second & !MASKED {
        _ if came < 2 => 2,
        LENGTH_16 => 4,
        LENGTH_64 => LONGEST_HEADER,
        _ => 2,
    }
}

#[cfg(test)]
mod tests {
    use testkit::ws::{Frame, Opcode};

    use super::*;

    fn server_frame(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
        let mut frame = Frame::new(opcode, payload);
        frame.mask = None;
        frame.encode()
    }

    #[test]
    fn messages_are_what_another_codec_reads() {
        let mut out = Vec::new();
        for length in [0, 1, 42, 64, 125, 126, 4096, 65_535, 65_536] {
            let payload: Vec<u8> = (0..=u8::MAX).cycle().take(length).collect();
            encode(&payload, &mut out);
            let (frame, used) = Frame::decode(&out).unwrap().unwrap();
            assert_eq!(used, out.len());
            assert_eq!((frame.fin, frame.opcode), (true, Opcode::BINARY));
            assert_eq!(frame.mask, Some(KEY));
            assert!(frame.payload == payload, "{length}");
        }
    }

    #[test]
    fn frames_are_read_in_any_pieces() {
        let mut wire = Vec::new();
        let mut sent = Vec::new();
        for length in [0, 5, 125, 126, 300, 70_000] {
            let payload: Vec<u8> = (0..=u8::MAX).cycle().take(length).collect();
            wire.extend(server_frame(Opcode::BINARY, &payload));
            wire.extend(server_frame(Opcode::PING, b"ignored"));
            sent.extend(payload);
        }
        for size in [1, 2, 3, 7, 4096, wire.len()] {
            let mut decoder = Decoder::default();
            let mut received = Vec::new();
            for mut piece in wire.chunks(size) {
                while let Some(payload) = decoder.next(&mut piece).unwrap() {
                    received.extend_from_slice(payload);
                }
            }
            assert!(received == sent, "pieces of {size}");
        }
    }

    #[test]
    fn what_a_server_must_not_send_is_refused() {
        let refused = |wire: &[u8]| Decoder::default().next(&mut &*wire).is_err();
        assert!(refused(&Frame::binary(*b"masked").encode()));
        assert!(refused(&[0xc2, 0]));
        assert!(refused(&server_frame(Opcode::CLOSE, &[3, 232])));
    }
}
