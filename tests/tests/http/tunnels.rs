//! Which tunnels are opened by CONNECT, where they lead, and what is answered to all else.

use http::StatusCode;
use http::header::{ALLOW, CONNECTION, PROXY_AUTHENTICATE, RETRY_AFTER};
use serde_json::Value;
use testkit::gateway::{GatewayBuilder, Signal};
use testkit::http::exchange;
use testkit::prelude::*;
use testkit::tunnel::{NOWHERE, Tunnel, credentials};
use testkit::ws::{Head, RawClient};
use tokio::io::AsyncWriteExt;

use crate::support::{Stage, assert_opens, logged, refused_token};

/// Checks that a host that echoes is at the other end.
async fn assert_echoes(client: &mut RawClient) {
    let link = link_message(ChannelType::Main, 0);
    client.send_raw(&link).await.unwrap();
    assert_eq!(client.read_exact(link.len()).await.unwrap(), link);
}

async fn assert_tunnels(tunnel: Tunnel) {
    assert_echoes(&mut tunnel.open().await.unwrap()).await;
}

/// Checks that a tunnel is refused with this status, in the shape of all errors.
async fn assert_refused(tunnel: Tunnel, status: StatusCode) -> Head {
    let request = tunnel.request();
    let (head, body) = tunnel.refused().await.unwrap();
    assert_eq!(head.status, status, "{request}\n{body}");
    assert_eq!(head.headers[CONNECTION], "close");
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(body["status"], "Error");
    head
}

