//! Channels to hosts that are reached otherwise than by a plain TCP port go through upgrades too.

use testkit::gateway::GatewayBuilder;
use testkit::prelude::*;

use crate::support::{Traffic, finish, port_gateway, replace_in_turn};

const UPGRADES: usize = 3;

/// Channels to the host of this token lose nothing while one gateway follows another.
async fn replace_under_traffic(configured: impl Fn() -> GatewayBuilder, token: &str) {
    let gateway = configured().spawn().await.unwrap();
    let mut traffic = Vec::new();
    let mut silent = Vec::new();
    for endpoint in [gateway.tls(), gateway.plain()] {
        for piece in [1, 1_000, 30_000, 200_000] {
            let channel = ws::echo_channel(&endpoint, token).await.unwrap();
            traffic.push(Traffic::start(channel, piece));
        }
        silent.push(ws::echo_channel(&endpoint, token).await.unwrap());
    }
    let (_gateway, _gone) = replace_in_turn(gateway, UPGRADES, configured, &mut traffic).await;
    finish(traffic, &mut silent).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn channels_to_unix_sockets_lose_no_byte() {
    let host = Host::echo().await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let token = host.addr().port().to_string();
    let _front = Front::unix(&dir.path().join(&token), host.addr()).unwrap();
    let template = format!("unix:{}/%p", dir.path().display());
    let configured = || port_gateway().set("SpiceHost", template.clone());
    replace_under_traffic(configured, &token).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn channels_to_hosts_with_tls_lose_no_byte() {
    let host = Host::echo().await.unwrap();
    let address = std::net::IpAddr::from([127, 0, 0, 3]);
    let cert = TestCert::builder().names([address.to_string()]).build();
    let cert = cert.unwrap();
    let config = cert.server_config().unwrap();
    let _front = Front::tls(address, config, host.addr()).await.unwrap();
    let ca = cert.ca_path();
    let configured = || {
        port_gateway()
            .set("SpiceHost", address.to_string())
            .set("HostTLS", true)
            .set("HostCAFile", ca.to_str().unwrap())
    };
    replace_under_traffic(configured, &host.addr().port().to_string()).await;
}
