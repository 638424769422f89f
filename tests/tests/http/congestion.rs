//! The congestion control of the clients' connections, as the kernel tells it.

use std::time::Duration;

use serde_json::{Value, json};
use socket2::SockRef;
use testkit::line::Quality;
use testkit::net::free_port;
use testkit::network::{Leg, Network};
use testkit::prelude::*;
use testkit::sock_diag::{at_peer, given, own, taken};

use crate::reload::change;
use crate::support::{get, logged, port_gateway};

/// Every kernel has it, lets everybody use it, and has another one by itself.
const ALWAYS_THERE: &str = "reno";

/// What processes without privileges may use, as the gateway is one here.
const ALLOWED: &str = "/proc/sys/net/ipv4/tcp_allowed_congestion_control";

/// Clients of which one must be seen to be near.
const MOST_CLIENTS: usize = 30;

const FALLS_BACK: &str = "WARN the system's congestion control is used instead";

/// What a new socket of this system has.
fn systems() -> String {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    own(&socket).unwrap()
}

#[tokio::test]
async fn clients_of_both_ports_get_the_algorithm_that_is_named_and_status_and_metrics_name_it() {
    let port = free_port().unwrap();
    let gateway = port_gateway()
        .plain()
        .set("AdminPort", port)
        .set("CongestionControl", ALWAYS_THERE)
        .spawn()
        .await
        .unwrap();
    logged(
        &gateway,
        &["INFO congestion control wanted=\"reno\" in_use=\"reno\""],
    )
    .await;
    for endpoint in [gateway.tls(), gateway.plain()] {
        assert_eq!(given(&endpoint).await.unwrap(), ALWAYS_THERE);
    }
    let admin = Endpoint::plain(([127, 0, 0, 1], port).into());
    let status = get(&admin, "/status").await;
    let status: Value = serde_json::from_slice(status.body()).unwrap();
    assert_eq!(status["congestion_control"], ALWAYS_THERE);
    let metrics = get(&admin, "/metrics").await;
    let metrics = String::from_utf8_lossy(metrics.body()).into_owned();
    let sample = "flexvdi_gateway_congestion_control_info{algorithm=\"reno\"} 1";
    assert!(metrics.contains(sample), "{metrics}");
}

#[tokio::test]
async fn what_the_kernel_does_not_have_is_told_with_what_helps_and_the_systems_is_used() {
    let gateway = port_gateway()
        .set("CongestionControl", "no_such_thing")
        .spawn()
        .await
        .unwrap();
    let line = logged(&gateway, &[FALLS_BACK, "wanted=\"no_such_thing\""]).await;
    assert!(line.contains("modprobe tcp_no_such_thing"), "{line}");
    assert!(
        line.contains(&format!("in_use=\"{}\"", systems())),
        "{line}"
    );
    assert_eq!(given(&gateway.tls()).await.unwrap(), systems());
}

/// Whatever the system is set up with. Without bbr in the kernel this shows little.
#[tokio::test]
#[cfg_attr(unprivileged, ignore = "needs root: cargo xtask test")]
async fn by_default_it_is_bbr_where_the_kernel_has_it_but_for_clients_that_are_near() {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let has_bbr = SockRef::from(&socket).set_tcp_congestion(b"bbr").is_ok();
    let bbr = if has_bbr { "bbr" } else { ALWAYS_THERE };
    let allowed = std::fs::read_to_string(ALLOWED).unwrap();
    let allows_cubic = allowed.split_whitespace().any(|name| name == "cubic");
    let near = if has_bbr && allows_cubic {
        "cubic"
    } else {
        ALWAYS_THERE
    };
    let away = Quality::new(Duration::from_millis(10), 100_000_000);
    for (leg, system, wanted, expected) in [
        (Leg::Ethernet, ALWAYS_THERE, None, ALWAYS_THERE),
        (Leg::Ethernet, bbr, None, near),
        (Leg::Ethernet, bbr, Some("system"), bbr),
        (away.into(), ALWAYS_THERE, None, bbr),
        (away.into(), ALWAYS_THERE, Some("auto"), bbr),
        (away.into(), ALWAYS_THERE, Some("system"), ALWAYS_THERE),
    ] {
        let network = Network::new(leg, Leg::Ethernet, 1).unwrap();
        network.set_congestion_control(system).unwrap();
        let mut gateway = port_gateway().in_network(&network);
        if let Some(wanted) = wanted {
            gateway = gateway.set("CongestionControl", wanted);
        }
        let gateway = gateway.spawn().await.unwrap();
        if wanted != Some("system") && has_bbr {
            logged(&gateway, &["INFO congestion control", "in_use=\"bbr\""]).await;
        }
        let endpoint = gateway.tls().in_namespace(&network.client);
        let mut given = Vec::new();
        // On a busy machine the first answer of a near client, which decides, can take long.
        while given.last().is_none_or(|given| given != expected) {
            assert!(
                given.len() < MOST_CLIENTS,
                "{leg:?} {system} {wanted:?} {given:?}"
            );
            let client = taken(&endpoint).await.unwrap();
            let of_client = network.gateway.enter(|| at_peer(client.tcp()));
            given.push(of_client.unwrap().unwrap());
        }
        assert!(
            leg == Leg::Ethernet || given.len() == 1,
            "{leg:?} {given:?}"
        );
        assert_eq!(gateway.count_logged(FALLS_BACK).await, 0);
    }
}

#[tokio::test]
async fn a_reload_changes_it_for_clients_that_come() {
    let gateway = port_gateway()
        .set("CongestionControl", "system")
        .spawn()
        .await
        .unwrap();
    assert_eq!(given(&gateway.tls()).await.unwrap(), systems());
    let before = gateway.tls().connect().await.unwrap();
    let told = change(&gateway, &[("CongestionControl", json!(ALWAYS_THERE))]).await;
    let changed = "CongestionControl \\\"system\\\" -> \\\"reno\\\"";
    assert!(told.contains(changed), "{told}");
    logged(&gateway, &["congestion control", "in_use=\"reno\""]).await;
    assert_eq!(given(&gateway.tls()).await.unwrap(), ALWAYS_THERE);
    assert_eq!(at_peer(before.tcp()).unwrap(), systems());
    change(&gateway, &[("CongestionControl", json!("system"))]).await;
    assert_eq!(given(&gateway.tls()).await.unwrap(), systems());
}
