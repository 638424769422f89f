//! Tunnels through upgrades.

use testkit::flexvdi::FlexVdiClient;
use testkit::net::Connection;
use testkit::prelude::*;
use testkit::tunnel::Tunnel;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{Traffic, all_go_on, successor_in};

/// A tunnel to a host that echoes, whose link message has come back.
async fn open(endpoint: &Endpoint, ticket: &str) -> Connection {
    let mut tunnel = Tunnel::new(endpoint, ticket).stream().await.unwrap();
    let link = link_message(ChannelType::Display, 0);
    tunnel.write_all(&link).await.unwrap();
    tunnel.flush().await.unwrap();
    let mut echo = vec![0; link.len()];
    let read = within("link message", tunnel.read_exact(&mut echo)).await;
    read.unwrap().unwrap();
    assert_eq!(echo, link);
    tunnel
}

#[tokio::test(flavor = "multi_thread")]
async fn tunnels_lose_no_byte() {
    let host = Host::echo().await.unwrap();
    let manager = Manager::spawn(DesktopAnswer::new(host.addr()))
        .await
        .unwrap();
    let configured = || Gateway::builder().manager(&manager).plain();
    let mut gateway = configured().spawn().await.unwrap();
    let endpoints = [gateway.tls(), gateway.plain()];
    let client = FlexVdiClient::new(&gateway.tls());
    let ticket = client.desktop().await.unwrap().token;
    let mut traffic = Vec::new();
    for piece in [1, 1_000, 30_000, 200_000] {
        for endpoint in &endpoints {
            traffic.push(Traffic::start(open(endpoint, &ticket).await, piece));
        }
    }
    let mut silent = Vec::new();
    for endpoint in &endpoints {
        silent.push(open(endpoint, &ticket).await);
    }
    // The directory goes with the first one.
    let directory = gateway.runtime_dir();
    let mut gone = Vec::new();
    for _ in 0..3 {
        let successor = successor_in(&directory, &gateway, configured()).await;
        assert!(gateway.wait().await.unwrap().success());
        let left = gateway.log().await;
        let closed = |line: &&String| line.contains("channel closed");
        assert_eq!(left.iter().find(closed), None);
        gone.push(std::mem::replace(&mut gateway, successor));
        all_go_on(&mut traffic).await;
        // The ticket is still good for more of them.
        for endpoint in &endpoints {
            silent.push(open(endpoint, &ticket).await);
        }
    }
    for traffic in traffic {
        assert!(traffic.finish().await > 0);
    }
    for mut tunnel in silent {
        tunnel.write_all(b"still here").await.unwrap();
        tunnel.shutdown().await.unwrap();
        let mut rest = Vec::new();
        let read = within("the rest", tunnel.read_to_end(&mut rest)).await;
        read.unwrap().unwrap();
        assert_eq!(rest, b"still here");
    }
    assert!(gateway.terminate().await.unwrap().success());
}
