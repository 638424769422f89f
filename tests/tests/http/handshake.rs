//! The opening handshake of WebSockets, and the connection to the host that it waits for.

use std::time::{Duration, Instant};

use http::StatusCode;
use http::header::{ALLOW, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE};
use testkit::host::Unresponsive;
use testkit::prelude::*;
use testkit::ws::{Connect, Frame, Head, Opcode, RawClient, handshake_request};
use tokio::net::TcpSocket;

use crate::support::{
    Stage, assert_error, assert_opens, logged, port_gateway, port_token, refused,
};

const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// A gateway without hijacking, a host that echoes, and its port as a token.
async fn stage() -> (Gateway, Host<Vec<u8>>, String) {
    let host = Host::echo().await.unwrap();
    let gateway = port_gateway().spawn().await.unwrap();
    let token = port_token(&host);
    (gateway, host, token)
}

async fn send(endpoint: &Endpoint, request: &str) -> (Head, RawClient) {
    let mut client = RawClient::connect(endpoint).await.unwrap();
    client.send_raw(request.as_bytes()).await.unwrap();
    let head = client.read_head().await.unwrap();
    (head, client)
}

/// Sends a link message and reads it back from a host that echoes.
async fn echo_link(client: &mut RawClient) {
    let link = link_message(ChannelType::Main, 0);
    client
        .send_frame(&Frame::binary(link.clone()))
        .await
        .unwrap();
    let frame = client.read_frame().await.unwrap();
    assert_eq!((frame.opcode, frame.payload), (Opcode::BINARY, link));
}

/// A correct handshake with one line changed.
fn changed(token: &str, from: &str, to: &str) -> String {
    let request = handshake_request(&format!("/?ver=2&token={token}"), "gw", "");
    assert!(request.contains(from), "{from}");
    request.replacen(from, to, 1)
}

#[tokio::test]
async fn the_flexvdi_clients_request_is_accepted() {
    let (gateway, _host, token) = stage().await;
    let request = format!(
        "GET /?ver=2&token={token} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n\
         Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Version: 13\r\n\r\n"
    );
    let (head, mut client) = send(&gateway.tls(), &request).await;
    assert_eq!(head.status, StatusCode::SWITCHING_PROTOCOLS);
    assert_eq!(head.headers["sec-websocket-accept"], ACCEPT);
    assert_eq!(head.headers["upgrade"], "websocket");
    assert!(
        head.headers["connection"]
            .to_str()
            .unwrap()
            .eq_ignore_ascii_case("upgrade")
    );
    for refused in [
        "sec-websocket-protocol",
        "sec-websocket-extensions",
        "content-length",
    ] {
        assert!(!head.headers.contains_key(refused), "{refused}");
    }
    echo_link(&mut client).await;
}

#[tokio::test]
async fn chromiums_request_is_accepted() {
    let (gateway, _host, token) = stage().await;
    let request = format!(
        "GET /?ver=2&token={token} HTTP/1.1\r\nHost: vdi.example\r\nConnection: Upgrade\r\n\
         Pragma: no-cache\r\nCache-Control: no-cache\r\n\
         User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0.0.0 Safari/537.36\r\n\
         Upgrade: websocket\r\nOrigin: https://vdi.example\r\nSec-WebSocket-Version: 13\r\n\
         Accept-Encoding: gzip, deflate, br\r\nAccept-Language: en-US,en;q=0.9\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\
         Sec-WebSocket-Protocol: binary\r\n\r\n"
    );
    let (head, mut client) = send(&gateway.tls(), &request).await;
    assert_eq!(head.status, StatusCode::SWITCHING_PROTOCOLS);
    assert_eq!(head.headers["sec-websocket-accept"], ACCEPT);
    assert_eq!(head.headers[SEC_WEBSOCKET_PROTOCOL], "binary");
    assert!(!head.headers.contains_key("sec-websocket-extensions"));
    echo_link(&mut client).await;
}

#[tokio::test]
async fn bytes_right_behind_the_request_are_not_lost() {
    let (gateway, host, token) = stage().await;
    let link = link_message(ChannelType::Main, 0);
    let mut bytes = handshake_request(&format!("/?token={token}"), "gw", "").into_bytes();
    bytes.extend(Frame::binary(link.clone()).encode());
    let mut client = RawClient::connect(&gateway.tls()).await.unwrap();
    client.send_raw(&bytes).await.unwrap();
    assert_eq!(client.read_head().await.unwrap().status, 101);
    assert_eq!(client.read_frame().await.unwrap().payload, link);
    assert_eq!(host.received(), [link]);
}

