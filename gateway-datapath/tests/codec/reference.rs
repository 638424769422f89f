//! What tungstenite makes of a client's stream.

use std::io::{Cursor, Read, Write};

use gateway_datapath::websocket::decode::Event;
use tungstenite::Message;
use tungstenite::error::{Error, ProtocolError};
use tungstenite::protocol::{Role, WebSocket, WebSocketConfig};

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Kind {
    Ping(Vec<u8>),
    Pong,
}

pub(crate) fn kind(event: &Event) -> Kind {
    match event {
        Event::Ping(payload) => Kind::Ping(payload.to_vec()),
        _ => Kind::Pong,
    }
}

/// What tungstenite made of a client's stream.
#[derive(Debug)]
pub(crate) struct Reference {
    /// Of whole messages.
    pub(crate) payload: Vec<u8>,
    /// All but Close.
    pub(crate) events: Vec<Kind>,
    pub(crate) end: End,
}

#[derive(Debug)]
pub(crate) enum End {
    Violation(ProtocolError),
    Closed,
    /// The last frame is not whole.
    Incomplete,
    /// It has limits and rules for text that do not concern a tunnel of binary messages.
    NoOpinion,
}

pub(crate) fn reference(bytes: &[u8]) -> Reference {
    let config = WebSocketConfig::default().max_frame_size(Some(1 << 20));
    let mut socket = WebSocket::from_raw_socket(Peer::new(bytes), Role::Server, Some(config));
    let mut reference = Reference {
        payload: Vec::new(),
        events: Vec::new(),
        end: End::NoOpinion,
    };
    loop {
        reference.end = match socket.read() {
            Ok(Message::Binary(payload)) => {
                reference.payload.extend_from_slice(&payload);
                continue;
            }
            Ok(Message::Ping(payload)) => {
                reference.events.push(Kind::Ping(payload.to_vec()));
                continue;
            }
            Ok(Message::Pong(_)) => {
                reference.events.push(Kind::Pong);
                continue;
            }
            Ok(Message::Close(_)) => End::Closed,
            Err(Error::Protocol(ProtocolError::ResetWithoutClosingHandshake)) => End::Incomplete,
            Err(Error::Protocol(error)) => End::Violation(error),
            Ok(_) | Err(_) => End::NoOpinion,
        };
        return reference;
    }
}

/// A peer that has sent these bytes and nothing more, and takes everything.
pub(crate) struct Peer<'a>(Cursor<&'a [u8]>);

impl<'a> Peer<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(Cursor::new(bytes))
    }
}

impl Read for Peer<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Peer<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
