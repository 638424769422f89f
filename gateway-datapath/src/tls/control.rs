//! What a peer sends besides data once the handshake is over: alerts, key updates, a server's
//! session tickets and, with TLS 1.2, the wish for another handshake (RFC 8446, sections 4.6, 5.1
//! and 6; RFC 5246, sections 7.2 and 7.4.1).
//!
//! Rules and bounds are those of rustls, but where the RFC names an alert and rustls sends none.

use serde::{Deserialize, Serialize};

use super::record::{Content, RecordError};
use super::role::Role;
use crate::state_error::StateError;

/// How many key updates may come without data between them.
const KEY_UPDATES: u8 = 32;
/// How many warnings a connection bears.
const WARNINGS: u8 = 4;
/// How often another handshake may be asked for.
const RENEGOTIATIONS: u8 = 1;
/// How many records without content may come one after another.
const EMPTY_RECORDS: u8 = 32;
/// Longest handshake message, in bytes behind its header.
const MAX_MESSAGE: usize = 0xffff;
/// Type and length of a handshake message, in bytes.
const MESSAGE_HEADER: usize = 4;

const WARNING: u8 = 1;
const FATAL: u8 = 2;
const CLOSE_NOTIFY: u8 = 0;
const USER_CANCELED: u8 = 90;
const HELLO_REQUEST: u8 = 0;
const CLIENT_HELLO: u8 = 1;
const NEW_SESSION_TICKET: u8 = 4;
const KEY_UPDATE: u8 = 24;

/// What a record means for the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// There is nothing to be done.
    Nothing,
    /// Its content is for whoever reads the stream.
    Data,
    /// The peer will send no more.
    Closed,
    /// The records that follow have the next key.
    KeyUpdate {
        /// Ours is to be changed, too.
        is_requested: bool,
    },
    /// The peer wants another handshake, and is to be told that there is none.
    Renegotiation,
}

/// How far all this has come on a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Control {
    key_updates: u8,
    warnings: u8,
    renegotiations: u8,
    empty_records: u8,
    /// How many bytes of a handshake message have come, and the first of them: no more is
    /// looked at.
    message_len: usize,
    message: [u8; MESSAGE_HEADER + 1],
}

impl Control {
    /// Whether it is one that [`Control::on_record`] makes: it may come from outside.
    pub(crate) fn check(&self) -> Result<(), StateError> {
        let is_sound = self.message_len < MESSAGE_HEADER + MAX_MESSAGE;
        StateError::unless(is_sound, "length of a handshake message")
    }

    /// Says what a record means to our side.
    pub(crate) fn on_record(
        &mut self,
        role: Role,
        is_tls_13: bool,
        content: Content,
        text: &[u8],
    ) -> Result<Event, RecordError> {
        if let (Content::Alert, &[FATAL, alert]) = (content, text)
            && alert != CLOSE_NOTIFY
        {
            return Err(RecordError::Alert(alert));
        }
        if self.message_len > 0 && content != Content::Handshake {
            return Err(RecordError::Unexpected);
        }
        if !text.is_empty() {
            self.empty_records = 0;
        } else if is_tls_13 && content != Content::ApplicationData {
            // RFC 8446, section 5.4
            return Err(RecordError::Unexpected);
        } else {
            count(&mut self.empty_records, EMPTY_RECORDS)?;
        }
        match content {
            Content::ApplicationData => {
                self.key_updates = 0;
                Ok(Event::Data)
            }
            Content::Alert => self.on_alert(is_tls_13, text),
            Content::Handshake => self.on_handshake(role, is_tls_13, text),
        }
    }

    fn on_alert(&mut self, is_tls_13: bool, text: &[u8]) -> Result<Event, RecordError> {
        let &[level, alert] = text else {
            return Err(RecordError::Decode);
        };
        if level != WARNING && level != FATAL {
            return Err(RecordError::IllegalParameter);
        }
        if alert == CLOSE_NOTIFY {
            return Ok(Event::Closed);
        }
        count(&mut self.warnings, WARNINGS)?;
        if is_tls_13 && alert != USER_CANCELED {
            return Err(RecordError::Decode);
        }
        Ok(Event::Nothing)
    }