#[tokio::test]
async fn the_subprotocol_is_answered_exactly_when_offered() {
    let (gateway, _host, token) = stage().await;
    for (offered, answered) in [
        ("binary", Some("binary")),
        ("base64, binary", Some("binary")),
        ("binary\r\nSec-WebSocket-Protocol: base64", Some("binary")),
        ("base64", None),
        ("binary2", None),
    ] {
        let more = format!("Sec-WebSocket-Protocol: {offered}\r\n");
        let request = handshake_request(&format!("/?token={token}"), "gw", &more);
        let (head, _) = send(&gateway.tls(), &request).await;
        assert_eq!(head.status, StatusCode::SWITCHING_PROTOCOLS);
        let answer = head.headers.get(SEC_WEBSOCKET_PROTOCOL);
        assert_eq!(
            answer.map(|value| value.to_str().unwrap()),
            answered,
            "{offered}"
        );
    }
}

#[tokio::test]
async fn any_spelling_of_the_headers_will_do() {
    let (gateway, _host, token) = stage().await;
    for (from, to) in [
        ("Connection: Upgrade", "connection: keep-alive, Upgrade"),
        (
            "Connection: Upgrade",
            "Connection: keep-alive\r\nConnection: upgrade",
        ),
        ("Upgrade: websocket", "UPGRADE: WebSocket"),
        ("Sec-WebSocket-Key", "sec-websocket-key"),
    ] {
        let (head, _) = send(&gateway.tls(), &changed(&token, from, to)).await;
        assert_eq!(head.status, StatusCode::SWITCHING_PROTOCOLS, "{to}");
    }
}

#[tokio::test]
async fn wrong_handshakes_are_refused() {
    let (gateway, host, token) = stage().await;
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    for (from, to, status) in [
        ("Version: 13", "Version: 8", 426),
        ("Version: 13", "Version: 14", 426),
        ("Sec-WebSocket-Version: 13\r\n", "", 426),
        ("Upgrade: websocket\r\n", "", 426),
        ("Upgrade: websocket", "Upgrade: h2c", 426),
        (key, "", 400),
        (key, "Sec-WebSocket-Key: c2hvcnQ=\r\n", 400),
        (key, "Sec-WebSocket-Key: ????????????????????????\r\n", 400),
        ("Connection: Upgrade\r\n", "", 400),
        ("Connection: Upgrade", "Connection: keep-alive", 400),
        ("HTTP/1.1", "HTTP/1.0", 400),
        ("GET", "POST", 405),
        ("GET", "PUT", 405),
    ] {
        let (head, mut client) = send(&gateway.tls(), &changed(&token, from, to)).await;
        assert_eq!(head.status.as_u16(), status, "{from} -> {to}");
        let length = head.headers["content-length"].to_str().unwrap();
        let body = client.read_exact(length.parse().unwrap()).await.unwrap();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["status"], "Error");
        match status {
            405 => assert_eq!(head.headers[ALLOW], "GET"),
            426 => {
                assert_eq!(head.headers[UPGRADE], "websocket");
                assert_eq!(head.headers[SEC_WEBSOCKET_VERSION], "13");
            }
            _ => {}
        }
    }
    assert_eq!(host.accepted(), 0);
}

