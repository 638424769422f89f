//! How a client's bytes are framed.

/// What stands around the payload on the client leg.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Framing {
    /// WebSocket frames (RFC 6455, section 5).
    #[default]
    WebSocket,
    /// Nothing: the payload is all there is, as in a tunnel that CONNECT opened (RFC 9110, section
    /// 9.3.6). The end of the stream is all that either side can say besides.
    Raw,
}

impl Framing {
    /// What the client is sent before the end of its stream, given the Close frame that would tell
    /// of the reason.
    pub fn farewell(self, close: Vec<u8>) -> Vec<u8> {
        match self {
            Self::WebSocket => close,
            Self::Raw => Vec::new(),
        }
    }
}
