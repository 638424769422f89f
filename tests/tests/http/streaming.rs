//! Requests and answers on their way through: streamed, framed and kept alive.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{Method, Response, StatusCode};
use http_body_util::BodyExt;
use testkit::http::{Call, HttpConnection, exchange};
use testkit::manager::{RawManager, chunked, full, streamed};
use testkit::net::StreamEnd;
use testkit::pattern::{DOWNLINK, UPLINK};
use testkit::prelude::*;
use testkit::ws::RawClient;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc};
use tokio_rustls::TlsAcceptor;

const MIB: usize = 1 << 20;

async fn gateway(manager: &Manager) -> Gateway {
    let gateway = Gateway::builder().manager(manager);
    gateway.spawn().await.unwrap()
}

#[tokio::test]
async fn an_answer_flows_before_it_has_ended() {
    let seen = Arc::new(Notify::new());
    let wait_until_seen = seen.clone();
    let manager = Manager::with_handler(move |_| {
        let seen = wait_until_seen.clone();
        async move {
            let (sender, body) = streamed();
            tokio::spawn(async move {
                sender.data("first ").await;
                seen.notified().await;
                sender.data("second").await;
            });
            Response::new(body)
        }
    })
    .await
    .unwrap();
    let gateway = gateway(&manager).await;

    let mut connection = HttpConnection::open(&gateway.tls()).await.unwrap();
    let call = Call::get(&gateway.tls(), "/vdi/events").into_request();
    let mut body = connection.send_streaming(call).await.unwrap().into_body();
    let first = within("first chunk", body.frame()).await.unwrap();
    let first = first.unwrap().unwrap().into_data().unwrap();
    assert_eq!(first, "first ");
    seen.notify_one();
    let rest = within("second chunk", body.collect()).await.unwrap();
    assert_eq!(rest.unwrap().to_bytes(), "second");
}

#[tokio::test]
async fn an_upload_flows_before_it_has_ended() {
    let cert = TestCert::new().unwrap();
    let acceptor = TlsAcceptor::from(cert.server_config().unwrap());
    let (sender, mut received) = mpsc::unbounded_channel::<Vec<u8>>();
    let manager = Host::spawn(move |stream: TcpStream| {
        let (accept, sender) = (acceptor.accept(stream), sender.clone());
        async move {
            let mut stream = accept.await?;
            let mut bytes = Vec::new();
            while !bytes.ends_with(b"\r\n0\r\n\r\n") {
                let start = bytes.len();
                stream.read_buf(&mut bytes).await?;
                let _ = sender.send(bytes[start..].to_vec());
            }
            let answer = b"HTTP/1.1 201 Created\r\nContent-Length: 4\r\n\r\ndone";
            stream.write_all(answer).await?;
            stream.flush().await?;
            Ok(())
        }
    })
    .await
    .unwrap();
    let gateway = Gateway::builder()
        .set("ManagerIP", "127.0.0.1")
        .set("ManagerPort", manager.addr().port())
        .spawn()
        .await
        .unwrap();

    let mut client = RawClient::connect(&gateway.tls()).await.unwrap();
    let head = b"POST /vdi/upload HTTP/1.1\r\nHost: gw\r\nTransfer-Encoding: chunked\r\n\r\n";
    client.send_raw(head).await.unwrap();
    let mut arrived = String::new();
    for piece in ["first", "second"] {
        let chunk = format!("{:x}\r\n{piece}\r\n", piece.len());
        client.send_raw(chunk.as_bytes()).await.unwrap();
        while !arrived.contains(piece) {
            let bytes = within("chunk at the manager", received.recv()).await;
            arrived += &String::from_utf8(bytes.unwrap().unwrap()).unwrap();
        }
    }
    client.send_raw(b"0\r\n\r\n").await.unwrap();
    assert_eq!(client.read_head().await.unwrap().status, 201);
    assert_eq!(client.read_exact(4).await.unwrap(), b"done");
    let head = arrived.to_ascii_lowercase();
    assert!(
        head.contains("\r\ntransfer-encoding: chunked\r\n"),
        "{head}"
    );
}

