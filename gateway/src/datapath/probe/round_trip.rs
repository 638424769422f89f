//! One short channel over loopback: bytes both ways, and an orderly end.

use std::time::Duration;

use anyhow::{Context, ensure};
use gateway_common::frame::{self, FIN_BINARY};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::datapath::{Carrier, Counters, Inbound, Limits};

/// Longest probe.
const LIMIT: Duration = Duration::from_secs(5);
/// Bytes of the downlink: more than any buffer for one message.
const DOWNLINK: usize = 300_000;
/// A masked frame with the payload `probe`, its mask being zero.
const UPLINK: &[u8] = b"\x82\x85\0\0\0\0probe";
/// A masked Close frame with code 1000.
const CLOSE: &[u8] = b"\x88\x82\0\0\0\0\x03\xe8";

/// Runs a channel on the carrier that `carry` makes of a client leg and a host leg.
pub(super) async fn run(
    carry: impl FnOnce(TcpStream, TcpStream) -> anyhow::Result<Carrier>,
) -> anyhow::Result<()> {
    let probe = async {
        let (client, client_leg) = pair().await.context("no connection over loopback")?;
        let (host, host_leg) = pair().await.context("no connection over loopback")?;
        let mut carrier = carry(client_leg, host_leg)?;
        let limits = Limits {
            ping_interval: None,
            close_timeout: LIMIT,
        };
        let counters = Counters::default();
        let never = std::future::pending();
        let moved = carrier.run(Inbound::default(), limits, &counters, never);
        let (_, peers) = tokio::join!(moved, play(client, host));
        peers
    };
    timeout(LIMIT, probe)
        .await
        .context("bytes did not arrive in time")?
}

async fn pair() -> std::io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).await?;
    let (peer, leg) = tokio::join!(
        TcpStream::connect(listener.local_addr()?),
        listener.accept()
    );
    Ok((peer?, leg?.0))
}

async fn play(mut client: TcpStream, mut host: TcpStream) -> anyhow::Result<()> {
    let sent: Vec<u8> = (0..=250).cycle().take(DOWNLINK).collect();
    let (written, received) = tokio::join!(host.write_all(&sent), read_frames(&mut client));
    written.context("the host could not send")?;
    ensure!(received? == sent, "other bytes arrived than were sent");
    client.write_all(UPLINK).await?;
    let mut uplink = [0; 5];
    host.read_exact(&mut uplink).await?;
    ensure!(&uplink == b"probe", "another uplink arrived than was sent");
    client.write_all(CLOSE).await?;
    host.read_to_end(&mut Vec::new()).await?;
    drop(host);
    client.read_to_end(&mut Vec::new()).await?;
    Ok(())
}

/// Reads binary frames until the whole downlink has come.
async fn read_frames(client: &mut TcpStream) -> anyhow::Result<Vec<u8>> {
    let mut received = Vec::with_capacity(DOWNLINK);
    while received.len() < DOWNLINK {
        ensure!(client.read_u8().await? == FIN_BINARY, "no binary frame");
        let len = match client.read_u8().await? {
            126 => u64::from(client.read_u16().await?),
            127 => client.read_u64().await?,
            len => u64::from(len),
        };
        ensure!(len <= frame::MAX_PAYLOAD as u64, "a frame of {len} bytes");
        let part = client.take(len).read_to_end(&mut received).await?;
        ensure!(part as u64 == len, "the stream ended inside a frame");
    }
    Ok(received)
}
