//! Host and client of a measured channel: they send what the mix says, and compare all that comes.

use std::future::Future;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, ensure};
use gateway_common::frame::{self, FIN_BINARY};
use tokio::io::{
    AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, ReadHalf, WriteHalf, split,
};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::mix::{Direction, Message};
use super::network::{Link, Network};
use crate::probe::round_trip::read_header;

/// Longest wait for what has been sent.
const LIMIT: Duration = Duration::from_secs(10);

/// Where hosts and clients run: on a thread of their own, as the gateway's do not wait for each
/// other there either.
pub(super) struct Peers {
    network: Network,
    runtime: Handle,
    /// The thread ends when this is dropped.
    _stop: oneshot::Sender<()>,
}

impl Peers {
    /// With Ethernet between them and the gateway where that can be had.
    pub(super) fn start() -> anyhow::Result<Self> {
        let network = Network::open();
        let namespace = network.of_peers()?;
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.context("cannot start a runtime")?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel();
        let (tell, entered) = mpsc::channel();
        thread::Builder::new()
            .name("peers".to_owned())
            .spawn(move || {
                let outcome = namespace.map_or(Ok(()), |namespace| namespace.enter());
                // Whoever starts it waits for this.
                let _ = tell.send(outcome);
                // That nobody says anything is what it waits for.
                let _ = runtime.block_on(stopped);
            })
            .context("cannot start a thread")?;
        entered.recv().context("the thread has ended")??;
        Ok(Self {
            network,
            runtime: handle,
            _stop: stop,
        })
    }

    /// What lies between them and the gateway.
    pub(super) fn link(&self) -> Link {
        self.network.link()
    }

    /// Where the gateway accepts them. Needs a tokio runtime.
    pub(super) fn listen(&self) -> anyhow::Result<TcpListener> {
        self.network.listen()
    }

    pub(super) fn spawn<T: Send + 'static>(
        &self,
        task: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        self.runtime.spawn(task)
    }
}

/// What a client reads and writes.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// What a client reads, some of it at a time.
type Reader = BufReader<ReadHalf<Box<dyn Stream>>>;

/// Both ends of a channel.
pub(super) struct Ends {
    client: (Reader, WriteHalf<Box<dyn Stream>>),
    host: (OwnedReadHalf, OwnedWriteHalf),
    uplink: Flow,
    downlink: Flow,
}

impl Ends {
    /// `number` tells the bytes of channels apart.
    pub(super) fn new(number: u64, client: Box<dyn Stream>, host: TcpStream) -> Self {
        let (reader, writer) = split(client);
        Self {
            client: (BufReader::with_capacity(frame::MAX_PAYLOAD, reader), writer),
            host: host.into_split(),
            uplink: Flow::new(2 * number),
            downlink: Flow::new(2 * number + 1),
        }
    }

    /// Sends the messages when they are due, and waits until all of them have arrived as they were
    /// sent.
    pub(super) async fn play(&mut self, messages: &[Message]) -> anyhow::Result<()> {
        let begin = Instant::now();
        let of = |direction| messages.iter().filter(move |it| it.direction == direction);
        let len = |direction| of(direction).map(|it| it.bytes as u64).sum::<u64>();
        let last = messages.last().map(|message| message.due);
        let limit = begin + last.unwrap_or_default() + LIMIT;
        let Self {
            client: (from_gateway, to_gateway),
            host: (from_client, to_client),
            uplink,
            downlink,
        } = self;
        let (sent_up, sent_down) = (*uplink, *downlink);
        let downlink_sent = async {
            let mut flow = sent_down;
            for message in of(Direction::Downlink) {
                sleep_until(begin + message.due).await;
                to_client.write_all(&flow.next(message.bytes)).await?;
            }
            anyhow::Ok(())
        };
        let uplink_sent = async {
            let mut flow = sent_up;
            for message in of(Direction::Uplink) {
                sleep_until(begin + message.due).await;
                to_gateway
                    .write_all(&masked(&flow.next(message.bytes)))
                    .await?;
                to_gateway.flush().await?;
            }
            anyhow::Ok(())
        };
        let downlink_read = read_frames(from_gateway, downlink, len(Direction::Downlink));
        let uplink_read = read_bytes(from_client, uplink, len(Direction::Uplink));
        let all =
            async { tokio::try_join!(downlink_sent, uplink_sent, downlink_read, uplink_read) };
        timeout_at(limit, all)
            .await
            .context("bytes did not arrive in time")??;
        Ok(())
    }
}

