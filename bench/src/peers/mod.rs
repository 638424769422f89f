//! What is measured: the gateway, and others that do a like job.

pub(crate) mod gateway;
mod haproxy;
mod nginx;
pub(crate) mod program;
mod websocat;
mod websockify;

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use testkit::cert::TestCert;
use testkit::command::run_bounded;
use testkit::gateway::Gateway;
use testkit::packages::{self, Package};

use super::client::{Opening, Target, Version};
use super::procfs::Stat;
use gateway::Setup;
use program::Program;

/// How long a program may take to tell something.
const OUTPUT_LIMIT: Duration = Duration::from_secs(30);

/// How long a ticket is good, in seconds: longer than any run.
const A_DAY: u64 = 86_400;

/// A kind of peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// The gateway, TLS client leg.
    Gateway,
    /// The gateway, plaintext client leg, as behind a reverse proxy.
    GatewayPlain,
    /// The same, its downlink moved by eBPF.
    GatewaySockmap,
    /// The gateway, plaintext client leg, the host on a Unix socket.
    GatewayPlainUnix,
    /// The same, its downlink moved by eBPF.
    GatewaySockmapUnix,
    /// The gateway, TLS client leg with its records made by the kernel.
    GatewayKtls,
    /// The gateway, TLS client leg, a tunnel instead of a WebSocket.
    GatewayTunnel,
    /// The same with a plaintext client leg.
    GatewayTunnelPlain,
    /// The gateway, TLS client leg, while its certificate is exchanged ten times a second.
    GatewayReloading,
    /// `HAProxy`.
    Haproxy,
    /// `HAProxy` without TLS, which has the kernel move bytes from socket to socket.
    HaproxySpliced,
    /// nginx's stream module.
    Nginx,
    /// websockify.
    Websockify,
    /// websocat.
    Websocat,
    /// No peer at all: the client connects to the host.
    Direct,
}

impl Kind {
    /// What `bench peers` compares.
    pub(crate) const PEERS: [Self; 6] = [
        Self::Gateway,
        Self::Haproxy,
        Self::Nginx,
        Self::Websockify,
        Self::Websocat,
        Self::Direct,
    ];
    /// What `bench paths` compares.
    pub(crate) const PATHS: [Self; 5] = [
        Self::Gateway,
        Self::GatewayPlain,
        Self::GatewayPlainUnix,
        Self::GatewaySockmap,
        Self::GatewaySockmapUnix,
    ];
    /// What `bench tunnels` compares.
    pub(crate) const TUNNELS: [Self; 5] = [
        Self::HaproxySpliced,
        Self::GatewayTunnelPlain,
        Self::Haproxy,
        Self::GatewayTunnel,
        Self::Direct,
    ];
    /// What `bench wan` compares.
    pub(crate) const WAN: [Self; 7] = [
        Self::Direct,
        Self::Haproxy,
        Self::Nginx,
        Self::Gateway,
        Self::GatewayPlain,
        Self::GatewaySockmap,
        Self::GatewayKtls,
    ];

    /// What `bench desktop` compares.
    pub(crate) const DESKTOP: [Self; 6] = [
        Self::Direct,
        Self::Haproxy,
        Self::Gateway,
        Self::GatewayPlain,
        Self::GatewaySockmap,
        Self::GatewayKtls,
    ];

    /// What `bench reload` compares.
    pub(crate) const RELOAD: [Self; 2] = [Self::Gateway, Self::GatewayReloading];

    /// Whom ratios on lines refer to: the connection without a peer, if it is measured.
    pub(crate) fn reference(kinds: &[Self]) -> Self {
        let direct = kinds.iter().find(|kind| **kind == Self::Direct);
        *direct.unwrap_or(&kinds[0])
    }

