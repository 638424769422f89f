//! Renewed certificates, restarts, and gateways that take over.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::json;
use testkit::gateway::Signal;
use testkit::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{
    GIVEN, IN_USE, NAME, ORDERING, Scene, decided, gateway, logged, logged_again, shown,
};

/// Sends pieces of a pattern to a host that echoes, and checks what comes back, until it is enough.
async fn verified(
    number: u64,
    mut channel: ws::Channel,
    state: Arc<(AtomicBool, AtomicU64)>,
) -> u64 {
    const PIECE: usize = 2_000;
    let pattern = Pattern::new(number);
    let mut at = 0;
    let mut received = vec![0; PIECE];
    while !state.0.load(Ordering::Relaxed) {
        channel.write_all(&pattern.bytes(at, PIECE)).await.unwrap();
        channel.flush().await.unwrap();
        channel.read_exact(&mut received).await.unwrap();
        pattern.check(at, &received).unwrap();
        at += PIECE as u64;
        state.1.fetch_add(1, Ordering::Relaxed);
    }
    channel.shutdown().await.unwrap();
    at
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_channels_do_not_notice_renewals() {
    const CHANNELS: u64 = 200;
    const RENEWALS: usize = 3;
    let scene = Scene::with(|pebble| pebble.life(Duration::from_secs(24))).await;
    let gateway = scene.gateway().spawn().await.unwrap();
    logged(&gateway, &[IN_USE]).await;
    let host = Host::echo().await.unwrap();
    let token = host.addr().port().to_string();
    let state = Arc::new((AtomicBool::new(false), AtomicU64::new(0)));
    let mut channels = Vec::new();
    for number in 0..CHANNELS {
        let channel = ws::echo_channel(&gateway.tls(), &token).await.unwrap();
        channels.push(tokio::spawn(verified(number, channel, state.clone())));
    }
    let clients = scene.clients(&gateway).await;
    let mut before = shown(&clients).await;
    for _ in 0..RENEWALS {
        let renewals = gateway.count_logged(IN_USE).await;
        logged_again(&gateway, renewals, IN_USE).await;
        let now = shown(&clients).await;
        assert_ne!(now, before);
        before = now;
    }
    assert_eq!(gateway.count_logged("channel closed").await, 0);
    state.0.store(true, Ordering::Relaxed);
    for channel in channels {
        assert!(within("end of a channel", channel).await.unwrap().unwrap() > 0);
    }
    // Not sooner than after two thirds of a life.
    let orders = scene.pebble.orders().unwrap();
    assert!((RENEWALS + 1..RENEWALS + 4).contains(&orders), "{orders}");
}

#[tokio::test]
async fn the_next_process_asks_nobody_for_what_is_there() {
    let mut scene = Scene::new().await;
    let state = tempfile::tempdir().unwrap();
    let mut gateway = scene.gateway_in(state.path()).spawn().await.unwrap();
    logged(&gateway, &[IN_USE]).await;
    let first = shown(&scene.clients(&gateway).await).await;
    assert!(gateway.terminate().await.unwrap().success());
    scene.pebble.stop().await.unwrap();
    let gateway = scene.gateway_in(state.path()).spawn().await.unwrap();
    assert_eq!(shown(&gateway.tls()).await, first);
    decided(&gateway, &[NAME]).await;
    assert_eq!(gateway.count_logged(ORDERING).await, 0);
}

#[tokio::test]
async fn a_successor_waits_until_the_one_before_has_ended() {
    let scene = Scene::new().await;
    let state = tempfile::tempdir().unwrap();
    let mut old = scene.gateway_in(state.path()).spawn().await.unwrap();
    logged(&old, &[IN_USE]).await;
    let first = shown(&scene.clients(&old).await).await;
    let new = scene
        .gateway_in(state.path())
        .set("RuntimeDir", old.runtime_dir().to_str().unwrap())
        .arg("run")
        .arg("--take-over");
    let new = new.spawn().await.unwrap();
    assert!(old.wait().await.unwrap().success());
    assert_eq!(shown(&scene.clients(&new).await).await, first);
    decided(&new, &[NAME]).await;
    assert_eq!(new.count_logged(ORDERING).await, 0);
}

#[tokio::test]
async fn one_of_two_gateways_renews_and_the_other_takes_what_it_finds() {
    let scene = Scene::new().await;
    let state = tempfile::tempdir().unwrap();
    let first = scene.gateway_in(state.path()).spawn().await.unwrap();
    logged(&first, &[IN_USE]).await;
    // A second process with the same directory.
    let second = scene
        .gateway_in(state.path())
        .set("SslPort", 0)
        .spawn()
        .await
        .unwrap();
    logged(&second, &["another process renews the certificate"]).await;
    // And one that has the file alone, as in a pool.
    let file = state.path().join("acme/certificate.pem");
    let third = gateway(0)
        .set("CertFile", file.to_str().unwrap())
        .set("KeyFile", file.to_str().unwrap())
        .set("CertificatePoll", 1)
        .spawn()
        .await
        .unwrap();
    let before = shown(&third.tls()).await;
    assert_eq!(shown(&second.tls()).await, before);
    first
        .change_config(&[("Acme", scene.pebble.settings(&[NAME, "b.example"]))])
        .unwrap();
    first.signal(Signal::HUP).unwrap();
    logged(&first, &[GIVEN, "b.example"]).await;
    logged(
        &third,
        &["INFO reloaded changed=\"certificate ", "b.example"],
    )
    .await;
    assert_ne!(shown(&third.tls()).await, before);
}

#[tokio::test]
async fn a_running_gateway_can_begin_and_end_to_get_certificates() {
    let scene = Scene::new().await;
    let gateway = gateway(scene.port).spawn().await.unwrap();
    let own = gateway.cert().leaf().clone();
    let usual = "/etc/ssl/certs/flexvdi-agent";
    let acme = scene.pebble.settings(&[NAME]);
    gateway
        .change_config(&[
            ("Acme", acme),
            ("CertFile", json!(usual)),
            ("KeyFile", json!(usual)),
        ])
        .unwrap();
    gateway.signal(Signal::HUP).unwrap();
    // Until there is another one, clients keep the one that they had.
    let kept = ["WARN", "the certificate in use is kept while it is valid"];
    logged(&gateway, &kept).await;
    logged(&gateway, &[IN_USE]).await;
    assert_ne!(shown(&scene.clients(&gateway).await).await, own);
    let (chain, key) = (gateway.cert().cert_path(), gateway.cert().key_path());
    gateway
        .change_config(&[
            ("Acme", json!("")),
            ("CertFile", json!(chain)),
            ("KeyFile", json!(key)),
        ])
        .unwrap();
    gateway.signal(Signal::HUP).unwrap();
    logged(&gateway, &["INFO reloaded", "certificate localhost"]).await;
    assert_eq!(shown(&gateway.tls()).await, own);
}
