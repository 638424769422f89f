//! Tickets that a portal has signed.

use std::time::Duration;

use http::StatusCode;
use http::header::RETRY_AFTER;
use serde_json::{Value, json};
use testkit::gateway::GatewayBuilder;
use testkit::portal::{Portal, from_now};
use testkit::prelude::*;
use testkit::tunnel::Tunnel;
use testkit::ws::Connect;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::reload::{change, hang_up};
use crate::support::{
    assert_error, assert_not_allowed, assert_opens, logged, outlast, refused, refused_token,
};

/// A gateway without a manager that believes a portal.
struct Scene {
    portal: Portal,
    host: Host<Vec<u8>>,
    gateway: Gateway,
}

impl Scene {
    async fn with(configure: impl FnOnce(GatewayBuilder) -> GatewayBuilder) -> Self {
        let portal = Portal::new().unwrap();
        let builder = Gateway::builder().set("TicketPublicKeys", portal.file().to_str().unwrap());
        let gateway = configure(builder).spawn().await.unwrap();
        Self {
            portal,
            host: Host::echo().await.unwrap(),
            gateway,
        }
    }

    fn token(&self, more: &Value) -> String {
        self.portal.token(self.host.addr(), more)
    }
}

#[tokio::test]
async fn a_portals_ticket_opens_all_channels_of_a_desktop() {
    let scene = Scene::with(|gateway| gateway.set("Debug", true)).await;
    let token = scene.token(&json!({"jti": "once", "network": "127.0.0.0/8"}));
    let endpoint = scene.gateway.tls();
    let mut channels = Vec::new();
    for _ in 0..3 {
        channels.push(ws::echo_channel(&endpoint, &token).await.unwrap());
    }
    for channel in &mut channels {
        channel.echo(b"bytes").await.unwrap();
    }
    let begun = logged(
        &scene.gateway,
        &["INFO desktop session with a signed ticket"],
    )
    .await;
    let words = begun.split(' ');
    let session = words
        .clone()
        .find(|word| word.starts_with("session=p"))
        .unwrap();
    assert_eq!(scene.gateway.count_logged("channel open").await, 3);
    assert_eq!(scene.gateway.count_logged(session).await, 4, "{session}");
    let log = scene.gateway.log().await.join("\n");
    assert!(!log.contains(token.rsplit('.').next().unwrap()));
    assert!(
        log.contains("INFO signed tickets are accepted keys=1"),
        "{log}"
    );
}

#[tokio::test]
async fn what_a_portal_did_not_sign_is_refused_and_the_log_says_why() {
    let scene = Scene::with(|gateway| gateway.set("Debug", true)).await;
    let stranger = Portal::new().unwrap();
    let address = scene.host.addr();
    let good = scene.token(&json!({}));
    let unsigned = format!("{}.", &good[..good.rfind('.').unwrap()]);
    for (token, why) in [
        (
            stranger.token(address, &json!({})),
            "the signature is wrong",
        ),
        (unsigned, "the signature is wrong"),
        (scene.token(&json!({"exp": from_now(-60)})), "expired"),
        (
            scene.token(&json!({"exp": from_now(90_000)})),
            "TicketMaxLife",
        ),
        (scene.token(&json!({"nbf": from_now(50)})), "not valid yet"),
        (
            scene.token(&json!({"aud": "another"})),
            "aud is not TicketAudience",
        ),
        (
            scene.token(&json!({"port": "5900"})),
            "claims are missing or malformed",
        ),
        (
            scene.token(&json!({"network": "192.0.2.0/24"})),
            "in none of its networks",
        ),
        ("a.b.c".to_owned(), "not a signed token"),
    ] {
        refused_token(&scene.gateway.tls(), &token).await;
        logged(&scene.gateway, &["DEBUG signed ticket refused", why]).await;
    }
    assert_eq!(scene.host.accepted(), 0);
    assert_opens(&scene.gateway.tls(), &good).await;
}

