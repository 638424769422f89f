//! A WebSocket client that sends exact bytes and hides nothing of what comes.

use ::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use anyhow::{Context, Result, bail, ensure};
use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};

use crate::http::head_length;
use crate::net::{Connection, Endpoint, StreamEnd, within};

/// The longest head or frame that is read, in bytes.
const LONGEST: usize = 64 << 20;

/// What a frame is, as numbered in RFC 6455.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opcode(pub u8);

#[expect(missing_docs, reason = "the names are those of RFC 6455")]
impl Opcode {
    pub const CONTINUATION: Self = Self(0x0);
    pub const TEXT: Self = Self(0x1);
    pub const BINARY: Self = Self(0x2);
    pub const CLOSE: Self = Self(0x8);
    pub const PING: Self = Self(0x9);
    pub const PONG: Self = Self(0xA);
}

/// A frame as it was on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The last frame of its message.
    pub fin: bool,
    /// The three reserved bits.
    pub rsv: u8,
    /// What it is.
    pub opcode: Opcode,
    /// Its masking key; servers must not have one.
    pub mask: Option<[u8; 4]>,
    /// Its payload, unmasked.
    pub payload: Vec<u8>,
}

impl Frame {
    /// A masked frame of one message, as clients send them.
    pub fn new(opcode: Opcode, payload: impl Into<Vec<u8>>) -> Self {
        Self {
            fin: true,
            rsv: 0,
            opcode,
            mask: Some([0x37, 0xfa, 0x21, 0x3d]),
            payload: payload.into(),
        }
    }

    /// A binary frame.
    pub fn binary(payload: impl Into<Vec<u8>>) -> Self {
        Self::new(Opcode::BINARY, payload)
    }

    /// A Close frame with this code.
    pub fn close(code: u16) -> Self {
        Self::new(Opcode::CLOSE, code.to_be_bytes())
    }

    /// The same, not the last of its message.
    #[must_use]
    pub fn unfinished(mut self) -> Self {
        self.fin = false;
        self
    }

    /// The code of a Close frame; `None` when it has none.
    pub fn close_code(&self) -> Option<u16> {
        self.payload.first_chunk().copied().map(u16::from_be_bytes)
    }

    /// The bytes on the wire; the length takes the shortest form.
    pub fn encode(&self) -> Vec<u8> {
        let masked = if self.mask.is_some() { 0x80 } else { 0 };
        let mut bytes = vec![u8::from(self.fin) << 7 | (self.rsv & 7) << 4 | (self.opcode.0 & 15)];
        let length = self.payload.len();
        if let Ok(length @ ..126) = u8::try_from(length) {
            bytes.push(masked + length);
        } else if let Ok(length) = u16::try_from(length) {
            bytes.push(masked + 126);
            bytes.extend(length.to_be_bytes());
        } else {
            bytes.push(masked + 127);
            bytes.extend((length as u64).to_be_bytes());
        }
        bytes.extend(self.mask.iter().flatten());
        let start = bytes.len();
        bytes.extend(&self.payload);
        if let Some(mask) = self.mask {
            apply_mask(mask, &mut bytes[start..]);
        }
        bytes
    }

    /// The frame at the start of `bytes` and its length there; `None` while it is not whole. A
    /// length that does not take the shortest form is an error.
    pub fn decode(bytes: &[u8]) -> Result<Option<(Self, usize)>> {
        let [first, second, rest @ ..] = bytes else {
            return Ok(None);
        };
        let (length, rest) = match second & 0x7f {
            126 => match rest.split_first_chunk() {
                Some((length, rest)) => (u64::from(u16::from_be_bytes(*length)), rest),
                None => return Ok(None),
            },
            127 => match rest.split_first_chunk() {
                Some((length, rest)) => (u64::from_be_bytes(*length), rest),
                None => return Ok(None),
            },
            short => (u64::from(short), rest),
        };
        let shortest = match second & 0x7f {
            126 => 126,
            127 => 0x1_0000,
            _ => 0,
        };
        ensure!(
            length >= shortest,
            "a length of {length} in too long a form"
        );
        let length = usize::try_from(length)?;
        ensure!(length <= LONGEST, "a frame of {length} bytes");
        let (mask, rest) = if second & 0x80 == 0 {
            (None, rest)
        } else {
            match rest.split_first_chunk() {
                Some((mask, rest)) => (Some(*mask), rest),
                None => return Ok(None),
            }
        };
        let Some((payload, rest)) = rest.split_at_checked(length) else {
            return Ok(None);
        };
        let mut payload = payload.to_vec();
        if let Some(mask) = mask {
            apply_mask(mask, &mut payload);
        }
        let frame = Self {
            fin: first & 0x80 != 0,
            rsv: first >> 4 & 7,
            opcode: Opcode(first & 15),
            mask,
            payload,
        };
        Ok(Some((frame, bytes.len() - rest.len())))
    }
}