/// What is answered to these bytes, up to the end of the connection.
async fn answer(endpoint: &Endpoint, request: &str) -> String {
    let (answer, _) = exchange(endpoint, request.as_bytes()).await.unwrap();
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn a_ticket_opens_tunnels_and_websockets_of_one_session() {
    let stage = Stage::with(GatewayBuilder::plain).await;
    let ticket = stage.ticket().await;
    for endpoint in [stage.gateway.tls(), stage.gateway.plain()] {
        assert_tunnels(Tunnel::new(&endpoint, &ticket)).await;
        assert_tunnels(Tunnel::new(&endpoint, &ticket).http11()).await;
        assert_opens(&endpoint, &ticket).await;
    }
    let log = stage.gateway.log().await;
    let opened = log.iter().filter(|line| line.contains("channel open"));
    let opened: Vec<_> = opened.collect();
    assert_eq!(opened.len(), 6);
    let is_alike = |line: &&String| line.contains("session=s1 ") && line.contains("kind=\"main\"");
    assert!(opened.iter().all(is_alike), "{opened:?}");
}

#[tokio::test]
async fn the_ticket_alone_says_where_a_tunnel_leads() {
    let stage = Stage::new().await;
    let other = Host::echo().await.unwrap();
    let ticket = stage.ticket().await;
    let endpoint = stage.gateway.tls();
    let others = [
        other.addr().to_string(),
        format!("localhost:{}", other.addr().port()),
        format!("[::ffff:127.0.0.1]:{}", other.addr().port()),
        stage.manager.addr().to_string(),
        stage.gateway.tls_addr().to_string(),
        "169.254.169.254:80".to_owned(),
        format!("{ticket}:443"),
    ];
    for target in &others {
        assert_tunnels(Tunnel::new(&endpoint, &ticket).to(target)).await;
        let denied = Tunnel::new(&endpoint, "guess").to(target);
        assert_refused(denied, StatusCode::FORBIDDEN).await;
        let asked = Tunnel::new(&endpoint, "").without_credentials().to(target);
        assert_refused(asked, StatusCode::PROXY_AUTHENTICATION_REQUIRED).await;
    }
    assert_eq!(other.accepted(), 0);
    assert_eq!(stage.host.accepted(), others.len());
}

#[tokio::test]
async fn a_client_without_credentials_is_asked_for_them_and_not_banned() {
    let stage = Stage::with(|gateway| gateway.set("BadTokenLimit", 2)).await;
    let endpoint = stage.gateway.tls();
    for _ in 0..5 {
        let asked = Tunnel::new(&endpoint, "").without_credentials();
        let head = assert_refused(asked, StatusCode::PROXY_AUTHENTICATION_REQUIRED).await;
        let challenge = head.headers[PROXY_AUTHENTICATE].to_str().unwrap();
        assert!(challenge.starts_with("Basic realm=\""), "{challenge}");
    }
    let bearer = Tunnel::new(&endpoint, "").without_credentials();
    let bearer = bearer.header("Proxy-Authorization", "Bearer abc");
    assert_refused(bearer, StatusCode::PROXY_AUTHENTICATION_REQUIRED).await;
    assert_refused(Tunnel::new(&endpoint, "guess"), StatusCode::FORBIDDEN).await;
}

#[tokio::test]
async fn wrong_tickets_count_like_wrong_tokens() {
    let stage = Stage::with(|gateway| gateway.set("BadTokenLimit", 3)).await;
    let ticket = stage.ticket().await;
    let guesser = stage.gateway.tls().from_source([127, 0, 0, 2].into());
    for guess in ["a", "b"] {
        assert_refused(Tunnel::new(&guesser, guess), StatusCode::FORBIDDEN).await;
    }
    refused_token(&guesser, "c").await;
    let banned = Tunnel::new(&guesser, "d");
    let head = assert_refused(banned, StatusCode::TOO_MANY_REQUESTS).await;
    assert!(head.headers.contains_key(RETRY_AFTER));
    assert_tunnels(Tunnel::new(&guesser, &ticket)).await;
    logged(
        &stage.gateway,
        &["tunnel refused", "wrong or expired token"],
    )
    .await;
    // In another case it is another one: so it cannot be the host, which clients lowercase.
    let other = if ticket == ticket.to_uppercase() {
        ticket.to_lowercase()
    } else {
        ticket.to_uppercase()
    };
    let tls = stage.gateway.tls();
    assert_refused(Tunnel::new(&tls, &other), StatusCode::FORBIDDEN).await;
}

#[tokio::test]
async fn a_ticket_that_is_a_host_name_needs_no_credentials() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let access_log = path.to_str().unwrap().to_owned();
    let configure = |gateway: GatewayBuilder| {
        gateway
            .plain()
            .set("AccessLog", access_log)
            .set("Debug", true)
    };
    let mut stage = Stage::with(configure).await;
    let made = stage.gateway.host_name_ticket(stage.host.addr()).await;
    let ticket = made.unwrap();
    let (tls, plain) = (stage.gateway.tls(), stage.gateway.plain());
    for host in [&ticket, &ticket.to_uppercase()] {
        let to = format!("{host}:5900");
        assert_tunnels(Tunnel::new(&tls, "").without_credentials().to(&to)).await;
        let other_port = format!("{host}:1");
        let tunnel = Tunnel::new(&plain, "")
            .without_credentials()
            .to(&other_port);
        assert_tunnels(tunnel.http11()).await;
    }
    // It is a ticket like others.
    assert_tunnels(Tunnel::new(&tls, &ticket)).await;
    assert_opens(&tls, &ticket).await;
    let guess = format!("{}:5900", "ticket-0123456789abcdef01234567");
    let wrong = Tunnel::new(&tls, "").without_credentials().to(&guess);
    assert_refused(wrong, StatusCode::FORBIDDEN).await;

    logged(
        &stage.gateway,
        &["tunnel refused", "wrong or expired token"],
    )
    .await;
    let log = stage.gateway.log().await.join("\n");
    assert_eq!(log.matches("channel open").count(), 6, "{log}");
    assert!(stage.gateway.terminate().await.unwrap().success());
    let recorded = std::fs::read_to_string(path).unwrap();
    for told in [log, recorded] {
        assert!(!told.to_lowercase().contains("ticket-"), "{told}");
    }
}

