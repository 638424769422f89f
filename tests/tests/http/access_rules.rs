//! Which clients are served, and which hosts are reached.

use http::StatusCode;
use testkit::http::Call;
use testkit::ws::Connect;

use crate::support::{
    Stage, ask_desktop, assert_error, get, logged, outlast, refused, refused_token,
};

#[tokio::test]
async fn a_client_that_is_denied_gets_no_answer() {
    let stage = Stage::with(|gateway| {
        gateway
            .plain()
            .set("AllowedClients", vec!["127.0.0.0/24"])
            .set("DeniedClients", vec!["127.0.0.7"])
    })
    .await;
    for endpoint in [stage.gateway.tls(), stage.gateway.plain()] {
        assert_eq!(get(&endpoint, "/x").await.status(), StatusCode::NOT_FOUND);
        for denied in [[127, 0, 0, 7], [127, 0, 1, 1]] {
            let endpoint = endpoint.clone().from_source(denied.into());
            Call::get(&endpoint, "/x").send().await.unwrap_err();
        }
    }
}

#[tokio::test]
async fn behind_a_proxy_the_client_counts() {
    let stage = Stage::with(|gateway| {
        gateway
            .plain()
            .set("TrustedProxies", vec!["127.0.0.1"])
            .set("AllowedClients", vec!["192.0.2.0/24"])
    })
    .await;
    let plain = stage.gateway.plain();
    let ask = |client: &str| ask_desktop(&plain).header("X-Forwarded-For", client).send();
    assert_eq!(ask("192.0.2.7").await.unwrap().status(), StatusCode::OK);
    let denied = ask("198.51.100.7").await.unwrap();
    assert_error(&denied, StatusCode::FORBIDDEN);
    logged(
        &stage.gateway,
        &["client is not allowed", "client=198.51.100.7"],
    )
    .await;
    let channel = Connect::new(&plain, "x").header("X-Forwarded-For", "198.51.100.7");
    let refused = channel.open().await.unwrap().refused().unwrap();
    assert_eq!(
        assert_error(&refused, StatusCode::FORBIDDEN),
        "clients of this address are not served"
    );
}

#[tokio::test]
async fn a_host_that_is_denied_gets_no_ticket() {
    let stage = Stage::with(|gateway| {
        gateway
            .set("AllowedHosts", vec!["127.0.0.0/8"])
            .set("DeniedHosts", vec!["127.0.0.1"])
    })
    .await;
    let answer = ask_desktop(&stage.gateway.tls()).send().await.unwrap();
    assert_error(&answer, StatusCode::BAD_GATEWAY);
    assert_eq!(stage.host.accepted(), 0);
}

#[tokio::test]
async fn a_ban_ends_when_it_should() {
    let stage = Stage::with(|gateway| gateway.set("BadTokenLimit", 1).set("BanTime", 1)).await;
    let endpoint = stage.gateway.tls();
    refused_token(&endpoint, "guess").await;
    logged(&stage.gateway, &["too many wrong tokens", "seconds=1"]).await;
    let answer = refused(&endpoint, "guess").await;
    assert_error(&answer, StatusCode::TOO_MANY_REQUESTS);
    outlast(std::time::Duration::from_secs(1)).await;
    refused_token(&endpoint, "guess").await;
}
