//! The directory of the gateway's sockets, which one gateway has at a time.

use std::fs::{File, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;
use testkit::gateway::{Signal, gateway_binary};
use testkit::prelude::*;
use tokio::process::Command;
use tokio::sync::oneshot;

use crate::support::{Traffic, port_gateway, successor_of};

/// A user that no gateway of the tests runs as: `nobody`.
const STRANGER: u32 = 65_534;

fn path(directory: &Path) -> &str {
    directory.to_str().unwrap()
}

/// Runs a command of the gateway's binary to its end.
async fn run(configuration: &Path, arguments: &[&str], user: Option<u32>) -> Output {
    let mut command = Command::new(gateway_binary().unwrap());
    command.arg("--config").arg(configuration).args(arguments);
    if let Some(user) = user {
        command.uid(user);
    }
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = within("a command", command.output()).await;
    output.unwrap().unwrap()
}

/// Process id of the gateway that answers the commands for this one.
async fn who_answers(gateway: &Gateway) -> u64 {
    let output = run(gateway.config_path(), &["status", "--json"], None).await;
    assert!(output.status.success(), "{output:?}");
    let status: Value = serde_json::from_slice(&output.stdout).unwrap();
    status["pid"].as_u64().unwrap()
}

/// A plain start in the same directory fails, and says who has it.
async fn assert_in_use(gateway: &Gateway, holder: u32) {
    let output = run(gateway.config_path(), &["run"], None).await;
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    let directory = gateway.runtime_dir();
    let directory = directory.display();
    let told = format!("{directory}: RuntimeDir: in use by process {holder};");
    assert!(error.contains(&told), "{error}");
}

#[tokio::test]
async fn a_second_gateway_is_told_who_has_it_and_takes_nothing() {
    let gateway = port_gateway().spawn().await.unwrap();
    assert_in_use(&gateway, gateway.pid()).await;
    assert_eq!(who_answers(&gateway).await, u64::from(gateway.pid()));
    // It has left what successors need.
    drop(successor_of(&gateway, port_gateway()).await);
}

#[tokio::test]
async fn it_is_free_once_its_gateway_has_ended_however_it_did() {
    let mut gateway = port_gateway().spawn().await.unwrap();
    let directory = gateway.runtime_dir();
    let mut ended = Vec::new();
    for signal in [Signal::KILL, Signal::TERM, Signal::USR2] {
        gateway.signal(signal).unwrap();
        gateway.wait().await.unwrap();
        let next = port_gateway().set("RuntimeDir", path(&directory));
        let next = next.spawn().await.unwrap();
        assert_eq!(who_answers(&next).await, u64::from(next.pid()));
        // The directory goes with the first one.
        ended.push(std::mem::replace(&mut gateway, next));
    }
}

#[tokio::test]
async fn a_successor_has_it_after_its_predecessor() {
    let mut gateway = port_gateway().spawn().await.unwrap();
    let successor = successor_of(&gateway, port_gateway()).await;
    assert!(gateway.wait().await.unwrap().success());
    assert_in_use(&gateway, successor.pid()).await;
    assert_eq!(who_answers(&gateway).await, u64::from(successor.pid()));
}

/// Holds the lock from the moment on at which the gateway leaves it, as a gateway that is started
/// just then does.
struct Intruder {
    holds: oneshot::Receiver<()>,
    leave: oneshot::Sender<()>,
    thread: std::thread::JoinHandle<()>,
}

impl Intruder {
    fn waits_in(directory: PathBuf) -> Self {
        let (holding, holds) = oneshot::channel();
        let (leave, leaving) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let file = File::open(directory.join("gateway.lock")).unwrap();
            // In turn: who waits has it before anybody who comes later.
            file.lock().unwrap();
            let _ = holding.send(());
            let _ = leaving.blocking_recv();
        });
        Self {
            holds,
            leave,
            thread,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hand_over_that_fails_as_it_is_taken_leaves_the_gateway_with_all_it_had() {
    let host = Host::echo().await.unwrap();
    let token = host.addr().port().to_string();
    let gateway = port_gateway().spawn().await.unwrap();
    let channel = ws::echo_channel(&gateway.tls(), &token).await.unwrap();
    let mut traffic = Traffic::start(channel, 1_000);
    let intruder = Intruder::waits_in(gateway.runtime_dir());
    // The thread waits for the lock when it sleeps; before, the successor might be quicker.
    wait_for_a_waiter(&gateway).await;
    let failing = port_gateway()
        .set("RuntimeDir", path(&gateway.runtime_dir()))
        .set("PlainPort", gateway.plain_addr().port())
        .arg("run")
        .arg("--take-over");
    let error = failing.spawn().await.unwrap_err().to_string();
    assert!(error.contains("RuntimeDir: in use by process"), "{error}");
    within("the intruder", intruder.holds)
        .await
        .unwrap()
        .unwrap();
    for told in ["hand-over failed", "until it is free"] {
        let line = |line: &str| line.contains(told);
        gateway.wait_for_log(line, PATIENCE).await.unwrap();
    }
    traffic.goes_on().await;
    drop(ws::echo_channel(&gateway.tls(), &token).await.unwrap());

    intruder.leave.send(()).unwrap();
    intruder.thread.join().unwrap();
    let regained = |line: &str| line.contains("the directory is this gateway's again");
    gateway.wait_for_log(regained, PATIENCE).await.unwrap();
    assert_eq!(who_answers(&gateway).await, u64::from(gateway.pid()));
    let successor = successor_of(&gateway, port_gateway()).await;
    assert_eq!(who_answers(&gateway).await, u64::from(successor.pid()));
    traffic.goes_on().await;
    traffic.finish().await;
}

/// Waits until somebody waits for the lock, which the kernel shows as `-> FLOCK`.
async fn wait_for_a_waiter(gateway: &Gateway) {
    let pid = gateway.pid().to_string();
    let waits = async {
        loop {
            let locks = std::fs::read_to_string("/proc/locks").unwrap();
            let mut lines = locks.lines();
            let held = |line: &&str| line.contains("FLOCK") && line.split(' ').any(|it| it == pid);
            lines.find(held).unwrap();
            if lines.next().is_some_and(|next| next.contains("-> FLOCK")) {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    within("somebody who waits for the lock", waits)
        .await
        .unwrap();
}

#[tokio::test]
async fn one_that_others_may_write_to_is_refused_and_so_the_check_says() {
    let parent = TempDir::with_prefix("testkit-run-").unwrap();
    let directory = parent.path().join("run");
    std::fs::create_dir(&directory).unwrap();
    let gateway = port_gateway().spawn().await.unwrap();
    gateway
        .change_config(&[("RuntimeDir", path(&directory).into())])
        .unwrap();
    for mode in [0o770, 0o707, 0o1777] {
        std::fs::set_permissions(&directory, Permissions::from_mode(mode)).unwrap();
        for arguments in [&["run"][..], &["run", "--take-over"], &["check"]] {
            let output = run(gateway.config_path(), arguments, None).await;
            let error = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(78), "{arguments:?}: {error}");
            let told = format!(
                "flexvdi-gateway: {}: RuntimeDir: expected a directory that its owner alone may \
                 write to (chmod go-w), found mode {mode:04o}\n",
                directory.display()
            );
            assert_eq!(error, told, "{arguments:?}");
            assert_eq!(output.stdout, b"");
        }
    }
    assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 0);
}

#[tokio::test]
async fn one_of_another_user_is_refused_but_not_by_the_check_of_root() {
    assert!(
        rustix::process::geteuid().is_root(),
        "only root may give a directory away: run the tests as root"
    );
    let directory = TempDir::with_prefix("testkit-run-").unwrap();
    chown(directory.path(), Some(STRANGER), None).unwrap();
    let gateway = port_gateway().spawn().await.unwrap();
    gateway
        .change_config(&[("RuntimeDir", path(directory.path()).into())])
        .unwrap();
    let output = run(gateway.config_path(), &["run"], None).await;
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(78), "{error}");
    let told = "expected a directory of the gateway's user (0), found one of user 65534\n";
    assert!(error.contains(told), "{error}");
    let output = run(gateway.config_path(), &["check"], None).await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}

#[tokio::test]
async fn no_other_user_is_let_in_even_where_the_files_would_let_them() {
    assert!(
        rustix::process::geteuid().is_root(),
        "only root may run a command as somebody else: run the tests as root"
    );
    let gateway = port_gateway().spawn().await.unwrap();
    let directory = gateway.runtime_dir();
    let reach = |path: &Path, mode| {
        std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    };
    let cert = gateway.cert();
    for path in [&directory, &cert.cert_path(), &cert.key_path()] {
        reach(path.parent().unwrap(), 0o755);
        reach(path, 0o755);
    }
    for (socket, arguments) in [
        ("admin.sock", &["status"][..]),
        ("handover.sock", &["run", "--take-over"]),
    ] {
        reach(&directory.join(socket), 0o666);
        let output = run(gateway.config_path(), arguments, Some(STRANGER)).await;
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(!output.stderr.is_empty());
        let told = format!("socket=\"{socket}\" user={STRANGER}");
        let refused = |line: &str| line.contains("was not let in") && line.contains(&told);
        gateway.wait_for_log(refused, PATIENCE).await.unwrap();
    }
    assert_eq!(who_answers(&gateway).await, u64::from(gateway.pid()));
}
