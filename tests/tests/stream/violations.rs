//! Clients that break the rules: the channel ends with the Close that RFC 6455 asks for, and the
//! host receives what came before and nothing else.

use anyhow::{Context, Result, ensure};
use testkit::net::StreamEnd;
use testkit::prelude::*;
use testkit::ws::{Frame, Opcode, RawClient, handshake_request};

use crate::channel::target;
use crate::patterns::{expect_closing, expect_closing_while_sending, expect_pong};
use crate::setup::Setup;
use crate::stage::Stage;

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
    /// Comes before it, is in order and reaches the host.
    before: Frame,
    bytes: Vec<u8>,
    code: u16,
}

impl Case {
    fn new(name: impl Into<String>, frame: &Frame, code: u16) -> Self {
        Self {
            name: name.into(),
            before: Frame::binary("in order"),
            bytes: frame.encode(),
            code,
        }
    }

    /// It stands inside a message that has begun.
    fn inside_message(mut self) -> Self {
        self.before.fin = false;
        self
    }
}

fn frame(opcode: u8, length: usize) -> Frame {
    Frame::new(Opcode(opcode), vec![b'x'; length])
}

fn cases() -> impl Iterator<Item = Case> {
    headers().chain(fragments()).chain(controls()).chain([
        Case::new("text", &frame(0x1, 3), 1003),
        Case::new("text, unfinished", &frame(0x1, 3).unfinished(), 1003),
    ])
}

/// Headers that must not be, whatever came before.
fn headers() -> impl Iterator<Item = Case> {
    let reserved_bits = (1..=7).flat_map(|rsv| {
        [0x2, 0x9].map(|opcode| {
            let mut frame = frame(opcode, 5);
            frame.rsv = rsv;
            Case::new(format!("reserved bits {rsv} of {opcode:#x}"), &frame, 1002)
        })
    });
    let unmasked = [0x2, 0x8, 0x9, 0xa].map(|opcode| {
        let mut frame = frame(opcode, 2);
        frame.mask = None;
        Case::new(format!("unmasked {opcode:#x}"), &frame, 1002)
    });
    let reserved_opcodes = (0x3..=0x7)
        .chain(0xb..=0xf)
        .map(|opcode| Case::new(format!("opcode {opcode:#x}"), &frame(opcode, 3), 1002));
    let mut too_long = Case::new("64-bit length with its top bit", &frame(0x2, 0), 1002);
    too_long.bytes = [&[0x82, 0xff, 0x80][..], &[0; 7 + 4 + 5]].concat();
    reserved_bits
        .chain(unmasked)
        .chain(reserved_opcodes)
        .chain([too_long])
}

/// Data frames that must not be where they are.
fn fragments() -> impl Iterator<Item = Case> {
    let continuation = frame(0x0, 3);
    let inside = [0x1, 0x2].map(|opcode| {
        let name = format!("new message {opcode:#x} inside another");
        Case::new(name, &frame(opcode, 3), 1002).inside_message()
    });
    [
        Case::new("lone continuation", &continuation, 1002),
        Case::new(
            "lone continuation, unfinished",
            &continuation.unfinished(),
            1002,
        ),
    ]
    .into_iter()
    .chain(inside)
}

/// Control frames that must not be.
fn controls() -> impl Iterator<Item = Case> {
    let too_long_or_fragmented = [0x8, 0x9, 0xa].into_iter().flat_map(|opcode| {
        let fragment = frame(opcode, 4).unfinished();
        [
            Case::new(
                format!("126 bytes in {opcode:#x}"),
                &frame(opcode, 126),
                1002,
            ),
            Case::new(
                format!("64 KiB in {opcode:#x}"),
                &frame(opcode, 65_536),
                1002,
            ),
            Case::new(format!("fragment of {opcode:#x}"), &fragment, 1002),
        ]
    });
    let codes = [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65_535]
        .map(|code| Case::new(format!("Close {code}"), &Frame::close(code), 1002));
    let bad_reason = Frame::new(Opcode::CLOSE, b"\x03\xe8\xc3\x28".as_slice());
    too_long_or_fragmented.chain(codes).chain([
        Case::new("Close with one byte", &frame(0x8, 1), 1002),
        Case::new("Close with a reason not in UTF-8", &bad_reason, 1007).inside_message(),
    ])
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
    expect_closing_while_sending(&mut reader, &mut writer, &more, code).await
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
