//! Connections that are left to the kernel after the handshake.

use std::io;
use std::sync::Arc;

use gateway_datapath::ktls::{Ktls, KtlsStream, Support};
use gateway_datapath::tls::TlsStream;
use gateway_datapath::{ClientLeg, probe};
use rustls::SupportedCipherSuite;
use rustls::crypto::aws_lc_rs::{ALL_CIPHER_SUITES, cipher_suite};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream as ClientStream;

use crate::{client_config, connect, exchange_both_ways, identity, identity_for, pattern};

/// What the kernel carries, by the gateway's own probe.
pub(crate) async fn support() -> Support {
    let found = probe::run(probe::Extent::Usual, std::path::Path::new("/nowhere"))
        .await
        .into_iter()
        .find_map(|finding| finding.support);
    found.expect("a kernel with TLS")
}

/// Leaves the records to the kernel.
async fn hand_over(server: TlsStream) -> KtlsStream {
    enter(&Ktls::new(support().await, Some(1)), server)
}

fn enter(ktls: &Ktls, server: TlsStream) -> KtlsStream {
    match ktls.enter(Box::new(server)) {
        Ok(stream) => stream,
        Err((refusal, _)) => panic!("{refusal}"),
    }
}

#[tokio::test]
#[ignore = "needs a kernel with TLS: cargo xtask vm-test"]
async fn the_kernel_goes_on_with_every_suite_where_the_gateway_was() {
    for suite in ALL_CIPHER_SUITES {
        let identity = identity_for(*suite);
        let (mut client, mut server) = connect(&identity, client_config(&identity, *suite)).await;
        for round in 0..5_u8 {
            let mut received = [0; 100];
            server.write_all(&[round; 100]).await.unwrap();
            client.read_exact(&mut received).await.unwrap();
            assert_eq!(received, [round; 100]);
            client.write_all(&[round; 100]).await.unwrap();
            server.read_exact(&mut received).await.unwrap();
            assert_eq!(received, [round; 100]);
        }
        let server = hand_over(server).await;
        exchange_both_ways(client, server, *suite).await;
    }
}

#[tokio::test]
#[ignore = "needs a kernel with TLS: cargo xtask vm-test"]
async fn what_was_read_before_the_kernel_took_over_is_delivered_first() {
    let identity = identity(&rcgen::PKCS_ECDSA_P256_SHA256);
    let suite = cipher_suite::TLS13_AES_128_GCM_SHA256;
    let (mut client, mut server) = connect(&identity, client_config(&identity, suite)).await;
    client.write_all(b"first").await.unwrap();
    client.write_all(b"second").await.unwrap();
    let mut received = [0; 3];
    server.read_exact(&mut received).await.unwrap();
    let mut server = hand_over(server).await;
    client.write_all(b"third").await.unwrap();
    client.shutdown().await.unwrap();
    let mut rest = String::new();
    server.read_to_string(&mut rest).await.unwrap();
    assert_eq!(rest, "stsecondthird");
}

#[tokio::test]
#[ignore = "needs a kernel with TLS: cargo xtask vm-test"]
async fn new_keys_of_the_client_are_followed_or_end_what_is_read() {
    let identity = identity(&rcgen::PKCS_ECDSA_P256_SHA256);
    let suite = cipher_suite::TLS13_AES_256_GCM_SHA384;
    let (mut client, server) = connect(&identity, client_config(&identity, suite)).await;
    let support = support().await;
    let mut server = enter(&Ktls::new(support.clone(), Some(1)), server);
    if support.new_keys {
        for round in 0..5_u8 {
            // This asks for a new key of the server, too.
            client.get_mut().1.refresh_traffic_keys().unwrap();
            client.write_all(&[round; 100]).await.unwrap();
            let mut bytes = [0; 100];
            server.read_exact(&mut bytes).await.unwrap();
            assert_eq!(bytes, [round; 100]);
            server.write_all(&bytes).await.unwrap();
            client.read_exact(&mut bytes).await.unwrap();
            assert_eq!(bytes, [round; 100]);
        }
        change_keys_under_traffic(client, server).await;
        return;
    }
    client.write_all(b"old key").await.unwrap();
    client.get_mut().1.refresh_traffic_keys().unwrap();
    client.write_all(b"new key").await.unwrap();
    let mut received = Vec::new();
    let error = server.read_to_end(&mut received).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::Unsupported);
    assert_eq!(received, b"old key");
    // The other direction still ends in an orderly way, and so does TCP.
    server.write_all(b"bye").await.unwrap();
    server.shutdown().await.unwrap();
    let mut received = Vec::new();
    client.read_to_end(&mut received).await.unwrap();
    assert_eq!(received, b"bye");
    drop(client);
    assert_eq!(server.read(&mut [0; 16]).await.unwrap(), 0);
}

