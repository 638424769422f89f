//! Tunnels as administrators see and end them.

use http::StatusCode;
use testkit::gateway::GatewayBuilder;
use testkit::net::{Connection, StreamEnd, read_to_end};
use testkit::prelude::*;
use testkit::tunnel::Tunnel;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::Stage;

/// A tunnel to a host that echoes.
async fn open(stage: &Stage, ticket: &str, kind: ChannelType) -> Connection {
    let tunnel = Tunnel::new(&stage.gateway.tls(), ticket);
    let mut tunnel = tunnel.stream().await.unwrap();
    echo(&mut tunnel, &link_message(kind, 0)).await;
    tunnel
}

async fn echo(tunnel: &mut Connection, bytes: &[u8]) {
    tunnel.write_all(bytes).await.unwrap();
    tunnel.flush().await.unwrap();
    let mut back = vec![0; bytes.len()];
    let read = within("an echo", tunnel.read_exact(&mut back)).await;
    read.unwrap().unwrap();
    assert_eq!(back, bytes);
}

/// The gateway has ended the tunnel, in order and without a byte more.
async fn assert_ended(tunnel: &mut Connection) {
    let (rest, end) = read_to_end(tunnel).await.unwrap();
    assert_eq!((rest, end), (Vec::new(), StreamEnd::Closed));
}

async fn assert_reason(stage: &Stage, reason: &str) {
    let closed = |line: &str| line.contains("channel closed") && line.contains(reason);
    stage.gateway.wait_for_log(closed, PATIENCE).await.unwrap();
}

#[tokio::test]
async fn a_tunnel_is_shown_and_ended_like_any_channel() {
    let stage = Stage::new().await;
    let (kicked, other) = (stage.desktop().await.token, stage.desktop().await.token);
    let mut tunnel = open(&stage, &kicked, ChannelType::Main).await;
    let mut socket = stage.channel(&kicked, ChannelType::Display).await;
    let mut stays = open(&stage, &other, ChannelType::Main).await;
    let table = stage.output(&["status"]).await;
    assert!(table.contains("2 desktop sessions, 3 channels"), "{table}");
    let status = stage.status().await;
    let channel = &status["sessions"][0]["channels"][0];
    assert_eq!(channel["kind"], "main");
    assert_eq!(channel["path"], "relay");
    assert!(channel["legs"]["sent_bytes"].as_u64().unwrap() > 0);

    let said = stage.output(&["kick", "s1"]).await;
    assert_eq!(said, "s1: 2 channels closed\n");
    assert_ended(&mut tunnel).await;
    assert_eq!(crate::support::ended(&mut socket).await, Some(1001));
    echo(&mut stays, b"still there").await;
    assert_reason(&stage, "ended by the administrator").await;
}

#[tokio::test]
async fn a_client_that_goes_on_after_the_end_is_left() {
    let stage = Stage::with(|gateway| gateway.set("CloseTimeout", 1)).await;
    let ticket = stage.desktop().await.token;
    let tunnel = open(&stage, &ticket, ChannelType::Main).await;
    let (mut reader, mut writer) = tokio::io::split(tunnel);
    stage.output(&["kick", "s1"]).await;
    let flood = async {
        while writer.write_all(&[7; 10_000]).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    let drain = async {
        let mut buffer = vec![0; 65_536];
        while reader.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
    };
    within("the end of the tunnel", async {
        tokio::join!(flood, drain)
    })
    .await
    .unwrap();
    assert_reason(&stage, "ended by the administrator").await;
}

#[tokio::test]
async fn draining_ends_tunnels_when_its_time_is_over() {
    let limited = |gateway: GatewayBuilder| gateway.set("DrainTimeout", 1);
    let stage = Stage::with(limited).await;
    let ticket = stage.desktop().await.token;
    let mut first = open(&stage, &ticket, ChannelType::Main).await;
    stage.output(&["drain"]).await;
    // Its client was told before to come here.
    let mut second = open(&stage, &ticket, ChannelType::Display).await;
    assert_ended(&mut first).await;
    assert_ended(&mut second).await;
    drop((first, second));
    assert_reason(&stage, "the time for draining was over").await;
}

#[tokio::test]
async fn a_gateway_that_stops_ends_its_tunnels() {
    let mut stage = Stage::new().await;
    let ticket = stage.desktop().await.token;
    let mut tunnel = open(&stage, &ticket, ChannelType::Main).await;
    // One that has not said what it is.
    let silent = Tunnel::new(&stage.gateway.tls(), &ticket);
    let mut silent = silent.stream().await.unwrap();
    let stop = async { stage.gateway.terminate().await.unwrap() };
    let ends = async move {
        assert_ended(&mut tunnel).await;
        assert_ended(&mut silent).await;
    };
    let (status, ()) = tokio::join!(stop, ends);
    assert!(status.success());
}

#[tokio::test]
async fn refusals_are_counted_by_reason() {
    let stage = Stage::new().await;
    let endpoint = stage.gateway.tls();
    let ticket = stage.desktop().await.token;
    let credentials = Tunnel::new(&endpoint, "").without_credentials();
    for (tunnel, status) in [
        (Tunnel::new(&endpoint, "guess"), StatusCode::FORBIDDEN),
        (credentials, StatusCode::PROXY_AUTHENTICATION_REQUIRED),
        (
            Tunnel::new(&endpoint, &ticket).to("desktop"),
            StatusCode::BAD_REQUEST,
        ),
    ] {
        assert_eq!(tunnel.refused().await.unwrap().0.status, status);
    }
    let _open = open(&stage, &ticket, ChannelType::Main).await;
    let metrics = stage.shown("/metrics").await;
    let refused = |reason: &str, count: u32| {
        format!(r#"flexvdi_gateway_channels_refused_total{{reason="{reason}"}} {count}"#)
    };
    for line in [
        refused("token", 1),
        refused("no credentials", 1),
        refused("request", 1),
        refused("connect off", 0),
        refused("handshake", 0),
        r#"flexvdi_gateway_channels{path="relay",type="main"} 1.0"#.to_owned(),
    ] {
        assert!(
            metrics.lines().any(|found| found == line),
            "{line} in\n{metrics}"
        );
    }
}
