//! A client and a host that send, pause and end at random, and what each of them must have seen
//! in the end.

use anyhow::{Context, Result, bail, ensure};
use testkit::net::{StreamEnd, within};
use testkit::pattern::{DOWNLINK, Mismatch, UPLINK};
use testkit::ws::{Frame, Opcode, RawClient};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;

use crate::rng::Rng;
use crate::setup::{check_data, check_header};

/// How a client ends, after all that it sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ClientEnd {
    /// Close frame with a code or without; then it waits for the answer.
    Close(Option<u16>),
    /// End of stream without Close frame; then it reads to the other end.
    Fin,
    /// The same, but only when all that the host sends has come.
    FinAfterAll,
    /// It waits for the other side's Close, and answers it.
    AfterHost,
    /// An unmasked frame; then it reads to the end.
    Violate,
    /// Its connection breaks.
    Vanish,
}

/// How a host ends, after all that it sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HostEnd {
    /// End of stream; it reads on to the other end.
    Fin,
    /// The same, but only when all that the client sends has come.
    FinAfterAll,
    /// The same, but only after the other side's end.
    AfterClient,
    /// Its connection breaks.
    Vanish,
}

/// What both peers of one channel do.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Sizes of the client's data frames, in bytes of payload.
    up: Vec<usize>,
    client_end: ClientEnd,
    /// Sizes of the host's writes, in bytes.
    down: Vec<usize>,
    host_end: HostEnd,
    /// Makes all further choices.
    seed: u64,
    /// Longest pause of a peer in milliseconds; 0: they only yield.
    pub(crate) pause: u64,
}

impl Plan {
    /// A plan with about `volume` bytes in each direction at most.
    pub(crate) fn new(rng: &mut Rng, volume: usize) -> Self {
        let sizes = |rng: &mut Rng| {
            let mut left = rng.below(volume + 1);
            let mut sizes = Vec::new();
            for _ in 0..rng.below(24) {
                let limit = rng.pick(&[2, 130, 5_000, 70_000, 150_000]);
                // The last ones may be short of bytes, and empty ones are wanted too.
                let size = rng.below(limit.min(volume / 4 + 2)).min(left);
                left -= size;
                sizes.push(size);
            }
            sizes
        };
        let (up, down) = (sizes(rng), sizes(rng));
        let client_end = rng.pick(&[
            ClientEnd::Close(Some(1000)),
            ClientEnd::Close(Some(1001)),
            ClientEnd::Close(None),
            ClientEnd::Fin,
            ClientEnd::FinAfterAll,
            ClientEnd::AfterHost,
            ClientEnd::AfterHost,
            ClientEnd::Violate,
            ClientEnd::Vanish,
        ]);
        let host_end = match rng.below(6) {
            0 => HostEnd::Vanish,
            // One of both has to end by itself.
            1 | 2 if client_end != ClientEnd::AfterHost => HostEnd::AfterClient,
            3 => HostEnd::Fin,
            _ => HostEnd::FinAfterAll,
        };
        Self {
            up,
            client_end,
            down,
            host_end,
            seed: rng.next(),
            pause: 0,
        }
    }

    pub(crate) fn client_vanishes(&self) -> bool {
        self.client_end == ClientEnd::Vanish
    }

    pub(crate) fn host_vanishes(&self) -> bool {
        self.host_end == HostEnd::Vanish
    }

    /// The client's Close is the first sign of an end that it gives, and has this code.
    pub(crate) fn client_closes_with(&self, code: Option<u16>) -> bool {
        self.client_end == ClientEnd::Close(code)
    }

    /// The client ends its stream by itself, without a Close.
    pub(crate) fn client_ends(&self) -> bool {
        matches!(self.client_end, ClientEnd::Fin | ClientEnd::FinAfterAll)
    }

    pub(crate) fn client_violates(&self) -> bool {
        self.client_end == ClientEnd::Violate
    }

    /// The host ends its stream by itself.
    pub(crate) fn host_ends(&self) -> bool {
        matches!(self.host_end, HostEnd::Fin | HostEnd::FinAfterAll)
    }

    fn up_total(&self) -> u64 {
        self.up.iter().sum::<usize>() as u64
    }

