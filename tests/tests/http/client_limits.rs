//! What one client address may have open, whoever tells who the client is.

use http::StatusCode;
use serde_json::Value;
use testkit::gateway::Signal;
use testkit::prelude::*;
use testkit::ws::{Channel, Connect, Outcome, RawClient, handshake_request};
use tokio::io::AsyncWriteExt;

use crate::support::{Stage, assert_error, logged, port_gateway, port_token};

/// The answer to a channel of a client that a trusted proxy names.
async fn open(stage: &Stage, token: &str, client: &str) -> Outcome {
    let connect = Connect::new(&stage.gateway.tls(), token);
    let connect = connect.header("X-Forwarded-For", client);
    connect.open().await.unwrap()
}

async fn opened(stage: &Stage, token: &str, client: &str) -> Channel {
    let socket = open(stage, token, client).await.opened().unwrap();
    let mut channel = Channel::new(socket);
    let link = link_message(ChannelType::Main, 0);
    channel.write_all(&link).await.unwrap();
    channel.flush().await.unwrap();
    channel.expect(&link).await.unwrap();
    channel
}

async fn refused(stage: &Stage, token: &str, client: &str) -> String {
    let response = open(stage, token, client).await.refused().unwrap();
    assert_error(&response, StatusCode::TOO_MANY_REQUESTS)
}

#[tokio::test]
async fn sessions_and_channels_of_one_client_are_limited() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let mut stage = Stage::with(|gateway| {
        gateway
            .set("TrustedProxies", vec!["127.0.0.1"])
            .set("MaxSessionsPerAddress", 2)
            .set("MaxChannelsPerAddress", 3)
            .set("AccessLog", path.to_str().unwrap())
    })
    .await;
    let (one, other) = ("192.0.2.7", "192.0.2.8");
    let tokens = [
        stage.ticket().await,
        stage.ticket().await,
        stage.ticket().await,
    ];
    let first = opened(&stage, &tokens[0], one).await;
    let _second = opened(&stage, &tokens[1], one).await;
    let message = refused(&stage, &tokens[2], one).await;
    assert_eq!(message, "too many desktop sessions of this address");
    let _third = opened(&stage, &tokens[1], one).await;
    let message = refused(&stage, &tokens[1], one).await;
    assert_eq!(message, "too many channels of this address");
    let _others = opened(&stage, &tokens[2], other).await;
    logged(
        &stage.gateway,
        &["WebSocket refused", "session=s2", "too many channels"],
    )
    .await;

    // Places come back.
    drop(first);
    logged(&stage.gateway, &["channel closed"]).await;
    let _again = opened(&stage, &tokens[2], one).await;

    // Other limits count what is open, and end nothing of it.
    let keys = [("MaxChannelsPerAddress", Value::from(0))];
    stage.gateway.change_config(&keys).unwrap();
    stage.gateway.signal(Signal::HUP).unwrap();
    logged(&stage.gateway, &["reloaded", "MaxChannelsPerAddress"]).await;
    let _more = opened(&stage, &tokens[1], one).await;
    refused(&stage, &tokens[0], one).await;
    assert_eq!(stage.gateway.count_logged("too many").await, 3);
    assert!(stage.gateway.terminate().await.unwrap().success());

    let text = std::fs::read_to_string(path).unwrap();
    let lines = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    let refusals: Vec<_> = lines.filter(|line| line["event"] == "refused").collect();
    assert_eq!(refusals.len(), 3, "{text}");
    for (refusal, (session, reason)) in refusals.iter().zip([
        ("s3", "too many desktop sessions of this address"),
        ("s2", "too many channels of this address"),
        ("s1", "too many desktop sessions of this address"),
    ]) {
        assert_eq!(refusal["client"], one);
        assert_eq!(refusal["status"], 429);
        assert_eq!(refusal["session"], session);
        assert_eq!(refusal["reason"], reason);
    }
}

#[tokio::test]
async fn the_client_that_a_balancer_names_is_limited() {
    let host = Host::echo().await.unwrap();
    let gateway = port_gateway()
        .plain()
        .set("ProxyProtocol", vec!["127.0.0.1"])
        .set("MaxChannelsPerAddress", 1);
    let gateway = gateway.spawn().await.unwrap();
    let open = async |client: &str| {
        let mut tcp = gateway.plain().connect_tcp().await.unwrap();
        let header = format!("PROXY TCP4 {client} 127.0.0.1 4711 443\r\n");
        tcp.write_all(header.as_bytes()).await.unwrap();
        let mut client = RawClient::over(tcp);
        let target = format!("/?ver=2&token={}", port_token(&host));
        let request = handshake_request(&target, "gw", "");
        client.send_raw(request.as_bytes()).await.unwrap();
        let head = client.read_head().await.unwrap();
        (client, head.status)
    };
    let (_held, status) = open("192.0.2.7").await;
    assert_eq!(status, 101);
    assert_eq!(open("192.0.2.7").await.1, 429);
    assert_eq!(open("192.0.2.8").await.1, 101);
}
