//! How a channel ends, whoever ends it and however: nothing that was sent before is lost, each
//! side learns of it in order, and nothing is left behind in the gateway.

use std::net::Shutdown;

use anyhow::{Context, Result, ensure};
use socket2::SockRef;
use testkit::gateway::GatewayBuilder;
use testkit::net::{StreamEnd, read_to_end, reset};
use testkit::pattern::{DOWNLINK, UPLINK, write_pattern};
use testkit::prelude::*;
use testkit::ws::{Frame, Opcode, RawClient};
use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;

use crate::channel::{Channel, open, target};
use crate::patterns::{
    check_data, expect_closing, expect_closing_while_sending, expect_uplink_end, read_downlink,
};
use crate::peers;
use crate::plan::Plan;
use crate::setup::{Setup, socket_host};
use crate::stage::Stage;
use crate::verdict::Disturbance;
use testkit::rng::{Rng, seed_or};

on_every_path_and_host! {
    what_a_host_sent_before_its_end_arrives
    what_a_client_sends_after_the_host_ended_arrives
    a_client_may_end_without_close
    a_client_may_end_while_its_host_is_slow
    a_host_may_go_on_after_its_client_ended
    a_reset_of_the_client_ends_the_host
    a_client_that_never_answers_a_close_is_left
    a_client_that_never_reads_is_left;
    a_reset_of_the_host_is_told
    a_reset_of_the_host_is_told_to_a_sending_client
    random_endings
}

/// What fits into the buffers between client and host even if the host does not read.
const UNREAD: usize = 1 << 20;
/// What fits into a small receive buffer of a client that does not read and, unsent, into the
/// gateway's socket for it.
const UNTAKEN: u64 = 12 * 1024;

async fn what_a_host_sent_before_its_end_arrives(setup: Setup) -> Result<()> {
    let stage = setup.start().await?;
    for length in [0, 1, 65_536, 5_000_000] {
        let Channel {
            mut client,
            mut host,
            ..
        } = stage.open().await?;
        let send = async {
            write_pattern(&mut host, DOWNLINK, 0, length).await?;
            host.shutdown().await?;
            anyhow::Ok(())
        };
        let receive = async {
            read_downlink(&mut client, 0, length).await?;
            expect_closing(&mut client, 1000).await
        };
        tokio::try_join!(send, receive)?;
        client.send_frame(&Frame::close(1000)).await?;
        drop(client);
        expect_uplink_end(&mut host, 0, 0).await?;
    }
    stage.expect_reason("host disconnected").await?;
    stage.expect_no_channel().await
}

async fn what_a_client_sends_after_the_host_ended_arrives(setup: Setup) -> Result<()> {
    let stage = setup.start().await?;
    let mut channel = stage.open().await?;
    channel.host.shutdown().await?;
    expect_closing(&mut channel.client, 1000).await?;
    // The client may have had this under way when the Close came.
    for _ in 0..10 {
        channel.uplink(50_000).await?;
    }
    channel.client.send_frame(&Frame::close(1000)).await?;
    channel.expect_host_end().await?;
    drop(channel);
    stage.expect_no_channel().await
}

async fn a_reset_of_the_host_is_told(setup: Setup) -> Result<()> {
    let stage = setup.start().await?;
    let mut channel = stage.open().await?;
    channel.downlink(200_000).await?;
    reset(&channel.host)?;
    drop(channel.host);
    expect_closing(&mut channel.client, 1011).await?;
    drop(channel.client);
    stage.expect_reason("host lost").await?;
    stage.expect_no_channel().await
}

async fn a_reset_of_the_host_is_told_to_a_sending_client(setup: Setup) -> Result<()> {
    let stage = setup.start().await?;
    for _ in 0..20 {
        let Channel { client, host, .. } = stage.open().await?;
        let (mut reader, mut writer) = client.split();
        let bytes = Frame::binary(UPLINK.bytes(0, 30_000)).encode();
        writer.send_raw(&bytes).await?;
        reset(&host)?;
        drop(host);
        expect_closing_while_sending(&mut reader, &mut writer, &bytes, 1011).await?;
    }
    stage.expect_reason("host lost").await?;
    stage.expect_no_channel().await
}

