//! One short channel over loopback: bytes both ways, and an orderly end.

use std::future::Future;
use std::time::Duration;

use anyhow::{Context, ensure};
use gateway_common::frame::{self, FIN_BINARY};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::time::timeout;

use crate::{Carrier, Counters, Framing, Inbound, Limits};

/// Longest probe.
const LIMIT: Duration = Duration::from_secs(5);
/// Bytes of the downlink: more than any buffer for one message.
const DOWNLINK: usize = 300_000;
/// Bytes of the uplink without frames: several records, and a part of one.
const RAW_UPLINK: usize = 100_003;
/// A masked frame with the payload `probe`, its mask being zero.
const UPLINK: &[u8] = b"\x82\x85\0\0\0\0probe";
/// A masked Close frame with code 1000.
const CLOSE: &[u8] = b"\x88\x82\0\0\0\0\x03\xe8";

/// Runs a channel on the carrier that `carry` makes of a client leg and a host leg.
pub(super) async fn run(
    carry: impl FnOnce(TcpStream, TcpStream) -> anyhow::Result<Carrier>,
) -> anyhow::Result<()> {
    let carry = |client, client_leg, host_leg| Ok((client, carry(client_leg, host_leg)?));
    run_protected(carry, Framing::WebSocket, Duration::ZERO).await
}

/// Runs a channel or, without framing, a tunnel. `carry` makes what the client reads and writes,
/// and the carrier, of the two ends of the client's connection and the host leg. The client begins
/// to read after `late`.
pub(super) async fn run_protected<C: AsyncRead + AsyncWrite + Unpin>(
    carry: impl FnOnce(TcpStream, TcpStream, TcpStream) -> anyhow::Result<(C, Carrier)>,
    framing: Framing,
    late: Duration,
) -> anyhow::Result<()> {
    run_with_host(pair(), carry, framing, late).await
}

/// The same with a host on a Unix socket.
pub(super) async fn run_with_unix_host(
    carry: impl FnOnce(TcpStream, UnixStream) -> anyhow::Result<Carrier>,
) -> anyhow::Result<()> {
    let carry = |client, client_leg, host_leg| Ok((client, carry(client_leg, host_leg)?));
    let host = async { UnixStream::pair().context("no Unix sockets") };
    run_with_host(host, carry, Framing::WebSocket, Duration::ZERO).await
}

/// Runs a channel or a tunnel to a host of which `host` makes both ends.
async fn run_with_host<C, H, L>(
    host: impl Future<Output = anyhow::Result<(H, L)>>,
    carry: impl FnOnce(TcpStream, TcpStream, L) -> anyhow::Result<(C, Carrier)>,
    framing: Framing,
    late: Duration,
) -> anyhow::Result<()>
where
    C: AsyncRead + AsyncWrite + Unpin,
    H: AsyncRead + AsyncWrite + Unpin,
{
    let probe = async {
        let (client, client_leg) = pair().await?;
        let (host, host_leg) = host.await?;
        let (client, mut carrier) = carry(client, client_leg, host_leg)?;
        let limits = Limits {
            ping_interval: None,
            close_timeout: LIMIT,
        };
        let counters = Counters::default();
        let never = std::future::pending();
        let moved = carrier.run(Inbound::new(framing), limits, &counters, never);
        let peers = async {
            match framing {
                Framing::WebSocket => play(client, host, late).await,
                Framing::Raw => play_raw(client, host, late).await,
            }
        };
        tokio::join!(moved, peers).1
    };
    timeout(LIMIT, probe)
        .await
        .context("bytes did not arrive in time")?
}

/// Both ends of a connection over loopback.
pub(crate) async fn pair() -> anyhow::Result<(TcpStream, TcpStream)> {
    let connect = async {
        let listener = TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let (peer, leg) = tokio::join!(TcpStream::connect(address), listener.accept());
        std::io::Result::Ok((peer?, leg?.0))
    };
    connect.await.context("no connection over loopback")
}

async fn play(
    mut client: impl AsyncRead + AsyncWrite + Unpin,
    mut host: impl AsyncRead + AsyncWrite + Unpin,
    late: Duration,
) -> anyhow::Result<()> {
    let sent = pattern(DOWNLINK);
    let read = async {
        if !late.is_zero() {
            tokio::time::sleep(late).await;
        }
        read_frames(&mut client).await
    };
    let (written, received) = tokio::join!(host.write_all(&sent), read);
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

/// The same without frames, with more than a few bytes each way.
async fn play_raw(
    client: impl AsyncRead + AsyncWrite + Unpin,
    host: impl AsyncRead + AsyncWrite + Unpin,
    late: Duration,
) -> anyhow::Result<()> {
    let (down, up) = (pattern(DOWNLINK), pattern(RAW_UPLINK));
    let (mut from_gateway, mut to_gateway) = tokio::io::split(client);
    let (mut from_client, mut to_client) = tokio::io::split(host);
    let (mut received_down, mut received_up) = (vec![0; DOWNLINK], vec![0; RAW_UPLINK]);
    let read = async {
        tokio::time::sleep(late).await;
        from_gateway.read_exact(&mut received_down).await
    };
    let send_up = async {
        to_gateway.write_all(&up).await?;
        to_gateway.flush().await
    };
    tokio::try_join!(
        to_client.write_all(&down),
        send_up,
        from_client.read_exact(&mut received_up),
        read,
    )?;
    let is_exact = received_down == down && received_up == up;
    ensure!(is_exact, "other bytes arrived than were sent");
    to_gateway.shutdown().await?;
    from_client.read_to_end(&mut Vec::new()).await?;
    drop((from_client, to_client));
    from_gateway.read_to_end(&mut Vec::new()).await?;
    Ok(())
}

fn pattern(len: usize) -> Vec<u8> {
    (0..=250).cycle().take(len).collect()
}

/// Reads the header of a binary frame of the gateway, and returns the length of its payload in
/// bytes.
pub(crate) async fn read_header(client: &mut (impl AsyncRead + Unpin)) -> anyhow::Result<u64> {
    ensure!(client.read_u8().await? == FIN_BINARY, "no binary frame");
    let len = match client.read_u8().await? {
        126 => u64::from(client.read_u16().await?),
        127 => client.read_u64().await?,
        len => u64::from(len),
    };
    ensure!(len <= frame::MAX_PAYLOAD as u64, "a frame of {len} bytes");
    Ok(len)
}

/// Reads binary frames until the whole downlink has come.
async fn read_frames(client: &mut (impl AsyncRead + Unpin)) -> anyhow::Result<Vec<u8>> {
    let mut received = Vec::with_capacity(DOWNLINK);
    while received.len() < DOWNLINK {
        let len = read_header(client).await?;
        let part = client.take(len).read_to_end(&mut received).await?;
        ensure!(part as u64 == len, "the stream ended inside a frame");
    }
    Ok(received)
}
