//! What a gateway that root starts may still do.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;
use testkit::command::write_program;
use testkit::gateway::{GatewayBuilder, Signal, gateway_binary};
use testkit::packages::{Package, ensure};
use testkit::prelude::*;

use crate::reload::assert_shows;
use crate::support::{assert_opens, logged, port_gateway, port_token};

// linux/capability.h
const DAC_OVERRIDE: u64 = 1 << 1;
const DAC_READ_SEARCH: u64 = 1 << 2;
const SETPCAP: u64 = 1 << 8;
const NET_BIND_SERVICE: u64 = 1 << 10;
const NET_ADMIN: u64 = 1 << 12;
const PERFMON: u64 = 1 << 38;
const BPF: u64 = 1 << 39;
/// What every gateway keeps.
const LEAST: u64 = NET_BIND_SERVICE | DAC_READ_SEARCH;
/// A user other than the gateway's: `nobody`.
const STRANGER: u32 = 65_534;

/// A number in hexadecimal of a file `status` in /proc.
fn field(status: &str, name: &str) -> u64 {
    let mut lines = status.lines();
    let line = lines.find_map(|line| line.strip_prefix(name));
    u64::from_str_radix(line.unwrap().trim(), 16).unwrap()
}

/// What the tests themselves may do, of which nobody that they start can have more.
fn own() -> u64 {
    let own = field(&fs::read_to_string("/proc/self/status").unwrap(), "CapEff:");
    assert!(
        own & SETPCAP != 0,
        "the gateway has nothing to give up: run the tests as root"
    );
    own
}

/// Every thread has these and can have no others; nothing is inherited.
fn assert_holds(gateway: &Gateway, expected: u64) {
    assert_holds_with(gateway, expected, 0);
}

/// The same where programs that are started inherit these.
fn assert_holds_with(gateway: &Gateway, expected: u64, inherited: u64) {
    let expected = expected & own();
    let tasks = format!("/proc/{}/task", gateway.pid());
    let mut threads = 0;
    for task in fs::read_dir(tasks).unwrap() {
        // A thread may have ended meanwhile.
        let Ok(status) = fs::read_to_string(task.unwrap().path().join("status")) else {
            continue;
        };
        threads += 1;
        for (set, expected) in [
            ("CapEff:", expected),
            ("CapPrm:", expected),
            ("CapBnd:", expected),
            ("CapInh:", inherited),
            ("CapAmb:", inherited),
        ] {
            let found = field(&status, set);
            assert_eq!(found, expected, "{set} {found:x}, not {expected:x}");
        }
        assert_eq!(field(&status, "NoNewPrivs:"), 1);
    }
    assert!(threads > 2, "{threads} threads");
}

#[tokio::test]
#[cfg_attr(unprivileged, ignore = "needs root: cargo xtask test")]
async fn each_thread_keeps_what_the_configuration_needs_and_no_more() {
    let logs = TempDir::with_prefix("testkit-access-").unwrap();
    let log = logs.path().join("access.log");
    let log = log.to_str().unwrap();
    let bpf = BPF | NET_ADMIN | PERFMON;
    let with = |configure: fn(GatewayBuilder) -> GatewayBuilder| configure(port_gateway());
    for (gateway, expected) in [
        (with(|gateway| gateway), LEAST),
        (with(|gateway| gateway.set("DataPath", "relay")), LEAST),
        (with(|gateway| gateway.set("DataPath", "ktls")), LEAST),
        (
            with(|gateway| gateway.set("DataPath", "sockmap").plain()),
            LEAST | bpf,
        ),
        (port_gateway().set("AccessLog", log), LEAST | DAC_OVERRIDE),
        (
            with(|gateway| gateway.arg("run").arg("--take-over")),
            LEAST | DAC_OVERRIDE,
        ),
    ] {
        let gateway = gateway.spawn().await.unwrap();
        let host = Host::echo().await.unwrap();
        assert_opens(&gateway.tls(), &port_token(&host)).await;
        assert_holds(&gateway, expected);
        logged(&gateway, &["capabilities held=", "CAP_NET_BIND_SERVICE"]).await;
    }
}

