//! Patterns that go through a channel: their bytes, the frames around them, and the end.

use anyhow::{Result, ensure};
use testkit::net::{StreamEnd, read_to_end};
use testkit::pattern::{DOWNLINK, Pattern, UPLINK};
use testkit::prelude::*;
use testkit::ws::{Frame, Opcode, RawClient};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Largest payload of a server frame, in bytes.
const LONGEST_PAYLOAD: usize = 65_536;

/// Sends the uplink's pattern in frames of these sizes, one after the other.
pub(crate) async fn send_frames<S: AsyncWrite + Unpin>(
    client: &mut RawClient<S>,
    sizes: &[usize],
) -> Result<()> {
    let mut at = 0;
    for size in sizes {
        let frame = Frame::binary(UPLINK.bytes(at, *size));
        client.send_frame(&frame).await?;
        at += *size as u64;
    }
    Ok(())
}

/// Sends a pattern in writes of these sizes, one after the other.
pub(crate) async fn send_messages(
    stream: &mut (impl AsyncWrite + Unpin),
    pattern: Pattern,
    sizes: &[usize],
) -> Result<()> {
    let mut at = 0;
    for size in sizes {
        stream.write_all(&pattern.bytes(at, *size)).await?;
        stream.flush().await?;
        at += *size as u64;
    }
    Ok(())
}

/// Reads binary frames with exactly this part of the downlink's pattern.
pub(crate) async fn read_downlink<S: AsyncRead + Unpin>(
    client: &mut RawClient<S>,
    start: u64,
    length: u64,
) -> Result<()> {
    let at = read_downlink_to(client, start, start + length).await?;
    ensure!(at == start + length, "more bytes than the host has sent");
    Ok(())
}

/// Reads binary frames with the downlink's pattern until this end or, where a frame passes it,
/// beyond; says how far.
pub(crate) async fn read_downlink_to<S: AsyncRead + Unpin>(
    client: &mut RawClient<S>,
    start: u64,
    end: u64,
) -> Result<u64> {
    let mut at = start;
    while at < end {
        let frame = client.read_frame().await?;
        check_data(&frame, at)?;
        at += frame.payload.len() as u64;
    }
    Ok(at)
}

/// Checks a data frame of the server, whose first byte stands at `offset` of the pattern.
pub(crate) fn check_data(frame: &Frame, offset: u64) -> Result<()> {
    check_header(frame)?;
    ensure!(
        frame.opcode == Opcode::BINARY,
        "a frame of kind {:#x} instead of data",
        frame.opcode.0
    );
    ensure!(!frame.payload.is_empty(), "an empty data frame");
    ensure!(
        frame.payload.len() <= LONGEST_PAYLOAD,
        "a frame of {} bytes",
        frame.payload.len()
    );
    Ok(DOWNLINK.check(offset, &frame.payload)?)
}

/// Checks what all frames of the server have in common.
pub(crate) fn check_header(frame: &Frame) -> Result<()> {
    ensure!(frame.fin, "a fragment");
    ensure!(frame.rsv == 0, "reserved bits");
    ensure!(frame.mask.is_none(), "a masked frame of a server");
    Ok(())
}

pub(crate) fn expect_pong(frame: &Frame, payload: &[u8]) -> Result<()> {
    check_header(frame)?;
    ensure!(
        frame.opcode == Opcode::PONG && frame.payload == payload,
        "{frame:?} instead of a Pong with {payload:?}"
    );
    Ok(())
}

/// Reads exactly this part of the uplink's pattern.
pub(crate) async fn read_uplink(
    host: &mut (impl AsyncRead + Unpin),
    start: u64,
    length: u64,
) -> Result<()> {
    read_exactly(host, UPLINK, start, length).await
}

/// Reads exactly this part of a pattern.
pub(crate) async fn read_exactly(
    stream: &mut (impl AsyncRead + Unpin),
    pattern: Pattern,
    start: u64,
    length: u64,
) -> Result<()> {
    let mut buffer = vec![0; 256 * 1024];
    let mut at = start;
    while at < start + length {
        let most = usize::try_from(start + length - at)?.min(buffer.len());
        let read = within("bytes", stream.read(&mut buffer[..most])).await??;
        ensure!(
            read > 0,
            "the stream ended after {at} bytes of {}",
            start + length
        );
        pattern.check(at, &buffer[..read])?;
        at += read as u64;
    }
    Ok(())
}

/// Reads the uplink's pattern from `at` on until its end, which must come at `end`.
pub(crate) async fn expect_uplink_end(
    host: &mut (impl AsyncRead + Unpin),
    at: u64,
    end: u64,
) -> Result<()> {
    read_uplink(host, at, end - at).await?;
    expect_end(host).await
}

/// The stream must end here, and in order.
pub(crate) async fn expect_end(stream: &mut (impl AsyncRead + Unpin)) -> Result<()> {
    let (rest, end) = read_to_end(stream).await?;
    ensure!(rest.is_empty(), "{} bytes more than were sent", rest.len());
    ensure!(end == StreamEnd::Closed, "the end is {end:?}");
    Ok(())
}

/// Sends these bytes again and again until the connection is closed, and reads meanwhile what
/// [`expect_closing`] does: no RST must overtake it.
pub(crate) async fn expect_closing_while_sending<R, W>(
    reader: &mut RawClient<R>,
    writer: &mut RawClient<W>,
    bytes: &[u8],
    code: u16,
) -> Result<()>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let flood = async {
        while writer.send_raw(bytes).await.is_ok() {
            // The receiver must find its turn although this never waits.
            tokio::task::yield_now().await;
        }
    };
    let mut closing = std::pin::pin!(expect_closing(reader, code));
    tokio::select! {
        closed = &mut closing => closed,
        () = flood => closing.await,
    }
}

/// Reads the Close frame with this code, the end of TLS and the end of TCP.
pub(crate) async fn expect_closing<S: AsyncRead + Unpin>(
    client: &mut RawClient<S>,
    code: u16,
) -> Result<()> {
    let close = client.expect_close(code).await?;
    check_header(&close)?;
    let end = client.expect_end().await?;
    ensure!(
        end == StreamEnd::Closed,
        "the end after the Close is {end:?}"
    );
    Ok(())
}
