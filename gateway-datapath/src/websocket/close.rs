//! Close codes and what a client may say with them (RFC 6455, section 7.4).

/// Close codes that the gateway sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum CloseCode {
    /// The host ended the stream.
    Normal = 1000,
    /// The gateway stops, or the client went silent.
    GoingAway = 1001,
    /// The client broke the framing rules.
    ProtocolError = 1002,
    /// The client sent text.
    UnsupportedData = 1003,
    /// The reason in the client's Close is not UTF-8.
    InvalidPayload = 1007,
    /// The client does not speak Spice.
    PolicyViolation = 1008,
    /// The host's connection broke.
    InternalError = 1011,
}

/// A client's Close frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientClose {
    /// The code it gave, if any; echoed in the answer.
    pub code: Option<u16>,
}

impl ClientClose {
    /// Reads the payload of a Close frame; the error is the code to answer with.
    pub(super) fn parse(payload: &[u8]) -> Result<Self, CloseCode> {
        let (code, reason) = match payload {
            [] => return Ok(Self { code: None }),
            [_] => return Err(CloseCode::ProtocolError),
            [high, low, reason @ ..] => (u16::from_be_bytes([*high, *low]), reason),
        };
        // 1004-1006 and 1015 are reserved; 1016-2999 belong to later versions of the protocol.
        if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
            return Err(CloseCode::ProtocolError);
        }
        if std::str::from_utf8(reason).is_err() {
            return Err(CloseCode::InvalidPayload);
        }
        Ok(Self { code: Some(code) })
    }
}
