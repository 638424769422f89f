//! The network between the measured gateway and its peers: a pair of Ethernet devices in network
//! namespaces of their own, so that packets are those of a real network and nobody else sees them.
//!
//! Over loopback a path can look cheaper than it is: a packet there can be the whole of what the
//! sender wrote, and its receiver is served at once.

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::{AsFd, AsRawFd};
use std::thread;
use std::time::Duration;

use anyhow::{Context, anyhow};
use rtnetlink::{Handle, LinkUnspec, LinkVeth, new_connection};
use rustix::net::{AddressFamily, SocketFlags, SocketType, netdevice, socket_with};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};
use serde::{Deserialize, Serialize};
use tokio::runtime::Builder;
use tokio::time::timeout;

/// Longest time in which the kernel makes the devices; it may have to load a module.
const LIMIT: Duration = Duration::from_secs(10);
/// Of the range for measurements (RFC 2544, appendix C.2.2).
const GATEWAY: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
const PEERS: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 2);
const PREFIX: u8 = 30;
/// What connections begin with, from a namespace's own directory of settings; and what they are
/// given here.
const CONGESTION_CONTROL: (&str, &str) = ("/proc/sys/net/ipv4/tcp_congestion_control", "cubic");
/// Names of the devices, each by what is behind it.
const TO_PEERS: &str = "peers";
const TO_GATEWAY: &str = "gateway";

/// What the bytes of a measurement have passed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Link {
    /// A pair of Ethernet devices (veth) with the kernel's default settings.
    Ethernet,
    /// Loopback.
    Loopback {
        /// Why it was not Ethernet.
        reason: String,
    },
}

/// Where the gateway's sockets and those of its peers are.
pub(super) struct Network {
    pub(super) link: Link,
    listener: TcpListener,
    peers: Option<Namespace>,
}

impl Network {
    /// Ethernet needs `CAP_SYS_ADMIN` and `CAP_NET_ADMIN`, and a kernel with veth devices; without
    /// them it is loopback. Fails where not even that is there.
    pub(super) fn open() -> anyhow::Result<Self> {
        let ethernet = thread::Builder::new()
            .name("network".to_owned())
            .spawn(ethernet)
            .context("cannot start a thread")?;
        let ethernet = ethernet.join().map_err(|_| anyhow!("it panicked"))?;
        let (link, listener, peers) = match ethernet {
            Ok((listener, peers)) => (Link::Ethernet, listener, Some(peers)),
            Err(error) => {
                let reason = format!("{error:#}");
                (
                    Link::Loopback { reason },
                    listen(Ipv4Addr::LOCALHOST)?,
                    None,
                )
            }
        };
        Ok(Self {
            link,
            listener,
            peers,
        })
    }

    /// Where the gateway accepts its peers. Needs a tokio runtime.
    pub(super) fn listener(&self) -> anyhow::Result<tokio::net::TcpListener> {
        let listener = self.listener.try_clone()?;
        Ok(tokio::net::TcpListener::from_std(listener)?)
    }

    /// Where the peers' sockets must be opened; `None`: anywhere.
    pub(super) fn of_peers(&self) -> anyhow::Result<Option<Namespace>> {
        let peers = self.peers.as_ref().map(Namespace::try_clone);
        Ok(peers.transpose()?)
    }
}

/// A network namespace. It is gone with its last descriptor and the sockets in it.
pub(super) struct Namespace(File);

impl Namespace {
    /// Moves the calling thread for good into a new one.
    ///
    /// Its connections have the kernel's usual congestion control, as near clients of the gateway
    /// do: a system may be set up with one that would be measured instead of the data paths.
    fn leave() -> anyhow::Result<Self> {
        #[expect(unsafe_code, reason = "the only way to leave a namespace")]
        // SAFETY: the thread goes on sharing its descriptors with the others; that of the network
        // is asked only when a socket is opened.
        let left = unsafe { unshare_unsafe(UnshareFlags::NEWNET) };
        left.context("no network namespace (CAP_SYS_ADMIN)")?;
        let (path, algorithm) = CONGESTION_CONTROL;
        // Where it cannot be set, the system's will do.
        let _ = fs::write(path, algorithm);
        let path = "/proc/thread-self/ns/net";
        Ok(Self(File::open(path).context(path)?))
    }

    /// Moves the calling thread into it: sockets that it opens from now on belong to it, whichever
    /// thread uses them.
    pub(super) fn enter(&self) -> anyhow::Result<()> {
        move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network))
            .context("cannot enter a network namespace")
    }

    fn try_clone(&self) -> std::io::Result<Self> {
        self.0.try_clone().map(Self)
    }
}

/// Makes both namespaces and the devices between them. The calling thread stays in the gateway's.
fn ethernet() -> anyhow::Result<(TcpListener, Namespace)> {
    let peers = Namespace::leave()?;
    let gateway = Namespace::leave()?;
    in_kernel(async |handle| {
        let pair = LinkVeth::new(TO_PEERS, TO_GATEWAY).build();
        let made = handle.link().add(pair).execute().await;
        made.context("no Ethernet devices (CAP_NET_ADMIN, module veth)")?;
        let other = LinkUnspec::new_with_index(index(TO_GATEWAY)?)
            .setns_by_fd(peers.0.as_raw_fd())
            .build();
        handle.link().set(other).execute().await?;
        bring_up(&handle, TO_PEERS, GATEWAY).await
    })?;
    peers.enter()?;
    in_kernel(async |handle| bring_up(&handle, TO_GATEWAY, PEERS).await)?;
    gateway.enter()?;
    Ok((listen(GATEWAY)?, peers))
}

/// Asks the kernel for changes in the calling thread's namespace.
fn in_kernel(ask: impl AsyncFnOnce(Handle) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (connection, handle, _messages) = new_connection()?;
        let connection = tokio::spawn(connection);
        let asked = timeout(LIMIT, ask(handle)).await;
        connection.abort();
        asked.context("the kernel did not set the network up in time")?
    })
}

/// Gives a device its address and lets it carry packets.
async fn bring_up(handle: &Handle, device: &str, address: Ipv4Addr) -> anyhow::Result<()> {
    let index = index(device)?;
    let addresses = handle.address();
    addresses
        .add(index, address.into(), PREFIX)
        .execute()
        .await?;
    let up = LinkUnspec::new_with_index(index).up().build();
    handle.link().set(up).execute().await?;
    Ok(())
}

fn index(device: &str) -> anyhow::Result<u32> {
    let any = socket_with(
        AddressFamily::INET,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    netdevice::name_to_index(&any, device).with_context(|| format!("no device {device}"))
}

fn listen(address: Ipv4Addr) -> anyhow::Result<TcpListener> {
    let listener =
        TcpListener::bind((address, 0)).with_context(|| format!("listening on {address}"))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}
