//! Connecting to a host's Spice port.

use std::error::Error as StdError;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustls::ClientConfig;
use tokio::net::{TcpStream, UnixStream};

use super::announce::announce_on;
use super::dial::dial;
use super::socket::{self, SocketRules};
use crate::background::{self, HOSTS, Places};
use crate::causes::find;
use crate::config::{Config, HostProxyProtocol};
use crate::grant::Grant;
use crate::host::Host;
use crate::host_tls::{self, Authorities, HostTls, Trust};
use crate::limits::NetworkRules;
use crate::metrics::{HostFailure, Metrics};
use crate::socket_path::SocketPath;
use crate::target::Target;
use crate::tcp;
use gateway_datapath::{HostStream, tls};

/// Connects to hosts by name or address, IPv6 and IPv4 (RFC 8305), within a time limit.
#[derive(Clone)]
pub struct HostConnector {
    rules: NetworkRules,
    sockets: Arc<SocketRules>,
    /// For hosts about which nothing else is said; `None`: they have no TLS.
    tls: Option<Arc<ClientConfig>>,
    proxy_protocol: HostProxyProtocol,
    timeout: Duration,
    /// For lookups of names and sockets.
    places: &'static Places,
}

/// Why a host was not reached.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Answered with 504.
    #[error("no connection within {} s", .0.as_secs())]
    Timeout(Duration),
    /// The host is in no network of `AllowedHosts`, or in one of `DeniedHosts`; answered with 403.
    #[error("host may not be reached: AllowedHosts, DeniedHosts")]
    NotAllowed,
    /// The Unix socket lies below no directory of `AllowedSockets`, or a symbolic link leads out of
    /// it; answered with 403.
    #[error("socket may not be reached: AllowedSockets")]
    SocketNotAllowed,
    /// The TLS handshake failed, or cannot be made; answered with 502.
    #[error("TLS: {0}")]
    Tls(String),
    /// The gateway lacks descriptors, memory or threads; answered with 503.
    #[error("gateway is out of resources: {0}")]
    Resources(io::Error),
    /// The name does not resolve, or the port is not reached; answered with 502.
    #[error("{0}")]
    Unreachable(io::Error),
}

impl ConnectError {
    /// The kind of reason, by which it is counted.
    pub fn label(&self) -> HostFailure {
        match self {
            Self::Timeout(_) => HostFailure::Timeout,
            Self::NotAllowed | Self::SocketNotAllowed => HostFailure::NotAllowed,
            Self::Tls(_) => HostFailure::Tls,
            Self::Resources(_) => HostFailure::Resources,
            Self::Unreachable(_) => HostFailure::Unreachable,
        }
    }
}

impl HostConnector {
    /// As the configuration says; `authorities` are those of `HostCAFile`.
    pub fn new(config: &Config, authorities: Option<&Authorities>) -> Self {
        Self::with(config, authorities, &HOSTS)
    }

    fn with(config: &Config, authorities: Option<&Authorities>, places: &'static Places) -> Self {
        let tls = config.host_tls.then(|| HostTls {
            trust: Trust::Authorities(authorities.cloned().unwrap_or_else(Authorities::none)),
            subject: config.host_subject.clone(),
        });
        Self {
            tls: tls.map(|tls| Arc::new(tls.client_config())),
            proxy_protocol: config.host_proxy_protocol,
            rules: NetworkRules::new(&config.allowed_hosts, &config.denied_hosts),
            sockets: Arc::new(SocketRules::new(config)),
            timeout: config.connect_timeout,
            places,
        }
    }

    /// Whether a host given by address is allowed; what a name means shows when connecting.
    pub fn may_reach(&self, target: &Target) -> bool {
        match target {
            Target::Tcp { host, .. } => host
                .address()
                .is_none_or(|address| self.rules.allow(address)),
            Target::Unix(path) => self.sockets.place(path).is_some(),
        }
    }

    /// Connects to the target of a grant for this client, TLS included, and notes how long that
    /// took.
    pub async fn connect(
        &self,
        grant: &Grant,
        client: SocketAddr,
        metrics: &Metrics,
    ) -> Result<HostStream, ConnectError> {
        let begun = Instant::now();
        let connected = self.reach(grant, client).await;
        if connected.is_ok() {
            metrics.host_connect.observe(begun.elapsed().as_secs_f64());
        }
        connected
    }

    /// Connects to the port of a grant's host where the client itself makes the TLS handshake.
    pub async fn connect_through(
        &self,
        tls_target: Target,
        client: SocketAddr,
        metrics: &Metrics,
    ) -> Result<HostStream, ConnectError> {
        let bare = Self {
            tls: None,
            ..self.clone()
        };
        bare.connect(&Grant::new(tls_target), client, metrics).await
    }

