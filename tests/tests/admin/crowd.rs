//! Connections to the administrators' doors that ask for nothing keep nobody out.

use std::io::ErrorKind;

use testkit::http::{Call, HttpConnection};
use testkit::net::read_to_end;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpStream, UnixStream};

use crate::support::Stage;

/// More than there are places, and many more.
const CROWDS: [usize; 2] = [33, 200];

/// Whether the gateway has kept a connection.
fn is_kept(read: std::io::Result<usize>) -> bool {
    read.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
}

#[tokio::test]
async fn idle_connections_keep_nobody_from_the_port() {
    for count in CROWDS {
        let stage = Stage::new().await;
        let mut crowd: Vec<TcpStream> = Vec::new();
        for number in 0..count {
            let mut stream = stage.admin.connect_tcp().await.unwrap();
            // Half a request is none.
            let begun = &b"GET /metrics HTTP/1.1\r\nHos"[..number % 26];
            stream.write_all(begun).await.unwrap();
            crowd.push(stream);
        }
        let metrics = stage.shown("/metrics").await;
        assert!(metrics.contains("flexvdi_gateway_connections"));
        // The oldest gave way, not because of its own limit: the newest is still there.
        read_to_end(&mut crowd[0]).await.unwrap();
        assert!(is_kept(crowd[count - 1].try_read(&mut [0; 1])), "{count}");
    }
}

#[tokio::test]
async fn idle_connections_keep_nobody_from_the_socket() {
    for count in CROWDS {
        let stage = Stage::new().await;
        let socket = stage.gateway.runtime_dir().join("admin.sock");
        let mut crowd = Vec::new();
        for _ in 0..count {
            crowd.push(UnixStream::connect(&socket).await.unwrap());
        }
        let status = stage.output(&["status", "--json"]).await;
        assert!(status.contains("\"draining\":false"), "{status}");
        read_to_end(&mut crowd[0]).await.unwrap();
        assert!(is_kept(crowd[count - 1].try_read(&mut [0; 1])), "{count}");
    }
}

#[tokio::test]
async fn who_asks_again_and_again_keeps_its_place() {
    let stage = Stage::new().await;
    let mut scraper = HttpConnection::open(&stage.admin).await.unwrap();
    let mut crowd = Vec::new();
    let ask = || Call::get(&stage.admin, "/healthz").into_request();
    for _ in 0..20 {
        let mut silent = Vec::new();
        for _ in 0..9 {
            silent.push(stage.admin.connect_tcp().await.unwrap());
        }
        // Connections are taken in turn: behind this one all were.
        let mut last = HttpConnection::open(&stage.admin).await.unwrap();
        assert_eq!(last.send(ask()).await.unwrap().status(), 200);
        crowd.push((silent, last));
        assert_eq!(scraper.send(ask()).await.unwrap().status(), 200);
    }
}

/// Its answers do not fit into the buffers of its connection.
#[tokio::test]
async fn clients_that_do_not_take_their_answers_keep_nobody_out() {
    let stage = Stage::new().await;
    let mut crowd = Vec::new();
    for _ in 0..33 {
        let mut stream = stage.admin.connect_tcp().await.unwrap();
        let requests = b"GET / HTTP/1.1\r\nHost: gw\r\n\r\n".repeat(200);
        stream.write_all(&requests).await.unwrap();
        crowd.push(stream);
    }
    stage.shown("/metrics").await;
}
