//! What the log tells, and what it never does.

use std::time::Duration;

use testkit::flexvdi::FlexVdiClient;
use testkit::http::{Call, exchange};
use testkit::manager::{RawEnd, RawManager, Reply};
use testkit::prelude::*;
use tokio::io::AsyncWriteExt;

use crate::support::{ask_desktop, assert_opens, logged, port_gateway, port_token, refused_token};

const USER_PASSWORD: &str = "user-pass-6f1c";
const WRONG_PASSWORD: &str = "wrong-pass-91ab";
const SPICE_PASSWORD: &str = "spice-pass-3d7e";
const WRONG_TOKEN: &str = "Wr0ngT0kenGuess1";

/// Checks that no line of the log holds any of these.
async fn assert_never_logged(gateway: &Gateway, secrets: &[&str]) {
    let log = gateway.log().await.join("\n");
    for secret in secrets {
        assert!(secret.len() >= 4, "too short to be told from anything else");
        assert!(!log.contains(secret), "{secret} in:\n{log}");
    }
}

/// The lines of base64 in a PEM file.
fn key_material(cert: &TestCert) -> Vec<String> {
    let pem = std::fs::read_to_string(cert.combined_path()).unwrap();
    let lines = pem.lines().filter(|line| !line.starts_with("-----"));
    lines.map(str::to_owned).collect()
}

#[tokio::test]
async fn no_secret_of_a_whole_session_is_logged() {
    let host = Host::echo().await.unwrap();
    let desktop = DesktopAnswer::new(host.addr()).password(SPICE_PASSWORD);
    let manager = Manager::spawn(desktop).await.unwrap();
    manager.require_password("user", USER_PASSWORD);
    let mut gateway = Gateway::builder()
        .manager(&manager)
        .set("Debug", true)
        .set("BadTokenLimit", 3)
        .set("ApiPassword", "config-pass-77aa")
        .spawn()
        .await
        .unwrap();
    let endpoint = gateway.tls();
    let client = FlexVdiClient::new(&endpoint).pending_pause(Duration::from_millis(1));

    let wrong = client.clone().login("user", WRONG_PASSWORD);
    wrong.desktop().await.unwrap_err();
    manager.script([Reply::Pending]);
    manager.offer_desktops(&[("desk-key", "Desk")]);
    let client = client.login("user", USER_PASSWORD);
    let desktop = client.desktop().await.unwrap();
    let mut channel = ws::echo_channel(&endpoint, &desktop.token).await.unwrap();
    channel.echo(b"typed-text-55").await.unwrap();
    let guesser = endpoint.clone().from_source([127, 0, 0, 2].into());
    for number in 0..3 {
        refused_token(&guesser, &format!("{WRONG_TOKEN}{number}")).await;
    }
    let targets = [
        format!("/?token={}&token=x", desktop.token),
        format!("/{WRONG_TOKEN}"),
        format!("/vdi/../?password={USER_PASSWORD}"),
        format!("/vdi/x?password={USER_PASSWORD}"),
    ];
    for target in targets {
        let call = Call::get(&endpoint, &target)
            .header("Authorization", "Basic YmFzaWMtc2VjcmV0")
            .header("Cookie", "session=cookie-secret");
        call.send().await.unwrap();
    }
    // What cannot be parsed may hold secrets as well.
    for garbage in [
        format!("POST /vdi/desktop {USER_PASSWORD}\r\n\r\n"),
        format!("GET /?token={} HTTP/1.1\r\nX\r\n\r\n", desktop.token),
    ] {
        exchange(&endpoint, garbage.as_bytes()).await.unwrap();
    }
    channel.shutdown().await.unwrap();
    logged(&gateway, &["channel closed"]).await;
    assert!(gateway.terminate().await.unwrap().success());

    assert!(
        gateway
            .log()
            .await
            .iter()
            .any(|line| line.contains("DEBUG"))
    );
    let mut secrets = vec![
        USER_PASSWORD,
        WRONG_PASSWORD,
        SPICE_PASSWORD,
        WRONG_TOKEN,
        &desktop.token,
        "config-pass-77aa",
        "YmFzaWMtc2VjcmV0",
        "cookie-secret",
        "typed-text-55",
        "PRIVATE KEY",
        "BEGIN CERTIFICATE",
    ];
    let keys = key_material(gateway.cert());
    secrets.extend(keys.iter().map(String::as_str));
    assert_never_logged(&gateway, &secrets).await;
}