#[tokio::test]
async fn a_host_is_a_ticket_only_where_it_can_be_nothing_else() {
    let stage = Stage::with(|gateway| gateway.set("BadTokenLimit", 3)).await;
    let made = stage.gateway.host_name_ticket(stage.host.addr()).await;
    let right = format!("{}:5900", made.unwrap());
    let guesser = stage.gateway.tls().from_source([127, 0, 0, 2].into());
    let asked = || Tunnel::new(&guesser, "").without_credentials();
    // Whoever has credentials shows them.
    let bearer = asked().header("Proxy-Authorization", "Bearer abc");
    let bearer = bearer.to(&right);
    assert_refused(bearer, StatusCode::PROXY_AUTHENTICATION_REQUIRED).await;
    let malformed = asked().header("Proxy-Authorization", "Basic").to(&right);
    assert_refused(malformed, StatusCode::BAD_REQUEST).await;
    let wrong = Tunnel::new(&guesser, "guess").to(&right);
    assert_refused(wrong, StatusCode::FORBIDDEN).await;
    // Names and addresses of desktops are no guesses, short ones and old tickets neither.
    let old = format!("{}:5900", stage.ticket().await);
    for name in [NOWHERE, "10.0.0.21:5900", "ticket-office:5900", &old] {
        let head = assert_refused(asked().to(name), StatusCode::PROXY_AUTHENTICATION_REQUIRED);
        assert!(head.await.headers.contains_key(PROXY_AUTHENTICATE));
    }
    // What is shaped like a ticket is one.
    for guess in ["a", "b"] {
        let to = format!("ticket-{}:5900", guess.repeat(24));
        assert_refused(asked().to(&to), StatusCode::FORBIDDEN).await;
    }
    let to = format!("ticket-{}:5900", "c".repeat(24));
    let banned = assert_refused(asked().to(&to), StatusCode::TOO_MANY_REQUESTS);
    assert!(banned.await.headers.contains_key(RETRY_AFTER));
    assert_refused(asked(), StatusCode::PROXY_AUTHENTICATION_REQUIRED).await;
    assert_tunnels(asked().to(&right)).await;
    assert_eq!(stage.host.accepted(), 1);
}

#[tokio::test]
async fn a_request_that_can_be_read_in_two_ways_is_refused() {
    let stage = Stage::new().await;
    let ticket = stage.ticket().await;
    let endpoint = stage.gateway.tls();
    let tunnel = || Tunnel::new(&endpoint, &ticket);
    let other = credentials("other");
    for (name, value) in [
        ("Proxy-Authorization", other.as_str()),
        ("Proxy-Authorization", &credentials(&ticket)),
        ("Content-Length", "4"),
        ("Transfer-Encoding", "chunked"),
    ] {
        let request = tunnel().header(name, value).http11();
        assert_refused(request, StatusCode::BAD_REQUEST).await;
    }
    for value in ["Basic", "Basic !!!!", "Basic dGlja2V0", "Basic /w=="] {
        let request = tunnel().without_credentials();
        let request = request.header("Proxy-Authorization", value);
        assert_refused(request, StatusCode::BAD_REQUEST).await;
    }
    for target in [
        "/",
        "*",
        "http://desktop:5900/",
        "desktop",
        "a@b:1",
        "desktop:",
        ":1",
    ] {
        let answer = answer(&endpoint, &tunnel().to(target).request()).await;
        assert!(answer.starts_with("HTTP/1.0 400 "), "{target}: {answer}");
    }
    // A second Host, and none where one is needed.
    let twice = tunnel().header("Host", "other:1");
    assert_refused(twice, StatusCode::BAD_REQUEST).await;
    assert_eq!(stage.host.accepted(), 0);
    assert_tunnels(tunnel()).await;
}

#[tokio::test]
async fn nothing_that_is_too_long_is_read() {
    let stage = Stage::new().await;
    let ticket = stage.ticket().await;
    let endpoint = stage.gateway.tls();
    let long = "a".repeat(20_000);
    let huge = Tunnel::new(&endpoint, &long).request();
    assert!(answer(&endpoint, &huge).await.starts_with("HTTP/1.1 431 "));
    let target = format!("{}:1", "a.".repeat(3_000));
    let far = Tunnel::new(&endpoint, &ticket).to(&target);
    assert_refused(far, StatusCode::URI_TOO_LONG).await;
    // As long as a head may be, and no ticket.
    let long = "a".repeat(8_000);
    assert_refused(Tunnel::new(&endpoint, &long), StatusCode::FORBIDDEN).await;
}

