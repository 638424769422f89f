//! The gateway's own record layer.

use std::io;
use std::sync::Arc;

use gateway_datapath::tls;
use rustls::crypto::aws_lc_rs::{ALL_CIPHER_SUITES, cipher_suite};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;

use crate::{
    client_config, connect, exchange_both_ways, identity, identity_for, pattern, tcp_pair,
};

#[tokio::test]
async fn every_suite_carries_both_directions() {
    for suite in ALL_CIPHER_SUITES {
        let identity = identity_for(*suite);
        let client = client_config(&identity, *suite);
        let (client, server) = connect(&identity, client).await;
        exchange_both_ways(client, server, *suite).await;
    }
}

#[tokio::test]
async fn records_of_every_small_size_and_around_the_limit() {
    let identity = identity(&rcgen::PKCS_ECDSA_P256_SHA256);
    for suite in [
        cipher_suite::TLS13_AES_128_GCM_SHA256,
        cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    ] {
        let (mut client, mut server) = connect(&identity, client_config(&identity, suite)).await;
        for len in (1..300).chain([16_383, 16_384, 16_385, 65_535, 65_536, 65_537, 200_000]) {
            let sent = pattern(len);
            let mut received = vec![0; len];
            let (wrote, read) = tokio::join!(
                async {
                    server.write_all(&sent).await?;
                    server.flush().await
                },
                client.read_exact(&mut received)
            );
            wrote.unwrap();
            read.unwrap();
            assert!(received == sent, "downlink of {len}");
            let (wrote, read) = tokio::join!(
                async {
                    client.write_all(&sent).await?;
                    client.flush().await
                },
                server.read_exact(&mut received)
            );
            wrote.unwrap();
            read.unwrap();
            assert!(received == sent, "uplink of {len}");
        }
    }
}

#[tokio::test]
async fn key_updates_of_the_client_are_followed_and_answered() {
    let identity = identity(&rcgen::PKCS_ECDSA_P256_SHA256);
    let suite = cipher_suite::TLS13_AES_256_GCM_SHA384;
    let (mut client, mut server) = connect(&identity, client_config(&identity, suite)).await;
    for round in 0..5_u8 {
        client.get_mut().1.refresh_traffic_keys().unwrap();
        client.write_all(&[round; 100]).await.unwrap();
        client.flush().await.unwrap();
        let mut bytes = [0; 100];
        server.read_exact(&mut bytes).await.unwrap();
        assert_eq!(bytes, [round; 100]);
        server.write_all(&bytes).await.unwrap();
        server.flush().await.unwrap();
        client.read_exact(&mut bytes).await.unwrap();
        assert_eq!(bytes, [round; 100]);
    }
}

#[tokio::test]
async fn sessions_are_resumed() {
    let identity = identity(&rcgen::PKCS_ECDSA_P256_SHA256);
    for suite in [
        cipher_suite::TLS13_AES_128_GCM_SHA256,
        cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    ] {
        let config = client_config(&identity, suite);
        let mut kinds = Vec::new();
        for _ in 0..2 {
            let (mut client, mut server) = connect(&identity, Arc::clone(&config)).await;
            // The tickets of TLS 1.3 come behind the handshake.
            server.write_all(b"x").await.unwrap();
            server.flush().await.unwrap();
            client.read_exact(&mut [0]).await.unwrap();
            kinds.push(client.get_ref().1.handshake_kind().unwrap());
        }
        assert_eq!(
            kinds,
            [rustls::HandshakeKind::Full, rustls::HandshakeKind::Resumed]
        );
    }
}

#[tokio::test]
async fn the_end_of_tcp_differs_from_close_notify() {
    let identity = identity(&rcgen::PKCS_ECDSA_P256_SHA256);
    let suite = cipher_suite::TLS13_AES_128_GCM_SHA256;
    let (mut client, mut server) = connect(&identity, client_config(&identity, suite)).await;
    client.write_all(b"last").await.unwrap();
    client.shutdown().await.unwrap();
    let mut received = Vec::new();
    server.read_to_end(&mut received).await.unwrap();
    assert_eq!(received, b"last");
    // Half-closed: the other direction goes on.
    server.write_all(b"answer").await.unwrap();
    server.shutdown().await.unwrap();
    let mut received = Vec::new();
    client.read_to_end(&mut received).await.unwrap();
    assert_eq!(received, b"answer");

    let (client, mut server) = connect(&identity, client_config(&identity, suite)).await;
    drop(client);
    let error = server.read(&mut [0; 16]).await.unwrap_err();
    assert!(matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset
    ));
}

/// Sends raw bytes behind a handshake; gives what the server says of them, and the alert that
/// the client gets.
async fn fault(record: &[u8]) -> (io::Error, Option<rustls::Error>) {
    let identity = identity(&rcgen::PKCS_ECDSA_P256_SHA256);
    let suite = cipher_suite::TLS13_AES_128_GCM_SHA256;
    let (mut client, mut server) = connect(&identity, client_config(&identity, suite)).await;
    client.get_mut().0.write_all(record).await.unwrap();
    let mut space = [0; 16];
    // The server waits until the client has ended its side.
    let listen = async move {
        let told = client.read(&mut [0; 16]).await.unwrap_err();
        drop(client);
        told
    };
    let (error, told) = tokio::join!(server.read(&mut space), listen);
    let error = error.unwrap_err();
    let told = told
        .into_inner()
        .and_then(|e| e.downcast::<rustls::Error>().ok());
    (error, told.map(|boxed| *boxed))
}

#[tokio::test]
async fn faults_are_told_by_alerts() {
    use rustls::AlertDescription as Alert;
    let long = {
        let mut record = vec![23, 3, 3, 0x41, 0x01];
        record.resize(5 + 0x4101, 0);
        record
    };
    for (record, alert) in [
        (
            &[
                23, 3, 3, 0, 20, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0,
            ][..],
            Alert::BadRecordMac,
        ),
        (&long, Alert::RecordOverflow),
        (&[20, 3, 3, 0, 1, 1], Alert::UnexpectedMessage),
        (
            &[
                22, 3, 3, 0, 20, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0,
            ],
            Alert::UnexpectedMessage,
        ),
    ] {
        let (error, told) = fault(record).await;
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert_eq!(told, Some(rustls::Error::AlertReceived(alert)));
    }
}

#[tokio::test]
async fn a_client_that_does_not_agree_gets_an_alert() {
    let identity = identity(&rcgen::PKCS_ECDSA_P256_SHA256);
    let suite = cipher_suite::TLS13_AES_128_GCM_SHA256;
    let mut config = (*client_config(&identity, suite)).clone();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let (near, far) = tcp_pair().await;
    let name = ServerName::try_from("gateway.test").unwrap();
    let (client, server) = tokio::join!(
        TlsConnector::from(Arc::new(config)).connect(name, near),
        tls::accept(far, Arc::clone(&identity.server))
    );
    assert!(server.is_err());
    let error = client.unwrap_err().into_inner().unwrap();
    assert_eq!(
        *error.downcast::<rustls::Error>().unwrap(),
        rustls::Error::AlertReceived(rustls::AlertDescription::NoApplicationProtocol)
    );
}
