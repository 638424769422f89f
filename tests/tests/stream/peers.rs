//! A client and a host that send, pause and end as a plan tells them.

use anyhow::{Context, Result, bail, ensure};
use testkit::net::within;
use testkit::pattern::{DOWNLINK, UPLINK};
use testkit::ws::{Frame, Opcode, RawClient};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;

use crate::patterns::{check_data, check_header};
use crate::plan::{ClientEnd, HostEnd, Plan};
use crate::verdict::{ClientSaw, Round};
use testkit::rng::Rng;

/// How far a peer's receiver has come; its sender may wait for that.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    bytes: u64,
    ended: bool,
}

impl Seen {
    /// Waits until all of `total` bytes or an end has come.
    async fn all(mut seen: watch::Receiver<Self>, total: u64) -> Result<()> {
        let all = seen.wait_for(|seen| seen.bytes == total || seen.ended);
        within("all bytes", all).await??;
        Ok(())
    }

    /// Waits until an end has come.
    async fn end(mut seen: watch::Receiver<Self>) -> Result<()> {
        within("the other's end", seen.wait_for(|seen| seen.ended)).await??;
        Ok(())
    }
}

/// Plays both peers to their end.
pub(crate) async fn run<C, H>(plan: &Plan, client: RawClient<C>, host: H) -> Round
where
    C: AsyncRead + AsyncWrite + Unpin,
    H: AsyncRead + AsyncWrite + Unpin,
{
    let (client, host) = tokio::join!(run_client(plan, client), run_host(plan, host));
    Round { client, host }
}

async fn run_client<C>(plan: &Plan, client: RawClient<C>) -> Result<Option<ClientSaw>>
where
    C: AsyncRead + AsyncWrite + Unpin,
{
    let (mut reader, mut writer) = client.split();
    let (progress, seen) = watch::channel(Seen::default());
    let read = client_reads(plan, &mut reader, progress);
    let write = client_writes(plan, &mut writer, seen);
    let (mut read, mut write) = (std::pin::pin!(read), std::pin::pin!(write));
    let saw = tokio::select! {
        saw = &mut read => {
            write.await.context("the client's sender")?;
            saw
        }
        written = &mut write => {
            written.context("the client's sender")?;
            if plan.client_vanishes() {
                return Ok(None);
            }
            read.await
        }
    };
    Ok(Some(saw.context("the client's receiver")?))
}

async fn client_reads<S: AsyncRead + Unpin>(
    plan: &Plan,
    client: &mut RawClient<S>,
    progress: watch::Sender<Seen>,
) -> Result<ClientSaw> {
    let mut rng = Rng::new(plan.seed);
    let mut saw = ClientSaw::default();
    let mut last_pong = None;
    loop {
        plan.pause(&mut rng).await;
        let frame = client.read_frame().await?;
        check_header(&frame)?;
        match frame.opcode {
            Opcode::PONG => {
                let number = frame.payload.first_chunk().copied().map(u64::from_le_bytes);
                ensure!(number > last_pong, "Pong {number:?} after {last_pong:?}");
                last_pong = number;
            }
            Opcode::PING => ensure!(frame.payload.is_empty(), "a Ping with payload"),
            Opcode::CLOSE => {
                saw.close = Some(frame);
                break;
            }
            _ => {
                check_data(&frame, saw.down)?;
                saw.down += frame.payload.len() as u64;
                progress.send_modify(|seen| seen.bytes = saw.down);
            }
        }
    }
    progress.send_modify(|seen| seen.ended = true);
    saw.end = Some(client.expect_end().await?);
    Ok(saw)
}

async fn client_writes<S: AsyncWrite + Unpin>(
    plan: &Plan,
    client: &mut RawClient<S>,
    seen: watch::Receiver<Seen>,
) -> Result<()> {
    let mut rng = Rng::new(plan.seed ^ 1);
    let bytes = client_bytes(plan, &mut rng);
    let longest = rng.pick(&[7, 300, 20_000, 200_000]).max(bytes.len() / 500);
    let stop = if plan.client_vanishes() {
        rng.below(bytes.len() + 1)
    } else {
        bytes.len()
    };
    let mut rest = &bytes[..stop];
    while !rest.is_empty() {
        let (piece, behind) = rest.split_at(rest.len().min(1 + rng.below(longest)));
        client.send_raw(piece).await?;
        rest = behind;
        plan.pause(&mut rng).await;
    }
    match plan.client_end {
        ClientEnd::Vanish => return Ok(()),
        ClientEnd::Fin => return client.shutdown().await,
        ClientEnd::FinAfterAll => {
            Seen::all(seen, plan.down_total()).await?;
            return client.shutdown().await;
        }
        ClientEnd::Close(code) => {
            let payload = code.map(u16::to_be_bytes);
            let payload = payload.iter().flatten().copied().collect::<Vec<_>>();
            client
                .send_frame(&Frame::new(Opcode::CLOSE, payload))
                .await?;
        }
        ClientEnd::Violate => {
            let mut frame = Frame::binary("no mask");
            frame.mask = None;
            client.send_frame(&frame).await?;
        }
        ClientEnd::AfterHost => {}
    }
    Seen::end(seen).await?;
    if plan.client_end == ClientEnd::AfterHost {
        client.send_frame(&Frame::close(1000)).await?;
    }
    client.shutdown().await
}

