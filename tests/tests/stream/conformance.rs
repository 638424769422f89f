//! Every byte arrives once, in order and unchanged, in frames that every client takes.

use std::ops::Range;

use anyhow::{Result, ensure};
use testkit::net::within;
use testkit::pattern::{DOWNLINK, UPLINK, write_pattern};
use testkit::ws::{Frame, Opcode};
use tokio::io::AsyncWriteExt;

use crate::channel::Channel;
use crate::patterns::{expect_pong, read_downlink, read_uplink, send_frames, send_messages};
use crate::setup::Setup;
use testkit::rng::Rng;

on_every_path_and_host! {
    host_messages_of_every_size
    client_frames_of_every_size
    fragments_with_controls_between
    client_frames_cut_at_every_byte
    client_frames_byte_by_byte
    many_small_messages_both_ways
    bursts_of_small_messages_with_pauses
    bulk_downlink_between_small_messages
    bulk_uplink_between_small_messages
    a_long_frame_is_forwarded_as_it_comes
    both_directions_at_once;
}

const MIB: u64 = 1 << 20;
const BULK: u64 = 64 * MIB;

/// All small sizes, and those around which an implementation may change its ways.
fn sizes() -> impl Iterator<Item = usize> {
    let borders = [
        4_095,
        4_096,
        4_097,
        16_383,
        16_384,
        16_385,
        65_526,
        65_535,
        65_536,
        65_537,
        131_071,
        131_072,
        1 << 20,
    ];
    (1..=300).chain(borders)
}

async fn host_messages_of_every_size(setup: Setup) -> Result<()> {
    let stage = setup.start().await?;
    let mut channel = stage.open().await?;
    for size in sizes() {
        channel.downlink(size as u64).await?;
    }
    Ok(())
}

async fn client_frames_of_every_size(setup: Setup) -> Result<()> {
    let stage = setup.start().await?;
    let mut channel = stage.open().await?;
    for size in sizes() {
        channel.uplink(0).await?;
        channel.uplink(size).await?;
    }
    Ok(())
}

async fn fragments_with_controls_between(setup: Setup) -> Result<()> {
    let stage = setup.start().await?;
    let mut channel = stage.open().await?;
    for sizes in [
        &[0][..],
        &[0, 0, 0],
        &[1, 0, 2],
        &[125, 126, 1, 65_536, 0],
        &[5_000; 20],
    ] {
        for (index, size) in sizes.iter().enumerate() {
            let start = channel.up;
            let mut frame = channel.next_frame(*size);
            frame.fin = index + 1 == sizes.len();
            if index > 0 {
                frame.opcode = Opcode::CONTINUATION;
            }
            let pong = Frame::new(Opcode::PONG, "unasked");
            channel.client.send_frame(&pong).await?;
            let (client, host) = (&mut channel.client, &mut channel.host);
            let read = read_uplink(host, start, *size as u64);
            tokio::try_join!(client.send_frame(&frame), read)?;
            channel.ping(&start.to_be_bytes()).await?;
        }
    }
    channel.uplink(10).await
}

/// What the client sends again and again, cut elsewhere each time.
struct Sequence {
    bytes: Vec<u8>,
    /// Where in `bytes` payload of data frames stands.
    data: Vec<Range<usize>>,
    /// Where in `bytes` a Ping ends, and its payload.
    pings: Vec<(usize, Vec<u8>)>,
}

impl Sequence {
    /// Short and long headers, fragments, empty frames and controls between them.
    fn new(channel: &mut Channel) -> Self {
        let continued = |mut frame: Frame| {
            frame.opcode = Opcode::CONTINUATION;
            frame
        };
        let frames = [
            channel.next_frame(5).unfinished(),
            Frame::new(Opcode::PING, "first"),
            continued(channel.next_frame(0)).unfinished(),
            Frame::new(Opcode::PONG, ""),
            continued(channel.next_frame(130)),
            Frame::new(Opcode::PING, ""),
            channel.next_frame(3),
        ];
        let mut sequence = Self {
            bytes: Vec::new(),
            data: Vec::new(),
            pings: Vec::new(),
        };
        for frame in frames {
            sequence.bytes.extend(frame.encode());
            let end = sequence.bytes.len();
            match frame.opcode {
                Opcode::PING => sequence.pings.push((end, frame.payload)),
                Opcode::PONG => {}
                _ => sequence.data.push(end - frame.payload.len()..end),
            }
        }
        sequence
    }

    /// How much payload the first `cut` bytes hold.
    fn payload_before(&self, cut: usize) -> u64 {
        let before = |range: &Range<usize>| cut.clamp(range.start, range.end) - range.start;
        self.data.iter().map(before).sum::<usize>() as u64
    }

    /// Whether the byte before `cut` ends a Ping, and which.
    fn ping_ending_at(&self, cut: usize) -> Option<&[u8]> {
        let (_, payload) = self.pings.iter().find(|(end, _)| *end == cut)?;
        Some(payload)
    }
}

async fn client_frames_cut_at_every_byte(setup: Setup) -> Result<()> {
    let stage = setup.start().await?;
    let mut channel = stage.open().await?;
    let length = Sequence::new(&mut channel).bytes.len();
    channel.up = 0;
    for cut in 1..length {
        let start = channel.up;
        let sequence = Sequence::new(&mut channel);
        let before = sequence.payload_before(cut);
        // Each part must have had its effect before the next one is sent.
        channel.client.send_raw(&sequence.bytes[..cut]).await?;
        read_uplink(&mut channel.host, start, before).await?;
        channel.client.send_raw(&sequence.bytes[cut..]).await?;
        let after = channel.up - start - before;
        read_uplink(&mut channel.host, start + before, after).await?;
        // Only the last of several Pings needs an answer.
        while channel.client.read_frame().await?.payload != b"" {}
    }
    channel.uplink(10).await
}

