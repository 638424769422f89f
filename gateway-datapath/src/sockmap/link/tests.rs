use std::future::Future;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, sendmsg};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};

use super::*;
use crate::end_reason::EndReason;
use crate::{Counters, Inbound, Limits, Outcome};

const EARLY: &[u8] = &[b'e'; 100];
const LATER: &[u8] = &[b'l'; 50];
const PATIENCE: Duration = Duration::from_secs(20);

/// Both ends of a connection over loopback.
async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (peer, leg) = tokio::join!(TcpStream::connect(address), listener.accept());
    (peer.unwrap(), leg.unwrap().0)
}

fn sockmap() -> Arc<Sockmap> {
    Sockmap::load(1, 1 << 20).unwrap_or_else(|error| panic!("{error}; this test is for root"))
}

/// The next frame's payload.
async fn read_frame(client: &mut TcpStream) -> Vec<u8> {
    assert_eq!(client.read_u8().await.unwrap(), 0x82);
    let len = match client.read_u8().await.unwrap() {
        126 => usize::from(client.read_u16().await.unwrap()),
        len => usize::from(len),
    };
    assert!(len < 65_536, "{len}");
    let mut payload = vec![0; len];
    client.read_exact(&mut payload).await.unwrap();
    payload
}

/// Reads frames until as many bytes have come.
async fn read_frames(client: &mut TcpStream, len: usize) -> Vec<u8> {
    let mut received = Vec::new();
    while received.len() < len {
        received.extend(read_frame(client).await);
    }
    received
}

/// Runs a channel while its peers do something; they end it.
async fn run(link: &Link, counters: &Counters, peers: impl Future<Output = ()>) -> EndReason {
    let limits = Limits {
        ping_interval: None,
        close_timeout: Duration::from_secs(5),
    };
    let orders = |_: &mut Context<'_>| Poll::Pending;
    let run = link.carry(Inbound::default().into(), limits, counters, orders);
    let ended = async { tokio::join!(run, peers).0 };
    match tokio::time::timeout(PATIENCE, ended).await.unwrap() {
        Outcome::Ended(reason) => reason,
        Outcome::Frozen(_) => unreachable!("nobody asked for it"),
    }
}

/// The client sees the end that a host's end makes.
async fn expect_end(mut client: TcpStream) {
    let mut close = [0; 4];
    client.read_exact(&mut close).await.unwrap();
    assert_eq!(close, [0x88, 2, 0x03, 0xe8]);
}

#[tokio::test]
#[cfg_attr(unprivileged, ignore = "needs root: cargo xtask test")]
async fn what_a_host_says_while_its_socket_enters_the_map_arrives_in_order() {
    let sockmap = sockmap();
    let (mut client, client_leg) = pair().await;
    let (mut host, host_leg) = pair().await;
    host.write_all(EARLY).await.unwrap();
    host_leg.readable().await.unwrap();
    let host_leg = HostSocket::Tcp(host_leg.into_std().unwrap());
    let link = Link::enter(&sockmap, client_leg.into_std().unwrap(), host_leg);
    let link = link.unwrap_or_else(|(refusal, _)| panic!("{refusal}"));
    assert!(link.is_gated);
    let counters = Counters::default();
    let peers = async {
        assert_eq!(read_frames(&mut client, EARLY.len()).await, EARLY);
        host.write_all(LATER).await.unwrap();
        assert_eq!(read_frames(&mut client, LATER.len()).await, LATER);
        // Seen while the channel lives.
        assert_eq!(counters.downlink(), 150);
        drop(host);
        expect_end(client).await;
    };
    assert_eq!(run(&link, &counters, peers).await, EndReason::HostEnd);
    assert_eq!(counters.downlink(), 150);
    // Everything passed: the gate stays closed for such a channel.
    assert_eq!(link.state().unwrap().redirected, 0);
}

