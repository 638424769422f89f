//! What slow, greedy and many clients can use up, and what is left for the others.

use std::time::{Duration, Instant};

use http::StatusCode;
use testkit::gateway::GatewayBuilder;
use testkit::host::Unresponsive;
use testkit::http::{Call, HttpConnection, exchange};
use testkit::net::{Connection, StreamEnd, read_to_end};
use testkit::prelude::*;
use testkit::ws::{RawClient, handshake_request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Stage, assert_error, assert_opens, get, logged, port_gateway, port_token};

const SECOND: Duration = Duration::from_secs(1);

/// A gateway that gives its clients little time in one respect.
async fn impatient(key: &str) -> Gateway {
    let gateway = port_gateway().plain().set(key, 1);
    gateway.spawn().await.unwrap()
}

/// Sends a byte now and then until the peer ends the connection.
async fn drip(mut stream: impl AsyncReadExt + AsyncWriteExt + Unpin, bytes: &[u8]) {
    let dripping = async {
        for byte in bytes.iter().cycle() {
            let pause = Duration::from_millis(100);
            let mut answer = [0; 64];
            match tokio::time::timeout(pause, stream.read(&mut answer)).await {
                Err(_) if stream.write_all(&[*byte]).await.is_ok() => {}
                Ok(Ok(1..)) => {}
                _ => return,
            }
        }
    };
    within("end of a slow connection", dripping).await.unwrap();
}

#[tokio::test]
async fn a_client_that_does_not_begin_tls_is_left() {
    let gateway = impatient("HandshakeTimeout").await;
    let begun = Instant::now();
    let mut silent = gateway.tls().connect_tcp().await.unwrap();
    read_to_end(&mut silent).await.unwrap();
    assert!(begun.elapsed() >= SECOND);
    // The head of a ClientHello whose rest comes too slowly.
    let slow = gateway.tls().connect_tcp().await.unwrap();
    drip(
        slow,
        &[
            0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03, 0x03,
        ],
    )
    .await;
}

#[tokio::test]
async fn a_client_that_does_not_finish_its_request_is_left() {
    let gateway = impatient("HeaderTimeout").await;
    for endpoint in [gateway.tls(), gateway.plain()] {
        let begun = Instant::now();
        let half = b"GET /vdi/ HTTP/1.1\r\nHost: g";
        exchange(&endpoint, half).await.unwrap();
        assert!(begun.elapsed() >= SECOND);
    }
    let slow = gateway.tls().connect().await.unwrap();
    drip(slow, b"GET /vdi/ HTTP/1.1\r\nX-").await;
}

#[tokio::test]
async fn a_connection_without_further_requests_is_left() {
    let gateway = impatient("HeaderTimeout").await;
    let endpoint = gateway.tls();
    let mut silent = endpoint.connect().await.unwrap();
    let mut connection = HttpConnection::open(&endpoint).await.unwrap();
    let call = Call::get(&endpoint, "/").into_request();
    let response = connection.send(call).await.unwrap();
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
    connection.closed().await.unwrap();
    read_to_end(&mut silent).await.unwrap();
}

#[tokio::test]
async fn a_body_that_never_comes_holds_nobody() {
    let stage = Stage::with(|gateway| gateway.set("ManagerTimeout", 1)).await;
    for (target, status) in [("/vdi/authmode", 504), ("/nowhere", 404)] {
        let request = format!("POST {target} HTTP/1.1\r\nHost: gw\r\nContent-Length: 9\r\n\r\n{{");
        let exchanged = exchange(&stage.gateway.tls(), request.as_bytes()).await;
        let answer = String::from_utf8(exchanged.unwrap().0).unwrap();
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{answer}"
        );
    }
}

#[tokio::test]
async fn a_client_that_does_not_go_on_with_its_body_gets_408() {
    let stage = Stage::with(|gateway| gateway.set("HeaderTimeout", 1)).await;
    let request = b"POST /vdi/authmode HTTP/1.1\r\nHost: gw\r\nContent-Length: 9\r\n\r\n{";
    let exchanged = exchange(&stage.gateway.tls(), request).await;
    let answer = String::from_utf8(exchanged.unwrap().0).unwrap();
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    logged(&stage.gateway, &["the client did not go on"]).await;
}

