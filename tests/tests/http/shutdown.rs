//! The end of the gateway's process.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::Response;
use testkit::gateway::{GatewayBuilder, Signal};
use testkit::http::{Call, HttpConnection};
use testkit::manager::full;
use testkit::prelude::*;
use testkit::ws::{Frame, Opcode, RawClient};
use tokio::sync::Notify;

use crate::support::{assert_opens, get, logged, port_gateway, port_token};

/// A gateway that waits for nothing longer than the tests do, unless told otherwise.
fn patient() -> GatewayBuilder {
    [
        "HandshakeTimeout",
        "HeaderTimeout",
        "LinkTimeout",
        "CloseTimeout",
        "ShutdownTimeout",
    ]
    .into_iter()
    .fold(port_gateway().plain(), |gateway, key| gateway.set(key, 600))
}

/// A client that has opened a channel and sent its link message.
async fn channel(gateway: &Gateway, host: &Host<Vec<u8>>) -> RawClient {
    let target = format!("/?ver=2&token={}", port_token(host));
    let mut client = RawClient::open(&gateway.tls(), &target).await.unwrap();
    let link = link_message(ChannelType::Main, 0);
    client
        .send_frame(&Frame::binary(link.clone()))
        .await
        .unwrap();
    assert_eq!(client.read_frame().await.unwrap().payload, link);
    client
}

#[tokio::test]
async fn every_channel_is_told_and_the_process_ends_well() {
    let host = Host::echo().await.unwrap();
    let mut gateway = patient().spawn().await.unwrap();
    let mut clients = Vec::new();
    for _ in 0..5 {
        clients.push(channel(&gateway, &host).await);
    }
    // One that has not said what it is.
    let target = format!("/?token={}", port_token(&host));
    clients.push(RawClient::open(&gateway.tls(), &target).await.unwrap());
    gateway.signal(Signal::TERM).unwrap();
    logged(&gateway, &["INFO", "stopping", "channels=6"]).await;
    for client in &mut clients {
        client.expect_close(1001).await.unwrap();
    }
    let error = gateway.tls().connect_tcp().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    for mut client in clients {
        client.send_frame(&Frame::close(1001)).await.unwrap();
        client.expect_end().await.unwrap();
    }
    assert!(gateway.wait().await.unwrap().success());
    logged(&gateway, &["INFO", "stopped"]).await;
    let mut lengths = Vec::new();
    for _ in 0..6 {
        lengths.push(host.outcome().await.unwrap().len());
    }
    lengths.sort_unstable();
    assert_eq!(lengths, [0, 42, 42, 42, 42, 42]);
}

#[tokio::test]
async fn what_was_received_is_delivered_before() {
    const BYTES: u64 = 3_000_000;
    let host = Host::send(BYTES, testkit::host::End::Hold).await.unwrap();
    let mut gateway = patient().spawn().await.unwrap();
    let target = format!("/?ver=2&token={}", port_token(&host));
    let mut client = RawClient::open(&gateway.tls(), &target).await.unwrap();
    let link = link_message(ChannelType::Main, 0);
    client.send_frame(&Frame::binary(link)).await.unwrap();
    let mut received = Vec::new();
    let mut terminated = false;
    let closed = loop {
        let frame = client.read_frame().await.unwrap();
        match frame.opcode {
            Opcode::BINARY => received.extend(frame.payload),
            _ => break frame,
        }
        if !terminated {
            gateway.signal(Signal::TERM).unwrap();
            terminated = true;
        }
    };
    // Whole frames, in order, then the Close.
    testkit::pattern::DOWNLINK.check(0, &received).unwrap();
    assert_eq!(
        (closed.opcode, closed.close_code()),
        (Opcode::CLOSE, Some(1001))
    );
    client.send_frame(&Frame::close(1001)).await.unwrap();
    assert!(gateway.wait().await.unwrap().success());
}

#[tokio::test]
async fn clients_that_take_no_notice_are_waited_for_only_so_long() {
    let host = Host::echo().await.unwrap();
    let mut gateway = patient().set("ShutdownTimeout", 1).spawn().await.unwrap();
    let _ignoring = channel(&gateway, &host).await;
    let begun = Instant::now();
    assert!(gateway.terminate().await.unwrap().success());
    assert!(begun.elapsed() >= Duration::from_secs(1));
    logged(&gateway, &["WARN", "connections that did not end in time"]).await;
}

#[tokio::test]
async fn connections_without_channel_end_at_once() {
    let mut gateway = patient().spawn().await.unwrap();
    let _no_tls = gateway.tls().connect_tcp().await.unwrap();
    let _no_request = gateway.tls().connect().await.unwrap();
    let _plain_without_request = gateway.plain().connect().await.unwrap();
    let mut kept = HttpConnection::open(&gateway.tls()).await.unwrap();
    kept.send(Call::get(&gateway.tls(), "/").into_request())
        .await
        .unwrap();
    // All of these were accepted before this one.
    get(&gateway.tls(), "/").await;
    get(&gateway.plain(), "/").await;
    assert!(gateway.terminate().await.unwrap().success());
    kept.closed().await.unwrap();
}

#[tokio::test]
async fn half_a_request_does_not_hold_it_up_beyond_its_limit() {
    let mut gateway = patient().set("ShutdownTimeout", 1).spawn().await.unwrap();
    let mut client = RawClient::connect(&gateway.tls()).await.unwrap();
    client.send_raw(b"GET / HTTP/1.1\r\nHo").await.unwrap();
    assert!(gateway.terminate().await.unwrap().success());
}

#[tokio::test]
async fn a_request_under_way_is_answered() {
    let go = Arc::new(Notify::new());
    let wait = go.clone();
    let manager = Manager::with_handler(move |_| {
        let go = wait.clone();
        async move {
            go.notified().await;
            Response::new(full("late"))
        }
    })
    .await
    .unwrap();
    let mut gateway = patient()
        .manager(&manager)
        .set("Debug", true)
        .spawn()
        .await
        .unwrap();
    let call = Call::get(&gateway.tls(), "/vdi/slow");
    let answer = tokio::spawn(call.send());
    logged(&gateway, &["manager asked"]).await;
    gateway.signal(Signal::TERM).unwrap();
    logged(&gateway, &["INFO", "stopping"]).await;
    go.notify_one();
    assert_eq!(answer.await.unwrap().unwrap().body(), "late");
    assert!(gateway.wait().await.unwrap().success());
}

#[tokio::test]
async fn an_interrupt_is_as_good() {
    let mut gateway = patient().spawn().await.unwrap();
    gateway.signal(Signal::INT).unwrap();
    assert!(gateway.wait().await.unwrap().success());
}

#[tokio::test]
async fn a_new_process_can_take_the_port_at_once() {
    let host = Host::echo().await.unwrap();
    let mut gateway = patient().spawn().await.unwrap();
    let port = gateway.tls_addr().port();
    let held = ws::echo_channel(&gateway.tls(), &port_token(&host))
        .await
        .unwrap();
    gateway.signal(Signal::TERM).unwrap();
    logged(&gateway, &["INFO", "stopping"]).await;
    let successor = port_gateway().set("SslPort", port).spawn().await.unwrap();
    assert_opens(&successor.tls(), &port_token(&host)).await;
    drop(held);
    assert!(gateway.wait().await.unwrap().success());
}