#[tokio::test]
async fn answers_that_cannot_be_changed_are_not_quoted() {
    let body = format!(r#"{{"status":"OK","spice_password":"{SPICE_PASSWORD}","spice_port":"#);
    let answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let manager = RawManager::reply(answer, RawEnd::Close).await.unwrap();
    let not_http = RawManager::reply(format!("{SPICE_PASSWORD} HTTP"), RawEnd::Close);
    let not_http = not_http.await.unwrap();
    for manager in [manager, not_http] {
        let gateway = Gateway::builder()
            .set("ManagerIP", "127.0.0.1")
            .set("ManagerPort", manager.addr().port())
            .set("Debug", true)
            .spawn()
            .await
            .unwrap();
        ask_desktop(&gateway.tls()).send().await.unwrap();
        logged(&gateway, &["WARN", "manager"]).await;
        assert_never_logged(&gateway, &[SPICE_PASSWORD]).await;
    }
}

#[tokio::test]
async fn a_channel_is_told_when_it_opens_and_when_it_ends() {
    let host = Host::echo().await.unwrap();
    let manager = Manager::spawn(DesktopAnswer::new(host.addr()))
        .await
        .unwrap();
    let gateway = Gateway::builder().manager(&manager).spawn().await.unwrap();
    let client = FlexVdiClient::new(&gateway.tls());
    let desktop = client.desktop().await.unwrap();
    let kinds = [
        (ChannelType::Main, 0, 42),
        (ChannelType::Inputs, 0, 38),
        (ChannelType::Display, 1, 42),
    ];
    for (index, (kind, id, link)) in kinds.into_iter().enumerate() {
        let number = index + 1;
        let opened = client.channels(&desktop, &[(kind, id)]).await.unwrap();
        let mut channel = opened.into_iter().next().unwrap();
        channel.expect(&link_message(kind, id)).await.unwrap();
        channel.echo(&[7; 1000]).await.unwrap();
        channel.shutdown().await.unwrap();
        let opened = logged(&gateway, &["channel open", &format!("channel=c{number} ")]).await;
        let closed = logged(
            &gateway,
            &["channel closed", &format!("channel=c{number} ")],
        )
        .await;
        let common = [
            " INFO ".to_owned(),
            "session=s1 ".to_owned(),
            "client=127.0.0.1 ".to_owned(),
            format!("host={} ", host.addr()),
            format!("kind=\"{kind}\""),
        ];
        for text in &common {
            assert!(
                opened.contains(text) && closed.contains(text),
                "{text}: {opened} {closed}"
            );
        }
        assert!(opened.contains(&format!("number={id} ")), "{opened}");
        let bytes = link + 1000;
        assert!(
            closed.contains(&format!("up={bytes} down={bytes} ")),
            "{closed}"
        );
        assert!(
            closed.contains("reason=\"client sent Close 1000\""),
            "{closed}"
        );
    }
    let assigned = logged(&gateway, &["desktop assigned", "session=s1 "]).await;
    assert!(
        assigned.contains(&format!("host={}", host.addr())),
        "{assigned}"
    );
}

#[tokio::test]
async fn refusals_are_told_with_client_and_reason() {
    let gateway = port_gateway().spawn().await.unwrap();
    refused_token(&gateway.tls(), WRONG_TOKEN).await;
    let line = logged(&gateway, &["INFO", "WebSocket refused"]).await;
    assert!(
        line.contains("client=127.0.0.1 reason=wrong or expired token"),
        "{line}"
    );
}

#[tokio::test]
async fn clients_cannot_write_lines_of_the_log() {
    let host = Host::echo().await.unwrap();
    let gateway = port_gateway()
        .plain()
        .set("Debug", true)
        .set("TrustedProxies", vec!["127.0.0.1"])
        .spawn()
        .await
        .unwrap();
    let forged = "1.2.3.4%0a2026-01-01T00:00:00Z  INFO ready";
    let call = Call::get(
        &gateway.plain(),
        &format!("/vdi/{forged}").replace(' ', "%20"),
    );
    call.header("X-Forwarded-For", forged).send().await.unwrap();
    let raw = b"GET /vdi/\x1b[2Jx\r\n INFO forged HTTP/1.1\r\n\r\n";
    exchange(&gateway.plain(), raw).await.unwrap();
    assert_opens(&gateway.plain(), &port_token(&host)).await;
    logged(&gateway, &["channel open"]).await;
    assert_eq!(gateway.count_logged("INFO ready").await, 1);
    for line in gateway.log().await {
        assert!(line.starts_with("20") && !line.contains('\x1b'), "{line:?}");
        assert!(!line.contains("forged"), "{line}");
    }
}

#[tokio::test]
async fn debug_says_more_and_only_then() {
    for debug in [false, true] {
        let gateway = port_gateway().set("Debug", debug).spawn().await.unwrap();
        let mut nothing = gateway.tls().connect_tcp().await.unwrap();
        nothing.write_all(b"not TLS at all\r\n\r\n").await.unwrap();
        testkit::net::read_to_end(&mut nothing).await.unwrap();
        drop(nothing);
        if debug {
            logged(&gateway, &["TLS handshake failed"]).await;
        }
        refused_token(&gateway.tls(), WRONG_TOKEN).await;
        logged(&gateway, &["WebSocket refused"]).await;
        assert_eq!(
            gateway.count_logged("TLS handshake failed").await > 0,
            debug
        );
        assert_eq!(gateway.count_logged("DEBUG").await > 0, debug);
    }
}

#[tokio::test]
async fn a_reader_that_stops_does_not_stop_the_gateway() {
    let mut gateway = port_gateway()
        .plain()
        .set("Debug", true)
        .set("BadTokenLimit", 0)
        .spawn()
        .await
        .unwrap();
    gateway.leave_log_unread();
    // More than a pipe holds: 64 KiB (pipe(7)), in lines of 100 bytes and more.
    for _ in 0..1_000 {
        refused_token(&gateway.plain(), WRONG_TOKEN).await;
    }
    let health = Call::get(&gateway.tls(), "/healthz").send().await.unwrap();
    assert!(health.status().is_success());
    assert!(gateway.terminate().await.unwrap().success());
    assert!(gateway.count_logged("WebSocket refused").await > 500);
}