/// Changes the client's key several times in a row, while both sides send.
async fn change_keys_under_traffic(mut client: ClientStream<TcpStream>, server: KtlsStream) {
    const PIECES: usize = 40;
    let text = pattern(PIECES * 1_000);
    let (mut reader, mut writer) = tokio::io::split(server);
    let (mut up, mut down) = (vec![0; text.len()], vec![0; text.len()]);
    let send = async {
        for piece in text.chunks(1_000) {
            writer.write_all(piece).await.unwrap();
            tokio::task::yield_now().await;
        }
    };
    // Less than any buffer, so each side may send before it reads.
    let talk = async {
        for (index, piece) in text.chunks(1_000).enumerate() {
            for _ in 0..index % 4 {
                client.get_mut().1.refresh_traffic_keys().unwrap();
            }
            client.write_all(piece).await.unwrap();
            tokio::task::yield_now().await;
        }
        client.read_exact(&mut down).await.unwrap();
    };
    let receive = async { reader.read_exact(&mut up).await.unwrap() };
    tokio::join!(send, talk, receive);
    assert!(up == text && down == text);
}

#[tokio::test]
#[ignore = "needs a kernel with TLS: cargo xtask vm-test"]
async fn a_worn_key_is_changed_by_the_kernel_or_ends_the_channel() {
    let identity = identity(&rcgen::PKCS_ECDSA_P256_SHA256);
    for suite in [
        cipher_suite::TLS13_AES_128_GCM_SHA256,
        cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    ] {
        let (mut client, server) = connect(&identity, client_config(&identity, suite)).await;
        let support = support().await;
        let is_changed = support.new_keys && suite.tls13().is_some();
        let mut server = enter(&Ktls::new(support, Some(1)).with_key_limit(1_500), server);
        for round in 0..20_u8 {
            server.write_all(&[round; 1_000]).await.unwrap();
            let mut received = [0; 1_000];
            client.read_exact(&mut received).await.unwrap();
            assert_eq!(received, [round; 1_000]);
            assert_eq!(server.is_worn(), !is_changed && round > 0);
        }
    }
}

/// Longest wait for an alert.
const ALERT_LIMIT: std::time::Duration = std::time::Duration::from_secs(20);

/// Sends raw bytes to the kernel; gives the alert that the client gets.
async fn fault_in_the_kernel(suite: SupportedCipherSuite, record: &[u8]) -> Option<rustls::Error> {
    let identity = identity(&rcgen::PKCS_ECDSA_P256_SHA256);
    let (mut client, server) = connect(&identity, client_config(&identity, suite)).await;
    let mut server = hand_over(server).await;
    client.write_all(b"before").await.unwrap();
    let mut received = [0; 6];
    server.read_exact(&mut received).await.unwrap();
    assert_eq!(&received, b"before");
    client.get_mut().0.write_all(record).await.unwrap();
    let read = tokio::time::timeout(ALERT_LIMIT, server.read(&mut received)).await;
    let error = read.expect("an error").unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    let mut space = [0; 16];
    let told = tokio::time::timeout(ALERT_LIMIT, client.read(&mut space)).await;
    let told = told.expect("an alert").unwrap_err();
    let told = told
        .into_inner()
        .and_then(|e| e.downcast::<rustls::Error>().ok());
    told.map(|boxed| *boxed)
}

#[tokio::test]
#[ignore = "needs a kernel with TLS: cargo xtask vm-test"]
async fn a_record_that_does_not_decrypt_is_told_by_an_alert() {
    let mut record = vec![23, 3, 3, 0, 40];
    record.resize(5 + 40, 7);
    for suite in [
        cipher_suite::TLS13_AES_128_GCM_SHA256,
        cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    ] {
        let told = fault_in_the_kernel(suite, &record).await;
        let alert = rustls::Error::AlertReceived(rustls::AlertDescription::BadRecordMac);
        assert_eq!(told, Some(alert), "{suite:?}");
    }
}

