//! No key seals two records with the same number, whatever a client sends and whenever.

use std::sync::Arc;
use std::time::Duration;

use gateway_datapath::tls::{self, Role, TlsStream};
use proptest::prelude::*;
use rustls::crypto::aws_lc_rs::cipher_suite;
use rustls::{ClientConfig, SupportedCipherSuite};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::peer::{
    ALERT, CLOSE_NOTIFY, DATA, HANDSHAKE, Handshake, Peer, UPDATE, UPDATE_REQUESTED,
};
use crate::{Identity, client_config, identity, runner, tcp_pair};

const LIMIT: Duration = Duration::from_secs(60);
const SUITE: SupportedCipherSuite = cipher_suite::TLS13_AES_128_GCM_SHA256;

/// Makes a handshake, in which `with_finished` gives what the client sends in one write with its
/// last message.
pub(crate) async fn shake_hands(
    identity: &Identity,
    config: &ClientConfig,
    with_finished: impl FnOnce(&mut Peer) -> Vec<u8>,
) -> (TcpStream, Peer, TlsStream) {
    let (mut near, far) = tcp_pair().await;
    let client = async {
        let mut handshake = Handshake::new(config);
        let mut sent = handshake.advance(&[]);
        let mut received = vec![0; 1 << 16];
        while !handshake.is_over() {
            near.write_all(&sent).await.unwrap();
            let len = near.read(&mut received).await.unwrap();
            assert!(len > 0, "the server left");
            sent = handshake.advance(&received[..len]);
        }
        let mut peer = handshake.into_peer();
        sent.extend(with_finished(&mut peer));
        near.write_all(&sent).await.unwrap();
        (near, peer)
    };
    let both = async { tokio::join!(client, tls::accept(far, Arc::clone(&identity.server))) };
    let ((near, peer), server) = tokio::time::timeout(LIMIT, both).await.unwrap();
    (near, peer, server.unwrap().0)
}

/// All that the server has sent once it has ended its stream.
async fn rest(tcp: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let read = tcp.read_to_end(&mut bytes);
    tokio::time::timeout(LIMIT, read).await.unwrap().unwrap();
    bytes
}

#[tokio::test]
async fn a_key_update_that_comes_with_finished_makes_no_number_used_twice() {
    let identity = identity(&rcgen::PKCS_ECDSA_P256_SHA256);
    let config = client_config(&identity, SUITE);
    let (mut tcp, mut peer, mut server) = shake_hands(&identity, &config, |peer| {
        let update = peer.key_update(UPDATE_REQUESTED);
        [update, peer.record(DATA, b"request")].concat()
    })
    .await;
    let mut request = [0; 7];
    server.read_exact(&mut request).await.unwrap();
    assert_eq!(&request, b"request");
    server.write_all(b"answer").await.unwrap();
    server.shutdown().await.unwrap();
    let records = peer.open(&rest(&mut tcp).await).unwrap();
    // Tickets, then our key update with the first key, and the answer with the second.
    let [tickets @ .., update, answer, close] = &records[..] else {
        panic!("{records:?}");
    };
    assert!(!tickets.is_empty());
    assert!(tickets.iter().all(|ticket| ticket.content == HANDSHAKE));
    assert_eq!((update.content, &update.text[..]), (HANDSHAKE, &UPDATE[..]));
    assert_eq!((answer.content, &answer.text[..]), (DATA, &b"answer"[..]));
    assert_eq!(answer.place, (1, 0));
    assert_eq!((close.content, &close.text[..]), (ALERT, &CLOSE_NOTIFY[..]));
}

