//! A gateway with a certain data path, hosts behind it and channels through it.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use testkit::gateway::GatewayBuilder;
use testkit::net::{StreamEnd, read_to_end};
use testkit::network::{self, Network};
use testkit::pattern::{DOWNLINK, Pattern, UPLINK, write_pattern};
use testkit::prelude::*;
use testkit::spice::read_link;
use testkit::ws::{Frame, Opcode, RawClient};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

/// Largest payload of a server frame, in bytes.
const LONGEST_PAYLOAD: usize = 65_536;

/// A data path to be tested.
#[derive(Clone, Copy)]
pub(crate) struct Setup {
    /// The name by which the gateway logs it.
    path: &'static str,
    /// Makes a gateway use it.
    configure: fn(GatewayBuilder) -> GatewayBuilder,
    /// The port whose channels use it.
    endpoint: fn(&Gateway) -> Endpoint,
    /// How the gateway reaches the host.
    host_leg: HostLeg,
}

/// How the gateway reaches a host.
#[derive(Clone, Copy)]
enum HostLeg {
    /// By its TCP port.
    Tcp,
    /// By a TLS port.
    Tls,
    /// By a Unix socket.
    Unix,
}

pub(crate) const RELAY_TLS: Setup = Setup {
    path: "relay",
    configure: |gateway| gateway,
    endpoint: Gateway::tls,
    host_leg: HostLeg::Tcp,
};

pub(crate) const RELAY_PLAIN: Setup = Setup {
    path: "relay",
    configure: GatewayBuilder::plain,
    endpoint: Gateway::plain,
    host_leg: HostLeg::Tcp,
};

/// Tunnels through the TLS port; they need tickets, which the other setups do without.
pub(crate) const TUNNEL_TLS: Setup = Setup {
    configure: |gateway| gateway.set("HijackAll", true),
    ..RELAY_TLS
};

/// The same through the plaintext port.
pub(crate) const TUNNEL_PLAIN: Setup = Setup {
    configure: |gateway| gateway.plain().set("HijackAll", true),
    ..RELAY_PLAIN
};

/// The same through the TLS port, where the kernel makes and opens the records.
pub(crate) const TUNNEL_KTLS: Setup = Setup {
    configure: |gateway| (KTLS.configure)(gateway).set("HijackAll", true),
    ..KTLS
};

/// A host with TLS, to which every gateway moves so.
pub(crate) const TLS_HOST: Setup = Setup {
    host_leg: HostLeg::Tls,
    ..RELAY_TLS
};

/// The same where another path is wanted.
pub(crate) const TLS_HOST_WITHOUT_SOCKMAP: Setup = Setup {
    path: "relay",
    host_leg: HostLeg::Tls,
    ..SOCKMAP
};

/// A host by its Unix socket, which every gateway moves so.
pub(crate) const UNIX_HOST: Setup = Setup {
    host_leg: HostLeg::Unix,
    ..RELAY_TLS
};

/// The same on a path of the kernel.
pub(crate) const SOCKMAP_UNIX_HOST: Setup = Setup {
    host_leg: HostLeg::Unix,
    ..SOCKMAP
};

/// The same where another path is wanted, which cannot have that socket.
pub(crate) const UNIX_HOST_WITHOUT_KTLS: Setup = Setup {
    host_leg: HostLeg::Unix,
    ..KTLS_REPLACED
};

pub(crate) const SOCKMAP: Setup = Setup {
    path: "sockmap",
    configure: |gateway| gateway.plain().set("DataPath", "sockmap"),
    endpoint: Gateway::plain,
    host_leg: HostLeg::Tcp,
};

/// A gateway that has found by itself that its channels should use that data path.
pub(crate) const AUTO_ON_SOCKMAP: Setup = Setup {
    path: "sockmap",
    ..RELAY_PLAIN
};

/// The same gateway on its TLS port, where that data path cannot be.
pub(crate) const SOCKMAP_ON_TLS: Setup = Setup {
    path: "relay",
    endpoint: Gateway::tls,
    ..SOCKMAP
};