/// The ways in which a client ends its stream in order.
#[derive(Clone, Copy, Debug)]
enum ClientEnd {
    Close,
    EmptyClose,
    /// On TLS with `close_notify`.
    Fin,
    /// On TLS without `close_notify`.
    BareFin,
}

impl ClientEnd {
    const ALL: [Self; 4] = [Self::Close, Self::EmptyClose, Self::Fin, Self::BareFin];

    async fn apply(self, client: &mut RawClient) -> Result<()> {
        match self {
            Self::Close => client.send_frame(&Frame::close(1000)).await,
            Self::EmptyClose => client.send_frame(&Frame::new(Opcode::CLOSE, "")).await,
            Self::Fin => client.shutdown().await,
            Self::BareFin => {
                let socket = SockRef::from(client.connection().tcp());
                socket.shutdown(Shutdown::Write).context("sending a FIN")
            }
        }
    }
}

async fn a_client_may_end_without_close(setup: Setup) -> Result<()> {
    let stage = setup.start().await?;
    for end in ClientEnd::ALL {
        for length in [0, 1, 4_096, 300_000] {
            let mut channel = stage.open().await?;
            let frame = channel.next_frame(length);
            channel.client.send_frame(&frame).await?;
            end.apply(&mut channel.client).await?;
            expect_uplink_end(&mut channel.host, 0, length as u64).await?;
            drop(channel.host);
            let (_, how) = channel.client.read_to_end().await?;
            ensure!(
                how == StreamEnd::Closed,
                "after {end:?} the client saw {how:?}"
            );
        }
    }
    stage.expect_reason("client disconnected").await?;
    stage.expect_no_channel().await
}

async fn a_client_may_end_while_its_host_is_slow(setup: Setup) -> Result<()> {
    let stage = setup.start().await?;
    for end in ClientEnd::ALL {
        let mut channel = stage.open().await?;
        let frame = channel.next_frame(UNREAD);
        channel.client.send_frame(&frame).await?;
        end.apply(&mut channel.client).await?;
        drop(channel.client);
        expect_uplink_end(&mut channel.host, 0, UNREAD as u64)
            .await
            .with_context(|| format!("{end:?}"))?;
    }
    stage.expect_no_channel().await
}

async fn a_host_may_go_on_after_its_client_ended(setup: Setup) -> Result<()> {
    const LENGTH: u64 = 3_000_000;
    let stage = setup.start().await?;
    for end in [ClientEnd::Fin, ClientEnd::BareFin] {
        let mut channel = stage.open().await?;
        channel.uplink(1_000).await?;
        end.apply(&mut channel.client).await?;
        channel.expect_host_end().await?;
        channel
            .downlink(LENGTH)
            .await
            .with_context(|| format!("{end:?}"))?;
        channel.host.shutdown().await?;
        expect_closing(&mut channel.client, 1000).await?;
    }
    stage.expect_no_channel().await
}

async fn a_reset_of_the_client_ends_the_host(setup: Setup) -> Result<()> {
    let stage = setup.start().await?;
    let mut channel = stage.open().await?;
    channel.uplink(100_000).await?;
    channel.downlink(100_000).await?;
    channel.client.reset()?;
    expect_uplink_end(&mut channel.host, channel.up, channel.up).await?;
    drop(channel.host);
    stage.expect_reason("client lost").await?;

    // A host that is sending meanwhile notices as well.
    let Channel { client, host, .. } = stage.open().await?;
    let (mut reader, mut writer) = host.into_split();
    client.reset()?;
    // It sends until it is reset, a mebibyte after the end that it is shown before.
    let sent = write_pattern(&mut writer, DOWNLINK, 0, u64::MAX).await;
    sent.expect_err("nobody takes so much");
    expect_uplink_end(&mut reader, 0, 0).await?;
    drop((reader, writer));
    stage.expect_no_channel().await
}

async fn start_with_short_limit(setup: Setup) -> Result<Stage> {
    setup
        .start_with(|gateway| gateway.set("CloseTimeout", 1))
        .await
}