#[tokio::test]
async fn what_a_client_writes_stays_out_of_the_logs() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let access_log = path.to_str().unwrap().to_owned();
    let mut stage =
        Stage::with(|gateway| gateway.set("AccessLog", access_log).set("Debug", true)).await;
    let ticket = stage.ticket().await;
    let endpoint = stage.gateway.tls();
    let injected = "x\r\nclient=192.0.2.66 \"secret-guess";
    assert_refused(Tunnel::new(&endpoint, injected), StatusCode::FORBIDDEN).await;
    let tunnel = Tunnel::new(&endpoint, &ticket).to("secret-host:443");
    let mut client = tunnel.open().await.unwrap();
    assert_echoes(&mut client).await;
    client.shutdown().await.unwrap();
    logged(&stage.gateway, &["channel closed", "client disconnected"]).await;
    let log = stage.gateway.log().await.join("\n");
    assert!(stage.gateway.terminate().await.unwrap().success());
    let recorded = std::fs::read_to_string(path).unwrap();
    for secret in ["secret-guess", "192.0.2.66", "secret-host", &ticket] {
        assert!(!log.contains(secret), "{secret} in\n{log}");
        assert!(!recorded.contains(secret), "{secret} in\n{recorded}");
    }
    let events: Vec<Value> = recorded
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let of = |event: &str| events.iter().find(|line| line["event"] == event).unwrap();
    assert_eq!(of("refused")["status"], 403);
    assert_eq!(of("refused")["reason"], "wrong or expired token");
    assert_eq!(of("channel-open")["path"], "relay");
    assert_eq!(of("channel-closed")["up"], of("channel-closed")["down"]);
    assert_eq!(
        of("channel-closed")["request"],
        of("channel-open")["request"]
    );
}

#[tokio::test]
async fn tunnels_can_be_switched_off() {
    let stage = Stage::with(|gateway| gateway.set("Connect", false)).await;
    let ticket = stage.ticket().await;
    let endpoint = stage.gateway.tls();
    for tunnel in [
        Tunnel::new(&endpoint, &ticket),
        Tunnel::new(&endpoint, "guess"),
        Tunnel::new(&endpoint, "").without_credentials(),
    ] {
        let head = assert_refused(tunnel, StatusCode::METHOD_NOT_ALLOWED).await;
        assert_eq!(head.headers[ALLOW], "GET");
    }
    assert_eq!(stage.host.accepted(), 0);
    let keys = [("Connect", Value::from(true))];
    stage.gateway.change_config(&keys).unwrap();
    stage.gateway.signal(Signal::HUP).unwrap();
    logged(&stage.gateway, &["reloaded", "Connect false -> true"]).await;
    assert_tunnels(Tunnel::new(&endpoint, &ticket)).await;
}

#[tokio::test]
async fn without_hijacking_no_port_is_a_ticket() {
    let host = Host::echo().await.unwrap();
    let port = host.addr().port().to_string();
    let gateway = Gateway::builder().set("HijackAll", false);
    let gateway = gateway.spawn().await.unwrap();
    let endpoint = gateway.tls();
    for target in [NOWHERE, &host.addr().to_string()] {
        let tunnel = Tunnel::new(&endpoint, &port).to(target);
        assert_refused(tunnel, StatusCode::METHOD_NOT_ALLOWED).await;
    }
    assert_eq!(host.accepted(), 0);
    assert_opens(&endpoint, &port).await;
}

#[tokio::test]
async fn hosts_that_are_not_reached_are_told_before_the_tunnel_is() {
    let stage = Stage::new().await;
    let endpoint = stage.gateway.tls();
    let closed = testkit::net::free_port().unwrap();
    let nowhere = DesktopAnswer::at("127.0.0.1", closed);
    stage.manager.set_desktop(nowhere);
    let ticket = stage.ticket().await;
    assert_refused(Tunnel::new(&endpoint, &ticket), StatusCode::BAD_GATEWAY).await;
    logged(&stage.gateway, &["host not reached", "session=s1"]).await;
}

