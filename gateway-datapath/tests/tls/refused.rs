//! Handshakes that are refused: each gets one alert, whatever stands behind the record at fault.

use std::sync::Arc;

use gateway_datapath::tls::{self, HandshakeError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Type of an alert's record, and its level `fatal` (RFC 8446, sections 5.1 and 6).
const ALERT: u8 = 21;
const FATAL: u8 = 2;

/// What the server sends until it ends, to a client that sends `bytes` and then nothing more.
async fn answer(bytes: &[u8]) -> Vec<u8> {
    let identity = super::identity(&rcgen::PKCS_ECDSA_P256_SHA256);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
    let (mut near, far) = (near.unwrap(), far.unwrap().0);
    let client = async {
        near.write_all(bytes).await.unwrap();
        near.shutdown().await.unwrap();
        let mut answer = Vec::new();
        near.read_to_end(&mut answer).await.unwrap();
        answer
    };
    let (answer, accepted) = tokio::join!(client, tls::accept(far, Arc::clone(&identity.server)));
    assert!(matches!(accepted, Err(HandshakeError::Tls(_))));
    answer
}

#[tokio::test]
async fn a_refusal_is_one_alert_whatever_stands_behind_the_fault() {
    let unexpected = [22, 3, 1, 0, 4, 2, 0, 0, 0];
    for bytes in [
        &b"GET / HTTP/1.1\r\nHost: gateway\r\n\r\n"[..],
        &[22, 3, 1, 0xff, 0xff],
        &unexpected,
        &unexpected.repeat(9),
    ] {
        let answer = answer(bytes).await;
        assert_eq!(answer.len(), 7, "{bytes:?}: {answer:?}");
        assert_eq!((answer[0], answer[5]), (ALERT, FATAL), "{bytes:?}");
    }
}

/// While a part of a message waits, rustls counts from its beginning on; it must not be asked for
/// its alert with other bytes than before. Where it has none, none is sent.
#[tokio::test]
async fn a_message_that_has_begun_does_not_disturb_the_refusal() {
    let begun = [22, 3, 1, 0, 5, 1, 0, 0, 80, 3];
    // The first byte of a seed says how the target cuts it.
    let seed = include_bytes!("../../../fuzz/seeds/tls_accept/refused-with-records-behind");
    for bytes in [
        &[&begun[..], &[23, 3, 3, 0, 1, 0]].concat(),
        &[&begun[..], &[20, 3, 3, 0, 2, 1, 1]].concat(),
        &[&begun[..], &[22, 9, 9, 0xff, 0xff]].concat(),
        &seed[1..],
    ] {
        let answer = answer(bytes).await;
        assert!([0, 7].contains(&answer.len()), "{bytes:?}: {answer:?}");
    }
}
