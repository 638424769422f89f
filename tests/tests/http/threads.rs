//! Systems that give no more threads, as `TasksMax=` of a unit and `RLIMIT_NPROC` make them, and
//! lookups of names that hang.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::Command;

use bytes::Bytes;
use futures_util::future::join_all;
use http::header::CONTENT_TYPE;
use http::{Response, StatusCode};
use tempfile::TempDir;
use testkit::flexvdi::FlexVdiClient;
use testkit::gateway::{GatewayBuilder, Signal};
use testkit::net::free_port;
use testkit::prelude::*;
use testkit::ws::{Connect, Outcome};

use crate::service::Notified;
use crate::support::{ask_desktop, assert_error, assert_opens, get, logged, port_gateway, refused};

/// What a gateway with two workers has, its first thread included; docs/operations.md says so.
const TASKS: u64 = 31;
/// Lookups of hosts' names at a time.
const HOST_LOOKUPS: usize = 16;
/// Lookups of the manager's name at a time.
const MANAGER_LOOKUPS: usize = 4;

/// A gateway with two workers that may have no more tasks than it needs.
fn tight(gateway: GatewayBuilder) -> GatewayBuilder {
    gateway.set("WorkerThreads", 2).tasks(TASKS)
}

#[tokio::test]
#[cfg_attr(unprivileged, ignore = "needs root: cargo xtask test")]
async fn a_start_without_threads_ends_with_a_reason_and_a_status_of_its_own() {
    for tasks in [1, 2, 3, 4, 6, 15, TASKS - 1] {
        let gateway = port_gateway().set("WorkerThreads", 2).tasks(tasks);
        let error = gateway.spawn().await.unwrap_err().to_string();
        assert!(error.contains("exit status: 71"), "{tasks}: {error}");
        let reason = format!("not enough threads: {} of {} ", tasks - 1, TASKS - 1);
        assert!(error.contains(&reason), "{tasks}: {error}");
        assert!(!error.contains("panicked"), "{tasks}: {error}");
    }
    let mut gateway = tight(port_gateway()).spawn().await.unwrap();
    assert_eq!(gateway.threads().unwrap().len() as u64, TASKS);
    assert!(gateway.terminate().await.unwrap().success());
    // The access log has one of its own.
    let dir = TempDir::new().unwrap();
    let recorded = tight(port_gateway()).set("AccessLog", dir.path().join("log").to_str());
    let error = recorded.spawn().await.unwrap_err().to_string();
    assert!(error.contains("exit status: 71"), "{error}");
}

#[tokio::test]
#[cfg_attr(unprivileged, ignore = "needs root: cargo xtask test")]
async fn a_gateway_that_gets_no_more_threads_does_all_that_it_did() {
    let host = Host::echo().await.unwrap();
    let by_name = DesktopAnswer::at("localhost", host.addr().port());
    let manager = Manager::spawn(by_name).await.unwrap();
    let admin = free_port().unwrap();
    let gateway = Gateway::builder()
        .set("ManagerIP", "localhost")
        .set("ManagerPort", manager.addr().port())
        .set("HealthChecksManager", true)
        .set("AdminPort", admin)
        // Longer than the runtime would keep a thread that has nothing to do, which is 10 s.
        .set("CertificatePoll", 12);
    let mut gateway = tight(gateway).spawn().await.unwrap();
    gateway.allow_no_more_tasks().unwrap();
    let threads = gateway.threads().unwrap();

    let renewed = TestCert::new().unwrap();
    gateway.cert().replace_files(&renewed).unwrap();
    logged(&gateway, &["INFO reloaded", "certificate"]).await;
    gateway.change_config(&[("Debug", true.into())]).unwrap();
    gateway.signal(Signal::HUP).unwrap();
    logged(&gateway, &["INFO reloaded", "Debug"]).await;

    let endpoint = gateway.tls();
    let client = FlexVdiClient::new(&endpoint);
    let ticket = client.desktop().await.unwrap().token;
    assert_opens(&endpoint, &ticket).await;
    manager.set_desktop(DesktopAnswer::new(host.addr()));
    let ticket = client.desktop().await.unwrap().token;
    assert_opens(&endpoint, &ticket).await;
    let admin = Endpoint::plain(([127, 0, 0, 1], admin).into());
    for (endpoint, path) in [
        (&endpoint, "/healthz"),
        (&admin, "/healthz"),
        (&admin, "/metrics"),
    ] {
        assert_eq!(get(endpoint, path).await.status(), StatusCode::OK, "{path}");
    }

    assert_eq!(gateway.threads().unwrap(), threads);
    assert!(gateway.terminate().await.unwrap().success());
    let log = gateway.log().await;
    assert!(!log.iter().any(|line| line.contains("panicked")), "{log:?}");
}

#[tokio::test]
#[cfg_attr(unprivileged, ignore = "needs root: cargo xtask test")]
async fn signs_of_life_go_on_when_there_are_no_more_threads() {
    let manager = Notified::new();
    let gateway = tight(port_gateway())
        .env("NOTIFY_SOCKET", &manager.path)
        // A sign each 12 s, and nothing else that would need a thread meanwhile: see above.
        .env("WATCHDOG_USEC", "24000000")
        .set("CertificatePoll", 0);
    let mut gateway = gateway.spawn().await.unwrap();
    gateway.allow_no_more_tasks().unwrap();
    for _ in 0..2 {
        manager.next_with("WATCHDOG=1").await;
    }
    gateway.signal(Signal::TERM).unwrap();
    manager.next_with("STOPPING=1").await;
    assert!(gateway.wait().await.unwrap().success());
}

