//! A client, a gateway and a host, each in a network namespace of its own, as far from each other
//! as a test wants.

use std::net::Ipv4Addr;
use std::os::fd::AsFd;

use anyhow::Result;

use crate::line::{End, Line, MTU, Quality};
use crate::namespace::Namespace;
use crate::netlink::{Route, make_veth, set_address, set_route};

/// The client's address.
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 81, 0, 1);
/// Where clients reach the gateway.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 81, 0, 2);
/// The host's address.
pub const HOST: Ipv4Addr = Ipv4Addr::new(10, 82, 0, 2);
/// The gateway's address in the host's network.
const INSIDE: Ipv4Addr = Ipv4Addr::new(10, 82, 0, 1);
/// Bits of the prefix of both networks.
const PREFIX: u8 = 24;
/// What TCP does about congestion unless [`Network::set_congestion_control`] says otherwise.
pub const CONGESTION_CONTROL: &str = "cubic";

/// How a leg is made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Leg {
    /// A pair of Ethernet devices with an MTU of [`MTU`], with GSO as they have it by default.
    Ethernet,
    /// An emulated line.
    Line {
        /// How good it is, in both directions.
        quality: Quality,
        /// The length of its longest packet, in bytes.
        mtu: u16,
    },
}

impl From<Quality> for Leg {
    fn from(quality: Quality) -> Self {
        Self::Line { quality, mtu: MTU }
    }
}

/// Three namespaces: the client's, the gateway's and the host's. The gateway's forwards packets,
/// so that a client can also connect to the host without a gateway.
#[derive(Debug)]
pub struct Network {
    /// Where clients are.
    pub client: Namespace,
    /// Where the gateway is.
    pub gateway: Namespace,
    /// Where hosts are.
    pub host: Namespace,
    /// From the client to the gateway; `None` where that is an Ethernet.
    pub client_leg: Option<Line>,
    /// From the gateway to the host; `None` where that is an Ethernet.
    pub host_leg: Option<Line>,
}

impl Network {
    /// Makes the namespaces and what connects them; only root may. `seed` decides which packets
    /// are lost, doubled and held up.
    pub fn new(client_leg: Leg, host_leg: Leg, seed: u64) -> Result<Self> {
        let (client, gateway, host) = (Namespace::new()?, Namespace::new()?, Namespace::new()?);
        let end = |namespace: &Namespace, device, address| End {
            namespace: namespace.clone(),
            device,
            address,
        };
        let client_line = connect(
            &end(&client, "gateway", CLIENT),
            &end(&gateway, "client", GATEWAY),
            client_leg,
            seed,
        )?;
        let host_line = connect(
            &end(&gateway, "host", INSIDE),
            &end(&host, "gateway", HOST),
            host_leg,
            seed.wrapping_add(1),
        )?;
        gateway.set("ipv4/ip_forward", "1")?;
        let network = Self {
            client,
            gateway,
            host,
            client_leg: client_line,
            host_leg: host_line,
        };
        network.set_congestion_control(CONGESTION_CONTROL)?;
        for namespace in network.namespaces() {
            // Each connection begins without what others have learned of the line.
            namespace.set("ipv4/tcp_no_metrics_save", "1")?;
        }
        Ok(network)
    }

    /// What TCP does about congestion between the three from now on, as in `bbr`.
    ///
    /// The routes say it: as the default of a namespace the kernel takes those algorithms only that
    /// the whole machine allows to everybody (`tcp_set_default_congestion_control()` of the file
    /// `net/ipv4/tcp_cong.c`).
    pub fn set_congestion_control(&self, name: &str) -> Result<()> {
        let outside = |device| Route::Network(CLIENT, PREFIX, device);
        let inside = |device| Route::Network(HOST, PREFIX, device);
        for (namespace, route) in [
            (&self.client, outside("gateway")),
            (&self.client, Route::Default(GATEWAY)),
            (&self.gateway, outside("client")),
            (&self.gateway, inside("host")),
            (&self.host, inside("gateway")),
            (&self.host, Route::Default(INSIDE)),
        ] {
            namespace.enter(|| set_route(route, name))??;
        }
        Ok(())
    }