/// A channel to a host on a Unix socket: its link, client and host.
async fn unix_channel(sockmap: &Arc<Sockmap>) -> (Link, TcpStream, UnixStream) {
    assert!(
        sockmap.moves_unix_hosts(),
        "this test is for Linux 6.12 and later with /sys/kernel/btf/vmlinux"
    );
    let (client, client_leg) = pair().await;
    let (host, host_leg) = UnixStream::pair().unwrap();
    let link = sockmap.enter(client_leg, host_leg);
    let link = link.unwrap_or_else(|(refusal, _)| panic!("{refusal}"));
    (link, client, host)
}

#[tokio::test]
#[cfg_attr(unprivileged, ignore = "needs root: cargo xtask test")]
async fn each_message_of_a_host_on_a_unix_socket_becomes_a_frame() {
    let sockmap = sockmap();
    let (link, mut client, mut host) = unix_channel(&sockmap).await;
    let counters = Counters::default();
    let peers = async {
        for len in [1, 2, 85, 125, 126, 1_000, 4_096, 16_384, 32_768] {
            let message: Vec<u8> = (0..=250).cycle().take(len).collect();
            host.write_all(&message).await.unwrap();
            assert_eq!(read_frame(&mut client).await, message);
        }
        drop(host);
        expect_end(client).await;
    };
    assert_eq!(run(&link, &counters, peers).await, EndReason::HostEnd);
    let state = link.state().unwrap();
    assert_eq!((state.messages, state.frames), (9, 9));
    assert_eq!(counters.downlink(), state.framed);
    assert_eq!((state.waiting(), state.dropped()), (0, 0));
}

#[tokio::test]
#[cfg_attr(unprivileged, ignore = "needs root: cargo xtask test")]
async fn a_long_write_arrives_in_pieces_and_its_end_after_it() {
    const LEN: usize = 3_000_000;
    let sockmap = sockmap();
    let (link, mut client, mut host) = unix_channel(&sockmap).await;
    let sent: Vec<u8> = (0..=250).cycle().take(LEN).collect();
    let peers = async {
        let write = async {
            host.write_all(&sent).await.unwrap();
            drop(host);
        };
        let ((), received) = tokio::join!(write, read_frames(&mut client, LEN));
        assert!(received == sent);
        expect_end(client).await;
    };
    let reason = run(&link, &Counters::default(), peers).await;
    assert_eq!(reason, EndReason::HostEnd);
}

#[tokio::test]
#[cfg_attr(unprivileged, ignore = "needs root: cargo xtask test")]
async fn a_client_that_does_not_read_stops_its_host_on_a_unix_socket() {
    const CLIENT: usize = 64 * 1024;
    let sockmap = sockmap();
    for len in [85, 16_384] {
        let (client, client_leg) = pair().await;
        SockRef::from(&client).set_recv_buffer_size(CLIENT).unwrap();
        SockRef::from(&client_leg)
            .set_send_buffer_size(CLIENT)
            .unwrap();
        let (host, host_leg) = UnixStream::pair().unwrap();
        let own = SockRef::from(&host).send_buffer_size().unwrap();
        let link = sockmap.enter(client_leg, host_leg);
        let link = link.unwrap_or_else(|(refusal, _)| panic!("{refusal}"));
        let counters = Counters::default();
        let (mut client, mut host) = (client, host);
        let message = vec![b'm'; len];
        let peers = async {
            let mut sent = 0;
            // Until nothing is taken for a while.
            while let Ok(written) =
                tokio::time::timeout(Duration::from_millis(500), host.write(&message)).await
            {
                sent += written.unwrap();
            }
            println!("messages of {len} bytes: stopped after {sent}, of which {own} may wait");
            // The kernel doubles what it is given.
            assert!(sent < own + 4 * CLIENT, "{sent}");
            let received = read_frames(&mut client, sent).await;
            assert_eq!(received.len(), sent);
            drop(host);
            expect_end(client).await;
        };
        assert_eq!(run(&link, &counters, peers).await, EndReason::HostEnd);
        drop(link);
        // Places rest for a while after their channel.
    }
}

