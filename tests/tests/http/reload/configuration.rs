//! The configuration read again.

use std::time::{Duration, Instant};

use http::{Response, StatusCode};
use rustls::HandshakeKind;
use serde_json::{Value, json};
use testkit::http::{Call, HttpConnection, exchange};
use testkit::manager::full;
use testkit::prelude::*;
use testkit::ws::{Connect, Frame, Opcode, RawClient};
use tokio::net::TcpStream;

use super::{assert_shows, change, hang_up, shown};
use crate::support::{Stage, assert_opens, get, logged, port_gateway, port_token, refused_token};

/// The answer to a handshake.
async fn status(endpoint: &Endpoint, token: &str) -> StatusCode {
    let outcome = Connect::new(endpoint, token).open().await.unwrap();
    outcome.refused().unwrap().status()
}

#[tokio::test]
async fn nothing_new_is_told_as_well() {
    let mut gateway = port_gateway().spawn().await.unwrap();
    for _ in 0..2 {
        let told = hang_up(&gateway).await;
        assert!(told.contains("INFO reloaded changed=\"nothing\""), "{told}");
    }
    assert!(gateway.terminate().await.unwrap().success());
}

#[tokio::test]
async fn a_broken_file_changes_nothing() {
    let host = Host::echo().await.unwrap();
    let gateway = port_gateway().spawn().await.unwrap();
    let mut held = ws::echo_channel(&gateway.tls(), &port_token(&host))
        .await
        .unwrap();
    let good = std::fs::read(gateway.config_path()).unwrap();
    for (content, reason) in [
        ("{\"AllowedHosts\": [\"192.0.2.1\"]", "line 1, column 30: "),
        (
            "{\"AllowedHosts\": [\"192.0.2.1\"], \"KeepAlive\": -1, \"Debug\": 7}",
            "KeepAlive: expected whole seconds from 1 to 31536000, or 0, found -1; ",
        ),
    ] {
        std::fs::write(gateway.config_path(), content).unwrap();
        let told = hang_up(&gateway).await;
        assert!(
            told.contains("ERROR not reloaded, everything stays as it was"),
            "{told}"
        );
        assert!(told.contains(reason), "{told}");
        assert_opens(&gateway.tls(), &port_token(&host)).await;
    }
    std::fs::remove_file(gateway.config_path()).unwrap();
    assert!(hang_up(&gateway).await.contains("No such file"));
    std::fs::write(gateway.config_path(), good).unwrap();
    change(&gateway, &[("KeepAlife", json!(1))]).await;
    logged(&gateway, &["WARN", "unknown key \"KeepAlife\" ignored"]).await;
    held.echo(b"still here").await.unwrap();
}

#[tokio::test]
async fn what_needs_a_restart_is_named_and_the_rest_taken() {
    let gateway = port_gateway().spawn().await.unwrap();
    let port = testkit::net::free_port().unwrap();
    let keys = [
        ("SslPort", json!(port)),
        ("ListenAddress", json!("127.0.0.2")),
        ("PlainAddress", json!("::1")),
        ("PlainPort", json!(port)),
        ("WorkerThreads", json!(3)),
        ("QueueLimit", json!(262_144)),
        ("DataPath", json!("sockmap")),
    ];
    gateway.change_config(&keys).unwrap();
    let told = change(&gateway, &[("MaxUriSize", json!(64))]).await;
    assert!(told.contains("changed=\"MaxUriSize 4096 -> 64\""), "{told}");
    for (key, value) in &keys {
        let (key, value) = (format!("key=\"{key}\""), format!("in_file={value}"));
        logged(&gateway, &["WARN", "needs a restart", &key, &value]).await;
    }
    // As long as it is so it is told again.
    let told = hang_up(&gateway).await;
    assert!(told.contains("changed=\"nothing\""), "{told}");
    logged(&gateway, &["INFO reloaded changed=\"nothing\""]).await;
    assert_eq!(
        gateway.count_logged("needs a restart").await,
        2 * keys.len()
    );
    assert!(TcpStream::connect(("127.0.0.1", port)).await.is_err());
    assert_eq!(shown(&gateway.tls()).await.1, HandshakeKind::Full);
}

