//! TLS on the public port.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use http::StatusCode;
use rustls::{HandshakeKind, ProtocolVersion};
use testkit::command::{find_program, run_bounded};
use testkit::http::{Call, HttpConnection};
use testkit::net::Connection;
use testkit::prelude::*;
use testkit::tls::TlsClient;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{assert_error, assert_opens, get, port_gateway, port_token};

/// A gateway with this certificate.
async fn gateway(cert: TestCert) -> Gateway {
    port_gateway().cert(cert).spawn().await.unwrap()
}

fn versions() -> [(TlsClient, ProtocolVersion); 2] {
    [
        (TlsClient::tls12(), ProtocolVersion::TLSv1_2),
        (TlsClient::tls13(), ProtocolVersion::TLSv1_3),
    ]
}

/// Asks for a page that does not exist, and returns what TLS agreed on.
async fn ask(endpoint: &Endpoint) -> Connection {
    let mut connection = endpoint.connect().await.unwrap();
    connection
        .write_all(b"GET / HTTP/1.1\r\nHost: gw\r\n\r\n")
        .await
        .unwrap();
    connection.flush().await.unwrap();
    let mut answer = [0; 12];
    within("answer", connection.read_exact(&mut answer))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&answer, b"HTTP/1.1 404");
    connection
}

#[tokio::test]
async fn every_kind_of_key_is_served_with_both_versions() {
    let builder = TestCert::builder;
    for cert in [
        builder(),
        builder().rsa(),
        builder().chain(),
        builder().rsa().chain(),
    ] {
        let cert = cert.build().unwrap();
        let root = cert.root().clone();
        let host = Host::echo().await.unwrap();
        let gateway = gateway(cert).await;
        for (client, version) in versions() {
            let endpoint = gateway.tls().with_tls(client);
            let connection = ask(&endpoint).await;
            assert_eq!(connection.tls().unwrap().protocol_version(), Some(version));
            assert_opens(&endpoint, &port_token(&host)).await;
        }
        // Who knows only the root needs the intermediate from the gateway.
        let trusting = TlsClient::trusting(&root).unwrap();
        ask(&gateway.tls().with_tls(trusting)).await;
    }
}

#[tokio::test]
async fn certificate_and_key_may_be_one_file() {
    let cert = TestCert::builder().chain().build().unwrap();
    let read = |path: &Path| std::fs::read_to_string(path).unwrap();
    let (chain, key) = (read(&cert.cert_path()), read(&cert.key_path()));
    let root = cert.root().clone();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("flexvdi-agent");
    for content in [
        format!("{chain}{key}"),
        format!("{key}{chain}"),
        format!("Bag Attributes\n  friendlyName: gateway\n{key}\nsubject=CN = gateway\n{chain}"),
        format!("{chain}{key}").replace('\n', "\r\n"),
    ] {
        std::fs::write(&path, content).unwrap();
        let gateway = port_gateway()
            .set("CertFile", path.to_str().unwrap())
            .set("KeyFile", path.to_str().unwrap());
        let gateway = gateway.spawn().await.unwrap();
        let trusting = TlsClient::trusting(&root).unwrap();
        ask(&gateway.tls().with_tls(trusting)).await;
    }
}

#[tokio::test]
#[cfg_attr(
    unprivileged,
    ignore = "needs programs that only root may install: cargo xtask test"
)]
async fn keys_in_older_formats_are_read() {
    let openssl = find_program("openssl").expect("no openssl: run `apt-get install -y openssl`");
    for (cert, begin) in [
        (TestCert::builder().rsa(), "-----BEGIN RSA PRIVATE KEY-----"),
        (TestCert::builder(), "-----BEGIN EC PRIVATE KEY-----"),
    ] {
        let cert = cert.build().unwrap();
        let mut convert = Command::new(&openssl);
        convert
            .args(["pkey", "-traditional", "-in"])
            .arg(cert.key_path());
        let key = run_bounded(convert, Duration::from_secs(30)).unwrap();
        assert!(key.contains(begin));
        std::fs::write(cert.key_path(), key).unwrap();
        ask(&gateway(cert).await.tls()).await;
    }
}

