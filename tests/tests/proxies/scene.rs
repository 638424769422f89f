//! A manager, a host and a gateway for a proxy to stand in front of, and what must work through
//! it.

use std::io;
use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use http::StatusCode;
use serde_json::json;
use tempfile::TempDir;
use testkit::browser;
use testkit::flexvdi::{Desktop, FlexVdiClient};
use testkit::gateway::GatewayBuilder;
use testkit::host::{End, Verified};
use testkit::http::Call;
use testkit::pattern::{DOWNLINK, UPLINK, write_pattern};
use testkit::prelude::*;
use testkit::ws::{Channel, Frame, Opcode, RawClient};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::process::Proxy;

/// The name of the proxy, as clients know it and as the documented files have it.
pub(crate) const PUBLIC_NAME: &str = "vdi.example.com";
/// What each side of a channel sends, in bytes.
const UP: u64 = 3 << 20;
const DOWN: u64 = 6 << 20;
/// Seconds after which the tests' proxies cut a silent channel.
pub(crate) const PROXY_PATIENCE: u32 = 3;
/// Pings, one each second, after which a channel has been idle for twice that long.
const PINGS: u32 = 2 * PROXY_PATIENCE + 1;

/// The peers behind a proxy.
pub(crate) struct Scene {
    pub(crate) manager: Manager,
    pub(crate) host: Host<Verified>,
    pub(crate) gateway: Gateway,
    _spice_html5: TempDir,
}

impl Scene {
    /// A host that sends [`DOWN`] bytes and ends as told, behind a gateway that trusts a proxy
    /// on 127.0.0.1 and is set up further by `configure`.
    pub(crate) async fn new(
        end: End,
        configure: impl FnOnce(GatewayBuilder) -> GatewayBuilder,
    ) -> Result<Self> {
        let host = Host::send(DOWN, end).await?;
        let manager = Manager::spawn(DesktopAnswer::new(host.addr())).await?;
        let (spice_html5, _) = browser::stub_spice_html5()?;
        let builder = Gateway::builder()
            .manager(&manager)
            .plain()
            .set("WebClient", json!(spice_html5.path()))
            .set("TrustedProxies", vec!["127.0.0.1"]);
        let gateway = configure(builder).spawn().await?;
        Ok(Self {
            manager,
            host,
            gateway,
            _spice_html5: spice_html5,
        })
    }

    /// The address of the plaintext port, as the proxies' files have it.
    pub(crate) fn backend(&self) -> String {
        self.gateway.plain_addr().to_string()
    }

    /// The whole way of a client through a documented proxy: the manager's API, channels with
    /// data both ways and both kinds of end, and what the log says of it.
    ///
    /// The host must be one that holds its connections.
    pub(crate) async fn works_through(&self, proxy: &Proxy) -> Result<()> {
        // Not an address that is trusted itself.
        let client_address: IpAddr = "127.0.0.7".parse()?;
        let endpoint = proxy.tls().from_source(client_address);
        let client = FlexVdiClient::new(&endpoint).host(PUBLIC_NAME);
        let desktop = client.desktop().await?;
        ensure!(desktop.address == PUBLIC_NAME, "{}", desktop.address);
        ensure!(desktop.token != self.host.addr().port().to_string());

        for kind in ChannelType::PLAIN_VM {
            let channel = client.open(&desktop).await?;
            self.data_flows(channel, kind).await?;
        }
        self.log_has("desktop assigned", client_address).await?;
        self.log_has("channel closed", client_address).await?;
        self.forwarded_is_right(client_address)?;

        browser_opens(&endpoint, &desktop).await?;
        page_is_shown(&endpoint).await?;
        self.inventions_are_not_believed(&endpoint, client_address)
            .await?;
        let log = proxy.log()?;
        ensure!(!log.contains(&desktop.token), "a ticket in the log:\n{log}");
        ensure!(
            log.contains("/vdi/desktop"),
            "no request in the log:\n{log}"
        );
        Ok(())
    }

