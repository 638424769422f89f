//! What another process hands over: a state is refused, or the channel can be gone on with, and
//! messages that are understood mean the same when they are written again.

use gateway::fuzzing::handover_message;
use gateway_datapath::buffer::Layout;
use gateway_datapath::websocket::decode::{Cursor, Decoder, DecoderState};
use gateway_datapath::{Rest, RestState};

use crate::input::Input;
use crate::relay;

const RECORDS: Layout = Layout {
    prefix: 5,
    piece: 16_384,
    suffix: 17,
};

/// A byte that says what follows as JSON: a message, a channel's rest or a decoder.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    match input.byte() % 4 {
        0 => message(input.rest()),
        1 => rest(input.rest(), Layout::PLAIN),
        2 => rest(input.rest(), RECORDS),
        _ => decoder(input.rest()),
    }
}

fn message(text: &[u8]) {
    if let Some(written) = handover_message(text) {
        let again = handover_message(&written).expect("what was written is understood");
        assert_eq!(again, written);
    }
}

fn rest(text: &[u8], layout: Layout) {
    let Ok(state) = serde_json::from_slice::<RestState>(text) else {
        return;
    };
    let Ok(rest) = Rest::resume(&state, layout) else {
        return;
    };
    let written = serde_json::to_string(&rest.state(layout)).expect("plain data");
    let again: RestState = serde_json::from_str(&written).expect("what was written");
    assert!(
        Rest::resume(&again, layout).is_ok(),
        "refused the second time"
    );
    relay::goes_on(rest, layout != Layout::PLAIN);
}

fn decoder(text: &[u8]) {
    let Ok(state) = serde_json::from_slice::<DecoderState>(text) else {
        return;
    };
    let Some(mut decoder) = Decoder::resume(&state) else {
        return;
    };
    let mut buffer = [0x82; 300];
    let mut cursor = Cursor {
        end: buffer.len(),
        ..Cursor::default()
    };
    while let Ok(Some(_)) = decoder.decode(&mut buffer, &mut cursor) {}
    assert!(cursor.write <= cursor.read && cursor.read <= cursor.end);
}
