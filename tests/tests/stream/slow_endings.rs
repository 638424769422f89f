//! Peers that read slowly while a channel ends: what they were sent before arrives, as long as
//! they take anything.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use socket2::SockRef;
use testkit::pattern::{DOWNLINK, UPLINK, write_pattern};
use testkit::prelude::*;
use testkit::ws::{Frame, Opcode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::channel::{open, target};
use crate::patterns::check_data;
use crate::setup::Setup;

on_every_path! {
    a_slow_client_gets_what_its_host_sent_before_its_end
    a_slow_host_gets_what_its_client_sent_before_its_end
}
on_path_as_root! { sockmap_unix_host, SOCKMAP_UNIX_HOST,
    a_slow_client_gets_what_its_host_sent_before_its_end
}

/// `CloseTimeout` in seconds.
const LIMIT: u64 = 3;
/// Receive buffer of the slow peer, in bytes: what it has not read is seen not to have arrived.
const BUFFER: u32 = 32_768;
/// How much it reads at a time, and how often: what waits in the gateway's socket alone takes
/// it longer than [`LIMIT`].
const PIECE: usize = 8_192;
const PAUSE: Duration = Duration::from_millis(200);
/// What it is sent, in bytes: it needs several times [`LIMIT`] for that.
const LENGTH: usize = 500_000;

async fn a_slow_client_gets_what_its_host_sent_before_its_end(setup: Setup) -> Result<()> {
    let stage = setup.start_with(|gateway| gateway.set("CloseTimeout", LIMIT));
    let stage = stage.await?;
    let endpoint = stage.endpoint.clone().receive_buffer(BUFFER);
    let mut channel = open(&endpoint, &stage.host, &target(&stage.host)).await?;
    write_pattern(&mut channel.host, DOWNLINK, 0, LENGTH as u64).await?;
    channel.host.shutdown().await?;
    // As Spice clients do: they acknowledge what they read.
    let acknowledgement = Frame::binary(UPLINK.bytes(0, 1)).encode();
    let mut received = Vec::new();
    let mut piece = vec![0; PIECE];
    let mut at = 0;
    let close = loop {
        if let Some((frame, len)) = Frame::decode(&received)? {
            received.drain(..len);
            if frame.opcode == Opcode::CLOSE {
                break frame;
            }
            check_data(&frame, at)?;
            at += frame.payload.len() as u64;
            continue;
        }
        tokio::time::sleep(PAUSE).await;
        let read = within("bytes", channel.client.connection_mut().read(&mut piece));
        let read = read.await?.with_context(|| format!("after {at} bytes"))?;
        ensure!(read > 0, "the stream ended after {at} bytes");
        received.extend_from_slice(&piece[..read]);
        // Behind the Close nobody reads them.
        let _ = channel.client.send_raw(&acknowledgement).await;
    };
    ensure!(at == LENGTH as u64, "{at} bytes arrived");
    ensure!(close.close_code() == Some(1000), "{close:?}");
    drop(channel);
    stage.expect_no_channel().await
}

/// Reads to the end of the uplink, and writes all the time, as a desktop does.
async fn read_slowly(host: &mut TcpStream) -> Result<usize> {
    let mut piece = vec![0; PIECE];
    let mut at = 0;
    loop {
        tokio::time::sleep(PAUSE).await;
        let read = within("bytes", host.read(&mut piece)).await?;
        let read = read.with_context(|| format!("after {at} bytes"))?;
        if read == 0 {
            return Ok(at);
        }
        UPLINK.check(at as u64, &piece[..read])?;
        at += read;
        host.write_all(&[0]).await?;
    }
}

async fn a_slow_host_gets_what_its_client_sent_before_its_end(setup: Setup) -> Result<()> {
    let stage = setup.start_with(|gateway| gateway.set("CloseTimeout", LIMIT));
    let stage = stage.await?;
    let mut channel = stage.open().await?;
    SockRef::from(&channel.host).set_recv_buffer_size(BUFFER as usize)?;
    let frame = channel.next_frame(LENGTH);
    let send = async {
        channel.client.send_frame(&frame).await?;
        channel.client.send_frame(&Frame::close(1000)).await?;
        // The answer may come behind what the host writes meanwhile.
        while channel.client.read_frame().await?.opcode != Opcode::CLOSE {}
        anyhow::Ok(())
    };
    let ((), read) = tokio::try_join!(send, read_slowly(&mut channel.host))?;
    ensure!(read == LENGTH, "{read} bytes arrived");
    drop(channel);
    stage.expect_no_channel().await
}
