//! A channel's first bytes: the Spice link message that says what the channel is, or the
//! beginning of TLS, which hides it.
//!
//! The gateway is for Spice and nothing else, so nothing reaches a host before these bytes have
//! come and have been recognised.

use std::future::poll_fn;
use std::io;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use crate::channel_type::ChannelType;
use gateway_datapath::Inbound;
use gateway_datapath::end_reason::EndReason;
use gateway_datapath::websocket::decode::{Event, Violation};
use gateway_datapath::websocket::encode;

/// What every Spice connection begins with (`SPICE_MAGIC` in spice/protocol.h).
const MAGIC: &[u8] = b"REDQ";
/// Offset of `channel_type` in `SpiceLinkHeader` and `SpiceLinkMess`.
const TYPE_AT: usize = 20;
/// Offset of `channel_id`.
const ID_AT: usize = 21;

/// First bytes of TLS: a record with a handshake message (RFC 8446, section 5.1), of whatever
/// version.
const TLS_RECORD: [u8; 2] = [22, 3];
/// Offset of the handshake message's type, behind the record's header.
const TLS_TYPE_AT: usize = 5;
/// A `ClientHello` (RFC 8446, section 4).
const CLIENT_HELLO: u8 = 1;

/// What a client may begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expected {
    /// A link message.
    Spice,
    /// The same, or TLS with the host.
    SpiceOrTls,
}

/// What a channel is, as its link message says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LinkMessage {
    /// What it carries; `None`: TLS between client and host hides it.
    pub(super) channel_type: Option<ChannelType>,
    /// Number of the channel among those of its type.
    pub(super) channel_id: u8,
}

impl LinkMessage {
    /// Of a channel inside TLS.
    const TLS: Self = Self {
        channel_type: None,
        channel_id: 0,
    };

    pub(super) fn is_tls(self) -> bool {
        self == Self::TLS
    }

    /// The name of the channel's type, `tls` where that is hidden, or `unknown`.
    pub(super) fn type_name(self) -> &'static str {
        self.channel_type.map_or("tls", ChannelType::name)
    }
}

/// Reads from the client until its link message is complete, or TLS is recognised; all of it stays
/// in `inbound`. The error is what ended the channel before.
pub(super) async fn receive<C>(
    client: &mut C,
    inbound: &mut Inbound,
    expected: Expected,
) -> Result<LinkMessage, EndReason>
where
    C: AsyncRead + AsyncWrite + Unpin,
{
    loop {
        let decoded = inbound.decode().transpose();
        if let Some(link) = parse(inbound.payload(), expected)? {
            if let Some(result) = decoded {
                inbound.put_back(result);
            }
            return Ok(link);
        }
        match decoded {
            Some(result) => answer(client, result).await?,
            None => fill(client, inbound).await?,
        }
    }
}

async fn answer<C>(client: &mut C, result: Result<Event, Violation>) -> Result<(), EndReason>
where
    C: AsyncWrite + Unpin,
{
    match result {
        Ok(Event::Ping(payload)) => {
            let pong = encode::pong(&payload);
            client.write_all(&pong).await.map_err(|e| lost(&e))?;
            client.flush().await.map_err(|e| lost(&e))
        }
        Ok(Event::Pong) => Ok(()),
        Ok(Event::Close(close)) => Err(EndReason::ClientClose(close.code)),
        Err(violation) => Err(EndReason::Violation(violation)),
    }
}

async fn fill<C>(client: &mut C, inbound: &mut Inbound) -> Result<(), EndReason>
where
    C: AsyncRead + Unpin,
{
    match poll_fn(|context| inbound.poll_fill(context, client)).await {
        Ok(0) => Err(EndReason::ClientEnd),
        Ok(_) => Ok(()),
        Err(error) => Err(lost(&error)),
    }
}

fn lost(error: &io::Error) -> EndReason {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => EndReason::ClientEnd,
        kind => EndReason::ClientLost(kind),
    }
}

/// `None`: not yet complete.
fn parse(payload: &[u8], expected: Expected) -> Result<Option<LinkMessage>, EndReason> {
    if expected == Expected::SpiceOrTls && payload.first() == Some(&TLS_RECORD[0]) {
        return parse_tls(payload);
    }
    let seen = payload.len().min(MAGIC.len());
    if payload[..seen] != MAGIC[..seen] {
        return Err(EndReason::NotSpice);
    }
    match (payload.get(TYPE_AT), payload.get(ID_AT)) {
        (Some(&channel_type), Some(&channel_id)) => Ok(Some(LinkMessage {
            channel_type: Some(ChannelType::new(channel_type)),
            channel_id,
        })),
        _ => Ok(None),
    }
}

fn parse_tls(payload: &[u8]) -> Result<Option<LinkMessage>, EndReason> {
    let seen = payload.len().min(TLS_RECORD.len());
    if payload[..seen] != TLS_RECORD[..seen] {
        return Err(EndReason::NotSpice);
    }
    match payload.get(TLS_TYPE_AT) {
        None => Ok(None),
        Some(&CLIENT_HELLO) => Ok(Some(LinkMessage::TLS)),
        Some(_) => Err(EndReason::NotSpice),
    }
}

#[cfg(test)]
mod tests {
    use gateway_datapath::Framing;
    use tokio::io::AsyncReadExt;

    use super::*;

    /// The first message that the flexVDI client sends for its display channel.
    fn link_message() -> Vec<u8> {
        let mut message = b"REDQ\x02\0\0\0\x02\0\0\0\x1a\0\0\0".to_vec();
        message.extend_from_slice(&[0, 0, 0, 0, 2, 0]);
        message.extend_from_slice(&[1, 0, 0, 0, 1, 0, 0, 0, 18, 0, 0, 0, 13, 0, 0, 0, 0, 0, 0, 0]);
        message
    }

