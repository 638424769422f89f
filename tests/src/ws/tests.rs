use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::{accept_async, accept_hdr_async};
use tungstenite::Message;
use tungstenite::handshake::server::{ErrorResponse, Request, Response};

use super::*;
use crate::host::Host;
use crate::net::StreamEnd;
use crate::pattern::{DOWNLINK, UPLINK, write_pattern};
use crate::spice::{ChannelType, link_message};
use crate::tls::TlsClient;

/// A WebSocket server that returns every message until it is closed.
async fn echo_server() -> Host<()> {
    Host::spawn(|stream| async move {
        let mut socket = accept_async(stream).await?;
        while let Some(message) = socket.next().await {
            let message = message?;
            if message.is_binary() {
                socket.send(message).await?;
            }
        }
        Ok(())
    })
    .await
    .unwrap()
}

#[tokio::test]
async fn a_whole_client_opens_a_websocket() {
    let server = echo_server().await;
    let endpoint = Endpoint::plain(server.addr());
    let mut socket = Connect::new(&endpoint, "t")
        .open()
        .await
        .unwrap()
        .opened()
        .unwrap();
    socket
        .send(Message::binary(b"hello".to_vec()))
        .await
        .unwrap();
    let back = socket.next().await.unwrap().unwrap();
    assert_eq!(back.into_data(), b"hello"[..]);
    socket.close(None).await.unwrap();
    server.outcome().await.unwrap();
}

#[tokio::test]
async fn refusals_are_returned_whole() {
    let server = Host::spawn(|stream| async move {
        #[expect(clippy::result_large_err, reason = "the type is the library's")]
        let refuse = |request: &Request, _: Response| -> Result<Response, ErrorResponse> {
            assert_eq!(request.uri(), "/?ver=2&token=wrong");
            assert_eq!(request.headers()["host"], "gateway.example");
            assert_eq!(request.headers()["x-more"], "1");
            let refusal = ::http::Response::builder()
                .status(403)
                .header("content-length", "5");
            Err(refusal.body(Some("wrong".to_owned())).unwrap())
        };
        assert!(accept_hdr_async(stream, refuse).await.is_err());
        Ok(())
    })
    .await
    .unwrap();
    let refusal = Connect::new(&Endpoint::plain(server.addr()), "wrong")
        .header("Host", "gateway.example")
        .header("X-More", "1")
        .open()
        .await
        .unwrap()
        .refused()
        .unwrap();
    assert_eq!(refusal.status(), StatusCode::FORBIDDEN);
    assert_eq!(refusal.body(), "wrong");
    server.outcome().await.unwrap();
}

#[tokio::test]
async fn subprotocols_must_be_chosen_as_offered() {
    let server = Host::spawn(|stream| async move {
        #[expect(clippy::result_large_err, reason = "the type is the library's")]
        let choose = |_: &Request, mut response: Response| -> Result<Response, ErrorResponse> {
            let binary = HeaderValue::from_static("binary");
            response
                .headers_mut()
                .insert(SEC_WEBSOCKET_PROTOCOL, binary);
            Ok(response)
        };
        let _ = accept_hdr_async(stream, choose).await?;
        Ok(())
    })
    .await
    .unwrap();
    let endpoint = Endpoint::plain(server.addr());
    let offered = Connect::new(&endpoint, "t")
        .subprotocol("binary")
        .open()
        .await;
    offered.unwrap().opened().unwrap();
    let error = Connect::new(&endpoint, "t").open().await.unwrap_err();
    assert!(
        error.to_string().contains("unsupported protocol"),
        "{error}"
    );
}

#[tokio::test]
async fn a_raw_client_sees_every_frame() {
    let server = echo_server().await;
    let endpoint = Endpoint::plain(server.addr());
    let mut client = RawClient::open(&endpoint, "/?token=t").await.unwrap();
    let halves = [
        Frame::binary(*b"he").unfinished(),
        Frame::new(Opcode::PING, *b"p"),
        Frame::new(Opcode::CONTINUATION, *b"llo"),
    ];
    for frame in &halves {
        client.send_frame(frame).await.unwrap();
    }
    let pong = client.read_frame().await.unwrap();
    assert_eq!((pong.opcode, pong.mask), (Opcode::PONG, None));
    assert_eq!(client.read_frame().await.unwrap().payload, b"hello");
    client.send_frame(&Frame::close(1000)).await.unwrap();
    client.expect_close(1000).await.unwrap();
    assert_eq!(client.expect_end().await.unwrap(), StreamEnd::Closed);
    server.outcome().await.unwrap();
}

#[tokio::test]
async fn a_raw_client_can_reset() {
    let server = echo_server().await;
    let endpoint = Endpoint::plain(server.addr());
    let client = RawClient::open(&endpoint, "/").await.unwrap();
    client.reset().unwrap();
    let error = server.outcome().await.unwrap_err();
    assert!(format!("{error:#}").contains("reset"), "{error:#}");
}

#[tokio::test]
async fn a_channel_is_a_byte_stream() {
    let server = echo_server().await;
    let endpoint = Endpoint::plain(server.addr());
    let link = link_message(ChannelType::Main, 0);
    let channel = channel(&endpoint, "t", &link).await.unwrap();
    let (mut reader, mut writer) = tokio::io::split(channel);
    let mut first = vec![0; link.len()];
    reader.read_exact(&mut first).await.unwrap();
    assert_eq!(first, link);

    let write = write_pattern(&mut writer, UPLINK, 0, 3_000_000);
    let mut back = vec![0; 3_000_000];
    let read = reader.read_exact(&mut back);
    let (written, read) = tokio::join!(write, read);
    written.unwrap();
    read.unwrap();
    UPLINK.check(0, &back).unwrap();
    assert!(DOWNLINK.check(0, &back).is_err());

    let mut channel = reader.unsplit(writer);
    channel.shutdown().await.unwrap();
    assert_eq!(channel.read(&mut back).await.unwrap(), 0);
    assert_eq!(channel.close_code(), Some(1000));
    server.outcome().await.unwrap();
}

#[tokio::test]
async fn tls_versions_and_resumption_are_chosen() {
    let cert = crate::cert::TestCert::builder().chain().build().unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(cert.server_config().unwrap());
    let server = Host::spawn(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            let mut socket = accept_async(acceptor.accept(stream).await?).await?;
            while let Some(message) = socket.next().await {
                socket.send(message?).await?;
            }
            Ok(())
        }
    })
    .await
    .unwrap();

    for (tls, resumed) in [
        (TlsClient::tls12().resuming(), true),
        (TlsClient::tls13().resuming(), true),
        (TlsClient::tls13(), false),
        (TlsClient::trusting(cert.root()).unwrap(), false),
    ] {
        let endpoint = Endpoint::plain(server.addr()).with_tls(tls);
        for attempt in [false, true] {
            let mut client = RawClient::open(&endpoint, "/").await.unwrap();
            // The server's tickets come with its first bytes at the latest.
            client.send_frame(&Frame::binary(*b"x")).await.unwrap();
            client.read_frame().await.unwrap();
            let session = client.connection().tls().unwrap();
            let kind = session.handshake_kind().unwrap();
            assert_eq!(kind == rustls::HandshakeKind::Resumed, attempt && resumed);
        }
    }
    let other = crate::cert::TestCert::new().unwrap();
    let distrusting = TlsClient::trusting(other.root()).unwrap();
    let endpoint = Endpoint::plain(server.addr()).with_tls(distrusting);
    assert!(endpoint.connect().await.is_err());
}
