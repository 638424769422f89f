//! Draining.

use http::StatusCode;
use serde_json::{Value, json};
use testkit::gateway::{GatewayBuilder, Signal};
use testkit::http::Call;
use testkit::portal::Portal;
use testkit::prelude::*;
use testkit::ws::Connect;

use crate::support::{Stage, ended};

#[tokio::test]
async fn new_desktops_are_refused_and_running_sessions_go_on() {
    let stage = Stage::new().await;
    let running = stage.desktop().await.token;
    let assigned = stage.desktop().await.token;
    let mut channel = stage.channel(&running, ChannelType::Main).await;
    let said = stage.output(&["drain"]).await;
    assert_eq!(said, "draining; 1 desktop session open\n");

    let asked = Call::post(
        &stage.gateway.tls(),
        "/vdi/desktop",
        r#"{"username":"user"}"#,
    );
    let response = asked.send().await.unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    let answer: Value = serde_json::from_slice(response.body()).unwrap();
    assert_eq!(answer["status"], "Error");
    assert!(
        answer["message"]
            .as_str()
            .unwrap()
            .contains("No new desktops")
    );

    channel.echo(b"goes on").await.unwrap();
    drop(stage.channel(&running, ChannelType::Display).await);
    // Its client was told before to come here.
    drop(stage.channel(&assigned, ChannelType::Main).await);
    assert!(stage.output(&["status"]).await.contains("draining"));

    stage.output(&["undrain"]).await;
    drop(
        stage
            .channel(&stage.desktop().await.token, ChannelType::Main)
            .await,
    );
    let metrics = stage.shown("/metrics").await;
    for line in [
        "flexvdi_gateway_drains_total 1",
        r#"flexvdi_gateway_desktops_refused_total{reason="draining"} 1"#,
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line}");
    }
}