async fn client_frames_byte_by_byte(setup: Setup) -> Result<()> {
    let stage = setup.start().await?;
    let mut channel = stage.open().await?;
    for _ in 0..3 {
        let start = channel.up;
        let sequence = Sequence::new(&mut channel);
        for at in 0..sequence.bytes.len() {
            channel.client.send_raw(&sequence.bytes[at..=at]).await?;
            let (before, now) = (sequence.payload_before(at), sequence.payload_before(at + 1));
            read_uplink(&mut channel.host, start + before, now - before).await?;
            if let Some(payload) = sequence.ping_ending_at(at + 1) {
                expect_pong(&channel.client.read_frame().await?, payload)?;
            }
        }
    }
    Ok(())
}

async fn many_small_messages_both_ways(setup: Setup) -> Result<()> {
    const MESSAGES: usize = 10_000;
    let stage = setup.start().await?;
    let channel = stage.open().await?;
    let mut rng = Rng::new(1);
    let sizes: Vec<usize> = (0..MESSAGES).map(|_| 1 + rng.below(200)).collect();
    let total = sizes.iter().sum::<usize>() as u64;

    let (mut reader, mut writer) = channel.client.split();
    let (mut host_reader, mut host_writer) = channel.host.into_split();
    let client_sends = send_frames(&mut writer, &sizes);
    let host_sends = send_messages(&mut host_writer, DOWNLINK, &sizes);
    tokio::try_join!(
        client_sends,
        host_sends,
        read_downlink(&mut reader, 0, total),
        read_uplink(&mut host_reader, 0, total),
    )?;
    Ok(())
}

/// What comes fast may be gathered, but the end of a burst must not wait for the next one.
async fn bursts_of_small_messages_with_pauses(setup: Setup) -> Result<()> {
    const MESSAGE: u64 = 85;
    let stage = setup.start().await?;
    let mut channel = stage.open().await?;
    for burst in 1..50 {
        let (start, length) = (channel.down, burst * 10 * MESSAGE);
        let write = async {
            for offset in (0..length).step_by(usize::try_from(MESSAGE)?) {
                write_pattern(&mut channel.host, DOWNLINK, start + offset, MESSAGE).await?;
            }
            Ok(())
        };
        let read = read_downlink(&mut channel.client, start, length);
        tokio::try_join!(write, read)?;
        channel.down += length;
        if burst % 2 == 0 {
            channel.uplink(17).await?;
        }
    }
    Ok(())
}

async fn bulk_downlink_between_small_messages(setup: Setup) -> Result<()> {
    let stage = setup.start().await?;
    let mut channel = stage.open().await?;
    for _ in 0..50 {
        channel.downlink(100).await?;
    }
    channel.downlink(BULK).await?;
    for _ in 0..50 {
        channel.downlink(100).await?;
    }
    Ok(())
}

async fn bulk_uplink_between_small_messages(setup: Setup) -> Result<()> {
    const FRAME: usize = 100_000;
    let stage = setup.start().await?;
    let mut channel = stage.open().await?;
    for _ in 0..50 {
        channel.uplink(100).await?;
    }
    let start = channel.up;
    let frames = BULK / FRAME as u64;
    let (client, host) = (&mut channel.client, &mut channel.host);
    let send = async {
        for index in 0..frames {
            let payload = UPLINK.bytes(start + index * FRAME as u64, FRAME);
            client.send_frame(&Frame::binary(payload)).await?;
        }
        Ok(())
    };
    tokio::try_join!(send, read_uplink(host, start, frames * FRAME as u64))?;
    channel.up += frames * FRAME as u64;
    for _ in 0..50 {
        channel.uplink(100).await?;
    }
    Ok(())
}

async fn a_long_frame_is_forwarded_as_it_comes(setup: Setup) -> Result<()> {
    const LENGTH: usize = 8 << 20;
    let stage = setup.start().await?;
    let mut channel = stage.open().await?;
    let bytes = channel.next_frame(LENGTH).encode();
    let payload_at = bytes.len() - LENGTH;
    let mut sent = 0;
    let mut received = 0;
    // The host has each part before the client sends the next one.
    for end in [
        payload_at + 1,
        payload_at + 1_000,
        bytes.len() - 1,
        bytes.len(),
    ] {
        let part = (end - payload_at - received) as u64;
        let (client, host) = (&mut channel.client, &mut channel.host);
        tokio::try_join!(
            client.send_raw(&bytes[sent..end]),
            read_uplink(host, received as u64, part)
        )?;
        sent = end;
        received = end - payload_at;
    }
    ensure!(received == LENGTH);
    channel.uplink(10).await
}

async fn both_directions_at_once(setup: Setup) -> Result<()> {
    const LENGTH: u64 = 16 * MIB;
    let stage = setup.start().await?;
    let channel = stage.open().await?;
    let mut rng = Rng::new(2);
    let mut sizes = Vec::new();
    let mut left = usize::try_from(LENGTH)?;
    while left > 0 {
        let limit = rng.pick(&[2, 200, 5_000, 140_000]);
        let size = rng.below(limit).min(left);
        sizes.push(size);
        left -= size;
    }
    let (mut reader, mut writer) = channel.client.split();
    let (mut host_reader, mut host_writer) = channel.host.into_split();
    let host_sends = async { Ok(write_pattern(&mut host_writer, DOWNLINK, 0, LENGTH).await?) };
    tokio::try_join!(
        send_frames(&mut writer, &sizes),
        host_sends,
        read_downlink(&mut reader, 0, LENGTH),
        read_uplink(&mut host_reader, 0, LENGTH),
    )?;
    within("end of the sender", host_writer.shutdown()).await??;
    Ok(())
}
