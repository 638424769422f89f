//! Authorities that are away, refuse, or want to be left alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::{Response, StatusCode};
use serde_json::json;
use testkit::gateway::Signal;
use testkit::manager::{Body, ManagerRequest, full};
use testkit::prelude::*;

use crate::support::{
    FAILED, FAILED_TO_RENEW, GIVEN, IN_USE, NAME, ORDERING, Scene, decided, gateway, logged,
    logged_again, settings, shown,
};

#[tokio::test]
async fn one_that_is_away_is_tried_again_and_a_reload_does_so_at_once() {
    let mut scene = Scene::new().await;
    scene.pebble.stop().await.unwrap();
    let gateway = scene.gateway().spawn().await.unwrap();
    let told = logged(&gateway, &["ERROR", FAILED, "failures=1"]).await;
    assert!(told.contains("the authority cannot be reached: "), "{told}");
    assert!(told.contains("Connection refused"), "{told}");
    // Clients are served meanwhile.
    shown(&gateway.tls()).await;
    scene.pebble.begin().await.unwrap();
    gateway.signal(Signal::HUP).unwrap();
    logged(&gateway, &[IN_USE]).await;
    shown(&scene.clients(&gateway).await).await;
}

#[tokio::test]
async fn one_that_has_forgotten_the_account_gets_another_one() {
    let mut scene = Scene::with(|pebble| pebble.life(Duration::from_secs(18))).await;
    let state = tempfile::tempdir().unwrap();
    let gateway = scene.gateway_in(state.path()).spawn().await.unwrap();
    logged(&gateway, &[IN_USE]).await;
    let first = shown(&scene.clients(&gateway).await).await;
    // Pebble keeps nothing.
    scene.pebble.stop().await.unwrap();
    scene.pebble.begin().await.unwrap();
    let text = "the account at the authority cannot be used: another one is registered";
    logged(&gateway, &["WARN", text, "the authority does not know it"]).await;
    logged_again(&gateway, 1, GIVEN).await;
    logged_again(&gateway, 1, IN_USE).await;
    assert_ne!(shown(&scene.clients(&gateway).await).await, first);
}

#[tokio::test]
async fn the_old_certificate_stays_while_there_is_no_new_one() {
    let mut scene = Scene::with(|pebble| pebble.life(Duration::from_secs(30))).await;
    let gateway = scene.gateway().spawn().await.unwrap();
    logged(&gateway, &[IN_USE]).await;
    let clients = scene.clients(&gateway).await;
    let first = shown(&clients).await;
    scene.pebble.stop().await.unwrap();
    let told = logged(&gateway, &["WARN", FAILED_TO_RENEW]).await;
    assert!(told.contains("in_use=gw.example until "), "{told}");
    assert_eq!(shown(&clients).await, first);
}

#[tokio::test]
async fn one_that_cannot_check_the_names_is_quoted() {
    let scene = Scene::new().await;
    // The authority finds nobody at the port where it looks.
    let gateway = scene.gateway().set("SslPort", 0).spawn().await.unwrap();
    let told = logged(&gateway, &["ERROR", FAILED]).await;
    assert!(
        told.contains("could not check the names: gw.example: "),
        "{told}"
    );
    assert!(
        told.contains("port 443 of each name must lead to SslPort"),
        "{told}"
    );
    let seconds = told.split("seconds=").nth(1).unwrap();
    let seconds: u64 = seconds.split(' ').next().unwrap().parse().unwrap();
    assert!((120..=144).contains(&seconds), "{told}");
}

#[tokio::test]
async fn one_that_does_not_want_to_is_quoted() {
    let scene = Scene::with(|pebble| pebble.refused("blocked.example")).await;
    let settings = scene.pebble.settings(&["blocked.example"]);
    let gateway = gateway(scene.port)
        .set("Acme", settings)
        .spawn()
        .await
        .unwrap();
    let told = logged(&gateway, &["ERROR", FAILED]).await;
    assert!(told.contains("the authority refuses: "), "{told}");
    assert!(told.contains("rejectedIdentifier"), "{told}");
}

type Answer = Response<Body>;

/// An authority that registers everybody and answers orders like this.
async fn stand_in(order: fn() -> Answer) -> (Manager, Arc<AtomicUsize>) {
    let orders = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&orders);
    let manager = Manager::with_handler(move |request: ManagerRequest| {
        let counted = Arc::clone(&counted);
        async move {
            let host = request.headers["host"].to_str().unwrap().to_owned();
            let at = |path: &str| format!("https://{host}/{path}");
            let mut answer = match request.uri.path() {
                "/dir" => {
                    let directory = json!({
                        "newNonce": at("nonce"), "newAccount": at("account"),
                        "newOrder": at("order"),
                    });
                    Response::new(full(directory.to_string()))
                }
                "/nonce" => Response::new(full("")),
                "/account" => {
                    let mut answer = Response::new(full(r#"{"status": "valid"}"#));
                    *answer.status_mut() = StatusCode::CREATED;
                    answer
                        .headers_mut()
                        .insert("location", at("account/1").parse().unwrap());
                    answer
                }
                _ => {
                    counted.fetch_add(1, Ordering::Relaxed);
                    order()
                }
            };
            answer
                .headers_mut()
                .insert("replay-nonce", "bm9uY2U".parse().unwrap());
            answer
        }
    });
    (manager.await.unwrap(), orders)
}

fn limited() -> Answer {
    let problem = json!({
        "type": "urn:ietf:params:acme:error:rateLimited",
        "detail": "too many certificates already issued",
    });
    let mut answer = Response::new(full(problem.to_string()));
    *answer.status_mut() = StatusCode::TOO_MANY_REQUESTS;
    answer
        .headers_mut()
        .insert("retry-after", "4000".parse().unwrap());
    answer
}

fn down() -> Answer {
    let mut answer = Response::new(full("<html>down for maintenance</html>"));
    *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    answer
}

#[tokio::test]
async fn one_that_wants_to_be_left_alone_is_even_by_the_next_process() {
    let (manager, orders) = stand_in(limited).await;
    let state = tempfile::tempdir().unwrap();
    let builder = || {
        gateway(0)
            .set("Acme", settings(&manager))
            .set("StateDirectory", state.path().to_str().unwrap())
    };
    let mut first = builder().spawn().await.unwrap();
    let told = logged(&first, &["ERROR", FAILED]).await;
    assert!(
        told.contains("wants to be left alone for a while: too many certificates"),
        "{told}"
    );
    assert!(told.contains(" seconds=4000"), "{told}");
    // Nor does a reload help, as it does with other failures. Once the second one is heeded, so was
    // the first one.
    for name in ["a.example", "b.example"] {
        let mut settings = settings(&manager);
        settings["Domains"] = json!([name]);
        first.change_config(&[("Acme", settings)]).unwrap();
        first.signal(Signal::HUP).unwrap();
        decided(&first, &[name]).await;
    }
    assert_eq!(orders.load(Ordering::Relaxed), 1);
    assert!(first.terminate().await.unwrap().success());
    let mut second = builder().spawn().await.unwrap();
    decided(&second, &[NAME]).await;
    assert!(second.terminate().await.unwrap().success());
    assert_eq!(second.count_logged(ORDERING).await, 0);
    assert_eq!(orders.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn one_that_is_down_is_told_by_its_status() {
    let (manager, _) = stand_in(down).await;
    let gateway = gateway(0)
        .set("Acme", settings(&manager))
        .spawn()
        .await
        .unwrap();
    let told = logged(&gateway, &["ERROR", FAILED]).await;
    assert!(told.contains("its answer has status 503"), "{told}");
}
