//! TLS on the public port.

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::process::Command;
use std::task::{Context, Poll};
use std::time::Duration;

use http::StatusCode;
use rustls::crypto::SupportedKxGroup;
use rustls::crypto::aws_lc_rs::kx_group;
use rustls::{HandshakeKind, NamedGroup, ProtocolVersion};
use serde_json::{Value, json};
use testkit::command::{find_program, run_bounded};
use testkit::http::{Call, HttpConnection};
use testkit::net::{Connection, free_port};
use testkit::prelude::*;
use testkit::tls::TlsClient;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;

use crate::reload::change;
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
async fn the_group_against_quantum_computers_is_agreed_on_with_clients_that_have_it() {
    let port = free_port().unwrap();
    let gateway = port_gateway().set("AdminPort", port).spawn().await.unwrap();
    let host = Host::echo().await.unwrap();
    let groups: [(&[&'static dyn SupportedKxGroup], NamedGroup); 4] = [
        (
            &[kx_group::X25519MLKEM768, kx_group::X25519],
            NamedGroup::X25519MLKEM768,
        ),
        // It has to be asked for a share, which costs a round trip.
        (&[kx_group::X25519MLKEM768], NamedGroup::X25519MLKEM768),
        (&[kx_group::X25519], NamedGroup::X25519),
        (&[kx_group::SECP384R1], NamedGroup::secp384r1),
    ];
    for (offered, expected) in groups {
        let endpoint = gateway.tls().with_tls(TlsClient::with_groups(offered));
        let connection = ask(&endpoint).await;
        let group = connection.tls().unwrap().negotiated_key_exchange_group();
        assert_eq!(group.unwrap().name(), expected);
        assert_opens(&endpoint, &port_token(&host)).await;
    }
    // Unless told otherwise, clients of the tests have it, like those of today.
    let connection = ask(&gateway.tls()).await;
    let group = connection.tls().unwrap().negotiated_key_exchange_group();
    assert_eq!(group.unwrap().name(), NamedGroup::X25519MLKEM768);
    ask(&gateway.tls().with_tls(TlsClient::tls12())).await;

    let admin = Endpoint::plain(([127, 0, 0, 1], port).into());
    let metrics = get(&admin, "/metrics").await;
    let metrics = String::from_utf8(metrics.body().to_vec()).unwrap();
    for (version, group, count) in [
        ("TLS 1.3", "X25519MLKEM768", 5),
        ("TLS 1.3", "X25519", 2),
        ("TLS 1.3", "secp384r1", 2),
        ("TLS 1.3", "secp256r1", 0),
        ("TLS 1.2", "X25519", 1),
    ] {
        let name = "flexvdi_gateway_tls_handshakes_total";
        let line = format!("{name}{{version=\"{version}\",group=\"{group}\"}} {count}");
        assert!(
            metrics.lines().any(|found| found == line),
            "{line} in\n{metrics}"
        );
    }
    let status = get(&admin, "/status").await;
    let status: Value = serde_json::from_slice(status.body()).unwrap();
    let of_today = json!({"version": "TLS 1.3", "group": "X25519MLKEM768", "handshakes": 5});
    assert!(
        status["tls"].as_array().unwrap().contains(&of_today),
        "{status}"
    );
}

/// One with a share of ML-KEM fills more than a segment.
#[tokio::test]
async fn a_long_client_hello_may_come_in_pieces_and_records() {
    let gateway = gateway(TestCert::new().unwrap()).await;
    let client = TlsClient::with_groups(&[kx_group::X25519MLKEM768]);
    // Each record has 200 bytes of the handshake at most.
    let endpoint = gateway.tls().with_tls(client.clone().fragments(200));
    ask(&endpoint).await;
    for piece in [1, 700, 1_200] {
        let tcp = gateway.tls().connect_tcp().await.unwrap();
        tcp.set_nodelay(true).unwrap();
        let slow = Slow { tcp, piece };
        let shaken = client.handshake(slow).await.unwrap();
        let group = shaken.get_ref().1.negotiated_key_exchange_group();
        assert_eq!(group.unwrap().name(), NamedGroup::X25519MLKEM768, "{piece}");
    }
}

/// Writes so many bytes at a time, each in a segment of its own.
struct Slow {
    tcp: TcpStream,
    piece: usize,
}

impl AsyncRead for Slow {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_read(context, buffer)
    }
}

impl AsyncWrite for Slow {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let len = bytes.len().min(self.piece);
        Pin::new(&mut self.tcp).poll_write(context, &bytes[..len])
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(context)
    }
}

#[tokio::test]
async fn the_profile_decides_about_versions_and_changes_without_a_restart() {
    let modern = port_gateway().set("TlsProfile", "modern");
    let gateway = modern.spawn().await.unwrap();
    ask(&gateway.tls().with_tls(TlsClient::tls13())).await;
    let old = gateway.tls().with_tls(TlsClient::tls12());
    let error = format!("{:#}", old.connect().await.unwrap_err());
    assert!(error.contains("ProtocolVersion"), "{error}");
    let told = change(&gateway, &[("TlsProfile", json!("intermediate"))]).await;
    let changed = r#"TlsProfile \"modern\" -> \"intermediate\""#;
    assert!(told.contains(changed), "{told}");
    ask(&old).await;
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