    async fn reach(&self, grant: &Grant, client: SocketAddr) -> Result<HostStream, ConnectError> {
        let connect = async {
            match &grant.target {
                Target::Tcp { host, port } => {
                    let addresses = self.addresses(host, *port).await?;
                    let connected = dial(addresses).await;
                    let tcp = connected.map_err(|error| self.classify(&error))?;
                    let tls = match &grant.tls {
                        Some(tls) => Some(Arc::new(tls.client_config())),
                        None => self.tls.clone(),
                    };
                    match tls {
                        None => Ok(HostStream::Tcp(tcp)),
                        Some(tls) => self.secure(tcp, tls, host, client).await,
                    }
                }
                Target::Unix(_) if grant.tls.is_some() => {
                    Err(ConnectError::Tls("a Unix socket has none".to_owned()))
                }
                Target::Unix(path) => self.connect_socket(path).await.map(HostStream::Unix),
            }
        };
        let connected = tokio::time::timeout(self.timeout, connect).await;
        connected.unwrap_or(Err(ConnectError::Timeout(self.timeout)))
    }

    /// Makes the handshake with a host.
    async fn secure(
        &self,
        mut tcp: TcpStream,
        config: Arc<ClientConfig>,
        host: &Host,
        client: SocketAddr,
    ) -> Result<HostStream, ConnectError> {
        let name = host_tls::server_name(host).map_err(ConnectError::Tls)?;
        announce_on(self.proxy_protocol, client, &mut tcp).await;
        let secured = tls::connect(tcp, config, name).await;
        let secured = secured.map_err(|error| ConnectError::Tls(host_tls::reason(&error)))?;
        Ok(HostStream::Tls(Box::new(secured)))
    }

    async fn connect_socket(&self, path: &SocketPath) -> Result<UnixStream, ConnectError> {
        let place = self.sockets.place(path);
        let place = place.ok_or(ConnectError::SocketNotAllowed)?;
        let find = move || socket::find(&place);
        let found = self.places.run(self.timeout / 2, find).await;
        let found = found.map_err(|error| self.classify(&error))?;
        let connected = match found {
            Ok(socket) => socket::connect(&socket).await,
            Err(error) => Err(error),
        };
        connected.map_err(|error| {
            if error.raw_os_error() == Some(Errno::XDEV.raw_os_error()) {
                ConnectError::SocketNotAllowed
            } else {
                self.classify(&error)
            }
        })
    }

    /// The system's answer, less the addresses that are not allowed, and those that are no host's:
    /// so a name cannot lead elsewhere between check and use.
    async fn addresses(&self, host: &Host, port: u16) -> Result<Vec<SocketAddr>, ConnectError> {
        if let Some(address) = host.address() {
            return if self.rules.allow(address) {
                Ok(vec![(address, port).into()])
            } else {
                Err(ConnectError::NotAllowed)
            };
        }
        let name = host.to_string();
        let resolved = background::resolve(self.places, &name, port, self.timeout / 2).await;
        let mut addresses = resolved.map_err(|error| self.classify(&*error))?;
        addresses.retain(|address| {
            let host = Host::try_from(address.ip());
            host.is_ok_and(|host| host.address().is_some_and(|ip| self.rules.allow(ip)))
        });
        if addresses.is_empty() {
            return Err(ConnectError::NotAllowed);
        }
        Ok(addresses)
    }

    fn classify(&self, error: &(dyn StdError + 'static)) -> ConnectError {
        if background::is_busy(error) {
            return ConnectError::Resources(io::Error::other("no thread is free to look it up"));
        }
        let Some(io) = find::<io::Error>(error) else {
            return ConnectError::Unreachable(io::Error::other(error.to_string()));
        };
        if io.kind() == io::ErrorKind::TimedOut {
            return ConnectError::Timeout(self.timeout);
        }
        let own = io::Error::new(io.kind(), io.to_string());
        if tcp::is_resource_error(io) {
            return ConnectError::Resources(own);
        }
        ConnectError::Unreachable(own)
    }
}

#[cfg(test)]
mod tests {
    use rustls::ServerConfig;
    use rustls_pki_types::{CertificateDer, PrivateKeyDer};
    use tokio_rustls::TlsAcceptor;

    use super::*;
    use crate::host_tls::CertificateDigest;

    fn connector(allowed: &[&str]) -> HostConnector {
        HostConnector::new(
            &Config {
                allowed_hosts: allowed.iter().map(|n| n.parse().unwrap()).collect(),
                ..Config::default()
            },
            None,
        )
    }

    async fn listener(address: &str) -> (tokio::net::TcpListener, u16) {
        let listener = tokio::net::TcpListener::bind(address).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        (listener, port)
    }

    const CLIENT: SocketAddr =
        SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

    fn target(host: &str, port: u16) -> Grant {
        Grant::new(Target::new(host.parse().unwrap(), port))
    }

    #[tokio::test]
    async fn reaches_names_and_both_families() {
        let (_v4, port) = listener("127.0.0.1:0").await;
        for host in ["127.0.0.1", "localhost", "::ffff:127.0.0.1"] {
            connector(&[])
                .reach(&target(host, port), CLIENT)
                .await
                .unwrap();
        }
        let (_v6, port) = listener("[::1]:0").await;
        connector(&[])
            .reach(&target("::1", port), CLIENT)
            .await
            .unwrap();
    }