#[tokio::test]
async fn large_bodies_pass_whole_in_both_directions() {
    const PIECES: usize = 32;
    let manager = Manager::with_handler(|request| async move {
        UPLINK.check(0, &request.body).unwrap();
        let length = request.body.len().to_string();
        let (sender, body) = streamed();
        tokio::spawn(async move {
            for piece in 0..PIECES {
                let offset = (piece * MIB) as u64;
                sender.data(DOWNLINK.bytes(offset, MIB)).await;
            }
        });
        let response = Response::builder().header("X-Uploaded", length);
        response.body(body).unwrap()
    })
    .await
    .unwrap();
    let gateway = gateway(&manager).await;
    let upload = UPLINK.bytes(0, 8 * MIB);
    let call = Call::post(&gateway.tls(), "/vdi/files", upload);
    let response = call.send().await.unwrap();
    assert_eq!(response.headers()["x-uploaded"], (8 * MIB).to_string());
    assert_eq!(response.body().len(), PIECES * MIB);
    DOWNLINK.check(0, response.body()).unwrap();
    assert_eq!(
        manager.requests()[0].header("content-length"),
        Some((8 * MIB).to_string().as_str())
    );
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_not_passed_as_whole() {
    let manager = Manager::with_handler(|_| async {
        let (sender, body) = streamed();
        tokio::spawn(async move {
            sender.data("only a part").await;
            sender.abort().await;
        });
        Response::new(body)
    })
    .await
    .unwrap();
    let gateway = gateway(&manager).await;
    let call = Call::get(&gateway.tls(), "/vdi/x");
    assert!(call.send().await.is_err());
}

#[tokio::test]
async fn connections_are_kept_for_further_requests() {
    let manager = Manager::builder().spawn().await.unwrap();
    let gateway = gateway(&manager).await;
    let endpoint = gateway.tls();
    let mut connection = HttpConnection::open(&endpoint).await.unwrap();
    for target in ["/vdi/authmode", "/vdi/desktop", "/nowhere", "/vdi/authmode"] {
        let call = Call::post(&endpoint, target, "{}").header("Connection", "Keep-Alive");
        let response = connection.send(call.into_request()).await.unwrap();
        let found = target != "/nowhere";
        assert_eq!(response.status() == StatusCode::OK, found, "{target}");
    }
    assert!(!connection.is_closed());
    let last = Call::post(&endpoint, "/vdi/authmode", "{}").header("Connection", "close");
    let response = connection.send(last.into_request()).await.unwrap();
    assert_eq!(response.headers()[CONNECTION], "close");
    connection.closed().await.unwrap();
}

#[tokio::test]
async fn an_unread_upload_does_not_spoil_the_next_request() {
    let manager = Manager::builder().spawn().await.unwrap();
    let gateway = gateway(&manager).await;
    let hidden = "GET /vdi/smuggled HTTP/1.1\r\nHost: gw\r\n\r\n";
    let requests = format!(
        "POST /nowhere HTTP/1.1\r\nHost: gw\r\nContent-Length: {}\r\n\r\n{hidden}\
         POST /vdi/authmode HTTP/1.1\r\nHost: gw\r\nContent-Length: 2\r\n\
         Connection: close\r\n\r\n{{}}",
        hidden.len()
    );
    let exchanged = exchange(&gateway.tls(), requests.as_bytes()).await;
    let (answers, end) = exchanged.unwrap();
    let answers = String::from_utf8(answers).unwrap();
    let statuses: Vec<_> = answers.match_indices("HTTP/1.1 ").collect();
    assert!(answers.starts_with("HTTP/1.1 404 "), "{answers}");
    assert!(answers.contains("HTTP/1.1 200 OK"), "{answers}");
    assert_eq!((statuses.len(), end), (2, StreamEnd::Closed));
}

#[tokio::test]
async fn http_1_0_is_spoken_too() {
    let manager = Manager::with_handler(|_| async { Response::new(chunked(["one", "two"])) });
    let manager = manager.await.unwrap();
    let gateway = gateway(&manager).await;
    // As nginx sends them, and as the simplest of clients does.
    for request in [
        "POST /vdi/authmode HTTP/1.0\r\nHost: gw\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}",
        "GET /vdi/authmode HTTP/1.0\r\n\r\n",
    ] {
        let exchanged = exchange(&gateway.tls(), request.as_bytes()).await;
        let (answer, end) = exchanged.unwrap();
        let answer = String::from_utf8(answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.0 200"), "{head}");
        assert!(!head.to_ascii_lowercase().contains("transfer-encoding"));
        assert_eq!((body, end), ("onetwo", StreamEnd::Closed));
    }
    for request in manager.requests() {
        assert_eq!(request.version, http::Version::HTTP_11);
        assert_eq!(request.header("via"), Some("1.0 flexvdi-gateway"));
    }
}

#[tokio::test]
async fn head_gets_the_length_and_no_body() {
    let manager = Manager::with_handler(|_| async { Response::new(full("twelve bytes")) });
    let manager = manager.await.unwrap();
    let gateway = gateway(&manager).await;
    let mut client = RawClient::connect(&gateway.tls()).await.unwrap();
    for (method, body) in [("HEAD", ""), ("GET", "twelve bytes")] {
        let request = format!("{method} /vdi/file HTTP/1.1\r\nHost: gw\r\n\r\n");
        client.send_raw(request.as_bytes()).await.unwrap();
        let head = client.read_head().await.unwrap();
        assert_eq!(head.status, StatusCode::OK);
        assert_eq!(head.headers[CONTENT_LENGTH], "12");
        let read = client.read_exact(body.len()).await.unwrap();
        assert_eq!(read, body.as_bytes());
    }
    assert_eq!(manager.requests()[0].method, Method::HEAD);
}

#[tokio::test]
async fn answers_without_body_have_none() {
    let manager = Manager::with_handler(|request| async move {
        let status = request.uri.path().rsplit('/').next().unwrap();
        let mut response = Response::new(full(Bytes::new()));
        *response.status_mut() = status.parse().unwrap();
        response
    })
    .await
    .unwrap();
    let gateway = gateway(&manager).await;
    let mut client = RawClient::connect(&gateway.tls()).await.unwrap();
    for status in ["204", "304", "200"] {
        let request = format!("GET /vdi/{status} HTTP/1.1\r\nHost: gw\r\n\r\n");
        client.send_raw(request.as_bytes()).await.unwrap();
        let head = client.read_head().await.unwrap();
        assert_eq!(head.status.as_str(), status);
        assert!(!head.headers.contains_key(TRANSFER_ENCODING));
    }
}

#[tokio::test]
async fn a_client_that_waits_for_100_gets_it() {
    let manager = Manager::builder().spawn().await.unwrap();
    let gateway = gateway(&manager).await;
    let mut client = RawClient::connect(&gateway.tls()).await.unwrap();
    let head = b"POST /vdi/authmode HTTP/1.1\r\nHost: gw\r\nContent-Length: 2\r\n\
        Expect: 100-continue\r\n\r\n";
    client.send_raw(head).await.unwrap();
    assert_eq!(client.read_head().await.unwrap().status, 100);
    client.send_raw(b"{}").await.unwrap();
    assert_eq!(client.read_head().await.unwrap().status, 200);
}

#[tokio::test]
async fn a_manager_may_close_idle_connections() {
    let (sender, mut closed) = mpsc::unbounded_channel();
    let manager = RawManager::with_handler(move |mut stream, _| {
        let sender = sender.clone();
        async move {
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
            let _ = stream.write_all(answer).await;
            let _ = stream.shutdown().await;
            let _ = stream.read_to_end(&mut Vec::new()).await;
            let _ = sender.send(());
        }
    })
    .await
    .unwrap();
    let gateway = Gateway::builder()
        .set("ManagerIP", "127.0.0.1")
        .set("ManagerPort", manager.addr().port())
        .spawn()
        .await
        .unwrap();
    for _ in 0..3 {
        let call = Call::post(&gateway.tls(), "/vdi/authmode", "{}");
        let response = call.send().await.unwrap();
        assert_eq!(
            (response.status(), response.body().as_ref()),
            (StatusCode::OK, &b"ok"[..])
        );
        // The gateway has noticed the close before the next request comes.
        within("end of the connection", closed.recv())
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn a_post_never_meets_a_connection_that_is_being_closed() {
    // Answers once, and ends each connection as soon as another request comes on it.
    let manager = RawManager::with_handler(|mut stream, _| async move {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
        let _ = stream.write_all(answer).await;
        let _ = stream.flush().await;
        let _ = stream.read(&mut [0; 1]).await;
    })
    .await
    .unwrap();
    let gateway = Gateway::builder()
        .set("ManagerIP", "127.0.0.1")
        .set("ManagerPort", manager.addr().port())
        .spawn()
        .await
        .unwrap();
    let endpoint = gateway.tls();
    for _ in 0..3 {
        for call in [
            Call::get(&endpoint, "/vdi/x"),
            Call::post(&endpoint, "/vdi/authmode", "{}"),
        ] {
            assert_eq!(call.send().await.unwrap().status(), StatusCode::OK);
        }
    }
}

#[tokio::test]
async fn a_client_that_has_sent_all_gets_its_answer() {
    let manager = Manager::builder().spawn().await.unwrap();
    let gateway = Gateway::builder().manager(&manager).plain();
    let gateway = gateway.spawn().await.unwrap();
    let mut client = RawClient::connect(&gateway.plain()).await.unwrap();
    let request = b"POST /vdi/authmode HTTP/1.1\r\nHost: gw\r\nContent-Length: 2\r\n\r\n{}";
    client.send_raw(request).await.unwrap();
    client.shutdown().await.unwrap();
    let (answer, _) = client.read_to_end().await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200 OK"));
}
