//! Which tokens open a channel, for how long, and what guessing leads to.

use std::time::Duration;

use http::StatusCode;
use testkit::prelude::*;
use testkit::ws::{Channel, Connect};
use tokio::io::AsyncWriteExt;

use crate::support::{
    Stage, assert_error, assert_opens, logged, outlast, port_gateway, port_token, refused,
    refused_token, retry_after,
};

const SECOND: Duration = Duration::from_secs(1);

/// Closes a channel as a browser does, and waits until the gateway is done with it.
async fn close(gateway: &Gateway, mut channel: Channel) {
    let before = gateway.count_logged("channel closed").await;
    channel.shutdown().await.unwrap();
    let mut closed = 0;
    let more = |line: &str| {
        closed += usize::from(line.contains("channel closed"));
        closed > before
    };
    gateway.wait_for_log(more, PATIENCE).await.unwrap();
}

#[tokio::test]
async fn one_ticket_opens_all_channels_of_a_session() {
    let stage = Stage::new().await;
    let ticket = stage.ticket().await;
    let endpoint = stage.gateway.tls();
    let mut channels = Vec::new();
    for _ in 0..9 {
        channels.push(ws::echo_channel(&endpoint, &ticket).await.unwrap());
    }
    for (channel, byte) in channels.iter_mut().zip(0_u8..) {
        channel.echo(&[byte; 100]).await.unwrap();
    }
    assert_eq!(stage.host.accepted(), 9);
    let opened = stage.gateway.log().await;
    let opened: Vec<_> = opened
        .iter()
        .filter(|line| line.contains("channel open"))
        .collect();
    assert_eq!(opened.len(), 9);
    assert!(opened.iter().all(|line| line.contains("session=s1 ")));
}

#[tokio::test]
async fn other_tokens_are_refused() {
    let stage = Stage::new().await;
    let endpoint = stage.gateway.tls();
    let ticket = stage.ticket().await;
    let longer = format!("{ticket}A");
    let flipped: String = ticket.chars().rev().collect();
    let port = port_token(&stage.host);
    let wrong = [
        "",
        "AAAAAAAAAAAAAAAA",
        &ticket[..15],
        &longer,
        &flipped,
        &port,
        "5900",
        "%00",
    ];
    for token in wrong {
        refused_token(&endpoint, token).await;
    }
    let missing = Connect::to(&endpoint, "/?ver=2").open().await.unwrap();
    assert_error(&missing.refused().unwrap(), StatusCode::FORBIDDEN);
    assert_eq!(stage.host.accepted(), 0);
    assert_eq!(
        stage.gateway.count_logged("WebSocket refused").await,
        wrong.len() + 1
    );
    assert_opens(&endpoint, &ticket).await;
}

#[tokio::test]
async fn an_unused_ticket_expires() {
    let stage = Stage::with(|gateway| gateway.set("TicketTimeout", 1)).await;
    let ticket = stage.ticket().await;
    outlast(SECOND).await;
    refused_token(&stage.gateway.tls(), &ticket).await;
}

#[tokio::test]
async fn a_ticket_in_use_does_not_expire() {
    let times = |gateway: testkit::gateway::GatewayBuilder| {
        gateway.set("TicketTimeout", 3).set("ReconnectTimeout", 1)
    };
    let stage = Stage::with(times).await;
    let ticket = stage.ticket().await;
    let mut first = ws::echo_channel(&stage.gateway.tls(), &ticket)
        .await
        .unwrap();
    outlast(3 * SECOND).await;
    let mut second = ws::echo_channel(&stage.gateway.tls(), &ticket)
        .await
        .unwrap();
    first.echo(b"still").await.unwrap();
    // Not the last channel: nothing runs out.
    close(&stage.gateway, first).await;
    outlast(SECOND).await;
    assert_opens(&stage.gateway.tls(), &ticket).await;
    second.echo(b"there").await.unwrap();
}

#[tokio::test]
async fn a_session_can_be_taken_up_again() {
    let stage = Stage::with(|gateway| gateway.set("ReconnectTimeout", 60)).await;
    let ticket = stage.ticket().await;
    for _ in 0..3 {
        let channel = ws::echo_channel(&stage.gateway.tls(), &ticket)
            .await
            .unwrap();
        close(&stage.gateway, channel).await;
    }
    let line = logged(&stage.gateway, &["channel open", "channel=c3"]).await;
    assert!(line.contains("session=s1"), "{line}");
}

#[tokio::test]
async fn but_not_for_ever() {
    let stage = Stage::with(|gateway| gateway.set("ReconnectTimeout", 1)).await;
    let ticket = stage.ticket().await;
    let channel = ws::echo_channel(&stage.gateway.tls(), &ticket)
        .await
        .unwrap();
    close(&stage.gateway, channel).await;
    outlast(SECOND).await;
    refused_token(&stage.gateway.tls(), &ticket).await;
}