    fn namespaces(&self) -> [&Namespace; 3] {
        [&self.client, &self.gateway, &self.host]
    }
}

fn connect(first: &End, second: &End, leg: Leg, seed: u64) -> Result<Option<Line>> {
    match leg {
        Leg::Line { quality, mtu } => Line::open(first, second, quality, mtu, seed).map(Some),
        Leg::Ethernet => {
            let make = || make_veth(first.device, second.device, second.namespace.as_fd());
            first.namespace.enter(make)??;
            for end in [first, second] {
                let set = || set_address(end.device, end.address, PREFIX);
                end.namespace.enter(set)??;
            }
            Ok(None)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use socket2::SockRef;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::timeout;

    use super::*;
    use crate::host::Host;
    use crate::line::Direction;
    use crate::net::{Endpoint, listen_in};

    const ROUND_TRIP: Duration = Duration::from_millis(60);

    fn host(network: &Network) -> Host {
        let answer = |mut stream: tokio::net::TcpStream| async move {
            stream.write_all(b"hello").await?;
            Ok(())
        };
        Host::spawn_in(&network.host, HOST.into(), answer).unwrap()
    }

    async fn greeting(network: &Network, host: &Host) -> Vec<u8> {
        let endpoint = Endpoint::plain(host.addr()).in_namespace(&network.client);
        let mut stream = endpoint.connect_tcp().await.unwrap();
        let mut greeting = Vec::new();
        stream.read_to_end(&mut greeting).await.unwrap();
        greeting
    }

    #[tokio::test]
    async fn clients_reach_the_host_through_a_line_and_an_ethernet() {
        let line = Quality::new(ROUND_TRIP, 10_000_000);
        for legs in [(line.into(), Leg::Ethernet), (Leg::Ethernet, line.into())] {
            let network = Network::new(legs.0, legs.1, 1).unwrap();
            let host = host(&network);
            let begin = Instant::now();
            assert_eq!(greeting(&network, &host).await, b"hello");
            assert!(begin.elapsed() >= 2 * ROUND_TRIP);
        }
    }

    #[tokio::test]
    async fn a_dead_line_lets_nothing_through_until_it_is_mended() {
        let network = Network::new(Quality::default().into(), Leg::Ethernet, 1).unwrap();
        let host = host(&network);
        let line = network.client_leg.as_ref().unwrap();
        line.cut();
        let mut greeted = std::pin::pin!(greeting(&network, &host));
        let early = timeout(Duration::from_millis(200), &mut greeted).await;
        assert!(early.is_err());
        assert!(line.stats(Direction::There).lost > 0);
        line.mend();
        assert_eq!(greeted.await, b"hello");
    }

    #[tokio::test]
    async fn a_thread_comes_back_from_a_namespace() {
        let here = || std::fs::read_link("/proc/thread-self/ns/net").unwrap();
        let before = here();
        let inside = Namespace::new().unwrap().enter(here).unwrap();
        assert_ne!(inside, before);
        assert_eq!(here(), before);
    }

    #[test]
    fn an_unknown_congestion_control_is_refused() {
        let network = Network::new(Leg::Ethernet, Leg::Ethernet, 1).unwrap();
        assert!(network.set_congestion_control("unheard-of").is_err());
        network.set_congestion_control("reno").unwrap();
    }

    #[tokio::test]
    async fn both_ends_of_a_connection_have_the_congestion_control_of_the_network() {
        let network = Network::new(Leg::Ethernet, Leg::Ethernet, 1).unwrap();
        for name in [CONGESTION_CONTROL, "reno"] {
            network.set_congestion_control(name).unwrap();
            let listener = listen_in(&network.host, (HOST, 0).into()).unwrap();
            let addr = listener.local_addr().unwrap();
            let endpoint = Endpoint::plain(addr).in_namespace(&network.client);
            let (client, host) = tokio::join!(endpoint.connect_tcp(), listener.accept());
            for end in [client.unwrap(), host.unwrap().0] {
                let used = SockRef::from(&end).tcp_congestion().unwrap();
                assert_eq!(String::from_utf8_lossy(&used).trim_end_matches('\0'), name);
            }
        }
    }
}
