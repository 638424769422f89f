//! A gateway whose tunnels come to one of its ports, a host behind it and tunnels through it.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use testkit::gateway::{GatewayBuilder, gateway_binary};
use testkit::net::{Connection, StreamEnd, read_to_end};
use testkit::network::{self, Network};
use testkit::pattern::{DOWNLINK, Pattern, UPLINK, write_pattern};
use testkit::prelude::*;
use testkit::spice::read_link;
use testkit::tunnel::Tunnel;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::process::Command;

use crate::setup::{closing_down_to, socket_host, tell_of};

/// A kind of leg to be tested.
#[derive(Clone, Copy)]
pub(crate) struct Setup {
    /// Makes a gateway have it.
    configure: fn(GatewayBuilder) -> GatewayBuilder,
    /// The port whose tunnels use it.
    endpoint: fn(&Gateway) -> Endpoint,
}

pub(crate) const RELAY_TLS: Setup = Setup {
    configure: |gateway| gateway,
    endpoint: Gateway::tls,
};

pub(crate) const RELAY_PLAIN: Setup = Setup {
    configure: GatewayBuilder::plain,
    endpoint: Gateway::plain,
};

impl Setup {
    /// Starts a gateway with its own defaults.
    pub(crate) async fn start(self) -> Result<Stage> {
        self.start_with(|gateway| gateway).await
    }

    /// Starts a gateway that is configured further.
    pub(crate) async fn start_with(
        self,
        more: impl FnOnce(GatewayBuilder) -> GatewayBuilder,
    ) -> Result<Stage> {
        self.start_before(socket_host().await?, more).await
    }

    /// Starts a gateway and a host where a network has its own; tunnels are opened from where it
    /// has its client.
    pub(crate) async fn start_in_with(
        self,
        network: &Network,
        more: impl FnOnce(GatewayBuilder) -> GatewayBuilder,
    ) -> Result<Stage> {
        let host = Host::spawn_in(&network.host, network::HOST.into(), |stream| async move {
            Ok(stream)
        })?;
        let inside = |gateway: GatewayBuilder| more(gateway.in_network(network));
        let mut stage = self.start_before(host, inside).await?;
        stage.endpoint = stage.endpoint.clone().in_namespace(&network.client);
        Ok(stage)
    }

    async fn start_before(
        self,
        host: Host<TcpStream>,
        more: impl FnOnce(GatewayBuilder) -> GatewayBuilder,
    ) -> Result<Stage> {
        let gateway = more((self.configure)(Gateway::builder())).spawn().await?;
        let endpoint = (self.endpoint)(&gateway);
        let open_fds = gateway.open_fds_but_pipes()?;
        Ok(Stage {
            gateway,
            endpoint,
            host,
            open_fds,
        })
    }
}

/// A running gateway and a host behind it.
pub(crate) struct Stage {
    pub(crate) gateway: Gateway,
    pub(crate) endpoint: Endpoint,
    pub(crate) host: Host<TcpStream>,
    /// Before the first tunnel.
    open_fds: usize,
}

impl Stage {
    /// Opens a tunnel to the stage's host, where its link message has arrived.
    pub(crate) async fn open(&self) -> Result<Ends> {
        self.open_at(&self.endpoint).await
    }

    /// The same from a client of another kind.
    pub(crate) async fn open_at(&self, endpoint: &Endpoint) -> Result<Ends> {
        let ticket = self.ticket(self.host.addr()).await?;
        let ends = open(endpoint, &ticket, &self.host).await?;
        self.expect_path().await?;
        Ok(ends)
    }

    /// A ticket for a host, from the socket for administrators.
    pub(crate) async fn ticket(&self, host: SocketAddr) -> Result<String> {
        let socket = self.gateway.runtime_dir().join("admin.sock");
        let mut stream = UnixStream::connect(socket).await?;
        let order = json!({"host": host.ip().to_string(), "port": host.port()}).to_string();
        let request = format!(
            "POST /tickets HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{order}",
            order.len()
        );
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        within("a ticket", stream.read_to_string(&mut answer)).await??;
        let body = answer.split_once("\r\n\r\n").map(|(_, body)| body);
        let body: Value = serde_json::from_str(body.context("an answer without a body")?)?;
        let ticket = body["ticket"].as_str();
        Ok(ticket.with_context(|| answer.clone())?.to_owned())
    }