    /// Several MiB both ways at once, then a Close of the client that reaches the host.
    pub(crate) async fn data_flows(&self, channel: Channel, kind: ChannelType) -> Result<()> {
        let channel = self.data_flows_in(channel, kind).await?;
        let code = channel.close_code();
        ensure!(code == Some(1000), "the answer to Close 1000 was {code:?}");
        Ok(())
    }

    /// The same in a stream of whatever kind, which ends; gives it back.
    pub(crate) async fn data_flows_in<S>(&self, mut stream: S, kind: ChannelType) -> Result<S>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let link = link_message(kind, 0);
        within("sending a link message", stream.write_all(&link)).await??;
        let (mut reader, mut writer) = tokio::io::split(stream);
        let receive = async {
            let mut received = vec![0; usize::try_from(DOWN)?];
            reader.read_exact(&mut received).await?;
            anyhow::Ok(DOWNLINK.check(0, &received)?)
        };
        let both = async {
            tokio::try_join!(receive, async {
                anyhow::Ok(write_pattern(&mut writer, UPLINK, 0, UP).await?)
            })
        };
        within("bytes of a channel", both).await??;

        within("the client's end", writer.shutdown()).await??;
        let verified = self.host.outcome().await?;
        ensure!(verified == Verified { link, bytes: UP }, "{verified:?}");
        let mut rest = Vec::new();
        read_to_end(&mut reader, &mut rest).await?;
        ensure!(rest.is_empty(), "{} bytes too many", rest.len());
        Ok(reader.unsplit(writer))
    }

    /// The host's end reaches the client as a Close; the host must be one that ends by itself.
    pub(crate) async fn hosts_end_is_told(&self, proxy: &Proxy) -> Result<()> {
        let client = FlexVdiClient::new(&proxy.tls()).host(PUBLIC_NAME);
        let desktop = client.desktop().await?;
        let channels = client.channels(&desktop, &[(ChannelType::Main, 0)]).await?;
        let mut channel = channels.into_iter().next().context("one channel")?;
        let mut received = Vec::new();
        read_to_end(&mut channel, &mut received).await?;
        DOWNLINK.check(0, &received)?;
        ensure!(received.len() as u64 == DOWN, "{} bytes", received.len());
        ensure!(channel.close_code() == Some(1000));
        Ok(())
    }

    /// A channel on which only Pings and Pongs move lives on; without Pings the proxy cuts it.
    pub(crate) async fn pings_keep_alive(&self, proxy: &Proxy) -> Result<()> {
        let desktop = FlexVdiClient::new(&proxy.tls()).desktop().await?;
        let mut answering = self.idle_channel(proxy, "ver=2&", &desktop).await?;
        for _ in 0..PINGS {
            let ping = answering.read_frame().await?;
            ensure!(ping.opcode == Opcode::PING, "{ping:?}");
            let answer = Frame::new(Opcode::PONG, ping.payload);
            answering.send_frame(&answer).await?;
        }
        answering.send_frame(&Frame::close(1000)).await?;
        loop {
            let frame = answering.read_frame().await?;
            if frame.opcode == Opcode::CLOSE {
                ensure!(frame.close_code() == Some(1000), "{frame:?}");
                break;
            }
        }

        let mut silent = self.idle_channel(proxy, "", &desktop).await?;
        // HAProxy ends one direction first, so the gateway's Close may still come.
        silent.read_to_end().await?;
        Ok(())
    }

    /// A channel whose host has sent all that it has to send.
    async fn idle_channel(
        &self,
        proxy: &Proxy,
        version: &str,
        desktop: &Desktop,
    ) -> Result<RawClient> {
        let target = format!("/?{version}token={}", desktop.token);
        let mut client = RawClient::open(&proxy.tls(), &target).await?;
        let link = link_message(ChannelType::Cursor, 0);
        client.send_frame(&Frame::binary(link)).await?;
        let mut left = usize::try_from(DOWN)?;
        while left > 0 {
            let frame = client.read_frame().await?;
            if frame.opcode == Opcode::BINARY {
                left -= frame.payload.len();
            }
        }
        Ok(client)
    }

    /// Waits until the gateway has logged `message` with this client.
    pub(crate) async fn log_has(&self, message: &str, client: IpAddr) -> Result<()> {
        let field = format!("client={client}");
        let wanted = |line: &str| {
            line.contains(message) && line.split_whitespace().any(|word| word == field)
        };
        self.gateway.wait_for_log(wanted, PATIENCE).await?;
        Ok(())
    }

    /// What the manager was told of the last request.
    fn forwarded_is_right(&self, client: IpAddr) -> Result<()> {
        let requests = self.manager.requests();
        let request = requests.last().context("requests at the manager")?;
        let header = |name| request.header(name).map(str::to_owned);
        let told = ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host"].map(header);
        let right = [
            format!("{client}, 127.0.0.1"),
            "https".to_owned(),
            PUBLIC_NAME.to_owned(),
        ];
        ensure!(told == right.map(Some), "the manager was told otherwise");
        Ok(())
    }

    /// What a client writes into `X-Forwarded-*` itself changes neither its address in the log
    /// nor the name in its answer.
    async fn inventions_are_not_believed(&self, endpoint: &Endpoint, client: IpAddr) -> Result<()> {
        let assigned = |line: &str| line.contains("desktop assigned");
        let before = self.gateway.count_logged("desktop assigned").await;
        let body = r#"{"hwaddress":"","username":"user","password":"","desktop":""}"#;
        let response = Call::post(endpoint, "/vdi/desktop", body)
            .header("Host", PUBLIC_NAME)
            .header("X-Forwarded-For", "198.51.100.9")
            .header("X-Forwarded-Host", "elsewhere.example")
            .send()
            .await?;
        let answer: serde_json::Value = serde_json::from_slice(response.body())?;
        ensure!(answer["spice_address"] == PUBLIC_NAME, "{response:?}");

        let line = self
            .gateway
            .wait_for_another(before, assigned, PATIENCE)
            .await?;
        ensure!(line.contains(&format!("client={client} ")), "{line}");
        Ok(())
    }
}

