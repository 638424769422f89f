//! Clients that break the rules: the channel ends with the Close that RFC 6455 asks for, and the
//! host receives what came before and nothing else.

use anyhow::{Context, Result, ensure};
use testkit::net::StreamEnd;
use testkit::prelude::*;
use testkit::ws::{Frame, Opcode, RawClient, handshake_request};

use crate::setup::{Setup, Stage, expect_closing, expect_pong, target};

on_every_path! {
    broken_framing_is_closed_with_its_code
    a_client_that_does_not_speak_spice_is_closed
    a_link_message_may_come_in_pieces
    a_link_message_may_come_with_the_handshake
    a_link_message_must_come_in_time
}

/// What a client sends that it must not.
struct Case {
    name: String,
    /// Payload that comes in a frame that is in order, and reaches the host.
    before: Frame,
    bytes: Vec<u8>,
    code: u16,
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |name: String, before: Frame, bytes: Vec<u8>, code: u16| {
        cases.push(Case {
            name,
            before,
            bytes,
            code,
        });
    };
    let whole = || Frame::binary("in order");
    let begun = || Frame::binary("in order").unfinished();
    let frame = |opcode: u8, length: usize| Frame::new(Opcode(opcode), vec![b'x'; length]);

    for rsv in 1..=7 {
        for opcode in [0x2, 0x9] {
            let frame = Frame {
                rsv,
                ..frame(opcode, 5)
            };
            add(
                format!("reserved bits {rsv} of {opcode:#x}"),
                whole(),
                frame.encode(),
                1002,
            );
        }
    }
    for opcode in [0x2, 0x8, 0x9, 0xa] {
        let frame = Frame {
            mask: None,
            ..frame(opcode, 2)
        };
        add(
            format!("unmasked {opcode:#x}"),
            whole(),
            frame.encode(),
            1002,
        );
    }
    for opcode in (0x3..=0x7).chain(0xb..=0xf) {
        add(
            format!("opcode {opcode:#x}"),
            whole(),
            frame(opcode, 3).encode(),
            1002,
        );
    }
    for opcode in [0x8, 0x9, 0xa] {
        for length in [126, 65_536] {
            let name = format!("{length} bytes in {opcode:#x}");
            add(name, whole(), frame(opcode, length).encode(), 1002);
        }
        let fragment = frame(opcode, 4).unfinished();
        add(
            format!("fragment of {opcode:#x}"),
            whole(),
            fragment.encode(),
            1002,
        );
    }
    let mut too_long = vec![0x82, 0xff, 0x80];
    too_long.extend([0; 7 + 4 + 5]);
    add(
        "64-bit length with its top bit".to_owned(),
        whole(),
        too_long,
        1002,
    );
    let continuation = frame(0x0, 3);
    add(
        "lone continuation".to_owned(),
        whole(),
        continuation.encode(),
        1002,
    );
    let fragment = continuation.unfinished();
    add(
        "lone continuation, unfinished".to_owned(),
        whole(),
        fragment.encode(),
        1002,
    );
    for opcode in [0x1, 0x2] {
        let name = format!("new message {opcode:#x} inside another");
        add(name, begun(), frame(opcode, 3).encode(), 1002);
    }
    for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65_535] {
        add(
            format!("Close {code}"),
            whole(),
            Frame::close(code).encode(),
            1002,
        );
    }
    add(
        "Close with one byte".to_owned(),
        whole(),
        frame(0x8, 1).encode(),
        1002,
    );
    let bad_reason = Frame::new(Opcode::CLOSE, b"\x03\xe8\xc3\x28".as_slice());
    add(
        "Close with a reason not in UTF-8".to_owned(),
        begun(),
        bad_reason.encode(),
        1007,
    );
    let text = frame(0x1, 3);
    add("text".to_owned(), whole(), text.encode(), 1003);
    add(
        "text, unfinished".to_owned(),
        whole(),
        text.unfinished().encode(),
        1003,
    );
    cases
}

async fn broken_framing_is_closed_with_its_code(setup: Setup) -> Result<()> {
    let stage = setup.start().await?;
    for case in cases() {
        run(&stage, &case)
            .await
            .with_context(|| case.name.clone())?;
    }
    stage.expect_no_channel().await
}

async fn run(stage: &Stage, case: &Case) -> Result<()> {
    let channel = stage.open().await?;
    let bytes = [case.before.encode(), case.bytes.clone()].concat();
    close_while_sending(channel.client, &bytes, case.code).await?;
    let mut host = channel.host;
    let (received, end) = testkit::net::read_to_end(&mut host).await?;
    ensure!(
        received == case.before.payload,
        "the host received {received:?}"
    );
    ensure!(end == StreamEnd::Closed, "the host's end is {end:?}");
    Ok(())
}

/// Sends these bytes and more without end; the Close must come all the same, and no RST.
async fn close_while_sending(client: RawClient, bytes: &[u8], code: u16) -> Result<()> {
    let (mut reader, mut writer) = client.split();
    writer.send_raw(bytes).await?;
    let more = Frame::binary(vec![0; 4096]).encode();
    let flood = async { while writer.send_raw(&more).await.is_ok() {} };
    let mut closing = std::pin::pin!(expect_closing(&mut reader, code));
    tokio::select! {
        closed = &mut closing => closed,
        () = flood => closing.await,
    }
}

/// A channel on which nothing was sent yet.
async fn open_unlinked(stage: &Stage, host: &Host<Vec<u8>>) -> Result<RawClient> {
    RawClient::open(&stage.endpoint, &target(host)).await
}

/// The host's connection must have ended without having brought a byte.
async fn expect_nothing(host: &Host<Vec<u8>>) -> Result<()> {
    let received = host.outcome().await?;
    ensure!(received.is_empty(), "the host received {received:?}");
    Ok(())
}

