//! Channels that are frozen, written down and gone on with at random points, under traffic in
//! both directions.
#![expect(clippy::unwrap_used, reason = "a test may fail")]

use std::io;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use gateway_datapath::end_reason::EndReason;
use gateway_datapath::relay;
use gateway_datapath::tls::{self, Profile};
use gateway_datapath::{
    ClientLeg, ClientState, ClientStream, Counters, Framing, HostLeg, Inbound, Limits, Order,
    Outcome, Rest, RestState,
};
use rustls::crypto::aws_lc_rs::{ALL_CIPHER_SUITES, default_provider};
use rustls::server::WebPkiClientVerifier;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, RootCertStore, SupportedCipherSuite};
use rustls_pki_types::PrivateKeyDer;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

/// Bytes that each side sends.
const BYTES: usize = 400_000;
const LIMITS: Limits = Limits {
    ping_interval: None,
    close_timeout: Duration::from_secs(60),
};

/// `SplitMix64`; equal seeds give equal choices.
#[derive(Clone)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }

    fn size(&mut self) -> usize {
        let most = [100, 1_000, 20_000, 70_000][self.below(4)];
        1 + self.below(most)
    }
}

/// Position-dependent bytes, so that loss and disorder show.
fn pattern(seed: u32) -> Vec<u8> {
    (0_u32..)
        .flat_map(|i| (i ^ seed).wrapping_mul(2_654_435_761).to_be_bytes())
        .take(BYTES)
        .collect()
}

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
    let (near, far) = (near.unwrap(), far.unwrap().0);
    // Small ones, so that both directions often have to wait in the midst of something.
    for socket in [&near, &far] {
        let socket = socket2::SockRef::from(socket);
        socket.set_send_buffer_size(16_384).unwrap();
        socket.set_tcp_nodelay(true).unwrap();
    }
    (near, far)
}

fn masked(first_byte: u8, payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
    let mut frame = vec![first_byte];
    match u16::try_from(payload.len()) {
        Ok(len @ ..126) => frame.push(0x80 | u8::try_from(len).unwrap()),
        Ok(len) => {
            frame.push(0xfe);
            frame.extend(len.to_be_bytes());
        }
        Err(_) => {
            frame.push(0xff);
            frame.extend((payload.len() as u64).to_be_bytes());
        }
    }
    frame.extend(mask);
    let masked = payload.iter().zip(mask.iter().cycle());
    frame.extend(masked.map(|(byte, mask)| byte ^ mask));
    frame
}