#[tokio::test]
#[cfg_attr(unprivileged, ignore = "needs root: cargo xtask test")]
async fn descriptors_that_come_along_are_closed_and_urgent_bytes_left_out() {
    let sockmap = sockmap();
    let (link, mut client, host) = unix_channel(&sockmap).await;
    let (read, write) = std::io::pipe().unwrap();
    let peers = async {
        let descriptors = [write.as_fd()];
        let mut space = [MaybeUninit::uninit(); 64];
        let mut along = SendAncillaryBuffer::new(&mut space);
        assert!(along.push(SendAncillaryMessage::ScmRights(&descriptors)));
        let sent = sendmsg(
            &host,
            &[IoSlice::new(LATER)],
            &mut along,
            SendFlags::empty(),
        );
        assert_eq!(sent.unwrap(), LATER.len());
        drop(write);
        assert_eq!(read_frame(&mut client).await, LATER);
        // The last writing end is closed with the message.
        let end = tokio::task::spawn_blocking(move || std::io::Read::read(&mut &read, &mut [0; 1]));
        assert_eq!(end.await.unwrap().unwrap(), 0);
        // As one who reads the stream leaves it out, too.
        net::send(&host, b"ab!", SendFlags::OOB).unwrap();
        assert_eq!(read_frame(&mut client).await, b"ab");
        net::send(&host, EARLY, SendFlags::empty()).unwrap();
        assert_eq!(read_frame(&mut client).await, EARLY);
        drop(host);
        expect_end(client).await;
    };
    let reason = run(&link, &Counters::default(), peers).await;
    assert_eq!(reason, EndReason::HostEnd);
}

#[tokio::test]
#[cfg_attr(unprivileged, ignore = "needs root: cargo xtask test")]
async fn a_host_on_a_unix_socket_that_speaks_while_it_enters_the_map_is_left() {
    let sockmap = sockmap();
    let (_client, client_leg) = pair().await;
    let (mut host, host_leg) = UnixStream::pair().unwrap();
    host.write_all(EARLY).await.unwrap();
    let host_leg = HostSocket::Unix(host_leg.into_std().unwrap());
    let link = Link::enter(&sockmap, client_leg.into_std().unwrap(), host_leg);
    let Err((refusal, legs)) = link else {
        panic!("moved")
    };
    assert!(
        matches!(refusal, LinkError::HostSpokeMeanwhile),
        "{refusal}"
    );
    assert!(legs.is_err());
}

/// The host of a channel that is held up sends nothing more, so it causes no second event.
#[tokio::test]
#[cfg_attr(unprivileged, ignore = "needs root: cargo xtask test")]
async fn a_channel_whose_event_found_no_room_is_not_forgotten() {
    // TCP sends a few segments of each before the first is acknowledged: together more than there
    // is room for events.
    const LOUD: usize = 60;
    const WRITES: usize = 20_000;
    // A queue of one byte: whatever is longer passes.
    let sockmap =
        Sockmap::load(LOUD + 1, 1).unwrap_or_else(|error| panic!("{error}; this test is for root"));
    let mut channels = Vec::new();
    for _ in 0..=LOUD {
        let (mut client, client_leg) = pair().await;
        let (mut host, host_leg) = pair().await;
        host.set_nodelay(true).unwrap();
        let link = sockmap.enter(client_leg, host_leg);
        let link = link.unwrap_or_else(|(refusal, _)| panic!("{refusal}"));
        let carried = tokio::spawn(async move {
            let counters = Counters::default();
            run(&link, &counters, std::future::pending()).await
        });
        // It looks at its host, and waits.
        host.write_all(EARLY).await.unwrap();
        assert_eq!(read_frames(&mut client, EARLY.len()).await, EARLY);
        channels.push((client, host, carried));
    }
    let (mut client, quiet, _) = channels.pop().unwrap();
    // Nothing reads the ring meanwhile: this task has the only thread.
    let mut sent = 0;
    while sent < WRITES {
        let before = sent;
        for (_, host, _) in &channels {
            sent += usize::from(host.try_write(b"xx").is_ok());
        }
        if sent == before {
            break;
        }
    }
    assert_eq!(quiet.try_write(LATER).unwrap(), LATER.len());
    let read = tokio::time::timeout(PATIENCE, read_frames(&mut client, LATER.len()));
    assert_eq!(read.await.expect("nobody was told"), LATER, "{sent} writes");
    for (_, _, carried) in channels {
        carried.abort();
    }
}