fn apply_mask(mask: [u8; 4], payload: &mut [u8]) {
    for (byte, key) in payload.iter_mut().zip(mask.into_iter().cycle()) {
        *byte ^= key;
    }
}

/// A correct handshake of the flexVDI client with this target and `Host`; further lines, each
/// with its line end, may be given.
pub fn handshake_request(target: &str, host: &str, more: &str) -> String {
    format!(
        "GET {target} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{more}\r\n"
    )
}

/// A connection, or half of one, on which the test writes and reads every byte itself.
#[derive(Debug)]
pub struct RawClient<S = Connection> {
    connection: S,
    /// What was read and not yet taken.
    buffer: BytesMut,
}

/// The head of an answer.
#[derive(Clone, Debug)]
pub struct Head {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its bytes, the empty line included.
    pub raw: Vec<u8>,
}

impl RawClient {
    /// Connects and sends nothing yet.
    pub async fn connect(endpoint: &Endpoint) -> Result<Self> {
        Ok(Self::over(endpoint.connect().await?))
    }

    /// Connects, makes the handshake of the flexVDI client with this target and returns when the
    /// answer was 101.
    pub async fn open(endpoint: &Endpoint, target: &str) -> Result<Self> {
        let mut client = Self::connect(endpoint).await?;
        let request = handshake_request(target, &endpoint.addr().to_string(), "");
        client.send_raw(request.as_bytes()).await?;
        let head = client.read_head().await?;
        ensure!(
            head.status == StatusCode::SWITCHING_PROTOCOLS,
            "the handshake was answered with {}",
            head.status
        );
        Ok(client)
    }

    /// The connection, of which nothing may have been read beyond what was taken.
    pub fn into_connection(self) -> Result<Connection> {
        ensure!(self.buffer.is_empty(), "{} bytes unread", self.buffer.len());
        Ok(self.connection)
    }

    /// Ends the connection by RST.
    pub fn reset(self) -> Result<()> {
        self.connection.reset().context("resetting a connection")
    }
}

impl<S> RawClient<S> {
    /// Takes over a connection.
    pub fn over(connection: S) -> Self {
        Self {
            connection,
            buffer: BytesMut::new(),
        }
    }

    /// The connection below.
    pub fn connection(&self) -> &S {
        &self.connection
    }

    /// The same, to be changed.
    pub fn connection_mut(&mut self) -> &mut S {
        &mut self.connection
    }
}

impl<S: AsyncRead + AsyncWrite> RawClient<S> {
    /// Halves that read and write at the same time.
    pub fn split(self) -> (RawClient<ReadHalf<S>>, RawClient<WriteHalf<S>>) {
        let (reader, writer) = tokio::io::split(self.connection);
        let reader = RawClient {
            connection: reader,
            buffer: self.buffer,
        };
        (reader, RawClient::over(writer))
    }
}

impl<S: AsyncWrite + Unpin> RawClient<S> {
    /// Sends exactly these bytes.
    pub async fn send_raw(&mut self, bytes: &[u8]) -> Result<()> {
        within("sending", async {
            self.connection.write_all(bytes).await?;
            self.connection.flush().await
        })
        .await?
        .context("sending")
    }

    /// Sends this frame, right or wrong.
    pub async fn send_frame(&mut self, frame: &Frame) -> Result<()> {
        self.send_raw(&frame.encode()).await
    }

    /// Ends the sending direction: `close_notify` on TLS, and FIN.
    pub async fn shutdown(&mut self) -> Result<()> {
        within("shutdown", self.connection.shutdown())
            .await?
            .context("shutdown")
    }
}

impl<S: AsyncRead + Unpin> RawClient<S> {
    /// Reads the head of an answer and not a byte more.
    pub async fn read_head(&mut self) -> Result<Head> {
        let length = loop {
            if let Some(length) = head_length(&self.buffer) {
                break length;
            }
            self.fill("head of an answer").await?;
        };
        parse_head(&self.buffer.split_to(length))
    }

    /// Reads exactly this many bytes.
    pub async fn read_exact(&mut self, length: usize) -> Result<Vec<u8>> {
        while self.buffer.len() < length {
            self.fill("bytes").await?;
        }
        Ok(self.buffer.split_to(length).to_vec())
    }

