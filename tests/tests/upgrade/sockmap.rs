//! Channels on `sockmap` through upgrades: the kernel goes on moving their downlink.

use std::time::Duration;

use serde_json::json;
use testkit::gateway::{GatewayBuilder, unused_user};
use testkit::loaded::Loaded;
use testkit::pattern::{DOWNLINK, UPLINK};
use testkit::prelude::*;
use testkit::spice::read_link;
use testkit::ws::{Frame, Opcode, RawClient};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::pretender::Pretender;
use crate::support::{
    Traffic, expect_failure, finish, port_gateway, replace_in_turn, successor_in, successor_of,
};

/// Shows that places in the maps and descriptors are given back, whoever has the channels.
const UPGRADES: usize = 8;

/// For so many channels there is room.
pub(crate) const CHANNELS: u32 = 100;

/// How much the kernel lets wait of a channel, in bytes.
const QUEUE: u64 = 256 * 1024;

pub(crate) fn sockmap_gateway() -> GatewayBuilder {
    port_gateway()
        .set("DataPath", "sockmap")
        .set("MaxConnections", CHANNELS)
        .set("QueueLimit", QUEUE)
        // Clients read nothing until a process has followed, and that takes long on slow machines.
        .set("CloseTimeout", 600)
}

/// Some that are silent while others move bytes, which are compared.
pub(crate) async fn channels(gateway: &Gateway, token: &str) -> (Vec<Traffic>, Vec<ws::Channel>) {
    let endpoint = gateway.plain();
    let mut traffic = Vec::new();
    for piece in [1, 100, 4_096, 30_000, 200_000] {
        let channel = ws::echo_channel(&endpoint, token).await.unwrap();
        traffic.push(Traffic::start(channel, piece));
    }
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(ws::echo_channel(&endpoint, token).await.unwrap());
    }
    (traffic, silent)
}

/// All channels of the gateway were on this path when they ended.
pub(crate) async fn expect_ends_on_sockmap(gateway: &Gateway, count: usize) {
    let mut ended = 0;
    let closed = |line: &str| {
        if line.contains("channel closed") {
            assert!(line.contains("path=\"sockmap\""), "{line}");
            assert!(line.contains(" 0 bytes dropped"), "{line}");
            ended += 1;
        }
        ended == count
    };
    gateway.wait_for_log(closed, PATIENCE).await.unwrap();
}

