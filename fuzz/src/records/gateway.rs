//! The gateway's side.

use std::future::poll_fn;
use std::io;
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use ::gateway_datapath::ClientLeg;
use ::gateway_datapath::tls::{Role, TlsStream, accept};
use rustls::{ClientConfig, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::script::{Script, Step};
use super::{End, Outcome};
use crate::input::pieces;
use crate::tls_peer::{Handshake, Opened, Peer};

/// What is cut into small pieces at each end of something long.
const FINE: usize = 64;
/// Most bytes that are cut in pieces throughout.
const SHORT: usize = 600;

/// Most bytes of records that come with the handshake: a socket's buffer takes them all.
const EARLY: usize = 60_000;

/// How a script is played.
pub(super) struct Manner {
    /// Says where to cut.
    pub(super) seed: u8,
    /// The first records come together with the last message of the handshake.
    pub(super) is_early: bool,
    /// Answers are protected where they lie, as frames are.
    pub(super) protects_frames: bool,
}

impl Manner {
    pub(super) fn play(
        &self,
        server: &Arc<ServerConfig>,
        client: &ClientConfig,
        script: &Script,
    ) -> Outcome {
        thread_local! {
            static RUNTIME: tokio::runtime::Runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
        }
        RUNTIME.with(|runtime| runtime.block_on(self.play_on(server, client, script)))
    }

    async fn play_on(
        &self,
        server: &Arc<ServerConfig>,
        client: &ClientConfig,
        script: &Script,
    ) -> Outcome {
        let steps = &script.0;
        let mut bytes = 0;
        let early = steps.iter().take_while(|step| {
            if let Step::Record(_, text, odd) = step {
                bytes += text.len() + odd.padding;
            }
            !matches!(step, Step::Answer(_) | Step::Move) && bytes <= EARLY
        });
        let early = early.count();
        let (early, steps) = steps.split_at(if self.is_early { early } else { 0 });
        let mut play = self.shake_hands(server, client, early).await;
        for step in steps {
            let wire = step.wire(&mut play.client.peer);
            for piece in self.cut(&wire, SHORT) {
                play.send(piece).await;
            }
            match step {
                Step::Answer(length) => play.answer(*length, self.protects_frames),
                Step::Move => {
                    play.move_on();
                    settled().await;
                }
                Step::Record(..) | Step::Rekey | Step::Raw(_) => {}
            }
            play.client.receive();
        }
        play.finish().await
    }

    fn cut<'a>(&self, bytes: &'a [u8], short: usize) -> impl Iterator<Item = &'a [u8]> {
        let (begin, middle, end) = if bytes.len() <= short {
            (bytes, &[][..], &[][..])
        } else {
            let (begin, rest) = bytes.split_at(FINE);
            let (middle, end) = rest.split_at(rest.len() - FINE);
            (begin, middle, end)
        };
        let middle = Some(middle).filter(|middle| !middle.is_empty());
        pieces(begin, self.seed)
            .chain(middle)
            .chain(pieces(end, self.seed))
    }

    async fn shake_hands(
        &self,
        server: &Arc<ServerConfig>,
        config: &ClientConfig,
        early: &[Step],
    ) -> Play {
        // What is sent over such a pair has arrived.
        let (near, far) = UnixStream::pair().expect("a pair");
        for end in [&near, &far] {
            end.set_nonblocking(true).expect("a socket");
        }
        let far = std::net::TcpStream::from(OwnedFd::from(far));
        let far = TcpStream::from_std(far).expect("a socket");
        let client = async {
            let mut handshake = Handshake::new(config);
            let mut sent = handshake.advance(&[]);
            while !handshake.is_over() {
                io::Write::write_all(&mut &near, &sent).expect("it fits");
                tokio::task::yield_now().await;
                sent = handshake.advance(&received(&near));
            }
            let mut peer = handshake.into_peer();
            for step in early {
                sent.extend(step.wire(&mut peer));
            }
            let mut client = Client {
                socket: near,
                peer,
                records: Vec::new(),
            };
            for piece in self.cut(&sent, 2 * FINE) {
                // Nobody reads once the handshake is over.
                io::Write::write_all(&mut &client.socket, piece).expect("it fits");
                settled().await;
            }
            client.receive();
            client
        };
        let (client, server) = tokio::join!(client, accept(far, Arc::clone(server)));
        let mut play = Play {
            client,
            server: server.expect("a good handshake").0,
            text: Vec::new(),
            end: None,
        };
        play.read().await;
        play
    }
}

