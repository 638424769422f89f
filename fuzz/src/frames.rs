//! The decoder of clients' frames: however they are cut the outcome is the same, also when the
//! decoder is written down and resumed between two pieces, and it is the one of tungstenite.

use gateway_datapath::websocket::decode::{Cursor, Decoder, DecoderState, Event, Violation};

use crate::input::{Input, pieces};
use crate::tungstenite_reference::{End, kind, reference};

/// The payload stays in the buffer while more is decoded, as when a host is slow.
const KEEP: u8 = 1;
/// The decoder moves to another process behind each piece.
const MOVE: u8 = 2;

/// What a stream of frames came to.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Decoded {
    pub(crate) payload: Vec<u8>,
    pub(crate) events: Vec<Event>,
    pub(crate) violation: Option<Violation>,
}

impl Decoded {
    fn is_closed(&self) -> bool {
        matches!(self.events.last(), Some(Event::Close(_)))
    }
}

/// One byte of options, one that says where to cut, then the client's bytes.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let (options, seed) = (input.byte(), input.byte());
    let bytes = input.rest();
    let whole = decode(std::iter::once(bytes), 0);
    assert_eq!(decode(pieces(bytes, seed), options), whole, "cut");
    agrees_with_tungstenite(bytes, &whole);
}

/// Decodes pieces one after the other.
pub(crate) fn decode<'a>(pieces: impl Iterator<Item = &'a [u8]>, options: u8) -> Decoded {
    let mut decoder = Decoder::new();
    let mut decoded = Decoded::default();
    let mut cursor = Cursor::default();
    let mut buffer = Vec::new();
    for piece in pieces {
        if options & MOVE != 0 {
            let state = serde_json::to_string(&decoder.state()).expect("a state is plain data");
            let state: DecoderState = serde_json::from_str(&state).expect("what was written");
            decoder = Decoder::resume(&state).expect("a state that occurs");
        }
        if options & KEEP == 0 {
            decoded.payload.extend_from_slice(&buffer[..cursor.write]);
            cursor = Cursor::default();
        }
        cursor.read = cursor.write;
        buffer.truncate(cursor.write);
        buffer.extend_from_slice(piece);
        cursor.end = buffer.len();
        loop {
            let result = decoder.decode(&mut buffer, &mut cursor);
            assert!(cursor.write <= cursor.read && cursor.read <= cursor.end);
            assert_eq!(cursor.end, buffer.len());
            match result {
                Ok(Some(event)) => decoded.events.push(event),
                Ok(None) => {
                    assert_eq!(cursor.read, cursor.end, "left undecoded without an event");
                    break;
                }
                Err(violation) => {
                    decoded.violation = Some(violation);
                    decoded.payload.extend_from_slice(&buffer[..cursor.write]);
                    return decoded;
                }
            }
        }
    }
    decoded.payload.extend_from_slice(&buffer[..cursor.write]);
    decoded
}

/// Where both have an opinion it is the same one.
fn agrees_with_tungstenite(bytes: &[u8], own: &Decoded) {
    let other = reference(bytes);
    // It collects messages; here payload comes as it arrives.
    assert!(own.payload.starts_with(&other.payload), "{own:?} {other:?}");
    let mut events = own.events.iter();
    for event in &other.events {
        let own_event = events.next().map(kind);
        // The reference tells of a text message once it is whole.
        if own_event.is_none() && own.violation == Some(Violation::Text) {
            break;
        }
        assert_eq!(Some(event), own_event.as_ref());
    }
    match &other.end {
        End::Violation(error) => assert!(own.violation.is_some(), "{error}: {own:?}"),
        End::Closed => assert!(own.is_closed() || own.violation.is_some()),
        // Wrong bytes at the start of a frame are seen here before the rest has come.
        End::Incomplete | End::NoOpinion => {}
    }
    match own.violation {
        // Not a matter of framing, but of what is tunnelled.
        None | Some(Violation::Text) => {}
        Some(violation) => assert!(
            !matches!(other.end, End::Closed) || violation == Violation::BadClose,
            "{violation}: {other:?}"
        ),
    }
    if own.is_closed() && !matches!(other.end, End::NoOpinion) {
        assert!(matches!(other.end, End::Closed), "{own:?} {other:?}");
    }
}
