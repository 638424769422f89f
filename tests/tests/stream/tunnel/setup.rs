//! Tunnels through a gateway to the host behind it.

use anyhow::Result;
use testkit::net::Connection;
use testkit::pattern::{DOWNLINK, Pattern, UPLINK, write_pattern};
use testkit::prelude::*;
use testkit::tunnel::Tunnel;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::channel::linked;
use crate::patterns::read_exactly;
use crate::stage::Stage;

impl Stage {
    /// Opens a tunnel to the stage's host, where its link message has arrived.
    pub(crate) async fn open_tunnel(&self) -> Result<Ends> {
        self.open_tunnel_at(&self.endpoint).await
    }

    /// The same from a client of another kind.
    pub(crate) async fn open_tunnel_at(&self, endpoint: &Endpoint) -> Result<Ends> {
        let ticket = self.gateway.ticket(self.host.addr()).await?;
        let ends = open(endpoint, &ticket, &self.host).await?;
        self.expect_path().await?;
        Ok(ends)
    }
}

/// Opens a tunnel to a host.
pub(crate) async fn open(
    endpoint: &Endpoint,
    ticket: &str,
    host: &Host<TcpStream>,
) -> Result<Ends> {
    let mut client = Tunnel::new(endpoint, ticket).stream().await?;
    let link = link_message(ChannelType::Main, 0);
    client.write_all(&link).await?;
    client.flush().await?;
    Ok(Ends {
        client,
        host: linked(host, &link).await?,
        up: 0,
        down: 0,
    })
}

/// Both ends of a tunnel, and how much of the patterns has gone through it, in bytes.
pub(crate) struct Ends {
    pub(crate) client: Connection,
    pub(crate) host: TcpStream,
    pub(crate) up: u64,
    pub(crate) down: u64,
}

impl Ends {
    /// The host writes this many bytes, in one piece up to 64 KiB; the client receives them.
    pub(crate) async fn downlink(&mut self, length: u64) -> Result<()> {
        let start = self.down;
        let write = send(&mut self.host, DOWNLINK, start, length);
        let read = read_exactly(&mut self.client, DOWNLINK, start, length);
        tokio::try_join!(write, read)?;
        self.down += length;
        Ok(())
    }

    /// The client writes this many bytes; the host receives them.
    pub(crate) async fn uplink(&mut self, length: u64) -> Result<()> {
        let start = self.up;
        let write = send(&mut self.client, UPLINK, start, length);
        let read = read_exactly(&mut self.host, UPLINK, start, length);
        tokio::try_join!(write, read)?;
        self.up += length;
        Ok(())
    }
}

/// Sends this part of a pattern.
pub(crate) async fn send(
    stream: &mut (impl AsyncWrite + Unpin),
    pattern: Pattern,
    start: u64,
    length: u64,
) -> Result<()> {
    write_pattern(stream, pattern, start, length).await?;
    Ok(stream.flush().await?)
}