    /// Takes messages, whole or in fragments.
    fn on_handshake(
        &mut self,
        role: Role,
        is_tls_13: bool,
        mut text: &[u8],
    ) -> Result<Event, RecordError> {
        let mut event = Event::Nothing;
        while !text.is_empty() {
            let wanted = match self.message_body() {
                Some(body) => (MESSAGE_HEADER + body).saturating_sub(self.message_len),
                None => MESSAGE_HEADER - self.message_len,
            };
            let (part, rest) = text.split_at(wanted.min(text.len()));
            let places = self.message.iter_mut().skip(self.message_len);
            for (place, byte) in places.zip(part) {
                *place = *byte;
            }
            self.message_len += part.len();
            text = rest;
            let Some(body) = self.message_body() else {
                continue;
            };
            if body > MAX_MESSAGE {
                return Err(RecordError::Decode);
            }
            if self.message_len >= MESSAGE_HEADER + body {
                event = self.on_message(role, is_tls_13, body, text.is_empty())?;
                self.message_len = 0;
            }
        }
        Ok(event)
    }

    /// Length of the message behind its header, once that is there.
    fn message_body(&self) -> Option<usize> {
        let [_, high, middle, low, _] = self.message;
        let body = u32::from_be_bytes([0, high, middle, low]) as usize;
        (self.message_len >= MESSAGE_HEADER).then_some(body)
    }

    fn on_message(
        &mut self,
        role: Role,
        is_tls_13: bool,
        body: usize,
        is_last: bool,
    ) -> Result<Event, RecordError> {
        let [kind, .., request] = self.message;
        match (is_tls_13, kind) {
            // No session is resumed; servers may send tickets all the same.
            (true, NEW_SESSION_TICKET) if role == Role::Client => Ok(Event::Nothing),
            (true, KEY_UPDATE) => {
                if body != 1 {
                    return Err(RecordError::Decode);
                }
                // The rest would have come with a key that is no longer used (RFC 8446,
                // section 5.1).
                if !is_last {
                    return Err(RecordError::Unexpected);
                }
                count(&mut self.key_updates, KEY_UPDATES)?;
                match request {
                    0 | 1 => Ok(Event::KeyUpdate {
                        is_requested: request == 1,
                    }),
                    _ => Err(RecordError::IllegalParameter),
                }
            }
            (false, CLIENT_HELLO) if role == Role::Server => {
                count(&mut self.renegotiations, RENEGOTIATIONS)?;
                Ok(Event::Renegotiation)
            }
            (false, HELLO_REQUEST) if role == Role::Client => {
                count(&mut self.renegotiations, RENEGOTIATIONS)?;
                Ok(Event::Renegotiation)
            }
            _ => Err(RecordError::Unexpected),
        }
    }
}

/// One more of what is bounded.
fn count(counter: &mut u8, most: u8) -> Result<(), RecordError> {
    if *counter >= most {
        return Err(RecordError::TooMany);
    }
    *counter += 1;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handshake(role: Role, is_tls_13: bool, text: &[u8]) -> Result<Event, RecordError> {
        Control::default().on_record(role, is_tls_13, Content::Handshake, text)
    }

    #[test]
    fn each_side_takes_what_its_peer_may_send() {
        let ticket = [&[NEW_SESSION_TICKET, 0, 0, 3][..], b"abc"].concat();
        assert_eq!(handshake(Role::Client, true, &ticket), Ok(Event::Nothing));
        // A ticket, and the key update that must be the last message of its record.
        let update = [KEY_UPDATE, 0, 0, 1, 1];
        let both = [&ticket[..], &update].concat();
        let is_requested = true;
        let expected = Ok(Event::KeyUpdate { is_requested });
        assert_eq!(handshake(Role::Client, true, &both), expected);
        let swapped = [&update[..], &ticket].concat();
        for (role, is_tls_13, wrong) in [
            (Role::Client, true, &swapped),
            (Role::Server, true, &ticket),
            // In a handshake with TLS 1.2 they come before its end.
            (Role::Client, false, &ticket),
        ] {
            assert_eq!(
                handshake(role, is_tls_13, wrong),
                Err(RecordError::Unexpected)
            );
        }
    }

    #[test]
    fn each_side_is_asked_for_another_handshake_in_its_own_way() {
        let (request, hello) = ([HELLO_REQUEST, 0, 0, 0], [CLIENT_HELLO, 0, 0, 0]);
        for (role, wish, other) in [
            (Role::Client, request, hello),
            (Role::Server, hello, request),
        ] {
            assert_eq!(handshake(role, false, &wish), Ok(Event::Renegotiation));
            assert_eq!(handshake(role, false, &other), Err(RecordError::Unexpected));
            assert_eq!(handshake(role, true, &wish), Err(RecordError::Unexpected));
        }
    }
}
