//! Successors that fail: the running gateway goes on as before.

use serde_json::json;
use testkit::prelude::*;

use crate::pretender::{Pretender, VERSION};
use crate::support::{Traffic, expect_failure, port_gateway, successor_of};

#[tokio::test]
async fn whenever_it_goes_no_channel_is_lost() {
    let host = Host::echo().await.unwrap();
    let token = host.addr().port().to_string();
    let mut gateway = port_gateway().spawn().await.unwrap();
    let mut traffic = Vec::new();
    for endpoint in [gateway.tls(), gateway.plain()] {
        traffic.push(Traffic::start(
            ws::echo_channel(&endpoint, &token).await.unwrap(),
            10_000,
        ));
    }
    for stage in 0..5 {
        let mut pretender = Pretender::connect(&gateway.runtime_dir()).await;
        if stage > 0 {
            pretender.say(&json!({"Hello": {"version": VERSION}})).await;
            assert_eq!(pretender.hear().await, "Welcome");
        }
        if stage > 1 {
            pretender.say(&json!("Ready")).await;
            assert_eq!(pretender.hear().await, "Estate");
        }
        if stage > 2 {
            pretender.say(&json!("Serving")).await;
            assert_eq!(pretender.hear().await, "Channels");
        }
        if stage > 3 {
            pretender.say(&json!("What?")).await;
        }
        drop(pretender);
        expect_failure(&gateway, stage, &mut traffic).await;
        drop(ws::echo_channel(&gateway.tls(), &token).await.unwrap());
    }
    // After all that one that does not fail.
    let successor = successor_of(&gateway, port_gateway()).await;
    assert!(gateway.wait().await.unwrap().success());
    for traffic in traffic {
        traffic.finish().await;
    }
    drop(successor);
}

/// It has said that it can go on with the channels, and was told to, but never takes the leave:
/// it is held, as by SIGSTOP, or dies just then.
#[tokio::test]
async fn one_that_stops_before_it_begins_gets_no_channel() {
    let host = Host::echo().await.unwrap();
    let token = host.addr().port().to_string();
    let gateway = port_gateway().spawn().await.unwrap();
    let mut traffic = Vec::new();
    for endpoint in [gateway.tls(), gateway.plain()] {
        let channel = ws::echo_channel(&endpoint, &token).await.unwrap();
        traffic.push(Traffic::start(channel, 10_000));
    }
    let ways = [(false, false), (true, true), (true, false)];
    for (failures, (says_taken, dies)) in ways.into_iter().enumerate() {
        let mut pretender = Pretender::connect(&gateway.runtime_dir()).await;
        let taken = pretender.is_given_channels().await;
        if says_taken {
            pretender.say(&json!({"Taken": taken})).await;
            assert_eq!(pretender.hear().await, "Go");
        }
        let held = (!dies).then_some(pretender);
        expect_failure(&gateway, failures, &mut traffic).await;
        drop(ws::echo_channel(&gateway.tls(), &token).await.unwrap());
        drop(held);
    }
    for traffic in traffic {
        traffic.finish().await;
    }
}

#[tokio::test]
async fn another_version_is_refused() {
    let gateway = port_gateway().spawn().await.unwrap();
    let mut pretender = Pretender::connect(&gateway.runtime_dir()).await;
    let other = VERSION + 1;
    pretender.say(&json!({"Hello": {"version": other}})).await;
    assert_eq!(pretender.hear().await, "Refused");
}

#[tokio::test]
async fn one_that_cannot_start_leaves_everything_as_it_was() {
    let host = Host::echo().await.unwrap();
    let token = host.addr().port().to_string();
    let gateway = port_gateway().spawn().await.unwrap();
    let mut traffic = Traffic::start(
        ws::echo_channel(&gateway.tls(), &token).await.unwrap(),
        1_000,
    );
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let failing = port_gateway()
        .set("RuntimeDir", gateway.runtime_dir().to_str().unwrap())
        .set("PlainPort", taken.local_addr().unwrap().port())
        .arg("run")
        .arg("--take-over");
    assert!(failing.spawn().await.is_err());
    traffic.goes_on().await;
    drop(ws::echo_channel(&gateway.tls(), &token).await.unwrap());
    traffic.finish().await;
}

#[tokio::test]
#[cfg_attr(unprivileged, ignore = "needs root: cargo xtask test")]
async fn one_that_gets_no_threads_leaves_everything_as_it_was() {
    let host = Host::echo().await.unwrap();
    let token = host.addr().port().to_string();
    let gateway = port_gateway().spawn().await.unwrap();
    let channel = ws::echo_channel(&gateway.tls(), &token).await.unwrap();
    let mut traffic = Traffic::start(channel, 10_000);
    let successor = port_gateway()
        .tasks(10)
        .set("RuntimeDir", gateway.runtime_dir().to_str().unwrap())
        .arg("run")
        .arg("--take-over");
    let error = successor.spawn().await.unwrap_err().to_string();
    assert!(error.contains("exit status: 71"), "{error}");
    traffic.goes_on().await;
    drop(ws::echo_channel(&gateway.tls(), &token).await.unwrap());
    traffic.finish().await;
}