    /// Its name in options, tables and files.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::GatewayPlain => "gateway-plain",
            Self::GatewaySockmap => "gateway-sockmap",
            Self::GatewayPlainUnix => "gateway-plain-unix",
            Self::GatewaySockmapUnix => "gateway-sockmap-unix",
            Self::GatewayKtls => "gateway-ktls",
            Self::GatewayTunnel => "gateway-tunnel",
            Self::GatewayTunnelPlain => "gateway-tunnel-plain",
            Self::GatewayReloading => "gateway-reloading",
            Self::Haproxy => "haproxy",
            Self::HaproxySpliced => "haproxy-spliced",
            Self::Nginx => "nginx",
            Self::Websockify => "websockify",
            Self::Websocat => "websocat",
            Self::Direct => "direct",
        }
    }

    /// What it does with each channel.
    pub(crate) fn role(self) -> &'static str {
        match self {
            Self::Gateway => "TLS and WebSocket to TCP, data path relay",
            Self::GatewayPlain => "WebSocket to TCP, data path relay",
            Self::GatewaySockmap => "WebSocket to TCP, data path sockmap",
            Self::GatewayPlainUnix => "WebSocket to a Unix socket, data path relay",
            Self::GatewaySockmapUnix => "WebSocket to a Unix socket, data path sockmap",
            Self::GatewayKtls => "TLS and WebSocket to TCP, data path ktls",
            Self::GatewayReloading => {
                "the same as gateway, while its certificate is exchanged ten times a second"
            }
            Self::GatewayTunnel => "TLS and CONNECT to TCP, data path relay",
            Self::GatewayTunnelPlain => "CONNECT to TCP, data path relay",
            Self::Haproxy => "TLS to TCP, mode tcp",
            Self::HaproxySpliced => "TCP to TCP, mode tcp, option splice-auto",
            Self::Nginx => "TLS to TCP, stream module",
            Self::Websockify => "TLS and WebSocket to TCP",
            Self::Websocat => "TLS 1.2 (it knows no newer) and WebSocket to TCP",
            Self::Direct => "TCP, no peer",
        }
    }

    /// Whether there is a process whose time and memory can be measured.
    pub(crate) fn has_process(self) -> bool {
        self != Self::Direct
    }

    /// The TLS that clients speak to it, if any.
    pub(crate) fn tls(self) -> Option<Version> {
        match self {
            Self::GatewayPlain
            | Self::GatewaySockmap
            | Self::GatewayPlainUnix
            | Self::GatewaySockmapUnix
            | Self::GatewayTunnelPlain
            | Self::HaproxySpliced
            | Self::Direct => None,
            // Its TLS library's default settings go no further.
            Self::Websocat => Some(Version::Tls12),
            _ => Some(Version::Tls13),
        }
    }

    /// The most channels that it is asked to carry at a time.
    pub(crate) fn most_channels(self) -> usize {
        match self {
            // Each is a Python process.
            Self::Websockify => 100,
            _ => usize::MAX,
        }
    }

    /// Installs or builds what is missing; `note` is told before that takes long. Blocks.
    pub(crate) fn prepare(self, note: impl FnOnce(&str)) -> Result<()> {
        match self {
            // Built before anything is measured.
            Self::Gateway
            | Self::GatewayPlain
            | Self::GatewaySockmap
            | Self::GatewayPlainUnix
            | Self::GatewaySockmapUnix
            | Self::GatewayTunnel
            | Self::GatewayTunnelPlain
            | Self::GatewayReloading
            | Self::Direct => Ok(()),
            Self::GatewayKtls => gateway::ensure_kernel_tls(),
            Self::Haproxy | Self::HaproxySpliced => packages::ensure(&[Package::Haproxy]),
            Self::Nginx => packages::ensure(&[Package::NginxStream]),
            Self::Websockify => packages::ensure(&[Package::Websockify]),
            Self::Websocat => {
                packages::ensure(&[Package::Openssl])?;
                if !websocat::is_installed() {
                    note("building websocat, which takes some minutes");
                    websocat::install()?;
                }
                Ok(())
            }
        }
    }

    /// Its version; the gateway's is that of this program or else of the release build.
    pub(crate) fn version(self, gateway: Option<&Path>) -> Result<String> {
        match self {
            Self::Gateway
            | Self::GatewayPlain
            | Self::GatewaySockmap
            | Self::GatewayPlainUnix
            | Self::GatewaySockmapUnix
            | Self::GatewayKtls
            | Self::GatewayTunnel
            | Self::GatewayTunnelPlain
            | Self::GatewayReloading => gateway::version(gateway),
            Self::Haproxy | Self::HaproxySpliced => debian_version("haproxy"),
            Self::Nginx => debian_version("libnginx-mod-stream"),
            Self::Websockify => debian_version("websockify"),
            Self::Websocat => Ok(websocat::version()),
            Self::Direct => Ok(String::new()),
        }
    }
}

/// A running peer; killed when dropped.
pub(crate) struct Peer {
    /// What it is.
    pub(crate) kind: Kind,
    /// How clients reach it.
    pub(crate) target: Target,
    process: Process,
}

enum Process {
    Gateway(Box<Gateway>),
    Reloading(Box<gateway::Reloading>),
    Program(Program),
    None,
}

