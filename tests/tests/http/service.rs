//! The gateway under a service manager: what it tells, and sockets that are passed to it.

use std::fs::Permissions;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};
use socket2::SockRef;
use tempfile::TempDir;
use testkit::command::write_program;
use testkit::gateway::{GatewayBuilder, Signal, gateway_binary};
use testkit::prelude::*;
use testkit::sock_diag::{given, own};
use tokio::net::UnixDatagram;

use crate::support::{assert_opens, port_gateway, port_token};

/// A stand-in for the service manager's end of `NOTIFY_SOCKET`.
pub(crate) struct Notified {
    socket: UnixDatagram,
    pub(crate) path: PathBuf,
    _dir: TempDir,
}

impl Notified {
    pub(crate) fn new() -> Self {
        let dir = TempDir::with_prefix("testkit-notify-").unwrap();
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        // Whoever the gateway runs as may tell.
        std::fs::set_permissions(&path, Permissions::from_mode(0o777)).unwrap();
        Self {
            socket,
            path,
            _dir: dir,
        }
    }

    /// The lines of the next message.
    async fn next(&self) -> Vec<String> {
        let mut buffer = [0; 4096];
        let received = within("a notification", self.socket.recv(&mut buffer)).await;
        let text = str::from_utf8(&buffer[..received.unwrap().unwrap()]).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    /// The lines of the next message that has this one.
    pub(crate) async fn next_with(&self, line: &str) -> Vec<String> {
        loop {
            let lines = self.next().await;
            if lines.iter().any(|it| it == line) {
                return lines;
            }
        }
    }
}

#[tokio::test]
async fn start_and_end_are_told() {
    let manager = Notified::new();
    let mut gateway = port_gateway()
        .env("NOTIFY_SOCKET", &manager.path)
        .spawn()
        .await
        .unwrap();
    assert_eq!(manager.next().await, ["READY=1", "STATUS=serving"]);
    let status = manager.next_with("STATUS=serving, 0 channels open").await;
    assert_eq!(status.len(), 1, "no watchdog was asked for: {status:?}");
    assert!(gateway.terminate().await.unwrap().success());
    let last = manager.next_with("STOPPING=1").await;
    assert_eq!(last, ["STOPPING=1", "STATUS=ending 0 channels"]);
}

#[tokio::test]
async fn signs_of_life_come_while_it_lives_and_tell_of_channels() {
    let manager = Notified::new();
    let gateway = port_gateway()
        .env("NOTIFY_SOCKET", &manager.path)
        .env("WATCHDOG_USEC", "200000")
        .spawn()
        .await
        .unwrap();
    for _ in 0..3 {
        manager.next_with("WATCHDOG=1").await;
    }
    let host = Host::echo().await.unwrap();
    let _channel = ws::echo_channel(&gateway.tls(), &port_token(&host))
        .await
        .unwrap();
    let told = manager.next_with("STATUS=serving, 1 channels open").await;
    assert_eq!(told[0], "WATCHDOG=1");

    gateway.signal(Signal::STOP).unwrap();
    let silent = async {
        while tokio::time::timeout(Duration::from_secs(1), manager.next())
            .await
            .is_ok()
        {}
    };
    within("silence of a gateway that stands still", silent)
        .await
        .unwrap();
    gateway.signal(Signal::CONT).unwrap();
    manager.next_with("WATCHDOG=1").await;
}

#[tokio::test]
async fn a_service_manager_that_is_gone_stops_nothing() {
    let gateway = port_gateway()
        .env("NOTIFY_SOCKET", "/nonexistent/notify")
        .spawn()
        .await
        .unwrap();
    let warned = |line: &str| line.contains("the service manager is not reached");
    gateway.wait_for_log(warned, PATIENCE).await.unwrap();
    let host = Host::echo().await.unwrap();
    assert_opens(&gateway.tls(), &port_token(&host)).await;
}

/// What passes open sockets on as a service manager does: as the descriptors from 3 on, for this
/// process id only.
struct Activation {
    program: PathBuf,
    _sockets: Vec<OwnedFd>,
    _dir: TempDir,
}

impl Activation {
    fn new(sockets: &[&TcpListener]) -> Self {
        let dir = TempDir::with_prefix("testkit-activation-").unwrap();
        let sockets: Vec<_> = sockets.iter().copied().map(inheritable).collect();
        let program = dir.path().join("activate");
        let moves: Vec<_> = (3..)
            .zip(&sockets)
            .map(|(to, from)| format!("{to}<&{}", from.as_raw_fd()))
            .collect();
        let script = format!(
            "#!/bin/bash\nexec {}\nexport LISTEN_PID=$$ LISTEN_FDS={}\nexec {} \"$@\"\n",
            moves.join(" "),
            sockets.len(),
            gateway_binary().unwrap().display(),
        );
        write_program(&program, &script).unwrap();
        Self {
            program,
            _sockets: sockets,
            _dir: dir,
        }
    }

    fn gateway(&self, names: &str) -> GatewayBuilder {
        port_gateway()
            .binary(&self.program)
            .env("LISTEN_FDNAMES", names)
    }
}

/// A copy that child processes keep, above the descriptors that the script writes to.
fn inheritable(socket: &TcpListener) -> OwnedFd {
    let copy = fcntl_dupfd_cloexec(socket, 10).unwrap();
    fcntl_setfd(&copy, FdFlags::empty()).unwrap();
    copy
}

#[tokio::test]
async fn sockets_that_are_passed_in_are_served() {
    let tls = TcpListener::bind("127.0.0.1:0").unwrap();
    let plain = TcpListener::bind("127.0.0.1:0").unwrap();
    let passed = Activation::new(&[&plain, &tls]);
    let gateway = passed.gateway("plain:tls").spawn().await.unwrap();
    assert_eq!(gateway.tls_addr(), tls.local_addr().unwrap());
    assert_eq!(gateway.plain_addr(), plain.local_addr().unwrap());
    let host = Host::echo().await.unwrap();
    assert_opens(&gateway.tls(), &port_token(&host)).await;
}

/// As with `TCPCongestion=` of a socket unit.
#[tokio::test]
async fn the_congestion_control_of_sockets_that_are_passed_in_is_left_where_the_system_decides() {
    let tls = TcpListener::bind("127.0.0.1:0").unwrap();
    let system = own(&tls).unwrap();
    SockRef::from(&tls).set_tcp_congestion(b"reno").unwrap();
    let passed = Activation::new(&[&tls]);
    for (configured, expected) in [("system", "reno"), (system.as_str(), system.as_str())] {
        let gateway = passed.gateway("tls").set("CongestionControl", configured);
        let gateway = gateway.spawn().await.unwrap();
        assert_eq!(given(&gateway.tls()).await.unwrap(), expected);
    }
}

#[tokio::test]
async fn sockets_of_other_names_are_refused_by_name() {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let passed = Activation::new(&[&socket]);
    let error = passed.gateway("web").spawn().await.unwrap_err();
    let said = "the socket \"web\" that was passed in has another name";
    assert!(error.to_string().contains(said), "{error}");
}