    /// Checks that the first tunnel took the data path of all tunnels.
    pub(crate) async fn expect_path(&self) -> Result<()> {
        let line = self.wait_for_log("channel open").await?;
        ensure!(line.contains("path=\"relay\""), "{line:?}");
        Ok(())
    }

    /// Waits for a line of the log with this text.
    pub(crate) async fn wait_for_log(&self, text: &str) -> Result<String> {
        let has_text = |line: &str| line.contains(text);
        self.gateway.wait_for_log(has_text, PATIENCE).await
    }

    /// Waits for a line of the log that says that a tunnel has ended for this reason.
    pub(crate) async fn expect_reason(&self, reason: &str) -> Result<String> {
        let is_wanted = |line: &str| line.contains("channel closed") && line.contains(reason);
        let line = self.gateway.wait_for_log(is_wanted, PATIENCE).await;
        line.with_context(|| format!("no tunnel ended for the reason {reason:?}"))
    }

    /// Waits until the gateway has no more descriptors open than before the first tunnel.
    pub(crate) async fn expect_no_tunnel(&self) -> Result<()> {
        closing_down_to(&self.gateway, self.open_fds).await
    }

    /// Runs a command of the gateway's binary with this gateway's configuration.
    pub(crate) async fn command(&self, arguments: &[&str]) -> Result<()> {
        let mut command = Command::new(gateway_binary()?);
        command
            .arg("--config")
            .arg(self.gateway.config_path())
            .args(arguments)
            .kill_on_drop(true);
        let output = within("a command of the gateway", command.output()).await??;
        ensure!(output.status.success(), "{arguments:?}: {output:?}");
        Ok(())
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        tell_of(&mut self.gateway);
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
    let mut host = host.outcome().await?;
    let received = within("link message", read_link(&mut host)).await??;
    ensure!(received == link, "another link message arrived");
    Ok(Ends {
        client,
        host,
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
        let write = async { Ok(write_pattern(&mut self.host, DOWNLINK, start, length).await?) };
        tokio::try_join!(
            write,
            read_exactly(&mut self.client, DOWNLINK, start, length)
        )?;
        self.down += length;
        Ok(())
    }

    /// The client writes this many bytes; the host receives them.
    pub(crate) async fn uplink(&mut self, length: u64) -> Result<()> {
        let start = self.up;
        let write = send(&mut self.client, UPLINK, start, length);
        tokio::try_join!(write, read_exactly(&mut self.host, UPLINK, start, length))?;
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

/// Sends a pattern in writes of these sizes, one after the other.
pub(crate) async fn send_sizes(
    stream: &mut (impl AsyncWrite + Unpin),
    pattern: Pattern,
    sizes: &[usize],
) -> Result<()> {
    let mut at = 0;
    for size in sizes {
        stream.write_all(&pattern.bytes(at, *size)).await?;
        stream.flush().await?;
        at += *size as u64;
    }
    Ok(())
}

/// Reads exactly this part of a pattern.
pub(crate) async fn read_exactly(
    stream: &mut (impl AsyncRead + Unpin),
    pattern: Pattern,
    start: u64,
    length: u64,
) -> Result<()> {
    let mut buffer = vec![0; 256 * 1024];
    let mut at = start;
    while at < start + length {
        let most = usize::try_from(start + length - at)?.min(buffer.len());
        let read = within("bytes", stream.read(&mut buffer[..most])).await??;
        ensure!(read > 0, "the stream ended after {at} bytes");
        pattern.check(at, &buffer[..read])?;
        at += read as u64;
    }
    Ok(())
}

/// The stream must end here, and in order.
pub(crate) async fn expect_end(stream: &mut (impl AsyncRead + Unpin)) -> Result<()> {
    let (rest, end) = read_to_end(stream).await?;
    ensure!(rest.is_empty(), "{} bytes more than were sent", rest.len());
    ensure!(end == StreamEnd::Closed, "the end is {end:?}");
    Ok(())
}
