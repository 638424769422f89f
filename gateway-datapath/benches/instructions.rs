//! Work of the codec and of the relay, to be counted in instructions by callgrind.
//!
//! `cargo xtask bench instructions` runs this program twice for each case, with different counts,
//! so that the difference is the work alone. Nothing here depends on time or on the system.

use std::error::Error;
use std::io::{self, IoSliceMut};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use gateway_datapath::websocket::decode::{Cursor, Decoder};
use gateway_datapath::{ClientLeg, Counters, HostLeg, Inbound, Limits, relay};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The most that is in a buffer of the gateway.
const BATCH: usize = 65_536;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [case, count] = arguments.as_slice() else {
        return Err("arguments: CASE COUNT; see `cargo xtask bench instructions`".into());
    };
    let count = count.parse()?;
    let (load, size) = case.split_once('-').ok_or("a case is LOAD-SIZE")?;
    let size = size.parse()?;
    match load {
        "decode" => decode(size, count),
        "down" => run(Client::silent(), Host::sending(size, count)),
        "up" => run(Client::sending(size, count), Host::silent()),
        _ => Err(format!("no load {load}").into()),
    }
}

/// A client's binary frame: FIN and opcode 2, then the mask bit with the length.
fn frame(payload: usize) -> Vec<u8> {
    const MASKED: u8 = 0x80;
    const LENGTH_16: u8 = 0x7e;
    let mut frame = vec![0x82];
    match u8::try_from(payload) {
        Ok(short) if short < LENGTH_16 => frame.push(MASKED | short),
        _ => {
            frame.push(MASKED | LENGTH_16);
            frame.extend(u16::try_from(payload).unwrap_or(u16::MAX).to_be_bytes());
        }
    }
    frame.extend([0x37, 0xfa, 0x21, 0x3d]);
    frame.resize(frame.len() + payload, 0x55);
    frame
}

/// Decodes `count` frames, as many at a time as a buffer holds.
fn decode(payload: usize, count: usize) -> Result<(), Box<dyn Error>> {
    let frame = frame(payload);
    let batch = frame.repeat(BATCH / frame.len());
    let mut decoder = Decoder::new();
    let mut buffer = batch.clone();
    for _ in 0..count.div_ceil(BATCH / frame.len()) {
        buffer.copy_from_slice(&batch);
        let mut cursor = Cursor {
            end: buffer.len(),
            ..Cursor::default()
        };
        while decoder.decode(&mut buffer, &mut cursor)?.is_some() {}
    }
    Ok(())
}

/// Relays until both sides have ended, on a clock that stands still.
fn run(mut client: Client, mut host: Host) -> Result<(), Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()?;
    let limits = Limits {
        ping_interval: None,
        close_timeout: Duration::from_secs(3_600),
    };
    let counters = Counters::default();
    runtime.block_on(tokio::task::unconstrained(relay::run(
        &mut client,
        &mut host,
        Inbound::default(),
        limits,
        &counters,
        std::future::pending(),
    )));
    Ok(())
}

/// A stream that takes all that is written.
struct Sink {
    is_shut: bool,
}

impl Sink {
    /// What a read says when there is no data: the end, once the other side has ended.
    fn poll_end(&self, context: &Context<'_>) -> Poll<io::Result<()>> {
        if self.is_shut {
            return Poll::Ready(Ok(()));
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

macro_rules! write_to_sink {
    ($stream:ty) => {
        impl AsyncWrite for $stream {
            fn poll_write(
                self: Pin<&mut Self>,
                _: &mut Context<'_>,
                bytes: &[u8],
            ) -> Poll<io::Result<usize>> {
                Poll::Ready(Ok(bytes.len()))
            }

            fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
                Poll::Ready(Ok(()))
            }

            fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
                self.get_mut().sink.is_shut = true;
                Poll::Ready(Ok(()))
            }
        }
    };
}

/// Sends frames, one a read, then ends.
struct Client {
    frame: Vec<u8>,
    left: usize,
    sink: Sink,
}

write_to_sink!(Client);
impl ClientLeg for Client {}

impl Client {
    fn sending(payload: usize, count: usize) -> Self {
        Self {
            frame: frame(payload),
            left: count,
            sink: Sink { is_shut: true },
        }
    }

    fn silent() -> Self {
        Self {
            sink: Sink { is_shut: false },
            ..Self::sending(0, 0)
        }
    }
}

impl AsyncRead for Client {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.left == 0 {
            return this.sink.poll_end(context);
        }
        this.left -= 1;
        buffer.put_slice(&this.frame);
        Poll::Ready(Ok(()))
    }
}

/// Sends messages, one a read, then ends.
struct Host {
    message: usize,
    left: usize,
    sink: Sink,
}

write_to_sink!(Host);

impl Host {
    fn sending(message: usize, count: usize) -> Self {
        Self {
            message,
            left: count,
            sink: Sink { is_shut: true },
        }
    }

    fn silent() -> Self {
        Self {
            sink: Sink { is_shut: false },
            ..Self::sending(0, 0)
        }
    }
}

impl AsyncRead for Host {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        _: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.sink.poll_end(context)
    }
}

impl HostLeg for Host {
    fn poll_read_room(
        &mut self,
        context: &mut Context<'_>,
        room: &mut [IoSliceMut<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.left == 0 {
            return self.sink.poll_end(context).map_ok(|()| 0);
        }
        self.left -= 1;
        // What is in the buffer serves as well as any message.
        let space = room.iter().map(|slice| slice.len()).sum();
        Poll::Ready(Ok(self.message.min(space)))
    }
}