/// Reads so many bytes of payload, in binary frames.
async fn read_frames(
    reader: &mut (impl AsyncRead + Unpin),
    flow: &mut Flow,
    len: u64,
) -> anyhow::Result<()> {
    let mut left = len;
    while left > 0 {
        let payload = read_header(reader).await?;
        ensure!(
            payload <= left,
            "a frame of {payload} bytes, of which {left} were expected"
        );
        read_bytes(reader, flow, payload).await?;
        left -= payload;
    }
    Ok(())
}

/// Reads so many bytes, and compares them with what was sent.
async fn read_bytes(
    reader: &mut (impl AsyncRead + Unpin),
    flow: &mut Flow,
    len: u64,
) -> anyhow::Result<()> {
    let mut left = len;
    let mut buffer = vec![0; frame::MAX_PAYLOAD.min(usize::try_from(len)?)];
    while left > 0 {
        let most = buffer.len().min(usize::try_from(left)?);
        let read = reader.read(&mut buffer[..most]).await?;
        ensure!(read > 0, "the connection ended too early");
        let expected = flow.next(read);
        ensure!(
            buffer[..read] == expected,
            "other bytes arrived than were sent"
        );
        left -= read as u64;
    }
    Ok(())
}

/// A masked binary frame; its mask is zero.
fn masked(payload: &[u8]) -> Vec<u8> {
    let mut header = [0; frame::MAX_HEADER];
    let len = frame::write_header(&mut header, FIN_BINARY, payload.len());
    header[1] |= 0x80;
    [&header[..len], &[0; 4], payload].concat()
}

/// The bytes of one direction of a channel: no part of them is like another, nor like those of
/// other channels.
#[derive(Clone, Copy)]
struct Flow {
    number: u64,
    sent: u64,
}

impl Flow {
    fn new(number: u64) -> Self {
        Self { number, sent: 0 }
    }

    /// The next ones.
    fn next(&mut self, len: usize) -> Vec<u8> {
        let end = self.sent + len as u64;
        let skipped = usize::try_from(self.sent % 8).unwrap_or_default();
        let mut bytes = Vec::with_capacity(len + 16);
        for index in self.sent / 8..end.div_ceil(8) {
            bytes.extend_from_slice(&self.word(index).to_le_bytes());
        }
        bytes.drain(..skipped);
        bytes.truncate(len);
        self.sent = end;
        bytes
    }

    /// Neighbours have nothing in common (the first step of `SplitMix64`).
    fn word(self, index: u64) -> u64 {
        let mixed = (index ^ (self.number << 40)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed ^ (mixed >> 29)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flow_is_the_same_however_it_is_cut() {
        let whole = Flow::new(3).next(100);
        let mut flow = Flow::new(3);
        let parts = [1, 9, 0, 7, 83].map(|len| flow.next(len));
        assert_eq!(parts.concat(), whole);
        assert_ne!(Flow::new(4).next(100), whole);
        assert_ne!(whole[..50], whole[50..]);
    }

    async fn connection() -> (TcpStream, TcpStream) {
        crate::probe::round_trip::pair().await.unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn messages_that_do_not_arrive_are_given_up() {
        let (client, _client_leg) = connection().await;
        let (host, _host_leg) = connection().await;
        let message = Message {
            direction: Direction::Downlink,
            bytes: 100,
            due: Duration::ZERO,
        };
        let played = Ends::new(0, Box::new(client), host).play(&[message]).await;
        assert!(played.unwrap_err().to_string().contains("in time"));
    }

    #[tokio::test]
    async fn other_bytes_and_missing_ones_are_noticed() {
        let sent = Flow::new(1).next(1_000);
        let mut flow = Flow::new(1);
        read_bytes(&mut &sent[..], &mut flow, 1_000).await.unwrap();
        let mut wrong = sent.clone();
        wrong[700] ^= 1;
        let read = read_bytes(&mut &wrong[..], &mut Flow::new(1), 1_000).await;
        assert!(read.unwrap_err().to_string().contains("other bytes"));
        let read = read_bytes(&mut &sent[..999], &mut Flow::new(1), 1_000).await;
        assert!(read.unwrap_err().to_string().contains("too early"));
    }
}