    fn down_total(&self) -> u64 {
        self.down.iter().sum::<usize>() as u64
    }

    /// A pause now and then.
    async fn pause(&self, rng: &mut Rng) {
        if !rng.once_in(4) {
            return;
        }
        for _ in 0..rng.below(4) {
            tokio::task::yield_now().await;
        }
        if self.pause > 0 && rng.once_in(8) {
            let pause = rng.next() % self.pause;
            tokio::time::sleep(std::time::Duration::from_millis(pause)).await;
        }
    }
}

/// What the client saw, unless it vanished.
#[derive(Debug, Default)]
pub(crate) struct ClientSaw {
    down: u64,
    /// The Close frame, if one came.
    close: Option<Frame>,
    end: Option<StreamEnd>,
}

/// What happens to a channel that its peers have not planned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Disturbance {
    /// Nothing.
    None,
    /// The gateway may end it with Close 1001.
    GatewayEnds,
    /// The connection to the client breaks.
    ClientBreaks,
    /// The connection to the host breaks.
    HostBreaks,
}

/// What both peers saw; `None` for one that vanished.
#[derive(Debug)]
pub(crate) struct Round {
    client: Result<Option<ClientSaw>>,
    /// How much came before the end.
    host: Result<Option<u64>>,
}

impl Round {
    /// Checks that whoever could see the other's end has seen all that came before.
    pub(crate) fn check(self, plan: &Plan, disturbance: Disturbance) -> Result<()> {
        match self.client {
            Err(error) if disturbance == Disturbance::ClientBreaks => tolerate(error)?,
            Ok(_) if disturbance == Disturbance::ClientBreaks => {}
            client => {
                if let Some(saw) = client.context("client")? {
                    let checked = saw.check(plan, disturbance);
                    checked.with_context(|| format!("{saw:?}"))?;
                }
            }
        }
        match self.host {
            Err(error) if disturbance == Disturbance::HostBreaks => tolerate(error)?,
            Ok(_) if disturbance == Disturbance::HostBreaks => {}
            host => {
                if let Some(up) = host.context("host")? {
                    let total = plan.up_total();
                    let may_miss =
                        plan.client_vanishes() || disturbance == Disturbance::ClientBreaks;
                    ensure!(
                        up == total || may_miss && up < total,
                        "the host received {up} of {total} bytes"
                    );
                }
            }
        }
        Ok(())
    }
}

/// A peer whose connection broke may fail in any way but one: bytes must be right.
fn tolerate(error: anyhow::Error) -> Result<()> {
    let is_wrong = error.chain().any(<dyn std::error::Error>::is::<Mismatch>);
    if is_wrong { Err(error) } else { Ok(()) }
}

impl ClientSaw {
    fn check(&self, plan: &Plan, disturbance: Disturbance) -> Result<()> {
        let code = self.close.as_ref().context("no Close")?.close_code();
        ensure!(self.end == Some(StreamEnd::Closed), "no orderly end");
        if disturbance == Disturbance::GatewayEnds && code == Some(1001) {
            return Ok(());
        }
        let host_breaks =
            plan.host_end == HostEnd::Vanish || disturbance == Disturbance::HostBreaks;
        // The host's end may be faster than the client's.
        let of_host = match plan.host_end {
            // A broken connection may look like an ended one.
            _ if host_breaks => matches!(code, Some(1000 | 1011)),
            HostEnd::Fin | HostEnd::FinAfterAll => code == Some(1000),
            HostEnd::AfterClient | HostEnd::Vanish => false,
        };
        let of_client = match plan.client_end {
            ClientEnd::Close(own) => code == own,
            ClientEnd::Violate => code == Some(1002),
            // The host ends when the client did.
            ClientEnd::Fin | ClientEnd::FinAfterAll => {
                plan.host_end == HostEnd::AfterClient && code == Some(1000)
            }
            ClientEnd::AfterHost | ClientEnd::Vanish => false,
        };
        ensure!(of_host || of_client, "an unexpected code");
        let hears_all = plan.client_ends() || plan.client_end == ClientEnd::AfterHost;
        ensure!(
            self.down == plan.down_total() || host_breaks || !hears_all,
            "only a part of the host's {} bytes",
            plan.down_total()
        );
        Ok(())
    }
}

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
