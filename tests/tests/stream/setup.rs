//! Data paths to be tested, each with a gateway that uses it and a host behind it.

use std::net::IpAddr;

use anyhow::{Context, Result};
use tempfile::TempDir;
use testkit::gateway::GatewayBuilder;
use testkit::network::{self, Network};
use testkit::prelude::*;
use tokio::net::TcpStream;

use crate::stage::{Before, Stage};

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
        Stage::new(gateway, endpoint, host, self.path(), front)
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