#[tokio::test]
async fn what_comes_with_the_last_message_of_a_handshake_is_read_behind_it() {
    let identity = identity(&rcgen::PKCS_ECDSA_P256_SHA256);
    let tls_12 = cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256;
    for suite in [SUITE, tls_12] {
        let config = client_config(&identity, suite);
        // Where a session of TLS 1.2 is resumed, the client speaks last.
        for round in 0..2 {
            let (mut tcp, mut peer, mut server) = shake_hands(&identity, &config, |peer| {
                let close = |peer: &mut Peer| peer.record(ALERT, &CLOSE_NOTIFY);
                [peer.record(DATA, b"request"), close(peer)].concat()
            })
            .await;
            let mut request = Vec::new();
            server.read_to_end(&mut request).await.unwrap();
            assert_eq!(request, b"request", "{suite:?}, {round}");
            server.write_all(b"answer").await.unwrap();
            server.shutdown().await.unwrap();
            let records = peer.open(&rest(&mut tcp).await).unwrap();
            let data = records.iter().filter(|record| record.content == DATA);
            let data: Vec<_> = data.map(|record| &record.text[..]).collect();
            assert_eq!(data, [b"answer"], "{suite:?}, {round}");
        }
    }
}

/// What happens on a connection.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// The client sends data, a key update, or one with a request.
    Data,
    Update,
    UpdateRequested,
    /// The server reads all that was sent.
    Read,
    /// The server sends data.
    Answer,
    /// The server's process is replaced.
    Move,
}

fn event() -> impl Strategy<Value = Event> {
    use Event::{Answer, Data, Move, Read, Update, UpdateRequested};
    prop_oneof![
        Just(Data),
        Just(Update),
        Just(UpdateRequested),
        Just(Read),
        Just(Answer),
        Just(Move),
    ]
}

/// Goes on with a connection as the next process does.
fn moved(server: TlsStream) -> TlsStream {
    let state = server.state().expect("a connection that goes on");
    let text = serde_json::to_string(&state).unwrap();
    let socket = server.socket().try_clone_to_owned().unwrap();
    drop(server);
    let tcp = TcpStream::from_std(socket.into()).unwrap();
    TlsStream::resume(tcp, serde_json::from_str(&text).unwrap(), Role::Server).unwrap()
}

/// Plays events, `early` of them in one write with the last message of the handshake.
async fn play(identity: &Identity, config: &ClientConfig, early: &[Event], events: &[Event]) {
    let unread = std::cell::Cell::new(0);
    let act = |peer: &mut Peer, event: Event| match event {
        Event::Data => {
            unread.set(unread.get() + 1);
            peer.record(DATA, &[7])
        }
        Event::Update if peer.is_13() => peer.key_update(UPDATE),
        Event::UpdateRequested if peer.is_13() => peer.key_update(UPDATE_REQUESTED),
        _ => Vec::new(),
    };
    let (mut tcp, mut peer, mut server) = shake_hands(identity, config, |peer| {
        early.iter().flat_map(|event| act(peer, *event)).collect()
    })
    .await;
    let mut answers = 0;
    // What a client asks for is seen once data behind it is read.
    for event in events
        .iter()
        .chain(&[Event::Data, Event::Read, Event::Answer])
    {
        tcp.write_all(&act(&mut peer, *event)).await.unwrap();
        match event {
            Event::Read => {
                for _ in 0..unread.take() {
                    assert_eq!(server.read_u8().await.unwrap(), 7);
                }
            }
            Event::Answer => {
                server.write_all(&[9]).await.unwrap();
                answers += 1;
            }
            Event::Move => server = moved(server),
            Event::Data | Event::Update | Event::UpdateRequested => {}
        }
    }
    server.shutdown().await.unwrap();
    let records = peer.open(&rest(&mut tcp).await).unwrap();
    let data = records.iter().filter(|record| record.content == DATA);
    assert_eq!(data.count(), answers, "{records:?}");
}

#[test]
fn no_key_seals_two_records_with_one_number() {
    let identity = identity(&rcgen::PKCS_ECDSA_P256_SHA256);
    let configs = [
        SUITE,
        cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    ]
    .map(|suite| client_config(&identity, suite));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut runner = runner(48);
    let events = || proptest::collection::vec(event(), 0..12);
    let inputs = (0..configs.len(), events(), events());
    let outcome = runner.run(&inputs, |(config, early, events)| {
        let play = play(&identity, &configs[config], &early, &events);
        let played = async { tokio::time::timeout(LIMIT, play).await };
        runtime.block_on(played).expect("an end in time");
        Ok(())
    });
    outcome.unwrap_or_else(|failure| panic!("{failure}"));
}