#[tokio::test]
async fn head_is_not_a_get() {
    let (gateway, host, token) = stage().await;
    let (head, _) = send(&gateway.tls(), &changed(&token, "GET", "HEAD")).await;
    assert_eq!(head.status, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(host.accepted(), 0);
}

#[tokio::test]
async fn any_path_will_do_even_the_managers() {
    let stage = Stage::new().await;
    let ticket = stage.ticket().await;
    let asked = stage.manager.requests().len();
    for path in ["/", "/websockify", "/a/b.c", "/vdi/", "/vdi/socket", "//"] {
        let target = format!("{path}?ver=2&token={ticket}");
        let mut client = RawClient::open(&stage.gateway.tls(), &target)
            .await
            .unwrap();
        echo_link(&mut client).await;
    }
    assert_eq!(stage.manager.requests().len(), asked);
    // Without a token such a path is the manager's.
    let outcome = Connect::to(&stage.gateway.tls(), "/vdi/socket?ver=2")
        .open()
        .await;
    assert_eq!(
        outcome.unwrap().refused().unwrap().status(),
        StatusCode::NOT_FOUND
    );
    assert_eq!(stage.manager.requests().len(), asked + 1);
}

#[tokio::test]
async fn a_host_that_refuses_is_502() {
    let gateway = port_gateway().spawn().await.unwrap();
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let address = socket.local_addr().unwrap();
    let response = refused(&gateway.tls(), &address.port().to_string()).await;
    let message = assert_error(&response, StatusCode::BAD_GATEWAY);
    assert!(!message.contains("127.0.0.1"), "{message}");
    let line = logged(&gateway, &["host not reached", "refused"]).await;
    assert!(line.contains(&format!("host={address}")), "{line}");
}

#[tokio::test]
async fn a_host_that_does_not_answer_is_504() {
    let off = Unresponsive::new().await.unwrap();
    let gateway = port_gateway()
        .set("ConnectTimeout", 1)
        .spawn()
        .await
        .unwrap();
    let begun = Instant::now();
    let port = off.addr().unwrap().port().to_string();
    let response = refused(&gateway.tls(), &port).await;
    assert_error(&response, StatusCode::GATEWAY_TIMEOUT);
    assert!(begun.elapsed() >= Duration::from_secs(1));
    logged(&gateway, &["host not reached", "no connection within 1 s"]).await;
}

#[tokio::test]
async fn a_host_whose_name_is_unknown_is_502() {
    let gateway = port_gateway().set("SpiceHost", "no-such-host.invalid");
    let gateway = gateway.spawn().await.unwrap();
    let response = refused(&gateway.tls(), "5900").await;
    assert_error(&response, StatusCode::BAD_GATEWAY);
}

#[tokio::test]
async fn the_spice_host_may_be_elsewhere() {
    let host = Host::echo().await.unwrap();
    for name in ["localhost", "127.0.0.1", "::ffff:127.0.0.1"] {
        let gateway = port_gateway().set("SpiceHost", name);
        let gateway = gateway.spawn().await.unwrap();
        assert_opens(&gateway.tls(), &port_token(&host)).await;
    }
}

#[tokio::test]
async fn a_refused_client_may_try_again_on_its_connection() {
    let (gateway, _host, token) = stage().await;
    let wrong = handshake_request("/?token=0", "gw", "");
    let (head, mut client) = send(&gateway.tls(), &wrong).await;
    assert_eq!(head.status, StatusCode::FORBIDDEN);
    let length = head.headers["content-length"].to_str().unwrap();
    client.read_exact(length.parse().unwrap()).await.unwrap();
    let right = handshake_request(&format!("/?token={token}"), "gw", "");
    client.send_raw(right.as_bytes()).await.unwrap();
    assert_eq!(client.read_head().await.unwrap().status, 101);
    echo_link(&mut client).await;
}

#[tokio::test]
async fn the_plaintext_port_does_the_same() {
    let host = Host::echo().await.unwrap();
    let gateway = port_gateway().plain().spawn().await.unwrap();
    assert_opens(&gateway.plain(), &port_token(&host)).await;
}

#[tokio::test]
async fn a_handshake_with_a_body_is_400() {
    let (gateway, host, token) = stage().await;
    for (line, body) in [
        ("Content-Length: 5\r\n", "REDQx"),
        ("Transfer-Encoding: chunked\r\n", "5\r\nREDQx\r\n0\r\n\r\n"),
    ] {
        let request = handshake_request(&format!("/?token={token}"), "gw", line);
        let (head, _client) = send(&gateway.tls(), &(request + body)).await;
        assert_eq!(head.status, StatusCode::BAD_REQUEST);
    }
    assert_eq!(host.accepted(), 0);
    let request = handshake_request(&format!("/?token={token}"), "gw", "Content-Length: 0\r\n");
    let list = request.replace("Upgrade: websocket", "Upgrade: h2c, websocket");
    let (head, mut client) = send(&gateway.tls(), &list).await;
    assert_eq!(head.status, 101);
    echo_link(&mut client).await;
}

#[tokio::test]
async fn web_pages_of_others_do_not_reach_a_port() {
    let host = Host::echo().await.unwrap();
    let gateway = port_gateway()
        .set("AllowedOrigins", vec!["https://portal.example"])
        .spawn()
        .await
        .unwrap();
    let target = format!("/?token={}", port_token(&host));
    for (origin, status) in [
        ("https://evil.example", StatusCode::FORBIDDEN),
        ("null", StatusCode::FORBIDDEN),
        ("http://vdi.example:8443", StatusCode::FORBIDDEN),
        ("https://vdi.example", StatusCode::FORBIDDEN),
        ("https://vdi.example:8443", StatusCode::SWITCHING_PROTOCOLS),
        ("https://portal.example", StatusCode::SWITCHING_PROTOCOLS),
    ] {
        let line = format!("Origin: {origin}\r\n");
        let request = handshake_request(&target, "vdi.example:8443", &line);
        let (head, _client) = send(&gateway.tls(), &request).await;
        assert_eq!(head.status, status, "{origin}");
        // The refused ones come first.
        assert!(status != StatusCode::FORBIDDEN || host.accepted() == 0);
    }
    logged(
        &gateway,
        &[
            "WebSocket refused",
            "AllowedOrigins",
            "https://evil.example",
        ],
    )
    .await;
}

#[tokio::test]
async fn a_ticket_is_good_for_any_web_page_unless_some_are_listed() {
    for (allowed, status) in [
        (vec![], StatusCode::SWITCHING_PROTOCOLS),
        (vec!["https://portal.example"], StatusCode::FORBIDDEN),
    ] {
        let stage = Stage::with(|gateway| gateway.set("AllowedOrigins", allowed)).await;
        let target = format!("/?token={}", stage.ticket().await);
        let page = "Origin: https://evil.example\r\n";
        let request = handshake_request(&target, "vdi.example", page);
        let (head, _client) = send(&stage.gateway.tls(), &request).await;
        assert_eq!(head.status, status);
    }
}