#[tokio::test]
async fn the_manager_can_be_another_one() {
    let answering = |text: &'static str| {
        Manager::with_handler(move |_| async move { Response::new(full(text)) })
    };
    let (first, second) = (
        answering("first").await.unwrap(),
        answering("second").await.unwrap(),
    );
    let gateway = Gateway::builder().manager(&first).spawn().await.unwrap();
    // A connection that stays open is served as the requests come.
    let mut kept = HttpConnection::open(&gateway.tls()).await.unwrap();
    let mut ask = async || {
        let request = Call::get(&gateway.tls(), "/vdi/x").into_request();
        kept.send(request).await.unwrap()
    };
    assert_eq!(ask().await.body(), "first");
    let port = json!(second.addr().port());
    change(&gateway, &[("ManagerPort", port)]).await;
    assert_eq!(ask().await.body(), "second");
    let authority = json!(first.cert().ca_path());
    change(&gateway, &[("ManagerCAFile", authority)]).await;
    assert_eq!(ask().await.status(), StatusCode::BAD_GATEWAY);
    let authority = json!(second.cert().ca_path());
    change(&gateway, &[("ManagerCAFile", authority)]).await;
    assert_eq!(ask().await.body(), "second");
    change(&gateway, &[("ManagerPaths", json!(["/other/"]))]).await;
    assert_eq!(ask().await.status(), StatusCode::NOT_FOUND);
    let keys = [("ManagerPaths", json!(["/vdi/"])), ("ManagerIP", json!(""))];
    change(&gateway, &keys).await;
    assert_eq!(ask().await.status(), StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn the_manager_gets_another_time() {
    let manager = Manager::with_handler(|_| std::future::pending())
        .await
        .unwrap();
    let gateway = Gateway::builder().manager(&manager).spawn().await.unwrap();
    change(&gateway, &[("ManagerTimeout", json!(1))]).await;
    let answer = get(&gateway.tls(), "/vdi/x").await;
    assert_eq!(answer.status(), StatusCode::GATEWAY_TIMEOUT);
}

#[tokio::test]
async fn hosts_and_ports_are_allowed_and_refused() {
    let host = Host::echo().await.unwrap();
    let (port, token) = (host.addr().port(), port_token(&host));
    let gateway = port_gateway()
        .set("BadTokenLimit", 0)
        .spawn()
        .await
        .unwrap();
    let tls = gateway.tls();
    let mut held = ws::echo_channel(&tls, &token).await.unwrap();

    change(&gateway, &[("AllowedHosts", json!(["192.0.2.0/24"]))]).await;
    assert_eq!(status(&tls, &token).await, StatusCode::FORBIDDEN);
    change(&gateway, &[("AllowedHosts", json!(["127.0.0.0/8"]))]).await;
    assert_opens(&tls, &token).await;

    change(&gateway, &[("LastSpicePort", json!(port - 1))]).await;
    refused_token(&tls, &token).await;
    change(&gateway, &[("LastSpicePort", json!(port))]).await;
    assert_opens(&tls, &token).await;
    change(&gateway, &[("FirstSpicePort", json!(port))]).await;
    assert_opens(&tls, &token).await;

    change(&gateway, &[("SpiceHost", json!("127.0.0.3"))]).await;
    assert_eq!(status(&tls, &token).await, StatusCode::BAD_GATEWAY);
    change(&gateway, &[("SpiceHost", json!("localhost"))]).await;
    assert_opens(&tls, &token).await;
    // Whoever is in stays.
    held.echo(b"still here").await.unwrap();
}

#[tokio::test]
async fn hijacking_can_be_turned_on_and_off_and_tickets_stay() {
    let stage = Stage::new().await;
    let tls = stage.gateway.tls();
    let port = port_token(&stage.host);
    let ticket = stage.ticket().await;
    refused_token(&tls, &port).await;
    change(&stage.gateway, &[("HijackAll", json!(false))]).await;
    refused_token(&tls, &ticket).await;
    assert_opens(&tls, &port).await;
    assert_eq!(stage.ticket().await, port);
    let name = [
        ("HijackAll", json!(true)),
        ("ExternalName", json!("vdi.example")),
    ];
    change(&stage.gateway, &name).await;
    assert_opens(&tls, &ticket).await;
    let desktop = stage.desktop().await;
    assert_eq!(desktop.answer["spice_address"], "vdi.example");
    assert_opens(&tls, &desktop.token).await;
}

#[tokio::test]
async fn tickets_get_another_life() {
    let stage = Stage::new().await;
    let (tls, old) = (stage.gateway.tls(), stage.ticket().await);
    let lives = [("TicketTimeout", json!(1)), ("ReconnectTimeout", json!(1))];
    change(&stage.gateway, &lives).await;
    let fresh = stage.ticket().await;
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    refused_token(&tls, &fresh).await;
    // This one was made before; its new life begins when its channel ends.
    assert_opens(&tls, &old).await;
    logged(&stage.gateway, &["channel closed"]).await;
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    refused_token(&tls, &old).await;
}

#[tokio::test]
async fn limits_in_number_and_size_are_taken() {
    let gateway = port_gateway().spawn().await.unwrap();
    let tls = gateway.tls();
    let long = format!("/{}", "x".repeat(100));
    let mut kept = HttpConnection::open(&tls).await.unwrap();
    let ask = || Call::get(&tls, &long).into_request();
    assert_eq!(
        kept.send(ask()).await.unwrap().status(),
        StatusCode::NOT_FOUND
    );
    change(&gateway, &[("MaxUriSize", json!(64))]).await;
    let status_now = kept.send(ask()).await.unwrap().status();
    assert_eq!(status_now, StatusCode::URI_TOO_LONG);

    let head = format!(
        "GET / HTTP/1.1\r\nHost: gw\r\nConnection: close\r\nX: {}\r\n\r\n",
        "x".repeat(12_000)
    );
    let (answer, _) = exchange(&tls, head.as_bytes()).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 404"));
    change(&gateway, &[("MaxHeaderSize", json!(8_192))]).await;
    let (answer, _) = exchange(&tls, head.as_bytes()).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 431"));

    change(&gateway, &[("BadTokenLimit", json!(1))]).await;
    refused_token(&tls, "guess").await;
    assert_eq!(status(&tls, "guess").await, StatusCode::TOO_MANY_REQUESTS);
    change(&gateway, &[("BadTokenLimit", json!(0))]).await;
    refused_token(&tls, "guess").await;

    // The connection from before counts.
    change(&gateway, &[("MaxConnectionsPerAddress", json!(1))]).await;
    assert!(tls.connect().await.is_err());
    let trusted = [("TrustedProxies", json!(["127.0.0.0/8"]))];
    change(&gateway, &trusted).await;
    drop(tls.connect().await.unwrap());
    change(&gateway, &[("MaxConnections", json!(1))]).await;
    assert!(tls.connect().await.is_err());
    let status_now = kept.send(ask()).await.unwrap().status();
    assert_eq!(status_now, StatusCode::URI_TOO_LONG);
}

#[tokio::test]
async fn limits_in_time_are_for_connections_that_come() {
    let gateway = port_gateway().spawn().await.unwrap();
    let keys = [("HandshakeTimeout", json!(1)), ("HeaderTimeout", json!(2))];
    change(&gateway, &keys).await;
    let begun = Instant::now();
    let mut silent = gateway.tls().connect_tcp().await.unwrap();
    testkit::net::read_to_end(&mut silent).await.unwrap();
    assert!(begun.elapsed() >= Duration::from_secs(1));
    exchange(&gateway.tls(), b"GET / HTT").await.unwrap();
    assert!(begun.elapsed() >= Duration::from_secs(3));

    let host = Host::echo().await.unwrap();
    change(&gateway, &[("LinkTimeout", json!(1))]).await;
    let opened = Connect::new(&gateway.tls(), &port_token(&host))
        .open()
        .await;
    let silent = opened.unwrap().opened().unwrap();
    logged(
        &gateway,
        &["channel closed", "no Spice link message in time"],
    )
    .await;
    drop(silent);
}

#[tokio::test]
async fn channels_that_come_are_pinged() {
    let host = Host::echo().await.unwrap();
    let gateway = port_gateway().spawn().await.unwrap();
    change(&gateway, &[("KeepAlive", json!(1))]).await;
    let target = format!("/?ver=2&token={}", host.addr().port());
    let mut client = RawClient::open(&gateway.tls(), &target).await.unwrap();
    let link = link_message(ChannelType::Main, 0);
    client.send_frame(&Frame::binary(link)).await.unwrap();
    let ping = async { while client.read_frame().await.unwrap().opcode != Opcode::PING {} };
    within("a Ping", ping).await.unwrap();
}

#[tokio::test]
async fn the_log_tells_more_and_less() {
    let stage = Stage::new().await;
    let gateway = &stage.gateway;
    for (debug, expected) in [(true, 1), (false, 1), (true, 2)] {
        change(gateway, &[("Debug", json!(debug))]).await;
        get(&gateway.tls(), "/vdi/x").await;
        change(gateway, &[("MaxUriSize", json!(100 + expected))]).await;
        change(gateway, &[("MaxUriSize", json!(200))]).await;
        let told = gateway.count_logged("manager asked").await;
        assert_eq!(told, expected, "{debug}");
    }
}

#[tokio::test]
async fn the_gateway_stops_in_the_new_time() {
    let mut gateway = port_gateway().spawn().await.unwrap();
    let keys: [(&str, Value); 2] = [("ShutdownTimeout", json!(1)), ("CloseTimeout", json!(60))];
    change(&gateway, &keys).await;
    let host = Host::echo().await.unwrap();
    let held = ws::echo_channel(&gateway.tls(), &port_token(&host))
        .await
        .unwrap();
    // It does not answer the Close, so only the limit ends it.
    assert!(gateway.terminate().await.unwrap().success());
    assert_eq!(
        gateway
            .count_logged("did not end in time are dropped")
            .await,
        1
    );
    drop(held);
}

#[tokio::test]
async fn certificates_and_keys_change_together() {
    let gateway = port_gateway().spawn().await.unwrap();
    let renewed = TestCert::new().unwrap();
    gateway.cert().replace_files(&renewed).unwrap();
    let told = change(&gateway, &[("KeepAlive", json!(7))]).await;
    assert!(
        told.contains("KeepAlive 0 -> 7; certificate localhost"),
        "{told}"
    );
    assert_shows(&gateway, &renewed).await;
}