    /// Reads the next frame.
    pub async fn read_frame(&mut self) -> Result<Frame> {
        loop {
            if let Some((frame, length)) = Frame::decode(&self.buffer)? {
                self.buffer.advance(length);
                return Ok(frame);
            }
            self.fill("frame").await?;
        }
    }

    /// Reads the next frame, which must be a Close frame with this code.
    pub async fn expect_close(&mut self, code: u16) -> Result<Frame> {
        let frame = self.read_frame().await?;
        ensure!(
            frame.opcode == Opcode::CLOSE,
            "a frame of kind {:#x} and {} bytes where Close {code} was due",
            frame.opcode.0,
            frame.payload.len()
        );
        ensure!(
            frame.close_code() == Some(code),
            "Close {:?} where Close {code} was due",
            frame.close_code()
        );
        Ok(frame)
    }

    /// Reads until the peer ends its stream; anything but the end is an error.
    pub async fn expect_end(&mut self) -> Result<StreamEnd> {
        let (rest, end) = self.read_to_end().await?;
        ensure!(
            rest.is_empty(),
            "{} bytes where the end was due",
            rest.len()
        );
        Ok(end)
    }

    /// Reads all that comes until the peer ends its stream.
    pub async fn read_to_end(&mut self) -> Result<(Vec<u8>, StreamEnd)> {
        let mut bytes = self.buffer.split().to_vec();
        let (more, end) = crate::net::read_to_end(&mut self.connection).await?;
        bytes.extend(more);
        Ok((bytes, end))
    }

    async fn fill(&mut self, awaited: &str) -> Result<()> {
        ensure!(
            self.buffer.len() <= LONGEST,
            "too many bytes for a {awaited}"
        );
        let length = within(awaited, self.connection.read_buf(&mut self.buffer))
            .await?
            .with_context(|| format!("reading a {awaited}"))?;
        if length == 0 {
            bail!(
                "the stream ended where a {awaited} was due, after {} bytes of it",
                self.buffer.len()
            );
        }
        Ok(())
    }
}

fn parse_head(raw: &[u8]) -> Result<Head> {
    let text = std::str::from_utf8(raw).context("the head of an answer")?;
    let mut lines = text.trim_end().split("\r\n");
    let status_line = lines.next().unwrap_or_default();
    let status = status_line
        .strip_prefix("HTTP/1.1 ")
        .or_else(|| status_line.strip_prefix("HTTP/1.0 "))
        .and_then(|rest| rest.get(..3))
        .with_context(|| format!("no status line: {status_line:?}"))?;
    let mut headers = HeaderMap::new();
    for line in lines {
        let (name, value) = line
            .split_once(':')
            .with_context(|| format!("no header: {line:?}"))?;
        headers.append(
            HeaderName::from_bytes(name.as_bytes())?,
            HeaderValue::from_str(value.trim())?,
        );
    }
    Ok(Head {
        status: status.parse()?,
        headers,
        raw: raw.to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_the_wire() {
        for length in [0, 1, 125, 126, 65_535, 65_536, 200_000] {
            for mask in [None, Some([1, 2, 3, 4])] {
                let frame = Frame {
                    fin: length % 2 == 0,
                    rsv: 5,
                    opcode: Opcode::PING,
                    mask,
                    payload: crate::pattern::DOWNLINK.bytes(0, length),
                };
                let mut bytes = frame.encode();
                let whole = bytes.len();
                assert_eq!(Frame::decode(&bytes[..whole - 1]).unwrap(), None);
                bytes.push(0);
                assert_eq!(Frame::decode(&bytes).unwrap(), Some((frame, whole)));
            }
        }
    }

    #[test]
    fn lengths_must_take_the_shortest_form() {
        let longest_short = [0x82, 126, 0, 125];
        assert!(Frame::decode(&longest_short).is_err());
        let longest_medium = [0x82, 127, 0, 0, 0, 0, 0, 0, 0xff, 0xff];
        assert!(Frame::decode(&longest_medium).is_err());
    }

    #[test]
    fn heads_are_parsed() {
        let head = parse_head(b"HTTP/1.1 403 Forbidden\r\nA: 1\r\na:2\r\n\r\n").unwrap();
        assert_eq!(head.status, StatusCode::FORBIDDEN);
        assert_eq!(head.headers.get_all("a").iter().count(), 2);
        assert!(parse_head(b"SSH-2.0\r\n\r\n").is_err());
    }
}