/// Sends the pattern in frames and fragments of random size with Pings between them, checks what
/// comes, and ends with a Close once all of both has been seen.
async fn play_client(stream: impl AsyncRead + AsyncWrite + Unpin, mut random: Random) {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let mut pings = Random(random.next());
    let sizes = Random(random.next());
    let (sent_pings, mut pongs_due) = tokio::sync::mpsc::unbounded_channel();
    let write = async {
        let (sent, mut at, mut fragmented) = (pattern(1), 0, false);
        let mut random = sizes;
        while at < sent.len() {
            let len = random.size().min(sent.len() - at);
            let fin = random.below(3) > 0 || at + len == sent.len();
            let opcode = if fragmented { 0 } else { 2 };
            let first = if fin { 0x80 } else { 0 } | opcode;
            fragmented = !fin;
            let [mask @ .., _, _, _, _] = random.next().to_ne_bytes();
            let frame = masked(first, &sent[at..at + len], mask);
            // Cut anywhere, also inside of headers.
            let cut = random.below(frame.len().min(20));
            for part in [&frame[..cut], &frame[cut..]] {
                writer.write_all(part).await.unwrap();
                writer.flush().await.unwrap();
            }
            if pings.below(10) == 0 {
                let payload = pings.next().to_ne_bytes();
                sent_pings.send(payload).unwrap();
                let ping = masked(0x89, &payload, mask);
                writer.write_all(&ping).await.unwrap();
                writer.flush().await.unwrap();
            }
            at += len;
        }
        writer
    };
    let read = async {
        let (expected, mut at) = (pattern(2), 0);
        while at < expected.len() {
            if random.below(40) == 0 {
                // A client that is slow for a while: what is to be sent waits in the gateway.
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            let (first, payload) = read_frame(&mut reader).await;
            if first == 0x8a {
                // Only the latest Ping has to be answered.
                while pongs_due.recv().await.unwrap()[..] != payload {}
                continue;
            }
            assert_eq!(first, 0x82);
            assert!(
                payload == expected[at..at + payload.len()],
                "downlink at {at}"
            );
            at += payload.len();
        }
        reader
    };
    let (mut writer, mut reader) = tokio::join!(write, read);
    writer
        .write_all(&masked(0x88, &[3, 232], [1, 2, 3, 4]))
        .await
        .unwrap();
    writer.flush().await.unwrap();
    while read_frame(&mut reader).await.0 != 0x88 {}
}

/// Sends the pattern without frames in pieces of random size, ends its side, and checks what comes
/// until the other one has ended too.
async fn play_tunnel(stream: impl AsyncRead + AsyncWrite + Unpin, mut random: Random) {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let mut sizes = Random(random.next());
    let write = async {
        let (sent, mut at) = (pattern(1), 0);
        while at < sent.len() {
            let len = sizes.size().min(sent.len() - at);
            writer.write_all(&sent[at..at + len]).await.unwrap();
            writer.flush().await.unwrap();
            at += len;
        }
        writer.shutdown().await.unwrap();
    };
    let read = async {
        let received = read_slowly(&mut reader, &mut random).await;
        assert!(received == pattern(2), "downlink differs");
    };
    tokio::join!(write, read);
}

/// All that comes, with pauses now and then.
async fn read_slowly(reader: &mut (impl AsyncRead + Unpin), random: &mut Random) -> Vec<u8> {
    let mut received = Vec::new();
    let mut buffer = vec![0; 50_000];
    loop {
        if random.below(40) == 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        match reader.read(&mut buffer).await.unwrap() {
            0 => return received,
            len => received.extend_from_slice(&buffer[..len]),
        }
    }
}

async fn read_frame(reader: &mut (impl AsyncRead + Unpin)) -> (u8, Vec<u8>) {
    let first = reader.read_u8().await.unwrap();
    let len = match reader.read_u8().await.unwrap() {
        126 => u64::from(reader.read_u16().await.unwrap()),
        127 => reader.read_u64().await.unwrap(),
        short => u64::from(short),
    };
    let mut payload = vec![0; usize::try_from(len).unwrap()];
    reader.read_exact(&mut payload).await.unwrap();
    (first, payload)
}

async fn play_host(mut stream: TcpStream, mut random: Random) {
    let (mut reader, mut writer) = stream.split();
    let mut sizes = Random(random.next());
    let write = async {
        let (sent, mut at) = (pattern(2), 0);
        while at < sent.len() {
            let len = sizes.size().min(sent.len() - at);
            writer.write_all(&sent[at..at + len]).await.unwrap();
            if sizes.below(10) == 0 {
                tokio::task::yield_now().await;
            }
            at += len;
        }
    };
    let read = async {
        let received = read_slowly(&mut reader, &mut random).await;
        assert!(received == pattern(1), "uplink differs");
    };
    tokio::join!(write, read);
}

/// Relays frames until the client's Close, with the freezes of [`relay_with_freezes`].
async fn relay_frames(client: ClientStream, host: TcpStream, random: Random) -> usize {
    let (reason, freezes) = relay_with_freezes(Rest::default(), client, host, random).await;
    assert_eq!(reason, EndReason::ClientClose(Some(1000)));
    freezes
}

/// The same without frames, until the client's end.
async fn relay_tunnel(client: ClientStream, host: TcpStream, random: Random) -> usize {
    let rest = Inbound::new(Framing::Raw).into();
    let (reason, freezes) = relay_with_freezes(rest, client, host, random).await;
    assert_eq!(reason, EndReason::ClientEnd);
    freezes
}

/// Relays, frozen after a random number of wake-ups again and again; returns why it ended, and how often
/// it was frozen.
async fn relay_with_freezes(
    mut rest: Rest,
    mut client: ClientStream,
    mut host: TcpStream,
    mut random: Random,
) -> (EndReason, usize) {
    let counters = Counters::default();
    let mut freezes = 0;
    loop {
        let mut left = random.below(3);
        let outcome = relay::carry(&mut client, &mut host, rest, LIMITS, &counters, |_| {
            if left == 0 {
                return Poll::Ready(Order::Freeze);
            }
            left -= 1;
            Poll::Pending
        });
        rest = match outcome.await {
            Outcome::Ended(reason) => {
                assert_eq!(counters.uplink(), BYTES as u64);
                assert_eq!(counters.downlink(), BYTES as u64);
                return (reason, freezes);
            }
            Outcome::Frozen(rest) => *rest,
        };
        let Some(state) = client.state() else {
            // The client is ending.
            continue;
        };
        let written = serde_json::to_string(&(state, rest.state(client.layout()))).unwrap();
        let [new_client, new_host] = [client.socket(), host.as_fd()]
            .map(|fd| std::net::TcpStream::from(fd.try_clone_to_owned().unwrap()))
            .map(|stream| TcpStream::from_std(stream).unwrap());
        let (state, rest_state): (ClientState, RestState) = serde_json::from_str(&written).unwrap();
        client = ClientStream::resume(new_client, state).unwrap();
        host = new_host;
        rest = Rest::resume(&rest_state, client.layout()).unwrap();
        freezes += 1;
    }
}

fn seed() -> u64 {
    let seed = std::env::var("FREEZE_SEED").map_or_else(
        |_| u64::from(std::time::UNIX_EPOCH.elapsed().unwrap().subsec_nanos()),
        |text| text.parse().unwrap(),
    );
    println!("FREEZE_SEED={seed}");
    seed
}

/// A host that always has bytes, and a client that takes whatever comes.
struct Endless;

impl AsyncRead for Endless {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        buffer.initialize_unfilled();
        buffer.set_filled(buffer.capacity());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Endless {
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
        Poll::Ready(Ok(()))
    }
}

impl ClientLeg for Endless {}
impl HostLeg for Endless {}

/// However much there is to move.
#[tokio::test]
async fn a_channel_that_never_waits_stands_still_after_its_turn() {
    let (mut client, mut host) = (Endless, Endless);
    let counters = Counters::default();
    let rest = Inbound::new(Framing::Raw).into();
    let mut turns = 0;
    let outcome = relay::carry(&mut client, &mut host, rest, LIMITS, &counters, |_| {
        turns += 1;
        match turns {
            1..10 => Poll::Pending,
            _ => Poll::Ready(Order::Freeze),
        }
    });
    let Outcome::Frozen(_) = outcome.await else {
        panic!("it has ended");
    };
    let moved = counters.uplink().min(counters.downlink());
    assert!(moved > 0);
}

#[tokio::test]
async fn plaintext_channels_go_on_byte_for_byte() {
    let mut random = Random(seed());
    for _ in 0..3 {
        let [(client, client_leg), (host_leg, host)] = [pair().await, pair().await];
        let client = tokio::spawn(play_client(client, Random(random.next())));
        let host = tokio::spawn(play_host(host, Random(random.next())));
        let leg = ClientStream::Plain(client_leg);
        let freezes = relay_frames(leg, host_leg, Random(random.next())).await;
        client.await.unwrap();
        host.await.unwrap();
        assert!(freezes > 2, "{freezes}");
    }
}

#[tokio::test]
async fn tls_channels_go_on_byte_for_byte_with_every_suite() {
    let mut random = Random(seed());
    for suite in ALL_CIPHER_SUITES {
        let [(client, client_leg), (host_leg, host)] = [pair().await, pair().await];
        let (client, leg) = handshake(*suite, client, client_leg).await;
        let client = tokio::spawn(play_client(client, Random(random.next())));
        let host = tokio::spawn(play_host(host, Random(random.next())));
        let freezes = relay_frames(leg, host_leg, Random(random.next())).await;
        client.await.unwrap();
        host.await.unwrap();
        assert!(freezes > 2, "{suite:?}: {freezes}");
    }
}

#[tokio::test]
async fn tunnels_go_on_byte_for_byte_and_both_ends_hear_of_the_other() {
    let mut random = Random(seed());
    for suite in [None, ALL_CIPHER_SUITES.first(), ALL_CIPHER_SUITES.last()] {
        let [(client, client_leg), (host_leg, host)] = [pair().await, pair().await];
        let (client, leg) = if let Some(suite) = suite {
            let (client, leg) = handshake(*suite, client, client_leg).await;
            let client = tokio::spawn(play_tunnel(client, Random(random.next())));
            (client, leg)
        } else {
            let client = tokio::spawn(play_tunnel(client, Random(random.next())));
            (client, ClientStream::Plain(client_leg))
        };
        let host = tokio::spawn(play_host(host, Random(random.next())));
        let freezes = relay_tunnel(leg, host_leg, Random(random.next())).await;
        client.await.unwrap();
        host.await.unwrap();
        assert!(freezes > 2, "{suite:?}: {freezes}");
    }
}

/// A client that changes its key now and then, as TLS 1.3 allows.
struct Rekeying {
    stream: tokio_rustls::client::TlsStream<TcpStream>,
    writes: usize,
    can: bool,
}

impl AsyncRead for Rekeying {
    fn poll_read(
        self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.get_mut().stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Rekeying {
    fn poll_write(
        self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        let this = self.get_mut();
        this.writes += 1;
        if this.can && this.writes.is_multiple_of(20) {
            this.stream.get_mut().1.refresh_traffic_keys().unwrap();
        }
        std::pin::Pin::new(&mut this.stream).poll_write(context, bytes)
    }

    fn poll_flush(
        self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(
        self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}

async fn handshake(
    suite: SupportedCipherSuite,
    near: TcpStream,
    far: TcpStream,
) -> (Rekeying, ClientStream) {
    let algorithm = if format!("{:?}", suite.suite()).contains("RSA") {
        &rcgen::PKCS_RSA_SHA256
    } else {
        &rcgen::PKCS_ECDSA_P256_SHA256
    };
    let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["gateway.test".to_owned()])
        .unwrap()
        .self_signed(&key)
        .unwrap();
    let chain = vec![certificate.der().clone()];
    let private_key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    let certified = CertifiedKey::from_der(chain, private_key, &default_provider()).unwrap();
    let server = tls::server_config(
        Profile::Intermediate,
        WebPkiClientVerifier::no_client_auth(),
        Arc::new(SingleCertAndKey::from(certified)),
    );
    let mut roots = RootCertStore::empty();
    roots.add(certificate.der().clone()).unwrap();
    let mut provider = default_provider();
    provider.cipher_suites = vec![suite];
    let client = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[suite.version()])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(client));
    let name = "gateway.test".try_into().unwrap();
    let (client, server) = tokio::join!(
        connector.connect(name, near),
        tls::accept(far, Arc::new(server))
    );
    let client = Rekeying {
        stream: client.unwrap(),
        writes: 0,
        can: suite.version() == &rustls::version::TLS13,
    };
    (client, ClientStream::Tls(Box::new(server.unwrap().0)))
}