pub(crate) const KTLS: Setup = Setup {
    path: "ktls",
    // Both ways are taken: by default nothing is spliced.
    configure: |gateway| gateway.set("DataPath", "ktls").set("SpliceFrom", 4_096),
    endpoint: Gateway::tls,
    host_leg: HostLeg::Tcp,
};

pub(crate) const KTLS_SOCKMAP: Setup = Setup {
    path: "ktls-sockmap",
    configure: |gateway| gateway.plain().set("DataPath", "ktls-sockmap"),
    endpoint: Gateway::tls,
    host_leg: HostLeg::Tcp,
};

/// The same where kernel or privileges do not carry it.
pub(crate) const KTLS_SOCKMAP_REFUSED: Setup = Setup {
    path: "relay",
    ..KTLS_SOCKMAP
};

/// The same where the kernel has no TLS.
pub(crate) const KTLS_REPLACED: Setup = Setup {
    path: "relay",
    ..KTLS
};

/// The same gateway on its plaintext port, where that data path cannot be.
pub(crate) const KTLS_ON_PLAIN: Setup = Setup {
    path: "relay",
    configure: |gateway| gateway.plain().set("DataPath", "ktls"),
    endpoint: Gateway::plain,
    host_leg: HostLeg::Tcp,
};

impl Setup {
    /// The data path by its name, on this kernel: hosts on Unix sockets are moved from 6.12 on.
    fn path(self) -> &'static str {
        let is_moved = kernel() >= (6, 12) || !matches!(self.host_leg, HostLeg::Unix);
        if is_moved { self.path } else { "relay" }
    }

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

    /// Starts a gateway and a host where a network has its own; channels are opened from where
    /// it has its client.
    pub(crate) async fn start_in(self, network: &Network) -> Result<Stage> {
        self.start_in_with(network, |gateway| gateway).await
    }

    /// The same with a gateway that is configured further.
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
        let mut builder = (self.configure)(Gateway::builder().set("HijackAll", false));
        let front = match self.host_leg {
            HostLeg::Tcp => None,
            HostLeg::Tls => {
                let address = IpAddr::from([127, 0, 0, 2]);
                let cert = TestCert::builder().names([address.to_string()]);
                let cert = cert.rsa().chain().build()?;
                builder = builder
                    .set("SpiceHost", address.to_string())
                    .set("HostTLS", true)
                    .set("HostCAFile", cert.ca_path().to_str().context("a path")?);
                let front = Front::tls(address, cert.server_config()?, host.addr()).await?;
                Some(Before::Tls(front, cert))
            }
            HostLeg::Unix => {
                let dir = TempDir::with_prefix("testkit-host-")?;
                let socket = dir.path().join(host.addr().port().to_string());
                let template = format!("unix:{}/%p", dir.path().display());
                builder = builder.set("SpiceHost", template);
                Some(Before::Unix(Front::unix(&socket, host.addr())?, dir))
            }
        };
        let gateway = more(builder).spawn().await?;
        let endpoint = (self.endpoint)(&gateway);
        let open_fds = gateway.open_fds_but_pipes()?;
        Ok(Stage {
            host,
            path: self.path(),
            gateway,
            endpoint,
            open_fds,
            _front: front,
        })
    }
}

/// The first two numbers of the kernel's version.
pub(crate) fn kernel() -> (u32, u32) {
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    let mut next = || numbers.next().and_then(|number| number.parse().ok());
    let (first, second) = (next(), next());
    (first.unwrap_or_default(), second.unwrap_or_default())
}

/// A host that leaves each of its connections to the test.
pub(crate) async fn socket_host() -> Result<Host<TcpStream>> {
    Host::spawn(|stream| async move { Ok(stream) }).await
}

/// The target of a channel to this host; its client answers Pings.
pub(crate) fn target<T: Send + 'static>(host: &Host<T>) -> String {
    format!("/?ver=2&token={}", host.addr().port())
}

/// What stands before a host, with the files that it needs.
#[expect(dead_code, reason = "it only has to be there")]
enum Before {
    Tls(Front, TestCert),
    Unix(Front, TempDir),
}