impl Peer {
    /// Starts a peer in front of the host and waits until it listens; ports and data path are the
    /// kind's own.
    pub(crate) async fn start_in(
        kind: Kind,
        cert: &TestCert,
        host: SocketAddr,
        setup: Setup<'_>,
    ) -> Result<Self> {
        let network = setup.network;
        let is_on_socket = matches!(kind, Kind::GatewayPlainUnix | Kind::GatewaySockmapUnix);
        let gateway = async |plain, path| -> Result<Process> {
            let setup = Setup {
                plain,
                path,
                sockets: setup.sockets.filter(|_| is_on_socket),
                ..setup
            };
            Ok(Process::Gateway(Box::new(
                gateway::start(cert, setup).await?,
            )))
        };
        let hijacking = [
            ("HijackAll".to_owned(), true.into()),
            ("TicketTimeout".to_owned(), A_DAY.into()),
            ("ReconnectTimeout".to_owned(), A_DAY.into()),
        ];
        let tunnels = async |plain| -> Result<Process> {
            let setup = Setup {
                plain,
                // Tunnels need tickets.
                keys: &hijacking,
                ..setup
            };
            Ok(Process::Gateway(Box::new(
                gateway::start(cert, setup).await?,
            )))
        };
        let process = match kind {
            Kind::Gateway => gateway(false, None).await?,
            Kind::GatewayTunnel => tunnels(false).await?,
            Kind::GatewayTunnelPlain => tunnels(true).await?,
            Kind::GatewayPlain | Kind::GatewayPlainUnix => gateway(true, Some("relay")).await?,
            Kind::GatewaySockmap | Kind::GatewaySockmapUnix => {
                gateway(true, Some("sockmap")).await?
            }
            Kind::GatewayKtls => gateway(false, Some("ktls")).await?,
            Kind::GatewayReloading => {
                Process::Reloading(Box::new(gateway::Reloading::start(cert).await?))
            }
            Kind::Haproxy => Process::Program(haproxy::start(Some(cert), host, network).await?),
            Kind::HaproxySpliced => Process::Program(haproxy::start(None, host, network).await?),
            Kind::Nginx => Process::Program(nginx::start(cert, host, network).await?),
            Kind::Websockify => Process::Program(websockify::start(cert, host, network).await?),
            Kind::Websocat => Process::Program(websocat::start(cert, host, network).await?),
            Kind::Direct => Process::None,
        };
        let addr = match &process {
            Process::Gateway(gateway) if kind.tls().is_none() => gateway.plain_addr(),
            Process::Gateway(gateway) => gateway.tls_addr(),
            Process::Reloading(reloading) => reloading.gateway.tls_addr(),
            Process::Program(program) => program.addr(),
            Process::None => host,
        };
        let opening = match (kind, &process) {
            (Kind::Haproxy | Kind::HaproxySpliced | Kind::Nginx | Kind::Direct, _) => None,
            (Kind::GatewayTunnel | Kind::GatewayTunnelPlain, Process::Gateway(gateway)) => {
                Some(Opening::tunnel(&gateway.ticket(host).await?))
            }
            _ => Some(Opening::web_socket(host.port())),
        };
        let target = Target {
            addr,
            tls: kind.tls(),
            opening,
        };
        Ok(Self {
            kind,
            target,
            process,
        })
    }

    /// The process whose tree is measured.
    pub(crate) fn pid(&self) -> Option<u32> {
        match &self.process {
            Process::Gateway(gateway) => Some(gateway.pid()),
            Process::Reloading(reloading) => Some(reloading.gateway.pid()),
            Process::Program(program) => Some(program.pid()),
            Process::None => None,
        }
    }

    /// Has a gateway that is to be reloaded exchange its certificate until the result is dropped.
    pub(crate) fn begin_reloads(&self) -> Option<gateway::Reloads> {
        match &self.process {
            Process::Reloading(reloading) => Some(reloading.begin()),
            Process::Gateway(_) | Process::Program(_) | Process::None => None,
        }
    }

    /// Fails unless its first channel took the data path that it was started for.
    pub(crate) async fn expect_path(&self) -> Result<()> {
        let path = match self.kind {
            Kind::GatewaySockmap | Kind::GatewaySockmapUnix => "sockmap",
            Kind::GatewayKtls => "ktls",
            _ => return Ok(()),
        };
        let Process::Gateway(gateway) = &self.process else {
            return Ok(());
        };
        let opened = |line: &str| line.contains("channel open");
        let line = gateway.wait_for_log(opened, OUTPUT_LIMIT).await?;
        ensure!(
            line.contains(&format!("path=\"{path}\"")),
            "this kernel or these privileges do not carry the data path {path}"
        );
        Ok(())
    }

    /// Whether it still runs.
    pub(crate) fn is_alive(&self) -> bool {
        self.pid()
            .is_none_or(|pid| Stat::read(pid).is_some_and(|stat| stat.state != 'Z'))
    }
}

fn debian_version(package: &str) -> Result<String> {
    let mut query = Command::new("dpkg-query");
    query.args(["--show", "--showformat=${Version}", package]);
    output(query)
}

fn output(command: Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    run_bounded(command, OUTPUT_LIMIT).with_context(|| format!("asking {name}"))
}
