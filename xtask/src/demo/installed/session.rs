//! A user of the installed gateway.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use testkit::flexvdi::FlexVdiClient;
use testkit::host::Host;
use testkit::manager::{DesktopAnswer, Manager};
use testkit::net::{Endpoint, within};
use testkit::replay::{Played, Recording, Speed};
use testkit::spice::{ChannelType, link_message};
use testkit::ws::Channel;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

use crate::demo::Desktop;
use crate::steps::Steps;

/// Where the gateway's TLS port is.
pub(super) const GATEWAY: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 443));

/// Why a gateway that ends closes a channel (RFC 6455, section 7.4.1).
const GOING_AWAY: u16 = 1001;

/// How fast a session is played through a restart and an upgrade: so that it outlasts both.
const PACE: Speed = Speed::Times(2.0);

/// A user with a desktop behind the gateway on the usual port.
pub(super) struct Session {
    endpoint: Endpoint,
    client: FlexVdiClient,
    manager: Manager,
    desktop: Desktop,
    /// A host that sends back what it gets, whose channel is held open.
    echo: Host<Vec<u8>>,
}

impl Session {
    pub(super) async fn new(manager: Manager, desktop: Desktop) -> Result<Self> {
        let endpoint = Endpoint::tls(GATEWAY);
        Ok(Self {
            client: FlexVdiClient::new(&endpoint).host("localhost:443"),
            endpoint,
            manager,
            desktop,
            echo: Host::echo().await?,
        })
    }

    /// Logs in and uses the desktop.
    pub(super) async fn visit(&self, steps: &mut Steps) -> Result<()> {
        self.manager.set_desktop(self.desktop.answer());
        let given = self.client.desktop().await?;
        let endpoint = &self.endpoint;
        self.desktop
            .visit(steps, &self.client, endpoint, given)
            .await
    }

    /// Begins a recorded session that lasts for some seconds.
    pub(super) async fn play(&self) -> Result<Playing> {
        let recording = Recording::load()?;
        let host = recording.host(PACE).await?;
        self.manager.set_desktop(DesktopAnswer::new(host.addr()));
        let given = self.client.desktop().await?;
        let mut channels = JoinSet::new();
        for index in 0..recording.channels().len() {
            let stream = self.client.open(&given).await?;
            let recording = Arc::clone(&recording);
            channels.spawn(async move {
                let channel = &recording.channels()[index];
                let played = channel.play_client(stream, PACE).await;
                played.with_context(|| format!("{} channel", channel.channel_type))
            });
        }
        Ok(Playing {
            channels,
            host,
            ended: Vec::new(),
        })
    }

    /// Opens a channel that stays open.
    pub(super) async fn open(&self) -> Result<Held> {
        self.open_by(&self.client).await
    }

    /// The same through another of the gateway's ports.
    pub(super) async fn open_at(&self, endpoint: &Endpoint) -> Result<Held> {
        self.open_by(&FlexVdiClient::new(endpoint)).await
    }

    async fn open_by(&self, client: &FlexVdiClient) -> Result<Held> {
        self.manager
            .set_desktop(DesktopAnswer::new(self.echo.addr()));
        let given = client.desktop().await?;
        let mut held = Held(client.open(&given).await?);
        let came = held.echo(&link_message(ChannelType::Main, 0)).await?;
        ensure!(came, "the channel ended at once");
        Ok(held)
    }
}

/// A recorded session of all of a desktop's channels that is under way.
pub(super) struct Playing {
    channels: JoinSet<Result<Played>>,
    host: Host<Played>,
    ended: Vec<Played>,
}

impl Playing {
    /// Fails unless nothing went wrong so far, and there is more to come.
    pub(super) fn goes_on(&mut self) -> Result<()> {
        while let Some(ended) = self.channels.try_join_next() {
            self.ended.push(ended??);
        }
        ensure!(!self.channels.is_empty(), "the session is over already");
        Ok(())
    }

    /// Waits for its end; tells how many bytes both ends have verified.
    pub(super) async fn finish(mut self) -> Result<u64> {
        while let Some(ended) = self.channels.join_next().await {
            self.ended.push(ended??);
        }
        for _ in &self.ended {
            self.host.outcome().await?;
        }
        let bytes = self.ended.iter().map(|end| end.uplink + end.downlink);
        Ok(bytes.sum())
    }
}

/// A channel that is open while the gateway is replaced.
pub(super) struct Held(Channel);

impl Held {
    /// Fails unless it goes on, byte for byte.
    pub(super) async fn survives(&mut self) -> Result<()> {
        let bytes: Vec<u8> = (0..200_000_u32).flat_map(u32::to_be_bytes).collect();
        if self.echo(&bytes).await? {
            return Ok(());
        }
        match self.0.close_code() {
            Some(code) => bail!("the open channel was closed with {code}"),
            None => bail!("the open channel ended without a Close frame"),
        }
    }

    /// Fails unless it was closed as a gateway that ends does.
    pub(super) async fn is_closed(&mut self) -> Result<()> {
        ensure!(!self.echo(b"still there?").await?, "it goes on");
        let code = self
            .0
            .close_code()
            .context("it ended without a Close frame")?;
        ensure!(code == GOING_AWAY, "it was closed with {code}");
        Ok(())
    }

    /// Whether the bytes came back before the end.
    async fn echo(&mut self, bytes: &[u8]) -> Result<bool> {
        let exchange = async {
            // In pieces, so that the echo is read before the sockets on its way are full.
            for piece in bytes.chunks(10_000) {
                if self.0.write_all(piece).await.is_ok() {
                    // An end is seen by the reading below.
                    let _ = self.0.flush().await;
                }
                let mut back = vec![0; piece.len()];
                if self.0.read_exact(&mut back).await.is_err() || back != piece {
                    return false;
                }
            }
            true
        };
        within("an answer on the channel that is held", exchange).await
    }
}