/// The client's frames: data in fragments or not, with controls at any place.
fn client_bytes(plan: &Plan, rng: &mut Rng) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut at = 0;
    let mut pings = 0_u64;
    let mut inside_message = false;
    let mut data = plan.up.iter().peekable();
    while let Some(size) = data.next() {
        let mut frame = Frame::binary(UPLINK.bytes(at, *size));
        at += *size as u64;
        frame.fin = rng.once_in(2) || data.peek().is_none();
        if inside_message {
            frame.opcode = Opcode::CONTINUATION;
        }
        inside_message = !frame.fin;
        let key = rng.next().to_le_bytes();
        frame.mask = key.first_chunk().copied();
        bytes.extend(frame.encode());
        while rng.once_in(4) {
            let control = if rng.once_in(2) {
                Frame::new(Opcode::PONG, vec![b'p'; rng.pick(&[0, 1, 5, 125])])
            } else {
                pings += 1;
                let mut payload = pings.to_le_bytes().to_vec();
                payload.resize(rng.pick(&[8, 9, 125]), b'p');
                Frame::new(Opcode::PING, payload)
            };
            bytes.extend(control.encode());
        }
    }
    bytes
}

async fn run_host<H>(plan: &Plan, host: H) -> Result<Option<u64>>
where
    H: AsyncRead + AsyncWrite + Unpin,
{
    let (mut reader, mut writer) = tokio::io::split(host);
    let (progress, seen) = watch::channel(Seen::default());
    let read = host_reads(plan, &mut reader, progress);
    let write = host_writes(plan, &mut writer, seen);
    let (mut read, mut write) = (std::pin::pin!(read), std::pin::pin!(write));
    let up = tokio::select! {
        up = &mut read => {
            write.await.context("the host's sender")?;
            up
        }
        written = &mut write => {
            written.context("the host's sender")?;
            if plan.host_vanishes() {
                return Ok(None);
            }
            read.await
        }
    };
    Ok(Some(up.context("the host's receiver")?))
}

async fn host_reads(
    plan: &Plan,
    host: &mut (impl AsyncRead + Unpin),
    progress: watch::Sender<Seen>,
) -> Result<u64> {
    let mut rng = Rng::new(plan.seed ^ 2);
    let mut buffer = vec![0; rng.pick(&[100, 5_000, 100_000])];
    let mut at = 0;
    loop {
        plan.pause(&mut rng).await;
        let length = within("uplink", host.read(&mut buffer)).await??;
        if length == 0 {
            progress.send_modify(|seen| seen.ended = true);
            return Ok(at);
        }
        UPLINK.check(at, &buffer[..length])?;
        at += length as u64;
        progress.send_modify(|seen| seen.bytes = at);
    }
}

async fn host_writes(
    plan: &Plan,
    host: &mut (impl AsyncWrite + Unpin),
    seen: watch::Receiver<Seen>,
) -> Result<()> {
    let mut rng = Rng::new(plan.seed ^ 3);
    let stop = if plan.host_vanishes() {
        rng.below(plan.down.len() + 1)
    } else {
        plan.down.len()
    };
    let mut at = 0;
    for size in &plan.down[..stop] {
        let piece = DOWNLINK.bytes(at, *size);
        match within("downlink", host.write_all(&piece)).await? {
            Ok(()) => at += *size as u64,
            // The gateway is done with a client that has closed or vanished.
            Err(_) if !plan.client_ends() => break,
            Err(error) => bail!("writing after {at} bytes: {error}"),
        }
        plan.pause(&mut rng).await;
    }
    match plan.host_end {
        HostEnd::Vanish => return Ok(()),
        HostEnd::AfterClient => Seen::end(seen).await?,
        HostEnd::FinAfterAll => Seen::all(seen, plan.up_total()).await?,
        HostEnd::Fin => {}
    }
    // Whoever vanished needs no end.
    let _ = within("end of the host", host.shutdown()).await?;
    Ok(())
}