/// Lets the runtime see what has happened to sockets.
async fn settled() {
    for _ in 0..2 {
        tokio::task::yield_now().await;
    }
}

/// All that has arrived.
fn received(socket: &UnixStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    // It ends with `WouldBlock`, or because the other side has gone.
    let _ = io::Read::read_to_end(&mut &*socket, &mut bytes);
    bytes
}

struct Client {
    socket: UnixStream,
    peer: Peer,
    records: Vec<Opened>,
}

impl Client {
    fn receive(&mut self) {
        let bytes = received(&self.socket);
        let records = self.peer.open(&bytes).expect("the next records");
        self.records.extend(records);
    }
}

/// A connection in the middle of a script.
struct Play {
    client: Client,
    server: TlsStream,
    text: Vec<u8>,
    /// Once the server has said it to whoever reads.
    end: Option<End>,
}

impl Play {
    /// A piece of what the client sends; a server that has seen an end may not take it.
    async fn send(&mut self, piece: &[u8]) {
        let mut rest = piece;
        while !rest.is_empty() {
            match io::Write::write(&mut &self.client.socket, rest) {
                Ok(len) => rest = &rest[len..],
                Err(_) => return,
            }
            self.read().await;
        }
    }

    /// Reads what there is.
    async fn read(&mut self) {
        settled().await;
        let mut space = [0; 1_000];
        while self.end.is_none() {
            let mut space = ReadBuf::new(&mut space);
            let server = &mut self.server;
            let read = poll_fn(|context| {
                Poll::Ready(Pin::new(&mut *server).poll_read(context, &mut space))
            });
            match read.await {
                Poll::Pending => return,
                Poll::Ready(Ok(())) if space.filled().is_empty() => self.end = Some(End::Closed),
                Poll::Ready(Ok(())) => self.text.extend_from_slice(space.filled()),
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    self.end = Some(End::Cut);
                }
                Poll::Ready(Err(_)) => self.end = Some(End::Failed),
            }
        }
    }

    /// Sends something, unless the connection has failed.
    fn answer(&mut self, length: usize, protects_frames: bool) {
        let mut context = Context::from_waker(std::task::Waker::noop());
        let mut rest = &vec![7; length][..];
        while !rest.is_empty() {
            let sent = if protects_frames {
                self.protect(&mut context, rest)
            } else {
                Pin::new(&mut self.server).poll_write(&mut context, rest)
            };
            let Poll::Ready(Ok(sent)) = sent else { return };
            rest = &rest[sent..];
        }
    }

    fn protect(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        // A frame has some bytes before its payload.
        const SKIPPED: usize = 3;
        let layout = self.server.layout();
        let bytes = &bytes[..bytes.len().min(3 * layout.piece)];
        let mut buffer = ::gateway_datapath::buffer::Buffer::take();
        let (mut slices, count) = layout.room(&mut buffer, SKIPPED, bytes.len());
        let mut rest = bytes;
        for slice in &mut slices[..count] {
            let (now, later) = rest.split_at(slice.len());
            slice.copy_from_slice(now);
            rest = later;
        }
        let (server, taken) = (&mut self.server, bytes.len() - rest.len());
        let range = match server.poll_protect(context, &mut buffer, SKIPPED, taken) {
            Poll::Ready(Ok(range)) => range,
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Pending => return Poll::Pending,
        };
        let mut records = &buffer[range];
        while !records.is_empty() {
            let Poll::Ready(Ok(sent)) = server.poll_send(context, records) else {
                panic!("the socket's buffer is large enough");
            };
            records = &records[sent..];
        }
        Poll::Ready(Ok(taken))
    }

    /// Goes on with the connection as the next process does, unless it is ending.
    fn move_on(&mut self) {
        let Some(state) = self.server.state() else {
            return;
        };
        let text = serde_json::to_string(&state).expect("plain data");
        let socket = self.server.socket().try_clone_to_owned();
        let tcp = TcpStream::from_std(socket.expect("a descriptor").into()).expect("a socket");
        let state = serde_json::from_str(&text).expect("what was written");
        self.server = TlsStream::resume(tcp, state, Role::Server).expect("a state that occurs");
    }

    /// The client ends its side.
    async fn finish(mut self) -> Outcome {
        self.client.receive();
        let _ = self.client.socket.shutdown(Shutdown::Write);
        self.read().await;
        let end = self.end.expect("the stream has ended");
        self.client.receive();
        Outcome::new(self.text, end, &self.client.records)
    }
}
