//! The directory of the gateway's sockets, which one gateway has at a time.

use std::fs::{File, Permissions};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::command::write_program;
use testkit::gateway::{Signal, gateway_binary};
use testkit::prelude::*;
use tokio::net::UnixListener;
use tokio::process::Command;

use crate::pretender::Pretender;
use crate::support::{Traffic, port_gateway, successor_in, successor_of};

/// A user that no gateway of the tests runs as: `nobody`.
const STRANGER: u32 = 65_534;

fn path(directory: &Path) -> &str {
    directory.to_str().unwrap()
}

/// Runs a command of the gateway's binary to its end.
async fn run(configuration: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(gateway_binary().unwrap());
    command.arg("--config").arg(configuration).args(arguments);
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = within("a command", command.output()).await;
    output.unwrap().unwrap()
}

/// Process id of the gateway that answers the commands for this one.
async fn who_answers(gateway: &Gateway) -> u64 {
    let output = run(gateway.config_path(), &["status", "--json"]).await;
    assert!(output.status.success(), "{output:?}");
    let status: Value = serde_json::from_slice(&output.stdout).unwrap();
    status["pid"].as_u64().unwrap()
}

/// A plain start in the same directory fails, and says who has it.
async fn assert_in_use(gateway: &Gateway, holder: u32) {
    let output = run(gateway.config_path(), &["run"]).await;
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

/// Locks the directory as a gateway does that is started just now.
fn intrude(directory: &Path) -> File {
    let path = directory.join("gateway.lock");
    let lock = File::options().write(true).open(path).unwrap();
    lock.try_lock().unwrap();
    lock.set_len(0).unwrap();
    writeln!(&lock, "{}", std::process::id()).unwrap();
    lock
}

#[tokio::test]
async fn after_a_hand_over_that_failed_it_is_waited_for_and_clients_are_served_meanwhile() {
    let host = Host::echo().await.unwrap();
    let token = host.addr().port().to_string();
    let gateway = port_gateway().spawn().await.unwrap();
    let channel = ws::echo_channel(&gateway.tls(), &token).await.unwrap();
    let mut traffic = Traffic::start(channel, 1_000);
    let mut failing = Pretender::connect(&gateway.runtime_dir()).await;
    failing.is_given_the_estate().await;
    let lock = intrude(&gateway.runtime_dir());
    drop(failing);
    let holder = format!("in use by process {};", std::process::id());
    for told in [&["hand-over failed"][..], &["until it is free", &holder]] {
        let line = |line: &str| told.iter().all(|part| line.contains(part));
        gateway.wait_for_log(line, PATIENCE).await.unwrap();
    }
    traffic.goes_on().await;
    drop(ws::echo_channel(&gateway.tls(), &token).await.unwrap());

    drop(lock);
    let regained = |line: &str| line.contains("RuntimeDir belongs to this gateway again");
    gateway.wait_for_log(regained, PATIENCE).await.unwrap();
    assert_eq!(who_answers(&gateway).await, u64::from(gateway.pid()));
    let successor = successor_of(&gateway, port_gateway()).await;
    assert_eq!(who_answers(&gateway).await, u64::from(successor.pid()));
    traffic.goes_on().await;
    traffic.finish().await;
}

#[tokio::test]
async fn a_successor_that_does_not_get_it_ends_and_says_who_has_it() {
    let other = port_gateway().spawn().await.unwrap();
    let mut heir = Pretender::connect(&other.runtime_dir()).await;
    let estate = heir.is_given_the_estate().await;

    let directory = TempDir::with_prefix("testkit-run-").unwrap();
    std::fs::write(directory.path().join("gateway.lock"), "").unwrap();
    let _lock = intrude(directory.path());
    let door = UnixListener::bind(directory.path().join("handover.sock")).unwrap();
    let predecessor = async {
        let (stream, _) = door.accept().await.unwrap();
        let mut predecessor = Pretender::of_successor(stream);
        assert_eq!(predecessor.hear().await, "Hello");
        predecessor.say(&json!("Welcome")).await;
        assert_eq!(predecessor.hear().await, "Ready");
        predecessor.say(&estate).await;
        // It must not say that it serves.
        assert!(predecessor.has_ended().await);
    };
    other
        .change_config(&[
            ("RuntimeDir", path(directory.path()).into()),
            ("PlainPort", 0.into()),
        ])
        .unwrap();
    let (ended, ()) = tokio::join!(
        run(other.config_path(), &["run", "--take-over"]),
        predecessor
    );
    let error = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(1), "{error}");
    let holder = format!("in use by process {};", std::process::id());
    assert!(error.contains(&holder), "{error}");
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
            let output = run(gateway.config_path(), arguments).await;
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
#[cfg_attr(unprivileged, ignore = "needs root: cargo xtask test")]
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
    let output = run(gateway.config_path(), &["run"]).await;
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(78), "{error}");
    let told = "expected a directory of the gateway's user (0), found one of user 65534\n";
    assert!(error.contains(told), "{error}");
    let output = run(gateway.config_path(), &["check"]).await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}