#[tokio::test]
async fn a_client_that_takes_no_answers_is_left() {
    let gateway = impatient("HeaderTimeout").await;
    for endpoint in [gateway.tls(), gateway.plain()] {
        let mut client = endpoint.connect().await.unwrap();
        let requests = b"GET /nowhere HTTP/1.1\r\nHost: gw\r\n\r\n".repeat(1_000);
        // Answers are never read, until there is no room for requests any more either.
        let pipelining = async { while client.write_all(&requests).await.is_ok() {} };
        within("end of a client that does not read", pipelining)
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn silent_connections_cost_little() {
    const CONNECTIONS: u64 = 1_500;
    const EACH: u64 = 2 << 10;
    let gateway = port_gateway()
        .set("HandshakeTimeout", 60)
        .spawn()
        .await
        .unwrap();
    // What the first handshake reads of the program is not a connection's.
    get(&gateway.tls(), "/").await;
    let before = gateway.memory().unwrap().rss;
    let mut silent = Vec::new();
    for _ in 0..CONNECTIONS {
        silent.push(gateway.tls().connect_tcp().await.unwrap());
    }
    // Connections are taken in turn: behind this one all were.
    get(&gateway.tls(), "/").await;
    let taken = gateway.memory().unwrap().rss.saturating_sub(before);
    assert!(
        taken < CONNECTIONS * EACH,
        "{} bytes each",
        taken / CONNECTIONS
    );
}

#[tokio::test]
async fn a_channel_that_says_nothing_is_left() {
    let host = Host::echo().await.unwrap();
    let gateway = port_gateway().set("LinkTimeout", 1).spawn().await.unwrap();
    let target = format!("/?ver=2&token={}", port_token(&host));
    let mut client = RawClient::open(&gateway.tls(), &target).await.unwrap();
    client.expect_close(1008).await.unwrap();
    drop(client);
    logged(
        &gateway,
        &["channel closed", "no Spice link message in time"],
    )
    .await;
}

#[tokio::test]
async fn a_head_that_is_too_long_is_431() {
    let gateway = port_gateway().spawn().await.unwrap();
    let long = format!(
        "GET /vdi/ HTTP/1.1\r\nHost: gw\r\nX: {}\r\n\r\n",
        "x".repeat(20_000)
    );
    let many = format!("GET /vdi/ HTTP/1.1\r\n{}\r\n", "X: 1\r\n".repeat(500));
    let endless = "x".repeat(100_000);
    for request in [long, many, format!("GET /{endless}")] {
        let mut client = RawClient::connect(&gateway.tls()).await.unwrap();
        // The answer may come, and the connection end, before all is sent.
        let _ = client.send_raw(request.as_bytes()).await;
        assert_eq!(client.read_head().await.unwrap().status, 431);
    }
    assert_eq!(
        get(&gateway.tls(), "/").await.status(),
        StatusCode::NOT_FOUND
    );
}

#[tokio::test]
async fn the_longest_head_can_be_configured() {
    let gateway = port_gateway().set("MaxHeaderSize", 60_000);
    let gateway = gateway.spawn().await.unwrap();
    let call = Call::get(&gateway.tls(), "/").header("X", &"x".repeat(50_000));
    assert_error(&call.send().await.unwrap(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_target_that_is_too_long_is_414() {
    let stage = Stage::with(|gateway| gateway.set("MaxUriSize", 100)).await;
    let endpoint = stage.gateway.tls();
    for (length, long) in [(100, false), (101, true), (5_000, true)] {
        let target = format!("/vdi/{}", "x".repeat(length - 5));
        let response = get(&endpoint, &target).await;
        if long {
            assert_error(&response, StatusCode::URI_TOO_LONG);
        } else {
            assert_eq!(response.status(), StatusCode::NOT_FOUND);
        }
    }
    let token = format!("/?token={}", "x".repeat(100));
    assert_error(&get(&endpoint, &token).await, StatusCode::URI_TOO_LONG);
    assert_eq!(stage.manager.requests().len(), 1);
}

#[tokio::test]
async fn what_is_no_http_is_answered_and_left() {
    let gateway = impatient("HeaderTimeout").await;
    for garbage in [
        &b"\x00\x01\x02\x03\r\n\r\n"[..],
        b"SSH-2.0-x\r\n",
        b"GET / HTTP/7\r\n\r\n",
    ] {
        let (answer, _) = exchange(&gateway.tls(), garbage).await.unwrap();
        assert!(answer.starts_with(b"HTTP/1.1 400 ") || answer.is_empty());
    }
    // Not TLS at all, or plaintext HTTP on the TLS port.
    for garbage in [&b"GET / HTTP/1.1\r\nHost: gw\r\n\r\n"[..], &[0xff; 100]] {
        let endpoint = Endpoint::plain(gateway.tls_addr());
        exchange(&endpoint, garbage).await.unwrap();
    }
    assert_eq!(
        get(&gateway.tls(), "/").await.status(),
        StatusCode::NOT_FOUND
    );
}

/// Checks that the gateway ends a connection from here at once.
async fn assert_turned_away(endpoint: &Endpoint) {
    let mut stream = endpoint.connect_tcp().await.unwrap();
    let (bytes, end) = read_to_end(&mut stream).await.unwrap();
    assert!(bytes.is_empty());
    assert!(matches!(end, StreamEnd::Closed | StreamEnd::Reset));
}

/// Connects again and again until the gateway has noticed that there is room.
async fn connect_when_there_is_room(endpoint: &Endpoint) -> Connection {
    let connect = async {
        loop {
            if let Ok(connection) = endpoint.connect().await {
                return connection;
            }
            tokio::task::yield_now().await;
        }
    };
    within("room for a connection", connect).await.unwrap()
}

#[tokio::test]
async fn connections_are_limited_in_all() {
    let gateway = port_gateway().plain().set("MaxConnections", 2);
    let gateway = gateway.spawn().await.unwrap();
    let first = gateway.tls().connect().await.unwrap();
    let mut second = HttpConnection::open(&gateway.plain()).await.unwrap();
    let call = Call::get(&gateway.plain(), "/").into_request();
    second.send(call).await.unwrap();
    for endpoint in [
        gateway.tls(),
        gateway.plain().from_source([127, 0, 0, 2].into()),
    ] {
        assert_turned_away(&endpoint).await;
    }
    drop(first);
    connect_when_there_is_room(&gateway.tls()).await;
}

#[tokio::test]
async fn connections_are_limited_per_address() {
    let host = Host::echo().await.unwrap();
    let gateway = port_gateway()
        .plain()
        .set("MaxConnectionsPerAddress", 1)
        .set("TrustedProxies", vec!["127.0.0.3"])
        .spawn()
        .await
        .unwrap();
    // Channels count as long as they live.
    let mut channel = ws::echo_channel(&gateway.tls(), &port_token(&host))
        .await
        .unwrap();
    assert_turned_away(&gateway.tls()).await;
    assert_turned_away(&gateway.plain()).await;
    let other = gateway.tls().from_source([127, 0, 0, 2].into());
    let _held = other.connect().await.unwrap();
    assert_turned_away(&other).await;
    // Many clients share the address of a proxy.
    let proxy = gateway.plain().from_source([127, 0, 0, 3].into());
    for _ in 0..3 {
        let mut connection = HttpConnection::open(&proxy).await.unwrap();
        connection
            .send(Call::get(&proxy, "/").into_request())
            .await
            .unwrap();
    }
    channel.echo(b"still there").await.unwrap();
    drop(channel);
    connect_when_there_is_room(&gateway.tls()).await;
}

#[tokio::test]
async fn few_descriptors_lower_the_limit_on_connections() {
    let stage = Stage::with(|gateway| gateway.open_files(80)).await;
    logged(
        &stage.gateway,
        &[
            "WARN",
            "MaxConnections is lowered",
            "total=8",
            "configured=20000",
        ],
    )
    .await;
    let ticket = stage.ticket().await;
    let mut channels = Vec::new();
    // The connections of the login may still be on their way out.
    while channels.len() < 8 {
        let connection = connect_when_there_is_room(&stage.gateway.tls()).await;
        let mut client = RawClient::over(connection);
        let request = handshake_request(&format!("/?token={ticket}"), "gw", "");
        client.send_raw(request.as_bytes()).await.unwrap();
        assert_eq!(client.read_head().await.unwrap().status, 101);
        channels.push(client);
    }
    assert_turned_away(&stage.gateway.tls()).await;
    assert_eq!(stage.gateway.count_logged("no resources").await, 0);
}

#[tokio::test]
async fn running_out_of_descriptors_ends_nothing() {
    let host = Host::echo().await.unwrap();
    let gateway = port_gateway()
        .set("HandshakeTimeout", 60)
        .spawn()
        .await
        .unwrap();
    let token = port_token(&host);
    let mut channel = ws::echo_channel(&gateway.tls(), &token).await.unwrap();
    let mut kept = RawClient::connect(&gateway.tls()).await.unwrap();
    gateway
        .limit_open_files(gateway.open_fds().unwrap() + 2)
        .unwrap();

    let mut crowd = Vec::new();
    for _ in 0..10 {
        crowd.push(gateway.tls().connect_tcp().await.unwrap());
    }
    logged(&gateway, &["WARN", "no resources for further connections"]).await;
    channel.echo(b"still there").await.unwrap();
    let request = handshake_request(&format!("/?token={token}"), "gw", "");
    kept.send_raw(request.as_bytes()).await.unwrap();
    assert_eq!(
        kept.read_head().await.unwrap().status,
        StatusCode::SERVICE_UNAVAILABLE
    );

    // Room comes and goes while the crowd leaves.
    while let Some(stream) = crowd.pop() {
        drop(stream);
        channel.echo(b"still there").await.unwrap();
    }
    drop(kept);
    let served = async { while Call::get(&gateway.tls(), "/").send().await.is_err() {} };
    within("answer after the crowd", served).await.unwrap();
    assert_eq!(
        gateway
            .count_logged("no resources for further connections")
            .await,
        1
    );
}

#[tokio::test]
async fn hosts_that_do_not_answer_hold_up_nobody_else() {
    let (host, off) = (
        Host::echo().await.unwrap(),
        Unresponsive::new().await.unwrap(),
    );
    let one_thread = |gateway: GatewayBuilder| gateway.set("WorkerThreads", 1);
    let gateway = one_thread(port_gateway()).spawn().await.unwrap();
    let target = format!("/?token={}", off.addr().unwrap().port());
    let mut waiting: Vec<TcpStream> = Vec::new();
    let mut handshakes = Vec::new();
    for _ in 0..20 {
        let mut client = RawClient::connect(&gateway.tls()).await.unwrap();
        client
            .send_raw(handshake_request(&target, "gw", "").as_bytes())
            .await
            .unwrap();
        handshakes.push(client);
        waiting.push(gateway.tls().connect_tcp().await.unwrap());
    }
    assert_opens(&gateway.tls(), &port_token(&host)).await;
}