async fn replace_under_traffic(configured: impl Fn() -> GatewayBuilder) {
    let host = Host::echo().await.unwrap();
    let gateway = configured().spawn().await.unwrap();
    let token = host.addr().port().to_string();
    let (mut traffic, mut silent) = channels(&gateway, &token).await;
    let count = traffic.len() + silent.len();
    let replaced = replace_in_turn(gateway, UPGRADES, configured, &mut traffic).await;
    let (mut gateway, _gone) = replaced;
    finish(traffic, &mut silent).await;
    drop(silent);
    expect_ends_on_sockmap(&gateway, count).await;
    // Those that it opens itself are moved as well.
    let mut channel = ws::echo_channel(&gateway.plain(), &token).await.unwrap();
    channel.echo(b"a new one").await.unwrap();
    drop(channel);
    expect_ends_on_sockmap(&gateway, count + 1).await;
    assert!(gateway.terminate().await.unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(unprivileged, ignore = "needs root: cargo xtask test")]
async fn channels_lose_no_byte_where_each_gateway_loads_its_programs() {
    replace_under_traffic(sockmap_gateway).await;
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(unprivileged, ignore = "needs root: cargo xtask test")]
async fn channels_lose_no_byte_where_root_loads_programs_for_gateways_without_capabilities() {
    let loaded = Loaded::new(unused_user(), CHANNELS).unwrap();
    let configured = || {
        // As the unit of the packages does before each start.
        loaded.load().unwrap();
        loaded.for_gateway(sockmap_gateway())
    };
    replace_under_traffic(configured).await;
}

/// As a version would be that has other programs, or none.
#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(unprivileged, ignore = "needs root: cargo xtask test")]
async fn a_successor_without_programs_of_its_own_goes_on_with_those_that_it_finds() {
    let host = Host::echo().await.unwrap();
    let token = host.addr().port().to_string();
    let gateway = sockmap_gateway().spawn().await.unwrap();
    let (mut traffic, mut silent) = channels(&gateway, &token).await;
    let count = traffic.len() + silent.len();
    let replaced = replace_in_turn(gateway, 3, port_gateway, &mut traffic).await;
    let (gateway, _gone) = replaced;
    finish(traffic, &mut silent).await;
    let mut new = ws::echo_channel(&gateway.plain(), &token).await.unwrap();
    new.echo(b"a new one").await.unwrap();
    drop(silent);
    expect_ends_on_sockmap(&gateway, count).await;
}

/// A channel whose test is both its client, which has read nothing yet, and its host.
struct Held {
    client: RawClient,
    host: TcpStream,
    /// Bytes that the host has sent, and that the client has read.
    sent: u64,
    read: u64,
}

impl Held {
    async fn open(gateway: &Gateway, hosts: &Host<TcpStream>) -> Self {
        let target = format!("/?ver=2&token={}", hosts.addr().port());
        let mut client = RawClient::open(&gateway.plain(), &target).await.unwrap();
        let link = link_message(ChannelType::Main, 0);
        client.send_frame(&Frame::binary(link)).await.unwrap();
        let mut host = hosts.outcome().await.unwrap();
        within("the link message", read_link(&mut host))
            .await
            .unwrap()
            .unwrap();
        Self {
            client,
            host,
            sent: 0,
            read: 0,
        }
    }

    /// Sends until nothing is taken for a while: bytes have passed to the gateway by then.
    async fn send_until_held_up(&mut self) {
        while timeout(Duration::from_millis(500), self.host.writable())
            .await
            .is_ok()
        {
            match self.host.try_write(&DOWNLINK.bytes(self.sent, 10_000)) {
                Ok(len) => self.sent += len as u64,
                Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock),
            }
        }
    }

    /// Reads a frame; payload is compared.
    async fn read_frame(&mut self) -> Frame {
        let frame = within("a frame", self.client.read_frame()).await;
        let frame = frame.unwrap().unwrap();
        if frame.opcode == Opcode::BINARY {
            DOWNLINK.check(self.read, &frame.payload).unwrap();
            self.read += frame.payload.len() as u64;
        }
        frame
    }

    async fn read_all(&mut self) {
        while self.read < self.sent {
            self.read_frame().await;
        }
    }

    /// Moves some bytes each way, which are compared.
    async fn move_some(&mut self) {
        let uplink = UPLINK.bytes(0, 10_000);
        let frame = Frame::binary(uplink.clone());
        self.client.send_frame(&frame).await.unwrap();
        let mut received = vec![0; uplink.len()];
        let read = within("the uplink", self.host.read_exact(&mut received));
        read.await.unwrap().unwrap();
        assert_eq!(received, uplink);
        for len in [85, 1_000, 50_000] {
            let bytes = DOWNLINK.bytes(self.sent, len);
            self.sent += len as u64;
            let write = within("the downlink", self.host.write_all(&bytes));
            write.await.unwrap().unwrap();
            self.read_all().await;
        }
    }
}

