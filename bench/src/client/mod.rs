//! The clients: channels through a peer, and the jobs that they have the bench host do.

mod frame;
mod tls;

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use testkit::net::Connection;
use testkit::replay::Direction;
use testkit::spice::{ChannelType, link_message};
use testkit::tunnel;
use testkit::ws::handshake_request;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::block::{self, DOWNLINK, UPLINK};
use super::excerpt::{End, Excerpt};
use super::job::Job;
use frame::Decoder;
use tls::is_resumed;
pub(crate) use tls::{PARAMETERS, Tls, Version};

/// How much is read at once, in bytes.
const READ: usize = 65_536;
/// The longest head of an answer that is taken, in bytes.
const LONGEST_HEAD: usize = 4_096;

/// Where a peer listens, and what it wants to be spoken.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// Its address.
    pub(crate) addr: SocketAddr,
    /// TLS of this version first.
    pub(crate) tls: Option<Version>,
    /// What opens a channel before its link message.
    pub(crate) opening: Option<Opening>,
}

/// A request that opens a channel.
#[derive(Clone, Debug)]
pub(crate) struct Opening {
    request: Arc<str>,
    /// How the answer begins.
    answer: &'static str,
    /// Frames follow it.
    is_framed: bool,
}

impl Opening {
    /// A WebSocket with this token.
    pub(crate) fn web_socket(token: u16) -> Self {
        let target = format!("/?ver=2&token={token}");
        let protocol = "Sec-WebSocket-Protocol: binary\r\n";
        let request = handshake_request(&target, "localhost", protocol);
        Self {
            request: request.into(),
            answer: "HTTP/1.1 101",
            is_framed: true,
        }
    }

    /// A tunnel with this ticket.
    pub(crate) fn tunnel(ticket: &str) -> Self {
        Self {
            request: tunnel::request(ticket).into(),
            answer: "HTTP/1.0 200",
            is_framed: false,
        }
    }
}

/// An open channel.
pub(crate) struct Channel {
    stream: Connection,
    /// Present on a WebSocket.
    decoder: Option<Decoder>,
    input: Vec<u8>,
    output: Vec<u8>,
}

impl Channel {
    /// Opens a channel: TCP, TLS, upgrade, link message.
    pub(crate) async fn open(target: &Target, tls: &Tls, kind: ChannelType) -> Result<Self> {
        let tcp = TcpStream::connect(target.addr)
            .await
            .with_context(|| format!("connecting to {}", target.addr))?;
        let mut channel = Self::connect(tcp, target, tls).await?;
        channel.link(kind).await?;
        Ok(channel)
    }

    /// TLS and upgrade over a connection to the target's address; the link message is left to
    /// the caller.
    pub(crate) async fn connect(tcp: TcpStream, target: &Target, tls: &Tls) -> Result<Self> {
        tcp.set_nodelay(true)?;
        let mut stream = match target.tls {
            Some(version) => Connection::Tls(Box::new(tls.handshake(tcp, version).await?)),
            None => Connection::Plain(tcp),
        };
        if let Some(opening) = &target.opening {
            open(&mut stream, opening).await?;
        }
        let is_framed = target
            .opening
            .as_ref()
            .is_some_and(|opening| opening.is_framed);
        Ok(Self {
            stream,
            decoder: is_framed.then(Decoder::default),
            input: vec![0; READ],
            output: Vec::new(),
        })
    }

    /// Sends the link message.
    pub(crate) async fn link(&mut self, kind: ChannelType) -> Result<()> {
        self.send(&link_message(kind, 0)).await
    }

    /// Whether its TLS session was resumed.
    pub(crate) fn is_resumed(&self) -> bool {
        matches!(&self.stream, Connection::Tls(stream) if is_resumed(stream))
    }

    /// Has the host send `total` bytes in writes of `write` bytes, and verifies them.
    pub(crate) async fn downlink(&mut self, write: u32, total: u64) -> Result<()> {
        self.begin_downlink(write, total).await?;
        let mut received = 0;
        while received < total {
            let check = |bytes: &[u8]| {
                DOWNLINK.check(received, bytes)?;
                received += bytes.len() as u64;
                Ok(())
            };
            self.receive(check).await?;
        }
        ensure!(
            received == total,
            "{received} bytes came, {total} were sent"
        );
        Ok(())
    }

    /// Has the host send `total` bytes in writes of `write` bytes, without reading them.
    pub(crate) async fn begin_downlink(&mut self, write: u32, total: u64) -> Result<()> {
        self.ask(Job::Downlink { write, total }).await
    }