    #[tokio::test]
    async fn refuses_other_networks_by_address_and_by_name() {
        let (_listener, port) = listener("127.0.0.1:0").await;
        let elsewhere = connector(&["192.0.2.0/24"]);
        for host in ["127.0.0.1", "::ffff:127.0.0.1", "localhost"] {
            let error = elsewhere
                .reach(&target(host, port), CLIENT)
                .await
                .unwrap_err();
            assert!(matches!(error, ConnectError::NotAllowed), "{host}: {error}");
        }
        let here = connector(&["127.0.0.0/8"]);
        here.reach(&target("localhost", port), CLIENT)
            .await
            .unwrap();
        let denied = HostConnector::new(
            &Config {
                denied_hosts: vec!["127.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()],
                ..Config::default()
            },
            None,
        );
        for host in ["127.0.0.1", "::ffff:127.0.0.1", "localhost"] {
            let error = denied.reach(&target(host, port), CLIENT).await.unwrap_err();
            assert!(matches!(error, ConnectError::NotAllowed), "{host}: {error}");
        }
    }

    #[tokio::test]
    async fn names_need_a_thread_and_addresses_do_not() {
        static NONE: Places = Places::new(0, 1);
        let (_listener, port) = listener("127.0.0.1:0").await;
        let config = Config {
            connect_timeout: Duration::from_millis(100),
            ..Config::default()
        };
        let connector = HostConnector::with(&config, None, &NONE);
        let busy = connector.reach(&target("localhost", port), CLIENT).await;
        let busy = busy.unwrap_err();
        assert!(matches!(busy, ConnectError::Resources(_)), "{busy}");
        connector
            .reach(&target("127.0.0.1", port), CLIENT)
            .await
            .unwrap();
    }

    #[tokio::test]
    async fn says_what_failed() {
        let (listener, port) = listener("127.0.0.1:0").await;
        drop(listener);
        let refused = connector(&[])
            .reach(&target("127.0.0.1", port), CLIENT)
            .await;
        let refused = refused.unwrap_err();
        let ConnectError::Unreachable(refused) = refused else {
            panic!("{refused}");
        };
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        assert!(refused.to_string().contains("refused"), "{refused}");
        let unknown = target("no-such-host.invalid", 1);
        let unknown = connector(&[]).reach(&unknown, CLIENT).await.unwrap_err();
        assert!(matches!(unknown, ConnectError::Unreachable(_)), "{unknown}");
    }

    /// A host with TLS, and its certificate.
    async fn secured() -> (u16, CertificateDer<'static>) {
        let own = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let der = own.cert.der().clone();
        let key = PrivateKeyDer::Pkcs8(own.signing_key.serialize_der().into());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![der.clone()], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let (listener, port) = listener("127.0.0.1:0").await;
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let _ = acceptor.accept(stream).await;
            }
        });
        (port, der)
    }

    #[tokio::test]
    async fn a_grant_says_whose_certificate_its_host_has() {
        let (port, der) = secured().await;
        let (_, other) = secured().await;
        let authorities = |der: &CertificateDer<'static>| {
            Trust::Authorities(Authorities::new(vec![der.clone()]).unwrap())
        };
        let pinned = |der: &CertificateDer<'static>| Trust::Certificate(CertificateDigest::of(der));
        for (trust, is_accepted) in [
            (authorities(&der), true),
            (authorities(&other), false),
            (pinned(&der), true),
            (pinned(&other), false),
        ] {
            let subject = None;
            let grant = Grant {
                tls: Some(HostTls { trust, subject }),
                ..target("127.0.0.1", port)
            };
            // Whatever the configuration says of other hosts.
            match connector(&[]).reach(&grant, CLIENT).await {
                Ok(HostStream::Tls(_)) => assert!(is_accepted),
                Err(ConnectError::Tls(_)) => assert!(!is_accepted),
                other => panic!("{other:?}"),
            }
        }
    }

    #[tokio::test]
    async fn tls_is_never_left_out() {
        let subject = None;
        let trust = Trust::Authorities(Authorities::none());
        let grant = Grant {
            tls: Some(HostTls { trust, subject }),
            ..Grant::new(Target::Unix("/run/a.sock".parse().unwrap()))
        };
        let refused = connector(&[]).reach(&grant, CLIENT).await.unwrap_err();
        assert!(matches!(refused, ConnectError::Tls(_)), "{refused}");
        // Without a file of authorities nobody is trusted.
        let config = Config {
            host_tls: true,
            ..Config::default()
        };
        let (port, _) = secured().await;
        let connector = HostConnector::new(&config, None);
        let refused = connector.reach(&target("127.0.0.1", port), CLIENT).await;
        let refused = refused.unwrap_err();
        assert!(matches!(refused, ConnectError::Tls(_)), "{refused}");
    }
}
