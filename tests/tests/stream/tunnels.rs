//! Tunnels, on both ports: what they begin with, and where they lead.

use anyhow::{Result, ensure};
use testkit::flexvdi::FlexVdiClient;
use testkit::gateway::GatewayBuilder;
use testkit::net::{Connection, StreamEnd, read_to_end};
use testkit::pattern::{DOWNLINK, write_pattern};
use testkit::prelude::*;
use testkit::spice::read_link;
use testkit::tls::TlsClient;
use testkit::tunnel::Tunnel;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::client::TlsStream;

use crate::channel::linked;
use crate::patterns::expect_end;
use crate::setup::socket_host;
use crate::tunnel::setup::{Ends, open};

/// A gateway with both ports, and a host behind it that leaves its connections to the test.
struct Stage {
    gateway: Gateway,
    _manager: Manager,
    host: Host<TcpStream>,
}

impl Stage {
    async fn start(configure: impl FnOnce(GatewayBuilder) -> GatewayBuilder) -> Result<Self> {
        Self::start_with(configure, |desktop| desktop).await
    }

    /// With a manager that says more of the desktop.
    async fn start_with(
        configure: impl FnOnce(GatewayBuilder) -> GatewayBuilder,
        describe: impl FnOnce(DesktopAnswer) -> DesktopAnswer,
    ) -> Result<Self> {
        let host = socket_host().await?;
        let desktop = describe(DesktopAnswer::new(host.addr()));
        let manager = Manager::spawn(desktop).await?;
        let builder = Gateway::builder().manager(&manager).plain();
        Ok(Self {
            gateway: configure(builder).spawn().await?,
            _manager: manager,
            host,
        })
    }

    fn endpoints(&self) -> [Endpoint; 2] {
        [self.gateway.tls(), self.gateway.plain()]
    }

    async fn ticket(&self) -> Result<String> {
        let client = FlexVdiClient::new(&self.gateway.tls());
        Ok(client.desktop().await?.token)
    }

    /// Opens a tunnel to the host, where the link message has arrived.
    async fn open(&self, endpoint: &Endpoint) -> Result<Ends> {
        open(endpoint, &self.ticket().await?, &self.host).await
    }

    async fn expect_reason(&self, reason: &str) -> Result<String> {
        let is_wanted = |line: &str| line.contains("channel closed") && line.contains(reason);
        self.gateway.wait_for_log(is_wanted, PATIENCE).await
    }
}

#[tokio::test]
async fn nothing_but_spice_reaches_the_host() -> Result<()> {
    let host = Host::record().await?;
    let manager = Manager::spawn(DesktopAnswer::new(host.addr())).await?;
    let builder = Gateway::builder().manager(&manager).plain();
    let gateway = builder.set("LinkTimeout", 1).spawn().await?;
    let ended = |reason: &'static str| {
        let wanted = move |line: &str| line.contains("channel closed") && line.contains(reason);
        gateway.wait_for_log(wanted, PATIENCE)
    };
    for endpoint in [gateway.tls(), gateway.plain()] {
        let ticket = FlexVdiClient::new(&gateway.tls()).desktop().await?.token;
        for begin in [
            &b"GET / HTTP/1.1\r\n\r\n"[..],
            b"SSH-2.0-x\r\n",
            // TLS, which this host has no port for.
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        ] {
            let mut client = Tunnel::new(&endpoint, &ticket).stream().await?;
            client.write_all(begin).await?;
            client.flush().await?;
            expect_end(&mut client).await?;
        }
        ended("client does not speak Spice").await?;
        let mut silent = Tunnel::new(&endpoint, &ticket).stream().await?;
        expect_end(&mut silent).await?;
        ended("no Spice link message in time").await?;
    }
    ensure!(host.received().concat().is_empty(), "{:?}", host.received());
    Ok(())
}