/// A running gateway and a host behind it.
pub(crate) struct Stage {
    pub(crate) gateway: Gateway,
    pub(crate) endpoint: Endpoint,
    pub(crate) host: Host<TcpStream>,
    path: &'static str,
    /// Before the first channel.
    open_fds: usize,
    /// What the gateway reaches the host by, and where that lies.
    _front: Option<Before>,
}

impl Stage {
    /// Opens a channel to the stage's host, whose link message has arrived there.
    pub(crate) async fn open(&self) -> Result<Channel> {
        let channel = open(&self.endpoint, &self.host, &target(&self.host)).await?;
        self.expect_path().await?;
        Ok(channel)
    }

    /// Checks that the first channel took the data path that is to be tested.
    pub(crate) async fn expect_path(&self) -> Result<()> {
        self.expect_path_in(&self.wait_for_log("channel open").await?)
    }

    /// The same, where the log says something about a channel.
    pub(crate) fn expect_path_in(&self, line: &str) -> Result<()> {
        let path = format!("path=\"{}\"", self.path);
        ensure!(
            line.contains(&path),
            "{line:?} names another data path: see its log; without the eBPF programs run \
             `cargo xtask build-ebpf && cargo build -p gateway`; for kernel TLS \
             `cargo xtask vm-test`"
        );
        Ok(())
    }

    /// Whether clients may change their TLS keys: kernels before 6.14 take none but the first.
    pub(crate) async fn follows_new_keys(&self) -> bool {
        let is_ktls = |line: &String| line.contains("data path") && line.contains("path=\"ktls\"");
        let finding = self.gateway.log().await.into_iter().find(is_ktls);
        self.path == "relay" || finding.is_some_and(|line| line.contains("new keys"))
    }

    /// Waits for a line of the log with this text.
    pub(crate) async fn wait_for_log(&self, text: &str) -> Result<String> {
        let has_text = |line: &str| line.contains(text);
        self.gateway.wait_for_log(has_text, PATIENCE).await
    }

    /// Waits for a line of the log that says that a channel has ended for this reason.
    pub(crate) async fn expect_reason(&self, reason: &str) -> Result<()> {
        self.closing_line(reason).await.map(drop)
    }

    /// The same, and gives back the line.
    pub(crate) async fn closing_line(&self, reason: &str) -> Result<String> {
        let is_wanted = |line: &str| line.contains("channel closed") && line.contains(reason);
        let line = self.gateway.wait_for_log(is_wanted, PATIENCE).await;
        line.with_context(|| format!("no channel ended for the reason {reason:?}"))
    }