    fn masked(first_byte: u8, payload: &[u8]) -> Vec<u8> {
        let len = u8::try_from(payload.len()).unwrap();
        let mut frame = vec![first_byte, 0x80 | len, 0, 0, 0, 0];
        frame.extend_from_slice(payload);
        frame
    }

    async fn receive_all(bytes: Vec<u8>) -> (Result<LinkMessage, EndReason>, Inbound) {
        receive_as(Framing::WebSocket, Expected::Spice, bytes).await
    }

    async fn receive_as(
        framing: Framing,
        expected: Expected,
        bytes: Vec<u8>,
    ) -> (Result<LinkMessage, EndReason>, Inbound) {
        let (mut client, mut gateway) = tokio::io::duplex(7);
        let writer = tokio::spawn(async move {
            let _ = client.write_all(&bytes).await;
            let _ = client.shutdown().await;
            client
        });
        let mut inbound = Inbound::new(framing);
        let link = receive(&mut gateway, &mut inbound, expected).await;
        drop(gateway);
        let _ = writer.await;
        (link, inbound)
    }

    #[tokio::test]
    async fn recognises_the_channel_however_it_is_cut() {
        let message = link_message();
        for cut in 1..message.len() {
            let bytes = [
                masked(0x02, &message[..cut]),
                masked(0x8a, b"late"),
                masked(0x80, &message[cut..]),
            ]
            .concat();
            let (link, inbound) = receive_all(bytes).await;
            let link = link.unwrap();
            assert_eq!((link.type_name(), link.channel_id), ("display", 0));
            assert!(message.starts_with(inbound.payload()));
        }
    }

    #[tokio::test]
    async fn without_frames_the_message_comes_as_it_is() {
        for expected in [Expected::Spice, Expected::SpiceOrTls] {
            let received = receive_as(Framing::Raw, expected, link_message()).await;
            let (link, inbound) = received;
            assert_eq!(link.unwrap().type_name(), "display");
            assert!(link_message().starts_with(inbound.payload()));
            let (link, _) = receive_as(Framing::Raw, expected, b"RED".to_vec()).await;
            assert_eq!(link, Err(EndReason::ClientEnd));
            for wrong in [&b"GET / "[..], b"\x16\x02\x01\0\x05\x01", b"\x17\x03\x03"] {
                let (link, _) = receive_as(Framing::Raw, expected, wrong.to_vec()).await;
                assert_eq!(link, Err(EndReason::NotSpice), "{wrong:?}");
            }
        }
    }

    #[tokio::test]
    async fn tls_is_recognised_where_the_host_has_a_port_for_it() {
        let hello = b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03".to_vec();
        let (link, inbound) = receive_as(Framing::Raw, Expected::SpiceOrTls, hello.clone()).await;
        let link = link.unwrap();
        assert!(link.is_tls());
        assert_eq!(link.type_name(), "tls");
        assert!(hello.starts_with(inbound.payload()));
        let (link, _) = receive_as(Framing::Raw, Expected::Spice, hello.clone()).await;
        assert_eq!(link, Err(EndReason::NotSpice));
        // A ServerHello, and what ends early.
        let mut other = hello.clone();
        other[TLS_TYPE_AT] = 2;
        let (link, _) = receive_as(Framing::Raw, Expected::SpiceOrTls, other).await;
        assert_eq!(link, Err(EndReason::NotSpice));
        let early = hello[..TLS_TYPE_AT].to_vec();
        let (link, _) = receive_as(Framing::Raw, Expected::SpiceOrTls, early).await;
        assert_eq!(link, Err(EndReason::ClientEnd));
    }

    #[tokio::test]
    async fn keeps_an_event_that_comes_with_the_link_message() {
        let bytes = [masked(0x82, &link_message()), masked(0x88, &[3, 232])].concat();
        let mut inbound = Inbound::with_received(Framing::WebSocket, &bytes).unwrap();
        let link = receive(&mut tokio::io::empty(), &mut inbound, Expected::Spice).await;
        assert!(link.is_ok());
        assert_eq!(inbound.payload(), link_message());
        assert!(matches!(inbound.decode(), Ok(Some(Event::Close(_)))));
    }

    #[tokio::test]
    async fn refuses_at_the_first_wrong_byte() {
        let (link, _) = receive_all(masked(0x82, b"REX")).await;
        assert_eq!(link, Err(EndReason::NotSpice));
    }

    #[tokio::test]
    async fn tells_an_early_end_from_a_close() {
        let (link, _) = receive_all(masked(0x82, b"RED")).await;
        assert_eq!(link, Err(EndReason::ClientEnd));
        let (link, _) = receive_all(masked(0x88, &[])).await;
        assert_eq!(link, Err(EndReason::ClientClose(None)));
    }

    #[tokio::test]
    async fn answers_pings_before_the_link_message() {
        let (mut client, mut gateway) = tokio::io::duplex(1024);
        client.write_all(&masked(0x89, b"hi")).await.unwrap();
        client
            .write_all(&masked(0x82, &link_message()))
            .await
            .unwrap();
        receive(&mut gateway, &mut Inbound::default(), Expected::Spice)
            .await
            .unwrap();
        let mut pong = [0; 4];
        client.read_exact(&mut pong).await.unwrap();
        assert_eq!(&pong, b"\x8a\x02hi");
    }
}