    /// Sends `total` bytes in messages of `message` bytes, and waits until the host verified
    /// them.
    pub(crate) async fn uplink(&mut self, message: usize, total: u64) -> Result<()> {
        self.ask(Job::Uplink { total }).await?;
        let mut sent = 0;
        while sent < total {
            let length = usize::try_from(total - sent).map_or(message, |rest| rest.min(message));
            self.send(UPLINK.piece(sent, length)).await?;
            sent += length as u64;
        }
        let answer = self.receive(|_| Ok(())).await?;
        ensure!(answer == 1, "{answer} bytes came instead of one");
        Ok(())
    }

    /// Announces `count` messages of `size` bytes that the host sends back; each is sent with
    /// [`Channel::echo`].
    pub(crate) async fn begin_echo(&mut self, size: usize, count: u64) -> Result<()> {
        let total = size as u64 * count;
        self.ask(Job::Echo { total }).await
    }

    /// Sends message number `index` and waits until it came back.
    pub(crate) async fn echo(&mut self, size: usize, index: u64) -> Result<()> {
        let begin = size as u64 * index;
        self.send(UPLINK.piece(begin, size)).await?;
        let mut received = 0;
        while received < size {
            let check = |bytes: &[u8]| {
                UPLINK.check(begin + received as u64, bytes)?;
                received += bytes.len();
                Ok(())
            };
            self.receive(check).await?;
        }
        Ok(())
    }

    /// Has the host show messages of this size until the channel ends; `key` is what the host
    /// counts them under.
    pub(crate) async fn begin_show(&mut self, message: u32, key: u64) -> Result<()> {
        self.ask(Job::Show { message, key }).await
    }

    /// Plays the client's side of a channel of the excerpt.
    pub(crate) async fn replay(
        &mut self,
        excerpt: &Excerpt,
        channel: ChannelType,
        from: std::time::Duration,
    ) -> Result<()> {
        self.ask(Job::Replay { channel, from }).await?;
        excerpt.play(self, Direction::Uplink, channel, from).await
    }

    /// Ends the channel at once, by RST.
    pub(crate) fn reset(self) -> Result<()> {
        self.stream.reset().context("ending a channel")
    }

    /// Ends the channel as the flexVDI client does: without a Close frame.
    pub(crate) async fn close(mut self) -> Result<()> {
        self.stream.shutdown().await.context("ending a channel")
    }

    async fn ask(&mut self, job: Job) -> Result<()> {
        self.send(&job.encode()).await
    }
}

impl End for Channel {
    async fn send(&mut self, bytes: &[u8]) -> Result<()> {
        debug_assert!(bytes.len() <= block::LONGEST);
        let message = if self.decoder.is_some() {
            frame::encode(bytes, &mut self.output);
            &self.output
        } else {
            bytes
        };
        self.stream.write_all(message).await.context("sending")?;
        self.stream.flush().await.context("sending")
    }

    async fn receive(&mut self, mut consume: impl FnMut(&[u8]) -> Result<()>) -> Result<usize> {
        loop {
            let read = self.stream.read(&mut self.input).await;
            let length = read.context("receiving")?;
            ensure!(length > 0, "the channel was ended by the peer or the host");
            let mut bytes = &self.input[..length];
            let Some(decoder) = &mut self.decoder else {
                consume(bytes)?;
                return Ok(length);
            };
            let mut received = 0;
            while let Some(payload) = decoder.next(&mut bytes)? {
                consume(payload)?;
                received += payload.len();
            }
            if received > 0 {
                return Ok(received);
            }
        }
    }
}

/// Sends the request and takes the answer; nothing follows it before the client sends more.
async fn open(stream: &mut Connection, opening: &Opening) -> Result<()> {
    stream.write_all(opening.request.as_bytes()).await?;
    stream.flush().await?;
    let mut head = Vec::with_capacity(LONGEST_HEAD);
    while !head.ends_with(b"\r\n\r\n") {
        ensure!(head.len() < LONGEST_HEAD, "the answer has no end");
        let length = stream.read_buf(&mut head).await.context("the answer")?;
        ensure!(
            length > 0,
            "the peer ended the connection before its answer"
        );
    }
    let status = String::from_utf8_lossy(&head[..head.len().min(12)]).into_owned();
    ensure!(status == opening.answer, "the answer is {status:?}");
    Ok(())
}
