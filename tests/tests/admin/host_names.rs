//! Which names the administrators' port may be asked by.

use bytes::Bytes;
use http::{Response, StatusCode};
use serde_json::json;
use testkit::gateway::Signal;
use testkit::http::Call;
use testkit::prelude::*;

use crate::support::Stage;

const UNKNOWN: &str = "rebound.evil.example";

async fn asked_by(stage: &Stage, path: &str, host: &str) -> Response<Bytes> {
    let call = Call::get(&stage.admin, path).header("Host", host);
    call.send().await.unwrap()
}

#[tokio::test]
async fn what_names_clients_is_shown_under_known_names_only() {
    let stage = Stage::with(|gateway| {
        let cert = TestCert::builder().names(["gw.example", "*.pool.example"]);
        gateway
            .cert(cert.build().unwrap())
            .set("ExternalName", "desktops.example")
            .set("AdminHosts", json!(["monitor.example"]))
    })
    .await;
    let port = stage.admin.addr().port();
    let mut machine = rustix::system::uname()
        .nodename()
        .to_owned()
        .into_string()
        .unwrap();
    machine.make_ascii_uppercase();
    for path in ["/", "/status", "/page.js", "/page.css"] {
        for known in [
            "127.0.0.1",
            "[::1]",
            "192.0.2.7",
            "localhost",
            "gateway",
            "gw.example",
            "GW.Example.",
            "a.pool.example",
            "desktops.example",
            "monitor.example",
            &machine,
        ] {
            for host in [known.to_owned(), format!("{known}:{port}")] {
                let status = asked_by(&stage, path, &host).await.status();
                assert_eq!(status, StatusCode::OK, "{path} by {host}");
            }
        }
        for unknown in [
            UNKNOWN,
            "gw.example.evil.example",
            "b.a.pool.example",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "user@127.0.0.1",
            "",
        ] {
            let response = asked_by(&stage, path, unknown).await;
            let text = String::from_utf8_lossy(response.body());
            assert_eq!(
                response.status(),
                StatusCode::MISDIRECTED_REQUEST,
                "{path} by {unknown}"
            );
            assert!(text.contains("AdminHosts"), "{text}");
            assert_eq!(response.headers()["x-content-type-options"], "nosniff");
        }
    }
}

#[tokio::test]
async fn balancers_and_prometheus_may_name_the_gateway_as_they_like() {
    let stage = Stage::new().await;
    for path in ["/healthz", "/metrics"] {
        let response = asked_by(&stage, path, UNKNOWN).await;
        assert_eq!(response.status(), StatusCode::OK, "{path}");
    }
    let token = stage.desktop().await.token;
    let _channel = stage.channel(&token, ChannelType::Main).await;
    // What everybody may see tells of nobody.
    let metrics = asked_by(&stage, "/metrics", UNKNOWN).await;
    let metrics = String::from_utf8_lossy(metrics.body());
    assert!(!metrics.contains("127.0.0.1"), "{metrics}");
}

#[tokio::test]
async fn who_is_no_browser_needs_no_name() {
    let stage = Stage::new().await;
    let old = Call::get(&stage.admin, "/status").http10().without_host();
    assert_eq!(old.send().await.unwrap().status(), StatusCode::OK);
    // Commands come to the socket.
    stage.output(&["status"]).await;
}

#[tokio::test]
async fn an_absolute_target_counts_and_two_names_are_none() {
    let stage = Stage::new().await;
    let absolute = Call::get(&stage.admin, &format!("http://{UNKNOWN}/status"));
    let status = absolute.send().await.unwrap().status();
    assert_eq!(status, StatusCode::MISDIRECTED_REQUEST);
    let request = format!(
        "GET /status HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: {UNKNOWN}\r\nConnection: close\r\n\r\n"
    );
    let (answer, _) = testkit::http::exchange(&stage.admin, request.as_bytes())
        .await
        .unwrap();
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with("HTTP/1.1 421"), "{answer}");
}

#[tokio::test]
async fn a_reload_brings_another_name() {
    let stage = Stage::new().await;
    let before = asked_by(&stage, "/status", UNKNOWN).await;
    assert_eq!(before.status(), StatusCode::MISDIRECTED_REQUEST);
    stage
        .gateway
        .change_config(&[("AdminHosts", json!([UNKNOWN]))])
        .unwrap();
    stage.gateway.signal(Signal::HUP).unwrap();
    let reloaded = |line: &str| line.contains("INFO reloaded");
    stage
        .gateway
        .wait_for_log(reloaded, PATIENCE)
        .await
        .unwrap();
    let after = asked_by(&stage, "/status", UNKNOWN).await;
    assert_eq!(after.status(), StatusCode::OK);
}