    /// Waits until the gateway has no more descriptors open than before the first channel.
    pub(crate) async fn expect_no_channel(&self) -> Result<()> {
        within("closing of all descriptors", async {
            while self.gateway.open_fds_but_pipes()? > self.open_fds {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Ok(())
        })
        .await?
    }
}

/// Tells a test that failed what the gateway had to say; of others the output is not shown.
impl Drop for Stage {
    fn drop(&mut self) {
        if let Some(status) = self.gateway.ended() {
            println!("the gateway has ended: {status}");
        }
        println!("log of the gateway, its end:\n{}", self.gateway.log_tail());
    }
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

/// Sends the uplink's pattern in frames of these sizes, one after the other.
pub(crate) async fn send_frames<S: AsyncWrite + Unpin>(
    client: &mut RawClient<S>,
    sizes: &[usize],
) -> Result<()> {
    let mut at = 0;
    for size in sizes {
        let frame = Frame::binary(UPLINK.bytes(at, *size));
        client.send_frame(&frame).await?;
        at += *size as u64;
    }
    Ok(())
}

/// Sends a pattern in writes of these sizes, one after the other.
pub(crate) async fn send_messages(
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

/// Reads binary frames with exactly this part of the downlink's pattern.
pub(crate) async fn read_downlink<S: AsyncRead + Unpin>(
    client: &mut RawClient<S>,
    start: u64,
    length: u64,
) -> Result<()> {
    let at = read_downlink_to(client, start, start + length).await?;
    ensure!(at == start + length, "more bytes than the host has sent");
    Ok(())
}

/// Reads binary frames with the downlink's pattern until this end or, where a frame passes it,
/// beyond; says how far.
pub(crate) async fn read_downlink_to<S: AsyncRead + Unpin>(
    client: &mut RawClient<S>,
    start: u64,
    end: u64,
) -> Result<u64> {
    let mut at = start;
    while at < end {
        let frame = client.read_frame().await?;
        check_data(&frame, at)?;
        at += frame.payload.len() as u64;
    }
    Ok(at)
}

/// Checks a data frame of the server, whose first byte stands at `offset` of the pattern.
pub(crate) fn check_data(frame: &Frame, offset: u64) -> Result<()> {
    check_header(frame)?;
    ensure!(
        frame.opcode == Opcode::BINARY,
        "a frame of kind {:#x} instead of data",
        frame.opcode.0
    );
    ensure!(!frame.payload.is_empty(), "an empty data frame");
    ensure!(
        frame.payload.len() <= LONGEST_PAYLOAD,
        "a frame of {} bytes",
        frame.payload.len()
    );
    Ok(DOWNLINK.check(offset, &frame.payload)?)
}

/// Checks what all frames of the server have in common.
pub(crate) fn check_header(frame: &Frame) -> Result<()> {
    ensure!(frame.fin, "a fragment");
    ensure!(frame.rsv == 0, "reserved bits");
    ensure!(frame.mask.is_none(), "a masked frame of a server");
    Ok(())
}

pub(crate) fn expect_pong(frame: &Frame, payload: &[u8]) -> Result<()> {
    check_header(frame)?;
    ensure!(
        frame.opcode == Opcode::PONG && frame.payload == payload,
        "{frame:?} instead of a Pong with {payload:?}"
    );
    Ok(())
}

/// Reads exactly this part of the uplink's pattern.
pub(crate) async fn read_uplink(
    host: &mut (impl AsyncRead + Unpin),
    start: u64,
    length: u64,
) -> Result<()> {
    read_exactly(host, UPLINK, start, length).await
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
        ensure!(
            read > 0,
            "the stream ended after {at} bytes of {}",
            start + length
        );
        pattern.check(at, &buffer[..read])?;
        at += read as u64;
    }
    Ok(())
}

/// Reads the uplink's pattern from `at` on until its end, which must come at `end`.
pub(crate) async fn expect_uplink_end(
    host: &mut (impl AsyncRead + Unpin),
    at: u64,
    end: u64,
) -> Result<()> {
    read_uplink(host, at, end - at).await?;
    expect_end(host).await
}

/// The stream must end here, and in order.
pub(crate) async fn expect_end(stream: &mut (impl AsyncRead + Unpin)) -> Result<()> {
    let (rest, end) = read_to_end(stream).await?;
    ensure!(rest.is_empty(), "{} bytes more than were sent", rest.len());
    ensure!(end == StreamEnd::Closed, "the end is {end:?}");
    Ok(())
}

/// Sends these bytes again and again until the connection is closed, and reads meanwhile what
/// [`expect_closing`] does: no RST must overtake it.
pub(crate) async fn expect_closing_while_sending<R, W>(
    reader: &mut RawClient<R>,
    writer: &mut RawClient<W>,
    bytes: &[u8],
    code: u16,
) -> Result<()>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let flood = async {
        while writer.send_raw(bytes).await.is_ok() {
            // The receiver must find its turn although this never waits.
            tokio::task::yield_now().await;
        }
    };
    let mut closing = std::pin::pin!(expect_closing(reader, code));
    tokio::select! {
        closed = &mut closing => closed,
        () = flood => closing.await,
    }
}

/// Reads the Close frame with this code, the end of TLS and the end of TCP.
pub(crate) async fn expect_closing<S: AsyncRead + Unpin>(
    client: &mut RawClient<S>,
    code: u16,
) -> Result<()> {
    let close = client.expect_close(code).await?;
    check_header(&close)?;
    let end = client.expect_end().await?;
    ensure!(
        end == StreamEnd::Closed,
        "the end after the Close is {end:?}"
    );
    Ok(())
}
