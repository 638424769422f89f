//! Control frames that the gateway sends (RFC 6455, section 5.5).

use gateway_common::frame;

use super::close::CloseCode;
use super::decode::ControlPayload;

const FIN: u8 = 0x80;
const CLOSE: u8 = FIN | 0x8;
const PING: u8 = FIN | 0x9;
const PONG: u8 = FIN | 0xa;

/// A Ping without payload.
pub fn ping() -> Vec<u8> {
    control(PING, &[])
}

/// The Pong that answers a Ping with `payload`.
pub fn pong(payload: &ControlPayload) -> Vec<u8> {
    control(PONG, payload)
}

/// A Close with `code`.
pub fn close(code: CloseCode) -> Vec<u8> {
    control(CLOSE, &(code as u16).to_be_bytes())
}

/// The Close that answers a client's Close: the same code, or none if it gave none.
pub fn close_echo(code: Option<u16>) -> Vec<u8> {
    match code {
        Some(code) => control(CLOSE, &code.to_be_bytes()),
        None => control(CLOSE, &[]),
    }
}

fn control(first_byte: u8, payload: &[u8]) -> Vec<u8> {
    let mut header = [0; frame::MAX_HEADER];
    let header_len = frame::write_header(&mut header, first_byte, payload.len());
    [&header[..header_len], payload].concat()
}