async fn hosts() -> Host<TcpStream> {
    Host::spawn(|stream| async move { Ok(stream) })
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(unprivileged, ignore = "needs root: cargo xtask test")]
async fn what_a_client_does_not_read_waits_for_it_in_order_and_a_ping_is_answered() {
    let hosts = hosts().await;
    let first = sockmap_gateway().spawn().await.unwrap();
    let directory = first.runtime_dir();
    let mut channel = Held::open(&first, &hosts).await;
    channel.send_until_held_up().await;
    // The answers wait behind what the client does not read.
    let ping = Frame::new(Opcode::PING, "before");
    channel.client.send_frame(&ping).await.unwrap();
    let mut gateway = first;
    let mut gone = Vec::new();
    for _ in 0..3 {
        let next = successor_in(&directory, &gateway, sockmap_gateway()).await;
        assert!(gateway.wait().await.unwrap().success());
        gone.push(std::mem::replace(&mut gateway, next));
    }
    let ping = Frame::new(Opcode::PING, "after");
    channel.client.send_frame(&ping).await.unwrap();
    let mut pong = channel.read_frame().await;
    while pong.opcode != Opcode::PONG || pong.payload != b"after" {
        pong = channel.read_frame().await;
    }
    channel.read_all().await;
    channel.move_some().await;
    // The count goes on where it was.
    let sent = channel.sent;
    let host = channel.host;
    drop(host);
    let close = within("the end", channel.client.expect_close(1000)).await;
    close.unwrap().unwrap();
    drop(channel.client);
    let closed = |line: &str| line.contains("channel closed");
    let line = gateway.wait_for_log(closed, PATIENCE).await.unwrap();
    assert!(line.contains(&format!("down={sent} ")), "{line}");
    assert!(!line.contains(" 0 passes"), "{line}");
}

/// In whatever state the hand-over finds them.
#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(unprivileged, ignore = "needs root: cargo xtask test")]
async fn what_hosts_have_sent_that_end_meanwhile_arrives() {
    let hosts = hosts().await;
    let gateway = sockmap_gateway().spawn().await.unwrap();
    let mut channels = Vec::new();
    for _ in 0..30 {
        channels.push(Held::open(&gateway, &hosts).await);
    }
    for channel in channels.iter_mut().step_by(3) {
        channel.send_until_held_up().await;
    }
    let ends = channels.into_iter().enumerate().map(|(at, channel)| {
        tokio::spawn(async move {
            let mut channel = channel;
            for _ in 0..at * 20 {
                tokio::task::yield_now().await;
                if let Ok(len) = channel.host.try_write(&DOWNLINK.bytes(channel.sent, 3_000)) {
                    channel.sent += len as u64;
                }
            }
            channel.host.shutdown().await.unwrap();
            channel
        })
    });
    let ends: Vec<_> = ends.collect();
    let successor = successor_of(&gateway, sockmap_gateway()).await;
    for end in ends {
        let mut channel = end.await.unwrap();
        channel.read_all().await;
        let close = within("the end", channel.client.expect_close(1000)).await;
        close.unwrap().unwrap();
    }
    drop((gateway, successor));
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(unprivileged, ignore = "needs root: cargo xtask test")]
async fn successors_that_fail_take_no_channel_with_them() {
    let host = Host::echo().await.unwrap();
    let token = host.addr().port().to_string();
    let hosts = hosts().await;
    let mut gateway = sockmap_gateway().spawn().await.unwrap();
    let (mut traffic, mut silent) = channels(&gateway, &token).await;
    let mut held = Held::open(&gateway, &hosts).await;
    held.send_until_held_up().await;
    let is_on_sockmap =
        |line: &str| line.contains("channel open") && line.contains("path=\"sockmap\"");
    gateway.wait_for_log(is_on_sockmap, PATIENCE).await.unwrap();
    // They go once they were given channels, or say that they have some or none of them, and do
    // nothing.
    for (failures, stage) in ["given", "taken", "none"].into_iter().enumerate() {
        let mut pretender = Pretender::connect(&gateway.runtime_dir()).await;
        let mut taken = pretender.is_given_channels().await;
        assert!(!taken.is_empty());
        if stage != "given" {
            taken.truncate(if stage == "none" { 0 } else { 2 });
            pretender.say(&json!({"Taken": taken})).await;
            assert_eq!(pretender.hear().await, "Go");
        }
        drop(pretender);
        expect_failure(&gateway, failures, &mut traffic).await;
        let mut new = ws::echo_channel(&gateway.plain(), &token).await.unwrap();
        new.echo(b"a new one").await.unwrap();
    }
    let successor = successor_of(&gateway, sockmap_gateway()).await;
    assert!(gateway.wait().await.unwrap().success());
    finish(traffic, &mut silent).await;
    held.read_all().await;
    held.move_some().await;
    drop(successor);
}