#[tokio::test]
async fn without_hijacking_only_spice_ports_are_tokens() {
    let host = Host::echo().await.unwrap();
    let port = host.addr().port();
    let gateway = port_gateway()
        .set("FirstSpicePort", port)
        .set("LastSpicePort", port)
        .spawn()
        .await
        .unwrap();
    let endpoint = gateway.tls();
    let wrong = [
        (port - 1).to_string(),
        (port + 1).to_string(),
        (u32::from(port) + 65_536).to_string(),
        format!("-{port}"),
        format!("%2b{port}"),
        format!("{port}%20"),
        format!("127.0.0.1:{port}"),
        "0".to_owned(),
        String::new(),
    ];
    for token in wrong {
        refused_token(&endpoint, &token).await;
    }
    assert_eq!(host.accepted(), 0);
    assert_opens(&endpoint, &port.to_string()).await;
}

#[tokio::test]
async fn guessing_is_stopped_for_one_address_only() {
    let stage = Stage::with(|gateway| gateway.set("BadTokenLimit", 3)).await;
    let ticket = stage.ticket().await;
    let guesser = stage.gateway.tls().from_source([127, 0, 0, 2].into());
    for guess in ["a", "b", "c"] {
        refused_token(&guesser, guess).await;
    }
    logged(
        &stage.gateway,
        &["WARN", "too many wrong tokens", "client=127.0.0.2"],
    )
    .await;
    for token in ["d", "a"] {
        let response = refused(&guesser, token).await;
        assert_error(&response, StatusCode::TOO_MANY_REQUESTS);
        retry_after(&response);
    }
    assert_eq!(
        stage.gateway.count_logged("too many wrong tokens: ").await,
        1
    );
    refused_token(&stage.gateway.tls(), "d").await;
    // Another person at the guesser's address, with a ticket from before or of now.
    for good in [ticket, stage.ticket().await] {
        assert_opens(&guesser, &good).await;
    }
}

#[tokio::test]
async fn stale_tickets_that_come_again_and_again_lock_nobody_out() {
    let stage = Stage::with(|gateway| gateway.set("BadTokenLimit", 3)).await;
    for _ in 0..40 {
        refused_token(&stage.gateway.tls(), "stale").await;
    }
    refused_token(&stage.gateway.tls(), "another").await;
    assert_opens(&stage.gateway.tls(), &stage.ticket().await).await;
}

#[tokio::test]
async fn behind_a_proxy_the_client_counts() {
    let configure = |gateway: testkit::gateway::GatewayBuilder| {
        gateway
            .plain()
            .set("TrustedProxies", vec!["127.0.0.1"])
            .set("BadTokenLimit", 1)
    };
    let stage = Stage::with(configure).await;
    let ticket = stage.ticket().await;
    for (client, token, status) in [
        ("198.51.100.1", "guess", StatusCode::FORBIDDEN),
        ("198.51.100.1", "another", StatusCode::TOO_MANY_REQUESTS),
        // What a client writes there itself comes first and is not believed.
        (
            "192.0.2.77, 198.51.100.1",
            "another",
            StatusCode::TOO_MANY_REQUESTS,
        ),
        ("198.51.100.2", "guess", StatusCode::FORBIDDEN),
    ] {
        let connect = Connect::new(&stage.gateway.plain(), token);
        let outcome = connect.header("X-Forwarded-For", client).open().await;
        assert_error(&outcome.unwrap().refused().unwrap(), status);
    }
    for client in ["198.51.100.1", "198.51.100.3"] {
        let connect = Connect::new(&stage.gateway.plain(), &ticket);
        let outcome = connect.header("X-Forwarded-For", client).open().await;
        outcome.unwrap().opened().unwrap();
    }
}

#[tokio::test]
async fn no_limit_is_one_too() {
    let stage = Stage::with(|gateway| gateway.set("BadTokenLimit", 0)).await;
    for number in 0..40 {
        refused_token(&stage.gateway.tls(), &format!("guess-{number}")).await;
    }
}

#[tokio::test]
async fn tokens_may_be_percent_encoded_and_stand_anywhere() {
    let stage = Stage::new().await;
    let ticket = stage.ticket().await;
    let first = ticket.as_bytes()[0];
    let encoded = format!("%{first:02x}{}", &ticket[1..]);
    for target in [
        format!("/?token={ticket}"),
        format!("/?token={ticket}&ver=2"),
        format!("/?ver=2&x=y&token={encoded}"),
    ] {
        let outcome = Connect::to(&stage.gateway.tls(), &target).open().await;
        outcome.unwrap().opened().unwrap();
    }
}