/// Reads a channel to its end. Apache ends TLS without `close_notify`, so whether the end was in
/// order is for the Close frame to tell.
async fn read_to_end(reader: &mut (impl AsyncRead + Unpin), received: &mut Vec<u8>) -> Result<()> {
    match within("end of a channel", reader.read_to_end(received)).await? {
        Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => Err(error.into()),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// The page for browsers comes through, and may open channels at the proxy's name.
async fn page_is_shown(endpoint: &Endpoint) -> Result<()> {
    for path in ["/", "/webclient/login.js", "/webclient/spice-html5/main.js"] {
        let answer = Call::get(endpoint, path).header("Host", PUBLIC_NAME);
        let answer = answer.send().await?;
        ensure!(answer.status() == StatusCode::OK, "{path}: {answer:?}");
        let policy = answer.headers()["content-security-policy"].to_str()?;
        let connect = format!("connect-src 'self' wss://{PUBLIC_NAME}");
        ensure!(policy.ends_with(&connect), "{policy}");
    }
    Ok(())
}

/// A browser offers the subprotocol `binary` and gets it.
async fn browser_opens(endpoint: &Endpoint, desktop: &Desktop) -> Result<()> {
    let connect = ws::Connect::new(endpoint, &desktop.token)
        .header("Host", PUBLIC_NAME)
        .header("Origin", &format!("https://{PUBLIC_NAME}"))
        .header("Sec-WebSocket-Extensions", "permessage-deflate")
        .subprotocol("binary");
    connect.open().await?.opened()?;
    Ok(())
}