#[tokio::test]
async fn channels_of_one_client_are_limited_whatever_they_are() {
    let configure = |gateway: GatewayBuilder| {
        gateway
            .plain()
            .set("TrustedProxies", vec!["127.0.0.1"])
            .set("MaxChannelsPerAddress", 2)
    };
    let stage = Stage::with(configure).await;
    let ticket = stage.ticket().await;
    let endpoint = stage.gateway.plain();
    let of = |client: &str| Tunnel::new(&endpoint, &ticket).header("X-Forwarded-For", client);
    let mut first = of("192.0.2.7").open().await.unwrap();
    let mut second = of("192.0.2.7").open().await.unwrap();
    assert_echoes(&mut first).await;
    assert_echoes(&mut second).await;
    assert_refused(of("192.0.2.7"), StatusCode::TOO_MANY_REQUESTS).await;
    assert_tunnels(of("192.0.2.8")).await;
    let refused = logged(&stage.gateway, &["tunnel refused", "too many channels"]).await;
    assert!(refused.contains("client=192.0.2.7"), "{refused}");
    assert!(refused.contains("session=s1"), "{refused}");
    drop(first);
    logged(&stage.gateway, &["channel closed", "client=192.0.2.7"]).await;
    assert_tunnels(of("192.0.2.7")).await;
}

#[tokio::test]
async fn the_client_that_a_balancer_names_is_the_tunnels() {
    let configure = |gateway: GatewayBuilder| {
        gateway
            .plain()
            .set("ProxyProtocol", vec!["127.0.0.1"])
            .set("DeniedClients", vec!["192.0.2.66"])
    };
    let host = Host::echo().await.unwrap();
    let manager = Manager::spawn(DesktopAnswer::new(host.addr()))
        .await
        .unwrap();
    let gateway = configure(Gateway::builder().manager(&manager))
        .spawn()
        .await
        .unwrap();
    let say = async |client: &str, request: &str| {
        let mut tcp = gateway.plain().connect_tcp().await.unwrap();
        let header = format!("PROXY TCP4 {client} 127.0.0.1 4711 443\r\n");
        tcp.write_all(header.as_bytes()).await.unwrap();
        let mut connection = RawClient::over(tcp);
        connection.send_raw(request.as_bytes()).await.unwrap();
        connection
    };
    let body = r#"{"username":"user"}"#;
    let post = format!(
        "POST /vdi/desktop HTTP/1.1\r\nHost: gw\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut asking = say("192.0.2.7", &post).await;
    let head = asking.read_head().await.unwrap();
    let length = head.headers["content-length"].to_str().unwrap();
    let answer = asking.read_exact(length.parse().unwrap()).await.unwrap();
    let answer: Value = serde_json::from_slice(&answer).unwrap();
    let ticket = answer["spice_port"].as_str().unwrap();
    let request = Tunnel::new(&gateway.plain(), ticket).request();
    let mut tunnel = say("192.0.2.7", &request).await;
    assert_eq!(tunnel.read_head().await.unwrap().status, StatusCode::OK);
    let link = link_message(ChannelType::Main, 0);
    tunnel.send_raw(&link).await.unwrap();
    assert_eq!(tunnel.read_exact(link.len()).await.unwrap(), link);
    let opened = logged(&gateway, &["channel open"]).await;
    assert!(opened.contains("client=192.0.2.7"), "{opened}");
    let mut denied = say("192.0.2.66", &request).await;
    assert!(denied.read_head().await.is_err());
}

#[tokio::test]
async fn clients_that_are_not_served_get_no_tunnel() {
    let configure = |gateway: GatewayBuilder| {
        gateway
            .set("TrustedProxies", vec!["127.0.0.1"])
            .set("DeniedClients", vec!["192.0.2.66"])
    };
    let stage = Stage::with(configure).await;
    let endpoint = stage.gateway.tls();
    let as_user = testkit::http::Call::post(&endpoint, "/vdi/desktop", r#"{"username":"user"}"#)
        .header("X-Forwarded-For", "192.0.2.7");
    let answer = as_user.send().await.unwrap();
    let answer: Value = serde_json::from_slice(answer.body()).unwrap();
    let ticket = answer["spice_port"].as_str().unwrap();
    let of = |client: &str| Tunnel::new(&endpoint, ticket).header("X-Forwarded-For", client);
    assert_refused(of("192.0.2.66"), StatusCode::FORBIDDEN).await;
    assert_tunnels(of("192.0.2.7")).await;
}
