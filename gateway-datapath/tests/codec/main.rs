//! The frame codec against tungstenite, an independent implementation of RFC 6455.
#![expect(clippy::unwrap_used, reason = "a test may fail")]

mod reference;

use gateway_common::frame::{FIN_BINARY, MAX_HEADER, MAX_PAYLOAD, write_header};
use gateway_datapath::websocket::close::CloseCode;
use gateway_datapath::websocket::decode::{Cursor, Decoder, Event, Violation};
use gateway_datapath::websocket::encode;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};
use tungstenite::protocol::frame::{Frame, FrameHeader};
use tungstenite::protocol::{Role, WebSocket};
use tungstenite::{Bytes, Message};

use reference::{End, Peer, kind, reference};

/// What a decoder made of a client's stream.
#[derive(Clone, Debug, Default, PartialEq)]
struct Decoded {
    payload: Vec<u8>,
    events: Vec<Event>,
    violation: Option<Violation>,
}

impl Decoded {
    fn is_closed(&self) -> bool {
        matches!(self.events.last(), Some(Event::Close(_)))
    }
}

/// Decodes pieces one after the other, each behind the payload of those before if `keep`, as when
/// a host is slow, or else from the start of the buffer.
fn decode<'a>(pieces: impl Iterator<Item = &'a [u8]>, keep: bool) -> Decoded {
    let mut decoder = Decoder::new();
    let mut outcome = Decoded::default();
    let mut cursor = Cursor::default();
    let mut buffer = Vec::new();
    for piece in pieces {
        if !keep {
            outcome.payload.extend_from_slice(&buffer[..cursor.write]);
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
                Ok(Some(event)) => outcome.events.push(event),
                Ok(None) => {
                    assert_eq!(cursor.read, cursor.end, "left undecoded without an event");
                    break;
                }
                Err(violation) => {
                    outcome.violation = Some(violation);
                    outcome.payload.extend_from_slice(&buffer[..cursor.write]);
                    return outcome;
                }
            }
        }
    }
    outcome.payload.extend_from_slice(&buffer[..cursor.write]);
    outcome
}

/// Cuts `bytes` at these places.
fn cut<'a>(bytes: &'a [u8], cuts: &[Index]) -> impl Iterator<Item = &'a [u8]> + use<'a> {
    let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    ends.push(bytes.len());
    ends.sort_unstable();
    let mut start = 0;
    ends.into_iter().map(move |end| {
        let piece = &bytes[start..end];
        start = end;
        piece
    })
}

fn encode(frame: Frame) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame.format(&mut bytes).unwrap();
    bytes
}

fn client_frame(opcode: OpCode, fin: bool, mask: [u8; 4], payload: Vec<u8>) -> Frame {
    let header = FrameHeader {
        is_final: fin,
        opcode,
        mask: Some(mask),
        ..FrameHeader::default()
    };
    Frame::from_payload(header, Bytes::from(payload))
}

fn payload_length() -> impl Strategy<Value = usize> {
    prop_oneof![
        4 => 0..20_usize,
        2 => 0..300_usize,
        1 => select(vec![125, 126, 127, 4_096, 65_535, 65_536, 65_537, 100_000]),
    ]
}

fn payload() -> impl Strategy<Value = Vec<u8>> {
    (payload_length(), any::<u8>()).prop_map(|(length, first)| {
        // What stands where must show, whatever the mask.
        (0..251_u8)
            .cycle()
            .take(length)
            .map(|at| first.wrapping_add(at))
            .collect()
    })
}

/// A control frame's opcode and payload; a Close is not among them.
fn control() -> impl Strategy<Value = (Control, Vec<u8>)> {
    (
        select(vec![Control::Ping, Control::Pong]),
        vec(any::<u8>(), 0..=125),
    )
}

fn close_payload() -> impl Strategy<Value = Vec<u8>> {
    let codes = prop_oneof![1000_u16..=1003, 1007_u16..=1013, 3000_u16..=4999];
    prop_oneof![
        1 => Just(Vec::new()),
        3 => (codes, "\\PC{0,30}").prop_map(|(code, reason)| {
            [&code.to_be_bytes()[..], reason.as_bytes()].concat()
        }),
    ]
}

/// A piece of a client's conversation: one fragment and the controls behind it.
type Part = (Vec<u8>, bool, [u8; 4], Vec<(Control, Vec<u8>)>);

