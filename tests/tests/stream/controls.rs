//! Control frames: Pings either way, and Close.

use anyhow::{Result, ensure};
use testkit::pattern::{DOWNLINK, write_pattern};
use testkit::ws::{Frame, Opcode};
use tokio::io::AsyncWriteExt;

use crate::channel::{Channel, open};
use crate::patterns::{check_data, check_header, expect_closing, expect_uplink_end, read_downlink};
use crate::setup::Setup;
use crate::stage::Stage;

on_every_path_and_host! {
    pings_are_answered_with_their_payload
    pings_are_answered_on_a_busy_downlink
    a_close_is_answered_with_its_code
    nothing_behind_a_close_is_forwarded;
    only_clients_that_answer_are_pinged
    a_client_that_is_silent_is_closed
}

async fn pings_are_answered_with_their_payload(setup: Setup) -> Result<()> {
    let stage = setup.start().await?;
    let mut channel = stage.open().await?;
    for length in [0, 1, 2, 124, 125] {
        channel.ping(&vec![b'p'; length]).await?;
        channel.downlink(1).await?;
    }
    let first = channel.next_frame(10).unfinished();
    channel.client.send_frame(&first).await?;
    channel.ping(b"between fragments").await?;
    let mut last = channel.next_frame(10);
    last.opcode = Opcode::CONTINUATION;
    channel.client.send_frame(&last).await?;
    channel.client.send_frame(&Frame::close(1000)).await?;
    expect_closing(&mut channel.client, 1000).await?;
    expect_uplink_end(&mut channel.host, 0, 20).await
}

async fn pings_are_answered_on_a_busy_downlink(setup: Setup) -> Result<()> {
    const PINGS: u8 = 20;
    const PAUSE: u64 = 300_000;
    let stage = setup.start().await?;
    let channel = stage.open().await?;
    let Channel {
        mut client,
        mut host,
        ..
    } = channel;
    let read = async {
        let mut at = 0;
        for number in 0..PINGS {
            let ping = Frame::new(Opcode::PING, [number; 3]);
            client.send_frame(&ping).await?;
            let begin = at;
            let mut answered = false;
            // The host never pauses, so the answer has to find its way between its frames.
            while !answered || at < begin + PAUSE {
                let frame = client.read_frame().await?;
                if frame.opcode == Opcode::PONG && !answered {
                    check_header(&frame)?;
                    ensure!(frame.payload == ping.payload, "another Ping's answer");
                    answered = true;
                } else {
                    check_data(&frame, at)?;
                    at += frame.payload.len() as u64;
                }
            }
        }
        anyhow::Ok(())
    };
    tokio::select! {
        read = read => read,
        written = write_pattern(&mut host, DOWNLINK, 0, u64::MAX) => Ok(written?),
    }
}

/// A gateway that pings every second.
async fn pinging(setup: Setup) -> Result<Stage> {
    setup
        .start_with(|gateway| gateway.set("KeepAlive", 1))
        .await
}

async fn only_clients_that_answer_are_pinged(setup: Setup) -> Result<()> {
    let stage = pinging(setup).await?;
    let mut answering = stage.open().await?;
    let port = stage.host.addr().port();
    let mut others = Vec::new();
    for query in [format!("ver=1&token={port}"), format!("token={port}")] {
        others.push(open(&stage.endpoint, &stage.host, &format!("/?{query}")).await?);
    }
    // One more than a silent client would live to see.
    for _ in 0..4 {
        let ping = answering.client.read_frame().await?;
        check_header(&ping)?;
        ensure!(ping.opcode == Opcode::PING, "{ping:?} instead of a Ping");
        let pong = Frame::new(Opcode::PONG, ping.payload);
        answering.client.send_frame(&pong).await?;
    }
    answering.uplink(10).await?;
    for channel in &mut others {
        // The next frame is data: nothing came before.
        channel.downlink(10).await?;
        channel.uplink(10).await?;
    }
    Ok(())
}

async fn a_client_that_is_silent_is_closed(setup: Setup) -> Result<()> {
    let stage = pinging(setup).await?;
    let Channel {
        mut client,
        mut host,
        ..
    } = stage.open().await?;
    host.write_all(&DOWNLINK.bytes(0, 10)).await?;
    read_downlink(&mut client, 0, 10).await?;
    let mut pings = 0;
    let close = loop {
        let frame = client.read_frame().await?;
        if frame.opcode != Opcode::PING {
            break frame;
        }
        pings += 1;
    };
    ensure!(pings == 2, "{pings} Pings in three intervals");
    check_header(&close)?;
    ensure!(
        close.close_code() == Some(1001),
        "{close:?} instead of Close 1001"
    );
    client.expect_end().await?;
    drop(client);
    expect_uplink_end(&mut host, 0, 0).await?;
    drop(host);
    stage.expect_reason("client did not answer Pings").await?;
    stage.expect_no_channel().await
}

async fn a_close_is_answered_with_its_code(setup: Setup) -> Result<()> {
    let stage = setup.start().await?;
    // 1001 is what browsers send when their page is left.
    for code in [1000, 1001, 1002, 1003, 1007, 1011, 1012, 1014, 3000, 4999] {
        let mut channel = stage.open().await?;
        let close = Frame::new(
            Opcode::CLOSE,
            [&u16::to_be_bytes(code)[..], "bye \u{263a}".as_bytes()].concat(),
        );
        channel.client.send_frame(&close).await?;
        expect_closing(&mut channel.client, code).await?;
        channel.expect_host_end().await?;
        drop(channel);
        stage
            .expect_reason(&format!("client sent Close {code}"))
            .await?;
    }
    let mut channel = stage.open().await?;
    channel
        .client
        .send_frame(&Frame::new(Opcode::CLOSE, ""))
        .await?;
    let answer = channel.client.read_frame().await?;
    check_header(&answer)?;
    ensure!(
        answer.opcode == Opcode::CLOSE && answer.payload.is_empty(),
        "{answer:?}"
    );
    channel.client.expect_end().await?;
    channel.expect_host_end().await?;
    drop(channel);
    stage.expect_no_channel().await
}

async fn nothing_behind_a_close_is_forwarded(setup: Setup) -> Result<()> {
    let stage = setup.start().await?;
    let mut channel = stage.open().await?;
    let bytes = [
        channel.next_frame(100).encode(),
        Frame::close(1000).encode(),
        Frame::binary("behind").encode(),
        Frame::new(Opcode::PING, "behind").encode(),
        vec![0xff; 100],
    ];
    channel.client.send_raw(&bytes.concat()).await?;
    expect_closing(&mut channel.client, 1000).await?;
    expect_uplink_end(&mut channel.host, 0, 100).await?;
    drop(channel);
    stage.expect_no_channel().await
}