#[tokio::test]
async fn sessions_are_resumed_with_both_versions() {
    let gateway = gateway(TestCert::new().unwrap()).await;
    for (client, version) in versions() {
        let endpoint = gateway.tls().with_tls(client.resuming());
        let kinds = [
            HandshakeKind::Full,
            HandshakeKind::Resumed,
            HandshakeKind::Resumed,
        ];
        for expected in kinds {
            let connection = ask(&endpoint).await;
            let tls = connection.tls().unwrap();
            assert_eq!(tls.handshake_kind(), Some(expected), "{version:?}");
        }
    }
}

#[tokio::test]
async fn a_resumed_connection_carries_channels() {
    let host = Host::echo().await.unwrap();
    let gateway = gateway(TestCert::new().unwrap()).await;
    for (client, _) in versions() {
        let endpoint = gateway.tls().with_tls(client.resuming());
        for _ in 0..3 {
            assert_opens(&endpoint, &port_token(&host)).await;
        }
    }
}

#[tokio::test]
async fn the_versions_1_of_http_are_the_only_application_protocols() {
    let gateway = gateway(TestCert::new().unwrap()).await;
    for (offered, chosen) in [
        (&[][..], None),
        (&["http/1.1"][..], Some("http/1.1")),
        (&["h2", "http/1.1"][..], Some("http/1.1")),
        (&["http/1.0"][..], Some("http/1.0")),
        (&["http/1.0", "http/1.1"][..], Some("http/1.1")),
    ] {
        let endpoint = gateway.tls().with_tls(TlsClient::new().alpn(offered));
        let connection = ask(&endpoint).await;
        let protocol = connection.tls().unwrap().alpn_protocol();
        assert_eq!(protocol, chosen.map(str::as_bytes));
    }
    for (client, version) in versions() {
        let endpoint = gateway.tls().with_tls(client.alpn(&["h2"]));
        let error = endpoint.connect().await.unwrap_err();
        let error = format!("{error:#}");
        assert!(
            error.contains("NoApplicationProtocol"),
            "{version:?}: {error}"
        );
    }
}

#[tokio::test]
async fn any_server_name_will_do() {
    let gateway = gateway(TestCert::new().unwrap()).await;
    for name in ["vdi.example", "192.0.2.1", "2001:db8::1"] {
        let client = TlsClient::new().server_name(name).unwrap();
        ask(&gateway.tls().with_tls(client)).await;
    }
}

#[tokio::test]
async fn connections_end_with_close_notify() {
    let gateway = gateway(TestCert::new().unwrap()).await;
    for (client, _) in versions() {
        let endpoint = gateway.tls().with_tls(client);
        let request = b"GET / HTTP/1.1\r\nHost: gw\r\nConnection: close\r\n\r\n";
        let (_, end) = testkit::http::exchange(&endpoint, request).await.unwrap();
        assert_eq!(end, testkit::net::StreamEnd::Closed);
    }
}

#[tokio::test]
async fn a_failed_handshake_harms_nobody_else() {
    let gateway = gateway(TestCert::new().unwrap()).await;
    let mut kept = HttpConnection::open(&gateway.tls()).await.unwrap();
    let stranger = TestCert::new().unwrap();
    let distrusting = TlsClient::trusting(stranger.root()).unwrap();
    for client in [distrusting, TlsClient::new().alpn(&["h2"])] {
        assert!(gateway.tls().with_tls(client).connect().await.is_err());
    }
    let call = Call::get(&gateway.tls(), "/").into_request();
    let response = kept.send(call).await.unwrap();
    assert_error(&response, StatusCode::NOT_FOUND);
    assert_error(&get(&gateway.tls(), "/").await, StatusCode::NOT_FOUND);
}
