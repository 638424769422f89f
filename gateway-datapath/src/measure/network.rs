//! The network between the measured gateway and its peers: a pair of Ethernet devices in network
//! namespaces of their own, so that segments are those of a real network and nobody else sees them.
//!
//! Over loopback they are others, and so are the differences between data paths: many small writes
//! in quick succession cost less on `sockmap` than on `relay` over Ethernet, and more over loopback.

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use rtnetlink::{Handle, LinkUnspec, LinkVeth, new_connection};
use rustix::net::netdevice::name_to_index;
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};
use serde::{Deserialize, Serialize};
use socket2::{Domain, SockRef, Socket, Type};
use tokio::runtime::Builder;

use crate::congestion::{self, PACED, UNPACED};

/// Longest time in which the kernel makes namespaces and devices; it may have to load a module.
const LIMIT: Duration = Duration::from_secs(10);
/// Longest time in which a first connection comes about.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);
/// Of the range for measurements (RFC 2544, appendix C.2.2).
const GATEWAY: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
const PEERS: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 2);
const PREFIX: u8 = 30;
/// The congestion control that connections of the calling thread's namespace begin with.
const CONGESTION_CONTROL: &str = "/proc/sys/net/ipv4/tcp_congestion_control";
/// Names of the devices, each by what is behind it.
const TO_PEERS: &str = "peers";
const TO_GATEWAY: &str = "gateway";

/// What the bytes of a measurement have passed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Link {
    /// A pair of Ethernet devices (veth) with the system's settings, but for congestion control.
    Ethernet,
    /// Loopback.
    Loopback {
        /// Why it was not Ethernet.
        reason: String,
    },
}

/// Where the gateway's sockets and those of its peers are: in the namespaces of an Ethernet, or
/// else, for this reason, where the process is.
pub(super) struct Network(Result<Ethernet, String>);

/// Two namespaces with a pair of devices between them.
struct Ethernet {
    gateway: Namespace,
    peers: Namespace,
}

impl Network {
    /// Ethernet needs `CAP_SYS_ADMIN` and `CAP_NET_ADMIN`, and a kernel with veth devices; without
    /// them it is loopback. Takes up to [`LIMIT`] of the calling thread's time.
    pub(super) fn open() -> Self {
        Self(within(LIMIT, Ethernet::make).map_err(|error| format!("{error:#}")))
    }

    pub(super) fn link(&self) -> Link {
        match &self.0 {
            Ok(_) => Link::Ethernet,
            Err(reason) => Link::Loopback {
                reason: reason.clone(),
            },
        }
    }

    /// Where the gateway accepts peers. Needs a tokio runtime.
    pub(super) fn listen(&self) -> anyhow::Result<tokio::net::TcpListener> {
        let listener = match &self.0 {
            Err(_) => TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?,
            Ok(ethernet) => {
                let gateway = ethernet.gateway.try_clone()?;
                within(LIMIT, move || {
                    gateway.enter()?;
                    Ok(TcpListener::bind((GATEWAY, 0))?)
                })?
            }
        };
        listener.set_nonblocking(true)?;
        Ok(tokio::net::TcpListener::from_std(listener)?)
    }

    /// Where the peers' sockets must be opened; `None`: anywhere.
    pub(super) fn of_peers(&self) -> anyhow::Result<Option<Namespace>> {
        let peers = self.0.as_ref().ok().map(|ethernet| &ethernet.peers);
        Ok(peers.map(Namespace::try_clone).transpose()?)
    }
}

/// Has a thread of its own do something, which may enter a namespace, and waits so long for it.
/// A thread that takes longer is left alone.
fn within<T: Send + 'static>(
    limit: Duration,
    work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    let (tell, done) = mpsc::sync_channel(1);
    thread::Builder::new()
        .name("network".to_owned())
        .spawn(move || {
            // Nobody waits for what comes too late.
            let _ = tell.send(work());
        })
        .context("cannot start a thread")?;
    match done.recv_timeout(limit) {
        Ok(outcome) => outcome,
        Err(RecvTimeoutError::Timeout) => bail!("the kernel took more than {limit:?} for it"),
        Err(RecvTimeoutError::Disconnected) => bail!("setting the network up has failed"),
    }
}

