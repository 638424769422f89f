//! A portal that is asked what a token stands for (`TicketURL`).

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use http::{Method, Response, StatusCode};
use serde_json::{Value, json};
use testkit::gateway::GatewayBuilder;
use testkit::manager::{full, json_response};
use testkit::prelude::*;
use testkit::tunnel::Tunnel;
use testkit::ws::Connect;
use tokio::io::AsyncWriteExt;

use crate::reload::change;
use crate::support::{
    assert_error, assert_not_allowed, assert_opens, logged, refused, refused_token,
};

/// A gateway that asks a portal, which knows every token that begins with `good`, and a host name
/// that ends with `portal`, and answers
/// `status-` and three digits with that status. For `slow` ones it takes half a second.
struct Scene {
    host: Host<Vec<u8>>,
    /// The status with which the portal answers what it knows.
    status: Arc<AtomicU16>,
    portal: Manager,
    gateway: Gateway,
}

impl Scene {
    async fn new() -> Self {
        Self::with(|gateway| gateway).await
    }

    async fn with(configure: impl FnOnce(GatewayBuilder) -> GatewayBuilder) -> Self {
        let host = Host::echo().await.unwrap();
        let status = Arc::new(AtomicU16::new(200));
        let (address, answered) = (host.addr(), Arc::clone(&status));
        let portal = Manager::with_handler(move |request| {
            let status = answered.load(Ordering::Relaxed);
            async move {
                let asked = request.json().unwrap();
                let token = asked["token"].as_str().unwrap();
                if token.starts_with("slow") {
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
                let mut answer = match token {
                    "good-elsewhere" => {
                        json_response(&json!({"host": "192.0.2.1", "port": 5900}), false)
                    }
                    "good-port" => json_response(&json!({"host": "127.0.0.1", "port": 443}), false),
                    "good-nonsense" => json_response(&json!(["secret"]), false),
                    "good-long" => json_response(&json!("x".repeat(20_000)), false),
                    "good-never" => std::future::pending().await,
                    "good-socket" => {
                        let host = json!({"host": "unix:/run/elsewhere/7.sock"});
                        json_response(&host, false)
                    }
                    _ => {
                        let mut desktop = json!({"host": address.ip(), "port": address.port()});
                        if token == "good-few" {
                            desktop["channels"] = json!(["main"]);
                        }
                        if token == "good-hidden" {
                            desktop["channels"] = json!(["main"]);
                            desktop["tls_port"] = json!(address.port());
                        }
                        json_response(&desktop, false)
                    }
                };
                *answer.status_mut() = StatusCode::from_u16(status).unwrap();
                if token.starts_with("good") || token.ends_with("-portal") {
                    answer
                } else {
                    let status = token
                        .strip_prefix("status-")
                        .map_or("404", |rest| &rest[..3]);
                    let mut unknown = Response::new(full(""));
                    *unknown.status_mut() = status.parse().unwrap();
                    unknown
                }
            }
        });
        let portal = portal.await.unwrap();
        let builder = Gateway::builder()
            .set("TicketURL", format!("https://{}/what", portal.addr()))
            .set("TicketURLCAFile", portal.cert().ca_path().to_str().unwrap());
        Self {
            host,
            status,
            gateway: configure(builder).spawn().await.unwrap(),
            portal,
        }
    }

    fn asked(&self) -> usize {
        self.portal.requests().len()
    }
}

#[tokio::test]
async fn the_portal_is_asked_once_for_all_channels_of_a_session() {
    let scene = Scene::new().await;
    let endpoint = scene.gateway.tls();
    // At the same time, as a browser opens them.
    let target = "/?ver=2&token=good%26one";
    let opened = tokio::join!(
        Connect::to(&endpoint, target).open(),
        Connect::to(&endpoint, target).open(),
        Connect::to(&endpoint, target).open(),
    );
    let channels = [opened.0, opened.1, opened.2].map(|channel| channel.unwrap().opened().unwrap());
    assert_eq!(scene.asked(), 1);
    let asked = &scene.portal.requests()[0];
    assert_eq!(
        (asked.method.as_str(), asked.uri.to_string().as_str()),
        ("POST", "/what")
    );
    let expected = json!({"token": "good&one", "client": "127.0.0.1"});
    assert_eq!(asked.json().unwrap(), expected);
    let begun = logged(
        &scene.gateway,
        &["INFO desktop session with a token of the portal"],
    )
    .await;
    // A number that follows from the token would let whoever reads the log find a short one.
    assert!(begun.contains("session=s"), "{begun}");
    drop(channels);
    // Within ReconnectTimeout it is known.
    assert_opens(&endpoint, "good%26one").await;
    assert_eq!(scene.asked(), 1);
    let log = scene.gateway.log().await.join("\n");
    assert!(!log.contains("good&one"));
}

#[tokio::test]
async fn a_token_of_the_portal_may_be_a_host_name() {
    let scene = Scene::new().await;
    let endpoint = scene.gateway.tls();
    let asked = |host: &str| {
        let tunnel = Tunnel::new(&endpoint, "").without_credentials();
        tunnel.to(&format!("{host}:5900"))
    };
    let good = "ticket-0123456789-of-the-portal";
    let mut client = asked(good).open().await.unwrap();
    let link = link_message(ChannelType::Main, 0);
    client.send_raw(&link).await.unwrap();
    assert_eq!(client.read_exact(link.len()).await.unwrap(), link);
    let question = json!({"token": good, "client": "127.0.0.1"});
    assert_eq!(scene.portal.requests()[0].json().unwrap(), question);
    // It is not asked about names of desktops.
    let (head, _) = asked("desktop-of-somebody-or-other")
        .refused()
        .await
        .unwrap();
    assert_eq!(head.status, StatusCode::PROXY_AUTHENTICATION_REQUIRED);
    let (head, _) = asked("ticket-unknown-0123456789ab")
        .refused()
        .await
        .unwrap();
    assert_eq!(head.status, StatusCode::FORBIDDEN);
    assert_eq!(scene.asked(), 2);
}

#[tokio::test]
async fn a_client_that_leaves_before_the_answer_has_tried_a_token() {
    let scene = Scene::with(|gateway| gateway.set("BadTokenLimit", 3)).await;
    let guesser = scene.gateway.tls().from_source([127, 0, 0, 2].into());
    for number in 1..=3 {
        let mut client = guesser.connect().await.unwrap();
        let request = Tunnel::new(&guesser, &format!("slow-{number}")).request();
        client.write_all(request.as_bytes()).await.unwrap();
        client.flush().await.unwrap();
        let asked = async {
            while scene.asked() < number {
                tokio::task::yield_now().await;
            }
        };
        within("a question to the portal", asked).await.unwrap();
        client.reset().unwrap();
    }
    logged(&scene.gateway, &["too many wrong tokens"]).await;
    let answer = refused(&guesser, "slow-4").await;
    assert_error(&answer, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(scene.asked(), 3);
    assert_opens(&scene.gateway.tls(), "good").await;
}

#[tokio::test]
async fn the_portal_is_not_told_tickets_of_the_gateway() {
    let scene = Scene::with(|gateway| gateway.set("BadTokenLimit", 2)).await;
    let address = scene.host.addr();
    let order = json!({
        "host": address.ip(), "port": address.port(), "network": "127.0.0.7",
    });
    let asked = scene
        .gateway
        .ask_socket(Method::POST, "/tickets", order.to_string());
    let made: Value = serde_json::from_slice(asked.await.unwrap().body()).unwrap();
    let ticket = made["ticket"].as_str().unwrap();
    let elsewhere = scene.gateway.tls();
    refused_token(&elsewhere, ticket).await;
    assert_eq!(scene.asked(), 0);
    let inside = elsewhere.clone().from_source([127, 0, 0, 7].into());
    assert_opens(&inside, ticket).await;
    // It counts as a wrong one all the same.
    refused_token(&elsewhere, "wrong").await;
    logged(&scene.gateway, &["too many wrong tokens"]).await;
}

#[tokio::test]
async fn the_portal_says_which_channels_may_pass() {
    let scene = Scene::new().await;
    let endpoint = scene.gateway.tls();
    assert_opens(&endpoint, "good-few").await;
    assert_not_allowed(&endpoint, "good-few", ChannelType::Record).await;
    let answer = refused(&endpoint, "good-hidden").await;
    assert_error(&answer, StatusCode::SERVICE_UNAVAILABLE);
    logged(
        &scene.gateway,
        &["WARN", "no answer from the portal", "inside TLS"],
    )
    .await;
    let answer = refused(&endpoint, "good-socket").await;
    assert_error(&answer, StatusCode::FORBIDDEN);
    logged(&scene.gateway, &["host not reached", "AllowedSockets"]).await;
}

#[tokio::test]
async fn what_the_portal_does_not_know_is_refused_and_counts_as_a_guess() {
    let scene = Scene::with(|gateway| gateway.set("BadTokenLimit", 3)).await;
    let endpoint = scene.gateway.tls();
    refused_token(&endpoint, "bad-1").await;
    // Not asked again at once.
    refused_token(&endpoint, "bad-1").await;
    assert_eq!(scene.asked(), 1);
    refused_token(&endpoint, "bad-2").await;
    assert_opens(&endpoint, "good-known").await;
    refused_token(&endpoint, "bad-3").await;
    let asked = scene.asked();
    for token in ["bad-4", "good-new"] {
        let answer = refused(&endpoint, token).await;
        assert_error(&answer, StatusCode::TOO_MANY_REQUESTS);
    }
    assert_opens(&endpoint, "good-known").await;
    assert_eq!(scene.asked(), asked, "a banned address has nobody asked");
    assert_opens(
        &scene.gateway.tls().from_source([127, 0, 0, 2].into()),
        "good-new",
    )
    .await;
}

#[tokio::test]
async fn what_the_portal_rejects_is_a_wrong_token_and_stops_nobody() {
    let scene = Scene::with(|gateway| gateway.set("BadTokenLimit", 8)).await;
    let endpoint = scene.gateway.tls();
    let statuses = [400, 405, 410, 413, 415, 422, 431];
    for status in statuses {
        let token = format!("status-{status}");
        refused_token(&endpoint, &token).await;
        // Not asked again at once.
        refused_token(&endpoint, &token).await;
    }
    assert_eq!(scene.asked(), statuses.len());
    assert_opens(&endpoint, "good-for-others").await;
    refused_token(&endpoint, "status-400-again").await;
    let answer = refused(&endpoint, "good-new").await;
    assert_error(&answer, StatusCode::TOO_MANY_REQUESTS);
}

#[tokio::test]
async fn an_answer_that_says_nothing_of_the_next_token_stops_nobody() {
    let scene = Scene::new().await;
    let endpoint = scene.gateway.tls();
    for number in 0..6 {
        let answer = refused(&endpoint, &format!("status-302-{number}")).await;
        assert_error(&answer, StatusCode::SERVICE_UNAVAILABLE);
    }
    // Not asked again at once.
    let answer = refused(&endpoint, "status-302-5").await;
    assert_error(&answer, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(scene.asked(), 6);
    assert_opens(&endpoint, "good").await;
}

#[tokio::test]
async fn tokens_at_which_the_portal_fails_count_for_the_address_that_sends_them() {
    let scene = Scene::with(|gateway| gateway.set("BadTokenLimit", 3)).await;
    let endpoint = scene.gateway.tls();
    for number in 0..3 {
        let answer = refused(&endpoint, &format!("status-500-{number}")).await;
        assert_error(&answer, StatusCode::SERVICE_UNAVAILABLE);
    }
    let answer = refused(&endpoint, "good").await;
    assert_error(&answer, StatusCode::TOO_MANY_REQUESTS);
    let neighbour = endpoint.from_source([127, 0, 0, 2].into());
    assert_opens(&neighbour, "good").await;
    let log = scene.gateway.log().await.join("\n");
    assert!(!log.contains("INFO WebSocket refused"), "{log}");
}

#[tokio::test]
async fn what_no_ticket_can_be_is_not_asked_about() {
    let scene = Scene::with(|gateway| gateway.set("BadTokenLimit", 4)).await;
    let endpoint = scene.gateway.tls();
    let longest = format!("good{}", "x".repeat(2_044));
    for token in ["good%00", "good%0A", &format!("{longest}x")] {
        refused_token(&endpoint, token).await;
    }
    assert_eq!(scene.asked(), 0);
    assert_opens(&endpoint, &longest).await;
    refused_token(&endpoint, "good%7F").await;
    let answer = refused(&endpoint, "good-new").await;
    assert_error(&answer, StatusCode::TOO_MANY_REQUESTS);
}

#[tokio::test]
async fn many_wrong_tokens_at_once_are_not_asked_about_beyond_the_limit() {
    let scene = Scene::with(|gateway| gateway.set("BadTokenLimit", 3)).await;
    let endpoint = scene.gateway.tls();
    let tokens: Vec<_> = (0..40).map(|number| format!("slow-{number}")).collect();
    let answers = join_all(tokens.iter().map(|token| refused(&endpoint, token))).await;
    let mut statuses: Vec<_> = answers.iter().map(Response::status).collect();
    statuses.sort_unstable();
    statuses.dedup();
    assert!(
        scene.asked() < 3 + 8,
        "{} questions about tokens of one address",
        scene.asked()
    );
    assert_eq!(
        statuses,
        [StatusCode::FORBIDDEN, StatusCode::TOO_MANY_REQUESTS]
    );
    let neighbour = endpoint.from_source([127, 0, 0, 2].into());
    assert_opens(&neighbour, "good").await;
}

#[tokio::test]
async fn while_the_portal_cannot_say_clients_get_503() {
    let configure = |gateway: GatewayBuilder| {
        let gateway = gateway.set("FirstSpicePort", 1_024);
        gateway.set("AllowedHosts", vec!["127.0.0.0/8"])
    };
    let scene = Scene::with(|gateway| configure(gateway).set("TicketURLTimeout", 1)).await;
    let endpoint = scene.gateway.tls();
    for (token, why) in [
        ("good-never", "no answer within 1 s"),
        ("good-nonsense", "no JSON object"),
        ("good-long", "more than 16 KiB"),
        ("good-port", "FirstSpicePort"),
    ] {
        let answer = refused(&endpoint, token).await;
        assert_error(&answer, StatusCode::SERVICE_UNAVAILABLE);
        logged(&scene.gateway, &["WARN", why]).await;
    }
    // Hosts are judged as always.
    let answer = refused(&endpoint, "good-elsewhere").await;
    assert_error(&answer, StatusCode::FORBIDDEN);
    assert_opens(&endpoint, "good-at-last").await;
    let log = scene.gateway.log().await.join("\n");
    assert!(!log.contains("secret"));
}

#[tokio::test]
async fn a_portal_that_fails_again_and_again_is_left_alone() {
    let scene = Scene::new().await;
    let endpoint = scene.gateway.tls();
    scene.status.store(500, Ordering::Relaxed);
    for number in 0..8 {
        let answer = refused(&endpoint, &format!("good-{number}")).await;
        assert_error(&answer, StatusCode::SERVICE_UNAVAILABLE);
    }
    assert_eq!(scene.asked(), 5);
    logged(&scene.gateway, &["WARN the portal fails", "failures=5"]).await;
    // Once in a while it is tried.
    scene.status.store(200, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_millis(10_200)).await;
    // An answer is one, whatever it says of the token.
    let answer = refused(&endpoint, "status-302").await;
    assert_error(&answer, StatusCode::SERVICE_UNAVAILABLE);
    assert_opens(&endpoint, "good-8").await;
    logged(&scene.gateway, &["INFO the portal answers again"]).await;
    assert_opens(&endpoint, "good-9").await;
}

#[tokio::test]
async fn what_is_known_of_the_portal_outlives_a_reload_of_other_keys() {
    let scene = Scene::new().await;
    let endpoint = scene.gateway.tls();
    for number in 0..5 {
        let answer = refused(&endpoint, &format!("status-500-{number}")).await;
        assert_error(&answer, StatusCode::SERVICE_UNAVAILABLE);
    }
    logged(&scene.gateway, &["WARN the portal fails"]).await;
    change(&scene.gateway, &[("BadTokenLimit", json!(50))]).await;
    let answer = refused(&endpoint, "good").await;
    assert_error(&answer, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(scene.asked(), 5, "the portal is left alone for 10 s");
    change(&scene.gateway, &[("TicketURLTimeout", json!(4))]).await;
    assert_opens(&endpoint, "good").await;
}

#[tokio::test]
async fn only_a_portal_with_the_right_certificate_is_asked() {
    let other = TestCert::new().unwrap();
    let other = other.ca_path();
    let scene =
        Scene::with(|gateway| gateway.set("TicketURLCAFile", other.to_str().unwrap())).await;
    let endpoint = scene.gateway.tls();
    let answer = refused(&endpoint, "good").await;
    assert_error(&answer, StatusCode::SERVICE_UNAVAILABLE);
    logged(
        &scene.gateway,
        &["WARN no answer from the portal", "certificate"],
    )
    .await;
    assert_eq!(scene.asked(), 0);
    let right = json!(scene.portal.cert().ca_path());
    change(&scene.gateway, &[("TicketURLCAFile", right)]).await;
    assert_opens(&endpoint, "good").await;
    change(&scene.gateway, &[("TicketURL", json!(""))]).await;
    refused_token(&endpoint, "good-new").await;
    assert_opens(&endpoint, "good").await;
    assert_eq!(scene.host.accepted(), 2);
}
