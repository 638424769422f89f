//! Restarts by a service manager that keeps descriptors in between.

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use tempfile::TempDir;
use testkit::command::write_program;
use testkit::gateway::{GatewayBuilder, Signal, gateway_binary, unused_user};
use testkit::loaded::Loaded;
use testkit::prelude::*;
use tokio::io::Interest;
use tokio::net::UnixDatagram;
use tokio::task::JoinHandle;

use crate::sockmap::{CHANNELS, channels, expect_ends_on_sockmap, sockmap_gateway};
use crate::support::{all_go_on, finish, port_gateway};

type Kept = Arc<Mutex<BTreeMap<String, OwnedFd>>>;

/// A stand-in for the service manager: keeps what it is given (`FDSTORE=1` in `sd_notify(3)`), and
/// starts the next process with it.
struct ServiceManager {
    directory: TempDir,
    kept: Kept,
    keeping: JoinHandle<()>,
}

impl Drop for ServiceManager {
    fn drop(&mut self) {
        self.keeping.abort();
    }
}

impl ServiceManager {
    fn new() -> Self {
        let directory = TempDir::with_prefix("testkit-manager-").unwrap();
        let socket = UnixDatagram::bind(directory.path().join("notify")).unwrap();
        for path in [directory.path().to_owned(), directory.path().join("notify")] {
            // Whoever the gateway runs as may tell.
            std::fs::set_permissions(path, Permissions::from_mode(0o777)).unwrap();
        }
        let kept = Kept::default();
        let keeping = tokio::spawn(keep(socket, Arc::clone(&kept)));
        Self {
            directory,
            kept,
            keeping,
        }
    }

    fn notify(&self) -> PathBuf {
        self.directory.path().join("notify")
    }

    /// Starts a process with all that is kept, and keeps it no more once the process is there.
    async fn start(&self, gateway: GatewayBuilder) -> Gateway {
        let kept = std::mem::take(&mut *self.kept.lock().unwrap());
        let descriptors = kept.iter().map(|(name, descriptor)| {
            let copy = fcntl_dupfd_cloexec(descriptor, 10).unwrap();
            fcntl_setfd(&copy, FdFlags::empty()).unwrap();
            (name.as_str(), copy)
        });
        let (names, descriptors): (Vec<_>, Vec<_>) = descriptors.unzip();
        let moves: Vec<_> = (3..)
            .zip(&descriptors)
            .map(|(to, from)| format!("exec {to}<&{0} {0}<&-", from.as_raw_fd()))
            .collect();
        let script = format!(
            "#!/bin/bash\n{}\nexport LISTEN_PID=$$ LISTEN_FDS={}\nexec {} \"$@\"\n",
            moves.join("\n"),
            descriptors.len(),
            gateway_binary().unwrap().display(),
        );
        let program = self.directory.path().join("start");
        write_program(&program, &script).unwrap();
        let gateway = gateway.env("NOTIFY_SOCKET", self.notify());
        if descriptors.is_empty() {
            return gateway.spawn().await.unwrap();
        }
        let gateway = gateway
            .binary(&program)
            .env("LISTEN_FDNAMES", names.join(":"));
        gateway.spawn().await.unwrap()
    }

    /// Restarts a gateway as `systemctl restart` does.
    async fn restart(&self, gateway: &mut Gateway, next: GatewayBuilder) -> Gateway {
        let (tls, plain) = (gateway.tls_addr().port(), gateway.plain_addr().port());
        gateway.signal(Signal::USR2).unwrap();
        assert!(gateway.wait().await.unwrap().success());
        let next = next.set("SslPort", tls).set("PlainPort", plain);
        self.start(next).await
    }
}

/// Keeps what is sent with messages, by its names, until it is to be forgotten.
async fn keep(socket: UnixDatagram, kept: Kept) {
    loop {
        let mut bytes = [0; 4096];
        let mut descriptors = Vec::new();
        let mut receive = || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
            let mut slices = [IoSliceMut::new(&mut bytes)];
            let received = recvmsg(socket.as_fd(), &mut slices, &mut control, flags)?;
            for message in control.drain() {
                if let RecvAncillaryMessage::ScmRights(rights) = message {
                    descriptors.extend(rights);
                }
            }
            Ok(received.bytes)
        };
        let len = socket
            .async_io(Interest::READABLE, &mut receive)
            .await
            .unwrap();
        let text = str::from_utf8(&bytes[..len]).unwrap();
        let name = text.lines().find_map(|line| line.strip_prefix("FDNAME="));
        let mut kept = kept.lock().unwrap();
        match name {
            Some(name) if text.contains("FDSTOREREMOVE=1") => {
                kept.remove(name);
            }
            Some(name) if text.contains("FDSTORE=1") => {
                kept.insert(name.to_owned(), descriptors.remove(0));
            }
            // What came with it is closed, which tells the sender that all before was read.
            _ => {}
        }
    }
}

const RESTARTS: usize = 6;

/// Channels lose nothing while their gateway is restarted; its last process, and how many channels
/// it had.
async fn restart_under_traffic(
    manager: &ServiceManager,
    configured: impl Fn() -> GatewayBuilder,
) -> (Gateway, usize) {
    let host = Host::echo().await.unwrap();
    let token = host.addr().port().to_string();
    let mut gateway = manager.start(configured()).await;
    let (mut traffic, mut silent) = channels(&gateway, &token).await;
    let count = traffic.len() + silent.len();
    for _ in 0..RESTARTS {
        gateway = manager.restart(&mut gateway, configured()).await;
        all_go_on(&mut traffic).await;
        let taken = gateway.count_logged("channels taken over").await;
        assert_eq!(taken, 1);
    }
    finish(traffic, &mut silent).await;
    (gateway, count)
}

#[tokio::test(flavor = "multi_thread")]
async fn channels_on_relay_lose_no_byte() {
    let manager = ServiceManager::new();
    let (mut gateway, _) = restart_under_traffic(&manager, port_gateway).await;
    assert!(gateway.terminate().await.unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(unprivileged, ignore = "needs root: cargo xtask test")]
async fn channels_on_sockmap_lose_no_byte() {
    let manager = ServiceManager::new();
    let (gateway, count) = restart_under_traffic(&manager, sockmap_gateway).await;
    expect_ends_on_sockmap(&gateway, count).await;
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(unprivileged, ignore = "needs root: cargo xtask test")]
async fn channels_on_programs_that_root_has_loaded_lose_no_byte() {
    let manager = ServiceManager::new();
    let loaded = Loaded::new(unused_user(), CHANNELS).unwrap();
    let configured = || {
        loaded.load().unwrap();
        loaded.for_gateway(sockmap_gateway())
    };
    let (gateway, count) = restart_under_traffic(&manager, configured).await;
    expect_ends_on_sockmap(&gateway, count).await;
}