/// A network namespace. It is gone with its last descriptor and the sockets in it.
pub(super) struct Namespace(File);

impl Namespace {
    /// Moves the calling thread for good into a new one, which has the system's settings but for
    /// congestion control.
    fn leave() -> anyhow::Result<Self> {
        #[expect(unsafe_code, reason = "the only way to leave a namespace")]
        // SAFETY: the thread goes on sharing its descriptors with the others; that of the network
        // is asked only when a socket is opened.
        let left = unsafe { unshare_unsafe(UnshareFlags::NEWNET) };
        left.context("no network namespace (CAP_SYS_ADMIN)")?;
        // The gateway does not give it to clients that are near, and it would be measured instead
        // of the data paths. Where nothing can be set, the system's will do unless it is that one.
        UNPACED
            .into_iter()
            .find(|name| fs::write(CONGESTION_CONTROL, name).is_ok());
        let begins_with = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        ensure!(
            congestion::of(&SockRef::from(&begins_with))? != PACED,
            "connections begin with {PACED}, and {CONGESTION_CONTROL} cannot be written"
        );
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

impl Ethernet {
    /// Makes both namespaces and the devices between them, and sees that they carry connections.
    /// Moves the calling thread.
    fn make() -> anyhow::Result<Self> {
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
        let listener = TcpListener::bind((GATEWAY, 0)).context("cannot listen on it")?;
        peers.enter()?;
        in_kernel(async |handle| bring_up(&handle, TO_GATEWAY, PEERS).await)?;
        TcpStream::connect_timeout(&listener.local_addr()?, CONNECT_LIMIT)
            .context("the Ethernet devices carry no connection")?;
        Ok(Self { gateway, peers })
    }
}

/// Asks the kernel for changes in the calling thread's namespace.
fn in_kernel(ask: impl AsyncFnOnce(Handle) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (connection, handle, _messages) = new_connection()?;
        let connection = tokio::spawn(connection);
        let asked = ask(handle).await;
        connection.abort();
        asked
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
    let any = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
    name_to_index(&any, device).with_context(|| format!("no device {device}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_that_hangs_and_a_thread_that_panics_are_not_waited_for() {
        let (_keep, held_up) = mpsc::channel::<()>();
        let hangs = move || Ok(held_up.recv()?);
        let error = within(Duration::from_millis(1), hangs).unwrap_err();
        assert!(error.to_string().contains("took more than 1ms"), "{error}");
        let error = within(LIMIT, || -> anyhow::Result<()> { panic!("as meant") });
        assert!(error.unwrap_err().to_string().contains("has failed"));
    }

    #[tokio::test]
    async fn connections_have_a_congestion_control_without_a_pace_at_both_ends() {
        let network = Network::open();
        if cfg!(unprivileged) {
            assert_ne!(network.link(), Link::Ethernet);
            return;
        }
        assert_eq!(network.link(), Link::Ethernet);
        let listener = network.listen().unwrap();
        let address = listener.local_addr().unwrap();
        let peers = network.of_peers().unwrap().unwrap();
        let peer = within(LIMIT, move || {
            peers.enter()?;
            Ok(TcpStream::connect_timeout(&address, CONNECT_LIMIT)?)
        });
        let (peer, (leg, _)) = (peer.unwrap(), listener.accept().await.unwrap());
        for socket in [SockRef::from(&peer), SockRef::from(&leg)] {
            let name = congestion::of(&socket).unwrap();
            assert!(UNPACED.contains(&name.as_str()), "{name}");
        }
    }
}