/// Names without a dot, but for those of /etc/hosts, hang for whoever looks them up: the resolver
/// opens a FIFO without a writer, as hostname(7) says of `HOSTALIASES`.
struct Hanging {
    fifo: PathBuf,
    dir: TempDir,
}

impl Hanging {
    fn new() -> Self {
        let dir = TempDir::with_prefix("testkit-names-").unwrap();
        let fifo = dir.path().join("aliases");
        let made = Command::new("mkfifo").arg(&fifo).status().unwrap();
        assert!(made.success());
        Self { fifo, dir }
    }

    fn gateway(&self, gateway: GatewayBuilder) -> GatewayBuilder {
        gateway
            .env("HOSTALIASES", &self.fifo)
            // For when they do not hang any more.
            .env("RES_OPTIONS", "timeout:1 attempts:1")
            .env("LOCALDOMAIN", "")
    }

    /// Those that hang find an empty file, and so do others.
    fn release(&self) {
        const O_NONBLOCK: i32 = 0o4000;
        let writer = OpenOptions::new()
            .write(true)
            .custom_flags(O_NONBLOCK)
            .open(&self.fifo)
            .unwrap();
        let empty = self.dir.path().join("empty");
        File::create(&empty).unwrap();
        std::fs::rename(&empty, &self.fifo).unwrap();
        drop(writer);
    }
}

/// Answers to so many at once.
async fn all<F: Future<Output = Response<Bytes>>>(
    count: usize,
    ask: impl Fn() -> F,
) -> Vec<Response<Bytes>> {
    join_all((0..count).map(|_| ask())).await
}

/// Checks that some took too long, and that there was no thread for the others.
fn assert_shared(answers: &[Response<Bytes>], places: usize) {
    for (status, expected) in [
        (StatusCode::GATEWAY_TIMEOUT, places),
        (StatusCode::SERVICE_UNAVAILABLE, answers.len() - places),
    ] {
        let answers = answers.iter().filter(|answer| answer.status() == status);
        assert_eq!(answers.clone().count(), expected, "{status}");
        for answer in answers {
            assert_error(answer, status);
        }
    }
}

#[tokio::test]
async fn hosts_whose_names_hang_leave_everything_else_alone() {
    let names = Hanging::new();
    let host = Host::echo().await.unwrap();
    let port = host.addr().port();
    let manager = Manager::spawn(DesktopAnswer::new(host.addr()))
        .await
        .unwrap();
    let gateway = Gateway::builder()
        .manager(&manager)
        .set("ConnectTimeout", 4);
    let gateway = names.gateway(gateway).spawn().await.unwrap();
    let endpoint = gateway.tls();
    let client = FlexVdiClient::new(&endpoint);
    let mut tickets = Vec::new();
    for name in ["hanging", "localhost", "127.0.0.1"] {
        manager.set_desktop(DesktopAnswer::at(name, port));
        tickets.push(client.desktop().await.unwrap().token);
    }
    let [hanging, by_name, by_address] = &tickets[..] else {
        unreachable!("three of them")
    };
    let answers = all(HOST_LOOKUPS + 5, || refused(&endpoint, hanging)).await;
    assert_shared(&answers, HOST_LOOKUPS);
    let answer = refused(&endpoint, by_name).await;
    assert_error(&answer, StatusCode::SERVICE_UNAVAILABLE);
    logged(&gateway, &["host not reached", "no thread is free"]).await;
    assert_opens(&endpoint, by_address).await;
    // The manager's name has threads of its own, and so has what the gateway does for itself.
    client.desktop().await.unwrap();
    gateway.signal(Signal::HUP).unwrap();
    logged(&gateway, &["INFO reloaded"]).await;

    names.release();
    let works_again = async {
        let connect = Connect::new(&endpoint, by_name);
        while let Outcome::Refused(answer) = connect.clone().open().await.unwrap() {
            assert_error(&answer, StatusCode::SERVICE_UNAVAILABLE);
        }
    };
    within("a channel to a name", works_again).await.unwrap();
}

#[tokio::test]
async fn a_manager_whose_name_hangs_is_told_and_the_gateway_can_be_stopped() {
    let names = Hanging::new();
    let gateway = Gateway::builder()
        .set("ManagerIP", "hanging")
        .set("ManagerTimeout", 4)
        .set("ConnectTimeout", 2)
        .set("HealthChecksManager", true);
    let mut gateway = names.gateway(gateway).spawn().await.unwrap();
    let endpoint = gateway.tls();
    let ask = || async { ask_desktop(&endpoint).send().await.unwrap() };
    let answers = all(MANAGER_LOOKUPS + 3, ask).await;
    assert_shared(&answers, MANAGER_LOOKUPS);
    logged(
        &gateway,
        &["no answer from the manager", "no thread is free"],
    )
    .await;
    // Clients would take JSON for "Access denied" here.
    let answer = get(&endpoint, "/vdi/authmode").await;
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    let kind = &answer.headers()[CONTENT_TYPE];
    assert_eq!(kind, "text/plain; charset=utf-8");
    let answer = get(&endpoint, "/healthz").await;
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    // The lookups still hang.
    assert!(gateway.terminate().await.unwrap().success());
}