#[tokio::test]
async fn balancers_know_before_anybody_is_refused() {
    let stage = Stage::with(|gateway| gateway.set("DrainDelay", 600)).await;
    stage.output(&["drain"]).await;
    let healthy = Call::get(&stage.gateway.tls(), "/healthz");
    let response = healthy.send().await.unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    drop(stage.desktop().await);
    let status = stage.status().await;
    assert_eq!(
        (&status["draining"], &status["refusing"]),
        (&json!(true), &json!(false))
    );

    // Nobody wants to wait so long.
    let change = [("DrainDelay", json!(1))];
    stage.gateway.change_config(&change).unwrap();
    stage.gateway.signal(Signal::HUP).unwrap();
    let reloaded = |line: &str| line.contains("reloaded");
    stage
        .gateway
        .wait_for_log(reloaded, PATIENCE)
        .await
        .unwrap();
    stage.output(&["undrain"]).await;
    // It comes back when the time is over, not before.
    stage.output(&["drain", "--wait"]).await;
    assert_eq!(stage.status().await["refusing"], json!(true));
    let asked = Call::post(&stage.gateway.tls(), "/vdi/desktop", "{}");
    let response = asked.send().await.unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn without_tickets_a_first_channel_is_refused() {
    let stage = Stage::with(|gateway| gateway.set("HijackAll", false)).await;
    let token = stage.desktop().await.token;
    let _running = stage.channel(&token, ChannelType::Main).await;
    stage.output(&["drain"]).await;
    drop(stage.channel(&token, ChannelType::Display).await);
    let other = Host::echo().await.unwrap();
    let token = other.addr().port().to_string();
    let outcome = Connect::new(&stage.gateway.tls(), &token).open().await;
    let response = outcome.unwrap().refused().unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn the_time_for_draining_ends_what_is_left() {
    let stage = Stage::with(|gateway| gateway.set("DrainTimeout", 1)).await;
    let token = stage.desktop().await.token;
    let mut channel = stage.channel(&token, ChannelType::Main).await;
    let (said, code) = tokio::join!(stage.output(&["drain", "--wait"]), ended(&mut channel));
    assert_eq!(code, Some(1001));
    assert!(said.ends_with("no desktop session is open\n"), "{said}");
    let closed = |line: &str| line.contains("channel closed");
    let line = stage.gateway.wait_for_log(closed, PATIENCE).await.unwrap();
    assert!(line.contains("the time for draining was over"), "{line}");
}

/// A gateway that was told to stop and drains.
async fn leaving(keys: &[(&str, u32)]) -> Stage {
    let stage = Stage::with(|gateway| {
        let gateway = gateway.set("DrainOnStop", true);
        let set = |gateway: GatewayBuilder, (key, value): &(&str, u32)| gateway.set(key, *value);
        keys.iter().fold(gateway, set)
    });
    stage.await
}

async fn told_to_stop(stage: &Stage, sessions: usize) {
    stage.gateway.signal(Signal::TERM).unwrap();
    let sessions = format!("sessions={sessions}");
    let told = |line: &str| line.contains("told to stop") && line.contains(&sessions);
    let told = stage.gateway.wait_for_log(told, PATIENCE);
    told.await.unwrap();
}

#[tokio::test]
async fn a_stop_can_wait_until_the_last_desktop_is_left() {
    let mut stage = leaving(&[]).await;
    let token = stage.desktop().await.token;
    let mut main = stage.channel(&token, ChannelType::Main).await;
    told_to_stop(&stage, 1).await;
    let asked = Call::post(
        &stage.gateway.tls(),
        "/vdi/desktop",
        r#"{"username":"user"}"#,
    );
    let response = asked.send().await.unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(stage.output(&["status"]).await.contains("draining"));
    let mut display = stage.channel(&token, ChannelType::Display).await;
    drop(main);
    display.echo(b"goes on").await.unwrap();
    main = stage.channel(&token, ChannelType::Main).await;
    drop((main, display));
    assert!(stage.gateway.wait().await.unwrap().success());
}

#[tokio::test]
async fn a_stop_waits_no_longer_than_draining_may_take() {
    let mut stage = leaving(&[("DrainTimeout", 1)]).await;
    let token = stage.desktop().await.token;
    let mut channel = stage.channel(&token, ChannelType::Main).await;
    told_to_stop(&stage, 1).await;
    assert_eq!(ended(&mut channel).await, Some(1001));
    assert!(stage.gateway.wait().await.unwrap().success());
    let closed = |line: &str| line.contains("channel closed");
    let line = stage.gateway.wait_for_log(closed, PATIENCE).await.unwrap();
    assert!(line.contains("the time for draining was over"), "{line}");
}

#[tokio::test]
async fn another_signal_ends_the_wait() {
    for another in [Signal::TERM, Signal::INT] {
        let mut stage = leaving(&[]).await;
        let token = stage.desktop().await.token;
        let mut channel = stage.channel(&token, ChannelType::Main).await;
        told_to_stop(&stage, 1).await;
        stage.gateway.signal(another).unwrap();
        assert_eq!(ended(&mut channel).await, Some(1001));
        assert!(stage.gateway.wait().await.unwrap().success());
    }
}

#[tokio::test]
async fn undrain_does_not_take_a_stop_back() {
    let mut stage = leaving(&[]).await;
    let before = stage.desktop().await.token;
    let before = stage.channel(&before, ChannelType::Main).await;
    told_to_stop(&stage, 1).await;
    stage.output(&["undrain"]).await;
    let status = stage.output(&["status"]).await;
    assert!(!status.contains("draining"), "{status}");
    let after = stage.desktop().await.token;
    let mut after = stage.channel(&after, ChannelType::Main).await;
    drop(before);
    after.echo(b"is served").await.unwrap();
    drop(after);
    assert!(stage.gateway.wait().await.unwrap().success());
}

#[tokio::test]
async fn a_stop_waits_until_balancers_have_noticed() {
    let mut stage = leaving(&[("DrainDelay", 3_600)]).await;
    told_to_stop(&stage, 0).await;
    let health = Call::get(&stage.gateway.tls(), "/healthz").send();
    let status = health.await.unwrap().status();
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    drop(stage.desktop().await);
    assert!(stage.gateway.terminate().await.unwrap().success());
}

#[tokio::test]
async fn a_gateway_without_desktops_stops_at_once() {
    let mut stage = leaving(&[]).await;
    let _assigned = stage.desktop().await;
    assert!(stage.gateway.terminate().await.unwrap().success());
}

#[tokio::test]
async fn a_limit_of_zero_overrides_the_configured_one() {
    let stage = Stage::with(|gateway| gateway.set("DrainTimeout", 1)).await;
    let token = stage.desktop().await.token;
    let mut channel = stage.channel(&token, ChannelType::Main).await;
    stage.output(&["drain"]).await;
    stage.output(&["drain", "--timeout", "0"]).await;
    tokio::time::sleep(std::time::Duration::from_millis(1_300)).await;
    channel.echo(b"still there").await.unwrap();
}

#[tokio::test]
async fn signed_tickets_begin_no_session_and_stay_good() {
    let portal = Portal::new().unwrap();
    let file = portal.file();
    let stage =
        Stage::with(|gateway| gateway.set("TicketPublicKeys", file.to_str().unwrap())).await;
    let token = |id: &str| portal.token(stage.host.addr(), &json!({ "jti": id }));
    let (known, new) = (token("known"), token("new"));
    let _main = stage.channel(&known, ChannelType::Main).await;
    stage.output(&["drain"]).await;
    let outcome = Connect::new(&stage.gateway.tls(), &new).open().await;
    let answer = outcome.unwrap().refused().unwrap();
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    let _display = stage.channel(&known, ChannelType::Display).await;
    let metrics = stage.shown("/metrics").await;
    let refused = "channels_refused_total{reason=\"draining\"} 1";
    assert!(metrics.contains(refused), "{metrics}");
    stage.output(&["undrain"]).await;
    let _main = stage.channel(&new, ChannelType::Main).await;
}
