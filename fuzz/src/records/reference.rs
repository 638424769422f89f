//! A plain rustls server.

use std::io::{Read, Write};
use std::sync::Arc;

use rustls::{ClientConfig, ServerConfig, ServerConnection};

use super::script::{Script, Step};
use super::{End, Outcome};
use crate::tls_peer::Handshake;

/// Plays a script to it.
pub(super) fn play(server: &Arc<ServerConfig>, client: &ClientConfig, script: &Script) -> Outcome {
    let mut server = ServerConnection::new(Arc::clone(server)).expect("a good configuration");
    server.set_buffer_limit(None);
    let mut handshake = Handshake::new(client);
    let mut answer = Vec::new();
    while !handshake.is_over() || server.is_handshaking() {
        let sent = handshake.advance(&std::mem::take(&mut answer));
        take(&mut server, &sent);
        answer = written(&mut server);
    }
    let mut peer = handshake.into_peer();
    let mut records = peer.open(&answer).expect("records of a handshake");
    let (mut text, mut end) = (Vec::new(), End::Cut);
    for step in &script.0 {
        let wire = step.wire(&mut peer);
        if let Step::Answer(length) = step
            && end != End::Failed
        {
            let answer = vec![7; *length];
            server.writer().write_all(&answer).expect("no limit");
        }
        let mut rest = &wire[..];
        while !rest.is_empty() && end == End::Cut {
            server.read_tls(&mut rest).expect("a slice");
            match server.process_new_packets() {
                Err(_) => end = End::Failed,
                Ok(state) if state.peer_has_closed() => end = End::Closed,
                Ok(_) => {}
            }
            let mut space = vec![0; 1 << 15];
            while let Ok(len @ 1..) = server.reader().read(&mut space) {
                text.extend_from_slice(&space[..len]);
            }
        }
    }
    records.extend(peer.open(&written(&mut server)).expect("good records"));
    Outcome::new(text, end, &records)
}

fn take(server: &mut ServerConnection, mut sent: &[u8]) {
    while !sent.is_empty() {
        server.read_tls(&mut sent).expect("a slice");
        server.process_new_packets().expect("a good handshake");
    }
}

/// All that it has to send.
fn written(server: &mut ServerConnection) -> Vec<u8> {
    let mut bytes = Vec::new();
    while server.wants_write() {
        server.write_tls(&mut bytes).expect("a vector");
    }
    bytes
}