#[tokio::test]
#[ignore = "needs a kernel with TLS: cargo xtask vm-test"]
async fn a_record_that_the_kernel_does_not_take_is_told_by_an_alert() {
    use rustls::AlertDescription as Alert;
    let mut too_long = vec![23, 3, 3, 0x48, 0x01];
    too_long.resize(5 + 0x4801, 0);
    let mut other_version = vec![23, 5, 5, 0, 40];
    other_version.resize(5 + 40, 0);
    for suite in [
        cipher_suite::TLS13_AES_128_GCM_SHA256,
        cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    ] {
        for (record, alert) in [
            (&too_long, Alert::RecordOverflow),
            (&other_version, Alert::UnexpectedMessage),
        ] {
            let told = fault_in_the_kernel(suite, record).await;
            let alert = rustls::Error::AlertReceived(alert);
            assert_eq!(told, Some(alert), "{suite:?}");
        }
    }
}

#[tokio::test]
#[ignore = "needs a kernel with TLS: cargo xtask vm-test"]
async fn the_kernel_notices_a_client_that_vanishes_in_the_middle_of_a_record() {
    let identity = identity(&rcgen::PKCS_ECDSA_P256_SHA256);
    let suite = cipher_suite::TLS13_AES_128_GCM_SHA256;
    let (mut client, server) = connect(&identity, client_config(&identity, suite)).await;
    let mut server = hand_over(server).await;
    client.write_all(b"whole").await.unwrap();
    let begun = [23, 3, 3, 0x40, 0, 1, 2, 3];
    client.get_mut().0.write_all(&begun).await.unwrap();
    drop(client);
    let mut received = Vec::new();
    let error = server.read_to_end(&mut received).await.unwrap_err();
    let kind = error.kind();
    assert!(
        matches!(
            kind,
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset
        ),
        "{error}"
    );
    assert_eq!(received, b"whole");
}

#[tokio::test]
#[ignore = "needs a kernel with TLS: cargo xtask vm-test"]
async fn the_kernel_goes_on_sending_after_close_notify() {
    let identity = identity(&rcgen::PKCS_ECDSA_P256_SHA256);
    for suite in [
        cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    ] {
        let (mut client, server) = connect(&identity, client_config(&identity, suite)).await;
        let mut server = hand_over(server).await;
        client.write_all(b"last").await.unwrap();
        client.shutdown().await.unwrap();
        let mut received = Vec::new();
        server.read_to_end(&mut received).await.unwrap();
        assert_eq!(received, b"last");
        server.write_all(b"answer").await.unwrap();
        server.shutdown().await.unwrap();
        let mut received = Vec::new();
        client.read_to_end(&mut received).await.unwrap();
        assert_eq!(received, b"answer");
    }
}

/// A TLS 1.3 record with AES-128-GCM; rustls would not make an empty one.
fn record(secrets: &rustls::ConnectionTrafficSecrets, sequence: u64, text: &[u8]) -> Vec<u8> {
    use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
    let rustls::ConnectionTrafficSecrets::Aes128Gcm { key, iv } = secrets else {
        panic!("another cipher");
    };
    let key = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, key.as_ref()).unwrap());
    let mut nonce: [u8; 12] = iv.as_ref().try_into().unwrap();
    for (byte, number) in nonce[4..].iter_mut().zip(sequence.to_be_bytes()) {
        *byte ^= number;
    }
    let mut body = [text, &[23]].concat();
    let length = u16::try_from(body.len() + 16).unwrap().to_be_bytes();
    let header = [23, 3, 3, length[0], length[1]];
    let nonce = Nonce::assume_unique_for_key(nonce);
    key.seal_in_place_append_tag(nonce, Aad::from(header), &mut body)
        .unwrap();
    [&header[..], &body].concat()
}

#[tokio::test]
#[ignore = "needs a kernel with TLS: cargo xtask vm-test"]
async fn the_kernel_reads_empty_short_and_full_records() {
    let identity = identity(&rcgen::PKCS_ECDSA_P256_SHA256);
    let suite = cipher_suite::TLS13_AES_128_GCM_SHA256;
    let mut config = (*client_config(&identity, suite)).clone();
    config.enable_secret_extraction = true;
    let (client, server) = connect(&identity, Arc::new(config)).await;
    let mut server = hand_over(server).await;
    let (mut tcp, connection) = client.into_inner();
    let (mut sequence, secrets) = connection.dangerous_extract_secrets().unwrap().tx;
    let text = pattern(3 * 16_384 + 3);
    let send = async {
        let mut at = 0;
        for len in [0, 1, 0, 16_384, 1, 16_384, 0, 0, 1, 16_384, 0] {
            let record = record(&secrets, sequence, &text[at..at + len]);
            tcp.write_all(&record).await.unwrap();
            sequence += 1;
            at += len;
        }
    };
    let mut received = vec![0; text.len()];
    let ((), read) = tokio::join!(send, server.read_exact(&mut received));
    read.unwrap();
    assert!(received == text);
}
