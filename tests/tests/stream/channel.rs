//! A channel through a gateway: both of its ends in one hand.

use anyhow::{Result, ensure};
use testkit::pattern::{DOWNLINK, UPLINK, write_pattern};
use testkit::prelude::*;
use testkit::spice::read_link;
use testkit::ws::{Frame, Opcode, RawClient};
use tokio::net::TcpStream;

use crate::patterns::{expect_pong, expect_uplink_end, read_downlink, read_uplink};

/// The target of a channel to this host; its client answers Pings.
pub(crate) fn target<T: Send + 'static>(host: &Host<T>) -> String {
    format!("/?ver=2&token={}", host.addr().port())
}

/// Opens a channel to a host.
pub(crate) async fn open(
    endpoint: &Endpoint,
    host: &Host<TcpStream>,
    target: &str,
) -> Result<Channel> {
    let mut client = RawClient::open(endpoint, target).await?;
    let link = link_message(ChannelType::Main, 0);
    client.send_frame(&Frame::binary(link.clone())).await?;
    Ok(Channel {
        client,
        host: linked(host, &link).await?,
        up: 0,
        down: 0,
    })
}

/// The next connection to a host, where this link message must arrive.
pub(crate) async fn linked(host: &Host<TcpStream>, link: &[u8]) -> Result<TcpStream> {
    let mut host = host.outcome().await?;
    let received = within("link message", read_link(&mut host)).await??;
    ensure!(received == link, "another link message arrived");
    Ok(host)
}

/// An open channel and how much of the patterns has gone through it, in bytes.
pub(crate) struct Channel {
    pub(crate) client: RawClient,
    pub(crate) host: TcpStream,
    pub(crate) up: u64,
    pub(crate) down: u64,
}

impl Channel {
    /// The host writes this many bytes, in one piece up to 64 KiB; the client receives them.
    pub(crate) async fn downlink(&mut self, length: u64) -> Result<()> {
        let start = self.down;
        let write = async { Ok(write_pattern(&mut self.host, DOWNLINK, start, length).await?) };
        let read = read_downlink(&mut self.client, start, length);
        tokio::try_join!(write, read)?;
        self.down += length;
        Ok(())
    }

    /// The next part of the uplink's pattern as a frame.
    pub(crate) fn next_frame(&mut self, length: usize) -> Frame {
        let frame = Frame::binary(UPLINK.bytes(self.up, length));
        self.up += length as u64;
        frame
    }

    /// The client sends one frame with this many bytes; the host receives them.
    pub(crate) async fn uplink(&mut self, length: usize) -> Result<()> {
        let start = self.up;
        let frame = self.next_frame(length);
        let read = read_uplink(&mut self.host, start, length as u64);
        tokio::try_join!(self.client.send_frame(&frame), read)?;
        Ok(())
    }

    /// Sends a Ping and reads the Pong to it, which must be the next frame.
    pub(crate) async fn ping(&mut self, payload: &[u8]) -> Result<()> {
        let ping = Frame::new(Opcode::PING, payload);
        self.client.send_frame(&ping).await?;
        expect_pong(&self.client.read_frame().await?, payload)
    }

    /// The host must receive nothing more but the end.
    pub(crate) async fn expect_host_end(&mut self) -> Result<()> {
        expect_uplink_end(&mut self.host, self.up, self.up).await
    }
}