async fn a_client_that_never_answers_a_close_is_left(setup: Setup) -> Result<()> {
    let stage = start_with_short_limit(setup).await?;
    let mut channels = Vec::new();
    for _ in 0..10 {
        let mut channel = stage.open().await?;
        channel.host.shutdown().await?;
        expect_closing(&mut channel.client, 1000).await?;
        channels.push(channel);
    }
    // All clients and hosts still hold their ends.
    stage.expect_reason("host disconnected").await?;
    stage.expect_no_channel().await?;
    for channel in &mut channels {
        let (bytes, _) = read_to_end(&mut channel.host).await?;
        ensure!(bytes.is_empty(), "the host received {bytes:?}");
    }
    Ok(())
}

async fn a_client_that_never_reads_is_left(setup: Setup) -> Result<()> {
    let stage = start_with_short_limit(setup).await?;
    let endpoint = stage.endpoint.clone().receive_buffer(4_096);
    let mut channel = open(&endpoint, &stage.host, &target(&stage.host)).await?;
    // More than all buffers hold.
    let send = async {
        let sent = write_pattern(&mut channel.host, DOWNLINK, 0, 1 << 30).await;
        ensure!(sent.is_err(), "a client that never reads was sent 1 GiB");
        Ok(())
    };
    let close = Frame::close(1000);
    let (client, gateway) = (&mut channel.client, &stage);
    let leave = async {
        client.send_frame(&close).await?;
        gateway.expect_reason("client sent Close 1000").await
    };
    tokio::try_join!(send, leave)?;
    stage.expect_no_channel().await?;

    // The same when it is the host that ends: what it sent fits into the gateway's socket only.
    let mut channel = open(&endpoint, &stage.host, &target(&stage.host)).await?;
    write_pattern(&mut channel.host, DOWNLINK, 0, UNTAKEN).await?;
    channel.host.shutdown().await?;
    stage.expect_reason("host disconnected").await?;
    stage.expect_no_channel().await?;
    // Whatever arrives is the start of what was sent.
    let mut at = 0;
    while let Ok(frame) = channel.client.read_frame().await {
        if frame.opcode == Opcode::CLOSE {
            break;
        }
        check_data(&frame, at)?;
        at += frame.payload.len() as u64;
    }
    Ok(())
}

/// Rounds of [`random_endings`] that run at the same time.
const WORKERS: u64 = 4;
const ROUNDS: u64 = 200;
/// `CloseTimeout` in seconds for them. A client that goes on sending behind the gateway's Close
/// is left after that time, and its next write fails; on a slow machine the default is too short
/// for what some plans send.
const LONG: u64 = 30;

async fn random_endings(setup: Setup) -> Result<()> {
    let first = seed_or(1)?;
    let long = |gateway: GatewayBuilder| gateway.set("CloseTimeout", LONG);
    let stage = setup.start_with(long).await?;
    let mut workers = JoinSet::new();
    for worker in 0..WORKERS {
        let endpoint = stage.endpoint.clone();
        workers.spawn(async move {
            let host = socket_host().await?;
            for seed in (first..first + ROUNDS).filter(|seed| seed % WORKERS == worker) {
                let round = random_ending(&endpoint, &host, seed);
                round.await.with_context(|| format!("seed {seed}"))?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(worker) = workers.join_next().await {
        worker??;
    }
    stage.expect_no_channel().await
}

async fn random_ending(
    endpoint: &Endpoint,
    host: &Host<tokio::net::TcpStream>,
    seed: u64,
) -> Result<()> {
    const VOLUME: usize = 300_000;
    let mut rng = Rng::new(seed);
    let mut plan = Plan::new(&mut rng, VOLUME);
    plan.pause = rng.pick(&[0, 3]);
    let Channel { client, host, .. } = open(endpoint, host, &target(host)).await?;
    // Leaving by surprise is a RST.
    if plan.client_vanishes() {
        reset(client.connection().tcp())?;
    }
    if plan.host_vanishes() {
        reset(&host)?;
    }
    let round = peers::run(&plan, client, host).await;
    let checked = round.check(&plan, Disturbance::None);
    checked.with_context(|| format!("{plan:?}"))
}