/// A folder that everybody may read, with the gateway's program.
fn readable_by_all() -> (TempDir, PathBuf) {
    assert!(
        rustix::process::geteuid().is_root(),
        "only root may run a program as somebody else: run the tests as root"
    );
    let folder = TempDir::with_prefix("testkit-readable-").unwrap();
    open_up(folder.path());
    let program = folder.path().join("flexvdi-gateway");
    let binary = gateway_binary().unwrap();
    std::fs::hard_link(&binary, &program)
        .or_else(|_| std::fs::copy(&binary, &program).map(drop))
        .unwrap();
    (folder, program)
}

fn open_up(path: &Path) {
    std::fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
}

/// Lets everybody read certificate and key.
fn open_up_files_of(cert: &TestCert) {
    for path in [cert.cert_path(), cert.key_path()] {
        open_up(path.parent().unwrap());
        open_up(&path);
    }
}

#[tokio::test]
#[cfg_attr(unprivileged, ignore = "needs root: cargo xtask test")]
async fn no_other_user_is_let_in_even_where_the_files_would_let_them() {
    let (_folder, program) = readable_by_all();
    let gateway = port_gateway().spawn().await.unwrap();
    let directory = gateway.runtime_dir();
    open_up(directory.parent().unwrap());
    open_up(&directory);
    open_up_files_of(gateway.cert());
    for (socket, arguments) in [
        ("admin.sock", &["status"][..]),
        ("handover.sock", &["run", "--take-over"]),
    ] {
        let path = directory.join(socket);
        std::fs::set_permissions(path, Permissions::from_mode(0o666)).unwrap();
        let mut command = Command::new(&program);
        command.arg("--config").arg(gateway.config_path());
        command.args(arguments).uid(STRANGER).kill_on_drop(true);
        let output = within("a command", command.output()).await;
        let output = output.unwrap().unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(!output.stderr.is_empty());
        let told = format!("socket=\"{socket}\" user={STRANGER}");
        let refused =
            |line: &str| line.contains("refused a process of another user") && line.contains(&told);
        gateway.wait_for_log(refused, PATIENCE).await.unwrap();
    }
    assert_eq!(who_answers(&gateway).await, u64::from(gateway.pid()));
}

#[tokio::test]
#[cfg_attr(unprivileged, ignore = "needs root: cargo xtask test")]
async fn root_takes_over_from_a_gateway_of_another_user_in_its_directory() {
    let (folder, program) = readable_by_all();
    let directory = folder.path().join("run");
    std::fs::create_dir(&directory).unwrap();
    std::fs::set_permissions(&directory, Permissions::from_mode(0o700)).unwrap();
    chown(&directory, Some(STRANGER), None).unwrap();
    let cert = TestCert::new().unwrap();
    open_up_files_of(&cert);
    let plain = testkit::net::free_port().unwrap();
    let config = json!({
        "HijackAll": false,
        "ListenAddress": "127.0.0.1",
        "SslPort": 0,
        "PlainPort": plain,
        "FirstSpicePort": 1,
        "LastSpicePort": 65535,
        "CertFile": cert.cert_path(),
        "KeyFile": cert.key_path(),
        "RuntimeDir": directory,
    });
    let config_path = folder.path().join("gateway.conf");
    std::fs::write(&config_path, config.to_string()).unwrap();
    open_up(&config_path);
    let start = folder.path().join("start");
    let script = format!(
        "#!/bin/sh\nexec setpriv --reuid={STRANGER} --clear-groups {} --config {}\n",
        program.display(),
        config_path.display()
    );
    write_program(&start, &script).unwrap();
    let mut gateway = port_gateway().binary(start).spawn().await.unwrap();
    let host = Host::echo().await.unwrap();
    let token = host.addr().port().to_string();
    let mut channel = ws::echo_channel(&gateway.plain(), &token).await.unwrap();
    // The second one takes over from root, in a directory that is the first one's still.
    for _ in 0..2 {
        let successor = successor_in(&directory, &gateway, port_gateway()).await;
        assert!(gateway.wait().await.unwrap().success());
        channel.echo(b"still here").await.unwrap();
        gateway = successor;
    }
    assert!(gateway.terminate().await.unwrap().success());
    let refused = run(&config_path, &["run"]).await;
    assert_eq!(refused.status.code(), Some(78), "{refused:?}");
}
