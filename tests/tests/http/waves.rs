//! Memory that connections without a request take, and that goes back when they have gone.

use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use testkit::net::Connection;
use testkit::prelude::*;

use crate::support::{get, port_gateway};

/// What a connection may cost between its TLS handshake and its request, in bytes.
const EACH: u64 = 8 << 10;
/// What may stay when all of a wave have gone, in bytes: less than a small wave takes.
const LEFT: u64 = 1 << 20;

fn rss(gateway: &Gateway) -> u64 {
    gateway.memory().unwrap().rss
}

/// Lets this process hold its ends of a wave.
fn raise_the_limit_on_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    setrlimit(Resource::Nofile, raised).unwrap();
}

async fn wave(gateway: &Gateway, count: u64) -> Vec<Connection> {
    let mut connections = Vec::new();
    for _ in 0..count {
        connections.push(gateway.tls().connect().await.unwrap());
    }
    // Connections are taken in turn, and a request is answered behind all handshakes.
    get(&gateway.tls(), "/").await;
    connections
}

#[tokio::test]
async fn memory_of_idle_tls_connections_goes_back_after_each_wave() {
    raise_the_limit_on_open_files();
    let gateway = port_gateway()
        .set("MaxConnectionsPerAddress", 0)
        .set("HeaderTimeout", 600)
        .set("HandshakeTimeout", 600)
        .spawn()
        .await
        .unwrap();
    // What is made once is there.
    drop(wave(&gateway, 50).await);
    let before = rss(&gateway);
    for count in [500, 2_000] {
        let connections = wave(&gateway, count).await;
        let taken = rss(&gateway).saturating_sub(before);
        println!("{count} connections: {} bytes each", taken / count);
        assert!(taken < count * EACH, "{} bytes each", taken / count);
        drop(connections);
        let given_back = async {
            while rss(&gateway) > before + LEFT {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        let waited = within("memory that goes back", given_back).await;
        let left = rss(&gateway).saturating_sub(before);
        println!("{left} bytes are left of {taken}");
        waited.unwrap();
    }
}