#[tokio::test]
async fn a_link_message_may_come_with_the_request() -> Result<()> {
    let stage = Stage::start(|gateway| gateway).await?;
    let ticket = stage.ticket().await?;
    for endpoint in stage.endpoints() {
        let mut client = endpoint.connect().await?;
        let link = link_message(ChannelType::Main, 0);
        let request = Tunnel::new(&endpoint, &ticket).request();
        client
            .write_all(&[request.as_bytes(), &link].concat())
            .await?;
        client.flush().await?;
        linked(&stage.host, &link).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_host_is_told_of_its_client() -> Result<()> {
    let stage = Stage::start(|gateway| gateway.set("HostProxyProtocol", "v1")).await?;
    let ticket = stage.ticket().await?;
    let mut client = Tunnel::new(&stage.gateway.tls(), &ticket).stream().await?;
    let own = client.tcp().local_addr()?;
    client
        .write_all(&link_message(ChannelType::Main, 0))
        .await?;
    client.flush().await?;
    let mut host = stage.host.outcome().await?;
    let expected = format!(
        "PROXY TCP4 127.0.0.1 127.0.0.1 {} {}\r\n",
        own.port(),
        stage.host.addr().port()
    );
    let mut header = vec![0; expected.len()];
    within("the header", host.read_exact(&mut header)).await??;
    ensure!(header == expected.as_bytes(), "{header:?}");
    within("link message", read_link(&mut host)).await??;
    Ok(())
}

/// A host that speaks TLS with this certificate, and echoes inside of it.
async fn tls_host(cert: &TestCert) -> Result<Host<()>> {
    let acceptor = TlsAcceptor::from(cert.server_config()?);
    Host::spawn(move |stream: TcpStream| {
        let accept = acceptor.accept(stream);
        async move {
            let (mut reader, mut writer) = tokio::io::split(accept.await?);
            tokio::io::copy(&mut reader, &mut writer).await?;
            writer.shutdown().await?;
            Ok(())
        }
    })
    .await
}

/// TLS with the host inside the tunnel, whatever is around it.
async fn tls_inside(tunnel: Connection, cert: &TestCert) -> Result<TlsStream<Connection>> {
    let client = TlsClient::trusting(cert.root())?;
    within("TLS with the host", client.handshake(tunnel)).await?
}

#[tokio::test]
async fn tls_with_the_host_passes_to_its_port_for_that_end_to_end() -> Result<()> {
    const LENGTH: usize = 1_000_000;
    let cert = TestCert::new()?;
    let secure = tls_host(&cert).await?;
    let named = |desktop: DesktopAnswer| desktop.with("spice_tls_port", secure.addr().port());
    let stage = Stage::start_with(|gateway| gateway, named).await?;
    for (round, endpoint) in (1..).zip(stage.endpoints()) {
        let ticket = stage.ticket().await?;
        let tunnel = Tunnel::new(&endpoint, &ticket).stream().await?;
        let client = tls_inside(tunnel, &cert).await?;
        let (mut reader, mut writer) = tokio::io::split(client);
        let write = async {
            write_pattern(&mut writer, DOWNLINK, 0, LENGTH as u64).await?;
            anyhow::Ok(writer.shutdown().await?)
        };
        let read = async {
            let (bytes, end) = read_to_end(&mut reader).await?;
            ensure!(bytes.len() == LENGTH && end == StreamEnd::Closed, "{end:?}");
            Ok(DOWNLINK.check(0, &bytes)?)
        };
        tokio::try_join!(write, read)?;
        ensure!((secure.accepted(), stage.host.accepted()) == (round, round - 1));
        // The same ticket leads a client without TLS to the other port, in frames or without.
        let mut plain = Tunnel::new(&endpoint, &ticket).stream().await?;
        let link = link_message(ChannelType::Main, 0);
        plain.write_all(&link).await?;
        plain.flush().await?;
        linked(&stage.host, &link).await?;
        ensure!((secure.accepted(), stage.host.accepted()) == (round, round));
    }
    let is_open = |line: &str| line.contains("channel open") && line.contains("kind=\"tls\"");
    stage.gateway.wait_for_log(is_open, PATIENCE).await?;
    Ok(())
}

#[tokio::test]
async fn a_port_that_is_not_reached_ends_the_tunnel_with_a_reason() -> Result<()> {
    let closed = testkit::net::free_port()?;
    let named = |desktop: DesktopAnswer| desktop.with("spice_tls_port", closed);
    let stage = Stage::start_with(|gateway| gateway, named).await?;
    for endpoint in stage.endpoints() {
        let tunnel = Tunnel::new(&endpoint, &stage.ticket().await?);
        let mut client = tunnel.stream().await?;
        let hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";
        client.write_all(hello).await?;
        client.flush().await?;
        expect_end(&mut client).await?;
        let line = stage.expect_reason("host not reached").await?;
        ensure!(line.contains("kind=\"none\""), "{line}");
    }
    let told = format!("host=127.0.0.1:{closed}");
    let is_told = |line: &str| line.contains("host not reached") && line.contains(&told);
    stage.gateway.wait_for_log(is_told, PATIENCE).await?;
    ensure!(stage.host.accepted() == 0);
    Ok(())
}

#[tokio::test]
async fn a_client_is_never_sent_a_ping() -> Result<()> {
    let stage = Stage::start(|gateway| gateway.set("KeepAlive", 1)).await?;
    let mut ends = stage.open(&stage.gateway.tls()).await?;
    // As long as a client that does not answer would be left alone.
    tokio::time::sleep(std::time::Duration::from_secs(4)).await;
    ends.downlink(1_000).await
}
