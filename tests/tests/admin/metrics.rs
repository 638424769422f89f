//! `GET /metrics`.

use std::time::{SystemTime, UNIX_EPOCH};

use http::header::CONTENT_TYPE;
use testkit::prelude::*;
use testkit::ws::Connect;

use crate::support::{PASSWORD, Stage, get};

/// The value of the sample with exactly this name and these labels.
fn value(text: &str, sample: &str) -> Option<f64> {
    text.lines()
        .find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '))
        .map(|value| value.parse().unwrap())
}

#[track_caller]
fn assert_values(text: &str, expected: &[(&str, f64)]) {
    for &(sample, wanted) in expected {
        let found = value(text, sample);
        assert_eq!(found, Some(wanted), "{sample} in\n{text}");
    }
}

#[tokio::test]
async fn channels_and_bytes_are_counted_now_and_in_total() {
    let stage = Stage::new().await;
    let token = stage.desktop().await.token;
    let mut main = stage.channel(&token, ChannelType::Main).await;
    let display = stage.channel(&token, ChannelType::Display).await;
    main.echo(&[7; 1_000]).await.unwrap();
    let text = stage.shown("/metrics").await;
    assert_values(
        &text,
        &[
            ("flexvdi_gateway_sessions", 1.0),
            ("flexvdi_gateway_sessions_opened_total", 1.0),
            ("flexvdi_gateway_desktops_assigned_total", 1.0),
            ("flexvdi_gateway_tickets", 1.0),
            (r#"flexvdi_gateway_channels{path="relay",type="main"}"#, 1.0),
            (
                r#"flexvdi_gateway_channels{path="relay",type="display"}"#,
                1.0,
            ),
            (
                r#"flexvdi_gateway_channel_bytes_total{path="relay",type="main",direction="up"}"#,
                1_042.0,
            ),
            (
                r#"flexvdi_gateway_channel_bytes_total{path="relay",type="main",direction="down"}"#,
                1_042.0,
            ),
            ("flexvdi_gateway_host_connect_seconds_count", 2.0),
            (r#"flexvdi_gateway_data_path_works{path="relay"}"#, 1.0),
            ("flexvdi_gateway_draining", 0.0),
        ],
    );
    // The client's requests for its desktop come on top.
    assert!(value(&text, "flexvdi_gateway_connections") >= Some(2.0));
    assert!(value(&text, "flexvdi_gateway_tls_handshake_seconds_count") >= Some(3.0));
    drop(display);
    drop(main);
    let no_channel = |line: &str| line.contains("channel closed") && line.contains("kind=\"main\"");
    stage
        .gateway
        .wait_for_log(no_channel, PATIENCE)
        .await
        .unwrap();
    let text = stage.shown("/metrics").await;
    assert_values(
        &text,
        &[
            (
                r#"flexvdi_gateway_channels_opened_total{path="relay",type="main"}"#,
                1.0,
            ),
            (
                r#"flexvdi_gateway_channel_bytes_total{path="relay",type="main",direction="up"}"#,
                1_042.0,
            ),
        ],
    );
}

#[tokio::test]
async fn refusals_and_failures_are_counted_by_reason() {
    let stage = Stage::with(|gateway| gateway.set("HijackAll", false)).await;
    let endpoint = stage.gateway.tls();
    let nobody = testkit::net::free_port().unwrap().to_string();
    for token in ["wrong", &nobody, &nobody] {
        let outcome = Connect::new(&endpoint, token).open().await.unwrap();
        outcome.refused().unwrap();
    }
    let plain = Endpoint::plain(stage.gateway.tls_addr());
    let _ = testkit::http::Call::get(&plain, "/").send().await;
    let failed = r#"flexvdi_gateway_tls_handshake_failures_total{reason="failed"}"#;
    let counted = async {
        loop {
            let text = stage.shown("/metrics").await;
            if value(&text, failed) == Some(1.0) {
                break text;
            }
        }
    };
    let text = within("the failure", counted).await.unwrap();
    assert_values(
        &text,
        &[
            (
                r#"flexvdi_gateway_channels_refused_total{reason="token"}"#,
                1.0,
            ),
            (
                r#"flexvdi_gateway_host_connect_failures_total{reason="unreachable"}"#,
                2.0,
            ),
            (failed, 1.0),
        ],
    );
}

#[tokio::test]
async fn the_certificates_end_and_the_process_are_told() {
    let stage = Stage::new().await;
    let response = get(&stage.admin, "/metrics").await;
    assert_eq!(
        response.headers()[CONTENT_TYPE],
        "text/plain; version=0.0.4; charset=utf-8"
    );
    let text = stage.shown("/metrics").await;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let end = value(
        &text,
        "flexvdi_gateway_certificate_expiry_timestamp_seconds",
    )
    .unwrap();
    assert!(end > now.as_secs_f64());
    let started = value(&text, "process_start_time_seconds").unwrap();
    assert!(started <= now.as_secs_f64() + 1.0 && started > now.as_secs_f64() - 3_600.0);
    let open = value(&text, "process_open_fds").unwrap();
    assert!(open > 5.0 && open < value(&text, "process_max_fds").unwrap());
    let version = format!(
        r#"flexvdi_gateway_build_info{{version="{}"}}"#,
        env!("CARGO_PKG_VERSION")
    );
    assert_eq!(value(&text, &version), Some(1.0));
}

#[tokio::test]
async fn no_secret_is_shown_anywhere() {
    let stage = Stage::new().await;
    let desktop = stage.desktop().await;
    let _channel = stage.channel(&desktop.token, ChannelType::Main).await;
    for path in ["/", "/metrics", "/status"] {
        let shown = stage.shown(path).await;
        for secret in [desktop.token.as_str(), PASSWORD] {
            assert!(!shown.contains(secret), "{path}");
        }
    }
    for arguments in [&["status"][..], &["status", "--json"]] {
        assert!(!stage.output(arguments).await.contains(&desktop.token));
    }
}

#[tokio::test]
async fn the_port_shows_and_changes_nothing() {
    let stage = Stage::new().await;
    for path in ["/drain", "/undrain", "/kick/s1", "/vdi/desktop", "/other"] {
        let call = testkit::http::Call::post(&stage.admin, path, "");
        assert_eq!(call.send().await.unwrap().status(), 404, "{path}");
    }
    for path in ["/", "/status", "/metrics", "/healthz"] {
        let call = testkit::http::Call::post(&stage.admin, path, "");
        assert_eq!(call.send().await.unwrap().status(), 405, "{path}");
    }
    assert_eq!(stage.status().await["draining"], false);
    // What administrators see is not on the public port.
    for path in ["/metrics", "/status", "/"] {
        assert_eq!(
            get(&stage.gateway.tls(), path).await.status(),
            404,
            "{path}"
        );
    }
}