async fn a_client_that_does_not_speak_spice_is_closed(setup: Setup) -> Result<()> {
    let stage = setup.start().await?;
    let host = Host::record().await?;
    let mut unmasked = Frame::binary("REDQ");
    unmasked.mask = None;
    for (bytes, code) in [
        (Frame::binary("GET / HTTP/1.1\r\n\r\n").encode(), 1008),
        (Frame::binary("X").encode(), 1008),
        (Frame::binary("REDX").encode(), 1008),
        (Frame::binary("redq").encode(), 1008),
        (Frame::binary(vec![0; 100_000]).encode(), 1008),
        (unmasked.encode(), 1002),
        (Frame::new(Opcode::TEXT, "REDQ").encode(), 1003),
        // Enough of a link message to be one, but for its last byte.
        (
            [
                Frame::binary(&link_message(ChannelType::Main, 0)[..21]).encode(),
                vec![0x83],
            ]
            .concat(),
            1002,
        ),
    ] {
        let client = open_unlinked(&stage, &host).await?;
        close_while_sending(client, &bytes, code).await?;
        expect_nothing(&host).await?;
    }

    // One byte after the other: the first wrong one decides.
    let mut client = open_unlinked(&stage, &host).await?;
    for byte in "RED".bytes() {
        client.send_frame(&Frame::binary([byte])).await?;
    }
    client
        .send_frame(&Frame::new(Opcode::PING, "so far"))
        .await?;
    expect_pong(&client.read_frame().await?, b"so far")?;
    close_while_sending(client, &Frame::binary("!").encode(), 1008).await?;
    expect_nothing(&host).await?;
    stage.expect_reason("client does not speak Spice").await?;

    // A client that leaves at once, with a Close or without.
    let mut client = open_unlinked(&stage, &host).await?;
    client.send_frame(&Frame::close(1001)).await?;
    expect_closing(&mut client, 1001).await?;
    drop(client);
    expect_nothing(&host).await?;
    let mut client = open_unlinked(&stage, &host).await?;
    client.shutdown().await?;
    let (_, end) = client.read_to_end().await?;
    ensure!(end != StreamEnd::Reset, "a client that left was reset");
    expect_nothing(&host).await?;
    drop(client);
    stage.expect_no_channel().await
}

async fn a_link_message_may_come_in_pieces(setup: Setup) -> Result<()> {
    let stage = setup.start().await?;
    let host = Host::record().await?;
    let link = link_message(ChannelType::Cursor, 0);
    let rest = [Frame::binary("rest").encode(), Frame::close(1000).encode()].concat();
    let expected = [&link[..], b"rest"].concat();

    // Frames of one byte, with controls and empty frames between them.
    let mut client = open_unlinked(&stage, &host).await?;
    for (index, byte) in link.iter().enumerate() {
        let mut frame = Frame::binary([*byte]);
        frame.fin = index + 1 == link.len();
        if index > 0 {
            frame.opcode = Opcode::CONTINUATION;
        }
        client.send_frame(&frame).await?;
        let ping = Frame::new(Opcode::PING, [*byte]);
        client.send_frame(&ping).await?;
        expect_pong(&client.read_frame().await?, &[*byte])?;
        if !frame.fin {
            let empty = Frame::new(Opcode::CONTINUATION, "").unfinished();
            client.send_frame(&empty).await?;
        }
    }
    client.send_raw(&rest).await?;
    expect_closing(&mut client, 1000).await?;
    drop(client);
    ensure!(host.outcome().await? == expected, "pieces of one byte");

    // One frame, sent byte by byte.
    let mut client = open_unlinked(&stage, &host).await?;
    for byte in Frame::binary(link.clone()).encode() {
        client.send_raw(&[byte]).await?;
    }
    client.send_raw(&rest).await?;
    expect_closing(&mut client, 1000).await?;
    drop(client);
    ensure!(host.outcome().await? == expected, "bytes of one frame");
    stage.wait_for_log("kind=\"cursor\"").await?;
    stage.expect_no_channel().await
}

async fn a_link_message_may_come_with_the_handshake(setup: Setup) -> Result<()> {
    let stage = setup.start().await?;
    let host = Host::record().await?;
    let link = link_message(ChannelType::Inputs, 0);
    let mut client = RawClient::connect(&stage.endpoint).await?;
    let request = handshake_request(&target(&host), "gateway", "");
    let early = Frame::binary([link.clone(), vec![7; 3_000]].concat());
    let bytes = [
        request.into_bytes(),
        early.encode(),
        Frame::close(1000).encode(),
    ]
    .concat();
    client.send_raw(&bytes).await?;
    client.read_head().await?;
    expect_closing(&mut client, 1000).await?;
    drop(client);
    ensure!(
        host.outcome().await? == early.payload,
        "other bytes than the client sent"
    );
    stage.expect_no_channel().await
}

async fn a_link_message_must_come_in_time(setup: Setup) -> Result<()> {
    let stage = setup
        .start_with(|gateway| gateway.set("LinkTimeout", 1))
        .await?;
    let host = Host::record().await?;
    let mut silent = open_unlinked(&stage, &host).await?;
    let mut slow = open_unlinked(&stage, &host).await?;
    let link = link_message(ChannelType::Main, 0);
    slow.send_frame(&Frame::binary(&link[..21]).unfinished())
        .await?;
    expect_closing(&mut silent, 1008).await?;
    expect_closing(&mut slow, 1008).await?;
    drop((silent, slow));
    expect_nothing(&host).await?;
    expect_nothing(&host).await?;
    stage.expect_reason("no Spice link message in time").await?;
    stage.expect_no_channel().await
}
