//! Carries TCP connections through WebSockets, so that a real Spice client can use the gateway.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures_util::{SinkExt, Stream, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::watch;
use tokio::time::timeout;
use tungstenite::Message;
use tungstenite::error::ProtocolError;

use crate::net::{Server, within};
use crate::ws::Connect;

/// Bytes: the most that the flexVDI client puts into a frame.
const UPLINK_FRAME: usize = 4096;
/// How long the gateway may take to answer a Close frame.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);

/// What went through an adapter so far.
#[derive(Clone, Debug, Default)]
pub struct Traffic {
    /// WebSockets that were opened.
    pub websockets: u64,
    /// Connections of clients that are being served.
    pub open: u64,
    /// Bytes of payload from clients to the gateway.
    pub uplink_bytes: u64,
    /// Bytes of payload from the gateway to clients.
    pub downlink_bytes: u64,
    /// Binary messages from the gateway.
    pub downlink_messages: u64,
    /// Bytes of the largest of them.
    pub largest_downlink_message: usize,
    /// Pings from the gateway, each answered.
    pub pings: u64,
    /// What the gateway did wrong or refused; empty when all is well.
    pub faults: Vec<String>,
}

/// A listener for Spice clients; each of their connections becomes a WebSocket.
pub struct Adapter {
    server: Server,
    traffic: Arc<watch::Sender<Traffic>>,
}

impl Adapter {
    /// Listens on a port of its own of 127.0.0.1 until dropped; `connect` makes the handshake of
    /// each WebSocket.
    pub async fn start(connect: impl Fn() -> Connect + Send + 'static) -> Result<Self> {
        let traffic = Arc::new(watch::channel(Traffic::default()).0);
        let shared = traffic.clone();
        let server = Server::spawn((Ipv4Addr::LOCALHOST, 0).into(), move |client, _| {
            let (connect, traffic) = (connect(), shared.clone());
            async move {
                traffic.send_modify(|traffic| traffic.open += 1);
                let end = carry(client, connect, &traffic).await;
                traffic.send_modify(|traffic| {
                    traffic.open -= 1;
                    traffic
                        .faults
                        .extend(end.err().map(|fault| format!("{fault:#}")));
                });
            }
        })
        .await?;
        Ok(Self { server, traffic })
    }

    /// Where clients connect.
    pub fn addr(&self) -> SocketAddr {
        self.server.addr()
    }

    /// What went through so far.
    pub fn traffic(&self) -> Traffic {
        self.traffic.borrow().clone()
    }

    /// What went through once every connection has come to its end.
    pub async fn finished(&self) -> Result<Traffic> {
        let mut traffic = self.traffic.subscribe();
        let ended = within("end of an adapter's connections", async {
            traffic
                .wait_for(|traffic| traffic.open == 0)
                .await
                .map(|traffic| traffic.clone())
        });
        ended.await?.context("the adapter ended")
    }
}

/// Carries one connection; fails only by the gateway's fault.
async fn carry(
    client: TcpStream,
    connect: Connect,
    traffic: &watch::Sender<Traffic>,
) -> Result<()> {
    let websocket = connect.open().await?.opened()?;
    traffic.send_modify(|traffic| traffic.websockets += 1);
    let (mut sink, stream) = websocket.split();
    let (from_client, to_client) = client.into_split();
    let uplink = carry_uplink(from_client, &mut sink, traffic);
    let downlink = carry_downlink(stream, to_client, traffic);
    tokio::pin!(downlink);
    tokio::select! {
        end = &mut downlink => end,
        () = uplink => timeout(CLOSE_LIMIT, downlink)
            .await
            .with_context(|| format!("no end of the WebSocket {CLOSE_LIMIT:?} after the Close"))?,
    }
}

/// Ends with a Close frame once the client is done, or when the gateway takes no more.
async fn carry_uplink(
    mut client: OwnedReadHalf,
    sink: &mut (impl SinkExt<Message, Error = tungstenite::Error> + Unpin),
    traffic: &watch::Sender<Traffic>,
) {
    let mut buffer = vec![0; UPLINK_FRAME];
    // A client that leaves by RST has left like any other.
    while let Ok(length @ 1..) = client.read(&mut buffer).await {
        let message = Message::binary(buffer[..length].to_vec());
        if sink.send(message).await.is_err() {
            // The downlink learns why.
            return;
        }
        traffic.send_modify(|traffic| traffic.uplink_bytes += length as u64);
    }
    let _ = sink.close().await;
}

async fn carry_downlink(
    mut stream: impl Stream<Item = tungstenite::Result<Message>> + Unpin,
    mut client: OwnedWriteHalf,
    traffic: &watch::Sender<Traffic>,
) -> Result<()> {
    while let Some(message) = stream.next().await {
        match message {
            Ok(Message::Binary(bytes)) => {
                traffic.send_modify(|traffic| {
                    traffic.downlink_bytes += bytes.len() as u64;
                    traffic.downlink_messages += 1;
                    traffic.largest_downlink_message =
                        traffic.largest_downlink_message.max(bytes.len());
                });
                if client.write_all(&bytes).await.is_err() {
                    return Ok(());
                }
            }
            // Reading on answers it.
            Ok(Message::Ping(_)) => traffic.send_modify(|traffic| traffic.pings += 1),
            Ok(Message::Text(_)) => bail!("the gateway sent text"),
            Ok(_) => {}
            Err(tungstenite::Error::Protocol(ProtocolError::ResetWithoutClosingHandshake)) => {
                bail!("the gateway closed the connection without a Close frame")
            }
            Err(error) => return Err(error).context("reading from the gateway"),
        }
    }
    // The client has gone when this fails.
    let _ = client.shutdown().await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Endpoint;
    use crate::packages::{self, Package};
    use crate::qemu::SpiceVm;
    use crate::screenshot;

    #[tokio::test]
    async fn a_frame_that_is_too_large_is_a_fault() {
        packages::ensure(&[Package::Qemu, Package::SpiceScreenshot]).unwrap();
        let vm = SpiceVm::start(None).await.unwrap();
        // A Spice server speaks WebSocket itself, but with larger frames than a gateway may send.
        let server = Endpoint::plain(vm.address());
        let adapter = Adapter::start(move || Connect::new(&server, "any"))
            .await
            .unwrap();
        assert!(screenshot::take(adapter.addr(), None).await.is_err());
        let faults = adapter.finished().await.unwrap().faults;
        assert!(
            faults
                .iter()
                .any(|fault| fault.contains("Message too long")),
            "{faults:?}"
        );
    }
}