fn part() -> impl Strategy<Value = Part> {
    (
        payload(),
        any::<bool>(),
        any::<[u8; 4]>(),
        vec(control(), 0..3),
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// What tungstenite encodes as a client decodes to the same, however it is cut.
    #[test]
    fn decodes_what_a_client_encodes(
        parts in vec(part(), 0..12),
        close in proptest::option::of(close_payload()),
        behind in vec(any::<u8>(), 0..40),
        cuts in vec(any::<Index>(), 0..20),
        keep in any::<bool>(),
    ) {
        let mut bytes = Vec::new();
        let mut expected = Decoded::default();
        let mut inside = false;
        for (payload, fin, mask, controls) in parts {
            let data = if inside { Data::Continue } else { Data::Binary };
            expected.payload.extend_from_slice(&payload);
            bytes.extend(encode(client_frame(OpCode::Data(data), fin, mask, payload)));
            inside = !fin;
            for (control, payload) in controls {
                bytes.extend(encode(client_frame(OpCode::Control(control), true, mask, payload.clone())));
                expected.events.push(event(control, &payload));
            }
        }
        if let Some(payload) = close {
            let control = OpCode::Control(Control::Close);
            bytes.extend(encode(client_frame(control, true, [9, 8, 7, 6], payload.clone())));
            expected.events.push(event(Control::Close, &payload));
            // A Close is the last frame: whatever follows is dropped.
            bytes.extend(behind);
        }
        prop_assert_eq!(decode(cut(&bytes, &cuts), keep), expected);
    }
}

/// The event of a control frame, decoded on its own.
fn event(control: Control, payload: &[u8]) -> Event {
    let bytes = encode(client_frame(
        OpCode::Control(control),
        true,
        [0; 4],
        payload.to_vec(),
    ));
    let decoded = decode(std::iter::once(&bytes[..]), false);
    let [event] = &decoded.events[..] else {
        panic!("one control frame gave {decoded:?}");
    };
    match (control, event) {
        (Control::Ping, Event::Ping(own)) => assert_eq!(**own, *payload),
        (Control::Pong, Event::Pong) => {}
        (Control::Close, Event::Close(close)) => {
            let code = payload.first_chunk().copied().map(u16::from_be_bytes);
            assert_eq!(close.code, code);
        }
        _ => panic!("{control:?} gave {event:?}"),
    }
    event.clone()
}

/// Bytes that look like frames more often than chance would have it.
fn nearly_frames() -> impl Strategy<Value = Vec<u8>> {
    let first = prop_oneof![
        6 => select(vec![0x82, 0x02, 0x80, 0x00, 0x89, 0x8a, 0x88]),
        1 => any::<u8>(),
    ];
    let second = prop_oneof![8 => 0x80_u8..=0x8a, 1 => select(vec![0xfe, 0xff]), 1 => any::<u8>()];
    let length = prop_oneof![
        Just(vec![]),
        (0_u16..300).prop_map(|length| length.to_be_bytes().to_vec()),
        prop_oneof![0_u64..300, any::<u64>()].prop_map(|length| length.to_be_bytes().to_vec()),
    ];
    let close = prop_oneof![
        4 => Just(vec![]),
        // A Close whose code and reason are anything.
        1 => (0_u16..5_100, vec(any::<u8>(), 0..3)).prop_map(|(code, reason)| {
            let payload = [&code.to_be_bytes()[..], &reason].concat();
            encode(client_frame(OpCode::Control(Control::Close), true, [1, 2, 3, 4], payload))
        }),
    ];
    let frame = (first, second, length, vec(any::<u8>(), 4..20), close).prop_map(
        |(first, second, length, rest, close)| {
            let mut bytes = vec![first, second];
            // The extended length that the second byte announces, mostly.
            if matches!(
                (second & 0x7f, length.len()),
                (126, 2) | (127, 8) | (0..126, 0)
            ) {
                bytes.extend(length);
            }
            bytes.extend(&rest[..4]);
            let payload = usize::from(second & 0x7f);
            if payload <= rest.len() {
                bytes.extend(rest.iter().cycle().take(payload));
            } else {
                bytes.extend(rest);
            }
            bytes.extend(close);
            bytes
        },
    );
    vec(frame, 0..8).prop_map(|frames| frames.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3_000))]

    /// Any bytes are decoded alike however they are cut, and never panic.
    #[test]
    fn arbitrary_bytes_decode_alike_however_they_are_cut(
        bytes in prop_oneof![vec(any::<u8>(), 0..200), nearly_frames()],
        cuts in vec(any::<Index>(), 0..10),
        keep in any::<bool>(),
    ) {
        let whole = decode(std::iter::once(&bytes[..]), false);
        prop_assert_eq!(&decode(cut(&bytes, &cuts), keep), &whole);
        prop_assert_eq!(&decode(bytes.chunks(1), !keep), &whole);
    }

    /// Where tungstenite and this decoder both have an opinion it is the same one.
    #[test]
    fn agrees_with_tungstenite(
        bytes in prop_oneof![1 => vec(any::<u8>(), 0..200), 8 => nearly_frames()],
    ) {
        let own = decode(std::iter::once(&bytes[..]), false);
        let other = reference(&bytes);

        // It collects messages; here payload comes as it arrives.
        prop_assert!(own.payload.starts_with(&other.payload), "{own:?} {other:?}");
        let mut events = own.events.iter();
        for event in &other.events {
            let own_event = events.next().map(kind);
            // The reference tells of a text message once it is whole.
            if own_event.is_none() && own.violation == Some(Violation::Text) {
                break;
            }
            prop_assert_eq!(Some(event), own_event.as_ref());
        }
        match &other.end {
            End::Violation(error) => prop_assert!(own.violation.is_some(), "{error}: {own:?}"),
            End::Closed => prop_assert!(own.is_closed() || own.violation.is_some()),
            // Wrong bytes at the start of a frame are seen here before the rest has come.
            End::Incomplete | End::NoOpinion => {}
        }
        match own.violation {
            // Not a matter of framing, but of what is tunnelled.
            None | Some(Violation::Text) => {}
            Some(violation) => prop_assert!(
                !matches!(other.end, End::Closed) || violation == Violation::BadClose,
                "{violation}: {other:?}"
            ),
        }
        if own.is_closed() {
            prop_assert!(matches!(other.end, End::Closed), "{own:?} {other:?}");
        }
    }

    /// tungstenite reads the headers of data frames and the control frames that are sent.
    #[test]
    fn tungstenite_reads_what_is_sent(lengths in vec(0..=MAX_PAYLOAD, 1..5), close in 0..8_usize) {
        let mut bytes = Vec::new();
        for length in &lengths {
            let mut header = [0; MAX_HEADER];
            let header_length = write_header(&mut header, FIN_BINARY, *length);
            bytes.extend_from_slice(&header[..header_length]);
            bytes.resize(bytes.len() + length, 7);
            bytes.extend(encode::ping());
        }
        let codes = [
            CloseCode::Normal,
            CloseCode::GoingAway,
            CloseCode::ProtocolError,
            CloseCode::UnsupportedData,
            CloseCode::InvalidPayload,
            CloseCode::PolicyViolation,
            CloseCode::InternalError,
        ];
        let code = codes.get(close).copied();
        bytes.extend(code.map_or_else(|| encode::close_echo(None), encode::close));

        let mut socket = WebSocket::from_raw_socket(Peer::new(&bytes), Role::Client, None);
        for length in lengths {
            prop_assert_eq!(socket.read().unwrap(), Message::binary(vec![7; length]));
            prop_assert_eq!(socket.read().unwrap(), Message::Ping(Bytes::new()));
        }
        let Message::Close(frame) = socket.read().unwrap() else {
            panic!("no Close");
        };
        prop_assert_eq!(frame.map(|frame| u16::from(frame.code)), code.map(|code| code as u16));
    }

    /// A Pong carries what the Ping did.
    #[test]
    fn pongs_carry_the_payload_of_their_ping(payload in vec(any::<u8>(), 0..=125), mask: [u8; 4]) {
        let ping = encode(client_frame(OpCode::Control(Control::Ping), true, mask, payload.clone()));
        let decoded = decode(std::iter::once(&ping[..]), false);
        let [Event::Ping(own)] = &decoded.events[..] else {
            panic!("a Ping gave {decoded:?}");
        };
        let pong = encode::pong(own);
        let mut socket = WebSocket::from_raw_socket(Peer::new(&pong), Role::Client, None);
        prop_assert_eq!(socket.read().unwrap(), Message::Pong(payload.into()));
    }
}
