//! Channels and connections through upgrades.

use std::sync::Arc;
use std::time::Duration;

use http::Response;
use testkit::client_cert::ClientAuthority;
use testkit::gateway::GatewayBuilder;
use testkit::http::Call;
use testkit::manager::full;
use testkit::prelude::*;
use testkit::sock_diag::{given, own};
use testkit::tls::TlsClient;
use tokio::io::AsyncReadExt;
use tokio::sync::{Notify, watch};

use crate::support::{Traffic, finish, port_gateway, replace_in_turn, successor_of};

const UPGRADES: usize = 4;

#[tokio::test(flavor = "multi_thread")]
async fn channels_lose_no_byte_and_no_connection_is_refused() {
    replace_under_traffic(port_gateway, "relay").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a kernel with TLS: cargo xtask vm-test"]
async fn channels_on_ktls_lose_no_byte_and_stay_there() {
    replace_under_traffic(|| port_gateway().set("DataPath", "ktls"), "ktls").await;
}

/// `path` is that of channels on the TLS port.
async fn replace_under_traffic(configured: fn() -> GatewayBuilder, path: &str) {
    let host = Host::echo().await.unwrap();
    let token = host.addr().port().to_string();
    let gateway = configured().spawn().await.unwrap();
    let endpoints = [gateway.tls(), gateway.plain()];
    let mut traffic = Vec::new();
    for piece in [1, 100, 1_000, 4_096, 30_000, 200_000] {
        for endpoint in &endpoints {
            let channel = ws::echo_channel(endpoint, &token).await.unwrap();
            traffic.push(Traffic::start(channel, piece));
        }
    }
    // Some that are silent meanwhile.
    let mut silent = Vec::new();
    for _ in 0..100 {
        for endpoint in &endpoints {
            silent.push(ws::echo_channel(endpoint, &token).await.unwrap());
        }
    }
    let (end, ending) = watch::channel(false);
    let connects = tokio::spawn({
        let endpoints = endpoints.clone();
        async move {
            let mut count = 0;
            while !*ending.borrow() {
                for endpoint in &endpoints {
                    Call::get(endpoint, "/").send().await.unwrap();
                    count += 1;
                }
            }
            count
        }
    });
    let (mut gateway, _gone) = replace_in_turn(gateway, UPGRADES, configured, &mut traffic).await;
    end.send_replace(true);
    let connects: usize = connects.await.unwrap();
    assert!(connects > UPGRADES, "{connects}");
    finish(traffic, &mut silent).await;
    drop(silent);
    let path = format!("path=\"{path}\"");
    let closed = |line: &str| line.contains("channel closed") && line.contains(&path);
    gateway.wait_for_log(closed, PATIENCE).await.unwrap();
    assert!(gateway.terminate().await.unwrap().success());
}

#[tokio::test]
async fn the_clients_certificate_stays_known() {
    let authority = ClientAuthority::new("test clients").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("access.log");
    let configured = || {
        port_gateway()
            .set("ClientCAFile", authority.path().to_str().unwrap())
            .set("AccessLog", log.to_str().unwrap())
    };
    let host = Host::echo().await.unwrap();
    let mut gateway = configured().spawn().await.unwrap();
    let alice = authority.sign("alice").unwrap();
    let endpoint = gateway.tls().with_tls(TlsClient::new().presenting(&alice));
    let token = host.addr().port().to_string();
    let mut channel = ws::echo_channel(&endpoint, &token).await.unwrap();
    let mut successor = successor_of(&gateway, configured()).await;
    // It ends once the channel is the other one's.
    assert!(gateway.wait().await.unwrap().success());
    channel.echo(b"goes on").await.unwrap();
    drop(channel);
    let closed = |line: &str| line.contains("channel closed");
    successor.wait_for_log(closed, PATIENCE).await.unwrap();
    assert!(successor.terminate().await.unwrap().success());
    let text = std::fs::read_to_string(log).unwrap();
    let closed = text.lines().find(|line| line.contains("channel-closed"));
    let closed: serde_json::Value = serde_json::from_str(closed.unwrap()).unwrap();
    assert_eq!(closed["certificate"]["subject"], "CN=alice,O=Example");
    assert_eq!(closed["certificate"]["serial"], alice.serial());
}

#[tokio::test]
async fn a_request_under_way_is_answered_by_the_one_that_began_it() {
    let go = Arc::new(Notify::new());
    let wait = Arc::clone(&go);
    let manager = Manager::with_handler(move |_| {
        let go = Arc::clone(&wait);
        async move {
            go.notified().await;
            Response::new(full("late"))
        }
    });
    let manager = manager.await.unwrap();
    let configured = || port_gateway().manager(&manager).set("Debug", true);
    let mut gateway = configured().spawn().await.unwrap();
    let answer = tokio::spawn(Call::get(&gateway.tls(), "/vdi/slow").send());
    let asked = |line: &str| line.contains("manager asked");
    gateway.wait_for_log(asked, PATIENCE).await.unwrap();
    let successor = successor_of(&gateway, configured()).await;
    assert_eq!(successor.tls_addr(), gateway.tls_addr());
    go.notify_one();
    assert_eq!(answer.await.unwrap().unwrap().body(), "late");
    assert!(gateway.wait().await.unwrap().success());
}

#[tokio::test]
async fn stopping_the_successor_stops_what_is_left_of_its_predecessor() {
    let manager = Manager::with_handler(move |_| std::future::pending());
    let manager = manager.await.unwrap();
    let configured = || {
        port_gateway()
            .manager(&manager)
            .set("Debug", true)
            .set("ShutdownTimeout", 1)
    };
    let mut gateway = configured().spawn().await.unwrap();
    let _answer = tokio::spawn(Call::get(&gateway.tls(), "/vdi/slow").send());
    let asked = |line: &str| line.contains("manager asked");
    gateway.wait_for_log(asked, PATIENCE).await.unwrap();
    let mut successor = successor_of(&gateway, configured()).await;
    assert!(successor.terminate().await.unwrap().success());
    assert!(gateway.wait().await.unwrap().success());
    let error = successor.tls().connect_tcp().await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
}

#[tokio::test]
async fn without_a_predecessor_it_starts_as_usual() {
    let mut gateway = port_gateway()
        .arg("run")
        .arg("--take-over")
        .spawn()
        .await
        .unwrap();
    let told = |line: &str| line.contains("no gateway to take over from");
    let limit = Duration::from_secs(1);
    gateway.wait_for_log(told, limit).await.unwrap();
    assert!(gateway.terminate().await.unwrap().success());
}

#[tokio::test]
async fn a_host_that_never_speaks_is_left_by_the_successor_too() {
    let host = Host::record().await.unwrap();
    let token = host.addr().port().to_string();
    let gateway = port_gateway().spawn().await.unwrap();
    let link = link_message(ChannelType::Main, 0);
    let opened = ws::channel(&gateway.plain(), &token, &link).await;
    let mut channel = opened.unwrap();
    let is_there = |received: &[Vec<u8>]| received.first() == Some(&link);
    host.wait_for(is_there).await.unwrap();
    let impatient = port_gateway().set("LinkTimeout", 1);
    let successor = successor_of(&gateway, impatient).await;
    let mut rest = Vec::new();
    let ended = within("the channel's end", channel.read_to_end(&mut rest));
    ended.await.unwrap().unwrap();
    assert_eq!((rest, channel.close_code()), (Vec::new(), Some(1011)));
    let reason = "host did not answer the link message in time";
    let told = successor.wait_for_log(|line| line.contains(reason), PATIENCE);
    told.await.unwrap();
}

/// Whatever the listening sockets were used with before.
#[tokio::test]
async fn clients_that_come_get_the_congestion_control_that_the_successor_is_configured_with() {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let system = own(&socket).unwrap();
    let with = |name: &str| port_gateway().set("CongestionControl", name);
    let mut gateway = with("reno").spawn().await.unwrap();
    let endpoints = [gateway.tls(), gateway.plain()];
    for endpoint in &endpoints {
        assert_eq!(given(endpoint).await.unwrap(), "reno");
    }
    let _successor = successor_of(&gateway, with("system")).await;
    assert!(gateway.wait().await.unwrap().success());
    for endpoint in &endpoints {
        assert_eq!(given(endpoint).await.unwrap(), system);
    }
}