#[tokio::test]
async fn hosts_and_ports_are_those_that_the_configuration_permits() {
    let configure = |gateway: GatewayBuilder| {
        let gateway = gateway.set("AllowedHosts", vec!["127.0.0.0/8"]);
        gateway.set("FirstSpicePort", 1_024)
    };
    let scene = Scene::with(configure).await;
    for more in [json!({"port": 443}), json!({"host": "192.0.2.1"})] {
        refused_token(&scene.gateway.tls(), &scene.token(&more)).await;
    }
    assert_opens(&scene.gateway.tls(), &scene.token(&json!({}))).await;
}

#[tokio::test]
async fn a_portal_says_which_channels_may_pass_and_where_tls_is() {
    let scene = Scene::with(|gateway| gateway.set("FirstSpicePort", 1_024)).await;
    let endpoint = scene.gateway.tls();
    let few = scene.token(&json!({"channels": ["main"]}));
    assert_opens(&endpoint, &few).await;
    assert_not_allowed(&endpoint, &few, ChannelType::Record).await;
    refused_token(&endpoint, &scene.token(&json!({"channels": []}))).await;
    refused_token(&endpoint, &scene.token(&json!({"tls_port": 443}))).await;
    // A tunnel with TLS inside goes to the other port.
    let hello = [22, 3, 1, 0, 4, 1, 0, 0, 0];
    let tls = Host::echo().await.unwrap();
    let token = scene.token(&json!({"tls_port": tls.addr().port()}));
    let mut tunnel = Tunnel::new(&endpoint, &token).stream().await.unwrap();
    tunnel.write_all(&hello).await.unwrap();
    tunnel.flush().await.unwrap();
    let mut back = [0; 9];
    let read = within("an echo", tunnel.read_exact(&mut back)).await;
    read.unwrap().unwrap();
    assert_eq!((back, tls.accepted()), (hello, 1));
}

#[tokio::test]
async fn a_portals_ticket_leads_to_a_socket_that_the_configuration_permits() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let allowed = folders[0].path().to_str().unwrap();
    let scene = Scene::with(|gateway| gateway.set("AllowedSockets", vec![allowed])).await;
    let sockets = [0, 1].map(|at| folders[at].path().join("7.sock"));
    let _fronts = sockets
        .each_ref()
        .map(|socket| Front::unix(socket, scene.host.addr()).unwrap());
    let [good, elsewhere] = sockets.map(|socket| {
        let host = format!("unix:{}", socket.display());
        scene
            .portal
            .sign(&json!({"host": host, "exp": from_now(60)}))
    });
    assert_opens(&scene.gateway.tls(), &good).await;
    let response = refused(&scene.gateway.tls(), &elsewhere).await;
    assert_error(&response, StatusCode::FORBIDDEN);
    logged(&scene.gateway, &["host not reached", "AllowedSockets"]).await;
}

#[tokio::test]
async fn one_for_a_single_session_cannot_be_replayed_after_it() {
    let scene = Scene::with(|gateway| gateway.set("ReconnectTimeout", 1)).await;
    let (once, often) = (scene.token(&json!({"jti": "a"})), scene.token(&json!({})));
    let endpoint = scene.gateway.tls();
    for token in [&once, &once, &often] {
        let mut channel = ws::echo_channel(&endpoint, token).await.unwrap();
        let closed = scene.gateway.count_logged("channel closed").await;
        channel.shutdown().await.unwrap();
        let is_closed = |line: &str| line.contains("channel closed");
        let another = scene.gateway.wait_for_another(closed, is_closed, PATIENCE);
        another.await.unwrap();
    }
    outlast(Duration::from_secs(1)).await;
    refused_token(&endpoint, &once).await;
    assert_opens(&endpoint, &often).await;
    // Another ticket with the same number is no other one.
    let same = scene.token(&json!({"jti": "a", "x": 1}));
    refused_token(&endpoint, &same).await;
}

#[tokio::test]
async fn guessing_bans_and_nobody_begins_a_session_from_there_meanwhile() {
    let scene = Scene::with(|gateway| gateway.set("BadTokenLimit", 3)).await;
    let guesser = scene.gateway.tls().from_source([127, 0, 0, 2].into());
    let (known, new) = (scene.token(&json!({})), scene.token(&json!({"x": 1})));
    assert_opens(&guesser, &known).await;
    for number in 0..3 {
        let stranger = Portal::new().unwrap();
        let wrong = stranger.token(scene.host.addr(), &json!({"x": number}));
        refused_token(&guesser, &wrong).await;
    }
    logged(&scene.gateway, &["WARN", "too many wrong tokens"]).await;
    let answer = refused(&guesser, &new).await;
    assert_error(&answer, StatusCode::TOO_MANY_REQUESTS);
    assert!(answer.headers().contains_key(RETRY_AFTER));
    // What was looked at before needs no look.
    assert_opens(&guesser, &known).await;
    assert_opens(&scene.gateway.tls(), &new).await;
    assert_opens(&guesser, &new).await;
}

