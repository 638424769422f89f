use std::time::Duration;

use super::*;
use crate::http::{Call, HttpConnection, exchange};
use crate::net::{Endpoint, StreamEnd};

async fn get(manager: &Manager, target: &str) -> Response<Bytes> {
    let endpoint = Endpoint::tls(manager.addr());
    Call::get(&endpoint, target).send().await.unwrap()
}

#[tokio::test]
async fn files_are_served_below_vdi_only() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("www/html5")).unwrap();
    std::fs::write(dir.path().join("secret"), "s").unwrap();
    std::fs::write(dir.path().join("www/html5/index.html"), "<p>").unwrap();
    std::fs::write(dir.path().join("www/html5/main.js"), "1").unwrap();
    let manager = Manager::builder()
        .files(dir.path().join("www"))
        .spawn()
        .await
        .unwrap();
    for (target, kind, body) in [
        ("/vdi/html5/", "text/html; charset=utf-8", "<p>"),
        (
            "/vdi/html5/index.html?a=b",
            "text/html; charset=utf-8",
            "<p>",
        ),
        ("/vdi/html5/main.js", "text/javascript; charset=utf-8", "1"),
    ] {
        let response = get(&manager, target).await;
        assert_eq!(response.headers()[CONTENT_TYPE], kind);
        assert_eq!(response.body(), body);
    }
    for target in ["/vdi/../secret", "/vdi//etc/passwd", "/vdi/none", "/"] {
        let response = get(&manager, target).await;
        assert_eq!(response.status(), StatusCode::NOT_FOUND, "{target}");
    }
}

#[tokio::test]
async fn requests_are_recorded_per_connection() {
    let manager = Manager::builder().spawn().await.unwrap();
    let endpoint = Endpoint::tls(manager.addr());
    let mut connection = HttpConnection::open(&endpoint).await.unwrap();
    for version in [Version::HTTP_11, Version::HTTP_10] {
        let call = Call::post(&endpoint, "/vdi/authmode", "{}");
        let mut request = call.header("X-Test", "1").into_request();
        *request.version_mut() = version;
        let response = connection.send(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
    }
    connection.closed().await.unwrap();
    let requests = manager.requests();
    assert_eq!(requests[0].peer, requests[1].peer);
    assert_eq!(requests[1].version, Version::HTTP_10);
    assert_eq!(requests[0].header("x-test"), Some("1"));
    assert_eq!(requests[0].body, "{}");
    let response = get(&manager, "/vdi/desktop").await;
    assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn handlers_stream_and_break_off() {
    let manager = Manager::with_handler(|request| async move {
        let (sender, body) = streamed();
        tokio::spawn(async move {
            sender.data("one").await;
            sender.data("two").await;
            if request.uri.path() == "/broken" {
                sender.abort().await;
            } else {
                let mut trailers = HeaderMap::new();
                trailers.insert("x-end", ::http::HeaderValue::from_static("1"));
                sender.trailers(trailers).await;
            }
        });
        Response::new(body)
    })
    .await
    .unwrap();
    assert_eq!(get(&manager, "/whole").await.body(), "onetwo");
    let endpoint = Endpoint::tls(manager.addr());
    assert!(Call::get(&endpoint, "/broken").send().await.is_err());
    let request = b"GET /raw HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let (answer, _) = exchange(&endpoint, request).await.unwrap();
    let answer = String::from_utf8(answer).unwrap();
    assert!(
        answer.ends_with("3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"),
        "{answer}"
    );
}

#[tokio::test]
async fn pieces_become_chunks() {
    let manager = Manager::with_handler(|_| async { Response::new(chunked(["a", "bc"])) })
        .await
        .unwrap();
    let endpoint = Endpoint::tls(manager.addr());
    let request = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let (answer, end) = exchange(&endpoint, request).await.unwrap();
    assert!(answer.ends_with(b"1\r\na\r\n2\r\nbc\r\n0\r\n\r\n"));
    assert_eq!(end, StreamEnd::Closed);
}

#[tokio::test]
async fn raw_managers_send_exact_bytes_and_end_as_told() {
    let request = b"POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\nhi";
    for (end, seen) in [
        (RawEnd::Close, StreamEnd::Closed),
        (RawEnd::CutOff, StreamEnd::CutOff),
        (RawEnd::Reset, StreamEnd::Reset),
    ] {
        let manager = RawManager::reply("HTTP/9 huh", end).await.unwrap();
        let endpoint = Endpoint::tls(manager.addr());
        let (answer, end) = exchange(&endpoint, request).await.unwrap();
        assert_eq!(end, seen);
        if seen != StreamEnd::Reset {
            assert_eq!(answer, b"HTTP/9 huh");
        }
        assert_eq!(manager.requests(), [request]);
    }
    let manager = RawManager::reply("", RawEnd::Hold).await.unwrap();
    let endpoint = Endpoint::tls(manager.addr());
    let waiting = exchange(&endpoint, request);
    let limit = Duration::from_millis(300);
    assert!(tokio::time::timeout(limit, waiting).await.is_err());
}