#[tokio::test]
#[cfg_attr(unprivileged, ignore = "needs root: cargo xtask test")]
async fn what_it_inherits_and_does_not_need_it_does_not_pass_on() {
    let folder = TempDir::with_prefix("testkit-setpriv-").unwrap();
    let program = folder.path().join("start");
    let start = format!(
        "#!/bin/sh\nexec setpriv --inh-caps={0} --ambient-caps={0} {1} \"$@\"\n",
        "-all,+net_bind_service,+sys_admin",
        gateway_binary().unwrap().display(),
    );
    write_program(&program, &start).unwrap();
    let gateway = port_gateway().binary(program).spawn().await.unwrap();
    assert_holds_with(&gateway, LEAST, NET_BIND_SERVICE);
}

/// As where a filter of system calls forbids it.
#[tokio::test]
#[cfg_attr(unprivileged, ignore = "needs root: cargo xtask test")]
async fn where_the_system_refuses_to_take_them_it_says_so_and_serves() {
    ensure(&[Package::Strace]).unwrap();
    let folder = TempDir::with_prefix("testkit-strace-").unwrap();
    let program = folder.path().join("start");
    // With -D it is the gateway that has the number of the process that was started.
    let start = format!(
        "#!/bin/sh\nexec strace -D -qq -o {} -e trace=capset -e inject=capset:error=EPERM {} \"$@\"\n",
        folder.path().join("calls").display(),
        gateway_binary().unwrap().display(),
    );
    write_program(&program, &start).unwrap();
    let gateway = port_gateway().binary(program).spawn().await.unwrap();
    let warning = [
        "WARN cannot give up capabilities",
        "capset: Operation not permitted",
    ];
    logged(&gateway, &warning).await;
    let host = Host::echo().await.unwrap();
    assert_opens(&gateway.tls(), &port_token(&host)).await;
}

#[test]
#[cfg_attr(unprivileged, ignore = "needs root: cargo xtask test")]
fn it_still_opens_ports_of_root() {
    testkit::namespace::run(|| async {
        let gateway = port_gateway().set("SslPort", 443).spawn().await?;
        assert_holds(&gateway, LEAST);
        let host = Host::echo().await?;
        assert_opens(&gateway.tls(), &port_token(&host)).await;
        Ok(())
    })
    .unwrap();
}

#[tokio::test]
#[cfg_attr(unprivileged, ignore = "needs root: cargo xtask test")]
async fn a_renewed_key_of_another_user_is_read() {
    let gateway = port_gateway()
        .set("CertificatePoll", 0)
        .spawn()
        .await
        .unwrap();
    let fresh = TestCert::new().unwrap();
    gateway.cert().replace_files(&fresh).unwrap();
    let folder = gateway.cert().key_path();
    let folder = folder.parent().unwrap();
    for path in [&gateway.cert().key_path(), folder] {
        give_away(path);
    }
    gateway.signal(Signal::HUP).unwrap();
    logged(&gateway, &["INFO reloaded"]).await;
    assert_shows(&gateway, &fresh).await;
    assert_holds(&gateway, LEAST);
}

/// Only its new owner may use it, and whoever needs no permission.
fn give_away(path: &Path) {
    let is_dir = path.is_dir();
    chown(path, Some(STRANGER), Some(STRANGER)).unwrap();
    let mode = if is_dir { 0o700 } else { 0o600 };
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[tokio::test]
#[cfg_attr(unprivileged, ignore = "needs root: cargo xtask test")]
async fn the_status_names_them() {
    let port = testkit::net::free_port().unwrap();
    let gateway = port_gateway().set("AdminPort", port).spawn().await.unwrap();
    let admin = Endpoint::plain(([127, 0, 0, 1], port).into());
    let response = crate::support::get(&admin, "/status").await;
    let status: Value = serde_json::from_slice(response.body()).unwrap();
    assert_eq!(
        status["capabilities"],
        serde_json::json!(["CAP_DAC_READ_SEARCH", "CAP_NET_BIND_SERVICE"])
    );
    assert_holds(&gateway, LEAST);
}