#[tokio::test]
async fn a_token_is_as_long_as_an_address_may_be() {
    let scene = Scene::with(|gateway| gateway.set("MaxUriSize", 640)).await;
    let long = scene.token(&json!({"x": "y".repeat(640)}));
    let target = format!("/?ver=2&token={long}");
    let outcome = Connect::to(&scene.gateway.tls(), &target).open().await;
    let answer = outcome.unwrap().refused().unwrap();
    assert_eq!(answer.status(), StatusCode::URI_TOO_LONG);
    assert_opens(&scene.gateway.tls(), &scene.token(&json!({}))).await;
}

#[tokio::test]
async fn keys_and_rules_change_while_the_gateway_runs() {
    let scene = Scene::with(|gateway| gateway.set("CertificatePoll", 1)).await;
    let endpoint = scene.gateway.tls();
    let (used, before) = (scene.token(&json!({})), scene.token(&json!({"x": 1})));
    let mut channel = ws::echo_channel(&endpoint, &used).await.unwrap();
    let next = Portal::new().unwrap();
    let after = next.token(scene.host.addr(), &json!({}));
    refused_token(&endpoint, &after).await;

    // Both, and then only the next one; the gateway notices by itself.
    let file = scene.portal.file();
    let both = scene.portal.pem().unwrap() + &next.pem().unwrap();
    std::fs::write(&file, &both).unwrap();
    logged(
        &scene.gateway,
        &["INFO reloaded", "keys of signed tickets, 2 of them"],
    )
    .await;
    assert_opens(&endpoint, &before).await;
    // What was wrong with another set of keys is looked at again.
    assert_opens(&endpoint, &after).await;
    std::fs::write(&file, next.pem().unwrap()).unwrap();
    logged(
        &scene.gateway,
        &["INFO reloaded", "keys of signed tickets, 1 of them"],
    )
    .await;
    refused_token(&endpoint, &scene.token(&json!({"x": 2}))).await;
    // Tickets in use stay good.
    channel.echo(b"still").await.unwrap();
    assert_opens(&endpoint, &used).await;

    // What cannot be used changes nothing.
    std::fs::write(
        &file,
        "-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n",
    )
    .unwrap();
    logged(
        &scene.gateway,
        &["ERROR not reloaded", "TicketPublicKeys", "private key"],
    )
    .await;
    let line = hang_up(&scene.gateway).await;
    assert!(line.contains("ERROR not reloaded"), "{line}");
    assert_opens(&endpoint, &next.token(scene.host.addr(), &json!({"x": 3}))).await;
    std::fs::write(&file, next.pem().unwrap()).unwrap();

    let rules = [
        ("TicketAudience", json!("vdi")),
        ("TicketMaxLife", json!(100)),
    ];
    change(&scene.gateway, &rules).await;
    let token = |more: Value| next.token(scene.host.addr(), &more);
    refused_token(&endpoint, &token(json!({"x": 4}))).await;
    refused_token(
        &endpoint,
        &token(json!({"aud": "vdi", "exp": from_now(200)})),
    )
    .await;
    assert_opens(&endpoint, &token(json!({"aud": "vdi"}))).await;
    change(&scene.gateway, &[("TicketPublicKeys", json!(""))]).await;
    refused_token(&endpoint, &token(json!({"aud": "vdi", "x": 5}))).await;
}

#[tokio::test]
async fn without_keys_nobody_can_sign() {
    let gateway = Gateway::builder().spawn().await.unwrap();
    let host = Host::echo().await.unwrap();
    let token = Portal::new().unwrap().token(host.addr(), &json!({}));
    refused_token(&gateway.tls(), &token).await;
}
